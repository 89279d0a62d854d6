//! Frames, as bytes. A gRPC message is one frame; its length is gRPC's.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::Kind;
use bytes::{Buf, BufMut, Bytes};

/// Longest body. A header adds [`HEADER_BYTES_MAX`].
pub const BYTES_MAX: usize = 16 << 20;

/// Longest header: kind or status, and two varints.
pub const HEADER_BYTES_MAX: usize = 1 + 10 + 5;

/// What gRPC puts before each message.
const PREFIX_BYTES: usize = 5;

/// A frame that asks or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is about.
    pub kind: Kind,
    /// By which the answer is told from others; 0 if none is wanted.
    pub id: u64,
    /// How long the caller waits, in milliseconds; 0 for a frame that goes one way.
    pub timeout_ms: u32,
    /// For whom it may concern.
    pub body: Bytes,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The body is the answer, or a part of it.
    Done = 0,
    /// Nothing was done: there is too much to do.
    Busy = 1,
    /// The body says why not, for people.
    Failed = 2,
}

/// A frame that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// Of the request; 0 for the chunks of a streamed answer.
    pub id: u64,
    /// The answer, or why there is none.
    pub body: Bytes,
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame ({0}); it was written by another program, or damaged on the way")]
pub struct Malformed(pub &'static str);

/// What is sent as a gRPC message.
pub trait Frame: Sized + Send + Sync + 'static {
    /// Appends the bytes.
    fn encode(&self, out: &mut impl BufMut);

    /// Takes all of `bytes`.
    fn decode(bytes: &mut impl Buf) -> Result<Self, Malformed>;

    /// How many bytes it has, on the wire with what gRPC puts before it.
    fn wire_bytes(&self) -> usize;
}

impl Frame for Request {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.kind as u8);
        put_varint(out, self.id);
        put_varint(out, u64::from(self.timeout_ms));
        out.put_slice(&self.body);
    }

    fn decode(bytes: &mut impl Buf) -> Result<Request, Malformed> {
        let kind = bytes.try_get_u8().map_err(|_| Malformed("no kind"))?;
        let kind = Kind::ALL.get(usize::from(kind)).copied().ok_or(Malformed("unknown kind"))?;
        let id = take_varint(bytes)?;
        let timeout_ms = u32::try_from(take_varint(bytes)?).map_err(|_| Malformed("time-out"))?;
        Ok(Request { kind, id, timeout_ms, body: take_body(bytes)? })
    }

    fn wire_bytes(&self) -> usize {
        let numbers = varint_bytes(self.id) + varint_bytes(u64::from(self.timeout_ms));
        PREFIX_BYTES + 1 + numbers + self.body.len()
    }
}

impl Frame for Answer {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.status as u8);
        put_varint(out, self.id);
        out.put_slice(&self.body);
    }

    fn decode(bytes: &mut impl Buf) -> Result<Answer, Malformed> {
        let status = match bytes.try_get_u8().map_err(|_| Malformed("no status"))? {
            0 => Status::Done,
            1 => Status::Busy,
            2 => Status::Failed,
            _ => return Err(Malformed("unknown status")),
        };
        let id = take_varint(bytes)?;
        Ok(Answer { status, id, body: take_body(bytes)? })
    }

    fn wire_bytes(&self) -> usize {
        PREFIX_BYTES + 1 + varint_bytes(self.id) + self.body.len()
    }
}

fn take_body(bytes: &mut impl Buf) -> Result<Bytes, Malformed> {
    match bytes.remaining() {
        length if length > BYTES_MAX => Err(Malformed("the body is too long")),
        length => Ok(bytes.copy_to_bytes(length)),
    }
}

fn varint_bytes(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).div_ceil(7).max(1)
}

fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// In its shortest form, so that a frame has one form only.
fn take_varint(bytes: &mut impl Buf) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| Malformed("a number is cut off"))?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (shift > 0 && byte == 0) {
            return Err(Malformed("a number is not in its form"));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is not in its form"))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frame: &impl Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn requests_round_trip(kind in 0..Kind::ALL.len(), id: u64, timeout_ms: u32, body: Vec<u8>) {
            let frame = Request { kind: Kind::ALL[kind], id, timeout_ms, body: body.into() };
            let bytes = bytes_of(&frame);
            prop_assert!(bytes.len() <= HEADER_BYTES_MAX + frame.body.len());
            prop_assert_eq!(bytes.len() + 5, frame.wire_bytes());
            prop_assert_eq!(Request::decode(&mut &bytes[..]), Ok(frame));
        }

        #[test]
        fn answers_round_trip(status in 0..3usize, id: u64, body: Vec<u8>) {
            let status = [Status::Done, Status::Busy, Status::Failed][status];
            let frame = Answer { status, id, body: body.into() };
            prop_assert_eq!(bytes_of(&frame).len() + 5, frame.wire_bytes());
            prop_assert_eq!(Answer::decode(&mut &bytes_of(&frame)[..]), Ok(frame));
        }

        #[test]
        fn whatever_the_bytes_are_they_are_refused_or_the_only_form_of_a_frame(bytes: Vec<u8>) {
            if let Ok(frame) = Request::decode(&mut &bytes[..]) {
                prop_assert_eq!(&bytes_of(&frame), &bytes);
            }
            if let Ok(frame) = Answer::decode(&mut &bytes[..]) {
                prop_assert_eq!(&bytes_of(&frame), &bytes);
            }
        }
    }

    #[test]
    fn the_format_page_shows_the_bytes_that_are_written() {
        let page = include_str!("../../../docs/format/transport.md");
        let body = Bytes::from_static(b"hi");
        let request = Request { kind: Kind::Write, id: 300, timeout_ms: 5000, body: body.clone() };
        let answer = Answer { status: Status::Failed, id: 300, body };
        for bytes in [bytes_of(&request), bytes_of(&answer)] {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            assert!(page.contains(&hex), "docs/format/transport.md does not show: {hex}");
        }
        for kind in Kind::ALL {
            let row = format!("| {} | `{}` |", kind as u8, kind.as_str());
            assert!(page.contains(&row), "docs/format/transport.md does not have the row: {row}");
        }
        assert!(page.contains(&format!("{BYTES_MAX} bytes")));
    }
}
