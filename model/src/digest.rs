//! Hashes of content that do not depend on its order.

use crate::{Samples, SeriesId};
use std::fmt;
use std::ops::{Add, AddAssign};

/// What a set of samples is, in 128 bits: the sum of a hash of each (series, timestamp, start timestamp, value).
///
/// Equal content has equal digests, whatever the order of arrival and the layout in files. Sums, so that parts are added up and
/// a part that changed is exchanged. It is a guard against faults, not against an attacker: the series ids in it are keyed, the mixing is not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Add for Digest {
    type Output = Digest;
    fn add(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Digest) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Digest {
    fn sum<I: Iterator<Item = Digest>>(digests: I) -> Digest {
        digests.fold(Digest::default(), Add::add)
    }
}

/// Both halves of the product: every bit of the result depends on every bit of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// What makes the hashes of a series its own.
#[derive(Clone, Copy)]
pub struct DigestKey(u64, u64);

impl DigestKey {
    /// Of a series.
    #[inline]
    pub fn new(id: SeriesId) -> DigestKey {
        let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
        // A factor of zero would forget the other one.
        DigestKey(
            fold(high ^ 0x9e37_79b9_7f4a_7c15, low ^ 0xd6e8_feb8_6659_fd93) | 1,
            low.rotate_left(32) ^ high | 1,
        )
    }

    /// Of one float without a start timestamp.
    #[inline]
    pub fn float(self, timestamp: i64, value: f64) -> Digest {
        self.mix(timestamp, 0, value.to_bits())
    }

    #[inline]
    fn mix(self, timestamp: i64, start: i64, value: u64) -> Digest {
        let time = fold(timestamp as u64 ^ self.0, 0xa076_1d64_78bd_642f)
            ^ fold(start as u64, 0x8ebc_6af0_9c88_c6e3);
        let a = fold(time ^ value, self.1 ^ 0xe703_7ed1_a0b4_28db);
        let b = fold(time.rotate_left(29) ^ self.1, value ^ 0x5899_65cc_7537_4cc3);
        Digest(u128::from(a) << 64 | u128::from(b ^ a.rotate_left(17)))
    }
}

impl Digest {
    /// Of the samples of one series.
    pub fn of(id: SeriesId, samples: &Samples) -> Digest {
        let key = DigestKey::new(id);
        let mut sum = Digest::default();
        if samples.starts.is_empty() {
            for (&t, v) in samples.timestamps.iter().zip(&samples.values) {
                sum += key.float(t, *v);
            }
        } else {
            for ((&t, v), &start) in samples.timestamps.iter().zip(&samples.values).zip(&samples.starts) {
                sum += key.mix(t, start, v.to_bits());
            }
        }
        let mut bytes = Vec::new();
        for (t, start, histogram) in &samples.histograms {
            bytes.clear();
            histogram.encode(&mut bytes);
            // The value's place is taken by a hash of the encoded histogram, kept apart from floats by its length.
            let hash = bytes.chunks(8).fold(bytes.len() as u64 ^ 0x1d8e_4e27_c47d_124f, |hash, chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                fold(hash ^ u64::from_le_bytes(word), 0xeb44_acca_b455_d165)
            });
            sum += key.mix(*t, *start, hash.rotate_left(1)) + Digest(1);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(rows: &[(i64, u64)]) -> Samples {
        Samples {
            timestamps: rows.iter().map(|r| r.0).collect(),
            values: rows.iter().map(|r| f64::from_bits(r.1)).collect(),
            ..Samples::default()
        }
    }

    proptest! {
        #[test]
        fn parts_add_up_and_every_changed_bit_shows(
            id in any::<u128>(),
            rows in prop::collection::vec((any::<i64>(), any::<u64>()), 1..40),
            cut in any::<prop::sample::Index>(), bit in 0u32..64, which in 0..3
        ) {
            let id = SeriesId(id);
            let whole = Digest::of(id, &samples(&rows));
            let at = cut.index(rows.len());
            let (a, b) = rows.split_at(at);
            prop_assert_eq!(whole, Digest::of(id, &samples(b)) + Digest::of(id, &samples(a)));
            let mut other = rows.clone();
            let mut changed = id;
            match which {
                0 => other[at].0 ^= 1 << bit,
                1 => other[at].1 ^= 1 << bit,
                _ => changed.0 ^= 1 << (bit * 2),
            }
            prop_assert_ne!(whole, Digest::of(changed, &samples(&other)));
        }
    }

    #[test]
    fn exchanged_values_and_small_numbers_do_not_collide() {
        let mut seen = std::collections::HashSet::new();
        for id in 0..20u128 {
            for t in 0..50 {
                for v in 0..50u64 {
                    assert!(seen.insert(Digest::of(SeriesId(id), &samples(&[(t, v)]))), "{id} {t} {v}");
                }
            }
        }
        let a = Digest::of(SeriesId(7), &samples(&[(1, 10), (2, 20)]));
        assert_ne!(a, Digest::of(SeriesId(7), &samples(&[(1, 20), (2, 10)])));
    }
}
