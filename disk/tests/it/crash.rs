//! The crash simulation itself: it must show every disk that a real crash can leave, and none that it cannot.

use disk::crash::{Dropped, Exploration, Survivors};
use disk::{CrashVfs, OpenMode, Vfs};
use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = "/";
const A: &str = "/a";
const B: &str = "/b";

/// What there is of a file: `None` when it has no name.
fn read(vfs: &dyn Vfs, path: &str) -> Option<Vec<u8>> {
    let path = Path::new(path);
    vfs.exists(path).unwrap().then(|| vfs.map(path).unwrap().to_vec())
}

/// Every content that a file can have after a crash at the journal's end.
fn outcomes(vfs: &CrashVfs, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let journal = vfs.journal();
    let end = journal.len();
    let exploration = Exploration { subsets_max: 256, samples: 200, seed: 1 };
    journal
        .states(&exploration)
        .filter(|crash| crash.after == end)
        .map(|crash| read(&crash.vfs, path))
        .collect()
}

fn create(vfs: &dyn Vfs, path: &str, bytes: &[u8]) -> Box<dyn disk::File> {
    let file = vfs.open(Path::new(path), OpenMode::Create).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn create_durably(vfs: &dyn Vfs, path: &str, bytes: &[u8]) -> Box<dyn disk::File> {
    let file = create(vfs, path, bytes);
    file.sync_data().unwrap();
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    file
}

fn set<const N: usize>(of: [Option<&[u8]>; N]) -> BTreeSet<Option<Vec<u8>>> {
    of.into_iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect()
}

#[test]
fn a_file_synced_without_its_folder_can_lose_its_name_and_nothing_else() {
    let vfs = CrashVfs::new();
    create(&vfs, A, b"data").sync_data().unwrap();
    assert_eq!(outcomes(&vfs, A), set([None, Some(b"data")]));
}

#[test]
fn a_name_synced_without_its_file_can_lose_the_data() {
    let vfs = CrashVfs::new();
    create(&vfs, A, b"data");
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    let outcomes = outcomes(&vfs, A);
    assert!(outcomes.is_superset(&set([Some(b""), Some(b"data"), Some(b"\0\0\0\0")])), "{outcomes:?}");
    assert!(!outcomes.contains(&None), "the name is durable");
    assert!(
        outcomes.iter().flatten().any(|b| b.len() == 4 && b != b"data" && b != b"\0\0\0\0"),
        "no garbage"
    );
}

#[test]
fn what_was_synced_survives_every_crash() {
    let vfs = CrashVfs::new();
    create_durably(&vfs, A, b"data");
    assert_eq!(outcomes(&vfs, A), set([Some(b"data")]));
}

#[test]
fn a_rename_without_folder_sync_may_or_may_not_have_happened_but_is_atomic() {
    let vfs = CrashVfs::new();
    create_durably(&vfs, A, b"old");
    create_durably(&vfs, B, b"new");
    vfs.rename(Path::new(B), Path::new(A)).unwrap();
    assert_eq!(outcomes(&vfs, A), set([Some(b"old"), Some(b"new")]));
    for crash in vfs.journal().states(&Exploration::default()).filter(|c| c.after == vfs.operations()) {
        let renamed = read(&crash.vfs, A).unwrap() == b"new";
        assert_eq!(read(&crash.vfs, B).is_none(), renamed, "{crash}");
    }
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(outcomes(&vfs, A), set([Some(b"new")]));
}

#[test]
fn a_rename_can_outlive_the_data_of_the_file() {
    let vfs = CrashVfs::new();
    create_durably(&vfs, A, b"old");
    create(&vfs, B, b"new");
    vfs.rename(Path::new(B), Path::new(A)).unwrap();
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert!(outcomes(&vfs, A).is_superset(&set([Some(b""), Some(b"\0\0\0"), Some(b"new")])));
}

#[test]
fn a_removal_without_folder_sync_can_come_undone() {
    let vfs = CrashVfs::new();
    create_durably(&vfs, A, b"data");
    vfs.remove(Path::new(A)).unwrap();
    assert_eq!(outcomes(&vfs, A), set([None, Some(b"data")]));
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(outcomes(&vfs, A), set([None]));
}

#[test]
fn names_in_one_folder_survive_independently_of_their_order() {
    let vfs = CrashVfs::new();
    create(&vfs, A, b"").sync_data().unwrap();
    create(&vfs, B, b"").sync_data().unwrap();
    let end = vfs.operations();
    let seen: BTreeSet<_> = vfs
        .journal()
        .states(&Exploration::default())
        .filter(|crash| crash.after == end)
        .map(|crash| (read(&crash.vfs, A).is_some(), read(&crash.vfs, B).is_some()))
        .collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn an_overwrite_can_be_torn_at_sectors_and_leaves_old_bytes_between() {
    let vfs = CrashVfs::new();
    let file = create_durably(&vfs, A, &[1; 2048]);
    file.write_all_at(&[2; 1024], 256).unwrap();
    let outcomes: BTreeSet<Vec<u8>> = outcomes(&vfs, A).into_iter().flatten().collect();
    for bytes in &outcomes {
        assert_eq!(bytes.len(), 2048);
        assert!(bytes[..256].iter().chain(&bytes[1280..]).all(|&b| b == 1), "outside of the write");
        for sector in [256..512, 512..1024, 1024..1280] {
            let part = &bytes[sector.clone()];
            assert!(part.iter().all(|&b| b == part[0]), "{sector:?} is neither old nor new");
        }
    }
    assert_eq!(outcomes.len(), 8, "all combinations of three sectors");
}

#[test]
fn un_synced_writes_survive_in_any_order() {
    let vfs = CrashVfs::new();
    let file = create_durably(&vfs, A, b"......");
    for at in 0..3u64 {
        file.write_all_at(&[b'0' + at as u8; 2], at * 2).unwrap();
    }
    let outcomes: BTreeSet<_> = outcomes(&vfs, A);
    assert_eq!(outcomes.len(), 8, "{outcomes:?}");
    assert!(outcomes.contains(&Some(b"....22".to_vec())), "the last without the first");
}

#[test]
fn a_cut_can_come_undone_until_it_is_synced_and_brings_no_bytes_back_after() {
    let vfs = CrashVfs::new();
    let file = create_durably(&vfs, A, b"abcdef");
    file.set_len(2).unwrap();
    assert_eq!(outcomes(&vfs, A), set([Some(b"abcdef"), Some(b"ab")]));
    file.set_len(6).unwrap();
    assert_eq!(outcomes(&vfs, A), set([Some(b"abcdef"), Some(b"ab"), Some(b"ab\0\0\0\0")]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&vfs, A), set([Some(b"ab\0\0\0\0")]));
}

#[test]
fn folders_made_with_create_dir_all_are_durable_at_once() {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/x/y")).unwrap();
    create(&vfs, "/x/y/a", b"");
    let journal = vfs.journal();
    let crash = journal.crash(journal.len(), Survivors::Nothing);
    assert!(crash.vfs.exists(Path::new("/x/y")).unwrap());
    assert!(!crash.vfs.exists(Path::new("/x/y/a")).unwrap());
}

#[test]
fn after_a_failed_fsync_the_next_one_makes_nothing_of_it_durable() {
    for dropped in [Dropped::Readable, Dropped::Evicted] {
        let vfs = CrashVfs::new();
        let file = create_durably(&vfs, A, b"old");
        file.write_all_at(b"new!", 0).unwrap();
        vfs.drop_unsynced(Path::new(A), dropped).unwrap();
        let read_back = read(&vfs, A).unwrap();
        assert_eq!(read_back == b"new!", dropped == Dropped::Readable);
        file.sync_data().unwrap();
        assert_eq!(outcomes(&vfs, A), set([Some(b"old\0")]));
        file.write_all_at(b"new!", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(outcomes(&vfs, A), set([Some(b"new!")]), "written again it reaches the disk");
    }
}

#[test]
fn a_crashed_disk_can_crash_again_and_its_states_are_repeatable_from_their_text() {
    let vfs = CrashVfs::new();
    let file = create_durably(&vfs, A, &[1; 3000]);
    file.write_all_at(&[2; 2000], 2000).unwrap();
    let journal = vfs.journal();
    for crash in journal.states(&Exploration::default()) {
        let survivors: Survivors = crash.survivors.to_string().parse().unwrap();
        assert_eq!(survivors, crash.survivors);
        assert_eq!(read(&journal.crash(crash.after, survivors).vfs, A), read(&crash.vfs, A), "{crash}");
        let before = read(&crash.vfs, A);
        create(&crash.vfs, B, b"more");
        let second = crash.vfs.journal();
        let again = second.crash(second.len(), Survivors::Nothing);
        assert_eq!(read(&again.vfs, A), before, "what a crash left is durable");
        assert_eq!(read(&again.vfs, B), None);
    }
}

#[test]
fn locks_end_with_their_guard_and_with_a_crash() {
    let vfs = CrashVfs::new();
    let path = Path::new("/LOCK");
    let guard = vfs.lock(path).unwrap();
    assert!(guard.is_some());
    assert!(vfs.lock(path).unwrap().is_none());
    assert!(vfs.journal().crash(0, Survivors::Nothing).vfs.lock(path).unwrap().is_some());
    drop(guard);
    assert!(vfs.lock(path).unwrap().is_some());
}
