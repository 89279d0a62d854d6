//! One request on its way to the replicas.
//!
//! ```text
//! begin ─► local(): append to the own replica ─► on_local ─► frames ─┬─► on_reply ─► maybe another frame
//!                                                   on_durable ◄─────┤   on_failed, on_deadline
//!                                                                    └─► verdict, and when all is over: missed
//! ```
//!
//! Each copy of a shard goes from waiting to acknowledged or failed, and never back. So a verdict stands once it is given, while the
//! request goes on until every copy has answered: what a replica has missed becomes a hint only then.

use super::bounds::{Bounds, Clipped};
use super::dictionary::{Dictionary, Numbers, Session};
use super::{Header, Refused, Reply};
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::quorum::{Consistency, WriteQuorum};
use crate::rows::{Encoder, Name};
use crate::view::View;
use bytes::Bytes;
use model::{Batch, Error, Rejection, SeriesId, Shard};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Frames of one request to one receiver: the first, by id, by labels, and one for numbers that were taken back meanwhile.
const ROUNDS_MAX: u8 = 4;

/// When a replica that has not heard of the placement yet is asked again.
const BEHIND_RETRY_MS: u32 = 50;

/// Under what a request is carried out.
#[derive(Clone)]
pub struct Context {
    /// The cluster; the same until the request ends.
    pub view: Arc<View>,
    /// Which times are let in.
    pub bounds: Bounds,
    /// How many replicas must have the rows.
    pub consistency: Consistency,
    /// This node's numbers.
    pub dictionary: Arc<Dictionary>,
    /// To which they belong.
    pub session: Session,
    /// How long the request may take.
    pub timeout_ms: u32,
}

/// A frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To which node.
    pub to: NodeId,
    /// The frame; what is the same for several nodes is in memory once.
    pub body: Bytes,
    /// Wait for so long before.
    pub after_ms: u32,
}

/// What the own replica said when the rows were appended: the lists of [`model::Appended`].
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Series that it does not know.
    pub unknown: Vec<u32>,
    /// What it will never accept.
    pub rejected: Vec<Rejection>,
}

/// How a request stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Not decided.
    Waiting,
    /// Durable on a quorum of every shard's replicas, except for series that too many replicas refused.
    Acknowledged {
        /// These, in the order of their indices.
        rejected: Vec<Rejection>,
    },
    /// Some shards cannot reach their quorum any more. What became of the rows is not known.
    Unavailable {
        /// The shards, in order.
        shards: Vec<Shard>,
        /// Replicas that have the rows, of the shard that lacks the most.
        have: u8,
        /// Replicas that must have them.
        need: u8,
    },
}

/// Rows that a node has missed although they are acknowledged: a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The node.
    pub node: NodeId,
    /// Sections: known series by id, new ones by labels.
    pub sections: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Acknowledged,
    Failed,
}

/// The rows of one shard.
struct ShardWrite {
    shard: Shard,
    /// Indices into the batch.
    series: Vec<u32>,
    quorum: Arc<WriteQuorum>,
    copies: Vec<(NodeId, Progress)>,
    /// Where its section lies in what was encoded.
    section: std::ops::Range<usize>,
    /// Series that replicas refused, and which.
    refused: BTreeMap<u32, (Rejection, BTreeSet<NodeId>)>,
}

/// What is between this node and another.
struct Peer {
    round: u8,
    /// The frame that waits for its reply.
    body: Bytes,
    /// The series in it, by position; `None`: all of the shards that the peer holds.
    sent: Option<Vec<u32>>,
}

/// One request.
pub struct Coordinator {
    context: Context,
    batch: Arc<Batch>,
    /// Those with rows, in order.
    shards: Vec<ShardWrite>,
    local: Vec<u32>,
    unknown: Vec<u32>,
    rejected: Vec<Rejection>,
    peers: BTreeMap<NodeId, Peer>,
    /// Why a node failed, for people.
    failures: BTreeMap<NodeId, String>,
    newer_epoch: Option<u64>,
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::default();
}

