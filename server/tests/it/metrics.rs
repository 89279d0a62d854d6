//! `/metrics`, read by a parser that is not ours, and the same numbers through PromQL.

use crate::node::{Node, until};
use ingest::remote_write::encode::Series;
use prometheus_parse::{Sample, Scrape, Value};

const T: i64 = 1_700_000_040_000;

fn scrape(node: &Node) -> Scrape {
    let answer = node.get("/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    Scrape::parse(text.lines().map(|line| Ok(line.to_string()))).unwrap()
}

fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |s: &&Sample| s.metric == name && labels.iter().all(|(n, v)| s.labels.get(n) == Some(*v));
    match scrape.samples.iter().find(fits).unwrap_or_else(|| panic!("no {name}{labels:?}")).value {
        Value::Counter(v) | Value::Gauge(v) | Value::Untyped(v) => v,
        ref other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn requests_and_samples_are_counted() {
    let node = Node::start();
    let write = |name: &str, n: i64| {
        let samples: Vec<(i64, f64)> = (0..n).map(|i| (T + i, i as f64)).collect();
        node.write(&[Series::new(&[("__name__", name)], &samples)]).status
    };
    assert_eq!((write("a", 3), write("b", 4)), (204, 204));
    assert_eq!(node.write(&[Series::new(&[("__name__", "c")], &[(32_503_680_000_000, 1.0)])]).status, 400);
    assert_eq!(node.get("/api/v1/query?query=(").status, 400);
    let now = scrape(&node);
    assert_eq!(value(&now, "sarsen_ingest_samples_total", &[("type", "float")]), 7.0);
    assert_eq!(value(&now, "sarsen_ingest_rejected_samples_total", &[("reason", "too_far_in_future")]), 1.0);
    assert_eq!(
        value(&now, "sarsen_http_requests_total", &[("handler", "/api/v1/write"), ("code", "204")]),
        2.0
    );
    assert_eq!(
        value(&now, "sarsen_http_requests_total", &[("handler", "/api/v1/query"), ("code", "400")]),
        1.0
    );
    assert_eq!(value(&now, "sarsen_storage_series", &[]), 2.0);
    assert_eq!(value(&now, "sarsen_ready", &[]), 1.0);
    assert_eq!(value(&now, "sarsen_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(value(&now, "process_resident_memory_bytes", &[]) > 1e6);
    assert!(value(&now, "sarsen_wal_commits_total", &[]) >= 1.0);
}

#[test]
fn the_cluster_is_measured_also_when_it_is_one_node() {
    let node = Node::start();
    let now = until("the only node votes", || {
        let now = scrape(&node);
        (value(&now, "sarsen_cluster_voters", &[]) == 1.0).then_some(now)
    });
    for (name, labels, want) in [
        ("sarsen_cluster_nodes", &[("state", "up")][..], 1.0),
        ("sarsen_cluster_nodes", &[("state", "down")], 0.0),
        ("sarsen_cluster_is_leader", &[], 1.0),
        ("sarsen_cluster_voters", &[], 1.0),
        ("sarsen_cluster_replication_factor", &[], 3.0),
        ("sarsen_cluster_shards", &[], 64.0),
        ("sarsen_cluster_shards_held", &[], 64.0),
        ("sarsen_cluster_shards_under_replicated", &[], 64.0),
        ("sarsen_cluster_shards_unavailable", &[], 0.0),
        ("sarsen_shard_min_copies", &[], 1.0),
        ("sarsen_cluster_frames_total", &[("kind", "write"), ("direction", "sent")], 0.0),
        ("sarsen_cluster_bytes_total", &[("kind", "read"), ("direction", "received")], 0.0),
        ("sarsen_cluster_connections_refused_total", &[("reason", "token")], 0.0),
        ("sarsen_cluster_repair_windows_compared_total", &[], 0.0),
        ("sarsen_cluster_hints_queued_bytes", &[], 0.0),
        ("sarsen_cluster_hints_kept_total", &[], 0.0),
        ("sarsen_cluster_hints_replayed_total", &[], 0.0),
        ("sarsen_cluster_hints_dropped_total", &[("reason", "never_taken")], 0.0),
        ("sarsen_cluster_hints_dropped_bytes_total", &[], 0.0),
        ("sarsen_cluster_hints_expired_bytes_total", &[], 0.0),
        ("sarsen_storage_damage", &[], 0.0),
        ("sarsen_scrub_damaged", &[], 0.0),
    ] {
        assert_eq!(value(&now, name, labels), want, "{name}{labels:?}");
    }
}

#[test]
fn every_name_has_our_prefix_or_is_a_process_metric() {
    let node = Node::start();
    let foreign: Vec<String> = scrape(&node)
        .samples
        .iter()
        .map(|s| s.metric.clone())
        .filter(|name| !name.starts_with("sarsen_") && !name.starts_with("process_"))
        .collect();
    assert_eq!(foreign, Vec::<String>::new());
}

#[test]
fn the_first_query_has_an_answer() {
    let node = Node::with(&[]);
    let instance = node.url.strip_prefix("http://").unwrap();
    let found = until("the node has stored its own metrics", || {
        let body = node.get("/api/v1/query?query=up").json();
        body["data"]["result"].get(0).cloned()
    });
    assert_eq!(found["value"][1], "1");
    assert_eq!(found["metric"]["job"], "sarsen");
    assert_eq!(found["metric"]["instance"], instance);
    // It comes a moment after the samples.
    let kind = until("the node has stored what its metrics mean", || {
        let metadata = node.get("/api/v1/metadata?metric=sarsen_ready").json();
        metadata["data"]["sarsen_ready"][0]["type"].as_str().map(str::to_owned)
    });
    assert_eq!(kind, "gauge");
}
