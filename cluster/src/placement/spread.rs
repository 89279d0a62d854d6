//! How the copies of one shard spread over the failure domains.
//!
//! The measure is the number of pairs of copies that share a domain, at the highest level of the tree; among the ways that
//! are best there, at the next level; and so on down. (Pairs at a level where all nodes are in one domain are equal for all
//! ways: such a level decides nothing.) With at least as many domains as copies the best is no pair, so never two in one
//! domain; with fewer, the copies are spread as evenly as the domains' sizes allow, and return when domains do.
//!
//! The measure is a sum of strictly convex functions of the counts in a laminar family, so the best ways are *exactly* those
//! whose count in each vertex of the tree is within an interval of length at most one. Those intervals are what the rest works with.

use super::tree::Tree;
use std::ops::RangeInclusive;

/// How many copies of any one shard each vertex of the tree holds, at least and at most. `copies` are at most as many as there are nodes.
pub(super) fn intervals(tree: &Tree, copies: usize) -> Vec<RangeInclusive<u32>> {
    let paths: Vec<Vec<usize>> = tree.leaves().map(|leaf| tree.path(leaf)).collect();
    let mut count = vec![0u32; tree.len()];
    let mut chosen = vec![false; paths.len()];
    // Each step costs, level by level, a pair with each copy that is in the domain already. For such functions taking the
    // cheapest step is optimal.
    for _ in 0..copies {
        let cost = |node: &usize| paths[*node].iter().map(|&v| count[v]).chain(std::iter::repeat(0));
        let depth = |node: &usize| paths[*node].len();
        let free = (0..paths.len()).filter(|&node| !chosen[node]);
        let best = free.min_by(|a, b| {
            let levels = depth(a).max(depth(b));
            cost(a).take(levels).cmp(cost(b).take(levels))
        });
        let Some(best) = best else { break };
        chosen[best] = true;
        count[0] += 1;
        paths[best].iter().for_each(|&v| count[v] += 1);
    }
    // Any two best ways differ by exchanges that cost nothing each; so those show every count that is possible.
    let mut bounds: Vec<(u32, u32)> = count.iter().map(|&n| (n, n)).collect();
    for from in (0..paths.len()).filter(|&node| chosen[node]) {
        for to in (0..paths.len()).filter(|&node| !chosen[node]) {
            let shared = paths[from].iter().zip(&paths[to]).take_while(|(a, b)| a == b).count();
            let (left, entered) = (&paths[from][shared..], &paths[to][shared..]);
            let levels = left.len().max(entered.len());
            let before = |level: usize| left.get(level).map_or(0, |&v| count[v] - 1);
            let after = |level: usize| entered.get(level).map_or(0, |&v| count[v]);
            if (0..levels).all(|level| before(level) == after(level)) {
                left.iter().for_each(|&v| bounds[v].0 = count[v] - 1);
                entered.iter().for_each(|&v| bounds[v].1 = count[v] + 1);
            }
        }
    }
    bounds.into_iter().map(|(least, most)| least..=most).collect()
}
