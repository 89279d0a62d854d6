//! From a folder to a node of a cluster with its data open.
//!
//! ```text
//! identity ─► token ─► boot: create, join or come back ─► engine ─► serve other nodes
//! ```
//!
//! From the boot on the directory is locked.

use super::token::{self, Token};
use super::{random, settings};
use crate::app::{App, VERSION};
use crate::config::{Auto, Bytes, Config, Durability, Listen, Retention, Secret};
use crate::{namespaces, process, time};
use anyhow::{Context, bail};
use cluster::control::NodeReport;
use cluster::view::Namespace;
use disk::{RealVfs, Vfs};
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often a long opening is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How long a node that has joined waits for its share of the shards, before it serves without.
const SHARE_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that takes part in its cluster.
pub struct Open {
    /// Its part in the cluster.
    pub cluster: Arc<cluster::node::Node>,
    /// Its data.
    pub engine: Arc<storage::Engine>,
    /// What other nodes need to know to talk to it.
    pub token: Token,
}

/// Opens the data and takes part in the cluster. `address` is where the HTTP API listens.
pub async fn open(app: &Arc<App>, address: SocketAddr) -> anyhow::Result<Open> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let config = &app.config;
    let dir = &config.data_dir;
    vfs.create_dir_all(dir).with_context(|| {
        format!("the data directory {} cannot be made; choose another with --data-dir", dir.display())
    })?;
    let existing = storage::identity::peek(&*vfs, dir)?;
    let token = token::choose(config, existing.is_some(), random)?;
    let mut options = cluster_options(app, address, token.secret())?;
    let reported = Arc::new(OnceLock::new());
    options.report = report(reported.clone());
    let existing = existing.map(|id| cluster::node::Directory {
        cluster: id.cluster,
        node: id.node,
        disk: id.disk,
        shards: id.shards,
    });
    let starting = cluster::node::start(options, vfs.clone(), existing).await.map_err(explained)?;
    app.identified(starting.handle());
    let boot = starting.joined().await.map_err(explained)?;
    // Only now: a wrong one must not stay.
    token::keep(dir, token.secret())?;
    let directory = boot.directory();
    let identity = storage::Identity {
        cluster: directory.cluster,
        node: directory.node,
        disk: directory.disk,
        shards: directory.shards,
    };
    let namespace = settings::default_of(&boot.view());
    let opening = {
        let app = app.clone();
        tokio::task::spawn_blocking(move || open_engine(&app, vfs, identity, &namespace))
    };
    let engine = tokio::select! {
        opened = opening => opened.context("opening the data was stopped by a bug")??,
        stop = boot.failed() => return Err(stop.into()),
    };
    if reported.set(Arc::downgrade(&engine)).is_err() {
        unreachable!("BUG: the data is opened once");
    }
    let cluster = boot.serve(engine.clone()).await.map_err(explained)?;
    await_share(app, &cluster).await;
    Ok(Open { cluster, engine, token })
}

