//! The read path's shell, and what every answer is held against.

use super::super::clients::{Answer, Operation};
use super::super::ghost::Ghosted;
use super::super::network::Machine;
use super::super::values::rows;
use super::super::world::Out;
use super::calls::For;
use super::control::Waiting;
use super::{Process, Timer, machine_of};
use cluster::quorum::Consistency;
use cluster::read::{Body, Bounds, Effect, Event, Lookup, Plan, Request, Select, Set, What, serve};
use cluster::view::View;
use model::{
    Error, LabelQuery, Replica, Samples, Selection, SeriesSet, Shard, ShardSet, TimeRange, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a read may take.
const TIMEOUT_MS: u64 = 8_000;
/// After which silence another replica is asked.
const HEDGE_MS: u64 = 150;
/// Under newer views, a read is tried so often.
const TRIES: u32 = 3;

/// What a client wants to know.
pub struct Wanted {
    /// What to look up; samples without it.
    pub what: Option<What>,
    /// For `Values::matchers`.
    pub which: u64,
    /// From and to.
    pub range: (i64, i64),
    /// Whether a part of it will do.
    pub partial: bool,
}

/// What finds out.
enum Machinery {
    Select(Box<Select>),
    Lookup(Box<Lookup>),
}

impl Machinery {
    fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        match self {
            Machinery::Select(select) => select.step(now_ms, event),
            Machinery::Lookup(lookup) => lookup.step(now_ms, event),
        }
    }

    fn wake_at_ms(&self) -> u64 {
        match self {
            Machinery::Select(select) => select.wake_at_ms(),
            Machinery::Lookup(lookup) => lookup.wake_at_ms(),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Machinery::Select(select) => select.is_done(),
            Machinery::Lookup(lookup) => lookup.is_done(),
        }
    }

    fn is_behind(&self) -> bool {
        match self {
            Machinery::Select(select) => select.is_behind(),
            Machinery::Lookup(lookup) => lookup.is_behind(),
        }
    }
}

struct Read {
    operation: Operation,
    wanted: Wanted,
    consistency: Consistency,
    machinery: Machinery,
    view: Arc<View>,
    /// When its first try began: everything acknowledged before must be seen.
    since_ms: u64,
    tries: u32,
}

