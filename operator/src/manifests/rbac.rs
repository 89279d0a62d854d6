//! What the operator may do: as little as it can work with.

use super::{LEASE, NAME, metadata};
use crate::api::GROUP;
use serde_json::{Value, json};

const READ: [&str; 3] = ["get", "list", "watch"];
/// For what it makes and takes away. Changes are patches; nothing is ever replaced as a whole.
const OWN: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

/// The account, and what it may do in its namespace.
pub fn namespaced(namespace: &str) -> Vec<Value> {
    let rules = json!([
        // Finalizers are in the metadata of the object itself.
        rule(GROUP, &["sarsenclusters", "sarsennamespaces"], &["get", "list", "watch", "patch"]),
        rule(GROUP, &["sarsenclusters/status", "sarsennamespaces/status"], &["patch"]),
        // An owner that blocks its deletion must be one whose finalizers may be changed.
        rule(GROUP, &["sarsenclusters/finalizers", "sarsennamespaces/finalizers"], &["update"]),
        rule("", &["pods", "persistentvolumeclaims"], &OWN),
        // The readiness gate.
        rule("", &["pods/status"], &["patch"]),
        rule("", &["pods/eviction"], &["create"]),
        rule("", &["services", "configmaps"], &OWN),
        // The token of each cluster: made once, never changed, never listed.
        rule("", &["secrets"], &["get", "create"]),
        rule("policy", &["poddisruptionbudgets"], &OWN),
        rule("monitoring.coreos.com", &["servicemonitors"], &OWN),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]);
    let lease = |verbs: &[&str], name: Option<&str>| {
        let mut rule = rule("coordination.k8s.io", &["leases"], verbs);
        if let Some(name) = name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    let leases = json!([lease(&["create"], None), lease(&["get", "patch"], Some(LEASE))]);
    let leader = format!("{NAME}-leader-election");
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(Some(namespace), NAME) }),
        role("Role", Some(namespace), NAME, &rules),
        binding("Role", Some(namespace), NAME, namespace),
        role("Role", Some(namespace), &leader, &leases),
        binding("Role", Some(namespace), &leader, namespace),
    ]
}

/// What it may read of the whole cluster: that a machine or a volume is gone can be seen nowhere else.
pub fn cluster_scoped(namespace: &str) -> Vec<Value> {
    let mut definition = rule("apiextensions.k8s.io", &["customresourcedefinitions"], &["get"]);
    definition["resourceNames"] = json!(["servicemonitors.monitoring.coreos.com"]);
    let rules = json!([
        rule("", &["nodes", "persistentvolumes"], &READ),
        rule("storage.k8s.io", &["storageclasses", "csidrivers"], &READ),
        definition,
    ]);
    // There may be one operator in each of several namespaces.
    let name = format!("{NAME}-{namespace}");
    vec![role("ClusterRole", None, &name, &rules), binding("ClusterRole", None, &name, namespace)]
}

fn role(kind: &str, namespace: Option<&str>, name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(namespace, name),
        "rules": rules,
    })
}

/// Gives the role of that name to the operator's account.
fn binding(kind: &str, namespace: Option<&str>, name: &str, account_namespace: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": format!("{kind}Binding"),
        "metadata": metadata(namespace, name),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": account_namespace }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(objects: &[Value]) -> impl Iterator<Item = &Value> {
        objects.iter().flat_map(|object| object["rules"].as_array().into_iter().flatten())
    }

    fn has(rule: &Value, field: &str, word: &str) -> bool {
        rule[field].as_array().is_some_and(|words| words.iter().any(|other| other == word))
    }

    #[test]
    fn nothing_is_allowed_by_a_star() {
        let objects: Vec<Value> = namespaced("db").into_iter().chain(cluster_scoped("db")).collect();
        assert_eq!(rules(&objects).count(), 16);
        for rule in rules(&objects) {
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(!has(rule, field, "*"), "{rule}");
            }
            assert!(!has(rule, "verbs", "deletecollection"), "{rule}");
        }
    }

    #[test]
    fn outside_of_its_namespace_it_only_reads_and_volumes_it_never_deletes() {
        let global = cluster_scoped("db");
        for rule in rules(&global) {
            let verbs = rule["verbs"].as_array().unwrap();
            assert!(verbs.iter().all(|verb| READ.contains(&verb.as_str().unwrap())), "{rule}");
            assert!(!has(rule, "resources", "secrets") && !has(rule, "resources", "pods"), "{rule}");
        }
        let own = namespaced("db");
        assert!(rules(&own).all(|rule| !has(rule, "resources", "persistentvolumes")));
        let secrets: Vec<&Value> = rules(&own).filter(|rule| has(rule, "resources", "secrets")).collect();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets[0]["verbs"], json!(["get", "create"]));
    }

    #[test]
    fn each_binding_gives_the_role_of_its_name_to_the_account() {
        let objects: Vec<Value> = namespaced("db").into_iter().chain(cluster_scoped("db")).collect();
        let bindings: Vec<&Value> = objects.iter().filter(|object| object["roleRef"].is_object()).collect();
        assert_eq!(bindings.len(), 3);
        for binding in bindings {
            let (kind, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
            let is_role = |object: &&Value| object["kind"] == *kind && object["metadata"]["name"] == *name;
            let role = objects.iter().find(is_role).expect("the role");
            assert_eq!(role["metadata"]["namespace"], binding["metadata"]["namespace"]);
            assert_eq!(binding["subjects"][0]["namespace"], "db");
        }
    }
}
