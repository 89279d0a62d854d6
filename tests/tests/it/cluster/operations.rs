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
    assert!(answers.contains("only one that does not is lost"), "{answers}");
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

/// Asks for an operation and gives status and body.
fn asked(node: &Member, operation: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/v1/admin/cluster/{operation}");
    let answer = node.client.send("POST", &path, &[], body.to_string().as_bytes()).expect("an answer");
    (answer.status, answer.json())
}

fn await_down(at: &Member, address: &str) -> Value {
    until("the death to be noticed", PATIENCE, || {
        let node = listed(at, address)?;
        let unheard = node["seen_by"] == serde_json::json!({ "count": 0, "of": 3 });
        if node["state"] == "down" && unheard { Ok(node) } else { Err(node.to_string()) }
    })
}

#[test]
fn an_operator_heals_repeats_itself_and_gives_up_what_dies_on_the_way() {
    let dir = folder();
    let mut cluster = Cluster::start_with(dir.path(), 3, &repaired_every("1s"));
    let loads = [Load::new("kept", 20, yesterday(), 1000)];
    under_load(&loads, &cluster.clients(), 1, || progress(&loads, 5));
    cluster.nodes.push(joined(dir.path(), &cluster, 3));
    let address = cluster.nodes[3].address.clone();
    settles(&cluster.nodes[0], &address, 48);
    let settled = serde_json::json!({ "initializing": 0, "available": 48, "leaving": 0 });
    // What is left to be copied is what the leader has told last.
    until("nothing to be left to copy", PATIENCE, || {
        let node = listed(&cluster.nodes[1], &address)?;
        if node["copies"] == settled && node["filling"].is_null() { Ok(()) } else { Err(node.to_string()) }
    });
    until("all to hear all, and the epoch to be told", PATIENCE, || {
        let status = cluster.nodes[1].status()?;
        let all = status["nodes"].as_array().ok_or("no nodes")?;
        let well = |node: &&Value| {
            node["seen_by"] == serde_json::json!({ "count": 3, "of": 3 }) && node["epoch"] == status["epoch"]
        };
        if all.iter().filter(well).count() == 4 { Ok(()) } else { Err(status.to_string()) }
    });

    // Whoever heals from outside says what is lost, and need not wait.
    let lease = serde_json::json!({ "holder": "operator", "ttl_s": 600 });
    assert_eq!(asked(&cluster.nodes[0], "lease", &lease).0, 200);
    let fourth = id(&cluster.nodes[0], &address);
    let answers = refused(&cluster.nodes[0], &["cluster", "heal", &fourth]);
    assert!(answers.contains("answers, and only one that does not is lost"), "{answers}");
    cluster.nodes[3].kill();
    await_down(&cluster.nodes[0], &address);
    let old = cluster.nodes[0].status().expect("an answer")["epoch"].as_u64().expect("a number") - 1;
    let (status, body) =
        asked(&cluster.nodes[0], "heal", &serde_json::json!({ "node": fourth, "epoch": old }));
    let said = body["error"].as_str().unwrap_or_default();
    assert!(
        status == 409 && said.contains(&format!("epoch {old} ")) && said.contains("look again"),
        "{body}"
    );
    says(&cluster.nodes[1], &["cluster", "heal", &fourth]);
    settles(&cluster.nodes[0], &address, 0);
    let healed = listed(&cluster.nodes[0], &address).expect("a member");
    assert_eq!(healed["state"], "lost", "{healed}");
    cluster.nodes[3].start();
    settles(&cluster.nodes[0], &address, 48);

    // It dies while it is drained, and is removed in the middle of that; asked again, the answer is the same.
    says(&cluster.nodes[0], &["cluster", "drain", &fourth]);
    cluster.nodes[3].kill();
    await_down(&cluster.nodes[0], &address);
    let remove = serde_json::json!({ "node": fourth, "lost": true });
    let (status, body) = asked(&cluster.nodes[0], "remove", &remove);
    assert_eq!((status, &body["data"]["job"]["kind"]), (200, &"remove".into()), "{body}");
    let job = body["data"]["job"]["id"].to_string();
    for at in [1, 2] {
        let (status, again) = asked(&cluster.nodes[at], "remove", &remove);
        assert_eq!((status, &again["data"]["job"]["id"]), (200, &body["data"]["job"]["id"]), "{again}");
    }
    watch(&cluster.nodes[2], &job);
    drop(cluster.nodes.pop());
    cluster.await_safe();
    let gone = cluster.nodes[1].status().expect("an answer")["gone"].clone();
    assert!(
        gone[0]["id"] == *fourth && gone[0]["address"] == *address && gone[0]["gone_ms"].is_u64(),
        "{gone}"
    );
    check_all(&loads, &cluster.clients());
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
