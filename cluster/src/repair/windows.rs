//! How time is divided for comparing. Ranges are cells of a grid, so that replicas that remember digests are asked for the same
//! ones again.

use model::TimeRange;

/// The finest cell: 2 h, aligned to the epoch, like blocks from the head.
pub(super) const WINDOW_MS: i64 = 2 * 3_600_000;
/// Each level of the grid has cells so many times longer than the one below.
const FANOUT: i128 = 16;
/// Most parts that a range is split into.
const PARTS_MAX: i128 = 32;

/// Whether a range is not split any further.
pub(super) fn is_leaf(range: TimeRange) -> bool {
    cells(range, i128::from(WINDOW_MS)) <= 1
}

/// How many cells of this width a range touches.
fn cells(range: TimeRange, width: i128) -> i128 {
    i128::from(range.max.0).div_euclid(width) - i128::from(range.min.0).div_euclid(width) + 1
}

/// The parts of a range by the coarsest level of the grid at which it has more than one: at most 32, in order, no gap.
/// A leaf is its own only part.
pub(super) fn split(range: TimeRange) -> Vec<TimeRange> {
    let mut width = i128::from(WINDOW_MS);
    while cells(range, width) > PARTS_MAX {
        width *= FANOUT;
    }
    let (min, max) = (i128::from(range.min.0), i128::from(range.max.0));
    let first = min.div_euclid(width);
    (first..first + cells(range, width))
        .map(|cell| {
            let (from, to) = ((cell * width).max(min), ((cell + 1) * width - 1).min(max));
            TimeRange::new(from as i64, to as i64)
        })
        .collect()
}

/// The windows of the last `recent_ms`, newest first, the newest cut off at `until`.
pub(super) fn recent(until: i64, recent_ms: i64, floor: i64) -> Vec<TimeRange> {
    let first = recent_start(until, recent_ms).max(floor);
    if first > until {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut from = first.div_euclid(WINDOW_MS).saturating_mul(WINDOW_MS);
    while from <= until {
        all.push(TimeRange::new(from.max(first), from.saturating_add(WINDOW_MS - 1).min(until)));
        from = from.saturating_add(WINDOW_MS);
    }
    all.reverse();
    all
}

/// Where [`recent`] begins.
pub(super) fn recent_start(until: i64, recent_ms: i64) -> i64 {
    until.saturating_sub(recent_ms).div_euclid(WINDOW_MS).saturating_mul(WINDOW_MS)
}

/// The first moment that is compared under a retention: replicas' clocks differ, so what is about to expire is left alone.
pub(super) fn floor(now: i64, retention_ms: u64) -> i64 {
    match i64::try_from(retention_ms) {
        Ok(0) | Err(_) => i64::MIN,
        Ok(retention) => {
            now.saturating_sub(retention).div_euclid(WINDOW_MS).saturating_add(2).saturating_mul(WINDOW_MS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_a_range_without_gap_or_overlap_and_end_in_leaves(a in any::<i64>(), b in any::<i64>(), near in 0i64..100_000_000) {
            for range in [TimeRange::new(a.min(b), a.max(b)), TimeRange::new(a.min(a.saturating_add(near)), a.saturating_add(near))] {
                let mut range = range;
                for depth in 0.. {
                    prop_assert!(depth < 16, "it does not end");
                    let parts = split(range);
                    prop_assert!(parts.len() <= 32);
                    prop_assert_eq!(parts[0].min, range.min);
                    prop_assert_eq!(parts[parts.len() - 1].max, range.max);
                    prop_assert!(parts.windows(2).all(|w| w[0].max.0 + 1 == w[1].min.0));
                    if is_leaf(range) {
                        prop_assert_eq!(&parts, &[range]);
                        break;
                    }
                    prop_assert!(parts.len() > 1);
                    range = parts[near as usize % parts.len()];
                }
            }
        }

        #[test]
        fn recent_windows_and_older_ones_meet(until in -1i64 << 50..1 << 50, recent_ms in 0i64..1 << 32) {
            let windows = recent(until, recent_ms, i64::MIN);
            prop_assert_eq!(windows[0].max.0, until);
            prop_assert_eq!(windows[windows.len() - 1].min.0, recent_start(until, recent_ms));
            prop_assert!(windows.iter().all(|w| is_leaf(*w)));
            prop_assert!(windows.windows(2).all(|w| w[1].max.0 + 1 == w[0].min.0));
        }
    }

    #[test]
    fn all_of_time_can_be_split_and_nothing_expired_is_compared() {
        assert_eq!(
            split(TimeRange::ALL).len() as i128,
            cells(TimeRange::ALL, i128::from(WINDOW_MS) * 16i128.pow(10))
        );
        let now = 100 * WINDOW_MS + 5;
        assert_eq!(floor(now, 0), i64::MIN);
        let first = floor(now, 10 * WINDOW_MS as u64);
        assert!(first > now - 10 * WINDOW_MS + WINDOW_MS && first % WINDOW_MS == 0);
        assert_eq!(recent(now, 48 * WINDOW_MS, first).last().map(|w| w.min.0), Some(first));
        assert!(recent(now, WINDOW_MS, now + 1).is_empty());
    }
}
