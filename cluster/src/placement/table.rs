//! The placement itself: who holds which shard now.

use super::error::Error;
use super::node::NodeId;
use super::target::Target;
use crate::faults::{Mistake, planted};
use crate::quorum::{Consistency, readers};
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
    /// Holds the shard until the one that initializes has it, and until enough replicas know that it goes.
    Leaving,
    /// Has become complete, and answers reads. Writes need the old replicas as well until enough of these know of it.
    Arrived,
}

/// One copy of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Where it is.
    pub node: NodeId,
    /// What it is.
    pub state: ReplicaState,
}

/// How far the move of a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not move.
    Settled,
    /// This node makes a copy. Reads need the old replicas, writes the old and the new.
    Copying(NodeId),
    /// Reads need the new replicas, writes the old and the new: until so many of the old ones know of it that no majority of them can answer
    /// reads as before.
    CutOver,
}

/// A change of one shard. `since` is [`Placement::changed`] of the shard as whoever wants the change saw it: an older wish is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Begins a move: [`Phase::Copying`], or [`Phase::CutOver`] at once if no copy comes.
    Begin {
        /// Of which shard.
        shard: Shard,
        /// The copy that goes.
        from: Option<NodeId>,
        /// The copy that comes.
        to: Option<NodeId>,
    },
    /// The copy that came has everything.
    CutOver {
        /// Of which shard.
        shard: Shard,
        /// When the shard last changed.
        since: u64,
    },
    /// Enough of the old replicas know of the cut-over: the move ends.
    Finish {
        /// Of which shard.
        shard: Shard,
        /// When the shard last changed.
        since: u64,
    },
    /// Gives a move up that has not come to its cut-over, or in which a copy only goes: all is as before it. (Until then each write was on a majority of all
    /// the copies, and any two of those and of the ones that would stay have one in common.)
    Cancel {
        /// Of which shard.
        shard: Shard,
        /// When the shard last changed.
        since: u64,
    },
}

/// Who holds which shard.
///
/// Invariants: replicas of a shard are ordered by node, each node at most once; at most one initializes or has arrived; at most one leaves, and the
/// one that initializes names it as its source. The epoch rises with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    epoch: u64,
    shards: Vec<Vec<Replica>>,
    /// By shard the epoch of its last change.
    changed: Vec<u64>,
}

impl Placement {
    /// The placement of a cluster that holds nothing: epoch 0, no replicas.
    pub fn empty(shards: u32) -> Result<Self, Error> {
        match shards.is_power_of_two() && shards <= 1 << 16 {
            true => Ok(Self {
                epoch: 0,
                shards: vec![Vec::new(); shards as usize],
                changed: vec![0; shards as usize],
            }),
            false => Err(Error::ShardCount { got: shards }),
        }
    }