impl Coordinator {
    /// Begins with the series of `batch` whose indices are in `only`, or all of them.
    pub fn begin(context: Context, batch: &Arc<Batch>, only: Option<&[u32]>) -> Coordinator {
        let count = only.map_or(batch.series.len(), <[u32]>::len);
        let wanted = || (0..count).map(|i| only.map_or(i as u32, |only| only[i]));
        let Clipped { batch, rejected } = context.bounds.clip(batch, wanted());
        let view = context.view.clone();
        // Counted first, so that each list is allocated once.
        let mut counts = vec![0; view.shards() as usize];
        let shard_of = |index: u32| {
            let series = &batch.series[index as usize];
            // Series of which nothing is left have nothing to be created for.
            let any = series.floats_len + series.histograms_len > 0;
            any.then(|| usize::from(series.id.shard(view.shards()).0))
        };
        wanted().filter_map(shard_of).for_each(|shard| counts[shard] += 1);
        let mut by_shard: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
        for index in wanted() {
            if let Some(shard) = shard_of(index) {
                by_shard[shard].push(index);
            }
        }
        let mut local = Vec::new();
        let mut shards: Vec<ShardWrite> = Vec::new();
        for (shard, series) in by_shard.into_iter().enumerate().filter(|(_, series)| !series.is_empty()) {
            let shard = Shard(shard as u16);
            let replicas = view.placement.replicas(shard);
            if replicas.iter().any(|replica| replica.node == view.me) {
                local.extend_from_slice(&series);
            }
            // Neighbours often have the same replicas.
            let alike = shards.last().filter(|last| view.placement.replicas(last.shard) == replicas);
            let quorum = match alike {
                Some(last) => last.quorum.clone(),
                None => Arc::new(WriteQuorum::new(replicas, context.consistency)),
            };
            shards.push(ShardWrite {
                shard,
                series,
                quorum,
                copies: replicas.iter().map(|replica| (replica.node, Progress::Waiting)).collect(),
                section: 0..0,
                refused: BTreeMap::new(),
            });
        }
        Coordinator {
            context,
            batch,
            shards,
            local,
            unknown: Vec::new(),
            rejected,
            peers: BTreeMap::new(),
            failures: BTreeMap::new(),
            newer_epoch: None,
        }
    }

    /// What the own replica is to append, by [`model::Replica::append_replicated`]: the batch without rows that are out of bounds, and the
    /// indices of its series.
    pub fn local(&self) -> (&Arc<Batch>, &[u32]) {
        (&self.batch, &self.local)
    }

    /// The own replica has appended, or has failed to. Must be called before anything is sent, also when there is nothing to append.
    ///
    /// Gives the frames for the others.
    pub fn on_local(&mut self, result: Result<Local, &Error>) -> Vec<Outgoing> {
        let me = self.context.view.me;
        let appended = result.is_ok();
        match result {
            Ok(local) => {
                // What this node refuses for good is told to the sender at once, and nobody else is asked.
                let refused = local.rejected.iter().map(|rejection| rejection.series);
                let gone: BTreeSet<u32> = local.unknown.iter().copied().chain(refused).collect();
                if !gone.is_empty() {
                    for shard in self.shards.iter_mut().filter(|shard| shard.copy(me).is_some()) {
                        shard.series.retain(|index| !gone.contains(index));
                    }
                }
                self.unknown = local.unknown;
                self.rejected.extend(local.rejected);
            }
            Err(error) => self.on_failed(me, &error.to_string()),
        }
        for shard in self.shards.iter_mut().filter(|shard| !appended || shard.copy(me).is_none()) {
            // Nobody here can tell whether a series exists, unless its labels were seen before.
            let Some(numbers) = self.context.dictionary.shard(shard.shard, 0) else { continue };
            let (batch, unknown) = (&self.batch, &mut self.unknown);
            shard.series.retain(|&index| {
                let series = &batch.series[index as usize];
                let known = series.checked || numbers.get(series.id).is_some();
                if !known {
                    unknown.push(index);
                }
                known
            });
        }
        self.shards.retain(|shard| !shard.series.is_empty());
        if !self.unknown.is_empty() {
            // They come again, and are judged then.
            let unknown: BTreeSet<u32> = self.unknown.iter().copied().collect();
            self.rejected.retain(|rejection| !unknown.contains(&rejection.series));
        }
        self.frames()
    }

