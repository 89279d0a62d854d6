//! The write path's shell: what the sink of a real node does, step by step.

use super::super::checks;
use super::super::clients::{Answer, Operation};
use super::super::network::Machine;
use super::super::values::Row;
use super::super::world::Out;
use super::calls::For;
use super::control::Waiting;
use super::engine::Then;
use super::{Process, Timer, dice, machine_of};
use cluster::placement::{self, NodeId, ReplicaState};
use cluster::quorum::Consistency;
use cluster::rows::Limits;
use cluster::state::Command;
use cluster::view::View;
use cluster::write::{
    Bounds, Context, Coordinator, Dictionary, Header, Local, Outgoing, Receiver, Reply, Session,
};
use model::{Batch, Error, Rejection, Replica, Sink};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a write may take.
const TIMEOUT_MS: u32 = 5_000;
/// What is taken that lies ahead of the wall clock.
const FUTURE_MS: i64 = 600_000;

/// One `Sink::append`.
struct Part {
    coordinator: Coordinator,
    batch: Arc<Batch>,
    /// Which series of the batch it is about.
    indices: Vec<u32>,
    /// How often each node was sent something.
    rounds: BTreeMap<NodeId, u8>,
    ended: bool,
}

/// One request of a client: first all rows as they are, then those of unknown series with labels that were checked.
struct Write {
    operation: Operation,
    rows: Vec<Row>,
    view: Arc<View>,
    consistency: Consistency,
    parts: Vec<Part>,
    /// Whether all parts have begun.
    begun: bool,
    answered: bool,
}

/// All writes of a process, and the ends of what they share.
pub struct Writes {
    all: BTreeMap<u64, Write>,
    last: u64,
    session: Session,
    dictionary: Arc<Dictionary>,
    receiver: Receiver,
    /// Wait until it is agreed on that there is data.
    first: Vec<(Operation, Vec<Row>, Option<Consistency>)>,
}

impl Writes {
    pub fn new(out: &Out<'_>) -> Writes {
        Writes {
            all: BTreeMap::new(),
            last: 0,
            session: Session::new(out.run, dice(out, 3).number() as u32),
            dictionary: Arc::new(Dictionary::new(out.env.swarm.shards)),
            receiver: Receiver::new(Limits::default()),
            first: Vec::new(),
        }
    }

    pub fn session(&self) -> Session {
        self.session
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
}

impl Process {
    /// A client's rows.
    pub(super) fn write(
        &mut self,
        out: &mut Out<'_>,
        operation: Operation,
        rows: Vec<Row>,
        consistency: Option<Consistency>,
    ) {
        let (Some(view), Some(engine)) = (self.view.clone(), &self.engine) else { return };
        if !view.has_data {
            self.writes.first.push((operation, rows, consistency));
            if self.writes.first.len() == 1 {
                self.propose(out, Command::NoteData, Waiting::FirstWrite);
            }
            return;
        }
        let namespace = view.namespaces.get("default").copied().unwrap_or_default();
        let consistency = consistency.unwrap_or(namespace.write);
        let batch = Arc::new(out.env.values.batch(engine.replica.key(), &rows, false));
        self.writes.last += 1;
        let number = self.writes.last;
        let write =
            Write { operation, rows, view, consistency, parts: Vec::new(), begun: false, answered: false };
        self.writes.all.insert(number, write);
        out.timer(u64::from(TIMEOUT_MS), Timer::Write { number });
        let unknown = self.begin(out, number, batch.clone(), None);
        if !unknown.is_empty() {
            // The labels are canonical, as `ingest` makes sure before it says so.
            let mut checked = (*batch).clone();
            unknown.iter().for_each(|index| checked.series[*index as usize].checked = true);
            let left = self.begin(out, number, Arc::new(checked), Some(unknown));
            if !left.is_empty() {
                out.env.violated("a series with checked labels is unknown to the sink".into());
            }
        }
        if let Some(write) = self.writes.all.get_mut(&number) {
            write.begun = true;
        }
        self.advance(out, number);
    }

    pub(super) fn first_write(&mut self, out: &mut Out<'_>, result: Result<(), String>) {
        let waiting = std::mem::take(&mut self.writes.first);
        let agreed = self.view.as_ref().is_some_and(|view| view.has_data);
        for (operation, rows, consistency) in waiting {
            match &result {
                Ok(()) if agreed => self.write(out, operation, rows, consistency),
                Ok(()) => out.answer(&operation, Answer::Failed("no view with data yet".into())),
                Err(why) => out.answer(&operation, Answer::Failed(why.clone())),
            }
        }
    }