/// A question that waits until it is known whether there may be data.
pub struct FirstRead {
    operation: Operation,
    wanted: Wanted,
    consistency: Option<Consistency>,
    since_ms: u64,
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
        wanted: Wanted,
        consistency: Option<Consistency>,
    ) {
        let since_ms = out.now_ms();
        if self.view.as_ref().is_some_and(|view| !view.has_data) {
            let first = FirstRead { operation, wanted, consistency, since_ms };
            return self.catch_up(out, Waiting::FirstRead(Box::new(first)));
        }
        self.read_under_view(out, FirstRead { operation, wanted, consistency, since_ms });
    }

    /// This node knows what was agreed on before the question.
    pub(super) fn first_read(&mut self, out: &mut Out<'_>, first: FirstRead, result: Result<(), String>) {
        match result {
            Ok(()) => self.read_under_view(out, first),
            Err(why) => out.answer(&first.operation, Answer::Failed(why)),
        }
    }

    fn read_under_view(&mut self, out: &mut Out<'_>, first: FirstRead) {
        let FirstRead { operation, wanted, consistency, since_ms } = first;
        let Some(view) = self.view.clone() else { return };
        let namespace = view.namespaces.get("default").copied().unwrap_or_default();
        let consistency = consistency.unwrap_or(namespace.read);
        let machinery = machinery(out, &view, &wanted, consistency);
        self.begin_read(out, Read { operation, wanted, consistency, machinery, view, since_ms, tries: 1 });
    }

    fn begin_read(&mut self, out: &mut Out<'_>, read: Read) {
        self.reads.last += 1;
        let number = self.reads.last;
        self.reads.all.insert(number, read);
        self.step_read(out, number, Event::Tick);
        self.read_tick(out, number);
    }

    fn step_read(&mut self, out: &mut Out<'_>, number: u64, event: Event) {
        let Some(read) = self.reads.all.get_mut(&number) else { return };
        let effects = read.machinery.step(out.now_ms(), event);
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
        if read.machinery.wake_at_ms() <= now {
            self.step_read(out, number, Event::Tick);
        }
        if let Some(read) = self.reads.all.get(&number) {
            let wake = read.machinery.wake_at_ms().clamp(now + 1, now + 1_000);
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
        // A refusal is one piece, and an answer has at least a beginning and an end.
        let told = Request::decode(body).ok().filter(|told| !matches!(told.body, Body::Metadata { .. }));
        if let Some(told) = told.filter(|told| told.epoch != view.epoch() && chunks.len() > 1) {
            let (me, own) = (out.me, view.epoch());
            return out.env.violated(format!(
                "{me} knows epoch {own} and answers a read that was asked under {}",
                told.epoch
            ));
        }
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
        if !self.reads.all.get(&number).is_some_and(|read| read.machinery.is_done()) {
            return;
        }
        let Some(mut read) = self.reads.all.remove(&number) else { return };
        if read.machinery.is_behind() && read.tries < TRIES && self.view.is_some() {
            // Once more under the view of the moment.
            let Some(view) = self.view.clone() else { return };
            read.machinery = machinery(out, &view, &read.wanted, read.consistency);
            read.view = view;
            read.tries += 1;
            // Under a number of its own: what was asked in the try before may still be answered, and is none of this one's.
            return self.begin_read(out, read);
        }
        let Read { operation, wanted, consistency, machinery, view, since_ms, .. } = read;
        // One copy alone may lag behind.
        let since_ms = if consistency == Consistency::One { 0 } else { since_ms };
        let checked = match machinery {
            Machinery::Select(select) => {
                select.finish().map(|set| check(out, &view, &set, &wanted, since_ms))
            }
            Machinery::Lookup(lookup) => found(*lookup, &wanted)
                .map(|found| check_found(out, &found, &wanted, since_ms).map_err(Wrong::Violation)),
        };
        match checked {
            Err(error) => {
                named(out, &view, &error);
                out.answer(&operation, Answer::Failed(error.to_string()));
            }
            Ok(Ok(count)) => out.answer(&operation, Answer::Read { rows: count }),
            Ok(Err(Wrong::Unreadable(why))) => out.answer(&operation, Answer::Failed(why)),
            Ok(Err(Wrong::Violation(what))) => out.env.violated(format!("read at {}: {what}", out.me)),
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

fn machinery(out: &Out<'_>, view: &Arc<View>, wanted: &Wanted, consistency: Consistency) -> Machinery {
    let range = TimeRange { min: Timestamp(wanted.range.0), max: Timestamp(wanted.range.1) };
    let matchers = out.env.values.matchers(wanted.which);
    let plan = Plan {
        consistency,
        partial: wanted.partial,
        digests: true,
        hedge_after_ms: HEDGE_MS,
        deadline_ms: out.now_ms() + TIMEOUT_MS,
        load: BTreeMap::new(),
    };
    let bounds = Bounds { fetch_bytes_max: 16 << 20 };
    match &wanted.what {
        None => {
            let selection = Selection { matchers, range, series_max: 100_000, shards: None };
            Machinery::Select(Box::new(Select::new(view.clone(), selection, plan, bounds)))
        }
        Some(what) => {
            let query = LabelQuery { selectors: vec![matchers], range, limit: None, shards: None };
            Machinery::Lookup(Box::new(Lookup::new(view.clone(), what.clone(), query, plan, bounds)))
        }
    }
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

/// What a lookup has found, each as text.
fn found(lookup: Lookup, wanted: &Wanted) -> Result<BTreeSet<String>, Error> {
    Ok(match wanted.what {
        Some(What::Series) => lookup.series()?.items.iter().map(ToString::to_string).collect(),
        _ => lookup.texts()?.items.into_iter().collect(),
    })
}

/// Holds what was looked up against the truth.
fn check_found(
    out: &Out<'_>,
    found: &BTreeSet<String>,
    wanted: &Wanted,
    since_ms: u64,
) -> Result<usize, String> {
    let (values, ledger) = (&out.env.values, &out.env.ledger);
    let mut rest = found.clone();
    for number in (0..values.len()).filter(|number| values.matches(wanted.which, *number)) {
        let labels = values.labels(number);
        // What a series puts into the answer, and whether nothing else does.
        let (texts, alone): (Vec<String>, bool) = match &wanted.what {
            Some(What::Names) => (labels.iter().map(|(name, _)| name.to_owned()).collect(), false),
            Some(What::Values(name)) => (labels.get(name).map(str::to_owned).into_iter().collect(), true),
            _ => (vec![labels.to_string()], true),
        };
        for text in texts {
            let is_found = found.contains(&text);
            if alone || !is_found {
                ledger.check_found(number, wanted.range, since_ms, is_found)?;
            }
            rest.remove(&text);
        }
    }
    match rest.first() {
        Some(text) => Err(format!("found {text}, which is of no series that was asked for")),
        None => Ok(found.len()),
    }
}

/// The shards that warnings name: what is missing of others is not said.
fn named_in(warnings: &[String]) -> ShardSet {
    let numbers = |warning: &String| -> Vec<Shard> {
        let words = warning.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let numbers = words.skip_while(|word| !["shard", "shards"].contains(word)).skip(1);
        numbers.map_while(|word| word.parse().ok().map(Shard)).collect()
    };
    warnings.iter().flat_map(numbers).collect()
}

/// Holds everything that was read against the truth. Of shards that a warning names, samples may be missing.
fn check(out: &Out<'_>, view: &View, set: &Set, wanted: &Wanted, since_ms: u64) -> Result<usize, Wrong> {
    let values = &out.env.values;
    let (min, max) = wanted.range;
    let range = TimeRange { min: Timestamp(min), max: Timestamp(max) };
    let mut read: BTreeMap<u16, Samples> = BTreeMap::new();
    let mut count = 0;
    for index in 0..set.len() {
        let labels = set.labels(index);
        let number = values
            .number_of(&labels)
            .filter(|number| values.matches(wanted.which, *number))
            .ok_or_else(|| Wrong::Violation(format!("a series that nobody asked for: {labels}")))?;
        let mut samples = Samples::default();
        set.read(index, range, &mut samples).map_err(|e| Wrong::Unreadable(e.to_string()))?;
        count += samples.timestamps.len() + samples.histograms.len();
        if read.insert(number, samples).is_some() {
            return Err(Wrong::Violation(format!("series {number} twice")));
        }
    }
    let named = named_in(set.warnings());
    // A copy with gaps is better than none where there is no other.
    let has_others = |shard: Shard| view.placement.replicas(shard).len() > 1;
    if named.iter().any(has_others) && !wanted.partial {
        return Err(Wrong::Violation(format!("a part, although all was asked for: {:?}", set.warnings())));
    }
    let none = Samples::default();
    for number in (0..values.len()).filter(|number| values.matches(wanted.which, *number)) {
        let samples = read.get(&number).unwrap_or(&none);
        let shard = view.key.id(values.labels(number).as_bytes()).shard(view.shards());
        let since_ms = if named.contains(shard) { 0 } else { since_ms };
        let checked = out.env.ledger.check(values, number, (min, max), since_ms, rows(samples));
        checked.map_err(Wrong::Violation)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_taken_at_their_word() {
        let lack = Error::Unavailable {
            shards: vec![1, 5],
            have: 1,
            need: 2,
            missing: vec!["n7:1 (timed out)".into()],
        };
        let warnings = [
            format!("samples may be missing: {lack}"),
            "shard 3: samples may be missing: node 9 has damaged data".to_owned(),
            "samples may be missing: a page fails its checksum".to_owned(),
        ];
        assert_eq!(named_in(&warnings).iter().map(|shard| shard.0).collect::<Vec<_>>(), [1, 3, 5]);
    }
}
