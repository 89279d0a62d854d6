//! What the cluster has agreed on: a state that changes only by commands, in the order in which Raft delivers them.
//!
//! Pure and deterministic: equal commands in equal order give equal states, and equal states have equal bytes
//! ([`State::encode`]; `docs/format/control-state.md`). No clock: who proposes a command puts the time into it.
//!
//! What must stay true:
//!
//! * The epoch of the placement grows by one with every change of it; a command that was computed from another epoch is refused.
//! * Once anything may have been acknowledged ([`State::has_data`], which never goes back), a placement is not adopted any more: copies
//!   have to be moved.
//! * A command with a token that was taken before changes nothing and is answered as then: a proposer that does not know what
//!   became of a command sends it again. The last [`TOKENS_MAX`] tokens are remembered.
//! * The number of a Raft member is given once. A node whose incarnation changed has lost its Raft log and gets a new number.
//! * The starts of a node only grow, and each belongs to one run: of two processes with a copy of one directory at most one is registered.
//! * A job and its first effect are agreed on at once ([`crate::jobs`]); of two that contradict each other the second is refused.
//! * A refusal changes nothing but the remembered token.

mod change;
pub(crate) mod codec;
mod command;
mod jobs;

pub use command::{Command, Fault, Outcome, Refusal, Request, Table};

use crate::faults::{Mistake, planted};
use crate::jobs::Job;
use crate::placement::{Domain, NodeId, NodeState, Placement, Policy, Target, compute};
use crate::view::Namespace;
use model::SeriesKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU8, NonZeroU32};

/// How many answers are remembered. A proposer tries again for seconds, and there are a few commands a second.
pub const TOKENS_MAX: usize = 1024;
/// The newest features that this program knows.
pub const FEATURES: u32 = 1;
/// Nodes that were not removed for good.
const NODES_MAX: usize = 256;
/// Copies of each shard.
const REPLICATION_FACTOR_MAX: u8 = 9;
/// Namespaces.
const NAMESPACES_MAX: usize = 256;
/// The longest address or name.
const TEXT_BYTES_MAX: usize = 255;
/// The longest record.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// The longest time between two renewals of a lease.
const LEASE_MS_MAX: u64 = 3_600_000;
/// All records of one table together: a snapshot must fit into a message.
const RECORDS_BYTES_MAX: usize = 8 << 20;

/// Whose data this is, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Random, drawn when the cluster was made.
    pub id: u128,
    /// How many shards there are.
    pub shards: u32,
}

impl Cluster {
    /// With which ids follow from labels.
    pub fn key(&self) -> SeriesKey {
        SeriesKey::of_cluster(self.id)
    }
}

/// What a node says of itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `host:port` where other nodes reach it.
    pub address: String,
    /// `host:port` of its HTTP API; may be empty.
    pub http_address: String,
    /// Where it stands.
    pub zone: Domain,
    /// Its share of the data relative to others, at least 1.
    pub capacity: u32,
    /// Joins without taking copies, until somebody says that it shall.
    pub standby: bool,
    /// Which start of its data directory this is, from 1.
    pub starts: u64,
    /// Random, drawn by the process: tells apart two that use copies of one directory.
    pub boot: u128,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As it said at its last registered start.
    pub profile: Profile,
    /// Of its data directory: one that was wiped has another.
    pub disk: u128,
    /// Of its Raft log.
    pub incarnation: u64,
    /// Its number as a Raft member.
    pub member: u64,
    /// What is expected of it.
    pub state: NodeState,
    /// What is remembered when it is gone for ever.
    pub gone: Gone,
}

/// What is remembered of a node that is gone for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Since when, in milliseconds since 1970 by the clock of who said so; 0 if nobody did.
    pub at_ms: u64,
    /// Who took its place, if it was replaced.
    pub heir: Option<NodeId>,
}

/// Something that a later step relies on, in its own bytes: a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Grows with every change; who changes it says which one it saw.
    pub revision: u64,
    /// Its owner's.
    pub bytes: Vec<u8>,
}

/// What was asked of the control plane itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The autopilot declares no node lost.
    pub autopilot_paused: bool,
    /// Somebody outside heals this cluster; the autopilot stands by.
    pub lease: Option<Lease>,
    /// Bytes a second of blocks that each node may fetch for copies; 0 for what it is configured with.
    pub move_bytes_per_second: u64,
}

/// Who heals this cluster instead of the autopilot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub holder: String,
    /// It ends when it was not renewed for so long, by the leader's clock.
    pub ttl_ms: u64,
    /// Grows with every renewal.
    pub renewals: u64,
}

/// Everything that is agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    cluster: Cluster,
    replication_factor: u8,
    feature_version: u32,
    has_data: bool,
    settings: Settings,
    nodes: BTreeMap<NodeId, Node>,
    members_given: u64,
    namespaces: BTreeMap<String, Namespace>,
    placement: Placement,
    jobs: Jobs,
    tombstones: Records,
    /// The place of the last command.
    applied: u64,
    answers: VecDeque<(u128, Result<Outcome, Refusal>)>,
}

/// Jobs by a number that is given once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Jobs {
    given: u64,
    all: BTreeMap<u64, Job>,
}

/// Records by a number that is given once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Records {
    given: u64,
    all: BTreeMap<u64, Record>,
}

