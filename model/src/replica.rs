//! What a cluster needs of one node's engine besides [`Sink`] and [`Source`].

use crate::{Appended, Batch, Digest, Error, SealedBlocks, SeriesId, Shard, Sink, Source, TimeRange};
use std::sync::Arc;

/// One node's copies of shards. Blocking, like [`Source`].
pub trait Replica: Sink + Source {
    /// The number of shards.
    fn shards(&self) -> u32;

    /// [`Sink::append`] for rows that another node has let in: they are not measured by this node's clock. Rows older than the
    /// retention are left out in silence.
    fn append_replicated(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error>;

    /// Makes everything appended so far durable. (The owner's commit loop does it by itself; a simulation has none.)
    fn commit(&self) -> Result<(), Error>;

    /// Of everything that reads see of `shard` in `range`.
    fn digest(&self, shard: Shard, range: TimeRange) -> Result<Digest, Error>;

    /// Digests that are known without a look at samples, of pieces of `range` that the replica chooses: disjoint, in the order of time, finer
    /// the newer they are. They may reach beyond `range`; what lies in none of them is not known.
    fn summary(&self, shard: Shard, range: TimeRange) -> Vec<(TimeRange, Digest)>;

    /// [`Replica::digest`] of each of these ranges, where it is known without a look at samples. All as of one moment.
    fn known_digests(&self, shard: Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>>;

    /// The same as [`Replica::digest`] by series, sorted by id, without series that have nothing there. Their sum is that digest.
    fn series_digests(&self, shard: Shard, range: TimeRange) -> Result<Vec<(SeriesId, Digest)>, Error>;

    /// Appends to `into` what is there of those of `series` (sorted by id) that have samples in `range`, with their labels and
    /// `checked`, in the order of ids, until `into` has about `bytes_max` bytes. Gives the first id that is still to be exported.
    fn export(
        &self,
        shard: Shard,
        range: TimeRange,
        series: &[SeriesId],
        bytes_max: usize,
        into: &mut Batch,
    ) -> Result<Option<SeriesId>, Error>;

    /// Appends the canonical labels of a series to `into`; whether it is known in memory.
    fn labels_of(&self, id: SeriesId, into: &mut Vec<u8>) -> bool;

    /// Places where samples may be missing because bytes were damaged. Reads leave the damaged bytes out.
    fn damage(&self) -> Vec<Damage>;

    /// Everything that was damaged there has been brought from other copies, and is durable: `damage` forgets it.
    fn mended(&self, number: u64) -> Result<(), Error>;

    /// Takes everything that is there of a shard out of sight: of it, nothing is read any more. It does not wait for the disk, which gets rid of it
    /// later; so a restart may bring back some of it. [`Error::Busy`]: not now. Whoever calls this makes sure that nothing of the shard is still
    /// wanted, or comes meanwhile that is.
    fn forget(&self, shard: Shard) -> Result<Forgotten, Error>;

    /// Its sealed blocks as files. `None`: it has no files.
    fn sealed(&self) -> Option<&dyn SealedBlocks>;
}

/// What [`Replica::forget`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Series in memory.
    pub series: u64,
    /// Blocks.
    pub blocks: u64,
}

/// A place where samples may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// For [`Replica::mended`]. The same after a restart.
    pub number: u64,
    /// The shard.
    pub shard: Shard,
    /// The time.
    pub range: TimeRange,
    /// File, offset, what was expected and what was found.
    pub what: String,
}
