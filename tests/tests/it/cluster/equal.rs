//! Every node answers every question, and as a single node with the same data would.

use super::*;
use crate::prometheus::QUERIES;
use tests::cluster::Cluster;
use tests::peers;
use tests::process::free_port;
use tests::random::now;
use tests::until::until;
use tests::wire::{Series, v2};

/// What is compared besides queries.
const LOOKUPS: [&str; 4] = [
    "/api/v1/labels?",
    "/api/v1/label/__name__/values?",
    "/api/v1/label/instance/values?",
    "/api/v1/series?match[]={job%3D~\".%2B\"}&",
];

#[test]
#[ignore = "needs prometheus, prometheus-node-exporter"]
fn a_prometheus_writes_to_one_node_and_all_answer_as_a_single_node_does() {
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 3);
    let alone = Cluster::start(&dir.path().join("alone"), 1);
    let alone = &alone.nodes[0];
    let write = |client: &Client| format!("{}/api/v1/write", client.base());
    let node_exporter = peers::node_exporter(dir.path());
    let port = free_port();
    let jobs = [("node", node_exporter.port), ("prometheus", port)];
    let urls = [write(&cluster.nodes[1].client), write(&alone.client)];
    let prometheus = peers::prometheus_to(dir.path(), port, &jobs, &urls.each_ref().map(String::as_str));

    let began = now().as_secs_f64();
    until("data of 30 s", Duration::from_secs(90), || {
        let answer = alone
            .client
            .instant("min(count_over_time(up{job=~\"node|prometheus\"}[10m]))", now().as_secs_f64())?;
        match answer.values().flatten().next() {
            Some((_, count)) if *count >= 30.0 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    drop(prometheus);
    let end = now().as_secs_f64();
    let clients = cluster.clients();
    // What was on its way arrives.
    let count = |client: &Client| -> Result<usize, String> {
        let all = client.instant("{job=~\"node|prometheus\"}[10m]", end)?;
        Ok(all.values().map(Vec::len).sum())
    };
    for client in &clients {
        until("the same samples everywhere", PATIENCE, || match (count(client)?, count(&alone.client)?) {
            (a, b) if a == b => Ok(()),
            (a, b) => Err(format!("{a} and {b}")),
        });
    }
    let mut compared = 0;
    for (number, client) in clients.iter().enumerate() {
        for query in QUERIES {
            for time in [began + 10.37, end - 4.21] {
                let ask = |client: &Client| {
                    client.data("/api/v1/query", &[("query", query), ("time", &format!("{time:.3}"))])
                };
                assert_eq!(
                    sorted(ask(client)),
                    sorted(ask(&alone.client)),
                    "node {number}, {query} at {time}"
                );
            }
            let fields = [
                ("query", *query),
                ("start", &*format!("{began:.3}")),
                ("end", &*format!("{end:.3}")),
                ("step", "7"),
            ];
            let ask = |client: &Client| sorted(client.data("/api/v1/query_range", &fields));
            assert_eq!(ask(client), ask(&alone.client), "node {number}, {query} as a range");
            compared += 3;
        }
        for path in LOOKUPS {
            let path = format!("{path}start={began:.3}&end={end:.3}");
            let ask = |client: &Client| client.get(&path).expect("an answer").json()["data"].clone();
            assert_eq!(ask(client), ask(&alone.client), "node {number}, {path}");
        }
        let metadata = |client: &Client| client.get("/api/v1/metadata?metric=up").expect("an answer").json();
        until("metadata everywhere", PATIENCE, || match (metadata(client), metadata(&alone.client)) {
            (a, b) if a == b => Ok(()),
            (a, b) => Err(format!("{a} and {b}")),
        });
    }
    println!("{compared} answers compared");
}

/// An answer with its series in an order of their labels: a vector has none.
fn sorted(answer: Result<serde_json::Value, String>) -> Result<serde_json::Value, String> {
    let mut data = answer?;
    if let Some(result) = data["result"].as_array_mut() {
        result.sort_by_key(ToString::to_string);
    }
    Ok(data)
}

#[test]
fn what_is_written_at_any_node_is_read_at_every_other_at_once() {
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 3);
    let clients = cluster.clients();
    let start = yesterday();
    for round in 0..30i64 {
        let (writer, time) = (&clients[round as usize % 3], start + round * 1_000);
        let series: Vec<Series> = (0..200)
            .map(|series: i64| {
                Series::named("m", "series", &series.to_string()).sample(time, (round * series) as f64)
            })
            .collect();
        let content = ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
        let answer = writer
            .send("POST", "/api/v1/write", &[content], &v2::request(&series).snappy())
            .expect("an answer");
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("X-Prometheus-Remote-Write-Samples-Written"), Some("200"));
        for reader in &clients {
            let found = reader.instant("sum(m) + count(m)", time as f64 / 1e3).expect("an answer");
            let want = (round * 199 * 100 + 200) as f64;
            assert_eq!(
                found.into_values().flatten().next().map(|point| point.1),
                Some(want),
                "round {round}"
            );
        }
    }
    cluster.await_equal_digests(start, start + 30_000, PATIENCE);
}
