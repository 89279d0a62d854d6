//! Functions over range vectors: a window slides over the samples of each series.
//!
//! Both ends of the window only move forward, so a series costs O(samples + steps) besides what the function itself
//! does; see [`crate::functions::range`].

use super::select::{Collect, Sink, drop_stale, estimated_samples, mixed_floats_and_histograms};
use super::{Column, Evaluator, Series, Steps, bare, column, fail, is_absent, output};
use crate::annotations::for_metric;
use crate::ast::{Call, Expr, Extension, Kind, MatrixSelector, Span, Subquery, ValueType};
use crate::engine::Error;
use crate::functions::range::{self, Factory, Notes, Window};
use model::{Labels, Samples, TimeRange};

/// A call of a function over a range vector, ready to run.
pub struct Rollup<'e> {
    argument: Argument<'e>,
    /// Where the argument stands.
    span: Span,
    name: &'static str,
    factory: Factory,
}

enum Argument<'e> {
    Matrix(&'e MatrixSelector),
    Subquery(&'e Subquery),
}

/// The windows of a range vector.
#[derive(Clone, Copy)]
struct Windows {
    /// Where they end.
    ends: Steps,
    width: i64,
    lookback: i64,
    extension: Extension,
    /// The steps of the query that they belong to.
    steps: Steps,
}

impl<'a> Evaluator<'a> {
    /// The call as a rollup, if it is one; its scalar arguments are evaluated.
    pub fn rollup<'e>(&self, call: &'e Call, steps: Steps) -> Result<Option<Rollup<'e>>, Error> {
        let at = call.function.args.iter().position(|t| *t == ValueType::Matrix);
        let Some(expr) = at.and_then(|at| call.args.get(at)) else { return Ok(None) };
        let argument = range_argument(expr)?;
        let mut scalars = Vec::new();
        for (arg, value_type) in call.args.iter().zip(call.function.args) {
            if *value_type == ValueType::Scalar {
                scalars.push((self.eval_scalar(arg, steps)?, arg.span));
            }
        }
        let extension = match &argument {
            Argument::Matrix(matrix) => matrix.selector.extension,
            Argument::Subquery(_) => Extension::None,
        };
        let name = call.function.name;
        check_extension(name, extension)?;
        let Some(factory) = range::factory(self, name, scalars, extension)? else { return Ok(None) };
        Ok(Some(Rollup { argument, span: expr.span, name, factory }))
    }

    /// All series of a rollup, with their full labels.
    pub fn collect_rollup(&self, rollup: &Rollup, steps: Steps) -> Result<Vec<Series>, Error> {
        Ok(Collect::join(self.scan_rollup(rollup, steps, || Collect::new(self))?))
    }

    /// All series of a rollup.
    pub fn eval_rollup(&self, rollup: &Rollup, steps: Steps) -> Result<Vec<Series>, Error> {
        let series = self.collect_rollup(rollup, steps)?;
        let drops = !self.options.delayed_name_removal && series.iter().any(|s| s.drop_name);
        if !drops {
            return Ok(series);
        }
        let unique = super::can_drop_names(&series);
        let series: Vec<Series> = series.into_iter().map(super::without_metadata).collect();
        if !unique {
            output::refuse_same(&series)?;
        }
        Ok(series)
    }

    /// Whether two series of this rollup may look the same once their names are dropped.
    pub fn names_may_collide(&self, rollup: &Rollup) -> bool {
        match rollup.argument {
            Argument::Matrix(matrix) => !matrix
                .selector
                .matchers
                .iter()
                .any(|m| m.name == model::labels::METRIC_NAME && m.op == model::MatchOp::Equal),
            Argument::Subquery(_) => true,
        }
    }

    /// Streams the series of a rollup, with their full labels.
    pub fn scan_rollup<S: Sink>(
        &self,
        rollup: &Rollup,
        steps: Steps,
        sink: impl Fn() -> S + Sync,
    ) -> Result<Vec<S>, Error> {
        match rollup.argument {
            Argument::Matrix(matrix) => self.scan_matrix(rollup, matrix, steps, sink),
            Argument::Subquery(subquery) => self.scan_subquery(rollup, subquery, steps, sink),
        }
    }

    fn scan_matrix<S: Sink>(
        &self,
        rollup: &Rollup,
        matrix: &MatrixSelector,
        steps: Steps,
        sink: impl Fn() -> S + Sync,
    ) -> Result<Vec<S>, Error> {
        let selector = &matrix.selector;
        let windows = Windows {
            ends: self.moments(selector.at, self.offset(&selector.offset)?, steps),
            width: self.positive_millis(&matrix.range)?,
            lookback: self.lookback,
            extension: selector.extension,
            steps,
        };
        let range = windows.samples();
        let set = self.select(&selector.matchers, range)?;
        let work = set.len() as u64 * (4 + 2 * estimated_samples(range) + steps.count as u64);
        let states = self.for_each(
            set.len(),
            work,
            || (Samples::default(), Column::default(), (rollup.factory)(), sink()),
            |(samples, column, function, sink), index| {
                let _held = self.read(&*set, index, range, samples)?;
                if samples.is_empty() {
                    return Ok(());
                }
                drop_stale(samples);
                column.reset(steps.count);
                let notes = self.slide(windows, samples, &mut **function, column)?;
                if column.is_empty() && notes == Notes::default() {
                    return Ok(());
                }
                let labels = set.labels(index);
                self.note(rollup, &labels, notes, column);
                if column.is_empty() { Ok(()) } else { sink.push(labels, rollup.drops_name(), column) }
            },
        )?;
        Ok(states.into_iter().map(|(_, _, _, sink)| sink).collect())
    }

    fn scan_subquery<S: Sink>(
        &self,
        rollup: &Rollup,
        subquery: &Subquery,
        steps: Steps,
        sink: impl Fn() -> S + Sync,
    ) -> Result<Vec<S>, Error> {
        let ends = self.moments(subquery.at, self.offset(&subquery.offset)?, steps);
        let width = self.positive_millis(&subquery.range)?;
        let (inner, series) = self.subquery(subquery, ends, width)?;
        let windows = Windows { ends, width, lookback: self.lookback, extension: Extension::None, steps };
        let work = series.len() as u64 * (inner.count as u64 + steps.count as u64);
        let states = self.for_each(
            series.len(),
            work,
            || (Samples::default(), Column::default(), (rollup.factory)(), sink()),
            |(samples, column, function, sink), index| {
                let series = &series[index];
                to_samples(inner, &series.column, samples);
                column.reset(steps.count);
                let notes = self.slide(windows, samples, &mut **function, column)?;
                self.note(rollup, &series.labels, notes, column);
                if column.is_empty() {
                    return Ok(());
                }
                sink.push(series.labels.clone(), rollup.drops_name() || series.drop_name, column)
            },
        )?;
        Ok(states.into_iter().map(|(_, _, _, sink)| sink).collect())
    }

    /// Runs the function over all windows of one series.
    fn slide(
        &self,
        windows: Windows,
        samples: &Samples,
        function: &mut dyn range::Function,
        column: &mut Column,
    ) -> Result<Notes, Error> {
        /// Samples that windows may have between two looks at whether the query was cancelled.
        const UNCHECKED: usize = 1 << 18;
        let mut notes = Notes::default();
        let mut unchecked = 0;
        let (mut floats, mut histograms) = (0..0, 0..0);
        function.begin(samples);
        for step in 0..windows.ends.count {
            let end = windows.ends.at(step);
            let start = end.saturating_sub(windows.width);
            advance(&mut floats.end, samples.timestamps.len(), |i| samples.timestamps[i] <= end);
            advance(&mut floats.start, floats.end, |i| samples.timestamps[i] <= start);
            if !samples.histograms.is_empty() {
                advance(&mut histograms.end, samples.histograms.len(), |i| samples.histograms[i].0 <= end);
                advance(&mut histograms.start, histograms.end, |i| samples.histograms[i].0 <= start);
            }
            if floats.is_empty() && histograms.is_empty() && windows.extension == Extension::None {
                continue;
            }
            unchecked += floats.len() + histograms.len();
            if unchecked > UNCHECKED {
                self.check_canceled()?;
                unchecked = 0;
            }
            let window = Window {
                samples,
                floats: floats.clone(),
                histograms: histograms.clone(),
                start,
                end,
                lookback: self.lookback,
                step,
                time: windows.steps.at(step),
            };
            if let Some(point) = function.at(&window, &mut notes) {
                column.set(step, point);
            }
        }
        Ok(notes)
    }

    /// Annotates what was noticed about one series.
    fn note(&self, rollup: &Rollup, labels: &Labels, notes: Notes, column: &Column) {
        let name = column::metric_name(labels);
        if notes != Notes::default() {
            let mut annotations = self.annotations.lock();
            if notes.mixed {
                annotations.warn(rollup.span, mixed_floats_and_histograms(labels));
            }
            if notes.histograms_ignored {
                let text = "ignored histograms in a range containing both floats and histograms";
                annotations.info(rollup.span, for_metric(text, name));
            }
            if notes.starts_overlap {
                let text = "sample has start time that overlaps with previous sample timestamp for metric";
                annotations.warn(rollup.span, format!("{text} {name:?}"));
            }
        }
        let counts = matches!(rollup.name, "rate" | "increase");
        if counts && !name.is_empty() && !looks_like_counter(name) && !column.is_empty() {
            let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
            self.annotations.lock().info(rollup.span, format!("{text} {name:?}"));
        }
    }

    /// A range vector as the answer of an instant query: the samples themselves.
    pub fn range_vector(&self, expr: &Expr, at: i64) -> Result<Vec<(Labels, Samples)>, Error> {
        let steps = Steps::once(at);
        match range_argument(expr)? {
            Argument::Matrix(matrix) => {
                let selector = &matrix.selector;
                if selector.extension != Extension::None {
                    return fail("anchored and smoothed can only be used inside of functions");
                }
                let end = self.moments(selector.at, self.offset(&selector.offset)?, steps).start;
                let width = self.positive_millis(&matrix.range)?;
                let range = TimeRange::new(end.saturating_sub(width).saturating_add(1), end);
                let set = self.select(&selector.matchers, range)?;
                let mut all = Vec::new();
                let mut held = Vec::new();
                for index in 0..set.len() {
                    self.check_canceled()?;
                    let mut samples = Samples::default();
                    held.push(self.read(&*set, index, range, &mut samples)?);
                    drop_stale(&mut samples);
                    if !samples.is_empty() {
                        all.push((set.labels(index), samples));
                    }
                }
                Ok(all)
            }
            Argument::Subquery(subquery) => {
                let ends = self.moments(subquery.at, self.offset(&subquery.offset)?, steps);
                let width = self.positive_millis(&subquery.range)?;
                let (inner, series) = self.subquery(subquery, ends, width)?;
                let convert = |series: Series| {
                    let mut samples = Samples::default();
                    to_samples(inner, &series.column, &mut samples);
                    let series = if series.drop_name { super::without_metadata(series) } else { series };
                    (series.labels, samples)
                };
                Ok(series.into_iter().map(convert).filter(|(_, s)| !s.is_empty()).collect())
            }
        }
    }
}

