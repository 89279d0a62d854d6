//! `info()`: adds the labels of info series (`target_info` and the like) to other series.
//!
//! Info series are found by the labels that identify a target. They are looked up at the very time at which the
//! samples of the first argument were taken, its `@` and `offset` included.

use super::select::Pick;
use super::{Evaluator, Output, Series, Steps, fail, is_absent};
use crate::ast::{At, Duration, Expr, Extension, Kind, VectorSelector};
use crate::engine::Error;
use model::labels::METRIC_NAME;
use model::{Labels, MatchOp, Matcher};
use std::collections::HashMap;

/// The labels that say which target a series belongs to.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The values of the identifying labels.
type Target = [String; IDENTIFYING.len()];

fn target(labels: &Labels) -> Target {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or("").to_string())
}

/// Info series of one metric and target, with the time of the sample at every step.
struct InfoSeries {
    labels: Labels,
    times: Vec<f64>,
}

impl Evaluator<'_> {
    /// `info(vector, {selector})` at all steps.
    pub fn info(&self, args: &[Expr], steps: Steps) -> Result<Vec<Series>, Error> {
        let base = self.eval_vector(&args[0], steps)?;
        let given: Vec<Matcher> = match args.get(1).map(|arg| &super::bare(arg).kind) {
            None => Vec::new(),
            Some(Kind::Vector(selector)) => selector.matchers.clone(),
            Some(_) => return fail("expected label selectors only as the second argument of info()"),
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            given.into_iter().partition(|m| m.name == METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if !names.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Matches)) {
            let any_info = Matcher::new(METRIC_NAME, MatchOp::Matches, ".+_info");
            names.push(any_info.map_err(|e| Error::Execution(e.to_string()))?);
        }
        let is_info = |labels: &Labels| names.iter().all(|m| m.matches(labels.metric_name().unwrap_or("")));
        let infos = self.info_series(&args[0], &base, &names, &data, is_info, steps)?;
        let mut by_target: HashMap<Target, Vec<&InfoSeries>> = HashMap::new();
        for info in &infos {
            by_target.entry(target(&info.labels)).or_default().push(info);
        }
        let lenient = data.iter().all(Matcher::matches_missing);
        let mut output = Output::new(steps.count, &self.budget);
        for (number, series) in base.iter().enumerate() {
            self.check_canceled()?;
            let of_target = by_target.get(&target(&series.labels)).map_or(&[][..], Vec::as_slice);
            let plain = is_info(&series.labels);
            let mut slots: HashMap<Vec<usize>, usize> = HashMap::new();
            for step in 0..steps.count {
                let Some(point) = series.column.point(step) else { continue };
                let matched = if plain { Vec::new() } else { newest_of_each(of_target, step)? };
                if matched.is_empty() && !plain && !lenient {
                    continue;
                }
                let slot = match slots.get(&matched) {
                    Some(slot) => *slot,
                    None => {
                        let matched_series = matched.iter().map(|i| &of_target[*i].labels);
                        let labels = enrich(&series.labels, matched_series, &data)?;
                        let slot = output.slot(labels, series.drop_name)?;
                        slots.insert(matched, slot);
                        slot
                    }
                };
                if output.set(slot, step, point, number).is_err() {
                    return super::same_labelset();
                }
            }
        }
        Ok(output.finish())
    }

    /// The info series of all targets in `base`.
    fn info_series(
        &self,
        arg: &Expr,
        base: &[Series],
        names: &[Matcher],
        data: &[Matcher],
        is_info: impl Fn(&Labels) -> bool,
        steps: Steps,
    ) -> Result<Vec<InfoSeries>, Error> {
        let targets: std::collections::HashSet<Target> =
            base.iter().filter(|s| !is_info(&s.labels)).map(|s| target(&s.labels)).collect();
        let any = targets.iter().any(|t| t.iter().any(|value| !value.is_empty()));
        if !any {
            return Ok(Vec::new());
        }
        let (at, offset) = self.sampled_at(arg)?.unwrap_or((None, 0));
        let selector = VectorSelector {
            name: None,
            matchers: names.iter().chain(data).cloned().collect(),
            offset: Some(Duration::Millis(offset)),
            at,
            extension: Extension::None,
        };
        let mut times: HashMap<Labels, Vec<f64>> = HashMap::new();
        for series in self.instant_selector(&selector, arg.span, Pick::Time, steps)? {
            times.insert(series.labels, series.column.floats);
        }
        let mut infos = Vec::new();
        for series in self.instant_selector(&selector, arg.span, Pick::Value, steps)? {
            if !targets.contains(&target(&series.labels)) {
                continue;
            }
            if !series.column.histograms.is_empty() {
                return fail(format!("{} should be an info metric, with float samples", series.labels));
            }
            let times = times.remove(&series.labels).unwrap_or_default();
            infos.push(InfoSeries { labels: series.labels, times });
        }
        infos.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(infos)
    }

    /// The `@` and the offset of the first selector in an expression, subqueries around it included.
    fn sampled_at(&self, expr: &Expr) -> Result<Option<(Option<At>, i64)>, Error> {
        let first = |children: &mut dyn Iterator<Item = &Expr>| {
            children.map(|child| self.sampled_at(child)).find(|r| !matches!(r, Ok(None))).unwrap_or(Ok(None))
        };
        match &expr.kind {
            Kind::Number(..) | Kind::String(_) => Ok(None),
            Kind::Paren(inner) | Kind::Unary(_, inner) => self.sampled_at(inner),
            Kind::Binary(binary) => first(&mut [&binary.lhs, &binary.rhs].into_iter()),
            Kind::Aggregate(aggregate) => self.sampled_at(&aggregate.expr),
            Kind::Call(call) => first(&mut call.args.iter()),
            Kind::Vector(selector) => Ok(Some((selector.at, self.offset(&selector.offset)?))),
            Kind::Matrix(matrix) => Ok(Some((matrix.selector.at, self.offset(&matrix.selector.offset)?))),
            Kind::Subquery(subquery) => {
                let outer = self.offset(&subquery.offset)?;
                Ok(self.sampled_at(&subquery.expr)?.map(|(at, offset)| match at {
                    Some(at) => (Some(at), offset),
                    None => (subquery.at, outer + offset),
                }))
            }
        }
    }
}

