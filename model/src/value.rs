//! Sample values and the conflict rule.

use crate::Histogram;
use std::cmp::Ordering;
use std::sync::Arc;

/// The bits of the NaN that marks the end of a series. Every other NaN is an ordinary value; bits are never changed.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a float is the stale marker.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The stale marker.
#[inline]
pub fn stale() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// What a series has at one timestamp.
#[derive(Clone, Debug)]
pub enum Value {
    /// A float, raw bits kept.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// The order that settles which of two floats at one (series, timestamp) wins: the greater one.
///
/// Stale marker, then every other float by IEEE total order (so all bit patterns are told apart and the rule is total).
#[inline]
pub fn cmp_floats(a: f64, b: f64) -> Ordering {
    (!is_stale(a)).cmp(&!is_stale(b)).then_with(|| a.total_cmp(&b))
}

impl Value {
    /// The conflict rule: stale marker < float < histogram, then by value. The greater one wins.
    ///
    /// A total order, so the merge (`max`) is commutative, associative and idempotent: replays, repair and compaction
    /// may apply in any order, any number of times.
    pub fn cmp_conflict(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => cmp_floats(*a, *b),
            (Value::Float(_), Value::Histogram(_)) => Ordering::Less,
            (Value::Histogram(_), Value::Float(_)) => Ordering::Greater,
            (Value::Histogram(a), Value::Histogram(b)) => a.cmp_conflict(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_beats_the_stale_marker_and_the_greater_number_wins() {
        assert_eq!(cmp_floats(stale(), f64::NEG_INFINITY), Ordering::Less);
        assert_eq!(cmp_floats(stale(), stale()), Ordering::Equal);
        assert_eq!(cmp_floats(1.0, 2.0), Ordering::Less);
        assert_eq!(cmp_floats(-0.0, 0.0), Ordering::Less);
        assert_eq!(cmp_floats(f64::NAN, 1.0), Ordering::Greater);
    }
}
