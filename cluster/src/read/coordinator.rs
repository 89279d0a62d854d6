//! Who is asked for which shard, until enough copies have answered.
//!
//! ```text
//!                  ┌ silence ─► slow: counts as missing, so the next one is asked; it may still answer
//! asked ─► pending ┼ answered: whole or digests
//!                  └ failed (refused, damaged, late, gone): the next one is asked
//! ```
//!
//! A shard is settled when enough replicas have answered and one of them gave everything (*whole*): the others are asked for digests only,
//! and are compared with it. It is lost when nobody is left who could be asked.
//!
//! Invariants: a node is asked for a shard once in each mode; only readers of the placement are asked, and only their answers count; what
//! was damaged counts only where there is no other copy.

use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::quorum::{Consistency, readers};
use crate::view::{Health, View};
use model::{Error, Shard, ShardSet};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is wanted of one read.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many copies must answer.
    pub consistency: Consistency,
    /// Whether a shard with too few answers is given as far as it goes, with a warning.
    pub partial: bool,
    /// Whether copies are compared by digests; else all give everything.
    pub digests: bool,
    /// A replica that has been silent for so long is not waited for alone.
    pub hedge_after_ms: u64,
    /// When whoever has not answered has failed, on the caller's clock.
    pub deadline_ms: u64,
    /// What is under way at other nodes, in any unit; of equally near ones the least loaded is asked.
    pub load: BTreeMap<NodeId, u64>,
}

/// What a replica is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Everything.
    Whole,
    /// A digest of each series.
    Digests,
}

/// A request to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its number in this read.
    pub number: u32,
    /// Whom; the node itself too.
    pub node: NodeId,
    /// For which shards.
    pub shards: ShardSet,
    /// For what of them.
    pub mode: Mode,
    /// Also where the replica knows that samples may be missing.
    pub damaged: bool,
}

/// Why a replica's answer is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has bytes there that failed their checksum.
    Damaged(String),
    /// It says that it has no copy of the shard that could be read.
    NotHeld,
    /// It has a newer placement; the epoch.
    Stale(u64),
    /// It has an older placement; the epoch.
    Behind(u64),
    /// It did not answer in time.
    TimedOut,
    /// It could not be asked, or failed.
    Failed(String),
    /// Its answer makes no sense.
    Malformed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Damaged(what) => write!(f, "damaged: {what}"),
            Why::NotHeld => f.write_str("it holds no copy"),
            Why::Stale(epoch) => write!(f, "it knows the newer placement {epoch}"),
            Why::Behind(epoch) => write!(f, "it knows only the older placement {epoch}"),
            Why::TimedOut => f.write_str("timed out"),
            Why::Failed(what) => f.write_str(what),
            Why::Malformed(what) => write!(f, "its answer was refused: {what}"),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A part of an answer arrived.
    Heard {
        /// Of which ask.
        number: u32,
    },
    /// An answer is complete.
    Answered {
        /// Of which ask.
        number: u32,
        /// The shards that it covers.
        shards: ShardSet,
        /// Those that it does not, and why.
        refused: Vec<(Shard, Why)>,
    },
    /// There will be no answer.
    Failed {
        /// To which ask.
        number: u32,
        /// Why.
        why: Why,
    },
    /// What a node answered cannot be used any more: it is gone before it gave the rest.
    Withdrawn {
        /// Which.
        node: NodeId,
        /// Why.
        why: Why,
    },
    /// Time has passed.
    Tick,
}

/// Who answered for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To which ask.
    pub number: u32,
    /// Who.
    pub node: NodeId,
    /// What.
    pub mode: Mode,
}

/// How a read ends.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every shard has enough answers, or as many as there are and that was allowed.
    Done {
        /// By shard, in the order in which they arrived.
        answers: BTreeMap<Shard, Vec<Answer>>,
        /// What is missing.
        warnings: Vec<String>,
    },
    /// Too few copies answered, and that was not allowed.
    Unavailable(Error),
}

