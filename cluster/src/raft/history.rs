//! The log in memory, as the library reads it: a mirror of the records that have been handed out to be persisted.

use super::record::{Durable, Snapshot};
use raft::eraftpb::Entry;
use raft::{GetEntriesContext, RaftState, Storage, StorageError, util};
use std::cell::Cell;

pub(super) struct History {
    pub durable: Durable,
    /// Somebody needs a snapshot that is newer than what there is.
    pub snapshot_wanted: Cell<bool>,
}

impl History {
    pub fn new(durable: Durable) -> History {
        History { durable, snapshot_wanted: Cell::new(false) }
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let kept = first.index - self.durable.snapshot.index - 1;
        self.durable.entries.truncate(kept as usize);
        self.durable.entries.extend_from_slice(entries);
    }

    pub fn install(&mut self, snapshot: Snapshot) {
        let index = snapshot.index;
        self.durable.install(snapshot);
        self.durable.hard_state.commit = self.durable.hard_state.commit.max(index);
    }

    pub fn term_at(&self, index: u64) -> Option<u64> {
        let snapshot = &self.durable.snapshot;
        match index.checked_sub(snapshot.index)? {
            0 => Some(snapshot.term),
            n => self.durable.entries.get(n as usize - 1).map(|entry| entry.term),
        }
    }
}

impl Storage for History {
    fn initial_state(&self) -> raft::Result<RaftState> {
        // The membership of the snapshot, where delivery begins: later changes are delivered again.
        Ok(RaftState::new(self.durable.hard_state.clone(), self.durable.snapshot.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let first = self.durable.snapshot.index + 1;
        if low < first {
            return Err(StorageError::Compacted.into());
        }
        let range = (low - first) as usize..(high - first) as usize;
        let mut entries =
            self.durable.entries.get(range).ok_or(raft::Error::Store(StorageError::Unavailable))?.to_vec();
        util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or_else(|| {
            let compacted = index < self.durable.snapshot.index;
            if compacted { StorageError::Compacted } else { StorageError::Unavailable }.into()
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.durable.snapshot.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.durable.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<raft::eraftpb::Snapshot> {
        let snapshot = &self.durable.snapshot;
        let members = &snapshot.members;
        // A receiver ignores a snapshot from before it became a member.
        let includes = members.voters.contains(&to) || members.learners.contains(&to);
        if !includes || snapshot.index < request_index {
            self.snapshot_wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(snapshot.to_message())
    }
}
