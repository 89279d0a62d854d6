//! The log on a real disk, with threads.

use disk::log::{Log, Options, Position};
use disk::{Entry, Error, File, Mapped, OpenMode, RealVfs, Space, Vfs};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts the syncs of files.
struct Counting {
    inner: RealVfs,
    syncs: Arc<AtomicU64>,
}

struct CountingFile {
    inner: Box<dyn File>,
    syncs: Arc<AtomicU64>,
}

impl Vfs for Counting {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>, Error> {
        Ok(Box::new(CountingFile { inner: self.inner.open(path, mode)?, syncs: self.syncs.clone() }))
    }
    fn map(&self, path: &Path) -> Result<Mapped, Error> {
        self.inner.map(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.inner.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<(), Error> {
        self.inner.remove_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<(), Error> {
        self.inner.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>, Error> {
        self.inner.list(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), Error> {
        self.inner.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> Result<bool, Error> {
        self.inner.exists(path)
    }
    fn space(&self, path: &Path) -> Result<Space, Error> {
        self.inner.space(path)
    }
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>, Error> {
        self.inner.lock(path)
    }
}

impl File for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        self.inner.read_at(buf, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.inner.write_all_at(bytes, offset)
    }
    fn sync_data(&self) -> Result<(), Error> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_data()
    }
    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.inner.set_len(len)
    }
    fn allocate(&self, len: u64) -> Result<(), Error> {
        self.inner.allocate(len)
    }
}

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
    let syncs = Arc::new(AtomicU64::new(0));
    let vfs: Arc<dyn Vfs> = Arc::new(Counting { inner: RealVfs, syncs: syncs.clone() });
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
    let syncs = syncs.load(Ordering::Relaxed);
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
