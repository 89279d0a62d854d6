//! One select as a state machine: who is asked, what is compared, what is fetched.
//!
//! ```text
//! ask ─► own series, digests, whole answers ─► compare ─► fetch what differs ─► set
//!            ▲                                              │ a node went away meanwhile
//!            └──────────────────────────────────────────────┘
//! ```
//!
//! Equality is established once, for the whole range of the selection; after that, reading costs what it costs on a single node.

use super::answer::{Incoming, Packed, Received, Rules, Taken};
use super::coordinator::{self, Answer, Ask, Coordinator, Mode, Outcome, Plan, Why};
use super::digests::half;
use super::packed::Unpacker;
use super::serve::Own;
use super::set::{Part, Set};
use super::wire::{Body, Chunk, Group, Request};
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::view::View;
use model::{Digest, Error, Selection, SeriesId, Shard, ShardSet};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Something to do for a read.
#[derive(Debug)]
pub enum Effect {
    /// Read the node's own replica with [`Own::select`]; [`Event::Own`] is the answer.
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

/// What is read of the node's own replica.
#[derive(Clone, Debug)]
pub struct OwnAsk {
    /// For [`Event::Own`].
    pub number: u32,
    /// Of these shards.
    pub shards: ShardSet,
    /// Also where samples may be missing.
    pub damaged: bool,
    /// Whether it will be compared with other copies.
    pub digests: bool,
    /// What.
    pub selection: Selection,
}

/// What happened.
pub enum Event {
    /// The node's own replica answered.
    Own {
        /// The ask's number.
        number: u32,
        /// What it gave.
        result: Result<Own, Error>,
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
    /// Usually one; a copy with gaps is read apart.
    own: Vec<Own>,
    incoming: BTreeMap<u32, (Incoming, Got)>,
    union: Option<Union>,
    fetches: BTreeMap<u32, Fetch>,
    fetch_number: u32,
    begun: bool,
    end: Option<Result<(), Error>>,
}

/// What one replica answered.
#[derive(Default)]
struct Got {
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
            own: Vec::new(),
            incoming: BTreeMap::new(),
            union: None,
            fetches: BTreeMap::new(),
            fetch_number: FETCHES,
            begun: false,
            end: None,
        }
    }

    /// Takes what happened and gives what is to be done.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        if self.end.is_some() {
            return Vec::new();
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.share_time(now_ms);
        }
        let asks = match event {
            Event::Own { number, result } => self.own(now_ms, number, result),
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
        self.begin(now_ms, asks, &mut effects);
        self.settle(now_ms, &mut effects);
        effects
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
        matches!(self.end, Some(Err(Error::Unavailable { .. }))) && self.coordinator.is_behind()
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
            let Ask { number, node, shards, mode, damaged } = ask;
            if node == self.view.me {
                let digests = self.plan.consistency != crate::quorum::Consistency::One
                    && shards.iter().any(|shard| self.view.placement.replicas(shard).len() > 1);
                let selection = self.selection.clone();
                effects.push(Effect::Own(OwnAsk { number, shards, damaged, digests, selection }));
                continue;
            }
            self.incoming.insert(number, (Incoming::new(shards.clone()), Got::default()));
            let selection = Selection { shards: Some(shards), ..self.selection.clone() };
            let body = Body::Select { selection, mode, damaged };
            effects.push(self.send(now_ms, number, node, body));
        }
    }

    fn send(&self, now_ms: u64, number: u32, to: NodeId, body: Body) -> Effect {
        let timeout_ms = self.plan.deadline_ms.saturating_sub(now_ms);
        let request = Request { epoch: self.view.epoch(), timeout_ms, body }.encode();
        Effect::Send { number, to, request, timeout_ms }
    }

    fn own(&mut self, now_ms: u64, number: u32, result: Result<Own, Error>) -> Vec<Ask> {
        let event = match result {
            Ok(own) => {
                let (shards, refused) = (own.shards.clone(), own.refused.clone());
                self.own.push(own);
                coordinator::Event::Answered { number, shards, refused }
            }
            Err(error @ Error::Limit { .. }) => {
                self.end = Some(Err(error));
                return Vec::new();
            }
            Err(error) => coordinator::Event::Failed { number, why: Why::Failed(error.to_string()) },
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
            Taken::Content(Chunk::Digests(digests)) => {
                let right = digests.iter().all(|(id, _)| incoming.covers(id.shard(shards)));
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
                    let (union, groups) = self.compare(&answers, warnings);
                    let (max, got) = (self.selection.series_max, union.count());
                    self.union = Some(union);
                    if got > max {
                        return self.over_series(max as u64, got as u64);
                    }
                    if !planted(Mistake::SkipFetch) {
                        self.fetch(now_ms, groups, effects);
                    }
                }
            }
        }
        if self.fetches.values().all(|fetch| !fetch.incoming.open) {
            self.take_labels();
            self.end = Some(Ok(()));
        }
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

    fn fetch(&mut self, now_ms: u64, groups: BTreeMap<NodeId, Vec<Group>>, effects: &mut Vec<Effect>) {
        for (node, groups) in groups {
            for groups in requests(groups) {
                let number = self.fetch_number;
                self.fetch_number += 1;
                let shards: ShardSet = groups.iter().map(|group| group.shard).collect();
                let wanted = groups.iter().flat_map(|g| g.series.iter().map(|id| (*id, (g.labels, false))));
                let wanted = wanted.collect();
                let incoming = Incoming::new(shards);
                let fetch = Fetch { node, incoming, wanted, rows: Received::default(), heard_ms: now_ms };
                self.fetches.insert(number, fetch);
                let body = Body::Fetch { range: self.selection.range, groups };
                effects.push(self.send(now_ms, number, node, body));
            }
        }
    }

    /// Joins what was answered, and finds what has to be fetched from whom.
    fn compare(
        &self,
        answers: &BTreeMap<Shard, Vec<Answer>>,
        warnings: Vec<String>,
    ) -> (Union, BTreeMap<NodeId, Vec<Group>>) {
        let shards = self.view.shards();
        // Which shards each answer counts for.
        let mut used: BTreeMap<u32, (Mode, NodeId, ShardSet)> = BTreeMap::new();
        for (shard, answers) in answers {
            for answer in answers {
                let entry = used.entry(answer.number);
                entry.or_insert((answer.mode, answer.node, ShardSet::default())).2.insert(*shard);
            }
        }
        let mut union = Union { warnings, ..Union::default() };
        let is_alone = used.values().all(|(_, node, _)| *node == self.view.me);
        for own in &self.own {
            if !is_alone {
                let first = union.owned;
                union.index.reserve(own.set.len());
                union.index.extend((0..own.set.len()).map(|i| (own.set.id(i), (first + i) as u32)));
                union.digests.extend(&own.digests);
                // Not compared, if none were asked for: everything differs.
                union.digests.resize(first + own.set.len(), 0);
            }
            union.owned += own.set.len();
        }
        for (number, (mode, node, covered)) in &used {
            if *mode == Mode::Whole && *node != self.view.me {
                union.add_whole(*number, &self.incoming[number].1.rows.sections, shards, covered);
            }
        }
        let mut groups: BTreeMap<(NodeId, Shard, bool), Vec<SeriesId>> = BTreeMap::new();
        let mut planned: BTreeSet<(SeriesId, u64)> = BTreeSet::new();
        for (number, (mode, node, covered)) in &used {
            if *mode == Mode::Whole {
                continue;
            }
            for &(id, digest) in &self.incoming[number].1.digests {
                let shard = id.shard(shards);
                if !covered.contains(shard) || !self.has_whole(answers, shard) {
                    continue;
                }
                if let Some(labels) = union.add_digest(id, digest, &mut planned) {
                    union.differing.insert(shard);
                    groups.entry((*node, shard, labels)).or_default().push(id);
                }
            }
        }
        let mut by_node: BTreeMap<NodeId, Vec<Group>> = BTreeMap::new();
        for ((node, shard, labels), mut series) in groups {
            series.sort_unstable();
            by_node.entry(node).or_default().push(Group { shard, labels, series });
        }
        (union, by_node)
    }

    /// A shard that only digests came of, in a partial answer, has nothing to compare them with.
    fn has_whole(&self, answers: &BTreeMap<Shard, Vec<Answer>>, shard: Shard) -> bool {
        answers.get(&shard).is_some_and(|answers| answers.iter().any(|answer| answer.mode == Mode::Whole))
    }
}

