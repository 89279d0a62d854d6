//! The immutable block: one shard's samples of one window of time, with their index, in one self-contained file.
//!
//! ```text
//! blocks/<namespace>/<shard>/<min>-<max>-<level>-<id>.block
//!
//! head | values | times | extras | symbols | shapes | series | groups | labels | postings | checksums | footer
//! ```
//!
//! `docs/format/block.md` draws every byte. In short: the footer says where the sections are; `labels` is an FST from
//! label to the `postings` of the series that have it; `groups` finds a series in the `series` table, which refers to
//! `symbols` for its labels, to a column of `times` that it shares with all series of the same scrape, to its chunks of
//! `values`, and to `extras` for what is rare (start timestamps, native histograms).
//!
//! Invariants:
//! * Written once, complete, under a temporary name; the name ends in `.block` only after the content was fsynced.
//! * Series lie in [`order`], and their number is their position. Ids are not stored: they are the hash of the labels.
//! * Every byte is covered by a checksum that also covers the file's id and the byte's place, so a page of another
//!   file, or of another place in this one, is as corrupt as a flipped bit. A page is checked before the first use of
//!   any of its bytes; what fails is an error and never data.
//! * No state outside the file: it can be copied to another node of the cluster as it is.

mod builder;
mod column;
mod cursor;
mod extras;
mod format;
mod index;
mod part;
mod postings;
mod reader;
mod series;
mod symbols;
#[cfg(test)]
mod tests;
mod verify;

pub use builder::Builder;
pub use cursor::LabelCursor;
pub use format::{FORMAT_VERSION, Section};
pub(crate) use part::Part;
pub use reader::{Reader, Stats, found_damaged};

use model::{Digest, Labels, Shard, TimeRange};
use std::cmp::Ordering;
use std::path::PathBuf;

/// How the name of an import that is not finished ends.
pub(crate) const PART: &str = ".part";

/// What a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The shard that its series belong to.
    pub shard: Shard,
    /// The window of time that it covers; all its samples lie inside.
    pub range: TimeRange,
    /// 0 for a block from the head, one more for each merge.
    pub level: u8,
    /// Tells it from every other block of the node, for ever.
    pub id: u128,
}

impl Header {
    /// The file's name.
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}-{:032x}.block", self.range.min, self.range.max, self.level, self.id)
    }

    /// The file's name while it comes from another node.
    pub fn part_name(&self) -> String {
        format!("{}-{}-{}-{:032x}{PART}", self.range.min, self.range.max, self.level, self.id)
    }

    /// The range of time that a file's name tells, for a file that tells nothing else any more.
    pub fn range_of_file_name(name: &str) -> Option<TimeRange> {
        // From the end, since numbers before the epoch begin with a minus.
        let (rest, _id) = name.strip_suffix(".block")?.rsplit_once('-')?;
        let (range, _level) = rest.rsplit_once('-')?;
        let minus = 1 + range.get(1..)?.find('-')?;
        let (min, max) = (range.get(..minus)?.parse().ok()?, range.get(minus + 1..)?.parse().ok()?);
        (min <= max).then(|| TimeRange::new(min, max))
    }
}

/// What is known of a block without reading more than its footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Where it lies.
    pub path: PathBuf,
    /// The shard that its series belong to.
    pub shard: Shard,
    /// The window of time that it covers.
    pub range: TimeRange,
    /// How often its samples have been merged.
    pub level: u8,
    /// Tells it from every other block of the node.
    pub id: u128,
    /// From the first sample to the last.
    pub span: TimeRange,
    /// How many series.
    pub series: u64,
    /// How many samples, histograms included.
    pub samples: u64,
    /// How many of them are native histograms.
    pub histograms: u64,
    /// How many chunks of floats.
    pub chunks: u64,
    /// How many columns of timestamps they share.
    pub columns: u64,
    /// Of all samples; a file of version 1 does not say.
    pub digest: Option<Digest>,
    /// Length of the file.
    pub bytes: u64,
}

/// The order of series in a block: by metric name, then by labels. Series of one metric resemble each other, in their
/// labels and in their values.
pub fn order(a: &Labels, b: &Labels) -> Ordering {
    a.metric_name().unwrap_or("").cmp(b.metric_name().unwrap_or("")).then_with(|| a.cmp(b))
}
