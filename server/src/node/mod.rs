//! One node: open the data, take part in the cluster, serve, maintain, stop.
//!
//! ```text
//! threads   runtime   connections, decoding and appending of writes, other nodes, signals
//!           blocking  evaluations and lookups, as many as the query gate lets in
//!           commit    fsyncs what is waiting, all of it with one call
//!           maintain  flushes, retention
//!           scrub     reads every byte of every block once a period
//! ```
//!
//! The listener is up before the data is, so that `/-/ready` can say how far opening is. Stopping goes the other way:
//! not ready any more, no new connections, requests under way finish, other nodes are left, the log is committed and closed.

mod banner;
mod open;
mod settings;
mod token;
mod workers;

pub use open::{Open, open, storage_options};

use crate::app::{App, Database, VERSION};
use crate::config::{Config, Listen};
use crate::http::serve;
use crate::latency::Foreground;
use crate::{http, process, self_scrape};
use anyhow::Context;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use workers::{MAINTENANCE_INTERVAL, Workers};

/// Files besides connections that a node may have open: blocks, the log, the rest.
const FILES_OTHER: u64 = 1000;

/// Between two looks at how long writes take.
const LATENCY_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop. Everything acknowledged is durable when this returns.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (listener, address) = listen(&config.http_listen).await?;
    let app = Arc::new(App::new(config));
    log_surroundings(&app);
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(serve::serve(
        listener,
        http::router(app.clone()),
        serve::Options {
            connections_max: app.config.limits.connections_max,
            header_timeout: app.config.limits.header_timeout,
            idle_timeout: app.config.limits.idle_timeout,
            shutdown_timeout: app.config.shutdown_timeout,
        },
        until(stopped.clone()),
    ));

    let Open { cluster, engine, token } = tokio::select! {
        opened = open(&app, address) => opened?,
        () = signals.next() => {
            // Nothing has been acknowledged yet; what replay was reading is still on the disk.
            tracing::info!("stopped before the data was open");
            return Ok(());
        }
    };
    let workers = Workers::start(&engine, app.config.scrub_period);
    settings::reconcile(&app.config, &cluster).await;
    let mut settings = settings::Follower::new(&cluster, &engine);
    let query = query::Engine::new(query_options(&app.config));
    app.open(Database { cluster: cluster.clone(), query, engine: engine.clone() });
    tracing::info!(
        seconds = app.started.elapsed().as_secs_f64(),
        data_dir = %app.config.data_dir.display(),
        listen = %address,
        "ready"
    );
    banner::print(&app.config, address, &cluster.view(), &token);
    let background = [
        tokio::spawn(self_scrape::run(app.clone(), address, until(stopped.clone()))),
        tokio::spawn(watch_creation(app.clone(), until(stopped.clone()))),
        tokio::spawn(watch_latency(app.clone(), cluster.clone(), until(stopped.clone()))),
        tokio::spawn(async move { settings.run(until(stopped)).await }),
    ];

    let failure = tokio::select! {
        () = signals.next() => None,
        stop = cluster.failed() => Some(stop),
    };
    app.stop();
    tracing::info!("stopping: requests under way finish");
    if failure.is_none() {
        cluster.leave().await;
    }
    stop.send_replace(true);
    let cut = tokio::select! {
        cut = serving => cut.unwrap_or(0),
        () = signals.next() => {
            tracing::warn!("stopped at once by a second signal; what was acknowledged is durable");
            std::process::exit(1);
        }
    };
    if cut > 0 {
        tracing::warn!(connections = cut, "requests did not finish within `shutdown_timeout` and were cut");
    }
    for task in background {
        let _ = task.await;
    }
    cluster.stop().await;
    let closing = tokio::task::spawn_blocking(move || workers.stop(&engine));
    let closed = closing.await.context("closing the data was stopped by a bug")?.context("closing the data");
    match failure {
        // Whatever does not close then may follow from it.
        Some(stop) => Err(stop.into()),
        None => closed.inspect(|()| tracing::info!("stopped")),
    }
}

/// Resolves when the channel says so.
async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn listen(listen: &Listen) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(&listen.0).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{} is in use by another process, perhaps another Sarsen; stop it, or choose another address with --http-listen",
            listen.0
        ),
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "this user may not listen on {}; choose a port above 1023 with --http-listen",
            listen.0
        ),
        _ => anyhow::anyhow!("cannot listen on {}: {error}; choose another address with --http-listen", listen.0),
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// What this process found, for whoever reads the log later.
fn log_surroundings(app: &App) {
    let usage = process::Usage::read();
    let files_max = usage.map_or(0, |u| u.max_fds);
    tracing::info!(
        version = VERSION,
        cpus = crate::app::cpus(),
        memory_bytes = process::memory_bytes().unwrap_or(0),
        files_max,
        "starting"
    );
    let connections = app.config.limits.connections_max;
    if usage.is_some() && files_max < connections + FILES_OTHER {
        tracing::warn!(
            files_max,
            connections,
            "fewer files may be open than connections are allowed; raise it (ulimit -n, LimitNOFILE) or lower `limits.connections_max`"
        );
    }
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has no randomness");
    u128::from_le_bytes(bytes)
}

/// What the configuration means for queries.
pub fn query_options(config: &Config) -> query::Options {
    let limits = &config.limits;
    query::Options {
        samples_max: limits.query_samples_max,
        series_max: usize::try_from(limits.query_series_max).unwrap_or(usize::MAX),
        // Prometheus counts the steps between points, the engine the points.
        steps_max: limits.query_steps_max.saturating_add(1),
        subquery_steps_max: limits.query_subquery_steps_max,
        threads: crate::app::cpus() as usize,
        lookback_ms: 5 * 60_000,
        subquery_step_ms: 60_000,
        start_timestamps: false,
        delayed_name_removal: false,
    }
}

/// Watches how fast series are created. A leaky bucket: bursts fill it, time empties it; while it is over the brim, writes
/// are put off with 503. It looks every few seconds, so the burst is exceeded by what comes in between.
async fn watch_creation(app: Arc<App>, stopped: impl Future<Output = ()>) {
    let limits = &app.config.limits;
    let (rate, burst) = (limits.series_created_rate_max as f64, limits.series_created_burst_max as f64);
    let mut stopped = std::pin::pin!(stopped);
    let (mut level, mut created, mut last) = (0.0, 0, Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
            () = &mut stopped => return,
        }
        let Some(db) = app.opened() else { continue };
        let (now, so_far) = (Instant::now(), db.engine.series_created());
        level = (level - rate * (now - last).as_secs_f64()).max(0.0) + (so_far - created) as f64;
        (created, last) = (so_far, now);
        app.creating_too_fast.store(level > burst, Ordering::Relaxed);
    }
}

/// Tells once a second how long writes take, so that copies yield to them.
async fn watch_latency(app: Arc<App>, cluster: Arc<cluster::node::Node>, stopped: impl Future<Output = ()>) {
    let mut stopped = std::pin::pin!(stopped);
    let mut foreground = Foreground::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LATENCY_INTERVAL) => {}
            () = &mut stopped => return,
        }
        // Also those of others: this node may be where they come from.
        let is_copying = cluster.view().placement.moving().next().is_some();
        if let Some((latency, usual)) = foreground.look(&app.latency, is_copying) {
            cluster.tell_latency(latency, usual).await;
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
