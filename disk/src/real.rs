//! The operating system's file system.
//!
//! Positioned reads and writes only, so that a file has no cursor to share. `sync_data` is `fdatasync`, which also makes
//! the length durable; a folder is synced by opening it and calling `fsync`. Calls interrupted by a signal are repeated.

#![expect(clippy::disallowed_methods, reason = "this is the door that every other crate must use")]

use crate::Error;
use crate::vfs::{Entry, File, Mapped, OpenMode, Result, Space, Vfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

/// An open file and the name it was opened by, for errors.
struct RealFile {
    file: fs::File,
    path: PathBuf,
}

fn at<T>(op: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { op, path: path.to_owned(), source })
}

/// Repeats a call for as long as signals interrupt it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl RealVfs {
    fn sync_parent(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            Some(_) => self.sync_dir(Path::new(".")),
            None => Ok(()),
        }
    }
}

impl Vfs for RealVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create_new(true);
            }
        }
        let op = if mode == OpenMode::Create { "create" } else { "open" };
        let file = at(op, path, uninterrupted(|| options.open(path)))?;
        Ok(Box::new(RealFile { file, path: path.to_owned() }))
    }

    #[expect(
        unsafe_code,
        reason = "a mapping is undefined behaviour when the file shrinks or changes under it; Vfs::map is for finished, \
                  immutable files in a folder that is locked against other processes, and a removed file keeps its pages"
    )]
    fn map(&self, path: &Path) -> Result<Mapped> {
        let file = at("open", path, fs::File::open(path))?;
        if at("stat", path, file.metadata())?.len() == 0 {
            return Ok(Mapped(Arc::new(Vec::new())));
        }
        // SAFETY: see the reason above.
        let mapped = at("map", path, unsafe { memmap2::Mmap::map(&file) })?;
        Ok(Mapped(Arc::new(mapped)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        at("rename", from, fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        at("remove", path, fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        at("remove folder", path, fs::remove_dir(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        // From the deepest folder that exists downwards, so that no entry is durable before its parent is.
        let missing: Vec<&Path> =
            path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.is_dir()).collect();
        if missing.is_empty() {
            // A run that was killed may have made it without syncing the parent. Whoever may not read the parent did not make it.
            return match self.sync_parent(path) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                result => result,
            };
        }
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                result => at("create folder", folder, result)?,
            }
            self.sync_parent(folder)?;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in at("list", path, fs::read_dir(path))? {
            let entry = at("list", path, entry)?;
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                // Nothing of ours has such a name.
                Err(_) => continue,
            };
            match fs::metadata(entry.path()) {
                Ok(meta) => {
                    let is_dir = meta.is_dir();
                    entries.push(Entry { name, is_dir, len: if is_dir { 0 } else { meta.len() } });
                }
                // Removed since the folder was read, or a dangling link.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return at("stat", &entry.path(), Err(error)),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let folder = at("open folder", path, fs::File::open(path))?;
        at("sync folder", path, folder.sync_all())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        at("stat", path, path.try_exists())
    }

    #[expect(unsafe_code, reason = "statvfs has no safe wrapper in std; it fills a struct that we own")]
    fn space(&self, path: &Path) -> Result<Space> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|e| Error::Io {
            op: "statvfs",
            path: path.to_owned(),
            source: e.into(),
        })?;
        let stat = uninterrupted(|| {
            let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
            // SAFETY: `name` ends in NUL and `stat` is writable; it is read only when the call says that it was filled.
            match unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } {
                0 => Ok(unsafe { stat.assume_init() }),
                _ => Err(io::Error::last_os_error()),
            }
        });
        let stat = at("statvfs", path, stat)?;
        // The fields' widths differ between platforms.
        #[allow(clippy::unnecessary_cast)]
        let (unit, free, total) = (stat.f_frsize as u64, stat.f_bavail as u64, stat.f_blocks as u64);
        Ok(Space { free: free.saturating_mul(unit), total: total.saturating_mul(unit) })
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = at("open lock", path, file)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => at("lock", path, Err(source)),
        }
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        let file = at("open lock", path, fs::File::open(path))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => at("lock", path, Err(source)),
        }
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        at("read", &self.path, uninterrupted(|| self.file.read_at(buf, offset)))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        at("write", &self.path, self.file.write_all_at(bytes, offset))
    }

    fn sync_data(&self) -> Result<()> {
        at("sync", &self.path, self.file.sync_data())
    }

    fn len(&self) -> Result<u64> {
        Ok(at("stat", &self.path, self.file.metadata())?.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        at("set length", &self.path, self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> Result<()> {
        at("allocate", &self.path, allocate(&self.file, len))
    }
}

/// Reserves blocks where the file system can, and otherwise only extends the file.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "fallocate has no safe wrapper in std; it takes a descriptor and two numbers")]
fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size = i64::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    if size == 0 {
        return Ok(());
    }
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    let result = uninterrupted(|| match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    });
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => extend(file, len),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    extend(file, len)
}

fn extend(file: &fs::File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
}
