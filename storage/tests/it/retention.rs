//! What leaves: idle series from memory, segments from the log, blocks after their time.

use crate::world::*;
use model::TimeRange;

#[test]
fn windows_become_blocks_as_time_goes_on_and_the_log_stays_short() {
    let world = World::real();
    let engine = world.open();
    let mut expected = Vec::new();
    let mut segments = 0;
    for step in 1..200i64 {
        let t = step * 50;
        world.set_now(t);
        write(&engine, &labels("m", 0), &[(t, step as f64)]);
        expected.push((t, step as f64));
        engine.maintain().unwrap();
        segments = segments.max(engine.stats().wal_segments);
        assert_eq!(floats(&engine, &labels("m", 0)), expected);
    }
    let stats = engine.stats();
    // One block a window, and nothing twice.
    assert_eq!((stats.blocks, stats.flushes), (9, 9));
    assert_eq!(stats.block_samples + stats.head_samples, 199);
    assert!(segments <= 3, "{segments} segments at the same time");
    for block in engine.blocks() {
        assert_eq!((block.range.min.0 % WINDOW, block.range.max.0 + 1 - block.range.min.0), (0, WINDOW));
    }
    drop(engine);
    let engine = world.open();
    assert_eq!(floats(&engine, &labels("m", 0)), expected);
    assert_eq!(engine.stats().suspect, [""; 0]);
}

#[test]
fn samples_past_the_retention_are_hidden_at_once_and_their_blocks_removed() {
    let mut world = World::real();
    world.options.retention_ms = Some(3 * WINDOW);
    let engine = world.open();
    for step in 1..100i64 {
        world.set_now(step * 100);
        write(&engine, &labels("m", 0), &[(step * 100, step as f64)]);
        engine.maintain().unwrap();
        let oldest = floats(&engine, &labels("m", 0))[0].0;
        assert_eq!(oldest, (step * 100 - 3 * WINDOW).max(100));
    }
    let stats = engine.stats();
    assert!(stats.blocks_expired >= 5 && stats.blocks <= 4, "{stats:?}");
    let mut files = 0;
    for shard in 0..4 {
        let dir = world.options.dir.join(format!("blocks/default/{shard}"));
        files += world.vfs.list(&dir).map_or(0, |entries| entries.len() as u64);
    }
    assert_eq!(files, stats.blocks);
}

#[test]
fn series_that_fell_silent_leave_memory_and_come_back_when_they_speak() {
    let world = World::real();
    world.set_now(100);
    let engine = world.open();
    for i in 0..50 {
        write(&engine, &labels("short", i), &[(100, f64::from(i))]);
    }
    for step in 2..30i64 {
        world.set_now(step * 100);
        write(&engine, &labels("long", 0), &[(step * 100, 1.0)]);
        engine.maintain().unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.series, stats.series_dropped), (1, 50));
    // Still there to be read, and unknown to whoever writes without labels.
    assert_eq!(read_all(&engine).len(), 51);
    let again = Rows::default().floats(&*engine, &labels("short", 7), &[(2950, 1.0)]);
    assert_eq!(again.unchecked().append(&engine).unknown, [0]);
    write(&engine, &labels("short", 7), &[(2950, 1.0)]);
    assert_eq!(engine.series_created(), 52);
    assert_eq!(floats(&engine, &labels("short", 7)), [(100, 7.0), (2950, 1.0)]);
    drop(engine);
    assert_eq!(floats(&world.open(), &labels("short", 7)), [(100, 7.0), (2950, 1.0)]);
}

#[test]
fn backfill_of_many_windows_makes_a_bounded_number_of_blocks() {
    let world = World::real();
    world.set_now(1000 * WINDOW);
    let engine = world.open();
    let rows: Vec<(i64, f64)> = (0..1000).map(|i| (i * WINDOW + 5, i as f64)).collect();
    write(&engine, &labels("m", 0), &rows);
    engine.flush_all().unwrap();
    assert!(engine.stats().blocks <= 16, "{} blocks", engine.stats().blocks);
    assert_eq!(floats(&engine, &labels("m", 0)), rows);
    let some = read(&engine, &[], TimeRange::new(100 * WINDOW, 102 * WINDOW));
    assert_eq!(some[&labels("m", 0)].floats.len(), 2);
}

#[test]
fn more_memory_than_allowed_is_flushed_at_once() {
    let mut world = World::real();
    world.options.head_bytes_max = 512 << 10;
    world.set_now(500);
    let engine = world.open();
    let noise = |i: u32, t: i64| f64::from(i.wrapping_mul(2_654_435_761)).sqrt() * t as f64;
    for i in 0..1000 {
        let rows: Vec<_> = (1..200).map(|t| (t, noise(i, t))).collect();
        write(&engine, &labels("m", i), &rows);
    }
    assert!(engine.stats().head_bytes > 512 << 10, "{:?}", engine.stats());
    engine.maintain().unwrap();
    let stats = engine.stats();
    assert!(stats.head_bytes < 512 << 10, "{} bytes", stats.head_bytes);
    assert_eq!((stats.series, stats.block_samples), (0, 199_000));
    assert_eq!(read_all(&engine).len(), 1000);
}

