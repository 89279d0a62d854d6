//! What can go wrong in one node's engine, by what a caller can do about it.

use std::path::PathBuf;

/// A result in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes on disk fail their checksum or make no sense; they are never returned. The file must be repaired from a
    /// copy or set aside.
    #[error("corrupt {} at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// A data directory that must not be served from.
    #[error("data directory {}: {why}", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// Why, and the way out.
        why: String,
    },
    /// The file system or the log failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A limit was reached.
    #[error("{what}: {got} is over the limit of {max} (raise `{key}` to allow more)")]
    Limit {
        /// What was counted, for a person.
        what: &'static str,
        /// The configuration key that sets the limit.
        key: &'static str,
        /// The limit in force.
        max: u64,
        /// What was asked for.
        got: u64,
    },
}

impl From<Error> for model::Error {
    fn from(error: Error) -> model::Error {
        match error {
            Error::Corrupt { path, offset, what } => model::Error::Corrupt { path, offset, what },
            refused @ Error::Refused { .. } => model::Error::ReadOnly { reason: refused.to_string() },
            Error::Limit { what, key, max, got } => model::Error::Limit { what, key, max, got },
            Error::Disk(disk::Error::Io { op, path, source }) => {
                model::Error::Io { op, path, message: source.to_string() }
            }
            Error::Disk(disk::Error::Corrupt { path, offset, what }) => {
                model::Error::Corrupt { path, offset, what }
            }
            Error::Disk(other) => model::Error::ReadOnly { reason: other.to_string() },
        }
    }
}
