//! Disks that are full, that fail, and that give back other bytes than were written.

use crate::world::*;
use disk::fault::{Fault, Operation, Rule};
use disk::{CrashVfs, FaultVfs, RealVfs};
use model::{Error, Sink};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use storage::Engine;

/// A world over a faulty disk in memory.
fn faulty() -> (World, FaultVfs<CrashVfs>) {
    let vfs = FaultVfs::<CrashVfs>::dropping(CrashVfs::new(), disk::crash::Dropped::Evicted);
    let mut world = World::on(Arc::new(vfs.clone()));
    world.options.shards = 2;
    (world, vfs)
}

/// Appends one sample to each of three series and commits; tells whether that was acknowledged.
fn try_write(engine: &Engine, t: i64) -> Result<(), Error> {
    let batch = (0..3).fold(Rows::default(), |b, i| {
        b.floats(engine, &labels("m", i), &[(t, (t * 10 + i64::from(i)) as f64)])
    });
    let mut appended = engine.append(&Arc::new(batch.0), None)?;
    let _ = engine.commit();
    match is_durable(&mut appended) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("neither durable nor failed at {t}"),
    }
}

/// Panics unless everything acknowledged is there, with its value.
fn check(engine: &Engine, acknowledged: &[i64], what: &str) {
    let found: BTreeMap<_, _> = read_all(engine);
    for i in 0..3u32 {
        let plain = found.get(&labels("m", i)).cloned().unwrap_or_default();
        for (t, _, bits) in &plain.floats {
            assert_eq!(f64::from_bits(*bits), (t * 10 + i64::from(i)) as f64, "{what}");
        }
        for &t in acknowledged {
            assert!(
                plain.floats.iter().any(|f| f.0 == t),
                "{what}: series {i} at {t} was acknowledged and is missing"
            );
        }
    }
}

