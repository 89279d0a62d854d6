//! What one node's engine is to the others: rows that were let in elsewhere, exports, repair.

use crate::world::*;
use disk::CrashVfs;
use model::{Batch, RejectReason, Replica, SeriesId, Shard, Sink, TimeRange, Written};
use std::sync::Arc;
use storage::Engine;

fn replicate(engine: &Engine, rows: Rows) -> model::Appended {
    engine.append_replicated(&Arc::new(rows.0), None).unwrap()
}

fn memory() -> World {
    let world = World::on(Arc::new(CrashVfs::new()));
    world.set_now(100 * WINDOW);
    world
}

#[test]
fn rows_that_another_node_let_in_are_not_measured_by_this_nodes_clock() {
    let mut world = memory();
    world.options.retention_ms = Some(10 * WINDOW);
    world.options.future_max_ms = WINDOW;
    let engine = world.open();
    let rows = [(95 * WINDOW, 1.0), (500 * WINDOW, 2.0)];
    let appended = replicate(&engine, Rows::default().floats(&*engine, &labels("m", 0), &rows));
    assert_eq!((appended.rejected, appended.written), (vec![], Written { floats: 2, histograms: 0 }));
    assert_eq!(floats(&engine, &labels("m", 0)), rows);
}

#[test]
fn rows_past_the_retention_are_left_out_in_silence_and_count_as_written() {
    let mut world = memory();
    world.options.retention_ms = Some(10 * WINDOW);
    let engine = world.open();
    let batch = Rows::default()
        .floats(&*engine, &labels("m", 0), &[(5, 1.0), (95 * WINDOW, 2.0)])
        .floats(&*engine, &labels("old", 0), &[(6, 1.0)])
        .histograms(&*engine, &labels("h", 0), &[(7, 0, histogram(1)), (95 * WINDOW, 0, histogram(2))]);
    let appended = replicate(&engine, batch);
    assert_eq!((&appended.rejected, &appended.unknown), (&vec![], &vec![]));
    assert_eq!(appended.written, Written { floats: 3, histograms: 2 });
    let stats = engine.stats();
    assert_eq!((stats.series, stats.head_samples, stats.rejected_too_old), (2, 2, 0));
    assert_eq!(floats(&engine, &labels("m", 0)), [(95 * WINDOW, 2.0)]);
}

#[test]
fn known_series_travel_without_labels_and_unknown_ones_are_asked_for() {
    let world = memory();
    let engine = world.open();
    write(&engine, &labels("m", 0), &[(1, 1.0)]);
    let mut batch = Rows::default()
        .floats(&*engine, &labels("m", 0), &[(2, 2.0)])
        .floats(&*engine, &labels("new", 0), &[(2, 2.0), (0, 1.0)])
        .unchecked();
    batch.0.bytes.clear();
    batch.0.series.iter_mut().for_each(|s| (s.labels_at, s.labels_len) = (0, 0));
    let appended = replicate(&engine, batch);
    assert_eq!((appended.unknown, appended.written.floats), (vec![1], 1));
    assert_eq!(floats(&engine, &labels("m", 0)), [(1, 1.0), (2, 2.0)]);
}

#[test]
fn labels_that_do_not_hash_to_their_id_make_no_series() {
    let world = memory();
    let engine = world.open();
    let mut batch = Rows::default().floats(&*engine, &labels("m", 0), &[(2, 2.0)]);
    batch.0.series[0].id = SeriesId(batch.0.series[0].id.0 ^ 1);
    let appended = replicate(&engine, batch);
    assert_eq!(appended.rejected.len(), 1);
    assert_eq!((appended.rejected[0].reason, appended.rejected[0].rows), (RejectReason::IdCollision, 1));
    // Nor do bytes that have the id and are no label set.
    let mut batch = Batch { bytes: b"\xffnot labels".to_vec(), ..Rows::default().0 };
    batch.series.push(model::BatchSeries {
        id: engine.key().id(&batch.bytes),
        checked: true,
        labels_at: 0,
        labels_len: batch.bytes.len() as u32,
        floats_at: 0,
        floats_len: 1,
        histograms_at: 0,
        histograms_len: 0,
    });
    (batch.timestamps, batch.values) = (vec![1], vec![1]);
    assert_eq!(replicate(&engine, Rows(batch)).rejected.len(), 1);
    assert_eq!(engine.stats().series, 0);
}