/// Everything that was answered, by series.
#[derive(Default)]
struct Union {
    /// How many series the node's own replica has; they come first.
    owned: usize,
    index: HashMap<SeriesId, u32, ById>,
    /// Of the first copy of each series.
    digests: Vec<u64>,
    others: Vec<(SeriesId, model::Labels)>,
    parts: Vec<Part>,
    /// By ask: series, and which section.
    whole: BTreeMap<u32, Vec<(u32, u32)>>,
    warnings: Vec<String>,
    differing: ShardSet,
}

impl Union {
    fn count(&self) -> usize {
        self.owned + self.others.len()
    }

    fn other(&mut self, id: SeriesId, labels: model::Labels, digest: u64) -> u32 {
        let series = self.count() as u32;
        self.others.push((id, labels));
        self.index.insert(id, series);
        self.digests.resize(series as usize, 0);
        self.digests.push(digest);
        series
    }

    fn add_whole(&mut self, number: u32, sections: &[Packed], shards: u32, covered: &ShardSet) {
        let mut rows = Vec::new();
        // A series' sections stand together.
        let mut next = 0;
        for same in sections.chunk_by(|a, b| a.id == b.id) {
            let first = next;
            next += same.len();
            let id = same[0].id;
            if !covered.contains(id.shard(shards)) {
                continue;
            }
            let digest = half(same.iter().map(|packed| packed.digest).sum::<Digest>());
            let series = match self.index.get(&id) {
                Some(series) if self.digests[*series as usize] == digest => continue,
                Some(series) => {
                    self.differing.insert(id.shard(shards));
                    *series
                }
                None => {
                    let labels = same[0].labels.clone();
                    self.other(id, labels.expect("BUG: rows without labels were let in"), digest)
                }
            };
            rows.extend((first..first + same.len()).map(|at| (series, at as u32)));
        }
        self.whole.insert(number, rows);
    }

    /// Whether a series that another copy has must be fetched from it, and with its labels.
    fn add_digest(
        &mut self,
        id: SeriesId,
        digest: u64,
        planned: &mut BTreeSet<(SeriesId, u64)>,
    ) -> Option<bool> {
        match self.index.entry(id) {
            Entry::Occupied(known) if self.digests[*known.get() as usize] == digest => None,
            Entry::Occupied(_) => planned.insert((id, digest)).then_some(false),
            Entry::Vacant(_) => {
                self.other(id, model::Labels::default(), digest);
                Some(true)
            }
        }
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

/// An id is a hash already.
#[derive(Default)]
pub(super) struct IdHasher(u64);

pub(super) type ById = BuildHasherDefault<IdHasher>;

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("BUG: an id is hashed as a number");
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
