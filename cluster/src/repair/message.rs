//! What repair asks and answers. `docs/format/repair.md` draws the bytes.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::wire::{Malformed, Reader, Writer};
use model::{Digest, SeriesId, Shard, TimeRange};

/// Ranges of one question for digests.
pub(super) const RANGES_MAX: usize = 256;
/// Series of one page of digests; every page but the last has as many.
pub(super) const PAGE_SERIES: usize = 32 << 10;
/// Series whose rows one question asks for.
pub(super) const EXPORT_SERIES_MAX: usize = 8 << 10;
/// Bytes of rows in one answer, roughly: the series that reaches it is finished.
pub const EXPORT_BYTES_MAX: usize = 4 << 20;
/// Bytes of the reason why something failed.
const REASON_MAX: usize = 512;

/// A question to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The placement that the asking node knows.
    pub epoch: u64,
    /// How long it waits.
    pub timeout_ms: u32,
    /// Of which shard.
    pub shard: Shard,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The digest of each of these ranges.
    Digests(Vec<TimeRange>),
    /// The digests of the series that have samples in `range`, from an id on.
    Series {
        /// When.
        range: TimeRange,
        /// The first that is wanted.
        from: SeriesId,
    },
    /// The rows in `range` of these series, ascending.
    Export {
        /// When.
        range: TimeRange,
        /// Whose.
        series: Vec<SeriesId>,
    },
}

