//! How many copies must have answered.

use crate::faults::{Mistake, planted};
use crate::placement::{NodeId, Replica, ReplicaState};
use std::fmt;
use std::str::FromStr;

/// How many of a shard's replicas take part in a write or a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Any one.
    One,
    /// More than half: reads see every write that was acknowledged so.
    #[default]
    Majority,
    /// Every one.
    All,
}

impl Consistency {
    /// Of `replicas` replicas, how many.
    pub fn need(self, replicas: usize) -> usize {
        match self {
            Consistency::One => replicas.min(1),
            Consistency::Majority => replicas / 2 + 1,
            Consistency::All => replicas,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::One => "one",
            Consistency::Majority => "majority",
            Consistency::All => "all",
        })
    }
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(text: &str) -> Result<Consistency, String> {
        match text {
            "one" => Ok(Consistency::One),
            "majority" => Ok(Consistency::Majority),
            "all" => Ok(Consistency::All),
            _ => Err(format!("{text:?} is no consistency; it is `one`, `majority` or `all`")),
        }
    }
}

/// The replicas whose answers a write of one shard needs.
///
/// While a replica moves from A to D beside B and C, both {A, B, C} and {D, B, C} must have accepted it (joint majorities): neither the
/// old nor the new set alone may miss what was acknowledged. With `one`, any replica of those that are read is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteQuorum {
    /// One set, or the old and the new one.
    sets: Vec<Vec<NodeId>>,
    consistency: Consistency,
}

impl WriteQuorum {
    /// Of a shard with these replicas.
    pub fn new(replicas: &[Replica], consistency: Consistency) -> WriteQuorum {
        let set = |keep: fn(&ReplicaState) -> bool| -> Vec<NodeId> {
            replicas.iter().filter(|r| keep(&r.state)).map(|r| r.node).collect()
        };
        let old = set(|state| !matches!(state, ReplicaState::Initializing { .. } | ReplicaState::Arrived));
        let new = set(|state| *state != ReplicaState::Leaving);
        let sets = match consistency {
            Consistency::One => vec![readers(replicas, consistency).0],
            _ if old == new || planted(Mistake::OldMajorityOnly) => vec![old],
            _ => vec![old, new],
        };
        WriteQuorum { sets, consistency }
    }

    /// Whether these acknowledgements are enough.
    pub fn is_met(&self, acknowledged: impl Fn(NodeId) -> bool) -> bool {
        self.sets.iter().all(|set| {
            let have = set.iter().filter(|node| acknowledged(**node)).count();
            !set.is_empty() && have >= self.consistency.need(set.len())
        })
    }

    /// Whether it can still be met when these do not acknowledge any more.
    pub fn is_possible(&self, failed: impl Fn(NodeId) -> bool) -> bool {
        self.is_met(|node| !failed(node))
    }

    /// Have and need of the set that is furthest from enough, for people.
    pub fn shortfall(&self, acknowledged: impl Fn(NodeId) -> bool) -> (u8, u8) {
        let count = |set: &Vec<NodeId>| {
            let have = set.iter().filter(|node| acknowledged(**node)).count();
            (have as u8, self.consistency.need(set.len()).max(1) as u8)
        };
        self.sets.iter().map(count).max_by_key(|(have, need)| need.saturating_sub(*have)).unwrap_or((0, 1))
    }
}

/// The replicas that may answer reads of a shard, and how many must: those that hold everything. While one initializes these are the old ones, and
/// then the new ones.
pub fn readers(replicas: &[Replica], consistency: Consistency) -> (Vec<NodeId>, usize) {
    let initializing = |r: &&Replica| matches!(r.state, ReplicaState::Initializing { .. });
    let copying = replicas.iter().any(|r| initializing(&r)) && !planted(Mistake::ReadBeforeCutOver);
    let reads = |r: &&Replica| if copying { !initializing(r) } else { r.state != ReplicaState::Leaving };
    let may: Vec<NodeId> = replicas.iter().filter(reads).map(|r| r.node).collect();
    let need = consistency.need(may.len()).max(1);
    (may, need)
}

