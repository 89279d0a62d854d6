//! The cluster as a [`Source`]: performs what [`Select`] and [`Lookup`] decide.
//!
//! Blocking, like every `Source`. Requests of all selectors of a query are sent before the own replica is read, on a thread of its own;
//! answers of all are taken as they come, by the calling thread.

use super::coordinator::Plan;
use super::lookup::Lookup;
use super::own::{OwnAnswer, OwnAsk};
use super::patience::Patience;
use super::select::{Bounds, Effect, Event, Select};
use super::serve::{Stop, serve};
use super::set::Set;
use super::wire::{Body, Chunk, Request, What};
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::view::{Health, View};
use model::{
    Error, LabelQuery, Labels, Limited, Metadata, Replica, Selection, SeriesSet, ShardSet, Source, TimeRange,
    Timestamp,
};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Sends requests to other nodes.
pub trait Asker: Send + Sync {
    /// Sends a request and returns; what comes of it goes into `inbox`. Dropping what is returned cancels the request.
    fn ask(&self, to: NodeId, request: Vec<u8>, timeout_ms: u64, inbox: Inbox) -> Box<dyn Any + Send>;

    /// A clock that only goes forward.
    fn now_ms(&self) -> u64;

    /// Copies of these shards differed in a range: repair may want to know.
    fn differed(&self, _shards: &ShardSet, _range: TimeRange) {}
}

/// Where the parts of one answer go. Never blocks: what may lie in it is bounded by [`Options::fetch_bytes_max`].
pub struct Inbox {
    to: Sender<Arrived>,
    reader: usize,
    number: u32,
    queued: Arc<AtomicU64>,
    bytes_max: u64,
    ended: bool,
}

impl Inbox {
    /// Takes a part of the answer. After [`Stop`] nobody wants more.
    pub fn put(&mut self, chunk: Vec<u8>) -> Result<(), Stop> {
        let bytes = chunk.len() as u64;
        if self.queued.fetch_add(bytes, Ordering::Relaxed) > self.bytes_max {
            self.fail("more came than could be taken");
            return Err(Stop);
        }
        self.send(Part::Chunk(chunk))
    }

    /// The answer ends here, as far as the sender knows.
    pub fn fail(&mut self, why: impl Into<String>) {
        if !std::mem::replace(&mut self.ended, true) {
            let _ = self.send(Part::Failed(why.into()));
        }
    }

    fn send(&self, what: Part) -> Result<(), Stop> {
        self.to.send(Arrived { reader: self.reader, number: self.number, what }).map_err(|_| Stop)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Ignored if the answer was complete.
        self.fail("the connection ended");
    }
}

struct Arrived {
    reader: usize,
    number: u32,
    what: Part,
}

enum Part {
    Chunk(Vec<u8>),
    Failed(String),
    Own(OwnAnswer),
}

/// How a source reads.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many copies must answer.
    pub consistency: Consistency,
    /// Whether too few answers are a warning and no error.
    pub partial: bool,
    /// After how long a read fails.
    pub timeout_ms: u64,
    /// Most bytes that other nodes may send for one selector; the key is `limits.query_fetch_bytes_max`.
    pub fetch_bytes_max: u64,
    /// Threads that one read may use for digests.
    pub threads: usize,
    /// What is older is not read. Decided once, so that all copies answer for the same range.
    pub oldest: i64,
}

/// What all reads of a node share. One lock, held for a moment.
pub struct Shared(Mutex<Experience>);

/// What reads have learned of the other nodes.
struct Experience {
    patience: Patience,
    /// Requests under way.
    load: BTreeMap<NodeId, u64>,
}

impl Default for Shared {
    /// A replica that is silent is given between 20 ms and a second.
    fn default() -> Shared {
        Shared(Mutex::new(Experience { patience: Patience::new(20, 1000), load: BTreeMap::new() }))
    }
}

/// A whole cluster, read through one of its nodes.
pub struct ClusterSource<A> {
    view: Arc<dyn Fn() -> Arc<View> + Send + Sync>,
    replica: Arc<dyn Replica>,
    asker: Arc<A>,
    shared: Arc<Shared>,
    options: Options,
}

/// How often a read that met an older or newer placement is tried.
const ATTEMPTS: usize = 4;

