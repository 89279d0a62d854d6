//! What there is once in a cluster.

use super::{CLUSTER_PORT, HTTP_PORT, config, free, hash, map, names, owned, selector};
use crate::api::SarsenCluster;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// The objects of a cluster with so many instances, each stamped with its hash. A ServiceMonitor is of a kind that not every Kubernetes
/// knows: then the caller leaves it out.
pub fn shared(cluster: &SarsenCluster, instances: u32) -> Vec<DynamicObject> {
    let mut objects = vec![
        hash::stamped(&config_map(cluster)),
        hash::stamped(&headless(cluster)),
        hash::stamped(&client(cluster)),
    ];
    if cluster.spec.disruption_budget.enabled {
        objects.push(hash::stamped(&budget(cluster, instances)));
    }
    if cluster.spec.monitoring.service_monitor {
        objects.push(hash::stamped(&monitor(cluster)));
    }
    objects
}

/// The secret with the token that nodes must know to talk to each other. It has no owner, since the claims that outlive a cluster are of
/// no use without it.
pub fn token_secret(cluster: &SarsenCluster, token: &str) -> Secret {
    Secret {
        metadata: free(cluster, names::secret(&cluster.name_any()), "database"),
        string_data: Some(map([(names::SECRET_KEY, token)])),
        immutable: Some(true),
        ..Secret::default()
    }
}

fn config_map(cluster: &SarsenCluster) -> ConfigMap {
    ConfigMap {
        metadata: owned(cluster, config::name(cluster), "database"),
        data: Some(map([(config::FILE, &config::text(cluster))])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// Nodes meet by it before any of them is ready, so it names all.
fn headless(cluster: &SarsenCluster) -> Service {
    Service {
        metadata: owned(cluster, names::headless(&cluster.name_any()), "nodes"),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(cluster)),
            ports: Some(vec![port("http", HTTP_PORT), port("cluster", CLUSTER_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn client(cluster: &SarsenCluster) -> Service {
    Service {
        metadata: owned(cluster, names::client(&cluster.name_any()), "client"),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector(cluster)),
            ports: Some(vec![port("http", HTTP_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: port.into(),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}

/// One pod may be away. A number of pods that must be there and not of those that may be away: for pods without a controller that has a scale,
/// Kubernetes allows no eviction at all by `maxUnavailable`.
fn budget(cluster: &SarsenCluster, instances: u32) -> PodDisruptionBudget {
    let available = i32::try_from(instances.saturating_sub(1)).unwrap_or(i32::MAX);
    PodDisruptionBudget {
        metadata: owned(cluster, names::budget(&cluster.name_any()), "database"),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(available)),
            selector: Some(LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            }),
            // A pod that serves nobody does not hold up the work on its machine.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// By way of the headless service, so that nodes are watched that are not ready, too.
fn monitor(cluster: &SarsenCluster) -> Value {
    let monitoring = &cluster.spec.monitoring;
    let headless = headless(cluster);
    let mut metadata = owned(cluster, cluster.name_any(), "monitoring");
    let mut labels = monitoring.labels.clone();
    labels.append(metadata.labels.get_or_insert_default());
    metadata.labels = Some(labels);
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata,
        "spec": {
            "selector": { "matchLabels": headless.metadata.labels },
            "jobLabel": "app.kubernetes.io/name",
            "targetLabels": [crate::api::names::CLUSTER],
            "podTargetLabels": [crate::api::names::GROUP],
            "endpoints": [{ "port": "http", "path": "/metrics", "interval": monitoring.interval }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Span;
    use crate::render::sample::{self, yaml};

    fn kinds(objects: &[DynamicObject]) -> Vec<&str> {
        objects.iter().map(|object| object.types.as_ref().unwrap().kind.as_str()).collect()
    }

    #[test]
    fn what_there_is_once() {
        let objects = shared(&sample::cluster(), 6);
        let texts: Vec<String> = objects.iter().map(yaml).collect();
        insta::assert_snapshot!(texts.join("---\n"));
    }

    #[test]
    fn a_token() {
        insta::assert_snapshot!(yaml(&token_secret(&sample::cluster(), "secret words")));
    }

    #[test]
    fn what_is_switched_off_is_left_out() {
        let mut cluster = sample::cluster();
        let all = ["ConfigMap", "Service", "Service", "PodDisruptionBudget", "ServiceMonitor"];
        assert_eq!(kinds(&shared(&cluster, 6)), all);
        cluster.spec.disruption_budget.enabled = false;
        cluster.spec.monitoring.service_monitor = false;
        assert_eq!(kinds(&shared(&cluster, 6)), all[..3]);
    }

    #[test]
    fn a_budget_lets_one_of_any_number_go() {
        for (instances, available) in [(0, 0), (1, 0), (6, 5)] {
            let spec = budget(&sample::cluster(), instances).spec.unwrap();
            assert_eq!(spec.min_available, Some(IntOrString::Int(available)));
        }
    }

    #[test]
    fn the_hash_of_an_object_changes_with_it_and_with_nothing_else() {
        let hashes = |cluster: &SarsenCluster, instances| -> Vec<String> {
            let objects = shared(cluster, instances);
            objects.iter().map(|object| object.annotations()[hash::APPLIED_HASH].clone()).collect()
        };
        let changed = |a: &[String], b: &[String]| -> Vec<usize> {
            (0..a.len()).filter(|&index| a[index] != b[index]).collect()
        };
        let mut cluster = sample::cluster();
        let before = hashes(&cluster, 6);
        assert_eq!(before, hashes(&cluster, 6));
        assert_eq!(changed(&before, &hashes(&cluster, 7)), [3]);
        cluster.spec.monitoring.interval = Span::seconds(1);
        cluster.spec.image = "other".into();
        assert_eq!(changed(&before, &hashes(&cluster, 6)), [4]);
    }
}
