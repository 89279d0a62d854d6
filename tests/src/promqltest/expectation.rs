//! What a case expects, and whether an answer is that.
//!
//! ```text
//! expect ordered | fail | warn | no_warn | info | no_info      [msg: <text> | regex: <expression>]
//! expect string "<text>"
//! expect range vector from <time> to <time> step <duration>
//! <number>                                                     a scalar
//! <series>                                                     one value, or one a step
//! ```

use super::script::{self, When, split};
use anyhow::{Context, Result, bail, ensure};
use model::histogram::{Counts, Span};
use model::{Histogram, Labels};
use query::parser::literal;
use query::parser::series::Value as Item;
use query::{Answer, Point, Value};
use std::collections::BTreeMap;

/// Relative difference below which floats count as equal.
const EPSILON: f64 = 1e-6;

/// What a case expects.
#[derive(Debug, Default)]
pub struct Expectation {
    /// That it fails, and how.
    pub fail: Option<Text>,
    /// The order of a vector's series.
    ordered: bool,
    scalar: Option<f64>,
    string: Option<String>,
    /// Steps of the expected values, where the case is an instant query that gives a range vector.
    steps: Option<When>,
    /// In the order of the script.
    series: Vec<(Labels, Vec<Item>)>,
    warnings: Annotations,
    infos: Annotations,
}

/// Which annotations of one kind are expected. Nothing said means anything goes.
#[derive(Debug, Default)]
struct Annotations {
    none: bool,
    some: Vec<Text>,
}

/// A text or a pattern of it.
#[derive(Debug)]
pub enum Text {
    /// Whatever it says.
    Any,
    /// Exactly this.
    Exact(String),
    /// This regular expression, anywhere in it.
    Pattern(model::Matcher),
}

impl Text {
    /// `msg: …`, `regex: …`, or nothing.
    fn parse(text: &str) -> Result<Text> {
        if text.is_empty() {
            return Ok(Text::Any);
        }
        let (kind, text) = text.split_once(':').context("expected `msg:` or `regex:`")?;
        let text = text.trim();
        match kind.trim() {
            "msg" => Ok(Text::Exact(text.into())),
            "regex" => Text::pattern(text),
            _ => bail!("expected `msg:` or `regex:`, got {kind}"),
        }
    }

    fn pattern(text: &str) -> Result<Text> {
        // Matchers are anchored, these patterns are not.
        let pattern = format!(".*(?:{text}).*");
        Ok(Text::Pattern(model::Matcher::new("", model::MatchOp::Matches, pattern)?))
    }

    /// Whether `text` is it.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Text::Any => true,
            Text::Exact(exact) => exact == text,
            Text::Pattern(pattern) => pattern.matches(text),
        }
    }
}

impl Annotations {
    fn check(&self, kind: &str, got: &[String]) -> Result<()> {
        if self.none {
            ensure!(got.is_empty(), "unexpected {kind}: {got:?}");
        }
        if self.some.is_empty() {
            return Ok(());
        }
        for expected in &self.some {
            ensure!(got.iter().any(|g| expected.matches(g)), "expected {kind} {expected:?}, got {got:?}");
        }
        let stray = got.iter().find(|g| !self.some.iter().any(|expected| expected.matches(g)));
        ensure!(stray.is_none(), "unexpected {kind}: {stray:?}");
        Ok(())
    }
}

impl Expectation {
    /// What the command itself says: `eval_fail` and the like are the old way to expect.
    pub fn of_command(command: &str) -> Result<Expectation> {
        let mut expected = Expectation::default();
        match command {
            "eval" => {}
            "eval_fail" => expected.fail = Some(Text::Any),
            "eval_ordered" => expected.ordered = true,
            "eval_warn" => expected.warnings.some.push(Text::Any),
            "eval_info" => expected.infos.some.push(Text::Any),
            _ => bail!("not a command"),
        }
        Ok(expected)
    }

    /// Adds one line of the case's block.
    pub fn add(&mut self, line: &str, when: When) -> Result<()> {
        let (word, rest) = split(line);
        match word {
            "expect" => return self.expect(rest),
            "expected_fail_message" => self.fail = Some(Text::Exact(rest.into())),
            "expected_fail_regexp" => self.fail = Some(Text::pattern(rest)?),
            _ if rest.is_empty() && number(word).is_some() => self.scalar = number(word),
            _ => {
                let series = script::series(line)?;
                let one_value = matches!(when, When::At(_)) && self.steps.is_none();
                ensure!(!one_value || series.values.len() == 1, "an instant has one value a series: {line}");
                self.series.push((series.labels, series.values));
            }
        }
        Ok(())
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        let (what, rest) = split(text);
        match what {
            "ordered" => self.ordered = true,
            "fail" => self.fail = Some(Text::parse(rest)?),
            "warn" => self.warnings.some.push(Text::parse(rest)?),
            "info" => self.infos.some.push(Text::parse(rest)?),
            "no_warn" => self.warnings.none = true,
            "no_info" => self.infos.none = true,
            "string" => self.string = Some(literal::string(rest).map_err(anyhow::Error::msg)?),
            "range" => {
                let rest = rest.strip_prefix("vector").context("expected `range vector`")?;
                self.steps = Some(script::range(rest.trim_start())?.0);
            }
            _ => bail!("cannot expect {text}"),
        }
        Ok(())
    }

