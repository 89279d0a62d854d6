//! The columnar evaluator.
//!
//! An expression is evaluated for all steps of a range at once: every node of the tree is visited one time and yields
//! [`Value`]s, columns with one slot a step. Range vectors are never built: a rollup function slides a window over the
//! decoded samples of one series after the other ([`rollup`]), and an aggregation that only needs running sums takes
//! each series as soon as it is computed ([`aggregate`]). Series are independent, so they are spread over threads
//! ([`Evaluator::for_each`]); which thread gets which is fixed, so that answers do not depend on timing.
//!
//! Subtrees that are the same at all steps (`@`, literals) are evaluated at one step and spread.

pub mod aggregate;
mod binary;
pub mod budget;
mod call;
pub mod column;
mod groups;
mod info;
mod matching;
pub mod output;
mod ratio;
pub mod rollup;
mod select;
mod subquery;
#[cfg(test)]
mod tests;

pub use column::{ABSENT, Column, Series, Steps, Value, is_absent};
pub use output::Output;

use crate::annotations::Annotations;
use crate::ast::{At, Duration, Expr, Kind, UnaryOp};
use crate::engine::{Error, Options, Params};
use budget::Budget;
use model::{Labels, Source};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One query under way.
pub struct Evaluator<'a> {
    pub(crate) source: &'a dyn Source,
    /// As it was written.
    pub(crate) text: &'a str,
    pub(crate) options: &'a Options,
    pub(crate) params: &'a Params,
    /// How far back an instant selector looks.
    pub(crate) lookback: i64,
    /// The steps of the whole query; `start()`, `end()`, `step()` and `range()` speak of these.
    pub(crate) query: Steps,
    /// As the caller gave it; 0 for an instant query.
    pub(crate) query_step: i64,
    pub(crate) query_end: i64,
    pub(crate) budget: Arc<Budget>,
    pub(crate) annotations: Mutex<Annotations>,
    pub(crate) selected: Mutex<Vec<select::Selected>>,
}

/// An execution error.
pub fn fail<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Execution(text.into()))
}

/// Two series that would look the same.
pub fn same_labelset<T>() -> Result<T, Error> {
    fail("vector cannot contain metrics with the same labelset")
}

/// The expression inside any parentheses.
pub fn bare(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Kind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}

/// Whether the expression has the same value at every step.
fn is_invariant(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Number(..) | Kind::String(_) => true,
        Kind::Paren(inner) | Kind::Unary(_, inner) => is_invariant(inner),
        Kind::Binary(binary) => is_invariant(&binary.lhs) && is_invariant(&binary.rhs),
        Kind::Aggregate(a) => is_invariant(&a.expr) && a.param.as_ref().is_none_or(is_invariant),
        Kind::Call(call) => !depends_on_time(call.function.name) && call.args.iter().all(is_invariant),
        Kind::Vector(selector) => selector.at.is_some(),
        Kind::Matrix(matrix) => matrix.selector.at.is_some(),
        Kind::Subquery(subquery) => subquery.at.is_some(),
    }
}

/// Functions whose value depends on the step although their arguments may not.
fn depends_on_time(function: &str) -> bool {
    matches!(
        function,
        "time"
            | "timestamp"
            | "predict_linear"
            | "days_in_month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "hour"
            | "minute"
            | "month"
            | "year"
    )
}

impl<'a> Evaluator<'a> {
    /// The value of `expr` at all `steps`.
    pub fn eval(&self, expr: &Expr, steps: Steps) -> Result<Value, Error> {
        self.check_canceled()?;
        if steps.count > 1 && is_invariant(expr) {
            let once = self.eval_node(expr, Steps { count: 1, ..steps })?;
            return self.spread(once, steps.count);
        }
        self.eval_node(expr, steps)
    }

