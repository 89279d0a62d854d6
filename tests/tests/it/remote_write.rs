//! What a remote-write sender is told: Prometheus's answers, case by case, in both versions of the protocol.
//!
//! Two answers differ from Prometheus's by design: a sample out of order is accepted, and so is a second value for one
//! timestamp. And a request with some bad samples keeps its good ones in version 1 too.

mod hostile;

use tempfile::TempDir;
use tests::client::{Client, Response};
use tests::process::{Sarsen, free_port};
use tests::random::now_ms;
use tests::wire::{Buckets, Message, Series, histogram, v1, v2};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

use Version::{V1, V2};

const BOTH: [Version; 2] = [V1, V2];
const V1_TYPE: &str = "application/x-protobuf;proto=prometheus.WriteRequest";
const V2_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A node of its own for each test.
pub struct Receiver {
    pub sarsen: Sarsen,
    _dir: TempDir,
}

impl Receiver {
    pub fn start() -> Receiver {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        // A retention, so that there is something too old for it.
        Receiver { sarsen: Sarsen::start_with(dir.path(), free_port(), &["--retention", "30d"]), _dir: dir }
    }

    pub fn client(&self) -> &Client {
        &self.sarsen.client
    }

    /// POST of a body as it is, with the headers of a version.
    pub fn post(&self, version: Version, body: &[u8]) -> Response {
        let content = if version == V1 { V1_TYPE } else { V2_TYPE };
        let headers = [("Content-Type", content), ("Content-Encoding", "snappy")];
        self.client().send("POST", "/api/v1/write", &headers, body).expect("an answer")
    }

    /// POST of series, the answer's headers checked against what the version prescribes.
    fn write(&self, version: Version, series: &[Series]) -> Response {
        self.message(version, &request(version, series))
    }

    fn message(&self, version: Version, message: &Message) -> Response {
        let response = self.post(version, &message.snappy());
        for kind in ["Samples", "Histograms", "Exemplars"] {
            let name = format!("X-Prometheus-Remote-Write-{kind}-Written");
            assert_eq!(
                response.header(&name).is_some(),
                version == V2,
                "{name} with {version:?}: {response:?}"
            );
        }
        if response.status == 204 {
            assert!(response.body.is_empty(), "{response:?}");
        } else {
            assert!(!response.body.trim().is_empty(), "a refusal without a reason: {response:?}");
        }
        response
    }

    /// All values of the metric, sorted by time, whatever its other labels.
    fn values(&self, metric: &str) -> Vec<f64> {
        let end = now_ms() as f64 / 1e3 + 1200.0;
        let answer =
            self.client().instant(&format!("{{__name__=\"{metric}\"}}[40d]"), end).expect("an answer");
        let mut points: Vec<(f64, f64)> = answer.into_values().flatten().collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.into_iter().map(|point| point.1).collect()
    }
}

pub fn request(version: Version, series: &[Series]) -> Message {
    if version == V1 { v1::request(series) } else { v2::request(series) }
}

fn written(response: &Response) -> [&str; 3] {
    ["Samples", "Histograms", "Exemplars"].map(|kind| {
        let name = format!("X-Prometheus-Remote-Write-{kind}-Written");
        response.header(&name).unwrap_or_else(|| panic!("no {name}: {response:?}"))
    })
}

/// A series that nothing is wrong with.
fn good() -> Series {
    Series::named("good", "k", "v").sample(now_ms(), 1.0)
}

/// Sends `bad` between two good series: they must be kept, and the answer must be as told. An empty `cause` means
/// that the request is accepted as if nothing had happened.
fn check_bad(version: Version, bad: Series, cause: &str) {
    let receiver = Receiver::start();
    let first = Series::named("good", "k", "1").sample(now_ms(), 1.0);
    let last = Series::named("good", "k", "2").sample(now_ms(), 2.0);
    let response = receiver.write(version, &[first, bad, last]);
    if cause.is_empty() {
        assert_eq!(response.status, 204, "{version:?}: {response:?}");
    } else {
        assert_eq!(response.status, 400, "{version:?}: {response:?}");
        assert!(response.body.contains(cause), "{version:?}: {cause:?} is not in {:?}", response.body);
    }
    if version == V2 {
        assert_eq!(written(&response), ["2", "0", "0"], "{response:?}");
    }
    let mut values = receiver.values("good");
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [1.0, 2.0], "{version:?}: the good samples of a bad request are kept");
    assert!(receiver.values("bad").is_empty(), "{version:?}: nothing of the bad series is kept");
}

