//! What a coordinator asks and a replica answers. `docs/format/read.md` draws the bytes.
//!
//! An answer is a stream of chunks: first a header, which says for which shards it is, then content, then an end, which says how much
//! content there was. A stream without its end is no answer.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::coordinator::{Mode, Why};
use super::summary::{Compared, Piece, Summaries};
use crate::wire::{Malformed, Reader, Writer};
use model::{
    LabelQuery, MatchOp, Matcher, Metadata, MetricType, Selection, SeriesId, Shard, ShardSet, TimeRange,
    varint,
};

/// The version in front of every request.
pub(super) const VERSION: u8 = 2;

/// Most matchers in a request.
pub(super) const MATCHERS_MAX: usize = 1024;

/// Most bytes of label names, values and regular expressions in the matchers of a request.
pub(super) const MATCHER_BYTES_MAX: usize = 1 << 20;

/// Bytes after which a chunk is sent.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Most bytes of a chunk or request: a peer that sends more is refused.
pub(super) const CHUNK_BYTES_MAX: usize = 4 << 20;

/// A request to a replica.
#[derive(Clone, Debug)]
pub struct Request {
    /// The sender's placement.
    pub epoch: u64,
    /// How long the sender waits.
    pub timeout_ms: u64,
    /// What is asked for.
    pub body: Body,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Body {
    /// The series that match, whole or as digests. The selection names its shards.
    Select {
        /// Which.
        selection: Selection,
        /// How.
        mode: Mode,
        /// Also where samples may be missing.
        damaged: bool,
        /// For digests: what the sender's copies know of themselves.
        summaries: Summaries,
    },
    /// Samples of series.
    Fetch {
        /// Of this time.
        range: TimeRange,
        /// By shard, whether labels are wanted, and ids in order.
        groups: Vec<Group>,
    },
    /// Labels or series. The query names its shards.
    Lookup {
        /// What of them.
        what: What,
        /// Which.
        query: LabelQuery,
        /// Also where samples may be missing.
        damaged: bool,
    },
    /// Metric families.
    Metadata {
        /// One, or all.
        family: Option<String>,
    },
}

/// Series of one shard that are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The shard.
    pub shard: Shard,
    /// Whether the sender does not know their labels.
    pub labels: bool,
    /// The series, in the order of ids.
    pub series: Vec<SeriesId>,
}

/// What a lookup gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Label sets, in their canonical bytes.
    Series,
    /// Names of labels.
    Names,
    /// Values of this label.
    Values(String),
}

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Chunk<'a> {
    /// `H`: which shards it is for, and which it is not for and why.
    Header { shards: ShardSet, refused: Vec<(Shard, Why)> },
    /// `R`: nothing is answered.
    Refused(Why),
    /// `P`: what summaries showed. Before all digests.
    Compared(Compared),
    /// `D`: (id, first half of the digest) of series.
    Digests(Digests<'a>),
    /// `S`: sections of rows.
    Sections(&'a [u8]),
    /// `I`: items of a lookup.
    Items(Vec<&'a [u8]>),
    /// `M`: metric families.
    Metadata(Vec<Metadata>),
    /// `L`: more series than the request allows.
    Limit { max: u64, got: u64 },
    /// `E`: the answer is complete.
    End { truncated: bool, warnings: Vec<String>, count: u64 },
}

/// Series and digests, as they lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digests<'a>(&'a [[u8; DIGEST_BYTES]]);

/// An id and half a digest: 2^-64 that a difference is not seen is rare enough.
pub(super) const DIGEST_BYTES: usize = 24;

impl Digests<'_> {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SeriesId, u64)> + '_ {
        self.0.iter().map(|entry| {
            let [a @ .., b0, b1, b2, b3, b4, b5, b6, b7] = *entry;
            (SeriesId(u128::from_le_bytes(a)), u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]))
        })
    }
}

pub(super) fn push_digest(out: &mut Vec<u8>, id: SeriesId, digest: u64) {
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&digest.to_le_bytes());
}

