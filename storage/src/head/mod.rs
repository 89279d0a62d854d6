//! The mutable part of a shard: its active series and their newest samples.
//!
//! ```text
//! id ──Table──▶ slot ──▶ Series { open rows | sealed chunks | side buffer }
//!                          └─ refs ──▶ Index: label bytes, label ──▶ slots
//! ```
//!
//! An in-order float goes into the open rows of its series and allocates nothing; every sixteenth packs them. All else
//! (late samples, histograms, start timestamps) goes to the side buffer, which most series never have.
//!
//! A head knows no files and no locks: its shard's lock protects it.
//!
//! Invariants: slots are handed out upwards and keep their series until [`Head::shrink`] rebuilds everything; the
//! sealed chunks of a series ascend and do not overlap; frozen samples are a prefix of its chunks and runs.

mod chunk;
mod index;
mod minutes;
mod series;
mod side;
mod table;

use index::Index;
pub use minutes::{MINUTE_MS, Minutes};
pub use series::{Frozen, Garbage, Outcome, Scratch, Series, Snapshot};
pub use side::histogram_bytes;
pub use table::Table;

use model::{Labels, SeriesId, TimeRange};

/// The series of one shard that were written to lately.
#[derive(Default)]
pub struct Head {
    table: Table,
    /// By slot.
    pub series: Vec<Series>,
    /// The numbers of the labels of all series, each series' together.
    refs: Vec<u32>,
    /// The labels.
    pub index: Index,
    /// Working memory for packing.
    pub scratch: Scratch,
    /// Memory behind the series' chunks and side buffers, roughly.
    pub sample_bytes: usize,
    /// The greatest timestamp ever appended.
    pub newest: Option<i64>,
    /// The least timestamp that may be here.
    pub oldest: Option<i64>,
    /// Digests of the newest minutes, of blocks too.
    pub minutes: Minutes,
}

impl Head {
    /// The slot of a series.
    #[inline]
    pub fn find(&self, id: SeriesId) -> Option<u32> {
        self.table.find(id, |slot| self.series[slot as usize].id == id)
    }

    /// Brings the series of these ids near, if they are here. An append waits for two cache misses, one after the other, of each of its rows;
    /// here nothing depends on anything, so that the misses of many rows are waited for together.
    pub fn approach(&self, ids: impl Iterator<Item = SeriesId>, guesses: &mut Vec<u32>) {
        guesses.clear();
        guesses.extend(ids.map(|id| self.table.guess(id)));
        let near = guesses.iter().filter_map(|&slot| self.series.get(slot as usize));
        std::hint::black_box(near.fold(0, |sum, series| sum ^ series.approach()));
    }

    /// Adds a series that is not there. The bytes are canonical.
    pub fn create(&mut self, id: SeriesId, canonical: &[u8]) -> u32 {
        let slot = u32::try_from(self.series.len()).expect("BUG: more series than u32 can count");
        let labels_at = u32::try_from(self.refs.len()).expect("BUG: more labels than u32 can count");
        self.index.insert(slot, canonical, &mut self.refs);
        self.series.push(Series::new(id, labels_at, self.refs.len() as u32 - labels_at));
        self.table.insert(id, slot);
        slot
    }

    /// Appends the canonical label bytes of a series.
    pub fn labels_bytes(&self, slot: u32, into: &mut Vec<u8>) {
        let series = &self.series[slot as usize];
        let at = series.labels_at as usize;
        for &label in &self.refs[at..at + series.labels_len as usize] {
            into.extend_from_slice(self.index.label(label));
        }
    }

    /// The labels of a series.
    pub fn labels(&self, slot: u32) -> Labels {
        let mut bytes = Vec::with_capacity(256);
        self.labels_bytes(slot, &mut bytes);
        Labels::from_canonical(&bytes)
    }

