//! Evaluates expressions.

use crate::annotations::Annotations;
use crate::ast::{AggregateOp, Expr, Kind};
use crate::eval::budget::Budget;
use crate::eval::{self, Evaluator, Series, Steps, bare, is_absent};
use crate::parser;
use model::{Histogram, Labels, Samples, Source, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What holds for all queries of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back an instant selector looks for a sample. 5 minutes.
    pub lookback_ms: i64,
    /// Step of subqueries that name none. 1 minute.
    pub subquery_step_ms: i64,
    /// Samples that a query may hold in memory at once. 50 million.
    pub samples_max: u64,
    /// Series that one selector may fetch. 500,000.
    pub series_max: usize,
    /// Steps a range query or subquery may have. 11,000 and 100,000.
    pub steps_max: u64,
    /// Inner steps of a subquery.
    pub subquery_steps_max: u64,
    /// Threads that one query may use.
    pub threads: usize,
    /// Use start timestamps in `rate`, `increase`, `irate`, `resets` (Prometheus's flag `use-start-timestamps`).
    pub start_timestamps: bool,
    /// Drop `__name__` only at the end (Prometheus's flag `promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lookback_ms: 5 * 60 * 1000,
            subquery_step_ms: 60 * 1000,
            samples_max: 50_000_000,
            series_max: 500_000,
            steps_max: 11_000,
            subquery_steps_max: 100_000,
            threads: 1,
            start_timestamps: false,
            delayed_name_removal: false,
        }
    }
}

/// What holds for one query.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Overrides [`Options::lookback_ms`].
    pub lookback_ms: Option<i64>,
    /// Set from outside to stop: client gone, deadline passed.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// The evaluator.
pub struct Engine {
    /// Its settings.
    pub options: Options,
}

/// A query's result.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// What may make the answer wrong, complete texts with `(line:col)`, sorted.
    pub warnings: Vec<String>,
    /// What may be a mistake in the query.
    pub infos: Vec<String>,
    /// Samples that were read.
    pub samples_read: u64,
    /// The most samples held at one time.
    pub samples_peak: u64,
}

/// One value of a series.
#[derive(Clone, Debug)]
pub enum Point {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// What an expression evaluates to.
#[derive(Clone, Debug)]
pub enum Value {
    /// At one time (milliseconds).
    Scalar(i64, f64),
    /// At one time.
    String(i64, String),
    /// Labels and one point each, all at the query's time. In the order that `sort` or `topk` gave.
    Vector(Vec<(Labels, i64, Point)>),
    /// Labels and points, sorted by labels, each sorted by time.
    Matrix(Vec<(Labels, Vec<(i64, Point)>)>),
}

/// Why a query has no answer. `server` has the HTTP statuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The text does not parse: 400 `bad_data`.
    #[error(transparent)]
    Parse(#[from] parser::Error),
    /// The parameters make no sense: 400 `bad_data`.
    #[error("{0}")]
    BadData(String),
    /// The evaluation failed, for example many-to-many matching: 422 `execution`.
    #[error("{0}")]
    Execution(String),
    /// Stopped through [`Params::cancel`].
    #[error("query was canceled")]
    Canceled,
    /// The source failed.
    #[error(transparent)]
    Source(#[from] model::Error),
}

impl Engine {
    /// An engine with these settings.
    pub fn new(options: Options) -> Engine {
        Engine { options }
    }

    /// Evaluates at one moment.
    pub fn instant(
        &self,
        source: &dyn Source,
        text: &str,
        at: Timestamp,
        params: &Params,
    ) -> Result<Answer, Error> {
        let expr = parser::parse(text)?;
        let evaluator = self.evaluator(source, text, params, Steps::once(at.0), 0);
        let value = instant_value(&evaluator, &expr, at.0)?;
        Ok(finish(evaluator, value))
    }

    /// Evaluates at `start`, `start + step_ms`, … up to `end`, both included.
    pub fn range(
        &self,
        source: &dyn Source,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step_ms: i64,
        params: &Params,
    ) -> Result<Answer, Error> {
        if end < start {
            return Err(Error::BadData("end timestamp must not be before start time".into()));
        }
        if step_ms <= 0 {
            let text =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(Error::BadData(text.into()));
        }
        let count = end.0.saturating_sub(start.0) as u64 / step_ms as u64 + 1;
        if count > self.options.steps_max {
            return Err(Error::BadData(format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution \
                 (?step=XX), or raise `limits.query_steps_max`",
                grouped(self.options.steps_max)
            )));
        }
        let expr = parser::parse(text)?;
        let steps = Steps { start: start.0, step: step_ms, count: count as usize };
        let mut evaluator = self.evaluator(source, text, params, steps, step_ms);
        evaluator.query_end = end.0;
        let value = range_value(&evaluator, &expr, steps)?;
        Ok(finish(evaluator, value))
    }

    fn evaluator<'a>(
        &'a self,
        source: &'a dyn Source,
        text: &'a str,
        params: &'a Params,
        query: Steps,
        query_step: i64,
    ) -> Evaluator<'a> {
        Evaluator {
            source,
            text,
            options: &self.options,
            params,
            lookback: params.lookback_ms.unwrap_or(self.options.lookback_ms),
            query,
            query_step,
            query_end: query.end(),
            budget: Budget::new(self.options.samples_max),
            annotations: Mutex::new(Annotations::default()),
            selected: Mutex::default(),
        }
    }
}

