//! Instant selectors, and how series are fetched and streamed.

use super::{ABSENT, Column, Evaluator, Series, Steps, is_absent};
use crate::ast::{Extension, Span, VectorSelector};
use crate::engine::{Error, Point};
use model::{Labels, Matcher, Samples, Selection, SeriesSet, TimeRange};
use std::sync::Arc;

/// What was fetched, for selectors that occur more than once in a query.
pub struct Selected {
    matchers: Vec<Matcher>,
    range: TimeRange,
    set: Arc<dyn SeriesSet>,
}

/// Which side of the sample an instant selector yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The value.
    Value,
    /// The timestamp in seconds.
    Time,
    /// The start timestamp in seconds.
    Start,
}

/// Takes series one after the other as they are computed.
pub trait Sink: Send {
    /// One series. The column is the caller's scratch; a sink that wants to keep it takes its content.
    fn push(&mut self, labels: Labels, drop_name: bool, column: &mut Column) -> Result<(), Error>;
}

/// Keeps all series.
pub struct Collect<'a> {
    evaluator: &'a Evaluator<'a>,
    series: Vec<Series>,
}

impl<'a> Collect<'a> {
    /// Nothing yet.
    pub fn new(evaluator: &'a Evaluator<'a>) -> Collect<'a> {
        Collect { evaluator, series: Vec::new() }
    }

    /// All series of several sinks, in order.
    pub fn join(sinks: Vec<Collect<'_>>) -> Vec<Series> {
        let mut sinks = sinks.into_iter().map(|s| s.series);
        let mut all = sinks.next().unwrap_or_default();
        sinks.for_each(|series| all.extend(series));
        all
    }
}

impl Sink for Collect<'_> {
    fn push(&mut self, labels: Labels, drop_name: bool, column: &mut Column) -> Result<(), Error> {
        let mut column = std::mem::take(column);
        column.held = self.evaluator.budget.hold(column.floats.len() + column.histograms.len())?;
        self.series.push(Series { labels, drop_name, column });
        Ok(())
    }
}

impl Evaluator<'_> {
    /// The series that match and their samples in `range`.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Arc<dyn SeriesSet>, Error> {
        let mut selected = self.selected.lock();
        if let Some(known) = selected.iter().find(|s| s.range == range && s.matchers == matchers) {
            return Ok(known.set.clone());
        }
        let series_max = self.options.series_max;
        let selection = Selection { matchers: matchers.to_vec(), range, series_max, shards: None };
        let set: Arc<dyn SeriesSet> = Arc::from(self.source.select(&selection)?);
        if set.len() > series_max {
            return Err(Error::Source(model::Error::Limit {
                what: "series fetched by one selector",
                key: "limits.query_series_max",
                max: series_max as u64,
                got: set.len() as u64,
            }));
        }
        let mut annotations = self.annotations.lock();
        set.warnings().iter().for_each(|warning| annotations.source_warned(warning));
        selected.push(Selected { matchers: matchers.to_vec(), range, set: set.clone() });
        Ok(set)
    }

    /// Reads one series into a buffer and counts it.
    pub fn read(
        &self,
        set: &dyn SeriesSet,
        index: usize,
        range: TimeRange,
        into: &mut Samples,
    ) -> Result<super::budget::Held, Error> {
        set.read(index, range, into)?;
        let count = into.timestamps.len() + into.histograms.len();
        self.budget.count_read(count);
        Ok(self.budget.hold(count)?)
    }

    /// An instant selector at all steps.
    pub fn instant_selector(
        &self,
        selector: &VectorSelector,
        span: Span,
        pick: Pick,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let sinks = self.scan_instant(selector, span, pick, steps, || Collect::new(self))?;
        Ok(Collect::join(sinks))
    }

    /// Streams the series of an instant selector.
    pub fn scan_instant<S: Sink>(
        &self,
        selector: &VectorSelector,
        span: Span,
        pick: Pick,
        steps: Steps,
        sink: impl Fn() -> S + Sync,
    ) -> Result<Vec<S>, Error> {
        let moments = self.moments(selector.at, self.offset(&selector.offset)?, steps);
        let smoothed = match selector.extension {
            Extension::None => false,
            Extension::Smoothed => true,
            Extension::Anchored => {
                return super::fail("anchored modifier can only be used with range selectors");
            }
        };
        let after = if smoothed { self.lookback } else { 0 };
        let range = TimeRange::new(
            moments.start.saturating_sub(self.lookback).saturating_add(1),
            moments.end().saturating_add(after),
        );
        let set = self.select(&selector.matchers, range)?;
        let work = set.len() as u64 * (4 + estimated_samples(range) + steps.count as u64 / 4);
        let states = self.for_each(
            set.len(),
            work,
            || (Samples::default(), Column::default(), sink()),
            |(samples, column, sink), index| {
                let _held = self.read(&*set, index, range, samples)?;
                column.reset(steps.count);
                if smoothed {
                    drop_stale(samples);
                    if !smooth(samples, moments, self.lookback, column) {
                        let labels = set.labels(index);
                        self.annotations.lock().warn(span, mixed_floats_and_histograms(&labels));
                    }
                } else {
                    latest(samples, moments, self.lookback, pick, column);
                }
                if column.is_empty() {
                    return Ok(());
                }
                sink.push(set.labels(index), pick != Pick::Value, column)
            },
        )?;
        Ok(states.into_iter().map(|(_, _, sink)| sink).collect())
    }
}

