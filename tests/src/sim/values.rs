//! The data of a run: series by number, and values that follow from seed, series, timestamp and version.
//!
//! So that whatever is read can be checked without a stored copy: a value that follows from none of the versions that were sent was
//! invented. A row can be sent in several versions by several clients; the conflict rule says which one must be seen.

use crate::random::mix;
use model::histogram::{Counts, ResetHint, Span};
use model::value::{Value, stale};
use model::{Batch, BatchSeries, Histogram, HistogramRow, Labels, Matcher, Samples, SeriesKey};
use std::sync::Arc;

/// Versions of one row that there may be.
pub const VERSIONS: usize = 3;

/// A row that was sent: series, timestamp, version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Which series.
    pub series: u16,
    /// Milliseconds.
    pub t: i64,
    /// Which of its values.
    pub version: u8,
}

/// All series of a run.
pub struct Values {
    seed: u64,
    /// Of a hundred values, how many are histograms.
    histograms: u64,
    labels: Vec<Labels>,
    /// Of `labels`, sorted, with the number of the series.
    by_labels: Vec<(Labels, u16)>,
}

/// How many metric names there are.
const METRICS: u16 = 3;

impl Values {
    /// Those of a seed. Of a hundred values, so many are histograms.
    pub fn new(seed: u64, series: u16, histograms: u64) -> Values {
        let of = |n: u16| {
            let (name, instance) = (format!("m{}", n % METRICS), format!("i{n}"));
            Labels::from_pairs([("__name__", name.as_str()), ("instance", &instance), ("job", "sim")])
                .expect("BUG: labels of the simulation are not valid")
        };
        let labels: Vec<Labels> = (0..series).map(of).collect();
        let mut by_labels: Vec<(Labels, u16)> = labels.iter().cloned().zip(0..).collect();
        by_labels.sort();
        Values { seed, histograms, labels, by_labels }
    }

    /// The series of these labels.
    pub fn number_of(&self, labels: &Labels) -> Option<u16> {
        let at = self.by_labels.binary_search_by(|(known, _)| known.cmp(labels)).ok()?;
        Some(self.by_labels[at].1)
    }

