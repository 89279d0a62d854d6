//! What a sender is answered, case by case: the same cases that Prometheus's own receiver tells apart.

use crate::sink::Memory;
use ingest::remote_write::encode::{self, Exemplar, Sample, Series};
use ingest::remote_write::{Protocol, decode, decompress, negotiate};
use ingest::{Limits, Reply, store};
use model::histogram::{Counts, ResetHint, Span};
use model::{Batch, Error, Histogram, HistogramRow, Metadata, MetricType, RejectReason, TimeRange, value};
use std::sync::Arc;

const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::V2];

/// A whole request as the server runs it.
fn post(sink: &Memory, protocol: Protocol, body: &[u8], limits: &Limits) -> Reply {
    let mut batch = Batch::default();
    let decoded = decompress(body, &mut batch.bytes, limits)
        .and_then(|()| decode(protocol, &mut batch, model::Sink::key(sink), limits));
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(refusal) => return Reply::refused(Some(protocol), &refusal),
    };
    match store(sink, &mut Arc::new(batch), decoded, limits) {
        Ok(stored) => Reply::stored(protocol, &stored),
        Err(error) => Reply::failed(protocol, &error),
    }
}

fn send(sink: &Memory, protocol: Protocol, series: &[Series]) -> Reply {
    let message = match protocol {
        Protocol::V1 => encode::v1(series, &[]),
        Protocol::V2 => encode::v2(series),
    };
    post(sink, protocol, &encode::compress(&message), &Limits::default())
}

/// Samples, histograms, exemplars written, from the headers.
fn written(reply: &Reply) -> Option<[u64; 3]> {
    let header = |what| {
        let name = format!("X-Prometheus-Remote-Write-{what}-Written");
        reply.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.parse().unwrap())
    };
    Some([header("Samples")?, header("Histograms")?, header("Exemplars")?])
}

fn up(samples: &[(i64, f64)]) -> Series {
    Series::new(&[("__name__", "up"), ("job", "x")], samples)
}

fn histogram() -> Histogram {
    Histogram {
        reset_hint: ResetHint::NoReset,
        schema: 2,
        zero_threshold: 0.001,
        sum: 7.5,
        counts: Counts::Integer { count: 10, zero: 1, positive: vec![4, 3], negative: vec![2] },
        positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 3, length: 1 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        custom_values: vec![],
    }
}

fn with_histogram(histogram: Histogram) -> Series {
    let mut series = Series::new(&[("__name__", "latency")], &[]);
    series.histograms.push(HistogramRow { timestamp: 1000, start: 0, histogram });
    series
}

#[test]
fn content_type_and_encoding_choose_the_protocol() {
    let ok = |ct: Option<&str>, ce: Option<&str>| negotiate(ct, ce).unwrap();
    assert_eq!(ok(None, None), Protocol::V1);
    assert_eq!(ok(Some(""), Some("")), Protocol::V1);
    assert_eq!(ok(Some("application/x-protobuf"), Some("snappy")), Protocol::V1);
    assert_eq!(ok(Some("application/x-protobuf;proto=prometheus.WriteRequest"), None), Protocol::V1);
    for v2 in [
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "application/x-protobuf; proto=io.prometheus.write.v2.Request",
        "Application/X-Protobuf ; charset=x ; Proto = \"io.prometheus.write.v2.Request\" ",
    ] {
        assert_eq!(ok(Some(v2), Some(" Snappy ")), Protocol::V2, "{v2}");
    }
    for (ct, ce) in [
        (Some("application/json"), None),
        (Some("application/x-protobuf;proto=io.prometheus.write.v3.Request"), None),
        (Some("application/x-protobuf;proto="), None),
        (Some("application/x-protobuf"), Some("zstd")),
        (None, Some("gzip")),
        (None, Some("snappy, gzip")),
    ] {
        assert_eq!(negotiate(ct, ce).unwrap_err().status, 415, "{ct:?} {ce:?}");
    }
}

