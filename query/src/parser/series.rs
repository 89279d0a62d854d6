//! Series with their samples as one line, the notation of Prometheus's test scripts.
//!
//! ```text
//! line   := metric item*                      metric{a="b"} 1 2+3x4 _ stale {{schema:1 sum:3}}x2
//!         | metric "@st" item*                offsets of start timestamps, as durations: _ -30s-1mx2
//! item   := "_" | "_x" n | value | value "x" n | value step "x" n
//! value  := number | "stale" | "{{" (key ":" value)* "}}"
//! step   := ("+" | "-") value
//! ```
//!
//! `_x3` is three gaps; with values, `x3` means three *more*: `1+2x3` is 1, 3, 5, 7.

use super::{Error, Fault, grammar, lexer, literal};
use crate::ast::Kind;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span};
use model::{Histogram, Labels, MatchOp};
use std::collections::BTreeMap;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Fault>;

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// The series.
    pub labels: Labels,
    /// Whether the values are start timestamps, in milliseconds relative to the samples of the same positions.
    pub starts: bool,
    /// One value a step.
    pub values: Vec<Value>,
}

/// What a series has at one step.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: `_`
    Gap,
    /// A float, the stale marker included.
    Float(f64),
    /// A native histogram, and whether `counter_reset_hint` was written.
    Histogram(Arc<Histogram>, bool),
}

/// Values that one line may have; more are a mistake.
const VALUES_MAX: usize = 1_000_000;

/// Parses one line.
pub fn parse(line: &str) -> std::result::Result<Series, Error> {
    Line { text: line, at: 0 }.series().map_err(|fault| fault.in_text(line))
}