fn finish(evaluator: Evaluator, value: Value) -> Answer {
    let (warnings, infos) = evaluator.annotations.into_inner().into_texts(evaluator.text);
    let (samples_read, samples_peak) = (evaluator.budget.read(), evaluator.budget.peak());
    Answer { value, warnings, infos, samples_read, samples_peak }
}

fn instant_value(evaluator: &Evaluator, expr: &Expr, at: i64) -> Result<Value, Error> {
    if matches!(bare(expr).kind, Kind::Matrix(_) | Kind::Subquery(_)) {
        let mut matrix: Vec<(Labels, Vec<(i64, Point)>)> = evaluator
            .range_vector(expr, at)?
            .into_iter()
            .map(|(labels, samples)| (labels, points_of_samples(&samples)))
            .collect();
        matrix.sort_by(|a, b| a.0.cmp(&b.0));
        return Ok(Value::Matrix(matrix));
    }
    Ok(match evaluator.eval(expr, Steps::once(at))? {
        eval::Value::Scalar(column) => Value::Scalar(at, column[0]),
        eval::Value::String(text) => Value::String(at, text),
        eval::Value::Vector(vector) => {
            let mut series = final_names(vector)?;
            if !keeps_order(expr) {
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            let sample = |s: Series| s.column.point(0).map(|point| (s.labels, at, point));
            Value::Vector(series.into_iter().filter_map(sample).collect())
        }
    })
}

fn range_value(evaluator: &Evaluator, expr: &Expr, steps: Steps) -> Result<Value, Error> {
    let wrong = |kind: &str| {
        let text =
            format!("invalid expression type {kind:?} for range query, must be Scalar or instant Vector");
        Err(Error::BadData(text))
    };
    match bare(expr).kind {
        Kind::Matrix(_) | Kind::Subquery(_) => return wrong("range vector"),
        Kind::String(_) => return wrong("string"),
        _ => {}
    }
    match evaluator.eval(expr, steps)? {
        eval::Value::String(_) => wrong("string"),
        eval::Value::Scalar(column) => {
            let points = steps.iter().zip(column).map(|(t, v)| (t, Point::Float(v))).collect();
            Ok(Value::Matrix(vec![(Labels::default(), points)]))
        }
        eval::Value::Vector(vector) => {
            let mut series = final_names(vector)?;
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            let points = |s| evaluator.check_canceled().map(|()| points_of_column(steps, s));
            Ok(Value::Matrix(series.into_iter().map(points).collect::<Result<_, _>>()?))
        }
    }
}

/// Takes off the names that were only marked so far.
fn final_names(vector: Vec<Series>) -> Result<Vec<Series>, Error> {
    if !vector.iter().any(|s| s.drop_name) {
        return Ok(vector);
    }
    eval::output::merge_same(vector.into_iter().map(eval::without_metadata).collect())
}

/// Whether the order of an instant query's result means something.
fn keeps_order(expr: &Expr) -> bool {
    match &bare(expr).kind {
        Kind::Call(call) => call.function.name.starts_with("sort"),
        Kind::Aggregate(a) => matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk),
        _ => false,
    }
}

fn points_of_samples(samples: &Samples) -> Vec<(i64, Point)> {
    let floats = samples.timestamps.iter().zip(&samples.values).map(|(t, v)| (*t, Point::Float(*v)));
    let histograms = samples.histograms.iter().map(|(t, _, h)| (*t, Point::Histogram(h.clone())));
    let mut points: Vec<(i64, Point)> = floats.chain(histograms).collect();
    if !samples.histograms.is_empty() {
        points.sort_by_key(|(t, _)| *t);
    }
    points
}

fn points_of_column(steps: Steps, series: Series) -> (Labels, Vec<(i64, Point)>) {
    let floats = series.column.floats.iter().enumerate().filter(|(_, v)| !is_absent(**v));
    let mut points: Vec<(i64, Point)> = floats.map(|(i, v)| (steps.at(i), Point::Float(*v))).collect();
    if !series.column.histograms.is_empty() {
        let histograms = series.column.histograms.iter();
        points.extend(histograms.map(|(i, h)| (steps.at(*i as usize), Point::Histogram(h.clone()))));
        points.sort_by_key(|(t, _)| *t);
    }
    (series.labels, points)
}

/// `11,000`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
