//! Every crash point of a workload that writes, flushes and deletes by retention.
//!
//! The value of a sample is a function of its series and timestamp, so that whatever is read can be checked: nothing that
//! was acknowledged is missing, and nothing is there that was never written.

use crate::world::*;
use disk::crash::{Crash, Exploration, Survivors};
use disk::{CrashVfs, Vfs};
use model::{Labels, Metadata, Replica, Shard, Sink, Source, TimeRange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use storage::Engine;

const SERIES: u32 = 12;
const SHARDS: u32 = 4;
const STEPS: i64 = 220;
const STEP: i64 = 90;
const RETENTION: i64 = 2 * WINDOW;

fn value(series: u32, t: i64) -> f64 {
    f64::from(series) * 1e6 + t as f64
}

/// When a write counts as acknowledged: the rule, or a mistake that the exploration has to notice.
#[derive(Clone, Copy, PartialEq)]
enum Acknowledge {
    AfterCommit,
    BeforeCommit,
}

/// What was done, and what may be relied on after how many operations.
struct History {
    vfs: CrashVfs,
    world: World,
    /// Operations before each step, with the clock of that step.
    clock: Vec<(usize, i64)>,
    /// Operations at the acknowledgement, series, timestamp.
    acknowledged: Vec<(usize, u32, i64)>,
    written: BTreeSet<(u32, i64)>,
    described_after: usize,
}

fn world(vfs: &CrashVfs) -> World {
    let mut world = World::on(Arc::new(vfs.clone()));
    world.options.shards = SHARDS;
    world.options.retention_ms = Some(RETENTION);
    world.options.future_max_ms = WINDOW;
    // Small, so that the log turns over by itself as well as by cuts.
    world.options.wal.segment_bytes = 3 << 10;
    world.options.wal.preallocate = true;
    world
}

/// The rows of one step: scrapes, late samples, a histogram; series come and go.
fn rows(step: i64, now: i64) -> Vec<(u32, i64)> {
    let mut rows = Vec::new();
    for series in 0..SERIES {
        // Some series fall silent early, some come late, some come and go.
        let silent = match series % 6 {
            3 => step > 12,
            4 => step < 25,
            5 => step / 40 % 2 == 1,
            _ => false,
        };
        if silent {
            continue;
        }
        rows.push((series, now - i64::from(series)));
    }
    if step % 4 == 1 {
        rows.push((1, now - 700));
    }
    if step % 9 == 5 {
        // Of a window that was flushed already.
        rows.push((2, now - WINDOW - 350));
    }
    rows.retain(|row| row.1 > 0);
    rows
}

fn workload(acknowledge: Acknowledge) -> History {
    let vfs = CrashVfs::new();
    let world = world(&vfs);
    world.set_now(STEP);
    let mut history = History {
        clock: vec![(0, STEP)],
        acknowledged: Vec::new(),
        written: BTreeSet::new(),
        described_after: usize::MAX,
        vfs,
        world,
    };
    let History { vfs, world, clock, acknowledged, written, described_after } = &mut history;
    let mut engine = world.open();
    for step in 1..STEPS {
        let now = step * STEP;
        clock.push((vfs.operations(), now));
        world.set_now(now);
        let rows = rows(step, now);
        written.extend(&rows);
        // Two requests share a commit.
        for rows in rows.chunks(rows.len().div_ceil(2)) {
            let batch = rows.iter().fold(Rows::default(), |batch, &(series, t)| {
                batch.floats(&*engine, &labels("m", series), &[(t, value(series, t))])
            });
            batch.append(&engine);
        }
        let promise = vfs.operations();
        if step == 3 {
            let family = Metadata { family: "m".into(), help: "Help.".into(), ..Metadata::default() };
            engine.describe(&[family]).unwrap();
        }
        Engine::commit(&engine).unwrap();
        let promise = if acknowledge == Acknowledge::AfterCommit { vfs.operations() } else { promise };
        acknowledged.extend(rows.iter().map(|&(series, t)| (promise, series, t)));
        if step == 3 {
            *described_after = vfs.operations();
        }
        engine.maintain().unwrap();
        match step {
            20 | 110 => {
                engine.close().unwrap();
                drop(engine);
                engine = world.open();
            }
            // As if the process was killed.
            37 | 137 | 180 => {
                drop(engine);
                engine = world.open();
            }
            45 | 200 => drop(engine.flush_all().unwrap()),
            _ => {}
        }
    }
    let stats = engine.stats();
    let enough =
        stats.flushes > 2 && stats.blocks_expired > 2 && stats.series_dropped > 0 && stats.out_of_order > 0;
    assert!(enough, "the workload does too little: {stats:?}");
    history
}

impl History {
    fn now_at(&self, operations: usize) -> i64 {
        let at = self.clock.partition_point(|c| c.0 <= operations);
        self.clock[at.max(1) - 1].1
    }

    /// Compares what a disk holds after a crash with what was promised before it.
    fn check(&self, after: usize, vfs: &CrashVfs, deep: bool) -> Result<(), String> {
        let world = world(vfs);
        world.now.store(self.now_at(after), Relaxed);
        let engine = world.try_open().map_err(|e| format!("it does not open: {e}"))?;
        self.compare(after, &engine, world.now.load(Relaxed))?;
        if deep {
            // It goes on as if nothing had happened: takes writes, flushes, and comes back once more.
            let extra = labels("after", 0);
            write(&engine, &extra, &[(self.now_at(after), 1.0)]);
            self.compare(after, &engine, world.now.load(Relaxed))?;
            engine.flush_all().map_err(|e| format!("it does not flush: {e}"))?;
            self.compare(after, &engine, world.now.load(Relaxed))?;
            drop(engine);
            let engine = world.try_open().map_err(|e| format!("it does not open again: {e}"))?;
            self.compare(after, &engine, world.now.load(Relaxed))?;
            if floats(&engine, &extra).len() != 1 {
                return Err("what was written after the crash is missing".to_owned());
            }
            if let Some(damaged) = engine.verify().first() {
                return Err(format!("a block does not pass: {damaged}"));
            }
            let leftovers = leftovers(vfs);
            if !leftovers.is_empty() {
                return Err(format!("left over: {leftovers:?}"));
            }
        }
        Ok(())
    }

    /// Power fails again, at any point of opening, writing and flushing after the first crash. Returns how many states
    /// that makes.
    fn check_second_crash(&self, first: Crash) -> u64 {
        let done = self.check(first.after, &first.vfs, true);
        done.unwrap_or_else(|what| panic!("{what}\n{first}"));
        let mut count = 0;
        for second in
            first.vfs.journal().states(&Exploration { subsets_max: 8, samples: 4, seed: first.after as u64 })
        {
            if let Err(what) = self.check(first.after, &second.vfs, false) {
                panic!("{what}\n{first}, then {second}");
            }
            count += 1;
        }
        count
    }

    fn compare(&self, after: usize, engine: &Engine, now: i64) -> Result<(), String> {
        let suspect = engine.stats().suspect;
        if !suspect.is_empty() {
            return Err(format!("a crash is taken for corruption: {suspect:?}"));
        }
        for shard in (0..SHARDS as u16).map(Shard) {
            // What a block says of itself, and what is remembered, against a scan.
            let told = engine.digest(shard, TimeRange::ALL).map_err(|e| e.to_string())?;
            let scanned = engine.series_digests(shard, TimeRange::ALL).map_err(|e| e.to_string())?;
            if told != scanned.into_iter().map(|series| series.1).sum() {
                return Err(format!("the digest of shard {} is not that of its samples", shard.0));
            }
        }
        let by_labels: BTreeMap<Labels, u32> = (0..SERIES).map(|s| (labels("m", s), s)).collect();
        let mut found = BTreeSet::new();
        for (labels, plain) in read_all(engine) {
            let Some(&series) = by_labels.get(&labels) else { continue };
            for (t, start, bits) in plain.floats {
                if (start, bits) != (0, value(series, t).to_bits()) || !self.written.contains(&(series, t)) {
                    return Err(format!("series {series} has {} at {t}", f64::from_bits(bits)));
                }
                found.insert((series, t));
            }
        }
        for &(promise, series, t) in &self.acknowledged {
            if promise <= after && t >= now - RETENTION && !found.contains(&(series, t)) {
                return Err(format!("series {series} at {t} was acknowledged and is missing"));
            }
        }
        if self.described_after <= after && engine.metadata(Some("m")).unwrap().is_empty() {
            return Err("the metadata was acknowledged and is missing".to_owned());
        }
        Ok(())
    }
}

/// Half-made files.
fn leftovers(vfs: &CrashVfs) -> Vec<String> {
    let mut all = Vec::new();
    for shard in 0..SHARDS {
        let dir = format!("/data/blocks/default/{shard}");
        let entries = vfs.list(dir.as_ref()).unwrap_or_default();
        all.extend(entries.into_iter().map(|e| e.name).filter(|n| !n.ends_with(".block")));
    }
    all
}

#[test]
fn no_crash_loses_an_acknowledged_sample_or_keeps_the_engine_from_opening() {
    let history = workload(Acknowledge::AfterCommit);
    let journal = history.vfs.journal();
    let seed = std::env::var("SARSEN_CRASH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    if let Ok(one) = std::env::var("SARSEN_CRASH") {
        // `<operation> <survivors>`, as a failure prints it.
        let (after, survivors) = one.split_once(' ').expect("<operation> <survivors>");
        let (after, survivors): (usize, Survivors) = (after.parse().unwrap(), survivors.parse().unwrap());
        println!("not synced:\n{}", journal.pending(after));
        history.check(after, &journal.crash(after, survivors).vfs, true).unwrap();
        return;
    }
    let exploration = Exploration { subsets_max: 64, samples: 48, seed };
    // What happens after the crash is tried on every sixteenth state, and on the first of every crash point.
    let states = std::sync::Mutex::new(journal.states(&exploration).enumerate());
    let (mut total, mut deep_total) = (0u64, 0u64);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    std::thread::scope(|scope| {
        let work = || {
            let (mut count, mut deep_count) = (0u64, 0u64);
            loop {
                let Some((index, crash)) = states.lock().unwrap().next() else { return (count, deep_count) };
                let deep = index % 16 == 0;
                if let Err(what) = history.check(crash.after, &crash.vfs, deep) {
                    panic!(
                        "{what}\n{crash}, exploration seed {seed}; repeat it with SARSEN_CRASH='{} {}'\nnot synced:\n{}",
                        crash.after,
                        crash.survivors,
                        journal.pending(crash.after)
                    );
                }
                count += 1;
                deep_count += u64::from(deep);
                if index % 1024 == 0 {
                    count += history.check_second_crash(journal.crash(crash.after, crash.survivors));
                }
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            let (count, deep) = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (total, deep_total) = (total + count, deep_total + deep);
        }
    });
    println!(
        "{total} states after {} operations explored, {deep_total} of them written to and flushed afterwards; seed {seed}",
        journal.len()
    );
    assert!(total >= 20_000, "only {total} states");
}

#[test]
fn the_exploration_notices_an_acknowledgement_that_comes_before_the_fsync() {
    let history = workload(Acknowledge::BeforeCommit);
    let exploration = Exploration { subsets_max: 4, samples: 1, seed: 1 };
    let lost = history.vfs.journal().states(&exploration).any(|crash| {
        history.check(crash.after, &crash.vfs, false).is_err_and(|what| what.contains("is missing"))
    });
    assert!(lost, "the check cannot fail");
}