struct Line<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Fault::new(self.at as u32, message))
    }

    fn accept(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn series(&mut self) -> Result<Series> {
        let labels = self.labels()?;
        let starts = self.accept("@st");
        let mut values = Vec::new();
        loop {
            let before = self.at;
            self.skip_space();
            if self.rest().is_empty() {
                return Ok(Series { labels, starts, values });
            }
            if self.at == before {
                return self.fault("expected a space between values");
            }
            self.item(starts, &mut values)?;
        }
    }

    fn labels(&mut self) -> Result<Labels> {
        let end = self.end_of_metric();
        let text = &self.text[..end];
        let tokens = lexer::tokens(text);
        let expr = grammar::Parser::new(text, &tokens).whole()?;
        self.at = end;
        let Kind::Vector(selector) = expr.kind else { return self.fault("expected a series") };
        if selector.matchers.iter().any(|m| m.op != MatchOp::Equal) {
            return self.fault("the labels of a series are given with `=`");
        }
        Labels::from_pairs(selector.matchers.iter().map(|m| (m.name.as_str(), m.value.as_str())))
            .or_else(|e| self.fault(e.to_string()))
    }

    /// Behind the closing brace, or where the name without braces ends.
    fn end_of_metric(&self) -> usize {
        let mut quote = None;
        let mut in_braces = false;
        let mut escaped = false;
        for (at, c) in self.text.char_indices() {
            match (quote, c) {
                _ if escaped => escaped = false,
                (Some('"' | '\''), '\\') => escaped = true,
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'' | '`') if in_braces => quote = Some(c),
                (None, '{') => in_braces = true,
                (None, '}') => return at + 1,
                (None, c) if !in_braces && (c.is_whitespace() || c == '@') => {
                    // `metric {a="b"}`
                    let rest = &self.text[at..];
                    if !rest.trim_start().starts_with('{') || rest.trim_start().starts_with("{{") {
                        return at;
                    }
                }
                _ => {}
            }
        }
        self.text.len()
    }

    fn item(&mut self, starts: bool, values: &mut Vec<Value>) -> Result<()> {
        if self.accept("_") {
            let count = self.times()?.unwrap_or(1);
            return self.push(values, count, |_| Ok(Value::Gap));
        }
        if self.accept("stale") {
            let count = self.times()?.unwrap_or(0) + 1;
            return self.push(values, count, |_| Ok(Value::Float(model::value::stale())));
        }
        if self.rest().starts_with("{{") {
            let (first, hint) = self.histogram()?;
            let sign = self.step_sign();
            let step = if sign.is_some() { Some(self.histogram()?) } else { None };
            let count = self.times()?.unwrap_or(0) + 1;
            let hint = hint || step.as_ref().is_some_and(|(_, hint)| *hint);
            let mut current = first;
            return self.push(values, count, |index| {
                if let (true, Some(sign), Some((step, _))) = (index > 0, sign, &step) {
                    current = add(&current, step, sign)?;
                }
                Ok(Value::Histogram(Arc::new(current.clone()), hint))
            });
        }
        let first = self.value(starts)?;
        let step = match self.rest().as_bytes().first() {
            Some(b'+' | b'-') => self.value(starts)?,
            _ => 0.0,
        };
        let count = self.times()?.unwrap_or(0) + 1;
        // Added up step by step, as Prometheus does it, with the same rounding.
        let mut current = first;
        self.push(values, count, |index| {
            if index > 0 {
                current += step;
            }
            Ok(Value::Float(current))
        })
    }

    fn push(
        &self,
        values: &mut Vec<Value>,
        count: usize,
        mut value: impl FnMut(usize) -> std::result::Result<Value, String>,
    ) -> Result<()> {
        if count > VALUES_MAX - values.len() {
            return self.fault(format!("more than {VALUES_MAX} values"));
        }
        for index in 0..count {
            match value(index) {
                Ok(value) => values.push(value),
                Err(message) => return self.fault(message),
            }
        }
        Ok(())
    }

    fn step_sign(&mut self) -> Option<f64> {
        if self.accept("+") {
            Some(1.0)
        } else if self.accept("-") {
            Some(-1.0)
        } else {
            None
        }
    }

    /// `x5`
    fn times(&mut self) -> Result<Option<usize>> {
        if !self.accept("x") {
            return Ok(None);
        }
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        match self.rest()[..digits].parse() {
            Ok(count) if count < VALUES_MAX => {
                self.at += digits;
                Ok(Some(count))
            }
            _ => self.fault("expected a number of repetitions after `x`"),
        }
    }

    /// A number, or a duration in milliseconds, with its sign.
    fn value(&mut self, duration: bool) -> Result<f64> {
        let sign = self.step_sign().unwrap_or(1.0);
        let rest = self.rest();
        let length = if duration {
            // Units and digits, up to the `x` of a repetition.
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() && *b != b'x').count()
        } else {
            number_length(rest)
        };
        let text = &rest[..length];
        let value = if duration {
            literal::duration(text).map(|millis| millis as f64)
        } else {
            text.parse::<f64>().map_err(|_| format!("not a number: {}", model::labels::Quoted(rest)))
        };
        match value {
            Ok(value) => {
                self.at += length;
                Ok(sign * value)
            }
            Err(message) => self.fault(message),
        }
    }

    /// `{{schema:1 buckets:[1 2]}}`, and whether it says a counter reset hint.
    fn histogram(&mut self) -> Result<(Histogram, bool)> {
        if !self.accept("{{") {
            return self.fault("expected a histogram");
        }
        let mut fields = Fields::default();
        loop {
            self.skip_space();
            if self.accept("}}") {
                let hinted = fields.hint.is_some();
                return Ok((fields.build(), hinted));
            }
            let length = self.rest().bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count();
            let key = &self.rest()[..length];
            self.at += length;
            if !self.accept(":") {
                return self.fault("expected `key:value` or `}}` in a histogram");
            }
            match key {
                "schema" => fields.schema = self.value(false)? as i32,
                "sum" => fields.sum = self.value(false)?,
                "count" => fields.count = self.value(false)?,
                "z_bucket" => fields.zero = self.value(false)?,
                "z_bucket_w" => fields.zero_threshold = self.value(false)?,
                "offset" => fields.positive_offset = self.value(false)? as i32,
                "n_offset" => fields.negative_offset = self.value(false)? as i32,
                "buckets" => fields.positive = self.list()?,
                "n_buckets" => fields.negative = self.list()?,
                "custom_values" => fields.custom_values = self.list()?,
                "counter_reset_hint" => fields.hint = Some(self.hint()?),
                _ => {
                    return self
                        .fault(format!("bad histogram descriptor found: {}", model::labels::Quoted(key)));
                }
            }
        }
    }

    fn list(&mut self) -> Result<Vec<f64>> {
        if !self.accept("[") {
            return self.fault("expected a list in brackets");
        }
        let mut list = Vec::new();
        loop {
            self.skip_space();
            if self.accept("]") {
                return Ok(list);
            }
            list.push(self.value(false)?);
        }
    }

    fn hint(&mut self) -> Result<ResetHint> {
        let hints = [
            ("unknown", ResetHint::Unknown),
            ("reset", ResetHint::Reset),
            ("not_reset", ResetHint::NoReset),
            ("gauge", ResetHint::Gauge),
        ];
        match hints.into_iter().find(|(name, _)| self.accept(name)) {
            Some((_, hint)) => Ok(hint),
            None => self.fault("expected unknown, reset, not_reset or gauge"),
        }
    }
}