#[derive(Clone, Debug)]
enum State {
    Pending { mode: Mode, number: u32 },
    Answered { mode: Mode, number: u32 },
    Failed(Why),
}

#[derive(Clone, Debug)]
struct Tried {
    node: NodeId,
    state: State,
    /// Asked for what may be incomplete, too.
    damaged: bool,
    /// Answered before in the other mode.
    again: bool,
}

struct Reading {
    need: usize,
    replicas: usize,
    /// Not asked yet, the next one last.
    candidates: Vec<NodeId>,
    /// In the order of asking, and of answering for those that answered.
    tried: Vec<Tried>,
}

/// Of the time that is left, the part that this node has for reading its own replica before somebody else is asked: one in so many.
const OWN_PATIENCE: u64 = 3;

struct Pending {
    node: NodeId,
    heard_ms: u64,
    /// After so long a silence somebody else is asked as well.
    patience_ms: u64,
    slow: bool,
    open: bool,
}

/// Decides on one read. See the module's page.
pub struct Coordinator {
    me: NodeId,
    plan: Plan,
    names: BTreeMap<NodeId, String>,
    /// The nodes that seem to be well.
    well: BTreeSet<NodeId>,
    shards: BTreeMap<Shard, Reading>,
    asks: Vec<Pending>,
}

impl Coordinator {
    /// A read of some shards under a view.
    pub fn new(view: &View, shards: &ShardSet, plan: Plan) -> Coordinator {
        let zone = view.nodes.get(&view.me).map(|peer| &peer.zone);
        let reading = |shard: Shard| {
            let (may, need) = readers(view.placement.replicas(shard), plan.consistency);
            let need = if planted(Mistake::ReadOne) { 1 } else { need };
            let rank = |node: &NodeId| {
                let peer = view.nodes.get(node);
                let health = peer.map_or(Health::Down, |peer| peer.health);
                let near = peer.zip(zone).map_or(0, |(peer, zone)| peer.zone.common_depth(zone));
                let load = plan.load.get(node).copied().unwrap_or(0);
                (*node != view.me, health, Reverse(near), load, spread(shard, *node), *node)
            };
            let mut candidates = may;
            candidates.sort_by_key(rank);
            candidates.reverse();
            Reading { need, replicas: candidates.len(), candidates, tried: Vec::new() }
        };
        let names = view.nodes.iter().map(|(id, peer)| (*id, name(*id, &peer.address))).collect();
        let well =
            view.nodes.iter().filter(|(_, peer)| peer.health == Health::Up).map(|(id, _)| *id).collect();
        let shards = shards.iter().filter(|shard| u32::from(shard.0) < view.shards());
        let shards = shards.map(|shard| (shard, reading(shard))).collect();
        Coordinator { me: view.me, plan, names, well, shards, asks: Vec::new() }
    }

    /// Whoever has not answered until then has failed.
    pub(super) fn wait_until(&mut self, deadline_ms: u64) {
        self.plan.deadline_ms = deadline_ms;
    }

    /// Takes what happened and gives the requests to send; the first time with [`Event::Tick`].
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Ask> {
        match event {
            Event::Heard { number } => {
                if let Some(ask) = self.asks.get_mut(number as usize) {
                    (ask.heard_ms, ask.slow) = (now_ms, false);
                }
            }
            Event::Answered { number, shards, refused } => self.answered(number, &shards, refused),
            Event::Failed { number, why } => self.failed(number, &why),
            Event::Withdrawn { node, why } => {
                for tried in self.shards.values_mut().flat_map(|r| &mut r.tried).filter(|t| t.node == node) {
                    tried.state = State::Failed(why.clone());
                }
                self.asks.iter_mut().filter(|ask| ask.node == node).for_each(|ask| ask.open = false);
            }
            Event::Tick => {}
        }
        for number in 0..self.asks.len() {
            let ask = &mut self.asks[number];
            if ask.open && now_ms >= self.plan.deadline_ms {
                self.failed(number as u32, &Why::TimedOut);
            } else if ask.open && now_ms >= ask.heard_ms.saturating_add(ask.patience_ms) {
                ask.slow = true;
            }
        }
        self.ask(now_ms)
    }

