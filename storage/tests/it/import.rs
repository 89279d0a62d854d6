//! Blocks as files, from one engine to another: what comes in is whole or not there, whatever happens on the way.

use crate::world::*;
use disk::crash::Exploration;
use disk::fault::{Fault, Operation, Rule};
use disk::{CrashVfs, FaultVfs, Vfs};
use model::{
    BLOCK_PAGE, Error, Import, Replica, SealedBlock, SealedBlocks, SeriesId, Shard, Sink, TimeRange,
};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use storage::Engine;

/// Long, so that a block has several pages.
const LONG: i64 = 1 << 20;

fn memory(vfs: impl Vfs) -> World {
    let mut world = World::on(Arc::new(vfs));
    world.options.block_window_ms = LONG;
    world.options.future_max_ms = 100 * LONG;
    world.set_now(3 * LONG);
    world
}

/// Values that do not compress.
fn noise(series: u32, n: i64) -> f64 {
    let mixed = (n as u64 ^ u64::from(series) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from_bits((mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 2)
}

/// An engine with two blocks in some shards, of several pages each.
fn source(rows: i64) -> (World, Arc<Engine>) {
    let world = memory(CrashVfs::new());
    let engine = world.open();
    for series in 0..16 {
        let samples: Vec<_> = (0..2 * rows).map(|n| (n * LONG / rows, noise(series, n))).collect();
        write(&engine, &labels("m", series), &samples);
    }
    engine.flush_all().unwrap();
    (world, engine)
}

fn peer_on(vfs: impl Vfs, of: &Engine) -> World {
    let mut world = memory(vfs);
    world.options.identity = Some(storage::Identity { node: 77, disk: 78, ..of.identity() });
    world
}

/// The shard with the most to copy, and its blocks.
fn blocks(engine: &Engine) -> (Shard, Vec<SealedBlock>) {
    let all = (0..4).map(Shard).map(|shard| (shard, engine.list(shard).unwrap()));
    all.max_by_key(|(_, blocks)| blocks.iter().map(|block| block.bytes).sum::<u64>()).unwrap()
}

fn read(from: &Engine, shard: Shard, id: u128, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    assert!(SealedBlocks::read(from, shard, id, range.start, &mut bytes).unwrap());
    bytes
}

fn tail(from: &Engine, shard: Shard, block: &SealedBlock) -> Vec<u8> {
    read(from, shard, block.id, block.tail_at()..block.bytes)
}

/// Copies what is missing of a block.
fn copy(from: &Engine, to: &Engine, shard: Shard, block: &SealedBlock) -> Result<u64, Error> {
    let Import::Missing(missing) = to.begin_import(shard, block, &tail(from, shard, block))? else {
        return Ok(0);
    };
    let mut copied = 0;
    for range in missing.into_iter().rev() {
        let mut at = range.start;
        while at < range.end {
            let end = (at + 2 * BLOCK_PAGE).min(range.end);
            to.import(shard, block.id, at, &read(from, shard, block.id, at..end))?;
            copied += end - at;
            at = end;
        }
    }
    to.finish_import(shard, block.id)?;
    Ok(copied)
}

fn scanned(engine: &Engine, shard: Shard, range: TimeRange) -> model::Digest {
    engine.series_digests(shard, range).unwrap().into_iter().map(|series: (SeriesId, _)| series.1).sum()
}

fn is_corrupt<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Corrupt { .. }))
}

#[test]
fn a_copied_block_is_the_same_block_and_is_copied_once() {
    let (_world, from) = source(6_000);
    let to_world = peer_on(CrashVfs::new(), &from);
    let to = to_world.open();
    for shard in (0..4).map(Shard) {
        for block in from.list(shard).unwrap() {
            assert!(block.tail_at() > BLOCK_PAGE, "{} bytes are too few for this test", block.bytes);
            assert_eq!(copy(&from, &to, shard, &block).unwrap(), block.tail_at());
            assert_eq!(copy(&from, &to, shard, &block).unwrap(), 0);
            to.finish_import(shard, block.id).unwrap();
        }
        assert_eq!(from.list(shard).unwrap(), to.list(shard).unwrap());
        assert_eq!(from.digest(shard, TimeRange::ALL).unwrap(), to.digest(shard, TimeRange::ALL).unwrap());
    }
    assert_eq!(read_all(&from), read_all(&to));
    assert!(to.verify().is_empty());
    drop(to);
    let to = to_world.open();
    assert_eq!(read_all(&from), read_all(&to));
}

