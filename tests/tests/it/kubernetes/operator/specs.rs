//! A specification that cannot work is refused, or told to be wrong with what would be right; the database goes on as it is.

use super::*;
use tests::namespaces::inside;

#[test]
#[ignore = "needs root"]
fn a_specification_that_cannot_work_harms_nothing_and_a_correct_one_goes_on() {
    if !inside(
        "kubernetes::operator::specs::a_specification_that_cannot_work_harms_nothing_and_a_correct_one_goes_on",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let pods = case.uids();
    let groups = spec()["groups"].as_array().expect("a list").clone();
    let with = |group: Value| json!({"groups": ([groups.clone(), vec![group]].concat())});

    // What the API server refuses, with what to do.
    for (change, said) in [
        (json!({"groups": [groups[0], groups[1]]}), "set its nodes to 0 first"),
        (
            json!({"groups": [groups[0], groups[1], {"name": "c", "nodes": 0, "topology": {"values": ["c"]}}]}),
            "add groups or nodes to them",
        ),
        (json!({"storage": {"size": "100Mi"}}), "storage cannot shrink"),
        (json!({"replicationFactor": 5}), "sarsen cluster replication-factor"),
        (
            json!({"groups": [groups[0], groups[1], {"name": "c", "nodes": 2, "topology": {"values": ["a"]}}]}),
            "add a group with the new one",
        ),
    ] {
        let refusal = case.try_change(change.clone()).expect_err(&change.to_string());
        assert!(refusal.starts_with("422: ") && refusal.contains(said), "{change}: {refusal}");
    }

    // What only the operator can know. The image would be another one, too: nothing of it is done.
    let fast = json!({"name": "d", "nodes": 1, "topology": {"values": ["a"]}, "storage": {"size": "1Gi", "storageClassName": "fast"}});
    let many = json!({"name": "d", "nodes": 4, "topology": {"values": ["a"]}});
    let astray =
        |nodes: u32, zone: &str| json!({"name": "d", "nodes": nodes, "topology": {"values": [zone]}});
    let too_large = ["a", "b", "c"].map(|zone| {
        let (instance, machine) = (format!("db-{zone}-1"), case.machine(&format!("db-{zone}-1")));
        format!(
            "group {zone}: the volume of {instance} is on machine {machine}, which has 8Gi of memory, and each node asks for 1Ti: ask for less in resources, \
             or have it replaced on another machine: kubectl annotate pvc data-{instance} sarsen.dev/replace=true"
        )
    });
    let too_large = too_large.join("; ");
    let listen = json!({"config": {"http_listen": "0.0.0.0:1"}});
    // A group is emptied before it is removed.
    let none = |mut group: Value| {
        group["nodes"] = json!(0);
        vec![with(group), json!({"groups": groups})]
    };
    for (mut change, corrections, said) in [
        (
            with(fast.clone()),
            none(fast),
            r#"group d: there is no storage class "fast"; there are local, local-retain, network"#,
        ),
        (
            with(many.clone()),
            none(many),
            "group d: each node needs a machine of its own, 4 are wanted and 3 have topology.kubernetes.io/zone=a: add machines, or want fewer nodes",
        ),
        (
            with(astray(1, "aa")),
            // Where nothing was made yet, what was mistyped can be corrected.
            vec![with(astray(0, "a")), json!({"groups": groups})],
            "group d: no machine has topology.kubernetes.io/zone=aa; there are a, b, c: correct topology.values, or add machines",
        ),
        (json!({"resources": {"requests": {"memory": "1Ti"}}}), vec![json!({"resources": null})], &too_large),
        (
            listen,
            vec![json!({"config": {"http_listen": null}})],
            "spec.config.http_listen cannot be set: the operator sets it, since probes and services rely on it; remove it",
        ),
    ] {
        change["image"] = json!("sarsen:2");
        case.change(change);
        let status =
            case.await_status("the mistake to be told", |status| condition(status, "SpecValid") == "False");
        assert_eq!(
            (&status["phase"], message(&status, "SpecValid").as_str()),
            (&json!("Invalid"), said),
            "{status:#}"
        );
        until("an Event to be there", HEALED, || match case.events().contains(&"SpecInvalid".into()) {
            true => Ok(()),
            false => Err(format!("{:?}", case.events())),
        });
        for mut correction in corrections {
            correction["image"] = json!("sarsen:1");
            case.change(correction);
        }
        case.await_status("the correction to be seen", |status| condition(status, "SpecValid") == "True");
    }
    case.await_ready();
    assert_eq!((case.uids(), case.deleted_pods()), (pods, vec![]), "no pod was touched");

    case.change(json!({"image": "sarsen:2"}));
    case.await_status("the new image to be everywhere", |status| {
        let is_new = |pod: &Pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some("sarsen:2"))
        };
        condition(status, "Ready") == "True" && case.pods().values().all(is_new)
    });
}
