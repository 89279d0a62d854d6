//! What no node can know: which rows were made durable where. It is watched from outside of the engines, beside what they say.

use super::values::{Values, rows};
use model::value::Value;
use model::{
    Appended, Batch, Damage, Digest, Error, Forgotten, LabelQuery, Labels, Limited, Metadata, Replica,
    Samples, SealedBlocks, Selection, SeriesId, SeriesKey, SeriesSet, Shard, ShardSet, Sink, Source,
    TimeRange,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::Engine;

/// By series and timestamp the value.
pub type Rows = BTreeMap<(SeriesId, i64), Value>;

/// Whether a row that was durable has to be there or known as damaged. Not on a disk that rots, if nobody was told of the row: it may have
/// been on this disk alone, and the damage is mended when all is back that the others have.
pub type Owed<'a> = &'a dyn Fn(SeriesId, i64) -> bool;

/// The rows that one machine has on its disk.
#[derive(Clone, Default)]
pub struct Ghost(Arc<Mutex<Rows>>, Arc<Mutex<Shards>>);

#[derive(Default)]
struct Shards {
    held: ShardSet,
    given_up: ShardSet,
}

impl Ghost {
    /// Whether the row is durable there, or one that wins over it.
    pub fn has(&self, id: SeriesId, t: i64, value: &Value) -> bool {
        self.0.lock().get(&(id, t)).is_some_and(|there| there.cmp_conflict(value).is_ge())
    }

    /// These shards the machine holds a copy of, or makes one. What it has of others may be damaged and is not mended, since nobody relies on it: of a
    /// shard that was given up once, only what a client is told and the end of the run are looked at.
    pub fn holds(&self, held: ShardSet) {
        let mut shards = self.1.lock();
        let before = std::mem::replace(&mut shards.held, held);
        let gone: Vec<Shard> = before.iter().filter(|shard| !shards.held.contains(*shard)).collect();
        shards.given_up.extend(gone);
    }
}

fn keep(known: &mut Rows, rows: Vec<(SeriesId, i64, Value)>) {
    for (id, t, value) in rows {
        let there = known.entry((id, t)).or_insert_with(|| value.clone());
        if value.cmp_conflict(there).is_gt() {
            *there = value;
        }
    }
}

/// An engine, watched.
pub struct Ghosted {
    engine: Arc<Engine>,
    ghost: Ghost,
    pending: Mutex<Vec<(SeriesId, i64, Value)>>,
}

impl Ghosted {
    /// With what is known to be durable already.
    pub fn new(engine: Arc<Engine>, ghost: Ghost) -> Ghosted {
        Ghosted { engine, ghost, pending: Mutex::default() }
    }

    fn watch(&self, batch: &Batch, only: Option<&[u32]>, appended: &Appended) {
        let mut pending = self.pending.lock();
        let all = 0..batch.series.len() as u32;
        let wanted: Vec<u32> = only.map_or_else(|| all.collect(), <[u32]>::to_vec);
        for index in wanted {
            let refused = appended.rejected.iter().any(|rejection| rejection.series == index);
            if refused || appended.unknown.contains(&index) {
                continue;
            }
            let series = &batch.series[index as usize];
            pending.extend(series.floats().map(|row| {
                (series.id, batch.timestamps[row], Value::Float(f64::from_bits(batch.values[row])))
            }));
            pending.extend(
                batch.histograms[series.histograms()]
                    .iter()
                    .map(|row| (series.id, row.timestamp, Value::Histogram(Arc::new(row.histogram.clone())))),
            );
        }
    }

    /// Rows came by another way than by appending, durably.
    pub fn came(&self, rows: Vec<(SeriesId, i64, Value)>) {
        keep(&mut self.ghost.0.lock(), rows);
    }

    /// After a start: the same as [`Ghosted::check`], and whatever a start finds is durable from then on, since rows that are there already
    /// are acknowledged without being written again.
    ///
    /// # Errors
    /// The first row that is missing.
    pub fn started(&self, values: &Values, owed: Owed<'_>) -> Result<(), String> {
        if let Some(there) = self.check(values, owed)? {
            self.ghost.0.lock().extend(there);
        }
        Ok(())
    }

    /// Whether everything that was durable is there. What was damaged may be missing: it is known to be. So may what is not owed. Gives what is
    /// there, if it can be read.
    ///
    /// # Errors
    /// The first row that is missing.
    pub fn check(&self, values: &Values, owed: Owed<'_>) -> Result<Option<Rows>, String> {
        let known = self.ghost.0.lock();
        let selection = Selection {
            matchers: values.matchers(0),
            range: TimeRange::ALL,
            series_max: usize::MAX,
            shards: None,
        };
        let Ok(set) = self.engine.select(&selection) else { return Ok(None) };
        let mut there = Rows::new();
        let mut samples = Samples::default();
        for index in 0..set.len() {
            if set.read(index, TimeRange::ALL, &mut samples).is_err() {
                // It will be known as damage from now on.
                return Ok(None);
            }
            there.extend(rows(&samples).into_iter().map(|(t, value)| ((set.id(index), t), value)));
        }
        let damage = Replica::damage(&*self.engine);
        for (&(id, t), value) in known.iter() {
            let found = there.get(&(id, t));
            let shard = id.shard(self.engine.shards());
            if self.ghost.1.lock().given_up.contains(shard) {
                continue;
            }
            let damaged = damage.iter().any(|d| d.shard == shard && d.range.contains(t));
            if !found.is_some_and(|found| found.cmp_conflict(value).is_ge()) && !damaged && owed(id, t) {
                return Err(format!(
                    "lacks {id:?} at {t} of {shard:?}, which was durable as {value:?}: found {found:?}"
                ));
            }
        }
        Ok(Some(there))
    }
}

impl Sink for Ghosted {
    fn key(&self) -> SeriesKey {
        self.engine.key()
    }
    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let appended = self.engine.append(batch, only)?;
        self.watch(batch, only, &appended);
        Ok(appended)
    }
    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error> {
        self.engine.describe(metadata)
    }
}