/// Everything that is known without a look, against a look.
fn check_digests(engine: &Engine, shard: Shard) {
    for (piece, digest) in engine.summary(shard, TimeRange::ALL) {
        assert_eq!(digest, scanned(engine, shard, piece), "{piece:?}");
    }
    for window in (0..4).map(|n| TimeRange::new(n * LONG, (n + 1) * LONG - 1)).chain([TimeRange::ALL]) {
        let looked = scanned(engine, shard, window);
        let known = engine.known_digests(shard, &[window]);
        assert!(known[0].is_none_or(|known| known == looked), "{window:?}");
        assert_eq!(engine.digest(shard, window).unwrap(), looked, "{window:?}");
    }
    for minute in (0..70).map(|n| TimeRange::new(n * 60_000, n * 60_000 + 59_999)) {
        let known = engine.known_digests(shard, &[minute]);
        assert!(known[0].is_none_or(|known| known == scanned(engine, shard, minute)), "{minute:?}");
    }
}

#[test]
fn what_is_remembered_of_digests_forgets_what_an_import_changes() {
    let (_world, from) = source(200);
    let (shard, blocks) = blocks(&from);
    let own =
        (0..16).map(|i| labels("m", i)).find(|l| from.key().id(l.as_bytes()).shard(4) == shard).unwrap();
    // With a clock behind the blocks, too.
    for now in [3 * LONG, 1_000] {
        let to_world = peer_on(CrashVfs::new(), &from);
        let to = to_world.open();
        to_world.set_now(now);
        // Rows that are in the blocks too, and others.
        write(&to, &own, &[(0, 1.0), (500, 2.0)]);
        check_digests(&to, shard);
        for block in &blocks {
            copy(&from, &to, shard, block).unwrap();
            check_digests(&to, shard);
        }
        for late in (LONG / 2..3 * LONG).step_by(LONG as usize / 8) {
            to_world.set_now(now.max(late));
            // On the straight path of the series, and maybe in a block.
            write(&to, &own, &[(late / (LONG / 200) * (LONG / 200), -1.0), (late + 1, 1.0)]);
            check_digests(&to, shard);
        }
    }
}

/// Imports that are not finished.
fn parts(vfs: &CrashVfs, shard: Shard) -> usize {
    let entries = vfs.list(format!("/data/blocks/default/{}", shard.0).as_ref()).unwrap();
    entries.iter().filter(|entry| !entry.name.ends_with(".block")).count()
}

#[test]
fn an_import_goes_on_after_a_restart_and_reads_again_what_is_there() {
    let (_world, from) = source(6_000);
    let vfs = CrashVfs::new();
    let to_world = peer_on(vfs.clone(), &from);
    let to = to_world.open();
    let (shard, blocks) = blocks(&from);
    let block = &blocks[0];
    let tail = tail(&from, shard, block);
    to.begin_import(shard, block, &tail).unwrap();
    for at in [0, 2 * BLOCK_PAGE] {
        to.import(shard, block.id, at, &read(&from, shard, block.id, at..at + BLOCK_PAGE)).unwrap();
    }
    assert!(is_corrupt(to.finish_import(shard, block.id)), "pages are missing");
    to.begin_import(shard, block, &tail).unwrap();
    for at in [0, 2 * BLOCK_PAGE] {
        to.import(shard, block.id, at, &read(&from, shard, block.id, at..at + BLOCK_PAGE)).unwrap();
    }
    drop(to);
    let to = to_world.open();
    assert!(to.list(shard).unwrap().is_empty());
    let Import::Missing(missing) = to.begin_import(shard, block, &tail).unwrap() else {
        panic!("it is not there")
    };
    assert_eq!(missing, [BLOCK_PAGE..2 * BLOCK_PAGE, 3 * BLOCK_PAGE..block.tail_at()]);
    assert_eq!(copy(&from, &to, shard, block).unwrap(), block.tail_at() - 2 * BLOCK_PAGE);
    // One that is given up leaves nothing.
    let other = &blocks[1];
    let again = read(&from, shard, other.id, other.tail_at()..other.bytes);
    to.begin_import(shard, other, &again).unwrap();
    drop(to);
    let to = to_world.open();
    to.abandon_imports(shard, Some(5)).unwrap();
    assert!(parts(&vfs, shard) == 1, "another one was given up");
    to.abandon_imports(shard, Some(other.id)).unwrap();
    assert!(parts(&vfs, shard) == 0);
    to.begin_import(shard, other, &again).unwrap();
    to.abandon_imports(shard, None).unwrap();
    assert!(parts(&vfs, shard) == 0);
    assert!(to.import(shard, other.id, 0, &[0; 8]).is_err());
}

