//! Who votes: up to five nodes, far from each other, with as few changes as possible.

use super::{Change, Membership};
use std::cmp::Reverse;

/// More voters make every agreement slower and are not needed: five survive two.
const VOTERS_MAX: usize = 5;

/// A node as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number as a member.
    pub member: u64,
    /// Its incarnation as a member.
    pub incarnation: u64,
    /// Its failure domain, widest first: region, zone, rack.
    pub zone: Vec<String>,
    /// Gone for ever.
    pub gone: bool,
    /// Away for so long that another shall vote instead of it, if there is one; it goes on as a learner when it is back.
    pub lost: bool,
    /// Is emptied, and goes when that is done: by then it must not vote any more, or nobody could agree to take its vote away.
    pub leaves: bool,
    /// Answers, and as a learner has caught up: it may be given a vote. A voter keeps its vote until it is gone.
    pub well: bool,
}

/// What to do next, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The change to propose.
    pub change: Change,
    /// For people.
    pub why: &'static str,
}

/// The next single step towards the best voters, or `None` when there is nothing to do. Every node follows at least as a learner;
/// `leader` keeps its vote.
pub fn choose_voters(nodes: &[Candidate], current: &Membership, leader: u64) -> Option<Step> {
    let step = |change, why| Some(Step { change, why });
    let is_member = |id: u64| current.voters.contains(&id) || current.learners.contains(&id);
    let mut nodes: Vec<&Candidate> = nodes.iter().collect();
    nodes.sort_by_key(|node| node.member);
    let known = |id: u64| nodes.iter().find(|node| node.member == id);
    let lost = |id: &&u64| **id != leader && known(**id).is_none_or(|node| node.gone);
    // A dead voter first: while it counts, every living one is needed the more.
    if let Some(id) = current.voters.iter().chain(&current.learners).find(lost) {
        return step(Change::Remove { member: *id }, "it is gone");
    }
    if let Some(new) = nodes.iter().find(|node| !node.gone && !is_member(node.member)) {
        let change = Change::AddLearner { member: new.member, incarnation: new.incarnation };
        return step(change, "it is new, and every node follows");
    }
    let votes = |node: &Candidate| current.voters.contains(&node.member);
    // Without this one, the others can still agree on something.
    let spared = |old: &Candidate| {
        let rest = || nodes.iter().filter(|node| votes(node) && node.member != old.member);
        2 * rest().filter(|node| node.well || node.member == leader).count() > rest().count()
    };
    let is_lost = |node: &Candidate| node.lost && votes(node) && node.member != leader && spared(node);
    if nodes.iter().any(|node| !node.gone && node.well && !votes(node))
        && let Some(old) = nodes.iter().find(|node| is_lost(node))
    {
        let change = Change::AddLearner { member: old.member, incarnation: old.incarnation };
        return step(change, "it has been away for too long");
    }
    let fit = |node: &Candidate| !node.gone && (node.well || votes(node));
    let stays = |node: &Candidate| !node.leaves || node.member == leader;
    let eligible: Vec<&Candidate> = nodes.iter().copied().filter(|node| fit(node) && stays(node)).collect();
    let first = *eligible.iter().find(|node| node.member == leader)?;
    // An even number survives no more than the odd one below.
    let count = (eligible.len() - 1 + eligible.len() % 2).min(VOTERS_MAX);
    let mut best = vec![first];
    while best.len() < count {
        let next = eligible
            .iter()
            .filter(|node| best.iter().all(|chosen| chosen.member != node.member))
            .min_by_key(|node| {
                let nearness: usize = best.iter().map(|chosen| common(chosen, node)).sum();
                (nearness, Reverse(votes(node)), node.member)
            })?;
        best.push(next);
    }
    let voters: Vec<&Candidate> = eligible.iter().copied().filter(|node| votes(node)).collect();
    let missing = best.iter().find(|node| !votes(node));
    let spare = voters.iter().rev().find(|node| best.iter().all(|chosen| chosen.member != node.member));
    match (missing, spare) {
        (Some(new), _) if voters.len() < count => {
            step(Change::Promote { member: new.member }, "there are too few voters")
        }
        (Some(new), Some(_)) if voters.len() == count && nearness(&best) < nearness(&voters) => {
            step(Change::Promote { member: new.member }, "the voters would be farther from each other")
        }
        // Two stay two: with one voter there would be a single copy that counts.
        (_, Some(old)) if voters.len() > count.max(2) => {
            let change = Change::AddLearner { member: old.member, incarnation: old.incarnation };
            step(change, "there are enough voters without it")
        }
        _ => {
            let old = nodes.iter().find(|node| votes(node) && !stays(node) && spared(node))?;
            let change = Change::AddLearner { member: old.member, incarnation: old.incarnation };
            step(change, "it leaves")
        }
    }
}

/// How many levels of their failure domains two nodes share.
fn common(a: &Candidate, b: &Candidate) -> usize {
    a.zone.iter().zip(&b.zone).take_while(|(a, b)| a == b).count()
}

fn nearness(nodes: &[&Candidate]) -> usize {
    let pairs = nodes.iter().enumerate().flat_map(|(i, a)| nodes[..i].iter().map(move |b| common(a, b)));
    pairs.sum()
}
