//! What can be wrong with a request to place or to move.

use super::node::NodeId;
use model::Shard;

/// Why there is no placement, or none of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A failure domain's path cannot be read.
    #[error("failure domain {path:?} {why}; write it like eu/zone-a/rack-3")]
    Domain {
        /// What was given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number of shards that ids cannot be divided into.
    #[error("{got} shards: their number is a power of two from 1 to 65536")]
    ShardCount {
        /// What was asked for.
        got: u32,
    },
    /// A policy for another number of shards than the placement has.
    #[error(
        "the placement has {have} shards and the policy {want}: their number is fixed when a cluster is made"
    )]
    ShardsDiffer {
        /// Shards of the placement.
        have: u32,
        /// Shards of the policy.
        want: u32,
    },
    /// One id stands for two nodes.
    #[error("node {node} is listed twice: give one of them a new data directory")]
    DuplicateNode {
        /// The id.
        node: NodeId,
    },
    /// More nodes than the computation is made for.
    #[error("{got} nodes: a cluster has at most {max}")]
    TooManyNodes {
        /// How many were given.
        got: usize,
        /// How many are possible.
        max: usize,
    },
    /// The placement holds data, so that copies must be moved and not just listed elsewhere.
    #[error("shard {} has copies already: change the placement by moves", shard.0)]
    NotEmpty {
        /// The first such shard.
        shard: Shard,
    },
    /// Another move of this shard is under way; a shard has one at a time.
    #[error("shard {} is moving already: wait for that move or cancel it", shard.0)]
    Moving {
        /// The shard.
        shard: Shard,
    },
    /// The shard has no move to finish or to cancel.
    #[error("shard {} is not moving", shard.0)]
    NotMoving {
        /// The shard.
        shard: Shard,
    },
    /// A move that does not fit the placement (any more).
    #[error("the move of shard {} does not fit the placement: {why}; make a new plan", shard.0)]
    Unfit {
        /// The shard.
        shard: Shard,
        /// What does not fit.
        why: &'static str,
    },
    /// Bytes that are no placement.
    #[error("malformed placement at byte {offset}: {what}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What was expected.
        what: &'static str,
    },
    /// A placement of a version of Sarsen that this one does not know.
    #[error("the placement's format is version {got}, this program reads up to {known}: upgrade this node")]
    Version {
        /// The version found.
        got: u8,
        /// The newest version known.
        known: u8,
    },
}