    /// Series that nobody can place: they are to come again with labels that were checked.
    pub fn unknown(&self) -> &[u32] {
        &self.unknown
    }

    /// Rows that are refused at once.
    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
    }

    /// Encodes every shard once and puts the frames together.
    fn frames(&mut self) -> Vec<Outgoing> {
        let me = self.context.view.me;
        let mut whole = Vec::with_capacity(Header::BYTES + self.batch.timestamps.len() * 12);
        self.header(1).encode(&mut whole);
        let Coordinator { context, batch, shards, .. } = self;
        let mut nodes: BTreeMap<NodeId, usize> = BTreeMap::new();
        ENCODER.with_borrow_mut(|encoder| {
            for shard in shards.iter_mut() {
                let from = whole.len();
                let others = shard.copies.iter().filter(|(node, _)| *node != me);
                others.for_each(|(node, _)| *nodes.entry(*node).or_default() += 1);
                if shard.copies.iter().any(|(node, _)| *node != me) {
                    section(encoder, &context.dictionary, shard.shard, batch, &shard.series, &mut whole);
                }
                shard.section = from..whole.len();
            }
        });
        let sent = shards.iter().filter(|shard| !shard.section.is_empty()).count();
        let whole = Bytes::from(whole);
        let mut sends = Vec::with_capacity(nodes.len());
        for (to, held) in nodes {
            let body = if held == sent {
                whole.clone()
            } else {
                let mut part = whole[..Header::BYTES].to_vec();
                for shard in shards.iter().filter(|shard| shard.copy(to).is_some()) {
                    part.extend_from_slice(&whole[shard.section.clone()]);
                }
                Bytes::from(part)
            };
            self.peers.insert(to, Peer { round: 1, body: body.clone(), sent: None });
            sends.push(Outgoing { to, body, after_ms: 0 });
        }
        sends
    }

    fn header(&self, round: u8) -> Header {
        let Context { view, session, timeout_ms, .. } = &self.context;
        Header { epoch: view.epoch(), timeout_ms: *timeout_ms, session: *session, round }
    }

    /// The own replica's rows are durable, or will not be.
    pub fn on_durable(&mut self, result: Result<(), &Error>) {
        let me = self.context.view.me;
        match result {
            Ok(()) => self.settle(me, Progress::Acknowledged, |_| true),
            Err(error) => self.on_failed(me, &error.to_string()),
        }
    }

    /// A node has answered; maybe it is to get another frame. Answers to another frame than the last are passed over.
    pub fn on_reply(&mut self, from: NodeId, reply: &[u8]) -> Option<Outgoing> {
        let (round, reply) = match Reply::decode(reply) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.on_failed(from, &error.to_string());
                return None;
            }
        };
        // A second answer to the same frame changes nothing: the copies have left `Waiting`, or another round has begun.
        let peer = self.peers.get(&from).filter(|peer| peer.round == round)?;
        match reply {
            Reply::Appended { missing, unknown, refused } => {
                self.on_appended(from, &missing, &unknown, &refused)
            }
            Reply::BehindEpoch { .. } => {
                Some(Outgoing { to: from, body: peer.body.clone(), after_ms: BEHIND_RETRY_MS })
            }
            Reply::StaleEpoch { epoch } => {
                self.newer_epoch = self.newer_epoch.max(Some(epoch));
                self.on_failed(from, "has a newer placement");
                None
            }
            Reply::NotHeld { shard } => {
                self.on_failed(from, &format!("has no replica of shard {}", shard.0));
                None
            }
            Reply::Failed { why } | Reply::Never { why } => {
                self.on_failed(from, &why);
                None
            }
        }
    }

    fn on_appended(
        &mut self,
        from: NodeId,
        missing: &[u32],
        unknown: &[u32],
        refused: &[Refused],
    ) -> Option<Outgoing> {
        let (batch, shards) = (self.batch.clone(), self.context.view.shards());
        let shard_of = |index: u32| batch.series[index as usize].id.shard(shards);
        let sent = match (&self.peers.get(&from)?.sent, missing.len() + unknown.len() + refused.len()) {
            // The usual case has no use for positions.
            (None, 0) => Vec::new(),
            (None, _) => {
                let held = self.shards.iter().filter(|shard| shard.copy(from).is_some());
                held.flat_map(|shard| shard.series.iter().copied()).collect()
            }
            (Some(sent), _) => sent.clone(),
        };
        let find = |positions: &[u32]| -> Option<Vec<u32>> {
            positions.iter().map(|position| sent.get(*position as usize).copied()).collect()
        };
        let places: Vec<u32> = refused.iter().map(|one| one.position).collect();
        let (Some(missing), Some(unknown), Some(places)) = (find(missing), find(unknown), find(&places))
        else {
            self.on_failed(from, "answers for series that it was not sent");
            return None;
        };
        for (index, one) in places.into_iter().zip(refused) {
            let Refused { reason, timestamp, rows, .. } = *one;
            let rejection = Rejection { series: index, timestamp, rows, reason };
            let shard = shard_of(index);
            if let Some(shard) = self.shards.iter_mut().find(|write| write.shard == shard) {
                let entry = shard.refused.entry(index).or_insert((rejection, BTreeSet::new()));
                entry.1.insert(from);
            }
        }
        let open: BTreeSet<Shard> = missing.iter().chain(&unknown).map(|&index| shard_of(index)).collect();
        // All else that was sent is durable there. Shards of an earlier round have been settled before.
        self.settle(from, Progress::Acknowledged, |shard| !open.contains(&shard));
        if open.is_empty() { None } else { self.repeat(from, &missing, &unknown) }
    }

    /// The frame that brings the rows once more: by id what was asked for by number, by labels what was asked for by id.
    fn repeat(&mut self, to: NodeId, missing: &[u32], unknown: &[u32]) -> Option<Outgoing> {
        let round = self.peers.get(&to)?.round + 1;
        if round > ROUNDS_MAX {
            self.on_failed(to, "asks for the same series again and again");
            return None;
        }
        let mut body = Vec::new();
        self.header(round).encode(&mut body);
        let by_labels: BTreeSet<u32> = unknown.iter().copied().collect();
        let shards = self.context.view.shards();
        let mut again: BTreeMap<Shard, BTreeSet<u32>> = BTreeMap::new();
        for &index in missing.iter().chain(unknown) {
            again.entry(self.batch.series[index as usize].id.shard(shards)).or_default().insert(index);
        }
        let mut sent = Vec::with_capacity(missing.len() + unknown.len());
        ENCODER.with_borrow_mut(|encoder| {
            for (shard, series) in again {
                let Some(numbers) = self.context.dictionary.shard(shard, 0) else { continue };
                for index in series {
                    let one = &self.batch.series[index as usize];
                    let labels = self.batch.labels(one);
                    let name = match (by_labels.contains(&index), numbers.get(one.id)) {
                        (false, Some(number)) => Name::Define(number, one.id),
                        (false, None) => Name::Id(one.id),
                        (true, Some(number)) => Name::DefineLabels(number, labels),
                        (true, None) => Name::Labels(labels),
                    };
                    encoder.push_batch(name, &self.batch, one);
                    sent.push(index);
                }
                encoder.finish(shard, numbers.generation, &mut body);
            }
        });
        let body = Bytes::from(body);
        self.peers.insert(to, Peer { round, body: body.clone(), sent: Some(sent) });
        Some(Outgoing { to, body, after_ms: 0 })
    }

    /// A node cannot be reached, or will not answer.
    pub fn on_failed(&mut self, node: NodeId, why: &str) {
        let waits = |shard: &ShardWrite| shard.copy(node) == Some(Progress::Waiting);
        if self.shards.iter().any(waits) {
            self.failures.insert(node, why.to_owned());
            self.settle(node, Progress::Failed, |_| true);
        }
    }

    /// Nobody is waited for any more.
    pub fn on_deadline(&mut self) {
        for node in self.waiting() {
            self.on_failed(node, "timed out");
        }
    }

    fn settle(&mut self, node: NodeId, becomes: Progress, which: impl Fn(Shard) -> bool) {
        for shard in self.shards.iter_mut().filter(|shard| which(shard.shard)) {
            let copy = shard.copies.iter_mut().find(|(holder, _)| *holder == node);
            if let Some((_, copy @ Progress::Waiting)) = copy {
                *copy = becomes;
            }
        }
    }

    /// The nodes that have not answered for some shard.
    pub fn waiting(&self) -> BTreeSet<NodeId> {
        let copies = self.shards.iter().flat_map(|shard| &shard.copies);
        copies.filter(|(_, copy)| *copy == Progress::Waiting).map(|(node, _)| *node).collect()
    }

    /// The epoch of the placement under which it is carried out.
    pub fn epoch(&self) -> u64 {
        self.context.view.epoch()
    }

    /// The epoch of a placement that a replica has and this request has not: it may succeed under that one.
    pub fn newer_epoch(&self) -> Option<u64> {
        self.newer_epoch
    }

    /// How the request stands. Never changes once it is not [`Verdict::Waiting`], except that more shards become unavailable.
    pub fn verdict(&self) -> Verdict {
        let (mut waiting, mut rejected, mut shards) = (false, Vec::new(), Vec::new());
        let (mut have, mut need) = (0u8, 0u8);
        for shard in &self.shards {
            match shard.standing() {
                Standing::Met(refused) => rejected.extend(refused),
                Standing::Waiting => waiting = true,
                Standing::Impossible => {
                    let (h, n) =
                        shard.quorum.shortfall(|node| shard.copy(node) == Some(Progress::Acknowledged));
                    if shards.is_empty() || n.saturating_sub(h) > need.saturating_sub(have) {
                        (have, need) = (h, n);
                    }
                    shards.push(shard.shard);
                }
            }
        }
        if !shards.is_empty() {
            return Verdict::Unavailable { shards, have, need };
        }
        if waiting {
            return Verdict::Waiting;
        }
        rejected.sort_by_key(|rejection: &Rejection| rejection.series);
        Verdict::Acknowledged { rejected }
    }

    /// What the sender is told: `None` while that is open.
    pub fn outcome(&self) -> Option<Result<(), Error>> {
        match self.verdict() {
            Verdict::Waiting => None,
            Verdict::Acknowledged { rejected } if rejected.is_empty() => Some(Ok(())),
            // The own replica had room, or none was asked; sending again would not help.
            Verdict::Acknowledged { rejected } => Some(Err(Error::Limit {
                what: "new series for replicas that are full",
                key: "limits.series_max",
                max: 0,
                got: rejected.len() as u64,
            })),
            Verdict::Unavailable { shards, have, need } => {
                let address = |node: &NodeId| {
                    let peer = self.context.view.nodes.get(node);
                    peer.map_or_else(|| node.to_string(), |peer| peer.address.clone())
                };
                let missing = self.failures.iter().map(|(node, why)| format!("{} ({why})", address(node)));
                Some(Err(Error::Unavailable {
                    shards: shards.iter().map(|shard| shard.0).collect(),
                    have,
                    need,
                    missing: missing.collect(),
                }))
            }
        }
    }

    /// What other nodes have missed of a request that is acknowledged: to be kept as hints when nobody is waited for any more.
    pub fn missed(&self) -> Vec<Missed> {
        if !matches!(self.verdict(), Verdict::Acknowledged { .. }) {
            // The sender sends it again, and that reaches them or becomes a hint.
            return Vec::new();
        }
        let me = self.context.view.me;
        let mut missed: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        ENCODER.with_borrow_mut(|encoder| {
            for shard in &self.shards {
                let failed =
                    shard.copies.iter().filter(|(node, copy)| *node != me && *copy == Progress::Failed);
                for (node, _) in failed {
                    for &index in &shard.series {
                        let series = &self.batch.series[index as usize];
                        // Whoever missed the birth of a series needs its labels.
                        let name = match series.checked {
                            true => Name::Labels(self.batch.labels(series)),
                            false => Name::Id(series.id),
                        };
                        encoder.push_batch(name, &self.batch, series);
                    }
                    encoder.finish(shard.shard, 0, missed.entry(*node).or_default());
                }
            }
        });
        missed.into_iter().map(|(node, sections)| Missed { node, sections }).collect()
    }
}

