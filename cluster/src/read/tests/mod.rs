//! Replicas in memory, a network whose every step is chosen, and time that passes only when nothing else happens.

mod laws;
mod refusals;
mod shell;

use super::*;
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::testing::{KEY, Memory, labels, view};
use crate::view::View;
use model::{Error, LabelQuery, Labels, Matcher, Samples, Selection, SeriesSet, Shard, TimeRange};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub const ME: NodeId = NodeId(1);
pub const RANGE: TimeRange = TimeRange { min: model::Timestamp(0), max: model::Timestamp(1_000_000) };

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Well,
    /// Cannot be reached.
    Gone,
    /// Never says anything.
    Silent,
    /// Answers as many requests, and is gone then.
    GoesAfter(u32),
    /// Its answers end in the middle.
    CutOff,
}

/// Changes what a node answers.
pub type Tamper = fn(&mut Vec<u8>);

pub struct World {
    pub view: View,
    pub nodes: BTreeMap<NodeId, Memory>,
    pub fates: BTreeMap<NodeId, Fate>,
    pub tamper: Option<(NodeId, Tamper)>,
    /// Views of nodes that know another placement.
    pub views: BTreeMap<NodeId, View>,
    /// What was asked of whom.
    pub log: RefCell<Vec<(NodeId, String)>>,
}

/// A part of an answer, or why there are no more.
type Part = Result<Vec<u8>, String>;

impl World {
    pub fn new(nodes: u128, replication_factor: u8, shards: u32) -> World {
        World {
            view: view(ME.0, nodes, replication_factor, shards),
            nodes: (1..=nodes).map(|id| (NodeId(id), Memory::new(shards))).collect(),
            fates: BTreeMap::new(),
            tamper: None,
            views: BTreeMap::new(),
            log: RefCell::default(),
        }
    }

    pub fn shard(&self, series: &Labels) -> Shard {
        KEY.id(series.as_bytes()).shard(self.view.shards())
    }

    pub fn replicas(&self, shard: Shard) -> Vec<NodeId> {
        self.view.placement.replicas(shard).iter().map(|replica| replica.node).collect()
    }

    pub fn fate(&self, node: NodeId) -> Fate {
        self.fates.get(&node).copied().unwrap_or(Fate::Well)
    }

    pub fn view_of(&self, node: NodeId) -> View {
        let view = self.views.get(&node).unwrap_or(&self.view);
        View { me: node, ..view.clone() }
    }

    pub fn answer(&self, node: NodeId, request: &[u8]) -> VecDeque<Result<Vec<u8>, String>> {
        let mut chunks = VecDeque::new();
        let mut emit = |chunk: Vec<u8>| {
            chunks.push_back(Ok(chunk));
            Ok(())
        };
        serve(&self.view_of(node), &self.nodes[&node], request, 1, &|| 0, &mut emit).unwrap_or(());
        if let Some((liar, tamper)) = self.tamper
            && liar == node
        {
            chunks.iter_mut().flatten().for_each(tamper);
        }
        if self.fate(node) == Fate::CutOff {
            chunks.pop_back();
        }
        chunks.push_back(Err("the connection ended".into()));
        chunks
    }

    pub fn plan(&self) -> Plan {
        Plan {
            consistency: Consistency::Majority,
            partial: false,
            digests: true,
            hedge_after_ms: 50,
            deadline_ms: 1000,
            load: BTreeMap::new(),
        }
    }

    pub fn select(&self, plan: Plan, order: &mut dyn FnMut(usize) -> usize) -> Result<Set, Error> {
        self.select_within(plan, 1 << 20, order)
    }

