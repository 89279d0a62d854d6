//! The shell of hints: one thread has the disk, one task sends what nodes have missed to those that are back.
//!
//! ```text
//!   writes ─► queue (bounded) ─► thread: Store ◄─ load, remove ─ task: a Replay for each node ─► transport
//! ```

use super::shared::Shared;
use crate::hints::{Chunk, Counts, Effect, Event, Options, Replay, Situation, Store};
use crate::placement::NodeId;
use crate::transport::Kind;
use crate::write::Missed;
use bytes::Bytes;
use disk::log::SegmentNumber;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Hints and questions that wait for the disk. Hints beyond it are left to repair.
const QUEUE_MAX: usize = 1024;
/// Answers of disk and peers that wait: a few for each node.
const EVENTS_MAX: usize = 1024;
/// How often it is looked whether there is anything to replay.
const TICK: Duration = Duration::from_millis(200);
/// A tick while there is: a hint takes a few milliseconds.
const BUSY_TICK: Duration = Duration::from_millis(10);
/// How often hints are made durable. What a crash loses until then is left to repair.
const COMMIT: Duration = Duration::from_secs(1);
/// How often old hints are looked for.
const EXPIRE: Duration = Duration::from_secs(60);
/// How long a node may take for a hint.
const REPLY: Duration = Duration::from_secs(10);
/// What a node that is back is sent a second.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// What the thread is to do.
enum Task {
    Keep(Vec<Missed>),
    Load(NodeId),
    Remove(NodeId, SegmentNumber),
    Forget(NodeId),
    Stop,
}

/// What the replays wait for.
enum Happened {
    Loaded(Option<Chunk>),
    Reply(Bytes),
    Failed,
}

type Answers = mpsc::Sender<(NodeId, Happened)>;

/// Where hints go.
pub(super) struct Hints {
    store: Arc<Store>,
    tasks: SyncSender<Task>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: AtomicU64,
    delivered: AtomicU64,
}

/// What became of hints, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintStatus {
    /// On disk, dropped, expired.
    pub counts: Counts,
    /// Bytes that wait, by node.
    pub waiting: Vec<(NodeId, u64)>,
    /// Hints that their nodes have taken.
    pub delivered: u64,
    /// Hints that were not kept because the disk was behind.
    pub lost: u64,
}

impl Hints {
    /// Opens what was kept. Blocks.
    pub fn open(shared: &Arc<Shared>) -> Result<(Arc<Hints>, Replaying), String> {
        let options = &shared.options;
        let options = Options {
            bytes_max: options.hints_bytes_max,
            node_bytes_max: options.hints_bytes_max / 2,
            age_max_ms: options.hints_age_max.as_millis() as u64,
            ..Options::new(options.data_dir.join("cluster").join("hints"))
        };
        let store = Store::open(shared.vfs.clone(), options).map_err(|error| error.to_string())?;
        let store = Arc::new(store);
        let (tasks, work) = sync_channel(QUEUE_MAX);
        let (answers, answered) = mpsc::channel(EVENTS_MAX);
        let thread = {
            let (store, shared) = (store.clone(), shared.clone());
            let answers = answers.clone();
            let watched = shared.watch("the thread of the hints");
            let run = move || {
                let _watched = watched;
                keep(&store, &shared, &work, &answers);
            };
            std::thread::Builder::new().name("hints".into()).spawn(run).map_err(|error| error.to_string())?
        };
        let hints = Hints {
            store,
            tasks,
            thread: Mutex::new(Some(thread)),
            lost: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        };
        let hints = Arc::new(hints);
        Ok((hints.clone(), Replaying { hints, events: answers, answered }))
    }

