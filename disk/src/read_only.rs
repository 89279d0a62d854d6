//! A file system on which nothing can be changed, whatever the caller tries.

use crate::Error;
use crate::vfs::{Entry, File, Mapped, OpenMode, Result, Space, Vfs};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Lets reading through and refuses everything else, [`Vfs::lock`] included, since it may create a file.
#[derive(Clone)]
pub struct ReadOnlyVfs(pub Arc<dyn Vfs>);

fn refuse<T>(op: &'static str, path: &Path) -> Result<T> {
    let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    Err(Error::Io { op, path: path.to_owned(), source })
}

impl Vfs for ReadOnlyVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        match mode {
            OpenMode::Read => self.0.open(path, mode),
            OpenMode::Write => refuse("open", path),
            OpenMode::Create => refuse("create", path),
        }
    }

    fn map(&self, path: &Path) -> Result<Mapped> {
        self.0.map(path)
    }

    fn rename(&self, from: &Path, _: &Path) -> Result<()> {
        refuse("rename", from)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        refuse("remove", path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        refuse("remove folder", path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        refuse("create folder", path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        self.0.list(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        refuse("sync folder", path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.0.exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        refuse("lock", path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        self.0.lock_shared(path)
    }

    fn unique(&self) -> u64 {
        self.0.unique()
    }
}
