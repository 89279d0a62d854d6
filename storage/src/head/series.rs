//! One series in memory.

use super::chunk::Chunk;
use super::side::Side;
use model::{Histogram, Samples, SeriesId, TimeRange, value};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows of the open chunk. Sixteen keep a series within five cache lines; sealing costs an allocation per 16 samples.
pub const OPEN_ROWS: usize = 16;
/// So many short chunks at the end of a series become one long one: 16 x 8 = 128 samples, where packing pays.
const SHORT_CHUNKS: usize = 8;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new, or may be, or replaced a lesser value.
    Taken,
    /// It was there already, or lost to what was there.
    Known,
}

/// A row of the open chunk: milliseconds after `Series::base`, and the value's bits in two halves, which spares the
/// padding.
#[derive(Clone, Copy, Default)]
struct Row {
    after: u32,
    low: u32,
    high: u32,
}

/// A series and its samples.
pub struct Series {
    /// Who it is.
    pub id: SeriesId,
    /// The WAL generation in which it was last defined...
    pub generation: u32,
    /// ...and its number there.
    pub number: u32,
    /// Where its labels begin in `Head::refs`.
    pub labels_at: u32,
    /// How many labels it has.
    pub labels_len: u32,
    /// The greatest timestamp on the straight path, `i64::MIN` before the first.
    last: i64,
    /// What the open rows count from.
    base: i64,
    open: [Row; OPEN_ROWS],
    open_len: u32,
    /// Short chunks at the end of `sealed`.
    short: u32,
    /// Ascending, disjoint.
    sealed: Vec<Chunk>,
    side: Option<Box<Side>>,
}

/// Working memory for packing.
#[derive(Default)]
pub struct Scratch {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    bytes: Vec<u8>,
}

/// How much of a series a flush has taken: the first so many sealed chunks and ordered runs of the side buffer.
#[derive(Clone, Copy, Default)]
pub struct Frozen {
    pub chunks: u32,
    pub runs: u32,
}

impl Series {
    pub fn new(id: SeriesId, labels_at: u32, labels_len: u32) -> Series {
        Series {
            id,
            generation: 0,
            number: 0,
            labels_at,
            labels_len,
            last: i64::MIN,
            base: 0,
            open: [Row::default(); OPEN_ROWS],
            open_len: 0,
            short: 0,
            sealed: Vec::new(),
            side: None,
        }
    }

    fn open(&self) -> impl DoubleEndedIterator<Item = (i64, f64)> {
        self.open[..self.open_len as usize].iter().map(|row| {
            let bits = u64::from(row.high) << 32 | u64::from(row.low);
            (self.base + i64::from(row.after), f64::from_bits(bits))
        })
    }

    /// Loads what an append will look at first, and gives something that depends on all of it.
    #[inline]
    pub fn approach(&self) -> u32 {
        self.number ^ self.last as u32 ^ self.open_len
    }

    /// Whether a float is the next one in order and goes into the open rows.
    #[inline]
    pub fn is_straight(&self, t: i64, start: i64) -> bool {
        t > self.last && start == 0
    }

    /// Appends a float; `bytes` is the head's account of memory.
    #[inline]
    pub fn append_float(
        &mut self,
        t: i64,
        start: i64,
        v: f64,
        scratch: &mut Scratch,
        bytes: &mut usize,
    ) -> Outcome {
        if self.is_straight(t, start) {
            if self.open_len as usize == OPEN_ROWS || t.wrapping_sub(self.base) as u64 > u64::from(u32::MAX) {
                self.seal(scratch, bytes);
            }
            if self.open_len == 0 {
                self.base = t;
            }
            let bits = v.to_bits();
            self.open[self.open_len as usize] =
                Row { after: t.wrapping_sub(self.base) as u32, low: bits as u32, high: (bits >> 32) as u32 };
            self.open_len += 1;
            self.last = t;
            return Outcome::Taken;
        }
        self.append_aside(t, start, v, bytes)
    }

    #[cold]
    fn append_aside(&mut self, t: i64, start: i64, v: f64, bytes: &mut usize) -> Outcome {
        let open = if start == 0 { self.open().enumerate().find(|(_, row)| row.0 == t) } else { None };
        if let Some((i, (_, known))) = open {
            if value::cmp_floats(v, known) != Ordering::Greater {
                return Outcome::Known;
            }
            let bits = v.to_bits();
            self.open[i].low = bits as u32;
            self.open[i].high = (bits >> 32) as u32;
            return Outcome::Taken;
        }
        *bytes += self.side.get_or_insert_default().push_float(t, start, v);
        Outcome::Taken
    }

