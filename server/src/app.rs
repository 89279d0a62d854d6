//! What all requests share: configuration, the data once it is open, gates, metrics.

use crate::config::{Auto, Bytes, Config};
use crate::gate::Gate;
use crate::http::Rejected;
use crate::http::body;
use crate::http::error::ApiError;
use crate::latency::Writes;
use crate::metrics::Metrics;
use crate::pool::Pool;
use model::Batch;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The data, open.
pub struct Database {
    /// Takes writes and gives reads, wherever the copies are.
    pub cluster: Arc<cluster::node::Node>,
    /// Evaluates PromQL.
    pub query: query::Engine,
    /// What of the data is on this node, for status.
    pub engine: Arc<storage::Engine>,
}

/// Where the node is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The listener is up, the data is not.
    Starting {
        /// What is being done.
        step: String,
        /// Bytes done of this step.
        done_bytes: u64,
        /// Bytes of this step; 0 when not known.
        total_bytes: u64,
    },
    /// The listener is up, and there is no cluster: it waits until there is one to join, or until it is told to make one.
    Waiting {
        /// What was found where it was told to look.
        why: String,
    },
    /// Reads and writes are taken.
    Ready,
    /// Reads are answered. Nothing is written any more, and only a restart on a healthy disk changes that.
    DiskFailed {
        /// What was found.
        why: String,
    },
    /// Requests are answered, and should go elsewhere: the process ends soon.
    Drained,
    /// Requests under way finish; then the process ends.
    Stopping,
}

impl Phase {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Phase::Starting { .. } => "starting",
            Phase::Waiting { .. } => "waiting",
            Phase::DiskFailed { .. } => "disk_failed",
            Phase::Ready => "ready",
            Phase::Drained => "drained",
            Phase::Stopping => "stopping",
        }
    }

    /// One sentence.
    pub fn reason(&self) -> String {
        match self {
            Phase::Starting { step, total_bytes: 0, .. } => format!("starting: {step}"),
            Phase::Starting { step, done_bytes, total_bytes } => {
                let percent = *done_bytes as f64 * 100.0 / *total_bytes as f64;
                format!("starting: {step}, {percent:.0} % of {total_bytes} bytes")
            }
            Phase::Waiting { why } => why.clone(),
            Phase::DiskFailed { why } => format!("the disk failed: {why}"),
            Phase::Ready => "reads and writes are taken".to_string(),
            Phase::Drained => "drained: this node is about to be stopped, ask another one".to_string(),
            Phase::Stopping => "shutting down".to_string(),
        }
    }
}

/// The node as requests see it.
pub struct App {
    /// As configured.
    pub config: Config,
    /// What ingest may take.
    pub ingest: ingest::Limits,
    /// Places for evaluations and lookups.
    pub queries: Gate,
    /// Places for decoding and appending.
    pub writes: Gate,
    /// Memory for bodies of writes, in steps of [`body::STEP`].
    pub bodies: Gate,
    /// Set while series are created faster than is allowed.
    pub creating_too_fast: AtomicBool,
    /// Recycled batches and body buffers.
    pub buffers: Pool<(Vec<u8>, Arc<Batch>)>,
    /// The node's own metrics.
    pub metrics: Metrics,
    /// How long writes take.
    pub latency: Writes,
    /// When the process began to serve.
    pub started: Instant,
    /// The same by the wall clock, in milliseconds.
    pub started_at: i64,
    phase: RwLock<Phase>,
    node: OnceLock<cluster::node::Handle>,
    database: OnceLock<Arc<Database>>,
}

/// A recycled batch above this size is freed instead: one giant request must not hold its memory for ever.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// CPUs that this process may use.
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

