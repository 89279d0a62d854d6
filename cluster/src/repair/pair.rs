//! What is remembered of one peer's copy of one shard.

/// When it is looked at again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    /// The last windows are due then.
    pub recent_due_ms: u64,
    /// All before them are due then.
    pub old_due_ms: u64,
    /// Nothing is asked before this.
    pub not_before_ms: u64,
    /// Pulls in a row that could not be finished.
    pub failures: u32,
    /// Pulls in a row in which the peer's rows were not what its digests said.
    pub unlike: u32,
    /// Windows that differed when they were last looked at.
    pub divergent: u64,
}

/// Doubled with each time in a row, up to a bound.
pub(super) fn back_off(first_ms: u64, times: u32, max_ms: u64) -> u64 {
    first_ms.saturating_mul(1u64.checked_shl(times.saturating_sub(1)).unwrap_or(u64::MAX)).min(max_ms)
}
