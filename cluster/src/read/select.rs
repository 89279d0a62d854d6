//! One select as a state machine: who is asked, what is compared, what is fetched.
//!
//! ```text
//! own summary ─► ask ─► own series, digests, whole answers ─► own digests of what differs ─► compare ─► fetch what differs ─► set
//!                 ▲                                                                                      │ a node went away meanwhile
//!                 └──────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Equality is established once, for the whole range of the selection; after that, reading costs what it costs on a single node.

use super::answer::{Incoming, Received, Rules, Taken};
use super::coordinator::{self, Answer, Ask, Coordinator, Mode, Outcome, Plan, Why};
use super::own::{Own, OwnAnswer, OwnAsk, OwnWork};
use super::packed::Unpacker;
use super::set::{Part, Set};
use super::summary::{Compared, Summaries};
use super::union::{ById, Union, Wanted};
use super::wire::{Body, Chunk, Group, Request};
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::view::View;
use model::{Error, Selection, SeriesId, Shard, ShardSet, TimeRange};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Something to do for a read.
#[derive(Debug)]
pub enum Effect {
    /// Ask the node's own replica, with [`OwnAsk::perform`]; [`Event::Own`] is the answer.
    Own(OwnAsk),
    /// Send a request to a node. [`Event::Chunk`] are the parts of its answer, [`Event::Failed`] says that no more will come. A lookup
    /// asks the node itself in this way, too.
    Send {
        /// The ask's number in this read.
        number: u32,
        /// Whom.
        to: NodeId,
        /// What.
        request: Vec<u8>,
        /// How long its answer is waited for.
        timeout_ms: u64,
    },
}

/// What happened.
pub enum Event {
    /// The node's own replica answered.
    Own {
        /// The ask's number.
        number: u32,
        /// What it gave.
        answer: OwnAnswer,
    },
    /// A part of an answer.
    Chunk {
        /// The ask's number.
        number: u32,
        /// As it came.
        bytes: Vec<u8>,
    },
    /// No more will come, whether or not the answer was complete.
    Failed {
        /// The ask's number.
        number: u32,
        /// Why, for people.
        why: String,
    },
    /// Time has passed. The first event of a read.
    Tick,
}

/// What bounds a read.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Most bytes that other nodes may send for it.
    pub fetch_bytes_max: u64,
}

/// Ids fetched by one request.
const FETCH_SERIES_MAX: usize = 1 << 16;

/// Numbers of fetches begin here; those below are the coordinator's.
const FETCHES: u32 = 1 << 31;

/// How much more silence than a first answer a fetch is allowed, where somebody else may do as well.
const FETCH_PATIENCE: u64 = 4;

/// And how much at least: a replica that has much to do computes a chunk for longer than it takes to say that it is there.
const FETCH_PATIENCE_MIN_MS: u64 = 1000;

/// This part of a read's time is kept for fetches.
const FETCH_SHARE: u64 = 4;

/// A select under way.
pub struct Select {
    view: Arc<View>,
    selection: Selection,
    plan: Plan,
    bounds: Bounds,
    coordinator: Coordinator,
    unpacker: Unpacker,
    received: u64,
    /// What the own copies knew of themselves before they were read.
    summary: Summary,
    /// Usually one; a copy with gaps is read apart.
    own: Vec<Own>,
    /// What was hashed of them, and what is being hashed.
    stretches: Vec<Stretch>,
    incoming: BTreeMap<u32, (Incoming, Got)>,
    union: Option<Union>,
    fetches: BTreeMap<u32, Fetch>,
    fetch_number: u32,
    begun: bool,
    /// The own copy was lost after others were compared with what it knew: the read has to begin anew.
    is_void: bool,
    end: Option<Result<(), Error>>,
}

enum Summary {
    /// These wait for it.
    Awaited(Vec<Ask>),
    Known(Summaries),
}

/// A part of the own series, in shards and time.
struct Stretch {
    shards: ShardSet,
    range: TimeRange,
    /// By series.
    digests: Option<Vec<u64>>,
}

/// What one replica answered.
#[derive(Default)]
struct Got {
    compared: Compared,
    digests: Vec<(SeriesId, u64)>,
    rows: Received,
}

