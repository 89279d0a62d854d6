//! Rows from another node: whatever the bytes are, decoding is bounded, and what it gives encodes to the same rows.
#![no_main]

use cluster::rows::{Decoder, Dictionary, Encoder, Limits, Name, NoNumbers, sections};
use model::{Batch, SeriesId, SeriesKey, Shard};
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

/// All rows, by position of the series.
fn rows(batch: &Batch) -> Vec<(Vec<(i64, u64, i64)>, Vec<(i64, i64, Vec<u8>)>)> {
    let one = |series: &model::BatchSeries| {
        let floats = series.floats().map(|i| (batch.timestamps[i], batch.values[i], batch.start(i))).collect();
        let histograms = batch.histograms[series.histograms()].iter().map(|row| {
            let mut bytes = Vec::new();
            row.histogram.encode(&mut bytes);
            (row.timestamp, row.start, bytes)
        });
        (floats, histograms.collect())
    };
    batch.series.iter().map(one).collect()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // One shard, so that any id belongs to it.
    let limits = Limits { series_max: 10_000, rows_max: 100_000 };
    let decoder = Decoder { key: SeriesKey([1, 2, 3, 4]), shards: 1, limits };
    let (mut numbers, mut batch, mut unresolved) = (Numbers::default(), Batch::default(), Vec::new());
    for section in sections(bytes) {
        let Ok(section) = section else { return };
        if decoder.decode(&section, &mut numbers, &mut batch, &mut unresolved).is_err() {
            return;
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
});
