//! The file `damage`: whatever it says, the engine opens, says the same after the next start, and all of it can be mended.

use disk::log::Options as LogOptions;
use disk::{CrashVfs, OpenMode, Vfs};
use model::{Damage, Replica, Timestamp};
use std::path::Path;
use std::sync::Arc;
use storage::{Engine, Options};

const TITLE: &str = "sarsen damage\n";

fn open(vfs: &CrashVfs) -> Arc<Engine> {
    let mut options = Options::new("/data", || 7);
    options.shards = 2;
    options.wal = LogOptions { segment_bytes: 1 << 16, pending_bytes_max: 1 << 20, preallocate: false };
    let clock = Arc::new(|| Timestamp(1_000_000_000_000));
    Engine::open(Arc::new(vfs.clone()), options, clock, &|_| {}).expect("damage is no reason to refuse")
}

pub fn check(bytes: &[u8]) -> bool {
    let vfs = CrashVfs::new();
    drop(open(&vfs));
    let file = vfs.open(Path::new("/data/damage"), OpenMode::Create).expect("a simulated disk");
    file.write_all_at(&super::sealed(&[TITLE.as_bytes(), bytes].concat()), 0).expect("a simulated disk");
    drop(file);
    let engine = open(&vfs);
    let damages = Replica::damage(&*engine);
    drop(engine);
    let engine = open(&vfs);
    assert_eq!(Replica::damage(&*engine), damages);
    for Damage { number, range, .. } in &damages {
        assert!(range.min <= range.max);
        engine.mended(*number).expect("a simulated disk");
    }
    assert_eq!(Replica::damage(&*engine), []);
    drop(engine);
    assert_eq!(Replica::damage(&*open(&vfs)), []);
    // A file that makes no sense is one damage of everything.
    !damages.iter().any(|damage| damage.what.contains("is damaged itself"))
}

/// That of the page, which a test holds against the code; and others like it.
pub fn seeds() -> Vec<Vec<u8>> {
    let page = include_str!("../../../docs/format/damage.md");
    let shown = page.split(TITLE).nth(1).and_then(|rest| rest.split("crc32").next()).unwrap_or_default();
    let more =
        "next = 4\n1 0,1 -5 5 log/1/20-30 a hole\n3 - 0 9 log/2/0-9 mended, and the log has it still\n";
    vec![shown.into(), more.into(), "next = 0\n".into()]
}