impl Source for Ghosted {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error> {
        self.engine.select(selection)
    }
    fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, Error> {
        self.engine.series(query)
    }
    fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, Error> {
        self.engine.label_names(query)
    }
    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Limited<String>, Error> {
        self.engine.label_values(name, query)
    }
    fn metadata(&self, family: Option<&str>) -> Result<Vec<Metadata>, Error> {
        self.engine.metadata(family)
    }
}

impl Replica for Ghosted {
    fn shards(&self) -> u32 {
        self.engine.shards()
    }
    fn append_replicated(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let appended = self.engine.append_replicated(batch, only)?;
        self.watch(batch, only, &appended);
        Ok(appended)
    }
    fn commit(&self) -> Result<(), Error> {
        // Rows of a commit that failed stay pending: a log that ran into a full disk is replaced, and what it lacks is flushed before.
        Replica::commit(&*self.engine)?;
        let pending = std::mem::take(&mut *self.pending.lock());
        keep(&mut self.ghost.0.lock(), pending);
        Ok(())
    }
    fn digest(&self, shard: Shard, range: TimeRange) -> Result<Digest, Error> {
        self.engine.digest(shard, range)
    }
    fn summary(&self, shard: Shard, range: TimeRange) -> Vec<(TimeRange, Digest)> {
        self.engine.summary(shard, range)
    }
    fn known_digests(&self, shard: Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>> {
        self.engine.known_digests(shard, ranges)
    }
    fn series_digests(&self, shard: Shard, range: TimeRange) -> Result<Vec<(SeriesId, Digest)>, Error> {
        self.engine.series_digests(shard, range)
    }
    fn export(
        &self,
        shard: Shard,
        range: TimeRange,
        series: &[SeriesId],
        bytes_max: usize,
        into: &mut Batch,
    ) -> Result<Option<SeriesId>, Error> {
        self.engine.export(shard, range, series, bytes_max, into)
    }
    fn labels_of(&self, id: SeriesId, into: &mut Vec<u8>) -> bool {
        self.engine.labels_of(id, into)
    }
    fn damage(&self) -> Vec<Damage> {
        Replica::damage(&*self.engine)
    }
    fn mended(&self, number: u64) -> Result<(), Error> {
        self.engine.mended(number)
    }
    fn forget(&self, shard: Shard) -> Result<Forgotten, Error> {
        let forgotten = self.engine.forget(shard)?;
        let is_kept = |id: &SeriesId| id.shard(self.engine.shards()) != shard;
        self.pending.lock().retain(|(id, ..)| is_kept(id));
        self.ghost.0.lock().retain(|(id, _), _| is_kept(id));
        Ok(forgotten)
    }
    fn sealed(&self) -> Option<&dyn SealedBlocks> {
        self.engine.sealed()
    }
}
