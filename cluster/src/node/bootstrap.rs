//! The shell of bootstrap: asks, works where blocking is allowed, and tells.

use super::shared::Shared;
use crate::bootstrap::{
    Bootstrap, CopyProgress, Done, Effect, Event, Filled, Local, Options, Progress, perform,
};
use crate::placement::NodeId;
use crate::repair::{self, Level};
use crate::transport::Kind;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Events that wait: answers and finished work are as few as there are questions.
const EVENTS_MAX: usize = 1024;
/// A tick of the machine.
const TICK: Duration = Duration::from_millis(50);

/// How far copies are that this node makes, and the way to its machine.
pub(super) struct Filling {
    events: mpsc::Sender<Event>,
    so_far: Mutex<(Progress, Vec<CopyProgress>)>,
}

/// What comes in.
pub(super) type Inbox = mpsc::Receiver<Event>;

impl Filling {
    pub fn new() -> (Filling, Inbox) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        (Filling { events, so_far: Mutex::default() }, inbox)
    }

    /// Another limit, in bytes a second; 0 for none.
    pub async fn limit(&self, bytes_per_s: u64) {
        let _ = self.events.send(Event::Rate { bytes_per_s }).await;
    }

    /// Nothing more comes, until it goes on.
    pub async fn pause(&self, is_paused: bool) {
        let _ = self.events.send(Event::Pause(is_paused)).await;
    }

    /// How long clients wait of late, and how long they do when nothing is copied.
    pub async fn foreground(&self, latency: Duration, usual: Duration) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let _ = self.events.send(Event::Foreground { latency_us: us(latency), usual_us: us(usual) }).await;
    }

    pub fn progress(&self) -> Progress {
        self.so_far.lock().0
    }

    /// How far each copy is that this node makes.
    pub fn copies(&self) -> Vec<CopyProgress> {
        self.so_far.lock().1.clone()
    }
}

/// Runs until it is dropped. `repair` makes the passes when a copy is filled.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: Inbox, repair: mpsc::Sender<repair::Event>) {
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
        *data.filling.so_far.lock() = (bootstrap.progress(), bootstrap.copies());
        for effect in effects {
            match effect {
                Effect::Filled(filled) => {
                    tell(&filled);
                    let Filled { shard, since, .. } = filled;
                    if repair.send(repair::Event::Filled { shard, since }).await.is_err() {
                        return;
                    }
                }
                effect => act(&shared, &data.filling, effect),
            }
        }
    }
}

fn tell(filled: &Filled) {
    let Filled { shard, blocks, bytes, missed, failure, .. } = filled;
    match failure {
        None => tracing::info!(shard = shard.0, blocks, bytes, missed, "a copy has the blocks of others"),
        Some(why) => {
            tracing::warn!(shard = shard.0, blocks, bytes, %why, "a copy could not be filled with blocks; its rows are fetched instead")
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
        Effect::Forget(shards) => {
            tokio::task::spawn_blocking(move || {
                shards.into_iter().for_each(|(shard, since)| shared.forget(shard, since));
            });
        }
        Effect::Filled(_) => unreachable!("BUG: it is told in order, by the caller"),
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