#[test]
fn only_post_is_allowed() {
    let receiver = Receiver::start();
    for method in ["GET", "PUT", "DELETE"] {
        let body: &[u8] = if method == "PUT" { b"x" } else { b"" };
        let response = receiver.client().send(method, "/api/v1/write", &[], body).unwrap();
        assert_eq!(response.status, 405, "{method}: {response:?}");
    }
}

#[test]
fn the_content_type_selects_the_version_and_an_unknown_one_is_415() {
    let receiver = Receiver::start();
    let at = now_ms();
    let series = |name: &str| [Series::named(name, "k", "v").sample(at, 1.0)];
    let cases = [
        ("plain", "application/x-protobuf", V1, 204),
        ("named", V1_TYPE, V1, 204),
        ("two", V2_TYPE, V2, 204),
        ("space", "application/x-protobuf; proto=io.prometheus.write.v2.Request", V2, 204),
        ("unknown", "application/x-protobuf;proto=io.prometheus.write.v9.Request", V2, 415),
        ("text", "text/plain", V1, 415),
        ("json", "application/json", V1, 415),
    ];
    for (name, content, version, status) in cases {
        let body = request(version, &series(name)).snappy();
        let headers = [("Content-Type", content), ("Content-Encoding", "snappy")];
        let response = receiver.client().send("POST", "/api/v1/write", &headers, &body).unwrap();
        assert_eq!(response.status, status, "{content}: {response:?}");
        assert_eq!(receiver.values(name).len(), usize::from(status == 204), "{content}");
        if status == 415 {
            let named = response.body.contains("application/x-protobuf") || response.body.contains("v9");
            assert!(named, "{content}: {}", response.body);
        }
    }
}

#[test]
fn without_headers_a_body_is_version_1_in_snappy_and_any_other_encoding_is_415() {
    let receiver = Receiver::start();
    let body = v1::request(&[good()]).snappy();
    let response = receiver.client().send("POST", "/api/v1/write", &[], &body).unwrap();
    assert_eq!(response.status, 204, "{response:?}");
    assert_eq!(receiver.values("good"), [1.0]);
    for encoding in ["gzip", "zstd", "identity"] {
        let headers = [("Content-Type", V1_TYPE), ("Content-Encoding", encoding)];
        let response = receiver.client().send("POST", "/api/v1/write", &headers, &body).unwrap();
        assert_eq!(response.status, 415, "{encoding}: {response:?}");
        assert!(response.body.contains(encoding), "{response:?}");
    }
}

#[test]
fn a_body_that_is_no_snappy_or_no_protobuf_is_400() {
    let receiver = Receiver::start();
    for version in BOTH {
        let raw = receiver.post(version, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(raw.status, 400, "{raw:?}");
        assert!(raw.body.contains("snappy"), "{raw:?}");
        let undecodable = receiver.message(version, &Message(vec![0x0a, 0x7f, 0x01]));
        assert_eq!(undecodable.status, 400, "{undecodable:?}");
        let group = receiver.message(version, &Message(vec![0x0b]));
        assert_eq!(group.status, 400, "a field type that protobuf no longer has: {group:?}");
    }
}

#[test]
fn an_empty_request_is_accepted() {
    let receiver = Receiver::start();
    for version in BOTH {
        let response = receiver.message(version, &Message::new());
        assert_eq!(response.status, 204, "{response:?}");
        if version == V2 {
            assert_eq!(written(&response), ["0", "0", "0"]);
        }
    }
}

#[test]
fn what_was_written_is_counted_and_read_back() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let series = [
            Series::named("a", "k", "v")
                .sample(at - 2000, 1.5)
                .sample(at - 1000, -0.0)
                .sample(at, f64::INFINITY),
            // The same labels once more in the same request.
            Series::named("a", "k", "v").sample(at + 1000, 4.0),
            Series::new(&[("__name__", "ünï.code"), ("http.method", "GET/日本")]).sample(at, 7.0),
        ];
        let response = receiver.write(version, &series);
        assert_eq!(response.status, 204, "{response:?}");
        if version == V2 {
            assert_eq!(written(&response), ["5", "0", "0"]);
        }
        assert_eq!(receiver.values("a"), [1.5, -0.0, f64::INFINITY, 4.0]);
        assert_eq!(receiver.values("ünï.code"), [7.0]);
    }
}

