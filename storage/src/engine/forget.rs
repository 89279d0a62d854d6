//! Shards that this node gives up.
//!
//! ```text
//! forget: head and blocks of the shard leave the read set, at once and in memory ─▶ maintain: the files go
//! ```
//!
//! A crash in between brings files back, and the log brings rows back: they are forgotten again by whoever wants that.
//!
//! A block of the same name may come back as an import before its file is gone: who gives a file that name takes it off the list before, and a file is
//! removed only while it is on the list.
//!
//! Locks: maintenance ▸ what is left over ▸ the shard's.

use super::Engine;
use super::flush::Maintenance;
use crate::Result;
use crate::head::Head;
use model::{Error, Forgotten, Shard};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// What is left over of shards that were forgotten.
#[derive(Default)]
pub(super) struct LeftOver(Mutex<State>);

#[derive(Default)]
struct State {
    files: BTreeSet<PathBuf>,
    /// To free their memory takes a while.
    heads: Vec<Head>,
}

impl LeftOver {
    /// The file of this name is to stay.
    pub fn keep(&self, path: &Path) {
        self.0.lock().files.remove(path);
    }
}

impl Engine {
    /// See [`model::Replica::forget`].
    pub(super) fn forget_shard(&self, shard: Shard) -> std::result::Result<Forgotten, Error> {
        self.check_writable()?;
        let shard = self.shard(shard)?;
        // A flush knows places in the head, and has blocks that are not in the read set yet.
        let Some(_maintenance) = self.maintenance.try_lock() else {
            return Err(Error::Busy { reason: "blocks are being written", retry_after_s: 1 });
        };
        let mut left = self.left_over.0.lock();
        let (head, blocks) = {
            let mut state = shard.state.lock();
            state.digests = super::Digests::default();
            (std::mem::take(&mut state.head), std::mem::replace(&mut state.blocks, [].into()))
        };
        let forgotten = Forgotten { series: head.series.len() as u64, blocks: blocks.len() as u64 };
        self.counters.series.fetch_sub(forgotten.series, Relaxed);
        self.counters.series_dropped.fetch_add(forgotten.series, Relaxed);
        left.files.extend(blocks.iter().map(|block| block.meta().path.clone()));
        if forgotten.series > 0 {
            left.heads.push(head);
        }
        Ok(forgotten)
    }

    /// Removes what is left over.
    pub(super) fn sweep(&self, _only_maintenance: &Maintenance) -> Result<()> {
        drop(std::mem::take(&mut self.left_over.0.lock().heads));
        let mut folders = BTreeSet::new();
        loop {
            let mut left = self.left_over.0.lock();
            let Some(path) = left.files.first().cloned() else { break };
            match self.vfs.remove(&path) {
                Err(e) if !e.is_not_found() => return Err(e.into()),
                _ => {}
            }
            left.files.remove(&path);
            folders.extend(path.parent().map(Path::to_owned));
        }
        folders.iter().try_for_each(|folder| Ok(self.vfs.sync_dir(folder)?))
    }
}
