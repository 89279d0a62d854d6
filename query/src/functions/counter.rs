//! `rate` and its relatives.

use super::range::{Function, Notes, Window, fell};
use crate::engine::Point;
use model::Samples;

/// `rate`, `increase`, `delta`: the difference between the ends of the window, extrapolated to its edges.
///
/// Where the resets are is found once a series, so a window costs only the resets inside it. With start timestamps a
/// sample that was started after the one before is a reset too, and a window whose first sample was started inside
/// it begins there, at zero.
pub struct Rate {
    counter: bool,
    per_second: bool,
    use_starts: bool,
    /// Samples before which the counter was reset.
    resets: Vec<usize>,
    /// Samples whose start lies before the sample before them.
    overlaps: Vec<usize>,
}

impl Rate {
    /// For one of the three functions.
    pub fn new(counter: bool, per_second: bool, use_starts: bool) -> Rate {
        Rate { counter, per_second, use_starts, resets: Vec::new(), overlaps: Vec::new() }
    }
}

/// The sorted indices inside of a range.
fn within(indices: &[usize], first: usize, end: usize) -> &[usize] {
    if indices.is_empty() {
        return indices;
    }
    &indices[indices.partition_point(|i| *i < first)..indices.partition_point(|i| *i < end)]
}

/// Whether sample `i` was started anew after sample `i - 1`.
fn restarted(samples: &Samples, i: usize) -> bool {
    let (times, starts) = (&samples.timestamps, &samples.starts);
    let (start, before) = (starts[i], times[i - 1]);
    if start == 0 || start >= times[i] || start < before {
        return false;
    }
    // A start at the very time of the sample before is how deltas arrive, but also how a counter arrives whose true
    // start nobody knows; then the sample before has no start of its own, or one that is its own time.
    start > before || (starts[i - 1] != 0 && starts[i - 1] < before)
}

impl Function for Rate {
    fn begin(&mut self, samples: &Samples) {
        self.resets.clear();
        self.overlaps.clear();
        if !self.counter {
            return;
        }
        let values = &samples.values;
        let starts = self.use_starts && !samples.starts.is_empty();
        for i in 1..values.len() {
            if values[i] < values[i - 1] || starts && restarted(samples, i) {
                self.resets.push(i);
            }
            if starts {
                let start = samples.starts[i];
                if start != 0 && start < samples.timestamps[i - 1] && start != samples.starts[i - 1] {
                    self.overlaps.push(i);
                }
            }
        }
    }

    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point> {
        let (first, end) = (window.floats.start, window.floats.end);
        let count = end - first;
        if count == 0 || window.is_mixed(notes) {
            return None;
        }
        let (times, values) = (&window.samples.timestamps, &window.samples.values);
        let started = match window.samples.starts.get(first) {
            Some(&start) if self.use_starts && start > window.start && start < times[first] && start != 0 => {
                Some(start)
            }
            _ => None,
        };
        if count < 2 && started.is_none() {
            return None;
        }
        let mut result = values[end - 1] - values[first];
        for &i in within(&self.resets, first + 1, end) {
            result += values[i - 1];
        }
        notes.starts_overlap |= !within(&self.overlaps, first + 1, end).is_empty();

        let seconds = |millis: i64| millis as f64 / 1000.0;
        let interval =
            if count > 1 { seconds(times[end - 1] - times[first]) / (count - 1) as f64 } else { 0.0 };
        // Up to the edge of the window when that is near, else by half an interval.
        let limit = interval * 1.1;
        let extend = |distance: f64| if distance >= limit { interval / 2.0 } else { distance };
        let (sampled, before) = match started {
            Some(start) => {
                result += values[first];
                (seconds(times[end - 1] - start), 0.0)
            }
            None => {
                let sampled = seconds(times[end - 1] - times[first]);
                let mut before = extend(seconds(times[first].saturating_sub(window.start)));
                if self.counter && result > 0.0 && values[first] >= 0.0 {
                    // A counter is not extrapolated to below zero.
                    before = before.min(sampled * (values[first] / result));
                }
                (sampled, before)
            }
        };
        let after = extend(seconds(window.end - times[end - 1]));
        let mut factor = (sampled + before + after) / sampled;
        if self.per_second {
            factor /= window.seconds();
        }
        Some(Point::Float(result * factor))
    }
}

/// `irate`, `idelta`: from the last two samples.
pub struct Instant {
    /// `irate`: divides by the time between and knows resets.
    pub counter: bool,
    /// Whether start timestamps tell of resets.
    pub starts: bool,
}

impl Function for Instant {
    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point> {
        let samples = window.samples;
        let last = window.floats.end.checked_sub(1)?;
        if let Some(&(time, _, _)) = samples.histograms[window.histograms.clone()].last() {
            // Only the last two samples count, whatever else is in the window.
            let floats = window.times();
            let newest_is_histogram = floats.last().is_none_or(|t| time > *t);
            let needed = if newest_is_histogram { 1 } else { 2 };
            let before = floats.len().checked_sub(needed).map(|i| floats[i]);
            let mixed = if newest_is_histogram {
                let histograms = &samples.histograms[window.histograms.clone()];
                let second = histograms.len().checked_sub(2).map(|i| histograms[i].0);
                before.is_some_and(|b| second.is_none_or(|s| b > s))
            } else {
                before.is_none_or(|b| time > b)
            };
            if mixed {
                notes.mixed |= true;
                return None;
            }
            if newest_is_histogram {
                return None;
            }
        }
        if window.floats.len() < 2 {
            return None;
        }
        let (values, times) = (&samples.values, &samples.timestamps);
        let interval = times[last] - times[last - 1];
        let starts = self.starts && !samples.starts.is_empty();
        let reset = fell(values[last - 1], values[last]) || starts && restarted(samples, last);
        if !self.counter {
            return Some(Point::Float(values[last] - values[last - 1]));
        }
        let difference = if reset { values[last] } else { values[last] - values[last - 1] };
        Some(Point::Float(difference / (interval as f64 / 1000.0)))
    }
}

/// `changes`, `resets`: how often neighbours differ. Counted once a series, so a window costs nothing.
pub struct Steepness {
    differs: fn(f64, f64) -> bool,
    use_starts: bool,
    /// How many differences there are up to each sample.
    counts: Vec<u32>,
}

impl Steepness {
    /// Counts the neighbours for which `differs(before, after)` holds.
    pub fn new(differs: fn(f64, f64) -> bool) -> Steepness {
        Steepness { differs, use_starts: false, counts: Vec::new() }
    }

    /// Counts resets, those that start timestamps tell of too.
    pub fn resets() -> Steepness {
        Steepness { use_starts: true, ..Steepness::new(fell) }
    }
}

impl Function for Steepness {
    fn begin(&mut self, samples: &Samples) {
        self.counts.clear();
        let starts = self.use_starts && !samples.starts.is_empty();
        let mut count = 0;
        for (i, value) in samples.values.iter().enumerate() {
            if i > 0 {
                let differs = (self.differs)(samples.values[i - 1], *value);
                count += u32::from(differs || starts && restarted(samples, i));
            }
            self.counts.push(count);
        }
    }

    fn at(&mut self, window: &Window, _notes: &mut Notes) -> Option<Point> {
        let floats = &window.floats;
        if floats.is_empty() {
            return None;
        }
        Some(Point::Float(f64::from(self.counts[floats.end - 1] - self.counts[floats.start])))
    }
}
