//! What a node knows of its cluster: the same for every request that begins under it, replaced as a whole when something changes.

use crate::jobs::Job;
use crate::placement::{Domain, Node, NodeId, NodeState, Placement, Replica};
use crate::quorum::{Consistency, is_available, readers};
use model::{SeriesKey, Shard, ShardSet};
use std::collections::BTreeMap;

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The cluster's identity.
    pub cluster: u128,
    /// With which labels become ids.
    pub key: SeriesKey,
    /// This node.
    pub me: NodeId,
    /// Who holds what, with its epoch.
    pub placement: Placement,
    /// Copies of each shard that are wanted.
    pub replication_factor: u8,
    /// Every node that was not removed for good, this one too.
    pub nodes: BTreeMap<NodeId, Peer>,
    /// Every node that was, and what is remembered of it.
    pub gone: BTreeMap<NodeId, Departed>,
    /// The namespaces by name; `default` is always there.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The jobs at work and the last ones that are over, by their number.
    pub jobs: BTreeMap<u64, Job>,
    /// The leader of the control plane, if one is known. Reads and writes do not need it.
    pub leader: Option<NodeId>,
    /// Whether anything may have been acknowledged. As long as it is false the placement is not moved but replaced when nodes join, so a
    /// write begins only under a view in which this is true: who wants the first one proposes [`crate::state::Command::NoteData`] and
    /// waits for such a view.
    pub has_data: bool,
    /// Bytes a second of blocks that each node may fetch for the copies that it makes, if somebody has said so.
    pub move_bytes_per_second: Option<u64>,
    /// The autopilot takes no node for lost.
    pub autopilot_paused: bool,
    /// Who outside heals this cluster instead of the autopilot, if anybody, and the longest time between two renewals of its lease, in milliseconds.
    pub lease: Option<(String, u64)>,
}

/// A node of the cluster, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `host:port` where other nodes reach it.
    pub address: String,
    /// `host:port` of its HTTP API.
    pub http_address: String,
    /// Its failure domain.
    pub zone: Domain,
    /// Its share of the data relative to others.
    pub capacity: u32,
    /// What is agreed on.
    pub state: NodeState,
    /// What is believed: whether it answered lately. A guess that decides only who is asked first.
    pub health: Health,
    /// How often it was started, as far as is agreed on. A node that says less stands on an old copy of its directory.
    pub starts: u64,
}

/// A node that was removed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// `host:port` where other nodes reached it.
    pub address: String,
    /// Since when, in milliseconds since 1970; 0 if that is not known.
    pub at_ms: u64,
    /// Who took its place, if it was replaced.
    pub heir: Option<NodeId>,
}

/// How a node seems to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It answers.
    #[default]
    Up,
    /// It has not answered for a moment.
    Suspect,
    /// It has not answered for so long that nobody waits for it.
    Down,
}

/// How the samples of a namespace are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// For how long, in milliseconds; 0 for ever.
    pub retention_ms: u64,
    /// Whether a write waits for the fsync (else it follows within 200 ms).
    pub fsync: bool,
    /// Of writes that do not say.
    pub write: Consistency,
    /// Of reads that do not say.
    pub read: Consistency,
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace { retention_ms: 0, fsync: true, write: Consistency::Majority, read: Consistency::Majority }
    }
}

impl View {
    /// A cluster at rest, for tests and benchmarks: these nodes are up, hold what the placement says, and nothing else was ever asked of them.
    pub fn at_rest(cluster: u128, me: NodeId, nodes: &[Node], replicas: u8, placement: Placement) -> View {
        let peer = |node: &Node| Peer {
            address: format!("node-{}:7421", node.id),
            http_address: String::new(),
            zone: node.domain.clone(),
            capacity: node.capacity.get(),
            state: node.state,
            health: Health::Up,
            starts: 1,
        };
        View {
            cluster,
            key: SeriesKey::of_cluster(cluster),
            me,
            placement,
            replication_factor: replicas,
            nodes: nodes.iter().map(|node| (node.id, peer(node))).collect(),
            gone: BTreeMap::new(),
            namespaces: BTreeMap::from([("default".to_owned(), Namespace::default())]),
            jobs: BTreeMap::new(),
            leader: None,
            has_data: true,
            move_bytes_per_second: None,
            autopilot_paused: false,
            lease: None,
        }
    }

    /// Which change of the placement this is.
    pub fn epoch(&self) -> u64 {
        self.placement.epoch()
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.placement.shards().len() as u32
    }

    /// The shards of which `node` has, or is getting, a copy.
    pub fn held_by(&self, node: NodeId) -> ShardSet {
        let holds = |shard: &Shard| self.placement.replicas(*shard).iter().any(|r| r.node == node);
        (0..self.shards()).map(|shard| Shard(shard as u16)).filter(holds).collect()
    }

    /// The shards of which `node` has a copy that answers reads.
    pub fn readable_at(&self, node: NodeId) -> ShardSet {
        let reads = |shard: &Shard| readers(self.placement.replicas(*shard), Consistency::Majority).0;
        let holds = |shard: &Shard| reads(shard).contains(&node);
        (0..self.shards()).map(|shard| Shard(shard as u16)).filter(holds).collect()
    }

    /// Shards with fewer copies listed than are wanted, and shards of which a majority of the listed copies seems to be away.
    pub fn under_replicated(&self) -> (usize, usize) {
        let up = |node: NodeId| self.nodes.get(&node).is_some_and(|peer| peer.health != Health::Down);
        let (mut under, mut unavailable) = (0, 0);
        for replicas in self.placement.shards() {
            let (may, _) = readers(replicas, Consistency::Majority);
            let live = may.into_iter().filter(|node| up(*node)).count();
            under += usize::from(live < usize::from(self.replication_factor));
            unavailable += usize::from(!is_available(replicas, up));
        }
        (under, unavailable)
    }

    /// The fewest copies of any shard that answer reads and seem to be there.
    pub fn fewest_copies(&self) -> usize {
        let up = |node: NodeId| self.nodes.get(&node).is_some_and(|peer| peer.health != Health::Down);
        let live = |replicas: &Vec<Replica>| {
            readers(replicas, Consistency::Majority).0.into_iter().filter(|node| up(*node)).count()
        };
        self.placement.shards().iter().map(live).min().unwrap_or(0)
    }
}
