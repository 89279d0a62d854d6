//! Functions over a window of samples.

use super::counter::{Instant, Rate, Steepness};
use super::extended::{ExtendedCount, ExtendedRate};
use super::math::{self, Mean, Sum};
use crate::annotations::go_general;
use crate::ast::{Extension, Span};
use crate::engine::{Error, Point};
use crate::eval::{Evaluator, fail};
use model::Samples;
use std::ops::Range;
use std::sync::Arc;

/// A function over windows. The windows of one series come in ascending order.
pub trait Function: Send {
    /// Called before the windows of each series.
    fn begin(&mut self, _samples: &Samples) {}

    /// The value for one window, if it has one.
    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point>;
}

/// Makes a function's state, one for each thread.
pub type Factory = Box<dyn Fn() -> Box<dyn Function> + Sync>;

/// What was noticed about a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Floats and histograms in one window; it has no value.
    pub mixed: bool,
    /// Histograms in one window with floats were ignored.
    pub histograms_ignored: bool,
    /// A start timestamp lies before the sample before.
    pub starts_overlap: bool,
}

/// A left-open window `(start, end]` over the samples of one series, stale markers taken out.
pub struct Window<'a> {
    /// All samples that were read.
    pub samples: &'a Samples,
    /// Floats in the window.
    pub floats: Range<usize>,
    /// Histograms in the window.
    pub histograms: Range<usize>,
    /// Milliseconds, excluded.
    pub start: i64,
    /// Milliseconds, included.
    pub end: i64,
    /// How far outside the window `anchored` and `smoothed` look.
    pub lookback: i64,
    /// The step of the query.
    pub step: usize,
    /// The time of that step, which differs from `end` with `@` and `offset`.
    pub time: i64,
}

impl<'a> Window<'a> {
    /// Times of the floats.
    pub fn times(&self) -> &'a [i64] {
        &self.samples.timestamps[self.floats.clone()]
    }

    /// The floats.
    pub fn values(&self) -> &'a [f64] {
        &self.samples.values[self.floats.clone()]
    }

    /// Width in seconds.
    pub fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1000.0
    }

    /// For functions that make no sense of floats and histograms together: whether the window has both, which is noted.
    pub fn is_mixed(&self, notes: &mut Notes) -> bool {
        let mixed = !self.floats.is_empty() && !self.histograms.is_empty();
        notes.mixed |= mixed;
        mixed
    }

    /// For functions that know floats only: notes that histograms beside floats are ignored.
    pub fn ignore_histograms(&self, notes: &mut Notes) {
        notes.histograms_ignored |= !self.floats.is_empty() && !self.histograms.is_empty();
    }
}

/// Scalar arguments: a value a step, and where the argument stands.
type Scalars = Vec<(Vec<f64>, Span)>;