    /// Whether native histograms come out.
    pub fn has_histograms(&self) -> bool {
        self.series.iter().flat_map(|(_, values)| values).any(|v| matches!(v, Item::Histogram(..)))
    }

    /// Whether the order of a vector matters.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Checks warnings and notes.
    pub fn check_annotations(&self, answer: &Answer) -> Result<()> {
        self.warnings.check("warning", &answer.warnings)?;
        self.infos.check("info", &answer.infos)
    }

    /// Checks the answer to the case as it is written.
    pub fn check_value(&self, value: &Value, when: When) -> Result<()> {
        match value {
            Value::String(_, got) => match &self.string {
                Some(expected) => ensure!(expected == got, "expected {expected:?}, got {got:?}"),
                None => bail!("unexpected string {got:?}"),
            },
            Value::Scalar(_, got) => match self.scalar {
                Some(expected) => ensure!(same_float(expected, *got), "expected {expected}, got {got}"),
                None => bail!("unexpected scalar {got}"),
            },
            Value::Vector(got) => {
                let got: Vec<(&Labels, &Point)> =
                    got.iter().map(|(labels, _, point)| (labels, point)).collect();
                self.check_vector(&got)?;
            }
            Value::Matrix(got) => {
                let steps = match when {
                    When::Range { .. } => when,
                    When::At(_) => {
                        self.steps.context("unexpected range vector, without `expect range vector`")?
                    }
                };
                self.check_matrix(got, steps)?;
            }
        }
        Ok(())
    }

    /// Checks the step of a range query that stands for an instant query, which may have been a scalar.
    pub fn check_step(&self, got: &[(&Labels, &Point)]) -> Result<()> {
        match (self.scalar, got) {
            (None, _) => self.check_vector(got),
            (Some(expected), [(labels, Point::Float(got))]) if labels.is_empty() => {
                ensure!(same_float(expected, *got), "expected {expected}, got {got}");
                Ok(())
            }
            (Some(expected), _) => bail!("expected {expected}, got {got:?}"),
        }
    }

    fn check_vector(&self, got: &[(&Labels, &Point)]) -> Result<()> {
        self.check_no_single()?;
        for (position, (labels, point)) in got.iter().enumerate() {
            let Some(index) = self.series.iter().position(|(l, _)| l == *labels) else {
                bail!("unexpected series {labels} with {}", show(point));
            };
            ensure!(
                !self.ordered || index == position,
                "expected {labels} at position {}, got it at {}",
                index + 1,
                position + 1
            );
            let expected = &self.series[index].1[0];
            ensure!(same(expected, point), "{labels}: expected {}, got {}", show_item(expected), show(point));
        }
        for (index, (labels, values)) in self.series.iter().enumerate() {
            let times = got.iter().filter(|(l, _)| *l == labels).count();
            ensure!(times > 0, "expected series {labels} with {} not found", show_item(&values[0]));
            ensure!(times == 1, "series {labels} came {times} times");
            let first = self.series.iter().position(|(l, _)| l == labels);
            ensure!(first == Some(index), "BUG in the script: {labels} is expected twice");
        }
        Ok(())
    }

    fn check_matrix(&self, got: &[(Labels, Vec<(i64, Point)>)], steps: When) -> Result<()> {
        self.check_no_single()?;
        ensure!(!self.ordered, "a range query has no order of its own");
        let When::Range { start, end, step } = steps else { bail!("BUG: steps of an instant") };
        ensure!(got.is_sorted_by(|a, b| a.0 < b.0), "series are not sorted by labels, or not unique");
        for (labels, points) in got {
            let Some((_, values)) = self.series.iter().find(|(l, _)| l == labels) else {
                let first = points.first().map(|(_, point)| show(point));
                bail!("unexpected series {labels} with {}, …", first.unwrap_or_default());
            };
            let expected: Vec<(i64, &Item)> = values
                .iter()
                .enumerate()
                .map(|(index, item)| (start + index as i64 * step, item))
                .filter(|(_, item)| !matches!(item, Item::Gap))
                .collect();
            ensure!(expected.iter().all(|(t, _)| *t <= end), "more values than steps for {labels}");
            let shown = || {
                let expected: Vec<_> =
                    expected.iter().map(|(t, v)| format!("{} @{t}", show_item(v))).collect();
                let got: Vec<_> = points.iter().map(|(t, v)| format!("{} @{t}", show(v))).collect();
                format!("{labels}: expected {}; got {}", expected.join(", "), got.join(", "))
            };
            ensure!(expected.len() == points.len(), shown());
            for ((t, expected), (got_t, got)) in expected.iter().zip(points) {
                ensure!(t == got_t && same(expected, got), shown());
            }
        }
        for (labels, _) in &self.series {
            ensure!(got.iter().any(|(l, _)| l == labels), "expected series {labels} not found");
        }
        Ok(())
    }

