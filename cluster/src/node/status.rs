//! What a node tells of itself and its cluster.

use crate::view::View;
use std::sync::Arc;

/// How the cluster and one node's part in it are.
#[derive(Clone, Debug)]
pub struct Status {
    /// Nodes, placement with its epoch, leader, namespaces.
    pub view: Arc<View>,
    /// Whether every shard has its copies.
    pub shards: Shards,
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
}

impl Status {
    pub(super) fn new(view: Arc<View>) -> Status {
        let (under, unavailable) = view.under_replicated();
        let shards =
            Shards { total: view.shards(), under_replicated: under as u32, unavailable: unavailable as u32 };
        Status { view, shards }
    }
}