impl App {
    /// A node that is starting.
    pub fn new(config: Config) -> App {
        let limits = &config.limits;
        let size = |bytes: Bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let ingest = ingest::Limits {
            body_bytes_max: size(limits.write_body_bytes_max),
            decoded_bytes_max: size(limits.write_decoded_bytes_max),
            decoded_ratio_max: count(limits.write_decoded_ratio_max),
            batch_bytes_max: size(limits.write_batch_bytes_max),
            labels_max: count(limits.labels_per_series_max),
            label_name_bytes_max: size(limits.label_name_bytes_max),
            label_value_bytes_max: size(limits.label_value_bytes_max),
            metadata_bytes_max: size(limits.metadata_bytes_max),
            line_bytes_max: size(limits.import_line_bytes_max),
        };
        let writers = limits.write_concurrency_max.or(|| 4 * cpus());
        let bodies = match limits.write_bytes_in_flight_max {
            Auto::Set(bytes) => bytes.0,
            Auto::Auto => 4 * cpus() * (16 << 20),
        };
        // One body of the largest size must fit, or it could never be received.
        let bodies = bodies.max(limits.write_body_bytes_max.0).div_ceil(body::STEP);
        App {
            ingest,
            queries: Gate::new(
                limits.query_concurrency_max.or(|| (2 * cpus()).max(4)),
                limits.query_queue_timeout,
                "all places for queries are taken",
                "limits.query_concurrency_max",
            ),
            writes: Gate::new(
                writers,
                limits.write_queue_timeout,
                "all places for writes are taken",
                "limits.write_concurrency_max",
            ),
            bodies: Gate::new(
                bodies,
                limits.write_queue_timeout,
                "the bodies of writes under way fill their memory, in steps of 64 KiB",
                "limits.write_bytes_in_flight_max",
            ),
            creating_too_fast: AtomicBool::new(false),
            buffers: Pool::new(count(writers), |(body, batch): &(Vec<u8>, Arc<Batch>)| {
                let columns = batch.timestamps.capacity() + batch.values.capacity() + batch.starts.capacity();
                let series = batch.series.capacity() * size_of::<model::BatchSeries>();
                body.capacity() + batch.bytes.capacity() + columns * 8 + series <= BUFFER_BYTES_MAX
            }),
            metrics: Metrics::new(),
            latency: Writes::default(),
            started: Instant::now(),
            started_at: crate::time::now().0,
            phase: RwLock::new(Phase::Starting {
                step: "opening".to_string(),
                done_bytes: 0,
                total_bytes: 0,
            }),
            node: OnceLock::new(),
            database: OnceLock::new(),
            config,
        }
    }

    /// Where the node is in its life.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.read().clone();
        match phase {
            Phase::Starting { step, .. } if self.node().is_some_and(|node| node.facts().waits) => {
                Phase::Waiting { why: step }
            }
            Phase::Ready => match self.opened().and_then(|db| db.engine.failed()) {
                Some(why) => Phase::DiskFailed { why },
                None => Phase::Ready,
            },
            phase => phase,
        }
    }

    /// It is known who the node is.
    pub fn identified(&self, node: cluster::node::Handle) {
        assert!(self.node.set(node).is_ok(), "BUG: the node is started twice");
    }

    /// What can be known and asked of the node, before its data is open, too.
    pub fn node(&self) -> Option<&cluster::node::Handle> {
        self.node.get()
    }

    /// Tells how far opening has come. Once the node is ready or stopping it changes nothing.
    pub fn progress(&self, step: &str, done_bytes: u64, total_bytes: u64) {
        let mut phase = self.phase.write();
        if matches!(*phase, Phase::Starting { .. }) {
            *phase = Phase::Starting { step: step.to_string(), done_bytes, total_bytes };
        }
    }

    /// The data is open: from here on requests are answered.
    pub fn open(&self, database: Database) {
        assert!(self.database.set(Arc::new(database)).is_ok(), "BUG: the data was opened twice");
        let mut phase = self.phase.write();
        if *phase != Phase::Stopping {
            *phase = Phase::Ready;
        }
    }

    /// The same, and the process is not stopping yet. Says whether the data is open.
    pub fn drain(&self) -> bool {
        let mut phase = self.phase.write();
        if *phase == Phase::Ready {
            *phase = Phase::Drained;
        }
        *phase == Phase::Drained
    }

    /// From here on the node says that it is not ready. Requests are still answered.
    pub fn stop(&self) {
        *self.phase.write() = Phase::Stopping;
    }

    /// The data, if it is open.
    pub fn opened(&self) -> Option<&Arc<Database>> {
        self.database.get()
    }

    /// The data, or 503 with how far opening has come.
    pub fn database(&self) -> Result<Arc<Database>, ApiError> {
        self.database
            .get()
            .cloned()
            .ok_or_else(|| ApiError::busy(self.phase().reason(), 1).by(Rejected("starting")))
    }

    /// 503 while too many series are being created.
    pub fn check_creation(&self) -> Result<(), ApiError> {
        if self.creating_too_fast.load(Ordering::Relaxed) {
            let rate = self.config.limits.series_created_rate_max;
            return Err(ApiError::busy(
                format!("more than {rate} new series a second (`limits.series_created_rate_max`)"),
                1,
            )
            .by(Rejected::by("limits.series_created_rate_max")));
        }
        Ok(())
    }
}
