//! Looking into a directory at rest.

use crate::world::*;
use disk::{OpenMode, RealVfs, Vfs};
use model::{Error, Sink};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::Engine;

/// Every file and folder with its content.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in RealVfs.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            all.extend(content(&path));
            all.insert(path, Vec::new());
        } else {
            let mut bytes = vec![0; entry.len as usize];
            RealVfs.open(&path, OpenMode::Read).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            all.insert(path, bytes);
        }
    }
    all
}

fn inspect(world: &World) -> storage::Result<Arc<Engine>> {
    let clock = Arc::new(|| model::Timestamp(5 * WINDOW));
    // The number of shards is the directory's, whatever the options say.
    let options = storage::Options { shards: 64, ..world.options.clone() };
    Engine::open_read_only(world.vfs.clone(), options, clock, &|_| ())
}

#[test]
fn looking_shows_what_a_restart_would_and_changes_nothing() {
    let mut world = World::real();
    world.options.wal.preallocate = true;
    world.set_now(5 * WINDOW);
    let engine = world.open();
    for i in 0..10 {
        write(&engine, &labels("flushed", i), &[(100, 1.0), (1100, 2.0)]);
    }
    engine.flush_all().unwrap();
    for i in 5..15 {
        write(&engine, &labels("logged", i), &[(4100, 3.0)]);
    }
    let before = read_all(&engine);
    drop(engine);
    // What crashes leave: a torn tail, half a block.
    let wal = world.options.dir.join("wal");
    let last = world.vfs.list(&wal).unwrap().pop().unwrap();
    let file = world.vfs.open(&wal.join(&last.name), OpenMode::Write).unwrap();
    let mut bytes = vec![0; last.len as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let used = bytes.iter().rposition(|&b| b != 0).unwrap() as u64 + 1;
    // Not right behind it: the last record may end in zeros.
    file.write_all_at(b"RRRRRRRRRRRRRR torn", used + 64).unwrap();
    let block = world.options.dir.join("blocks/default/0/x.block.tmp");
    world.vfs.create_dir_all(block.parent().unwrap()).unwrap();
    world.vfs.open(&block, OpenMode::Create).unwrap().write_all_at(b"half", 0).unwrap();

    let disk = content(&world.options.dir);
    let one = inspect(&world).unwrap();
    // Several at a time.
    let other = inspect(&world).unwrap();
    for engine in [&one, &other] {
        assert_eq!(read_all(engine), before);
        assert!(engine.verify().is_empty());
        assert_eq!(engine.stats().suspect, [""; 0]);
        let batch = Rows::default().floats(&**engine, &labels("new", 0), &[(4200, 1.0)]).0;
        assert!(matches!(engine.append(&Arc::new(batch), None), Err(Error::ReadOnly { .. })));
        assert!(engine.flush_all().is_err());
        // Whatever it answers.
        let _ = engine.maintain();
        engine.commit().unwrap();
        engine.close().unwrap();
    }
    assert_eq!(read_all(&one), before);
    // While somebody looks, nobody serves.
    assert!(matches!(world.try_open(), Err(storage::Error::Refused { .. })));
    drop((one, other));
    assert!(content(&world.options.dir) == disk, "something was changed");
    assert_eq!(read_all(&world.open()), before);
}

#[test]
fn a_directory_that_is_served_or_has_no_data_is_refused_with_the_way_out() {
    let world = World::real();
    let refusal = |world: &World| inspect(world).err().unwrap().to_string();
    assert!(refusal(&world).contains("name the directory"), "{}", refusal(&world));
    assert!(!world.vfs.exists(&world.options.dir).unwrap());
    let engine = world.open();
    assert!(refusal(&world).contains("a server has it open"), "{}", refusal(&world));
    write(&engine, &labels("m", 0), &[(1, 1.0)]);
    drop(engine);
    // A copy without the lock file.
    world.vfs.remove(&world.options.dir.join("lock")).unwrap();
    assert_eq!(floats(&inspect(&world).unwrap(), &labels("m", 0)), [(1, 1.0)]);
    assert!(!world.vfs.exists(&world.options.dir.join("lock")).unwrap());
}
