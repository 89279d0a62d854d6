//! Timestamps: a start, an interval, and how far each one is off that grid.
//!
//! ```text
//! chunk := start - base: zigzag varint | interval: zigzag varint | ints of (timestamp - start - i * interval)
//! ```
//!
//! The base is a timestamp that the keeper of the chunk knows already. One value has no interval and no deviations.

use super::{CHUNK_MAX, Input, ints, with_room};
use model::varint;

/// Appends `timestamps`, at most [`CHUNK_MAX`] of them.
pub fn encode(timestamps: &[i64], base: i64, out: &mut Vec<u8>) {
    assert!(timestamps.len() <= CHUNK_MAX, "BUG: a chunk of {} timestamps", timestamps.len());
    let Some(&start) = timestamps.first() else { return };
    varint::put(out, varint::zigzag(start.wrapping_sub(base)));
    if timestamps.len() == 1 {
        return;
    }
    let interval = interval(timestamps);
    varint::put(out, varint::zigzag(interval));
    let done = with_room(timestamps.len(), |deviations| {
        let mut grid = start;
        for (deviation, t) in deviations.iter_mut().zip(timestamps) {
            *deviation = t.wrapping_sub(grid);
            grid = grid.wrapping_add(interval);
        }
        ints::encode(deviations, out);
        Some(())
    });
    done.expect("BUG: no room for a chunk");
}

/// The median of a few differences: the scrape interval, unless most scrapes are late.
fn interval(timestamps: &[i64]) -> i64 {
    const PROBES: usize = 15;
    let mut steps = [0; PROBES];
    let stride = (timestamps.len() - 1).div_ceil(PROBES);
    let mut count = 0;
    let pairs = timestamps.iter().zip(timestamps.iter().skip(1)).step_by(stride);
    for (step, (a, b)) in steps.iter_mut().zip(pairs) {
        *step = b.wrapping_sub(*a);
        count += 1;
    }
    let steps = steps.split_at_mut(count).0;
    steps.sort_unstable();
    steps.get(count / 2).copied().unwrap_or(0)
}

/// Appends `count` timestamps to `out` and gives the bytes behind the chunk. On `None`, `out` is as before.
pub fn decode<'a>(bytes: &'a [u8], base: i64, count: usize, out: &mut Vec<i64>) -> Option<&'a [u8]> {
    if count > CHUNK_MAX {
        return None;
    }
    if count == 0 {
        return Some(bytes);
    }
    let mut input = Input(bytes);
    let start = base.wrapping_add(input.signed()?);
    if count == 1 {
        out.push(start);
        return Some(input.0);
    }
    let interval = input.signed()?;
    let from = out.len();
    out.resize(from + count, 0);
    let timestamps = out.get_mut(from..)?;
    let Some(rest) = ints::decode(input.0, timestamps) else {
        out.truncate(from);
        return None;
    };
    let mut grid = start;
    for t in timestamps {
        *t = t.wrapping_add(grid);
        grid = grid.wrapping_add(interval);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(timestamps: &[i64], base: i64) -> usize {
        let mut bytes = Vec::new();
        encode(timestamps, base, &mut bytes);
        let len = bytes.len();
        bytes.push(0x5a);
        let mut back = vec![7];
        assert_eq!(decode(&bytes, base, timestamps.len(), &mut back), Some(&[0x5a][..]));
        assert_eq!(&back[1..], timestamps);
        len
    }

    #[test]
    fn a_steady_scrape_takes_a_handful_of_bytes() {
        let steady: Vec<i64> = (0..480).map(|i| 1_767_225_600_123 + i * 15_000).collect();
        assert!(round_trip(&steady, steady[0]) <= 6);
        assert!(round_trip(&steady, 0) <= 12);
    }

    #[test]
    fn a_few_late_scrapes_cost_little() {
        let late: Vec<i64> =
            (0..480).map(|i| 1_767_225_600_123 + i * 15_000 + if i % 33 == 5 { i % 7 } else { 0 }).collect();
        assert!(round_trip(&late, late[0]) <= 100);
    }

    #[test]
    fn a_missed_scrape_costs_little() {
        let gap: Vec<i64> = (0..480).map(|i| 1_767_225_600_123 + (i + i / 100) * 15_000).collect();
        assert!(round_trip(&gap, gap[0]) <= 40);
    }

    proptest! {
        #[test]
        fn any_timestamps_survive(timestamps in prop::collection::vec(any::<i64>(), 0..=CHUNK_MAX), base in any::<i64>()) {
            round_trip(&timestamps, base);
        }

        #[test]
        fn scrapes_survive(start in -10i64..2_000_000_000_000, steps in prop::collection::vec(0i64..30_000, 0..CHUNK_MAX)) {
            let mut at = start;
            let timestamps: Vec<i64> = std::iter::once(start).chain(steps.iter().map(|s| { at += s; at })).collect();
            round_trip(&timestamps, start);
        }
    }
}
