//! What the operator makes: from a specification to Kubernetes objects, purely.
//!
//! ```text
//! SarsenCluster ─┬─ once ────────► Secret                                              (no owner: outlives the cluster)
//!                ├─ shared ──────► ConfigMap, 2 Services, PodDisruptionBudget, ServiceMonitor
//!                └─ an instance ─► PersistentVolumeClaim (no owner: outlives everything), Pod
//! ```
//!
//! **Invariants:** the same specification gives the same objects, byte for byte, whichever version of the operator renders it, as long as nothing in
//! them changes: [`spec_hash`] decides whether pods are restarted. What lives longer than its `SarsenCluster` has no owner, so that no garbage
//! collector takes it away with that.

mod claim;
mod config;
mod hash;
pub mod names;
mod pod;
#[cfg(test)]
pub(crate) mod sample;
mod shared;

pub use claim::claim;
pub use config::invalid_settings;
pub use hash::APPLIED_HASH;
pub use names::instance_of_address;
pub use pod::{pod, spec_hash};
pub use shared::{shared, token_secret};

use crate::api::{self, SarsenCluster};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// Who the operator is in `app.kubernetes.io/managed-by`, and as the manager of fields.
pub const MANAGER: &str = "sarsen-operator";

/// Port of the HTTP API of each node.
pub const HTTP_PORT: u16 = 7420;
/// Port for the other nodes of the database.
pub const CLUSTER_PORT: u16 = 7421;

/// Where objects of a kind are that the operator makes.
pub fn resource(kind: &str) -> ApiResource {
    match kind {
        "Pod" => ApiResource::erase::<Pod>(&()),
        "PersistentVolumeClaim" => ApiResource::erase::<PersistentVolumeClaim>(&()),
        "ConfigMap" => ApiResource::erase::<ConfigMap>(&()),
        "Service" => ApiResource::erase::<Service>(&()),
        "PodDisruptionBudget" => ApiResource::erase::<PodDisruptionBudget>(&()),
        "ServiceMonitor" => {
            ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "ServiceMonitor"))
        }
        other => unreachable!("BUG: the operator makes no {other}"),
    }
}

/// The labels that select all pods, or all claims, of a cluster.
pub fn selector(cluster: &SarsenCluster) -> BTreeMap<String, String> {
    map([(api::names::CLUSTER, &cluster.name_any())])
}

/// Labels of everything of a cluster. `component` tells the kinds of things apart: `database` (pods, claims), `nodes`, `client` (services).
fn labels(cluster: &SarsenCluster, component: &str) -> BTreeMap<String, String> {
    let name = cluster.name_any();
    map([
        ("app.kubernetes.io/name", "sarsen"),
        ("app.kubernetes.io/instance", &name),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", MANAGER),
        (api::names::CLUSTER, &name),
    ])
}

/// Metadata of what goes together with the cluster.
fn owned(cluster: &SarsenCluster, name: String, component: &str) -> ObjectMeta {
    // `None` without a uid: there is no cluster yet that could own something.
    let owner = cluster.controller_owner_ref(&());
    let owner = owner.map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner });
    ObjectMeta { owner_references: owner.map(|owner| vec![owner]), ..free(cluster, name, component) }
}

/// Metadata of what outlives the cluster.
fn free(cluster: &SarsenCluster, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cluster.namespace(),
        labels: Some(labels(cluster, component)),
        ..ObjectMeta::default()
    }
}

fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_a_cluster_has_no_owner_and_everything_else_has() {
        let cluster = sample::cluster();
        let group = &cluster.spec.groups[0];
        assert_eq!(claim(&cluster, group, "metrics-a-1", BTreeMap::new()).owner_references(), []);
        assert_eq!(token_secret(&cluster, "t").owner_references(), []);

        let pod = pod(&cluster, group, "metrics-a-1");
        let shared = shared(&cluster, 6);
        assert_eq!(shared.len(), 5);
        for meta in shared.iter().map(|object| &object.metadata).chain([&pod.metadata]) {
            let owner = &meta.owner_references.as_ref().expect("an owner")[0];
            assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("SarsenCluster", "metrics"));
            assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
        }
    }

    #[test]
    fn every_kind_that_is_made_is_found_where_it_says() {
        for object in shared(&sample::cluster(), 6) {
            let types = object.types.expect("a kind");
            let resource = resource(&types.kind);
            assert_eq!((resource.api_version, resource.kind), (types.api_version, types.kind));
        }
    }

    #[test]
    fn everything_has_the_labels_by_which_it_is_found() {
        let cluster = sample::cluster();
        let group = &cluster.spec.groups[0];
        let metas = [
            pod(&cluster, group, "metrics-a-1").metadata,
            claim(&cluster, group, "metrics-a-1", BTreeMap::new()).metadata,
            token_secret(&cluster, "t").metadata,
        ];
        for meta in metas.into_iter().chain(shared(&cluster, 6).into_iter().map(|object| object.metadata)) {
            let labels = meta.labels.expect("labels");
            assert!(
                selector(&cluster).iter().all(|(key, value)| labels.get(key) == Some(value)),
                "{labels:?}"
            );
            assert_eq!(meta.namespace.as_deref(), Some("monitoring"));
        }
    }
}
