//! What does not fit the straight path of a series: late samples, histograms, samples with a start timestamp.
//!
//! Rows are kept as they come and put in order when there are enough of them, or when somebody reads. Nothing here is
//! decided by the order of arrival: the conflict rule settles it.

use crate::merge;
use model::{Histogram, Samples, TimeRange};
use std::sync::Arc;

/// Rows that are gathered before they are put in order; also what a reader copies at most.
const LOOSE_MAX: usize = 128;

/// A float with its start timestamp.
type FloatRow = (i64, i64, f64);
/// A histogram with its start timestamp.
type HistogramRow = (i64, i64, Arc<Histogram>);

/// The side buffer of one series.
#[derive(Default)]
pub struct Side {
    floats: Vec<FloatRow>,
    histograms: Vec<HistogramRow>,
    /// Ordered runs; they may overlap.
    sealed: Vec<Arc<Samples>>,
}

/// Memory of ordered samples, roughly.
fn samples_bytes(samples: &Samples) -> usize {
    let histograms = samples.histograms.iter().map(|(_, _, h)| histogram_bytes(h)).sum::<usize>();
    samples.timestamps.len() * 16 + samples.starts.len() * 8 + histograms + 128
}

/// Memory of one histogram, roughly.
pub fn histogram_bytes(h: &Histogram) -> usize {
    let (positive, negative) = match &h.counts {
        model::histogram::Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
        model::histogram::Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
    };
    size_of::<Histogram>()
        + 40
        + 8 * (positive + negative + h.positive_spans.len() + h.negative_spans.len() + h.custom_values.len())
}

/// The first and last timestamp of ordered samples.
pub fn bounds(samples: &Samples) -> Option<(i64, i64)> {
    let first =
        samples.timestamps.first().into_iter().chain(samples.histograms.first().map(|h| &h.0)).min()?;
    let last = samples.timestamps.last().into_iter().chain(samples.histograms.last().map(|h| &h.0)).max()?;
    Some((*first, *last))
}

/// Puts rows in order and lets the conflict rule settle what shares a timestamp.
fn order(floats: Vec<FloatRow>, histograms: Vec<HistogramRow>) -> Samples {
    let mut samples = Samples { histograms, ..Samples::default() };
    for (t, start, v) in floats {
        merge::push_float(&mut samples, t, v, start);
    }
    merge::normalize(&mut samples);
    samples
}

impl Side {
    /// Takes a float. Returns the bytes of memory that this costs, roughly.
    pub fn push_float(&mut self, t: i64, start: i64, v: f64) -> usize {
        self.floats.push((t, start, v));
        self.seal_if_long();
        24
    }

    /// Takes a histogram. Returns the bytes of memory that this costs, roughly.
    pub fn push_histogram(&mut self, t: i64, start: i64, h: Arc<Histogram>) -> usize {
        let bytes = histogram_bytes(&h);
        self.histograms.push((t, start, h));
        self.seal_if_long();
        bytes
    }

    fn seal_if_long(&mut self) {
        if self.floats.len() + self.histograms.len() >= LOOSE_MAX {
            let samples = order(std::mem::take(&mut self.floats), std::mem::take(&mut self.histograms));
            self.sealed.push(Arc::new(samples));
        }
    }

    /// Everything, as ordered runs that may overlap, as far as it may touch the range.
    pub fn snapshot(&self, range: TimeRange, into: &mut Vec<Arc<Samples>>) {
        for run in &self.sealed {
            if bounds(run).is_some_and(|(a, b)| TimeRange::new(a, b).overlaps(&range)) {
                into.push(run.clone());
            }
        }
        let floats: Vec<_> = self.floats.iter().filter(|f| range.contains(f.0)).copied().collect();
        let histograms: Vec<_> = self.histograms.iter().filter(|h| range.contains(h.0)).cloned().collect();
        if !floats.is_empty() || !histograms.is_empty() {
            into.push(Arc::new(order(floats, histograms)));
        }
    }

