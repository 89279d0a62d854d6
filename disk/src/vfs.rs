//! The file system as a trait.

use crate::Error;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// A result of a file operation.
pub type Result<T> = std::result::Result<T, Error>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Only read; it must exist.
    Read,
    /// Read and write; it must exist.
    Write,
    /// Read and write; it must not exist. The new name is durable only after [`Vfs::sync_dir`] of its folder.
    Create,
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the path.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length in bytes, 0 for folders.
    pub len: u64,
}

/// Room on the file system.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes there are.
    pub total: u64,
}

/// A file system.
pub trait Vfs: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>>;
    /// Maps a finished, immutable file into memory.
    fn map(&self, path: &Path) -> Result<Mapped>;
    /// Gives a file another name, replacing what stood there. Durable only after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file. Durable only after [`Vfs::sync_dir`].
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> Result<()>;
    /// Makes a folder and its parents, durably: every new entry's parent is synced.
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// What a folder holds, sorted by name.
    fn list(&self, path: &Path) -> Result<Vec<Entry>>;
    /// Makes the folder's entries (creations, renames, removals) durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Whether something with this name exists.
    fn exists(&self, path: &Path) -> Result<bool>;
    /// Room where `path` lies.
    fn space(&self, path: &Path) -> Result<Space>;
    /// Locks `path` (created if missing) against other processes until the guard is dropped; `None` when another holds it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>>;
    /// Keeps others from [`Vfs::lock`] of `path` until the guard is dropped, not from this; `None` when it is locked. Writes
    /// nothing: the file must exist.
    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>>;
    /// A number that it has not given before, to tell files apart by. It protects nothing, so the randomness of the standard library's
    /// maps is enough; simulated disks give the same numbers in every run.
    fn unique(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::hash::RandomState::new().build_hasher().finish()
    }
}

/// An open file. Writes are durable only after `sync_data`.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end. May return fewer than asked for.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Makes content and length durable. After an error the file's state is unknown and it must not be called again.
    fn sync_data(&self) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Reserves room so that later writes below `len` do not fail for want of it; extends the file with zeros.
    fn allocate(&self, len: u64) -> Result<()>;
    /// Reads exactly `buf.len()` bytes.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<bool> {
        while !buf.is_empty() {
            let n = self.read_at(buf, offset)?;
            if n == 0 {
                return Ok(false);
            }
            buf = &mut buf[n..];
            offset += n as u64;
        }
        Ok(true)
    }
}

/// The bytes of a mapped file; cheap to clone.
#[derive(Clone)]
pub struct Mapped(pub Arc<dyn Deref<Target = [u8]> + Send + Sync>);

impl Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
