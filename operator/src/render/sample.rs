//! A cluster for tests.

use crate::api::{Group, SarsenCluster};
use serde::Serialize;
use serde_json::json;

/// Three groups of two nodes; the third one stands anywhere and has larger volumes.
pub fn cluster() -> SarsenCluster {
    let topology = |value: &str| json!({ "values": [value] });
    serde_json::from_value(json!({
        "apiVersion": "sarsen.dev/v1alpha1",
        "kind": "SarsenCluster",
        "metadata": { "name": "metrics", "namespace": "monitoring", "uid": "11112222-3333-4444-5555-666677778888" },
        "spec": {
            "image": "registry.example/sarsen:0.1.0",
            "groups": [
                { "name": "a", "topology": topology("eu-1a"), "nodes": 2 },
                { "name": "b", "topology": topology("eu-1b"), "nodes": 2 },
                { "name": "c", "nodes": 2, "storage": { "size": "200Gi" } },
            ],
            "storage": { "size": "100Gi", "storageClassName": "local-nvme" },
            "resources": { "requests": { "cpu": "2", "memory": "8Gi" }, "limits": { "memory": "8Gi" } },
            "config": { "retention": "90d", "limits": { "query_timeout": "2m" } },
        },
    }))
    .expect("a cluster")
}

/// The same with all that can be added to pods, and one of its groups.
pub fn decorated() -> (SarsenCluster, Group) {
    let mut cluster = cluster();
    cluster.spec.image_pull_policy = Some("Always".into());
    cluster.spec.image_pull_secrets = serde_json::from_value(json!([{ "name": "registry" }])).expect("names");
    cluster.spec.pod_template = serde_json::from_value(json!({
        "labels": { "team": "metrics" },
        "annotations": { "note": "ours" },
        "nodeSelector": { "disk": "nvme" },
        "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "metrics", "effect": "NoSchedule" }],
        "env": [{ "name": "RUST_BACKTRACE", "value": "1" }],
        "priorityClassName": "high",
        "serviceAccountName": "metrics",
    }))
    .expect("additions");
    let group = cluster.spec.groups[2].clone();
    (cluster, group)
}

/// As a person reads it.
pub fn yaml(object: &impl Serialize) -> String {
    let value = serde_json::to_value(object).expect("JSON");
    serde_saphyr::to_string(&value).expect("YAML")
}
