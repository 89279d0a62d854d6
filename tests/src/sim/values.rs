//! The data of a run: series by number, and values that follow from seed, series, timestamp and version.
//!
//! So that whatever is read can be checked without a stored copy: a value that follows from none of the versions that were sent was
//! invented. A row can be sent in several versions by several clients; the conflict rule says which one must be seen.

use crate::random::mix;
use model::value::{cmp_floats, stale};
use model::{Batch, BatchSeries, Labels, Matcher, SeriesKey};

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
    labels: Vec<Labels>,
    /// Of `labels`, sorted, with the number of the series.
    by_labels: Vec<(Labels, u16)>,
}

/// How many metric names there are.
const METRICS: u16 = 3;

impl Values {
    /// Those of a seed.
    pub fn new(seed: u64, series: u16) -> Values {
        let of = |n: u16| {
            let (name, instance) = (format!("m{}", n % METRICS), format!("i{n}"));
            Labels::from_pairs([("__name__", name.as_str()), ("instance", &instance), ("job", "sim")])
                .expect("BUG: labels of the simulation are not valid")
        };
        let labels: Vec<Labels> = (0..series).map(of).collect();
        let mut by_labels: Vec<(Labels, u16)> = labels.iter().cloned().zip(0..).collect();
        by_labels.sort();
        Values { seed, labels, by_labels }
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
    pub fn value(&self, row: Row) -> f64 {
        let bits =
            mix(self.seed ^ mix(u64::from(row.series) << 48 ^ row.t as u64 ^ u64::from(row.version) << 62));
        match bits % 16 {
            0 => stale(),
            1 => f64::from_bits(bits),
            2..=5 => (bits >> 40) as f64,
            _ => (bits >> 34) as f64 / 1000.0 - 500_000.0,
        }
    }

    /// Of these versions of a row, the value that wins.
    pub fn winner(&self, series: u16, t: i64, versions: impl Iterator<Item = u8>) -> Option<f64> {
        versions.map(|version| self.value(Row { series, t, version })).max_by(|a, b| cmp_floats(*a, *b))
    }

    /// Rows, sorted by series, as a sender would put them into one request.
    pub fn batch(&self, key: SeriesKey, rows: &[Row], checked: bool) -> Batch {
        let mut batch = Batch::default();
        for group in rows.chunk_by(|a, b| a.series == b.series) {
            let labels = self.labels(group[0].series).as_bytes();
            batch.series.push(BatchSeries {
                id: key.id(labels),
                checked,
                labels_at: batch.bytes.len() as u32,
                labels_len: labels.len() as u32,
                floats_at: batch.timestamps.len() as u32,
                floats_len: group.len() as u32,
                histograms_at: 0,
                histograms_len: 0,
            });
            batch.bytes.extend_from_slice(labels);
            batch.timestamps.extend(group.iter().map(|row| row.t));
            batch.values.extend(group.iter().map(|row| self.value(*row).to_bits()));
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
