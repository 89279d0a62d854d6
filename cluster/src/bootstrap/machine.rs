//! Which bytes are asked for, from whom, and when.

use super::budget::Budget;
use super::event::{CopyProgress, Effect, Event, Filled, Options, Progress};
use super::fill::{Fill, Key, Phase, Stage, Tally};
use super::given_up::GivenUp;
use super::message::{Ask, PIECE_BYTES_MAX, Reply, Request};
use super::work::{Done, Local};
use crate::placement::{NodeId, Phase as MovePhase, ReplicaState};
use crate::repair::Level;
use crate::view::{Health, View};
use bytes::Bytes;
use model::{BLOCK_PAGE, Import, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Shards that are looked at together; more wait.
const FILLS_MAX: usize = 64;
/// Lists, and tails, of blocks that wait to be begun are asked for one after the other; so many are tried if their sources are busy.
const TRIED_MAX: usize = 16;
/// Times in a row that a peer fails before nothing more is asked of it for what is under way.
const PEER_FAILURES: u32 = 3;
/// The same for answers under another placement, which end by themselves.
const MISFITS_MAX: u32 = 150;
/// First and longest pause after a failure of a peer.
const BACK_OFF_MS: (u64, u64) = (250, 8_000);
/// Pause after an answer under another placement.
const MISFIT_MS: u64 = 200;
/// An answer that is so much later than asked for will not come.
const GRACE_MS: u64 = 2_000;
/// Times that peers are asked again what they have, when something could not be brought.
const ROUNDS_MAX: u32 = 3;
/// Pause before that.
const ROUND_MS: u64 = 3_000;
/// How often the rate is measured.
const RATE_MS: u64 = 1_000;

/// A shard, and the number of its fill.
type Of = (Shard, u64);

/// What a question asks for.
#[derive(Clone, Debug)]
enum What {
    /// In which round.
    List(u32),
    Tail(Key),
    Piece(Key, Range<u64>),
}

struct Question {
    of: Of,
    peer: NodeId,
    what: What,
    until_ms: u64,
}

/// What is being done here, and who has sent what for it.
enum Task {
    Survey,
    Begin(Key, NodeId),
    Write(Key, NodeId, Range<u64>),
    Finish(Key),
    Abandon,
    /// The last of a fill.
    End,
}

struct Work {
    /// `None`: of none that is under way.
    of: Option<Of>,
    task: Task,
}

/// One peer, over all shards.
#[derive(Default)]
struct Peer {
    under_way: usize,
    failures: u32,
    misfits: u32,
    not_before_ms: u64,
}

/// A copy that this node makes.
struct Coming {
    /// When the move began: it names it.
    since: u64,
    /// Bytes that came, when the fill has ended.
    ended: Option<u64>,
}

/// The bootstrap of one node.
pub struct Bootstrap {
    options: Options,
    budget: Budget,
    is_paused: bool,
    view: Option<Arc<View>>,
    coming: BTreeMap<Shard, Coming>,
    given_up: GivenUp,
    fills: BTreeMap<Shard, Fill>,
    peers: BTreeMap<NodeId, Peer>,
    questions: BTreeMap<u64, Question>,
    works: BTreeMap<u64, Work>,
    writes: usize,
    token: u64,
    /// What earlier runs left, and is of no use, is gone.
    is_swept: bool,
    /// Of fills that have ended.
    ended: Tally,
    filled: u64,
    refused: u64,
    failed: u64,
    measured: (u64, u64),
    bytes_per_s: u64,
}

impl Bootstrap {
    /// Of a node that has just started. `tokens_from` names the first question, so that late answers to an earlier life are not taken for
    /// answers of this one.
    pub fn new(options: Options, tokens_from: u64) -> Bootstrap {
        let piece_bytes = options.piece_bytes.clamp(BLOCK_PAGE, PIECE_BYTES_MAX) / BLOCK_PAGE * BLOCK_PAGE;
        Bootstrap {
            options: Options { piece_bytes, ..options },
            budget: Budget::new(bounded(options.bytes_per_s)),
            is_paused: false,
            view: None,
            coming: BTreeMap::new(),
            given_up: GivenUp::default(),
            fills: BTreeMap::new(),
            peers: BTreeMap::new(),
            questions: BTreeMap::new(),
            works: BTreeMap::new(),
            writes: 0,
            token: tokens_from,
            is_swept: false,
            ended: Tally::default(),
            filled: 0,
            refused: 0,
            failed: 0,
            measured: (0, 0),
            bytes_per_s: 0,
        }
    }

    fn tally(&self) -> Tally {
        self.fills.values().fold(self.ended, |sum, fill| Tally {
            bytes_total: sum.bytes_total + fill.tally.bytes_total,
            bytes_done: sum.bytes_done + fill.tally.bytes_done,
            blocks: sum.blocks + fill.tally.blocks,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let Tally { bytes_total, bytes_done, blocks } = self.tally();
        let left = u128::from(bytes_total.saturating_sub(bytes_done)) * 1000;
        let eta_ms = left.checked_div(u128::from(self.bytes_per_s)).or((left == 0).then_some(0));
        Progress {
            waiting: self.waiting().count() as u64,
            running: self.fills.len() as u64,
            filled: self.filled,
            bytes_total,
            bytes_done,
            blocks,
            bytes_per_s: self.bytes_per_s,
            eta_ms: eta_ms.and_then(|ms| u64::try_from(ms).ok()),
            refused: self.refused,
            failed: self.failed,
        }
    }

    /// How far each copy is that this node makes.
    pub fn copies(&self) -> Vec<CopyProgress> {
        let of = |(&shard, coming): (&Shard, &Coming)| {
            if let Some(bytes) = coming.ended {
                return CopyProgress { shard, bytes_done: bytes, bytes_total: Some(bytes) };
            }
            let fill = self.fills.get(&shard).filter(|fill| fill.since == coming.since);
            let tally = fill.map(|fill| fill.tally).unwrap_or_default();
            let is_sized = fill.is_some_and(Fill::is_sized);
            CopyProgress {
                shard,
                bytes_done: tally.bytes_done,
                bytes_total: is_sized.then_some(tally.bytes_total),
            }
        };
        self.coming.iter().map(of).collect()
    }

    /// Shards that are still to be filled. One whose fill was stopped ends before it begins again.
    fn waiting(&self) -> impl Iterator<Item = Shard> {
        let begun = |shard: &Shard| self.fills.contains_key(shard);
        let waits = self.coming.iter().filter(move |(shard, coming)| coming.ended.is_none() && !begun(shard));
        waits.map(|(shard, _)| *shard)
    }

    /// The next step.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now_ms, effects),
            Event::View(view) => self.see(now_ms, view, effects),
            Event::Rate { bytes_per_s } => self.options.bytes_per_s = bytes_per_s,
            Event::Pause(is_paused) => self.is_paused = is_paused,
            Event::Foreground { latency_us, usual_us } => {
                self.budget.foreground(now_ms, latency_us, usual_us)
            }
            Event::Answer { token, reply } => self.answered(now_ms, token, reply, effects),
            Event::Failed { token, why } => {
                if let Some(question) = self.take(token) {
                    self.peer_failed(now_ms, question, &why, effects);
                }
            }
            Event::Done { token, done } => {
                if let Some(work) = self.works.remove(&token) {
                    self.done(work, done, effects);
                }
            }
        }
        self.go(now_ms, effects);
    }

    fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let late = self.questions.iter().filter(|(_, question)| question.until_ms <= now_ms);
        for token in late.map(|(token, _)| *token).collect::<Vec<_>>() {
            if let Some(question) = self.take(token) {
                self.peer_failed(now_ms, question, "it did not answer in time", effects);
            }
        }
        if let Some(view) = &self.view {
            let due = self.given_up.due(now_ms, view, self.options.forget_after_ms);
            effects.extend((!due.is_empty()).then_some(Effect::Forget(due)));
        }
        let elapsed = now_ms.saturating_sub(self.measured.0);
        if elapsed >= RATE_MS {
            let done = self.tally().bytes_done;
            let rate = done.saturating_sub(self.measured.1).saturating_mul(1000) / elapsed;
            // Seconds differ: the last one counts a quarter.
            self.bytes_per_s = if self.bytes_per_s == 0 { rate } else { (3 * self.bytes_per_s + rate) / 4 };
            self.measured = (now_ms, done);
        }
    }

    fn see(&mut self, now_ms: u64, view: Arc<View>, effects: &mut Vec<Effect>) {
        self.follow(now_ms, &view);
        self.given_up.see(now_ms, &view, self.options.forget_after_ms);
        if self.view.is_none() {
            // Where a copy is on its way, what an earlier run left may be of use; nowhere else.
            let all = (0..view.shards()).map(|shard| Shard(shard as u16));
            let shards: Vec<Shard> = all.filter(|shard| !self.coming.contains_key(shard)).collect();
            self.work(None, Task::Abandon, Local::Abandon { shards, only: None }, effects);
        }
        for fill in self.fills.values_mut() {
            let peers = live(&view, fill.shard);
            fill.live = peers.len();
            // Whoever is gone for ever may be listed for as long as the move lasts, and is asked no more.
            let is_member = |node: &NodeId| view.nodes.contains_key(node);
            let known: BTreeSet<NodeId> = holders(&view, fill.shard).filter(is_member).collect();
            for gone in fill.peers.difference(&known).copied().collect::<Vec<_>>() {
                fill.leave(gone);
            }
        }
        self.view = Some(view);
    }

    /// Takes over which copies this node makes.
    fn follow(&mut self, now_ms: u64, view: &View) {
        let placement = &view.placement;
        let mine = placement.moving().filter(|shard| placement.phase(*shard) == MovePhase::Copying(view.me));
        let moves: BTreeMap<Shard, u64> = mine.map(|shard| (shard, placement.changed(shard))).collect();
        self.coming.retain(|shard, coming| moves.get(shard) == Some(&coming.since));
        for fill in self.fills.values_mut().filter(|fill| moves.get(&fill.shard) != Some(&fill.since)) {
            fill.is_stopped = true;
            fill.failure.get_or_insert_with(|| "it is not wanted any more".to_owned());
        }
        let is_idle = self.fills.is_empty() && self.waiting().next().is_none();
        if is_idle && moves.keys().any(|shard| !self.coming.contains_key(shard)) {
            (self.ended, self.filled, self.measured) = (Tally::default(), 0, (now_ms, 0));
        }
        for (shard, since) in moves {
            self.coming.entry(shard).or_insert(Coming { since, ended: None });
        }
    }

    fn token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    /// The fill for which something was begun, if it still goes on.
    fn fill(&mut self, of: Of) -> Option<&mut Fill> {
        let goes_on =
            |fill: &&mut Fill| fill.number == of.1 && fill.phase != Phase::Ending && fill.failure.is_none();
        self.fills.get_mut(&of.0).filter(goes_on)
    }

    fn work(&mut self, of: Option<Of>, task: Task, local: Local, effects: &mut Vec<Effect>) {
        let token = self.token();
        self.writes += usize::from(matches!(task, Task::Write(..)));
        self.works.insert(token, Work { of, task });
        effects.push(Effect::Work { token, local });
    }

    fn take(&mut self, token: u64) -> Option<Question> {
        let question = self.questions.remove(&token)?;
        if let Some(peer) = self.peers.get_mut(&question.peer) {
            peer.under_way -= 1;
        }
        Some(question)
    }

    /// Asks, if the peer and the budget allow it.
    fn ask(
        &mut self,
        now_ms: u64,
        (of, peer): (Of, NodeId),
        what: What,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(view) = &self.view else { return false };
        let len = if let Ask::Piece { len, .. } = ask { len } else { 0 };
        if !self.budget.take(len) {
            return false;
        }
        let request = Request { epoch: view.epoch(), shard: of.0, ask }.encode();
        let (token, timeout_ms) = (self.token(), self.options.timeout_ms);
        self.peers.entry(peer).or_default().under_way += 1;
        let until_ms = now_ms + u64::from(timeout_ms) + GRACE_MS;
        self.questions.insert(token, Question { of, peer, what, until_ms });
        effects.push(Effect::Ask { token, peer, request, timeout_ms });
        true
    }

    fn has_room(&self) -> bool {
        self.questions.len() + self.writes < self.options.under_way_max
    }

    /// Of these peers the one with the least to do that may be asked.
    fn free(&self, now_ms: u64, peers: &[NodeId]) -> Option<NodeId> {
        let nobody = Peer::default();
        let state = |peer: &NodeId| self.peers.get(peer).unwrap_or(&nobody);
        let may = |peer: &&NodeId| {
            let peer = state(peer);
            peer.under_way < self.options.peer_max && peer.not_before_ms <= now_ms
        };
        peers.iter().filter(may).min_by_key(|peer| state(peer).under_way).copied()
    }

    fn answered(&mut self, now_ms: u64, token: u64, reply: Bytes, effects: &mut Vec<Effect>) {
        let Some(question) = self.take(token) else { return };
        let reply = match Reply::decode(reply) {
            Ok(reply) => reply,
            Err(malformed) => return self.lied(question, &malformed.to_string(), effects),
        };
        let (of, peer) = (question.of, question.peer);
        let state = self.peers.entry(peer).or_default();
        match reply {
            Reply::Stale { .. } | Reply::Behind { .. } => {
                state.not_before_ms = now_ms + MISFIT_MS;
                state.misfits += 1;
                let gives_up = state.misfits > MISFITS_MAX;
                self.restore(question);
                if gives_up {
                    self.lose(peer);
                }
                return;
            }
            Reply::Failed { why } => return self.peer_failed(now_ms, question, &why, effects),
            _ => (state.failures, state.misfits) = (0, 0),
        }
        let Some(fill) = self.fill(of) else { return };
        let shard = fill.shard;
        match (question.what.clone(), reply) {
            (_, Reply::NotHeld { .. }) => fill.leave(peer),
            (What::List(round), Reply::Blocks { .. }) if round != fill.round => {}
            (What::List(_), Reply::Blocks { blocks, more }) => fill.listed(peer, blocks, more),
            (What::Tail(key) | What::Piece(key, _), Reply::Gone | Reply::Damaged) => {
                fill.gave_back(&question.what);
                fill.forsake(key.0, peer);
                self.failed += 1;
            }
            (What::Tail(key), Reply::Piece(tail)) => {
                let Some(copy) = fill.copies.get_mut(&key) else { return };
                if tail.len() as u64 != copy.block.tail_bytes {
                    return self.lied(question, "a tail of another length", effects);
                }
                copy.stage = Stage::Beginning;
                let local = Local::Begin { shard, block: copy.block, tail };
                self.work(Some(of), Task::Begin(key, peer), local, effects);
            }
            (What::Piece(key, range), Reply::Piece(piece)) => {
                let Some(copy) = fill.copies.get(&key) else { return };
                if piece.len() as u64 != range.end - range.start {
                    return self.lied(question, "a piece of another length", effects);
                }
                let local = Local::Write { shard, id: copy.block.id, at: range.start, piece };
                self.work(Some(of), Task::Write(key, peer, range), local, effects);
            }
            _ => self.lied(question, "an answer to another question", effects),
        }
    }

    /// What was asked for is still to be asked for.
    fn restore(&mut self, question: Question) {
        let Some(fill) = self.fill(question.of) else { return };
        match &question.what {
            What::List(round) if *round == fill.round => {
                if let Some(list) = fill.lists.get_mut(&question.peer) {
                    list.is_asked = false;
                }
            }
            what => fill.gave_back(what),
        }
    }

    fn peer_failed(&mut self, now_ms: u64, question: Question, why: &str, effects: &mut Vec<Effect>) {
        self.failed += 1;
        let (peer, shard) = (question.peer, question.of.0);
        let state = self.peers.entry(peer).or_default();
        state.failures += 1;
        let pause = BACK_OFF_MS.0 << state.failures.min(16).saturating_sub(1);
        state.not_before_ms = now_ms + pause.min(BACK_OFF_MS.1);
        let gives_up = state.failures >= PEER_FAILURES;
        self.restore(question);
        if gives_up {
            let text = format!("node {peer} gives no blocks of shard {} and others for now: {why}", shard.0);
            effects.push(Effect::Log { level: Level::Info, text });
            self.lose(peer);
        }
    }

    /// Nothing more is asked of a peer for what is under way.
    fn lose(&mut self, peer: NodeId) {
        self.fills.values_mut().for_each(|fill| fill.leave(peer));
    }

    /// What a peer sent is not what it said that it has.
    fn lied(&mut self, question: Question, why: &str, effects: &mut Vec<Effect>) {
        let Question { of, peer, what, .. } = question;
        let Some(fill) = self.fill(of) else { return };
        fill.gave_back(&what);
        match what {
            What::List(_) => fill.leave(peer),
            What::Tail(key) | What::Piece(key, _) => fill.forsake(key.0, peer),
        }
        self.refused += 1;
        let text = format!("what node {peer} sent of shard {} was refused: {why}", of.0.0);
        effects.push(Effect::Log { level: Level::Warn, text });
    }

    fn done(&mut self, work: Work, done: Done, effects: &mut Vec<Effect>) {
        self.writes -= usize::from(matches!(work.task, Task::Write(..)));
        let Some(of) = work.of else {
            self.is_swept = true;
            return;
        };
        if let Task::End = work.task {
            return self.filled(of, effects);
        }
        let piece_bytes = self.options.piece_bytes;
        let Some(fill) = self.fill(of) else { return };
        match (work.task, done) {
            (Task::Abandon, _) => {}
            (Task::Survey, Done::Surveyed { ids, digests }) => fill.surveyed(ids, digests),
            (Task::Begin(key, _), Done::Begun(Import::Here)) => fill.finished(key),
            (Task::Begin(key, _), Done::Begun(Import::Missing(missing))) => {
                let Some(copy) = fill.copies.get_mut(&key) else { return };
                let left: u64 = missing.iter().map(|range| range.end - range.start).sum();
                copy.todo = missing.into_iter().flat_map(|range| pieces(range, piece_bytes)).collect();
                copy.stage = Stage::Pieces;
                let here = copy.block.bytes - left;
                fill.came(key, here);
            }
            (Task::Write(key, _, range), Done::Finished) => {
                let Some(copy) = fill.copies.get_mut(&key) else { return };
                copy.under_way -= 1;
                fill.came(key, range.end - range.start);
            }
            (Task::Finish(key), Done::Finished) => fill.finished(key),
            (Task::Begin(key, peer), Done::Refused(why)) => {
                self.lied(Question { of, peer, what: What::Tail(key), until_ms: 0 }, &why, effects);
            }
            (Task::Write(key, peer, range), Done::Refused(why)) => {
                self.lied(Question { of, peer, what: What::Piece(key, range), until_ms: 0 }, &why, effects);
            }
            (Task::Finish(key), Done::Refused(why)) => {
                // All pages are what they are to be, so everybody who has this file has it so.
                let sources = fill.copies.get(&key).map(|copy| copy.sources.clone());
                for peer in sources.unwrap_or_default() {
                    self.lied(Question { of, peer, what: What::Tail(key), until_ms: 0 }, &why, effects);
                }
            }
            (_, Done::Failed(why)) => fill.failure = Some(why),
            (_, done) => fill.failure = Some(format!("BUG: {done:?} came of other work")),
        }
    }

    fn end(&mut self, fill: &Fill) {
        let Tally { bytes_total, bytes_done, blocks } = &mut self.ended;
        // What does not come any more does not count.
        *bytes_total += fill.tally.bytes_done;
        *bytes_done += fill.tally.bytes_done;
        *blocks += fill.tally.blocks;
    }

    fn filled(&mut self, (shard, number): Of, effects: &mut Vec<Effect>) {
        if self.fills.get(&shard).is_none_or(|fill| fill.number != number) {
            return;
        }
        let Some(fill) = self.fills.remove(&shard) else { return };
        self.end(&fill);
        self.filled += u64::from(!fill.is_stopped);
        let Tally { blocks, bytes_done: bytes, .. } = fill.tally;
        if fill.is_stopped {
            return;
        }
        let (since, missed) = (fill.since, fill.missed());
        if let Some(coming) = self.coming.get_mut(&shard).filter(|coming| coming.since == since) {
            coming.ended = Some(bytes);
        }
        effects.push(Effect::Filled(Filled { shard, since, blocks, bytes, missed, failure: fill.failure }));
    }

    /// Begins whatever may begin.
    fn go(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(view) = self.view.clone() else { return };
        self.budget.set(match self.is_paused {
            true => 0,
            false => bounded(self.options.bytes_per_s).min(bounded(view.move_bytes_per_second.unwrap_or(0))),
        });
        self.budget.fill(now_ms);
        if self.is_swept && self.fills.len() < FILLS_MAX {
            let mut waiting: Vec<(usize, Shard)> =
                self.waiting().map(|shard| (live(&view, shard).len(), shard)).collect();
            waiting.sort_unstable();
            for (_, shard) in waiting.into_iter().take(FILLS_MAX - self.fills.len()) {
                let Some(since) = self.coming.get(&shard).map(|coming| coming.since) else { continue };
                let number = self.token();
                self.fills.insert(shard, Fill::new(shard, since, number, &live(&view, shard)));
            }
        }
        let mut order: Vec<(usize, Shard)> =
            self.fills.values().map(|fill| (fill.live, fill.shard)).collect();
        order.sort_unstable();
        for (_, shard) in order {
            // It is put back whole: what is asked for of the others is counted outside of it.
            let Some(mut fill) = self.fills.remove(&shard) else { continue };
            self.advance(now_ms, &view, &mut fill, effects);
            self.fills.insert(shard, fill);
        }
    }

    fn advance(&mut self, now_ms: u64, view: &View, fill: &mut Fill, effects: &mut Vec<Effect>) {
        let shard = fill.shard;
        if fill.failure.is_some() && fill.phase != Phase::Ending {
            return self.wind_up(fill, effects);
        }
        match fill.phase {
            Phase::Listing { not_before_ms } if now_ms < not_before_ms => {}
            Phase::Listing { .. } => {
                self.list(now_ms, fill, effects);
                if !fill.all_listed() {
                    return;
                }
                if fill.lists.is_empty() {
                    if fill.round < ROUNDS_MAX {
                        fill.round += 1;
                        fill.list_again(&live(view, shard), now_ms + ROUND_MS);
                    } else {
                        fill.failure = Some("no other copy of the shard answers".to_owned());
                    }
                    return;
                }
                let windows = fill.divide();
                self.work(
                    Some((shard, fill.number)),
                    Task::Survey,
                    Local::Survey { shard, windows },
                    effects,
                );
            }
            Phase::Surveying | Phase::Ending => {}
            Phase::Copying => {
                for id in std::mem::take(&mut fill.dropped) {
                    let local = Local::Abandon { shards: vec![shard], only: Some(id) };
                    self.work(Some((shard, fill.number)), Task::Abandon, local, effects);
                }
                self.copy(now_ms, fill, effects);
                if !fill.copies.is_empty() || self.is_busy(fill) {
                    return;
                }
                if fill.missed() > 0 && fill.round < ROUNDS_MAX {
                    fill.round += 1;
                    fill.list_again(&live(view, shard), now_ms + ROUND_MS);
                    return;
                }
                self.wind_up(fill, effects);
            }
        }
    }

    /// Whether something is being done here for a fill.
    fn is_busy(&self, fill: &Fill) -> bool {
        self.works.values().any(|work| work.of == Some((fill.shard, fill.number)))
    }

    /// Removes what is left over, when nobody writes it any more.
    fn wind_up(&mut self, fill: &mut Fill, effects: &mut Vec<Effect>) {
        let of = Some((fill.shard, fill.number));
        if self.is_busy(fill) {
            return;
        }
        fill.phase = Phase::Ending;
        let shards = vec![fill.shard];
        self.work(of, Task::End, Local::Abandon { shards, only: None }, effects);
    }

    fn list(&mut self, now_ms: u64, fill: &mut Fill, effects: &mut Vec<Effect>) {
        let (of, round) = ((fill.shard, fill.number), fill.round);
        for (peer, list) in &mut fill.lists {
            let may = !list.is_complete && !list.is_asked && self.has_room();
            if may && self.free(now_ms, &[*peer]).is_some() {
                let ask = Ask::Blocks { after: list.blocks.last().map(|block| block.id) };
                list.is_asked = self.ask(now_ms, (of, *peer), What::List(round), ask, effects);
            }
        }
    }

    fn copy(&mut self, now_ms: u64, fill: &mut Fill, effects: &mut Vec<Effect>) {
        let mut open: usize =
            self.fills.values().map(|other| other.begun.len()).sum::<usize>() + fill.begun.len();
        for key in fill.begun.iter().copied().collect::<Vec<_>>() {
            self.advance_copy(now_ms, fill, key, effects);
        }
        for key in fill.waiting.iter().copied().take(TRIED_MAX).collect::<Vec<_>>() {
            if open >= self.options.imports_max || !self.has_room() {
                return;
            }
            self.advance_copy(now_ms, fill, key, effects);
            if fill.copies.get(&key).is_some_and(|copy| copy.stage != Stage::Tail) {
                fill.waiting.remove(&key);
                fill.begun.insert(key);
                open += 1;
            }
        }
    }

    fn advance_copy(&mut self, now_ms: u64, fill: &mut Fill, key: Key, effects: &mut Vec<Effect>) {
        let (of, shard) = ((fill.shard, fill.number), fill.shard);
        let Some(copy) = fill.copies.get_mut(&key) else { return };
        let id = copy.block.id;
        match copy.stage {
            Stage::Tail => {
                let source = self.has_room().then(|| self.free(now_ms, &copy.sources)).flatten();
                let Some(peer) = source else { return };
                let ask = Ask::Piece { id, at: copy.block.tail_at(), len: copy.block.tail_bytes };
                if self.ask(now_ms, (of, peer), What::Tail(key), ask, effects) {
                    copy.stage = Stage::TailAsked;
                }
            }
            Stage::Pieces => {
                while self.has_room()
                    && let Some(peer) = self.free(now_ms, &copy.sources)
                    && let Some(range) = copy.todo.pop_front()
                {
                    let ask = Ask::Piece { id, at: range.start, len: range.end - range.start };
                    if !self.ask(now_ms, (of, peer), What::Piece(key, range.clone()), ask, effects) {
                        copy.todo.push_front(range);
                        break;
                    }
                    copy.under_way += 1;
                }
                if copy.todo.is_empty() && copy.under_way == 0 {
                    copy.stage = Stage::Finishing;
                    self.work(Some(of), Task::Finish(key), Local::Finish { shard, id }, effects);
                }
            }
            Stage::TailAsked | Stage::Beginning | Stage::Finishing => {}
        }
    }
}

