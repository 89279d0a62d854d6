//! A replica in memory, for tests: the contract of [`model::Replica`] in its simplest form.
//!
//! It holds everything twice: as reads see it, and as it would be after a crash. [`Memory::commit`] makes the one the other.

mod sealed;

use crate::placement::NodeId;
use crate::view::View;
use model::{
    Appended, Batch, BatchSeries, Damage, Digest, Durable, Error, Forgotten, Histogram, HistogramRow,
    LabelQuery, Labels, Limited, Matcher, Metadata, RejectReason, Rejection, Replica, Samples, SealedBlocks,
    Selection, SeriesId, SeriesKey, SeriesSet, Shard, ShardSet, Sink, Source, TimeRange, Written,
    value::Value,
};
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The key of ids in tests.
pub const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);

/// What a series has: by timestamp the value and its start timestamp.
type Rows = BTreeMap<i64, (Value, i64)>;

#[derive(Clone, Default)]
struct Content {
    shards: BTreeMap<Shard, BTreeMap<SeriesId, (Labels, Rows)>>,
    metadata: BTreeMap<String, Metadata>,
}

#[derive(Default)]
struct State {
    live: Content,
    durable: Content,
    /// How many appends there were, and how many of them are durable.
    appended: u64,
    committed: u64,
    /// Appends up to here were lost in a crash.
    lost: u64,
    wakers: Vec<Waker>,
    failure: Option<Error>,
    lagging: bool,
    series_max: Option<usize>,
    damage: Vec<Damage>,
    silent: ShardSet,
    /// Rows that were appended and changed nothing.
    idle: u64,
    files: sealed::Files,
}

/// A replica in memory; clones share it.
#[derive(Clone)]
pub struct Memory {
    shards: u32,
    key: SeriesKey,
    state: Arc<Mutex<State>>,
}

impl Memory {
    /// Empty, with [`KEY`].
    pub fn new(shards: u32) -> Memory {
        Memory::with_key(shards, KEY)
    }

    /// Empty, with a key of its own.
    pub fn with_key(shards: u32, key: SeriesKey) -> Memory {
        Memory { shards, key, state: Arc::default() }
    }

    /// From now on, whatever is asked for fails with this; `None`: all is well.
    pub fn fail(&self, failure: Option<Error>) {
        self.state.lock().failure = failure;
    }

    /// While it lags, [`Memory::commit`] makes nothing durable.
    pub fn lag(&self, lagging: bool) {
        self.state.lock().lagging = lagging;
    }

    /// More series than this are refused.
    pub fn limit_series(&self, series_max: Option<usize>) {
        self.state.lock().series_max = series_max;
    }

    /// Knows no digest of these shards without a look.
    pub fn forget_digests(&self, shards: ShardSet) {
        self.state.lock().silent = shards;
    }

    fn is_silent_about(&self, shard: Shard) -> bool {
        self.state.lock().silent.contains(shard)
    }

    /// Reports a damaged place.
    pub fn damage_at(&self, damage: Damage) {
        self.state.lock().damage.push(damage);
    }

    /// Rows that were appended so far although they, or others that win, were here.
    pub fn idle_rows(&self) -> u64 {
        self.state.lock().idle
    }

