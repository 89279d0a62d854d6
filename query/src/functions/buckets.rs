//! Quantiles and fractions of classic histograms: series that differ in their `le`.

use super::math::{max, min};

/// Counts closer together than this are taken as equal.
const SMALL_DELTA: f64 = 1e-12;

/// One bucket: how many observations were at most `bound`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Upper bound.
    pub bound: f64,
    /// Cumulative.
    pub count: f64,
}

/// What had to be straightened: the bounds between which counts fell, and by how much at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed {
    /// Lowest bucket.
    pub lowest: f64,
    /// Highest bucket.
    pub highest: f64,
    /// Largest correction.
    pub diff_max: f64,
}

/// Sorts, and adds up buckets with the same bound; `false` when the one to `+Inf` is missing.
fn prepare(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    if buckets.last().is_none_or(|b| b.bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a == b || a.is_nan() && b.is_nan() {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < SMALL_DELTA
}

/// Makes counts ascend.
fn straighten(buckets: &mut [Bucket]) -> Option<Fixed> {
    let mut fixed: Option<Fixed> = None;
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if almost_equal(before, count) {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let this = Fixed { lowest: bucket.bound, highest: bucket.bound, diff_max: before - count };
            fixed = Some(fixed.map_or(this, |f| Fixed {
                lowest: min(f.lowest, this.lowest),
                highest: max(f.highest, this.highest),
                diff_max: max(f.diff_max, this.diff_max),
            }));
        } else {
            before = count;
        }
    }
    fixed
}

/// The `q`-quantile, interpolated linearly inside its bucket.
pub fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Fixed>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let fixed = straighten(buckets);
    let last = buckets.len() - 1;
    let total = buckets[last].count;
    if last == 0 || total == 0.0 {
        return (f64::NAN, fixed);
    }
    let mut rank = q * total;
    let at =
        buckets[..last].partition_point(|b| b.count.partial_cmp(&rank).is_none_or(std::cmp::Ordering::is_lt));
    if at == last {
        return (buckets[last - 1].bound, fixed);
    }
    if at == 0 && buckets[0].bound <= 0.0 {
        return (buckets[0].bound, fixed);
    }
    let mut start = 0.0;
    let mut count = buckets[at].count;
    if at > 0 {
        start = buckets[at - 1].bound;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (buckets[at].bound - start) * (rank / count), fixed)
}

/// The share of observations between two values.
pub fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        let mut low = if buckets[0].bound > 0.0 { 0.0 } else { f64::NEG_INFINITY };
        for bucket in buckets.iter() {
            if low >= value {
                return rank;
            }
            if bucket.bound > value {
                if low == f64::NEG_INFINITY {
                    // Nothing is known of where in such a bucket its observations are; it counts as a whole.
                    return bucket.count;
                }
                return rank + (bucket.count - rank) * (value - low) / (bucket.bound - low);
            }
            rank = bucket.count;
            low = bucket.bound;
        }
        total
    };
    let clamp = |rank: f64| if rank > total { total } else { rank };
    (clamp(rank_of(upper)) - clamp(rank_of(lower))) / total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect()
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn quantiles_interpolate_inside_a_bucket() {
        let mut b = buckets(&[(INF, 4.0), (1.0, 2.0), (2.0, 4.0)]);
        assert_eq!(quantile(0.75, &mut b), (1.5, None));
        assert_eq!(quantile(0.25, &mut b), (0.5, None));
        assert!(quantile(0.5, &mut buckets(&[(1.0, 2.0)])).0.is_nan());
        assert_eq!(quantile(1.0, &mut buckets(&[(1.0, 2.0), (INF, 3.0)])).0, 1.0);
        assert_eq!(quantile(-1.0, &mut b).0, -INF);
    }

    #[test]
    fn counts_that_fall_are_raised_and_reported() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 7.0), (3.0, 9.0), (INF, 12.0)]);
        let (value, fixed) = quantile(0.5, &mut b);
        assert_eq!(value, 0.6);
        assert_eq!(fixed, Some(Fixed { lowest: 2.0, highest: 3.0, diff_max: 3.0 }));
        let mut b = buckets(&[(1.0, 10.0), (2.0, 10.0 - 1e-13), (INF, 12.0)]);
        assert_eq!(quantile(0.5, &mut b).1, None);
    }

    #[test]
    fn fractions_count_what_lies_between() {
        let mut b = buckets(&[(0.0, 0.0), (0.2, 7.0), (1.0, 11.0), (INF, 11.0)]);
        assert_eq!(fraction(0.0, 0.2, &mut b), 7.0 / 11.0);
        assert_eq!(fraction(-1.0, 5.0, &mut b), 1.0);
        assert_eq!(fraction(1.0, 0.0, &mut b), 0.0);
        assert_eq!(fraction(f64::NEG_INFINITY, INF, &mut b), 1.0);
    }
}
