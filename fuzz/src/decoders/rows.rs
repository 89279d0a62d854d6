//! Rows from another node: whatever the bytes are, decoding is bounded, and what it gives encodes to the same rows.

use cluster::rows::{Decoder, Dictionary, Encoder, Limits, Name, NoNumbers, Rows, Values, sections};
use model::histogram::{Counts, ResetHint, Span};
use model::{Batch, Histogram, Labels, SeriesId, SeriesKey, Shard};
use std::collections::BTreeMap;

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

/// Floats with their start timestamps, and histograms.
type Columns = (Vec<(i64, u64, i64)>, Vec<(i64, i64, Vec<u8>)>);

/// All rows, by position of the series.
fn rows(batch: &Batch) -> Vec<Columns> {
    let one = |series: &model::BatchSeries| {
        let floats =
            series.floats().map(|i| (batch.timestamps[i], batch.values[i], batch.start(i))).collect();
        let histograms = batch.histograms[series.histograms()].iter().map(|row| {
            let mut bytes = Vec::new();
            row.histogram.encode(&mut bytes);
            (row.timestamp, row.start, bytes)
        });
        (floats, histograms.collect())
    };
    batch.series.iter().map(one).collect()
}

const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);

pub fn check(bytes: &[u8]) -> bool {
    // One shard, so that any id belongs to it.
    let limits = Limits { series_max: 10_000, rows_max: 100_000 };
    let decoder = Decoder { key: KEY, shards: 1, limits };
    let (mut numbers, mut batch, mut unresolved) = (Numbers::default(), Batch::default(), Vec::new());
    for section in sections(bytes) {
        let Ok(section) = section else { return false };
        if decoder.decode(&section, &mut numbers, &mut batch, &mut unresolved).is_err() {
            return false;
        }
    }
    assert!(batch.series.len() <= 10_000 && batch.timestamps.len() <= 100_000);
    assert!(batch.starts.is_empty() || batch.starts.len() == batch.timestamps.len());
    assert!(unresolved.is_sorted() && unresolved.iter().all(|at| (*at as usize) < batch.series.len()));
    let (mut encoder, mut again) = (Encoder::default(), Vec::new());
    batch.series.iter().for_each(|series| encoder.push_batch(Name::Id(series.id), &batch, series));
    encoder.finish(Shard(0), 0, &mut again);
    let mut same = Batch::default();
    for section in sections(&again) {
        let section = section.expect("what was encoded is well formed");
        decoder.decode(&section, &mut NoNumbers, &mut same, &mut unresolved).expect("and decodes");
    }
    assert_eq!(rows(&same), rows(&batch));
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let labels = |i: &str| {
        let pairs = [("__name__", "m"), ("i", i)];
        Labels::from_pairs(pairs).expect("valid labels")
    };
    let (a, b) = (labels("a"), labels("b"));
    let (times, values): (Vec<i64>, Vec<f64>) =
        (0..20).map(|i| (1_000 * i, f64::from(i as i32) / 8.0)).unzip();
    let histogram = Histogram {
        reset_hint: ResetHint::default(),
        schema: 3,
        zero_threshold: 1e-128,
        sum: 4.5,
        counts: Counts::Integer { count: 3, zero: 0, positive: vec![1, 2], negative: vec![] },
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: vec![],
        custom_values: vec![],
    };
    let (mut encoder, mut all) = (Encoder::default(), Vec::new());
    let rows = |count: usize| Rows {
        timestamps: &times[..count],
        values: Values::Floats(&values[..count]),
        starts: &[],
    };
    let mut section = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.finish(Shard(0), 1, &mut out);
        all.push(out);
    };
    encoder.push(Name::Labels(a.as_bytes()), rows(1));
    encoder.push(Name::DefineLabels(1, b.as_bytes()), rows(20));
    section(&mut encoder);
    encoder.push(Name::Id(KEY.id(a.as_bytes())), rows(20));
    encoder.push(Name::Id(SeriesId(9)), rows(20));
    section(&mut encoder);
    encoder.push(Name::Define(4, SeriesId(9)), Rows { starts: &times[1..4], ..rows(3) });
    encoder.push(Name::Ref(4), Rows::default());
    encoder.push_histograms([(5, 1, &histogram)].into_iter());
    section(&mut encoder);
    all
}