/// How a shard stands.
enum Standing {
    /// Acknowledged by enough, except for series that too many refused.
    Met(Vec<Rejection>),
    Waiting,
    Impossible,
}

impl ShardWrite {
    fn copy(&self, node: NodeId) -> Option<Progress> {
        self.copies.iter().find(|(holder, _)| *holder == node).map(|(_, copy)| *copy)
    }

    fn standing(&self) -> Standing {
        let hints = planted(Mistake::CountHint);
        let acknowledged = |node: NodeId| match self.copy(node) {
            Some(Progress::Failed) => hints,
            copy => copy == Some(Progress::Acknowledged),
        };
        let failed = |node: NodeId| self.copy(node) == Some(Progress::Failed) && !hints;
        if planted(Mistake::AcknowledgeAtOne) && self.copies.iter().any(|(node, _)| acknowledged(*node)) {
            return Standing::Met(Vec::new());
        }
        if !self.quorum.is_possible(failed) {
            return Standing::Impossible;
        }
        let mut standing =
            if self.quorum.is_met(acknowledged) { Standing::Met(Vec::new()) } else { Standing::Waiting };
        for (rejection, refusers) in self.refused.values() {
            let refuses = |node: NodeId| refusers.contains(&node);
            if !self.quorum.is_possible(refuses) {
                if let Standing::Met(rejected) = &mut standing {
                    rejected.push(rejection.clone());
                }
            } else if !self.quorum.is_possible(|node| failed(node) || refuses(node)) {
                // Whoever failed might have taken it.
                return Standing::Impossible;
            } else if !self.quorum.is_met(|node| acknowledged(node) && !refuses(node)) {
                standing = Standing::Waiting;
            }
        }
        standing
    }
}

