//! Records of the write-ahead log, well framed and with any content: recovery reports, and does not fail.
#![no_main]

use disk::CrashVfs;
use disk::log::{Log, Options as LogOptions};
use model::Timestamp;
use std::path::Path;
use std::sync::Arc;
use storage::{Engine, Options};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut options = Options::new("/data", || 7);
    options.shards = 2;
    options.wal = LogOptions { segment_bytes: 1 << 16, pending_bytes_max: 1 << 20, preallocate: false };
    let open = |vfs: &CrashVfs| {
        let clock = Arc::new(|| Timestamp(1_000_000_000_000));
        Engine::open(Arc::new(vfs.clone()), options.clone(), clock, &|_| {})
            .expect("damaged records are no reason to refuse")
    };
    let vfs = CrashVfs::new();
    drop(open(&vfs));
    let (log, _) =
        Log::recover(Arc::new(vfs.clone()), Path::new("/data/wal"), options.wal.clone(), &mut |_| {})
            .unwrap();
    // One byte of length before each record.
    let mut rest = bytes;
    while let [len, tail @ ..] = rest {
        let (record, behind) = tail.split_at(tail.len().min(usize::from(*len)));
        log.append(record).unwrap();
        rest = behind;
    }
    log.commit(log.appended()).unwrap();
    drop(log);
    let stats = open(&vfs).stats();
    // Twice the same, or recovery would lose or gain something each time.
    assert_eq!(stats.series, open(&vfs).stats().series);
});
