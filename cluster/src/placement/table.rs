//! The placement itself: who holds which shard now.

use super::error::Error;
use super::node::NodeId;
use super::plan::Move;
use super::target::Target;
use model::Shard;

/// What a replica is in the life of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaState {
    /// Receives a copy and every new write; answers no reads yet.
    Initializing {
        /// The replica that goes when this one is done; `None` when this one comes in addition. (The copy is made from all that are
        /// live.)
        source: Option<NodeId>,
    },
    /// Holds the shard.
    Available,
    /// Holds the shard until the one that initializes has it.
    Leaving,
}

/// One copy of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Where it is.
    pub node: NodeId,
    /// What it is.
    pub state: ReplicaState,
}

/// Who holds which shard.
///
/// Invariants: replicas of a shard are ordered by node, each node at most once; at most one initializes; one leaves exactly when the one that
/// initializes names it as its source. The epoch rises with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    epoch: u64,
    shards: Vec<Vec<Replica>>,
}

impl Placement {
    /// The placement of a cluster that holds nothing: epoch 0, no replicas.
    pub fn empty(shards: u32) -> Result<Self, Error> {
        match shards.is_power_of_two() && shards <= 1 << 16 {
            true => Ok(Self { epoch: 0, shards: vec![Vec::new(); shards as usize] }),
            false => Err(Error::ShardCount { got: shards }),
        }
    }

    /// Builds one from its parts; the codec has checked the invariants.
    pub(super) fn from_parts(epoch: u64, shards: Vec<Vec<Replica>>) -> Self {
        Self { epoch, shards }
    }

    /// Which change this is the result of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The replicas of every shard.
    pub fn shards(&self) -> &[Vec<Replica>] {
        &self.shards
    }

    /// The replicas of one shard; none for a shard that does not exist.
    pub fn replicas(&self, shard: Shard) -> &[Replica] {
        self.shards.get(usize::from(shard.0)).map_or(&[], Vec::as_slice)
    }

    /// Makes the target the placement at once. Only where no data can be: the caller knows that nothing was ever acknowledged.
    pub fn adopt(&self, target: &Target) -> Self {
        let available = |&node: &NodeId| Replica { node, state: ReplicaState::Available };
        let shards = target.shards.iter().map(|nodes| nodes.iter().map(available).collect()).collect();
        Self { epoch: self.epoch + 1, shards }
    }

    /// Begins a move. A replica that goes without another coming goes at once.
    pub fn begin(&self, step: &Move) -> Result<Self, Error> {
        let shard = step.shard;
        let unfit = |why| Error::Unfit { shard, why };
        let mut next = self.clone();
        let replicas = next.shards.get_mut(usize::from(shard.0)).ok_or(unfit("there is no such shard"))?;
        if replicas.iter().any(|r| r.state != ReplicaState::Available) {
            return Err(Error::Moving { shard });
        }
        if step.to.is_some_and(|to| replicas.iter().any(|r| r.node == to)) {
            return Err(unfit("the destination has a copy already"));
        }
        if let Some(from) = step.from {
            let at = replicas.iter().position(|r| r.node == from).ok_or(unfit("the source has no copy"))?;
            match step.to {
                Some(_) => replicas[at].state = ReplicaState::Leaving,
                None if replicas.len() == 1 => return Err(unfit("the last copy cannot go")),
                None => drop(replicas.remove(at)),
            }
        }
        if let Some(node) = step.to {
            replicas.push(Replica { node, state: ReplicaState::Initializing { source: step.from } });
            replicas.sort_unstable();
        }
        next.epoch += 1;
        Ok(next)
    }

    /// Ends the move of a shard: the new replica has everything.
    pub fn finish(&self, shard: Shard) -> Result<Self, Error> {
        self.end(shard, |state| match state {
            ReplicaState::Leaving => None,
            _ => Some(ReplicaState::Available),
        })
    }

    /// Gives the move of a shard up: all is as before it.
    pub fn cancel(&self, shard: Shard) -> Result<Self, Error> {
        self.end(shard, |state| match state {
            ReplicaState::Initializing { .. } => None,
            _ => Some(ReplicaState::Available),
        })
    }

    fn end(
        &self,
        shard: Shard,
        becomes: impl Fn(ReplicaState) -> Option<ReplicaState>,
    ) -> Result<Self, Error> {
        if self.replicas(shard).iter().all(|r| r.state == ReplicaState::Available) {
            return Err(Error::NotMoving { shard });
        }
        let mut next = self.clone();
        let replicas = &mut next.shards[usize::from(shard.0)];
        *replicas = replicas
            .iter()
            .filter_map(|r| becomes(r.state).map(|state| Replica { node: r.node, state }))
            .collect();
        next.epoch += 1;
        Ok(next)
    }
}