#[test]
fn a_series_without_a_name_or_with_bad_utf8_is_passed_over_in_version_1_and_told_in_version_2() {
    let at = now_ms();
    let bad = [
        Series::new(&[("nameless", "bad")]).sample(at, 9.0),
        Series::new(&[(&b"__name__"[..], &b"bad\xff"[..])]).sample(at, 9.0),
        Series::new(&[(&b"__name__"[..], &b"bad"[..]), (b"x\xc0", b"v")]).sample(at, 9.0),
        Series::new(&[("__name__", "bad"), ("", "v")]).sample(at, 9.0),
        Series::new::<&str, &str>(&[]).sample(at, 9.0),
    ];
    for bad in bad {
        check_bad(V1, bad.clone(), "");
        check_bad(V2, bad, "invalid metric name or labels, got {");
    }
}

#[test]
fn a_label_that_occurs_twice_is_passed_over_in_version_1_and_told_in_version_2() {
    let bad = Series::new(&[("__name__", "bad"), ("x", "1"), ("x", "2")]).sample(now_ms(), 9.0);
    check_bad(V1, bad.clone(), "");
    check_bad(V2, bad, "duplicated label x");
}

#[test]
fn labels_are_sorted_and_empty_ones_dropped() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let sorted = Series::new(&[("__name__", "m"), ("a", "1"), ("z", "2")]).sample(at, 1.0);
        let shuffled =
            Series::new(&[("z", "2"), ("empty", ""), ("a", "1"), ("__name__", "m")]).sample(at + 1000, 2.0);
        let response = receiver.write(version, &[sorted, shuffled]);
        assert_eq!(response.status, 204, "{response:?}");
        let answer = receiver.client().instant("m", at as f64 / 1e3 + 1.0).unwrap();
        assert_eq!(answer.len(), 1, "one series, however its labels were written: {answer:?}");
        let labels: Vec<&str> = answer.keys().next().unwrap().keys().map(String::as_str).collect();
        assert_eq!(labels, ["__name__", "a", "z"]);
        assert_eq!(receiver.values("m"), [1.0, 2.0]);
    }
}

#[test]
fn references_outside_of_the_symbols_or_of_an_odd_number_are_told_and_the_rest_is_kept() {
    let receiver = Receiver::start();
    let at = now_ms();
    let sample = |value: f64| Series::default().sample(at, value);
    let symbols = ["", "__name__", "good", "k"];
    let response = receiver.message(
        V2,
        &v2::with_symbols(
            &symbols,
            &[
                v2::time_series(&[1, 2, 3, 1], &sample(1.0)),
                v2::time_series(&[1, 2, 3], &sample(9.0)),
                v2::time_series(&[1, 999], &sample(9.0)),
                v2::time_series(&[1, 2, 3, 2], &sample(2.0)),
            ],
        ),
    );
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("invalid labelRefs length 3"), "{}", response.body);
    assert!(
        response.body.contains("999") && response.body.contains("outside of symbols table"),
        "{}",
        response.body
    );
    assert_eq!(response.body.lines().count(), 2, "one line for each: {}", response.body);
    assert_eq!(written(&response), ["2", "0", "0"]);
    assert_eq!(receiver.values("good").len(), 2);
}

#[test]
fn the_first_symbol_must_be_empty() {
    let receiver = Receiver::start();
    let message = v2::with_symbols(
        &["x", "__name__", "m"],
        &[v2::time_series(&[1, 2], &Series::default().sample(now_ms(), 1.0))],
    );
    let response = receiver.message(V2, &message);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(receiver.values("m").is_empty());
}

