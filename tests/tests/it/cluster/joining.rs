//! Nodes that come before there is data.

use super::*;
use serde_json::Value;
use tests::cluster::Member;
use tests::process::BOUND;
use tests::until::until;

const TOKEN: &str = "a-token-that-all-of-them-have";

/// The nodes of a cluster, all started at once. Each stores its own metrics all the time.
fn at_once(dir: &std::path::Path, count: usize) -> Vec<Member> {
    let settings = Settings { environment: vec![("SARSEN_SELF_SCRAPE_INTERVAL", "100ms".into())] };
    let mut nodes: Vec<Member> = Vec::new();
    for number in 0..count {
        let join: Vec<String> = nodes.first().map(|first| first.address.clone()).into_iter().collect();
        let zone = format!("z{}", number % 3);
        let node = Member::new(&dir.join(number.to_string()), &settings, &join, Some(TOKEN));
        let mut node = node.with_arguments(&["--zone", &zone]);
        node.spawn();
        nodes.push(node);
    }
    nodes.iter_mut().for_each(Member::await_ready);
    nodes
}

/// Waits until every node has its share and every shard its copies.
fn await_shares(nodes: &[Member]) {
    for node in nodes {
        until("every node to have its share", BOUND, || {
            let status = node.status()?;
            let all = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let shares = all.iter().filter(|node| node["shards"].as_u64() > Some(0)).count();
            match shares == nodes.len() && status["safety"] == "safe" {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
    }
}

/// Waits until each node has stored metrics about itself: those of shards that it holds can be seen.
fn await_own_metrics(nodes: &[Member]) {
    for node in nodes {
        let instance = node.client.base().trim_start_matches("http://").to_owned();
        until("own metrics", BOUND, || {
            let query = format!("count%28%7Binstance%3D%22{instance}%22%7D%29");
            let path = format!("/api/v1/query?query={query}&consistency=one");
            let answer = node.client.get(&path)?.json();
            let one = answer["data"]["result"].as_array().is_some_and(|result| result.len() == 1);
            if one { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}

#[test]
fn nodes_that_start_in_quick_succession_all_get_their_shares() {
    for _ in 0..5 {
        let dir = folder();
        let nodes = at_once(dir.path(), 3);
        await_shares(&nodes);
    }
}

#[test]
fn what_nodes_store_of_themselves_does_not_leave_later_ones_empty() {
    let dir = folder();
    let mut nodes = at_once(dir.path(), 4);
    await_shares(&nodes);
    await_own_metrics(&nodes);
    let settings = Settings::default();
    let mut late = Member::new(&dir.path().join("late"), &settings, &[nodes[1].address.clone()], Some(TOKEN));
    late.start();
    nodes.push(late);
    await_shares(&nodes);

    // Nor what leaves nothing behind. The first sample does.
    let import = |body: &str| nodes[4].client.send("POST", "/api/v1/import/prometheus", &[], body.as_bytes());
    assert_eq!(import("# TYPE nothing counter\n").expect("an answer").status, 204);
    let far = "tomorrow 1 4102444800000\n";
    assert_eq!(import(far).expect("an answer").status, 400);
    let output = |nodes: &[Member]| -> String {
        nodes.iter().filter_map(|node| node.process.as_ref()).map(|process| process.output()).collect()
    };
    assert!(!output(&nodes).contains("the first data came to this node"), "{}", output(&nodes));
    let epoch = |node: &Member| -> Value { node.status().expect("an answer")["epoch"].clone() };
    let before = epoch(&nodes[0]);
    assert_eq!(import("something 1\n").expect("an answer").status, 204);
    until("the log to say so", BOUND, || match output(&nodes).contains("the first data came to this node") {
        true => Ok(()),
        false => Err(output(&nodes)),
    });
    assert_eq!(epoch(&nodes[0]), before);
}