/// The function `name`, or nothing when it is not one over range vectors.
pub fn factory(
    evaluator: &Evaluator,
    name: &str,
    scalars: Scalars,
    extension: Extension,
) -> Result<Option<Factory>, Error> {
    let starts = evaluator.options.start_timestamps;
    let scalars: Vec<(Arc<[f64]>, Span)> = scalars.into_iter().map(|(c, s)| (c.into(), s)).collect();
    let scalar = |i: usize| scalars[i].0.clone();
    Ok(Some(match (name, extension) {
        ("rate" | "increase" | "delta", Extension::None) => {
            let (counter, per_second) = (name != "delta", name == "rate");
            Box::new(move || Box::new(Rate::new(counter, per_second, starts && counter)))
        }
        ("rate" | "increase" | "delta", extension) => {
            let (counter, per_second) = (name != "delta", name == "rate");
            let smoothed = extension == Extension::Smoothed;
            Box::new(move || Box::new(ExtendedRate { counter, per_second, smoothed }))
        }
        ("changes", Extension::None) => Box::new(|| Box::new(Steepness::new(changed))),
        ("resets", Extension::None) => {
            Box::new(move || Box::new(if starts { Steepness::resets() } else { Steepness::new(fell) }))
        }
        ("changes", _) => Box::new(|| Box::new(ExtendedCount(changed))),
        ("resets", _) => Box::new(|| Box::new(ExtendedCount(fell))),
        ("irate", _) => Box::new(move || Box::new(Instant { counter: true, starts })),
        ("idelta", _) => Box::new(|| Box::new(Instant { counter: false, starts: false })),
        ("min_over_time", _) => Box::new(|| Box::new(Extreme::new(|a, b| a < b))),
        ("max_over_time", _) => Box::new(|| Box::new(Extreme::new(|a, b| a > b))),
        ("sum_over_time", _) => plain(sum),
        ("avg_over_time", _) => plain(avg),
        ("count_over_time", _) => plain(|w, _| float((w.floats.len() + w.histograms.len()) as f64)),
        ("present_over_time" | "absent_over_time", _) => plain(|_, _| float(1.0)),
        ("first_over_time", _) => plain(|w, _| edge(w, false).map(|(_, point)| point)),
        ("last_over_time", _) => plain(|w, _| edge(w, true).map(|(_, point)| point)),
        ("ts_of_first_over_time", _) => plain(|w, _| seconds(edge(w, false)?.0)),
        ("ts_of_last_over_time", _) => plain(|w, _| seconds(edge(w, true)?.0)),
        ("ts_of_min_over_time", _) => plain(|w, notes| time_of(w, notes, |a, b| a <= b)),
        ("ts_of_max_over_time", _) => plain(|w, notes| time_of(w, notes, |a, b| a >= b)),
        ("stdvar_over_time", _) => floats(|w| Some(math::variance(w.values()))),
        ("stddev_over_time", _) => floats(|w| Some(math::variance(w.values()).sqrt())),
        ("mad_over_time", _) => floats(mad),
        ("deriv", _) => floats(|w| Some(regression(w, *w.times().first()?)?.0)),
        ("quantile_over_time", _) => {
            let (q, span) = (scalar(0), scalars[0].1);
            warn_quantiles(evaluator, &q, span);
            floats(move |w| Some(math::quantile(q[w.step], &mut w.values().to_vec())))
        }
        ("predict_linear", _) => {
            let ahead = scalar(0);
            floats(move |w| {
                let (slope, intercept) = regression(w, w.time)?;
                Some(slope * ahead[w.step] + intercept)
            })
        }
        ("double_exponential_smoothing", _) => {
            let (smoothing, trend) = (scalar(0), scalar(1));
            for (what, factors) in [("smoothing", &smoothing), ("trend", &trend)] {
                let outside = |v: &&f64| !(**v > 0.0 && **v < 1.0);
                if let Some(wrong) = factors.iter().find(outside) {
                    let letter = if what == "trend" { "tf" } else { "sf" };
                    return fail(format!(
                        "invalid {what} factor. Expected: 0 < {letter} < 1, got: {wrong:.6}"
                    ));
                }
            }
            floats(move |w| smoothed(w.values(), smoothing[w.step], trend[w.step]))
        }
        _ => return Ok(None),
    }))
}

/// Warns of quantiles outside of `0..=1`.
pub fn warn_quantiles(evaluator: &Evaluator, quantiles: &[f64], span: Span) {
    for q in quantiles.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        let text = format!("quantile value should be between 0 and 1, got {}", go_general(*q));
        evaluator.annotations.lock().warn(span, text);
    }
}

/// A function without state.
struct Plain<F>(Arc<F>);

impl<F: Fn(&Window, &mut Notes) -> Option<Point> + Send + Sync> Function for Plain<F> {
    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point> {
        (self.0)(window, notes)
    }
}

fn plain(f: impl Fn(&Window, &mut Notes) -> Option<Point> + Send + Sync + 'static) -> Factory {
    let f = Arc::new(f);
    Box::new(move || Box::new(Plain(f.clone())))
}

/// A function that knows floats only.
fn floats(f: impl Fn(&Window) -> Option<f64> + Send + Sync + 'static) -> Factory {
    plain(move |window, notes| {
        if window.floats.is_empty() {
            return None;
        }
        window.ignore_histograms(notes);
        f(window).map(Point::Float)
    })
}

fn float(value: f64) -> Option<Point> {
    Some(Point::Float(value))
}

fn seconds(millis: i64) -> Option<Point> {
    float(millis as f64 / 1000.0)
}

/// Whether a value counts as a change. NaN after NaN does not.
pub fn changed(before: f64, after: f64) -> bool {
    before != after && !(before.is_nan() && after.is_nan())
}

/// Whether a counter was reset.
pub fn fell(before: f64, after: f64) -> bool {
    after < before
}

