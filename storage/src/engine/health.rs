//! Why no writes are taken at times, and how that ends.
//!
//! ```text
//! healthy ──disk nearly full──▶ Full ──room again──▶ healthy
//! healthy ──log ran into a full disk──▶ Interrupted ──room again: new log, everything flushed──▶ healthy
//! healthy ──log failed otherwise──▶ Failed          (for good: fsync is never trusted again after an error)
//! ```
//!
//! Reads go on in every state. After a log has failed, heads hold rows that no log has, so a row that is "already there"
//! proves nothing. Therefore, before writes are taken again, everything in the heads goes to blocks; and the state is
//! looked at again under each shard's lock, so that no row slips in between.

use super::{Engine, flush};
use crate::Result;
use disk::log::Log;
use model::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Why no writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadOnly {
    Full(String),
    Interrupted(String),
    Failed(String),
}

impl ReadOnly {
    pub fn reason(&self) -> &str {
        match self {
            ReadOnly::Full(reason) | ReadOnly::Interrupted(reason) | ReadOnly::Failed(reason) => reason,
        }
    }
}

impl Engine {
    /// The log of the moment.
    pub(super) fn log(&self) -> Arc<Log> {
        self.log.read().clone()
    }

    /// Why no writes are taken until a restart on a healthy disk, if that is so.
    pub fn failed(&self) -> Option<String> {
        match &*self.read_only.lock() {
            Some(ReadOnly::Failed(why)) => Some(why.clone()),
            Some(ReadOnly::Full(_) | ReadOnly::Interrupted(_)) | None => None,
        }
    }

    /// Whether writes are taken. Cheap when they are.
    #[inline]
    pub(super) fn check_writable(&self) -> std::result::Result<(), Error> {
        if !self.is_read_only.load(Relaxed) {
            return Ok(());
        }
        match &*self.read_only.lock() {
            Some(state) => Err(Error::ReadOnly { reason: state.reason().to_owned() }),
            None => Ok(()),
        }
    }

    /// Passes on the outcome of an operation on the log; after a failure no more writes are taken.
    pub(super) fn noted<T>(&self, outcome: std::result::Result<T, disk::Error>) -> Result<T> {
        if let Err(error) = &outcome {
            let mut now = self.read_only.lock();
            if !matches!(*now, Some(ReadOnly::Failed(_))) {
                *now = Some(match error {
                    disk::Error::Failed { full: true, .. } => ReadOnly::Interrupted(error.to_string()),
                    disk::Error::Limit { .. } => ReadOnly::Interrupted(error.to_string()),
                    error if error.is_full() => ReadOnly::Interrupted(error.to_string()),
                    error => ReadOnly::Failed(format!("{error}; restart on a healthy disk")),
                });
            }
            self.is_read_only.store(true, Relaxed);
        }
        Ok(outcome?)
    }

    /// Stops taking writes while the disk is too full to flush, and takes them again when there is room.
    pub(super) fn look_at_space(&self, maintenance: &mut flush::Maintenance) -> Result<()> {
        let free = self.vfs.space(&self.options.dir)?.free;
        let reserve = self.options.disk_reserve_bytes;
        let mut state = self.read_only.lock();
        match *state {
            Some(ReadOnly::Failed(_)) => {}
            Some(ReadOnly::Interrupted(_)) if free < reserve => {}
            Some(ReadOnly::Interrupted(_)) => {
                drop(state);
                self.resume(maintenance)?;
            }
            None | Some(ReadOnly::Full(_)) => {
                *state = (free < reserve).then(|| {
                    ReadOnly::Full(format!(
                        "{free} bytes are free where {} lies and {reserve} are kept in reserve (`storage.disk_reserve_bytes`); free some space or shorten the retention, writes go on by themselves",
                        self.options.dir.display()
                    ))
                });
                self.is_read_only.store(state.is_some(), Relaxed);
            }
        }
        Ok(())
    }

    /// Goes on with a new log after the old one ran into a full disk.
    fn resume(&self, maintenance: &mut flush::Maintenance) -> Result<()> {
        let wal = self.options.dir.join("wal");
        // What the old log holds is in the heads already.
        let (log, _) = Log::recover(self.vfs.clone(), &wal, self.options.wal.clone(), &mut |_| ())?;
        let log = Arc::new(log);
        *self.log.write() = log.clone();
        let generation = maintenance.next_generation();
        for shard in &self.shards {
            let mut state = shard.state.lock();
            state.log = log.clone();
            state.logged = None;
            // Definitions may have been lost with the old log.
            state.generation = generation;
            state.next_number = 0;
        }
        self.flush_everything(maintenance, &mut flush::Maintained::default())?;
        let mut read_only = self.read_only.lock();
        // Unless the new log has failed meanwhile.
        if matches!(*read_only, Some(ReadOnly::Interrupted(_))) {
            *read_only = None;
            self.is_read_only.store(false, Relaxed);
        }
        drop(read_only);
        // The committing thread goes on with the new log.
        let _closing = self.closing.lock();
        self.closed.notify_all();
        Ok(())
    }
}
