use super::*;
use crate::testing::KEY;
use model::histogram::{Counts, ResetHint, Span};
use model::{Batch, BatchSeries, Histogram, HistogramRow, Labels, Samples, SeriesId, Shard};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const SHARDS: u32 = 4;

/// Numbers as a map.
#[derive(Default)]
struct Numbers(BTreeMap<u32, SeriesId>);

impl Dictionary for Numbers {
    fn resolve(&mut self, number: u32) -> Option<SeriesId> {
        self.0.get(&number).copied()
    }

    fn define(&mut self, number: u32, id: SeriesId) -> bool {
        self.0.insert(number, id);
        true
    }
}

fn decoder() -> Decoder {
    Decoder { key: KEY, shards: SHARDS, limits: Limits::default() }
}

fn decode(bytes: &[u8], numbers: &mut Numbers) -> Result<(Batch, Vec<u32>), Error> {
    let (mut batch, mut unresolved) = (Batch::default(), Vec::new());
    for section in sections(bytes) {
        decoder().decode(&section?, numbers, &mut batch, &mut unresolved)?;
    }
    Ok((batch, unresolved))
}

/// An id of shard 1.
fn id(low: u64) -> SeriesId {
    SeriesId(1 << 126 | u128::from(low))
}

/// A series in a form that compares: NaN and all.
#[derive(Debug, PartialEq)]
struct Plain {
    id: SeriesId,
    labels: Option<Vec<u8>>,
    floats: Vec<(i64, u64, i64)>,
    histograms: Vec<(i64, i64, Vec<u8>)>,
}

fn plain(batch: &Batch) -> Vec<Plain> {
    let one = |series: &BatchSeries| Plain {
        id: series.id,
        labels: series.checked.then(|| batch.labels(series).to_vec()),
        floats: series.floats().map(|i| (batch.timestamps[i], batch.values[i], batch.start(i))).collect(),
        histograms: batch.histograms[series.histograms()]
            .iter()
            .map(|row| {
                let mut bytes = Vec::new();
                row.histogram.encode(&mut bytes);
                (row.timestamp, row.start, bytes)
            })
            .collect(),
    };
    batch.series.iter().map(one).collect()
}

fn histogram(count: u64) -> Histogram {
    Histogram {
        reset_hint: ResetHint::Unknown,
        schema: 3,
        zero_threshold: 0.0,
        sum: count as f64,
        counts: Counts::Integer { count, zero: 0, positive: vec![count as i64], negative: vec![] },
        positive_spans: vec![Span { offset: 0, length: 1 }],
        negative_spans: vec![],
        custom_values: vec![],
    }
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0i64..100_000, 1 => any::<i64>()]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-1000i64..1000).prop_map(|v| v as f64),
        any::<u64>().prop_map(f64::from_bits),
        (0i64..100).prop_map(|v| v as f64 / 8.0),
        Just(model::value::stale()),
        Just(-0.0),
        Just((1u64 << 48) as f64),
    ]
}

fn timestamps() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        3 => prop::collection::vec(timestamp(), 0..3),
        2 => (timestamp(), 0i64..20_000, 0usize..40).prop_map(|(first, step, n)| {
            (0..n as i64).map(|i| first.wrapping_add(i * step)).collect()
        }),
        1 => Just(vec![1000, 2000, 3000, 4500]),
        1 => prop::collection::vec(timestamp(), 0..20),
    ]
}

fn values(count: usize) -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        value().prop_map(move |v| vec![v; count]),
        prop::collection::vec(value(), count),
        prop::collection::vec((0i64..1 << 40).prop_map(|v| v as f64), count),
        prop::collection::vec((0i64..1 << 10).prop_map(|v| v as f64 / 4.0), count),
    ]
}

fn samples() -> impl Strategy<Value = Samples> {
    let floats = timestamps().prop_flat_map(|timestamps| {
        let count = timestamps.len();
        let starts = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(timestamp(), count)];
        (Just(timestamps), values(count), starts)
    });
    let histograms = prop_oneof![
        4 => Just(vec![]),
        1 => prop::collection::vec((timestamp(), timestamp(), any::<u32>()), 1..4),
    ];
    (floats, histograms).prop_map(|((timestamps, values, starts), histograms)| Samples {
        timestamps,
        values,
        starts,
        histograms: histograms
            .into_iter()
            .map(|(t, start, n)| (t, start, Arc::new(histogram(u64::from(n)))))
            .collect(),
    })
}

/// Labels of a series of shard 1.
fn labels(number: u64) -> Labels {
    let named = |i: u64| crate::testing::labels("up", &[("i", &i.to_string())]);
    let mut all = (number * 1000..).map(named);
    all.find(|labels| KEY.id(labels.as_bytes()).shard(SHARDS) == Shard(1)).expect("every fourth is")
}

