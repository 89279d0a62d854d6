//! Classic histograms (`x_bucket`, `x_count`, `x_sum`) as native ones with custom buckets.

use anyhow::Result;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span};
use model::labels::METRIC_NAME;
use model::{Histogram, Labels};
use query::parser::series::{Series, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One classic histogram at one step.
#[derive(Default)]
struct Classic {
    /// Upper bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// One series with custom buckets for each classic histogram among `series`.
pub fn custom_buckets(series: &[Series]) -> Result<Vec<Series>> {
    let mut found: BTreeMap<Labels, BTreeMap<usize, Classic>> = BTreeMap::new();
    for series in series {
        let name = series.labels.metric_name().unwrap_or_default();
        let bound = series.labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan());
        let (base, part) = if let (Some(base), Some(bound)) = (name.strip_suffix("_bucket"), bound) {
            (base, Part::Bucket(bound))
        } else if let Some(base) = name.strip_suffix("_count") {
            (base, Part::Count)
        } else if let Some(base) = name.strip_suffix("_sum") {
            (base, Part::Sum)
        } else {
            continue;
        };
        let steps = found.entry(series.labels.with("le", "").with(METRIC_NAME, base)).or_default();
        for (step, value) in series.values.iter().enumerate() {
            let Value::Float(value) = value else { continue };
            let classic = steps.entry(step).or_default();
            match part {
                Part::Bucket(bound) => classic.buckets.push((bound, *value)),
                Part::Count => classic.count = Some(*value),
                Part::Sum => classic.sum = *value,
            }
        }
    }
    found.into_iter().map(|(labels, steps)| native(labels, steps)).collect()
}

enum Part {
    Bucket(f64),
    Count,
    Sum,
}

fn native(labels: Labels, steps: BTreeMap<usize, Classic>) -> Result<Series> {
    let mut values = Vec::new();
    for (step, classic) in steps {
        values.resize_with(step, || Value::Gap);
        values.push(match classic.convert()? {
            Some(histogram) => Value::Histogram(Arc::new(histogram), false),
            None => Value::Gap,
        });
    }
    Ok(Series { labels, starts: false, values })
}

impl Classic {
    /// None where a bucket holds less than the one before it.
    fn convert(mut self) -> Result<Option<Histogram>> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = self.buckets.last().map_or(0.0, |(_, count)| *count);
        let count = self.count.unwrap_or(last);
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut before = 0.0;
        let mut positive = Vec::new();
        for (_, cumulative) in &self.buckets {
            positive.push(cumulative - before);
            before = *cumulative;
        }
        if positive.iter().any(|increase| *increase < 0.0) {
            return Ok(None);
        }
        let length = u32::try_from(positive.len())?;
        let custom_values = self.buckets.iter().map(|(bound, _)| *bound).filter(|b| b.is_finite()).collect();
        Ok(Some(Histogram {
            reset_hint: ResetHint::Unknown,
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_threshold: 0.0,
            sum: self.sum,
            counts: Counts::Float { count, zero: 0.0, positive, negative: Vec::new() },
            positive_spans: vec![Span { offset: 0, length }],
            negative_spans: Vec::new(),
            custom_values,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promqltest::script;

    #[test]
    fn cumulative_buckets_become_custom_ones() {
        let lines = [
            r#"x_bucket{le="2", a="b"} _ 3"#,
            r#"x_bucket{le="+Inf", a="b"} _ 5"#,
            r#"x_sum{a="b"} _ 7"#,
            "y 1",
        ];
        let series: Vec<Series> = lines.iter().map(|line| script::series(line).unwrap()).collect();
        let [native] = custom_buckets(&series).unwrap().try_into().unwrap();
        assert_eq!(native.labels.to_string(), r#"x{a="b"}"#);
        let [Value::Gap, Value::Histogram(histogram, false)] = native.values.as_slice() else {
            panic!("{:?}", native.values)
        };
        assert_eq!((histogram.count(), histogram.sum), (5.0, 7.0));
        assert_eq!(histogram.custom_values, [2.0]);
        assert_eq!(
            histogram.counts,
            Counts::Float { count: 5.0, zero: 0.0, positive: vec![3.0, 2.0], negative: Vec::new() }
        );
    }
}