    /// When the next [`Event::Tick`] is due, if anything is waited for.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let open = self.asks.iter().filter(|ask| ask.open);
        open.map(|ask| match ask.slow {
            true => self.plan.deadline_ms,
            false => self.plan.deadline_ms.min(ask.heard_ms.saturating_add(ask.patience_ms)),
        })
        .min()
    }

    /// What a node is called in messages.
    pub fn name_of(&self, node: NodeId) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| name(node, ""))
    }

    /// Whether the failures so far pass when the placement's change has reached everybody.
    pub fn is_behind(&self) -> bool {
        let passing = |why: &Why| matches!(why, Why::Stale(_) | Why::Behind(_) | Why::NotHeld);
        let mut tried = self.shards.values().flat_map(|reading| &reading.tried);
        tried.any(|tried| matches!(&tried.state, State::Failed(why) if passing(why)))
    }

    /// Whether for every shard that this node has answered for there is somebody well who was not asked yet.
    pub(super) fn can_do_without(&self, node: NodeId) -> bool {
        let answered = |reading: &&Reading| reading.tried.iter().any(|t| t.node == node && t.is_answered());
        let spare = |reading: &Reading| reading.candidates.iter().any(|node| self.well.contains(node));
        self.shards.values().filter(answered).all(spare)
    }

    /// How the read ends, when that is settled.
    pub fn outcome(&self) -> Option<Outcome> {
        let lost: Vec<(Shard, &Reading)> =
            self.shards.iter().filter(|(_, r)| r.is_lost()).map(|(s, r)| (*s, r)).collect();
        if !self.plan.partial && !lost.is_empty() {
            return Some(Outcome::Unavailable(self.unavailable(&lost)));
        }
        if !self.shards.values().all(|reading| reading.is_met() || reading.is_lost()) {
            return None;
        }
        let answers = self.shards.iter().map(|(shard, reading)| (*shard, reading.answers())).collect();
        let mut warnings = if planted(Mistake::SilentGaps) { Vec::new() } else { self.partial(&lost) };
        for (shard, reading) in &self.shards {
            for tried in reading.tried.iter().filter(|tried| tried.damaged && tried.is_answered()) {
                let node = self.name_of(tried.node);
                warnings.push(format!("shard {}: samples may be missing: {node} has damaged data", shard.0));
            }
        }
        Some(Outcome::Done { answers, warnings })
    }

    fn answered(&mut self, number: u32, covered: &ShardSet, refused: Vec<(Shard, Why)>) {
        if let Some(ask) = self.asks.get_mut(number as usize) {
            ask.open = false;
        }
        let refused: BTreeMap<Shard, Why> = refused.into_iter().collect();
        for (shard, reading) in &mut self.shards {
            let Some(at) = reading.pending(number) else { continue };
            let mut tried = reading.tried.remove(at);
            let State::Pending { mode, .. } = tried.state else { unreachable!("BUG: not pending") };
            tried.state = match refused.get(shard) {
                Some(why) => State::Failed(why.clone()),
                None if covered.contains(*shard) => State::Answered { mode, number },
                None => State::Failed(Why::Malformed("it says nothing of the shard".into())),
            };
            reading.tried.push(tried);
        }
    }

    fn failed(&mut self, number: u32, why: &Why) {
        if let Some(ask) = self.asks.get_mut(number as usize) {
            ask.open = false;
        }
        for reading in self.shards.values_mut() {
            if let Some(at) = reading.pending(number) {
                reading.tried[at].state = State::Failed(why.clone());
            }
        }
    }

    /// Asks for what is still missing, one request for all shards that want the same of the same node.
    fn ask(&mut self, now_ms: u64) -> Vec<Ask> {
        if now_ms >= self.plan.deadline_ms {
            return Vec::new();
        }
        let mut wanted: BTreeMap<(NodeId, bool, bool), Vec<Shard>> = BTreeMap::new();
        let slow: Vec<bool> = self.asks.iter().map(|ask| ask.slow).collect();
        for (shard, reading) in &mut self.shards {
            for (node, mode, damaged) in reading.wanted(&slow, &self.plan) {
                wanted.entry((node, mode == Mode::Digests, damaged)).or_default().push(*shard);
            }
        }
        let mut asks = Vec::new();
        for ((node, digests, damaged), shards) in wanted {
            let number = self.asks.len() as u32;
            let mode = if digests { Mode::Digests } else { Mode::Whole };
            for shard in &shards {
                let reading = self.shards.get_mut(shard).expect("BUG: a shard that is not read");
                reading.begin(node, mode, damaged, number);
            }
            // What this node does itself takes its time because there is much of it; somebody else's rows would cost more than they save.
            let patience_ms = match node == self.me {
                true => (self.plan.deadline_ms - now_ms) / OWN_PATIENCE,
                false => self.plan.hedge_after_ms,
            };
            self.asks.push(Pending { node, heard_ms: now_ms, patience_ms, slow: false, open: true });
            asks.push(Ask { number, node, shards: shards.into_iter().collect(), mode, damaged });
        }
        asks
    }

    fn unavailable(&self, lost: &[(Shard, &Reading)]) -> Error {
        let worst = lost.iter().map(|(_, r)| r.lack()).max_by_key(|(have, need)| need - have);
        let (have, need) = worst.unwrap_or((0, 1));
        let mut missing = BTreeSet::new();
        for (_, reading) in lost {
            missing.extend(self.missing(reading));
        }
        Error::Unavailable {
            shards: lost.iter().map(|(shard, _)| shard.0).collect(),
            have: have as u8,
            need: need as u8,
            missing: missing.into_iter().collect(),
        }
    }

    /// One warning for all shards that lack the same.
    fn partial(&self, lost: &[(Shard, &Reading)]) -> Vec<String> {
        let mut alike: BTreeMap<(usize, usize, BTreeSet<String>), Vec<u16>> = BTreeMap::new();
        for (shard, reading) in lost {
            let (have, need) = reading.lack();
            let lacks = (have, need, self.missing(reading).collect());
            alike.entry(lacks).or_default().push(shard.0);
        }
        let warning = |((have, need, missing), shards): ((usize, usize, BTreeSet<String>), Vec<u16>)| {
            let missing = missing.into_iter().collect();
            let lack = Error::Unavailable { shards, have: have as u8, need: need as u8, missing };
            format!("samples may be missing: {lack}")
        };
        alike.into_iter().map(warning).collect()
    }

    fn missing<'a>(&'a self, reading: &'a Reading) -> impl Iterator<Item = String> + 'a {
        reading.tried.iter().filter_map(|tried| match &tried.state {
            State::Failed(why) => Some(format!("{} ({why})", self.name_of(tried.node))),
            _ => None,
        })
    }

    /// The node that an ask went to.
    pub fn node_of(&self, number: u32) -> Option<NodeId> {
        self.asks.get(number as usize).map(|ask| ask.node)
    }
}

