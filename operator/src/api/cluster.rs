//! `SarsenCluster`: a database.

use super::{ClusterStatus, Grace, Span, schema};
use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

// Rules about changes of groups stand at the specification and find the old group by its name: what stands at an element of a list compares it with the
// one of the same key at an API server, but with the one of the same index elsewhere. They compare what is in force for a group, its own storage or the
// cluster's, so that moving the same words from one to the other is no change.

// A group that nothing was ever made for, not even a claim, may still be corrected: where it is to be may have been mistyped.

/// What is still being emptied is not forgotten either.
const EMPTY_IF_REMOVED: &str = "oldSelf.spec.groups.all(o, self.spec.groups.exists(n, n.name == o.name) || (o.nodes == 0 \
&& (!has(oldSelf.status) || !has(oldSelf.status.groups) || !oldSelf.status.groups.exists(g, g.name == o.name \
&& (has(g.instances) && g.instances > 0 || has(g.leaving) && g.leaving > 0)))))";

/// Both have none, or the same one.
const SAME_TOPOLOGY: &str = "!has(oldSelf.status) || !has(oldSelf.status.groups) || self.spec.groups.all(n, \
oldSelf.status.groups.exists(g, g.name == n.name && has(g.lastSerial) && g.lastSerial == 0) \
|| oldSelf.spec.groups.all(o, n.name != o.name \
|| (has(n.topology) == has(o.topology) && (!has(n.topology) || n.topology == o.topology))))";

const NO_SMALLER_SIZE: &str = "oldSelf.groups.all(o, self.groups.all(n, n.name != o.name \
|| (has(n.storage) ? quantity(n.storage.size) : quantity(self.storage.size))\
.compareTo(has(o.storage) ? quantity(o.storage.size) : quantity(oldSelf.storage.size)) >= 0))";

/// `-` stands for none, which is the default class; a class of that name there cannot be. An empty name is something else: no class at all.
const SAME_CLASS: &str = "!has(oldSelf.status) || !has(oldSelf.status.groups) || self.spec.groups.all(n, \
oldSelf.status.groups.exists(g, g.name == n.name && has(g.lastSerial) && g.lastSerial == 0) \
|| oldSelf.spec.groups.all(o, n.name != o.name \
|| (has(n.storage) ? (has(n.storage.storageClassName) ? n.storage.storageClassName : '-') \
: (has(self.spec.storage.storageClassName) ? self.spec.storage.storageClassName : '-')) \
== (has(o.storage) ? (has(o.storage.storageClassName) ? o.storage.storageClassName : '-') \
: (has(oldSelf.spec.storage.storageClassName) ? oldSelf.spec.storage.storageClassName : '-'))))";

