//! Batches that are too large for one frame, in pieces that are not.
//!
//! A request may be larger than a frame, and a frame that its receiver will never take is a write that fails for ever. So a large batch becomes
//! several, each a request of its own. They are measured by what their rows take at most, however their series are named: whatever a receiver
//! asks for again, by id or by labels, fits too, and so does the hint of who missed it.

use super::Header;
use crate::rows::{Encoder, Limits, Name};
use model::histogram::Counts;
use model::{Batch, BatchSeries, HistogramRow, Shard};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Bytes of sections.
    pub bytes: usize,
    /// Series and rows.
    pub limits: Limits,
}

impl Most {
    /// What fits behind the header of a frame of this size, and is taken by a receiver.
    pub fn of_frame(bytes_max: usize) -> Most {
        Most { bytes: bytes_max.saturating_sub(Header::BYTES), limits: Limits::default() }
    }
}

/// A part of a batch.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its rows.
    pub batch: Arc<Batch>,
    /// For each of its series the index in the whole. A series that is too large has a part in several pieces.
    pub series: Vec<u32>,
}

/// Bytes of a series besides its labels and rows: a section of its own (22), the run of its name (10) with a number (5) and a length (5), the run
/// of its rows (20) with their form (1), first time and step (20), and the place (5) and number (5) of its histograms.
const SERIES_BYTES: usize = 96;
/// An id, where the labels are not shorter.
const ID_BYTES: usize = 16;
/// A row: its time (10), a bit, and its value (8).
const ROW_BYTES: usize = 19;
/// A start timestamp.
const START_BYTES: usize = 10;

fn series_bytes(series: &BatchSeries) -> usize {
    SERIES_BYTES + ID_BYTES.max(series.labels_len as usize)
}

fn row_bytes(batch: &Batch) -> usize {
    if batch.starts.is_empty() { ROW_BYTES } else { ROW_BYTES + START_BYTES }
}

/// Two times (20), flags (1), schema (5), threshold and sum (16), two counts (20), five lengths (25), and what the lists hold.
fn histogram_bytes(row: &HistogramRow) -> usize {
    let histogram = &row.histogram;
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let buckets = match &histogram.counts {
        Counts::Integer { positive, negative, .. } => positive.len() + negative.len(),
        Counts::Float { positive, negative, .. } => positive.len() + negative.len(),
    };
    87 + spans * 10 + buckets * 10 + histogram.custom_values.len() * 8
}

/// What a piece has so far, or a series would add.
#[derive(Clone, Copy, Default)]
struct Size {
    bytes: usize,
    series: usize,
    rows: usize,
}

impl Size {
    fn of(batch: &Batch, series: &BatchSeries) -> Size {
        let histograms = batch.histograms[series.histograms()].iter().map(histogram_bytes);
        let rows = series.floats_len as usize;
        let bytes = series_bytes(series) + rows * row_bytes(batch) + histograms.sum::<usize>();
        Size { bytes, series: 1, rows }
    }

    fn and(self, other: Size) -> Size {
        Size {
            bytes: self.bytes + other.bytes,
            series: self.series + other.series,
            rows: self.rows + other.rows,
        }
    }

    fn fits(&self, most: &Most) -> bool {
        self.bytes <= most.bytes
            && self.series <= most.limits.series_max as usize
            && self.rows <= most.limits.rows_max as usize
    }
}

/// The series of `batch` whose indices are in `only`, or all of them, in as many pieces as needed; `None` if none is: the batch is to be taken
/// as it is. A piece is larger than `most` only if one histogram is.
pub fn pieces(batch: &Batch, only: Option<&[u32]>, most: &Most) -> Option<Vec<Piece>> {
    let count = only.map_or(batch.series.len(), <[u32]>::len);
    let wanted = || (0..count).map(|i| only.map_or(i as u32, |only| only[i]));
    let sizes = wanted().map(|index| Size::of(batch, &batch.series[index as usize]));
    if sizes.fold(Size::default(), Size::and).fits(most) {
        return None;
    }
    let mut cutter = Cutter {
        batch,
        most,
        piece: Batch::default(),
        series: Vec::new(),
        size: Size::default(),
        pieces: Vec::new(),
    };
    wanted().for_each(|index| cutter.add(index));
    cutter.end();
    Some(cutter.pieces)
}