/// How long is waited before it is tried again.
const AGAIN_AFTER_MS: u64 = 100;

/// How long other nodes are waited for when they are asked for metadata.
const METADATA_WAIT_MS: u64 = 2000;

/// A read that is driven by events.
trait Reader {
    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect>;
    fn wake_at_ms(&self) -> u64;
    fn is_done(&self) -> bool;
    fn is_behind(&self) -> bool;
}

macro_rules! reader {
    ($($name:ty),*) => {$(
        impl Reader for $name {
            fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
                <$name>::step(self, now_ms, event)
            }
            fn wake_at_ms(&self) -> u64 {
                <$name>::wake_at_ms(self)
            }
            fn is_done(&self) -> bool {
                <$name>::is_done(self)
            }
            fn is_behind(&self) -> bool {
                <$name>::is_behind(self)
            }
        }
    )*};
}
reader!(Select, Lookup);

/// A request that is under way.
struct Asked {
    node: NodeId,
    since_ms: u64,
    heard_ms: u64,
    silence_ms: u64,
    /// Cancels it when dropped.
    _handle: Box<dyn Any + Send>,
}

impl<A: Asker> ClusterSource<A> {
    /// Reads through the node with this replica.
    pub fn new(
        view: Arc<dyn Fn() -> Arc<View> + Send + Sync>,
        replica: Arc<dyn Replica>,
        asker: Arc<A>,
        shared: Arc<Shared>,
        options: Options,
    ) -> ClusterSource<A> {
        ClusterSource { view, replica, asker, shared, options }
    }

