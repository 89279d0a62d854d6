//! Aggregations.
//!
//! `sum`, `avg`, `count`, `min`, `max` and `group` need only a running state for each group and step. They take the
//! series of a selector or of a rollup as these are computed, on several threads with states of their own that are
//! merged at the end; no series' column outlives its turn. The others look at all values of a group at one step.

use super::groups::{Groups, Histograms, State, state};
use super::matching::LabelChoice;
use super::select::{Pick, Sink};
use super::{Column, Evaluator, Output, Series, Steps, bare, fail, is_absent, ratio};
use crate::annotations::go_general;
use crate::ast::{Aggregate, AggregateOp, Kind};
use crate::engine::{Error, Point};
use crate::functions::labels::is_label_name;
use crate::functions::math::quantile;
use crate::functions::range::warn_quantiles;
use std::cmp::Ordering;
use std::collections::HashMap;

impl Evaluator<'_> {
    /// An aggregation at all steps.
    pub fn aggregate(&self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<Series>, Error> {
        use AggregateOp::*;
        let choice = LabelChoice::new(&aggregate.grouping, !aggregate.without);
        match aggregate.op {
            Sum => self.run::<state::Sum>(aggregate, &choice, steps),
            Avg => self.run::<state::Avg>(aggregate, &choice, steps),
            Count => self.run::<state::Count>(aggregate, &choice, steps),
            Group => self.run::<state::Group>(aggregate, &choice, steps),
            Min => self.run::<state::Min>(aggregate, &choice, steps),
            Max => self.run::<state::Max>(aggregate, &choice, steps),
            Stdvar => self.run::<state::Variance>(aggregate, &choice, steps),
            Stddev => {
                let mut vector = self.run::<state::Variance>(aggregate, &choice, steps)?;
                let floats = vector.iter_mut().flat_map(|s| &mut s.column.floats);
                floats.filter(|v| !is_absent(**v)).for_each(|v| *v = v.sqrt());
                Ok(vector)
            }
            CountValues => self.count_values(aggregate, steps),
            Quantile => self.quantile(aggregate, &choice, steps),
            Topk | Bottomk | Limitk => self.select_k(aggregate, &choice, steps),
            LimitRatio => self.limit_ratio(aggregate, steps),
        }
    }

    /// Runs an aggregation that folds one series after the other.
    fn run<A: State>(
        &self,
        aggregate: &Aggregate,
        choice: &LabelChoice,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let groups =
            || Groups::<A>::new(choice, !self.options.delayed_name_removal, &self.budget, steps.count);
        let inner = bare(&aggregate.expr);
        let mut parts = match &inner.kind {
            _ if super::is_invariant(inner) => None,
            Kind::Vector(selector) => {
                Some(self.scan_instant(selector, inner.span, Pick::Value, steps, groups)?)
            }
            Kind::Call(call) if call.function.name != "absent_over_time" => {
                let rollup = self.rollup(call, steps)?;
                // Series that look the same without their names are an error; only all of them together show it.
                let rollup =
                    rollup.filter(|r| self.options.delayed_name_removal || !self.names_may_collide(r));
                let parts = match &rollup {
                    Some(rollup) => Some(self.scan_rollup(rollup, steps, groups)?),
                    None => None,
                };
                parts.filter(|parts| !parts.iter().any(|groups| groups.metadata_dropped))
            }
            _ => None,
        }
        .unwrap_or_default();
        if parts.is_empty() {
            let mut groups = groups();
            for mut series in self.eval_vector(&aggregate.expr, steps)? {
                self.check_canceled()?;
                groups.push(series.labels, series.drop_name, &mut series.column)?;
            }
            parts.push(groups);
        }
        let mut all = parts.remove(0);
        parts.into_iter().for_each(|part| all.merge(part));
        if all.histograms_seen && A::HISTOGRAMS == Histograms::Ignored {
            self.ignored_histograms(aggregate);
        }
        let (vector, mixed) = all.finish();
        if mixed {
            let text = "encountered a mix of histograms and floats for aggregation";
            self.annotations.lock().warn(aggregate.expr.span, text);
        }
        Ok(vector)
    }

    fn ignored_histograms(&self, aggregate: &Aggregate) {
        let text = format!("ignored histogram in {} aggregation", aggregate.op.name());
        self.annotations.lock().info(aggregate.expr.span, text);
    }

    /// The parameter at all steps.
    fn parameter(&self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<f64>, Error> {
        match &aggregate.param {
            Some(param) => self.eval_scalar(param, steps),
            None => fail("BUG: an aggregation without its parameter"),
        }
    }

    /// The series of each group, by index, in order of appearance.
    fn members(&self, vector: &[Series], choice: &LabelChoice) -> Vec<Vec<usize>> {
        let mut index: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut key = Vec::new();
        for (i, series) in vector.iter().enumerate() {
            choice.key(&series.labels, |_| false, &mut key);
            let group = match index.get(&key) {
                Some(group) => *group,
                None => {
                    index.insert(key.clone(), members.len());
                    members.push(Vec::new());
                    members.len() - 1
                }
            };
            members[group].push(i);
        }
        members
    }

    fn quantile(
        &self,
        aggregate: &Aggregate,
        choice: &LabelChoice,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let parameter = self.parameter(aggregate, steps)?;
        let vector = self.eval_vector(&aggregate.expr, steps)?;
        if let Some(param) = &aggregate.param {
            warn_quantiles(self, &parameter, param.span);
        }
        if vector.iter().any(|s| !s.column.histograms.is_empty()) {
            self.ignored_histograms(aggregate);
        }
        let mut output = Vec::new();
        let mut values = Vec::new();
        for members in self.members(&vector, choice) {
            let mut column = Column::absent(steps.count);
            column.held = self.budget.hold(steps.count)?;
            for (step, q) in parameter.iter().enumerate() {
                self.check_canceled()?;
                values.clear();
                values.extend(
                    members.iter().map(|i| vector[*i].column.floats[step]).filter(|v| !is_absent(*v)),
                );
                if !values.is_empty() {
                    column.floats[step] = quantile(*q, &mut values);
                }
            }
            let first = &vector[members[0]];
            output.push(Series { labels: choice.labels(&first.labels), drop_name: first.drop_name, column });
        }
        output.retain(|s| !s.column.is_empty());
        Ok(output)
    }

    /// `topk`, `bottomk`, `limitk`: some series of each group, with all their labels.
    fn select_k(
        &self,
        aggregate: &Aggregate,
        choice: &LabelChoice,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let parameter = self.parameter(aggregate, steps)?;
        if parameter.iter().any(|k| k.is_nan()) {
            return fail("Parameter value is NaN");
        }
        let max = i64::MAX as f64;
        for k in &parameter {
            if *k >= max {
                return fail(format!("Scalar value {} overflows int64", go_general(*k)));
            }
            if *k <= -max {
                return fail(format!("Scalar value {} underflows int64", go_general(*k)));
            }
        }
        let mut vector = self.eval_vector(&aggregate.expr, steps)?;
        let limit = aggregate.op == AggregateOp::Limitk;
        if !limit && vector.iter().any(|s| !s.column.histograms.is_empty()) {
            self.ignored_histograms(aggregate);
            vector.iter_mut().for_each(|s| s.column.histograms.clear());
        }
        // Ties are settled by labels, so that the answer does not depend on the order of the source.
        vector.sort_by(|a, b| a.labels.cmp(&b.labels));
        let descending = aggregate.op == AggregateOp::Topk;
        let mut order: Vec<usize> = Vec::new();
        let mut kept = vec![vec![false; steps.count]; vector.len()];
        let groups = self.members(&vector, choice);
        let mut sequence: Vec<usize> = Vec::new();
        for members in &groups {
            for (step, k) in parameter.iter().enumerate() {
                self.check_canceled()?;
                let k = if *k < 1.0 { 0 } else { *k as usize };
                order.clear();
                let there = members.iter().copied().filter(|i| vector[*i].column.has(step));
                if limit {
                    order.extend(there.take(k));
                } else {
                    order.extend(there);
                    let rank = |a: &usize, b: &usize| {
                        let value = |i: usize| vector[i].column.floats[step];
                        by_value(value(*a), value(*b), descending).then(a.cmp(b))
                    };
                    // Only the chosen ones need an order.
                    if (1..order.len()).contains(&k) {
                        order.select_nth_unstable_by(k - 1, rank);
                    }
                    order.truncate(k);
                    order.sort_unstable_by(rank);
                }
                order.iter().for_each(|i| kept[*i][step] = true);
                if steps.count == 1 {
                    sequence.extend(&order);
                }
            }
        }
        for (series, kept) in vector.iter_mut().zip(&kept) {
            series.column.retain(|step| kept[step]);
        }
        if steps.count == 1 {
            let mut slots: Vec<Option<Series>> = vector.into_iter().map(Some).collect();
            return Ok(sequence.into_iter().filter_map(|i| slots[i].take()).collect());
        }
        vector.retain(|s| !s.column.is_empty());
        Ok(vector)
    }

    /// Keeps a share of the series, always the same ones.
    fn limit_ratio(&self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<Series>, Error> {
        let ratios = self.parameter(aggregate, steps)?;
        if ratios.iter().any(|r| r.is_nan()) {
            return fail("Ratio value is NaN");
        }
        if let Some(param) = &aggregate.param {
            for ratio in ratios.iter().filter(|r| r.abs() > 1.0) {
                let text = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    go_general(*ratio),
                    ratio.signum()
                );
                self.annotations.lock().warn(param.span, text);
            }
        }
        let mut vector = self.eval_vector(&aggregate.expr, steps)?;
        let mut buffer = Vec::new();
        for series in &mut vector {
            self.check_canceled()?;
            let place = ratio::place(&series.labels, &mut buffer);
            series.column.retain(|step| ratio::keeps(ratios[step], place));
        }
        vector.retain(|s| !s.column.is_empty());
        Ok(vector)
    }

    fn count_values(&self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<Series>, Error> {
        let Some(param) = &aggregate.param else { return fail("BUG: count_values without its parameter") };
        let label = self.eval_string(param)?;
        if !is_label_name(&label) {
            return fail(format!("invalid label name {}", self.written(param)));
        }
        let mut grouping = aggregate.grouping.clone();
        if !aggregate.without {
            grouping.push(label.clone());
        }
        let choice = LabelChoice::new(&grouping, !aggregate.without);
        let vector = self.eval_vector(&aggregate.expr, steps)?;
        let mut output = Output::new(steps.count, &self.budget);
        let mut counts: Vec<HashMap<usize, f64>> = vec![HashMap::new(); steps.count];
        let mut order = Vec::new();
        for series in &vector {
            self.check_canceled()?;
            let mut last: Option<(u64, usize)> = None;
            for (step, counts) in counts.iter_mut().enumerate() {
                let Some(point) = series.column.point(step) else { continue };
                let bits = match &point {
                    Point::Float(value) => value.to_bits(),
                    Point::Histogram(_) => continue,
                };
                let slot = match last {
                    Some((known, slot)) if known == bits => slot,
                    _ => {
                        let text = plain_number(f64::from_bits(bits));
                        let labels = choice.labels(&series.labels.with(&label, &text));
                        output.slot(labels, series.drop_name)?
                    }
                };
                last = Some((bits, slot));
                *counts.entry(slot).or_insert_with(|| {
                    order.push((slot, step));
                    0.0
                }) += 1.0;
            }
        }
        for (slot, step) in order {
            let point = Point::Float(counts[step][&slot]);
            if output.set(slot, step, point, 0).is_err() {
                return super::same_labelset();
            }
        }
        Ok(output.finish())
    }
}

/// The order of `topk` (descending) and `bottomk`; what is no number comes last in both.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if descending { order.reverse() } else { order })
}

/// A number in its shortest decimal form, never with an exponent.
pub fn plain_number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => (if v > 0.0 { "+Inf" } else { "-Inf" }).into(),
        v => v.to_string(),
    }
}