#[test]
fn a_log_that_nobody_adds_to_does_not_stay_for_ever() {
    let world = World::real();
    world.set_now(10 * WINDOW);
    let engine = world.open();
    write(&engine, &labels("m", 0), &[(9 * WINDOW + 500, 1.0)]);
    world.set_now(11 * WINDOW);
    engine.maintain().unwrap();
    world.set_now(13 * WINDOW);
    engine.maintain().unwrap();
    assert_eq!((engine.stats().blocks, engine.stats().head_samples), (1, 0));
    assert_eq!(floats(&engine, &labels("m", 0)), [(9 * WINDOW + 500, 1.0)]);
}

#[test]
fn readers_miss_nothing_while_windows_are_flushed_under_them() {
    use std::sync::atomic::{AtomicI64, Ordering};
    let world = World::real();
    let engine = world.open();
    let done = AtomicI64::new(0);
    const LAST: i64 = 1500;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for t in 1..=LAST {
                world.set_now(t);
                write(&engine, &labels("m", 0), &[(t, t as f64)]);
                done.store(t, Ordering::Release);
            }
        });
        scope.spawn(|| {
            while done.load(Ordering::Acquire) < LAST {
                engine.maintain().unwrap();
                engine.flush_all().unwrap();
            }
        });
        scope.spawn(|| {
            loop {
                let least = done.load(Ordering::Acquire);
                let found = floats(&engine, &labels("m", 0));
                assert!(found.len() as i64 >= least, "{} of {least}", found.len());
                assert!(found.iter().zip(1..).all(|(&(t, v), i)| t == i && v == t as f64));
                if least == LAST {
                    return;
                }
            }
        });
    });
    assert!(engine.stats().flushes > 0);
}

#[test]
fn the_log_is_bounded_also_when_data_of_one_window_comes_without_end() {
    let mut world = World::real();
    world.options.block_window_ms = 1 << 40;
    world.options.wal_bytes_max = 256 << 10;
    world.set_now(1 << 30);
    let engine = world.open();
    // What the directory's log holds, as a restart would read it.
    let log_bytes = || -> u64 {
        world.vfs.list(&world.options.dir.join("wal")).unwrap().iter().map(|entry| entry.len).sum()
    };
    let (mut most, mut rows) = (0, 0);
    for round in 0..60i64 {
        // Backfill: behind what was written before, so that time never moves on.
        let chunk: Vec<(i64, f64)> = (0..1000).map(|i| ((100 - round) * 1000 + i, i as f64)).collect();
        write(&engine, &labels("m", 0), &chunk);
        rows += chunk.len();
        most = most.max(log_bytes());
        engine.maintain().unwrap();
        assert!(log_bytes() <= 256 << 10, "{} bytes after maintenance", log_bytes());
    }
    assert!(most > 200 << 10, "only {most} bytes: the log never came near its bound");
    let flushes = engine.stats().flushes;
    assert!((1..20).contains(&flushes), "{flushes} flushes");
    drop(engine);
    assert_eq!(floats(&world.open(), &labels("m", 0)).len(), rows);
}

#[test]
fn another_retention_and_durability_are_in_force_at_once() {
    let world = World::real();
    let engine = world.open();
    world.set_now(10 * WINDOW);
    write(&engine, &labels("m", 0), &[(WINDOW, 1.0), (10 * WINDOW, 2.0)]);
    assert_eq!(floats(&engine, &labels("m", 0)).len(), 2);
    engine.keep(Some(WINDOW), storage::Durability::Interval(std::time::Duration::from_millis(200)));
    assert_eq!(floats(&engine, &labels("m", 0)), [(10 * WINDOW, 2.0)]);
    let old = Rows::default().floats(&*engine, &labels("m", 0), &[(WINDOW, 1.0)]).append(&engine);
    assert_eq!(old.rejected.len(), 1);
    // Nobody commits here: a write is done at once, or never.
    let new = Rows::default().floats(&*engine, &labels("m", 0), &[(10 * WINDOW - 1, 3.0)]).append(&engine);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut poll = |mut durable: model::Durable| durable.as_mut().poll(&mut context).is_ready();
    assert!(poll(new.durable));
    engine.keep(None, storage::Durability::Fsync);
    let new = Rows::default().floats(&*engine, &labels("m", 0), &[(10 * WINDOW - 2, 3.0)]).append(&engine);
    assert!(!poll(new.durable));
}
