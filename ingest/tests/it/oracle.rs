//! Both decoders against `prost`, on messages that are valid, reordered, extended, damaged or random.

use crate::sink::KEY;
use ingest::remote_write::{Protocol, decode};
use ingest::{Limits, Reason};
use model::histogram::{Counts, ResetHint, Span};
use model::{Batch, Histogram, MetricType};
use proptest::prelude::*;
use prost::Message;

mod v1 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<super::Native>,
    }

    /// Label bytes as a batch holds them.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Labels {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
    }

    // Bytes where the schema says string: UTF-8 is checked later than prost would.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub metric_type: i32,
        #[prost(bytes = "vec", tag = "2")]
        pub family: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub help: Vec<u8>,
        #[prost(bytes = "vec", tag = "5")]
        pub unit: Vec<u8>,
    }
}

mod v2 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub symbols: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<super::Native>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
        #[prost(int64, tag = "3")]
        pub start_timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub metric_type: i32,
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
}

/// The histogram of both versions; `start_timestamp` is ignored in version 1.
#[derive(Clone, PartialEq, prost::Message)]
struct Native {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(oneof = "Zero", tags = "6, 7")]
    zero: Option<Zero>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Zero {
    #[prost(uint64, tag = "6")]
    Int(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl Native {
    fn to_model(&self) -> Histogram {
        let spans = |spans: &[BucketSpan]| {
            spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect::<Vec<_>>()
        };
        let absolute = |deltas: &[i64]| {
            deltas
                .iter()
                .scan(0i64, |sum, d| {
                    *sum = sum.wrapping_add(*d);
                    Some(*sum)
                })
                .collect::<Vec<_>>()
        };
        let counts = match self.count {
            Some(Count::Float(count)) => Counts::Float {
                count,
                zero: if let Some(Zero::Float(zero)) = self.zero { zero } else { 0.0 },
                positive: self.positive_counts.clone(),
                negative: self.negative_counts.clone(),
            },
            _ => Counts::Integer {
                count: if let Some(Count::Int(count)) = self.count { count } else { 0 },
                zero: if let Some(Zero::Int(zero)) = self.zero { zero } else { 0 },
                positive: absolute(&self.positive_deltas),
                negative: absolute(&self.negative_deltas),
            },
        };
        Histogram {
            reset_hint: ResetHint::from_wire(u64::from(self.reset_hint as u32)),
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            counts,
            positive_spans: spans(&self.positive_spans),
            negative_spans: spans(&self.negative_spans),
            custom_values: self.custom_values.clone(),
        }
    }
}

/// One series, however it was decoded. Floats and histograms are compared by their bits.
#[derive(Debug, PartialEq)]
struct Plain {
    labels: Vec<(Vec<u8>, Vec<u8>)>,
    samples: Vec<(i64, u64, i64)>,
    histograms: Vec<(i64, i64, Vec<u8>)>,
}

/// The histograms that are to be stored, and how many are not.
fn accepted(natives: &[Native], starts: bool) -> (Vec<(i64, i64, Vec<u8>)>, u64) {
    let mut rejected = 0;
    let mut accepted = Vec::new();
    for native in natives {
        let mut histogram = native.to_model();
        if histogram.validate().is_err() {
            rejected += 1;
            continue;
        }
        if histogram.schema > 8 {
            histogram.reduce_resolution(8);
        }
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        accepted.push((native.timestamp, if starts { native.start_timestamp } else { 0 }, bytes));
    }
    (accepted, rejected)
}

/// What a batch holds; `None` when label bytes are not decodable, which a sink is told only for new series.
fn plain(batch: &Batch) -> Option<Vec<Plain>> {
    let mut all = Vec::new();
    for one in &batch.series {
        let bytes = batch.labels(one);
        assert_eq!(one.id, KEY.id(bytes));
        assert!(!one.checked);
        let labels = v1::Labels::decode(bytes).ok()?.labels.into_iter().map(|l| (l.name, l.value)).collect();
        let samples =
            one.floats().map(|row| (batch.timestamps[row], batch.values[row], batch.start(row))).collect();
        let histograms = batch.histograms[one.histograms()]
            .iter()
            .map(|row| {
                let mut bytes = Vec::new();
                row.histogram.encode(&mut bytes);
                (row.timestamp, row.start, bytes)
            })
            .collect();
        all.push(Plain { labels, samples, histograms });
    }
    Some(all)
}

fn expected_v1(request: &v1::WriteRequest) -> (Vec<Plain>, u64) {
    let mut rejected = 0;
    let mut all = Vec::new();
    for one in &request.timeseries {
        let (histograms, bad) = accepted(&one.histograms, false);
        rejected += bad;
        let samples: Vec<_> = one.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), 0)).collect();
        if !samples.is_empty() || !histograms.is_empty() {
            let labels = one.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
            all.push(Plain { labels, samples, histograms });
        }
    }
    (all, rejected)
}

