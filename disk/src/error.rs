//! What can go wrong with files.

use std::io;
use std::path::PathBuf;

/// A failure of the file system, or of the bytes in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// The operation.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Bytes that fail their checksum or make no sense.
    #[error("corrupt {} at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// An earlier write or fsync of this log failed: nothing more can be acknowledged through it.
    #[error("{} failed earlier ({reason}) and takes no more writes; restart on a healthy disk", path.display())]
    Failed {
        /// The log's folder.
        path: PathBuf,
        /// The first failure.
        reason: String,
    },
}

impl Error {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file or folder is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