/// Waits for this node's share of the shards, as long as it can still get one. A write that came before would settle that it has none. Who stands by
/// gets none.
async fn await_share(app: &App, cluster: &cluster::node::Node) {
    if app.config.standby {
        return;
    }
    let deadline = Instant::now() + SHARE_TIMEOUT;
    let waits = || {
        let view = cluster.view();
        !view.has_data && view.held_by(view.me).is_empty()
    };
    while waits() && Instant::now() < deadline {
        app.progress("waiting for a share of the shards", 0, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A sample on the way to another copy: timestamp and value, before compression.
const ROW_BYTES: u64 = 16;

/// What a node tells the leader of itself, once its data is open.
fn report(engine: Arc<OnceLock<Weak<storage::Engine>>>) -> Arc<dyn Fn() -> NodeReport + Send + Sync> {
    let before = Mutex::new((Instant::now(), 0.0));
    Arc::new(move || {
        let stats = engine.get().and_then(Weak::upgrade).map(|engine| engine.stats()).unwrap_or_default();
        // What is in no block yet travels as rows.
        let data_bytes = stats.block_bytes + stats.head_samples * ROW_BYTES;
        let series = stats.series;
        let (now, used) = (Instant::now(), process::Usage::read().map_or(0.0, |usage| usage.cpu_seconds));
        let (then, used_then) = std::mem::replace(&mut *before.lock(), (now, used));
        let share = (used - used_then) / (now - then).as_secs_f64().max(0.001) / crate::app::cpus() as f64;
        NodeReport { series, data_bytes, load_permille: (share * 1000.0) as u32, ..NodeReport::default() }
    })
}

fn explained(error: cluster::node::Error) -> anyhow::Error {
    match &error {
        cluster::node::Error::Listen { .. } => anyhow::anyhow!(
            "{error}. Each of several nodes on one machine needs its own --cluster-listen, --http-listen and --data-dir"
        ),
        _ => error.into(),
    }
}

/// What the configuration means for this node's part in the cluster.
fn cluster_options(
    app: &Arc<App>,
    address: SocketAddr,
    token: &Secret,
) -> anyhow::Result<cluster::node::Options> {
    let config = &app.config;
    let mut options = cluster::node::Options::new(&config.data_dir, random, time::now);
    options.listen = config.cluster_listen.0.clone();
    options.advertise = match &config.cluster_advertise {
        Auto::Set(listen) => Some(listen.0.clone()),
        Auto::Auto => None,
    };
    let reached = options.advertise.as_ref().unwrap_or(&options.listen);
    let host = reached.rsplit_once(':').map_or("", |(host, _)| host);
    if is_unspecified(host) {
        bail!(
            "other nodes cannot reach {reached}: say with --cluster-advertise HOST:PORT which address of this machine they are to use"
        );
    }
    options.http_address = http_address(address, host);
    options.join = config.join.0.clone();
    options.token = Some(token.reveal().to_string());
    options.zone = config.zone.0.clone();
    options.capacity = config.capacity.get();
    options.standby = config.standby;
    options.control.loss.grace_ms = config.node_loss_grace.as_millis() as u64;
    options.control.loss.dead_percent_max = u32::from(config.node_loss_percent_max.get());
    options.replication_factor = config.replication_factor.get();
    options.version = VERSION;
    options.write_timeout = config.limits.write_timeout;
    options.read_timeout = config.limits.query_timeout;
    options.hints_bytes_max = config.limits.hint_bytes_max.0;
    options.hints_age_max = config.hints_expire;
    options.fetch_bytes_max = config.limits.query_fetch_bytes_max.0;
    options.repair_interval = config.repair_interval;
    options.future_max = config.limits.future_max;
    options.rejoin = config.rejoin;
    let (app, told) = (app.clone(), Mutex::new(String::new()));
    options.progress = Arc::new(move |step| {
        let mut told = told.lock();
        if *told != step {
            tracing::info!(step, "starting");
            app.progress(&step, 0, 0);
            *told = step;
        }
    });
    Ok(options)
}

fn is_unspecified(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Where people reach the HTTP API: if it listens everywhere, on the host that other nodes use.
fn http_address(address: SocketAddr, host: &str) -> String {
    match address.ip().is_unspecified() {
        true => format!("{host}:{}", address.port()),
        false => address.to_string(),
    }
}

fn open_engine(
    app: &App,
    vfs: Arc<dyn Vfs>,
    identity: storage::Identity,
    namespace: &Namespace,
) -> anyhow::Result<Arc<storage::Engine>> {
    let mut options = storage_options(&app.config, namespace, &*vfs)?;
    options.identity = Some(identity);
    let logged = Mutex::new(Instant::now());
    let progress = |p: storage::Progress| {
        app.progress(p.phase, p.done_bytes, p.total_bytes);
        let mut logged = logged.lock();
        if logged.elapsed() >= PROGRESS_INTERVAL {
            *logged = Instant::now();
            tracing::info!(step = p.phase, done_bytes = p.done_bytes, total_bytes = p.total_bytes, "opening");
        }
    };
    Ok(storage::Engine::open(vfs, options, Arc::new(time::now), &progress)?)
}

/// What the configuration means for the engine. What is kept for how long is the namespace's from the first moment: a copy that keeps less
/// than others would drop, in silence, what it is sent.
pub fn storage_options(
    config: &Config,
    namespace: &Namespace,
    vfs: &dyn Vfs,
) -> anyhow::Result<storage::Options> {
    let limits = &config.limits;
    let memory = process::memory_bytes().unwrap_or(4 << 30);
    vfs.create_dir_all(&config.data_dir).with_context(|| {
        format!(
            "the data directory {} cannot be made; choose another with --data-dir",
            config.data_dir.display()
        )
    })?;
    let total = vfs.space(&config.data_dir)?.total;
    let mut options = storage::Options::new(&config.data_dir, random);
    options.future_max_ms = i64::try_from(limits.future_max.as_millis()).unwrap_or(i64::MAX);
    options.series_max = limits.series_max.or(|| memory / 2 / 2048);
    options.head_bytes_max = memory / 4;
    options.wal_bytes_max = limits.wal_bytes_max.0;
    let floor = || Bytes((total / 50).clamp(2 << 30, 20 << 30));
    options.disk_reserve_bytes = limits.disk_free_min.or(floor).0;
    options.retention_ms = retention_ms(namespaces::retention(namespace));
    options.durability = durability(namespaces::durability(namespace));
    Ok(options)
}

/// A retention as the engine takes it.
pub fn retention_ms(retention: Retention) -> Option<i64> {
    match retention {
        Retention::Forever => None,
        Retention::Millis(ms) => Some(ms),
    }
}

/// A durability as the engine takes it.
pub fn durability(durability: Durability) -> storage::Durability {
    match durability {
        Durability::Fsync => storage::Durability::Fsync,
        Durability::Interval => storage::Durability::Interval(Duration::from_millis(200)),
    }
}

/// The address for other nodes that a person gives them.
pub fn reached_at(listen: &Listen, advertise: &Auto<Listen>) -> String {
    match advertise {
        Auto::Set(advertise) => advertise.0.clone(),
        Auto::Auto => listen.0.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_opened_as_the_namespace_says_not_as_its_node_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().to_path_buf(),
            retention: Auto::Set(Retention::Millis(3_600_000)),
            durability: Auto::Set(Durability::Interval),
            ..Config::default()
        };
        let options = storage_options(&config, &Namespace::default(), &RealVfs).unwrap();
        assert_eq!((options.retention_ms, options.durability), (None, storage::Durability::Fsync));
        let month = Namespace { retention_ms: 30 * 86_400_000, fsync: false, ..Namespace::default() };
        let options = storage_options(&config, &month, &RealVfs).unwrap();
        assert_eq!(options.retention_ms, Some(30 * 86_400_000));
        assert_ne!(options.durability, storage::Durability::Fsync);
    }

    #[test]
    fn an_address_for_people_is_one_that_can_be_reached() {
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(http_address(address("10.0.0.5:7420"), "10.0.0.6"), "10.0.0.5:7420");
        assert_eq!(http_address(address("0.0.0.0:7420"), "db1.example"), "db1.example:7420");
        assert!(is_unspecified("0.0.0.0") && is_unspecified("[::]") && !is_unspecified("localhost"));
    }
}