fn expected_v2(request: &v2::Request) -> (Vec<Plain>, u64) {
    let mut rejected = 0;
    let mut all = Vec::new();
    for one in &request.timeseries {
        let symbol = |r: &u32| request.symbols.get(*r as usize).cloned();
        let labels: Option<Vec<_>> = one
            .labels_refs
            .chunks(2)
            .map(|pair| Some((symbol(pair.first()?)?, symbol(pair.get(1)?)?)))
            .collect();
        let Some(labels) = labels else { continue };
        let (histograms, bad) = accepted(&one.histograms, true);
        rejected += bad;
        let samples: Vec<_> =
            one.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), s.start_timestamp)).collect();
        if !samples.is_empty() || !histograms.is_empty() {
            all.push(Plain { labels, samples, histograms });
        }
    }
    (all, rejected)
}

/// Decodes with both and compares; returns whether the message was good.
fn compare(protocol: Protocol, message: &[u8]) -> Result<bool, TestCaseError> {
    let mut batch = Batch { bytes: message.to_vec(), ..Batch::default() };
    let ours = decode(protocol, &mut batch, KEY, &Limits::default());
    prop_assert!(batch.bytes.starts_with(message), "the body was changed");
    let theirs = match protocol {
        Protocol::V1 => v1::WriteRequest::decode(message).map(|r| (expected_v1(&r), families(&r), 0, false)),
        Protocol::V2 => v2::Request::decode(message).map(|r| {
            let exemplars = r.timeseries.iter().map(|s| s.exemplars.len() as u64).sum();
            (expected_v2(&r), Vec::new(), exemplars, r.symbols.first().is_some_and(|s| !s.is_empty()))
        }),
    };
    match (ours, theirs) {
        (Ok(decoded), Ok(((series, rejected), families, exemplars, false))) => {
            let ours = plain(&batch);
            prop_assert_eq!(ours.as_ref(), Some(&series));
            let bad: u64 = decoded.problems.tally(Reason::InvalidHistogram).rows;
            // A series that cannot be stored at all reports its labels and not its histograms.
            if protocol == Protocol::V1 {
                prop_assert_eq!(bad, rejected);
                prop_assert_eq!(&batch.metadata, &families);
            } else {
                prop_assert!(bad <= rejected);
                prop_assert_eq!(decoded.exemplars, exemplars);
            }
            let starts = batch.starts.len();
            prop_assert!(starts == 0 || starts == batch.timestamps.len());
            prop_assert_eq!(batch.values.len(), batch.timestamps.len());
            Ok(true)
        }
        // Labels are not looked into, so what is broken inside of them comes out when they are checked.
        (Ok(_), Err(_)) => {
            let unused = protocol == Protocol::V1 && labels_are_broken(message);
            prop_assert!(unused, "prost refuses what we take");
            Ok(false)
        }
        (Ok(_), Ok((.., true))) => Err(TestCaseError::fail("the first symbol is not empty and nobody minds")),
        (Err(refusal), Ok((.., bad_symbol))) => {
            let stricter = bad_symbol || refusal.message.contains("groups");
            prop_assert!(stricter, "prost takes what we refuse: {}", refusal.message);
            Ok(false)
        }
        (Err(_), Err(_)) => Ok(false),
    }
}

