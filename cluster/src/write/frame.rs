//! What goes from the coordinator to a receiver and back.
//!
//! ```text
//! frame    := epoch:u64  timeout_ms:u32  session:u64  round:u8  sections
//! reply    := round:u8  code:u8  …
//! appended := 0  positions positions count (position reason:u8 timestamp rows)*     numbers wanted, labels wanted, refused
//! ```
//!
//! A position is the index of a series in the frame. `docs/format/rows.md` draws both.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Session;
use crate::wire::{Malformed, Reader, Writer};
use model::{RejectReason, Shard, varint};

/// What every frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the sender's placement.
    pub epoch: u64,
    /// How long the sender waits.
    pub timeout_ms: u32,
    /// The sender's session: to which its numbers belong.
    pub session: Session,
    /// Which frame of this request to this receiver: the reply names it.
    pub round: u8,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 21;

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.timeout_ms.to_le_bytes());
        out.extend_from_slice(&self.session.0.to_le_bytes());
        out.push(self.round);
    }

    /// Reads the header and gives the sections behind it.
    pub fn decode(frame: &[u8]) -> Result<(Header, &[u8]), Malformed> {
        let malformed = Malformed { what: "write frame" };
        let (epoch, rest) = frame.split_first_chunk().ok_or(malformed.clone())?;
        let (timeout_ms, rest) = rest.split_first_chunk().ok_or(malformed.clone())?;
        let (session, rest) = rest.split_first_chunk().ok_or(malformed.clone())?;
        let (round, sections) = rest.split_first().ok_or(malformed)?;
        let header = Header {
            epoch: u64::from_le_bytes(*epoch),
            timeout_ms: u32::from_le_bytes(*timeout_ms),
            session: Session(u64::from_le_bytes(*session)),
            round: *round,
        };
        Ok((header, sections))
    }
}

/// Rows of one series that a replica will never accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The series' position in the frame.
    pub position: u32,
    /// Why.
    pub reason: RejectReason,
    /// The timestamp of the first such row.
    pub timestamp: i64,
    /// How many rows.
    pub rows: u32,
}

/// What a receiver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All rows are durable except those of the series listed here.
    Appended {
        /// Positions of series whose number is not known: send them by id.
        missing: Vec<u32>,
        /// Positions of series that the replica does not have: send them by labels.
        unknown: Vec<u32>,
        /// What will never be accepted.
        refused: Vec<Refused>,
    },
    /// The frame's placement is older than the receiver's. Nothing was done.
    StaleEpoch {
        /// The receiver's.
        epoch: u64,
    },
    /// The frame's placement is newer than the receiver's. Nothing was done.
    BehindEpoch {
        /// The receiver's.
        epoch: u64,
    },
    /// The receiver has no replica of this shard. Nothing was done.
    NotHeld {
        /// The shard.
        shard: Shard,
    },
    /// The replica takes nothing at the moment. What became of the rows is not known.
    Failed {
        /// Why, for people.
        why: String,
    },
    /// The frame makes no sense, or is more than is taken at once: it will never be taken. Nothing was done.
    Never {
        /// Why, for people.
        why: String,
    },
}

/// Bytes of a reason that travel.
const WHY_BYTES_MAX: usize = 300;

fn shortened(why: &str) -> &str {
    let mut end = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.get(..end).unwrap_or_default()
}

fn reason_number(reason: RejectReason) -> u8 {
    match reason {
        RejectReason::TooOld => 0,
        RejectReason::TooFarInFuture => 1,
        RejectReason::SeriesLimit => 2,
        RejectReason::IdCollision => 3,
    }
}

fn put_positions(out: &mut Writer, positions: &[u32]) {
    out.count(positions.len());
    let mut before = 0;
    for &position in positions {
        out.varint(u64::from(position) - before);
        before = u64::from(position);
    }
}

fn take_positions(input: &mut Reader<'_>) -> Result<Vec<u32>, Malformed> {
    let mut before = 0u64;
    input.list(|input| {
        before = before.checked_add(input.varint()?).ok_or(input.malformed())?;
        u32::try_from(before).map_err(|_| input.malformed())
    })
}