#[test]
fn a_series_without_samples_is_accepted_in_version_1_and_told_in_version_2() {
    let bad = Series::named("bad", "k", "v");
    check_bad(V1, bad.clone(), "");
    check_bad(
        V2,
        bad,
        "TimeSeries must contain at least one sample or histogram for series {__name__=\"bad\"",
    );
}

#[test]
fn samples_out_of_order_are_accepted_within_one_request_and_across_requests() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let series = |ago_s: i64, value: f64| Series::named("m", "k", "v").sample(at - ago_s * 1000, value);
        for (ago, value) in [(0, 5.0), (3600, 4.0), (20 * 86_400, 1.0), (7200, 3.0)] {
            let response = receiver.write(version, &[series(ago, value)]);
            assert_eq!(response.status, 204, "{ago} s ago: {response:?}");
        }
        let response = receiver.write(version, &[series(1, 4.5), series(86_400, 2.0)]);
        assert_eq!(response.status, 204, "{response:?}");
        assert_eq!(receiver.values("m"), [1.0, 2.0, 3.0, 4.0, 4.5, 5.0], "{version:?}");
    }
}

#[test]
fn the_same_sample_again_changes_nothing_and_counts_as_written() {
    for version in BOTH {
        let receiver = Receiver::start();
        let series = [good()];
        for _ in 0..3 {
            let response = receiver.write(version, &series);
            assert_eq!(response.status, 204, "{response:?}");
            if version == V2 {
                assert_eq!(written(&response), ["1", "0", "0"]);
            }
        }
        assert_eq!(receiver.values("good"), [1.0]);
    }
}

#[test]
fn of_two_values_for_one_timestamp_the_greater_one_wins_whatever_the_order() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let write =
            |value: f64| receiver.write(version, &[Series::named("m", "k", "v").sample(at, value)]).status;
        for value in [2.0, 3.0, 1.0] {
            assert_eq!(write(value), 204);
        }
        assert_eq!(receiver.values("m"), [3.0]);
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        assert_eq!(write(stale), 204);
        assert_eq!(receiver.values("m"), [3.0], "a number beats the stale marker");
    }
}

#[test]
fn a_stale_marker_ends_a_series() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let series = Series::named("m", "k", "v").sample(at - 1000, 1.0).sample(at, stale);
        assert_eq!(receiver.write(version, &[series]).status, 204);
        let instant = |time: i64| receiver.client().instant("m", time as f64 / 1e3).unwrap().len();
        assert_eq!((instant(at - 1), instant(at)), (1, 0));
    }
}

#[test]
fn samples_older_than_the_retention_are_refused_and_the_rest_is_kept() {
    for version in BOTH {
        let old = Series::named("bad", "k", "v").sample(now_ms() - 31 * 86_400_000, 9.0);
        check_bad(version, old, "out of bounds");
    }
}

#[test]
fn samples_from_beyond_the_next_ten_minutes_are_refused_and_the_rest_is_kept() {
    for version in BOTH {
        let future = Series::named("bad", "k", "v").sample(now_ms() + 11 * 60_000, 9.0);
        check_bad(version, future, "out of bounds: timestamp is too far in the future");
        let receiver = Receiver::start();
        let near = Series::named("m", "k", "v").sample(now_ms() + 9 * 60_000, 1.0);
        assert_eq!(receiver.write(version, &[near]).status, 204);
    }
}

#[test]
fn the_good_samples_of_a_series_with_a_bad_one_are_kept() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let series = Series::named("m", "k", "v").sample(at, 1.0).sample(at + 3_600_000, 2.0);
        let response = receiver.write(version, &[series]);
        assert_eq!(response.status, 400, "{response:?}");
        if version == V2 {
            assert_eq!(written(&response), ["1", "0", "0"]);
        }
        assert_eq!(receiver.values("m"), [1.0]);
    }
}

#[test]
fn a_histogram_is_accepted_and_counted() {
    for version in BOTH {
        let receiver = Receiver::start();
        let at = now_ms();
        let custom = Buckets {
            schema: -53,
            custom_values: vec![1.0, 5.0],
            positive_spans: vec![(0, 2)],
            ..Buckets::default()
        };
        let series = [
            Series::named("exponential", "k", "v").histogram(histogram(at, &Buckets::default())),
            Series::named("custom", "k", "v").histogram(histogram(at, &custom)),
        ];
        let response = receiver.write(version, &series);
        assert_eq!(response.status, 204, "{response:?}");
        if version == V2 {
            assert_eq!(written(&response), ["0", "2", "0"]);
        }
    }
}

