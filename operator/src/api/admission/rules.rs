//! Every change that is forbidden, and those beside it that are not.

use super::{admit, cluster, namespace, with};
use crate::api::SarsenCluster;
use serde_json::{Value, json};

/// What is wrong, in a line; empty if nothing is.
fn problems(object: &Value, old: Option<&Value>) -> String {
    // What is there now was let through before.
    let old = old.map(|old| admit(old, None).unwrap_or_else(|why| panic!("the old one: {why:?}")));
    admit(object, old.as_ref()).err().unwrap_or_default().join("; ")
}

#[track_caller]
fn check_new(pointer: &str, value: Value, expected: &str) {
    check_problems(&with(&cluster(), pointer, value), None, expected);
}

#[track_caller]
fn check_problems(object: &Value, old: Option<&Value>, expected: &str) {
    let found = problems(object, old);
    let is_so = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
    assert!(is_so, "expected {expected:?}, found {found:?}");
}

/// The change is refused so, or let through if `expected` is empty; and never refused as a new object.
#[track_caller]
fn check_change(old: &Value, pointer: &str, value: Value, expected: &str) {
    let new = with(old, pointer, value);
    check_problems(&new, None, "");
    check_problems(&new, Some(old), expected);
    check_problems(&new, Some(&new), "");
}

#[test]
fn a_cluster_that_is_as_it_should_be_is_let_through() {
    check_problems(&cluster(), None, "");
    check_problems(&cluster(), Some(&cluster()), "");
    check_problems(&namespace(), Some(&namespace()), "");
}

#[test]
fn names_are_short_and_such_that_services_can_have_them() {
    check_new("/metadata/name", json!("m".repeat(40)), "");
    check_new("/metadata/name", json!("m".repeat(41)), "at most 40 characters");
    check_new("/metadata/name", json!("my-2nd-1"), "");
    check_new("/metadata/name", json!("my.metrics"), "begins with a letter and has no dots");
    check_new("/metadata/name", json!("1st"), "begins with a letter and has no dots");
    check_new("/spec/groups/0/name", json!("g".repeat(15)), "");
    for wrong in ["", "A", "1a", "a-", "a.b", &"g".repeat(16)] {
        check_new("/spec/groups/0/name", json!(wrong), ".spec.groups[0].name: ");
    }
    check_new("/spec/groups/1/name", json!("a"), ".spec.groups: duplicate");
}

#[test]
fn copies_are_an_odd_number_and_each_has_a_group_with_nodes() {
    for (copies, expected) in
        [(1, ""), (2, "must be odd"), (3, ""), (4, "must be odd"), (5, "fewer groups"), (9, "out of bounds")]
    {
        check_new("/spec/replicationFactor", json!(copies), expected);
    }
    let three = with(&cluster(), "/spec/groups/3", json!(null));
    check_problems(&three, None, "");
    check_problems(&with(&three, "/spec/groups/2", json!(null)), None, "fewer groups");
    let idle = with(&three, "/spec/groups/2/nodes", json!(0));
    check_problems(&idle, None, "fewer groups");
    check_problems(&with(&idle, "/spec/paused", json!(true)), None, "");
    check_new("/spec/groups", json!([]), "0 items");
    check_new("/spec/groups/0/nodes", json!(101), "out of bounds");
    check_new("/spec/groups/0/nodes", json!(-1), "out of bounds");
}

#[test]
fn the_number_of_copies_stays() {
    let old = cluster();
    check_change(&old, "/spec/replicationFactor", json!(1), "cannot be changed here");
    // What was the default is the same when it is written.
    check_change(&old, "/spec/replicationFactor", json!(3), "");
    check_change(
        &with(&old, "/spec/replicationFactor", json!(1)),
        "/spec/replicationFactor",
        Value::Null,
        "cannot be",
    );
}

#[test]
fn a_group_goes_only_without_nodes_and_may_come_and_change_its_number() {
    let old = cluster();
    check_change(&old, "/spec/groups/1", Value::Null, "cannot be removed");
    let emptied = with(&old, "/spec/groups/1/nodes", json!(0));
    check_change(&old, "/spec/groups/1/nodes", json!(0), "");
    check_change(&emptied, "/spec/groups/1", Value::Null, "");
    check_change(&old, "/spec/groups/-", json!({ "name": "e", "nodes": 1 }), "");
    check_change(&old, "/spec/groups/1/nodes", json!(5), "");
    check_change(&old, "/spec/groups/1/name", json!("x"), "cannot be removed");
}