    /// Loses what is not durable. Whoever waits for it gets an error.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.live = state.durable.clone();
        state.lost = state.appended;
        std::mem::take(&mut state.wakers).into_iter().for_each(Waker::wake);
    }

    /// Whether a crash now would leave this float.
    pub fn has_durably(&self, id: SeriesId, timestamp: i64, value: f64) -> bool {
        let state = self.state.lock();
        let series = state.durable.shards.get(&id.shard(self.shards)).and_then(|shard| shard.get(&id));
        let found = series.and_then(|(_, rows)| rows.get(&timestamp));
        matches!(found, Some((Value::Float(v), _)) if v.to_bits() == value.to_bits())
    }

    /// Puts floats in, durably.
    pub fn put(&self, labels: &Labels, samples: &[(i64, f64)]) {
        let batch = batch(&[(labels.clone(), samples.to_vec())]);
        self.append_replicated(&batch, None).unwrap_or_else(|error| panic!("{error}"));
        self.commit().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Everything that reads see, for comparison.
    pub fn content(&self) -> Vec<(SeriesId, i64, String)> {
        let state = self.state.lock();
        let series = state.live.shards.values().flatten();
        series
            .flat_map(|(id, (_, rows))| rows.iter().map(|(t, (v, s))| (*id, *t, format!("{v:?} {s}"))))
            .collect()
    }

    fn check(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        let state = self.state.lock();
        state.failure.clone().map_or(Ok(state), Err)
    }

    /// The series that a reader asks for.
    fn matching(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        shards: Option<&ShardSet>,
    ) -> Result<Vec<(SeriesId, Labels, Rows)>, Error> {
        let state = self.check()?;
        let held = |shard: &Shard| shards.is_none_or(|set| set.contains(*shard));
        let series = state.live.shards.iter().filter(|(shard, _)| held(shard)).flat_map(|(_, series)| series);
        let wanted = |labels: &Labels| {
            let all = |list: &Vec<Matcher>| list.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
            selectors.is_empty() || selectors.iter().any(all)
        };
        let in_range = |rows: &Rows| rows.keys().any(|t| range.contains(*t));
        Ok(series
            .filter(|(_, (labels, rows))| wanted(labels) && in_range(rows))
            .map(|(id, (labels, rows))| (*id, labels.clone(), rows.clone()))
            .collect())
    }
}

/// A batch of floats whose labels are checked.
pub fn batch(series: &[(Labels, Vec<(i64, f64)>)]) -> Arc<Batch> {
    batch_with_key(KEY, series)
}

/// The same with another key.
pub fn batch_with_key(key: SeriesKey, series: &[(Labels, Vec<(i64, f64)>)]) -> Arc<Batch> {
    let mut batch = Batch::default();
    for (labels, samples) in series {
        push_series(&mut batch, key.id(labels.as_bytes()), labels.as_bytes(), |batch| {
            for (t, v) in samples {
                batch.timestamps.push(*t);
                batch.values.push(v.to_bits());
            }
        });
    }
    Arc::new(batch)
}

/// The view that node `me` has of nodes 1, 2, … `nodes`, each in a zone of its own, with everything available.
pub fn view(me: u128, nodes: u128, replication_factor: u8, shards: u32) -> View {
    use crate::placement::{Node, NodeState, Placement, Policy, compute};
    use std::num::{NonZeroU8, NonZeroU32};
    let all: Vec<Node> = (1..=nodes)
        .map(|id| Node {
            id: NodeId(id),
            domain: format!("zone-{id}").parse().expect("a path"),
            capacity: NonZeroU32::MIN,
            state: NodeState::Up,
        })
        .collect();
    let replication_factor = NonZeroU8::new(replication_factor).expect("not zero");
    let empty = Placement::empty(shards).expect("a power of two");
    let target = compute(&empty, &all, &Policy { replication_factor, shards }).expect("a placement");
    let placement = empty.adopt(&target);
    let view = View::at_rest(7, NodeId(me), &all, replication_factor.get(), placement);
    View { key: KEY, leader: Some(NodeId(1)), ..view }
}

fn push_series(batch: &mut Batch, id: SeriesId, labels: &[u8], rows: impl FnOnce(&mut Batch)) {
    let (labels_at, floats_at, histograms_at) =
        (batch.bytes.len(), batch.timestamps.len(), batch.histograms.len());
    batch.bytes.extend_from_slice(labels);
    rows(batch);
    batch.series.push(BatchSeries {
        id,
        checked: true,
        labels_at: labels_at as u32,
        labels_len: labels.len() as u32,
        floats_at: floats_at as u32,
        floats_len: (batch.timestamps.len() - floats_at) as u32,
        histograms_at: histograms_at as u32,
        histograms_len: (batch.histograms.len() - histograms_at) as u32,
    });
}

