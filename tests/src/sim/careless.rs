//! A file system that makes the mistakes which programs make with the real one, if one of them is planted.

use cluster::faults::{Mistake, planted};
use disk::{CrashVfs, Entry, FaultVfs, File, Mapped, OpenMode, Space, Vfs, vfs::Result};
use std::path::Path;

type Careful = FaultVfs<CrashVfs>;

/// Forgets to sync folders, or tries a failed sync again.
pub struct Careless {
    inner: Careful,
    skips: bool,
    retries: bool,
}

impl Careless {
    /// What makes the mistake that is planted.
    ///
    /// # Errors
    /// The careful one as it was, when it makes none.
    pub fn planted(inner: Careful) -> std::result::Result<Careless, Careful> {
        let (skips, retries) = (planted(Mistake::SkipFolderSync), planted(Mistake::RetrySync));
        if skips || retries { Ok(Careless { inner, skips, retries }) } else { Err(inner) }
    }
}

impl Vfs for Careless {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        Ok(if self.retries { Box::new(Retried(inner)) } else { inner })
    }
    fn map(&self, path: &Path) -> Result<Mapped> {
        self.inner.map(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.inner.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.inner.remove_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.inner.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        self.inner.list(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        if self.skips { Ok(()) } else { self.inner.sync_dir(path) }
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

/// A file whose sync is tried again.
struct Retried(Box<dyn File>);

impl File for Retried {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&self) -> Result<()> {
        self.0.sync_data().or_else(|_| self.0.sync_data())
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, len: u64) -> Result<()> {
        self.0.allocate(len)
    }
}
