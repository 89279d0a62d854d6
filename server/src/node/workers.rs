//! The engine's own threads: one fsyncs what is waiting, one flushes and lets go, one reads everything now and then.

use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How often the background work looks for something to do.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// All of them.
pub struct Workers {
    commit: std::thread::JoinHandle<()>,
    /// Maintenance and scrub, and what is dropped to end them.
    background: [(std::thread::JoinHandle<()>, mpsc::Sender<()>); 2],
}

impl Workers {
    /// Starts them.
    pub fn start(engine: &Arc<storage::Engine>, scrub_period: Duration) -> Workers {
        let committing = engine.clone();
        let commit = spawn("commit", move || {
            if let Err(error) = committing.commit_loop() {
                tracing::error!(%error, "the write-ahead log failed: writes are refused, reads go on; restart on a healthy disk");
            }
        });
        let maintaining = engine.clone();
        let maintain = every("maintain", move || {
            let done = maintaining.maintain()?;
            if done != storage::Maintained::default() {
                tracing::info!(?done, "maintained");
            }
            Ok(())
        });
        let scrubbing = engine.clone();
        let period_ms = i64::try_from(scrub_period.as_millis()).unwrap_or(i64::MAX);
        let scrub = every("scrub", move || {
            let before = scrubbing.scrub_progress();
            let budget = storage::pace(crate::time::now(), period_ms, &before);
            if budget > 0 && scrubbing.scrub_step(budget)?.damaged > before.damaged {
                tracing::error!(
                    "damaged blocks were found on the disk; `sarsen status` names them, and what other copies have is fetched"
                );
            }
            Ok(())
        });
        Workers { commit, background: [maintain, scrub] }
    }

    /// Commits and closes the log once maintenance has ended.
    pub fn stop(self, engine: &storage::Engine) -> storage::Result<()> {
        for (thread, keep) in self.background {
            drop(keep);
            let _ = thread.join();
        }
        let closed = engine.close();
        let _ = self.commit.join();
        closed
    }
}

/// A thread that works every few seconds until the sender is dropped. The same failure again and again is logged once.
fn every(
    name: &'static str,
    mut work: impl FnMut() -> storage::Result<()> + Send + 'static,
) -> (std::thread::JoinHandle<()>, mpsc::Sender<()>) {
    let (keep, kept) = mpsc::channel();
    let thread = spawn(name, move || {
        let mut before = None;
        while kept.recv_timeout(MAINTENANCE_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            let failure = work().err().map(|error| error.to_string());
            if let Some(error) = failure.as_ref().filter(|_| failure != before) {
                tracing::error!(%error, work = name, "background work failed and is tried again");
            }
            before = failure;
        }
    });
    (thread, keep)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.to_string()).spawn(work).expect("no thread can be started")
}