    fn check_no_single(&self) -> Result<()> {
        ensure!(self.scalar.is_none(), "expected a scalar, got series");
        ensure!(self.string.is_none(), "expected a string, got series");
        Ok(())
    }
}

/// A bare number as a scalar is expected.
fn number(text: &str) -> Option<f64> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("-", rest) => (-1.0, rest),
        ("+", rest) => (1.0, rest),
        _ => (1.0, text),
    };
    digits.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.').then_some(())?;
    literal::number(digits).ok().map(|value| sign * value)
}

fn same(expected: &Item, got: &Point) -> bool {
    match (expected, got) {
        (Item::Float(expected), Point::Float(got)) => same_float(*expected, *got),
        (Item::Histogram(expected, hinted), Point::Histogram(got)) => same_histogram(expected, got, *hinted),
        _ => false,
    }
}

/// Equal up to [`EPSILON`]; all NaN are equal except the stale marker.
pub fn same_float(a: f64, b: f64) -> bool {
    use model::value::is_stale;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// Equal after buckets without observations are left out. The reset hint counts only where the script says one.
fn same_histogram(expected: &Histogram, got: &Histogram, hinted: bool) -> bool {
    let (a, b) = (Parts::of(expected), Parts::of(got));
    let same_buckets = |a: &BTreeMap<i64, f64>, b: &BTreeMap<i64, f64>| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same_float(*a.1, *b.1))
    };
    expected.schema == got.schema
        && expected.zero_threshold == got.zero_threshold
        && expected.custom_values == got.custom_values
        && same_float(expected.sum, got.sum)
        && same_float(a.count, b.count)
        && same_float(a.zero, b.zero)
        && same_buckets(&a.positive, &b.positive)
        && same_buckets(&a.negative, &b.negative)
        && (!hinted || expected.reset_hint == got.reset_hint)
}

/// A histogram with its buckets by index.
struct Parts {
    count: f64,
    zero: f64,
    positive: BTreeMap<i64, f64>,
    negative: BTreeMap<i64, f64>,
}

impl Parts {
    fn of(histogram: &Histogram) -> Parts {
        let floats = |counts: &[i64]| counts.iter().map(|c| *c as f64).collect::<Vec<_>>();
        let (count, zero, positive, negative) = match &histogram.counts {
            Counts::Integer { count, zero, positive, negative } => {
                (*count as f64, *zero as f64, floats(positive), floats(negative))
            }
            Counts::Float { count, zero, positive, negative } => {
                (*count, *zero, positive.clone(), negative.clone())
            }
        };
        Parts {
            count,
            zero,
            positive: buckets(&histogram.positive_spans, &positive),
            negative: buckets(&histogram.negative_spans, &negative),
        }
    }
}

fn buckets(spans: &[Span], counts: &[f64]) -> BTreeMap<i64, f64> {
    let mut indices = Vec::new();
    let mut index = 0i64;
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            indices.push(index);
            index += 1;
        }
    }
    indices.into_iter().zip(counts.iter().copied()).filter(|(_, count)| *count != 0.0).collect()
}

fn show(point: &Point) -> String {
    match point {
        Point::Float(value) => value.to_string(),
        Point::Histogram(histogram) => show_histogram(histogram),
    }
}

fn show_item(item: &Item) -> String {
    match item {
        Item::Gap => "_".into(),
        Item::Float(value) => value.to_string(),
        Item::Histogram(histogram, _) => show_histogram(histogram),
    }
}

