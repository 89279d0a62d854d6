//! Which node holds which shard.
