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
    #[error("{} takes no more writes ({reason}); restart on a healthy disk with free space", path.display())]
    Failed {
        /// The log's folder.
        path: PathBuf,
        /// The first failure.
        reason: String,
        /// Whether that was for want of space.
        full: bool,
    },
    /// A bound that keeps memory bounded.
    #[error("{name} is {max} bytes and {got} were asked for; commit and try again, or split the record")]
    Limit {
        /// The bound.
        name: &'static str,
        /// Its value.
        max: u64,
        /// What was asked for.
        got: u64,
    },
    /// Intact bytes of a format that this program is too old for.
    #[error("{} has format version {found} and this program reads up to {known}; start a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The highest version known.
        known: u32,
    },
}

impl Error {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Error::Failed { full, .. } => *full,
            _ => false,
        }
    }

    /// Whether the file or folder is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
