//! The log on a real disk, with threads.

use disk::fault::Operation;
use disk::log::{Log, Options, Position};
use disk::{Error, FaultVfs, RealVfs, Vfs};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

fn options() -> Options {
    Options { segment_bytes: 64 << 10, pending_bytes_max: 1 << 20, preallocate: true }
}

fn read_all(vfs: Arc<dyn Vfs>, dir: &Path) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let (_, recovered) =
        Log::recover(vfs, dir, options(), &mut |record| records.push(record.payload.to_vec())).unwrap();
    assert_eq!((recovered.torn, recovered.corrupt), (None, Vec::new()));
    records
}

#[test]
fn threads_share_fsyncs_and_find_all_their_records_again() {
    const THREADS: u64 = 8;
    const COMMITS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let counting = FaultVfs::new(RealVfs);
    let vfs: Arc<dyn Vfs> = Arc::new(counting.clone());
    let (log, recovered) = Log::recover(vfs.clone(), dir.path(), options(), &mut |_| ()).unwrap();
    assert_eq!(recovered.records, 0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for commit in 0..COMMITS {
                    let mut last = Position(0);
                    for part in 0..16u64 {
                        let record = [thread, commit, part].map(u64::to_le_bytes).concat();
                        last = log.append(&record).unwrap();
                    }
                    log.ticket(last).wait().unwrap();
                    assert!(log.durable() >= last);
                }
            });
        }
    });
    let commits = THREADS * COMMITS;
    let syncs = counting.calls(Operation::Sync, "");
    println!("{syncs} fsyncs for {commits} commits");
    assert!(syncs < commits, "{syncs} fsyncs for {commits} commits");
    drop(log);
    let records = read_all(vfs, dir.path());
    assert_eq!(records.len() as u64, commits * 16);
    for thread in 0..THREADS {
        let own: Vec<_> = records.iter().filter(|r| r[..8] == thread.to_le_bytes()).cloned().collect();
        let expected: Vec<_> = (0..COMMITS)
            .flat_map(|c| (0..16).map(move |p: u64| [thread, c, p].map(u64::to_le_bytes).concat()))
            .collect();
        assert_eq!(own, expected, "in the order in which thread {thread} appended them");
    }
}

struct Unpark(std::thread::Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn futures_resolve_when_a_committing_thread_has_synced() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let (log, _) = Log::recover(vfs.clone(), dir.path(), options(), &mut |_| ()).unwrap();
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| {
            while log.wait_pending() {
                log.commit(log.appended()).unwrap();
            }
        });
        let waiting: Vec<_> = (0..4u8)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..50u8 {
                        let position = log.append(&[thread, n]).unwrap();
                        block_on(log.ticket(position)).unwrap();
                    }
                })
            })
            .collect();
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        log.close();
        committer.join().unwrap();
    });
    assert!(matches!(log.append(b"late"), Err(Error::Failed { .. })));
    drop(log);
    assert_eq!(read_all(vfs, dir.path()).len(), 200);
}
