//! A member's log on disk: does what [`super::Effect::Persist`] says, one after the other, and waits for it.

use super::record::{Batch, Durable, Identity, Replay};
use crate::faults::{Mistake, planted};
use crate::stop::{Reason, Stop};
use disk::Vfs;
use disk::log::{Log, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Small: the log is rewritten long before this is much to read.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Why a member's log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A promise that was given may be missing from it: going on could break what the others rely on.
    #[error(
        "the Raft log in {} is damaged ({what}); move the folder away and let this node join again as a new member",
        dir.display()
    )]
    Damaged {
        /// The log's folder.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The log is somebody else's, or gone.
    #[error(
        "the Raft log in {} belongs to {found:?} and this node is {expected:?}; put its own folder back, or let this node join again as a new member",
        dir.display()
    )]
    Foreign {
        /// The log's folder.
        dir: PathBuf,
        /// Who the node says it is.
        expected: Identity,
        /// Whose log this is; `None` if it is empty.
        found: Option<Identity>,
    },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error {
            Error::Disk(error) => error.into(),
            damaged @ Error::Damaged { .. } => Stop::new(Reason::Disk, damaged.to_string()),
            foreign @ Error::Foreign { .. } => Stop::new(Reason::Foreign, foreign.to_string()),
        }
    }
}

/// The open log of a member.
#[derive(Debug)]
pub struct Store {
    log: Log,
}

impl Store {
    /// Opens the log in `dir` and reads it. `expected` is who the node remembers to be, if it does; a log that is empty or of another is
    /// then refused. The caller makes sure that nobody else has the folder open.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        expected: Option<Identity>,
    ) -> Result<(Store, Durable), Error> {
        let options = Options { segment_bytes: SEGMENT_BYTES, preallocate: false, ..Options::default() };
        let mut replay = Replay::default();
        let (log, recovered) = Log::recover(vfs, dir, options, &mut |record| replay.take(record.payload))?;
        let damaged = |what: String| Error::Damaged { dir: dir.to_owned(), what };
        if let Some(range) = recovered.corrupt.first() {
            return Err(damaged(format!(
                "bytes {} to {} of segment {} fail their checksum or are missing",
                range.from, range.to, range.segment.0
            )));
        }
        if let Some(path) = recovered.foreign.first() {
            return Err(damaged(format!("{} belongs to another log", path.display())));
        }
        let durable = replay.finish().map_err(|error| damaged(error.to_string()))?;
        match expected {
            Some(expected) if durable.identity() != Some(expected) => {
                Err(Error::Foreign { dir: dir.to_owned(), expected, found: durable.identity() })
            }
            _ => Ok((Store { log }, durable)),
        }
    }

    /// Appends a batch. When this returns and the batch asked for it, the batch and all before it are durable.
    ///
    /// # Errors
    /// After the first failure the log takes nothing more, and the member must stop: what it remembers is ahead of what it keeps.
    pub fn persist(&self, batch: &Batch) -> Result<(), Error> {
        let first = if batch.whole { Some(self.log.rotate()?) } else { None };
        for record in &batch.records {
            self.log.append(record)?;
        }
        if (batch.sync || batch.whole) && !planted(Mistake::SkipRaftSync) {
            self.log.commit(self.log.appended())?;
        }
        if let Some(first) = first {
            self.log.remove_before(first)?;
        }
        Ok(())
    }
}
