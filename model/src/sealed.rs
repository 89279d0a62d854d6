//! Sealed blocks as files: how a copy of a shard is filled by bytes instead of rows.

use crate::{Digest, Error, Shard, TimeRange};
use std::ops::Range;

/// Blocks are divided into pages of so many bytes. A piece of a block begins at a multiple of it, and ends at one or where the tail begins.
pub const BLOCK_PAGE: u64 = 32 << 10;

/// A sealed block: an immutable file of one shard's samples.
///
/// ```text
/// pages │ pages │ …                         │ tail
///                                            what every page must be, and what the block is
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedBlock {
    /// Tells it from every other block. A copy of the file has the same.
    pub id: u128,
    /// The window of time that it covers.
    pub range: TimeRange,
    /// From its first sample to its last.
    pub span: TimeRange,
    /// How many samples.
    pub samples: u64,
    /// Length of the file.
    pub bytes: u64,
    /// How many of them are the tail: without it, no other byte can be checked.
    pub tail_bytes: u64,
    /// Checksums of the tail. Where id, length and seal are the same, all bytes are.
    pub seal: u64,
    /// Of all samples; old files do not say.
    pub digest: Option<Digest>,
}

impl SealedBlock {
    /// Where the tail begins.
    pub fn tail_at(&self) -> u64 {
        self.bytes.saturating_sub(self.tail_bytes)
    }
}

/// An import that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// The block is here already.
    Here,
    /// These bytes are still to come, in whole pages, ascending. None: it can be finished.
    Missing(Vec<Range<u64>>),
}

/// A replica whose sealed blocks can be copied as files, from it and to it. Blocking.
///
/// Nothing becomes visible that is not a complete block with every page verified, and no call waits for another node.
pub trait SealedBlocks: Send + Sync {
    /// The blocks of a shard that reads see now, none that is known to be damaged.
    fn list(&self, shard: Shard) -> Result<Vec<SealedBlock>, Error>;

    /// Fills `into` with a block's bytes from `at` on, read from the disk. Whole pages and the tail are verified. `false`: there is no such block
    /// (any more), or it ends before.
    fn read(&self, shard: Shard, id: u128, at: u64, into: &mut [u8]) -> Result<bool, Error>;

    /// Begins to import a block, or goes on after a restart: what is on the disk is read again and verified. A tail that is none, of another
    /// block or of another shard, is [`Error::Corrupt`].
    fn begin_import(&self, shard: Shard, block: &SealedBlock, tail: &[u8]) -> Result<Import, Error>;

    /// Takes a piece of a block whose import has begun. Pieces may come in any order, and twice; other bytes than the block's are
    /// [`Error::Corrupt`] and change nothing.
    fn import(&self, shard: Shard, id: u128, at: u64, piece: &[u8]) -> Result<(), Error>;

    /// Makes a block durable of which everything has come, then visible.
    fn finish_import(&self, shard: Shard, id: u128) -> Result<(), Error>;

    /// Gives up one import that is not finished, or all of a shard, those of earlier runs too.
    fn abandon_imports(&self, shard: Shard, only: Option<u128>) -> Result<(), Error>;
}