impl Request {
    /// To bytes. A selection or query without shards asks for none.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.epoch);
        out.varint(self.timeout_ms);
        match &self.body {
            Body::Select { selection, mode, damaged, summaries } => {
                out.u8(b'S');
                out.u8(u8::from(*mode == Mode::Digests) | u8::from(*damaged) << 1);
                put_shards(&mut out, selection.shards.as_ref().unwrap_or(&ShardSet::default()));
                put_range(&mut out, selection.range);
                out.count(selection.series_max);
                put_matchers(&mut out, &selection.matchers);
                out.count(summaries.len());
                for (shard, pieces) in summaries {
                    out.varint(u64::from(shard.0));
                    out.count(pieces.len());
                    for piece in pieces {
                        put_range(&mut out, piece.range);
                        out.u64(piece.digest);
                    }
                }
            }
            Body::Fetch { range, groups } => {
                out.u8(b'F');
                put_range(&mut out, *range);
                out.count(groups.len());
                for group in groups {
                    out.varint(u64::from(group.shard.0));
                    out.u8(u8::from(group.labels));
                    out.count(group.series.len());
                    group.series.iter().for_each(|id| out.u128(id.0));
                }
            }
            Body::Lookup { what, query, damaged } => {
                out.u8(b'L');
                let (number, name) = match what {
                    What::Series => (0, ""),
                    What::Names => (1, ""),
                    What::Values(name) => (2, &name[..]),
                };
                out.u8(number);
                out.bytes(name.as_bytes());
                out.u8(u8::from(*damaged));
                put_shards(&mut out, query.shards.as_ref().unwrap_or(&ShardSet::default()));
                put_range(&mut out, query.range);
                out.varint(query.limit.map_or(0, |limit| (limit as u64).saturating_add(1)));
                out.count(query.selectors.len());
                query.selectors.iter().for_each(|matchers| put_matchers(&mut out, matchers));
            }
            Body::Metadata { family } => {
                out.u8(b'M');
                out.u8(u8::from(family.is_some()));
                out.bytes(family.as_deref().unwrap_or("").as_bytes());
            }
        }
        out.0
    }

    /// From bytes that anybody may have made.
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut r = Reader::new(bytes, "read request");
        let bad = r.malformed();
        if bytes.len() > CHUNK_BYTES_MAX || r.u8()? != VERSION {
            return Err(bad);
        }
        let (epoch, timeout_ms) = (r.u64()?, r.varint()?);
        let mut room = Room { matchers: MATCHERS_MAX, bytes: MATCHER_BYTES_MAX };
        let body = match r.u8()? {
            b'S' => {
                let flags = r.u8()?;
                let mode = if flags & 1 == 1 { Mode::Digests } else { Mode::Whole };
                let shards = Some(shards(&mut r)?);
                let range = range(&mut r)?;
                let series_max = usize::try_from(r.varint()?).map_err(|_| bad.clone())?;
                let matchers = matchers(&mut r, &mut room)?;
                let summaries: Summaries = r.list(summary)?.into_iter().collect();
                if flags > 3 || !summaries.is_empty() && mode == Mode::Whole {
                    return Err(bad);
                }
                let selection = Selection { matchers, range, series_max, shards };
                Body::Select { selection, mode, damaged: flags & 2 == 2, summaries }
            }
            b'F' => Body::Fetch { range: range(&mut r)?, groups: r.list(group)? },
            b'L' => {
                let (number, name, damaged) = (r.u8()?, text(&mut r)?, flag(&mut r)?);
                let what = match number {
                    0 if name.is_empty() => What::Series,
                    1 if name.is_empty() => What::Names,
                    2 => What::Values(name),
                    _ => return Err(bad),
                };
                let shards = Some(shards(&mut r)?);
                let range = range(&mut r)?;
                let limit =
                    r.varint()?.checked_sub(1).map(usize::try_from).transpose().map_err(|_| bad.clone())?;
                let count = r.count()?;
                let mut selectors = Vec::new();
                for _ in 0..count {
                    room.take(0).ok_or(bad.clone())?;
                    selectors.push(matchers(&mut r, &mut room)?);
                }
                Body::Lookup { what, query: LabelQuery { selectors, range, limit, shards }, damaged }
            }
            b'M' => {
                let (is_one, family) = (flag(&mut r)?, text(&mut r)?);
                if !is_one && !family.is_empty() {
                    return Err(bad);
                }
                Body::Metadata { family: is_one.then_some(family) }
            }
            _ => return Err(bad),
        };
        r.end()?;
        Ok(Request { epoch, timeout_ms, body })
    }
}

impl Chunk<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Chunk::Header { shards, refused } => {
                out.u8(b'H');
                put_shards(&mut out, shards);
                out.count(refused.len());
                for (shard, why) in refused {
                    out.varint(u64::from(shard.0));
                    put_why(&mut out, why);
                }
            }
            Chunk::Refused(why) => {
                out.u8(b'R');
                put_why(&mut out, why);
            }
            Chunk::Compared(Compared { equal, partly, range }) => {
                out.u8(b'P');
                put_shards(&mut out, equal);
                put_shards(&mut out, partly);
                out.u8(u8::from(range.is_some()));
                range.iter().for_each(|range| put_range(&mut out, *range));
            }
            Chunk::Digests(digests) => {
                out.u8(b'D');
                out.0.extend_from_slice(digests.0.as_flattened());
            }
            Chunk::Sections(bytes) => {
                out.u8(b'S');
                out.0.extend_from_slice(bytes);
            }
            Chunk::Items(items) => {
                out.u8(b'I');
                items.iter().for_each(|item| out.bytes(item));
            }
            Chunk::Metadata(families) => {
                out.u8(b'M');
                for family in families {
                    out.bytes(family.family.as_bytes());
                    out.u8(family.metric_type as u8);
                    out.bytes(family.help.as_bytes());
                    out.bytes(family.unit.as_bytes());
                }
            }
            Chunk::Limit { max, got } => {
                out.u8(b'L');
                out.varint(*max);
                out.varint(*got);
            }
            Chunk::End { truncated, warnings, count } => {
                out.u8(b'E');
                out.u8(u8::from(*truncated));
                out.varint(*count);
                out.count(warnings.len());
                warnings.iter().for_each(|warning| out.bytes(warning.as_bytes()));
            }
        }
        out.0
    }
}