#[test]
fn labels_of_a_series_are_known_while_it_is_in_memory() {
    let world = memory();
    let engine = world.open();
    write(&engine, &labels("m", 3), &[(1, 1.0)]);
    let id = engine.key().id(labels("m", 3).as_bytes());
    let mut bytes = vec![7];
    assert!(engine.labels_of(id, &mut bytes));
    assert_eq!(bytes[1..], *labels("m", 3).as_bytes());
    assert!(!engine.labels_of(SeriesId(id.0 ^ 1), &mut bytes));
    assert_eq!(bytes.len(), 1 + labels("m", 3).as_bytes().len());
}

/// Every series of a shard.
fn ids(engine: &Engine, shard: Shard, range: TimeRange) -> Vec<SeriesId> {
    engine.series_digests(shard, range).unwrap().into_iter().map(|series| series.0).collect()
}

/// Brings everything of `from` in `range` to `to`, in parts of about `bytes_max`. Returns how many parts that were.
fn repair(from: &Engine, to: &Engine, range: TimeRange, bytes_max: usize) -> usize {
    let mut parts = 0;
    for shard in (0..4).map(Shard) {
        let series = ids(from, shard, range);
        let mut rest = &series[..];
        loop {
            let mut batch = Batch::default();
            let next = from.export(shard, range, rest, bytes_max, &mut batch).unwrap();
            parts += 1;
            assert!(batch.series.is_sorted_by(|a, b| a.id < b.id));
            assert!(batch.series.iter().all(|s| s.checked && range_of(&batch, s).is_some()));
            let appended = to.append_replicated(&Arc::new(batch), None).unwrap();
            assert!(appended.unknown.is_empty() && appended.rejected.is_empty());
            let Some(next) = next else { break };
            let at = rest.binary_search(&next).unwrap();
            assert!(at > 0, "no progress");
            rest = &rest[at..];
        }
    }
    Engine::commit(to).unwrap();
    parts
}

fn range_of(batch: &Batch, series: &model::BatchSeries) -> Option<(i64, i64)> {
    let floats = batch.timestamps[series.floats()].iter().copied();
    let all = || floats.clone().chain(batch.histograms[series.histograms()].iter().map(|h| h.timestamp));
    all().min().zip(all().max())
}

fn content(engine: &Engine) {
    for i in 0..30 {
        let t = |n: i64| n * 37 + i64::from(i);
        match i % 3 {
            0 => write(engine, &labels("m", i), &(0..80).map(|n| (t(n), n as f64)).collect::<Vec<_>>()),
            1 => {
                let rows: Vec<_> = (0..80).map(|n| (t(n), n % 4, n as f64)).collect();
                Rows::default().with_starts(engine, &labels("m", i), &rows).append(engine);
            }
            _ => {
                let rows: Vec<_> = (0..20).map(|n| (t(n), n % 2, histogram(n as u64))).collect();
                Rows::default().histograms(engine, &labels("m", i), &rows).append(engine);
            }
        }
    }
    Engine::commit(engine).unwrap();
}

/// An engine of the same cluster as `of`, without data.
fn empty_peer(of: &Engine) -> (World, Arc<Engine>) {
    let mut world = memory();
    world.options.identity = Some(storage::Identity { node: 77, disk: 78, ..of.identity() });
    let engine = world.open();
    (world, engine)
}

#[test]
fn an_export_brings_everything_to_an_empty_peer_in_parts_of_any_size() {
    let world = memory();
    let engine = world.open();
    content(&engine);
    for (flushed, bytes_max, at_least) in [(false, 1, 30), (true, 4000, 8), (true, usize::MAX, 4)] {
        if flushed {
            engine.flush_all().unwrap();
            // Some of it in two places.
            write(&engine, &labels("m", 0), &[(37, 100.0), (99_000, 1.0)]);
        }
        let (_world, peer) = empty_peer(&engine);
        let parts = repair(&engine, &peer, TimeRange::ALL, bytes_max);
        assert!(parts >= at_least && (bytes_max > 1 || parts == 30), "{parts} parts of {bytes_max} bytes");
        assert_eq!(read_all(&peer), read_all(&engine));
        for shard in (0..4).map(Shard) {
            let both = [&engine, &peer].map(|e| e.series_digests(shard, TimeRange::ALL).unwrap());
            assert_eq!(both[0], both[1]);
        }
    }
}