/// How many bytes of `text` are a number: digits with point and exponent, or a word such as `NaN`.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        let word = text.get(..3).unwrap_or_default();
        return if word.eq_ignore_ascii_case("nan") || word.eq_ignore_ascii_case("inf") { 3 } else { 0 };
    }
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let mut length = digits(0);
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

/// The parts of a histogram as they are written.
#[derive(Default)]
struct Fields {
    schema: i32,
    sum: f64,
    count: f64,
    zero: f64,
    zero_threshold: f64,
    positive_offset: i32,
    negative_offset: i32,
    positive: Vec<f64>,
    negative: Vec<f64>,
    custom_values: Vec<f64>,
    hint: Option<ResetHint>,
}

impl Fields {
    fn build(self) -> Histogram {
        let spans = |offset: i32, buckets: &[f64]| match u32::try_from(buckets.len()) {
            Ok(length) if length > 0 => vec![Span { offset, length }],
            _ => Vec::new(),
        };
        Histogram {
            reset_hint: self.hint.unwrap_or_default(),
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            positive_spans: spans(self.positive_offset, &self.positive),
            negative_spans: spans(self.negative_offset, &self.negative),
            counts: Counts::Float {
                count: self.count,
                zero: self.zero,
                positive: self.positive,
                negative: self.negative,
            },
            custom_values: self.custom_values,
        }
    }
}

/// Buckets by their index.
fn buckets(spans: &[Span], counts: &[f64], reduction: u32) -> BTreeMap<i32, f64> {
    let mut map = BTreeMap::new();
    let (mut index, mut counts) = (0i32, counts.iter());
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let coarse = ((i64::from(index) - 1) >> reduction) + 1;
            *map.entry(coarse as i32).or_insert(0.0) += counts.next().copied().unwrap_or(0.0);
            index = index.saturating_add(1);
        }
    }
    map
}

