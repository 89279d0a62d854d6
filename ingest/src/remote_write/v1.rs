//! `prometheus.WriteRequest`.
//!
//! ```text
//! WriteRequest   { timeseries = 1, metadata = 3 }
//! TimeSeries     { labels = 1, samples = 2, exemplars = 3, histograms = 4 }
//! Label          { name = 1, value = 2 }
//! Sample         { double value = 1, int64 timestamp = 2 }
//! Exemplar       { labels = 1, double value = 2, int64 timestamp = 3 }
//! MetricMetadata { type = 1, metric_family_name = 2, help = 4, unit = 5 }
//! ```
//!
//! Labels are passed over, not looked into: the `labels` fields of a series, as they lie one behind the other, are its
//! label bytes, and their hash is its id. Only if something lies between them are they put together behind the body.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::histogram;
use super::wire::{Cursor, Malformed, fixed64, len, varint};
use crate::limits::Budget;
use crate::problems::{Problems, Reason};
use crate::series::Text;
use crate::store::Decoded;
use crate::{Limits, Refusal, metadata};
use model::{Batch, BatchSeries, Metadata, MetricType, SeriesKey};
use std::ops::Range;

const TIMESERIES: u32 = len(1);
const METADATA: u32 = len(3);

const LABELS: u32 = len(1);
const SAMPLES: u32 = len(2);
const EXEMPLARS: u32 = len(3);
const HISTOGRAMS: u32 = len(4);

const LABEL_NAME: u32 = len(1);
const LABEL_VALUE: u32 = len(2);
const SAMPLE_VALUE: u32 = fixed64(1);
const SAMPLE_TIMESTAMP: u32 = varint(2);
const EXEMPLAR_LABELS: u32 = len(1);
const EXEMPLAR_VALUE: u32 = fixed64(2);
const EXEMPLAR_TIMESTAMP: u32 = varint(3);
const METADATA_TYPE: u32 = varint(1);
const METADATA_FAMILY: u32 = len(2);
const METADATA_HELP: u32 = len(4);
const METADATA_UNIT: u32 = len(5);

/// Fills the columns of `batch` from the `WriteRequest` in its `bytes`. An error leaves them half filled: clear them.
pub fn decode_v1(batch: &mut Batch, key: SeriesKey, limits: &Limits) -> Result<Decoded, Refusal> {
    limits.check_decoded(batch.bytes.len(), 400)?;
    // The body is read while the columns grow; it goes back even when decoding fails, so that its memory is kept.
    let mut body = std::mem::take(&mut batch.bytes);
    let mut assembled = Vec::new();
    let mut visitor = Visitor {
        batch,
        key,
        limits,
        budget: limits.budget(),
        assembled: &mut assembled,
        pieces: Vec::new(),
        problems: Problems::default(),
        exemplars: 0,
    };
    let result = visitor.request(&body);
    let decoded = Decoded { problems: visitor.problems, exemplars: visitor.exemplars };
    body.extend_from_slice(&assembled);
    batch.bytes = body;
    result.map(|()| decoded)
}

struct Visitor<'a> {
    batch: &'a mut Batch,
    key: SeriesKey,
    limits: &'a Limits,
    budget: Budget,
    /// Label bytes that go behind the body.
    assembled: &'a mut Vec<u8>,
    /// Where the labels of one series lie, when not in one piece.
    pieces: Vec<Range<usize>>,
    problems: Problems,
    exemplars: u64,
}