    /// How many series there are.
    pub fn len(&self) -> u16 {
        self.labels.len() as u16
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels of a series.
    pub fn labels(&self, series: u16) -> &Labels {
        &self.labels[usize::from(series)]
    }

    /// What a row's value is.
    pub fn value(&self, row: Row) -> Value {
        let bits =
            mix(self.seed ^ mix(u64::from(row.series) << 48 ^ row.t as u64 ^ u64::from(row.version) << 62));
        if mix(bits) % 100 < self.histograms {
            return Value::Histogram(Arc::new(histogram(bits)));
        }
        Value::Float(match bits % 16 {
            0 => stale(),
            1 => f64::from_bits(bits),
            2..=5 => (bits >> 40) as f64,
            _ => (bits >> 34) as f64 / 1000.0 - 500_000.0,
        })
    }

    /// Of these versions of a row, the value that wins.
    pub fn winner(&self, series: u16, t: i64, versions: impl Iterator<Item = u8>) -> Option<Value> {
        versions.map(|version| self.value(Row { series, t, version })).max_by(Value::cmp_conflict)
    }

    /// Rows, sorted by series, as a sender would put them into one request.
    pub fn batch(&self, key: SeriesKey, rows: &[Row], checked: bool) -> Batch {
        let mut batch = Batch::default();
        for group in rows.chunk_by(|a, b| a.series == b.series) {
            let labels = self.labels(group[0].series).as_bytes();
            let (floats_at, histograms_at) = (batch.timestamps.len() as u32, batch.histograms.len() as u32);
            for row in group {
                match self.value(*row) {
                    Value::Float(value) => {
                        batch.timestamps.push(row.t);
                        batch.values.push(value.to_bits());
                    }
                    Value::Histogram(histogram) => batch.histograms.push(HistogramRow {
                        timestamp: row.t,
                        start: 0,
                        histogram: Arc::unwrap_or_clone(histogram),
                    }),
                }
            }
            batch.series.push(BatchSeries {
                id: key.id(labels),
                checked,
                labels_at: batch.bytes.len() as u32,
                labels_len: labels.len() as u32,
                floats_at,
                floats_len: batch.timestamps.len() as u32 - floats_at,
                histograms_at,
                histograms_len: batch.histograms.len() as u32 - histograms_at,
            });
            batch.bytes.extend_from_slice(labels);
        }
        batch
    }

    /// What a reader asks for: all series, or those of one metric.
    pub fn matchers(&self, which: u64) -> Vec<Matcher> {
        match which % u64::from(METRICS + 1) {
            0 => vec![
                Matcher::new("job", model::MatchOp::Equal, "sim").expect("BUG: a plain matcher is refused"),
            ],
            n => vec![
                Matcher::new("__name__", model::MatchOp::Equal, format!("m{}", n - 1).as_str())
                    .expect("BUG: a plain matcher is refused"),
            ],
        }
    }

    /// Whether [`Values::matchers`] match a series.
    pub fn matches(&self, which: u64, series: u16) -> bool {
        match which % u64::from(METRICS + 1) {
            0 => true,
            n => u64::from(series % METRICS) == n - 1,
        }
    }
}

/// One of all kinds: exponential buckets and the sender's own, whole numbers and others, some of them stale markers.
fn histogram(bits: u64) -> Histogram {
    let (a, b) = (bits >> 8 & 0xff, bits >> 16 & 0xffff);
    let spans = vec![Span { offset: (bits >> 32) as i32 % 100, length: 1 }, Span { offset: 3, length: 1 }];
    let custom = bits.is_multiple_of(4);
    let sum = if bits >> 50 & 15 == 1 { stale() } else { b as f64 / 8.0 };
    let counts = match bits % 3 {
        0 => Counts::Integer { count: a + b, zero: 0, positive: vec![a as i64, b as i64], negative: vec![] },
        _ => Counts::Float {
            count: (a + b) as f64,
            zero: 0.0,
            positive: vec![a as f64, b as f64],
            negative: vec![],
        },
    };
    Histogram {
        reset_hint: ResetHint::default(),
        schema: if custom { model::histogram::CUSTOM_BUCKETS_SCHEMA } else { (bits >> 40 & 7) as i32 },
        zero_threshold: if custom { 0.0 } else { 1e-128 },
        sum,
        counts,
        positive_spans: if custom { vec![Span { offset: 0, length: 2 }] } else { spans },
        negative_spans: vec![],
        custom_values: if custom { vec![1.0, 2.5] } else { vec![] },
    }
}

/// The rows of a series in the order of time, whatever they are.
pub fn rows(samples: &Samples) -> Vec<(i64, Value)> {
    let floats = samples.timestamps.iter().zip(&samples.values).map(|(t, value)| (*t, Value::Float(*value)));
    let histograms = samples.histograms.iter().map(|(t, _, value)| (*t, Value::Histogram(value.clone())));
    let mut rows: Vec<(i64, Value)> = floats.chain(histograms).collect();
    rows.sort_by_key(|(t, _)| *t);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_such_as_a_sender_may_send_and_of_every_kind() {
        let values = Values::new(1, 3, 50);
        let mut kinds = std::collections::BTreeSet::new();
        for t in 0..1_000 {
            if let Value::Histogram(histogram) = values.value(Row { series: 1, t, version: 0 }) {
                histogram.validate().unwrap();
                let integer = matches!(histogram.counts, Counts::Integer { .. });
                kinds.insert((integer, histogram.custom_values.is_empty(), histogram.is_stale()));
            }
        }
        assert_eq!(kinds.len(), 8);
    }
}