    /// Whether it has, or may have, samples in the range.
    pub fn touches(&self, range: TimeRange) -> bool {
        self.floats.iter().any(|f| range.contains(f.0))
            || self.histograms.iter().any(|h| range.contains(h.0))
            || self
                .sealed
                .iter()
                .filter_map(|run| bounds(run))
                .any(|(a, b)| TimeRange::new(a, b).overlaps(&range))
    }

    /// Takes out everything before `before` as ordered runs, and keeps the rest.
    ///
    /// The runs stay readable as the first runs here until [`Side::forget`] drops them; their number is returned.
    pub fn freeze(&mut self, before: i64) -> usize {
        let (mut frozen, mut rest) = (Vec::new(), Vec::new());
        let (old, new) = std::mem::take(&mut self.floats).into_iter().partition(|f| f.0 < before);
        self.floats = new;
        let (old_histograms, new) =
            std::mem::take(&mut self.histograms).into_iter().partition(|h| h.0 < before);
        self.histograms = new;
        for run in std::mem::take(&mut self.sealed) {
            match bounds(&run) {
                None => {}
                Some((_, last)) if last < before => frozen.push(run),
                Some((first, _)) if first >= before => rest.push(run),
                Some(_) => {
                    let (head, tail) = split(&run, before);
                    frozen.push(Arc::new(head));
                    rest.push(Arc::new(tail));
                }
            }
        }
        let loose = order(old, old_histograms);
        if !loose.is_empty() {
            frozen.push(Arc::new(loose));
        }
        let count = frozen.len();
        frozen.append(&mut rest);
        self.sealed = frozen;
        count
    }

    /// The first `count` ordered runs.
    pub fn frozen(&self, count: usize) -> &[Arc<Samples>] {
        &self.sealed[..count]
    }

    /// Drops the first `count` ordered runs, into `garbage` so that they are freed outside the lock.
    pub fn forget(&mut self, count: usize, garbage: &mut Vec<Arc<Samples>>) {
        garbage.extend(self.sealed.drain(..count));
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> usize {
        self.floats.capacity() * size_of::<FloatRow>()
            + self.histograms.iter().map(|h| histogram_bytes(&h.2)).sum::<usize>()
            + self.sealed.iter().map(|run| samples_bytes(run)).sum::<usize>()
    }

    /// How many rows there are.
    pub fn samples(&self) -> usize {
        let sealed = self.sealed.iter().map(|run| run.timestamps.len() + run.histograms.len()).sum::<usize>();
        self.floats.len() + self.histograms.len() + sealed
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty() && self.sealed.is_empty()
    }

    /// The first and last timestamp.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        let loose = self.floats.iter().map(|f| f.0).chain(self.histograms.iter().map(|h| h.0));
        loose
            .map(|t| (t, t))
            .chain(self.sealed.iter().filter_map(|run| bounds(run)))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// Cuts ordered samples in two: before `at`, and from `at` on.
fn split(samples: &Samples, at: i64) -> (Samples, Samples) {
    let cut = samples.timestamps.partition_point(|&t| t < at);
    let histograms_cut = samples.histograms.partition_point(|h| h.0 < at);
    let starts_cut = cut.min(samples.starts.len());
    let part =
        |floats: std::ops::Range<usize>, starts: std::ops::Range<usize>, h: std::ops::Range<usize>| Samples {
            timestamps: samples.timestamps[floats.clone()].to_vec(),
            values: samples.values[floats].to_vec(),
            starts: samples.starts[starts].to_vec(),
            histograms: samples.histograms[h].to_vec(),
        };
    (
        part(0..cut, 0..starts_cut, 0..histograms_cut),
        part(
            cut..samples.timestamps.len(),
            starts_cut..samples.starts.len(),
            histograms_cut..samples.histograms.len(),
        ),
    )
}
