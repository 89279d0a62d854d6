//! Which times are let in: decided once, by the node that takes the request, so that replicas do not judge by their clocks.

use model::{Batch, RejectReason, Rejection};
use std::sync::Arc;

/// The times that are let in; both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Older than this is older than the retention.
    pub oldest: i64,
    /// Later than this is too far in the future.
    pub newest: i64,
}

/// What is let in of a batch.
pub(super) struct Clipped {
    /// The batch, without the rows that are refused. Series have the same indices.
    pub batch: Arc<Batch>,
    /// What is refused.
    pub rejected: Vec<Rejection>,
}

impl Bounds {
    /// All of time.
    pub const ALL: Bounds = Bounds { oldest: i64::MIN, newest: i64::MAX - 1 };

    fn judge(&self, timestamp: i64) -> Option<RejectReason> {
        match timestamp {
            t if t < self.oldest => Some(RejectReason::TooOld),
            t if t > self.newest => Some(RejectReason::TooFarInFuture),
            _ => None,
        }
    }

    fn contain(&self, batch: &Batch) -> bool {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for &timestamp in &batch.timestamps {
            (min, max) = (min.min(timestamp), max.max(timestamp));
        }
        for row in &batch.histograms {
            (min, max) = (min.min(row.timestamp), max.max(row.timestamp));
        }
        min > max || (self.judge(min).is_none() && self.judge(max).is_none())
    }

    /// Leaves out the rows of the series `wanted` that are out of bounds.
    pub(super) fn clip(&self, batch: &Arc<Batch>, wanted: impl Iterator<Item = u32>) -> Clipped {
        if self.contain(batch) {
            return Clipped { batch: batch.clone(), rejected: Vec::new() };
        }
        let mut kept = Batch { bytes: batch.bytes.clone(), series: batch.series.clone(), ..Batch::default() };
        let mut rejected: Vec<Rejection> = Vec::new();
        for index in wanted {
            let series = &batch.series[index as usize];
            let known = rejected.len();
            let mut lets_in = |timestamp: i64| match self.judge(timestamp) {
                None => true,
                Some(reason) => {
                    match rejected[known..].iter_mut().find(|r| r.reason == reason) {
                        Some(rejection) => rejection.rows += 1,
                        None => rejected.push(Rejection { series: index, timestamp, rows: 1, reason }),
                    }
                    false
                }
            };
            let (floats_at, histograms_at) = (kept.timestamps.len(), kept.histograms.len());
            for row in series.floats().filter(|&row| lets_in(batch.timestamps[row])) {
                kept.timestamps.push(batch.timestamps[row]);
                kept.values.push(batch.values[row]);
                if !batch.starts.is_empty() {
                    kept.starts.push(batch.start(row));
                }
            }
            let histograms = &batch.histograms[series.histograms()];
            kept.histograms.extend(histograms.iter().filter(|row| lets_in(row.timestamp)).cloned());
            let series = &mut kept.series[index as usize];
            series.floats_at = floats_at as u32;
            series.floats_len = (kept.timestamps.len() - floats_at) as u32;
            series.histograms_at = histograms_at as u32;
            series.histograms_len = (kept.histograms.len() - histograms_at) as u32;
        }
        Clipped { batch: Arc::new(kept), rejected }
    }
}
