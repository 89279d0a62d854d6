//! One node: open the data, serve, maintain, stop.
//!
//! ```text
//! threads   runtime   connections, decoding and appending of writes, signals
//!           blocking  evaluations and lookups, as many as the query gate lets in
//!           commit    fsyncs what is waiting, all of it with one call
//!           maintain  flushes, retention
//! ```
//!
//! The listener is up before the data is, so that `/-/ready` can say how far opening is. Stopping goes the other way:
//! not ready any more, no new connections, requests under way finish, the log is committed and closed.

use crate::app::{App, Database, VERSION};
use crate::config::{Config, Durability, Listen, Retention};
use crate::http::serve;
use crate::{http, process, self_scrape, time};
use anyhow::Context;
use disk::{RealVfs, Vfs};
use parking_lot::Mutex;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the background work looks for something to do.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a long opening is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Files besides connections that a node may have open: blocks, the log, the rest.
const FILES_OTHER: u64 = 1000;

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

    let opening = {
        let app = app.clone();
        tokio::task::spawn_blocking(move || open(&app))
    };
    let engine = tokio::select! {
        opened = opening => opened.context("opening the data was stopped by a bug")??,
        () = signals.next() => {
            // Nothing has been acknowledged yet; what replay was reading is still on the disk.
            tracing::info!("stopped before the data was open");
            return Ok(());
        }
    };
    let workers = Workers::start(&engine);
    let query = query::Engine::new(query_options(&app.config));
    app.open(Database { sink: engine.clone(), source: engine.clone(), query, engine: engine.clone() });
    tracing::info!(
        seconds = app.started.elapsed().as_secs_f64(),
        data_dir = %app.config.data_dir.display(),
        listen = %address,
        "ready"
    );
    banner(&app, address);
    let scraping = tokio::spawn(self_scrape::run(app.clone(), address, until(stopped.clone())));
    let watching = tokio::spawn(watch_creation(app.clone(), until(stopped)));

    signals.next().await;
    app.stop();
    tracing::info!("stopping: requests under way finish");
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
    let _ = tokio::join!(scraping, watching);
    let closing = tokio::task::spawn_blocking(move || workers.stop(&engine));
    closing.await.context("closing the data was stopped by a bug")?.context("closing the data")?;
    tracing::info!("stopped");
    Ok(())
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

fn open(app: &Arc<App>) -> anyhow::Result<Arc<storage::Engine>> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let options = storage_options(&app.config, &*vfs)?;
    let logged = Mutex::new(Instant::now());
    let progress = |p: storage::Progress| {
        app.progress(p.phase, p.done_bytes, p.total_bytes);
        let mut logged = logged.lock();
        if logged.elapsed() >= PROGRESS_INTERVAL {
            *logged = Instant::now();
            tracing::info!(step = p.phase, done_bytes = p.done_bytes, total_bytes = p.total_bytes, "opening");
        }
    };
    let clock = Arc::new(time::now);
    Ok(storage::Engine::open(vfs, options, clock, &progress)?)
}

/// What the configuration means for the engine.
pub fn storage_options(config: &Config, vfs: &dyn Vfs) -> anyhow::Result<storage::Options> {
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
    options.retention_ms = match config.retention {
        Retention::Forever => None,
        Retention::Millis(ms) => Some(ms),
    };
    options.future_max_ms = i64::try_from(limits.future_max.as_millis()).unwrap_or(i64::MAX);
    options.series_max = limits.series_max.or(|| memory / 2 / 2048);
    options.head_bytes_max = memory / 4;
    options.wal_bytes_max = limits.wal_bytes_max.0;
    let floor = || crate::config::Bytes((total / 50).clamp(2 << 30, 20 << 30));
    options.disk_reserve_bytes = limits.disk_free_min.or(floor).0;
    options.durability = match config.durability {
        Durability::Fsync => storage::Durability::Fsync,
        Durability::Interval => storage::Durability::Interval(Duration::from_millis(200)),
    };
    Ok(options)
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

/// The engine's own threads.
struct Workers {
    commit: std::thread::JoinHandle<()>,
    maintain: std::thread::JoinHandle<()>,
    /// Dropped to end maintenance.
    keep: mpsc::Sender<()>,
}

impl Workers {
    fn start(engine: &Arc<storage::Engine>) -> Workers {
        let (keep, kept) = mpsc::channel();
        let committing = engine.clone();
        let commit = spawn("commit", move || {
            if let Err(error) = committing.commit_loop() {
                tracing::error!(%error, "the write-ahead log failed: writes are refused, reads go on; restart on a healthy disk");
            }
        });
        let maintaining = engine.clone();
        let maintain = spawn("maintain", move || {
            let mut before = None;
            while kept.recv_timeout(MAINTENANCE_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let failure = match maintaining.maintain() {
                    Ok(done) => {
                        if done != storage::Maintained::default() {
                            tracing::info!(?done, "maintained");
                        }
                        None
                    }
                    Err(error) => Some(error.to_string()),
                };
                // The same failure every few seconds is one failure.
                if let Some(error) = failure.as_ref().filter(|_| failure != before) {
                    tracing::error!(%error, "background work failed and is tried again");
                }
                before = failure;
            }
        });
        Workers { commit, maintain, keep }
    }

    /// Commits and closes the log once maintenance has ended.
    fn stop(self, engine: &storage::Engine) -> storage::Result<()> {
        drop(self.keep);
        let _ = self.maintain.join();
        let closed = engine.close();
        let _ = self.commit.join();
        closed
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.to_string()).spawn(work).expect("no thread can be started")
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

/// What a person at a terminal wants to know first.
fn banner(app: &App, address: SocketAddr) {
    let url = format!("http://{address}");
    let text = format!(
        "Sarsen {VERSION} is ready. Data: {}\n\n  \
         write    {url}/api/v1/write            (remote_write of Prometheus, vmagent, …)\n  \
         query    {url}/api/v1/query?query=up   (add {url} to Grafana as a Prometheus data source)\n  \
         try      sarsen query instant up --url {url}\n  \
         stop     Ctrl-C\n",
        app.config.data_dir.display()
    );
    // Standard output may be closed; that is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}
