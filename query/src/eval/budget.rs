//! The query's budget: how many samples it has read and how many it holds.

use model::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts samples against a limit, for all threads of one query.
#[derive(Debug, Default)]
pub struct Budget {
    held: AtomicU64,
    peak: AtomicU64,
    read: AtomicU64,
    max: u64,
}

impl Budget {
    /// A budget of `max` samples held at one time.
    pub fn new(max: u64) -> Arc<Budget> {
        Arc::new(Budget { max, ..Budget::default() })
    }

    /// Takes room for `samples` until the returned value is dropped.
    pub fn hold(self: &Arc<Budget>, samples: usize) -> Result<Held, Error> {
        let samples = samples as u64;
        let now = self.held.fetch_add(samples, Relaxed) + samples;
        let held = Held(Some((self.clone(), samples)));
        self.peak.fetch_max(now, Relaxed);
        if now > self.max {
            return Err(Error::Limit {
                what: "samples held in memory by one query",
                key: "limits.query_samples_max",
                max: self.max,
                got: now,
            });
        }
        Ok(held)
    }

    /// Counts samples that were decoded.
    pub fn count_read(&self, samples: usize) {
        self.read.fetch_add(samples as u64, Relaxed);
    }

    /// Samples decoded so far.
    pub fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// The most samples held at one time so far.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}

/// A share of a budget; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Held(Option<(Arc<Budget>, u64)>);

impl Held {
    /// Takes over another share of the same budget.
    pub fn join(&mut self, mut other: Held) {
        match (&mut self.0, other.0.take()) {
            (Some((_, mine)), Some((_, theirs))) => *mine += theirs,
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((budget, samples)) = &self.0 {
            budget.held.fetch_sub(*samples, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back_and_the_peak_stays() {
        let budget = Budget::new(10);
        let first = budget.hold(6).unwrap();
        assert!(budget.hold(5).is_err());
        drop(first);
        let mut second = budget.hold(6).unwrap();
        second.join(budget.hold(4).unwrap());
        assert!(budget.hold(1).is_err());
        drop(second);
        drop(budget.hold(10).unwrap());
        assert_eq!(budget.peak(), 11);
    }
}
