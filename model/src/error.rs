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
    /// Too few copies of some shards can be reached.
    #[error("{}", unavailable(shards, *have, *need, missing))]
    Unavailable {
        /// The shards' numbers, in order.
        shards: Vec<u16>,
        /// Replicas that answered, of the shard that lacks the most.
        have: u8,
        /// Replicas that must answer.
        need: u8,
        /// Which replicas did not, and why: `127.0.0.1:7421 (timed out)`.
        missing: Vec<String>,
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

/// Shards and nodes that a message names before it counts the rest.
const NAMED_MAX: usize = 8;

fn unavailable(shards: &[u16], have: u8, need: u8, missing: &[String]) -> String {
    let names: Vec<String> = shards.iter().take(NAMED_MAX).map(u16::to_string).collect();
    let more = |count: usize| match count.saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (noun, verb) = if shards.len() == 1 { ("shard", "has") } else { ("shards", "have") };
    let mut text = format!(
        "{noun} {}{} {verb} {have} of the {need} replicas that are needed",
        names.join(", "),
        more(shards.len())
    );
    if !missing.is_empty() {
        let named: Vec<&str> = missing.iter().take(NAMED_MAX).map(String::as_str).collect();
        text.push_str(&format!("; no answer from {}{}", named.join(", "), more(missing.len())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unavailable_is_named_and_long_lists_are_counted() {
        let error = |shards: Vec<u16>, missing: &[&str]| {
            let missing = missing.iter().map(|m| m.to_string()).collect();
            Error::Unavailable { shards, have: 1, need: 2, missing }.to_string()
        };
        assert_eq!(error(vec![3], &[]), "shard 3 has 1 of the 2 replicas that are needed");
        assert_eq!(
            error(vec![3, 9], &["b:7421 (timed out)", "c:7421 (connection refused)"]),
            "shards 3, 9 have 1 of the 2 replicas that are needed; no answer from b:7421 (timed out), \
             c:7421 (connection refused)"
        );
        let many = error((0..64).collect(), &[]);
        assert_eq!(
            many,
            "shards 0, 1, 2, 3, 4, 5, 6, 7 and 56 more have 1 of the 2 replicas that are needed"
        );
    }
}
