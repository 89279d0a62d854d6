//! Values of a fixed number of bits, back to back, lowest bit first, padded to a whole byte at the end.
//!
//! Eight values of `width` bits are exactly `width` bytes. With the width known at compile time the offsets and shifts
//! of such a group are constants, so unpacking a value is an unaligned load, a shift and a mask.

/// How many values make a group.
const GROUP: usize = 8;

/// The width that is really used for values of up to `bits` bits: an 8-byte load at any bit offset holds 57, so 57 to
/// 63 are widened to whole words.
#[inline]
pub fn width_for(bits: u32) -> u32 {
    if bits > 56 { 64 } else { bits }
}

/// Bits that are needed for `value`.
#[inline]
pub fn bit_len(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Bytes that `count` values of `width` bits take.
#[inline]
pub fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the low `width` bits of each value; higher bits must be zero unless `masked` by the caller.
pub fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mut word = 0u64;
    let mut filled = 0u32;
    for value in values {
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    let left = (filled as usize).div_ceil(8);
    out.extend(word.to_le_bytes().iter().take(left));
}

/// Fills `out` with values of `width` bits from `bytes`; bytes that are missing count as zeros, so the caller checks
/// [`packed_len`] first. `None` for a width that [`width_for`] never gives.
#[inline]
pub fn unpack(bytes: &[u8], width: u32, out: &mut [i64]) -> Option<()> {
    macro_rules! by_width {
        ($($w:literal)*) => {
            match width {
                0 => out.fill(0),
                $($w => unpack_const::<$w>(bytes, out),)*
                64 => {
                    for (value, word) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                        *value = i64::from_le_bytes(*word);
                    }
                }
                _ => return None,
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38
        39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56);
    Some(())
}

fn unpack_const<const W: usize>(bytes: &[u8], out: &mut [i64]) {
    let mut rest = bytes;
    let (groups, tail) = out.as_chunks_mut::<GROUP>();
    for group in groups {
        if let Some(window) = rest.get(..W + 8) {
            unpack_group::<W>(window, group);
        } else {
            unpack_group::<W>(&padded(rest), group);
        }
        rest = rest.get(W..).unwrap_or(&[]);
    }
    if !tail.is_empty() {
        let mut group = [0; GROUP];
        unpack_group::<W>(&padded(rest), &mut group);
        tail.iter_mut().zip(group).for_each(|(to, from)| *to = from);
    }
}

/// The last group's bytes with room for the widest load behind them.
fn padded(bytes: &[u8]) -> [u8; 72] {
    let mut padded = [0; 72];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    padded
}

#[inline(always)]
fn unpack_group<const W: usize>(window: &[u8], group: &mut [i64; GROUP]) {
    let mask = (1u64 << W) - 1;
    for (i, value) in group.iter_mut().enumerate() {
        let bit = i * W;
        // Always there: the window has W + 8 bytes and 7 * W / 8 < W. The compiler sees it too and drops the check.
        let word = window.get(bit / 8..bit / 8 + 8).and_then(|b| b.first_chunk::<8>());
        *value = (word.map_or(0, |b| u64::from_le_bytes(*b)) >> (bit % 8) & mask) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_width_round_trips(words in prop::collection::vec(any::<u64>(), 0..70), width in 0u32..=64) {
            let width = width_for(width);
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            let values: Vec<u64> = words.iter().map(|w| w & mask).collect();
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(values.len(), width));
            let mut back = vec![-1; values.len()];
            unpack(&bytes, width, &mut back).unwrap();
            prop_assert_eq!(back.iter().map(|&v| v as u64).collect::<Vec<_>>(), values);
        }
    }
}
