//! Two of three are away.

use super::*;
use tests::cluster::Cluster;
use tests::until::until;
use tests::wire::v1;

#[test]
fn without_a_majority_writes_and_reads_are_503_and_name_shards_and_nodes_until_it_is_back() {
    let dir = folder();
    let mut cluster = Cluster::start(dir.path(), 3);
    let clients = cluster.clients();
    let loads = [Load::new("a", 50, yesterday(), 1_000)];
    under_load(&loads, &clients, 1, || progress(&loads, 20));
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();

    let client = clients[0].clone();
    let body = v1::request(&loads[0].samples(50_000)).snappy();
    let write = || client.send("POST", "/api/v1/write", &[], &body);
    let refused = until("writes to be refused", PATIENCE, || match write()? {
        answer if answer.status == 503 => Ok(answer),
        answer => Err(format!("{answer:?}")),
    });
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    assert!(refused.body.contains("shard"), "{refused:?}");

    let query = format!("/api/v1/query?query=count(load)&time={}", loads[0].end() as f64 / 1e3);
    let read = client.get(&query).expect("an answer");
    let error = read.json();
    assert_eq!((read.status, error["errorType"].as_str()), (503, Some("unavailable")), "{read:?}");
    let text = error["error"].as_str().expect("a text").to_string();
    assert!(text.contains("shard") && read.header("Retry-After").is_some(), "{read:?}");
    assert_eq!(client.get("/api/v1/labels").expect("an answer").status, 503);

    // Who asks for what there is gets it, and is told what is missing.
    let partial = client.get(&format!("{query}&partial=true")).expect("an answer");
    assert_eq!(partial.status, 200, "{partial:?}");
    let partial = partial.json();
    assert_eq!(partial["data"]["result"][0]["value"][1], "50", "{partial}");
    let warnings = partial["warnings"].to_string();
    assert!(warnings.contains("shard"), "{partial}");
    let one = client.get(&format!("{query}&consistency=one")).expect("an answer");
    assert_eq!(
        (one.status, one.json()["data"]["result"][0]["value"][1].as_str()),
        (200, Some("50")),
        "{one:?}"
    );
    cluster.nodes[0].await_safety("unavailable");

    cluster.nodes[1].start();
    until("writes to be taken again", PATIENCE, || match write()? {
        answer if answer.status == 204 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    cluster.nodes[2].start();
    cluster.await_safe();
    check_all(&loads, &clients);
}

#[test]
fn consistency_is_chosen_by_request_and_by_namespace() {
    let dir = folder();
    let mut cluster = Cluster::start(dir.path(), 3);
    let client = cluster.nodes[0].client.clone();
    let load = Load::new("a", 20, yesterday(), 1_000);
    let body = v1::request(&load.samples(0)).snappy();
    let write = |parameters: &str, headers: &[(&str, &str)]| {
        client.send("POST", &format!("/api/v1/write{parameters}"), headers, &body).expect("an answer")
    };
    assert_eq!(write("?consistency=all", &[]).status, 204);
    let bad = write("", &[("X-Sarsen-Consistency", "two")]);
    assert!(bad.status == 400 && bad.body.contains("`one`, `majority` or `all`"), "{bad:?}");

    cluster.nodes[2].kill();
    let all = until("a write to all to be refused", PATIENCE, || {
        match write("", &[("X-Sarsen-Consistency", "all")]) {
            answer if answer.status == 503 => Ok(answer),
            answer => Err(format!("{answer:?}")),
        }
    });
    assert!(all.body.contains("shard"), "{all:?}");
    assert_eq!(write("", &[]).status, 204, "a majority is enough when nothing else is asked for");

    let apply = |value: &str| {
        let body = format!("{{\"default\":{{\"write_consistency\":\"{value}\"}}}}");
        client.send("POST", "/api/v1/admin/namespaces", &[], body.as_bytes()).expect("an answer")
    };
    let applied = apply("all");
    assert_eq!(applied.status, 200, "{applied:?}");
    until("the namespace to be followed", PATIENCE, || match write("", &[]) {
        answer if answer.status == 503 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    assert_eq!(write("?consistency=majority", &[]).status, 204, "a request may say otherwise");
    assert_eq!(apply("majority").status, 200);
    until("the namespace to be followed", PATIENCE, || match write("", &[]) {
        answer if answer.status == 204 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
}
