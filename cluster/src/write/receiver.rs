//! The receiving end: one for all senders, shared between threads.
//!
//! Lock order: `mirrors`, then a shard of a mirror; no lock is held while the replica appends.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{Header, Mirror, Refused, Reply, Session};
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::rows::{self, Decoder, Limits};
use crate::view::View;
use model::{Batch, Durable, Error, Replica};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Appends what other nodes send.
#[derive(Debug, Default)]
pub struct Receiver {
    /// What the numbers of each sender stand for: at most one for each node of the cluster, each bounded.
    mirrors: Mutex<BTreeMap<NodeId, Arc<Mirror>>>,
    limits: Limits,
}

/// What became of a frame.
pub struct Received {
    /// To which frame of the request the reply belongs.
    pub round: u8,
    /// The reply, to be sent when `durable` has resolved. If that is an error, [`Received::failed`] is the reply.
    pub reply: Reply,
    /// `None`: nothing was appended, so there is nothing to wait for.
    pub durable: Option<Durable>,
}

impl Received {
    /// Without anything to wait for.
    fn now(round: u8, reply: Reply) -> Received {
        Received { round, reply, durable: None }
    }

    /// The reply when the rows did not become durable.
    pub fn failed(error: &Error) -> Reply {
        Reply::Failed { why: error.to_string() }
    }
}

/// Rows and series for which a batch that is used again keeps its memory.
const KEEP_ROWS: usize = 1 << 16;

/// The same for bytes of labels and for histograms: both are rare.
const KEEP_BYTES: usize = 1 << 20;
const KEEP_HISTOGRAMS: usize = 1 << 12;

fn is_worth_keeping(batch: &Batch) -> bool {
    let rows = batch.timestamps.capacity().max(batch.series.capacity());
    rows <= KEEP_ROWS
        && batch.bytes.capacity() <= KEEP_BYTES
        && batch.histograms.capacity() <= KEEP_HISTOGRAMS
}

thread_local! {
    /// The batch of the last frame.
    static BATCH: RefCell<Arc<Batch>> = RefCell::default();
}

impl Receiver {
    /// Knows no sender yet.
    pub fn new(limits: Limits) -> Receiver {
        Receiver { mirrors: Mutex::default(), limits }
    }

    /// Appends the rows of a frame from the node `from`, whose identity the transport has checked.
    pub fn receive(&self, view: &View, replica: &dyn Replica, from: NodeId, frame: &[u8]) -> Received {
        let (header, sections) = match Header::decode(frame) {
            Ok(decoded) => decoded,
            Err(error) => return Received::now(0, Reply::Never { why: error.to_string() }),
        };
        let reply = |reply| Received::now(header.round, reply);
        // A connection from before may still be open, and the placement need not have changed since.
        if view.gone.contains_key(&from) && !planted(Mistake::TakeFromRemoved) {
            let why = format!("node {from} was removed from the cluster for ever");
            return reply(Reply::Failed { why });
        }
        let epoch = view.epoch();
        if planted(Mistake::SkipEpochCheck) {
            // Whatever the placement is.
        } else if header.epoch < epoch && !has_left(view, sections) {
            return reply(Reply::StaleEpoch { epoch });
        } else if header.epoch > epoch {
            return reply(Reply::BehindEpoch { epoch });
        }
        for section in rows::sections(sections) {
            match section {
                Err(error) => return reply(Reply::Never { why: error.to_string() }),
                Ok(section) if !holds(view, section.shard) && !planted(Mistake::AcceptAfterLeaving) => {
                    return reply(Reply::NotHeld { shard: section.shard });
                }
                Ok(_) => {}
            }
        }
        let mut batch = BATCH.take();
        let received = match fresh(&mut batch) {
            Some(into) => match self.decode(view, from, &header, sections, into) {
                Ok(missing) => append(header.round, replica, &batch, missing),
                Err(error) => reply(Reply::Never { why: error.to_string() }),
            },
            None => reply(Reply::Failed { why: "BUG: a batch is in use".to_owned() }),
        };
        if is_worth_keeping(&batch) {
            BATCH.set(batch);
        }
        received
    }

    /// Reads all sections; gives the positions whose number is not known.
    fn decode(
        &self,
        view: &View,
        from: NodeId,
        header: &Header,
        sections: &[u8],
        into: &mut Batch,
    ) -> Result<Vec<u32>, rows::Error> {
        let decoder = Decoder { key: view.key, shards: view.shards(), limits: self.limits };
        let mirror = self.mirror(view, from, header.session);
        let mut missing = Vec::new();
        for section in rows::sections(sections) {
            let section = section?;
            let mut numbers = mirror.of(header.session, section.shard, section.generation);
            decoder.decode(&section, &mut numbers, into, &mut missing)?;
        }
        Ok(missing)
    }

    /// The mirror of a sender. A new session begins a new one; an earlier session does not bring the old one back.
    fn mirror(&self, view: &View, from: NodeId, session: Session) -> Arc<Mirror> {
        let mut mirrors = self.mirrors.lock();
        match mirrors.get(&from) {
            Some(mirror) if mirror.session() >= session || planted(Mistake::KeepOldNumbers) => mirror.clone(),
            _ => {
                mirrors.retain(|node, _| view.nodes.contains_key(node));
                let mirror = Arc::new(Mirror::new(session, view.shards()));
                mirrors.insert(from, mirror.clone());
                mirror
            }
        }
    }
}

fn holds(view: &View, shard: model::Shard) -> bool {
    view.placement.replicas(shard).iter().any(|replica| replica.node == view.me)
}

/// Whether [`Mistake::AcceptAfterLeaving`] takes these rows.
fn has_left(view: &View, sections: &[u8]) -> bool {
    planted(Mistake::AcceptAfterLeaving)
        && rows::sections(sections).all(|section| section.is_ok_and(|section| !holds(view, section.shard)))
}

/// An empty batch, in the old one's memory if nobody else has it any more.
fn fresh(batch: &mut Arc<Batch>) -> Option<&mut Batch> {
    if Arc::get_mut(batch).is_none() {
        *batch = Arc::default();
    }
    let batch = Arc::get_mut(batch)?;
    batch.clear();
    Some(batch)
}

fn append(round: u8, replica: &dyn Replica, batch: &Arc<Batch>, missing: Vec<u32>) -> Received {
    let only = known(batch.series.len() as u32, &missing);
    if only.as_ref().is_some_and(Vec::is_empty) || batch.series.is_empty() {
        let reply = Reply::Appended { missing, unknown: Vec::new(), refused: Vec::new() };
        return Received::now(round, reply);
    }
    match replica.append_replicated(batch, only.as_deref()) {
        Err(error) => Received::now(round, Received::failed(&error)),
        Ok(appended) => {
            let mut unknown = appended.unknown;
            unknown.sort_unstable();
            unknown.retain(|_| !planted(Mistake::SkipLabelRequest));
            let refused = appended.rejected.iter().map(|one| Refused {
                position: one.series,
                reason: one.reason,
                timestamp: one.timestamp,
                rows: one.rows,
            });
            let reply = Reply::Appended { missing, unknown, refused: refused.collect() };
            let durable = Some(appended.durable).filter(|_| !planted(Mistake::AcknowledgeBeforeSync));
            Received { round, reply, durable }
        }
    }
}

/// All indices but those missing (in order); `None` for all.
fn known(count: u32, missing: &[u32]) -> Option<Vec<u32>> {
    let mut rest = missing.iter().peekable();
    (!missing.is_empty()).then(|| (0..count).filter(|index| rest.next_if_eq(&index).is_none()).collect())
}