/// Whether majorities of a shard with these replicas can be read and written while only those are there that are up.
pub fn is_available(replicas: &[Replica], up: impl Fn(NodeId) -> bool) -> bool {
    let (may, need) = readers(replicas, Consistency::Majority);
    let reads = may.into_iter().filter(|node| up(*node)).count() >= need;
    reads && WriteQuorum::new(replicas, Consistency::Majority).is_possible(|node| !up(node))
}

/// Of `replicas` replicas, how many are in every majority: without one of so many there is none.
pub fn blocking(replicas: usize) -> usize {
    (replicas + 1).saturating_sub(Consistency::Majority.need(replicas))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u128, state: ReplicaState) -> Replica {
        Replica { node: NodeId(node), state }
    }

    fn met(replicas: &[Replica], consistency: Consistency, acknowledged: &[u128]) -> bool {
        WriteQuorum::new(replicas, consistency).is_met(|node| acknowledged.contains(&node.0))
    }

    #[test]
    fn a_majority_of_what_the_placement_lists_is_enough() {
        use ReplicaState::Available;
        let three = [1, 2, 3].map(|node| replica(node, Available));
        assert!(met(&three, Consistency::Majority, &[1, 3]));
        assert!(!met(&three, Consistency::Majority, &[2]));
        assert!(met(&three, Consistency::One, &[2]));
        assert!(!met(&three, Consistency::All, &[1, 2]));
        // Somebody else's word does not count.
        assert!(!met(&three, Consistency::Majority, &[1, 4, 5]));
        assert!(met(&three[..1], Consistency::Majority, &[1]));
        assert!(
            met(&three[..2], Consistency::Majority, &[1, 2])
                && !met(&three[..2], Consistency::Majority, &[1])
        );
        assert!(!met(&[], Consistency::One, &[]), "nobody has it");
    }

    #[test]
    fn while_a_replica_moves_both_sets_must_have_a_majority() {
        use ReplicaState::{Available, Initializing, Leaving};
        let moving = [
            replica(1, Leaving),
            replica(2, Available),
            replica(3, Available),
            replica(4, Initializing { source: Some(NodeId(1)) }),
        ];
        assert!(met(&moving, Consistency::Majority, &[2, 3]));
        assert!(met(&moving, Consistency::Majority, &[1, 2, 4]));
        assert!(!met(&moving, Consistency::Majority, &[1, 2]), "{{2, 3, 4}} would miss it");
        assert!(!met(&moving, Consistency::Majority, &[2, 4]), "{{1, 2, 3}} would miss it");
        assert!(!met(&moving, Consistency::One, &[4]), "no read asks it yet");
        assert_eq!(readers(&moving, Consistency::Majority), (vec![NodeId(1), NodeId(2), NodeId(3)], 2));
    }

    #[test]
    fn after_the_copy_is_complete_the_new_set_is_read_and_both_are_written() {
        use ReplicaState::{Arrived, Available, Leaving};
        let moving = [replica(1, Leaving), replica(2, Available), replica(3, Available), replica(4, Arrived)];
        assert_eq!(readers(&moving, Consistency::Majority), (vec![NodeId(2), NodeId(3), NodeId(4)], 2));
        assert!(met(&moving, Consistency::Majority, &[2, 3]));
        assert!(!met(&moving, Consistency::Majority, &[2, 4]), "{{1, 2, 3}} may still be read somewhere");
        assert!(!met(&moving, Consistency::Majority, &[1, 2]));
        assert!(met(&moving, Consistency::One, &[4]) && !met(&moving, Consistency::One, &[1]));
    }

    #[test]
    fn so_many_are_in_the_way_of_every_majority_and_one_less_is_not() {
        for replicas in 1..=9 {
            let majority = Consistency::Majority.need(replicas);
            assert!(
                replicas - blocking(replicas) < majority && replicas - blocking(replicas) + 1 >= majority
            );
        }
    }
}
