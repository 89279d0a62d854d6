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
mod series;
mod side;
mod table;

use index::Index;
pub use series::{Frozen, Garbage, Outcome, Scratch, Series, Snapshot};
pub use table::Table;

use model::{Labels, SeriesId};

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
}

impl Head {
    /// The slot of a series.
    #[inline]
    pub fn find(&self, id: SeriesId) -> Option<u32> {
        self.table.find(id, |slot| self.series[slot as usize].id == id)
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
        let mut kept = Head { newest: self.newest, oldest: self.oldest, ..Head::default() };
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