struct Fetch {
    node: NodeId,
    incoming: Incoming,
    /// Whether labels are needed, and whether it has come.
    wanted: HashMap<SeriesId, (bool, bool), ById>,
    rows: Received,
    heard_ms: u64,
}

impl Select {
    /// A select under a view; begins with [`Event::Tick`].
    pub fn new(view: Arc<View>, selection: Selection, plan: Plan, bounds: Bounds) -> Select {
        let all = ShardSet::all(view.shards());
        let shards = selection.shards.as_ref().unwrap_or(&all);
        let plan = Plan { digests: true, ..plan };
        Select {
            coordinator: Coordinator::new(&view, shards, plan.clone()),
            unpacker: Unpacker::new(view.key, view.shards()),
            view,
            selection,
            plan,
            bounds,
            received: 0,
            summary: Summary::Known(Summaries::new()),
            own: Vec::new(),
            stretches: Vec::new(),
            incoming: BTreeMap::new(),
            union: None,
            fetches: BTreeMap::new(),
            fetch_number: FETCHES,
            begun: false,
            is_void: false,
            end: None,
        }
    }

    /// Takes what happened and gives what is to be done.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        if self.end.is_some() {
            return Vec::new();
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first {
            self.share_time(now_ms);
        }
        let asks = match event {
            Event::Own { number, answer } => self.own(now_ms, number, answer),
            Event::Chunk { number, bytes } if number < FETCHES => self.chunk(now_ms, number, bytes),
            Event::Chunk { number, bytes } => self.fetched(now_ms, number, bytes),
            Event::Failed { number, why } => self.failed(now_ms, number, Why::Failed(why)),
            Event::Tick => {
                let late = |fetch: &Fetch| fetch.incoming.open && now_ms >= self.fetch_until_ms(fetch);
                let late: Vec<u32> = self.fetches.iter().filter(|(_, f)| late(f)).map(|(n, _)| *n).collect();
                let mut asks = Vec::new();
                for number in late {
                    asks.extend(self.failed(now_ms, number, Why::TimedOut));
                }
                asks.extend(self.coordinator.step(now_ms, coordinator::Event::Tick));
                asks
            }
        };
        let mut effects = Vec::new();
        match self.summarize(is_first, &asks) {
            Some(effect) => {
                self.summary = Summary::Awaited(asks);
                effects.push(effect);
            }
            None => self.begin(now_ms, asks, &mut effects),
        }
        self.settle(now_ms, &mut effects);
        effects
    }

    /// Before the first asks: what the own copies know, if others are to be compared with them.
    fn summarize(&self, is_first: bool, asks: &[Ask]) -> Option<Effect> {
        let is_compared =
            self.plan.consistency != Consistency::One && asks.iter().any(|ask| ask.mode == Mode::Digests);
        let own = asks.iter().find(|ask| ask.node == self.view.me && !ask.damaged)?;
        let work = OwnWork::Summary { shards: own.shards.clone(), range: self.selection.range };
        (is_first && is_compared).then_some(Effect::Own(OwnAsk { number: own.number, work }))
    }

    /// When the next [`Event::Tick`] is due.
    pub fn wake_at_ms(&self) -> u64 {
        let fetches = self.fetches.values().filter(|fetch| fetch.incoming.open);
        let fetches = fetches.map(|fetch| self.fetch_until_ms(fetch));
        fetches.chain(self.coordinator.wake_at_ms()).min().unwrap_or(u64::MAX).min(self.plan.deadline_ms)
    }

    /// How long a silent fetch is waited for: to the end where there is nobody else, since a slow answer is better than none.
    fn fetch_until_ms(&self, fetch: &Fetch) -> u64 {
        if !self.coordinator.can_do_without(fetch.node) {
            return self.plan.deadline_ms;
        }
        let patience = self.plan.hedge_after_ms.saturating_mul(FETCH_PATIENCE).max(FETCH_PATIENCE_MIN_MS);
        self.plan.deadline_ms.min(fetch.heard_ms.saturating_add(patience))
    }

    /// Whether [`Select::finish`] can be called.
    pub fn is_done(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it failed for a reason that passes when a change of the placement has reached everybody.
    pub fn is_behind(&self) -> bool {
        matches!(self.end, Some(Err(Error::Unavailable { .. })))
            && (self.is_void || self.coordinator.is_behind())
    }

    /// The series, or why there are none.
    pub fn finish(self) -> Result<Set, Error> {
        self.end.expect("BUG: the read is not done")?;
        let mut union = self.union.expect("BUG: the read was not settled");
        let key = self.view.key;
        let mut chunks = Vec::new();
        let mut parts = union.parts;
        for (number, (_, got)) in self.incoming {
            if let Some(rows) = union.whole.remove(&number) {
                parts.extend(
                    rows.iter().map(|(series, at)| {
                        Part::new(*series, &got.rows.sections[*at as usize], chunks.len())
                    }),
                );
                chunks.extend(got.rows.chunks);
            }
        }
        for fetch in self.fetches.into_values() {
            for packed in &fetch.rows.sections {
                let series = union.index[&packed.id];
                parts.push(Part::new(series, packed, chunks.len()));
            }
            chunks.extend(fetch.rows.chunks);
        }
        parts.sort_unstable();
        Ok(Set {
            range: self.selection.range,
            own: self.own.into_iter().map(|own| own.set).collect(),
            owned: union.owned,
            others: union.others,
            parts,
            chunks,
            key,
            shards: self.view.shards(),
            warnings: union.warnings,
            differing: union.differing,
        })
    }

    /// Keeps a part of the time that is left for fetching what differs.
    fn share_time(&mut self, now_ms: u64) {
        let left = self.plan.deadline_ms.saturating_sub(now_ms);
        self.coordinator.wait_until(self.plan.deadline_ms - left / FETCH_SHARE);
    }

    fn begin(&mut self, now_ms: u64, asks: Vec<Ask>, effects: &mut Vec<Effect>) {
        for ask in asks {
            if let Summary::Awaited(waiting) = &mut self.summary {
                waiting.push(ask);
                continue;
            }
            let Ask { number, node, shards, mode, damaged } = ask;
            let selection = Selection { shards: Some(shards.clone()), ..self.selection.clone() };
            if node == self.view.me {
                let work = OwnWork::Select { selection, damaged };
                effects.push(Effect::Own(OwnAsk { number, work }));
                continue;
            }
            let summaries = self.summaries(mode, &shards);
            self.incoming.insert(number, (Incoming::new(shards), Got::default()));
            let body = Body::Select { selection, mode, damaged, summaries };
            effects.push(self.send(now_ms, number, node, body));
        }
    }

    /// What is told to a replica that is asked for digests.
    fn summaries(&self, mode: Mode, shards: &ShardSet) -> Summaries {
        match &self.summary {
            Summary::Known(known) if mode == Mode::Digests => {
                let wanted = known.iter().filter(|(shard, _)| shards.contains(**shard));
                wanted.map(|(shard, pieces)| (*shard, pieces.clone())).collect()
            }
            _ => Summaries::new(),
        }
    }

    fn send(&self, now_ms: u64, number: u32, to: NodeId, body: Body) -> Effect {
        let timeout_ms = self.plan.deadline_ms.saturating_sub(now_ms);
        let request = Request { epoch: self.view.epoch(), timeout_ms, body }.encode();
        Effect::Send { number, to, request, timeout_ms }
    }

    fn own(&mut self, now_ms: u64, number: u32, answer: OwnAnswer) -> Vec<Ask> {
        let event = match answer {
            OwnAnswer::Summary(known) => {
                return match std::mem::replace(&mut self.summary, Summary::Known(known)) {
                    Summary::Awaited(waiting) => waiting,
                    Summary::Known(_) => Vec::new(),
                };
            }
            OwnAnswer::Select(Ok(own)) => {
                let (shards, refused) = (own.shards.clone(), own.refused.clone());
                self.own.push(own);
                coordinator::Event::Answered { number, shards, refused }
            }
            OwnAnswer::Digests(Ok(digests)) => {
                // None, where the own copy was given up meanwhile.
                if let Some(stretch) = self.stretches.get_mut(number as usize) {
                    stretch.digests = Some(digests);
                }
                return Vec::new();
            }
            OwnAnswer::Select(Err(error @ Error::Limit { .. })) => {
                self.end = Some(Err(error));
                return Vec::new();
            }
            OwnAnswer::Select(Err(error)) => {
                coordinator::Event::Failed { number, why: Why::Failed(error.to_string()) }
            }
            OwnAnswer::Digests(Err(error)) => {
                let why = match error {
                    Error::Canceled => Why::TimedOut,
                    // It is known to be damaged from now on, so that it is not asked again.
                    error => Why::Damaged(error.to_string()),
                };
                self.own.clear();
                self.stretches.clear();
                self.fetches.clear();
                self.union = None;
                coordinator::Event::Withdrawn { node: self.view.me, why }
            }
        };
        self.coordinator.step(now_ms, event)
    }

    /// Counts what arrives. Whether it may go on.
    fn count(&mut self, bytes: usize) -> bool {
        self.received += bytes as u64;
        let within = self.received <= self.bounds.fetch_bytes_max;
        if !within {
            self.end = Some(Err(over_bytes(self.bounds.fetch_bytes_max, self.received)));
        }
        within
    }

    fn over_series(&mut self, max: u64, got: u64) {
        let (what, key) = ("series selected by one query", "limits.query_series_max");
        self.end = Some(Err(Error::Limit { what, key, max, got }));
    }

    fn chunk(&mut self, now_ms: u64, number: u32, bytes: Vec<u8>) -> Vec<Ask> {
        if !self.count(bytes.len()) {
            return Vec::new();
        }
        let Some((incoming, got)) = self.incoming.get_mut(&number).filter(|(incoming, _)| incoming.open)
        else {
            return Vec::new();
        };
        let shards = self.view.shards();
        let event = match incoming.take(&bytes) {
            Taken::Begun => Ok(coordinator::Event::Heard { number }),
            Taken::Content(Chunk::Compared(compared)) => {
                let is_first = got.digests.is_empty() && got.compared == Compared::default();
                let known = match &self.summary {
                    Summary::Known(known) => known,
                    Summary::Awaited(_) => unreachable!("BUG: somebody was asked before the summary"),
                };
                let was_told = |shards: &ShardSet| shards.iter().all(|shard| known.contains_key(&shard));
                let was_told = was_told(&compared.equal) && was_told(&compared.partly);
                let range = self.selection.range;
                let lies_within = |r: TimeRange| range.min <= r.min && r.min <= r.max && r.max <= range.max;
                let right = compared.range.map_or(compared.partly.is_empty(), lies_within);
                got.compared = compared;
                match is_first && was_told && right {
                    true => Ok(coordinator::Event::Heard { number }),
                    false => Err(Why::Malformed("it compares what it was not asked to".into())),
                }
            }
            Taken::Content(Chunk::Digests(digests)) => {
                let is_due = |shard| incoming.covers(shard) && !got.compared.equal.contains(shard);
                let right = digests.iter().all(|(id, _)| is_due(id.shard(shards)));
                got.digests.extend(digests.iter());
                incoming.add(digests.iter().len() as u64);
                match right {
                    true => Ok(coordinator::Event::Heard { number }),
                    false => Err(Why::Malformed("it gives series of other shards".into())),
                }
            }
            Taken::Content(Chunk::Sections(_)) => {
                let expected = |id: SeriesId, labels: bool| labels && incoming.covers(id.shard(shards));
                let (matchers, range) = (&self.selection.matchers[..], self.selection.range);
                let rules = Rules { matchers, range, expected: &expected };
                match got.rows.take(&bytes, &mut self.unpacker, &rules) {
                    Ok(count) => {
                        incoming.add(count);
                        Ok(coordinator::Event::Heard { number })
                    }
                    Err(what) => Err(Why::Malformed(what)),
                }
            }
            Taken::Content(_) => Err(Why::Malformed("it gives what was not asked for".into())),
            Taken::Complete { shards, refused, .. } => {
                let mut ids: Vec<SeriesId> = got.digests.iter().map(|(id, _)| *id).collect();
                ids.sort_unstable();
                if ids.is_sorted_by(|a, b| a < b) {
                    incoming.open = false;
                    Ok(coordinator::Event::Answered { number, shards, refused })
                } else {
                    Err(Why::Malformed("it gives a series twice".into()))
                }
            }
            Taken::Limit { max, got } => {
                self.over_series(max, got);
                return Vec::new();
            }
            Taken::Failed(why) => Err(why),
        };
        match event {
            Ok(event) => self.coordinator.step(now_ms, event),
            Err(why) => self.failed(now_ms, number, why),
        }
    }

    /// No more comes of this ask.
    fn failed(&mut self, now_ms: u64, number: u32, why: Why) -> Vec<Ask> {
        if number < FETCHES {
            let Some((incoming, got)) = self.incoming.get_mut(&number) else {
                return self.coordinator.step(now_ms, coordinator::Event::Failed { number, why });
            };
            if !std::mem::take(&mut incoming.open) {
                return Vec::new();
            }
            *got = Got::default();
            return self.coordinator.step(now_ms, coordinator::Event::Failed { number, why });
        }
        match self.fetches.get(&number) {
            Some(fetch) if fetch.incoming.open => {
                let node = fetch.node;
                // What was compared was compared with that node, too.
                self.fetches.clear();
                self.union = None;
                self.share_time(now_ms);
                self.coordinator.step(now_ms, coordinator::Event::Withdrawn { node, why })
            }
            _ => Vec::new(),
        }
    }

    fn fetched(&mut self, now_ms: u64, number: u32, bytes: Vec<u8>) -> Vec<Ask> {
        if !self.count(bytes.len()) {
            return Vec::new();
        }
        let Some(fetch) = self.fetches.get_mut(&number).filter(|fetch| fetch.incoming.open) else {
            return Vec::new();
        };
        fetch.heard_ms = now_ms;
        let failed = match fetch.incoming.take(&bytes) {
            Taken::Begun => None,
            Taken::Content(Chunk::Sections(_)) => {
                let wanted = &fetch.wanted;
                let expected =
                    |id: SeriesId, labels: bool| wanted.get(&id).is_some_and(|(need, _)| *need == labels);
                let (matchers, range) = (&self.selection.matchers[..], self.selection.range);
                let rules = Rules { matchers, range, expected: &expected };
                let known = fetch.rows.sections.len();
                match fetch.rows.take(&bytes, &mut self.unpacker, &rules) {
                    Ok(count) => {
                        fetch.incoming.add(count);
                        for packed in &fetch.rows.sections[known..] {
                            if let Some((_, came)) = fetch.wanted.get_mut(&packed.id) {
                                *came = true;
                            }
                        }
                        None
                    }
                    Err(what) => Some(Why::Malformed(what)),
                }
            }
            Taken::Content(_) => Some(Why::Malformed("it gives what was not asked for".into())),
            Taken::Complete { refused, .. } => {
                let missing = fetch.wanted.values().any(|(_, came)| !came);
                match refused.into_iter().next() {
                    Some((_, why)) => Some(why),
                    None if missing => Some(Why::Failed("it lost series while it was read".into())),
                    None => {
                        fetch.incoming.open = false;
                        None
                    }
                }
            }
            Taken::Limit { .. } => Some(Why::Malformed("it gives what was not asked for".into())),
            Taken::Failed(why) => Some(why),
        };
        failed.map_or(Vec::new(), |why| self.failed(now_ms, number, why))
    }

    /// Compares when enough have answered, and ends when everything that differs is there.
    fn settle(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.end.is_some() {
            return;
        }
        if self.union.is_none() {
            match self.coordinator.outcome() {
                None => return,
                Some(Outcome::Unavailable(error)) => {
                    self.end = Some(Err(error));
                    return;
                }
                Some(Outcome::Done { answers, warnings }) => {
                    let used = Used::new(&answers);
                    if let Some(error) = self.void(&answers) {
                        (self.is_void, self.end) = (true, Some(Err(error)));
                        return;
                    }
                    if !self.hash_own(&used, effects) {
                        return;
                    }
                    let mut union = self.compare(&answers, &used, warnings);
                    let (max, got) = (self.selection.series_max, union.count());
                    let wanted = union.wanted();
                    self.union = Some(union);
                    if got > max {
                        return self.over_series(max as u64, got as u64);
                    }
                    if !planted(Mistake::SkipFetch) {
                        self.fetch(now_ms, wanted, effects);
                    }
                }
            }
        }
        if self.fetches.values().all(|fetch| !fetch.incoming.open) {
            self.take_labels();
            self.end = Some(Ok(()));
        }
    }

    /// Replicas say what they have beside the own copy: without it, that means nothing.
    fn void(&self, answers: &BTreeMap<Shard, Vec<Answer>>) -> Option<Error> {
        let is_relative = |shard: Shard, answer: &Answer| {
            answer.mode == Mode::Digests
                && self.incoming.get(&answer.number).is_some_and(|(_, got)| {
                    got.compared.equal.contains(shard) || got.compared.partly.contains(shard)
                })
        };
        let is_own = |answer: &Answer| answer.mode == Mode::Whole && answer.node == self.view.me;
        let lost = answers.iter().filter(|(shard, answers)| {
            answers.iter().any(|answer| is_relative(**shard, answer)) && !answers.iter().any(is_own)
        });
        let shards: Vec<u16> = lost.map(|(shard, _)| shard.0).collect();
        let missing =
            vec![format!("{} (its own copy could not be read)", self.coordinator.name_of(self.view.me))];
        (!shards.is_empty()).then_some(Error::Unavailable { shards, have: 0, need: 1, missing })
    }

    /// Whether everything that has to be compared has been hashed; what has not is begun.
    fn hash_own(&mut self, used: &Used, effects: &mut Vec<Effect>) -> bool {
        let mut needed: Vec<(ShardSet, TimeRange)> = Vec::new();
        let mut full = ShardSet::default();
        let owned = |shard: &Shard| self.own.iter().any(|own| own.shards.contains(*shard));
        for (number, (mode, node, covered)) in &used.0 {
            if *node == self.view.me {
                continue;
            }
            let Compared { equal, partly, range } = match mode {
                Mode::Digests => &self.incoming[number].1.compared,
                Mode::Whole => &Compared::default(),
            };
            let rest = covered.iter().filter(|shard| !equal.contains(*shard) && !partly.contains(*shard));
            full.extend(rest.filter(owned));
            needed.extend(range.map(|range| (partly.clone(), range)));
        }
        if !full.is_empty() {
            needed.push((full, self.selection.range));
        }
        let mut is_ready = true;
        for (shards, range) in needed {
            let known = self.stretches.iter().find(|known| known.shards == shards && known.range == range);
            is_ready &= known.is_some_and(|known| known.digests.is_some());
            if known.is_none() {
                let sets = self.own.iter().map(|own| own.set.clone()).collect();
                let number = self.stretches.len() as u32;
                let work = OwnWork::Digests { sets, shards: shards.clone(), range };
                effects.push(Effect::Own(OwnAsk { number, work }));
                self.stretches.push(Stretch { shards, range, digests: None });
            }
        }
        is_ready
    }

    fn own_digests(&self, is_it: impl Fn(&Stretch) -> bool) -> Option<&[u64]> {
        self.stretches.iter().find(|stretch| is_it(stretch)).and_then(|stretch| stretch.digests.as_deref())
    }

    /// The labels of series that only others have came with what was fetched.
    fn take_labels(&mut self) {
        let union = self.union.as_mut().expect("BUG: nothing was compared");
        for packed in self.fetches.values_mut().flat_map(|fetch| &mut fetch.rows.sections) {
            if let Some(labels) = packed.labels.take() {
                let at = union.index[&packed.id] as usize - union.owned;
                union.others[at].1 = labels;
            }
        }
    }

    fn fetch(&mut self, now_ms: u64, wanted: Vec<Wanted>, effects: &mut Vec<Effect>) {
        for Wanted { node, range, groups } in wanted {
            for groups in requests(groups) {
                let number = self.fetch_number;
                self.fetch_number += 1;
                let shards: ShardSet = groups.iter().map(|group| group.shard).collect();
                let wanted = groups.iter().flat_map(|g| g.series.iter().map(|id| (*id, (g.labels, false))));
                let wanted = wanted.collect();
                let incoming = Incoming::new(shards);
                let fetch = Fetch { node, incoming, wanted, rows: Received::default(), heard_ms: now_ms };
                self.fetches.insert(number, fetch);
                effects.push(self.send(now_ms, number, node, Body::Fetch { range, groups }));
            }
        }
    }

    /// Joins what was answered, and finds what has to be fetched from whom.
    fn compare(&self, answers: &BTreeMap<Shard, Vec<Answer>>, used: &Used, warnings: Vec<String>) -> Union {
        let shards = self.view.shards();
        let mut union = Union::default();
        union.warnings = warnings;
        let brings = |(number, (mode, node, _)): (&u32, &(Mode, NodeId, ShardSet))| {
            *node != self.view.me && (*mode == Mode::Whole || !self.incoming[number].1.digests.is_empty())
        };
        let is_joined = used.0.iter().any(brings);
        for own in &self.own {
            if is_joined {
                let first = union.owned;
                union.index.reserve(own.set.len());
                union.index.extend((0..own.set.len()).map(|i| (own.set.id(i), (first + i) as u32)));
            }
            union.owned += own.set.len();
        }
        union.digests.resize(union.owned, 0);
        for full in self.stretches.iter().filter(|stretch| stretch.range == self.selection.range) {
            let digests = union.digests.iter_mut().zip(full.digests.iter().flatten());
            digests.filter(|(_, digest)| **digest != 0).for_each(|(known, digest)| *known = *digest);
        }
        for (number, (mode, node, covered)) in &used.0 {
            if *mode == Mode::Whole && *node != self.view.me {
                union.add_whole(*number, &self.incoming[number].1.rows.sections, shards, covered);
            }
        }
        for (number, (mode, node, covered)) in &used.0 {
            if *mode == Mode::Whole {
                continue;
            }
            let got = &self.incoming[number].1;
            let Compared { partly, range, .. } = &got.compared;
            let own = range.and_then(|range| self.own_digests(|s| s.range == range && s.shards == *partly));
            for &(id, digest) in &got.digests {
                let shard = id.shard(shards);
                if !covered.contains(shard) || !self.has_whole(answers, shard) {
                    continue;
                }
                let (range, own) = match range {
                    Some(range) if partly.contains(shard) => (*range, own),
                    _ => (self.selection.range, None),
                };
                union.add_digest((*node, shard, range), (id, digest), own);
            }
        }
        union
    }

    /// A shard that only digests came of, in a partial answer, has nothing to compare them with.
    fn has_whole(&self, answers: &BTreeMap<Shard, Vec<Answer>>, shard: Shard) -> bool {
        answers.get(&shard).is_some_and(|answers| answers.iter().any(|answer| answer.mode == Mode::Whole))
    }
}