    /// One `Sink::append`; gives the unknown series.
    fn begin(
        &mut self,
        out: &mut Out<'_>,
        number: u64,
        batch: Arc<Batch>,
        only: Option<Vec<u32>>,
    ) -> Vec<u32> {
        let (Some(write), Some(engine)) = (self.writes.all.get_mut(&number), &self.engine) else {
            return Vec::new();
        };
        let bounds = Bounds { oldest: i64::MIN, newest: out.clock.shown() + FUTURE_MS };
        let context = Context {
            view: write.view.clone(),
            bounds,
            consistency: write.consistency,
            dictionary: self.writes.dictionary.clone(),
            session: self.writes.session,
            timeout_ms: TIMEOUT_MS,
        };
        let mut coordinator = Coordinator::begin(context, &batch, only.as_deref());
        let (own, indices) = coordinator.local();
        let appended = match indices.is_empty() {
            true => None,
            false => Some(engine.ghosted.append_replicated(own, Some(indices))),
        };
        let mut durable = None;
        let frames = match appended {
            None => coordinator.on_local(Ok(Local::default())),
            Some(Ok(appended)) => {
                durable = Some(appended.durable);
                coordinator.on_local(Ok(Local { unknown: appended.unknown, rejected: appended.rejected }))
            }
            Some(Err(error)) => coordinator.on_local(Err(&error)),
        };
        let unknown = coordinator.unknown().to_vec();
        let all = 0..batch.series.len() as u32;
        let mut indices = only.unwrap_or_else(|| all.collect());
        indices.retain(|index| !unknown.contains(index));
        let part = write.parts.len();
        write.parts.push(Part { coordinator, batch, indices, rounds: BTreeMap::new(), ended: false });
        for frame in frames {
            self.frame(out, number, part, frame);
        }
        if let Some(durable) = durable {
            self.when_durable(out, durable, Then::Own { write: number, part });
        }
        unknown
    }

    fn frame(&mut self, out: &mut Out<'_>, number: u64, part: usize, frame: Outgoing) {
        let Outgoing { to, body, after_ms } = frame;
        let Some(write) = self.writes.all.get_mut(&number) else { return };
        *write.parts[part].rounds.entry(to).or_default() += 1;
        let Some(machine) = write.view.nodes.get(&to).and_then(|peer| machine_of(&peer.address)) else {
            // Removed for good, and not yet replaced.
            return write.parts[part].coordinator.on_failed(to, "no address");
        };
        let what = For::Write { number, part, node: to };
        let way = (machine, Some(to));
        self.call(out, u64::from(after_ms), way, body.to_vec(), u64::from(TIMEOUT_MS), what);
    }

    /// A frame from another node.
    pub(super) fn write_arrived(
        &mut self,
        out: &mut Out<'_>,
        machine: Machine,
        from: NodeId,
        call: u64,
        body: &[u8],
    ) {
        let (Some(view), Some(engine)) = (&self.view, &self.engine) else {
            let reply = Reply::Failed { why: "starting".into() }.encode(1);
            return self.reply(out, machine, call, vec![reply]);
        };
        let received = self.writes.receiver.receive(view, &*engine.ghosted, from, body);
        let told = Header::decode(body).map(|(header, _)| header.epoch).ok();
        if matches!(received.reply, Reply::Appended { .. }) && told != Some(view.epoch()) {
            let (me, own) = (out.me, view.epoch());
            out.env.violated(format!("{me} knows epoch {own} and takes rows that were sent under {told:?}"));
        }
        if matches!(received.reply, Reply::Appended { .. }) && view.gone.contains_key(&from) {
            let me = out.me;
            out.env.violated(format!("{me} knows that {from} was removed, and takes rows from it"));
        }
        match received.durable {
            None => self.reply(out, machine, call, vec![received.reply.encode(received.round)]),
            Some(durable) => {
                let then = Then::Answer { machine, call, round: received.round, reply: received.reply };
                self.when_durable(out, durable, then);
            }
        }
    }

    pub(super) fn write_ended(
        &mut self,
        out: &mut Out<'_>,
        (number, part): (u64, usize),
        node: NodeId,
        end: Result<Arc<[Vec<u8>]>, String>,
    ) {
        let Some(write) = self.writes.all.get_mut(&number) else { return };
        let coordinator = &mut write.parts[part].coordinator;
        let next = match end {
            Ok(chunks) => coordinator.on_reply(node, &chunks.concat()),
            Err(why) => {
                coordinator.on_failed(node, &why);
                None
            }
        };
        if let Some(frame) = next {
            self.frame(out, number, part, frame);
        }
        self.advance(out, number);
    }

    pub(super) fn own_durable(
        &mut self,
        out: &mut Out<'_>,
        number: u64,
        part: usize,
        result: Result<(), Error>,
    ) {
        if let Some(write) = self.writes.all.get_mut(&number) {
            write.parts[part].coordinator.on_durable(result.as_ref().copied());
            self.advance(out, number);
        }
    }

    pub(super) fn write_late(&mut self, out: &mut Out<'_>, number: u64) {
        if let Some(write) = self.writes.all.get_mut(&number) {
            write.parts.iter_mut().for_each(|part| part.coordinator.on_deadline());
            self.advance(out, number);
        }
    }