    pub fn select_within(
        &self,
        plan: Plan,
        fetch_bytes_max: u64,
        order: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Set, Error> {
        let matchers = vec![Matcher::equal("__name__", "m")];
        let selection = Selection { matchers, range: RANGE, series_max: 1000, shards: None };
        let mut select =
            Select::new(Arc::new(self.view.clone()), selection, plan, Bounds { fetch_bytes_max });
        self.drive(&mut select, order);
        select.finish()
    }

    pub fn lookup(
        &self,
        what: What,
        limit: Option<usize>,
        plan: Plan,
        order: &mut dyn FnMut(usize) -> usize,
    ) -> Lookup {
        let query = LabelQuery { selectors: vec![], range: RANGE, limit, shards: None };
        let bounds = Bounds { fetch_bytes_max: 1 << 20 };
        let mut lookup = Lookup::new(Arc::new(self.view.clone()), what, query, plan, bounds);
        self.drive(&mut lookup, order);
        lookup
    }

    fn drive(&self, machine: &mut impl Machine, order: &mut dyn FnMut(usize) -> usize) {
        let mut now = 0;
        let mut todo: VecDeque<Effect> = machine.step(now, Event::Tick).into();
        let mut streams: Vec<(u32, VecDeque<Part>)> = Vec::new();
        let mut served: BTreeMap<NodeId, u32> = BTreeMap::new();
        for _ in 0..100_000 {
            if machine.is_done() {
                return;
            }
            while let Some(effect) = todo.pop_front() {
                match effect {
                    Effect::Own(ask) => {
                        let answer = ask.perform(&self.view, &self.nodes[&ME], 1, &|| false);
                        todo.extend(machine.step(now, Event::Own { number: ask.number, answer }));
                    }
                    Effect::Send { number, to, request, .. } => {
                        let body = format!("{:?}", Request::decode(&request).unwrap().body);
                        self.log.borrow_mut().push((to, body));
                        let count = served.entry(to).or_default();
                        *count += 1;
                        let stream = match self.fate(to) {
                            Fate::Silent => continue,
                            Fate::Gone => VecDeque::from([Err("connection refused".into())]),
                            Fate::GoesAfter(n) if *count > n => VecDeque::from([Err("reset".into())]),
                            _ => self.answer(to, &request),
                        };
                        streams.push((number, stream));
                    }
                }
            }
            if streams.is_empty() {
                let wake = machine.wake_at_ms();
                assert!(wake > now || now == 0, "time does not pass");
                now = wake;
                todo.extend(machine.step(now, Event::Tick));
                continue;
            }
            let at = order(streams.len());
            let (number, stream) = &mut streams[at];
            let event = match stream.pop_front().unwrap() {
                Ok(bytes) => Event::Chunk { number: *number, bytes },
                Err(why) => Event::Failed { number: *number, why },
            };
            if stream.is_empty() {
                streams.remove(at);
            }
            todo.extend(machine.step(now, event));
        }
        panic!("the read does not end");
    }
}

pub trait Machine {
    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect>;
    fn wake_at_ms(&self) -> u64;
    fn is_done(&self) -> bool;
}

impl Machine for Select {
    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        Select::step(self, now_ms, event)
    }
    fn wake_at_ms(&self) -> u64 {
        Select::wake_at_ms(self)
    }
    fn is_done(&self) -> bool {
        Select::is_done(self)
    }
}

impl Machine for Lookup {
    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        Lookup::step(self, now_ms, event)
    }
    fn wake_at_ms(&self) -> u64 {
        Lookup::wake_at_ms(self)
    }
    fn is_done(&self) -> bool {
        Lookup::is_done(self)
    }
}

/// Deterministic numbers below a bound.
pub fn order(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |bound| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    }
}

/// By labels and time.
pub type Content = BTreeMap<(String, i64), u64>;

/// Everything in a set, read as a whole and in two halves.
pub fn content(set: &dyn SeriesSet) -> Content {
    let mut content = Content::new();
    let mut samples = Samples::default();
    for index in 0..set.len() {
        let labels = set.labels(index).to_string();
        assert_eq!(KEY.id(set.labels(index).as_bytes()), set.id(index));
        set.read(index, RANGE, &mut samples).unwrap();
        let rows = |samples: &Samples| -> Vec<(i64, u64)> {
            samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect()
        };
        let whole = rows(&samples);
        let mut halves = Vec::new();
        for range in [TimeRange::new(0, 40), TimeRange::new(41, i64::MAX)] {
            set.read(index, range, &mut samples).unwrap();
            halves.extend(rows(&samples));
        }
        assert_eq!(whole, halves);
        for (t, bits) in whole {
            let twice = content.insert((labels.clone(), t), bits);
            assert!(twice.is_none(), "{labels} at {t} twice");
        }
    }
    content
}

pub fn series(number: u32) -> Labels {
    labels("m", &[("s", &number.to_string())])
}

#[test]
fn a_node_alone_asks_nobody() {
    let world = World::new(1, 3, 4);
    world.nodes[&ME].put(&series(1), &[(10, 1.0)]);
    let set = world.select(world.plan(), &mut order(1)).unwrap();
    assert_eq!(content(&set).len(), 1);
    assert!(world.log.borrow().is_empty());
}