impl Fill {
    /// What was asked for of a block did not come, or not as it should.
    fn gave_back(&mut self, what: &What) {
        let (What::Tail(key) | What::Piece(key, _)) = what else { return };
        let Some(copy) = self.copies.get_mut(key) else { return };
        match what {
            What::Piece(_, range) => {
                copy.under_way -= 1;
                copy.todo.push_front(range.clone());
            }
            _ => copy.stage = Stage::Tail,
        }
    }
}

/// A limit in bytes a second, where 0 stands for none.
fn bounded(bytes_per_s: u64) -> u64 {
    if bytes_per_s == 0 { u64::MAX } else { bytes_per_s }
}

/// A range in pieces.
fn pieces(range: Range<u64>, piece_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (start..end).step_by(piece_bytes as usize).map(move |at| at..(at + piece_bytes).min(end))
}

/// The other nodes with a copy of a shard that answers reads.
fn holders(view: &View, shard: Shard) -> impl Iterator<Item = NodeId> {
    let readable = |r: &&crate::placement::Replica| {
        r.node != view.me && !matches!(r.state, ReplicaState::Initializing { .. })
    };
    view.placement.replicas(shard).iter().filter(readable).map(|r| r.node)
}

/// Those of them that seem to answer at all.
fn live(view: &View, shard: Shard) -> Vec<NodeId> {
    let is_up = |node: &NodeId| view.nodes.get(node).is_some_and(|peer| peer.health != Health::Down);
    holders(view, shard).filter(is_up).collect()
}