impl Tried {
    fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }
}

impl Reading {
    fn pending(&self, number: u32) -> Option<usize> {
        let is = |tried: &Tried| matches!(tried.state, State::Pending { number: n, .. } if n == number);
        self.tried.iter().position(is)
    }

    fn answers(&self) -> Vec<Answer> {
        let answer = |tried: &Tried| match tried.state {
            State::Answered { mode, number } => Some(Answer { number, node: tried.node, mode }),
            _ => None,
        };
        self.tried.iter().filter_map(answer).collect()
    }

    /// How many answered, or did so before they were asked for more.
    fn have(&self) -> usize {
        self.tried.iter().filter(|t| self.counts(t)).count()
    }

    /// Have and need of a read that is lost. Digests compare rows and are none: where nobody brought the rows, one answer is missing,
    /// however many digests there are.
    fn lack(&self) -> (usize, usize) {
        (self.have().min(self.need - 1), self.need)
    }

    /// A damaged copy counts only where there is no other.
    fn counts(&self, tried: &Tried) -> bool {
        tried.is_answered() && (!tried.damaged || self.replicas == 1)
    }

    fn has_whole(&self) -> bool {
        self.tried.iter().any(|t| matches!(t.state, State::Answered { mode: Mode::Whole, .. }))
    }

