//! Functions from number to number, and the summations that Prometheus uses.

/// A running sum with Neumaier's correction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The sum without the correction.
    pub sum: f64,
    /// What rounding lost.
    pub correction: f64,
}

impl Sum {
    /// Adds one number.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.correction = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.correction += (self.sum - total) + value;
        } else {
            self.correction += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// The corrected sum.
    #[inline]
    pub fn total(&self) -> f64 {
        self.sum + self.correction
    }
}

/// A running mean: a corrected sum, turned into an incrementally updated mean once the sum would overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    /// The sum, or the mean when `incremental`.
    state: Sum,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// Adds one number.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.state = Sum { sum: value, correction: 0.0 };
            return;
        }
        if !self.incremental {
            let mut next = self.state;
            next.add(value);
            if !next.sum.is_infinite() {
                self.state = next;
                return;
            }
            self.make_incremental(self.count - 1.0);
        }
        let kept = (self.count - 1.0) / self.count;
        self.state = Sum { sum: self.state.sum * kept, correction: self.state.correction * kept };
        self.state.add(value / self.count);
    }

    /// Adds all numbers of another mean.
    pub fn merge(&mut self, mut other: Mean) {
        if self.count == 0.0 || other.count == 0.0 {
            if self.count == 0.0 {
                *self = other;
            }
            return;
        }
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let mut next = self.state;
            next.add(other.state.sum);
            next.correction += other.state.correction;
            if !next.sum.is_infinite() {
                *self = Mean { state: next, count, incremental: false };
                return;
            }
        }
        self.make_incremental(self.count);
        other.make_incremental(other.count);
        let (mine, theirs) = (self.count / count, other.count / count);
        let mut state = Sum { sum: self.state.sum * mine, correction: self.state.correction * mine };
        state.add(other.state.sum * theirs);
        state.correction += other.state.correction * theirs;
        *self = Mean { state, count, incremental: true };
    }

    fn make_incremental(&mut self, count: f64) {
        if !self.incremental {
            self.incremental = true;
            self.state = Sum { sum: self.state.sum / count, correction: self.state.correction / count };
        }
    }

    /// The mean of what was added.
    pub fn mean(&self) -> f64 {
        if self.incremental {
            self.state.total()
        } else {
            self.state.sum / self.count + self.state.correction / self.count
        }
    }
}

/// Variance of all numbers, by Welford's method with corrected sums.
pub fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Sum::default(), Sum::default());
    for (i, value) in values.iter().enumerate() {
        let delta = value - mean.total();
        mean.add(delta / (i + 1) as f64);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / values.len() as f64
}

/// The order in which NaN is the least of all.
pub fn cmp_nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The `q`-quantile, interpolated between neighbours; sorts the values.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(cmp_nan_first);
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = rank.floor();
    let upper = (lower as usize + 1).min(last);
    let weight = rank - lower;
    values[lower as usize] * (1.0 - weight) + values[upper] * weight
}

/// The greater: positive infinity if one is, else NaN if one is.
pub fn max(a: f64, b: f64) -> f64 {
    let unknown = (a.is_nan() || b.is_nan()) && a != f64::INFINITY && b != f64::INFINITY;
    if unknown { f64::NAN } else { a.max(b) }
}

/// The lesser: negative infinity if one is, else NaN if one is.
pub fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// Rounds to the nearest multiple of `nearest`, halves up.
pub fn round(value: f64, nearest: f64) -> f64 {
    // Multiplying with the inverse keeps more digits where `nearest` is a decimal fraction.
    let inverse = 1.0 / nearest;
    (value * inverse + 0.5).floor() / inverse
}

fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// The function of one number with this name.
pub fn simple(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "sgn" => sign,
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> f64 {
        let mut mean = Mean::default();
        values.iter().for_each(|v| mean.add(*v));
        mean.mean()
    }

    #[test]
    fn sums_keep_what_plain_addition_loses() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100].iter().for_each(|v| sum.add(*v));
        assert_eq!(sum.total(), 2.0);
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let big = 9e307;
        assert_eq!(mean(&[big, big, big]), big);
        assert_eq!(mean(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(mean(&[52.0; 11]), 52.0);
    }

    #[test]
    fn merged_means_equal_the_mean_of_all() {
        let big = 1.7e308;
        for (left, right) in [(&[1.0, 2.0][..], &[6.0][..]), (&[big, big], &[big]), (&[], &[1.0])] {
            let (mut a, mut b) = (Mean::default(), Mean::default());
            left.iter().for_each(|v| a.add(*v));
            right.iter().for_each(|v| b.add(*v));
            a.merge(b);
            let all: Vec<f64> = left.iter().chain(right).copied().collect();
            assert!((a.mean() / mean(&all) - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn quantiles_interpolate_and_take_nan_for_the_least() {
        assert_eq!(quantile(0.75, &mut [1.0, 0.0, 4.0]), 2.5);
        assert_eq!(quantile(0.8, &mut [0.0, f64::NAN, 1.0]), 0.6000000000000001);
        assert_eq!(quantile(1.5, &mut [1.0]), f64::INFINITY);
    }

    #[test]
    fn rounding_goes_half_up() {
        assert_eq!(round(-2.5, 1.0), -2.0);
        assert_eq!(round(5.25, 0.1), 5.3);
    }
}
