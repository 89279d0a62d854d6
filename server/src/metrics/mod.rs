//! The node's own metrics: counted as things happen, or read when somebody asks.

mod cluster;

use crate::app::{App, VERSION};
use ingest::{Reason, Stored};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Counters that requests touch.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram, fn() -> Histogram>,
    samples: Family<Kind, Counter>,
    requests_rejected: Family<Turned, Counter>,
    rejected: Family<Rejected, Counter>,
    rejected_samples: Family<Rejected, Counter>,
    exemplars_dropped: Counter,
    query_samples: Counter,
    query_queue_seconds: Counter<f64, AtomicU64>,
    /// Panics that were caught in queries.
    pub query_panics: Counter,
    /// Own metrics that could not be stored.
    pub self_scrape_failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    handler: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    handler: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Turned {
    handler: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    reason: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        fn seconds() -> Histogram {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ])
        }
        let mut registry = Registry::with_prefix("sarsen");
        let metrics = Metrics {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            samples: Family::default(),
            requests_rejected: Family::default(),
            rejected: Family::default(),
            rejected_samples: Family::default(),
            exemplars_dropped: Counter::default(),
            query_samples: Counter::default(),
            query_queue_seconds: Counter::default(),
            query_panics: Counter::default(),
            self_scrape_failures: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register(
            "requests_rejected",
            "Requests turned away as a whole, by route and by the limit or the state of the node that was the reason",
            metrics.requests_rejected.clone(),
        );
        registry.register("ingest_samples", "Samples stored, by type", metrics.samples.clone());
        registry.register(
            "ingest_rejected",
            "Series, lines or histograms of writes that were refused for good, by reason",
            metrics.rejected.clone(),
        );
        registry.register(
            "ingest_rejected_samples",
            "Samples and histograms of writes that were refused for good, by reason",
            metrics.rejected_samples.clone(),
        );
        registry.register(
            "ingest_exemplars_dropped",
            "Exemplars that were received; none are kept",
            metrics.exemplars_dropped.clone(),
        );
        registry.register("query_samples_read", "Samples that queries read", metrics.query_samples.clone());
        registry.register_with_unit(
            "query_queue",
            "Time that queries waited for their turn",
            Unit::Seconds,
            metrics.query_queue_seconds.clone(),
        );
        registry.register("query_panics", "Queries stopped by a bug", metrics.query_panics.clone());
        registry.register(
            "self_scrape_failures",
            "Times that the node's own metrics could not be stored",
            metrics.self_scrape_failures.clone(),
        );
        // Every label value from the start, so that a rate over its first increment is not lost.
        for kind in ["float", "histogram"] {
            drop(metrics.samples.get_or_create(&Kind { r#type: kind }));
        }
        for reason in Reason::ALL {
            let label = Rejected { reason: reason.as_str() };
            drop(metrics.rejected.get_or_create(&label));
            drop(metrics.rejected_samples.get_or_create(&label));
        }
        Metrics { registry, ..metrics }
    }

    /// Counts one request.
    pub fn request(&self, handler: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&Request { handler, code }).inc();
        self.request_seconds.get_or_create(&Route { handler }).observe(took.as_secs_f64());
    }

    /// Counts one request that was turned away as a whole.
    pub fn rejected(&self, handler: &'static str, reason: &'static str) {
        self.requests_rejected.get_or_create(&Turned { handler, reason }).inc();
    }

    /// Counts what a write brought.
    pub fn stored(&self, stored: &Stored) {
        self.samples.get_or_create(&Kind { r#type: "float" }).inc_by(stored.written.samples);
        self.samples.get_or_create(&Kind { r#type: "histogram" }).inc_by(stored.written.histograms);
        self.exemplars_dropped.inc_by(stored.exemplars_received.saturating_sub(stored.written.exemplars));
        for (reason, tally) in stored.problems.tallies() {
            let label = Rejected { reason: reason.as_str() };
            self.rejected.get_or_create(&label).inc_by(tally.problems);
            self.rejected_samples.get_or_create(&label).inc_by(tally.rows);
        }
    }

    /// Counts one evaluated query.
    pub fn query(&self, samples_read: u64, queued: Duration) {
        self.query_samples.inc_by(samples_read);
        self.query_queue_seconds.inc_by(queued.as_secs_f64());
    }

    /// Everything as OpenMetrics text.
    pub fn text(&self, app: &App) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("BUG: writing to memory failed");
        // What is read only now stands in a registry of its own, made for this answer.
        let mut now = Registry::default();
        now.register_collector(Box::new(Now::read(app)));
        if let Some(db) = app.opened() {
            now.register_collector(Box::new(cluster::Cluster::read(db)));
        }
        let mut rest = String::new();
        encode(&mut rest, &now).expect("BUG: writing to memory failed");
        let end = text.len() - "# EOF\n".len();
        text.truncate(end);
        text + &rest
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Values read at one moment.
#[derive(Debug)]
struct Now {
    counters: Vec<(&'static str, &'static str, f64)>,
    gauges: Vec<(&'static str, &'static str, f64)>,
}

impl Now {
    fn read(app: &App) -> Now {
        let mut now = Now { counters: Vec::new(), gauges: Vec::new() };
        now.process();
        let ready = f64::from(app.phase() == crate::app::Phase::Ready);
        now.gauge("sarsen_ready", "Whether reads and writes are taken", ready);
        for (gate, names) in [
            (&app.queries, ["sarsen_queries_running", "sarsen_queries_waiting", "sarsen_queries_refused"]),
            (&app.writes, ["sarsen_writes_running", "sarsen_writes_waiting", "sarsen_writes_refused"]),
        ] {
            now.gauge(names[0], "Requests that have their turn", gate.taken() as f64);
            now.gauge(names[1], "Requests that wait for their turn", gate.waiting() as f64);
            now.counter(names[2], "Requests sent away after waiting in vain", gate.refused() as f64);
        }
        let bodies = app.bodies.taken() * crate::http::body::STEP;
        now.gauge("sarsen_write_bodies_bytes", "Memory of bodies of writes under way", bodies as f64);
        if let Some(db) = app.opened() {
            now.storage(&db.engine.stats());
        }
        now
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.counters.push((name, help, value));
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges.push((name, help, value));
    }

    fn storage(&mut self, s: &storage::Stats) {
        for (name, help, value) in [
            ("sarsen_storage_series", "Series in memory", s.series),
            ("sarsen_storage_head_samples", "Samples in memory", s.head_samples),
            ("sarsen_storage_head_bytes", "Memory of series and their samples, roughly", s.head_bytes),
            ("sarsen_storage_blocks", "Blocks on disk", s.blocks),
            ("sarsen_storage_block_bytes", "Bytes of all blocks", s.block_bytes),
            ("sarsen_storage_block_samples", "Samples in all blocks", s.block_samples),
            ("sarsen_wal_segments", "Segments of the write-ahead log", s.wal_segments),
            (
                "sarsen_wal_pending_bytes",
                "Bytes appended to the log that are not yet fsynced",
                s.wal_pending_bytes,
            ),
            ("sarsen_storage_read_only", "Whether writes are refused", u64::from(s.read_only.is_some())),
            ("sarsen_storage_suspect", "Damaged places found while opening", s.suspect.len() as u64),
        ] {
            self.gauge(name, help, value as f64);
        }
        for (name, help, value) in [
            ("sarsen_storage_series_created", "Series created", s.series_created),
            ("sarsen_storage_series_dropped", "Idle series dropped from memory", s.series_dropped),
            ("sarsen_storage_out_of_order_samples", "Samples that came late", s.out_of_order),
            ("sarsen_wal_bytes", "Bytes appended to the write-ahead log", s.wal_bytes),
            ("sarsen_wal_commits", "Commits of the log, one fsync each", s.wal_commits),
            ("sarsen_storage_flushes", "Flushes of memory to blocks", s.flushes),
            ("sarsen_storage_blocks_expired", "Blocks removed by retention", s.blocks_expired),
        ] {
            self.counter(name, help, value as f64);
        }
    }

    /// The `process_…` metrics that every Prometheus client library has.
    fn process(&mut self) {
        let Some(p) = crate::process::Usage::read() else { return };
        self.counter("process_cpu_seconds", "User and system CPU time", p.cpu_seconds);
        self.gauge("process_resident_memory_bytes", "Resident memory", p.resident_bytes as f64);
        self.gauge("process_virtual_memory_bytes", "Virtual memory", p.virtual_bytes as f64);
        self.gauge("process_threads", "Threads", p.threads as f64);
        self.gauge("process_start_time_seconds", "Start of the process, Unix time", p.start_seconds);
        self.gauge("process_open_fds", "Open file descriptors", p.open_fds as f64);
        self.gauge("process_max_fds", "Largest number of open file descriptors", p.max_fds as f64);
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for &(name, help, value) in &self.counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        for &(name, help, value) in &self.gauges {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let info = prometheus_client::metrics::info::Info::new([("version", VERSION)]);
        let help = "The program that runs";
        info.encode(encoder.encode_descriptor("sarsen_build", help, None, info.metric_type())?)
    }
}
