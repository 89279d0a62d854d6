//! The nouns of a time-series database, and the seams that the rest of the house is joined by.
//!
//! A [`Batch`] of samples goes into a [`Sink`]; a [`Source`] gives back [`SeriesSet`]s. `storage` implements both for
//! one node, `cluster` for many; `ingest` feeds the one and `query` reads the other, and neither knows who is behind it.
//! A [`Replica`] is what `cluster` sees of the engine of one node.
//!
//! Everything here is pure: no files, no sockets, no clock, no threads.

pub mod batch;
pub mod digest;
pub mod error;
pub mod histogram;
pub mod id;
pub mod labels;
pub mod matcher;
pub mod merge;
pub mod metadata;
pub mod replica;
pub mod sealed;
pub mod shards;
pub mod sink;
pub mod source;
pub mod time;
pub mod value;
pub mod varint;

pub use batch::{Batch, BatchSeries, HistogramRow};
pub use digest::{Digest, DigestKey};
pub use error::Error;
pub use histogram::Histogram;
pub use id::{SeriesId, SeriesKey, Shard};
pub use labels::Labels;
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Metadata, MetricType};
pub use replica::{Damage, Forgotten, Replica};
pub use sealed::{BLOCK_PAGE, Import, SealedBlock, SealedBlocks};
pub use shards::ShardSet;
pub use sink::{Appended, Durable, RejectReason, Rejection, Sink, Written};
pub use source::{LabelQuery, Limited, Samples, Selection, SeriesSet, Source};
pub use time::{TimeRange, Timestamp};