impl Visitor<'_> {
    fn request(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mut message = Cursor::new(body);
        while !message.is_done() {
            match message.key()? {
                TIMESERIES => {
                    let series = message.message()?;
                    self.series(body, series)?;
                }
                METADATA => {
                    let message = message.message()?;
                    self.metadata(message)?;
                }
                key => message.unknown(key, 1 << 1 | 1 << 3)?,
            }
        }
        Ok(())
    }

    fn series(&mut self, body: &[u8], mut message: Cursor) -> Result<(), Refusal> {
        let floats_at = self.batch.timestamps.len();
        let histograms_at = self.batch.histograms.len();
        let mut labels = message.at()..message.at();
        let mut invalid = None;
        while !message.is_done() {
            let at = message.at();
            match message.key()? {
                LABELS => {
                    message.skip_len()?;
                    if labels.end == at {
                        labels.end = message.at();
                    } else {
                        self.set_aside(&mut labels, at..message.at())?;
                    }
                }
                SAMPLES => {
                    let (timestamp, value) = sample(message.message()?)?;
                    self.budget.take(16)?;
                    self.batch.timestamps.push(timestamp);
                    self.batch.values.push(value);
                }
                HISTOGRAMS => {
                    let mut row = histogram::decode(message.message()?, &mut self.budget, false)?;
                    match histogram::accept(&mut row) {
                        Ok(()) => self.batch.histograms.push(row),
                        Err(why) => {
                            let (_, count) = invalid.get_or_insert((why, 0u64));
                            *count += 1;
                        }
                    }
                }
                EXEMPLARS => {
                    exemplar(message.message()?)?;
                    self.exemplars += 1;
                }
                key => message.unknown(key, 0b1_1110)?,
            }
        }
        let floats_len = self.batch.timestamps.len() - floats_at;
        let histograms_len = self.batch.histograms.len() - histograms_at;
        let (labels_at, bytes) = if self.pieces.is_empty() {
            (labels.start, body.get(labels).unwrap_or_default())
        } else {
            self.pieces.push(labels);
            let at = self.assembled.len();
            for piece in self.pieces.drain(..) {
                self.assembled.extend_from_slice(body.get(piece).unwrap_or_default());
            }
            (body.len() + at, self.assembled.get(at..).unwrap_or_default())
        };
        if let Some((why, count)) = invalid {
            self.problems
                .add(Reason::InvalidHistogram, count, || format!("{why} for series {}", Text(bytes)));
        }
        if floats_len + histograms_len == 0 {
            return Ok(());
        }
        self.budget.take(size_of::<BatchSeries>())?;
        self.batch.series.push(BatchSeries {
            id: self.key.id(bytes),
            checked: false,
            labels_at: labels_at as u32,
            labels_len: bytes.len() as u32,
            floats_at: floats_at as u32,
            floats_len: floats_len as u32,
            histograms_at: histograms_at as u32,
            histograms_len: histograms_len as u32,
        });
        Ok(())
    }

    /// A label that does not follow the one before. `labels` goes on from it; what it held becomes a piece, unless this
    /// is the first label at all.
    #[cold]
    fn set_aside(&mut self, labels: &mut Range<usize>, label: Range<usize>) -> Result<(), Refusal> {
        let piece = std::mem::replace(labels, label);
        if !piece.is_empty() {
            self.budget.take(size_of::<Range<usize>>() + piece.len())?;
            self.pieces.push(piece);
        }
        Ok(())
    }

    fn metadata(&mut self, mut message: Cursor) -> Result<(), Refusal> {
        let (mut metric_type, mut family, mut help, mut unit) = (0, &[][..], &[][..], &[][..]);
        while !message.is_done() {
            match message.key()? {
                METADATA_TYPE => metric_type = message.varint()?,
                METADATA_FAMILY => family = message.bytes()?,
                METADATA_HELP => help = message.bytes()?,
                METADATA_UNIT => unit = message.bytes()?,
                key => message.unknown(key, 0b11_0110)?,
            }
        }
        let metric_type = MetricType::from_wire(metric_type & u64::from(u32::MAX));
        if let Some(entry) = metadata::entry(family, metric_type, help, unit, self.limits) {
            self.budget
                .take(size_of::<Metadata>() + entry.family.len() + entry.help.len() + entry.unit.len())?;
            self.batch.metadata.push(entry);
        }
        Ok(())
    }
}

#[inline(always)]
fn sample(mut message: Cursor) -> Result<(i64, u64), Malformed> {
    let (mut timestamp, mut value) = (0, 0);
    while !message.is_done() {
        match message.key()? {
            SAMPLE_VALUE => value = message.fixed64()?,
            SAMPLE_TIMESTAMP => timestamp = message.varint()? as i64,
            key => message.unknown(key, 0b110)?,
        }
    }
    Ok((timestamp, value))
}

fn exemplar(mut message: Cursor) -> Result<(), Malformed> {
    while !message.is_done() {
        match message.key()? {
            EXEMPLAR_LABELS => {
                let mut label = message.message()?;
                while !label.is_done() {
                    match label.key()? {
                        LABEL_NAME | LABEL_VALUE => label.skip_len()?,
                        key => label.unknown(key, 0b110)?,
                    }
                }
            }
            EXEMPLAR_VALUE => drop(message.fixed64()?),
            EXEMPLAR_TIMESTAMP => drop(message.varint()?),
            key => message.unknown(key, 0b1110)?,
        }
    }
    Ok(())
}