/// Whether a version 1 message decodes if labels of series are taken for opaque bytes.
fn labels_are_broken(message: &[u8]) -> bool {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<Series>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<v1::Metadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Series {
        #[prost(bytes = "vec", repeated, tag = "1")]
        labels: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<v1::Sample>,
        #[prost(message, repeated, tag = "3")]
        exemplars: Vec<v1::Exemplar>,
        #[prost(message, repeated, tag = "4")]
        histograms: Vec<Native>,
    }
    Request::decode(message).is_ok_and(|r| {
        r.timeseries.iter().any(|s| s.labels.iter().any(|l| v1::Label::decode(&l[..]).is_err()))
    })
}

fn families(request: &v1::WriteRequest) -> Vec<model::Metadata> {
    request
        .metadata
        .iter()
        .filter_map(|m| {
            let metadata = model::Metadata {
                family: String::from_utf8(m.family.clone()).ok()?,
                metric_type: MetricType::from_wire(u64::from(m.metric_type as u32)),
                help: String::from_utf8_lossy(&m.help).into_owned(),
                unit: String::from_utf8_lossy(&m.unit).into_owned(),
            };
            let says_nothing = metadata.metric_type == MetricType::Unknown
                && metadata.help.is_empty()
                && metadata.unit.is_empty();
            (!metadata.family.is_empty() && !says_nothing).then_some(metadata)
        })
        .collect()
}

// --- Arbitrary messages -------------------------------------------------------------------------------------------

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["__name__", "job", "instance", "up", "a", ""]).prop_map(|s| s.as_bytes().to_vec()),
        2 => "[a-z_é.]{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 1_700_000_000_000i64..1_800_000_000_000, any::<i64>()]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(model::value::stale()), -1e6..1e6, any::<u64>().prop_map(f64::from_bits)]
}

fn list<T: Strategy>(item: T, max: usize) -> impl Strategy<Value = Vec<T::Value>> {
    prop::collection::vec(item, 0..=max)
}

fn span() -> impl Strategy<Value = BucketSpan> {
    (-3i32..4, 0u32..4).prop_map(|(offset, length)| BucketSpan { offset, length })
}

fn any_native() -> impl Strategy<Value = Native> {
    let count = prop_oneof![
        Just(None),
        any::<u64>().prop_map(|c| Some(Count::Int(c))),
        double().prop_map(|c| Some(Count::Float(c)))
    ];
    let zero = prop_oneof![
        Just(None),
        any::<u64>().prop_map(|c| Some(Zero::Int(c))),
        double().prop_map(|c| Some(Zero::Float(c)))
    ];
    let sides = (list(span(), 3), list(any::<i64>(), 4), list(double(), 4));
    let other = (list(span(), 3), list(any::<i64>(), 4), list(double(), 4));
    let rest = (double(), -60i32..60, any::<i32>(), timestamp(), timestamp(), list(double(), 3));
    (count, zero, sides, other, rest).prop_map(|(count, zero, positive, negative, rest)| Native {
        count,
        sum: rest.0,
        schema: rest.1,
        zero_threshold: 0.01,
        zero,
        negative_spans: negative.0,
        negative_deltas: negative.1,
        negative_counts: negative.2,
        positive_spans: positive.0,
        positive_deltas: positive.1,
        positive_counts: positive.2,
        reset_hint: rest.2,
        timestamp: rest.3,
        custom_values: rest.5,
        start_timestamp: rest.4,
    })
}

/// A histogram that agrees with itself, at any schema that may be sent.
fn good_native() -> impl Strategy<Value = Native> {
    let buckets = || list((0i32..4, prop::collection::vec(0i64..1000, 1..4)), 4);
    (buckets(), buckets(), any::<bool>(), -4i32..53, 0u64..9, timestamp(), timestamp()).prop_map(
        |(positive, negative, float, schema, zero, timestamp, start_timestamp)| {
            let spans = |runs: &[(i32, Vec<i64>)]| -> Vec<BucketSpan> {
                runs.iter()
                    .map(|(offset, b)| BucketSpan { offset: *offset, length: b.len() as u32 })
                    .collect()
            };
            let counts =
                |runs: &[(i32, Vec<i64>)]| runs.iter().flat_map(|(_, b)| b.clone()).collect::<Vec<i64>>();
            let deltas = |counts: &[i64]| {
                let mut before = 0;
                counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect::<Vec<i64>>()
            };
            let floats = |counts: &[i64]| counts.iter().map(|c| *c as f64 / 2.0).collect::<Vec<f64>>();
            let (p, n) = (counts(&positive), counts(&negative));
            let total = p.iter().chain(&n).sum::<i64>() as u64 + zero;
            let mut native = Native {
                sum: 1.5,
                schema,
                zero_threshold: 0.01,
                positive_spans: spans(&positive),
                negative_spans: spans(&negative),
                timestamp,
                start_timestamp,
                ..Native::default()
            };
            if float {
                native.count = Some(Count::Float(total as f64 / 2.0));
                native.zero = Some(Zero::Float(zero as f64 / 2.0));
                (native.positive_counts, native.negative_counts) = (floats(&p), floats(&n));
            } else {
                native.count = Some(Count::Int(total));
                native.zero = Some(Zero::Int(zero));
                (native.positive_deltas, native.negative_deltas) = (deltas(&p), deltas(&n));
            }
            native
        },
    )
}