fn spans(map: &BTreeMap<i32, f64>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0;
    for &index in map.keys() {
        match spans.last_mut() {
            Some(last) if index == next => last.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        next = index + 1;
    }
    (spans, map.values().copied().collect())
}

/// `a + sign * b`, at the coarser of both resolutions.
fn add(a: &Histogram, b: &Histogram, sign: f64) -> std::result::Result<Histogram, String> {
    let custom = a.schema == CUSTOM_BUCKETS_SCHEMA;
    if custom != (b.schema == CUSTOM_BUCKETS_SCHEMA) || a.custom_values != b.custom_values {
        return Err("error combining histograms: their buckets are not of one kind".into());
    }
    if a.zero_threshold != b.zero_threshold && b.zero_threshold != 0.0 {
        return Err("error combining histograms: their zero buckets differ in width".into());
    }
    if a.schema > b.schema {
        return Err(format!(
            "error combining histograms: cannot merge from schema {} to {}",
            b.schema, a.schema
        ));
    }
    let reduction = if custom { 0 } else { (b.schema - a.schema).unsigned_abs().min(31) };
    let (
        Counts::Float { count, zero, positive, negative },
        Counts::Float { count: b_count, zero: b_zero, positive: b_positive, negative: b_negative },
    ) = (&a.counts, &b.counts)
    else {
        unreachable!("BUG: literals are float histograms")
    };
    let merge = |a_spans: &[Span], a: &[f64], b_spans: &[Span], b: &[f64]| {
        let mut map = buckets(a_spans, a, 0);
        for (index, value) in buckets(b_spans, b, reduction) {
            *map.entry(index).or_insert(0.0) += sign * value;
        }
        spans(&map)
    };
    let (positive_spans, positive) = merge(&a.positive_spans, positive, &b.positive_spans, b_positive);
    let (negative_spans, negative) = merge(&a.negative_spans, negative, &b.negative_spans, b_negative);
    let reset_hint = match (a.reset_hint, b.reset_hint) {
        (a, b) if a == b => a,
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    Ok(Histogram {
        reset_hint,
        schema: a.schema,
        zero_threshold: a.zero_threshold,
        sum: a.sum + sign * b.sum,
        counts: Counts::Float {
            count: count + sign * b_count,
            zero: zero + sign * b_zero,
            positive,
            negative,
        },
        positive_spans,
        negative_spans,
        custom_values: a.custom_values.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(line: &str) -> Vec<String> {
        let series = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let value = |value: &Value| match value {
            Value::Gap => "_".to_string(),
            Value::Float(v) if model::value::is_stale(*v) => "stale".into(),
            Value::Float(v) => v.to_string(),
            Value::Histogram(h, _) => format!("{}/{}", h.count(), h.sum),
        };
        series.values.iter().map(value).collect()
    }

    #[test]
    fn repetitions_gaps_and_stale_markers_expand() {
        assert_eq!(floats("m 1 2+3x2 -1-2x1 5x1"), ["1", "2", "5", "8", "-1", "-3", "5", "5"]);
        assert_eq!(floats("m _ _x2 stale 0x1 1e-3"), ["_", "_", "_", "stale", "0", "0", "0.001"]);
        assert_eq!(floats("m NaN Inf -Inf +Inf .5 1e+2"), ["NaN", "inf", "-inf", "inf", "0.5", "100"]);
        assert_eq!(floats("m"), [""; 0]);
    }

    #[test]
    fn start_timestamps_are_offsets_in_milliseconds() {
        let series = parse(r#"m{a="b"}@st _ -30s-1mx1 -59999msx1 0 +1m"#).unwrap();
        assert!(series.starts);
        assert_eq!(
            floats(r#"m@st _ -30s-1mx1 -59999msx1 0 +1m"#),
            ["_", "-30000", "-90000", "-59999", "-59999", "0", "60000"]
        );
    }

    #[test]
    fn labels_are_quoted_as_in_promql() {
        let labels = |line| parse(line).unwrap().labels.to_string();
        assert_eq!(labels(r#"m{b="}", a='"x"'} 1"#), r#"m{a="\"x\"", b="}"}"#);
        assert_eq!(labels(r#"{"my.metric", "l.x"="v"} 1"#), r#"{"my.metric", "l.x"="v"}"#);
        assert_eq!(labels("{} 1"), "{}");
        assert_eq!(labels("m {a=\"b\"} 1"), "m{a=\"b\"}");
        assert_eq!(labels("m {{}}"), "m");
    }

    #[test]
    fn histograms_add_up_at_the_coarser_resolution() {
        let line = "h {{schema:-1 sum:4 count:1 buckets:[1] offset:1}}+{{schema:0 sum:4 count:4 buckets:[2 2] offset:1}}x1";
        let series = parse(line).unwrap();
        let Value::Histogram(last, hinted) = &series.values[1] else { panic!("not a histogram") };
        assert!(!hinted);
        assert_eq!(last.positive_spans, [Span { offset: 1, length: 1 }]);
        let Counts::Float { positive, count, .. } = &last.counts else { panic!("not floats") };
        assert_eq!((positive.as_slice(), *count, last.sum), (&[5.0][..], 5.0, 8.0));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let message = |line| parse(line).unwrap_err().to_string();
        assert_eq!(message("m 1x"), "1:5: parse error: expected a number of repetitions after `x`");
        assert_eq!(message("m 1 y"), "1:5: parse error: not a number: \"y\"");
        assert_eq!(
            message("m {{schemo:1}}"),
            "1:12: parse error: bad histogram descriptor found: \"schemo\""
        );
        assert_eq!(message("m 1x999999999"), "1:5: parse error: expected a number of repetitions after `x`");
    }
}