    /// Whether a series has these very labels.
    pub fn has_labels(&self, slot: u32, canonical: &[u8]) -> bool {
        let series = &self.series[slot as usize];
        let at = series.labels_at as usize;
        let mut rest = canonical;
        for &label in &self.refs[at..at + series.labels_len as usize] {
            let Some(after) = rest.strip_prefix(self.index.label(label)) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    /// The slots of all series.
    pub fn slots(&self) -> std::ops::Range<u32> {
        0..self.series.len() as u32
    }

    /// Whether there may be a sample in the range, by the bounds of all samples alone.
    pub fn may_touch(&self, range: TimeRange) -> bool {
        self.oldest.is_some_and(|t| t <= range.max.0) && self.newest.is_some_and(|t| t >= range.min.0)
    }

    /// Whether there is a sample in the range, as far as can be told without unpacking any.
    pub fn touches(&self, range: TimeRange) -> bool {
        self.may_touch(range) && self.series.iter().any(|series| series.touches(range))
    }

    /// Whether a series has, or may have, samples in the range.
    pub fn overlaps(&self, slot: u32, range: TimeRange) -> bool {
        let series = &self.series[slot as usize];
        let all_in =
            self.oldest.is_none_or(|t| range.contains(t)) && self.newest.is_none_or(|t| range.contains(t));
        // The bounds of a series lie in its chunks, which are further away than the series.
        !series.is_empty()
            && (all_in || series.bounds().is_some_and(|(a, b)| TimeRange::new(a, b).overlaps(&range)))
    }

    /// Tells of every label, by its number, whether one of these series has it and samples in the range; of any series,
    /// if none are given. Looks at no label's text.
    pub fn labels_among<'a>(
        &'a self,
        series: Option<&[u32]>,
        range: TimeRange,
    ) -> Box<dyn Fn(u32) -> bool + 'a> {
        let Some(series) = series else {
            return Box::new(move |label| {
                self.index.slots(label).iter().any(|&slot| self.overlaps(slot, range))
            });
        };
        let mut had = vec![false; self.index.label_count()];
        for &slot in series.iter().filter(|&&slot| self.overlaps(slot, range)) {
            let series = &self.series[slot as usize];
            let at = series.labels_at as usize;
            self.refs[at..at + series.labels_len as usize]
                .iter()
                .for_each(|&label| had[label as usize] = true);
        }
        Box::new(move |label| had[label as usize])
    }

    /// Widens the bounds of time by a timestamp.
    #[inline]
    pub fn saw(&mut self, t: i64) {
        self.newest = Some(self.newest.map_or(t, |n| n.max(t)));
        self.oldest = Some(self.oldest.map_or(t, |o| o.min(t)));
    }

    /// Sets apart what is before `before`, for all series.
    pub fn freeze(&mut self, before: i64) -> Vec<(u32, Frozen)> {
        let Head { series, scratch, sample_bytes, .. } = self;
        let mut all = Vec::new();
        for (slot, series) in series.iter_mut().enumerate() {
            let frozen = series.freeze(before, scratch, sample_bytes);
            if frozen.chunks + frozen.runs > 0 {
                all.push((slot as u32, frozen));
            }
        }
        all
    }

    /// Drops what was frozen; what must be freed is returned, for after the lock.
    pub fn forget(&mut self, frozen: &[(u32, Frozen)]) -> Garbage {
        let mut garbage = Garbage::default();
        for &(slot, frozen) in frozen {
            self.series[slot as usize].forget(frozen, &mut garbage);
        }
        self.sample_bytes = self.series.iter().map(Series::bytes).sum();
        self.oldest = self.series.iter().filter_map(|s| s.bounds()).map(|b| b.0).min();
        garbage
    }

