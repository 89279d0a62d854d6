//! When which hints are sent to a node.
//!
//! ```text
//!            Load                Send (by id)          Send (by labels)
//!  idle ──────────► loading ──► ready ──────► sent ──────────────► sent
//!   ▲                            │  ▲           │ acknowledged       │
//!   └──── Remove, all sent ──────┘  └───────────┴────────────────────┘
//! ```

use crate::hints::Chunk;
use crate::placement::NodeId;
use crate::rows::{Decoder, Encoder, Limits, Name, NoNumbers, sections};
use crate::view::{Health, View};
use crate::write::{Header, Reply, Session};
use bytes::Bytes;
use disk::log::SegmentNumber;
use model::{Batch, Replica, Shard};
use std::collections::BTreeMap;

/// How long a node that did not take a hint, or for which there is none, is left alone.
const PAUSE_MS: u64 = 1000;

/// A hint that its node refuses so often is dropped: repair brings what it would have brought.
const REFUSALS_MAX: u32 = 5;

/// What a step is decided by.
pub struct Situation<'a> {
    /// Monotonic.
    pub now_ms: u64,
    /// The cluster.
    pub view: &'a View,
    /// Of this node.
    pub session: Session,
    /// Of this node: for labels.
    pub replica: &'a dyn Replica,
    /// How long the shell waits for a reply.
    pub timeout_ms: u32,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Loading,
    Ready,
    Sent { round: u8 },
}

/// The replay of the hints for one node.
#[derive(Debug)]
pub struct Replay {
    node: NodeId,
    bytes_per_second: u64,
    state: State,
    chunk: Option<Chunk>,
    next: usize,
    ready_ms: u64,
    refusals: u32,
    delivered: u64,
    dropped: u64,
}

impl Replay {
    /// Of the hints for `node`, no faster than this.
    pub fn new(node: NodeId, bytes_per_second: u64) -> Replay {
        Replay {
            node,
            bytes_per_second: bytes_per_second.max(1),
            state: State::Idle,
            chunk: None,
            next: 0,
            ready_ms: 0,
            refusals: 0,
            delivered: 0,
            dropped: 0,
        }
    }

    /// Hints that the node has taken.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Hints that it would not take.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes an event, and tells what is to be done, if anything.
    pub fn step(&mut self, situation: &Situation<'_>, event: Event<'_>) -> Option<Effect> {
        match (self.state, event) {
            (State::Loading, Event::Loaded(Some(chunk))) => {
                (self.state, self.chunk, self.next) = (State::Ready, Some(chunk), 0);
            }
            (State::Loading, Event::Loaded(None)) => {
                self.state = State::Idle;
                self.pause(situation);
            }
            (State::Loading, Event::Failed) => {
                self.state = State::Idle;
                self.pause(situation);
            }
            (State::Sent { .. }, Event::Failed) => {
                self.state = State::Ready;
                self.pause(situation);
            }
            (State::Sent { round }, Event::Reply(reply)) => match Reply::decode(reply) {
                Ok((of, _)) if of != round => return None,
                Ok((_, Reply::Appended { unknown, .. })) if round == 1 && !unknown.is_empty() => {
                    if let Some(body) = self.by_labels(situation, &unknown) {
                        return Some(self.send(situation, body, 2));
                    }
                    self.dropped += 1;
                    self.advance();
                }
                Ok((_, Reply::Appended { .. })) => {
                    self.delivered += 1;
                    self.advance();
                }
                Ok((_, Reply::StaleEpoch { .. } | Reply::BehindEpoch { .. })) => {
                    self.state = State::Ready;
                    self.pause(situation);
                }
                Ok((_, Reply::NotHeld { .. } | Reply::Failed { .. })) | Err(_) => {
                    self.refusals += 1;
                    self.state = State::Ready;
                    if self.refusals >= REFUSALS_MAX {
                        self.dropped += 1;
                        self.advance();
                    }
                    self.pause(situation);
                }
            },
            _ => {}
        }
        self.next(situation)
    }

    fn pause(&mut self, situation: &Situation<'_>) {
        self.ready_ms = situation.now_ms + PAUSE_MS;
    }

    fn advance(&mut self) {
        self.next += 1;
        self.refusals = 0;
        self.state = State::Ready;
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
        while let Some(hint) = self.chunk.as_ref().and_then(|chunk| chunk.hints.get(self.next)) {
            if let Some(body) = frame(situation, self.node, hint) {
                return Some(self.send(situation, body, 1));
            }
            // Nothing that concerns the node any more.
            self.advance();
        }
        self.state = State::Idle;
        self.chunk.take().map(|chunk| Effect::Remove(chunk.segment))
    }

    fn send(&mut self, situation: &Situation<'_>, body: Vec<u8>, round: u8) -> Effect {
        self.state = State::Sent { round };
        self.ready_ms = situation.now_ms + body.len() as u64 * 1000 / self.bytes_per_second;
        Effect::Send(Bytes::from(body))
    }

    /// The rows of the series at these positions of the frame that was sent, with their labels; `None` if none of them is known here.
    fn by_labels(&self, situation: &Situation<'_>, positions: &[u32]) -> Option<Vec<u8>> {
        let view = situation.view;
        let hint = self.chunk.as_ref()?.hints.get(self.next)?;
        let sent = frame(situation, self.node, hint)?;
        let decoder = Decoder { key: view.key, shards: view.shards(), limits: Limits::default() };
        let mut batch = Batch::default();
        for section in sections(sent.get(Header::BYTES..)?) {
            decoder.decode(&section.ok()?, &mut NoNumbers, &mut batch, &mut Vec::new()).ok()?;
        }
        let mut shards: BTreeMap<Shard, Vec<(Vec<u8>, usize)>> = BTreeMap::new();
        for &position in positions {
            let series = batch.series.get(position as usize)?;
            let mut labels = Vec::new();
            if situation.replica.labels_of(series.id, &mut labels) {
                let shard = series.id.shard(view.shards());
                shards.entry(shard).or_default().push((labels, position as usize));
            }
        }
        if shards.is_empty() {
            return None;
        }
        let mut body = Vec::new();
        header(situation, 2).encode(&mut body);
        let mut encoder = Encoder::default();
        for (shard, series) in shards {
            for (labels, at) in &series {
                encoder.push_batch(Name::Labels(labels), &batch, &batch.series[*at]);
            }
            encoder.finish(shard, 0, &mut body);
        }
        Some(body)
    }
}

fn header(situation: &Situation<'_>, round: u8) -> Header {
    let Situation { view, session, timeout_ms, .. } = situation;
    Header { epoch: view.epoch(), timeout_ms: *timeout_ms, session: *session, round }
}

/// The sections of a hint for shards that the node has a replica of.
fn frame(situation: &Situation<'_>, node: NodeId, hint: &[u8]) -> Option<Vec<u8>> {
    let holds = |shard: Shard| situation.view.placement.replicas(shard).iter().any(|r| r.node == node);
    let mut body = Vec::with_capacity(Header::BYTES + hint.len());
    header(situation, 1).encode(&mut body);
    for section in sections(hint) {
        let section = section.ok()?;
        if holds(section.shard) {
            body.extend_from_slice(section.bytes);
        }
    }
    (body.len() > Header::BYTES).then_some(body)
}
