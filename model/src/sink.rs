//! Where batches go.

use crate::{Batch, Error, Metadata, SeriesKey};
use std::pin::Pin;
use std::sync::Arc;

/// Resolves when what was appended is as durable as was promised (fsynced on a majority, or on the one node there is).
/// An error means *unknown*: it may or may not have been kept, and sending again is safe.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Takes batches of samples.
///
/// Labels travel only for series that the sink does not know. A writer first sends all rows with `checked = false`;
/// what the sink cannot place comes back in [`Appended::unknown`], the writer checks those labels (canonicalising them
/// if need be, which changes the id) and sends these series once more with `checked = true`.
pub trait Sink: Send + Sync {
    /// The key with which label bytes become series ids.
    fn key(&self) -> SeriesKey;

    /// Appends the series of `batch` whose indices are in `only`, or all of them. Rows are visible to reads when this
    /// returns; they may be acknowledged when [`Appended::durable`] has resolved. A row that is already there, with any
    /// value, is not an error: the conflict rule settles it. A sink that sends rows on keeps the batch until [`Appended::durable`]
    /// has resolved.
    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error>;

    /// Keeps what is known about metric families; the last word wins.
    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error>;
}

/// What became of one [`Sink::append`].
pub struct Appended {
    /// When the rows may be acknowledged.
    pub durable: Durable,
    /// What was taken.
    pub written: Written,
    /// Indices into [`Batch::series`] that the sink has no series for and whose labels were not `checked`.
    pub unknown: Vec<u32>,
    /// Rows that will never be accepted.
    pub rejected: Vec<Rejection>,
}

/// Rows taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub floats: u64,
    /// Native histograms.
    pub histograms: u64,
}

/// Rows of one series that will never be accepted, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Index into [`Batch::series`].
    pub series: u32,
    /// The timestamp of the first such row, in milliseconds.
    pub timestamp: i64,
    /// How many rows of this series.
    pub rows: u32,
    /// Why.
    pub reason: RejectReason,
}

/// Why rows are refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Older than the retention.
    TooOld,
    /// Further in the future than is allowed.
    TooFarInFuture,
    /// The node or tenant may not have more series.
    SeriesLimit,
    /// Another series has the same 128-bit id.
    IdCollision,
}

impl RejectReason {
    /// For metrics and for people; the first two are Prometheus's own words.
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::TooOld => "out of bounds: timestamp is older than the retention",
            RejectReason::TooFarInFuture => "out of bounds: timestamp is too far in the future",
            RejectReason::SeriesLimit => "too many series (raise `limits.series_max` to allow more)",
            RejectReason::IdCollision => "the series' id is taken by other labels",
        }
    }
}