#[test]
fn histograms_that_contradict_themselves_are_refused_and_the_rest_is_kept() {
    let fine = Buckets::default;
    let custom = || Buckets { schema: -53, custom_values: vec![1.0, 5.0], ..fine() };
    let cases = [
        ("fewer observations than in the buckets", Buckets { count: 2, ..fine() }),
        ("a negative bucket", Buckets { positive_deltas: vec![1, -2], ..fine() }),
        ("spans for other buckets", Buckets { positive_spans: vec![(0, 3)], ..fine() }),
        ("a span that goes back", Buckets { positive_spans: vec![(0, 1), (-1, 1)], ..fine() }),
        ("an unknown schema", Buckets { schema: -9, ..fine() }),
        ("bounds of an exponential histogram", Buckets { custom_values: vec![1.0], ..fine() }),
        ("too few bounds", Buckets { custom_values: vec![], ..custom() }),
        ("bounds that do not rise", Buckets { custom_values: vec![5.0, 5.0], ..custom() }),
        ("an infinite bound", Buckets { custom_values: vec![1.0, f64::INFINITY], ..custom() }),
        ("a zero bucket beside custom ones", Buckets { zero_count: 1, count: 4, ..custom() }),
    ];
    for version in BOTH {
        for (what, buckets) in &cases {
            let receiver = Receiver::start();
            let at = now_ms();
            let bad = Series::named("bad", "k", "v").histogram(histogram(at, buckets));
            let fine = Series::named("fine", "k", "v").histogram(histogram(at, &fine()));
            let response = receiver.write(version, &[bad, fine, good()]);
            assert_eq!(response.status, 400, "{what}: {response:?}");
            assert!(response.body.contains("bad"), "{what}: the series is not named: {}", response.body);
            if version == V2 {
                assert_eq!(written(&response), ["1", "1", "0"], "{what}");
            }
            assert_eq!(receiver.values("good"), [1.0], "{what}");
        }
    }
}

#[test]
fn exemplars_do_not_stand_in_the_way_and_one_out_of_order_is_told_in_version_2() {
    let at = now_ms();
    let exemplar = |timestamp: i64| Message::new().double(2, 1.0).int(3, timestamp);
    let with = |timestamps: &[i64]| Series {
        exemplars: timestamps.iter().map(|timestamp| exemplar(*timestamp)).collect(),
        ..good()
    };
    let receiver = Receiver::start();
    let response = receiver.write(V2, &[with(&[at - 1000, at])]);
    assert_eq!(response.status, 204, "{response:?}");
    let response = receiver.write(V2, &[with(&[at, at - 1000])]);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("out of order exemplar"), "{}", response.body);
    assert_eq!(written(&response)[0], "1", "the sample is kept");
}

#[test]
fn metadata_alone_is_accepted_and_can_be_asked_for() {
    let receiver = Receiver::start();
    let message = v1::metadata("http_requests_total", 1, "Requests served.", "");
    assert_eq!(receiver.message(V1, &message).status, 204);
    let described = receiver.client().get("/api/v1/metadata?metric=http_requests_total").unwrap().json();
    let entry = &described["data"]["http_requests_total"][0];
    assert_eq!(
        (entry["type"].as_str(), entry["help"].as_str()),
        (Some("counter"), Some("Requests served.")),
        "{described}"
    );
}

#[test]
fn metadata_with_references_that_lead_nowhere_is_ignored_in_version_2() {
    let receiver = Receiver::start();
    let metadata = Message::new().int(1, 1).int(3, 999).int(4, 998);
    let series = v2::time_series(&[1, 2], &Series::default().sample(now_ms(), 1.0)).bytes(5, metadata);
    let response = receiver.message(V2, &v2::with_symbols(&["", "__name__", "m"], &[series]));
    assert!(response.status == 204 || response.status == 400, "{response:?}");
    assert_eq!(written(&response)[0], "1", "the sample is kept: {response:?}");
    assert_eq!(receiver.values("m"), [1.0]);
}
