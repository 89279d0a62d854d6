//! Function calls.

use super::select::Pick;
use super::{Column, Evaluator, Output, Series, Steps, Value, bare, column, fail, is_absent};
use crate::annotations::{Forced, for_metric, go_general};
use crate::ast::{Call, Expr, Kind, ValueType};
use crate::engine::{Error, Point};
use crate::functions::buckets::{self, Bucket};
use crate::functions::{labels, math, time};
use model::labels::METRIC_NAME;
use model::{Labels, MatchOp, Matcher};
use std::collections::HashMap;

impl Evaluator<'_> {
    /// A function call at all steps.
    pub fn call(&self, call: &Call, steps: Steps) -> Result<Value, Error> {
        let (name, args) = (call.function.name, &call.args[..]);
        if call.function.returns == ValueType::Scalar {
            return self.scalar_call(name, args, steps).map(Value::Scalar);
        }
        self.vector_call(call, name, args, steps).map(Value::Vector)
    }

    fn scalar_call(&self, name: &str, args: &[Expr], steps: Steps) -> Result<Vec<f64>, Error> {
        let constant = |value: f64| Ok(vec![value; steps.count]);
        let seconds = |millis: i64| millis as f64 / 1000.0;
        match name {
            "time" => Ok(steps.iter().map(seconds).collect()),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(self.query.start)),
            "end" => constant(seconds(self.query_end)),
            "step" => constant(seconds(self.query_step)),
            "range" => constant(seconds(self.query_end - self.query.start)),
            "min_of" | "max_of" => {
                let pick = if name == "min_of" { math::min } else { math::max };
                let (a, b) = (self.eval_scalar(&args[0], steps)?, self.eval_scalar(&args[1], steps)?);
                Ok(a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect())
            }
            "scalar" => {
                let vector = self.eval_vector(&args[0], steps)?;
                let mut values = vec![(0u32, f64::NAN); steps.count];
                for series in &vector {
                    for (slot, value) in values.iter_mut().zip(&series.column.floats) {
                        if !is_absent(*value) {
                            *slot = (slot.0 + 1, *value);
                        }
                    }
                }
                Ok(values.into_iter().map(|(n, value)| if n == 1 { value } else { f64::NAN }).collect())
            }
            _ => fail(format!("BUG: the function {name} is unknown")),
        }
    }

    fn vector_call(
        &self,
        call: &Call,
        name: &str,
        args: &[Expr],
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        if let Some(function) = math::simple(name) {
            return self.map_floats(self.eval_vector(&args[0], steps)?, |_, v| function(v));
        }
        if let Some(function) = time::calendar(name) {
            let vector = match args.first() {
                Some(arg) => self.eval_vector(arg, steps)?,
                None => vec![self.alone(steps.iter().map(|t| t as f64 / 1000.0).collect())?],
            };
            return self.map_floats(vector, |_, v| function(v));
        }
        match name {
            "absent_over_time" => {
                let Some(rollup) = self.rollup(call, steps)? else { return fail("BUG: not a rollup") };
                let vector = self.collect_rollup(&rollup, steps)?;
                return self.absent(&args[0], &vector, steps);
            }
            "absent" => {
                let vector = self.eval_vector(&args[0], steps)?;
                return self.absent(&args[0], &vector, steps);
            }
            "vector" => return Ok(vec![self.alone(self.eval_scalar(&args[0], steps)?)?]),
            "timestamp" | "start_timestamp" => return self.timestamp(name, &args[0], steps),
            "histogram_quantile" => return self.histogram_quantile(args, steps),
            "histogram_quantiles" => return self.histogram_quantiles(args, steps),
            "histogram_fraction" => return self.histogram_fraction(args, steps),
            "info" => return self.info(args, steps),
            _ => {}
        }
        if let Some(rollup) = self.rollup(call, steps)? {
            return self.eval_rollup(&rollup, steps);
        }
        let scalar = |i: usize| self.eval_scalar(&args[i], steps);
        let strings = |from: usize| -> Result<Vec<String>, Error> {
            args[from..].iter().map(|arg| self.eval_string(arg)).collect()
        };
        let mut vector = self.eval_vector(&args[0], steps)?;
        match name {
            "clamp" => {
                let (low, high) = (scalar(1)?, scalar(2)?);
                for series in &mut vector {
                    series
                        .column
                        .retain(|step| low[step] <= high[step] || low[step].is_nan() || high[step].is_nan());
                }
                self.map_floats(vector, |step, v| math::max(low[step], math::min(high[step], v)))
            }
            "clamp_min" => {
                let low = scalar(1)?;
                self.map_floats(vector, |step, v| math::max(low[step], v))
            }
            "clamp_max" => {
                let high = scalar(1)?;
                self.map_floats(vector, |step, v| math::min(high[step], v))
            }
            "round" => {
                let nearest = if args.len() > 1 { scalar(1)? } else { vec![1.0; steps.count] };
                self.map_floats(vector, |step, v| math::round(v, nearest[step]))
            }
            "sort" | "sort_desc" => {
                vector.iter_mut().for_each(|s| s.column.histograms.clear());
                vector.retain(|s| !s.column.is_empty());
                if steps.count == 1 {
                    labels::sort_by_value(&mut vector, name == "sort_desc");
                }
                Ok(vector)
            }
            "sort_by_label" | "sort_by_label_desc" => {
                labels::sort_by_label(&mut vector, &strings(1)?, name == "sort_by_label_desc");
                Ok(vector)
            }
            "label_replace" => {
                let texts = strings(1)?;
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                match texts.try_into() {
                    Ok(texts) => labels::replace(self, vector, texts),
                    Err(_) => fail("BUG: label_replace takes four strings"),
                }
            }
            "label_join" => {
                let texts = strings(1)?;
                labels::join(self, vector, &texts[0], &texts[1], &texts[2..])
            }
            // Of native histograms only, which floats are not.
            "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev"
            | "histogram_stdvar" => Ok(Vec::new()),
            _ => fail(format!("BUG: the function {name} is unknown")),
        }
    }

    /// One series without labels.
    fn alone(&self, floats: Vec<f64>) -> Result<Series, Error> {
        let held = self.budget.hold(floats.len())?;
        let column = Column { floats, histograms: Vec::new(), held };
        Ok(Series { labels: Labels::default(), drop_name: false, column })
    }

    /// 1 where no series has a value, with the labels that the selector demands.
    fn absent(&self, arg: &Expr, vector: &[Series], steps: Steps) -> Result<Vec<Series>, Error> {
        let mut series = self.alone(vec![1.0; steps.count])?;
        series.column.retain(|step| !vector.iter().any(|s| s.column.has(step)));
        if series.column.is_empty() {
            return Ok(Vec::new());
        }
        let matchers: &[Matcher] = match &bare(arg).kind {
            Kind::Vector(selector) => &selector.matchers,
            Kind::Matrix(matrix) => &matrix.selector.matchers,
            _ => &[],
        };
        let mut given: Vec<&str> = Vec::new();
        for matcher in matchers.iter().filter(|m| m.name != METRIC_NAME) {
            // As in Prometheus, whatever is said of a label after its first equality takes it away again.
            let first = matcher.op == MatchOp::Equal && !given.contains(&matcher.name.as_str());
            series.labels = series.labels.with(&matcher.name, if first { &matcher.value } else { "" });
            if first {
                given.push(&matcher.name);
            }
        }
        Ok(vec![series])
    }

    fn timestamp(&self, name: &str, arg: &Expr, steps: Steps) -> Result<Vec<Series>, Error> {
        let inner = bare(arg);
        let pick = if name == "timestamp" { Pick::Time } else { Pick::Start };
        if let Kind::Vector(selector) = &inner.kind {
            let vector = self.instant_selector(selector, inner.span, pick, steps)?;
            return self.settle_names(vector);
        }
        let mut vector = self.eval_vector(arg, steps)?;
        if pick == Pick::Start {
            // Values that were computed have no start.
            return Ok(Vec::new());
        }
        for series in &mut vector {
            for (step, _) in std::mem::take(&mut series.column.histograms) {
                series.column.floats[step as usize] = 0.0;
            }
        }
        self.map_floats(vector, |step, _| steps.at(step) as f64 / 1000.0)
    }

    /// The buckets of each histogram: all series that differ in `le` only.
    fn classic_histograms(&self, arg: &Expr, steps: Steps) -> Result<Vec<Classic>, Error> {
        let mut histograms: Vec<Classic> = Vec::new();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        for series in self.eval_vector(arg, steps)? {
            self.check_canceled()?;
            if !series.column.histograms.is_empty() && series.column.floats.iter().all(|v| is_absent(*v)) {
                continue;
            }
            let le = series.labels.get("le").unwrap_or("");
            let Some(bound) = parse_bound(le) else {
                let text = format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
                let text = for_metric(text, column::metric_name(&series.labels));
                self.annotations.lock().warn(arg.span, text);
                continue;
            };
            let labels = series.labels.with("le", "");
            let at = *index.entry(labels.clone()).or_insert_with(|| {
                histograms.push(Classic { labels, buckets: Vec::new() });
                histograms.len() - 1
            });
            histograms[at].buckets.push((bound, series.column));
        }
        Ok(histograms)
    }

    /// One value for each histogram and step that has any bucket.
    fn each_step(
        &self,
        histograms: &[Classic],
        steps: Steps,
        relabel: impl Fn(&Labels) -> Labels,
        mut compute: impl FnMut(&Labels, usize, &mut Vec<Bucket>) -> f64,
    ) -> Result<Vec<Series>, Error> {
        let mut vector = Vec::with_capacity(histograms.len());
        let mut buckets = Vec::new();
        for histogram in histograms {
            self.check_canceled()?;
            let mut column = Column::absent(steps.count);
            column.held = self.budget.hold(steps.count)?;
            for (step, slot) in column.floats.iter_mut().enumerate() {
                buckets.clear();
                let there = histogram.buckets.iter().filter(|(_, c)| !is_absent(c.floats[step]));
                buckets.extend(there.map(|(bound, c)| Bucket { bound: *bound, count: c.floats[step] }));
                if !buckets.is_empty() {
                    *slot = compute(&histogram.labels, step, &mut buckets);
                }
            }
            vector.push(Series { labels: relabel(&histogram.labels), drop_name: true, column });
        }
        Ok(vector)
    }

    fn quantiles(
        &self,
        histograms: &[Classic],
        arg: &Expr,
        quantile: &[f64],
        steps: Steps,
        relabel: impl Fn(&Labels) -> Labels,
    ) -> Result<Vec<Series>, Error> {
        self.each_step(histograms, steps, relabel, |labels, step, buckets| {
            let (value, fixed) = buckets::quantile(quantile[step], buckets);
            if let Some(fixed) = fixed {
                let time = steps.at(step);
                let forced = Forced {
                    times: (time, time),
                    buckets: (fixed.lowest, fixed.highest),
                    diff_max: fixed.diff_max,
                    count: 1,
                };
                let name = column::metric_name(labels);
                self.annotations.lock().forced_monotonicity(arg.span, name, forced);
            }
            value
        })
    }

    fn histogram_quantile(&self, args: &[Expr], steps: Steps) -> Result<Vec<Series>, Error> {
        let quantile = self.eval_scalar(&args[0], steps)?;
        let histograms = self.classic_histograms(&args[1], steps)?;
        crate::functions::range::warn_quantiles(self, &quantile, args[0].span);
        let vector = self.quantiles(&histograms, &args[1], &quantile, steps, Labels::clone)?;
        self.settle_names(vector)
    }

    fn histogram_quantiles(&self, args: &[Expr], steps: Steps) -> Result<Vec<Series>, Error> {
        let label = self.eval_string(&args[1])?;
        if !labels::is_label_name(&label) {
            return fail(format!("invalid label name {}", self.written(&args[1])));
        }
        let histograms = self.classic_histograms(&args[0], steps)?;
        let mut output = Output::new(steps.count, &self.budget);
        for arg in &args[2..] {
            let quantile = self.eval_scalar(arg, steps)?;
            crate::functions::range::warn_quantiles(self, &quantile, arg.span);
            let vector = self.quantiles(&histograms, &args[0], &quantile, steps, Labels::clone)?;
            for series in vector {
                for (step, value) in series.column.floats.iter().enumerate() {
                    if is_absent(*value) {
                        continue;
                    }
                    let labels = series.labels.with(&label, &open_metrics_float(quantile[step]));
                    let slot = output.slot(labels, true)?;
                    if output.set(slot, step, Point::Float(*value), 0).is_err() {
                        return super::same_labelset();
                    }
                }
            }
        }
        self.settle_names(output.finish())
    }

    fn histogram_fraction(&self, args: &[Expr], steps: Steps) -> Result<Vec<Series>, Error> {
        let (lower, upper) = (self.eval_scalar(&args[0], steps)?, self.eval_scalar(&args[1], steps)?);
        let histograms = self.classic_histograms(&args[2], steps)?;
        let vector = self.each_step(&histograms, steps, Labels::clone, |_, step, buckets| {
            buckets::fraction(lower[step], upper[step], buckets)
        })?;
        self.settle_names(vector)
    }
}

/// A classic histogram: its labels without `le`, and its buckets by upper bound.
struct Classic {
    labels: Labels,
    buckets: Vec<(f64, Column)>,
}

/// The number in an `le` label.
fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// As OpenMetrics writes the values of `quantile` labels: `1.0`, `0.5`, `1e-05`.
fn open_metrics_float(value: f64) -> String {
    let text = go_general(value);
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') { text + ".0" } else { text }
}
