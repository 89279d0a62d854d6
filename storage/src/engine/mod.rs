//! The engine of one node.
//!
//! ```text
//! append ─▶ head of each shard ─▶ log record, under the shard's lock ─▶ fsync by whoever runs the commit loop
//! maintain ─▶ cut: new generation, carry over ─▶ flush: blocks ─▶ log segments before the cut go
//! select ─▶ head and blocks of each shard, one consistent view a shard
//! ```
//!
//! The engine has no threads and no clock of its own: the server calls [`Engine::commit_loop`] and
//! [`Engine::maintain`], and hands in the clock.
//!
//! Invariants:
//! * a sample leaves the head only in the step that makes its block visible, and its log segment only after that block
//!   is durable;
//! * a series' definition precedes its use in the log, because records are appended under the shard's lock;
//! * everything that replay does is settled by the conflict rule, so any record may be replayed any number of times.

mod append;
mod cardinality;
mod damage;
mod digests;
mod flush;
mod forget;
mod health;
mod options;
mod read;
mod recovery;
mod replica;
mod scrub;
mod sealed;

pub(crate) use digests::Digests;
pub use flush::Maintained;
pub use options::{Cardinality, Durability, Options, Progress, Stats};
pub use scrub::{ScrubProgress, pace};

use crate::identity::Identity;
use crate::shard::Shard;
use crate::{Result, block};
use disk::Vfs;
use disk::log::Log;
use model::{Metadata, SeriesKey, TimeRange, Timestamp};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One node's storage.
pub struct Engine {
    vfs: Arc<dyn Vfs>,
    options: Options,
    kept: Kept,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    identity: Identity,
    key: SeriesKey,
    /// The log. Appends use the copy in their shard's state, which is replaced under the shard's lock.
    log: RwLock<Arc<Log>>,
    shards: Box<[Shard]>,
    metadata: Mutex<BTreeMap<String, Metadata>>,
    maintenance: Mutex<flush::Maintenance>,
    counters: Counters,
    read_only: Mutex<Option<health::ReadOnly>>,
    /// Whether `read_only` says something.
    is_read_only: AtomicBool,
    damage: Mutex<damage::Ledger>,
    /// [`crate::block::found_damaged`] when the shards were last looked through for damaged blocks.
    damage_seen: AtomicU64,
    scrub: Mutex<scrub::Scrub>,
    imports: sealed::Imports,
    left_over: forget::LeftOver,
    closing: Mutex<bool>,
    closed: Condvar,
    /// Keeps other processes out.
    _lock: Option<Box<dyn Send + Sync>>,
}

/// The options that may change while the engine is open.
struct Kept {
    /// `i64::MAX`: for ever.
    retention_ms: AtomicI64,
    /// 0: a write counts as done when it has been fsynced.
    interval_ms: AtomicU64,
}

impl Kept {
    fn new(options: &Options) -> Kept {
        let kept = Kept { retention_ms: AtomicI64::new(0), interval_ms: AtomicU64::new(0) };
        kept.set(options.retention_ms, options.durability);
        kept
    }

    fn set(&self, retention_ms: Option<i64>, durability: Durability) {
        let interval_ms = match durability {
            Durability::Fsync => 0,
            Durability::Interval(interval) => u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1),
        };
        self.retention_ms.store(retention_ms.unwrap_or(i64::MAX), Relaxed);
        self.interval_ms.store(interval_ms, Relaxed);
    }
}

/// Monotonic counts, see [`Stats`].
#[derive(Default)]
struct Counters {
    series: AtomicU64,
    series_created: AtomicU64,
    series_dropped: AtomicU64,
    floats: AtomicU64,
    histograms: AtomicU64,
    out_of_order: AtomicU64,
    too_old: AtomicU64,
    future: AtomicU64,
    series_limit: AtomicU64,
    id_collision: AtomicU64,
    wal_bytes: AtomicU64,
    wal_commits: AtomicU64,
    flushes: AtomicU64,
    blocks_expired: AtomicU64,
}

impl Engine {
    /// Whose data this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Series created since the engine was opened. One atomic read.
    pub fn series_created(&self) -> u64 {
        self.counters.series_created.load(Relaxed)
    }

    /// The folder of a shard's blocks.
    fn blocks_dir(&self, shard: model::Shard) -> PathBuf {
        self.options.dir.join("blocks").join("default").join(shard.0.to_string())
    }

    /// The first moment within retention.
    fn cut_off(&self) -> i64 {
        self.cut_off_at((self.clock)().0)
    }

    /// The same, at a time.
    fn cut_off_at(&self, now: i64) -> i64 {
        match self.kept.retention_ms.load(Relaxed) {
            i64::MAX => i64::MIN,
            retention => now.saturating_sub(retention),
        }
    }

    /// When a write counts as done, now.
    fn durability(&self) -> Durability {
        match self.kept.interval_ms.load(Relaxed) {
            0 => Durability::Fsync,
            ms => Durability::Interval(Duration::from_millis(ms)),
        }
    }

