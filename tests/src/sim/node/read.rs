//! The read path's shell, and what every answer is held against.

use super::super::clients::{Answer, Operation};
use super::super::ghost::Ghosted;
use super::super::network::Machine;
use super::super::world::Out;
use super::calls::For;
use super::{Process, Timer, machine_of};
use cluster::quorum::Consistency;
use cluster::read::{Body, Bounds, Effect, Event, Plan, Request, Select, Set, serve};
use cluster::view::View;
use model::{Error, Replica, Samples, Selection, SeriesSet, ShardSet, TimeRange, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a read may take.
const TIMEOUT_MS: u64 = 8_000;
/// After which silence another replica is asked.
const HEDGE_MS: u64 = 150;
/// Under newer views, a read is tried so often.
const TRIES: u32 = 3;

struct Read {
    operation: Operation,
    which: u64,
    range: (i64, i64),
    consistency: Consistency,
    select: Select,
    view: Arc<View>,
    /// When its first try began: everything acknowledged before must be seen.
    since_ms: u64,
    tries: u32,
}

/// All reads of a process.
pub struct Reads {
    all: BTreeMap<u64, Read>,
    last: u64,
}

impl Reads {
    pub fn new(_out: &Out<'_>) -> Reads {
        Reads { all: BTreeMap::new(), last: 0 }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
}

impl Process {
    /// A client's question.
    pub(super) fn read(
        &mut self,
        out: &mut Out<'_>,
        operation: Operation,
        which: u64,
        range: (i64, i64),
        consistency: Option<Consistency>,
    ) {
        let Some(view) = self.view.clone() else { return };
        let namespace = view.namespaces.get("default").copied().unwrap_or_default();
        let consistency = consistency.unwrap_or(namespace.read);
        let select = select(out, &view, which, range, consistency);
        let since_ms = out.now_ms();
        let read = Read { operation, which, range, consistency, select, view, since_ms, tries: 1 };
        self.reads.last += 1;
        let number = self.reads.last;
        self.reads.all.insert(number, read);
        self.step_read(out, number, Event::Tick);
        self.read_tick(out, number);
    }

    fn step_read(&mut self, out: &mut Out<'_>, number: u64, event: Event) {
        let Some(read) = self.reads.all.get_mut(&number) else { return };
        let effects = read.select.step(out.now_ms(), event);
        for effect in effects {
            let Some(read) = self.reads.all.get(&number) else { return };
            match effect {
                Effect::Own(ask) => {
                    let Some(engine) = &self.engine else { return };
                    let answer = ask.perform(&read.view, &*engine.ghosted, 1, &|| false);
                    self.step_read(out, number, Event::Own { number: ask.number, answer });
                }
                Effect::Send { number: ask, to, request, timeout_ms } => {
                    let machine = read.view.nodes.get(&to).and_then(|peer| machine_of(&peer.address));
                    let what = For::Read { number, ask };
                    match machine {
                        Some(machine) => {
                            self.call(out, 0, (machine, Some(to)), request, timeout_ms, what);
                        }
                        None => self.step_read(
                            out,
                            number,
                            Event::Failed { number: ask, why: "no address".into() },
                        ),
                    }
                }
            }
        }
        self.finish_read(out, number);
    }

    /// The coordinator wants to know the time now and then.
    pub(super) fn read_tick(&mut self, out: &mut Out<'_>, number: u64) {
        let now = out.now_ms();
        let Some(read) = self.reads.all.get(&number) else { return };
        if read.select.wake_at_ms() <= now {
            self.step_read(out, number, Event::Tick);
        }
        if let Some(read) = self.reads.all.get(&number) {
            let wake = read.select.wake_at_ms().clamp(now + 1, now + 1_000);
            out.timer(wake - now, Timer::Read { number });
        }
    }

    /// A question of another node.
    pub(super) fn read_arrived(&mut self, out: &mut Out<'_>, machine: Machine, call: u64, body: &[u8]) {
        let (Some(view), Some(engine)) = (&self.view, &self.engine) else {
            return self.reply(out, machine, call, Vec::new());
        };
        if let Some(what) = answers_damaged(view, &engine.ghosted, body) {
            let me = out.me;
            return out.env.violated(format!("{me} {what}"));
        }
        let mut chunks = Vec::new();
        let now = out.now_ms();
        let mut emit = |chunk| {
            chunks.push(chunk);
            Ok(())
        };
        let _ = serve(view, &*engine.ghosted, body, 1, &|| now, &mut emit);
        // A stream can break off.
        let left = out.env.network.torn(chunks.len());
        chunks.truncate(left);
        self.reply(out, machine, call, chunks);
    }

    pub(super) fn read_ended(
        &mut self,
        out: &mut Out<'_>,
        number: u64,
        ask: u32,
        end: Result<Arc<[Vec<u8>]>, String>,
    ) {
        let why = match end {
            Ok(chunks) => {
                for bytes in chunks.iter() {
                    self.step_read(out, number, Event::Chunk { number: ask, bytes: bytes.clone() });
                }
                "the answer ended".to_owned()
            }
            Err(why) => why,
        };
        self.step_read(out, number, Event::Failed { number: ask, why });
    }

    fn finish_read(&mut self, out: &mut Out<'_>, number: u64) {
        if !self.reads.all.get(&number).is_some_and(|read| read.select.is_done()) {
            return;
        }
        let Some(mut read) = self.reads.all.remove(&number) else { return };
        if read.select.is_behind() && read.tries < TRIES && self.view.is_some() {
            // Once more under the view of the moment.
            let Some(view) = self.view.clone() else { return };
            read.select = select(out, &view, read.which, read.range, read.consistency);
            read.view = view;
            read.tries += 1;
            self.reads.all.insert(number, read);
            return self.step_read(out, number, Event::Tick);
        }
        let Read { operation, which, range, consistency, select, view, since_ms, .. } = read;
        match select.finish() {
            Err(error) => {
                named(out, &view, &error);
                out.answer(&operation, Answer::Failed(error.to_string()));
            }
            Ok(set) => {
                // One copy alone may lag behind.
                let since = if consistency == Consistency::One { 0 } else { since_ms };
                match check(out, &set, which, range, since) {
                    Ok(count) => out.answer(&operation, Answer::Read { rows: count }),
                    Err(Wrong::Unreadable(why)) => out.answer(&operation, Answer::Failed(why)),
                    Err(Wrong::Violation(what)) => out.env.violated(format!("read at {}: {what}", out.me)),
                }
            }
        }
    }
}

/// Whether a node gives samples of shards that it knows to be damaged, unless it was asked to.
fn answers_damaged(view: &View, replica: &Ghosted, body: &[u8]) -> Option<String> {
    let damage = replica.damage();
    if damage.is_empty() {
        return None;
    }
    let Ok(mut request) = Request::decode(body) else { return None };
    let Body::Select { selection, damaged: false, summaries, .. } = &mut request.body else { return None };
    summaries.clear();
    let asked = selection.shards.take()?;
    let hurt = damage.iter().filter(|d| d.range.overlaps(&selection.range) && asked.contains(d.shard));
    let hurt: ShardSet = hurt.map(|d| d.shard).collect();
    if hurt.is_empty() || request.epoch != view.epoch() {
        return None;
    }
    let text = format!("answers for {hurt:?}, of which it knows that samples may be missing");
    selection.shards = Some(hurt);
    let mut chunks = 0;
    let mut emit = |_| {
        chunks += 1;
        Ok(())
    };
    let _ = serve(view, replica, &request.encode(), 1, &|| 0, &mut emit);
    // A header that refuses all of them, and the end.
    (chunks > 2).then_some(text)
}

fn select(
    out: &Out<'_>,
    view: &Arc<View>,
    which: u64,
    range: (i64, i64),
    consistency: Consistency,
) -> Select {
    let range = TimeRange { min: Timestamp(range.0), max: Timestamp(range.1) };
    let selection =
        Selection { matchers: out.env.values.matchers(which), range, series_max: 100_000, shards: None };
    let plan = Plan {
        consistency,
        partial: false,
        digests: true,
        hedge_after_ms: HEDGE_MS,
        deadline_ms: out.now_ms() + TIMEOUT_MS,
        load: BTreeMap::new(),
    };
    Select::new(view.clone(), selection, plan, Bounds { fetch_bytes_max: 16 << 20 })
}

/// An error that says that copies are missing names shards that there are.
fn named(out: &mut Out<'_>, view: &View, error: &Error) {
    if let Error::Unavailable { shards, have, need, .. } = error {
        let there = shards.iter().all(|shard| u32::from(*shard) < view.shards());
        if shards.is_empty() || !there || have >= need {
            out.env.violated(format!("an error that names no shard or makes no sense: {error:?}"));
        }
    }
}

enum Wrong {
    /// A page could not be read; the client is told.
    Unreadable(String),
    Violation(String),
}

/// Holds everything that was read against the truth.
fn check(
    out: &Out<'_>,
    set: &Set,
    which: u64,
    (min, max): (i64, i64),
    since_ms: u64,
) -> Result<usize, Wrong> {
    let values = &out.env.values;
    let range = TimeRange { min: Timestamp(min), max: Timestamp(max) };
    let mut read: BTreeMap<u16, Samples> = BTreeMap::new();
    let mut count = 0;
    for index in 0..set.len() {
        let labels = set.labels(index);
        let number = values
            .number_of(&labels)
            .filter(|number| values.matches(which, *number))
            .ok_or_else(|| Wrong::Violation(format!("a series that nobody asked for: {labels}")))?;
        let mut samples = Samples::default();
        set.read(index, range, &mut samples).map_err(|e| Wrong::Unreadable(e.to_string()))?;
        count += samples.timestamps.len();
        if read.insert(number, samples).is_some() {
            return Err(Wrong::Violation(format!("series {number} twice")));
        }
    }
    let none = Samples::default();
    for number in (0..values.len()).filter(|number| values.matches(which, *number)) {
        let samples = read.get(&number).unwrap_or(&none);
        let rows = samples.timestamps.iter().copied().zip(samples.values.iter().copied());
        out.env.ledger.check(values, number, (min, max), since_ms, rows).map_err(Wrong::Violation)?;
    }
    Ok(count)
}
