//! Which data directories are served, and which are refused.

use crate::world::*;
use std::path::PathBuf;
use storage::Error;

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
