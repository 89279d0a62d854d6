//! Subqueries: an inner evaluation at steps of its own.

use super::{Evaluator, Series, Steps};
use crate::ast::Subquery;
use crate::engine::Error;

impl Evaluator<'_> {
    /// Evaluates the inner expression at all absolute multiples of the subquery's step that any of the left-open
    /// windows of `width` ending at `ends` covers.
    pub fn subquery(
        &self,
        subquery: &Subquery,
        ends: Steps,
        width: i64,
    ) -> Result<(Steps, Vec<Series>), Error> {
        let step = match &subquery.step {
            Some(step) => self.positive_millis(step)?,
            None => self.options.subquery_step_ms.max(1),
        };
        let after = ends.start.saturating_sub(width);
        let start = (after.div_euclid(step) + 1).saturating_mul(step);
        let last = ends.end().div_euclid(step).saturating_mul(step);
        let count = if last < start { 0 } else { (last.saturating_sub(start) / step + 1) as u64 };
        if count > self.options.subquery_steps_max {
            return Err(Error::Source(model::Error::Limit {
                what: "steps of a subquery",
                key: "limits.query_subquery_steps_max",
                max: self.options.subquery_steps_max,
                got: count,
            }));
        }
        let inner = Steps { start, step, count: count as usize };
        if count == 0 {
            return Ok((inner, Vec::new()));
        }
        Ok((inner, self.eval_vector(&subquery.expr, inner)?))
    }
}