/// Fills one piece after the other.
struct Cutter<'a> {
    batch: &'a Batch,
    most: &'a Most,
    piece: Batch,
    series: Vec<u32>,
    size: Size,
    pieces: Vec<Piece>,
}

impl Cutter<'_> {
    fn add(&mut self, index: u32) {
        let series = &self.batch.series[index as usize];
        let size = Size::of(self.batch, series);
        if !self.size.and(size).fits(self.most) {
            self.end();
        }
        if size.fits(self.most) {
            return self.push(index, series.floats(), series.histograms(), size);
        }
        // By itself too large for a piece.
        let (mut floats, mut histograms) = (series.floats(), series.histograms());
        while !floats.is_empty() || !histograms.is_empty() {
            let mut size = Size { bytes: series_bytes(series), series: 1, rows: 0 };
            let room = self.most.bytes.saturating_sub(size.bytes) / row_bytes(self.batch);
            size.rows =
                room.min(self.most.limits.rows_max as usize).clamp(1, floats.len().max(1)).min(floats.len());
            size.bytes += size.rows * row_bytes(self.batch);
            let (from, until) = (floats.start, floats.start + size.rows);
            let first = histograms.start;
            while floats.end == until && !histograms.is_empty() {
                let bytes = histogram_bytes(&self.batch.histograms[histograms.start]);
                if size.bytes + bytes > self.most.bytes && (size.rows > 0 || histograms.start > first) {
                    break;
                }
                size.bytes += bytes;
                histograms.start += 1;
            }
            self.push(index, from..until, first..histograms.start, size);
            floats.start = until;
            self.end();
        }
    }

    fn push(&mut self, index: u32, floats: Range<usize>, histograms: Range<usize>, size: Size) {
        let (batch, piece) = (self.batch, &mut self.piece);
        let series = &batch.series[index as usize];
        piece.series.push(BatchSeries {
            labels_at: piece.bytes.len() as u32,
            floats_at: piece.timestamps.len() as u32,
            floats_len: floats.len() as u32,
            histograms_at: piece.histograms.len() as u32,
            histograms_len: histograms.len() as u32,
            ..*series
        });
        piece.bytes.extend_from_slice(batch.labels(series));
        piece.timestamps.extend_from_slice(&batch.timestamps[floats.clone()]);
        piece.values.extend_from_slice(&batch.values[floats.clone()]);
        if !batch.starts.is_empty() {
            piece.starts.extend_from_slice(&batch.starts[floats]);
        }
        piece.histograms.extend_from_slice(&batch.histograms[histograms]);
        self.series.push(index);
        self.size = self.size.and(size);
    }

    fn end(&mut self) {
        if !self.series.is_empty() {
            let batch = Arc::new(std::mem::take(&mut self.piece));
            self.pieces.push(Piece { batch, series: std::mem::take(&mut self.series) });
        }
        self.size = Size::default();
    }
}

