//! Points and spans of time.

/// Milliseconds since the Unix epoch, negative before it. Columns of timestamps are plain `i64` in the same unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest representable moment.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest representable moment.
    pub const MAX: Timestamp = Timestamp(i64::MAX);
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A span of time, both ends included. Empty when `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond inside.
    pub min: Timestamp,
    /// Last millisecond inside.
    pub max: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { min: Timestamp::MIN, max: Timestamp::MAX };

    /// From `min` to `max`, both in milliseconds, both included.
    pub fn new(min: i64, max: i64) -> TimeRange {
        TimeRange { min: Timestamp(min), max: Timestamp(max) }
    }

    /// Whether the millisecond `t` lies inside.
    pub fn contains(&self, t: i64) -> bool {
        self.min.0 <= t && t <= self.max.0
    }

    /// Whether the two spans share a millisecond.
    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}
