//! What a job would do, before anything happens.

use super::Kind;
use crate::placement::{Move, NodeId, Placement, ReplicaState, plan};
use crate::state::{Refusal, State};
use model::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// What a job would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Its moves, in order.
    pub moves: Vec<Move>,
    /// Copies to be made.
    pub copies: u64,
    /// Bytes of these, roughly.
    pub bytes: u64,
    /// Bytes that the node which gets most of them gets: copies to different nodes are made side by side.
    pub bytes_to_one: u64,
    /// The fewest live copies that any shard has at any moment, as long as no node fails.
    pub fewest_live: usize,
    /// Moves of other jobs, or of none, that are made as well.
    pub others: usize,
    /// Shards that should change and have no live copy.
    pub stranded: Vec<Shard>,
    /// Why shards will not have all the copies that are wanted.
    pub shortfall: Option<String>,
}

/// What a job would do. `size` is what a copy of a shard has in bytes; the nodes that are `away` do not answer now.
///
/// # Errors
/// When it would be refused, with the same words.
pub fn preview(
    state: &State,
    kind: &Kind,
    lost: bool,
    away: &BTreeSet<NodeId>,
    size: impl Fn(Shard) -> u64,
) -> Result<Preview, Refusal> {
    let mut then = state.clone();
    match state.asked_before(kind, lost) {
        // Nothing more would be done for it.
        Some(answer) => drop(answer?),
        None => drop(then.begin(kind, lost, 0)?),
    }
    let target = then.target_without(away);
    let all = target.as_ref().map(|target| plan(then.placement(), target, size)).unwrap_or_default();
    let (moves, others): (Vec<Move>, Vec<Move>) = all.moves.into_iter().partition(|step| kind.owns(step));
    let mut to: BTreeMap<NodeId, u64> = BTreeMap::new();
    for step in &moves {
        if let Some(node) = step.to {
            *to.entry(node).or_default() += step.bytes;
        }
    }
    Ok(Preview {
        copies: moves.iter().filter(|step| step.to.is_some()).count() as u64,
        bytes: to.values().sum(),
        bytes_to_one: to.values().copied().max().unwrap_or(0),
        fewest_live: all.fewest_live,
        others: others.len(),
        stranded: all.stranded,
        shortfall: target.and_then(|target| target.shortfall()),
        moves,
    })
}

/// The bytes of a copy of each shard, roughly: series are spread over the shards by their hash, so that each of a node's whole copies has an equal
/// part of its data. What a node has besides (copies that were moved away, or that are being made) makes its part too large, hence the smallest.
pub fn sizes(placement: &Placement, data_bytes: impl Fn(NodeId) -> u64) -> Vec<u64> {
    let whole = |state: ReplicaState| !matches!(state, ReplicaState::Initializing { .. });
    let mut held: BTreeMap<NodeId, u64> = BTreeMap::new();
    for replica in placement.shards().iter().flatten().filter(|replica| whole(replica.state)) {
        *held.entry(replica.node).or_default() += 1;
    }
    let part: BTreeMap<NodeId, u64> =
        held.into_iter().map(|(node, shards)| (node, data_bytes(node) / shards)).collect();
    // Who has not said how much it has, says nothing.
    let known = |node: &NodeId| part.get(node).copied().filter(|bytes| *bytes > 0);
    let of = |replicas: &Vec<crate::placement::Replica>| {
        let holders = replicas.iter().filter(|replica| whole(replica.state));
        holders.filter_map(|replica| known(&replica.node)).min().unwrap_or(0)
    };
    placement.shards().iter().map(of).collect()
}