#[test]
fn a_body_that_is_too_large_is_413_and_one_that_lies_about_its_size_is_400() {
    let limits = Limits { body_bytes_max: 1000, decoded_bytes_max: 5000, ..Limits::default() };
    let sink = Memory::default();
    let reply = post(&sink, Protocol::V1, &[0; 1001], &limits);
    assert_eq!(reply.status, 413);
    assert!(
        reply.body.contains("limit of 1000") && reply.body.contains("limits.write_body_bytes_max"),
        "{}",
        reply.body
    );

    let reply = post(&sink, Protocol::V2, &encode::compress(&[0; 5001]), &limits);
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("limits.write_decoded_bytes_max"), "{}", reply.body);
    assert_eq!(written(&reply), Some([0, 0, 0]));

    // 32 MiB declared in 8 bytes: refused before memory is taken.
    let mut bomb = Vec::new();
    model::varint::put(&mut bomb, 32 << 20);
    bomb.extend_from_slice(&[0; 4]);
    let mut into = Vec::new();
    let refusal = decompress(&bomb, &mut into, &Limits::default()).unwrap_err();
    assert_eq!(refusal.status, 400);
    assert!(refusal.message.contains("limits.write_decoded_ratio_max"), "{}", refusal.message);
    assert_eq!(into.capacity(), 0);
}

#[test]
fn corrupt_snappy_and_undecodable_protobuf_are_400() {
    let sink = Memory::default();
    for protocol in BOTH {
        for body in [&b""[..], b"not snappy at all", &[0xff; 20]] {
            let reply = post(&sink, protocol, body, &Limits::default());
            assert_eq!(reply.status, 400);
            assert!(reply.body.starts_with("snappy: corrupt input"), "{}", reply.body);
        }
        for (message, why) in [
            (&[0x0a, 200][..], "unexpected EOF"),
            (&[0x2a, 200, 1], "unexpected EOF"),
            (&[0x00, 1], "field number"),
            (&[0x83, 0x01], "groups"),
            (&[0x46], "wire type"),
            (&[0xff; 12], "varint"),
        ] {
            let reply = post(&sink, protocol, &encode::compress(message), &Limits::default());
            assert_eq!(reply.status, 400, "{message:?}");
            assert!(reply.body.contains(why), "{message:?}: {}", reply.body);
        }
    }
    assert!(sink.dump().is_empty());
}

#[test]
fn an_empty_request_is_204() {
    for protocol in BOTH {
        let reply = send(&Memory::default(), protocol, &[]);
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([0, 0, 0]));
        // A version 2 body taken for version 1 is an empty message to it.
        let message = encode::v2(&[up(&[(1, 1.0)])]);
        assert_eq!(
            post(&Memory::default(), Protocol::V1, &encode::compress(&message), &Limits::default()).status,
            204
        );
    }
}