    fn eval_node(&self, expr: &Expr, steps: Steps) -> Result<Value, Error> {
        match &expr.kind {
            Kind::Number(number, _) => Ok(Value::Scalar(vec![*number; steps.count])),
            Kind::String(text) => Ok(Value::String(text.clone())),
            Kind::Paren(inner) => self.eval_node(inner, steps),
            Kind::Unary(op, inner) => self.unary(*op, self.eval(inner, steps)?),
            Kind::Binary(binary) => self.binary(binary, expr.span, steps),
            Kind::Aggregate(aggregate) => Ok(Value::Vector(self.aggregate(aggregate, steps)?)),
            Kind::Call(call) => self.call(call, steps),
            Kind::Vector(selector) => {
                self.instant_selector(selector, expr.span, select::Pick::Value, steps).map(Value::Vector)
            }
            Kind::Matrix(_) | Kind::Subquery(_) => {
                fail("BUG: a range vector outside of a function that takes one")
            }
        }
    }

    /// The value of an expression that the parser knows to be a vector.
    pub fn eval_vector(&self, expr: &Expr, steps: Steps) -> Result<Vec<Series>, Error> {
        match self.eval(expr, steps)? {
            Value::Vector(series) => Ok(series),
            _ => fail("BUG: expected an instant vector"),
        }
    }

    /// The value of an expression that the parser knows to be a scalar.
    pub fn eval_scalar(&self, expr: &Expr, steps: Steps) -> Result<Vec<f64>, Error> {
        match self.eval(expr, steps)? {
            Value::Scalar(column) => Ok(column),
            _ => fail("BUG: expected a scalar"),
        }
    }

    /// The text of an expression that the parser knows to be a string.
    pub fn eval_string(&self, expr: &Expr) -> Result<String, Error> {
        match &bare(expr).kind {
            Kind::String(text) => Ok(text.clone()),
            _ => fail("BUG: expected a string"),
        }
    }

    /// An expression as it was written; a string in it need not be UTF-8.
    pub fn written(&self, expr: &Expr) -> &str {
        let span = bare(expr).span;
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }

    fn spread(&self, value: Value, count: usize) -> Result<Value, Error> {
        Ok(match value {
            Value::Scalar(column) => Value::Scalar(vec![column[0]; count]),
            Value::String(text) => Value::String(text),
            Value::Vector(mut vector) => {
                for series in &mut vector {
                    let mut column = series.column.spread(count);
                    column.held = self.budget.hold(count)?;
                    series.column = column;
                }
                Value::Vector(vector)
            }
        })
    }

    fn unary(&self, op: UnaryOp, value: Value) -> Result<Value, Error> {
        match (op, value) {
            (UnaryOp::Plus, value) => Ok(value),
            (UnaryOp::Minus, Value::Scalar(mut column)) => {
                column.iter_mut().for_each(|v| *v = -*v);
                Ok(Value::Scalar(column))
            }
            (UnaryOp::Minus, Value::Vector(vector)) => self.map_floats(vector, |_, v| -v).map(Value::Vector),
            (UnaryOp::Minus, Value::String(_)) => fail("BUG: a negative string"),
        }
    }

    /// Applies `f(step, value)` to every float and drops names; histograms are left out.
    pub fn map_floats(
        &self,
        mut vector: Vec<Series>,
        f: impl Fn(usize, f64) -> f64,
    ) -> Result<Vec<Series>, Error> {
        for series in &mut vector {
            series.drop_name = true;
            series.column.histograms.clear();
            for (step, value) in series.column.floats.iter_mut().enumerate() {
                if !is_absent(*value) {
                    *value = f(step, *value);
                }
            }
        }
        vector.retain(|series| !series.column.is_empty());
        self.settle_names(vector)
    }

    /// Without delayed name removal: takes the names off series that are marked so, and puts together what then looks
    /// the same.
    pub fn settle_names(&self, mut vector: Vec<Series>) -> Result<Vec<Series>, Error> {
        if self.options.delayed_name_removal {
            return Ok(vector);
        }
        let unique = can_drop_names(&vector);
        vector = vector.into_iter().map(without_metadata).collect();
        if unique { Ok(vector) } else { output::merge_same(vector) }
    }

