//! What is asked for blocks, and answered. `docs/format/bootstrap.md` draws the bytes.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::wire::{Malformed, Reader, Writer};
use bytes::Bytes;
use model::{Digest, SealedBlock, Shard, TimeRange};

/// Of these messages.
const VERSION: u8 = 1;
/// Blocks of one page of a list.
pub(super) const PAGE_BLOCKS: usize = 1024;
/// Bytes of one piece, and of one tail.
pub const PIECE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one block.
const BLOCK_BYTES_MAX: u64 = 1 << 40;
/// Bytes of the reason why something failed.
const REASON_MAX: usize = 512;

/// A question to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The placement that the asking node knows.
    pub epoch: u64,
    /// Of which shard.
    pub shard: Shard,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which sealed blocks there are, in the order of their ids.
    Blocks {
        /// Behind this id; from the first one on.
        after: Option<u128>,
    },
    /// Bytes of one of them.
    Piece {
        /// Which.
        id: u128,
        /// The first.
        at: u64,
        /// How many.
        len: u64,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Ask::Blocks`].
    Blocks {
        /// In the order of their ids.
        blocks: Vec<SealedBlock>,
        /// Whether there are others behind the last one.
        more: bool,
    },
    /// To [`Ask::Piece`]: as many bytes as were asked for.
    Piece(Bytes),
    /// There is no such block any more.
    Gone,
    /// The block was found damaged.
    Damaged,
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
    /// This replica has no copy of the shard that answers reads.
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
    if range.min > range.max { Err(input.malformed()) } else { Ok(range) }
}

fn shard(input: &mut Reader<'_>) -> Result<Shard, Malformed> {
    u16::try_from(input.varint()?).map(Shard).map_err(|_| input.malformed())
}

fn version(input: &mut Reader<'_>) -> Result<(), Malformed> {
    match input.u8()? {
        VERSION => Ok(()),
        _ => Err(input.malformed()),
    }
}

fn flag(input: &mut Reader<'_>) -> Result<bool, Malformed> {
    match input.u8()? {
        flag @ (0 | 1) => Ok(flag == 1),
        _ => Err(input.malformed()),
    }
}

fn put_block(out: &mut Writer, block: &SealedBlock) {
    let SealedBlock { id, range, span, samples, bytes, tail_bytes, seal, digest } = *block;
    out.u128(id);
    put_range(out, range);
    put_range(out, span);
    out.varint(samples);
    out.varint(bytes);
    out.varint(tail_bytes);
    out.u64(seal);
    out.u8(u8::from(digest.is_some()));
    if let Some(digest) = digest {
        out.u128(digest.0);
    }
}

fn block(input: &mut Reader<'_>) -> Result<SealedBlock, Malformed> {
    let id = input.u128()?;
    let (window, span) = (range(input)?, range(input)?);
    let (samples, bytes, tail_bytes, seal) =
        (input.varint()?, input.varint()?, input.varint()?, input.u64()?);
    let digest = if flag(input)? { Some(Digest(input.u128()?)) } else { None };
    let fits =
        tail_bytes > 0 && tail_bytes < bytes && bytes <= BLOCK_BYTES_MAX && tail_bytes <= PIECE_BYTES_MAX;
    if !fits || span.min < window.min || span.max > window.max {
        return Err(input.malformed());
    }
    Ok(SealedBlock { id, range: window, span, samples, bytes, tail_bytes, seal, digest })
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.epoch);
        out.varint(u64::from(self.shard.0));
        match self.ask {
            Ask::Blocks { after: None } => out.u8(1),
            Ask::Blocks { after: Some(after) } => {
                out.u8(2);
                out.u128(after);
            }
            Ask::Piece { id, at, len } => {
                out.u8(3);
                out.u128(id);
                out.varint(at);
                out.varint(len);
            }
        }
        out.0
    }

    /// From bytes of a peer.
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut input = Reader::new(bytes, "question for blocks");
        version(&mut input)?;
        let epoch = input.u64()?;
        let shard = shard(&mut input)?;
        let ask = match input.u8()? {
            1 => Ask::Blocks { after: None },
            2 => Ask::Blocks { after: Some(input.u128()?) },
            3 => {
                let (id, at, len) = (input.u128()?, input.varint()?, input.varint()?);
                if len == 0 || len > PIECE_BYTES_MAX {
                    return Err(input.malformed());
                }
                Ask::Piece { id, at, len }
            }
            _ => return Err(input.malformed()),
        };
        input.end()?;
        Ok(Request { epoch, shard, ask })
    }
}

/// The bytes of a [`Reply::Piece`], to be filled with what `read` says.
pub(super) fn piece<E>(
    len: u64,
    read: impl FnOnce(&mut [u8]) -> Result<bool, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut out = vec![0; 2 + len as usize];
    let filled = match out.split_first_chunk_mut::<2>() {
        Some((head, body)) => {
            *head = [VERSION, 2];
            read(body)?
        }
        None => false,
    };
    Ok(filled.then_some(out))
}

impl Reply {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        match self {
            Reply::Blocks { blocks, more } => {
                out.u8(1);
                out.u8(u8::from(*more));
                out.count(blocks.len());
                blocks.iter().for_each(|block| put_block(&mut out, block));
            }
            Reply::Piece(bytes) => {
                out.u8(2);
                out.0.extend_from_slice(bytes);
            }
            Reply::Gone => out.u8(3),
            Reply::Damaged => out.u8(4),
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

    /// From bytes of a peer. The bytes of a piece are not copied.
    pub fn decode(bytes: Bytes) -> Result<Reply, Malformed> {
        let mut input = Reader::new(&bytes, "answer with blocks");
        version(&mut input)?;
        let reply = match input.u8()? {
            1 => {
                let more = flag(&mut input)?;
                let blocks = input.list(block)?;
                // A page that leads to the same place again would never end.
                if blocks.len() > PAGE_BLOCKS
                    || !blocks.is_sorted_by(|a, b| a.id < b.id)
                    || more && blocks.is_empty()
                {
                    return Err(input.malformed());
                }
                Reply::Blocks { blocks, more }
            }
            2 => {
                let piece = bytes.slice_ref(input.rest());
                if piece.is_empty() || piece.len() as u64 > PIECE_BYTES_MAX {
                    return Err(input.malformed());
                }
                Reply::Piece(piece)
            }
            3 => Reply::Gone,
            4 => Reply::Damaged,
            16 => Reply::Stale { epoch: input.u64()? },
            17 => Reply::Behind { epoch: input.u64()? },
            18 => Reply::NotHeld { shard: shard(&mut input)? },
            19 => {
                let why = input.bytes()?;
                if why.len() > REASON_MAX {
                    return Err(input.malformed());
                }
                // It goes to a log: whatever it is, it is one line.
                let line = String::from_utf8_lossy(why);
                Reply::Failed { why: line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
            }
            _ => return Err(input.malformed()),
        };
        input.end()?;
        Ok(reply)
    }
}