impl State {
    /// Of a new cluster: its first node is member 1 and holds every shard.
    ///
    /// # Errors
    /// When there cannot be such a cluster.
    pub fn create(
        cluster: Cluster,
        replication_factor: u8,
        id: NodeId,
        (disk, incarnation): (u128, u64),
        profile: Profile,
        has_data: bool,
    ) -> Result<State, Refusal> {
        let placement = Placement::empty(cluster.shards).map_err(Refusal::invalid)?;
        let mut state = State {
            cluster,
            replication_factor: 1,
            feature_version: FEATURES,
            has_data: false,
            settings: Settings::default(),
            nodes: BTreeMap::new(),
            members_given: 0,
            namespaces: BTreeMap::from([("default".to_owned(), Namespace::default())]),
            placement,
            jobs: Jobs::default(),
            tombstones: Records::default(),
            applied: 0,
            answers: VecDeque::new(),
        };
        state.change(&Command::AddNode { id, disk, incarnation, cluster: cluster.id, profile })?;
        state.change(&Command::SetReplicationFactor { factor: replication_factor })?;
        state.change(&Command::SetNodeState { id, state: NodeState::Up })?;
        if let Some(adopt) = state.adoption() {
            state.change(&adopt)?;
        }
        state.has_data = has_data;
        Ok(state)
    }

    /// Whose data this is.
    pub fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// Copies of each shard that are wanted.
    pub fn replication_factor(&self) -> u8 {
        self.replication_factor
    }

    /// Which features all nodes may use.
    pub fn feature_version(&self) -> u32 {
        self.feature_version
    }

    /// Whether anything may have been acknowledged.
    pub fn has_data(&self) -> bool {
        self.has_data
    }

    /// What was asked of the control plane itself.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All nodes, those that are gone too.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// All namespaces.
    pub fn namespaces(&self) -> &BTreeMap<String, Namespace> {
        &self.namespaces
    }

    /// Who holds which shard.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Tombstones, by their number.
    pub fn records(&self, table: Table) -> &BTreeMap<u64, Record> {
        match table {
            Table::Tombstones => &self.tombstones.all,
        }
    }

    /// The jobs at work and the last ones that are over, by their number.
    pub fn jobs(&self) -> &BTreeMap<u64, Job> {
        &self.jobs.all
    }

    /// The place of the last command that was applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The node whose number as a member this is.
    pub fn node_of_member(&self, member: u64) -> Option<NodeId> {
        self.nodes.iter().find(|(_, node)| node.member == member).map(|(id, _)| *id)
    }

    /// The command that gives the nodes there are their shares; `None` when they have them, or when there may be data.
    pub fn adoption(&self) -> Option<Command> {
        if self.has_data && self.nodes.len() > 1 && !planted(Mistake::AdoptOverData) {
            return None;
        }
        let target = self.target()?;
        let placement = self.placement.adopt(&target);
        let from_epoch = self.placement.epoch();
        let differs = placement.shards() != self.placement.shards();
        (differs && target.copies > 0).then_some(Command::AdoptPlacement { from_epoch, placement })
    }

    /// Where every copy should be.
    pub fn target(&self) -> Option<Target> {
        self.target_without(&BTreeSet::new())
    }

    /// The same, known that these nodes do not answer now: it says which copies are live.
    pub fn target_without(&self, away: &BTreeSet<NodeId>) -> Option<Target> {
        let placed = |(id, node): (&NodeId, &Node)| {
            let mut placed = node.placed(*id)?;
            placed.state = match placed.state {
                NodeState::Up if away.contains(id) => NodeState::Down,
                // It has no share as it is.
                NodeState::Draining if away.contains(id) => NodeState::Lost,
                other => other,
            };
            Some(placed)
        };
        let nodes: Vec<_> = self.nodes.iter().filter_map(placed).collect();
        let replication_factor = NonZeroU8::new(self.replication_factor)?;
        let policy = Policy { replication_factor, shards: self.cluster.shards };
        compute(&self.placement, &nodes, &policy).ok()
    }

    /// Applies the command at a place in the order. A token that was taken before changes nothing and is answered as then.
    ///
    /// # Errors
    /// When the command makes no sense in this state; the text says what to do.
    pub fn apply(&mut self, index: u64, request: &Request) -> Result<Outcome, Refusal> {
        assert!(index > self.applied, "BUG: place {index} is applied again; this is at {}", self.applied);
        self.applied = index;
        if let Some((_, answer)) = self.answers.iter().find(|(token, _)| *token == request.token) {
            return answer.clone();
        }
        let answer = self.change(&request.command);
        self.answers.push_back((request.token, answer.clone()));
        if self.answers.len() > TOKENS_MAX {
            self.answers.pop_front();
        }
        answer
    }
}

impl Node {
    /// As placement sees it; `None` when it is gone.
    fn placed(&self, id: NodeId) -> Option<crate::placement::Node> {
        let capacity = NonZeroU32::new(self.profile.capacity)?;
        let domain = match planted(Mistake::IgnoreDomains) {
            true => Domain::default(),
            false => self.profile.zone.clone(),
        };
        let node = crate::placement::Node { id, domain, capacity, state: self.state };
        (self.state != NodeState::Gone).then_some(node)
    }
}

#[cfg(test)]
mod tests;
