//! Which data directories are served, and which are refused.

use crate::world::*;
use disk::CrashVfs;
use disk::crash::Exploration;
use std::path::PathBuf;
use std::sync::Arc;
use storage::{Error, Identity, identity};

fn refusal(world: &World) -> String {
    match world.try_open() {
        Err(Error::Refused { why, .. }) => why,
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("it was opened"),
    }
}

fn file(world: &World, name: &str) -> PathBuf {
    world.options.dir.join(name)
}

#[test]
fn a_directory_keeps_its_identity() {
    let mut world = World::real();
    let first = world.open().identity();
    world.options.random = std::sync::Arc::new(|| panic!("an identity is drawn once"));
    assert_eq!(world.open().identity(), first);
    assert_eq!(first.shards, 4);
}

#[test]
fn two_engines_never_share_a_directory() {
    let world = World::real();
    let engine = world.open();
    assert!(refusal(&world).contains("another process"));
    drop(engine);
    world.open();
}

#[test]
fn another_number_of_shards_is_refused() {
    let mut world = World::real();
    drop(world.open());
    world.options.shards = 8;
    assert!(refusal(&world).contains("created with 4 shards"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages files behind the engine's back")]
fn data_without_identity_or_with_a_damaged_one_is_refused() {
    let world = World::real();
    write(&world.open(), &labels("a", 1), &[(1, 1.0)]);
    let text = std::fs::read_to_string(file(&world, "identity")).unwrap();
    std::fs::write(file(&world, "identity"), text.replace("shards = 4", "shards = 8")).unwrap();
    assert!(refusal(&world).contains("damaged"));
    std::fs::remove_file(file(&world, "identity")).unwrap();
    assert!(refusal(&world).contains("no identity"));
    // With the file back, all is well.
    std::fs::write(file(&world, "identity"), text).unwrap();
    assert_eq!(floats(&world.open(), &labels("a", 1)), [(1, 1.0)]);
}

#[test]
fn an_empty_directory_takes_the_identity_that_it_is_given_and_keeps_it() {
    let mut world = World::real();
    let given = Identity { cluster: 1, node: 2, disk: 3, shards: 8 };
    let peek = |world: &World| identity::peek(&*world.vfs, &world.options.dir).unwrap();
    assert_eq!(peek(&world), None);
    world.options.identity = Some(given);
    assert_eq!(world.open().identity(), given);
    assert_eq!(peek(&world), Some(given));
    assert_eq!(model::Replica::shards(&*world.open()), 8);
    // Whoever does not say takes what is there.
    world.options.identity = None;
    world.options.shards = 8;
    assert_eq!(world.open().identity(), given);
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_stays_as_it_is() {
    let mut world = World::real();
    let given = Identity { cluster: 1, node: 2, disk: 3, shards: 4 };
    world.options.identity = Some(given);
    write(&world.open(), &labels("a", 1), &[(1, 1.0)]);
    for (other, names, way_out) in [
        (
            Identity { cluster: 9, ..given },
            "cluster 00000000000000000000000000000001",
            "an empty one to join",
        ),
        (Identity { node: 9, ..given }, "node 00000000000000000000000000000002", "a copy is no node"),
        (Identity { disk: 9, ..given }, "disk 00000000000000000000000000000003", "empty it"),
        (Identity { shards: 8, ..given }, "created with 4 shards", "set `storage.shards` back"),
    ] {
        world.options.identity = Some(other);
        let why = refusal(&world);
        assert!(why.contains(names) && why.contains(way_out), "{why}");
    }
    world.options.identity = Some(given);
    assert_eq!(floats(&world.open(), &labels("a", 1)), [(1, 1.0)]);
}

#[test]
fn a_crash_while_an_identity_is_given_leaves_none_or_that_one() {
    let vfs = CrashVfs::new();
    let given = Identity { cluster: 1, node: 2, disk: 3, shards: 4 };
    let world = |vfs: &CrashVfs| {
        let mut world = World::on(Arc::new(vfs.clone()));
        world.options.identity = Some(given);
        world
    };
    write(&world(&vfs).open(), &labels("a", 1), &[(1, 1.0)]);
    let (mut without, mut with) = (0, 0);
    for crash in vfs.journal().states(&Exploration { subsets_max: 16, samples: 8, seed: 1 }) {
        let world = world(&crash.vfs);
        match identity::peek(&crash.vfs, &world.options.dir).unwrap() {
            None => without += 1,
            Some(found) => {
                assert_eq!(found, given);
                with += 1;
            }
        }
        let engine = world.try_open().unwrap_or_else(|e| panic!("{e}\n{crash}"));
        assert_eq!(engine.identity(), given);
    }
    assert!(without > 5 && with > 5, "{without} states without, {with} with");
}