#[test]
fn an_export_has_nothing_beside_what_was_asked_for() {
    let world = memory();
    let engine = world.open();
    content(&engine);
    let range = TimeRange::new(500, 900);
    let shard = Shard(2);
    let series = ids(&engine, shard, TimeRange::ALL);
    let wanted = [series[0], series[2], SeriesId(2 << 126 | 5)];
    let mut wanted = wanted.to_vec();
    wanted.sort();
    for flushed in [false, true] {
        if flushed {
            engine.flush_all().unwrap();
        }
        let mut batch = Batch::default();
        assert_eq!(engine.export(shard, range, &wanted, usize::MAX, &mut batch).unwrap(), None);
        let got: Vec<_> = batch.series.iter().map(|s| s.id).collect();
        assert_eq!(got, [series[0], series[2]]);
        for s in &batch.series {
            let (first, last) = range_of(&batch, s).unwrap();
            assert!(range.contains(first) && range.contains(last));
            assert_eq!(engine.key().id(batch.labels(s)), s.id);
        }
        // Where nobody has anything, nothing comes.
        let mut batch = Batch::default();
        engine.export(shard, TimeRange::new(1 << 40, 1 << 41), &series, usize::MAX, &mut batch).unwrap();
        assert!(batch.series.is_empty() && batch.bytes.is_empty());
    }
}

#[test]
fn a_shard_that_does_not_exist_is_an_error_and_no_panic() {
    let engine = memory().open();
    assert!(engine.digest(Shard(4), TimeRange::ALL).unwrap_err().to_string().contains("shard 4"));
    assert!(engine.series_digests(Shard(u16::MAX), TimeRange::ALL).is_err());
    assert!(engine.export(Shard(9), TimeRange::ALL, &[], 1, &mut Batch::default()).is_err());
}

#[test]
fn a_repair_of_old_windows_makes_few_blocks_and_takes_bounded_memory() {
    const SERIES: u32 = 100;
    const OLD: i64 = 10;
    const EACH: i64 = 100;
    let mut world = memory();
    world.options.head_bytes_max = 4 << 20;
    let healthy = world.open();
    for i in 0..SERIES {
        let rows: Vec<_> = (0..OLD * EACH).map(|n| (n * WINDOW / EACH, f64::from(i) + n as f64)).collect();
        write(&healthy, &labels("m", i), &rows);
    }
    healthy.flush_all().unwrap();
    let (mut peer_world, peer) = empty_peer(&healthy);
    drop(peer);
    peer_world.options.head_bytes_max = 4 << 20;
    let peer = peer_world.open();
    // The peer has every other row, in blocks, and goes on with new ones.
    for i in 0..SERIES {
        let rows: Vec<_> = (0..OLD * EACH)
            .filter(|n| n % 2 == 0)
            .map(|n| (n * WINDOW / EACH, f64::from(i) + n as f64))
            .collect();
        write(&peer, &labels("m", i), &rows);
    }
    peer.flush_all().unwrap();
    let before = peer.stats();
    let mut most = 0;
    for (step, window) in (0..OLD).map(|w| TimeRange::new(w * WINDOW, (w + 1) * WINDOW - 1)).enumerate() {
        let now = 100 * WINDOW + step as i64;
        peer_world.set_now(now);
        write(&peer, &labels("m", 0), &[(now, 1.0)]);
        repair(&healthy, &peer, window, 16 << 10);
        most = most.max(peer.stats().head_bytes);
        peer.maintain().unwrap();
    }
    peer.flush_all().unwrap();
    let after = peer.stats();
    for window in (0..OLD).map(|w| TimeRange::new(w * WINDOW, (w + 1) * WINDOW - 1)) {
        for shard in (0..4).map(Shard) {
            assert_eq!(peer.digest(shard, window).unwrap(), healthy.digest(shard, window).unwrap());
        }
    }
    assert!(after.floats >= 100_000, "{} rows arrived", after.floats);
    // One block a window and shard, and one more for what was new.
    let made = after.blocks - before.blocks;
    assert!(made <= 4 * (OLD as u64 + 2), "{made} blocks");
    assert!(most < 8 << 20, "{most} bytes of memory");
    assert!(after.head_bytes < 1 << 20, "{} bytes stay", after.head_bytes);
}
