//! What few series have: start timestamps of floats, and native histograms. Exact and simple rather than dense.
//!
//! ```text
//! extras     := with starts: u8, 0 or 1 | [(len: varint | ints) for each chunk of floats]
//!               | histogram chunks: varint | (len: varint | chunk) x histogram chunks
//! chunk      := count: varint | first - range.min: zigzag varint | last - first: varint
//!               | times with the first as base | ints of the start timestamps | (len: varint | histogram) x count
//! ```
//!
//! A histogram is in the canonical bytes of `model::Histogram`.

use crate::codec::{CHUNK_MAX, Input, ints, times};
use model::{Histogram, Samples, TimeRange, varint};
use std::sync::Arc;

/// Histograms in a chunk.
const HISTOGRAMS_MAX: usize = 120;

/// Whether `samples` have anything that goes here.
pub(super) fn needed(samples: &Samples) -> bool {
    !samples.histograms.is_empty() || samples.starts.iter().any(|&start| start != 0)
}

/// Appends the extras of one series.
pub(super) fn encode(samples: &Samples, base: i64, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    let put = |bytes: &mut Vec<u8>, out: &mut Vec<u8>| {
        varint::put(out, bytes.len() as u64);
        out.append(bytes);
    };
    let with_starts = samples.starts.iter().any(|&start| start != 0);
    out.push(u8::from(with_starts));
    if with_starts {
        for chunk in samples.starts.chunks(CHUNK_MAX) {
            ints::encode(chunk, &mut bytes);
            put(&mut bytes, out);
        }
    }
    let chunks = samples.histograms.chunks(HISTOGRAMS_MAX);
    varint::put(out, chunks.len() as u64);
    for chunk in chunks {
        let timestamps: Vec<i64> = chunk.iter().map(|h| h.0).collect();
        let starts: Vec<i64> = chunk.iter().map(|h| h.1).collect();
        let (first, last) = (timestamps[0], timestamps[timestamps.len() - 1]);
        varint::put(&mut bytes, chunk.len() as u64);
        varint::put(&mut bytes, varint::zigzag(first.wrapping_sub(base)));
        varint::put(&mut bytes, last.wrapping_sub(first) as u64);
        times::encode(&timestamps, first, &mut bytes);
        ints::encode(&starts, &mut bytes);
        let mut histogram = Vec::new();
        for (_, _, h) in chunk {
            h.encode(&mut histogram);
            put(&mut histogram, &mut bytes);
        }
        put(&mut bytes, out);
    }
}

/// The extras of one series, not yet decoded.
pub(super) struct Extras<'a> {
    /// One for each chunk of floats, or none.
    pub starts: Vec<&'a [u8]>,
    histograms: Vec<HistogramChunk<'a>>,
}

struct HistogramChunk<'a> {
    first: i64,
    last: i64,
    count: usize,
    rest: &'a [u8],
}

impl<'a> Extras<'a> {
    /// Finds the parts in `bytes`, which must be exactly those of one series with this many chunks of floats.
    pub fn decode(bytes: &'a [u8], float_chunks: usize, base: i64) -> Option<Extras<'a>> {
        let mut input = Input(bytes);
        let mut starts = Vec::new();
        match input.byte()? {
            0 => {}
            1 => {
                for _ in 0..float_chunks {
                    let len = input.count(input.0.len())?;
                    starts.push(input.take(len)?);
                }
            }
            _ => return None,
        }
        let mut histograms = Vec::new();
        for _ in 0..input.count(input.0.len())? {
            let len = input.count(input.0.len())?;
            let mut chunk = Input(input.take(len)?);
            let count = chunk.count(HISTOGRAMS_MAX).filter(|&count| count > 0)?;
            let first = base.wrapping_add(chunk.signed()?);
            let last = first.checked_add(chunk.varint()? as i64).filter(|&last| last >= first)?;
            histograms.push(HistogramChunk { first, last, count, rest: chunk.0 });
        }
        input.0.is_empty().then_some(Extras { starts, histograms })
    }

    /// From the first histogram to the last.
    pub fn span(&self) -> Option<TimeRange> {
        Some(TimeRange::new(self.histograms.first()?.first, self.histograms.last()?.last))
    }

    /// Appends the histograms in `range`.
    pub fn read_histograms(&self, range: TimeRange, out: &mut Vec<(i64, i64, Arc<Histogram>)>) -> Option<()> {
        let (mut timestamps, mut starts) = (Vec::new(), Vec::new());
        for chunk in &self.histograms {
            if !range.overlaps(&TimeRange::new(chunk.first, chunk.last)) {
                continue;
            }
            timestamps.clear();
            let rest = times::decode(chunk.rest, chunk.first, chunk.count, &mut timestamps)?;
            starts.clear();
            starts.resize(chunk.count, 0);
            let mut input = Input(ints::decode(rest, &mut starts)?);
            for (&t, &start) in timestamps.iter().zip(&starts) {
                let len = input.count(input.0.len())?;
                let bytes = input.take(len)?;
                if range.contains(t) {
                    let (histogram, rest) = Histogram::decode(bytes)?;
                    if !rest.is_empty() {
                        return None;
                    }
                    out.push((t, start, Arc::new(histogram)));
                }
            }
            if !input.0.is_empty() {
                return None;
            }
        }
        Some(())
    }
}