/// Of the info series of one target, by index: for each metric the one with the newest sample at `step`.
fn newest_of_each(infos: &[&InfoSeries], step: usize) -> Result<Vec<usize>, Error> {
    let mut newest: Vec<usize> = Vec::new();
    for (i, info) in infos.iter().enumerate().filter(|(_, info)| !is_absent(info.times[step])) {
        let name = info.labels.metric_name();
        match newest.iter_mut().find(|j| infos[**j].labels.metric_name() == name) {
            None => newest.push(i),
            Some(other) => {
                let (mine, theirs) = (info.times[step], infos[*other].times[step]);
                if mine == theirs {
                    return fail(format!(
                        "found duplicate series for info metric: existing {} @ {theirs}, new {} @ {mine}",
                        infos[*other].labels, info.labels
                    ));
                }
                if mine > theirs {
                    *other = i;
                }
            }
        }
    }
    Ok(newest)
}

/// The labels of `base` and those of the info series that it does not have itself.
fn enrich<'a>(
    base: &Labels,
    infos: impl Iterator<Item = &'a Labels>,
    data: &[Matcher],
) -> Result<Labels, Error> {
    let mut labels = base.clone();
    for info in infos {
        for (name, value) in info.iter() {
            let wanted = data.is_empty() || data.iter().any(|m| m.name == name);
            if name == METRIC_NAME || !wanted || base.get(name).is_some() {
                continue;
            }
            match labels.get(name) {
                Some(other) if other != value => {
                    return fail(format!("conflicting label: {name}"));
                }
                _ => labels = labels.with(name, value),
            }
        }
    }
    Ok(labels)
}