impl Rollup<'_> {
    fn drops_name(&self) -> bool {
        !matches!(self.name, "last_over_time" | "first_over_time")
    }
}

impl Windows {
    /// The time range of all samples that any window may look at.
    fn samples(&self) -> TimeRange {
        let (before, after) = match self.extension {
            Extension::None => (0, 0),
            Extension::Anchored => (self.lookback, 0),
            Extension::Smoothed => (self.lookback, self.lookback),
        };
        TimeRange::new(
            self.ends.start.saturating_sub(self.width).saturating_sub(before).saturating_add(1),
            self.ends.end().saturating_add(after),
        )
    }
}

#[inline]
fn advance(index: &mut usize, end: usize, passes: impl Fn(usize) -> bool) {
    while *index < end && passes(*index) {
        *index += 1;
    }
}

fn range_argument(expr: &Expr) -> Result<Argument<'_>, Error> {
    match &bare(expr).kind {
        Kind::Matrix(matrix) => Ok(Argument::Matrix(matrix)),
        Kind::Subquery(subquery) => Ok(Argument::Subquery(subquery)),
        _ => fail("BUG: expected a range vector"),
    }
}

/// A column of an inner evaluation as samples.
fn to_samples(steps: Steps, column: &Column, samples: &mut Samples) {
    samples.clear();
    for (step, value) in column.floats.iter().enumerate() {
        if !is_absent(*value) {
            samples.timestamps.push(steps.at(step));
            samples.values.push(*value);
        }
    }
    samples
        .histograms
        .extend(column.histograms.iter().map(|(step, h)| (steps.at(*step as usize), 0, h.clone())));
}

fn looks_like_counter(name: &str) -> bool {
    ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix))
}

/// `anchored` and `smoothed` make sense for few functions.
fn check_extension(function: &str, extension: Extension) -> Result<(), Error> {
    let (modifier, allowed): (_, &[&str]) = match extension {
        Extension::None => return Ok(()),
        Extension::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Extension::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    fail(format!("{modifier} modifier can only be used with: {} - not with {function}", allowed.join(", ")))
}
