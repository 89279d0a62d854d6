//! A file system that fails as it is told to.
//!
//! ```
//! # use disk::{CrashVfs, FaultVfs, OpenMode, Vfs, fault::{Fault, Operation, Rule}};
//! # use std::path::Path;
//! let vfs = FaultVfs::new(CrashVfs::new());
//! vfs.add(Rule::new(Operation::Sync, Fault::Eio).path("wal").nth(2));
//! let file = vfs.open(Path::new("/wal"), OpenMode::Create)?;
//! file.sync_data()?;
//! assert!(file.sync_data().is_err());
//! assert_eq!((vfs.injected(), vfs.calls(Operation::Sync, "wal")), (1, 2));
//! # Ok::<(), disk::Error>(())
//! ```
//!
//! A failed fsync is not passed on. Over a [`CrashVfs`], [`FaultVfs::dropping`] also does what Linux then does: the un-synced
//! writes are gone although the next fsync succeeds.

use crate::Error;
use crate::crash::{CrashVfs, Dropped};
use crate::lots::Lots;
use crate::vfs::{Entry, File, Mapped, OpenMode, Result, Space, Vfs};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `open` of a file that exists.
    Open,
    /// `open` with [`OpenMode::Create`].
    Create,
    /// `read_at`.
    Read,
    /// `write_all_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `set_len`.
    SetLen,
    /// `allocate`.
    Allocate,
    /// `map`.
    Map,
    /// `rename`; the path is the old one.
    Rename,
    /// `remove` and `remove_dir`.
    Remove,
    /// `create_dir_all`.
    CreateFolder,
    /// `list`.
    List,
    /// `sync_dir`.
    SyncFolder,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error. Nothing was done.
    Eio,
    /// The disk is full. Nothing was done.
    Enospc,
    /// A read returns only a part, which is no error. A write is done by half, then the disk is full.
    Short,
    /// One bit is wrong in what is read, mapped or written, and nobody is told.
    Flip,
}

/// When something goes wrong.
#[derive(Clone, Debug)]
pub struct Rule {
    operation: Operation,
    fault: Fault,
    path: String,
    first: u64,
    last: u64,
    percent: u64,
    bytes: Range<u64>,
    seen: u64,
}

impl Rule {
    /// Every such operation fails, until the rule is narrowed.
    pub fn new(operation: Operation, fault: Fault) -> Rule {
        Rule {
            operation,
            fault,
            path: String::new(),
            first: 1,
            last: u64::MAX,
            percent: 100,
            bytes: 0..u64::MAX,
            seen: 0,
        }
    }

    /// Only on paths that contain this.
    pub fn path(self, part: &str) -> Rule {
        Rule { path: part.to_owned(), ..self }
    }

    /// Only the n-th matching operation after the rule was added, counted from 1.
    pub fn nth(self, n: u64) -> Rule {
        Rule { first: n, last: n, ..self }
    }

    /// The n-th matching operation and all after it.
    pub fn from_nth(self, n: u64) -> Rule {
        Rule { first: n, last: u64::MAX, ..self }
    }

    /// Only reads and writes that touch these bytes of the file, as on a disk with a bad sector.
    pub fn bytes(self, bytes: Range<u64>) -> Rule {
        Rule { bytes, ..self }
    }

    /// Only so many of a hundred, by the lots of [`FaultVfs::seeded`].
    pub fn percent(self, percent: u64) -> Rule {
        Rule { percent, ..self }
    }
}

/// What happens to a file after a failed fsync.
type AfterFailedSync = dyn Fn(&Path) + Send + Sync;

/// Wraps a file system and injects faults into it; clones share the rules.
#[derive(Clone)]
pub struct FaultVfs<V> {
    inner: V,
    plan: Arc<Plan>,
}

struct Plan {
    state: Mutex<State>,
    after_failed_sync: Box<AfterFailedSync>,
}

struct State {
    rules: Vec<Rule>,
    calls: BTreeMap<(Operation, PathBuf), u64>,
    injected: u64,
    lots: Lots,
}

impl<V: Vfs> FaultVfs<V> {
    /// Without any rule yet.
    pub fn new(inner: V) -> FaultVfs<V> {
        FaultVfs::with(inner, 0, Box::new(|_| ()))
    }

    /// Without any rule yet, and with a seed for rules that go by probability and for the choice of bits.
    pub fn seeded(inner: V, seed: u64) -> FaultVfs<V> {
        FaultVfs::with(inner, seed, Box::new(|_| ()))
    }

    fn with(inner: V, seed: u64, after_failed_sync: Box<AfterFailedSync>) -> FaultVfs<V> {
        let state = State { rules: Vec::new(), calls: BTreeMap::new(), injected: 0, lots: Lots(seed) };
        FaultVfs { inner, plan: Arc::new(Plan { state: Mutex::new(state), after_failed_sync }) }
    }

    /// Adds a rule. Of several that match, the oldest wins.
    pub fn add(&self, rule: Rule) {
        self.plan.state.lock().rules.push(rule);
    }

    /// Heals the disk.
    pub fn clear(&self) {
        self.plan.state.lock().rules.clear();
    }

    /// How many faults there were.
    pub fn injected(&self) -> u64 {
        self.plan.state.lock().injected
    }

    /// How often an operation was called, whatever became of it, on paths that contain `part`.
    pub fn calls(&self, operation: Operation, part: &str) -> u64 {
        let state = self.plan.state.lock();
        let of = |((op, path), n): (&(Operation, PathBuf), &u64)| {
            if *op == operation && path.to_string_lossy().contains(part) { *n } else { 0 }
        };
        state.calls.iter().map(of).sum()
    }

