//! Evaluates expressions.

use crate::parser;
use model::{Histogram, Labels, Source, Timestamp};
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
        _source: &dyn Source,
        _text: &str,
        _at: Timestamp,
        _params: &Params,
    ) -> Result<Answer, Error> {
        Err(Error::Execution("not built".into()))
    }

    /// Evaluates at `start`, `start + step_ms`, … up to `end`, both included.
    pub fn range(
        &self,
        _source: &dyn Source,
        _text: &str,
        _start: Timestamp,
        _end: Timestamp,
        _step_ms: i64,
        _params: &Params,
    ) -> Result<Answer, Error> {
        Err(Error::Execution("not built".into()))
    }
}
