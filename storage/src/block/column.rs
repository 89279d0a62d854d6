//! Columns of timestamps, each kept once for all series that were scraped together.
//!
//! ```text
//! column  := count: varint | first - range.min: zigzag varint | (first of the next chunk - first of this): varint, for
//!            each chunk but the last | last - first of the last chunk: varint | len: varint x chunks | chunks
//! chunk   := times with the chunk's first timestamp as base; 480 of them, what is left in the last
//! ```
//!
//! The chunks of a series' values are those of its column, so the column alone says which of them a query needs.

use crate::codec::{CHUNK_MAX, Input, times};
use model::{TimeRange, varint};
use std::ops::Range;

/// Appends a column of sorted timestamps.
pub(super) fn encode(timestamps: &[i64], base: i64, out: &mut Vec<u8>) {
    let (Some(&first), Some(&last)) = (timestamps.first(), timestamps.last()) else { return };
    varint::put(out, timestamps.len() as u64);
    varint::put(out, varint::zigzag(first.wrapping_sub(base)));
    let mut before = first;
    for chunk in timestamps.chunks(CHUNK_MAX).skip(1) {
        varint::put(out, chunk[0].wrapping_sub(before) as u64);
        before = chunk[0];
    }
    varint::put(out, last.wrapping_sub(before) as u64);
    let mut chunks = Vec::new();
    for chunk in timestamps.chunks(CHUNK_MAX) {
        let at = chunks.len();
        times::encode(chunk, chunk[0], &mut chunks);
        varint::put(out, (chunks.len() - at) as u64);
    }
    out.append(&mut chunks);
}

/// One chunk of a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// First timestamp, exact.
    pub first: i64,
    /// No timestamp is later; exact for the last chunk.
    pub last: i64,
    pub count: usize,
    /// Where its bytes start, after the column's directory.
    pub at: usize,
    pub len: usize,
}

/// A column's directory.
#[derive(Default, Debug)]
pub(super) struct Column {
    pub chunks: Vec<Chunk>,
    /// Length of the directory: where the chunks start.
    pub directory: usize,
}

impl Column {
    /// Reads the directory of the column at the front of `bytes`.
    pub fn decode(bytes: &[u8], base: i64) -> Option<Column> {
        let mut input = Input(bytes);
        // A chunk takes at least a byte here and a few behind.
        let count = input.count(bytes.len().saturating_mul(CHUNK_MAX))?;
        let chunk_count = count.div_ceil(CHUNK_MAX);
        let mut first = base.wrapping_add(input.signed()?);
        let mut chunks = Vec::with_capacity(chunk_count);
        for number in 0..chunk_count {
            let gap = input.varint()? as i64;
            let next = first.checked_add(gap).filter(|&next| next >= first)?;
            let is_last = number + 1 == chunk_count;
            chunks.push(Chunk {
                first,
                last: if is_last { next } else { next.checked_sub(1)? },
                count: (count - number * CHUNK_MAX).min(CHUNK_MAX),
                at: 0,
                len: 0,
            });
            first = next;
        }
        let mut at = 0usize;
        for chunk in &mut chunks {
            chunk.len = input.count(bytes.len())?;
            chunk.at = at;
            at = at.checked_add(chunk.len)?;
        }
        let directory = bytes.len() - input.0.len();
        (count > 0).then_some(Column { chunks, directory })
    }

    /// The chunks that may have timestamps in `range`.
    pub fn overlapping(&self, range: TimeRange) -> Range<usize> {
        let from = self.chunks.partition_point(|chunk| chunk.last < range.min.0);
        let to = self.chunks.partition_point(|chunk| chunk.first <= range.max.0);
        from..to.max(from)
    }

    /// From the first timestamp to the last.
    pub fn span(&self) -> Option<TimeRange> {
        Some(TimeRange::new(self.chunks.first()?.first, self.chunks.last()?.last))
    }
}

/// Appends the timestamps of `chunk`, whose bytes these are. `None`, with nothing appended, if they make no sense.
pub(super) fn decode_chunk(bytes: &[u8], chunk: &Chunk, out: &mut Vec<i64>) -> Option<()> {
    let from = out.len();
    let rest = times::decode(bytes, chunk.first, chunk.count, out)?;
    let decoded = out.get(from..)?;
    let inside = decoded.first() == Some(&chunk.first) && decoded.last().is_some_and(|&t| t <= chunk.last);
    if !rest.is_empty() || !inside {
        out.truncate(from);
        return None;
    }
    Some(())
}