/// Encodes the rows of one shard: known series by number, others so that they have one from then on.
fn section(
    encoder: &mut Encoder,
    dictionary: &Dictionary,
    shard: Shard,
    batch: &Batch,
    series: &[u32],
    out: &mut Vec<u8>,
) {
    let Some(mut numbers) = dictionary.shard(shard, series.len()) else { return };
    let of = |index: &u32| &batch.series[*index as usize];
    // All lookups first: nothing depends on them yet, so that their cache misses are waited for together.
    let known: Vec<Option<u32>> = series.iter().map(|index| numbers.get(of(index).id)).collect();
    for (one, known) in series.iter().map(of).zip(known) {
        // A series may stand in a request twice: then it has a number by now.
        let name = match known.or_else(|| numbers.get(one.id)) {
            Some(number) => Name::Ref(number),
            None => introduced(&mut numbers, one.id, one.checked.then(|| batch.labels(one))),
        };
        encoder.push_batch(name, batch, one);
    }
    encoder.finish(shard, numbers.generation, out);
}

/// The name of a series that has no number yet: by labels if nobody may know it.
fn introduced<'a>(numbers: &mut Numbers, id: SeriesId, labels: Option<&'a [u8]>) -> Name<'a> {
    match (numbers.give(id), labels) {
        (Some(number), Some(labels)) => Name::DefineLabels(number, labels),
        (None, Some(labels)) => Name::Labels(labels),
        (Some(number), None) => Name::Define(number, id),
        (None, None) => Name::Id(id),
    }
}