    /// Keeps samples for as long, and counts writes as done when, it says here instead of in [`Options`]. In force for what begins
    /// afterwards; what a longer retention would have kept may be gone already.
    pub fn keep(&self, retention_ms: Option<i64>, durability: Durability) {
        self.kept.set(retention_ms, durability);
    }

    /// Makes everything appended so far durable.
    pub fn commit(&self) -> Result<()> {
        self.commit_log(&self.log())
    }

    fn commit_log(&self, log: &Log) -> Result<()> {
        self.noted(log.commit(log.appended()))?;
        self.counters.wal_commits.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Commits what is appended, all that is waiting with one fsync, until [`Engine::close`]. Run it on a thread of its
    /// own. A log that ran into a full disk is waited for until there is room; any other failure ends the loop with an
    /// error, and the engine takes no more writes.
    pub fn commit_loop(&self) -> Result<()> {
        loop {
            let log = self.log();
            let outcome = self.commit_until_closed(&log);
            let mut closing = self.closing.lock();
            while !*closing && Arc::ptr_eq(&log, &*self.log.read()) {
                if matches!(&*self.read_only.lock(), Some(health::ReadOnly::Failed(_))) {
                    return outcome;
                }
                self.closed.wait(&mut closing);
            }
            if *closing {
                return Ok(());
            }
        }
    }

    /// Returns when the log is closed or has failed.
    fn commit_until_closed(&self, log: &Log) -> Result<()> {
        while log.wait_pending() {
            if let Durability::Interval(interval) = self.durability() {
                let mut closing = self.closing.lock();
                if !*closing {
                    self.closed.wait_for(&mut closing, interval);
                }
            }
            self.commit_log(log)?;
        }
        Ok(())
    }

    /// Makes everything durable and takes no more writes.
    pub fn close(&self) -> Result<()> {
        // Maintenance under way ends first, so that no block is half done.
        let _maintenance = self.maintenance.lock();
        *self.closing.lock() = true;
        self.closed.notify_all();
        let log = self.log();
        let outcome = self.commit_log(&log);
        log.close();
        outcome
    }

    /// What the engine holds and has done.
    pub fn stats(&self) -> Stats {
        let count = |c: &AtomicU64| c.load(Relaxed);
        let c = &self.counters;
        let log = self.log();
        let mut stats = Stats {
            series: count(&c.series),
            floats: count(&c.floats),
            histograms: count(&c.histograms),
            rejected_too_old: count(&c.too_old),
            rejected_future: count(&c.future),
            rejected_series_limit: count(&c.series_limit),
            rejected_id_collision: count(&c.id_collision),
            out_of_order: count(&c.out_of_order),
            series_created: count(&c.series_created),
            series_dropped: count(&c.series_dropped),
            wal_segments: log.segments().len() as u64,
            wal_bytes: count(&c.wal_bytes),
            wal_pending_bytes: log.pending_bytes() as u64,
            wal_commits: count(&c.wal_commits),
            flushes: count(&c.flushes),
            blocks_expired: count(&c.blocks_expired),
            read_only: self.read_only.lock().as_ref().map(|state| state.reason().to_owned()),
            suspect: self.damage.lock().open_places().map(|(_, what)| what.to_owned()).collect(),
            ..Stats::default()
        };
        for shard in &self.shards {
            let state = shard.state.lock();
            stats.head_bytes += state.head.bytes() as u64;
            stats.head_samples += state.head.series.iter().map(|s| s.samples() as u64).sum::<u64>();
            if let (Some(a), Some(b)) = (state.head.oldest, state.head.newest) {
                stats.head_range = Some(stats.head_range.map_or((a, b), |(c, d)| (a.min(c), b.max(d))));
            }
            for block in state.blocks.iter() {
                stats.blocks += 1;
                stats.block_bytes += block.meta().bytes;
                stats.block_samples += block.meta().samples;
            }
        }
        stats
    }

    /// What is known of every block.
    pub fn blocks(&self) -> Vec<block::Meta> {
        let shards = self.shards.iter();
        shards
            .flat_map(|s| s.state.lock().blocks.iter().map(|b| b.meta().clone()).collect::<Vec<_>>())
            .collect()
    }

    /// Reads every block with plain reads and compares all checksums. One line per damaged file.
    pub fn verify(&self) -> Vec<crate::Error> {
        let mut damaged = Vec::new();
        for shard in &self.shards {
            let blocks = shard.state.lock().blocks.clone();
            damaged.extend(blocks.iter().filter_map(|block| block.verify(&*self.vfs, self.key).err()));
        }
        damaged
    }

    /// The range that reads may see of `range`: samples past their retention are hidden before they are removed.
    fn visible(&self, range: TimeRange) -> TimeRange {
        TimeRange { min: range.min.max(Timestamp(self.cut_off())), max: range.max }
    }
}
