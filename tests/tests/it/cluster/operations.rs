//! Nodes are added, drained, removed and replaced by the command line.

use super::*;
use serde_json::Value;
use std::process::{Command, Output};
use tests::cluster::{Cluster, Member};
use tests::process::binary;
use tests::until::until;

/// `sarsen …` against a node.
fn sarsen(node: &Member, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("SARSEN_URL", node.client.base()).env("USER", "ada");
    command.output().expect("the binary runs")
}

fn says(node: &Member, arguments: &[&str]) -> String {
    let output = sarsen(node, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

fn json(node: &Member, arguments: &[&str]) -> Value {
    let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&says(node, &all)).expect("JSON")
}

/// What a command that is refused says.
fn refused(node: &Member, arguments: &[&str]) -> String {
    let output = sarsen(node, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The node of the status with an address.
fn listed(at: &Member, address: &str) -> Result<Value, String> {
    let status = at.status()?;
    let found = status["nodes"].as_array().into_iter().flatten().find(|node| node["address"] == address);
    found.cloned().ok_or_else(|| format!("no {address} in {status}"))
}

fn id(at: &Member, address: &str) -> String {
    listed(at, address).expect("a member")["id"].as_str().expect("an id").to_owned()
}

/// Waits until a node holds so many shards and none moves.
fn settles(at: &Member, address: &str, shards: u64) {
    until(&format!("{address} to hold {shards} shards"), PATIENCE, || {
        let node = listed(at, address)?;
        let moving = at.status()?["shards"]["moving"].as_u64();
        match (node["shards"].as_u64() == Some(shards), moving) {
            (true, Some(0)) => Ok(()),
            _ => Err(format!("{node}, {moving:?} move")),
        }
    });
}

/// Follows a job to its end.
fn watch(at: &Member, job: &str) {
    let told = says(at, &["jobs", "watch", job]);
    assert!(told.trim_end().lines().last().is_some_and(|line| line.starts_with("100 % done")), "{told}");
}

fn joined(dir: &std::path::Path, cluster: &Cluster, number: usize) -> Member {
    let join = [cluster.nodes[0].address.clone()];
    let folder = dir.join(format!("joins-{number}"));
    let mut node = Member::new(&folder, &repaired_every("1s"), &join, Some(&cluster.token));
    node.start();
    node
}

#[test]
fn nodes_are_drained_filled_removed_and_replaced_and_every_sample_is_there() {
    let dir = folder();
    let mut cluster = Cluster::start_with(dir.path(), 3, &repaired_every("1s"));
    let loads = [Load::new("kept", 200, yesterday(), 1000)];
    under_load(&loads, &cluster.clients(), 1, || progress(&loads, 20));
    cluster.nodes.push(joined(dir.path(), &cluster, 3));
    let address = cluster.nodes[3].address.clone();
    let first = &cluster.nodes[0];
    settles(first, &address, 48);
    let fourth = id(first, &address);

    // What would be done, before anything is.
    let plan = says(first, &["cluster", "drain", &fourth[..12], "--dry-run"]);
    assert!(plan.starts_with("ORDER  SHARD  FROM") && plan.contains("is draining"), "{plan}");
    assert!(plan.contains("every shard keeps 3 live copies or more"), "{plan}");
    assert!(plan.ends_with("nothing was changed (--dry-run)\n"), "{plan}");
    let plan = json(first, &["cluster", "drain", &fourth, "--dry-run"]);
    assert_eq!(plan["plan"]["moves"].as_array().map(Vec::len), Some(48), "{plan}");
    assert_eq!(json(first, &["jobs", "list"]), serde_json::json!([]));

    // One at a time; a job that is paused, resumed and followed from another node.
    let told = says(first, &["cluster", "drain", &fourth]);
    assert!(told.starts_with(&format!("job 1: drain {fourth}\n")) && told.contains("jobs watch 1"), "{told}");
    let clash = refused(&cluster.nodes[1], &["cluster", "remove", &fourth]);
    assert!(clash.contains("job 1 (drain") && clash.contains("HTTP 409"), "{clash}");
    says(&cluster.nodes[1], &["jobs", "pause", "1"]);
    let job = json(&cluster.nodes[2], &["jobs", "list"])[0].clone();
    assert_eq!(
        (&job["kind"], &job["phase"], &job["by"]),
        (&"drain".into(), &"paused".into(), &"ada".into()),
        "{job}"
    );
    says(first, &["jobs", "resume", "1"]);
    watch(&cluster.nodes[2], "1");
    settles(first, &address, 0);
    let status = json(first, &["status"]);
    assert_eq!(status["shards"]["min_copies"], 3, "{status}");
    let job = &status["jobs"][0];
    assert_eq!(
        (&job["id"], &job["kind"], &job["phase"], &job["percent"]),
        (&1.into(), &"drain".into(), &"done".into(), &100.0.into())
    );
    assert!(job["bytes"].is_u64() && job["eta_s"].is_null(), "{job}");
    assert!(refused(first, &["jobs", "cancel", "1"]).contains("is done already"));
    assert!(refused(first, &["jobs", "watch", "99"]).contains("there are 1"));
    assert!(refused(first, &["cluster", "drain", "nobody"]).contains(&fourth));

    says(first, &["cluster", "add", &fourth]);
    watch(first, "2");
    settles(first, &address, 48);

    // A removed node ends by itself.
    let mut leaves = cluster.nodes.remove(2);
    let third = id(&cluster.nodes[0], &leaves.address);
    let answers = refused(&cluster.nodes[0], &["cluster", "remove", &third, "--lost"]);
    assert!(answers.contains("never come back"), "{answers}");
    says(&cluster.nodes[0], &["cluster", "remove", &third]);
    watch(&cluster.nodes[0], "3");
    let mut process = leaves.process.take().expect("it runs");
    assert_eq!(process.await_end().code(), Some(14));
    assert!(process.output().contains("was removed from the cluster"), "{}", process.output());
    cluster.await_safe();

    // Another is lost, and replaced by one that has joined.
    cluster.nodes.push(joined(dir.path(), &cluster, 4));
    let mut lost = cluster.nodes.remove(1);
    let (old, new) = (id(&cluster.nodes[0], &lost.address), id(&cluster.nodes[0], &cluster.nodes[2].address));
    lost.kill();
    until("the loss to be noticed", PATIENCE, || {
        match listed(&cluster.nodes[0], &lost.address)?["state"].as_str() {
            Some("down") => Ok(()),
            state => Err(format!("it is {state:?}")),
        }
    });
    says(&cluster.nodes[0], &["cluster", "replace", &old, &new, "--lost"]);
    watch(&cluster.nodes[0], "4");
    cluster.await_safe();
    let gone = says(&cluster.nodes[0], &["cluster", "nodes"]);
    assert!(!gone.contains(&lost.address), "{gone}");

    check_all(&loads, &cluster.clients());
    let metrics = cluster.nodes[0].client.get("/metrics").expect("metrics").body;
    assert!(metrics.contains("sarsen_jobs{kind=\"replace\",state=\"done\"} 1"), "{metrics}");
    assert!(metrics.contains("sarsen_moves_copies_remaining 0"), "{metrics}");
}

#[test]
fn a_pause_and_a_lease_hold_the_autopilot_back_and_every_node_says_so() {
    let dir = folder();
    let settings = Settings { environment: vec![("SARSEN_NODE_LOSS_GRACE", "1s".into())] };
    let mut cluster = Cluster::start_with(dir.path(), 3, &settings);
    let loads = [Load::new("kept", 20, yesterday(), 1000)];
    under_load(&loads, &cluster.clients(), 1, || progress(&loads, 5));
    let on = says(&cluster.nodes[0], &["cluster", "autopilot", "status"]);
    assert!(on.starts_with("on: "), "{on}");

    let lease = |node: &Member, holder: &str, ttl_s: u64| {
        let body = serde_json::json!({ "holder": holder, "ttl_s": ttl_s }).to_string();
        node.client.send("POST", "/api/v1/admin/cluster/lease", &[], body.as_bytes()).expect("an answer")
    };
    assert_eq!(lease(&cluster.nodes[0], "operator", 600).status, 200);
    let refused = lease(&cluster.nodes[1], "another", 600);
    assert_eq!(refused.status, 409);
    assert!(
        refused.body.contains("operator") && refused.body.contains("holds the lease"),
        "{}",
        refused.body
    );
    let paused = says(&cluster.nodes[1], &["cluster", "autopilot", "pause"]);
    assert!(
        paused.contains("sarsen cluster autopilot resume") && paused.contains("operator holds"),
        "{paused}"
    );
    assert_eq!(lease(&cluster.nodes[1], "operator", 0).status, 200);
    let told = json(&cluster.nodes[1], &["cluster", "autopilot", "status"]);
    assert_eq!(told, serde_json::json!({ "paused": true, "lease": null, "held": null }));

    let address = cluster.nodes[2].address.clone();
    cluster.nodes[2].kill();
    for node in &cluster.nodes[..2] {
        until("the pause to hold the loss back", PATIENCE, || {
            let status = node.status()?;
            let held = status["autopilot"]["held"].as_str().unwrap_or_default();
            if held.contains("autopilot resume") { Ok(()) } else { Err(status["autopilot"].to_string()) }
        });
        assert_ne!(listed(node, &address).expect("a node")["state"], "lost");
        let metrics = node.client.get("/metrics").expect("metrics").body;
        assert!(metrics.contains("sarsen_autopilot_held 1"), "{metrics}");
        let status = says(node, &["status"]);
        assert!(
            status.contains("autopilot: a node has been away for longer than node_loss_grace"),
            "{status}"
        );
    }
    says(&cluster.nodes[0], &["cluster", "autopilot", "resume"]);
    until("the node to be lost", PATIENCE, || match &listed(&cluster.nodes[1], &address)?["state"] {
        state if state == "lost" => Ok(()),
        state => Err(state.to_string()),
    });
    cluster.nodes[2].start();
    cluster.await_safe();
    check_all(&loads, &cluster.clients());
}