fn native() -> impl Strategy<Value = Native> {
    prop_oneof![good_native(), any_native()]
}

fn request_v1() -> impl Strategy<Value = v1::WriteRequest> {
    let label = || (text(), text()).prop_map(|(name, value)| v1::Label { name, value });
    let sample = (double(), timestamp()).prop_map(|(value, timestamp)| v1::Sample { value, timestamp });
    let exemplar = (list(label(), 2), double(), timestamp())
        .prop_map(|(labels, value, timestamp)| v1::Exemplar { labels, value, timestamp });
    let series = (list(label(), 5), list(sample, 3), list(exemplar, 2), list(native(), 2)).prop_map(
        |(labels, samples, exemplars, histograms)| v1::TimeSeries { labels, samples, exemplars, histograms },
    );
    let metadata = (any::<i32>().prop_map(|t| t % 9), text(), text(), text())
        .prop_map(|(metric_type, family, help, unit)| v1::Metadata { metric_type, family, help, unit });
    (list(series, 4), list(metadata, 2))
        .prop_map(|(timeseries, metadata)| v1::WriteRequest { timeseries, metadata })
}

fn request_v2() -> impl Strategy<Value = v2::Request> {
    let refs = |max| list(prop_oneof![20 => 0u32..12, 1 => any::<u32>()], max);
    let sample = (double(), timestamp(), timestamp())
        .prop_map(|(value, timestamp, start_timestamp)| v2::Sample { value, timestamp, start_timestamp });
    let exemplar = (refs(4), double(), timestamp())
        .prop_map(|(labels_refs, value, timestamp)| v2::Exemplar { labels_refs, value, timestamp });
    let metadata = (0i32..9, 0u32..12, 0u32..12).prop_map(|(metric_type, help_ref, unit_ref)| v2::Metadata {
        metric_type,
        help_ref,
        unit_ref,
    });
    let series =
        (refs(10), list(sample, 3), list(native(), 2), list(exemplar, 2), prop::option::of(metadata))
            .prop_map(|(labels_refs, samples, histograms, exemplars, metadata)| v2::TimeSeries {
                labels_refs,
                samples,
                histograms,
                exemplars,
                metadata,
            });
    (prop::collection::vec(text(), 8..14), list(series, 4)).prop_map(|(mut symbols, timeseries)| {
        symbols.insert(0, Vec::new());
        v2::Request { symbols, timeseries }
    })
}

// --- The same message, spelled otherwise --------------------------------------------------------------------------

/// Takes decisions from a list of numbers, so that proptest can shrink them.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(*self.0.next().unwrap()) % n.max(1)
    }
}

/// Which fields of a message hold messages.
type Schema = fn(depth: usize, path: &[u32]) -> bool;

