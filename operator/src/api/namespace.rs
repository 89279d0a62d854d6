//! `SarsenNamespace`: the settings of a namespace of a database.

#![expect(clippy::duplicated_attributes, reason = "columns of one type")]

use super::DeletePolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of a namespace of a database. Removing it changes no data unless `deletionPolicy` says so.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sarsen.dev",
    version = "v1alpha1",
    kind = "SarsenNamespace",
    plural = "sarsennamespaces",
    namespaced,
    status = "NamespaceStatus",
    derive = "PartialEq",
    doc = "The settings of a namespace of a Sarsen database. Removing it changes no data unless its deletion policy says so.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Retention", type_ = "string", json_path = ".spec.retention"),
    printcolumn(
        name = "Applied",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Applied')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSpec {
    /// The `SarsenCluster` in the same Kubernetes namespace.
    #[x_kube(validation = Rule::new("self == oldSelf").message("cluster cannot be changed: make another SarsenNamespace"))]
    #[schemars(length(min = 1, max = 40))]
    pub cluster: String,

    /// The name of the namespace in the database.
    #[serde(default = "default_name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("name cannot be changed: make another SarsenNamespace"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// How long samples are kept: a duration such as `90d`, or `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^(forever|([0-9]{1,9}(ms|s|m|h|d|w|y))+)$"))]
    pub retention: Option<String>,

    /// When a write is acknowledged: `fsync` or `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["fsync", "interval"]))]
    pub durability: Option<String>,

    /// How many copies a query asks: `majority`, `all` or `one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["majority", "all", "one"]))]
    pub read_consistency: Option<String>,

    /// How many copies a write waits for: `majority`, `all` or `one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["majority", "all", "one"]))]
    pub write_consistency: Option<String>,

    /// Whether the namespace is deleted from the database together with this object.
    #[serde(default)]
    pub deletion_policy: DeletePolicy,
}

/// What became of the settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceStatus {
    /// The specification that this is about.
    pub observed_generation: i64,
    /// `Applied`.
    #[schemars(schema_with = "super::status::conditions")]
    pub conditions: Vec<Condition>,
}

fn default_name() -> String {
    "default".into()
}
