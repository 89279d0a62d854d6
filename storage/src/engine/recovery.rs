//! Opening: identity, blocks, then the log back into the heads.

use super::damage::{self, Finding, Ledger};
use super::digests::Digests;
use super::forget::LeftOver;
use super::health::ReadOnly;
use super::scrub::Scrub;
use super::sealed::Imports;
use super::{Counters, Engine, Options, Progress, flush};
use crate::head::{Head, Outcome};
use crate::identity::Identity;
use crate::shard::{Shard, State};
use crate::wal::{Other, Record, Rows};
use crate::{Error, Result, block};
use disk::log::Log;
use disk::{ReadOnlyVfs, Vfs};
use model::{DigestKey, Metadata, SeriesKey, TimeRange, Timestamp};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A number of a series that the log did not define.
const UNDEFINED: u32 = u32::MAX;

/// What a directory is opened for, and the lock that comes with it.
enum Use {
    Serve(Box<dyn Send + Sync>),
    Inspect(Option<Box<dyn Send + Sync>>),
}

/// One shard while the log is read.
#[derive(Default)]
struct ReplayShard {
    head: Head,
    generation: u32,
    slots: Slots,
}

/// The slots of a shard's series by their numbers. Numbers follow each other, but where a part of the log is lost some are missing, and a
/// record that makes no sense may name any: memory is that of the definitions that were there, whatever their numbers.
#[derive(Default)]
struct Slots {
    near: Vec<u32>,
    /// Those far beyond what was defined so far.
    far: HashMap<u32, u32>,
    defined: usize,
}

impl Slots {
    /// Places of `near` that may be empty, besides one for each definition.
    const GAP_MAX: usize = 4096;

    fn clear(&mut self) {
        self.near.clear();
        self.far.clear();
        self.defined = 0;
    }

    fn define(&mut self, number: u32, slot: u32) {
        self.defined += 1;
        let place = number as usize;
        if place >= self.near.len() && place < 2 * self.defined + Slots::GAP_MAX {
            self.near.resize(place + 1, UNDEFINED);
        }
        match self.near.get_mut(place) {
            Some(near) => *near = slot,
            None => drop(self.far.insert(number, slot)),
        }
    }

    #[inline]
    fn get(&self, number: u32) -> Option<u32> {
        match self.near.get(number as usize) {
            Some(&slot) if slot != UNDEFINED => Some(slot),
            _ => self.far.get(&number).copied(),
        }
    }
}

/// What the log said.
struct Replay {
    key: SeriesKey,
    /// When it began.
    now: i64,
    shards: Vec<ReplayShard>,
    metadata: BTreeMap<String, Metadata>,
    generation: u32,
    /// Rows without a definition, by generation. Those of a generation that a checkpoint ended do not count: what they
    /// said was said again.
    orphans: BTreeMap<u32, u64>,
    malformed: Vec<String>,
}

impl Replay {
    fn record(&mut self, payload: &[u8], place: impl Fn() -> String) {
        match Record::decode(payload) {
            Ok(Record::Rows(rows)) if usize::from(rows.shard.0) < self.shards.len() => self.rows(&rows),
            Ok(Record::Metadata(all)) => self.metadata.extend(all.into_iter().map(|m| (m.family.clone(), m))),
            Ok(Record::Checkpoint(generation)) => {
                self.generation = self.generation.max(generation);
                self.orphans = self.orphans.split_off(&generation);
            }
            Ok(Record::Rows(_)) | Err(_) => self.malformed.push(place()),
        }
    }

