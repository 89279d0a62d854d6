//! Limits: over them the answer names the limit and its key, and the node lives.

use crate::node::{Node, PATIENCE};
use ingest::remote_write::encode::Series;
use std::io::{Read, Write};
use std::net::TcpStream;

const T: i64 = 1_700_000_040_000;

#[test]
fn a_body_over_its_limit_is_413() {
    let node = Node::with(&[("SARSEN_LIMITS_WRITE_BODY_BYTES_MAX", "100")]);
    let noise: String =
        (0..400u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let answer = node.write(&[Series::new(&[("__name__", "m"), ("l", &noise)], &[(T, 1.0)])]);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("limits.write_body_bytes_max"), "{}", answer.text());
    let line =
        "sarsen_requests_rejected_total{handler=\"/api/v1/write\",reason=\"write_body_bytes_max\"} 1\n";
    assert!(node.get("/metrics").text().contains(line));
    assert_eq!(node.write(&[Series::new(&[("__name__", "m")], &[(T, 1.0)])]).status, 204);
}

#[test]
fn a_series_over_a_label_limit_is_refused_with_the_key() {
    let node = Node::with(&[("SARSEN_LIMITS_LABELS_PER_SERIES_MAX", "2")]);
    let answer = node.write(&[
        Series::new(&[("__name__", "m"), ("a", "1"), ("b", "2")], &[(T, 1.0)]),
        Series::new(&[("__name__", "m"), ("a", "1")], &[(T, 1.0)]),
    ]);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("limits.labels_per_series_max"), "{}", answer.text());
    assert_eq!(node.get("/api/v1/series?match[]=m").json()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn queries_over_their_limits_name_the_key() {
    let node = Node::with(&[
        ("SARSEN_LIMITS_QUERY_SAMPLES_MAX", "10"),
        ("SARSEN_LIMITS_QUERY_SERIES_MAX", "3"),
        ("SARSEN_LIMITS_QUERY_TEXT_BYTES_MAX", "50"),
        ("SARSEN_LIMITS_QUERY_RESPONSE_BYTES_MAX", "200"),
        ("SARSEN_LIMITS_LOOKUP_SERIES_MAX", "3"),
    ]);
    let name = |i: usize| format!("n{i}");
    let samples: Vec<(i64, f64)> = (0..20).map(|i| (T + i * 1000, 1.0)).collect();
    let series: Vec<Series> =
        (0..4).map(|i| Series::new(&[("__name__", "m"), ("n", &name(i))], &samples)).collect();
    assert_eq!(node.write(&series).status, 204);
    let at = T / 1000 + 19;
    for (path, status, key) in [
        (format!("/api/v1/query?query=m&time={at}"), 422, "limits.query_series_max"),
        (
            format!("/api/v1/query?query=sum_over_time(m%7Bn=%22n1%22%7D[1m])&time={at}"),
            422,
            "limits.query_samples_max",
        ),
        (format!("/api/v1/query?query=1{}", "%2B1".repeat(30)), 400, "limits.query_text_bytes_max"),
        (
            format!("/api/v1/query_range?query=vector(1)&start={}&end={at}&step=1", at - 19),
            422,
            "limits.query_",
        ),
    ] {
        let answer = node.get(&path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(key), "{path}: {}", answer.text());
    }
    let metrics = node.get("/metrics").text();
    for (handler, reason) in
        [("query", "query_series_max"), ("query", "query_samples_max"), ("query", "query_text_bytes_max")]
    {
        let line = format!(
            "sarsen_requests_rejected_total{{handler=\"/api/v1/{handler}\",reason=\"{reason}\"}} 1\n"
        );
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    let lookup = node.get("/api/v1/series?match[]=m").json();
    assert_eq!(lookup["data"].as_array().unwrap().len(), 3);
    assert!(lookup["warnings"][0].as_str().unwrap().contains("limits.lookup_series_max"), "{lookup}");
}

#[test]
fn a_query_over_its_time_is_stopped_with_503() {
    let node = Node::start();
    // A node that has no data asks the others whether there is any, which may take longer, and is told in other words.
    assert_eq!(node.write(&[Series::new(&[("__name__", "m")], &[(T, 1.0)])]).status, 204);
    let heavy = "sum_over_time((vector(1)%2Bvector(2))[80000s:1s])";
    let path = format!("/api/v1/query_range?query={heavy}&start=0&end=10000&step=1&timeout=5ms");
    let answer = node.get(&path);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["errorType"], "timeout");
    assert_eq!(node.get("/api/v1/query?query=1").status, 200);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let node =
        Node::with(&[("SARSEN_LIMITS_HEADER_TIMEOUT", "50ms"), ("SARSEN_LIMITS_IDLE_TIMEOUT", "100ms")]);
    let address = node.url.strip_prefix("http://").unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut silent = connect();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    let mut half = connect();
    half.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut rest = Vec::new();
    // Closed, perhaps with a word about why; never an answer to what was not asked.
    let _ = half.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    assert_eq!(node.get("/-/healthy").status, 200);
}