    /// Appends a histogram.
    pub fn append_histogram(&mut self, t: i64, start: i64, h: Arc<Histogram>, bytes: &mut usize) -> Outcome {
        *bytes += self.side.get_or_insert_default().push_histogram(t, start, h);
        Outcome::Taken
    }

    /// Packs the open rows.
    fn seal(&mut self, scratch: &mut Scratch, bytes: &mut usize) {
        if self.open_len == 0 {
            return;
        }
        let Scratch { timestamps, values, bytes: packed } = scratch;
        timestamps.clear();
        values.clear();
        if self.short as usize + 1 == SHORT_CHUNKS {
            for chunk in self.sealed.drain(self.sealed.len() - self.short as usize..) {
                *bytes = bytes.saturating_sub(chunk.bytes());
                chunk.unpack(timestamps, values);
            }
            self.short = 0;
        } else {
            self.short += 1;
        }
        for row in &self.open[..self.open_len as usize] {
            timestamps.push(self.base + i64::from(row.after));
            values.push(f64::from_bits(u64::from(row.high) << 32 | u64::from(row.low)));
        }
        self.open_len = 0;
        let chunk = Chunk::seal(timestamps, values, packed);
        *bytes += chunk.bytes();
        self.sealed.push(chunk);
    }

    /// The first and last timestamp there is.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        let first = self.sealed.first().map(Chunk::first).or_else(|| self.open().next().map(|r| r.0));
        let last = self.open().next_back().map(|r| r.0).or_else(|| self.sealed.last().map(Chunk::last));
        let straight = first.zip(last);
        let side = self.side.as_ref().and_then(|side| side.bounds());
        match (straight, side) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (one, other) => one.or(other),
        }
    }

    /// Whether it has, or may have, samples in the range.
    pub fn touches(&self, range: TimeRange) -> bool {
        let from = self.sealed.partition_point(|chunk| chunk.last() < range.min.0);
        self.sealed.get(from).is_some_and(|chunk| chunk.first() <= range.max.0)
            || self.open().any(|row| range.contains(row.0))
            || self.side.as_ref().is_some_and(|side| side.touches(range))
    }

    /// The samples in `range`, or a little more, as cheap shares and copies.
    pub fn snapshot(&self, range: TimeRange) -> Option<Snapshot> {
        let from = self.sealed.partition_point(|chunk| chunk.last() < range.min.0);
        let chunks: Box<[Chunk]> =
            self.sealed[from..].iter().take_while(|chunk| chunk.first() <= range.max.0).cloned().collect();
        let open: Box<[(i64, f64)]> = self.open().filter(|row| range.contains(row.0)).collect();
        let mut side = Vec::new();
        if let Some(buffer) = &self.side {
            buffer.snapshot(range, &mut side);
        }
        if chunks.is_empty() && open.is_empty() && side.is_empty() {
            return None;
        }
        Some(Snapshot { chunks, open, side })
    }

    /// Sets everything before `before` apart, so that a flush can write it while appends go on, and tells how much that
    /// is. Reads still see it.
    pub fn freeze(&mut self, before: i64, scratch: &mut Scratch, bytes: &mut usize) -> Frozen {
        if self.open().next().is_some_and(|row| row.0 < before) {
            let tail: Vec<(i64, f64)> = self.open().filter(|row| row.0 >= before).collect();
            self.open_len -= tail.len() as u32;
            self.seal(scratch, bytes);
            self.reopen(&tail);
        }
        let mut chunks = self.sealed.partition_point(|chunk| chunk.last() < before);
        if let Some(straddling) = self.sealed.get(chunks).filter(|chunk| chunk.first() < before) {
            let Scratch { timestamps, values, bytes: packed } = scratch;
            timestamps.clear();
            values.clear();
            straddling.unpack(timestamps, values);
            *bytes = bytes.saturating_sub(straddling.bytes());
            let cut = timestamps.partition_point(|&t| t < before);
            let tail = Chunk::seal(&timestamps[cut..], &values[cut..], packed);
            let front = Chunk::seal(&timestamps[..cut], &values[..cut], packed);
            *bytes += front.bytes() + tail.bytes();
            self.sealed.splice(chunks..=chunks, [front, tail]);
            chunks += 1;
        }
        // What is frozen must not be packed again together with what comes later.
        self.short = self.short.min((self.sealed.len() - chunks) as u32);
        let runs = self.side.as_mut().map_or(0, |side| side.freeze(before));
        Frozen { chunks: chunks as u32, runs: runs as u32 }
    }

    fn reopen(&mut self, rows: &[(i64, f64)]) {
        let Some(&(base, _)) = rows.first() else { return };
        self.base = base;
        for (row, &(t, v)) in self.open.iter_mut().zip(rows) {
            let bits = v.to_bits();
            *row = Row { after: (t - base) as u32, low: bits as u32, high: (bits >> 32) as u32 };
        }
        self.open_len = rows.len() as u32;
    }

    /// The frozen samples.
    pub fn frozen(&self, frozen: Frozen) -> Option<Snapshot> {
        if frozen.chunks == 0 && frozen.runs == 0 {
            return None;
        }
        let side = self.side.as_ref().map_or(Vec::new(), |side| side.frozen(frozen.runs as usize).to_vec());
        Some(Snapshot { chunks: self.sealed[..frozen.chunks as usize].into(), open: Box::new([]), side })
    }

    /// Drops what a flush has taken, into `garbage` so that it is freed outside the lock.
    pub fn forget(&mut self, frozen: Frozen, garbage: &mut Garbage) {
        garbage.chunks.extend(self.sealed.drain(..frozen.chunks as usize));
        if let Some(side) = &mut self.side {
            side.forget(frozen.runs as usize, &mut garbage.runs);
            if side.is_empty() {
                self.side = None;
            }
        }
    }

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.open_len == 0 && self.sealed.is_empty() && self.side.is_none()
    }

    /// Memory behind this series, roughly.
    pub fn bytes(&self) -> usize {
        self.sealed.capacity() * size_of::<Chunk>()
            + self.sealed.iter().map(Chunk::bytes).sum::<usize>()
            + self.side.as_ref().map_or(0, |side| side.bytes())
    }

    /// How many samples it has; the side buffer's may be counted more than once.
    pub fn samples(&self) -> usize {
        self.open_len as usize
            + self.sealed.iter().map(Chunk::len).sum::<usize>()
            + self.side.as_ref().map_or(0, |side| side.samples())
    }
}