/// A Sarsen database: nodes in groups, one group for each failure domain, and what happens when one of them is lost.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sarsen.dev",
    version = "v1alpha1",
    kind = "SarsenCluster",
    plural = "sarsenclusters",
    shortname = "sarsen",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A Sarsen database: nodes in groups, one group for each failure domain, and what happens when one of them is lost.",
    validation = Rule::new("size(self.metadata.name) <= 40").message("a cluster's name has at most 40 characters: pods and services are named after it; choose a shorter metadata.name"),
    validation = Rule::new("!self.metadata.name.contains('.') && self.metadata.name >= 'a'").message("a cluster's name begins with a letter and has no dots: services are named after it; choose another metadata.name"),
    validation = Rule::new(EMPTY_IF_REMOVED).message("a group that has nodes cannot be removed: set its nodes to 0 first, and remove it when they are gone").field_path(".spec.groups"),
    validation = Rule::new(SAME_CLASS).message("the storage class of a group cannot be changed: add a group with the new class, and set the nodes of this one to 0").field_path(".spec.groups"),
    validation = Rule::new(SAME_TOPOLOGY).message("the topology of a group cannot be changed: add a group with the new one, and set the nodes of this one to 0").field_path(".spec.groups"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What goes on, in a word"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Instances that are ready, of those wanted"),
    printcolumn(name = "Shards", type_ = "string", json_path = ".status.shards", description = "Shards that have all their copies, of all"),
    printcolumn(name = "Replacing", type_ = "string", json_path = ".status.replacing", description = "Instances that take the place of others now"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(
    validation = Rule::new("self.groups.filter(g, g.nodes > 0).size() >= self.replicationFactor || self.paused").message("there are fewer groups with nodes than copies: every copy of a shard needs a group of its own; add groups or nodes to them"),
    validation = Rule::new(NO_SMALLER_SIZE).message("storage cannot shrink: a volume that is too small for its data would lose it; add a group with smaller volumes, and set the nodes of the old one to 0"),
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The container image of the database. Changing it changes one pod after the other, group by group.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// When the image is pulled: Always, IfNotPresent or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_policy")]
    pub image_pull_policy: Option<String>,

    /// Secrets for the registry of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::references")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Copies of every shard, each in another group. It cannot be changed here.
    #[serde(default = "default_replication_factor")]
    #[schemars(range(min = 1, max = 7))]
    #[x_kube(
        validation = Rule::new("self % 2 == 1").message("replicationFactor must be odd: a majority of an even number of copies needs one more and survives no more losses"),
        validation = Rule::new("self == oldSelf").message("replicationFactor cannot be changed here; use `sarsen cluster replication-factor` and make a cluster object anew around the same claims")
    )]
    pub replication_factor: u8,

    /// Groups of nodes. A group is a failure domain, mostly a zone: it holds at most one copy of a shard.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub groups: Vec<Group>,

    /// The volume of each node.
    pub storage: Storage,

    /// Compute resources of each node.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "schema::amounts")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,

    /// Settings of the database, as in its configuration file. Changing them changes one pod after the other, group by group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::settings")]
    pub config: BTreeMap<String, serde_json::Value>,

    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,

    /// When a node counts as lost, and what is done then.
    #[serde(default)]
    pub failure_policy: FailurePolicy,

    /// How pods are changed when the image or the configuration changes.
    #[serde(default)]
    pub rollout: Rollout,

    /// Whether voluntary disruptions, such as draining a machine, are held back while copies are missing.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,

    /// How the database is watched.
    #[serde(default)]
    pub monitoring: Monitoring,

    /// The operator does nothing while this is true.
    #[serde(default)]
    pub paused: bool,
}

impl ClusterSpec {
    /// The volume of the nodes of a group: its own, or what is said for all.
    pub fn storage_of(&self, group: &str) -> &Storage {
        let group = self.groups.iter().find(|found| found.name == group);
        group.and_then(|group| group.storage.as_ref()).unwrap_or(&self.storage)
    }
}

/// The nodes of one failure domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its name, which is the failure domain that the database knows.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Where its nodes stand: only on machines whose label has one of these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,

    /// How many nodes.
    #[schemars(range(min = 0, max = 100))]
    pub nodes: u32,

    /// The volume of each node, if another one than the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,

    /// Compute resources of each node, if others than the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "schema::amounts")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
}

/// A label of machines and the values that count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// The label.
    #[serde(default = "default_topology_key")]
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Any of these values.
    #[schemars(length(min = 1, max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// The volume of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// How large. It may grow: in place if the storage class can, else one node after the other is replaced by one with a larger volume.
    #[schemars(schema_with = "schema::quantity")]
    pub size: Quantity,

    /// Of which storage class; the default one if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,

    /// What becomes of the claims of nodes that are taken away, and of all of them when the cluster object is deleted.
    #[serde(default)]
    pub delete_policy: DeletePolicy,
}

/// What becomes of claims that are not needed any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletePolicy {
    /// They stay until a person deletes them.
    #[default]
    Retain,
    /// They are deleted, with the data.
    Delete,
}