    fn rows(&mut self, rows: &Rows<'_>) {
        let Replay { key, now, shards, orphans, generation, .. } = self;
        let shard = &mut shards[usize::from(rows.shard.0)];
        *generation = (*generation).max(rows.generation);
        if shard.generation != rows.generation {
            shard.generation = rows.generation;
            shard.slots.clear();
        }
        let head = &mut shard.head;
        for (number, labels) in (rows.first..).zip(rows.definitions()) {
            let id = key.id(labels);
            let slot = head.find(id).unwrap_or_else(|| head.create(id, labels));
            shard.slots.define(number, slot);
        }
        let slots = &shard.slots;
        let mut lost = 0;
        let mut slot = |number: u32| {
            let slot = slots.get(number);
            lost += u64::from(slot.is_none());
            slot
        };
        for (number, t, v) in rows.floats() {
            let Some(slot) = slot(number) else { continue };
            let series = &mut head.series[slot as usize];
            let straight = series.is_straight(t, 0);
            if series.append_float(t, 0, v, &mut head.scratch, &mut head.sample_bytes) == Outcome::Taken {
                match straight {
                    true => head.minutes.count(*now, DigestKey::new(series.id), t, v),
                    false => head.minutes.mix(*now, TimeRange::new(t, t)),
                }
            }
            head.saw(t);
        }
        for (number, t, start, other) in rows.others() {
            let Some(slot) = slot(number) else { continue };
            let series = &mut head.series[slot as usize];
            match other {
                Other::Float(v) => {
                    series.append_float(t, start, v, &mut head.scratch, &mut head.sample_bytes);
                }
                Other::Histogram(h) => {
                    series.append_histogram(t, start, Arc::new(h), &mut head.sample_bytes);
                }
            }
            head.minutes.mix(*now, TimeRange::new(t, t));
            head.saw(t);
        }
        if lost > 0 {
            *orphans.entry(rows.generation).or_default() += lost;
        }
    }
}