/// The first or last sample.
fn edge(window: &Window, last: bool) -> Option<(i64, Point)> {
    let pick = |range: &Range<usize>| match last {
        _ if range.is_empty() => None,
        true => Some(range.end - 1),
        false => Some(range.start),
    };
    let samples = window.samples;
    let float = pick(&window.floats).map(|i| (samples.timestamps[i], Point::Float(samples.values[i])));
    let histogram = pick(&window.histograms).map(|i| {
        let (time, _, histogram) = &samples.histograms[i];
        (*time, Point::Histogram(histogram.clone()))
    });
    match (float, histogram) {
        (Some(a), Some(b)) => Some(if (a.0 < b.0) == last { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn sum(window: &Window, notes: &mut Notes) -> Option<Point> {
    if window.floats.is_empty() || window.is_mixed(notes) {
        return None;
    }
    let mut sum = Sum::default();
    window.values().iter().for_each(|v| sum.add(*v));
    float(if sum.sum.is_infinite() { sum.sum } else { sum.total() })
}

fn avg(window: &Window, notes: &mut Notes) -> Option<Point> {
    if window.floats.is_empty() || window.is_mixed(notes) {
        return None;
    }
    float(mean(window.values()))
}

/// The mean of some numbers. A plain sum gives the same and is several times faster; only one that was infinite on its
/// way, and so ends without a finite value, has to be done again.
fn mean(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|v| sum.add(*v));
    if sum.sum.is_finite() {
        let count = values.len() as f64;
        return sum.sum / count + sum.correction / count;
    }
    let mut mean = Mean::default();
    values.iter().for_each(|v| mean.add(*v));
    mean.mean()
}

/// The time of the last among the greatest or least.
fn time_of(window: &Window, notes: &mut Notes, better: fn(f64, f64) -> bool) -> Option<Point> {
    window.ignore_histograms(notes);
    let (times, values) = (window.times(), window.values());
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if better(*value, values[best]) || values[best].is_nan() {
            best = i;
        }
    }
    seconds(*times.get(best)?)
}

/// Median distance from the median.
fn mad(window: &Window) -> Option<f64> {
    let mut values = window.values().to_vec();
    if values.iter().any(|v| v.is_nan()) {
        return Some(f64::NAN);
    }
    let median = math::quantile(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    Some(math::quantile(0.5, &mut values))
}

/// Slope a second and value at `origin` of the line with the least squares.
fn regression(window: &Window, origin: i64) -> Option<(f64, f64)> {
    let (times, values) = (window.times(), window.values());
    if values.len() < 2 {
        return None;
    }
    if values.iter().all(|v| *v == values[0]) {
        return Some(if values[0].is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, values[0]) });
    }
    let (mut x, mut y, mut xy, mut xx) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (time, value) in times.iter().zip(values) {
        let at = (time - origin) as f64 / 1000.0;
        x.add(at);
        y.add(*value);
        xy.add(at * value);
        xx.add(at * at);
    }
    let n = values.len() as f64;
    let (x, y, xy, xx) = (x.total(), y.total(), xy.total(), xx.total());
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Some((slope, y / n - slope * x / n))
}

/// Holt's linear method.
fn smoothed(values: &[f64], smoothing: f64, trend: f64) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let (mut before, mut level) = (0.0, values[0]);
    let mut slope = values[1] - values[0];
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        before = level;
        level = next;
    }
    Some(level)
}

/// Minimum or maximum: remembers the best sample, so only new ones are compared while it stays in the window.
struct Extreme {
    better: fn(f64, f64) -> bool,
    best: usize,
    seen: Range<usize>,
}

impl Extreme {
    fn new(better: fn(f64, f64) -> bool) -> Extreme {
        Extreme { better, best: 0, seen: 0..0 }
    }
}

impl Function for Extreme {
    fn begin(&mut self, _samples: &Samples) {
        self.seen = 0..0;
    }

    fn at(&mut self, window: &Window, notes: &mut Notes) -> Option<Point> {
        if window.floats.is_empty() {
            return None;
        }
        window.ignore_histograms(notes);
        let values = &window.samples.values;
        let mut next = self.seen.end;
        if self.seen.is_empty() || self.best < window.floats.start {
            self.best = window.floats.start;
            next = self.best + 1;
        }
        for i in next..window.floats.end {
            if (self.better)(values[i], values[self.best]) || values[self.best].is_nan() {
                self.best = i;
            }
        }
        self.seen = window.floats.clone();
        float(values[self.best])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_mean_by_a_plain_sum_is_the_running_mean(values in prop::collection::vec(any::<f64>(), 1..20)) {
            let mut running = Mean::default();
            values.iter().for_each(|v| running.add(*v));
            let (quick, running) = (mean(&values), running.mean());
            prop_assert!(quick == running || (quick.is_nan() && running.is_nan()), "{} {}", quick, running);
        }
    }
}
