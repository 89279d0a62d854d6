//! Every node answers every question, and as a single node with the same data would.

use super::*;
use crate::prometheus::{QUERIES, differences};
use tests::client::Matrix;
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
    "/api/v1/series?match[]=%7Bjob%3D~%22.%2B%22%7D&",
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
    let mut prometheus = peers::prometheus_to(dir.path(), port, &jobs, &urls.each_ref().map(String::as_str));

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
    // It sends what is in its queues before it ends.
    assert!(prometheus.process.terminate().success(), "{}", prometheus.process.output());
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
            let compare = |what: &str, ask: &dyn Fn(&Client) -> Result<Matrix, String>| match (
                ask(client),
                ask(&alone.client),
            ) {
                // Sums of the same numbers in another order may differ in the last bits.
                (Ok(ours), Ok(theirs)) => {
                    let found = differences(&ours, &theirs);
                    assert!(found.is_empty(), "node {number}, {query}, {what}: {found:?}");
                }
                (ours, theirs) => assert_eq!(ours, theirs, "node {number}, {query}, {what}"),
            };
            for time in [began + 10.37, end - 4.21] {
                compare(&format!("at {time}"), &|client| client.instant(query, time));
            }
            compare("as a range", &|client| client.range(query, began, end, 7.0));
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
