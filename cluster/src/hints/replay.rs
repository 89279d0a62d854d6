//! When which hints are sent to a node.
//!
//! ```text
//!            Load                Send (by id)          Send (by labels)
//!  idle ──────────► loading ──► ready ──────► sent ──────────────► sent
//!   ▲                            │  ▲           │ acknowledged       │
//!   └──── Remove, all sent ──────┘  └───────────┴────────────────────┘
//! ```
//!
//! A hint goes out in parts: one, unless it is too large for a frame, by itself or with the labels that its node has asked for. What a node does
//! not take now it gets later, with longer and longer pauses, until the hint expires. Only what it will never take is given up.

use crate::hints::{Chunk, Hint};
use crate::placement::NodeId;
use crate::rows::{self, Decoder, Limits, NoNumbers, sections};
use crate::view::{Health, View};
use crate::write::{Header, Most, Reply, Session, encode_sections, pieces};
use bytes::Bytes;
use disk::log::SegmentNumber;
use model::{Batch, Replica, Shard, Timestamp};
use std::collections::VecDeque;

/// How long a node that did not take a hint, or for which there is none, is left alone.
const PAUSE_MS: u64 = 1000;

/// The pause doubles with each refusal, so often.
const DOUBLINGS_MAX: u32 = 5;

/// What a step is decided by.
pub struct Situation<'a> {
    /// Monotonic.
    pub now_ms: u64,
    /// Hints from before are too old.
    pub oldest: Timestamp,
    /// The cluster.
    pub view: &'a View,
    /// Of this node.
    pub session: Session,
    /// Of this node: for labels.
    pub replica: &'a dyn Replica,
    /// How long the shell waits for a reply.
    pub timeout_ms: u32,
    /// What a frame holds.
    pub most: Most,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Time has passed.
    Tick,
    /// The answer to [`Effect::Load`].
    Loaded(Option<Chunk>),
    /// The node has answered.
    Reply(&'a [u8]),
    /// It has not, and will not; or the disk has failed to load or remove.
    Failed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Load the oldest hints for the node.
    Load,
    /// Send this frame, as a write, and tell the reply.
    Send(Bytes),
    /// Everything in this segment was delivered.
    Remove(SegmentNumber),
}

/// What became of hints that were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The node has them.
    pub delivered: u64,
    /// The node, or this one, can never do anything with them, or with a part of them.
    pub dropped: u64,
    /// Bytes of those that became too old before the node took them.
    pub expired_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Loading,
    Ready,
    Sent { round: u8 },
}

/// Sections that fit into a frame.
#[derive(Debug)]
struct Part {
    sections: Vec<u8>,
    /// 1: series as the hint names them, 2: by labels, since the node has asked for them.
    round: u8,
}

/// The hint that is being sent.
#[derive(Debug, Default)]
struct Current {
    missed_at: Option<Timestamp>,
    /// What is left of it, in order.
    parts: VecDeque<Part>,
    /// Whether the node has taken a part.
    taken: bool,
    /// Whether a part was given up.
    given_up: bool,
}

/// The replay of the hints for one node.
#[derive(Debug)]
pub struct Replay {
    node: NodeId,
    bytes_per_second: u64,
    state: State,
    chunk: Option<Chunk>,
    /// How many hints of the chunk are done, or under way.
    begun: usize,
    current: Current,
    ready_ms: u64,
    refusals: u32,
    why_refused: String,
    replayed: Replayed,
    why_dropped: String,
}

impl Replay {
    /// Of the hints for `node`, no faster than this.
    pub fn new(node: NodeId, bytes_per_second: u64) -> Replay {
        Replay {
            node,
            bytes_per_second: bytes_per_second.max(1),
            state: State::Idle,
            chunk: None,
            begun: 0,
            current: Current::default(),
            ready_ms: 0,
            refusals: 0,
            why_refused: String::new(),
            replayed: Replayed::default(),
            why_dropped: String::new(),
        }
    }

    /// What became of the hints so far.
    pub fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// Why the last hint that was dropped was.
    pub fn why_dropped(&self) -> &str {
        &self.why_dropped
    }

    /// Why the node does not take the hint whose turn it is, if it has said so.
    pub fn why_refused(&self) -> Option<&str> {
        (self.refusals > 0).then_some(&self.why_refused)
    }