#[test]
fn equal_copies_are_compared_by_digests_and_no_row_travels() {
    let world = World::new(3, 3, 4);
    for number in 0..20 {
        world
            .nodes
            .values()
            .for_each(|node| node.put(&series(number), &[(10, 1.0), (20, f64::from(number))]));
    }
    let set = world.select(world.plan(), &mut order(1)).unwrap();
    assert_eq!(content(&set).len(), 40);
    assert!(set.differing().is_empty() && set.chunks.is_empty());
    let log = world.log.borrow();
    assert!(log.iter().all(|(_, body)| body.contains("mode: Digests")), "{log:?}");
    let mut asked: Vec<NodeId> = log.iter().map(|(node, _)| *node).collect();
    asked.sort();
    assert_eq!(asked, [NodeId(2), NodeId(3)], "the others share the work");
}

#[test]
fn only_series_that_differ_are_fetched() {
    let world = World::new(2, 2, 4);
    for number in 0..20 {
        world.nodes.values().for_each(|node| node.put(&series(number), &[(10, 1.0)]));
    }
    world.nodes[&NodeId(2)].put(&series(7), &[(11, 7.0)]);
    world.nodes[&NodeId(2)].put(&series(30), &[(12, 30.0)]);
    world.nodes[&ME].put(&series(8), &[(13, 8.0)]);
    let set = world.select(world.plan(), &mut order(1)).unwrap();
    let content = content(&set);
    assert_eq!(content.len(), 23);
    for (number, t, v) in [(7, 11, 7.0f64), (30, 12, 30.0), (8, 13, 8.0)] {
        assert_eq!(content[&(series(number).to_string(), t)], v.to_bits());
    }
    // Series 8 is here more than there: it is fetched, too, since who has more cannot be seen from digests.
    assert_eq!(set.parts.len(), 3);
    assert!(set.differing().contains(world.shard(&series(7))));
}

#[test]
fn shards_without_a_copy_here_are_read_from_others() {
    let world = World::new(6, 3, 8);
    let mut expected = 0;
    for number in 0..40 {
        for node in world.replicas(world.shard(&series(number))) {
            let rows: Vec<(i64, f64)> = (0..50).map(|t| (t, t as f64 + 0.5)).collect();
            world.nodes[&node].put(&series(number), &rows);
        }
        expected += 50;
    }
    let set = world.select(world.plan(), &mut order(3)).unwrap();
    assert_eq!(content(&set).len(), expected);
    let mut names =
        world.lookup(What::Values("s".into()), None, world.plan(), &mut order(1)).texts().unwrap();
    names.items.dedup();
    assert_eq!(names.items.len(), 40);
    let few = world.lookup(What::Series, Some(7), world.plan(), &mut order(1)).series().unwrap();
    assert!(few.truncated && few.items.len() == 7 && few.items.is_sorted());
    assert_eq!(few.items[0], series(0));
    assert_eq!(
        world.lookup(What::Names, None, world.plan(), &mut order(1)).texts().unwrap().items,
        ["__name__", "s"]
    );
}

#[test]
fn a_long_series_travels_in_small_chunks() {
    let mut world = World::new(2, 1, 1);
    let holder = world.replicas(Shard(0))[0];
    let other = if holder == ME { NodeId(2) } else { ME };
    world.view.me = other;
    let rows: Vec<(i64, f64)> = (0..100_000).map(|t| (t, (t as f64).sqrt())).collect();
    world.nodes[&holder].put(&series(1), &rows);
    let selection = Selection {
        matchers: vec![],
        range: RANGE,
        series_max: 10,
        shards: Some([Shard(0)].into_iter().collect()),
    };
    let body = Body::Select { selection, mode: Mode::Whole, damaged: false, summaries: Summaries::new() };
    let request = Request { epoch: world.view.epoch(), timeout_ms: 1000, body }.encode();
    let chunks = world.answer(holder, &request);
    assert!(chunks.len() > 3 && chunks.iter().flatten().all(|chunk| chunk.len() < 1 << 20));
    if other == ME {
        let set = world.select(world.plan(), &mut order(1)).unwrap();
        assert_eq!(content(&set).len(), rows.len());
    }
}
