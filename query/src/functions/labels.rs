//! Functions that change labels or sort by them.

use crate::engine::Error;
use crate::eval::{Evaluator, Series, fail, output};
use model::labels::METRIC_NAME;
use model::matcher::Anchored;
use regex_automata::meta::Regex;
use regex_automata::util::interpolate;
use std::cmp::Ordering;

/// Whether a string can name a label. The parser has put U+FFFD where bytes were not UTF-8.
pub fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::REPLACEMENT_CHARACTER)
}

/// `label_replace`.
pub fn replace(
    evaluator: &Evaluator,
    mut vector: Vec<Series>,
    [target, replacement, source, pattern]: [&str; 4],
) -> Result<Vec<Series>, Error> {
    let wrong = |e: &dyn std::fmt::Display| {
        Error::Execution(format!("invalid regular expression in label_replace(): {e}"))
    };
    let anchored = Anchored::new(pattern).map_err(|e| wrong(&e.0))?;
    let regex = Regex::new(anchored.pattern()).map_err(|e| wrong(&e))?;
    if !is_label_name(target) {
        return fail(format!("invalid destination label name in label_replace(): {target}"));
    }
    let mut captures = regex.create_captures();
    for series in &mut vector {
        evaluator.check_canceled()?;
        let value = series.labels.get(source).unwrap_or("");
        regex.captures(value, &mut captures);
        if !captures.is_match() {
            continue;
        }
        // The most that can come out, before it does: a reference takes two bytes and gives the whole value at most.
        let most = replacement.len().saturating_mul(value.len().max(1));
        let _room = evaluator.budget.hold(most / size_of::<f64>())?;
        let mut text = String::new();
        interpolate::string(
            replacement,
            |group, text| {
                if let Some(span) = captures.get_group(group) {
                    text.push_str(&value[span.range()]);
                }
            },
            |name| captures.group_info().to_index(captures.pattern()?, name),
            &mut text,
        );
        set(evaluator, series, target, &text)?;
    }
    output::merge_same(vector)
}

/// `label_join`.
pub fn join(
    evaluator: &Evaluator,
    mut vector: Vec<Series>,
    target: &str,
    separator: &str,
    sources: &[String],
) -> Result<Vec<Series>, Error> {
    if let Some(wrong) = sources.iter().find(|s| !is_label_name(s)) {
        return fail(format!("invalid source label name in label_join(): {wrong}"));
    }
    if !is_label_name(target) {
        return fail(format!("invalid destination label name in label_join(): {target}"));
    }
    for series in &mut vector {
        evaluator.check_canceled()?;
        let values: Vec<&str> = sources.iter().map(|s| series.labels.get(s).unwrap_or("")).collect();
        let text = values.join(separator);
        set(evaluator, series, target, &text)?;
    }
    output::merge_same(vector)
}

fn set(evaluator: &Evaluator, series: &mut Series, label: &str, value: &str) -> Result<(), Error> {
    // Nested calls can double a value each time, so labels count against the budget by the samples that fit in them.
    series.column.held.join(evaluator.budget.hold(value.len() / size_of::<f64>())?);
    series.labels = series.labels.with(label, value);
    if label == METRIC_NAME {
        // A name given on purpose stays.
        series.drop_name = false;
    }
    Ok(())
}

/// `sort`, `sort_desc`: by the value of an instant query; NaN comes last either way.
pub fn sort_by_value(vector: &mut [Series], descending: bool) {
    vector.sort_by(|a, b| {
        let (a, b) = (a.column.floats[0], b.column.floats[0]);
        let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        a.is_nan().cmp(&b.is_nan()).then(if descending { order.reverse() } else { order })
    });
}

/// `sort_by_label`, `sort_by_label_desc`: numbers inside the labels by their value.
pub fn sort_by_label(vector: &mut [Series], names: &[String], descending: bool) {
    vector.sort_by(|a, b| {
        let compare =
            |name: &String| natural(a.labels.get(name).unwrap_or(""), b.labels.get(name).unwrap_or(""));
        let order = names.iter().map(compare).find(|o| o.is_ne()).unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
}

/// Compares runs of digits by their value and everything else by bytes.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() && !b.is_empty() {
        let (chunk_a, rest_a) = chunk(a);
        let (chunk_b, rest_b) = chunk(b);
        let order = match (chunk_a.parse::<i64>(), chunk_b.parse::<i64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => chunk_a.cmp(chunk_b),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// The longest run of digits or of other characters at the front, and the rest.
fn chunk(text: &str) -> (&str, &str) {
    let digits = text.as_bytes()[0].is_ascii_digit();
    let end = text.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_labels_sort_by_value() {
        let mut texts = ["4m600", "4m5", "4m1000", "a", "10", "9", ""];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["", "4m5", "4m600", "4m1000", "9", "10", "a"]);
    }
}
