//! The shell of hints: one thread has the disk, one task sends what nodes have missed to those that are back.
//!
//! ```text
//!   writes ─► queue (bounded) ─► thread: Store ◄─ load, remove ─ task: a Replay for each node ─► transport
//! ```

use super::shared::Shared;
use crate::hints::{Chunk, Counts, Effect, Event, Options, Replay, Replayed, Situation, Store};
use crate::placement::NodeId;
use crate::stop::Stop;
use crate::transport::Kind;
use crate::write::{Missed, Most};
use bytes::Bytes;
use disk::log::SegmentNumber;
use model::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Hints and questions that wait for the disk. Hints beyond it are left to repair.
const QUEUE_MAX: usize = 1024;
/// Bytes of hints that wait for it: a few of the largest.
const QUEUE_BYTES_MAX: usize = 64 << 20;
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
    Keep(Missed),
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
    /// Bytes of hints that wait for the disk.
    queued: Arc<AtomicUsize>,
    lost: AtomicU64,
    replayed: Mutex<Replayed>,
}

/// What became of hints, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintStatus {
    /// On disk, dropped, expired.
    pub counts: Counts,
    /// Bytes that wait, by node.
    pub waiting: Vec<(NodeId, u64)>,
    /// Bytes that wait for the disk.
    pub queued_bytes: u64,
    /// What became of those that were sent.
    pub replayed: Replayed,
    /// Hints that were not kept because the disk was behind.
    pub lost: u64,
}

impl Hints {
    /// Opens what was kept. Blocks.
    pub fn open(shared: &Arc<Shared>) -> Result<(Arc<Hints>, Replaying), Stop> {
        let options = &shared.options;
        let options = Options {
            bytes_max: options.hints_bytes_max,
            node_bytes_max: options.hints_bytes_max / 2,
            age_max_ms: options.hints_age_max.as_millis() as u64,
            ..Options::new(options.data_dir.join("cluster").join("hints"))
        };
        let store = Store::open(shared.vfs.clone(), options)?;
        let store = Arc::new(store);
        let (tasks, work) = sync_channel(QUEUE_MAX);
        let (answers, answered) = mpsc::channel(EVENTS_MAX);
        let queued = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (store, shared, queued) = (store.clone(), shared.clone(), queued.clone());
            let answers = answers.clone();
            let watched = shared.watch("the thread of the hints");
            let run = move || {
                let _watched = watched;
                keep(&store, &shared, &work, &queued, &answers);
            };
            std::thread::Builder::new()
                .name("hints".into())
                .spawn(run)
                .map_err(|error| Stop::other(format!("no thread for hints can be started: {error}")))?
        };
        let hints = Hints {
            store,
            tasks,
            thread: Mutex::new(Some(thread)),
            queued,
            lost: AtomicU64::new(0),
            replayed: Mutex::default(),
        };
        let hints = Arc::new(hints);
        Ok((hints.clone(), Replaying { hints, events: answers, answered }))
    }

    /// Keeps what nodes have missed, if the disk can follow.
    pub fn add(&self, missed: Vec<Missed>) {
        for one in missed {
            let bytes = one.sections.len();
            let fits = self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES_MAX;
            if !fits || self.tasks.try_send(Task::Keep(one)).is_err() {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn count(&self, before: Replayed, after: Replayed) {
        let mut all = self.replayed.lock();
        all.delivered += after.delivered - before.delivered;
        all.dropped += after.dropped - before.dropped;
        all.expired_bytes += after.expired_bytes - before.expired_bytes;
    }

    pub fn status(&self) -> HintStatus {
        HintStatus {
            counts: self.store.counts(),
            waiting: self.store.nodes(),
            queued_bytes: self.queued.load(Ordering::Relaxed) as u64,
            replayed: *self.replayed.lock(),
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
fn keep(store: &Store, shared: &Shared, work: &Receiver<Task>, queued: &AtomicUsize, answers: &Answers) {
    let (mut committed, mut expired) = (Instant::now(), Instant::now());
    let mut dirty = false;
    let mut told = String::new();
    loop {
        let mut stop = false;
        let done = match work.recv_timeout(COMMIT) {
            Ok(Task::Keep(Missed { node, sections })) => {
                dirty = true;
                let added = store.add(node, shared.wall(), &sections);
                queued.fetch_sub(sections.len(), Ordering::Relaxed);
                added
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
    let age_max = shared.options.hints_age_max.as_millis() as u64;
    let situation = Situation {
        now_ms: shared.now_ms(),
        oldest: Timestamp(shared.wall().0.saturating_sub_unsigned(age_max)),
        view: &current.view,
        session: data.session,
        replica: &*data.replica,
        timeout_ms: REPLY.as_millis() as u32,
        most: Most::of_frame(shared.bounds.frame_bytes_max),
    };
    let (before, told) = (replay.replayed(), replay.why_dropped().to_owned());
    let refused = replay.why_refused().map(str::to_owned);
    let effect = replay.step(&situation, event);
    let after = replay.replayed();
    hints.count(before, after);
    // The same reason again and again is one.
    if after.dropped > before.dropped && (before.dropped == 0 || told != replay.why_dropped()) {
        let (peer, why) = (shared.address_of(node), replay.why_dropped());
        tracing::warn!(peer, why, "a write that a node missed was dropped, for good; repair brings its rows");
    }
    if let Some(why) = replay.why_refused()
        && refused.as_deref() != Some(why)
    {
        let peer = shared.address_of(node);
        tracing::warn!(
            peer,
            why,
            "a node does not take the writes that it missed; they are kept, and sent again until they expire"
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use disk::CrashVfs;

    #[test]
    fn what_waits_for_the_disk_is_bounded_by_bytes_too_and_what_is_not_kept_is_counted() {
        let store = Store::open(Arc::new(CrashVfs::new()), Options::new("/hints")).unwrap();
        let (tasks, work) = sync_channel(QUEUE_MAX);
        let hints = Hints {
            store: Arc::new(store),
            tasks,
            thread: Mutex::default(),
            queued: Arc::default(),
            lost: AtomicU64::new(0),
            replayed: Mutex::default(),
        };
        // A disk that takes nothing.
        let missed = |bytes: usize| Missed { node: NodeId(2), sections: vec![0; bytes] };
        for _ in 0..10 {
            hints.add(vec![missed(12 << 20)]);
        }
        let waiting: usize =
            work.try_iter().map(|task| if let Task::Keep(one) = task { one.sections.len() } else { 0 }).sum();
        assert_eq!(waiting, 60 << 20);
        assert_eq!((hints.status().queued_bytes, hints.status().lost), (60 << 20, 5));
        // Small ones still fit, up to their number.
        (0..QUEUE_MAX + 10).for_each(|_| hints.add(vec![missed(1)]));
        assert_eq!(hints.status().lost, 15);
        assert_eq!(hints.status().queued_bytes, (60 << 20) + QUEUE_MAX as u64);
    }
}