#[test]
fn samples_are_stored_bit_by_bit_with_start_timestamps() {
    for protocol in BOTH {
        let sink = Memory::default();
        let mut series = up(&[(1, 1.5), (2, value::stale()), (3, f64::NAN), (-4, -0.0)]);
        series.samples.push(Sample { timestamp: 5, value: 2.0, start: 77 });
        let reply = send(&sink, protocol, &[up(&[(0, 7.0)]), series]);
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([6, 0, 0]));
        let start = if protocol == Protocol::V2 { "@77" } else { "" };
        assert_eq!(sink.dump(), [format!(r#"up{{job="x"}} -4=-0 0=7 1=1.5 2=NaN 3=NaN 5=2{start}"#)]);
        assert_eq!(sink.bits(r#"up{job="x"}"#, 2), Some(value::STALE_NAN_BITS));
        assert_eq!(sink.bits(r#"up{job="x"}"#, 3), Some(f64::NAN.to_bits()));
    }
}

#[test]
fn labels_that_cannot_be_are_passed_over_in_v1_and_named_in_v2() {
    for (labels, shown) in [
        (&[("job", "x")][..], r#"{job="x"}"#),
        (&[], "{}"),
        (&[("__name__", ""), ("job", "x")], r#"{job="x"}"#),
        (&[("__name__", "up"), ("", "x")], r#"{""="x", __name__="up"}"#),
    ] {
        for protocol in BOTH {
            let sink = Memory::default();
            let reply = send(&sink, protocol, &[Series::new(labels, &[(1, 1.0), (2, 2.0)]), up(&[(1, 1.0)])]);
            assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
            if protocol == Protocol::V1 {
                assert_eq!((reply.status, reply.body.as_str(), written(&reply)), (204, "", None));
            } else {
                assert_eq!(reply.body, format!("invalid metric name or labels, got {shown}"));
                assert_eq!((reply.status, written(&reply)), (400, Some([1, 0, 0])));
            }
        }
    }
}

#[test]
fn labels_that_are_not_utf8_are_passed_over_in_v1_and_named_in_v2() {
    for protocol in BOTH {
        let sink = Memory::default();
        let mut message = match protocol {
            Protocol::V1 => encode::v1(&[Series::new(&[("__name__", "up"), ("a", "@@")], &[(1, 1.0)])], &[]),
            Protocol::V2 => encode::v2(&[Series::new(&[("__name__", "up"), ("a", "@@")], &[(1, 1.0)])]),
        };
        let at = message.windows(2).position(|w| w == b"@@").unwrap();
        message[at] = 0xff;
        let reply = post(&sink, protocol, &encode::compress(&message), &Limits::default());
        assert!(sink.dump().is_empty());
        if protocol == Protocol::V1 {
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        } else {
            assert_eq!(reply.status, 400);
            assert_eq!(reply.body, r#"invalid metric name or labels, got {__name__="up", a="\xff@"}"#);
        }
    }
}

#[test]
fn utf8_names_are_accepted() {
    for protocol in BOTH {
        let sink = Memory::default();
        let reply =
            send(&sink, protocol, &[Series::new(&[("__name__", "my.metrik ü"), ("l.x", "v")], &[(1, 1.0)])]);
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        assert_eq!(sink.dump(), [r#"{"my.metrik ü", "l.x"="v"} 1=1"#]);
    }
}

#[test]
fn a_label_name_twice_is_passed_over_in_v1_and_named_in_v2() {
    let twice = Series::new(&[("__name__", "up"), ("job", "b"), ("job", "a")], &[(1, 1.0)]);
    for protocol in BOTH {
        let sink = Memory::default();
        let reply = send(&sink, protocol, &[twice.clone(), up(&[(1, 1.0)])]);
        assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
        if protocol == Protocol::V1 {
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        } else {
            let text = r#"invalid labels for series, labels {__name__="up", job="b", job="a"}, duplicated label job"#;
            assert_eq!((reply.status, reply.body.as_str(), written(&reply)), (400, text, Some([1, 0, 0])));
        }
    }
}

#[test]
fn unsorted_labels_and_empty_values_lead_to_the_same_series() {
    for protocol in BOTH {
        let sink = Memory::default();
        for (i, labels) in [
            &[("__name__", "up"), ("job", "x")][..],
            &[("job", "x"), ("__name__", "up")],
            &[("__name__", "up"), ("a", ""), ("job", "x")],
            &[("z", ""), ("job", "x"), ("__name__", "up")],
        ]
        .into_iter()
        .enumerate()
        {
            let reply = send(&sink, protocol, &[Series::new(labels, &[(i as i64, 1.0)])]);
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        }
        assert_eq!(sink.dump(), [r#"up{job="x"} 0=1 1=1 2=1 3=1"#]);
    }
}

#[test]
fn a_known_series_is_sent_to_the_sink_once() {
    for protocol in BOTH {
        let sink = Memory::default();
        send(&sink, protocol, &[up(&[(1, 1.0)]), up(&[(2, 1.0)])]);
        send(&sink, protocol, &[up(&[(3, 1.0)])]);
        assert_eq!(*sink.appends.lock().unwrap(), [2, 2, 1]);
    }
}

/// The request with one series of these references and one good series; symbols are `"", __name__, up, a`.
fn with_refs(refs: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for symbol in ["", "__name__", "up", "a"] {
        message.extend_from_slice(&[0x22, symbol.len() as u8]);
        message.extend_from_slice(symbol.as_bytes());
    }
    let sample = [0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 1];
    for refs in [refs, &[1, 2]] {
        message.extend_from_slice(&[0x2a, (2 + refs.len() + sample.len()) as u8, 0x0a, refs.len() as u8]);
        message.extend_from_slice(refs);
        message.extend_from_slice(&sample);
    }
    message
}

#[test]
fn references_that_lead_nowhere_are_named_and_the_rest_is_stored() {
    for (refs, text) in [
        (&[1, 2, 3][..], "parsing labels for series [1 2 3]: invalid labelRefs length 3"),
        (
            &[1, 9],
            "parsing labels for series [1 9]: labelRefs 1 (name) = 9 (value) outside of symbols table (size 4)",
        ),
        (
            &[1, 2, 4, 0],
            "parsing labels for series [1 2 4 0]: labelRefs 4 (name) = 0 (value) outside of symbols table (size 4)",
        ),
    ] {
        let sink = Memory::default();
        let reply = post(&sink, Protocol::V2, &encode::compress(&with_refs(refs)), &Limits::default());
        assert_eq!((reply.status, reply.body.as_str(), written(&reply)), (400, text, Some([1, 0, 0])));
        assert_eq!(sink.dump(), ["up 1=1"]);
    }
}

#[test]
fn the_first_symbol_must_be_empty() {
    let mut message = vec![0x22, 1, b'x'];
    message.extend_from_slice(&with_refs(&[1, 2]));
    let sink = Memory::default();
    let reply = post(&sink, Protocol::V2, &encode::compress(&message), &Limits::default());
    assert_eq!((reply.status, reply.body.as_str()), (400, r#"symbols[0] must be the empty string, got "x""#));
    assert!(sink.dump().is_empty());
}

#[test]
fn a_series_without_samples_is_fine_in_v1_and_named_in_v2() {
    for protocol in BOTH {
        let sink = Memory::default();
        let reply = send(&sink, protocol, &[up(&[]), Series::new(&[("__name__", "a")], &[(1, 1.0)])]);
        assert_eq!(sink.dump(), ["a 1=1"]);
        if protocol == Protocol::V1 {
            assert_eq!(reply.status, 204);
        } else {
            let text = r#"TimeSeries must contain at least one sample or histogram for series {__name__="up", job="x"}"#;
            assert_eq!((reply.status, reply.body.as_str(), written(&reply)), (400, text, Some([1, 0, 0])));
        }
    }
    // What is wrong with the labels comes first.
    let reply = send(&Memory::default(), Protocol::V2, &[Series::new(&[("a", "b")], &[])]);
    assert_eq!(reply.body, r#"invalid metric name or labels, got {a="b"}"#);
}

#[test]
fn out_of_order_and_second_values_are_accepted() {
    for protocol in BOTH {
        let sink = Memory::default();
        let request = [up(&[(5, 1.0), (3, 1.0), (5, 2.0), (5, 1.0)])];
        for _ in 0..2 {
            let reply = send(&sink, protocol, &request);
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
            assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([4, 0, 0]));
        }
        assert_eq!(sink.dump(), [r#"up{job="x"} 3=1 5=2"#]);
    }
}

#[test]
fn too_old_and_too_far_in_the_future_are_400_and_the_rest_is_stored() {
    for protocol in BOTH {
        let sink = Memory { range: TimeRange::new(100, 200), ..Memory::default() };
        let reply = send(&sink, protocol, &[up(&[(99, 1.0), (98, 1.0), (100, 1.0), (200, 2.0), (201, 3.0)])]);
        assert_eq!(reply.status, 400);
        let lines: Vec<&str> = reply.body.lines().collect();
        let [old, far] = [RejectReason::TooOld, RejectReason::TooFarInFuture]
            .map(|r| format!(r#"{} for series {{__name__="up", job="x"}}"#, r.as_str()));
        assert!(
            lines.iter().any(|l| l.starts_with(&old) && l.ends_with("(2 samples from timestamp 99)")),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|l| l.starts_with(&far) && l.ends_with("(1 sample from timestamp 201)")),
            "{lines:?}"
        );
        assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([2, 0, 0]));
        assert_eq!(sink.dump(), [r#"up{job="x"} 100=1 200=2"#]);
    }
}

#[test]
fn a_series_limit_of_the_sink_is_400_with_the_key_and_the_rest_stored() {
    for protocol in BOTH {
        let sink = Memory { series_max: 1, ..Memory::default() };
        let reply = send(&sink, protocol, &[up(&[(1, 1.0)]), Series::new(&[("__name__", "b")], &[(1, 1.0)])]);
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("limits.series_max"), "{}", reply.body);
        assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
    }
}

#[test]
fn histograms_are_stored_as_sent() {
    let float = Histogram {
        counts: Counts::Float { count: 10.5, zero: 1.0, positive: vec![4.5, 3.0], negative: vec![2.0] },
        ..histogram()
    };
    let custom = Histogram {
        schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        counts: Counts::Integer { count: 5, zero: 0, positive: vec![5], negative: vec![] },
        positive_spans: vec![Span { offset: 1, length: 1 }],
        negative_spans: vec![],
        custom_values: vec![1.0, 2.5],
        ..histogram()
    };
    let stale = Histogram { sum: value::stale(), ..histogram() };
    for protocol in BOTH {
        for sent in [histogram(), float.clone(), custom.clone(), stale.clone()] {
            let sink = Memory::default();
            let reply = send(&sink, protocol, &[with_histogram(sent.clone())]);
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
            assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([0, 1, 0]));
            let stored = sink.histogram("latency", 1000).unwrap();
            assert_eq!(stored.sum.to_bits(), sent.sum.to_bits());
            let bits = |h: &Histogram| {
                let mut bytes = Vec::new();
                h.encode(&mut bytes);
                bytes
            };
            assert_eq!(bits(&stored), bits(&sent));
        }
    }
}

#[test]
fn a_histogram_that_contradicts_itself_is_400_and_the_rest_is_stored() {
    let mut wrong = histogram();
    wrong.positive_spans.pop();
    for protocol in BOTH {
        let sink = Memory::default();
        let reply = send(&sink, protocol, &[with_histogram(wrong.clone()), up(&[(1, 1.0)])]);
        assert_eq!(reply.status, 400);
        assert_eq!(
            reply.body,
            "positive side: spans need 1 buckets, have 2 buckets: histogram spans specify different number of buckets \
             than provided for series {__name__=\"latency\"}"
        );
        assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([1, 0, 0]));
        assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
    }
}

#[test]
fn reserved_schemas_are_brought_down_to_eight() {
    let fine = Histogram {
        schema: 10,
        counts: Counts::Integer { count: 10, zero: 0, positive: vec![1, 2, 3, 4], negative: vec![] },
        positive_spans: vec![Span { offset: 4, length: 4 }],
        negative_spans: vec![],
        ..histogram()
    };
    for protocol in BOTH {
        let sink = Memory::default();
        assert_eq!(send(&sink, protocol, &[with_histogram(fine.clone())]).status, 204);
        let stored = sink.histogram("latency", 1000).unwrap();
        // Index 4 of schema 10 ends where index 1 of schema 8 does; 5, 6 and 7 lie in index 2.
        assert_eq!((stored.schema, stored.positive_spans), (8, vec![Span { offset: 1, length: 2 }]));
        assert_eq!(
            stored.counts,
            Counts::Integer { count: 10, zero: 0, positive: vec![1, 9], negative: vec![] }
        );
    }
}

#[test]
fn exemplars_never_cost_a_sample() {
    let exemplar =
        |timestamp| Exemplar { labels: vec![("trace_id".into(), "abc".into())], value: 1.0, timestamp };
    let mut in_order = up(&[(1, 1.0)]);
    in_order.exemplars = vec![exemplar(1), exemplar(2)];
    let mut backwards = up(&[(1, 1.0)]);
    backwards.exemplars = vec![exemplar(2), exemplar(1)];
    for protocol in BOTH {
        let sink = Memory::default();
        assert_eq!(send(&sink, protocol, &[in_order.clone()]).status, 204);
        let reply = send(&sink, protocol, &[backwards.clone()]);
        if protocol == Protocol::V1 {
            assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        } else {
            assert_eq!((reply.status, written(&reply)), (400, Some([1, 0, 0])));
            assert!(reply.body.starts_with("out of order exemplar for series {"), "{}", reply.body);
        }
        assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
    }
}

#[test]
fn metadata_is_kept_by_family() {
    let entry = |family: &str, metric_type, help: &str, unit: &str| Metadata {
        family: family.into(),
        metric_type,
        help: help.into(),
        unit: unit.into(),
    };
    let sink = Memory::default();
    let sent = [
        entry("http_requests_total", MetricType::Counter, "Requests.", ""),
        entry("latency_seconds", MetricType::Histogram, "", "seconds"),
    ];
    let reply = post(&sink, Protocol::V1, &encode::compress(&encode::v1(&[], &sent)), &Limits::default());
    assert_eq!(reply.status, 204);
    assert_eq!(sink.metadata(), sent);

    let sink = Memory::default();
    let described = |name: &str, metadata: &Metadata| Series {
        metadata: Some(metadata.clone()),
        ..Series::new(&[("__name__", name)], &[(1, 1.0)])
    };
    let reply = send(
        &sink,
        Protocol::V2,
        &[
            described("http_requests_total", &sent[0]),
            described("http_requests_total", &sent[0]),
            described("latency_seconds_bucket", &sent[1]),
            described("latency_seconds_count", &sent[1]),
            described("plain", &entry("", MetricType::Unknown, "", "")),
        ],
    );
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    let mut kept = sink.metadata();
    kept.dedup();
    assert_eq!(kept, sent);
}

#[test]
fn metadata_that_is_too_long_is_cut_and_refuses_nothing() {
    let sink = Memory::default();
    let help = "é".repeat(600);
    let sent = Metadata { family: "a".into(), metric_type: MetricType::Gauge, help, unit: String::new() };
    let unnamed = Metadata { family: String::new(), ..sent.clone() };
    let body = encode::compress(&encode::v1(&[], &[sent, unnamed]));
    assert_eq!(post(&sink, Protocol::V1, &body, &Limits::default()).status, 204);
    let [kept] = &sink.metadata()[..] else { panic!("one entry") };
    assert_eq!(kept.help, "é".repeat(512));
}

#[test]
fn metadata_references_that_lead_nowhere_are_named_and_the_sample_is_stored() {
    let mut message = with_refs(&[1, 2]);
    // A third series, whose help is symbol 99.
    let tail =
        [0x0a, 2, 1, 2, 0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 2, 0x2a, 4, 0x08, 1, 0x18, 99];
    message.extend_from_slice(&[0x2a, tail.len() as u8]);
    message.extend_from_slice(&tail);
    let sink = Memory::default();
    let reply = post(&sink, Protocol::V2, &encode::compress(&message), &Limits::default());
    assert_eq!((reply.status, written(&reply)), (400, Some([3, 0, 0])));
    assert!(reply.body.contains("help_ref 99 outside of symbols table (size 4)"), "{}", reply.body);
    assert_eq!(sink.dump(), ["up 1=1 2=1"]);
}

#[test]
fn limits_on_labels_are_400_naming_limit_value_and_key_and_the_rest_is_stored() {
    let many: Vec<(String, String)> = (0..64).map(|i| (format!("l{i}"), "v".to_string())).collect();
    let mut too_many = up(&[(1, 1.0)]);
    too_many.labels.extend(many);
    let long = "x".repeat(4097);
    let cases = [
        (too_many, "labels of one series: 66 is over the limit of 64", "limits.labels_per_series_max"),
        (
            Series::new(&[("__name__", "up"), ("a", &long)], &[(1, 1.0)]),
            "bytes of a label value: 4097 is over the limit of 4096",
            "limits.label_value_bytes_max",
        ),
        (
            Series::new(&[("__name__", "up"), (&long[..1025], "a")], &[(1, 1.0)]),
            "bytes of a label name: 1025 is over the limit of 1024",
            "limits.label_name_bytes_max",
        ),
    ];
    for (bad, text, key) in cases {
        for protocol in BOTH {
            let sink = Memory::default();
            let reply = send(&sink, protocol, &[bad.clone(), up(&[(1, 1.0)])]);
            assert_eq!(reply.status, 400);
            assert!(reply.body.starts_with(text) && reply.body.contains(key), "{}", reply.body);
            assert!(reply.body.len() < 4096);
            assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
        }
    }
}

#[test]
fn what_passes_is_503_with_retry_after_and_never_4xx() {
    let io = || Error::Io { op: "write", path: "wal/1".into(), message: "no space left on device".into() };
    for (failure, status, retry_after) in [
        (Error::Busy { reason: "too many writes", retry_after_s: 7 }, 503, Some("7")),
        (Error::ReadOnly { reason: "the disk is full".into() }, 503, Some("5")),
        (Error::Unavailable { shards: vec![3], have: 1, need: 2, missing: vec![] }, 503, Some("5")),
        (io(), 503, Some("5")),
        (Error::Canceled, 503, Some("5")),
        (Error::Corrupt { path: "wal/1".into(), offset: 0, what: "checksum".into() }, 500, None),
    ] {
        for protocol in BOTH {
            let sink = Memory { failure: Some(failure.clone()), ..Memory::default() };
            let reply = send(&sink, protocol, &[up(&[(1, 1.0)])]);
            assert_eq!((reply.status, &reply.body), (status, &failure.to_string()));
            let header = reply.headers.iter().find(|(n, _)| *n == "Retry-After").map(|(_, v)| v.as_str());
            assert_eq!(header, retry_after);
            assert_eq!(written(&reply), (protocol == Protocol::V2).then_some([0, 0, 0]));
        }
    }
}

#[test]
fn a_thousand_problems_make_an_answer_of_bounded_size() {
    let bad: Vec<Series> =
        (0..1000).map(|i| Series::new(&[("i", &format!("{i}{}", "x".repeat(900)))], &[(1, 1.0)])).collect();
    let reply = send(&Memory::default(), Protocol::V2, &bad);
    assert_eq!(reply.status, 400);
    assert!(reply.body.len() < 300_000, "{}", reply.body.len());
    assert!(reply.body.ends_with("\nand 900 more"), "{}", &reply.body[reply.body.len() - 100..]);
}

#[test]
fn problems_that_v1_is_silent_about_do_not_hide_the_others() {
    let mut series: Vec<Series> = (0..1000).map(|_| Series::new(&[("a", "b")], &[(1, 1.0)])).collect();
    series.push(Series::new(&[("__name__", "up"), ("a", &"x".repeat(5000))], &[(1, 1.0)]));
    let reply = send(&Memory::default(), Protocol::V1, &series);
    assert_eq!(reply.status, 400);
    assert!(
        reply.body.starts_with("bytes of a label value") && reply.body.lines().count() == 1,
        "{}",
        reply.body
    );
}

#[test]
fn labels_with_something_between_them_are_put_together() {
    let label =
        |name: &str, value: &str| encode::v1(&[Series::new(&[(name, value)], &[])], &[])[2..].to_vec();
    let sample = encode::v1(&[Series::new(&[], &[(1, 1.0)])], &[])[2..].to_vec();
    let series = [label("__name__", "up"), sample, label("job", "x")].concat();
    let message = [vec![0x0a, series.len() as u8], series].concat();
    let sink = Memory::default();
    let reply = post(&sink, Protocol::V1, &encode::compress(&message), &Limits::default());
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    assert_eq!(sink.dump(), [r#"up{job="x"} 1=1"#]);
}

#[test]
fn varints_beyond_64_bits_are_400() {
    // An unknown varint field whose tenth byte carries more than the 64th bit.
    for (last, status) in [(1, 204), (2, 400)] {
        let message = [vec![0x38], vec![0xff; 9], vec![last]].concat();
        for protocol in BOTH {
            let reply = post(&Memory::default(), protocol, &encode::compress(&message), &Limits::default());
            assert_eq!(reply.status, status, "{}", reply.body);
        }
    }
}
