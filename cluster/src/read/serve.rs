//! The replica's side: what a node answers of its own copies.

use super::coordinator::{Mode, Why};
use super::digests::digests;
use super::packed::{self, Named};
use super::summary::Compared;
use super::wire::{Body, CHUNK_BYTES, Chunk, Group, Request, What, push_digest};
use crate::faults::{Mistake, planted};
use crate::rows::Encoder;
use crate::view::View;
use model::{Batch, Error, Replica, Samples, Selection, SeriesSet, Shard, ShardSet, TimeRange};
use std::collections::BTreeMap;

/// The receiver wants no more, or time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// Takes the chunks of an answer, each of at most about a MiB.
pub type Emit<'a> = &'a mut dyn FnMut(Vec<u8>) -> Result<(), Stop>;

/// Series whose digests are computed before they are sent.
const SERIES_PER_CHUNK: usize = 8192;

/// Answers a request. Blocking; stops when `emit` does, and when the request's time is up by `now_ms`.
pub fn serve(
    view: &View,
    replica: &dyn Replica,
    request: &[u8],
    threads: usize,
    now_ms: &(dyn Fn() -> u64 + Sync),
    emit: Emit<'_>,
) -> Result<(), Stop> {
    let request = match Request::decode(request) {
        Ok(request) => request,
        Err(error) => return emit(Chunk::Refused(Why::Malformed(error.to_string())).encode()),
    };
    let epoch = view.epoch();
    let is_placed = !matches!(request.body, Body::Metadata { .. });
    if is_placed && request.epoch != epoch && !planted(Mistake::ReadAnyEpoch) {
        let why = if request.epoch < epoch { Why::Stale(epoch) } else { Why::Behind(epoch) };
        return emit(Chunk::Refused(why).encode());
    }
    let deadline = now_ms().saturating_add(request.timeout_ms);
    let expired = move || now_ms() >= deadline;
    let mut answer = Answer { view, replica, threads, expired: &expired, emit };
    match answer.body(request.body) {
        Ok(()) => Ok(()),
        Err(End::Stop) => Err(Stop),
        Err(End::Error(Error::Limit { max, got, .. })) => (answer.emit)(Chunk::Limit { max, got }.encode()),
        Err(End::Error(error)) => (answer.emit)(Chunk::Refused(Why::Failed(error.to_string())).encode()),
    }
}

/// Which of some shards a node can answer for, and why not for the others.
pub(super) fn readable(
    view: &View,
    replica: &dyn Replica,
    shards: &ShardSet,
    range: TimeRange,
    damaged: bool,
) -> (ShardSet, Vec<(Shard, Why)>) {
    let held = view.readable_at(view.me);
    let mut bad: BTreeMap<Shard, String> = BTreeMap::new();
    if !damaged && !planted(Mistake::ReadDamaged) {
        let damage = replica.damage().into_iter().filter(|damage| damage.range.overlaps(&range));
        bad.extend(damage.map(|damage| (damage.shard, damage.what)));
    }
    let mut refused = Vec::new();
    let mut answered = ShardSet::default();
    for shard in shards.iter() {
        match bad.remove(&shard) {
            _ if !held.contains(shard) => refused.push((shard, Why::NotHeld)),
            Some(what) => refused.push((shard, Why::Damaged(what))),
            None => drop(answered.insert(shard)),
        }
    }
    (answered, refused)
}

enum End {
    Stop,
    Error(Error),
}

impl From<Stop> for End {
    fn from(_: Stop) -> End {
        End::Stop
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Error(error)
    }
}

struct Answer<'a> {
    view: &'a View,
    replica: &'a dyn Replica,
    threads: usize,
    expired: &'a (dyn Fn() -> bool + Sync),
    emit: Emit<'a>,
}