    /// Takes an event, and tells what is to be done, if anything.
    pub fn step(&mut self, situation: &Situation<'_>, event: Event<'_>) -> Option<Effect> {
        match (self.state, event) {
            (State::Loading, Event::Loaded(Some(chunk))) => {
                (self.state, self.chunk, self.begun) = (State::Ready, Some(chunk), 0);
            }
            (State::Loading, Event::Loaded(None) | Event::Failed) => {
                self.state = State::Idle;
                self.pause(situation);
            }
            (State::Sent { .. }, Event::Failed) => {
                self.state = State::Ready;
                self.pause(situation);
            }
            (State::Sent { round }, Event::Reply(reply)) => match Reply::decode(reply) {
                // Who cannot read a frame knows of no round.
                Ok((of, _)) if of != round && of != 0 => return None,
                Ok((_, reply)) => self.replied(situation, round, reply),
                Err(malformed) => self.refused(situation, &malformed.to_string()),
            },
            _ => {}
        }
        self.next(situation)
    }

    fn replied(&mut self, situation: &Situation<'_>, round: u8, reply: Reply) {
        self.state = State::Ready;
        match reply {
            Reply::Appended { unknown, .. } => {
                let part = self.current.parts.pop_front();
                self.refusals = 0;
                self.current.taken = true;
                if let (1, false, Some(part)) = (round, unknown.is_empty(), part) {
                    self.by_labels(situation, &part, &unknown);
                }
            }
            Reply::StaleEpoch { .. } | Reply::BehindEpoch { .. } => self.pause(situation),
            Reply::NotHeld { shard } => {
                self.refused(situation, &format!("it has no replica of shard {}", shard.0));
            }
            Reply::Failed { why } => self.refused(situation, &why),
            Reply::Never { why } => {
                self.current.parts.pop_front();
                self.give_up(&why);
            }
        }
    }

    fn pause(&mut self, situation: &Situation<'_>) {
        self.ready_ms = situation.now_ms + PAUSE_MS;
    }

    /// The node does not take the part now.
    fn refused(&mut self, situation: &Situation<'_>, why: &str) {
        why.clone_into(&mut self.why_refused);
        self.state = State::Ready;
        self.ready_ms = situation.now_ms + (PAUSE_MS << self.refusals.min(DOUBLINGS_MAX));
        self.refusals += 1;
    }

    fn give_up(&mut self, why: &str) {
        self.current.given_up = true;
        why.clone_into(&mut self.why_dropped);
    }

    /// Nothing is left of the current hint.
    fn end(&mut self) {
        let Current { taken, given_up, .. } = std::mem::take(&mut self.current);
        self.refusals = 0;
        self.replayed.dropped += u64::from(given_up);
        self.replayed.delivered += u64::from(taken && !given_up);
    }

    fn next(&mut self, situation: &Situation<'_>) -> Option<Effect> {
        let up = situation.view.nodes.get(&self.node).is_some_and(|peer| peer.health == Health::Up);
        if !up || situation.now_ms < self.ready_ms {
            return None;
        }
        if self.state == State::Idle {
            self.state = State::Loading;
            return Some(Effect::Load);
        }
        if self.state != State::Ready {
            return None;
        }
        loop {
            if self.current.missed_at.is_some_and(|at| at < situation.oldest) {
                let left = std::mem::take(&mut self.current).parts;
                self.replayed.expired_bytes +=
                    left.iter().map(|part| part.sections.len() as u64).sum::<u64>();
            }
            while let Some(part) = self.current.parts.front() {
                match held(situation.view, self.node, &part.sections) {
                    Some(sections) if sections.len() > situation.most.bytes => {
                        self.current.parts.pop_front();
                        self.give_up("a histogram does not fit into a frame");
                    }
                    Some(sections) => return Some(self.send(situation, sections)),
                    // Nothing that concerns the node any more.
                    None => drop(self.current.parts.pop_front()),
                }
            }
            self.end();
            let Some(chunk) = &self.chunk else { break };
            let Some(Hint { missed_at, sections }) = chunk.hints.get(self.begun) else { break };
            self.begun += 1;
            self.current.missed_at = Some(*missed_at);
            match parts(situation, sections) {
                Ok(parts) => self.current.parts = parts,
                Err(error) => self.give_up(&error.to_string()),
            }
        }
        self.state = State::Idle;
        self.chunk.take().map(|chunk| Effect::Remove(chunk.segment))
    }