impl<'a> Chunk<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Chunk<'a>, Malformed> {
        let mut r = Reader::new(bytes, "answer to a read");
        let bad = r.malformed();
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(bad);
        }
        let chunk = match r.u8()? {
            b'H' => {
                let shards = shards(&mut r)?;
                let one = |r: &mut Reader<'_>| Ok((shard(r)?, why(r)?));
                Chunk::Header { shards, refused: r.list(one)? }
            }
            b'R' => Chunk::Refused(why(&mut r)?),
            b'P' => {
                let (equal, partly) = (shards(&mut r)?, shards(&mut r)?);
                let range = flag(&mut r)?.then(|| range(&mut r)).transpose()?;
                Chunk::Compared(Compared { equal, partly, range })
            }
            b'D' => {
                let (entries, []) = r.rest().as_chunks() else { return Err(bad) };
                Chunk::Digests(Digests(entries))
            }
            b'S' => Chunk::Sections(r.rest()),
            b'I' => {
                let mut items = Vec::new();
                while r.end().is_err() {
                    items.push(r.bytes()?);
                }
                Chunk::Items(items)
            }
            b'M' => {
                let mut families = Vec::new();
                while r.end().is_err() {
                    families.push(Metadata {
                        family: text(&mut r)?,
                        metric_type: MetricType::from_wire(u64::from(r.u8()?)),
                        help: text(&mut r)?,
                        unit: text(&mut r)?,
                    });
                }
                Chunk::Metadata(families)
            }
            b'L' => Chunk::Limit { max: r.varint()?, got: r.varint()? },
            b'E' => Chunk::End { truncated: flag(&mut r)?, count: r.varint()?, warnings: r.list(text)? },
            _ => return Err(bad),
        };
        r.end()?;
        Ok(chunk)
    }
}

fn put_shards(out: &mut Writer, shards: &ShardSet) {
    out.count(shards.len());
    let mut next = 0;
    for shard in shards.iter() {
        out.varint(u64::from(shard.0) - next);
        next = u64::from(shard.0) + 1;
    }
}

/// Shards in order, each as the distance to the first that could follow.
fn shards(r: &mut Reader<'_>) -> Result<ShardSet, Malformed> {
    let count = r.count()?;
    let mut shards = ShardSet::default();
    let mut next = 0u64;
    for _ in 0..count {
        let shard = next.checked_add(r.varint()?).and_then(|shard| u16::try_from(shard).ok());
        let shard = shard.ok_or(r.malformed())?;
        shards.insert(Shard(shard));
        next = u64::from(shard) + 1;
    }
    Ok(shards)
}

fn shard(r: &mut Reader<'_>) -> Result<Shard, Malformed> {
    u16::try_from(r.varint()?).map(Shard).map_err(|_| r.malformed())
}

fn put_range(out: &mut Writer, range: TimeRange) {
    out.varint(varint::zigzag(range.min.0));
    out.varint(varint::zigzag(range.max.0));
}

fn range(r: &mut Reader<'_>) -> Result<TimeRange, Malformed> {
    Ok(TimeRange::new(varint::unzigzag(r.varint()?), varint::unzigzag(r.varint()?)))
}

/// A shard's pieces, in the order of time.
fn summary(r: &mut Reader<'_>) -> Result<(Shard, Vec<Piece>), Malformed> {
    let shard = shard(r)?;
    let pieces = r.list(|r| Ok(Piece { range: range(r)?, digest: r.u64()? }))?;
    let follows = |a: &Piece, b: &Piece| a.range.max < b.range.min;
    if !pieces.is_sorted_by(follows) || pieces.iter().any(|piece| piece.range.min > piece.range.max) {
        return Err(r.malformed());
    }
    Ok((shard, pieces))
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = r.bytes()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| r.malformed())
}

fn flag(r: &mut Reader<'_>) -> Result<bool, Malformed> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(r.malformed()),
    }
}