impl Answer<'_> {
    fn body(&mut self, body: Body) -> Result<(), End> {
        match body {
            Body::Select { mut selection, mode: Mode::Whole, damaged, .. } => {
                let shards = selection.shards.take().unwrap_or_default();
                selection.shards = Some(self.header(&shards, selection.range, damaged)?);
                let set = self.replica.select(&selection)?;
                let count = self.whole(&*set, selection.range)?;
                let warnings = if damaged { set.warnings().to_vec() } else { Vec::new() };
                self.end(false, warnings, count)
            }
            Body::Select { mut selection, mode: Mode::Digests, damaged, summaries } => {
                let shards = selection.shards.take().unwrap_or_default();
                let shards = self.header(&shards, selection.range, damaged)?;
                let compared = Compared::of(self.replica, &summaries, &shards, selection.range);
                let whole = shards.iter().filter(|shard| !summaries.contains_key(shard)).collect();
                if !summaries.is_empty() {
                    self.send(&Chunk::Compared(compared.clone()))?;
                }
                let mut count = 0;
                let partly = compared.range.map(|range| (compared.partly, range));
                for (shards, range) in partly.into_iter().chain([(whole, selection.range)]) {
                    if !shards.is_empty() {
                        let selection = Selection { shards: Some(shards), range, ..selection.clone() };
                        count += self.digests(&*self.replica.select(&selection)?, range)?;
                    }
                }
                self.end(false, Vec::new(), count)
            }
            Body::Fetch { range, groups } => {
                let shards = groups.iter().map(|group| group.shard).collect();
                let answered = self.header(&shards, range, false)?;
                let mut count = 0;
                for group in groups.iter().filter(|group| answered.contains(group.shard)) {
                    count += self.fetch(group, range)?;
                }
                self.end(false, Vec::new(), count)
            }
            Body::Lookup { what, mut query, damaged } => {
                let shards = query.shards.take().unwrap_or_default();
                query.shards = Some(self.header(&shards, query.range, damaged)?);
                let (truncated, warnings, count) = match what {
                    What::Series => {
                        let found = self.replica.series(&query)?;
                        let items = found.items.iter().map(|labels| labels.as_bytes());
                        (found.truncated, found.warnings, self.items(items)?)
                    }
                    What::Names => {
                        let found = self.replica.label_names(&query)?;
                        (
                            found.truncated,
                            found.warnings,
                            self.items(found.items.iter().map(|s| s.as_bytes()))?,
                        )
                    }
                    What::Values(name) => {
                        let found = self.replica.label_values(&name, &query)?;
                        (
                            found.truncated,
                            found.warnings,
                            self.items(found.items.iter().map(|s| s.as_bytes()))?,
                        )
                    }
                };
                self.end(truncated, if damaged { warnings } else { Vec::new() }, count)
            }
            Body::Metadata { family } => {
                let families = self.replica.metadata(family.as_deref())?;
                self.header(&ShardSet::default(), TimeRange::ALL, true)?;
                let size = |m: &model::Metadata| m.family.len() + m.help.len() + m.unit.len() + 8;
                let (mut from, mut bytes) = (0, 0);
                for (i, family) in families.iter().enumerate() {
                    bytes += size(family);
                    if bytes >= CHUNK_BYTES || i + 1 == families.len() {
                        self.send(&Chunk::Metadata(families[from..=i].to_vec()))?;
                        (from, bytes) = (i + 1, 0);
                    }
                }
                self.end(false, Vec::new(), families.len() as u64)
            }
        }
    }

    fn send(&mut self, chunk: &Chunk<'_>) -> Result<(), End> {
        self.check()?;
        Ok((self.emit)(chunk.encode())?)
    }

    /// Time is up: whoever asked has gone on without this answer.
    fn check(&self) -> Result<(), End> {
        if (self.expired)() { Err(End::Stop) } else { Ok(()) }
    }

    /// Says at once what can be expected: a replica that is slow to compute shows that it is there.
    fn header(&mut self, shards: &ShardSet, range: TimeRange, damaged: bool) -> Result<ShardSet, End> {
        let (shards, refused) = readable(self.view, self.replica, shards, range, damaged);
        self.send(&Chunk::Header { shards: shards.clone(), refused })?;
        Ok(shards)
    }

    fn end(&mut self, truncated: bool, warnings: Vec<String>, count: u64) -> Result<(), End> {
        self.send(&Chunk::End { truncated, warnings, count })
    }

    fn digests(&mut self, set: &dyn SeriesSet, range: TimeRange) -> Result<u64, End> {
        let mut count = 0;
        let mut chunk = Vec::new();
        let all: Vec<usize> = (0..set.len()).collect();
        for series in all.chunks(SERIES_PER_CHUNK) {
            let digests = digests(set, series, range, self.threads, self.expired);
            let digests = digests.map_err(|error| match error {
                Error::Canceled => End::Stop,
                error => End::Error(error),
            })?;
            chunk.clear();
            chunk.push(b'D');
            for (&index, digest) in series.iter().zip(digests).filter(|(_, digest)| *digest != 0) {
                push_digest(&mut chunk, set.id(index), digest);
                count += 1;
            }
            self.check()?;
            (self.emit)(std::mem::take(&mut chunk))?;
        }
        Ok(count)
    }

    fn whole(&mut self, set: &dyn SeriesSet, range: TimeRange) -> Result<u64, End> {
        let mut sections = Sections::default();
        let mut samples = Samples::default();
        for index in 0..set.len() {
            set.read(index, range, &mut samples)?;
            let (id, labels) = (set.id(index), set.labels(index));
            let shard = id.shard(self.view.shards());
            sections.push(self, shard, Named::Labels(id, labels.as_bytes()), &samples)?;
            if index % 64 == 0 {
                self.check()?;
            }
        }
        sections.finish(self)
    }

    fn fetch(&mut self, group: &Group, range: TimeRange) -> Result<u64, End> {
        let mut sections = Sections::default();
        let mut batch = Batch::default();
        let mut samples = Samples::default();
        let mut rest = &group.series[..];
        while !rest.is_empty() {
            batch.clear();
            let next = self.replica.export(group.shard, range, rest, CHUNK_BYTES, &mut batch)?;
            for series in &batch.series {
                samples.clear();
                samples.timestamps.extend_from_slice(&batch.timestamps[series.floats()]);
                samples.values.extend(batch.values[series.floats()].iter().map(|bits| f64::from_bits(*bits)));
                if !batch.starts.is_empty() {
                    samples.starts.extend_from_slice(&batch.starts[series.floats()]);
                }
                for row in &batch.histograms[series.histograms()] {
                    samples.histograms.push((row.timestamp, row.start, row.histogram.clone().into()));
                }
                let named = match group.labels {
                    true => Named::Labels(series.id, batch.labels(series)),
                    false => Named::Id(series.id),
                };
                sections.push(self, group.shard, named, &samples)?;
            }
            self.check()?;
            rest = match next {
                Some(next) if next > rest[0] => &rest[rest.partition_point(|id| *id < next)..],
                Some(next) => unreachable!("BUG: the export of {next:?} does not get on"),
                None => &[],
            };
        }
        sections.finish(self)
    }

    fn items<'i>(&mut self, items: impl Iterator<Item = &'i [u8]>) -> Result<u64, End> {
        let (mut chunk, mut bytes, mut count) = (Vec::new(), 0, 0);
        for item in items {
            chunk.push(item);
            bytes += item.len() + 4;
            count += 1;
            if bytes >= CHUNK_BYTES {
                self.send(&Chunk::Items(std::mem::take(&mut chunk)))?;
                bytes = 0;
            }
        }
        if !chunk.is_empty() {
            self.send(&Chunk::Items(chunk))?;
        }
        Ok(count)
    }
}

/// Sections that are sent when there are enough of them.
#[derive(Default)]
struct Sections {
    encoder: Encoder,
    bytes: Vec<u8>,
    count: u64,
}

impl Sections {
    fn push(
        &mut self,
        answer: &mut Answer<'_>,
        shard: Shard,
        named: Named<'_>,
        samples: &Samples,
    ) -> Result<(), End> {
        let Sections { encoder, bytes, count } = self;
        let mut sent = Ok(());
        packed::encode(encoder, shard, named, samples, |encoder, shard| {
            encoder.finish(shard, 0, bytes);
            *count += 1;
            if bytes.len() >= CHUNK_BYTES && sent.is_ok() {
                sent = answer.send(&Chunk::Sections(bytes));
                bytes.clear();
            }
        });
        sent
    }

    fn finish(mut self, answer: &mut Answer<'_>) -> Result<u64, End> {
        if !self.bytes.is_empty() {
            answer.send(&Chunk::Sections(&self.bytes))?;
            self.bytes.clear();
        }
        Ok(self.count)
    }
}