    fn plan(&self, deadline_ms: u64) -> Plan {
        let Experience { patience, load } = &*self.shared.0.lock();
        Plan {
            consistency: self.options.consistency,
            partial: self.options.partial,
            digests: true,
            hedge_after_ms: patience.hedge_after_ms(),
            deadline_ms,
            load: load.clone(),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds { fetch_bytes_max: self.options.fetch_bytes_max }
    }

    /// Drives reads to their end; again on a newer view while a change of the placement is on its way.
    fn run<R: Reader>(&self, begin: impl Fn(Arc<View>, Plan, Bounds) -> Vec<R>) -> Vec<R> {
        let deadline = self.asker.now_ms().saturating_add(self.options.timeout_ms);
        for attempt in 1.. {
            let view = (self.view)();
            let mut readers = begin(view.clone(), self.plan(deadline), self.bounds());
            let (to, from) = channel();
            std::thread::scope(|scope| {
                let mut shell = Shell {
                    source: self,
                    view: &view,
                    scope,
                    to,
                    deadline,
                    queued: Arc::default(),
                    asked: BTreeMap::new(),
                };
                shell.drive(&mut readers, &from);
            });
            let left = deadline.saturating_sub(self.asker.now_ms());
            if attempt == ATTEMPTS || left <= AGAIN_AFTER_MS || !readers.iter().any(R::is_behind) {
                return readers;
            }
            // Nothing comes any more: this waits, and is woken by nobody.
            let (_keep, none) = channel::<()>();
            let _ = none.recv_timeout(Duration::from_millis(AGAIN_AFTER_MS));
        }
        unreachable!("BUG: attempts ended without an answer")
    }

    fn clipped(&self, range: TimeRange) -> TimeRange {
        TimeRange { min: range.min.max(Timestamp(self.options.oldest)), max: range.max }
    }

    fn lookup(&self, what: What, query: &LabelQuery) -> Lookup {
        let query = &LabelQuery { range: self.clipped(query.range), ..query.clone() };
        let begin = |view, plan, bounds| vec![Lookup::new(view, what.clone(), query.clone(), plan, bounds)];
        self.run(begin).pop().expect("BUG: a read without its reader")
    }

    fn selects(&self, selections: &[Selection]) -> Result<Vec<Set>, Error> {
        let readers = self.run(|view, plan, bounds| {
            let one = |s: &Selection| {
                let selection = Selection { range: self.clipped(s.range), ..s.clone() };
                Select::new(view.clone(), selection, plan.clone(), bounds.clone())
            };
            selections.iter().map(one).collect()
        });
        let sets: Vec<Set> = readers.into_iter().map(Select::finish).collect::<Result<_, _>>()?;
        for (set, selection) in sets.iter().zip(selections) {
            if !set.differing().is_empty() {
                self.asker.differed(set.differing(), selection.range);
            }
        }
        Ok(sets)
    }
}

/// One attempt at some reads.
struct Shell<'s, 'e, A> {
    source: &'e ClusterSource<A>,
    view: &'e Arc<View>,
    scope: &'s std::thread::Scope<'s, 'e>,
    to: Sender<Arrived>,
    deadline: u64,
    queued: Arc<AtomicU64>,
    asked: BTreeMap<(usize, u32), Asked>,
}

impl<'s, 'e, A: Asker> Shell<'s, 'e, A> {
    fn drive<R: Reader>(&mut self, readers: &mut [R], from: &Receiver<Arrived>) {
        let now = self.source.asker.now_ms();
        let mut effects = Vec::new();
        for (i, reader) in readers.iter_mut().enumerate() {
            effects.extend(reader.step(now, Event::Tick).into_iter().map(|effect| (i, effect)));
        }
        self.perform(effects);
        while readers.iter().any(|reader| !reader.is_done()) {
            let now = self.source.asker.now_ms();
            let open = readers.iter().filter(|reader| !reader.is_done());
            let wake = open.map(|reader| reader.wake_at_ms()).min().unwrap_or(now);
            let wait = Duration::from_millis(wake.saturating_sub(now));
            let mut effects = Vec::new();
            // What has arrived is taken before anybody is found silent.
            match from.recv_timeout(wait) {
                Ok(first) => {
                    for arrived in std::iter::once(first).chain(from.try_iter()) {
                        self.take(arrived, readers, &mut effects);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.source.asker.now_ms();
                    for (i, reader) in readers.iter_mut().enumerate() {
                        effects.extend(reader.step(now, Event::Tick).into_iter().map(|effect| (i, effect)));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("BUG: this end holds a sender"),
            }
            self.perform(effects);
        }
        self.release();
    }

    fn take<R: Reader>(&mut self, arrived: Arrived, readers: &mut [R], effects: &mut Vec<(usize, Effect)>) {
        let Arrived { reader, number, what } = arrived;
        let now = self.source.asker.now_ms();
        if let Some(asked) = self.asked.get_mut(&(reader, number)) {
            asked.silence_ms = asked.silence_ms.max(now.saturating_sub(asked.heard_ms));
            asked.heard_ms = now;
        }
        let event = match what {
            Part::Chunk(bytes) => {
                self.queued.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                Event::Chunk { number, bytes }
            }
            Part::Failed(why) => Event::Failed { number, why },
            Part::Own(answer) => Event::Own { number, answer },
        };
        effects.extend(readers[reader].step(now, event).into_iter().map(|effect| (reader, effect)));
    }

    /// Requests go out before this node begins to work itself.
    fn perform(&mut self, effects: Vec<(usize, Effect)>) {
        let mut own = Vec::new();
        for (reader, effect) in effects {
            match effect {
                Effect::Send { number, to, request, timeout_ms } => {
                    let inbox = self.inbox(reader, number);
                    if to == self.view.me {
                        own.push(Work::Serve(inbox, request));
                        continue;
                    }
                    *self.source.shared.0.lock().load.entry(to).or_default() += 1;
                    let handle = self.source.asker.ask(to, request, timeout_ms, inbox);
                    let now = self.source.asker.now_ms();
                    let asked =
                        Asked { node: to, since_ms: now, heard_ms: now, silence_ms: 0, _handle: handle };
                    self.asked.insert((reader, number), asked);
                }
                Effect::Own(ask) => own.push(Work::Read(reader, ask)),
            }
        }
        if own.is_empty() {
            return;
        }
        let (source, view, deadline, to) = (self.source, self.view, self.deadline, self.to.clone());
        let is_alone = self.asked.is_empty();
        let work = move || {
            let now_ms = || source.asker.now_ms();
            let expired = || source.asker.now_ms() >= deadline;
            for work in own {
                match work {
                    Work::Read(reader, ask) => {
                        let threads = source.options.threads;
                        let answer = ask.perform(view, &*source.replica, threads, &expired);
                        // If nobody waits any more, it is not needed.
                        let _ = to.send(Arrived { reader, number: ask.number, what: Part::Own(answer) });
                    }
                    Work::Serve(mut inbox, request) => {
                        let emit = &mut |chunk| inbox.put(chunk);
                        let _ = serve(view, &*source.replica, &request, 1, &now_ms, emit);
                    }
                }
            }
        };
        // With nobody to listen to meanwhile, there is no need for a thread.
        if is_alone {
            work();
        } else {
            self.scope.spawn(work);
        }
    }

    fn inbox(&self, reader: usize, number: u32) -> Inbox {
        let (to, queued) = (self.to.clone(), self.queued.clone());
        Inbox { to, reader, number, queued, bytes_max: self.source.options.fetch_bytes_max, ended: false }
    }

    /// What is still under way is not needed.
    fn release(&mut self) {
        let now = self.source.asker.now_ms();
        let Experience { patience, load } = &mut *self.source.shared.0.lock();
        for asked in std::mem::take(&mut self.asked).into_values() {
            if let Some(load) = load.get_mut(&asked.node) {
                *load = load.saturating_sub(1);
            }
            // Somebody who never said anything was at least so slow.
            let silence = if asked.heard_ms == asked.since_ms { now - asked.since_ms } else { 0 };
            patience.note(asked.silence_ms.max(silence));
        }
    }
}

enum Work {
    Read(usize, OwnAsk),
    Serve(Inbox, Vec<u8>),
}

impl<A: Asker> Source for ClusterSource<A> {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error> {
        let mut sets = self.selects(std::slice::from_ref(selection))?;
        Ok(Box::new(sets.pop().expect("BUG: a selection without its set")))
    }

    fn select_all(&self, selections: &[Selection]) -> Result<Vec<Box<dyn SeriesSet>>, Error> {
        let sets = self.selects(selections)?;
        Ok(sets.into_iter().map(|set| Box::new(set) as Box<dyn SeriesSet>).collect())
    }

    fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, Error> {
        self.lookup(What::Series, query).series()
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, Error> {
        self.lookup(What::Names, query).texts()
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Limited<String>, Error> {
        self.lookup(What::Values(name.to_owned()), query).texts()
    }

    /// What this node knows; only if that is nothing, what the others know.
    fn metadata(&self, family: Option<&str>) -> Result<Vec<Metadata>, Error> {
        let own = self.replica.metadata(family)?;
        let view = (self.view)();
        if !own.is_empty() || view.nodes.len() < 2 {
            return Ok(own);
        }
        let wait = METADATA_WAIT_MS.min(self.options.timeout_ms);
        let deadline = self.asker.now_ms().saturating_add(wait);
        let body = Body::Metadata { family: family.map(str::to_owned) };
        let request = Request { epoch: view.epoch(), timeout_ms: wait, body }.encode();
        let (to, from) = channel();
        let queued: Arc<AtomicU64> = Arc::default();
        let bytes_max = self.options.fetch_bytes_max;
        let others = view.nodes.iter().filter(|(id, peer)| **id != view.me && peer.health != Health::Down);
        let mut handles = Vec::new();
        for (number, (id, _)) in others.enumerate() {
            let (to, queued) = (to.clone(), queued.clone());
            let inbox = Inbox { to, reader: 0, number: number as u32, queued, bytes_max, ended: false };
            handles.push(self.asker.ask(*id, request.clone(), wait, inbox));
        }
        drop(to);
        let mut found: BTreeMap<String, Metadata> = BTreeMap::new();
        let mut open = handles.len();
        while open > 0 {
            let left = Duration::from_millis(deadline.saturating_sub(self.asker.now_ms()));
            // Whoever is late, gone or wrong is left out: metadata is help for people.
            let Ok(arrived) = from.recv_timeout(left) else { break };
            match arrived.what {
                Part::Chunk(bytes) => match Chunk::decode(&bytes) {
                    Ok(Chunk::Metadata(families)) => {
                        for known in families.into_iter().filter(|m| family.is_none_or(|f| m.family == f)) {
                            let slot = found.entry(known.family.clone()).or_insert_with(|| known.clone());
                            if known > *slot {
                                *slot = known;
                            }
                        }
                    }
                    Ok(Chunk::End { .. }) => open -= 1,
                    _ => {}
                },
                Part::Failed(_) | Part::Own(_) => {}
            }
        }
        Ok(found.into_values().collect())
    }
}
