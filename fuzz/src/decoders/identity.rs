//! The identity file of a data directory: taken or refused, and it never makes room for a new identity.

use disk::{CrashVfs, File, OpenMode, Vfs};
use std::path::Path;
use storage::{Identity, identity};

const DIR: &str = "/data";

fn directory() -> (CrashVfs, Box<dyn File>) {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new(DIR)).expect("a simulated disk");
    let file = vfs.open(&Path::new(DIR).join("identity"), OpenMode::Create).expect("a simulated disk");
    (vfs, file)
}

fn open(text: &[u8]) -> bool {
    let (vfs, file) = directory();
    file.write_all_at(text, 0).expect("a simulated disk");
    let seen = identity::peek(&vfs, Path::new(DIR));
    let opened = Identity::open(&vfs, Path::new(DIR), None, 64, &|| panic!("an identity was there"));
    let Ok(identity) = opened else { return false };
    assert_eq!(identity.shards, 64);
    assert_eq!(seen.expect("it was opened"), Some(identity));
    true
}

pub fn check(body: &[u8]) -> bool {
    open(body);
    open(&super::sealed(body))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let vfs = CrashVfs::new();
    let dir = Path::new(DIR);
    vfs.create_dir_all(dir).expect("a simulated disk");
    let identity = Identity { cluster: 1, node: 2, disk: 3, shards: 64 };
    Identity::open(&vfs, dir, Some(identity), 64, &|| 0).expect("an empty directory");
    let file = vfs.open(&dir.join("identity"), OpenMode::Read).expect("it was written");
    let mut text = vec![0; file.len().expect("it is there") as usize];
    file.read_exact_at(&mut text, 0).expect("it is there");
    vec![super::unsealed(&text)]
}
