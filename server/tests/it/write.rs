//! Writes: what is acknowledged, and what hostile bodies get.

use crate::node::Node;
use ingest::remote_write::encode::{self, Sample, Series};
use serde_json::json;
use std::io::Write;

const T: i64 = 1_700_000_040_000;
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

#[test]
fn version_2_is_told_how_much_was_written() {
    let node = Node::start();
    let series = Series::new(&[("__name__", "m")], &[(T, 1.0), (T + 1, 2.0)]);
    let body = encode::compress(&encode::v2(&[series]));
    let answer = node.post("/api/v1/write", &[("Content-Type", V2), ("Content-Encoding", "snappy")], &body);
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), Some("2"));
    assert_eq!(answer.header("x-prometheus-remote-write-histograms-written"), Some("0"));
    assert_eq!(answer.header("x-prometheus-remote-write-exemplars-written"), Some("0"));
}

#[test]
fn valid_samples_of_a_bad_request_are_stored_and_the_rest_is_reported() {
    let node = Node::start();
    let future = 32_503_680_000_000;
    let answer = node.write(&[
        Series::new(&[("__name__", "good")], &[(T, 1.0)]),
        Series::new(&[("__name__", "bad")], &[(future, 1.0)]),
    ]);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("too far in the future"), "{}", answer.text());
    let names = node.get("/api/v1/label/__name__/values").json();
    assert_eq!(names["data"], json!(["good"]));
}

#[test]
fn what_is_not_remote_write_is_refused_with_its_reason() {
    let node = Node::start();
    for (headers, body, status, reason) in [
        (&[("Content-Type", "text/plain")][..], &b"x"[..], 415, "application/x-protobuf"),
        (&[("Content-Encoding", "gzip")], b"x", 415, "snappy"),
        (&[("Content-Type", "application/x-protobuf;proto=nope")], b"x", 415, "nope"),
        (&[("Content-Encoding", "snappy")], b"\xff\xff\xff\xff\xff\xff", 400, "snappy"),
        (&[], &encode::compress(b"\x0a\x05abc"), 400, ""),
    ] {
        let answer = node.post("/api/v1/write", headers, body);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
        assert!(answer.text().contains(reason) && answer.text().len() > 5, "{}", answer.text());
    }
    assert_eq!(node.post("/api/v1/write", &[], &encode::compress(b"")).status, 204);
}

#[test]
fn a_decompression_bomb_costs_no_memory() {
    let node = Node::start();
    assert_eq!(node.write(&[Series::new(&[("__name__", "m")], &[(T, 1.0)])]).status, 204);
    let before = node.resident_bytes();
    // Declares 2.5 GB, and would repeat one byte that often.
    let mut bomb = Vec::new();
    let mut declared = 2_500_000_000u64;
    while declared >= 0x80 {
        bomb.push(declared as u8 | 0x80);
        declared >>= 7;
    }
    bomb.extend_from_slice(&[declared as u8, 0x00, b'a']);
    bomb.extend_from_slice(&[0xfe, 0x01, 0x00].repeat(10_000));
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zipped.write_all(&vec![b'\n'; 300 << 20]).unwrap();
    let zipped = zipped.finish().unwrap();
    for _ in 0..5 {
        for (path, coding, body) in
            [("/api/v1/write", "snappy", &bomb), ("/api/v1/import/prometheus", "gzip", &zipped)]
        {
            let answer = node.post(path, &[("Content-Encoding", coding)], body);
            assert!([400, 413].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            assert!(answer.text().contains("limits."), "{path}: {}", answer.text());
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    // The gzip one may expand up to the limit of 32 MiB before it is known for what it is.
    assert!(grown < 100 << 20, "grew by {grown} bytes");
}

#[test]
fn text_is_imported_with_labels_and_a_time_of_its_own() {
    let node = Node::start();
    let text = "# TYPE a gauge\na{x=\"1,}\"} 5\njob:b:rate5m 6 1700000000000\n";
    let path = format!("/api/v1/import/prometheus?extra_label=job%3Dx&timestamp={T}");
    assert_eq!(node.post(&path, &[], text.as_bytes()).status, 204);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(b"c 7\n").unwrap();
    assert_eq!(node.post(&path, &[("Content-Encoding", "gzip")], &zipped.finish().unwrap()).status, 204);
    let series = node.get("/api/v1/series?match[]={job=%22x%22}").json();
    assert_eq!(
        series["data"],
        json!([
            {"__name__": "a", "job": "x", "x": "1,}"},
            {"__name__": "c", "job": "x"},
            {"__name__": "job:b:rate5m", "job": "x"}
        ])
    );
    let query = node.get(&format!("/api/v1/query?query=a&time={}", T / 1000)).json();
    assert_eq!(query["data"]["result"][0]["value"], json!([T / 1000, "5"]));
    let bad = node.post(&path, &[], b"d 8\nnonsense line\n");
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("line 2"), "{}", bad.text());
    assert_eq!(node.get("/api/v1/series?match[]=d").json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(node.post(&path, &[("Content-Encoding", "br")], b"d 8\n").status, 415);
    assert_eq!(node.post("/api/v1/import/prometheus?timestamp=x", &[], b"d 8\n").status, 400);
}

#[test]
fn what_senders_call_out_of_order_or_duplicate_is_accepted() {
    let node = Node::start();
    let write = |t, v: f64| node.write(&[Series::new(&[("__name__", "m")], &[(t, v)])]).status;
    assert_eq!([write(T, 1.0), write(T - 60_000, 2.0), write(T, 1.0), write(T, 3.0)], [204; 4]);
    let query = node.get(&format!("/api/v1/query?query=m&time={}", T / 1000)).json();
    assert_eq!(query["data"]["result"][0]["value"][1], "3", "the greater value wins");
    let stale = Sample { timestamp: T + 1, value: model::value::stale(), start: 0 };
    let mut series = Series::new(&[("__name__", "m")], &[]);
    series.samples.push(stale);
    assert_eq!(node.write(&[series]).status, 204);
    let query = node.get(&format!("/api/v1/query?query=m&time={}", T / 1000 + 1)).json();
    assert_eq!(query["data"]["result"], json!([]), "a stale marker ends the series");
}