    /// What is below.
    pub fn inner(&self) -> &V {
        &self.inner
    }
}

impl FaultVfs<CrashVfs> {
    /// A failed fsync throws the file's un-synced writes away, as Linux does.
    pub fn dropping(inner: CrashVfs, dropped: Dropped) -> FaultVfs<CrashVfs> {
        let below = inner.clone();
        let drop_pages = move |path: &Path| {
            // A file that was removed meanwhile has nothing left to lose.
            let _ = below.drop_unsynced(path, dropped);
        };
        FaultVfs::with(inner, 0, Box::new(drop_pages))
    }
}

impl Plan {
    /// What goes wrong with this call, if anything, and a random number for the details.
    fn fault(&self, operation: Operation, path: &Path) -> Option<(Fault, u64)> {
        self.fault_at(operation, path, 0..u64::MAX)
    }

    /// The same for an operation on some bytes of the file.
    fn fault_at(&self, operation: Operation, path: &Path, bytes: Range<u64>) -> Option<(Fault, u64)> {
        let mut state = self.state.lock();
        let State { rules, calls, injected, lots } = &mut *state;
        *calls.entry((operation, path.to_owned())).or_default() += 1;
        let text = path.to_string_lossy();
        let mut found = None;
        for rule in rules {
            let touched = bytes.start < rule.bytes.end && rule.bytes.start < bytes.end;
            if rule.operation != operation || !touched || !text.contains(&rule.path) {
                continue;
            }
            rule.seen += 1;
            let due = (rule.first..=rule.last).contains(&rule.seen);
            if found.is_none() && due && (rule.percent >= 100 || lots.percent(rule.percent)) {
                found = Some((rule.fault, lots.next()));
            }
        }
        *injected += u64::from(found.is_some());
        found
    }

    /// For operations that are done or fail, with nothing in between.
    fn check(&self, operation: Operation, op: &'static str, path: &Path) -> Result<()> {
        match self.fault(operation, path) {
            None => Ok(()),
            Some((fault, _)) => error(fault, op, path),
        }
    }
}

fn error<T>(fault: Fault, op: &'static str, path: &Path) -> Result<T> {
    let code = if fault == Fault::Enospc || fault == Fault::Short { libc::ENOSPC } else { libc::EIO };
    Err(Error::Io { op, path: path.to_owned(), source: io::Error::from_raw_os_error(code) })
}

fn flip(bytes: &mut [u8], lot: u64) {
    if !bytes.is_empty() {
        let bit = lot % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

impl<V: Vfs> Vfs for FaultVfs<V> {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        match mode {
            OpenMode::Create => self.plan.check(Operation::Create, "create", path)?,
            _ => self.plan.check(Operation::Open, "open", path)?,
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(FaultFile { inner, plan: self.plan.clone(), path: path.to_owned() }))
    }

    fn map(&self, path: &Path) -> Result<Mapped> {
        match self.plan.fault(Operation::Map, path) {
            None => self.inner.map(path),
            Some((Fault::Flip, lot)) => {
                let mut bytes = self.inner.map(path)?.to_vec();
                flip(&mut bytes, lot);
                Ok(Mapped(Arc::new(bytes)))
            }
            Some((fault, _)) => error(fault, "map", path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.plan.check(Operation::Rename, "rename", from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.plan.check(Operation::Remove, "remove", path)?;
        self.inner.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.plan.check(Operation::Remove, "remove folder", path)?;
        self.inner.remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.plan.check(Operation::CreateFolder, "create folder", path)?;
        self.inner.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        self.plan.check(Operation::List, "list", path)?;
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.plan.check(Operation::SyncFolder, "sync folder", path)?;
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.inner.exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.inner.space(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        self.inner.lock(path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        self.inner.lock_shared(path)
    }

    fn unique(&self) -> u64 {
        self.inner.unique()
    }
}

struct FaultFile {
    inner: Box<dyn File>,
    plan: Arc<Plan>,
    path: PathBuf,
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = offset..offset.saturating_add(buf.len() as u64);
        match self.plan.fault_at(Operation::Read, &self.path, bytes) {
            None => self.inner.read_at(buf, offset),
            Some((Fault::Short, _)) => {
                let part = buf.len().div_ceil(2);
                self.inner.read_at(&mut buf[..part], offset)
            }
            Some((Fault::Flip, lot)) => {
                let n = self.inner.read_at(buf, offset)?;
                flip(&mut buf[..n], lot);
                Ok(n)
            }
            Some((fault, _)) => error(fault, "read", &self.path),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let touched = offset..offset.saturating_add(bytes.len() as u64);
        match self.plan.fault_at(Operation::Write, &self.path, touched) {
            None => self.inner.write_all_at(bytes, offset),
            Some((Fault::Short, _)) => {
                self.inner.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                error(Fault::Short, "write", &self.path)
            }
            Some((Fault::Flip, lot)) => {
                let mut bytes = bytes.to_vec();
                flip(&mut bytes, lot);
                self.inner.write_all_at(&bytes, offset)
            }
            Some((fault, _)) => error(fault, "write", &self.path),
        }
    }

    fn sync_data(&self) -> Result<()> {
        self.plan.check(Operation::Sync, "sync", &self.path).inspect_err(|_| {
            (self.plan.after_failed_sync)(&self.path);
        })?;
        self.inner.sync_data()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.plan.check(Operation::SetLen, "set length", &self.path)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.plan.check(Operation::Allocate, "allocate", &self.path)?;
        self.inner.allocate(len)
    }
}