/// What a flush made superfluous.
#[derive(Default)]
pub struct Garbage {
    chunks: Vec<Chunk>,
    runs: Vec<Arc<Samples>>,
}

/// A consistent view of one series, independent of the head.
pub struct Snapshot {
    chunks: Box<[Chunk]>,
    open: Box<[(i64, f64)]>,
    side: Vec<Arc<Samples>>,
}

impl Snapshot {
    /// Appends the samples in `range` as ordered runs: first the straight path, then the side buffer's.
    pub fn runs(&self, range: TimeRange, straight: &mut Samples, side: &mut Vec<Arc<Samples>>) {
        let Samples { timestamps, values, .. } = straight;
        for chunk in self.chunks.iter().filter(|chunk| chunk.overlaps(range)) {
            let at = timestamps.len();
            chunk.unpack(timestamps, values);
            if chunk.last() > range.max.0 {
                let end = at + timestamps[at..].partition_point(|&t| t <= range.max.0);
                timestamps.truncate(end);
                values.truncate(end);
            }
            if chunk.first() < range.min.0 {
                let from = at + timestamps[at..].partition_point(|&t| t < range.min.0);
                timestamps.drain(at..from);
                values.drain(at..from);
            }
        }
        for &(t, v) in self.open.iter().filter(|row| range.contains(row.0)) {
            timestamps.push(t);
            values.push(v);
        }
        side.extend(self.side.iter().cloned());
    }

    /// Whether there is something beside the straight path.
    pub fn has_side(&self) -> bool {
        !self.side.is_empty()
    }

    /// The windows of `window` milliseconds, by their numbers, that have samples.
    pub fn windows(&self, window: i64, into: &mut BTreeSet<i64>) {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        for chunk in &self.chunks {
            if chunk.first().div_euclid(window) == chunk.last().div_euclid(window) {
                into.insert(chunk.first().div_euclid(window));
                continue;
            }
            // Between two samples there may be thousands of years.
            timestamps.clear();
            values.clear();
            chunk.unpack(&mut timestamps, &mut values);
            into.extend(timestamps.iter().map(|t| t.div_euclid(window)));
        }
        into.extend(self.open.iter().map(|row| row.0.div_euclid(window)));
        for run in &self.side {
            into.extend(run.timestamps.iter().map(|t| t.div_euclid(window)));
            into.extend(run.histograms.iter().map(|h| h.0.div_euclid(window)));
        }
    }
}