    /// Builds one from its parts; the codec has checked the invariants.
    pub(super) fn from_parts(epoch: u64, shards: Vec<Vec<Replica>>, changed: Vec<u64>) -> Self {
        Self { epoch, shards, changed }
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

    /// Whether a node has, or is getting, a copy of anything.
    pub fn is_held_by(&self, node: NodeId) -> bool {
        self.shards.iter().flatten().any(|replica| replica.node == node)
    }

    /// The epoch at which a shard last changed. It names the move that is under way, and its phase.
    pub fn changed(&self, shard: Shard) -> u64 {
        self.changed.get(usize::from(shard.0)).copied().unwrap_or(0)
    }

    /// How far the move of a shard is.
    pub fn phase(&self, shard: Shard) -> Phase {
        let replicas = self.replicas(shard);
        let coming = |r: &&Replica| matches!(r.state, ReplicaState::Initializing { .. });
        match replicas.iter().find(coming) {
            Some(coming) => Phase::Copying(coming.node),
            None if replicas.iter().all(|r| r.state == ReplicaState::Available) => Phase::Settled,
            None => Phase::CutOver,
        }
    }

    /// The shards that move.
    pub fn moving(&self) -> impl Iterator<Item = Shard> {
        let shards = (0..self.shards.len()).map(|shard| Shard(shard as u16));
        shards.filter(|shard| self.phase(*shard) != Phase::Settled)
    }

    /// The replicas of a shard as they were before its move.
    pub fn old_replicas(&self, shard: Shard) -> Vec<NodeId> {
        let came = |state| matches!(state, ReplicaState::Initializing { .. } | ReplicaState::Arrived);
        self.replicas(shard).iter().filter(|r| !came(r.state)).map(|r| r.node).collect()
    }

    /// The nodes that must have everything before the move of a shard goes on: the copy that comes; or, where one only goes, those that stay. Of
    /// three copies two have each row that was acknowledged; when one goes, two must still.
    pub fn completing(&self, shard: Shard) -> Vec<NodeId> {
        let replicas = self.replicas(shard);
        match self.phase(shard) {
            Phase::Copying(to) => vec![to],
            Phase::CutOver if !has_arrived(replicas) && !planted(Mistake::DropUnpassed) => {
                replicas.iter().filter(|r| r.state == ReplicaState::Available).map(|r| r.node).collect()
            }
            Phase::CutOver | Phase::Settled => Vec::new(),
        }
    }

    /// The replicas of which each majority has every row that was acknowledged.
    pub fn holding(&self, shard: Shard) -> Vec<NodeId> {
        match self.completing(shard).is_empty() {
            true => readers(self.replicas(shard), Consistency::Majority).0,
            false => self.old_replicas(shard),
        }
    }

    /// The same with every cut-over at its end in which a copy has arrived: there is no way back from one.
    pub(super) fn settled(&self) -> Self {
        let mut next = self.clone();
        next.shards.iter_mut().filter(|replicas| has_arrived(replicas)).for_each(settle);
        next
    }

    /// Makes the target the placement at once. Only where no data can be: the caller knows that nothing was ever acknowledged.
    pub fn adopt(&self, target: &Target) -> Self {
        let available = |&node: &NodeId| Replica { node, state: ReplicaState::Available };
        let shards: Vec<Vec<Replica>> =
            target.shards.iter().map(|nodes| nodes.iter().map(available).collect()).collect();
        let epoch = self.epoch + 1;
        let changed = shards.iter().zip(&self.shards).zip(&self.changed);
        let changed = changed.map(|((new, old), since)| if new == old { *since } else { epoch }).collect();
        Self { epoch, shards, changed }
    }

    /// Makes changes, in order, in one new epoch: all, or none if one of them does not fit.
    pub fn change(&self, changes: &[Change]) -> Result<Self, Error> {
        let mut next = self.clone();
        next.epoch += 1;
        for change in changes {
            let (shard, since) = match *change {
                Change::Begin { shard, .. } => (shard, None),
                Change::CutOver { shard, since }
                | Change::Finish { shard, since }
                | Change::Cancel { shard, since } => (shard, Some(since)),
            };
            let unfit = |why| Error::Unfit { shard, why };
            let phase = next.phase(shard);
            let at = usize::from(shard.0);
            let replicas = next.shards.get_mut(at).ok_or(unfit("there is no such shard"))?;
            match (since, phase) {
                (None, Phase::Copying(_) | Phase::CutOver) => return Err(Error::Moving { shard }),
                (Some(_), Phase::Settled) => return Err(Error::NotMoving { shard }),
                (Some(since), _) if self.changed(shard) != since => {
                    return Err(unfit("it was made for a move, or a step of one, that is over"));
                }
                _ => {}
            }
            match (*change, phase) {
                (Change::Begin { from, to, .. }, _) => begin(replicas, from, to).map_err(unfit)?,
                (Change::CutOver { .. }, Phase::CutOver) => {
                    return Err(unfit("its cut-over has begun and only goes on"));
                }
                (Change::Cancel { .. }, Phase::CutOver) if has_arrived(replicas) => {
                    return Err(unfit("its cut-over has begun and only goes on"));
                }
                (Change::CutOver { .. }, _) => {
                    let coming = |r: &&mut Replica| matches!(r.state, ReplicaState::Initializing { .. });
                    replicas.iter_mut().filter(coming).for_each(|r| r.state = ReplicaState::Arrived);
                }
                (Change::Cancel { .. }, _) => {
                    replicas.retain(|r| !matches!(r.state, ReplicaState::Initializing { .. }));
                    replicas.iter_mut().for_each(|r| r.state = ReplicaState::Available);
                }
                (Change::Finish { .. }, Phase::CutOver) => settle(replicas),
                (Change::Finish { .. }, _) => return Err(unfit("its copy is not complete")),
            }
            next.changed[at] = next.epoch;
        }
        Ok(next)
    }
}

fn begin(replicas: &mut Vec<Replica>, from: Option<NodeId>, to: Option<NodeId>) -> Result<(), &'static str> {
    if to.is_some_and(|to| replicas.iter().any(|r| r.node == to)) {
        return Err("the destination has a copy already");
    }
    if from.is_none() && to.is_none() {
        return Err("nothing comes and nothing goes");
    }
    if let Some(from) = from {
        let last = replicas.len() == 1 && to.is_none();
        let leaves = replicas.iter_mut().find(|r| r.node == from).ok_or("the source has no copy")?;
        if last {
            return Err("the last copy cannot go");
        }
        leaves.state = ReplicaState::Leaving;
    }
    if let Some(node) = to {
        replicas.push(Replica { node, state: ReplicaState::Initializing { source: from } });
        replicas.sort_unstable();
    }
    Ok(())
}

/// Whether a copy has come that cannot be given up any more.
fn has_arrived(replicas: &[Replica]) -> bool {
    replicas.iter().any(|r| r.state == ReplicaState::Arrived)
}

/// The end of a move.
fn settle(replicas: &mut Vec<Replica>) {
    replicas.retain(|r| r.state != ReplicaState::Leaving);
    replicas.iter_mut().for_each(|r| r.state = ReplicaState::Available);
}
