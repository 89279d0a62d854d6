//! The shell of bootstrap: asks, works where blocking is allowed, and tells.

use super::shared::Shared;
use crate::bootstrap::{Bootstrap, Done, Effect, Event, Filled, Local, Options, Progress, perform};
use crate::placement::NodeId;
use crate::repair::Level;
use crate::transport::Kind;
use bytes::Bytes;
use model::Shard;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Events that wait: answers and finished work are as few as there are questions.
const EVENTS_MAX: usize = 1024;
/// A tick of the machine.
const TICK: Duration = Duration::from_millis(50);

/// Who waits for shards to be filled, and how far that is.
pub(super) struct Filling {
    events: mpsc::Sender<Event>,
    waiting: Mutex<BTreeMap<Shard, Vec<oneshot::Sender<Filled>>>>,
    progress: Mutex<Progress>,
}

/// What comes in.
pub(super) type Inbox = mpsc::Receiver<Event>;

impl Filling {
    pub fn new() -> (Filling, Inbox) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        (Filling { events, waiting: Mutex::default(), progress: Mutex::default() }, inbox)
    }

    /// Fills this node's copy of a shard with the sealed blocks of the others. Resolves when as much is here as blocks could bring; `None`
    /// when the node stops, or filling was stopped. Asked for twice, it is done once.
    pub async fn fill(&self, shard: Shard) -> Option<Filled> {
        let (done, filled) = oneshot::channel();
        self.waiting.lock().entry(shard).or_default().push(done);
        self.events.send(Event::Fill { shard }).await.ok()?;
        filled.await.ok()
    }

    /// It need not be filled any more.
    pub async fn stop(&self, shard: Shard) {
        self.waiting.lock().remove(&shard);
        let _ = self.events.send(Event::Stop { shard }).await;
    }

    /// Another limit, in bytes a second; 0 pauses.
    pub async fn limit(&self, bytes_per_s: u64) {
        let _ = self.events.send(Event::Rate { bytes_per_s }).await;
    }

    /// How long clients wait of late, and how long they do when nothing is copied.
    pub async fn foreground(&self, latency: Duration, usual: Duration) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let _ = self.events.send(Event::Foreground { latency_us: us(latency), usual_us: us(usual) }).await;
    }

    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }
}

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: Inbox) {
    let _watched = shared.watch("bootstrap");
    let options = Options { bytes_per_s: shared.options.bootstrap_bytes_per_second, ..Options::default() };
    let mut bootstrap = Bootstrap::new(options, (shared.options.random)() as u64 >> 1);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut views = shared.views();
    views.mark_changed();
    loop {
        let event = tokio::select! {
            changed = views.changed() => match (changed, shared.current()) {
                (Err(_), _) => return,
                (Ok(()), Some(current)) => Event::View(current.view),
                (Ok(()), None) => continue,
            },
            event = inbox.recv() => match event {
                Some(event) => event,
                None => return,
            },
            _ = ticks.tick() => Event::Tick,
        };
        let mut effects = Vec::new();
        bootstrap.step(shared.now_ms(), event, &mut effects);
        let Some(data) = shared.data() else { continue };
        *data.filling.progress.lock() = bootstrap.progress();
        for effect in effects {
            act(&shared, &data.filling, effect);
        }
    }
}

fn act(shared: &Arc<Shared>, filling: &Filling, effect: Effect) {
    let (shared, events) = (shared.clone(), filling.events.clone());
    match effect {
        Effect::Ask { token, peer, request, timeout_ms } => {
            tokio::spawn(async move {
                let within = Duration::from_millis(u64::from(timeout_ms));
                let event = match ask(&shared, peer, request, within).await {
                    Ok(reply) => Event::Answer { token, reply },
                    Err(why) => Event::Failed { token, why },
                };
                let _ = events.send(event).await;
            });
        }
        Effect::Work { token, local } => {
            tokio::task::spawn_blocking(move || {
                let done = work(&shared, local);
                let _ = events.blocking_send(Event::Done { token, done });
            });
        }
        Effect::Filled(filled) => {
            let Filled { shard, blocks, bytes, missed, failure } = &filled;
            match failure {
                None => {
                    tracing::info!(shard = shard.0, blocks, bytes, missed, "a copy has the blocks of others")
                }
                Some(why) => {
                    tracing::warn!(shard = shard.0, blocks, bytes, %why, "a copy could not be filled")
                }
            }
            for waiting in filling.waiting.lock().remove(&filled.shard).unwrap_or_default() {
                // Whoever asked may be gone.
                let _ = waiting.send(filled.clone());
            }
        }
        Effect::Log { level, text } => match level {
            Level::Info => tracing::info!("{text}"),
            Level::Warn => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        },
    }
}

async fn ask(shared: &Shared, peer: NodeId, request: Vec<u8>, within: Duration) -> Result<Bytes, String> {
    let transport = shared.transport().ok_or("the node is starting")?;
    let asked = transport.stream(peer, Kind::Bootstrap, Bytes::from(request), within).await;
    let mut chunks = asked.map_err(|error| error.to_string())?;
    // A reply is one chunk.
    match chunks.next().await {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the answer is empty".to_owned()),
    }
}

fn work(shared: &Shared, local: Local) -> Done {
    match shared.replica() {
        Some(replica) => perform(&**replica, local),
        None => Done::Failed("the data is not open".to_owned()),
    }
}
