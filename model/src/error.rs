//! What can go wrong behind the seams, by what a caller can do about it.

use std::path::PathBuf;

/// An error of a [`Sink`](crate::Sink) or a [`Source`](crate::Source). One table in `server` maps it to HTTP statuses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A limit was reached. The message names the limit, its value, what was asked, and the key that sets it.
    #[error("{what}: {got} is over the limit of {max} (raise `{key}` to allow more)")]
    Limit {
        /// What was counted, for a person: `series fetched by one query`.
        what: &'static str,
        /// The configuration key that sets the limit.
        key: &'static str,
        /// The limit in force.
        max: u64,
        /// What was asked for, or reached when counting stopped.
        got: u64,
    },
    /// Too much is under way; the same request can succeed later.
    #[error("{reason}; try again in {retry_after_s} s")]
    Busy {
        /// Which queue or budget is full.
        reason: &'static str,
        /// Seconds after which a retry makes sense.
        retry_after_s: u32,
    },
    /// Writes are refused until somebody acts (disk full, disk failed); reads go on.
    #[error("read-only: {reason}")]
    ReadOnly {
        /// Why, and what fixes it.
        reason: String,
    },
    /// Too few copies of a shard can be reached.
    #[error("shard {shard} has {have} of the {need} replicas that are needed")]
    Unavailable {
        /// The shard's number.
        shard: u16,
        /// Replicas that answered.
        have: u8,
        /// Replicas that must answer.
        need: u8,
    },
    /// Bytes on disk failed their checksum or make no sense; they are never returned.
    #[error("corrupt data in {path} at byte {offset}: {what}")]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// The operating system refused an operation on a file.
    #[error("{op} {path}: {message}")]
    Io {
        /// The operation: `write`, `fsync`, `open`.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's message.
        message: String,
    },
    /// The caller gave up (client gone, deadline passed, shutdown).
    #[error("canceled")]
    Canceled,
}
