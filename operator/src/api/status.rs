//! What the operator says of a cluster. Nothing of it is ever read back to decide something, but the highest serial number of an instance, and at the API server
//! whether there ever was one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The specification that this is about.
    pub observed_generation: i64,
    /// What goes on, in a word, for people.
    pub phase: String,
    /// The same in a sentence.
    pub message: String,
    /// Instances that are ready, of those wanted: `6/6`.
    pub ready: String,
    /// Shards that have all their copies, of all: `64/64`.
    pub shards: String,
    /// Instances that take the place of others now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replacing: String,
    /// The version that all nodes run; while it changes, both.
    pub version: String,
    /// The database's own id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// The epoch of the placement.
    pub placement_epoch: u64,
    /// Group by group.
    #[schemars(length(max = 64))]
    pub groups: Vec<GroupStatus>,
    /// Instances that take the place of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replacements: Vec<ReplacementStatus>,
    /// What is so, and why.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

impl ClusterStatus {
    /// The highest number that an instance of a group was ever named with, as far as it was said.
    pub fn last_serial(&self, group: &str) -> u64 {
        self.groups.iter().find(|said| said.name == group).map_or(0, |said| said.last_serial)
    }
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupStatus {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Nodes wanted.
    pub desired: u32,
    /// Instances that exist and are to stay.
    pub instances: u32,
    /// Instances that are to go and have not gone yet.
    pub leaving: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods as the specification says.
    pub updated: u32,
    /// Copies that are being made on it.
    pub initializing_shards: u32,
    /// The highest number that an instance of it was ever named with.
    pub last_serial: u64,
}

/// One instance that takes the place of another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplacementStatus {
    /// Who goes.
    pub old: String,
    /// Who comes; empty before it is made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub new: String,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub step: String,
    /// Since when (RFC 3339).
    pub started_at: String,
    /// Copied so far.
    pub bytes_done: u64,
    /// Of so many.
    pub bytes_total: u64,
    /// How long it will take, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// What it waits for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Kubernetes' usual conditions, one of each type.
pub(super) fn conditions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "message": { "type": "string", "maxLength": 32768 },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "reason": { "type": "string" },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "type": { "type": "string" },
            },
        },
    })
}