/// Labels in tests: `name{a="b"}` from `("name", &[("a", "b")])`.
pub fn labels(name: &str, pairs: &[(&str, &str)]) -> Labels {
    let all = pairs.iter().copied().chain([(model::labels::METRIC_NAME, name)]);
    Labels::from_pairs(all).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether it changed anything.
fn put(rows: &mut Rows, timestamp: i64, value: Value, start: i64) -> bool {
    let wins = |(known, known_start): &(Value, i64)| {
        value.cmp_conflict(known).then_with(|| start.cmp(known_start)) == Ordering::Greater
    };
    let changes = rows.get(&timestamp).is_none_or(wins);
    if changes {
        rows.insert(timestamp, (value, start));
    }
    changes
}

fn samples(rows: &Rows, range: TimeRange) -> Samples {
    let mut samples = Samples::default();
    let mut starts = Vec::new();
    for (&t, (value, start)) in rows.iter().filter(|(t, _)| range.contains(**t)) {
        match value {
            Value::Float(v) => {
                samples.timestamps.push(t);
                samples.values.push(*v);
                starts.push(*start);
            }
            Value::Histogram(h) => samples.histograms.push((t, *start, h.clone())),
        }
    }
    if starts.iter().any(|start| *start != 0) {
        samples.starts = starts;
    }
    samples
}

/// Resolves when the append `number` is durable.
struct Committed {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Future for Committed {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.state.lock();
        if state.committed >= self.number {
            return Poll::Ready(Ok(()));
        }
        if state.lost >= self.number {
            return Poll::Ready(Err(Error::Canceled));
        }
        state.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

impl Sink for Memory {
    fn key(&self) -> SeriesKey {
        self.key
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        self.append_replicated(batch, only)
    }

    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error> {
        let mut state = self.check()?;
        state.live.metadata.extend(metadata.iter().map(|m| (m.family.clone(), m.clone())));
        state.appended += 1;
        Ok(())
    }
}

impl Source for Memory {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error> {
        let selectors = [selection.matchers.clone()];
        let series = self.matching(&selectors, selection.range, selection.shards.as_ref())?;
        if series.len() > selection.series_max {
            return Err(Error::Limit {
                what: "series fetched by one query",
                key: "query.series_max",
                max: selection.series_max as u64,
                got: series.len() as u64,
            });
        }
        Ok(Box::new(Selected(series)))
    }

    fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, Error> {
        let series = self.matching(&query.selectors, query.range, query.shards.as_ref())?;
        Ok(limited(series.into_iter().map(|(_, labels, _)| labels), query.limit))
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, Error> {
        let series = self.matching(&query.selectors, query.range, query.shards.as_ref())?;
        let names = series.iter().flat_map(|(_, labels, _)| labels.iter().map(|(name, _)| name.to_owned()));
        Ok(limited(names, query.limit))
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Limited<String>, Error> {
        let series = self.matching(&query.selectors, query.range, query.shards.as_ref())?;
        let values = series.iter().filter_map(|(_, labels, _)| labels.get(name).map(str::to_owned));
        Ok(limited(values, query.limit))
    }

    fn metadata(&self, family: Option<&str>) -> Result<Vec<Metadata>, Error> {
        let state = self.check()?;
        let wanted = |m: &&Metadata| family.is_none_or(|family| m.family == family);
        Ok(state.live.metadata.values().filter(wanted).cloned().collect())
    }
}

fn limited<T: Ord>(items: impl Iterator<Item = T>, limit: Option<usize>) -> Limited<T> {
    let mut items: Vec<T> = items.collect::<BTreeSet<T>>().into_iter().collect();
    let truncated = limit.is_some_and(|limit| items.len() > limit);
    items.truncate(limit.unwrap_or(usize::MAX));
    Limited { items, truncated, warnings: Vec::new() }
}

struct Selected(Vec<(SeriesId, Labels, Rows)>);

impl SeriesSet for Selected {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> SeriesId {
        self.0[index].0
    }

    fn labels(&self, index: usize) -> Labels {
        self.0[index].1.clone()
    }

    fn read(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), Error> {
        *into = samples(&self.0[index].2, range);
        Ok(())
    }
}

impl Replica for Memory {
    fn shards(&self) -> u32 {
        self.shards
    }

    fn append_replicated(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let mut state = self.check()?;
        let all: Vec<u32> = (0..batch.series.len() as u32).collect();
        let (mut written, mut unknown, mut rejected) = (Written::default(), Vec::new(), Vec::new());
        let mut idle = 0;
        for &index in only.unwrap_or(&all) {
            let series = &batch.series[index as usize];
            let count: usize = state.live.shards.values().map(BTreeMap::len).sum();
            let room = state.series_max.is_none_or(|max| count < max);
            let shard = state.live.shards.entry(series.id.shard(self.shards)).or_default();
            let (_, rows) = match shard.entry(series.id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(_) if !series.checked => {
                    unknown.push(index);
                    continue;
                }
                Entry::Vacant(_) if !room => {
                    let times = batch.timestamps[series.floats()].iter().copied();
                    let more = batch.histograms[series.histograms()].iter().map(|h| h.timestamp);
                    rejected.push(Rejection {
                        series: index,
                        timestamp: times.chain(more).next().unwrap_or(0),
                        rows: series.floats_len + series.histograms_len,
                        reason: RejectReason::SeriesLimit,
                    });
                    continue;
                }
                Entry::Vacant(new) => {
                    assert_eq!(
                        series.id,
                        self.key.id(batch.labels(series)),
                        "BUG: a series under a foreign id"
                    );
                    new.insert((Labels::from_canonical(batch.labels(series)), Rows::new()))
                }
            };
            for row in series.floats() {
                let value = Value::Float(f64::from_bits(batch.values[row]));
                idle += u64::from(!put(rows, batch.timestamps[row], value, batch.start(row)));
            }
            for row in &batch.histograms[series.histograms()] {
                let histogram: Histogram = row.histogram.clone();
                let value = Value::Histogram(Arc::new(histogram));
                idle += u64::from(!put(rows, row.timestamp, value, row.start));
            }
            written.floats += u64::from(series.floats_len);
            written.histograms += u64::from(series.histograms_len);
        }
        state.appended += 1;
        state.idle += idle;
        let durable: Durable = Box::pin(Committed { state: self.state.clone(), number: state.appended });
        Ok(Appended { durable, written, unknown, rejected })
    }

    fn commit(&self) -> Result<(), Error> {
        let mut state = self.check()?;
        if !state.lagging && state.committed < state.appended {
            state.durable = state.live.clone();
            state.committed = state.appended;
            std::mem::take(&mut state.wakers).into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    fn digest(&self, shard: Shard, range: TimeRange) -> Result<Digest, Error> {
        Ok(self.series_digests(shard, range)?.into_iter().map(|(_, digest)| digest).sum())
    }

    /// Pieces of ten milliseconds, and all of time before and after.
    fn summary(&self, shard: Shard, range: TimeRange) -> Vec<(TimeRange, Digest)> {
        if self.is_silent_about(shard) {
            return Vec::new();
        }
        let inner = (1..10).map(|cell| TimeRange::new(cell * 10, cell * 10 + 9));
        let ends = [TimeRange::new(i64::MIN, 9), TimeRange::new(100, i64::MAX)];
        let mut all: Vec<TimeRange> = inner.chain(ends).filter(|piece| piece.overlaps(&range)).collect();
        all.sort_by_key(|piece| piece.min);
        let digest = |piece: TimeRange| Some((piece, self.digest(shard, piece).ok()?));
        all.into_iter().filter_map(digest).collect()
    }

    fn known_digests(&self, shard: Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>> {
        let known =
            |range: &TimeRange| self.digest(shard, *range).ok().filter(|_| !self.is_silent_about(shard));
        ranges.iter().map(known).collect()
    }

    fn series_digests(&self, shard: Shard, range: TimeRange) -> Result<Vec<(SeriesId, Digest)>, Error> {
        let state = self.check()?;
        let series = state.live.shards.get(&shard).into_iter().flatten();
        Ok(series
            .map(|(id, (_, rows))| (*id, samples(rows, range)))
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(id, samples)| (id, Digest::of(id, &samples)))
            .collect())
    }

    fn export(
        &self,
        shard: Shard,
        range: TimeRange,
        series: &[SeriesId],
        bytes_max: usize,
        into: &mut Batch,
    ) -> Result<Option<SeriesId>, Error> {
        let state = self.check()?;
        for id in series {
            let Some((labels, rows)) = state.live.shards.get(&shard).and_then(|held| held.get(id)) else {
                continue;
            };
            let samples = samples(rows, range);
            if samples.is_empty() {
                continue;
            }
            if into.bytes.len() + into.timestamps.len() * 16 + into.histograms.len() * 256 >= bytes_max {
                return Ok(Some(*id));
            }
            push_series(into, *id, labels.as_bytes(), |batch| {
                if !samples.starts.is_empty() || !batch.starts.is_empty() {
                    batch.starts.resize(batch.timestamps.len(), 0);
                    batch.starts.extend_from_slice(&samples.starts);
                }
                batch.timestamps.extend_from_slice(&samples.timestamps);
                batch.values.extend(samples.values.iter().map(|v| v.to_bits()));
                if !batch.starts.is_empty() {
                    batch.starts.resize(batch.timestamps.len(), 0);
                }
                batch.histograms.extend(samples.histograms.iter().map(|(timestamp, start, h)| {
                    HistogramRow { timestamp: *timestamp, start: *start, histogram: (**h).clone() }
                }));
            });
        }
        Ok(None)
    }

    fn labels_of(&self, id: SeriesId, into: &mut Vec<u8>) -> bool {
        let state = self.state.lock();
        let series = state.live.shards.get(&id.shard(self.shards)).and_then(|shard| shard.get(&id));
        series.inspect(|(labels, _)| into.extend_from_slice(labels.as_bytes())).is_some()
    }

    fn damage(&self) -> Vec<Damage> {
        self.state.lock().damage.clone()
    }

    fn mended(&self, number: u64) -> Result<(), Error> {
        self.check()?.damage.retain(|damage| damage.number != number);
        Ok(())
    }

    fn forget(&self, shard: Shard) -> Result<Forgotten, Error> {
        let mut state = self.check()?;
        let State { live, durable, files, .. } = &mut *state;
        let series = live.shards.remove(&shard).map_or(0, |held| held.len() as u64);
        durable.shards.remove(&shard);
        Ok(Forgotten { series, blocks: files.forget(shard) })
    }

    fn sealed(&self) -> Option<&dyn SealedBlocks> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_durable(durable: &mut Durable) -> bool {
        let ready = durable.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(())))
    }

    #[test]
    fn what_was_not_committed_is_gone_after_a_crash_and_the_greater_value_wins() {
        let memory = Memory::new(4);
        let up = labels("up", &[("a", "b")]);
        let id = KEY.id(up.as_bytes());
        memory.put(&up, &[(1, 1.0)]);
        let mut appended = memory.append(&batch(&[(up, vec![(1, 0.5), (2, 2.0)])]), None).unwrap();
        assert!(!is_durable(&mut appended.durable) && !memory.has_durably(id, 2, 2.0));
        memory.lag(true);
        memory.commit().unwrap();
        assert!(!is_durable(&mut appended.durable));
        memory.lag(false);
        memory.commit().unwrap();
        assert!(is_durable(&mut appended.durable) && memory.has_durably(id, 1, 1.0));
        memory.crash();
        assert_eq!(memory.content().len(), 2);
    }

    #[test]
    fn unchecked_labels_make_no_series() {
        let memory = Memory::new(4);
        let mut batch = Arc::unwrap_or_clone(batch(&[(labels("up", &[]), vec![(1, 1.0)])]));
        batch.series[0].checked = false;
        assert_eq!(memory.append(&Arc::new(batch), None).unwrap().unknown, [0]);
    }
}
