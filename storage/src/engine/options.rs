//! What can be set, and what can be asked.

use crate::identity::Identity;
use disk::log;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How an engine is set up. Units are in the names.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// Number of shards, a power of two; fixed when the directory is created. That of `identity` if there is one.
    pub shards: u32,
    /// Who the directory must belong to, and what an empty one is given. Without it, an empty one gets an identity of its own.
    pub identity: Option<Identity>,
    /// Samples older than this are refused, hidden and removed. `None` keeps them for ever.
    pub retention_ms: Option<i64>,
    /// Samples further in the future than this are refused.
    pub future_max_ms: i64,
    /// The span of time of a freshly flushed block, aligned to the epoch.
    pub block_window_ms: i64,
    /// Most series in memory.
    pub series_max: u64,
    /// Memory of all heads above which they are flushed early.
    pub head_bytes_max: u64,
    /// Bytes of the write-ahead log above which the heads are flushed early, so that a restart has a bounded log to read.
    pub wal_bytes_max: u64,
    /// Most metric families to remember metadata of.
    pub metadata_max: usize,
    /// Free bytes on the disk below which no writes are taken, so that flushing and removing still work.
    pub disk_reserve_bytes: u64,
    /// The write-ahead log's own options.
    pub wal: log::Options,
    /// When a write counts as done.
    pub durability: Durability,
    /// Gives 128 random bits: for the identity of a new directory, and for the ids of blocks.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it has been fsynced.
    Fsync,
    /// At once; the log is fsynced this often.
    Interval(Duration),
}

impl Options {
    /// The defaults for a data directory, with a source of randomness.
    pub fn new(dir: impl Into<PathBuf>, random: impl Fn() -> u128 + Send + Sync + 'static) -> Options {
        Options {
            dir: dir.into(),
            shards: 64,
            identity: None,
            retention_ms: None,
            future_max_ms: 10 * 60_000,
            block_window_ms: 2 * 3_600_000,
            series_max: 10_000_000,
            head_bytes_max: 4 << 30,
            wal_bytes_max: 4 << 30,
            metadata_max: 100_000,
            disk_reserve_bytes: 64 << 20,
            wal: log::Options::default(),
            durability: Durability::Fsync,
            random: Arc::new(random),
        }
    }
}

/// How far opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: `blocks` or `wal`.
    pub phase: &'static str,
    /// Bytes done of this phase.
    pub done_bytes: u64,
    /// Bytes of this phase.
    pub total_bytes: u64,
}

/// What an engine holds and has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series in memory.
    pub series: u64,
    /// Samples in memory, those of side buffers counted as often as they arrived.
    pub head_samples: u64,
    /// Memory of all heads, roughly.
    pub head_bytes: u64,
    /// The span of time in memory.
    pub head_range: Option<(i64, i64)>,
    /// Floats accepted.
    pub floats: u64,
    /// Histograms accepted.
    pub histograms: u64,
    /// Rows refused as older than the retention.
    pub rejected_too_old: u64,
    /// Rows refused as too far in the future.
    pub rejected_future: u64,
    /// Rows refused because of the limit on series.
    pub rejected_series_limit: u64,
    /// Rows refused because another series has their id.
    pub rejected_id_collision: u64,
    /// Rows that were not on the straight path: late, with a start timestamp, or histograms.
    pub out_of_order: u64,
    /// Series created.
    pub series_created: u64,
    /// Idle series dropped from memory.
    pub series_dropped: u64,
    /// Segments of the log.
    pub wal_segments: u64,
    /// Bytes appended to the log.
    pub wal_bytes: u64,
    /// Bytes appended that are not yet durable.
    pub wal_pending_bytes: u64,
    /// Commits of the log, each with one fsync.
    pub wal_commits: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Samples in all blocks.
    pub block_samples: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Blocks removed by retention.
    pub blocks_expired: u64,
    /// Why no writes are taken.
    pub read_only: Option<String>,
    /// Damage found while opening, each with its place and what it means.
    pub suspect: Vec<String>,
}

/// What the heads' series are made of, for people who look for what is too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series in memory.
    pub series: u64,
    /// Different labels, counted once per shard.
    pub label_pairs: u64,
    /// The metric names with most series.
    pub series_by_metric: Vec<(String, u64)>,
    /// The label names with most values.
    pub values_by_label: Vec<(String, u64)>,
    /// The label names whose values take most memory, in bytes, counted once a series.
    pub bytes_by_label: Vec<(String, u64)>,
    /// The labels, as `name=value`, with most series.
    pub series_by_label_pair: Vec<(String, u64)>,
}