/// Made once: properties look at it many times.
fn shared() -> &'static (World, Arc<Engine>) {
    static SOURCE: OnceLock<(World, Arc<Engine>)> = OnceLock::new();
    SOURCE.get_or_init(|| source(6_000))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_flipped_bit_of_a_block_is_refused_and_nothing_changes(at in any::<prop::sample::Index>(), in_tail: bool, bit in 0u8..8) {
        let (_, from) = shared();
        let to_world = peer_on(CrashVfs::new(), from);
        let to = to_world.open();
        let (shard, blocks) = blocks(from);
        let block = &blocks[0];
        let mut tail = tail(from, shard, block);
        let mut body = read(from, shard, block.id, 0..block.tail_at());
        if in_tail {
            let at = at.index(tail.len());
            tail[at] ^= 1 << bit;
            prop_assert!(is_corrupt(to.begin_import(shard, block, &tail)));
            prop_assert!(to.import(shard, block.id, 0, &body).is_err());
        } else {
            let at = at.index(body.len());
            body[at] ^= 1 << bit;
            prop_assert!(matches!(to.begin_import(shard, block, &tail), Ok(Import::Missing(_))));
            prop_assert!(is_corrupt(to.import(shard, block.id, 0, &body)));
            let missing = Import::Missing(std::iter::once(0..block.tail_at()).collect());
            prop_assert_eq!(to.begin_import(shard, block, &tail).unwrap(), missing);
            prop_assert!(to.finish_import(shard, block.id).is_err());
        }
        prop_assert!(to.list(shard).unwrap().is_empty() && read_all(&to).is_empty());
        // The right bytes are taken all the same.
        copy(from, &to, shard, block).unwrap();
        prop_assert_eq!(to.list(shard).unwrap(), [*block]);
    }

    #[test]
    fn whatever_a_tail_or_a_piece_says_it_is_refused(
        junk in prop::collection::vec(any::<u8>(), 0..300), bytes: u64, at: u64, tail_bytes: u64
    ) {
        let (_, from) = shared();
        let to_world = peer_on(CrashVfs::new(), from);
        let to = to_world.open();
        let (shard, blocks) = blocks(from);
        let block = SealedBlock { bytes: bytes % (1 << 50), tail_bytes, ..blocks[0] };
        prop_assert!(to.begin_import(shard, &block, &junk).is_err());
        to.begin_import(shard, &blocks[0], &tail(from, shard, &blocks[0])).unwrap();
        for at in [at, at % blocks[0].bytes, 0] {
            prop_assert!(to.import(shard, blocks[0].id, at, &junk).is_err());
        }
    }
}

#[test]
fn a_block_of_another_shard_or_another_cluster_is_refused() {
    let (_, from) = shared();
    let (shard, blocks) = blocks(from);
    let to_world = peer_on(CrashVfs::new(), from);
    let to = to_world.open();
    let other = Shard(shard.0 ^ 1);
    assert!(is_corrupt(to.begin_import(other, &blocks[0], &tail(from, shard, &blocks[0]))));
    assert!(to.begin_import(Shard(4), &blocks[0], &[]).is_err());
    // Under another key the series belong to other shards: what passes all checksums is refused by its content.
    let mut stranger = memory(CrashVfs::new());
    stranger.options.random = Arc::new(|| 99);
    let to = stranger.open();
    let refused =
        (0..4).map(Shard).flat_map(|shard| from.list(shard).unwrap().into_iter().map(move |b| (shard, b)));
    let refused = refused.filter(|(shard, block)| is_corrupt(copy(from, &to, *shard, block))).count();
    assert!(refused > 0, "every series is in its old shard by chance");
}