impl Engine {
    /// Opens a data directory, or makes a new one in an empty folder.
    ///
    /// Fails when another process has it open, when it is not this program's, or when the disk fails. Damaged data is
    /// no reason to fail: it is reported in [`super::Stats::suspect`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        mut options: Options,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Arc<Engine>> {
        let dir = options.dir.clone();
        vfs.create_dir_all(&dir)?;
        let Some(lock) = vfs.lock(&dir.join("lock"))? else {
            let why =
                "another process has it open; stop that process, or choose another directory".to_owned();
            return Err(Error::Refused { dir, why });
        };
        let identity = Identity::open(&*vfs, &dir, options.identity, options.shards, &*options.random)?;
        options.shards = identity.shards;
        vfs.create_dir_all(&dir.join("wal"))?;
        Engine::load(vfs, options, clock, progress, identity, Use::Serve(lock))
    }

    /// Opens a data directory at rest to look into it. Nothing in it is changed, by this or by anything that is called
    /// on the engine: no segment is made, no torn tail is cut, nothing left over is removed. Several may do this at a
    /// time, also without the right to write. The number of shards is the directory's.
    ///
    /// Fails like [`Engine::open`], also when a server has the directory open, or when there is no data.
    pub fn open_read_only(
        vfs: Arc<dyn Vfs>,
        mut options: Options,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Arc<Engine>> {
        let dir = &options.dir;
        let vfs: Arc<dyn Vfs> = Arc::new(ReadOnlyVfs(vfs));
        let lock = match vfs.lock_shared(&dir.join("lock")) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => {
                let why = "a server has it open; ask that server (`--url`), or stop it first".to_owned();
                return Err(Error::Refused { dir: dir.clone(), why });
            }
            // A copy made without the lock file. Nobody serves from it: a server would have made one.
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        let identity = Identity::existing(&*vfs, dir)?;
        options.shards = identity.shards;
        Engine::load(vfs, options, clock, progress, identity, Use::Inspect(lock))
    }

    fn load(
        vfs: Arc<dyn Vfs>,
        options: Options,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        progress: &(dyn Fn(Progress) + Sync),
        identity: Identity,
        usage: Use,
    ) -> Result<Arc<Engine>> {
        let dir = options.dir.clone();
        let mut ledger = Ledger::open(&*vfs, &dir)?;
        let mut unreadable = Vec::new();
        let mut blocks = Vec::new();
        for shard in 0..options.shards {
            let dir = dir.join("blocks").join("default").join(shard.to_string());
            let number = model::Shard(shard as u16);
            blocks.push(open_blocks(&vfs, number, &dir, &usage, &mut ledger, &mut unreadable)?);
            progress(Progress {
                phase: "blocks",
                done_bytes: u64::from(shard) + 1,
                total_bytes: u64::from(options.shards),
            });
        }

        let wal = dir.join("wal");
        let total_bytes = match vfs.list(&wal) {
            Err(e) if e.is_not_found() => 0,
            entries => entries?.iter().map(|entry| entry.len).sum(),
        };
        let replay_shard = |blocks: &Vec<Arc<block::Reader>>| {
            let mut shard = ReplayShard::default();
            if let Some(last) = blocks.iter().map(|block| block.meta().span.max.0).max() {
                shard.head.minutes.begin_behind(last);
            }
            shard
        };
        let mut replay = Replay {
            key: identity.key(),
            now: clock().0,
            shards: blocks.iter().map(replay_shard).collect(),
            metadata: BTreeMap::new(),
            generation: 0,
            orphans: BTreeMap::new(),
            malformed: Vec::new(),
        };
        let (mut done_bytes, mut told) = (0u64, 0u64);
        let mut visit = |record: disk::log::Record<'_>| {
            replay.record(record.payload, || {
                format!("log segment {} at byte {}", record.segment.0, record.offset)
            });
            done_bytes += record.payload.len() as u64;
            if done_bytes - told > 1 << 20 {
                told = done_bytes;
                progress(Progress { phase: "wal", done_bytes, total_bytes });
            }
        };
        let (log, recovered) = match usage {
            Use::Serve(_) => Log::recover(vfs.clone(), &wal, options.wal.clone(), &mut visit)?,
            Use::Inspect(_) => Log::read(vfs.clone(), &wal, &mut visit)?,
        };
        progress(Progress { phase: "wal", done_bytes: total_bytes, total_bytes });
        let mut lost: Vec<(String, String)> = Vec::new();
        lost.extend(recovered.corrupt.iter().map(|range| {
            let what = format!(
                "log segment {}, bytes {} to {}: they had been durable and are damaged; samples in them are lost on this disk",
                range.segment.0, range.from, range.to
            );
            // With its end: a hole that has grown is another damage than the one that was mended.
            (format!("log/{}/{}-{}", range.segment.0, range.from, range.to), what)
        }));
        lost.extend(replay.malformed.iter().map(|place| {
            let source = format!("log/record/{}", place.replace(' ', "-"));
            (source, format!("{place}: the record makes no sense and was left out"))
        }));
        let orphans: u64 = replay.orphans.values().sum();
        if let Some((newest, _)) = replay.orphans.last_key_value().filter(|_| orphans > 0) {
            let what = format!(
                "{orphans} samples in the log belong to series whose definition is missing, and were left out"
            );
            lost.push((format!("log/orphans/{newest}/{orphans}"), what));
        }

        // Of what the log has lost, nobody knows the shard or the time.
        ledger.forget_gone(&lost.iter().map(|(source, _)| source.clone()).collect::<Vec<_>>());
        for (source, what) in lost {
            ledger.add(Finding { shard: None, range: TimeRange::ALL, source, what });
        }
        if let Use::Serve(_) = usage {
            ledger.save(&*vfs, &dir)?;
            for (shard, path) in unreadable {
                damage::quarantine_file(&*vfs, &dir, shard, &path)?;
            }
            damage::sweep(&*vfs, &dir, &ledger)?;
        }
        let scrub = Scrub::open(&*vfs, &dir)?;

        let log = Arc::new(log);
        let generation = replay.generation + 1;
        let mut series = 0;
        let shards = replay.shards.into_iter().zip(blocks).enumerate().map(|(number, (shard, blocks))| {
            series += shard.head.series.len() as u64;
            let state = State {
                head: shard.head,
                log: log.clone(),
                generation,
                next_number: 0,
                logged: None,
                blocks: blocks.into(),
                digests: Digests::default(),
            };
            Shard { number: model::Shard(number as u16), state: Mutex::new(state) }
        });
        let shards = shards.collect();
        let maintenance = flush::Maintenance::new(generation, clock());
        let (lock, read_only) = match usage {
            Use::Serve(lock) => (Some(lock), None),
            Use::Inspect(lock) => (lock, Some(ReadOnly::Failed("it was opened only to be read".to_owned()))),
        };
        Ok(Arc::new(Engine {
            key: identity.key(),
            kept: super::Kept::new(&options),
            counters: Counters { series: AtomicU64::new(series), ..Counters::default() },
            maintenance: Mutex::new(maintenance),
            metadata: Mutex::new(replay.metadata),
            is_read_only: read_only.is_some().into(),
            read_only: Mutex::new(read_only),
            closing: Mutex::new(false),
            closed: Condvar::new(),
            _lock: lock,
            vfs,
            options,
            clock,
            identity,
            log: RwLock::new(log),
            shards,
            damage: Mutex::new(ledger),
            damage_seen: u64::MAX.into(),
            scrub: Mutex::new(scrub),
            imports: Imports::default(),
            left_over: LeftOver::default(),
        }))
    }
}

