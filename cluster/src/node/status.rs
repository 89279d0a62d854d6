//! What a node tells of itself and its cluster.

use super::hints::HintStatus;
use crate::control::{CopyStatus, Sighting};
use crate::jobs::Outlook;
use crate::placement::NodeId;
use crate::repair;
use crate::transport::{Queues, Snapshot};
use crate::view::View;
use model::{Damage, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the cluster and one node's part in it are.
#[derive(Clone, Debug)]
pub struct Status {
    /// Nodes, placement with its epoch, leader, namespaces.
    pub view: Arc<View>,
    /// Whether every shard has its copies.
    pub shards: Shards,
    /// How the nodes are: what each last told the leader, and when.
    pub health: Arc<Vec<(NodeId, Sighting)>>,
    /// How far the work on copies is, as the leader last told.
    pub outlook: Arc<Outlook>,
    /// For how long this node has seen shards with fewer copies than are wanted, since it was started.
    pub short_ms: u64,
    /// At the leader: how far the copies are of shards that move. Elsewhere nothing.
    pub copies: Arc<BTreeMap<Shard, CopyStatus>>,
    /// Who votes in the control plane.
    pub voters: Arc<BTreeSet<NodeId>>,
    /// What this node sent and received.
    pub transport: Snapshot,
    /// What waits on the way to each peer.
    pub queues: BTreeMap<NodeId, Queues>,
    /// What this node's repair has found and done.
    pub repair: repair::Progress,
    /// What this node keeps for nodes that missed a write.
    pub hints: HintStatus,
    /// Where this node's own copies may lack samples.
    pub damage: Vec<Damage>,
    /// Messages of the control plane that were refused.
    pub control_refused: u64,
}

/// Shards by how safe they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    /// All.
    pub total: u32,
    /// With fewer live copies than wanted.
    pub under_replicated: u32,
    /// Without a live majority.
    pub unavailable: u32,
    /// That move.
    pub moving: u32,
    /// The fewest whole copies of any one that seem to be there.
    pub min_copies: u32,
}
