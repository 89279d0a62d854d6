//! Seeds that once failed, by the name of what they found. They run with every test, for ever.
//!
//! A seed means the same only as long as the simulator draws the same lots: after a change of the simulator it is one seed more among many, and what it
//! found is kept by the test that was written with the repair.

/// A name and a seed.
pub type Regression = (&'static str, u64);

/// All of them.
pub const ALL: &[Regression] = &[
    // A node that joins was told the newest state, and then took an older snapshot for news.
    ("the epoch of a node that joins does not go back", 25),
    // A log that ran into a full disk is replaced by maintenance, and rows that wait become durable by that.
    ("what waits is durable when a log was replaced", 17),
    // Its messages came from somebody unknown, and who that is would have been in them.
    ("a node that was away meets a leader that joined meanwhile", 413),
    // It was known by where it begins, and that had been mended.
    ("a hole of the log that grows is damage again", 705),
    // Its pages were called clean after the failed sync of its first start, and lost with the power.
    ("a segment whose first sync failed gets its header once more", 1013),
    // It still saw itself as the only holder of everything, and answered alone, while the others had acknowledged the first writes.
    ("a node that has not heard of the first data does not read alone", 1605),
    // A snapshot that failed on the way had left a segment, and the power went while it and the one before it were removed.
    ("a Raft log that begins in the middle of what was said anew is read", 2085),
];