/// Which shards each answer counts for, by ask.
struct Used(BTreeMap<u32, (Mode, NodeId, ShardSet)>);

impl Used {
    fn new(answers: &BTreeMap<Shard, Vec<Answer>>) -> Used {
        let mut used: BTreeMap<u32, (Mode, NodeId, ShardSet)> = BTreeMap::new();
        for (shard, answers) in answers {
            for answer in answers {
                let entry = used.entry(answer.number);
                entry.or_insert((answer.mode, answer.node, ShardSet::default())).2.insert(*shard);
            }
        }
        Used(used)
    }
}

/// Groups in requests of a bounded size.
fn requests(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut requests = vec![Vec::new()];
    let mut room = FETCH_SERIES_MAX;
    for group in groups {
        let mut rest = &group.series[..];
        while !rest.is_empty() {
            if room == 0 {
                requests.push(Vec::new());
                room = FETCH_SERIES_MAX;
            }
            let (series, behind) = rest.split_at(rest.len().min(room));
            let last = requests.last_mut().expect("BUG: no request");
            last.push(Group { shard: group.shard, labels: group.labels, series: series.to_vec() });
            room -= series.len();
            rest = behind;
        }
    }
    requests.retain(|request| !request.is_empty());
    requests
}

pub(super) fn over_bytes(max: u64, got: u64) -> Error {
    Error::Limit {
        what: "bytes fetched from other nodes by one query",
        key: "limits.query_fetch_bytes_max",
        max,
        got,
    }
}
