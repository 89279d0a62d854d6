//! The rows of one write request, in columns.
//!
//! A batch owns the decoded body, so labels stay where they lie and a recycled batch allocates nothing.

use crate::{Histogram, Metadata, SeriesId};
use std::ops::Range;

/// The samples of one request. `clear` and reuse it.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The decompressed body, behind it label bytes that had to be assembled. [`BatchSeries::labels`] points in here.
    pub bytes: Vec<u8>,
    /// One entry per series of the request; a series may occur more than once.
    pub series: Vec<BatchSeries>,
    /// Float samples' timestamps, milliseconds.
    pub timestamps: Vec<i64>,
    /// Float samples' raw bits, as many as timestamps.
    pub values: Vec<u64>,
    /// Float samples' start timestamps, milliseconds, 0 for unset. Empty when no sample of the batch has one.
    pub starts: Vec<i64>,
    /// Native histograms.
    pub histograms: Vec<HistogramRow>,
    /// Metric families described by the request.
    pub metadata: Vec<Metadata>,
}

/// One series of a batch and where its rows are.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeries {
    /// The hash of the label bytes *as they lie*. It is the series' id if these are canonical.
    pub id: SeriesId,
    /// Whether the label bytes are known to be canonical. A sink creates a series only if they are; it appends to a
    /// series that it already knows either way, since only canonical bytes can have its id.
    pub checked: bool,
    /// Where the label bytes start in [`Batch::bytes`].
    pub labels_at: u32,
    /// How many label bytes there are.
    pub labels_len: u32,
    /// First float row.
    pub floats_at: u32,
    /// How many float rows.
    pub floats_len: u32,
    /// First histogram row.
    pub histograms_at: u32,
    /// How many histogram rows.
    pub histograms_len: u32,
}

/// One native histogram sample.
#[derive(Clone, Debug)]
pub struct HistogramRow {
    /// Milliseconds.
    pub timestamp: i64,
    /// Start timestamp in milliseconds, 0 for unset.
    pub start: i64,
    /// The histogram.
    pub histogram: Histogram,
}

impl Batch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.series.clear();
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
        self.metadata.clear();
    }

    /// The label bytes of a series.
    #[inline]
    pub fn labels(&self, series: &BatchSeries) -> &[u8] {
        let at = series.labels_at as usize;
        &self.bytes[at..at + series.labels_len as usize]
    }

    /// The start timestamp of float row `row`, 0 for unset.
    #[inline]
    pub fn start(&self, row: usize) -> i64 {
        self.starts.get(row).copied().unwrap_or(0)
    }
}

impl BatchSeries {
    /// Its rows in the float columns.
    #[inline]
    pub fn floats(&self) -> Range<usize> {
        self.floats_at as usize..(self.floats_at + self.floats_len) as usize
    }

    /// Its rows in [`Batch::histograms`].
    #[inline]
    pub fn histograms(&self) -> Range<usize> {
        self.histograms_at as usize..(self.histograms_at + self.histograms_len) as usize
    }
}