    /// A duration in milliseconds.
    pub fn millis(&self, duration: &Duration) -> Result<i64, Error> {
        duration.resolve(self.query_step, self.query_end - self.query.start).map_err(Error::Execution)
    }

    /// A duration in milliseconds that must be above zero.
    pub fn positive_millis(&self, duration: &Duration) -> Result<i64, Error> {
        duration
            .resolve_positive(self.query_step, self.query_end - self.query.start)
            .map_err(Error::Execution)
    }

    /// An offset in milliseconds.
    pub fn offset(&self, offset: &Option<Duration>) -> Result<i64, Error> {
        offset.as_ref().map_or(Ok(0), |duration| self.millis(duration))
    }

    /// The moments that a selector looks at: `steps` moved by `@` and `offset`. With `@` they are all the same.
    pub fn moments(&self, at: Option<At>, offset: i64, steps: Steps) -> Steps {
        let pinned = at.map(|at| match at {
            At::Timestamp(t) => t,
            At::Start => self.query.start,
            At::End => self.query_end,
        });
        match pinned {
            Some(t) => Steps { start: t.saturating_sub(offset), step: 0, count: steps.count },
            None => Steps { start: steps.start.saturating_sub(offset), ..steps },
        }
    }

    /// Fails once the caller gave up.
    pub fn check_canceled(&self) -> Result<(), Error> {
        match &self.params.cancel {
            Some(cancel) if cancel.load(Relaxed) => Err(Error::Canceled),
            _ => Ok(()),
        }
    }

    /// Calls `each(state, index)` for all of `0..count`, on several threads when `work` (an estimate, in samples) is
    /// worth it. Each thread has a contiguous part and a state of its own; the states come back in order.
    pub fn for_each<S: Send>(
        &self,
        count: usize,
        work: u64,
        state: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, usize) -> Result<(), Error> + Sync,
    ) -> Result<Vec<S>, Error> {
        /// Below this many samples for each thread, starting it costs more than it saves.
        const WORK_PER_THREAD: u64 = 20_000;
        let threads = (work / WORK_PER_THREAD).clamp(1, self.options.threads.max(1) as u64) as usize;
        let threads = threads.min(count.max(1));
        let run = |part: Range<usize>| -> Result<S, Error> {
            let mut state = state();
            for index in part {
                self.check_canceled()?;
                each(&mut state, index)?;
            }
            Ok(state)
        };
        if threads == 1 {
            return Ok(vec![run(0..count)?]);
        }
        let part = |i: usize| count * i / threads..count * (i + 1) / threads;
        std::thread::scope(|scope| {
            let run = &run;
            let others: Vec<_> = (1..threads).map(|i| scope.spawn(move || run(part(i)))).collect();
            let mut states = vec![run(part(0))];
            states.extend(
                others.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))),
            );
            states.into_iter().collect()
        })
    }
}

/// Takes the name off a series that is marked so.
pub fn without_metadata(mut series: Series) -> Series {
    if series.drop_name {
        series.labels = series.labels.retain(|name, _| !column::is_metadata(name));
        series.drop_name = false;
    }
    series
}

/// Whether dropping names cannot make two series look the same: all have the same metadata labels.
fn can_drop_names(vector: &[Series]) -> bool {
    fn metadata(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
        labels.iter().filter(|(name, _)| column::is_metadata(name))
    }
    let dropping: Vec<&Series> = vector.iter().filter(|s| s.drop_name).collect();
    match dropping.split_first() {
        None => true,
        Some((first, rest)) => {
            dropping.len() == vector.len()
                && rest.iter().all(|s| metadata(&s.labels).eq(metadata(&first.labels)))
        }
    }
}