/// Shuffles the fields of a message and of those within, adds unknown ones, writes lengths overlong, unpacks what is
/// packed or leaves it.
fn respell(message: &[u8], path: &mut Vec<u32>, nested: Schema, choices: &mut Choices) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let (key, after) = model::varint::take(rest).unwrap();
        rest = match key & 7 {
            0 => model::varint::take(after).unwrap().1,
            1 => &after[8..],
            5 => &after[4..],
            _ => {
                let (len, after) = model::varint::take(after).unwrap();
                let (inner, after) = after.split_at(len as usize);
                path.push((key >> 3) as u32);
                let inner = if nested(path.len(), path) {
                    respell(inner, path, nested, choices)
                } else {
                    inner.to_vec()
                };
                path.pop();
                let mut field = Vec::new();
                put(&mut field, key, choices.below(3));
                put(&mut field, inner.len() as u64, choices.below(3));
                field.extend_from_slice(&inner);
                fields.push(field);
                rest = after;
                continue;
            }
        };
        fields.push(start[..start.len() - rest.len()].to_vec());
    }
    for unknown in [
        &[0xf8u8, 0x01, 0x96, 0x01][..],
        &[0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xfa, 0x01, 2, 9, 9],
        &[0xfd, 0x01, 1, 2, 3, 4],
    ] {
        if choices.below(4) == 0 {
            fields.push(unknown.to_vec());
        }
    }
    for i in (1..fields.len()).rev() {
        if choices.below(2) == 0 {
            let j = choices.below(i + 1);
            fields.swap(i, j);
        }
    }
    fields.concat()
}

/// A varint with `extra` bytes more than it needs.
fn put(out: &mut Vec<u8>, value: u64, extra: usize) {
    model::varint::put(out, value);
    for _ in 0..extra {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
}

fn nested_v1(_: usize, path: &[u32]) -> bool {
    matches!(path, [1] | [1, 1..=4] | [1, 3, 1] | [1, 4, 8 | 11] | [3])
}

fn nested_v2(_: usize, path: &[u32]) -> bool {
    matches!(path, [5] | [5, 2..=5] | [5, 3, 8 | 11])
}

fn damage(message: &mut Vec<u8>, how: &[(u16, u8, u8)]) {
    for &(at, what, byte) in how {
        if message.is_empty() {
            return;
        }
        let at = usize::from(at) % message.len();
        match what % 4 {
            0 => message[at] = byte,
            1 => message.insert(at, byte),
            2 => drop(message.remove(at)),
            _ => message.truncate(at),
        }
    }
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn v1_agrees_with_prost_on_any_message_in_any_spelling(request in request_v1(), choices in choices()) {
        let message = request.encode_to_vec();
        prop_assert!(compare(Protocol::V1, &message)?);
        let respelled = respell(&message, &mut vec![], nested_v1, &mut Choices(choices.iter().cycle()));
        prop_assert!(compare(Protocol::V1, &respelled)?);
    }

    #[test]
    fn v2_agrees_with_prost_on_any_message_in_any_spelling(request in request_v2(), choices in choices()) {
        let message = request.encode_to_vec();
        prop_assert!(compare(Protocol::V2, &message)?);
        // Shuffling may bring another symbol to the front, which is then refused.
        let respelled = respell(&message, &mut vec![], nested_v2, &mut Choices(choices.iter().cycle()));
        compare(Protocol::V2, &respelled)?;
    }

    #[test]
    fn v1_agrees_with_prost_on_damaged_messages(
        request in request_v1(), how in prop::collection::vec(any::<(u16, u8, u8)>(), 1..4)
    ) {
        let mut message = request.encode_to_vec();
        damage(&mut message, &how);
        compare(Protocol::V1, &message)?;
    }

    #[test]
    fn v2_agrees_with_prost_on_damaged_messages(
        request in request_v2(), how in prop::collection::vec(any::<(u16, u8, u8)>(), 1..4)
    ) {
        let mut message = request.encode_to_vec();
        damage(&mut message, &how);
        compare(Protocol::V2, &message)?;
    }

    #[test]
    fn random_bytes_agree_with_prost(message in prop::collection::vec(any::<u8>(), 0..300)) {
        compare(Protocol::V1, &message)?;
        compare(Protocol::V2, &message)?;
    }

    #[test]
    fn random_series_agree_with_prost(body in prop::collection::vec(any::<u8>(), 0..120), tags in choices()) {
        // Small field numbers and types reach deeper than wholly random bytes do.
        let inner: Vec<u8> = body.iter().zip(tags.iter().cycle()).flat_map(|(b, t)| [t % 0x40, b % 24]).collect();
        for (protocol, tag) in [(Protocol::V1, 0x0a), (Protocol::V2, 0x2a)] {
            let mut message = vec![tag];
            model::varint::put(&mut message, inner.len() as u64);
            message.extend_from_slice(&inner);
            compare(protocol, &message)?;
        }
    }
}