    fn is_pending(&self) -> bool {
        self.tried.iter().any(|t| matches!(t.state, State::Pending { .. }))
    }

    fn is_met(&self) -> bool {
        self.have() >= self.need && self.has_whole()
    }

    /// [`Reading::wanted`] has found nobody else to ask.
    fn is_lost(&self) -> bool {
        !self.is_met() && !self.is_pending()
    }

    fn begin(&mut self, node: NodeId, mode: Mode, damaged: bool, number: u32) {
        self.candidates.retain(|candidate| *candidate != node);
        let again = self.tried.iter().any(|tried| tried.node == node);
        self.tried.retain(|tried| tried.node != node);
        self.tried.push(Tried { node, state: State::Pending { mode, number }, damaged, again });
    }

    /// Who is to be asked now, and for what.
    fn wanted(&self, slow: &[bool], plan: &Plan) -> Vec<(NodeId, Mode, bool)> {
        let awaited = |tried: &&Tried| match tried.state {
            State::Pending { number, .. } => !slow.get(number as usize).copied().unwrap_or(false),
            _ => false,
        };
        let awaited: Vec<&Tried> = self.tried.iter().filter(awaited).collect();
        let whole = |tried: &&Tried| matches!(tried.state, State::Pending { mode: Mode::Whole, .. });
        let mut has_whole = self.has_whole() || awaited.iter().any(whole);
        let mut have = self.have() + awaited.len();
        let mut wanted = Vec::new();
        for &node in self.candidates.iter().rev() {
            if have >= self.need && has_whole {
                return wanted;
            }
            let mode = if has_whole && plan.digests { Mode::Digests } else { Mode::Whole };
            wanted.push((node, mode, false));
            has_whole |= mode == Mode::Whole;
            have += 1;
        }
        if !wanted.is_empty() || self.is_pending() || (have >= self.need && has_whole) {
            return wanted;
        }
        // Nobody else is left. A copy with gaps is better than none where there is no other or what there is was asked for; and who gave
        // digests can give the rest, if that is still worth something.
        let gaps = |t: &&Tried| matches!(t.state, State::Failed(Why::Damaged(_))) && !t.damaged;
        if self.replicas == 1 || plan.partial {
            let mode = Mode::Whole;
            wanted.extend(self.tried.iter().filter(gaps).map(|tried| (tried.node, mode, true)));
        }
        if wanted.is_empty() && !has_whole && (have >= self.need || plan.partial) {
            let digests = self.tried.iter().find(|t| t.is_answered() && !t.again);
            wanted.extend(digests.map(|tried| (tried.node, Mode::Whole, false)));
        }
        wanted
    }
}

/// `127.0.0.1:7421`, or the id of a node without an address.
fn name(node: NodeId, address: &str) -> String {
    if address.is_empty() { format!("node {node}") } else { address.to_owned() }
}

/// Which of equal nodes is asked differs from shard to shard, so that they share the work.
fn spread(shard: Shard, node: NodeId) -> u64 {
    let mixed = (node.0 as u64 ^ (node.0 >> 64) as u64).wrapping_add(u64::from(shard.0) << 32 | 1);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}
