//! What all file systems have in common: programs cannot tell the simulation from the real one.

use disk::{CrashVfs, Entry, Error, FaultVfs, OpenMode, RealVfs, Vfs};
use proptest::prelude::*;
use std::path::Path;

fn entry(name: &str, is_dir: bool, len: u64) -> Entry {
    Entry { name: name.into(), is_dir, len }
}

fn io_kind<T>(result: Result<T, Error>) -> std::io::ErrorKind {
    match result {
        Err(Error::Io { source, .. }) => source.kind(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it should have failed"),
    }
}

fn behaves_like_a_file_system(vfs: &dyn Vfs, root: &Path) {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotFound};
    let folder = root.join("one/two");
    vfs.create_dir_all(&folder).unwrap();
    vfs.create_dir_all(&folder).unwrap();
    assert!(vfs.exists(&folder).unwrap());
    let (a, b) = (folder.join("a"), folder.join("b"));
    assert!(vfs.open(&a, OpenMode::Read).err().unwrap().is_not_found());
    assert!(vfs.open(&a, OpenMode::Write).err().unwrap().is_not_found());
    assert!(vfs.map(&a).err().unwrap().is_not_found());
    let file = vfs.open(&a, OpenMode::Create).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(io_kind(vfs.open(&a, OpenMode::Create)), AlreadyExists);
    file.write_all_at(b"hello", 3).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    let mut buffer = [9; 6];
    assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 4);
    assert_eq!(&buffer, b"ello\x09\x09");
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
    assert!(!file.read_exact_at(&mut buffer, 4).unwrap());
    assert!(file.read_exact_at(&mut buffer, 2).unwrap());
    assert_eq!(&buffer, b"\0hello");
    file.allocate(4).unwrap();
    assert_eq!(file.len().unwrap(), 8, "allocation never cuts");
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.set_len(8).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(&folder).unwrap();
    assert_eq!(&*vfs.map(&a).unwrap(), b"\0\0\0hello");
    assert_eq!(vfs.list(&folder).unwrap(), [entry("a", false, 8)]);
    assert!(vfs.open(&a, OpenMode::Read).unwrap().write_all_at(b"x", 0).is_err());

    vfs.open(&b, OpenMode::Create).unwrap();
    assert!(vfs.map(&b).unwrap().is_empty());
    vfs.rename(&a, &b).unwrap();
    assert!(!vfs.exists(&a).unwrap());
    file.write_all_at(b"J", 3).unwrap();
    assert_eq!(&*vfs.map(&b).unwrap(), b"\0\0\0Jello", "an open file stays open under its new name");
    assert_eq!(io_kind(vfs.rename(&a, &b)), NotFound);
    assert_eq!(io_kind(vfs.remove_dir(&folder)), DirectoryNotEmpty);
    vfs.remove(&b).unwrap();
    assert_eq!(io_kind(vfs.remove(&b)), NotFound);
    assert_eq!(file.len().unwrap(), 8, "a removed file stays open");
    assert_eq!(vfs.list(&folder).unwrap(), []);
    vfs.remove_dir(&folder).unwrap();
    assert_eq!(vfs.list(&root.join("one")).unwrap(), []);
    assert_eq!(io_kind(vfs.list(&folder)), NotFound);
    assert_eq!(io_kind(vfs.sync_dir(&folder)), NotFound);
    let space = vfs.space(root).unwrap();
    assert!(space.free <= space.total && space.total > 0);
    let lock = vfs.lock(&root.join("LOCK")).unwrap();
    assert!(lock.is_some() && vfs.lock(&root.join("LOCK")).unwrap().is_none());
    assert!(vfs.lock_shared(&root.join("LOCK")).unwrap().is_none());
    drop(lock);
    let readers =
        [vfs.lock_shared(&root.join("LOCK")).unwrap(), vfs.lock_shared(&root.join("LOCK")).unwrap()];
    assert!(readers.iter().all(Option::is_some) && vfs.lock(&root.join("LOCK")).unwrap().is_none());
    let [one, other] = readers;
    drop(one);
    assert!(vfs.lock(&root.join("LOCK")).unwrap().is_none());
    drop(other);
    assert!(vfs.lock(&root.join("LOCK")).unwrap().is_some());
}

#[test]
fn all_file_systems_behave_alike() {
    let dir = tempfile::tempdir().unwrap();
    behaves_like_a_file_system(&RealVfs, dir.path());
    behaves_like_a_file_system(&CrashVfs::new(), Path::new("/data"));
    behaves_like_a_file_system(&FaultVfs::new(CrashVfs::new()), Path::new("/data"));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Allocate(u64),
    Read(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![0..100u64, 4000..4200u64, 8100..8300u64];
    prop_oneof![
        (offset.clone(), proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(o, b)| Step::Write(o, b)),
        offset.clone().prop_map(Step::SetLen),
        offset.clone().prop_map(Step::Allocate),
        (offset, 0..5000usize).prop_map(|(o, n)| Step::Read(o, n)),
    ]
}

proptest! {
    #[test]
    fn a_simulated_file_holds_the_bytes_of_a_real_one(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let real = RealVfs.open(&dir.path().join("a"), OpenMode::Create).unwrap();
        let vfs = CrashVfs::new();
        let simulated = vfs.open(Path::new("/a"), OpenMode::Create).unwrap();
        let read = |file: &dyn disk::File, offset, n| {
            let mut buffer = vec![7; n];
            let n = file.read_at(&mut buffer, offset).unwrap();
            buffer.truncate(n);
            buffer
        };
        for step in &steps {
            for file in [&real, &simulated] {
                match step {
                    Step::Write(offset, bytes) => file.write_all_at(bytes, *offset).unwrap(),
                    Step::SetLen(len) => file.set_len(*len).unwrap(),
                    Step::Allocate(len) => file.allocate(*len).unwrap(),
                    Step::Read(..) => {}
                }
            }
            if let Step::Read(offset, n) = step {
                prop_assert_eq!(read(&*real, *offset, *n), read(&*simulated, *offset, *n));
            }
        }
        prop_assert_eq!(real.len().unwrap(), simulated.len().unwrap());
        prop_assert_eq!(read(&*real, 0, 10_000), read(&*simulated, 0, 10_000));
        let journal = vfs.journal();
        let crash = journal.crash(journal.len(), disk::crash::Survivors::Everything);
        let left = crash.vfs.map(Path::new("/a")).unwrap().to_vec();
        prop_assert_eq!(left, read(&*real, 0, 10_000));
    }
}
