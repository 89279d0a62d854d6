//! `anchored` and `smoothed` windows.

use super::range::{Function, Notes, Window};
use crate::engine::Point;

/// `rate`, `increase`, `delta` without extrapolation.
///
/// Anchored: from the last sample at or before the window's start to the last one inside. Smoothed: between values
/// interpolated at the very edges.
pub struct ExtendedRate {
    /// Whether a fall is a reset.
    pub counter: bool,
    /// Whether to divide by the window's width.
    pub per_second: bool,
    /// Which of the two.
    pub smoothed: bool,
}

impl ExtendedRate {
    /// The value at `t`, between sample `i` and the next.
    fn between(&self, window: &Window, i: usize, t: i64) -> f64 {
        let (times, values) = (&window.samples.timestamps, &window.samples.values);
        let (mut from, to) = (values[i], values[i + 1]);
        if self.counter && to < from {
            // The counter started again at zero somewhere between.
            from = 0.0;
        }
        from + (to - from) * (t - times[i]) as f64 / (times[i + 1] - times[i]) as f64
    }
}

impl Function for ExtendedRate {
    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point> {
        if window.is_mixed(notes) {
            return None;
        }
        let (times, values) = (&window.samples.timestamps, &window.samples.values);
        let inside = window.floats.clone();
        let anchor =
            inside.start.checked_sub(1).filter(|i| times[*i] > window.start.saturating_sub(window.lookback));
        let first = anchor.unwrap_or(inside.start);
        let mut last = inside.end.checked_sub(1).filter(|i| *i >= first);
        let at_end = last.is_some_and(|i| times[i] == window.end);
        let follows =
            inside.end < times.len() && times[inside.end] <= window.end.saturating_add(window.lookback);
        let interpolate_right = self.smoothed && !at_end && follows;
        if interpolate_right {
            last = Some(inside.end);
        }
        let last = last?;
        if times[last] <= window.start || times[first] > window.end {
            return None;
        }
        let interpolate_left = self.smoothed && times[first] < window.start;
        let left = if interpolate_left { self.between(window, first, window.start) } else { values[first] };
        let right = if interpolate_right && last > first {
            self.between(window, last - 1, window.end)
        } else {
            values[last]
        };
        let mut result = right - left;
        if self.counter {
            let from = if times[first] <= window.start { first + 1 } else { first };
            let to = if times[last] >= window.end { last } else { last + 1 };
            let mut before = left;
            for value in values[from.min(to)..to].iter().copied().chain([right]) {
                if value < before {
                    result += before;
                }
                before = value;
            }
        }
        if self.per_second {
            result /= window.seconds();
        }
        Some(Point::Float(result))
    }
}

/// `changes` and `resets`, anchored: the sample before the window counts as its first.
pub struct ExtendedCount(pub fn(f64, f64) -> bool);

impl Function for ExtendedCount {
    fn at(&mut self, window: &Window, _notes: &mut Notes) -> Option<Point> {
        let (times, values) = (&window.samples.timestamps, &window.samples.values);
        let inside = window.floats.clone();
        if inside.is_empty() {
            return None;
        }
        let anchor =
            inside.start.checked_sub(1).filter(|i| times[*i] > window.start.saturating_sub(window.lookback));
        let values = &values[anchor.unwrap_or(inside.start)..inside.end];
        Some(Point::Float(values.windows(2).filter(|pair| (self.0)(pair[0], pair[1])).count() as f64))
    }
}
