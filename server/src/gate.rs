//! Bounded concurrency with bounded waiting.

use crate::http::Rejected;
use crate::http::error::ApiError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many in at a time; the others wait in line, first come first served, and are sent away after a while.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    size: u64,
    wait: Duration,
    /// What is full, and the key that widens it.
    full: &'static str,
    key: &'static str,
    waiting: AtomicU64,
    refused: AtomicU64,
}

/// Seconds after which one that was sent away may come back.
const RETRY_AFTER_S: u32 = 5;

impl Gate {
    /// A gate for `size` units, set by `key`. `full` completes "there was no room within 10 s: …".
    pub fn new(size: u64, wait: Duration, full: &'static str, key: &'static str) -> Gate {
        let size = size.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64);
        Gate {
            permits: Arc::new(Semaphore::new(size as usize)),
            size,
            wait,
            full,
            key,
            waiting: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits for `units` (at most the gate's size). They are free again when the permit is dropped.
    pub async fn enter(&self, units: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = units.min(self.size) as u32;
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The future may be dropped while it waits; the counter must go down all the same.
        let _waiting = Leave(&self.waiting);
        match tokio::time::timeout(self.wait, Arc::clone(&self.permits).acquire_many_owned(units)).await {
            Ok(permit) => Ok(permit.expect("BUG: the semaphore is never closed")),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let wait = self.wait.as_secs_f64();
                Err(ApiError::busy(
                    format!(
                        "there was no room within {wait} s: {} (`{}` is {})",
                        self.full, self.key, self.size
                    ),
                    RETRY_AFTER_S,
                )
                .by(Rejected::by(self.key)))
            }
        }
    }

    /// Units taken.
    pub fn taken(&self) -> u64 {
        self.size - self.permits.available_permits() as u64
    }

    /// Requests in line.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests that were sent away since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

struct Leave<'a>(&'a AtomicU64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_too_many_waits_and_is_sent_away_with_a_time_to_come_back() {
        let gate = Gate::new(2, Duration::from_millis(5), "queries", "limits.x");
        let held = gate.enter(2).await.unwrap();
        let error = gate.enter(1).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 503);
        assert_eq!(error.retry_after_s, Some(RETRY_AFTER_S));
        assert!(error.message.contains("limits.x"), "{}", error.message);
        assert_eq!((gate.taken(), gate.waiting(), gate.refused()), (2, 0, 1));
        drop(held);
        assert!(gate.enter(1).await.is_ok());
    }

    #[tokio::test]
    async fn one_that_gives_up_leaves_the_line() {
        let gate = Gate::new(1, Duration::from_secs(60), "x", "limits.x");
        let _held = gate.enter(1).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(1), gate.enter(1)).await;
        assert!(waits.is_err());
        assert_eq!(gate.waiting(), 0);
    }
}
