//! Bytes that rot: found, never returned, set aside, remembered, and forgotten when other replicas have brought what was lost.

use crate::world::*;
use disk::crash::Exploration;
use disk::{CrashVfs, OpenMode, Vfs};
use model::{Error, Labels, Replica, Samples, Selection, Shard, Source, TimeRange, Timestamp};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use storage::block::Section;
use storage::{Engine, pace};

fn small(vfs: Arc<dyn Vfs>) -> World {
    let mut world = World::on(vfs);
    world.options.shards = 1;
    world.set_now(WINDOW);
    world
}

/// Two windows of floats with noise, starts and histograms, so that every section of a block has something.
fn fill(engine: &Engine) {
    for series in 0..40u32 {
        let noise = |t: i64| {
            f64::from_bits(
                0x3ff0_0000_0000_0000
                    | (t as u64 + u64::from(series)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12,
            )
        };
        let rows: Vec<(i64, f64)> = (0..300).map(|t| (t * 3 + i64::from(series % 3), noise(t))).collect();
        let later: Vec<(i64, i64, f64)> = (0..20).map(|t| (WINDOW + t, t, t as f64)).collect();
        let histograms = [(5, 1, histogram(3)), (7, 1, histogram(u64::from(series)))];
        Rows::default()
            .floats(engine, &labels("m", series), &rows)
            .with_starts(engine, &labels("m", series), &later)
            .histograms(engine, &labels("h", series), &histograms)
            .append(engine);
    }
    engine.commit().unwrap();
    engine.flush_all().unwrap();
}

fn flip(vfs: &dyn Vfs, path: &Path, at: u64, bit: u8) {
    let file = vfs.open(path, OpenMode::Write).unwrap();
    let mut byte = [0];
    assert!(file.read_exact_at(&mut byte, at).unwrap());
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
    file.sync_data().unwrap();
}

/// Reads everything; the errors, and whatever was given must be as it was.
fn errors(engine: &Engine, before: &BTreeMap<Labels, Plain>) -> usize {
    let selection =
        Selection { matchers: vec![], range: TimeRange::ALL, series_max: usize::MAX, shards: None };
    let set = match engine.select(&selection) {
        Ok(set) => set,
        Err(Error::Corrupt { .. }) => return 1,
        Err(e) => panic!("{e}"),
    };
    let (mut errors, mut samples) = (0, Samples::default());
    for i in 0..set.len() {
        match set.read(i, TimeRange::ALL, &mut samples) {
            Ok(()) => {
                let (found, whole) = (plain(&samples), &before[&set.labels(i)]);
                assert!(found.floats.iter().all(|row| whole.floats.contains(row)), "wrong floats");
                assert!(
                    found.histograms.iter().all(|row| whole.histograms.contains(row)),
                    "wrong histograms"
                );
            }
            Err(Error::Corrupt { .. }) => errors += 1,
            Err(e) => panic!("{e}"),
        }
    }
    errors
}

/// What a peer would send: everything, once more.
fn bring_back(engine: &Engine, peer: &Engine) {
    for shard in 0..engine.shards() {
        let (shard, mut from) = (Shard(shard as u16), 0);
        let series: Vec<_> =
            peer.series_digests(shard, TimeRange::ALL).unwrap().into_iter().map(|s| s.0).collect();
        while from < series.len() {
            let mut batch = model::Batch::default();
            let next = peer.export(shard, TimeRange::ALL, &series[from..], 1 << 20, &mut batch).unwrap();
            engine.append_replicated(&Arc::new(batch), None).unwrap();
            from = next.map_or(series.len(), |next| series.partition_point(|id| *id < next));
        }
    }
    engine.commit().unwrap();
}

#[test]
fn a_flipped_bit_in_any_section_is_set_aside_and_heals() {
    let world = small(Arc::new(CrashVfs::new()));
    let peer = world.open();
    fill(&peer);
    let whole = read_all(&peer);
    let digest = peer.digest(Shard(0), TimeRange::ALL).unwrap();

    let probe = storage::block::Reader::open(&*world.vfs, &peer.blocks()[0].path).unwrap();
    let stats = probe.stats();
    let mut places = vec![(None, 3), (None, stats.meta.bytes - 5)];
    let mut at = 16;
    for (section, bytes) in &stats.sections {
        places.push((Some(*section), at + bytes / 2));
        at += bytes;
    }
    assert_eq!(places.len(), 11);
    assert!(stats.sections.iter().all(|section| section.1 > 0), "{stats:?}");
    places.push((None, at + 2));

    let mut salvaged = 0;
    for (section, place) in places {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let world = small(vfs.clone());
        let engine = world.open();
        fill(&engine);
        let meta = engine.blocks().into_iter().find(|meta| meta.range.min.0 == 0).unwrap();
        drop(engine);
        flip(&*vfs, &meta.path, place, 5);

        let engine = world.open();
        let opened = engine.blocks().len() == 2;
        errors(&engine, &whole);
        // Whatever reads did not need, scrub does.
        let scrubbed = engine.scrub_step(u64::MAX).unwrap();
        assert!(scrubbed.complete && (scrubbed.damaged == 1) == opened, "{section:?}: {scrubbed:?}");
        engine.maintain().unwrap();
        assert_eq!(errors(&engine, &whole), 0, "{section:?}");
        let damages = engine.damage();
        assert_eq!(damages.len(), 1, "{section:?}");
        assert_eq!((damages[0].shard, damages[0].range), (Shard(0), meta.range));
        assert_eq!(engine.stats().suspect.len(), 1);
        assert!(!vfs.exists(&meta.path).unwrap());
        assert_eq!(vfs.list(Path::new("/data/quarantine")).unwrap().len(), 1);
        // The other window is served whole.
        let later = TimeRange::new(WINDOW, 2 * WINDOW);
        assert_eq!(read(&engine, &[], later), read(&peer, &[], later));
        let left = read(&engine, &[], meta.range)
            .values()
            .map(|p| p.floats.len() + p.histograms.len())
            .sum::<usize>();
        salvaged += left;
        if section == Some(Section::Values) {
            assert!(left > 0, "what else is in the block can be read");
        }

        // A restart remembers, with the same number.
        drop(engine);
        let engine = world.open();
        assert_eq!(engine.damage(), damages);
        assert_eq!(errors(&engine, &whole), 0);

        bring_back(&engine, &peer);
        assert_eq!(engine.digest(Shard(0), TimeRange::ALL).unwrap(), digest, "{section:?}");
        assert_eq!(read_all(&engine), whole);
        engine.mended(damages[0].number).unwrap();
        assert_eq!(engine.damage(), []);
        assert_eq!(vfs.list(Path::new("/data/quarantine")).unwrap().len(), 0);
        drop(engine);
        let engine = world.open();
        assert_eq!(engine.damage(), []);
        assert_eq!(engine.digest(Shard(0), TimeRange::ALL).unwrap(), digest);
        engine.flush_all().unwrap();
        assert_eq!(engine.verify().len(), 0);
        assert_eq!(read_all(&engine), whole);
    }
    assert!(salvaged > 0);
}

#[test]
fn who_compared_a_block_before_it_was_set_aside_cannot_mend_it() {
    let world = small(Arc::new(CrashVfs::new()));
    let engine = world.open();
    fill(&engine);
    let (whole, before) = (read_all(&engine), engine.digest(Shard(0), TimeRange::ALL).unwrap());
    let meta = engine.blocks().into_iter().find(|meta| meta.range.min.0 == 0).unwrap();
    let stats = storage::block::Reader::open(&*world.vfs, &meta.path).unwrap().stats();
    let values = stats.sections.iter().position(|section| section.0 == Section::Values).unwrap();
    let at = 16 + stats.sections[..values].iter().map(|section| section.1).sum::<u64>();
    drop(engine);
    flip(&*world.vfs, &meta.path, at + stats.sections[values].1 / 2, 5);

    let engine = world.open();
    assert!(errors(&engine, &whole) > 0);
    let compared = engine.damage();
    assert_eq!(compared.len(), 1);
    // The footer says what the block had: nothing seems to be missing.
    assert_eq!(engine.digest(Shard(0), TimeRange::ALL).unwrap(), before);
    engine.maintain().unwrap();
    engine.mended(compared[0].number).unwrap();
    let left = engine.damage();
    assert_eq!(left.iter().map(|damage| damage.range).collect::<Vec<_>>(), [meta.range]);
    assert_eq!(world.vfs.list(Path::new("/data/quarantine")).unwrap().len(), 1);
    engine.mended(left[0].number).unwrap();
    assert_eq!(engine.damage(), []);
    assert_eq!(world.vfs.list(Path::new("/data/quarantine")).unwrap().len(), 0);
}

#[test]
fn a_digest_that_was_remembered_does_not_hide_what_was_set_aside() {
    let world = small(Arc::new(CrashVfs::new()));
    let engine = world.open();
    fill(&engine);
    let window = TimeRange::new(0, WINDOW - 1);
    let before = engine.digest(Shard(0), window).unwrap();
    let meta = engine.blocks().into_iter().find(|meta| meta.range.min.0 == 0).unwrap();
    flip(&*world.vfs, &meta.path, 100, 0);
    engine.scrub_step(u64::MAX).unwrap();
    engine.maintain().unwrap();
    let after = engine.digest(Shard(0), window).unwrap();
    assert_ne!(before, after);
    let sum: model::Digest = engine.series_digests(Shard(0), window).unwrap().into_iter().map(|s| s.1).sum();
    assert_eq!(after, sum);
}

#[test]
fn a_file_that_is_put_back_whole_is_no_damage_any_more() {
    let world = small(Arc::new(CrashVfs::new()));
    let engine = world.open();
    fill(&engine);
    let whole = read_all(&engine);
    let meta = engine.blocks().remove(0);
    flip(&*world.vfs, &meta.path, 100, 0);
    engine.scrub_step(u64::MAX).unwrap();
    engine.maintain().unwrap();
    assert_eq!(engine.damage().len(), 1);
    drop(engine);
    let quarantined = world.vfs.list(Path::new("/data/quarantine")).unwrap().remove(0).name;
    world.vfs.rename(&Path::new("/data/quarantine").join(quarantined), &meta.path).unwrap();
    flip(&*world.vfs, &meta.path, 100, 0);
    let engine = world.open();
    assert_eq!(engine.damage(), []);
    assert_eq!(read_all(&engine), whole);
}

#[test]
fn a_hole_in_the_log_is_remembered_until_it_is_mended_and_not_found_twice() {
    let mut world = small(Arc::new(CrashVfs::new()));
    world.options.shards = 2;
    let engine = world.open();
    for t in 1..200 {
        write(&engine, &labels("m", 0), &[(t, t as f64)]);
    }
    drop(engine);
    let first = world.vfs.list(Path::new("/data/wal")).unwrap().remove(0).name;
    flip(&*world.vfs, &Path::new("/data/wal").join(first), 1500, 4);
    let engine = world.open();
    let damages = engine.damage();
    // Nobody knows of which shard.
    assert_eq!(
        damages.iter().map(|d| (d.shard.0, d.range)).collect::<Vec<_>>(),
        [(0, TimeRange::ALL), (1, TimeRange::ALL)]
    );
    // The log with the hole goes, the damage stays.
    engine.flush_all().unwrap();
    drop(engine);
    let engine = world.open();
    assert_eq!(engine.damage(), damages);
    engine.mended(damages[0].number).unwrap();
    drop(engine);
    let engine = world.open();
    assert_eq!(engine.damage(), damages[1..]);
    engine.mended(damages[1].number).unwrap();
    assert_eq!(engine.stats().suspect, [""; 0]);
    drop(engine);
    assert_eq!(world.open().damage(), []);
}

#[test]
fn a_hole_that_the_log_still_has_is_not_damage_again_once_mended() {
    let world = small(Arc::new(CrashVfs::new()));
    let engine = world.open();
    for t in 1..200 {
        write(&engine, &labels("m", 0), &[(t, t as f64)]);
    }
    drop(engine);
    let first = world.vfs.list(Path::new("/data/wal")).unwrap().remove(0).name;
    flip(&*world.vfs, &Path::new("/data/wal").join(first), 1500, 4);
    let engine = world.open();
    for damage in engine.damage() {
        engine.mended(damage.number).unwrap();
    }
    drop(engine);
    assert_eq!(world.open().damage(), []);
}

#[test]
fn scrub_goes_through_every_byte_in_steps_and_goes_on_after_a_restart() {
    let world = small(Arc::new(CrashVfs::new()));
    let engine = world.open();
    fill(&engine);
    let total: u64 = engine.blocks().iter().map(|meta| meta.bytes).sum();
    let mut progress = engine.scrub_progress();
    assert_eq!((progress.total_bytes, progress.rounds), (total, 0));
    assert!(pace(Timestamp(WINDOW), 1_000, &progress) > 0, "the first round is due at once");
    let mut steps = 0;
    while progress.rounds == 0 {
        progress = engine.scrub_step(4 << 10).unwrap();
        steps += 1;
        assert!(steps < 10_000);
    }
    assert!(steps > 2 && progress.done_bytes == total && progress.complete, "{steps} {progress:?}");
    assert_eq!(pace(Timestamp(WINDOW + 10), 1_000, &progress), 0);
    drop(engine);
    let engine = world.open();
    assert_eq!(engine.scrub_progress(), progress);
    // The next round finds what has rotted since, though the memory map was checked before.
    flip(&*world.vfs, &engine.blocks()[1].path, 50, 1);
    assert_eq!(engine.scrub_step(u64::MAX).unwrap().damaged, 1);
    assert_eq!(engine.damage().len(), 1);
}

#[test]
fn no_crash_while_a_block_is_set_aside_or_mended_forgets_damage_or_loses_what_was_whole() {
    let vfs = CrashVfs::new();
    let world = small(Arc::new(vfs.clone()));
    let engine = world.open();
    fill(&engine);
    let whole = read_all(&engine);
    let meta = engine.blocks().into_iter().find(|meta| meta.range.min.0 == 0).unwrap();
    flip(&vfs, &meta.path, 20, 3);
    let rotten = vfs.operations();
    engine.scrub_step(u64::MAX).unwrap();
    engine.maintain().unwrap();
    let salvaged = read_all(&engine);
    assert!(salvaged.values().any(|p| !p.histograms.is_empty()), "histograms lie elsewhere in the block");
    let quarantined = vfs.operations();
    let peer = small(Arc::new(CrashVfs::new())).open();
    fill(&peer);
    bring_back(&engine, &peer);
    let brought = vfs.operations();
    let number = engine.damage()[0].number;
    engine.mended(number).unwrap();
    let (mended, mut states) = (vfs.operations(), 0);
    drop(engine);
    for crash in vfs.journal().states(&Exploration { subsets_max: 64, samples: 16, seed: 1 }) {
        if crash.after < rotten {
            continue;
        }
        states += 1;
        let world = small(Arc::new(crash.vfs.clone()));
        let engine = world.try_open().unwrap_or_else(|e| panic!("{e}\n{crash}"));
        engine.scrub_step(u64::MAX).unwrap();
        engine.maintain().unwrap();
        assert_eq!(errors(&engine, &whole), 0, "{crash}");
        let found = read_all(&engine);
        let damages = engine.damage();
        // Damage may be forgotten once mending was asked for, not earlier.
        assert!(damages.len() == 1 || (damages.is_empty() && crash.after > brought), "{crash}");
        assert!(crash.after < mended || damages.is_empty(), "mended is durable\n{crash}");
        for (labels, plain) in &salvaged {
            let kept = found.get(labels).is_some_and(|f| {
                plain.floats.iter().all(|row| f.floats.contains(row))
                    && plain.histograms.iter().all(|row| f.histograms.contains(row))
            });
            assert!(kept, "{labels} lost what was readable\n{crash}");
        }
        if crash.after >= brought {
            assert_eq!(found, whole, "{crash}");
        }
        if damages.is_empty() {
            let left = crash.vfs.list(Path::new("/data/quarantine")).unwrap_or_default();
            assert!(left.is_empty() || crash.after < mended, "{left:?}\n{crash}");
        }
        let strange = crash
            .vfs
            .list(Path::new("/data"))
            .unwrap()
            .into_iter()
            .filter(|e| e.name.ends_with(".tmp"))
            .count();
        assert!(strange <= 1);
    }
    println!("{states} states; set aside by {quarantined}, brought by {brought}, mended by {mended}");
    assert!(states > 50, "only {states} states");
}
