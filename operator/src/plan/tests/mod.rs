//! The plan against a toy of the world: ten thousand histories of everything that can go wrong, and the ones that are worth a name.

mod creation;
mod disks;
mod histories;
mod interplay;
mod losses;
mod named;
mod networks;
mod story;
mod world;

use crate::api::{ClusterSpec, Span};
use serde_json::json;

/// A database of `nodes` nodes in each of three groups, with short graces.
fn spec(nodes: u32) -> ClusterSpec {
    let group =
        |name: &str| json!({ "name": name, "nodes": nodes, "topology": { "key": "zone", "values": [name] } });
    let mut spec: ClusterSpec = serde_json::from_value(json!({
        "image": "sarsen:1",
        "groups": [group("a"), group("b"), group("c")],
        "storage": { "size": "100Gi", "storageClassName": "local" },
    }))
    .unwrap();
    let policy = &mut spec.failure_policy;
    (policy.node_gone_grace, policy.pending_volume_grace) = (Span::seconds(60), Span::seconds(60));
    policy.node_not_ready_grace = Span::seconds(120);
    policy.retain_lost_volumes = Span::seconds(600);
    spec.rollout.progress_deadline = Span::seconds(600);
    spec
}