    /// Keeps what nodes have missed, if the disk can follow.
    pub fn add(&self, missed: Vec<Missed>) {
        let count = missed.len() as u64;
        if count > 0 && self.tasks.try_send(Task::Keep(missed)).is_err() {
            self.lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn status(&self) -> HintStatus {
        HintStatus {
            counts: self.store.counts(),
            waiting: self.store.nodes(),
            delivered: self.delivered.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// Makes durable what was added, and ends the thread. Blocks.
    pub fn stop(&self) {
        let _ = self.tasks.send(Task::Stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// The thread.
fn keep(store: &Store, shared: &Shared, work: &Receiver<Task>, answers: &Answers) {
    let (mut committed, mut expired) = (Instant::now(), Instant::now());
    let mut dirty = false;
    let mut told = String::new();
    loop {
        let mut stop = false;
        let done = match work.recv_timeout(COMMIT) {
            Ok(Task::Keep(missed)) => {
                dirty = true;
                let now = shared.wall();
                missed.iter().try_for_each(|one| store.add(one.node, now, &one.sections))
            }
            Ok(Task::Load(node)) => {
                let loaded = store.load(node, shared.wall());
                let happened =
                    loaded.as_ref().map_or(Happened::Failed, |chunk| Happened::Loaded(chunk.clone()));
                let _ = answers.blocking_send((node, happened));
                loaded.map(drop)
            }
            Ok(Task::Remove(node, segment)) => store.remove(node, segment),
            Ok(Task::Forget(node)) => store.forget(node),
            Ok(Task::Stop) | Err(RecvTimeoutError::Disconnected) => {
                stop = true;
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        let mut result = done;
        if dirty && (stop || committed.elapsed() >= COMMIT) {
            (dirty, committed) = (false, Instant::now());
            result = result.and_then(|()| store.commit());
        }
        if expired.elapsed() >= EXPIRE {
            expired = Instant::now();
            result = result.and_then(|()| store.expire(shared.wall()));
        }
        if let Err(error) = result {
            // The same failure again and again is one failure.
            let why = error.to_string();
            if told != why {
                tracing::error!(%why, "hints cannot be kept; repair brings what they would have brought");
                told = why;
            }
        }
        if stop {
            return;
        }
    }
}

/// What the task begins with.
pub(super) struct Replaying {
    hints: Arc<Hints>,
    events: Answers,
    answered: mpsc::Receiver<(NodeId, Happened)>,
}

/// The task: runs until it is dropped.
pub(super) async fn replay(shared: Arc<Shared>, replaying: Replaying) {
    let Replaying { hints, events, mut answered } = replaying;
    let _watched = shared.watch("the replay of hints");
    let mut replays: BTreeMap<NodeId, Replay> = BTreeMap::new();
    let mut looked = Instant::now();
    loop {
        let pause = if replays.is_empty() { TICK } else { BUSY_TICK };
        tokio::select! {
            () = sleep_until(looked + pause) => {
                looked = Instant::now();
                let Some(current) = shared.current() else { continue };
                let nodes: BTreeSet<NodeId> = hints.store.nodes().into_iter().map(|(node, _)| node).collect();
                for node in &nodes {
                    if current.view.nodes.contains_key(node) {
                        let new = || Replay::new(*node, BYTES_PER_SECOND);
                        replays.entry(*node).or_insert_with(new);
                    } else {
                        let _ = hints.tasks.try_send(Task::Forget(*node));
                    }
                }
                replays.retain(|node, _| nodes.contains(node) && current.view.nodes.contains_key(node));
                for (node, replay) in &mut replays {
                    step(&shared, &hints, &events, *node, replay, Event::Tick);
                }
            }
            happened = answered.recv() => {
                let Some((node, happened)) = happened else { return };
                let Some(replay) = replays.get_mut(&node) else { continue };
                let event = match &happened {
                    Happened::Loaded(chunk) => Event::Loaded(chunk.clone()),
                    Happened::Reply(reply) => Event::Reply(reply),
                    Happened::Failed => Event::Failed,
                };
                step(&shared, &hints, &events, node, replay, event);
            }
        }
    }
}

fn step(
    shared: &Arc<Shared>,
    hints: &Arc<Hints>,
    events: &Answers,
    node: NodeId,
    replay: &mut Replay,
    event: Event<'_>,
) {
    let (Some(current), Some(data)) = (shared.current(), shared.data()) else { return };
    let situation = Situation {
        now_ms: shared.now_ms(),
        view: &current.view,
        session: data.session,
        replica: &*data.replica,
        timeout_ms: REPLY.as_millis() as u32,
    };
    let before = replay.delivered();
    let effect = replay.step(&situation, event);
    hints.delivered.fetch_add(replay.delivered() - before, Ordering::Relaxed);
    match effect {
        None => {}
        Some(Effect::Load) => {
            let asked = hints.tasks.try_send(Task::Load(node));
            if asked.is_err() {
                let _ = events.try_send((node, Happened::Failed));
            }
        }
        Some(Effect::Remove(segment)) => drop(hints.tasks.try_send(Task::Remove(node, segment))),
        Some(Effect::Send(frame)) => {
            let events = events.clone();
            let calling = shared.transport().map(|to| to.call(node, Kind::Write, frame, REPLY));
            tokio::spawn(async move {
                let happened = match calling {
                    Some(calling) => calling.await.map_or(Happened::Failed, Happened::Reply),
                    None => Happened::Failed,
                };
                let _ = events.send((node, happened)).await;
            });
        }
    }
}