    /// Sends the first part, of which these sections concern the node.
    fn send(&mut self, situation: &Situation<'_>, sections: Vec<u8>) -> Effect {
        let Situation { view, session, timeout_ms, now_ms, .. } = situation;
        let round = self.current.parts.front().map_or(1, |part| part.round);
        let mut body = Vec::with_capacity(Header::BYTES + sections.len());
        Header { epoch: view.epoch(), timeout_ms: *timeout_ms, session: *session, round }.encode(&mut body);
        body.extend_from_slice(&sections);
        if let Some(part) = self.current.parts.front_mut() {
            // Positions in the reply are those of what was sent.
            part.sections = sections;
        }
        self.state = State::Sent { round };
        self.ready_ms = now_ms + body.len() as u64 * 1000 / self.bytes_per_second;
        Effect::Send(Bytes::from(body))
    }

    /// The series at these positions of a part are to come next, with their labels.
    fn by_labels(&mut self, situation: &Situation<'_>, part: &Part, positions: &[u32]) {
        let mut sent = Batch::default();
        for section in sections(&part.sections) {
            let decoded = section.and_then(|section| decode(situation, &section, &mut sent));
            if let Err(error) = decoded {
                return self.give_up(&error.to_string());
            }
        }
        let (mut labelled, mut only) = (std::mem::take(&mut sent.series), Vec::new());
        for &position in positions {
            let Some(series) = labelled.get_mut(position as usize) else {
                return self.give_up("it asks for series that it was not sent");
            };
            let at = sent.bytes.len();
            if situation.replica.labels_of(series.id, &mut sent.bytes) {
                (series.checked, series.labels_at) = (true, at as u32);
                series.labels_len = (sent.bytes.len() - at) as u32;
                only.push(position);
            }
        }
        sent.series = labelled;
        if only.len() < positions.len() {
            self.give_up("it lacks series whose labels are not known here any more");
        }
        for sections in encoded(situation, &sent, &only).into_iter().rev() {
            self.current.parts.push_front(Part { sections, round: 2 });
        }
    }
}

/// Series of a batch, as sections that fit into frames.
fn encoded(situation: &Situation<'_>, batch: &Batch, only: &[u32]) -> Vec<Vec<u8>> {
    let shards = situation.view.shards();
    match pieces(batch, Some(only), &situation.most) {
        None if only.is_empty() => Vec::new(),
        None => vec![encode_sections(batch, Some(only), shards)],
        Some(pieces) => pieces.iter().map(|piece| encode_sections(&piece.batch, None, shards)).collect(),
    }
}

fn decode(
    situation: &Situation<'_>,
    section: &rows::Section<'_>,
    into: &mut Batch,
) -> Result<(), rows::Error> {
    let view = situation.view;
    let decoder = Decoder { key: view.key, shards: view.shards(), limits: Limits::default() };
    decoder.decode(section, &mut NoNumbers, into, &mut Vec::new())
}

/// A hint in parts that fit into frames. One that is too large is from before writes came in pieces.
fn parts(situation: &Situation<'_>, hint: &[u8]) -> Result<VecDeque<Part>, rows::Error> {
    let part = |sections: Vec<u8>| Part { sections, round: 1 };
    let most = situation.most.bytes;
    if hint.len() <= most {
        return Ok(VecDeque::from([part(hint.to_vec())]));
    }
    let (mut parts, mut gathered) = (VecDeque::new(), Vec::new());
    for section in sections(hint) {
        let section = section?;
        if gathered.len() + section.bytes.len() > most && !gathered.is_empty() {
            parts.push_back(part(std::mem::take(&mut gathered)));
        }
        if section.bytes.len() <= most {
            gathered.extend_from_slice(section.bytes);
            continue;
        }
        let mut batch = Batch::default();
        decode(situation, &section, &mut batch)?;
        let all: Vec<u32> = (0..batch.series.len() as u32).collect();
        parts.extend(encoded(situation, &batch, &all).into_iter().map(part));
    }
    if !gathered.is_empty() {
        parts.push_back(part(gathered));
    }
    Ok(parts)
}

/// The sections for shards that the node has a replica of; `None` if there are none.
fn held(view: &View, node: NodeId, hint: &[u8]) -> Option<Vec<u8>> {
    let holds = |shard: Shard| view.placement.replicas(shard).iter().any(|r| r.node == node);
    let mut held = Vec::with_capacity(hint.len());
    for section in sections(hint) {
        let section = section.ok()?;
        if holds(section.shard) {
            held.extend_from_slice(section.bytes);
        }
    }
    (!held.is_empty()).then_some(held)
}