impl Reply {
    /// The reply to the frame of this round. Positions are in order.
    pub fn encode(&self, round: u8) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(round);
        match self {
            Reply::Appended { missing, unknown, refused } => {
                out.u8(0);
                put_positions(&mut out, missing);
                put_positions(&mut out, unknown);
                out.count(refused.len());
                for one in refused {
                    out.varint(u64::from(one.position));
                    out.u8(reason_number(one.reason));
                    out.varint(varint::zigzag(one.timestamp));
                    out.varint(u64::from(one.rows));
                }
            }
            Reply::StaleEpoch { epoch } => {
                out.u8(1);
                out.u64(*epoch);
            }
            Reply::BehindEpoch { epoch } => {
                out.u8(2);
                out.u64(*epoch);
            }
            Reply::NotHeld { shard } => {
                out.u8(3);
                out.varint(u64::from(shard.0));
            }
            Reply::Failed { why } => {
                out.u8(4);
                out.bytes(shortened(why).as_bytes());
            }
            Reply::Never { why } => {
                out.u8(5);
                out.bytes(shortened(why).as_bytes());
            }
        }
        out.0
    }

    /// Reads a reply and to which round it belongs.
    pub fn decode(bytes: &[u8]) -> Result<(u8, Reply), Malformed> {
        let mut input = Reader::new(bytes, "reply to a write");
        let round = input.u8()?;
        let reply = match input.u8()? {
            0 => Reply::Appended {
                missing: take_positions(&mut input)?,
                unknown: take_positions(&mut input)?,
                refused: input.list(|input| {
                    let narrow = |value: u64| u32::try_from(value).ok();
                    let position = narrow(input.varint()?).ok_or(input.malformed())?;
                    let reason = match input.u8()? {
                        0 => RejectReason::TooOld,
                        1 => RejectReason::TooFarInFuture,
                        2 => RejectReason::SeriesLimit,
                        3 => RejectReason::IdCollision,
                        _ => return Err(input.malformed()),
                    };
                    let timestamp = varint::unzigzag(input.varint()?);
                    let rows = narrow(input.varint()?).ok_or(input.malformed())?;
                    Ok(Refused { position, reason, timestamp, rows })
                })?,
            },
            1 => Reply::StaleEpoch { epoch: input.u64()? },
            2 => Reply::BehindEpoch { epoch: input.u64()? },
            3 => {
                let shard = u16::try_from(input.varint()?).map_err(|_| input.malformed())?;
                Reply::NotHeld { shard: Shard(shard) }
            }
            code @ (4 | 5) => {
                let why = String::from_utf8_lossy(input.bytes()?);
                let why = shortened(&why).to_owned();
                if code == 4 { Reply::Failed { why } } else { Reply::Never { why } }
            }
            _ => return Err(input.malformed()),
        };
        input.end()?;
        Ok((round, reply))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::btree_set(any::<u32>(), 0..9).prop_map(|set| set.into_iter().collect())
    }

    fn reply() -> impl Strategy<Value = Reply> {
        use RejectReason::*;
        let reason = prop::sample::select(vec![TooOld, TooFarInFuture, SeriesLimit, IdCollision]);
        let refused = (any::<u32>(), reason, any::<i64>(), any::<u32>())
            .prop_map(|(position, reason, timestamp, rows)| Refused { position, reason, timestamp, rows });
        prop_oneof![
            (positions(), positions(), prop::collection::vec(refused, 0..4))
                .prop_map(|(missing, unknown, refused)| Reply::Appended { missing, unknown, refused }),
            any::<u64>().prop_map(|epoch| Reply::StaleEpoch { epoch }),
            any::<u64>().prop_map(|epoch| Reply::BehindEpoch { epoch }),
            any::<u16>().prop_map(|shard| Reply::NotHeld { shard: Shard(shard) }),
            "[a-z ]{0,40}".prop_map(|why| Reply::Failed { why }),
            "[a-z ]{0,40}".prop_map(|why| Reply::Never { why }),
        ]
    }

    proptest! {
        #[test]
        fn a_reply_comes_back_and_a_damaged_one_is_refused_or_harmless(
            reply in reply(), round in any::<u8>(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = reply.encode(round);
            prop_assert_eq!(Reply::decode(&bytes).unwrap(), (round, reply));
            prop_assert!(Reply::decode(&bytes[..bytes.len() - 1]).is_err());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Reply::decode(&bytes);
        }

        #[test]
        fn a_reason_that_is_no_text_is_shortened_to_text(why in prop::collection::vec(any::<u8>(), 0..900)) {
            let mut out = Writer::default();
            out.u8(1);
            out.u8(4);
            out.bytes(&why);
            let (_, reply) = Reply::decode(&out.0).unwrap();
            prop_assert_eq!(Reply::decode(&reply.encode(1)).unwrap(), (1, reply));
        }

        #[test]
        fn a_header_comes_back(epoch: u64, timeout_ms: u32, session: u64, round: u8) {
            let header = Header { epoch, timeout_ms, session: Session(session), round };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), Header::BYTES);
            bytes.push(9);
            prop_assert_eq!(Header::decode(&bytes).unwrap(), (header, &[9u8][..]));
            prop_assert!(Header::decode(&bytes[..20]).is_err());
        }
    }

    #[test]
    fn the_examples_of_the_page_are_what_is_written() {
        let page = include_str!("../../../docs/format/rows.md");
        let example = |name: &str| -> Vec<u8> {
            let block = page.split(&format!("```{name}\n")).nth(1).unwrap().split("```").next().unwrap();
            let hex = block.lines().flat_map(|line| line.split('|').next().unwrap().split_whitespace());
            hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        let mut frame = Vec::new();
        Header { epoch: 5, timeout_ms: 10_000, session: Session::new(2, 7), round: 1 }.encode(&mut frame);
        assert_eq!(frame, example("frame"));
        let refused = [Refused { position: 6, reason: RejectReason::SeriesLimit, timestamp: 1000, rows: 1 }];
        let reply = Reply::Appended { missing: vec![3, 4], unknown: vec![5], refused: refused.into() };
        assert_eq!(reply.encode(1), example("reply"));
    }
}