/// Opens the blocks of one shard; removes what an interrupted flush left; writes down what is damaged, for `unreadable` to be set aside.
fn open_blocks(
    vfs: &Arc<dyn Vfs>,
    shard: model::Shard,
    dir: &Path,
    usage: &Use,
    ledger: &mut Ledger,
    unreadable: &mut Vec<(model::Shard, PathBuf)>,
) -> Result<Vec<Arc<block::Reader>>> {
    let mut blocks = Vec::new();
    let entries = match vfs.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.is_not_found() => return Ok(blocks),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        let path = dir.join(&entry.name);
        if entry.name.ends_with(".tmp") {
            if matches!(usage, Use::Serve(_)) {
                vfs.remove(&path)?;
            }
        } else if entry.name.ends_with(".block") {
            match block::Reader::open(&**vfs, &path) {
                Ok(reader) => {
                    let source = damage::block_source(shard, &entry.name);
                    // Either it was found damaged and is still to be set aside, or somebody has put it back.
                    if ledger.knows(&source) && reader.verify_bytes(&**vfs).is_ok() {
                        ledger.withdraw(&source);
                    }
                    blocks.push(Arc::new(reader));
                }
                Err(e @ Error::Corrupt { .. }) => {
                    // The name is all that is left to tell the time.
                    let range = block::Header::range_of_file_name(&entry.name).unwrap_or(TimeRange::ALL);
                    let what = format!(
                        "{e}; its samples are missing from answers until other replicas have brought them, or the file is put back from a copy and the server restarted (removing the file `damage` accepts the loss)"
                    );
                    let source = damage::block_source(shard, &entry.name);
                    ledger.add(Finding { shard: Some(shard), range, source, what });
                    unreadable.push((shard, path));
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_are_found_by_any_number_and_memory_is_that_of_the_definitions(
            defined in prop::collection::vec((prop_oneof![0u32..50, 4_000u32..9_000, any::<u32>()], 0u32..1_000), 0..200),
            asked in prop::collection::vec(prop_oneof![0u32..60, any::<u32>()], 0..20)
        ) {
            let (mut slots, mut truth) = (Slots::default(), BTreeMap::new());
            for &(number, slot) in &defined {
                slots.define(number, slot);
                truth.insert(number, slot);
            }
            for number in asked.into_iter().chain(truth.keys().copied()) {
                prop_assert_eq!(slots.get(number), truth.get(&number).copied());
            }
            prop_assert!(slots.near.len() <= 2 * defined.len() + Slots::GAP_MAX);
            slots.clear();
            prop_assert!(truth.keys().all(|number| slots.get(*number).is_none()));
        }
    }
}