    /// Tells the client when that is decided, and ends what is over.
    fn advance(&mut self, out: &mut Out<'_>, number: u64) {
        let Some(write) = self.writes.all.get_mut(&number).filter(|write| write.begun) else { return };
        if !write.answered {
            let outcomes: Vec<Option<Result<(), Error>>> =
                write.parts.iter().map(|part| part.coordinator.outcome()).collect();
            let failed = outcomes.iter().flatten().find_map(|outcome| outcome.as_ref().err());
            if let Some(error) = failed {
                write.answered = true;
                out.answer(&write.operation, Answer::Failed(error.to_string()));
            } else if outcomes.iter().all(Option::is_some) {
                write.answered = true;
                acknowledge(out, write);
            }
        }
        let mut missed = Vec::new();
        for part in write.parts.iter_mut().filter(|part| !part.ended && part.coordinator.waiting().is_empty())
        {
            part.ended = true;
            missed.extend(part.coordinator.missed());
        }
        if write.answered && write.parts.iter().all(|part| part.ended) {
            self.writes.all.remove(&number);
        }
        self.hints_keep(out, missed);
    }
}

/// The client is told that its rows are kept, and it is looked at whether that is true.
fn acknowledge(out: &mut Out<'_>, write: &Write) {
    let now = out.now_ms();
    let values = &out.env.values;
    let mut rejected = Vec::new();
    let mut kept = Vec::new();
    for part in &write.parts {
        let refused: Vec<&Rejection> = part.coordinator.rejected().iter().collect();
        for index in &part.indices {
            let series = &part.batch.series[*index as usize];
            let Some(number) = write
                .rows
                .iter()
                .map(|row| row.series)
                .find(|number| part.batch.labels(series) == values.labels(*number).as_bytes())
            else {
                continue;
            };
            for row in write.rows.iter().filter(|row| row.series == number) {
                let is_refused =
                    refused.iter().any(|r| r.series == *index && (r.rows > 1 || r.timestamp == row.t));
                if is_refused { rejected.push(*row) } else { kept.push((*row, series.id)) }
            }
        }
    }
    // Only what others may rely on. Those who are content with one copy have been warned.
    for (row, id) in &kept {
        let value = out.env.values.value(*row);
        let replicas = write.view.placement.replicas(id.shard(write.view.shards()));
        let has = |replica: &&placement::Replica| {
            // Whoever said yes had it, although its disk may be gone by now.
            out.env.ghost(replica.node).is_some_and(|ghost| ghost.has(*id, row.t, &value))
        };
        // Before the move and after it: the product's own idea of the two is not asked.
        let before = |r: &&placement::Replica| {
            !matches!(r.state, ReplicaState::Initializing { .. } | ReplicaState::Arrived)
        };
        let after = |r: &&placement::Replica| r.state != ReplicaState::Leaving;
        let of = |set: &dyn Fn(&&placement::Replica) -> bool| {
            let all: Vec<&placement::Replica> = replicas.iter().filter(|r| set(r)).collect();
            (all.iter().filter(|r| has(r)).count(), all.len())
        };
        let sets = [of(&before), of(&after)];
        let is_enough = |consistency: Consistency| match consistency {
            Consistency::One => sets.iter().any(|(have, _)| *have > 0),
            Consistency::Majority => sets.iter().all(|(have, all)| *have > all / 2),
            Consistency::All => sets.iter().all(|(have, all)| have == all && *all > 0),
        };
        // Whoever knew, when the client asked, that this node was removed cannot have agreed.
        let agrees = |r: &&placement::Replica| {
            let told = out.env.informed.get(&(r.node, write.view.me));
            told.is_none_or(|since_ms| *since_ms > write.operation.since_ms)
        };
        let could = |set: &dyn Fn(&&placement::Replica) -> bool| {
            let all: Vec<&placement::Replica> = replicas.iter().filter(|r| set(r)).collect();
            all.iter().filter(|r| agrees(r)).count() > all.len() / 2
        };
        if write.consistency != Consistency::One && !(could(&before) && could(&after)) {
            let me = out.me;
            out.env.violated(format!("{me} was removed, and acknowledges {row:?}, whose replicas know that"));
        }
        let kept = is_enough(Consistency::Majority);
        if !is_enough(write.consistency) {
            let shard = id.shard(write.view.shards());
            out.env.violated(format!(
                "acknowledged at {}: {row:?} of {shard:?} is durable on so many of the old and of the new replicas: {sets:?} ({})",
                out.me, write.consistency
            ));
        }
        if kept {
            out.env.ledger.acknowledged(*row, now);
            // Also when the cluster has gone on in the meantime, and whoever said yes belongs to it no more.
            let shard = id.shard(write.view.shards());
            if let Some(why) = checks::unreadable(out.env, shard, (*id, row.t), &value) {
                out.env.violated(format!(
                    "acknowledged at {} by no majority that counts: {row:?}, {why}",
                    out.me
                ));
            }
        }
    }
    rejected.iter().for_each(|_| out.env.ledger.rejected());
    out.answer(&write.operation, Answer::Written { rejected: rejected.len(), kept: kept.len() });
}