    /// Rebuilds the head without its empty series when these are a good part of it. Returns how many went.
    pub fn shrink(&mut self) -> usize {
        let empty = self.series.iter().filter(|s| s.is_empty()).count();
        if empty == 0 || empty * 8 < self.series.len() {
            return 0;
        }
        let minutes = std::mem::take(&mut self.minutes);
        let mut kept = Head { newest: self.newest, oldest: self.oldest, minutes, ..Head::default() };
        kept.series.reserve_exact(self.series.len() - empty);
        let mut bytes = Vec::new();
        for slot in 0..self.series.len() as u32 {
            if self.series[slot as usize].is_empty() {
                continue;
            }
            bytes.clear();
            self.labels_bytes(slot, &mut bytes);
            let new = kept.create(self.series[slot as usize].id, &bytes) as usize;
            let (labels_at, labels_len) = (kept.series[new].labels_at, kept.series[new].labels_len);
            let placeholder = Series::new(SeriesId(0), 0, 0);
            kept.series[new] = std::mem::replace(&mut self.series[slot as usize], placeholder);
            kept.series[new].labels_at = labels_at;
            kept.series[new].labels_len = labels_len;
        }
        kept.sample_bytes = self.sample_bytes;
        *self = kept;
        empty
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
            + self.series.capacity() * size_of::<Series>()
            + self.refs.capacity() * 4
            + self.index.bytes()
            + self.sample_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Samples, SeriesKey};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn content(snapshot: Option<Snapshot>) -> BTreeMap<i64, u64> {
        let (mut straight, mut side) = (Samples::default(), Vec::new());
        if let Some(snapshot) = snapshot {
            snapshot.runs(TimeRange::ALL, &mut straight, &mut side);
        }
        let all: Vec<&Samples> = std::iter::once(&straight).chain(side.iter().map(|run| &**run)).collect();
        let mut merged = Samples::default();
        crate::merge::merge(&all, &mut merged);
        merged.timestamps.iter().zip(&merged.values).map(|(&t, v)| (t, v.to_bits())).collect()
    }

    /// Mostly ascending timestamps, some late; the value is a function of the timestamp.
    fn timestamps() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec((0i64..20, prop::bool::weighted(0.2)), 0..400).prop_map(|steps| {
            let mut now = 0;
            let next = |(step, late): (i64, bool)| {
                now += step;
                if late { now / 2 } else { now }
            };
            steps.into_iter().map(next).collect()
        })
    }

    proptest! {
        #[test]
        fn a_flush_takes_exactly_what_is_before_the_cut_and_leaves_what_came_meanwhile(
            first in timestamps(), meanwhile in timestamps(), cut in 0i64..4000, shift in 0i64..4000
        ) {
            let labels = Labels::from_pairs([("a", "b")]).unwrap();
            let id = SeriesKey([1, 2, 3, 4]).id(labels.as_bytes());
            let mut head = Head::default();
            let slot = head.create(id, labels.as_bytes());
            let append = |head: &mut Head, t: i64| {
                let Head { series, scratch, sample_bytes, .. } = head;
                series[slot as usize].append_float(t, 0, t as f64, scratch, sample_bytes);
            };
            first.iter().for_each(|&t| append(&mut head, t));
            let frozen = head.freeze(cut);
            let taken = frozen.first().and_then(|&(slot, frozen)| head.series[slot as usize].frozen(frozen));
            let expected = |ts: &mut dyn Iterator<Item = i64>| ts.map(|t| (t, (t as f64).to_bits())).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(content(taken), expected(&mut first.iter().copied().filter(|&t| t < cut)));
            // What arrives while the block is being written, some of it before the cut.
            let meanwhile: Vec<i64> = meanwhile.iter().map(|t| t + shift).collect();
            meanwhile.iter().for_each(|&t| append(&mut head, t));
            let all = || first.iter().chain(&meanwhile).copied();
            prop_assert_eq!(content(head.series[slot as usize].snapshot(TimeRange::ALL)), expected(&mut all()));
            head.forget(&frozen);
            let left = content(head.series[slot as usize].snapshot(TimeRange::ALL));
            let must = expected(&mut first.iter().copied().filter(|&t| t >= cut));
            prop_assert!(must.iter().all(|(t, v)| left.get(t) == Some(v)), "lost of {:?}", must);
            // A sample that was there when it came again need not be kept twice.
            for t in &meanwhile {
                prop_assert!(left.contains_key(t) || first.contains(t), "lost {}", t);
            }
            prop_assert!(left.keys().all(|t| *t >= cut || meanwhile.contains(t)));
        }
    }
}
