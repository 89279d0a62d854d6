//! The identity file of a data directory.
#![no_main]

use disk::{CrashVfs, OpenMode, Vfs};
use std::path::Path;
use storage::{Identity, identity};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let vfs = CrashVfs::new();
    let dir = Path::new("/data");
    vfs.create_dir_all(dir).unwrap();
    vfs.open(&dir.join("identity"), OpenMode::Create).unwrap().write_all_at(bytes, 0).unwrap();
    let seen = identity::peek(&vfs, dir);
    // A file that is there is taken or refused; it never makes room for a new identity.
    if let Ok(identity) = Identity::open(&vfs, dir, None, 64, &|| panic!("an identity was there")) {
        assert_eq!(identity.shards, 64);
        assert_eq!(seen.unwrap(), Some(identity));
    }
});
