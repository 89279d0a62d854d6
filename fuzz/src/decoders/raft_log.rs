//! The records of a member's log: refused, or a member that can begin with them; and the same each time.

use cluster::raft::{Member, Options, Store};
use disk::CrashVfs;
use disk::log::{Log, Options as LogOptions};
use std::path::Path;
use std::sync::Arc;

pub fn check(bytes: &[u8]) -> bool {
    let vfs = Arc::new(CrashVfs::new());
    let dir = Path::new("/raft");
    let options = LogOptions { segment_bytes: 1 << 20, preallocate: false, ..LogOptions::default() };
    let (log, _) = Log::recover(vfs.clone(), dir, options, &mut |_| {}).expect("an empty folder");
    for record in super::parts(bytes) {
        log.append(record).expect("there is room");
    }
    log.commit(log.appended()).expect("a simulated disk");
    drop(log);
    let Ok((store, durable)) = Store::open(vfs.clone(), dir, None) else { return false };
    drop(store);
    let (_, again) = Store::open(vfs, dir, durable.identity()).expect("it was opened before");
    assert_eq!((again.identity(), again.has_state()), (durable.identity(), durable.has_state()));
    let Some((mut member, _)) = Member::open(durable, Options::default()) else { return false };
    for _ in 0..3 {
        member.tick();
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let pair = super::raft_message::Pair::new();
    pair.records.iter().map(super::join).collect()
}
