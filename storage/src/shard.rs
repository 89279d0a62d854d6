//! One shard of the node: its head and its blocks behind one lock.
//!
//! Lock order: maintenance ▸ an import's own ▸ what is left over of forgotten shards ▸ shard ▸ the engine's log, its state of health ▸ the log's own lock. No thread holds two shards' locks. Nothing that waits for the
//! disk happens under a shard's lock.

use crate::block;
use crate::engine::Digests;
use crate::head::Head;
use disk::log::{Log, Position};
use model::TimeRange;
use parking_lot::Mutex;
use std::sync::Arc;

/// A shard.
pub(crate) struct Shard {
    /// Its number.
    pub number: model::Shard,
    pub state: Mutex<State>,
}

/// What a shard's lock protects.
pub(crate) struct State {
    pub head: Head,
    /// Where its records go.
    pub log: Arc<Log>,
    /// The WAL generation of this shard's records; all of a shard's records are in the order of its generations.
    pub generation: u32,
    /// The number that the next series defined in this generation gets.
    pub next_number: u32,
    /// The end of this shard's last record in the log.
    pub logged: Option<Position>,
    /// Sealed blocks. Replaced as a whole together with what leaves the head, so that a reader never misses a sample.
    pub blocks: Arc<[Arc<block::Reader>]>,
    /// What is remembered of digests; appends forget what they change.
    pub digests: Digests,
}

impl State {
    /// What reads see of this time has changed, otherwise than by rows that [`crate::head::Minutes`] has counted.
    pub fn changed(&mut self, now: i64, range: TimeRange) {
        self.digests.changed(range);
        self.head.minutes.mix(now, range);
    }
}
