//! The API: what a person writes, and what the operator answers.
//!
//! Two kinds in `sarsen.dev/v1alpha1`: [`SarsenCluster`] is a database, [`SarsenNamespace`] the settings of one of its namespaces. What must hold
//! of a specification alone, or of a change of it, is a CEL rule that the API server checks; what depends on the rest of the world is
//! found by the plan and said in the condition `SpecValid`.

#[cfg(test)]
pub(crate) mod admission;
mod cluster;
mod duration;
mod namespace;
mod schema;
mod status;

pub use cluster::*;
pub use duration::{Grace, Span};
pub use namespace::*;
pub use schema::crds;
pub use status::*;

/// The group of all kinds, and the prefix of labels and annotations.
pub const GROUP: &str = "sarsen.dev";

/// Labels and annotations on what the operator makes. What is durable of its decisions is in the annotations of claims, and in the database's placement.
pub mod names {
    /// On everything: the name of the cluster.
    pub const CLUSTER: &str = "sarsen.dev/cluster";
    /// On claims and pods: the group, which is the failure domain.
    pub const GROUP: &str = "sarsen.dev/group";
    /// On claims and pods: the instance, whose name is never used again.
    pub const INSTANCE: &str = "sarsen.dev/instance";
    /// On pods: the hash of what they were made from.
    pub const SPEC_HASH: &str = "sarsen.dev/spec-hash";

    /// On claims: the instance that this one is to take the place of. Taken off when it has everything.
    pub const REPLACES: &str = "sarsen.dev/replaces";
    /// On claims: why it takes that place.
    pub const REPLACES_WHY: &str = "sarsen.dev/replaces-reason";
    /// On claims: when that was begun.
    pub const REPLACES_SINCE: &str = "sarsen.dev/replaces-since";
    /// On claims: since when there is evidence that the instance is lost, and of which kind.
    pub const SUSPECT_SINCE: &str = "sarsen.dev/suspect-since";
    /// The kind.
    pub const SUSPECT_WHY: &str = "sarsen.dev/suspect-reason";
    /// On claims: the instance is to go, since the group has fewer nodes now.
    pub const LEAVING: &str = "sarsen.dev/leaving";
    /// On claims: the instance is gone from the placement for ever, since then.
    pub const RETIRED: &str = "sarsen.dev/retired-since";
    /// On claims: the database's name for the node.
    pub const NODE_ID: &str = "sarsen.dev/node-id";
    /// On claims: the cluster that the data on it belongs to, or [`NO_CLUSTER`]. A claim without it was made by another hand, and may have anything on it.
    pub const CLUSTER_ID: &str = "sarsen.dev/cluster-id";
    /// On a new claim, until there is a database that somebody is let write to.
    pub const NO_CLUSTER: &str = "none";
    /// On claims: this is the instance that creates the cluster. Written before it is told to.
    pub const CREATES: &str = "sarsen.dev/creates-cluster";
    /// On claims: the machine that the pod ran on, by name, uid and machine id.
    pub const HOST: &str = "sarsen.dev/host";
    /// The uid.
    pub const HOST_UID: &str = "sarsen.dev/host-uid";
    /// The machine id.
    pub const HOST_MACHINE: &str = "sarsen.dev/host-machine-id";

    /// Set by people on a claim: replace this instance now.
    pub const REPLACE: &str = "sarsen.dev/replace";
    /// Set by people on a cluster: do nothing.
    pub const PAUSE: &str = "sarsen.dev/pause";

    /// The readiness gate of pods: every copy that the instance is to have is there.
    pub const GATE: &str = "sarsen.dev/shards-available";
    /// The finalizer of clusters.
    pub const FINALIZER: &str = "sarsen.dev/cluster";
    /// The finalizer of namespaces that are to be deleted from the database with their object.
    pub const NAMESPACE_FINALIZER: &str = "sarsen.dev/namespace";
}