/// The text of a warning.
pub fn mixed_floats_and_histograms(labels: &Labels) -> String {
    let name = super::column::metric_name(labels);
    crate::annotations::for_metric("encountered a mix of histograms and floats", name)
}

/// How many samples a series may have in the range, only to decide on the number of threads.
pub fn estimated_samples(range: TimeRange) -> u64 {
    const INTERVAL_MS: u64 = 15_000;
    let width = range.max.0.saturating_sub(range.min.0).max(0);
    (width as u64 / INTERVAL_MS).min(1 << 20)
}

/// Removes stale markers.
pub fn drop_stale(samples: &mut Samples) {
    if samples.values.iter().any(|v| is_absent(*v)) {
        let mut kept = 0;
        for i in 0..samples.values.len() {
            if !is_absent(samples.values[i]) {
                samples.values[kept] = samples.values[i];
                samples.timestamps[kept] = samples.timestamps[i];
                if let Some(start) = samples.starts.get(i).copied() {
                    samples.starts[kept] = start;
                }
                kept += 1;
            }
        }
        samples.values.truncate(kept);
        samples.timestamps.truncate(kept);
        samples.starts.truncate(kept);
    }
    samples.histograms.retain(|(_, _, h)| !h.is_stale());
}

/// Fills `column` with the latest sample in `(t - lookback, t]` of each moment `t`. A stale marker is an empty slot by
/// its very bits.
fn latest(samples: &Samples, moments: Steps, lookback: i64, pick: Pick, column: &mut Column) {
    let (times, values) = (&samples.timestamps[..], &samples.values[..]);
    let mut next = 0;
    let mut next_histogram = 0;
    for step in 0..moments.count {
        let t = moments.at(step);
        while next < times.len() && times[next] <= t {
            next += 1;
        }
        let mut float_time = i64::MIN;
        if next > 0 && times[next - 1] > t.saturating_sub(lookback) {
            float_time = times[next - 1];
            let value = values[next - 1];
            column.floats[step] = match pick {
                _ if is_absent(value) => ABSENT,
                Pick::Value => value,
                Pick::Time => float_time as f64 / 1000.0,
                Pick::Start => samples.starts.get(next - 1).copied().unwrap_or(0) as f64 / 1000.0,
            };
        }
        if samples.histograms.is_empty() {
            continue;
        }
        while next_histogram < samples.histograms.len() && samples.histograms[next_histogram].0 <= t {
            next_histogram += 1;
        }
        let Some((time, start, histogram)) = next_histogram.checked_sub(1).map(|i| &samples.histograms[i])
        else {
            continue;
        };
        if *time > t.saturating_sub(lookback) && *time > float_time {
            column.floats[step] = ABSENT;
            if !histogram.is_stale() {
                column.set(
                    step,
                    match pick {
                        Pick::Value => Point::Histogram(histogram.clone()),
                        Pick::Time => Point::Float(*time as f64 / 1000.0),
                        Pick::Start => Point::Float(*start as f64 / 1000.0),
                    },
                );
            }
        }
    }
}

/// Fills `column` with values interpolated between the samples around each moment; after the last sample its value
/// holds. `false` when a step was left out because floats and histograms are mixed around it.
fn smooth(samples: &Samples, moments: Steps, lookback: i64, column: &mut Column) -> bool {
    let (times, values) = (&samples.timestamps[..], &samples.values[..]);
    let mut pure = true;
    for step in 0..moments.count {
        let t = moments.at(step);
        let (earliest, last) = (t.saturating_sub(lookback), t.saturating_add(lookback));
        let window = times.partition_point(|x| *x <= earliest)..times.partition_point(|x| *x <= last);
        if samples.histograms.iter().any(|(x, _, _)| *x > earliest && *x <= last) {
            pure &= window.is_empty();
            continue;
        }
        let after = times.partition_point(|x| *x <= t);
        if after == window.start {
            continue;
        }
        let before = after - 1;
        column.floats[step] = if after == window.end || times[before] == t {
            values[before]
        } else {
            let part = (t - times[before]) as f64 / (times[after] - times[before]) as f64;
            values[before] + (values[after] - values[before]) * part
        };
    }
    pure
}
