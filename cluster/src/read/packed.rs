//! Samples of one series in a section of [`crate::rows`] of its own, so that each can be read without the others.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::rows::{Decoder, Encoder, Limits, Name, NoNumbers, Rows, Section, Values};
use crate::wire::Malformed;
use model::{Batch, HistogramRow, Samples, SeriesId, SeriesKey, Shard};
use std::sync::Arc;

/// Rows in a section. More are several sections, so that a chunk stays small.
pub(super) const ROWS_MAX: usize = 8192;
pub(super) const HISTOGRAMS_MAX: usize = 128;

/// How a series is named to the receiver.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    Id(SeriesId),
    Labels(SeriesId, &'a [u8]),
}

/// Appends sections with all samples: the first one has the labels.
pub(super) fn encode(
    encoder: &mut Encoder,
    shard: Shard,
    named: Named<'_>,
    samples: &Samples,
    mut each: impl FnMut(&mut Encoder, Shard),
) {
    let mut name = match named {
        Named::Id(id) => Name::Id(id),
        Named::Labels(_, labels) => Name::Labels(labels),
    };
    let id = match named {
        Named::Id(id) | Named::Labels(id, _) => id,
    };
    let floats = samples.timestamps.len().div_ceil(ROWS_MAX);
    let histograms = samples.histograms.len().div_ceil(HISTOGRAMS_MAX);
    for part in 0..floats.max(histograms) {
        let of = |len: usize, size: usize| (part * size).min(len)..((part + 1) * size).min(len);
        let rows = of(samples.timestamps.len(), ROWS_MAX);
        let starts = samples.starts.get(rows.clone()).unwrap_or(&[]);
        let values = Values::Floats(samples.values.get(rows.clone()).unwrap_or(&[]));
        let timestamps = samples.timestamps.get(rows).unwrap_or(&[]);
        encoder.push(name, Rows { timestamps, values, starts });
        let rows = samples.histograms.get(of(samples.histograms.len(), HISTOGRAMS_MAX)).unwrap_or(&[]);
        if !rows.is_empty() {
            encoder.push_histograms(rows.iter().map(|(t, start, histogram)| (*t, *start, &**histogram)));
        }
        each(encoder, shard);
        name = Name::Id(id);
    }
}

/// Reads sections of one series.
pub(super) struct Unpacker {
    decoder: Decoder,
    batch: Batch,
}

/// What a section holds.
pub(super) struct Unpacked<'a> {
    pub id: SeriesId,
    /// Canonical labels, if they came along.
    pub labels: Option<&'a [u8]>,
}

impl Unpacker {
    pub fn new(key: SeriesKey, shards: u32) -> Unpacker {
        let limits = Limits { series_max: 1, rows_max: ROWS_MAX as u32 };
        Unpacker { decoder: Decoder { key, shards, limits }, batch: Batch::default() }
    }

    /// Replaces the content of `into` with what the section holds.
    pub fn read(&mut self, section: &Section<'_>, into: &mut Samples) -> Result<Unpacked<'_>, Malformed> {
        const BAD: Malformed = Malformed { what: "rows of a series" };
        let batch = &mut self.batch;
        batch.clear();
        into.clear();
        let mut unresolved = Vec::new();
        self.decoder.decode(section, &mut NoNumbers, batch, &mut unresolved).map_err(|_| BAD)?;
        let [series] = &batch.series[..] else { return Err(BAD) };
        let is_sorted = batch.timestamps.is_sorted_by(|a, b| a < b)
            && batch.histograms.is_sorted_by(|a, b| a.timestamp < b.timestamp);
        let is_float = |row: &HistogramRow| batch.timestamps.binary_search(&row.timestamp).is_ok();
        if !unresolved.is_empty() || !is_sorted || batch.histograms.iter().any(is_float) {
            return Err(BAD);
        }
        into.timestamps.extend_from_slice(&batch.timestamps);
        into.values.extend(batch.values.iter().map(|bits| f64::from_bits(*bits)));
        if batch.starts.iter().any(|start| *start != 0) {
            into.starts.extend_from_slice(&batch.starts);
        }
        let histograms = batch.histograms.drain(..);
        into.histograms.extend(histograms.map(|row| (row.timestamp, row.start, Arc::new(row.histogram))));
        let labels = series.checked.then(|| batch.labels(series));
        Ok(Unpacked { id: series.id, labels })
    }
}