fn group(r: &mut Reader<'_>) -> Result<Group, Malformed> {
    let (shard, labels) = (shard(r)?, flag(r)?);
    let series = r.list(|r| r.u128().map(SeriesId))?;
    if !series.is_sorted_by(|a, b| a < b) {
        return Err(r.malformed());
    }
    Ok(Group { shard, labels, series })
}

/// What a request's matchers may still take.
struct Room {
    matchers: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.matchers = self.matchers.checked_sub(1)?;
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(())
    }
}

fn put_matchers(out: &mut Writer, matchers: &[Matcher]) {
    out.count(matchers.len());
    for matcher in matchers {
        out.u8(match matcher.op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Matches => 2,
            MatchOp::NotMatches => 3,
        });
        out.bytes(matcher.name.as_bytes());
        out.bytes(matcher.value.as_bytes());
    }
}

/// Regular expressions travel as they were written, and are compiled here within the bounds of [`Matcher::new`].
fn matchers(r: &mut Reader<'_>, room: &mut Room) -> Result<Vec<Matcher>, Malformed> {
    let count = r.count()?;
    let mut matchers = Vec::new();
    for _ in 0..count {
        let op = match r.u8()? {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Matches,
            3 => MatchOp::NotMatches,
            _ => return Err(r.malformed()),
        };
        let (name, value) = (text(r)?, text(r)?);
        room.take(name.len() + value.len()).ok_or(r.malformed())?;
        matchers.push(Matcher::new(name, op, value).map_err(|_| r.malformed())?);
    }
    Ok(matchers)
}

fn put_why(out: &mut Writer, why: &Why) {
    let (code, epoch, text) = match why {
        Why::Damaged(text) => (0, 0, &text[..]),
        Why::NotHeld => (1, 0, ""),
        Why::Stale(epoch) => (2, *epoch, ""),
        Why::Behind(epoch) => (3, *epoch, ""),
        Why::TimedOut => (4, 0, ""),
        Why::Failed(text) => (5, 0, &text[..]),
        Why::Malformed(text) => (6, 0, &text[..]),
    };
    out.u8(code);
    out.varint(epoch);
    out.bytes(text.as_bytes());
}

fn why(r: &mut Reader<'_>) -> Result<Why, Malformed> {
    let (code, epoch, text) = (r.u8()?, r.varint()?, text(r)?);
    Ok(match code {
        0 => Why::Damaged(text),
        1 => Why::NotHeld,
        2 => Why::Stale(epoch),
        3 => Why::Behind(epoch),
        4 => Why::TimedOut,
        5 => Why::Failed(text),
        6 => Why::Malformed(text),
        _ => return Err(r.malformed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/format/read.md");

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_page_and_the_code_agree() {
        let page = PAGE.replace(' ', "");
        let group = Group { shard: Shard(2), labels: true, series: vec![SeriesId(1)] };
        let body = Body::Fetch { range: TimeRange::new(0, 60_000), groups: vec![group] };
        let fetch = hex(&Request { epoch: 5, timeout_ms: 1000, body }.encode());
        assert!(page.contains(&fetch), "{fetch}");
        let end = hex(&Chunk::End { truncated: false, warnings: vec![], count: 1 }.encode());
        assert!(page.contains(&format!("`{end}`")), "{end}");
        let shards = [Shard(0), Shard(3)].into_iter().collect();
        let header = hex(&Chunk::Header { shards, refused: vec![(Shard(2), Why::NotHeld)] }.encode());
        assert!(page.contains(&format!("`{header}`")), "{header}");
        assert!(PAGE.contains(&format!("This page describes version {VERSION}.")));
        for kind in ["S", "F", "L", "M", "H", "P", "D", "I", "E", "R"] {
            assert!(PAGE.contains(&format!("| `{kind}` ")), "{kind}");
        }
        let whys = [
            Why::Damaged(String::new()),
            Why::NotHeld,
            Why::Stale(0),
            Why::Behind(0),
            Why::TimedOut,
            Why::Failed(String::new()),
            Why::Malformed(String::new()),
        ];
        for (code, why) in whys.iter().enumerate() {
            let mut out = Writer::default();
            put_why(&mut out, why);
            assert_eq!(out.0.first().copied().map(usize::from), Some(code));
            assert!(PAGE.contains(&format!("\n| {code} | ")), "{code}");
        }
        assert!(PAGE.contains("1,024 matchers") && MATCHERS_MAX == 1024);
        assert!(PAGE.contains("1 MiB of text") && MATCHER_BYTES_MAX == 1 << 20);
        assert!(PAGE.contains("at most 4 MiB") && CHUNK_BYTES_MAX == 4 << 20);
        assert!(PAGE.contains("about 256 KiB") && CHUNK_BYTES == 256 << 10);
    }
}
