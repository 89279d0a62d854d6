//! Nodes that are all started in the same way, and make a cluster when one of them is told to: as an operator starts them.

use super::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tests::client::Response;
use tests::cluster::{Cluster, Member};
use tests::namespaces::{inside, run};
use tests::process::BOUND;
use tests::until::until;

const TOKEN: &str = "a-token-that-all-of-them-have";

/// What a node says of itself, whatever it waits for.
fn told(node: &Member) -> Result<Value, String> {
    Ok(node.client.get("/api/v1/status/node")?.json()["data"].clone())
}

/// Waits until a node says that it waits, and why: for each of these reasons.
fn await_waiting(node: &Member, reasons: &[&str]) -> Value {
    until(&format!("{} to wait", node.address), BOUND, || {
        let told = told(node)?;
        let why = told["reason"].as_str().unwrap_or_default();
        let waits = told["state"] == "waiting" && reasons.iter().all(|reason| why.contains(reason));
        if waits { Ok(told) } else { Err(told.to_string()) }
    })
}

fn create(node: &Member) -> Response {
    node.client.send("POST", "/api/v1/admin/cluster/create", &[], b"").expect("an answer")
}

#[test]
fn nodes_that_wait_for_each_other_become_a_cluster_when_one_is_told_to_make_it() {
    let dir = folder();
    let settings = Settings::default();
    let mut nodes: Vec<Member> = (0..3)
        .map(|number| Member::new(&dir.path().join(number.to_string()), &settings, &[], Some(TOKEN)))
        .collect();
    let all: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    nodes = nodes.into_iter().map(|node| node.with_arguments(&["--join", &all.join(",")])).collect();
    // The second one is not there yet when the first one looks, and that is waited for, too.
    nodes[0].spawn();
    await_waiting(&nodes[0], &["Connection refused", "sarsen cluster create"]);
    nodes[1].spawn();
    nodes[2].spawn();
    let waits = await_waiting(&nodes[1], &["waits for a cluster, too"]);
    assert!(waits["cluster"].is_null() && waits["epoch"].is_null() && waits["node"].is_string(), "{waits}");
    let ready = nodes[1].client.get("/-/ready").expect("an answer");
    assert!(ready.status == 503 && ready.body.contains("waits for a cluster, too"), "{}", ready.body);
    // A restart changes nothing.
    nodes[1].kill();
    nodes[1].spawn();
    assert_eq!(await_waiting(&nodes[1], &["waits for a cluster, too"])["node"], waits["node"]);

    let made = create(&nodes[1]);
    assert_eq!(made.status, 200, "{}", made.body);
    let made = made.json()["data"].clone();
    assert_eq!(made["node"], waits["node"]);
    nodes.iter_mut().for_each(Member::await_ready);
    let cluster = Cluster { nodes, token: TOKEN.into() };
    cluster.await_safe();
    for node in &cluster.nodes {
        let told = told(node).expect("an answer");
        assert!(told["cluster"] == made["cluster"] && told["state"] == "ready", "{told}");
        assert!(told["epoch"].as_u64() > Some(0), "{told}");
        let again = create(node);
        assert!(again.status == 409 && again.json()["data"]["cluster"] == made["cluster"], "{}", again.body);
    }
}

/// The names of `/etc/hosts` in this mount namespace.
fn resolve(hosts: &Path, names: &[(&str, u8)]) {
    let line = |(name, last): &(&str, u8)| format!("127.0.0.{last} {name}\n");
    fs::write(hosts, names.iter().map(line).collect::<String>()).expect("a file can be written");
}

#[test]
#[ignore = "needs root"]
fn one_name_of_all_nodes_is_enough_and_a_node_is_found_at_another_address_behind_its_name() {
    if !inside(
        "cluster::create::one_name_of_all_nodes_is_enough_and_a_node_is_found_at_another_address_behind_its_name",
    ) {
        return;
    }
    run("ip link set lo up");
    let dir = folder();
    let hosts = dir.path().join("hosts");
    // As a headless service: before there is any pod its name is nobody's.
    resolve(&hosts, &[]);
    run(&format!("mount --bind {} /etc/hosts", hosts.display()));
    let member = |number: u8, last: u8| {
        let (http, address) = (format!("127.0.0.{last}:7420"), format!("127.0.0.{last}:7421"));
        let folder = dir.path().join(number.to_string());
        let join = ["nodes.test:7421".to_string()];
        let settings = repaired_every("1s");
        Member::within(&[], &folder, &settings, [&http, &address], &join, TOKEN)
            .with_arguments(&["--cluster-advertise", &format!("n{number}.test:7421")])
    };
    let mut nodes: Vec<Member> = (1..=3).map(|number| member(number, 10 + number)).collect();
    nodes.iter_mut().for_each(Member::spawn);
    await_waiting(&nodes[0], &["its name cannot be resolved"]);
    let (all, own) = ("nodes.test", [("n1.test", 11), ("n2.test", 12), ("n3.test", 13)]);
    resolve(&hosts, &[&own[..], &[(all, 11), (all, 12), (all, 13)]].concat());
    // It is one of them itself.
    let told = await_waiting(&nodes[0], &["this node itself", "waits for a cluster, too"]);
    assert!(told["reason"].as_str().is_some_and(|why| why.contains("(2 of 3 addresses)")), "{told}");
    assert_eq!(create(&nodes[2]).status, 200);
    nodes.iter_mut().for_each(Member::await_ready);
    let mut cluster = Cluster { nodes, token: TOKEN.into() };
    cluster.await_safe();
    let loads = [Load::new("kept", 20, yesterday(), 1_000)];
    under_load(&loads, &cluster.clients(), 1, || progress(&loads, 5));

    // A pod that is made anew gets another address, and its old one may be another's: here, that of nobody.
    cluster.nodes[1].kill();
    cluster.nodes[0].await_safety("degraded");
    let moved = [("n1.test", 11), ("n2.test", 22), ("n3.test", 13)];
    resolve(&hosts, &[&moved[..], &[(all, 11), (all, 22), (all, 13)]].concat());
    cluster.nodes[1] = member(2, 22);
    cluster.nodes[1].start();
    cluster.await_safe();
    under_load(&loads, &cluster.clients(), 2, || progress(&loads, 5));
    check_all(&loads, &cluster.clients());
    // It can be reached by the others, and not only reach them.
    for at in [0, 2] {
        let status = cluster.nodes[at].status().expect("an answer");
        let nodes = status["nodes"].as_array().expect("nodes");
        assert!(nodes.iter().all(|node| node["health"] == "up"), "{status}");
    }
}
