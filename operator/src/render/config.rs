//! The configuration file of the nodes.

use super::{hash, names};
use crate::api::SarsenCluster;
use kube::ResourceExt;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The file's name in its ConfigMap.
pub const FILE: &str = "sarsen.yaml";

/// Settings that are not a person's to make here, and what makes them.
const TAKEN: [(&str, &str); 12] = [
    ("data_dir", "the operator sets it to where the volume is mounted"),
    ("http_listen", "the operator sets it, since probes and services rely on it"),
    ("cluster_listen", "the operator sets it, since the nodes find each other by it"),
    ("cluster_advertise", "the operator sets it to the name of the pod"),
    ("join", "the operator sets it to the name of the headless service"),
    ("join_token", "the operator keeps it in a secret"),
    ("rejoin", "the operator replaces a node that has lost its part of the control plane"),
    ("zone", "it is the name of the group"),
    ("standby", "the operator gives nodes their shards"),
    ("replication_factor", "spec.replicationFactor sets it"),
    ("node_loss_grace", "spec.failurePolicy says when a node is lost"),
    ("node_loss_percent_max", "spec.failurePolicy.maxAffectedNodesPercent says it"),
];

/// What is wrong with the settings of a specification: one sentence for each key that something else sets, and for each list, which no key takes.
/// Other keys and values are the database's to judge.
pub fn invalid_settings(config: &BTreeMap<String, Value>) -> Vec<String> {
    let taken = TAKEN.iter().filter(|(key, _)| config.contains_key(*key));
    let taken = taken.map(|(key, why)| format!("spec.config.{key} cannot be set: {why}; remove it"));
    let lists = config.iter().filter(|(_, value)| has_list(value));
    let lists =
        lists.map(|(key, _)| format!("spec.config.{key} has a list, which no setting takes: write text"));
    taken.chain(lists).collect()
}

fn has_list(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(group) => group.values().any(has_list),
        _ => false,
    }
}

/// The text of the file.
pub fn text(cluster: &SarsenCluster) -> String {
    let mut settings: Map<String, Value> = cluster.spec.config.clone().into_iter().collect();
    // Whatever is refused has no effect either, for as long as it takes a person to notice.
    settings.retain(|key, _| !TAKEN.iter().any(|(taken, _)| taken == key));
    settings.insert("replication_factor".into(), cluster.spec.replication_factor.into());
    serde_saphyr::to_string(&settings).expect("BUG: settings that are no YAML")
}

/// The name of the ConfigMap with this text. Another text is another ConfigMap, so that a pod keeps the one it was started with.
pub fn name(cluster: &SarsenCluster) -> String {
    names::config(&cluster.name_any(), &hash::of(&text(cluster)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use serde_json::json;

    #[test]
    fn settings_of_the_operator_are_refused_by_name_and_others_are_not() {
        let config = |value: Value| serde_json::from_value::<BTreeMap<String, Value>>(value).unwrap();
        let fine =
            config(json!({"retention": "90d", "capacity": 50, "limits": {"series_max": 1, "zone": 1}}));
        assert_eq!(invalid_settings(&fine), [""; 0]);

        let all: BTreeMap<String, Value> = TAKEN.iter().map(|(key, _)| ((*key).into(), json!(1))).collect();
        assert_eq!(invalid_settings(&all).len(), TAKEN.len());
        assert_eq!(
            invalid_settings(&config(json!({"zone": "eu", "retention": "90d"}))),
            ["spec.config.zone cannot be set: it is the name of the group; remove it"]
        );

        assert_eq!(
            invalid_settings(&config(json!({"limits": {"series_max": [1]}}))),
            ["spec.config.limits has a list, which no setting takes: write text"]
        );

        let mut cluster = sample::cluster();
        cluster.spec.config = all;
        assert_eq!(text(&cluster), "replication_factor: 3\n");
    }

    #[test]
    fn another_text_is_another_name() {
        let mut cluster = sample::cluster();
        let before = name(&cluster);
        assert!(before.starts_with("metrics-config-"));
        cluster.spec.config.insert("retention".into(), "30d".into());
        assert_ne!(name(&cluster), before);
    }
}