#[test]
fn a_log_that_ran_into_a_full_disk_goes_on_when_there_is_room() {
    let (world, vfs) = faulty();
    let engine = world.open();
    try_write(&engine, 1).unwrap();
    vfs.add(Rule::new(Operation::Write, Fault::Enospc).path("/wal/"));
    assert!(try_write(&engine, 2).is_err());
    match try_write(&engine, 3) {
        Err(Error::ReadOnly { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(engine.stats().read_only.is_some());
    check(&engine, &[1], "reads go on");
    vfs.clear();
    engine.maintain().unwrap();
    assert_eq!(engine.stats().read_only, None);
    // The row whose fate was unknown, sent again: it is acknowledged now, so it has to survive.
    try_write(&engine, 2).unwrap();
    try_write(&engine, 3).unwrap();
    drop(engine);
    check(&world.open(), &[1, 2, 3], "after a restart");
}

#[test]
fn the_commit_loop_outlives_a_full_disk_and_ends_with_the_engine() {
    let (world, vfs) = faulty();
    let engine = world.open();
    let looping = engine.clone();
    let thread = std::thread::spawn(move || looping.commit_loop());
    let acknowledged = |t: i64| {
        let batch = Rows::default().floats(&*engine, &labels("m", 0), &[(t, (t * 10) as f64)]);
        engine.append(&Arc::new(batch.0), None).map_err(|_| ()).and_then(|a| wait(a.durable).map_err(|_| ()))
    };
    acknowledged(1).unwrap();
    vfs.add(Rule::new(Operation::Write, Fault::Enospc).path("/wal/"));
    acknowledged(2).unwrap_err();
    // The writer hears of it a moment before the committing thread has told the engine.
    while engine.stats().read_only.is_none() {
        std::thread::yield_now();
    }
    vfs.clear();
    engine.maintain().unwrap();
    acknowledged(3).unwrap();
    engine.close().unwrap();
    thread.join().unwrap().unwrap();
}

/// Waits for a future on this thread.
fn wait<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_failed_fsync_ends_writes_for_good_and_reads_go_on() {
    let (world, vfs) = faulty();
    let engine = world.open();
    try_write(&engine, 1).unwrap();
    vfs.add(Rule::new(Operation::Sync, Fault::Eio).path("/wal/").nth(1));
    assert!(try_write(&engine, 2).is_err());
    for _ in 0..3 {
        let _ = engine.maintain();
        assert!(matches!(try_write(&engine, 3), Err(Error::ReadOnly { .. })));
        check(&engine, &[1], "reads go on");
    }
    drop(engine);
    let engine = world.open();
    check(&engine, &[1], "after a restart");
    try_write(&engine, 4).unwrap();
}

#[test]
fn too_little_room_stops_writes_until_there_is_room() {
    let mut world = World::real();
    world.options.disk_reserve_bytes = u64::MAX;
    let engine = world.open();
    write(&engine, &labels("m", 0), &[(1, 10.0)]);
    engine.maintain().unwrap();
    match try_write(&engine, 2) {
        Err(Error::ReadOnly { reason }) => assert!(reason.contains("storage.disk_reserve_bytes"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(floats(&engine, &labels("m", 0)), [(1, 10.0)]);
}

/// Writes, flushes and restarts while one operation fails; whatever was acknowledged must be there afterwards.
fn survive(operation: Operation, fault: Fault, nth: u64) -> bool {
    let (mut world, vfs) = faulty();
    world.options.wal.segment_bytes = 2 << 10;
    world.set_now(1);
    let what = format!("{fault:?} of {operation:?} number {nth}");
    let mut acknowledged = Vec::new();
    let mut engine = Some(world.open());
    vfs.add(Rule::new(operation, fault).nth(nth));
    for step in 1..40i64 {
        world.set_now(step * 100);
        if step % 13 == 0 {
            engine = None;
        }
        // A restart may fail while the disk does; the next one must not.
        if engine.is_none() {
            engine = Some(
                world.try_open().or_else(|_| world.try_open()).unwrap_or_else(|e| panic!("{what}: {e}")),
            );
        }
        let engine = engine.as_ref().unwrap();
        if try_write(engine, step * 100).is_ok() {
            acknowledged.push(step * 100);
        }
        let _ = engine.maintain();
        check(engine, &acknowledged, &what);
    }
    drop(engine);
    let happened = vfs.injected() > 0;
    vfs.clear();
    let engine = world.open();
    check(&engine, &acknowledged, &what);
    assert!(!acknowledged.is_empty());
    happened
}

#[test]
fn no_single_failure_of_the_disk_loses_an_acknowledged_sample() {
    use Operation::*;
    let mut happened = 0;
    for operation in
        [Open, Create, Read, Write, Sync, SetLen, Map, Rename, Remove, CreateFolder, List, SyncFolder]
    {
        for fault in [Fault::Eio, Fault::Enospc] {
            let mut nth = 1;
            while survive(operation, fault, nth) {
                (happened, nth) = (happened + 1, nth + 1 + nth / 8);
            }
        }
    }
    println!("{happened} failures survived");
    assert!(happened > 200, "only {happened} failures happened");
}

#[test]
fn a_damaged_middle_of_the_log_is_reported_and_the_rest_is_kept() {
    let world = World::real();
    let engine = world.open();
    for t in 1..200 {
        write(&engine, &labels("m", 0), &[(t, t as f64)]);
    }
    write(&engine, &labels("other", 0), &[(1, 1.0)]);
    drop(engine);
    let wal = world.options.dir.join("wal");
    let first = std::fs::read_dir(wal).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[1500] ^= 0x10;
    std::fs::write(&first, bytes).unwrap();
    let engine = world.open();
    assert_eq!(engine.stats().suspect.len(), 1, "{:?}", engine.stats().suspect);
    // Nobody knows of which time the lost samples are: every answer says so.
    let warned = warnings(&engine, model::TimeRange::new(7, 7));
    assert!(warned.len() == 1 && warned[0].contains("log segment"), "{warned:?}");
    let left = floats(&engine, &labels("m", 0));
    assert!((150..199).contains(&left.len()), "{}", left.len());
    assert!(left.iter().all(|&(t, v)| v == t as f64));
    assert_eq!(floats(&engine, &labels("other", 0)), [(1, 1.0)]);
}

#[test]
fn samples_of_a_series_whose_definition_was_damaged_are_counted_and_never_given_to_another() {
    let mut world = World::real();
    world.options.shards = 1;
    // The second series is number 0 of the first generation, the first series number 0 of the next.
    write(&world.open(), &labels("second", 0), &[(1, -1.0)]);
    let engine = world.open();
    write(&engine, &labels("first", 0), &[(1, 1.0)]);
    for t in 2..50 {
        write(&engine, &labels("first", 0), &[(t, t as f64)]);
        write(&engine, &labels("second", 0), &[(t, -t as f64)]);
    }
    drop(engine);
    let wal = world.options.dir.join("wal");
    let first = std::fs::read_dir(wal).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    // The record that defines the first series.
    let at = bytes.windows(5).position(|w| w == b"first").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let engine = world.open();
    let suspect = engine.stats().suspect.join("\n");
    assert!(suspect.contains("48 samples"), "{suspect}");
    let all = read_all(&engine);
    assert_eq!(all.len(), 1);
    assert_eq!(floats(&engine, &labels("second", 0)).len(), 49);
    assert!(floats(&engine, &labels("second", 0)).iter().all(|&(t, v)| v == -t as f64));
}

fn warnings(engine: &storage::Engine, range: model::TimeRange) -> Vec<String> {
    let selection = model::Selection { matchers: vec![], range, series_max: 10, shards: None };
    model::Source::select(engine, &selection).unwrap().warnings().to_vec()
}

#[test]
fn an_answer_warns_of_a_block_that_does_not_open_where_their_times_overlap() {
    use model::TimeRange;
    let world = World::real();
    world.set_now(5 * WINDOW);
    let engine = world.open();
    let m = labels("m", 0);
    write(&engine, &m, &[(-500, 0.0), (500, 1.0), (1500, 2.0)]);
    engine.flush_all().unwrap();
    assert_eq!(warnings(&engine, TimeRange::ALL), [""; 0]);
    let block = engine.blocks().into_iter().find(|block| block.range.min.0 == -WINDOW).unwrap();
    drop(engine);
    let file = world.vfs.open(&block.path, disk::OpenMode::Write).unwrap();
    file.set_len(block.bytes / 2).unwrap();
    let engine = world.open();
    assert_eq!(floats(&engine, &m), [(500, 1.0), (1500, 2.0)]);
    for (range, warned) in [
        (TimeRange::ALL, 1),
        (TimeRange::new(-1, 100), 1),
        (TimeRange::new(i64::MIN, -WINDOW), 1),
        (TimeRange::new(0, i64::MAX), 0),
        (TimeRange::new(i64::MIN, -WINDOW - 1), 0),
    ] {
        let told = warnings(&engine, range);
        assert_eq!(told.len(), warned, "{range:?}: {told:?}");
        let name = block.path.file_name().unwrap().to_str().unwrap();
        assert!(told.iter().all(|w| w.contains(name) && w.contains("put back from a copy")), "{told:?}");
    }
}

#[test]
fn a_damaged_block_gives_an_error_and_never_other_samples() {
    let all: Vec<(i64, f64)> = (1..500).map(|t| (t, (t * t % 917) as f64)).collect();
    // Every time it is mapped, one bit of it is wrong.
    let mut refused = 0;
    for seed in 0..60 {
        let mut world = World::real();
        world.set_now(WINDOW);
        let engine = world.open();
        write(&engine, &labels("m", 0), &all);
        engine.flush_all().unwrap();
        assert_eq!(engine.verify().len(), 0);
        drop(engine);
        let vfs = FaultVfs::seeded(RealVfs, seed);
        vfs.add(Rule::new(Operation::Map, Fault::Flip));
        world.vfs = Arc::new(vfs);
        let engine = world.open();
        let selection =
            model::Selection { matchers: vec![], range: model::TimeRange::ALL, series_max: 10, shards: None };
        let read = model::Source::select(&*engine, &selection).and_then(|set| {
            let mut samples = model::Samples::default();
            (0..set.len()).try_for_each(|i| set.read(i, model::TimeRange::ALL, &mut samples))?;
            Ok((set.len(), samples))
        });
        match read {
            Err(Error::Corrupt { .. }) => refused += 1,
            Err(e) => panic!("another error: {e}"),
            // A block that does not even open is missing, and that is reported.
            Ok((0, _)) => {
                assert_eq!(engine.stats().suspect.len(), 1);
                refused += 1;
            }
            // The bit was in a part that this read does not need.
            Ok((_, samples)) => {
                let found: Vec<_> = samples.timestamps.into_iter().zip(samples.values).collect();
                assert_eq!(found, all, "seed {seed}");
            }
        }
    }
    assert!(refused > 10, "only {refused} of 60 were noticed");
}