/// Additions to the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// More labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// More annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Labels that the machines must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// More environment variables of the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::variables")]
    #[x_kube(validation = Rule::new("self.all(v, !v.name.startsWith('SARSEN_') && v.name != 'POD_NAME' && v.name != 'POD_IP')").message("variables that begin with SARSEN_ are settings: write them into spec.config; POD_NAME and POD_IP are set by the operator"))]
    pub env: Vec<EnvVar>,
    /// The priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// The service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// Whether the operator replaces instances by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureMode {
    /// It does, after the graces.
    #[default]
    Automatic,
    /// Only those that a person has marked with the annotation `sarsen.dev/replace`.
    Manual,
    /// Never.
    Off,
}

/// When a node counts as lost, and what is done then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailurePolicy {
    /// Whether the operator replaces instances by itself.
    pub mode: FailureMode,
    /// After the Node object is gone, or is another machine's, or the volume is lost.
    pub node_gone_grace: Span,
    /// After the node is not ready and the other nodes of the database do not hear the instance.
    pub node_not_ready_grace: Span,
    /// After the pod cannot be scheduled since its volume is on a machine that does not exist.
    pub pending_volume_grace: Span,
    /// After a whole group is away, its copies are made inside of the others; `Never` waits for it.
    pub zone_loss_grace: Grace,
    /// How many instances of one group may be replaced at a time. Never those of two groups.
    #[schemars(range(min = 1, max = 10))]
    pub max_concurrent_replacements: u32,
    /// If more machines than this share are away, it is the infrastructure, and nothing is replaced.
    #[schemars(range(min = 1, max = 100))]
    pub max_affected_nodes_percent: u32,
    /// How long the claim of a lost instance is kept if its machine may come back.
    pub retain_lost_volumes: Span,
}

impl Default for FailurePolicy {
    fn default() -> FailurePolicy {
        FailurePolicy {
            mode: FailureMode::default(),
            node_gone_grace: Span::seconds(60),
            node_not_ready_grace: Span::minutes(15),
            pending_volume_grace: Span::minutes(5),
            zone_loss_grace: Grace::After(Span::hours(1)),
            max_concurrent_replacements: 1,
            max_affected_nodes_percent: 30,
            retain_lost_volumes: Span::hours(24),
        }
    }
}

/// How pods are changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// How many pods of one group may be away at a time. Never those of two groups.
    #[schemars(range(min = 1, max = 10))]
    pub max_unavailable_in_group: u32,
    /// How long a changed pod must be ready before the next one is changed.
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: u32,
    /// If a changed pod is not ready after so long, no more are changed.
    pub progress_deadline: Span,
    /// No pods are changed while this is true; losses are repaired all the same.
    pub paused: bool,
}

impl Default for Rollout {
    fn default() -> Rollout {
        Rollout {
            max_unavailable_in_group: 1,
            min_ready_seconds: 30,
            progress_deadline: Span::hours(2),
            paused: false,
        }
    }
}

/// Whether voluntary disruptions are held back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudget {
    /// Whether there is a PodDisruptionBudget that lets one pod go at a time, and none while copies are missing.
    pub enabled: bool,
}

impl Default for DisruptionBudget {
    fn default() -> DisruptionBudget {
        DisruptionBudget { enabled: true }
    }
}

/// How the database is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether there is a ServiceMonitor, if the cluster knows that kind.
    pub service_monitor: bool,
    /// More labels of the ServiceMonitor, by which a Prometheus selects it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// How often it is scraped.
    pub interval: Span,
}

impl Default for Monitoring {
    fn default() -> Monitoring {
        Monitoring { service_monitor: true, labels: BTreeMap::new(), interval: Span::seconds(30) }
    }
}

fn default_replication_factor() -> u8 {
    3
}

fn default_topology_key() -> String {
    "topology.kubernetes.io/zone".into()
}