#[test]
fn blocks_that_rot_or_go_are_not_given_away() {
    let vfs = CrashVfs::new();
    let mut world = memory(vfs.clone());
    world.options.retention_ms = Some(2 * LONG);
    let engine = world.open();
    for series in 0..8 {
        let samples: Vec<_> = (1024..3072).map(|n| (n * 1024, noise(series, n))).collect();
        write(&engine, &labels("m", series), &samples);
    }
    engine.flush_all().unwrap();
    let (shard, blocks) = blocks(&engine);
    let [old, rotten] = &blocks[..] else { panic!("{blocks:?}") };
    let file = engine.blocks().into_iter().find(|meta| meta.id == rotten.id).unwrap().path;
    let file = vfs.open(&file, disk::OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 100).unwrap();
    let mut page = vec![0; 4096.min(rotten.tail_at() as usize)];
    let whole = &mut vec![0; rotten.tail_at() as usize][..];
    assert!(is_corrupt(SealedBlocks::read(&*engine, shard, rotten.id, 0, whole)));
    assert_eq!(engine.list(shard).unwrap(), [*old]);
    assert!(Replica::damage(&*engine).iter().any(|damage| damage.shard == shard));
    // Retention removes the other one while it is read.
    assert!(SealedBlocks::read(&*engine, shard, old.id, 0, &mut page).unwrap());
    world.set_now(4 * LONG + 1);
    assert!(engine.list(shard).unwrap().is_empty());
    engine.maintain().unwrap();
    assert!(!SealedBlocks::read(&*engine, shard, old.id, 0, &mut page).unwrap());
    assert!(!SealedBlocks::read(&*engine, shard, 5, 0, &mut page).unwrap());
}

#[test]
fn after_a_failed_write_or_fsync_the_copy_begins_anew() {
    let (_, from) = shared();
    let (shard, blocks) = blocks(from);
    for operation in [Operation::Write, Operation::Sync] {
        let vfs = FaultVfs::new(CrashVfs::new());
        let to_world = peer_on(vfs.clone(), from);
        let to = to_world.open();
        to.begin_import(shard, &blocks[0], &tail(from, shard, &blocks[0])).unwrap();
        vfs.add(Rule::new(operation, Fault::Eio).path(".part"));
        assert!(matches!(copy(from, &to, shard, &blocks[0]), Err(Error::Io { .. })), "{operation:?}");
        vfs.clear();
        assert!(to.list(shard).unwrap().is_empty());
        assert_eq!(copy(from, &to, shard, &blocks[0]).unwrap(), blocks[0].tail_at(), "{operation:?}");
        assert_eq!(to.list(shard).unwrap(), [blocks[0]]);
    }
}

#[test]
fn no_room_is_said_before_anything_is_fetched() {
    let (_, from) = shared();
    let (shard, blocks) = blocks(from);
    let mut to_world = peer_on(CrashVfs::new(), from);
    to_world.options.disk_reserve_bytes = u64::MAX / 2;
    let to = to_world.open();
    let refused = to.begin_import(shard, &blocks[0], &tail(from, shard, &blocks[0])).unwrap_err();
    assert!(refused.to_string().contains("storage.disk_reserve_bytes"), "{refused}");
}

#[test]
fn no_crash_makes_half_a_block_visible_and_every_copy_can_go_on() {
    let (_source_world, from) = source(3_000);
    let vfs = CrashVfs::new();
    let to_world = peer_on(vfs.clone(), &from);
    let to = to_world.open();
    let (shard, blocks) = blocks(&from);
    let mut promised = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        copy(&from, &to, shard, block).unwrap();
        promised.push((vfs.operations(), block.id));
        // Some rows of its own between them.
        write(&to, &labels("own", number as u32), &[(1, 1.0)]);
    }
    to.flush_all().unwrap();
    drop(to);
    let (mut states, mut resumed) = (0, 0);
    for crash in vfs.journal().states(&Exploration { subsets_max: 16, samples: 24, seed: 7 }) {
        states += 1;
        let world = peer_on(crash.vfs.clone(), &from);
        let to = world.try_open().unwrap_or_else(|e| panic!("{e}\n{crash}"));
        let damage = Replica::damage(&*to);
        assert!(to.verify().is_empty() && damage.is_empty(), "{:?} {damage:?}\n{crash}", to.verify());
        let there: Vec<u128> = to.list(shard).unwrap().iter().map(|block| block.id).collect();
        for (after, id) in &promised {
            assert!(crash.after < *after || there.contains(id), "{id:032x} is missing\n{crash}");
        }
        for block in &blocks {
            let copied = copy(&from, &to, shard, block).unwrap_or_else(|e| panic!("{e}\n{crash}"));
            resumed += u64::from(copied > 0 && copied < block.tail_at());
            let found = to.list(shard).unwrap();
            assert!(found.contains(block), "{found:?}\n{crash}");
        }
        assert_eq!(to.digest(shard, TimeRange::ALL).unwrap(), scanned(&to, shard, TimeRange::ALL));
        assert!(to.verify().is_empty(), "{crash}");
    }
    assert!(states > 300 && resumed >= 10, "{states} states, {resumed} imports went on in the middle");
}
