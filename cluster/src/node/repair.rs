//! The shell of repair: asks, works where blocking is allowed, and tells.

use super::control::Input;
use super::shared::Shared;
use crate::control;
use crate::repair::{Done, Effect, Event, Level, Local, Now, Options, Repair, perform};
use crate::transport::Kind;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Events that wait: answers and finished work are few, reported differences more than this are left to the rounds.
pub(super) const EVENTS_MAX: usize = 1024;
/// A tick of the machine.
const TICK: Duration = Duration::from_millis(200);

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, events: mpsc::Sender<Event>, mut inbox: mpsc::Receiver<Event>) {
    let _watched = shared.watch("repair");
    let options = Options {
        recent_interval_ms: shared.options.repair_interval.as_millis() as u64,
        bytes_per_s: shared.options.repair_bytes_per_second,
        ..Options::default()
    };
    let mut repair = Repair::new(options, (shared.options.random)() as u64 >> 1);
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
        let now = Now { ms: shared.now_ms(), wall: shared.wall() };
        let mut effects = Vec::new();
        repair.step(now, event, &mut effects);
        for effect in effects {
            match effect {
                // One after the other: what was said last is what is so.
                Effect::Copied(copied) => {
                    let copied = Input::Event(control::Event::Copied(copied));
                    if shared.inputs.send(copied).await.is_err() {
                        return;
                    }
                }
                effect => act(&shared, &events, effect),
            }
        }
        if let Some(data) = shared.data() {
            *data.repair.lock() = repair.progress(now);
        }
    }
}

fn act(shared: &Arc<Shared>, events: &mpsc::Sender<Event>, effect: Effect) {
    let (shared, events) = (shared.clone(), events.clone());
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
        Effect::Copied(_) => unreachable!("BUG: it is told in order, by the caller"),
        Effect::Log { level, text } => match level {
            Level::Info => tracing::info!("{text}"),
            Level::Warn => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        },
    }
}

async fn ask(
    shared: &Shared,
    peer: crate::placement::NodeId,
    request: Vec<u8>,
    within: Duration,
) -> Result<Vec<u8>, String> {
    let transport = shared.transport().ok_or("the node is starting")?;
    let asked = transport.stream(peer, Kind::Repair, Bytes::from(request), within).await;
    let mut chunks = asked.map_err(|error| error.to_string())?;
    // A reply is one chunk.
    match chunks.next().await {
        Some(Ok(reply)) => Ok(Vec::from(reply)),
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