fn show_histogram(histogram: &Histogram) -> String {
    let parts = Parts::of(histogram);
    format!(
        "{{{{schema:{} count:{} sum:{} zero:{}/{} positive:{:?} negative:{:?} custom:{:?} hint:{:?}}}}}",
        histogram.schema,
        parts.count,
        histogram.sum,
        parts.zero,
        histogram.zero_threshold,
        parts.positive,
        parts.negative,
        histogram.custom_values,
        histogram.reset_hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(warnings: &[&str]) -> Answer {
        Answer {
            value: Value::Scalar(0, 1.0),
            warnings: warnings.iter().map(|w| w.to_string()).collect(),
            infos: Vec::new(),
            samples_read: 0,
            samples_peak: 0,
        }
    }

    fn expectation(lines: &[&str]) -> Expectation {
        let mut expected = Expectation::default();
        lines.iter().for_each(|line| expected.add(line, When::At(0)).unwrap());
        expected
    }

    fn vector(series: &[(&str, f64)]) -> Value {
        let series = series
            .iter()
            .map(|(text, value)| (script::series(text).unwrap().labels, 0, Point::Float(*value)));
        Value::Vector(series.collect())
    }

    #[test]
    fn a_vector_must_have_exactly_the_expected_series() {
        let expected = expectation(&["a 1", "b 2"]);
        let check = |got: &[(&str, f64)]| expected.check_value(&vector(got), When::At(0));
        check(&[("b", 2.0), ("a", 1.0 + 1e-9)]).unwrap();
        check(&[("a", 1.0)]).unwrap_err();
        check(&[("a", 1.0), ("b", 2.1)]).unwrap_err();
        check(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]).unwrap_err();
        check(&[("a", 1.0), ("b", 2.0), ("b", 2.0)]).unwrap_err();
    }

    #[test]
    fn order_counts_when_it_is_expected() {
        let expected = expectation(&["expect ordered", "b 2", "a 1"]);
        expected.check_value(&vector(&[("b", 2.0), ("a", 1.0)]), When::At(0)).unwrap();
        expected.check_value(&vector(&[("a", 1.0), ("b", 2.0)]), When::At(0)).unwrap_err();
    }

    #[test]
    fn a_matrix_is_compared_step_by_step_with_its_gaps() {
        let when = When::Range { start: 0, end: 20, step: 10 };
        let mut expected = Expectation::default();
        expected.add("a 1 _ 3", when).unwrap();
        let labels = script::series("a").unwrap().labels;
        let matrix = |points: &[(i64, f64)]| {
            Value::Matrix(vec![(
                labels.clone(),
                points.iter().map(|(t, v)| (*t, Point::Float(*v))).collect(),
            )])
        };
        expected.check_value(&matrix(&[(0, 1.0), (20, 3.0)]), when).unwrap();
        expected.check_value(&matrix(&[(0, 1.0), (10, 3.0)]), when).unwrap_err();
        expected.check_value(&matrix(&[(0, 1.0)]), when).unwrap_err();
        expected.check_value(&Value::Matrix(Vec::new()), when).unwrap_err();
    }

    #[test]
    fn annotations_must_match_in_both_directions() {
        let expected = expectation(&["expect warn msg: one", r"expect warn regex: t[wx]o \(1:2\)"]);
        expected.check_annotations(&answer(&["one", "it is two (1:2) now"])).unwrap();
        expected.check_annotations(&answer(&["one"])).unwrap_err();
        expected.check_annotations(&answer(&["one", "two (1:2)", "three"])).unwrap_err();
        expectation(&["expect no_warn"]).check_annotations(&answer(&["one"])).unwrap_err();
        expectation(&["expect no_info"]).check_annotations(&answer(&["one"])).unwrap();
    }

    #[test]
    fn floats_are_equal_up_to_the_epsilon_and_stale_is_not_nan() {
        assert!(same_float(1.0, 1.000_001));
        assert!(!same_float(1.0, 1.000_01));
        assert!(same_float(f64::NAN, -f64::NAN));
        assert!(!same_float(model::value::stale(), f64::NAN));
        assert!(!same_float(0.0, 1e-300));
        assert!(same_float(f64::INFINITY, f64::INFINITY));
        assert!(!same_float(f64::INFINITY, f64::MAX));
    }

    #[test]
    fn histograms_are_equal_whatever_their_spans() {
        let literal = |text: &str| match &script::series(&format!("h {text}")).unwrap().values[0] {
            Item::Histogram(histogram, hinted) => (histogram.clone(), *hinted),
            other => panic!("{other:?}"),
        };
        let (plain, hinted) = literal("{{count:3 sum:1 buckets:[0 1 0 2] offset:-1}}");
        let (sparse, _) = literal("{{count:3 sum:1 buckets:[1 0 2 0]}}");
        let (gauge, gauge_hinted) = literal("{{count:3 sum:1 buckets:[1 0 2] counter_reset_hint:gauge}}");
        assert!(same_histogram(&plain, &sparse, hinted));
        assert!(same_histogram(&plain, &gauge, hinted));
        assert!(!same_histogram(&gauge, &plain, gauge_hinted));
        assert!(!same_histogram(&plain, &literal("{{count:3 sum:1 buckets:[1 2]}}").0, hinted));
    }
}
