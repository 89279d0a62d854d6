//! Protobuf's wire format, read without copying.
//!
//! ```text
//! message := field*
//! field   := key payload          key: varint, number << 3 | type
//! payload := varint               type 0
//!          | 8 bytes LE           type 1
//!          | len: varint, bytes   type 2
//!          | 4 bytes LE           type 5
//! ```
//!
//! Groups (types 3 and 4) are refused: no message of ours has had any, and they are the only way to nest without a
//! length. What else the specification asks for holds: fields in any order, unknown ones skipped, the last of a repeated
//! scalar wins, repeated numbers packed or not.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fmt;

/// Key of a varint field.
pub const fn varint(number: u32) -> u32 {
    number << 3
}

/// Key of an 8-byte field.
pub const fn fixed64(number: u32) -> u32 {
    number << 3 | 1
}

/// Key of a field with a length: bytes, text, message, packed numbers.
pub const fn len(number: u32) -> u32 {
    number << 3 | 2
}

/// Where bytes stop being protobuf, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    what: What,
    at: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Truncated,
    Overlong,
    FieldNumber,
    Group,
    WireType,
    Packed,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Truncated => "unexpected EOF: a field is longer than what is left",
            What::Overlong => "a varint is longer than 64 bits",
            What::FieldNumber => "a field number is out of range",
            What::Group => "groups are not supported",
            What::WireType => "a field has the wrong wire type",
            What::Packed => "packed doubles are not a multiple of 8 bytes",
        };
        write!(f, "malformed protobuf at byte {}: {what}", self.at)
    }
}

impl From<Malformed> for crate::Refusal {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        crate::Refusal::bad(malformed.to_string())
    }
}

/// A position in a message. Offsets count from the start of the outermost one.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    /// Ends where the message ends.
    buf: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `buf`.
    #[inline]
    pub fn new(buf: &'a [u8]) -> Cursor<'a> {
        Cursor { buf, at: 0 }
    }

    /// At offset `at` of `buf`.
    #[inline]
    pub fn resume(buf: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { buf, at: at.min(buf.len()) }
    }

    /// Whether the message ends here.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.at >= self.buf.len()
    }

    /// Offset of the next byte.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.buf.len() - self.at
    }

    #[cold]
    fn fault(&self, what: What) -> Malformed {
        Malformed { what, at: self.at as u32 }
    }

    /// The next number.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.buf.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.varint_long(),
        }
    }

    /// The next number, likely of two bytes.
    #[inline(always)]
    pub fn varint_short(&mut self) -> Result<u64, Malformed> {
        match self.buf.get(self.at..).and_then(<[u8]>::first_chunk::<2>) {
            Some(&[low, high]) if low >= 0x80 && high < 0x80 => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.varint(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, Malformed> {
        let rest = self.buf.get(self.at..).unwrap_or_default();
        let mut value = 0u64;
        for (i, &byte) in rest.iter().enumerate().take(10) {
            // The tenth byte may only carry the 64th bit.
            if i == 9 && byte > 1 {
                return Err(self.fault(What::Overlong));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(self.fault(if rest.len() < 10 { What::Truncated } else { What::Overlong }))
    }

    /// The next field's key.
    #[inline(always)]
    pub fn key(&mut self) -> Result<u32, Malformed> {
        let key = self.varint()?;
        if (8..=u64::from(u32::MAX)).contains(&key) {
            Ok(key as u32)
        } else {
            Err(self.fault(What::FieldNumber))
        }
    }

    /// A double, as raw bits.
    #[inline(always)]
    pub fn fixed64(&mut self) -> Result<u64, Malformed> {
        match self.buf.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.fault(What::Truncated)),
        }
    }

    /// A double.
    #[inline(always)]
    pub fn double(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_bits(self.fixed64()?))
    }

    /// A zigzag number of 64 bits.
    #[inline]
    pub fn sint64(&mut self) -> Result<i64, Malformed> {
        Ok(model::varint::unzigzag(self.varint()?))
    }

    /// A zigzag number of 32 bits; higher bits are dropped, as protobuf has it.
    #[inline]
    pub fn sint32(&mut self) -> Result<i32, Malformed> {
        Ok(model::varint::unzigzag(u64::from(self.varint()? as u32)) as i32)
    }

    /// The end of a payload whose length comes next; the position is then at its start.
    #[inline(always)]
    fn end(&mut self) -> Result<usize, Malformed> {
        let len = self.varint()?;
        if len <= (self.buf.len() - self.at) as u64 {
            Ok(self.at + len as usize)
        } else {
            Err(self.fault(What::Truncated))
        }
    }

    /// The bytes of a field with a length.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.end()?;
        let bytes = self.buf.get(self.at..end).unwrap_or_default();
        self.at = end;
        Ok(bytes)
    }

    /// A field with a length, as a message of its own.
    #[inline(always)]
    pub fn message(&mut self) -> Result<Cursor<'a>, Malformed> {
        let end = self.end()?;
        let message = Cursor { buf: self.buf.get(..end).unwrap_or_default(), at: self.at };
        self.at = end;
        Ok(message)
    }

    /// Passes over a field with a length.
    #[inline(always)]
    pub fn skip_len(&mut self) -> Result<(), Malformed> {
        self.at = self.end()?;
        Ok(())
    }

    /// All doubles of a packed field.
    pub fn packed_doubles(&mut self, mut each: impl FnMut(f64)) -> Result<(), Malformed> {
        let (doubles, rest) = self.bytes()?.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(self.fault(What::Packed));
        }
        doubles.iter().for_each(|bytes| each(f64::from_le_bytes(*bytes)));
        Ok(())
    }

    /// Passes over a field that the message does not have. `known` has a bit for each field number that it does have:
    /// one of these arriving here came with the wrong type.
    #[inline(never)]
    pub fn unknown(&mut self, key: u32, known: u32) -> Result<(), Malformed> {
        if known.checked_shr(key >> 3).unwrap_or(0) & 1 == 1 {
            return Err(self.wrong_type(key));
        }
        match key & 7 {
            0 => self.varint().map(|_| ()),
            1 => self.fixed64().map(|_| ()),
            2 => self.skip_len(),
            5 if self.buf.len() - self.at >= 4 => {
                self.at += 4;
                Ok(())
            }
            5 => Err(self.fault(What::Truncated)),
            _ => Err(self.wrong_type(key)),
        }
    }

    /// The error for a field whose type does not fit.
    #[cold]
    pub fn wrong_type(&self, key: u32) -> Malformed {
        self.fault(if matches!(key & 7, 3 | 4) { What::Group } else { What::WireType })
    }
}
