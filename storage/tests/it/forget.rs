//! Shards that are given up: out of sight at once, off the disk later, and whatever comes after that stays.

use crate::world::*;
use disk::CrashVfs;
use disk::crash::Exploration;
use model::{Digest, Forgotten, Import, Replica, SealedBlocks, Shard, TimeRange};
use std::sync::Arc;
use storage::Engine;

const SHARDS: [Shard; 4] = [Shard(0), Shard(1), Shard(2), Shard(3)];

fn world(vfs: CrashVfs) -> World {
    let mut world = World::on(Arc::new(vfs));
    world.options.block_window_ms = 1_000_000;
    world.set_now(1_000);
    world
}

/// Rows in blocks, and rows in the log.
fn populate(engine: &Engine) {
    (0..32).for_each(|i| write(engine, &labels("m", i), &[(100, f64::from(i)), (200, f64::from(i))]));
    engine.flush_all().unwrap();
    (0..32).for_each(|i| write(engine, &labels("m", i), &[(300, f64::from(i))]));
    engine.commit().unwrap();
}

fn digests(engine: &Engine) -> [Digest; 4] {
    SHARDS.map(|shard| engine.digest(shard, TimeRange::ALL).unwrap())
}

fn files(world: &World, shard: Shard) -> usize {
    let dir = world.options.dir.join(format!("blocks/default/{}", shard.0));
    world.vfs.list(&dir).map_or(0, |entries| entries.len())
}

#[test]
fn a_forgotten_shard_is_out_of_sight_at_once_and_its_files_go_with_the_next_maintenance() {
    let world = world(CrashVfs::new());
    let engine = world.open();
    populate(&engine);
    let (before, stats) = (digests(&engine), engine.stats());
    let Forgotten { series, blocks } = engine.forget(Shard(1)).unwrap();
    assert!(series > 0 && blocks == 1, "{series} series, {blocks} blocks");
    let after = [before[0], Digest::default(), before[2], before[3]];
    assert_eq!(digests(&engine), after);
    assert_eq!((engine.stats().series, engine.stats().blocks), (stats.series - series, stats.blocks - 1));
    assert_eq!(
        engine.summary(Shard(1), TimeRange::ALL).iter().map(|known| known.1).sum::<Digest>(),
        after[1]
    );
    assert_eq!(files(&world, Shard(1)), 1);
    engine.maintain().unwrap();
    assert_eq!((files(&world, Shard(1)), files(&world, Shard(0))), (0, 1));
    assert_eq!(engine.forget(Shard(1)).unwrap(), Forgotten::default());
    // The log brings rows back, and they are forgotten again.
    drop(engine);
    let engine = world.open();
    assert_ne!(digests(&engine)[1], after[1]);
    assert_eq!(engine.forget(Shard(1)).unwrap().blocks, 0);
    assert_eq!(digests(&engine), after);
}

#[test]
fn what_comes_after_it_stays_in_memory_in_blocks_and_over_restarts() {
    let world = world(CrashVfs::new());
    let engine = world.open();
    populate(&engine);
    let forgotten = SHARDS.map(|shard| engine.forget(shard).unwrap());
    assert!(forgotten.iter().all(|forgotten| forgotten.series > 0));
    (0..32).for_each(|i| write(&engine, &labels("m", i), &[(200, f64::from(i)), (400, 1.0)]));
    let expected = digests(&engine);
    assert!(!expected.contains(&Digest::default()));
    let rows: Vec<_> = (0..32).map(|i| floats(&engine, &labels("m", i))).collect();
    assert!((0..32).all(|i| rows[i] == [(200, i as f64), (400, 1.0)]), "{rows:?}");
    engine.maintain().unwrap();
    assert_eq!(digests(&engine), expected);
    engine.flush_all().unwrap();
    engine.maintain().unwrap();
    assert_eq!(digests(&engine), expected);
    drop(engine);
    // All of the log that had the others is gone.
    assert_eq!(digests(&world.open()), expected);
}

#[test]
fn a_block_that_comes_back_before_its_file_is_removed_stays() {
    let world = world(CrashVfs::new());
    let engine = world.open();
    populate(&engine);
    engine.flush_all().unwrap();
    let shard = Shard(2);
    let blocks = engine.list(shard).unwrap();
    let before = digests(&engine);
    // As another node would give it.
    let files: Vec<(Vec<u8>, Vec<u8>)> = blocks
        .iter()
        .map(|block| {
            let part = |from: u64, to: u64| {
                let mut bytes = vec![0; (to - from) as usize];
                assert!(SealedBlocks::read(&*engine, shard, block.id, from, &mut bytes).unwrap());
                bytes
            };
            (part(0, block.tail_at()), part(block.tail_at(), block.bytes))
        })
        .collect();
    engine.forget(shard).unwrap();
    for (block, (body, tail)) in blocks.iter().zip(&files) {
        let begun = engine.begin_import(shard, block, tail).unwrap();
        assert!(matches!(begun, Import::Missing(missing) if missing.len() == 1), "it is not here any more");
        engine.import(shard, block.id, 0, body).unwrap();
        engine.finish_import(shard, block.id).unwrap();
    }
    engine.maintain().unwrap();
    assert_eq!(digests(&engine), before);
    assert!(engine.verify().is_empty());
    drop(engine);
    assert_eq!(digests(&world.open()), before);
}

#[test]
fn a_crash_in_the_middle_leaves_all_other_shards_as_they_were() {
    let vfs = CrashVfs::new();
    let before = {
        let engine = world(vfs.clone()).open();
        populate(&engine);
        engine.flush_all().unwrap();
        let settled = vfs.operations();
        let before = digests(&engine);
        engine.forget(Shard(3)).unwrap();
        engine.maintain().unwrap();
        (settled, before)
    };
    let (settled, before) = before;
    let mut states = 0;
    for crash in vfs.journal().states(&Exploration::default()).filter(|crash| crash.after >= settled) {
        let engine = world(crash.vfs).open();
        let found = digests(&engine);
        assert_eq!(found[..3], before[..3]);
        assert!(engine.stats().suspect.is_empty() && engine.verify().is_empty());
        engine.forget(Shard(3)).unwrap();
        engine.maintain().unwrap();
        assert_eq!(digests(&engine)[3], Digest::default());
        states += 1;
    }
    assert!(states > 4, "{states} states");
}