#[test]
fn a_group_that_is_still_being_emptied_is_not_removed() {
    let at = "/spec/groups/3/nodes";
    let old = with(&cluster(), at, json!(0));
    let mut new = old.clone();
    new["spec"]["groups"].as_array_mut().unwrap().pop();
    for (counts, expected) in [
        (json!({}), ""),
        (json!({ "instances": 0, "leaving": 0 }), ""),
        (json!({ "instances": 1 }), "remove it when they are gone"),
        (json!({ "leaving": 1 }), "remove it when they are gone"),
    ] {
        let mut said = json!({ "name": "d", "lastSerial": 2 });
        said.as_object_mut().unwrap().extend(counts.as_object().unwrap().clone());
        let old = with(&old, "/status/groups/3", said);
        check_problems(&new, Some(&old), expected);
    }
}

#[test]
fn groups_may_stand_in_another_order() {
    let old =
        with(&cluster(), "/spec/groups/0/storage", json!({ "size": "1Ti", "storageClassName": "local" }));
    let mut new = old.clone();
    new["spec"]["groups"].as_array_mut().unwrap().reverse();
    check_problems(&new, Some(&old), "");
}

#[test]
fn the_topology_of_a_group_stays() {
    let (old, at) = (cluster(), "/spec/groups/1/topology");
    let key = "topology.kubernetes.io/zone";
    check_change(&old, at, json!({ "values": ["eu-1b"], "key": key }), "");
    check_change(&old, at, json!({ "values": ["eu-1x"] }), "topology of a group cannot");
    check_change(&old, at, json!({ "values": ["eu-1b", "eu-1x"] }), "topology of a group cannot");
    check_change(&old, at, json!({ "values": ["eu-1b"], "key": "rack" }), "topology of a group cannot");
    check_change(&old, at, Value::Null, "topology of a group cannot");
    let without = with(&old, at, Value::Null);
    check_change(&without, at, json!({ "values": ["eu-1b"] }), "topology of a group cannot");
    check_change(&without, "/spec/groups/1/nodes", json!(3), "");
    check_new(at, json!({ "values": [] }), "0 items");
    check_new(at, json!({ "key": key }), "values is missing");
}

#[test]
fn what_was_mistyped_can_be_corrected_until_something_was_made() {
    let (old, topology) = (cluster(), json!({ "values": ["eu-1x"] }));
    check_change(&old, "/spec/groups/3/topology", topology.clone(), "");
    check_change(&old, "/spec/groups/3/storage", json!({ "size": "100Gi", "storageClassName": "other" }), "");
    check_change(&old, "/spec/groups/2/topology", topology.clone(), "topology of a group cannot");
    // Nobody has looked at it yet.
    let new = with(&old, "/status", Value::Null);
    check_change(&new, "/spec/groups/1/topology", topology, "");
    check_change(&new, "/spec/storage/storageClassName", json!("other"), "");
}

#[test]
fn storage_grows_and_does_not_shrink() {
    let (old, at) = (cluster(), "/spec/storage/size");
    for (size, expected) in [
        ("100Gi", ""),
        ("102400Mi", ""),
        ("101Gi", ""),
        ("1Ti", ""),
        ("108G", ""),
        ("107G", "cannot shrink"),
        ("99.9Gi", "cannot shrink"),
        ("100M", "cannot shrink"),
    ] {
        check_change(&old, at, json!(size), expected);
    }
    for wrong in ["", "100", "Gi", "-1Gi", "0Gi", "1e9", "100 Gi", "100gi", "100Gi0"] {
        check_new(at, json!(wrong), ".spec.storage.size: ");
    }
    check_new(at, json!(100), ".spec.storage.size: 100 is no");
}

#[test]
fn the_storage_of_a_group_counts_and_else_that_of_the_cluster() {
    let (old, at) = (cluster(), "/spec/groups/1/storage");
    let storage = |size: &str| json!({ "size": size, "storageClassName": "local" });
    check_change(&old, at, storage("100Gi"), "");
    check_change(&old, at, storage("200Gi"), "");
    check_change(&old, at, storage("50Gi"), "cannot shrink");

    let own = with(&old, at, storage("200Gi"));
    check_change(&own, at, Value::Null, "cannot shrink");
    check_change(&own, &format!("{at}/size"), json!("199Gi"), "cannot shrink");
    check_change(&own, &format!("{at}/size"), json!("201Gi"), "");
    check_change(&own, "/spec/storage/size", json!("150Gi"), "");
    check_change(&own, "/spec/storage/size", json!("50Gi"), "cannot shrink");
    check_change(&with(&own, "/spec/storage/size", json!("200Gi")), at, Value::Null, "");
    // Nobody has the cluster's.
    let mut all = old.clone();
    for index in 0..4 {
        all = with(&all, &format!("/spec/groups/{index}/storage"), storage("200Gi"));
    }
    check_change(&all, "/spec/storage/size", json!("50Gi"), "");
}

