//! Rows of one shard on their way between nodes: writes, hints, answers to reads, repair.
//!
//! ```text
//! sections := section*
//! section  := shard:u16  length:u32  body                 length: bytes of the body; little-endian
//! body     := generation  series  flags:u8  names  runs  [starts]  [histograms]
//! names    := ( count << 3 | kind  name x count )*        until all series are named
//! name     := Ref: number | Id: id | Define: number id | Labels: bytes | DefineLabels: number bytes
//! runs     := ( repeat  count  rows )*                    until all series have their float rows
//! rows     := count 0: nothing
//!             count 1: time x repeat  integers:bitmap  value x repeat
//!             count n: ( form:u8  times  values ) x repeat
//! ```
//!
//! Integers are varints; numbers, times and integral values are zigzag differences to the one before. In the usual write a series
//! has one row and is named by a number that the receiver has seen before: a byte or two, a byte for its time, and its value.
//! `docs/format/rows.md` has every byte.
//!
//! A series is named by labels where the receiver cannot know it: the receiver computes the id itself, with the cluster's key, so nobody can
//! enter labels under an id that is not theirs. Decoding bounds everything before it takes memory for it, and never panics.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Dictionary, Limits, NoNumbers, Section, sections};
pub use encode::{Encoder, Name, Rows, Values};

use crate::wire::Malformed;

/// Sections that do not say what they should, or too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not in this format, or contradicting itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// More than is taken at once.
    #[error("{what}: {got} is more than the {max} that are taken at once")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// The bound.
        max: u64,
        /// What the bytes announce.
        got: u64,
    },
}

/// How a series is named.
mod kind {
    pub const REF: u64 = 0;
    pub const ID: u64 = 1;
    pub const DEFINE: u64 = 2;
    pub const LABELS: u64 = 3;
    pub const DEFINE_LABELS: u64 = 4;
}

/// Bits of a section's flags.
mod flag {
    /// Float rows have start timestamps.
    pub const STARTS: u8 = 1;
    /// There are histograms.
    pub const HISTOGRAMS: u8 = 2;
}

/// The form of a series' rows, where there are several: one of `TIMES_*` and one of `VALUES_*`.
mod form {
    /// As those of the series before, which had as many.
    pub const TIMES_SAME: u8 = 0;
    /// All at the same distance.
    pub const TIMES_REGULAR: u8 = 1;
    /// Differences of differences.
    pub const TIMES_ANY: u8 = 2;
    pub const TIMES: u8 = 3;
    /// All the same.
    pub const VALUES_CONSTANT: u8 = 0;
    /// Integers.
    pub const VALUES_INTEGERS: u8 = 4;
    /// What differs from the one before, in bytes.
    pub const VALUES_XOR: u8 = 8;
    /// As they are.
    pub const VALUES_RAW: u8 = 12;
}

/// Floats beyond this are not written as integers: the varint would be no shorter than the float.
const INTEGER_MAX: i64 = 1 << 48;

/// The integer that a float is, if it is one: the float comes back from it bit by bit.
#[inline]
fn integer(bits: u64) -> Option<i64> {
    let value = f64::from_bits(bits);
    // Saturates, and NaN becomes 0: the comparison of bits finds both.
    let integer = value as i64;
    (((integer as f64).to_bits() == bits) & (integer.unsigned_abs() < INTEGER_MAX as u64)).then_some(integer)
}
