//! How many copies each node and each domain should hold: its fair share of the load.
//!
//! In proportion to capacity alone, a node's share of all copies could be more than one of each shard, or a domain's more
//! than the spread lets it have. So the fair share is the best that *is* possible: among all ways to hold the copies within
//! the intervals of [`spread`](super::spread), fractions of copies allowed, the one that makes the highest load relative to capacity
//! as low as can be, then the second highest, and so on. It exists, is unique, and is what water does: a common level rises in all
//! nodes until a node or a domain is full (or, from the other side, must take its least), and those go on without it.
//!
//! A fair share is a fraction; what is demanded is the share rounded down or up, for nodes and domains alike. Since the bounds are
//! integers on a laminar family, shares rounded that way can always be met together.
//!
//! All arithmetic is exact: an amount below a vertex is `fixed + slope × level` between two levels, with integer coefficients.

use super::tree::Tree;
use std::cmp::Ordering;
use std::ops::RangeInclusive;

/// A level: copies per unit of capacity.
#[derive(Clone, Copy, Debug)]
struct Level {
    numerator: i128,
    /// Above 0.
    denominator: i128,
}

impl Level {
    const EMPTY: Self = Self { numerator: 0, denominator: 1 };

    /// Numerators are below 2^40 (copies), denominators below 2^42 (capacities): the products fit.
    fn cmp(self, other: Self) -> Ordering {
        (self.numerator * other.denominator).cmp(&(other.numerator * self.denominator))
    }
}

/// What a subtree holds around some level.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    fixed: i128,
    slope: i128,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self { fixed: self.fixed + other.fixed, slope: self.slope + other.slope }
    }

    /// The level at which this reaches `target`; `None` when it does not rise.
    fn level_at(self, target: i128) -> Option<Level> {
        let rises = self.slope > 0;
        rises.then_some(Level { numerator: target - self.fixed, denominator: self.slope })
    }

    fn rounded(self, level: Level) -> RangeInclusive<u64> {
        let copies = self.fixed * level.denominator + self.slope * level.numerator;
        let down = copies.div_euclid(level.denominator);
        let up = down + i128::from(copies.rem_euclid(level.denominator) != 0);
        down as u64..=up as u64
    }
}

/// What a subtree holds at every level: constant at first, then changing its coefficients at certain levels.
#[derive(Default)]
struct Curve {
    start: Amount,
    changes: Vec<(Level, Amount)>,
}

impl Curve {
    /// Cuts the curve off below `least` and above `most`; returns at which levels it is free of either.
    fn clamp(&mut self, least: i128, most: i128) -> (Level, Option<Level>) {
        let mut now = self.start;
        let (mut from, mut to) = (None, None);
        let mut changes = Vec::new();
        let ends = self.changes.iter().map(|&(level, change)| (Some(level), change));
        for (end, change) in ends.chain([(None, Amount::default())]) {
            // Between the last change and `end` the amount is `now`. Is a bound reached there?
            let reached = |bound: i128, least: Level| {
                let flat = (now.slope == 0 && now.fixed >= bound).then_some(least);
                let level = flat.or_else(|| now.level_at(bound))?;
                end.is_none_or(|end| level.cmp(end).is_le()).then_some(level)
            };
            if from.is_none() {
                from = reached(least, Level::EMPTY);
                if let Some(level) = from {
                    // From here on what is below counts; so far it was the bound.
                    let below = if now.slope == 0 { now.fixed } else { least };
                    self.start = Amount { fixed: below.max(least), slope: 0 };
                    changes.push((level, Amount { fixed: now.fixed - self.start.fixed, slope: now.slope }));
                }
            }
            if let Some(from) = from {
                to = reached(most, from);
                if let Some(level) = to {
                    changes.push((level, Amount { fixed: most - now.fixed, slope: -now.slope }));
                    break;
                }
                changes.extend(end.map(|end| (end, change)));
            }
            now = now.plus(change);
        }
        self.changes = changes;
        (from.expect("BUG: the spread asks for more copies than there are nodes"), to)
    }
}

/// The least and the most copies that each vertex of the tree should hold: its fair share, rounded down and up.
///
/// `capacities` are those of the leaves; `per_shard` are the spread's intervals.
pub(super) fn shares(
    tree: &Tree,
    capacities: &[u32],
    per_shard: &[RangeInclusive<u32>],
    shards: u32,
) -> Vec<RangeInclusive<u64>> {
    let bounds = |v: usize| {
        let all = |copies: u32| i128::from(copies) * i128::from(shards);
        (all(*per_shard[v].start()), all(*per_shard[v].end()))
    };
    // Upwards: what each subtree would hold at each level.
    let mut curves: Vec<Curve> = (0..tree.len()).map(|_| Curve::default()).collect();
    let mut free = vec![(Level::EMPTY, None); tree.len()];
    for v in (0..tree.len()).rev() {
        let mut curve = std::mem::take(&mut curves[v]);
        if tree.leaves().contains(&v) {
            let slope = i128::from(capacities[v - tree.leaves().start]);
            curve.changes.push((Level::EMPTY, Amount { fixed: 0, slope }));
        }
        curve.changes.sort_by(|(a, _), (b, _)| a.cmp(*b));
        let (least, most) = bounds(v);
        free[v] = curve.clamp(least, most);
        if v != 0 {
            let above = &mut curves[tree.parent[v]];
            above.start = above.start.plus(curve.start);
            above.changes.append(&mut curve.changes);
        }
    }
    // Downwards: the level that each subtree has, and whether it is the one above.
    let mut level = vec![free[0].0; tree.len()];
    let mut amount: Vec<Option<Amount>> = vec![None; tree.len()];
    for v in 1..tree.len() {
        let above = level[tree.parent[v]];
        let (from, to) = free[v];
        let (least, most) = bounds(v);
        let (own, bound) = match to {
            _ if above.cmp(from).is_lt() => (from, Some(least)),
            Some(to) if above.cmp(to).is_gt() => (to, Some(most)),
            _ => (above, None),
        };
        level[v] = own;
        amount[v] = bound.map(|fixed| Amount { fixed, slope: 0 });
    }
    amount[0] = Some(Amount { fixed: bounds(0).0, slope: 0 });
    // Upwards again: a subtree that is at the level above it holds what its parts hold there.
    let mut parts = vec![Amount::default(); tree.len()];
    let mut shares = vec![0..=0; tree.len()];
    for v in (0..tree.len()).rev() {
        if tree.leaves().contains(&v) {
            parts[v].slope = i128::from(capacities[v - tree.leaves().start]);
        }
        let held = amount[v].unwrap_or(parts[v]);
        shares[v] = held.rounded(level[v]);
        if v != 0 {
            let above = tree.parent[v];
            parts[above] = parts[above].plus(held);
        }
    }
    shares
}