/// The digest of a range, as one replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of what is there.
    pub digest: Digest,
    /// Whether samples may be missing there because of damage.
    pub damaged: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Ask::Digests`], in the same order.
    Digests(Vec<Seen>),
    /// To [`Ask::Series`]: ascending, and where the next page begins.
    Series {
        /// Each with its digest.
        series: Vec<(SeriesId, Digest)>,
        /// The first of the next page.
        next: Option<SeriesId>,
    },
    /// To [`Ask::Export`]: rows, and the first series whose rows are still to come.
    Rows {
        /// As `rows` encodes them.
        rows: Vec<u8>,
        /// One of those that were asked for.
        next: Option<SeriesId>,
    },
    /// The question was asked under an older placement than this replica knows.
    Stale {
        /// The one it knows.
        epoch: u64,
    },
    /// It was asked under a newer one.
    Behind {
        /// The one it knows.
        epoch: u64,
    },
    /// This replica does not hold the shard.
    NotHeld {
        /// Which.
        shard: Shard,
    },
    /// It could not be answered.
    Failed {
        /// For people.
        why: String,
    },
}

fn put_range(out: &mut Writer, range: TimeRange) {
    out.u64(range.min.0 as u64);
    out.u64(range.max.0 as u64);
}

fn range(input: &mut Reader<'_>) -> Result<TimeRange, Malformed> {
    let range = TimeRange::new(input.u64()? as i64, input.u64()? as i64);
    if range.min > range.max {
        return Err(input.malformed());
    }
    Ok(range)
}

fn put_next(out: &mut Writer, next: Option<SeriesId>) {
    out.u8(u8::from(next.is_some()));
    if let Some(next) = next {
        out.u128(next.0);
    }
}

fn next(input: &mut Reader<'_>) -> Result<Option<SeriesId>, Malformed> {
    match input.u8()? {
        0 => Ok(None),
        1 => Ok(Some(SeriesId(input.u128()?))),
        _ => Err(input.malformed()),
    }
}

/// A list of at most `max` things.
fn list<'a, T>(
    input: &mut Reader<'a>,
    max: usize,
    one: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let all = input.list(one)?;
    if all.len() > max { Err(input.malformed()) } else { Ok(all) }
}

fn shard(input: &mut Reader<'_>) -> Result<Shard, Malformed> {
    u16::try_from(input.varint()?).map(Shard).map_err(|_| input.malformed())
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.epoch);
        out.varint(u64::from(self.timeout_ms));
        out.varint(u64::from(self.shard.0));
        match &self.ask {
            Ask::Digests(ranges) => {
                out.u8(1);
                out.count(ranges.len());
                ranges.iter().for_each(|range| put_range(&mut out, *range));
            }
            Ask::Series { range, from } => {
                out.u8(2);
                put_range(&mut out, *range);
                out.u128(from.0);
            }
            Ask::Export { range, series } => {
                out.u8(3);
                put_range(&mut out, *range);
                out.count(series.len());
                series.iter().for_each(|id| out.u128(id.0));
            }
        }
        out.0
    }

    /// From bytes of a peer.
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut input = Reader::new(bytes, "repair request");
        let epoch = input.u64()?;
        let timeout_ms = u32::try_from(input.varint()?).map_err(|_| input.malformed())?;
        let shard = shard(&mut input)?;
        let ask = match input.u8()? {
            1 => Ask::Digests(list(&mut input, RANGES_MAX, range)?),
            2 => Ask::Series { range: range(&mut input)?, from: SeriesId(input.u128()?) },
            3 => {
                let range = range(&mut input)?;
                let series = list(&mut input, EXPORT_SERIES_MAX, |input| Ok(SeriesId(input.u128()?)))?;
                if !series.is_sorted_by(|a, b| a < b) {
                    return Err(input.malformed());
                }
                Ask::Export { range, series }
            }
            _ => return Err(input.malformed()),
        };
        input.end()?;
        Ok(Request { epoch, timeout_ms, shard, ask })
    }
}

impl Reply {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Reply::Digests(seen) => {
                out.u8(1);
                out.count(seen.len());
                for seen in seen {
                    out.u128(seen.digest.0);
                    out.u8(u8::from(seen.damaged));
                }
            }
            Reply::Series { series, next } => {
                out.u8(2);
                put_next(&mut out, *next);
                out.count(series.len());
                for (id, digest) in series {
                    out.u128(id.0);
                    out.u128(digest.0);
                }
            }
            Reply::Rows { rows, next } => {
                out.u8(3);
                put_next(&mut out, *next);
                out.0.extend_from_slice(rows);
            }
            Reply::Stale { epoch } => {
                out.u8(16);
                out.u64(*epoch);
            }
            Reply::Behind { epoch } => {
                out.u8(17);
                out.u64(*epoch);
            }
            Reply::NotHeld { shard } => {
                out.u8(18);
                out.varint(u64::from(shard.0));
            }
            Reply::Failed { why } => {
                out.u8(19);
                let mut end = why.len().min(REASON_MAX);
                while !why.is_char_boundary(end) {
                    end -= 1;
                }
                out.bytes(why.as_bytes().get(..end).unwrap_or(&[]));
            }
        }
        out.0
    }

    /// From bytes of a peer. Series are in order, each once.
    pub fn decode(bytes: &[u8]) -> Result<Reply, Malformed> {
        let mut input = Reader::new(bytes, "repair reply");
        let reply = match input.u8()? {
            1 => Reply::Digests(list(&mut input, RANGES_MAX, |input| {
                let digest = Digest(input.u128()?);
                match input.u8()? {
                    flag @ (0 | 1) => Ok(Seen { digest, damaged: flag == 1 }),
                    _ => Err(input.malformed()),
                }
            })?),
            2 => {
                let next = next(&mut input)?;
                let series = list(&mut input, PAGE_SERIES, |input| {
                    Ok((SeriesId(input.u128()?), Digest(input.u128()?)))
                })?;
                let ascending = series.is_sorted_by(|a, b| a.0 < b.0);
                // A page that leads to the same place again would never end.
                let onward = match (next, series.last()) {
                    (Some(next), Some(last)) => series.len() == PAGE_SERIES && last.0 < next,
                    (Some(_), None) => false,
                    (None, _) => true,
                };
                if !ascending || !onward {
                    return Err(input.malformed());
                }
                Reply::Series { series, next }
            }
            3 => Reply::Rows { next: next(&mut input)?, rows: input.rest().to_vec() },
            16 => Reply::Stale { epoch: input.u64()? },
            17 => Reply::Behind { epoch: input.u64()? },
            18 => Reply::NotHeld { shard: shard(&mut input)? },
            19 => {
                let why = input.bytes()?;
                if why.len() > REASON_MAX {
                    return Err(input.malformed());
                }
                // It goes to a log: whatever it is, it is one line.
                let why = String::from_utf8_lossy(why)
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                Reply::Failed { why }
            }
            _ => return Err(input.malformed()),
        };
        input.end()?;
        Ok(reply)
    }
}
