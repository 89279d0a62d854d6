//! Where a series stands between 0 and 1 for `limit_ratio`.
//!
//! This is Prometheus's own choice, so that a query keeps the same series there and here: XXH64 over each name and value
//! behind its length, in one byte or, from 255 on, in `0xff` and three bytes, low first.

use model::Labels;

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// Whether a series at `place` is among the share `ratio`. A negative ratio takes what `1 + ratio` leaves.
pub fn keeps(ratio: f64, place: f64) -> bool {
    if ratio >= 0.0 { place < ratio || ratio >= 1.0 } else { place >= 1.0 + ratio }
}

/// From 0 to 1. `buffer` is for reuse.
pub fn place(labels: &Labels, buffer: &mut Vec<u8>) -> f64 {
    buffer.clear();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match text.len() {
            short @ 0..255 => buffer.push(short as u8),
            long => {
                buffer.push(0xff);
                buffer.extend_from_slice(&(long as u32).to_le_bytes()[..3]);
            }
        }
        buffer.extend_from_slice(text.as_bytes());
    }
    xxh64(buffer) as f64 / u64::MAX as f64
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// XXH64 with seed 0.
fn xxh64(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, b| value << 8 | u64::from(*b));
    let (stripes, rest) = bytes.split_at(bytes.len() / 32 * 32);
    let mut hash = P5;
    if !stripes.is_empty() {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for stripe in stripes.chunks_exact(32) {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(input));
            }
        }
        hash = lanes.iter().zip([1, 7, 12, 18]).fold(0, |h: u64, (l, by)| h.wrapping_add(l.rotate_left(by)));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.split_at(rest.len() / 8 * 8);
    for input in words.chunks_exact(8) {
        hash = (hash ^ round(0, word(input))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let (half, rest) = rest.split_at(rest.len() / 4 * 4);
    if !half.is_empty() {
        hash = (hash ^ word(half).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P2);
    hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh64() {
        let vectors = [
            ("", 0xef46_db37_51d8_e999),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ];
        for (text, hash) in vectors {
            assert_eq!(xxh64(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn long_values_have_their_length_in_four_bytes() {
        let mut buffer = Vec::new();
        let value = "v".repeat(300);
        place(&Labels::from_pairs([("n", value.as_str())]).unwrap(), &mut buffer);
        assert_eq!(buffer[..6], [1, b'n', 0xff, 44, 1, 0]);
        assert_eq!(buffer.len(), 306);
    }

    #[test]
    fn a_ratio_and_its_complement_share_out_every_series() {
        for place in [0.0, 0.1, 0.5, 0.799_999, 0.8, 1.0] {
            for ratio in [0.0, 0.1, 0.5, 0.8, 1.0] {
                assert!(keeps(ratio, place) != keeps(ratio - 1.0, place) || ratio == 1.0, "{ratio} {place}");
            }
            assert!(keeps(1.0, place) && keeps(-1.0, place) && !keeps(0.0, place));
        }
    }
}