#[test]
fn the_storage_class_stays_whether_it_is_named_or_not() {
    let (old, at) = (cluster(), "/spec/storage/storageClassName");
    let class = "storage class of a group cannot";
    check_change(&old, at, json!("local"), "");
    check_change(&old, at, json!("other"), class);
    check_change(&old, at, Value::Null, class);
    check_change(&old, at, json!(""), class);
    let unnamed = with(&old, at, Value::Null);
    check_change(&unnamed, at, json!("local"), class);
    check_change(&unnamed, at, json!(""), class);
    check_change(&unnamed, "/spec/storage/size", json!("101Gi"), "");

    let group = "/spec/groups/1/storage";
    check_change(&old, group, json!({ "size": "100Gi", "storageClassName": "local" }), "");
    check_change(&old, group, json!({ "size": "100Gi", "storageClassName": "other" }), class);
    check_change(&old, group, json!({ "size": "100Gi" }), class);
    check_change(&unnamed, group, json!({ "size": "100Gi" }), "");
    let own = with(&old, group, json!({ "size": "100Gi", "storageClassName": "other" }));
    check_change(&own, group, Value::Null, class);
    check_change(&own, "/spec/groups/1/storage/deletePolicy", json!("Delete"), "");
}

#[test]
fn spans_of_time_and_other_words_are_checked() {
    let at = "/spec/failurePolicy";
    for (value, expected) in [
        (json!({ "nodeGoneGrace": "90s" }), ""),
        (json!({ "nodeGoneGrace": "1h30m" }), ""),
        (json!({ "nodeGoneGrace": "0" }), ""),
        (json!({ "nodeGoneGrace": "90" }), "does not match"),
        (json!({ "nodeGoneGrace": "soon" }), "does not match"),
        (json!({ "nodeGoneGrace": "" }), "does not match"),
        (json!({ "nodeGoneGrace": "Never" }), "does not match"),
        (json!({ "nodeGoneGrace": "1d".repeat(17) }), "the length"),
        (json!({ "zoneLossGrace": "Never" }), ""),
        (json!({ "zoneLossGrace": "2h" }), ""),
        (json!({ "zoneLossGrace": "never" }), "does not match"),
        (json!({ "mode": "Manual" }), ""),
        (json!({ "mode": "manual" }), "is none of"),
        (json!({ "maxConcurrentReplacements": 0 }), "out of bounds"),
        (json!({ "maxAffectedNodesPercent": 101 }), "out of bounds"),
    ] {
        check_new(at, value, expected);
    }
    check_new("/spec/rollout", json!({ "progressDeadline": "1w" }), "does not match");
    check_new("/spec/rollout", json!({ "maxUnavailableInGroup": 0 }), "out of bounds");
    check_new("/spec/image", json!(""), "the length");
    check_new("/spec/imagePullPolicy", json!("Sometimes"), "is none of");
}

#[test]
fn variables_are_no_way_around_the_settings() {
    let variables = |name: &str| json!({ "env": [{ "name": name, "value": "x" }] });
    check_new("/spec/podTemplate", variables("RUST_BACKTRACE"), "");
    for name in ["SARSEN_ZONE", "POD_NAME", "POD_IP"] {
        check_new("/spec/podTemplate", variables(name), "write them into spec.config");
    }
    let twice = json!({ "env": [{ "name": "A" }, { "name": "A" }] });
    check_new("/spec/podTemplate", twice, "duplicate");
}

#[test]
fn amounts_may_be_numbers_and_words() {
    let amounts = |cpu: Value| json!({ "requests": { "cpu": cpu, "memory": "8Gi" } });
    for (cpu, expected) in [(json!(2), ""), (json!("500m"), ""), (json!("two"), "does not match")] {
        check_new("/spec/resources", amounts(cpu), expected);
    }
    let object = with(&cluster(), "/spec/resources", amounts(json!(2)));
    let read: SarsenCluster = serde_json::from_value(object).expect("readable");
    assert_eq!(read.spec.resources.unwrap().requests.unwrap()["cpu"].0, "2");
}

#[test]
fn a_namespace_stays_where_it_is() {
    let old = namespace();
    for (pointer, value, expected) in [
        ("/spec/cluster", json!("other"), "cluster cannot be changed"),
        ("/spec/name", json!("default"), ""),
        ("/spec/name", json!("other"), "name cannot be changed"),
        ("/spec/retention", json!("forever"), ""),
        ("/spec/retention", Value::Null, ""),
        ("/spec/durability", json!("interval"), ""),
        ("/spec/readConsistency", json!("one"), ""),
        ("/spec/deletionPolicy", json!("Delete"), ""),
    ] {
        check_change(&old, pointer, value, expected);
    }
    for (pointer, value) in [
        ("/spec/retention", json!("long")),
        ("/spec/durability", json!("never")),
        ("/spec/readConsistency", json!("two")),
        ("/spec/writeConsistency", json!("quorum")),
        ("/spec/deletionPolicy", json!("Perhaps")),
    ] {
        check_problems(&with(&old, pointer, value), None, ".spec.");
    }
}
