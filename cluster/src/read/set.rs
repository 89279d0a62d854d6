//! The answer to a select: the node's own series, and what other copies have besides.

use super::answer::Packed;
use super::packed::Unpacker;
use crate::faults::{Mistake, first_wins, planted};
use crate::rows;
use model::{Error, Labels, Samples, SeriesId, SeriesKey, SeriesSet, ShardSet, TimeRange, merge};
use std::cell::RefCell;
use std::sync::Arc;

/// A union of copies.
///
/// Series of the node's own replica come first, in its order, and are read lazily, as on a single node. Rows that were fetched stay encoded
/// until they are read, and are merged by the conflict rule.
pub struct Set {
    /// Outside of this, copies were not compared.
    pub(super) range: TimeRange,
    pub(super) own: Vec<Arc<dyn SeriesSet>>,
    pub(super) owned: usize,
    /// Series that the own replica does not have.
    pub(super) others: Vec<(SeriesId, Labels)>,
    /// By series, then in any order.
    pub(super) parts: Vec<Part>,
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) key: SeriesKey,
    pub(super) shards: u32,
    pub(super) warnings: Vec<String>,
    pub(super) differing: ShardSet,
}

/// Rows that were fetched for a series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub series: u32,
    chunk: u32,
    at: u32,
    len: u32,
}

impl Part {
    pub fn new(series: u32, packed: &Packed, chunks_before: usize) -> Part {
        Part { series, chunk: packed.chunk + chunks_before as u32, at: packed.at, len: packed.len }
    }
}

thread_local! {
    /// Where parts of a series are decoded before they are merged.
    static PARTS: RefCell<Vec<Samples>> = RefCell::default();
}

impl Set {
    /// Shards of which copies differ: repair should look at them soon. (Rows on their way to a replica are a difference, too.)
    pub fn differing(&self) -> &ShardSet {
        &self.differing
    }

    /// Where in the node's own replica a series is, if it is there.
    fn own(&self, mut index: usize) -> Option<(&dyn SeriesSet, usize)> {
        for own in &self.own {
            if index < own.len() {
                return Some((&**own, index));
            }
            index -= own.len();
        }
        None
    }

    fn unpack(&self, part: Part, range: TimeRange, into: &mut Samples) {
        let bytes = &self.chunks[part.chunk as usize][part.at as usize..][..part.len as usize];
        let section = rows::sections(bytes).next().and_then(Result::ok);
        let section = section.expect("BUG: a section that was read before cannot be cut out");
        let mut unpacker = Unpacker::new(self.key, self.shards);
        unpacker.read(&section, into).expect("BUG: a section that was read before cannot be read");
        into.restrict(range);
    }
}

impl SeriesSet for Set {
    fn len(&self) -> usize {
        self.owned + self.others.len()
    }

    fn id(&self, index: usize) -> SeriesId {
        match self.own(index) {
            Some((own, index)) => own.id(index),
            None => self.others[index - self.owned].0,
        }
    }

    fn labels(&self, index: usize) -> Labels {
        match self.own(index) {
            Some((own, index)) => own.labels(index),
            None => self.others[index - self.owned].1.clone(),
        }
    }

    fn read(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), Error> {
        let range = TimeRange { min: range.min.max(self.range.min), max: range.max.min(self.range.max) };
        let own = self.own(index);
        let series = index as u32;
        let from = self.parts.partition_point(|part| part.series < series);
        let parts = &self.parts[from..];
        let parts = &parts[..parts.partition_point(|part| part.series == series)];
        match (own, parts) {
            (Some((own, index)), []) => own.read(index, range, into),
            (None, [part]) => {
                self.unpack(*part, range, into);
                Ok(())
            }
            _ => PARTS.with_borrow_mut(|all| {
                let count = parts.len() + usize::from(own.is_some());
                all.resize_with(all.len().max(count), Samples::default);
                for (part, samples) in parts.iter().zip(&mut all[..]) {
                    self.unpack(*part, range, samples);
                }
                if let Some((own, index)) = own {
                    own.read(index, range, &mut all[parts.len()])?;
                }
                if planted(Mistake::MergeByArrival) {
                    first_wins(&mut all[..count]);
                }
                merge::merge(&all[..count].iter().collect::<Vec<_>>(), into);
                Ok(())
            }),
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
