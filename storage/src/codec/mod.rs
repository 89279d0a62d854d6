//! How columns become bytes: chunks of up to [`CHUNK_MAX`] values, no state between chunks.
//!
//! ```text
//! floats ── decimal? ──▶ integers ──▶ ints ──▶ bits
//! times ── minus grid ──▶ integers ──▶ ints ──▶ bits
//! ```
//!
//! [`ints`] is where the bytes are saved: greatest common divisor, differences, the cheapest layout by exact size.
//! [`floats`] and [`times`] only turn their values into integers that are small there. Every encoder is deterministic,
//! so equal columns have equal bytes.
//!
//! The number of values is never stored: whoever keeps a chunk knows it (from the timestamps' column, from the head's
//! chunk header) and passes it to the decoder. Decoders read outside bytes: they never panic, give `None` for what
//! makes no sense, and write no more than they were asked for.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod bits;
pub mod floats;
pub mod ints;
pub mod times;

/// Most values in a chunk. The knee: shorter chunks cost 1-8 % more bytes, longer ones save nothing.
pub const CHUNK_MAX: usize = 480;

/// Lends `f` a cleared buffer of `len` values on the stack, no larger than need be: clearing the largest costs as much as
/// decoding a short chunk. `None` beyond [`CHUNK_MAX`].
#[inline]
fn with_room<T: Copy + Default, R>(len: usize, f: impl FnOnce(&mut [T]) -> Option<R>) -> Option<R> {
    let zero = T::default();
    match len {
        0..=32 => f([zero; 32].get_mut(..len)?),
        33..=128 => f([zero; 128].get_mut(..len)?),
        _ => f([zero; CHUNK_MAX].get_mut(..len)?),
    }
}

/// Bytes from outside, taken from the front; `None` once they run out.
pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        let (value, rest) = model::varint::take(self.0)?;
        self.0 = rest;
        Some(value)
    }

    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        self.varint().map(model::varint::unzigzag)
    }

    /// A varint that must fit into memory and stay below `max`.
    #[inline]
    pub fn count(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|&count| count <= max)
    }

    #[inline]
    pub fn word(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}