fn expected(id: SeriesId, labels: Option<Vec<u8>>, samples: &Samples) -> Plain {
    let start = |i: usize| samples.starts.get(i).copied().unwrap_or(0);
    let float = |i: usize| (samples.timestamps[i], samples.values[i].to_bits(), start(i));
    let bytes = |h: &Histogram| {
        let mut bytes = Vec::new();
        h.encode(&mut bytes);
        bytes
    };
    Plain {
        id,
        labels,
        floats: (0..samples.timestamps.len()).map(float).collect(),
        histograms: samples.histograms.iter().map(|(t, start, h)| (*t, *start, bytes(h))).collect(),
    }
}

proptest! {
    #[test]
    fn sections_bring_back_what_was_pushed(
        all in prop::collection::vec(prop::collection::vec((0u8..5, any::<u32>(), samples()), 0..20), 1..4)
    ) {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        let mut numbers = Numbers::default();
        let mut expect = Vec::new();
        for (section, series) in all.iter().enumerate() {
            for (i, (kind, number, samples)) in series.iter().enumerate() {
                let text = labels((section * 100 + i) as u64);
                let by_labels = KEY.id(text.as_bytes());
                let by_id = id((section * 100 + i) as u64);
                let (name, id) = match kind {
                    0 => {
                        let known = *numbers.0.entry(*number).or_insert(by_id);
                        (Name::Ref(*number), known)
                    }
                    1 => (Name::Id(by_id), by_id),
                    // Numbers that were defined before stay what they are, as a sender's do.
                    2 if !numbers.0.contains_key(number) => {
                        numbers.0.insert(*number, by_id);
                        (Name::Define(*number, by_id), by_id)
                    }
                    4 if !numbers.0.contains_key(number) => {
                        numbers.0.insert(*number, by_labels);
                        (Name::DefineLabels(*number, text.as_bytes()), by_labels)
                    }
                    _ => (Name::Labels(text.as_bytes()), by_labels),
                };
                encoder.push_samples(name, samples);
                let labels = matches!(name, Name::Labels(_) | Name::DefineLabels(..));
                expect.push(expected(id, labels.then(|| text.as_bytes().to_vec()), samples));
            }
            encoder.finish(Shard(1), 7, &mut bytes);
        }
        let mut receiver = Numbers(numbers.0.clone());
        let (batch, unresolved) = decode(&bytes, &mut receiver).unwrap();
        prop_assert_eq!(plain(&batch), expect);
        prop_assert_eq!(unresolved, Vec::<u32>::new());
        prop_assert_eq!(&receiver.0, &numbers.0);

        // What was decoded encodes to a section that says the same.
        let mut again = Vec::new();
        for series in &batch.series {
            encoder.push_batch(Name::Id(series.id), &batch, series);
        }
        encoder.finish(Shard(1), 0, &mut again);
        let (same, _) = decode(&again, &mut Numbers::default()).unwrap();
        let without = |mut all: Vec<Plain>| { all.iter_mut().for_each(|p| p.labels = None); all };
        prop_assert_eq!(without(plain(&same)), without(plain(&batch)));
    }

    #[test]
    fn damaged_sections_are_refused_or_harmless(
        all in prop::collection::vec(samples(), 1..8), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<prop::sample::Index>()
    ) {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for (i, samples) in all.iter().enumerate() {
            encoder.push_samples(Name::Define(i as u32, id(i as u64)), samples);
        }
        encoder.finish(Shard(1), 1, &mut bytes);
        let short = &bytes[..cut.index(bytes.len())];
        prop_assert!(short.is_empty() || decode(short, &mut Numbers::default()).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok((batch, _)) = decode(&bytes, &mut Numbers::default()) {
            // Every range points into its column.
            plain(&batch);
            prop_assert!(batch.starts.is_empty() || batch.starts.len() == batch.timestamps.len());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut section = vec![1, 0];
        section.extend((bytes.len() as u32).to_le_bytes());
        section.extend(&bytes);
        let _ = decode(&bytes, &mut Numbers::default());
        if let Ok((batch, _)) = decode(&section, &mut Numbers::default()) {
            plain(&batch);
        }
    }
}

#[test]
fn a_number_that_is_not_known_is_reported_and_its_rows_are_skipped_over() {
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
    for number in [3u32, 9, 4] {
        let rows = Rows {
            timestamps: &[i64::from(number)],
            values: Values::Floats(&[f64::from(number)]),
            starts: &[],
        };
        encoder.push(Name::Ref(number), rows);
    }
    encoder.finish(Shard(1), 1, &mut bytes);
    let mut numbers = Numbers([(3, id(3)), (4, id(4))].into());
    let (batch, unresolved) = decode(&bytes, &mut numbers).unwrap();
    assert_eq!(unresolved, [1]);
    assert_eq!(batch.series[2].id, id(4));
    assert_eq!(f64::from_bits(batch.values[2]), 4.0);
}

#[test]
fn more_than_the_limits_is_refused_before_memory_is_taken_for_it() {
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
    let times: Vec<i64> = (0..1000).collect();
    let ones = vec![1.0; 1000];
    let rows = Rows { timestamps: &times, values: Values::Floats(&ones), starts: &[] };
    (0..1000).for_each(|i| encoder.push(Name::Id(id(i)), rows));
    encoder.finish(Shard(1), 0, &mut bytes);
    let section = sections(&bytes).next().unwrap().unwrap();
    let refused = |limits: Limits, what: &str| {
        let mut batch = Batch::default();
        let decoder = Decoder { limits, ..decoder() };
        let error = decoder.decode(&section, &mut NoNumbers, &mut batch, &mut vec![]).unwrap_err();
        assert!(matches!(error, Error::TooMuch { what: w, .. } if w == what), "{error}");
        assert!(batch.timestamps.capacity() == 0);
    };
    refused(Limits { series_max: 999, rows_max: u32::MAX }, "series");
    refused(Limits { series_max: 1000, rows_max: 999_999 }, "rows");
    let (batch, _) = decode(&bytes, &mut Numbers::default()).unwrap();
    assert_eq!(batch.timestamps.len(), 1_000_000);
}

#[test]
fn a_series_in_a_foreign_shard_and_labels_that_are_not_canonical_are_refused() {
    let rows = Rows { timestamps: &[1], values: Values::Floats(&[1.0]), starts: &[] };
    let refused = |name: Name<'_>, shard: u16| {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        encoder.push(name, rows);
        encoder.finish(Shard(shard), 0, &mut bytes);
        decode(&bytes, &mut Numbers::default()).is_err()
    };
    assert!(!refused(Name::Id(id(1)), 1) && refused(Name::Id(id(1)), 2));
    assert!(refused(Name::Define(1, id(1)), 0));
    let good = labels(1);
    assert!(!refused(Name::Labels(good.as_bytes()), 1) && refused(Name::Labels(good.as_bytes()), 3));
    assert!(refused(Name::Labels(&good.as_bytes()[1..]), 1));
}

#[test]
fn the_usual_write_takes_ten_bytes_a_row_and_a_scrape_of_integers_five() {
    let size = |value: fn(u64) -> f64| {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for i in 0..31u64 {
            let values = [value(i)];
            let rows =
                Rows { timestamps: &[1_700_000_000_000], values: Values::Floats(&values), starts: &[] };
            encoder.push(Name::Ref(i as u32 * 40), rows);
        }
        encoder.finish(Shard(1), 3, &mut bytes);
        bytes.len() as f64 / 31.0
    };
    let (floats, integers) = (size(|i| (i as f64).sqrt() + 0.1), size(|i| (i * 1000) as f64));
    assert!(floats < 11.0 && integers < 6.0, "{floats} {integers}");
}

#[test]
fn the_example_of_the_page_is_what_is_written() {
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
    let push = |encoder: &mut Encoder, name, timestamps: &[i64], values: &[f64]| {
        encoder.push(name, Rows { timestamps, values: Values::Floats(values), starts: &[] });
    };
    push(&mut encoder, Name::Ref(5), &[1000], &[2.0]);
    push(&mut encoder, Name::Ref(6), &[1000], &[0.5]);
    push(&mut encoder, Name::Define(7, id(9)), &[1000, 1015, 1030], &[10.0, 11.0, 13.0]);
    let row = HistogramRow { timestamp: 1000, start: 0, histogram: histogram(1) };
    encoder.push_histograms([(row.timestamp, row.start, &row.histogram)].into_iter());
    encoder.finish(Shard(1), 2, &mut bytes);
    let page = include_str!("../../../docs/format/rows.md");
    let example = page.split("```example").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut written = Vec::new();
    for line in example.lines().filter(|line| !line.is_empty()) {
        let mut columns = line.split('|');
        let offset = usize::from_str_radix(columns.next().unwrap().trim(), 16).unwrap();
        assert_eq!(offset, written.len(), "{line}");
        let hex = columns.next().unwrap().split_whitespace();
        written.extend(hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert_eq!(
        bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
        written.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    );
}