/// Series of a batch, or all, as sections for somebody who knows no numbers: by labels where these were checked, else by id.
pub fn encode_sections(batch: &Batch, only: Option<&[u32]>, shards: u32) -> Vec<u8> {
    let mut by_shard: BTreeMap<Shard, Vec<&BatchSeries>> = BTreeMap::new();
    let count = only.map_or(batch.series.len(), <[u32]>::len);
    for index in (0..count).map(|i| only.map_or(i, |only| only[i] as usize)) {
        let series = &batch.series[index];
        by_shard.entry(series.id.shard(shards)).or_default().push(series);
    }
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    for (shard, all) in by_shard {
        for series in all {
            let name = match series.checked {
                true => Name::Labels(batch.labels(series)),
                false => Name::Id(series.id),
            };
            encoder.push_batch(name, batch, series);
        }
        encoder.finish(shard, 0, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{KEY, labels};
    use model::histogram::{Histogram, ResetHint, Span};
    use proptest::prelude::*;

    /// What has the rows of a batch, whatever the layout.
    fn content<'a>(batches: impl Iterator<Item = (&'a Batch, Option<&'a [u32]>)>) -> Vec<String> {
        let mut all = Vec::new();
        for (batch, only) in batches {
            for index in only.map_or((0..batch.series.len() as u32).collect(), <[u32]>::to_vec) {
                let series = &batch.series[index as usize];
                let name = format!("{:?} {}", batch.labels(series), series.checked);
                all.extend(series.floats().map(|row| {
                    format!("{name} {} {} {}", batch.timestamps[row], batch.values[row], batch.start(row))
                }));
                all.extend(batch.histograms[series.histograms()].iter().map(|row| format!("{name} {row:?}")));
            }
        }
        all.sort();
        all
    }

    /// The longest that a frame of this batch can be: sections, every one with a number and labels or an id.
    fn longest(batch: &Batch) -> usize {
        let encode = |by_labels: bool| {
            let (mut encoder, mut out) = (Encoder::default(), Vec::new());
            for (i, series) in batch.series.iter().enumerate() {
                let number = if i % 2 == 0 { u32::MAX } else { 0 };
                let name = match by_labels {
                    true => Name::DefineLabels(number, batch.labels(series)),
                    false => Name::Define(number, series.id),
                };
                encoder.push_batch(name, batch, series);
                encoder.finish(series.id.shard(4), u32::MAX, &mut out);
            }
            out.len()
        };
        encode(true).max(encode(false))
    }

    fn histogram(buckets: Vec<i64>, sum: f64) -> Histogram {
        let spans = vec![Span { offset: i32::MIN, length: u32::MAX }; buckets.len() / 2];
        Histogram {
            reset_hint: ResetHint::Gauge,
            schema: i32::MIN,
            zero_threshold: 0.5,
            sum,
            counts: Counts::Integer { count: u64::MAX, zero: u64::MAX, positive: buckets, negative: vec![] },
            positive_spans: spans,
            negative_spans: vec![],
            custom_values: vec![sum],
        }
    }

    fn a_batch() -> impl Strategy<Value = Batch> {
        let row = (any::<i64>(), any::<u64>(), any::<i64>());
        let histograms = (any::<i64>(), prop::collection::vec(any::<i64>(), 0..6), any::<f64>());
        let series = (
            "[a-z]{0,90}",
            any::<bool>(),
            prop::collection::vec(row, 0..60),
            prop::collection::vec(histograms, 0..6),
        );
        (prop::collection::vec(series, 1..12), any::<bool>()).prop_map(|(all, starts)| {
            let mut batch = Batch::default();
            for (value, checked, rows, histograms) in all {
                let labels = labels("up", &[("a", &format!("x{value}"))]);
                batch.series.push(BatchSeries {
                    id: KEY.id(labels.as_bytes()),
                    checked,
                    labels_at: batch.bytes.len() as u32,
                    labels_len: labels.as_bytes().len() as u32,
                    floats_at: batch.timestamps.len() as u32,
                    floats_len: rows.len() as u32,
                    histograms_at: batch.histograms.len() as u32,
                    histograms_len: histograms.len() as u32,
                });
                batch.bytes.extend_from_slice(labels.as_bytes());
                for (time, value, start) in rows {
                    batch.timestamps.push(time);
                    batch.values.push(value);
                    if starts {
                        batch.starts.push(start);
                    }
                }
                batch.histograms.extend(histograms.into_iter().map(|(timestamp, buckets, sum)| {
                    HistogramRow { timestamp, start: i64::MIN, histogram: self::histogram(buckets, sum) }
                }));
            }
            batch
        })
    }

    proptest! {
        #[test]
        fn pieces_have_every_row_once_and_each_fits_into_a_frame(
            batch in a_batch(), bytes in 400usize..4000, rows_max in 5u32..60, series_max in 1u32..8, every in 1usize..3
        ) {
            let most = Most { bytes, limits: Limits { series_max, rows_max } };
            let only: Vec<u32> = (0..batch.series.len() as u32).step_by(every).collect();
            let Some(pieces) = pieces(&batch, Some(&only), &most) else {
                let mut whole = batch.clone();
                whole.series = only.iter().map(|index| batch.series[*index as usize]).collect();
                prop_assert!(longest(&whole) <= bytes);
                return Ok(());
            };
            let all = content(pieces.iter().map(|piece| (&*piece.batch, None)));
            prop_assert_eq!(all, content([(&batch, Some(&only[..]))].into_iter()));
            for Piece { batch: part, series } in &pieces {
                prop_assert_eq!(part.series.len(), series.len());
                prop_assert!(series.len() <= series_max as usize && part.timestamps.len() <= rows_max as usize);
                prop_assert!(longest(part) <= bytes, "{} of {bytes}", longest(part));
                for (one, index) in part.series.iter().zip(series) {
                    prop_assert_eq!(one.id, batch.series[*index as usize].id);
                }
            }
        }
    }
}
