//! Annotations: what a query's answer warns of or informs about, in Prometheus's words.

use crate::ast::Span;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Display;

/// The annotations of one query. Equal ones are kept once.
#[derive(Debug, Default)]
pub struct Annotations {
    warnings: BTreeSet<(String, Span)>,
    infos: BTreeSet<(String, Span)>,
    forced: BTreeMap<(String, Span), Forced>,
    from_source: BTreeSet<String>,
}

/// What `histogram_quantile` had to straighten in the buckets of one histogram, over all steps.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    /// First and last step, in milliseconds.
    pub times: (i64, i64),
    /// Lowest and highest bucket that was raised.
    pub buckets: (f64, f64),
    /// The largest correction.
    pub diff_max: f64,
    /// Number of steps.
    pub count: u64,
}

impl Forced {
    /// Both of two.
    pub fn merge(self, other: Forced) -> Forced {
        Forced {
            times: (self.times.0.min(other.times.0), self.times.1.max(other.times.1)),
            buckets: (self.buckets.0.min(other.buckets.0), self.buckets.1.max(other.buckets.1)),
            diff_max: self.diff_max.max(other.diff_max),
            count: self.count + other.count,
        }
    }
}

impl Annotations {
    /// Adds a warning about the expression at `span`.
    pub fn warn(&mut self, span: Span, text: impl Into<String>) {
        self.warnings.insert((text.into(), span));
    }

    /// Adds an information about the expression at `span`.
    pub fn info(&mut self, span: Span, text: impl Into<String>) {
        self.infos.insert((text.into(), span));
    }

    /// Adds what the source said about its data.
    pub fn source_warned(&mut self, warning: &str) {
        self.from_source.insert(warning.to_string());
    }

    /// Adds that buckets of `metric` were not monotonic.
    pub fn forced_monotonicity(&mut self, span: Span, metric: &str, forced: Forced) {
        let text = for_metric(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            metric,
        );
        let key = (text, span);
        let merged = self.forced.get(&key).map_or(forced, |before| before.merge(forced));
        self.forced.insert(key, merged);
    }

    /// The complete texts: warnings, then infos, each sorted.
    pub fn into_texts(self, query: &str) -> (Vec<String>, Vec<String>) {
        let finish = |kind: &str, texts: BTreeSet<(String, Span)>| -> BTreeSet<String> {
            texts
                .into_iter()
                .map(|(text, span)| format!("PromQL {kind}: {text} ({})", position(query, span)))
                .collect()
        };
        let mut warnings = finish("warning", self.warnings);
        warnings.extend(self.from_source);
        let mut infos = finish("info", self.infos);
        for ((text, span), forced) in self.forced {
            infos.insert(format!(
                "PromQL info: {text}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({})",
                go_general(forced.buckets.0),
                go_general(forced.buckets.1),
                two_digits(forced.diff_max),
                forced.count,
                rfc3339(forced.times.0),
                rfc3339(forced.times.1),
                position(query, span)
            ));
        }
        (warnings.into_iter().collect(), infos.into_iter().collect())
    }
}

/// `text for metric name "x"`, or only the text when there is no name.
pub fn for_metric(text: impl Display, metric: &str) -> String {
    if metric.is_empty() { text.to_string() } else { format!("{text} for metric name {metric:?}") }
}

/// `line:column` of the first byte of `span`, both from 1.
fn position(query: &str, span: Span) -> String {
    let before = &query.as_bytes()[..(span.start as usize).min(query.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1) + 1;
    format!("{line}:{column}")
}

/// As Go prints a float with `%g`.
pub fn go_general(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |d| ("-", d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

/// As Go prints a float with `%.2g`.
fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    if rounded != 0.0 && rounded.is_finite() && !(1e-4..1e2).contains(&rounded.abs()) {
        let text = format!("{rounded:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |d| ("-", d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    go_general(rounded)
}

fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_second(millis.div_euclid(1000))
        .map_or_else(|_| millis.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_annotations_are_kept_once_and_carry_line_and_column() {
        let mut annotations = Annotations::default();
        let span = Span { start: 4, end: 5 };
        annotations.warn(span, "b");
        annotations.warn(span, "b");
        annotations.warn(Span::default(), "a");
        let (warnings, infos) = annotations.into_texts("a\nb c");
        assert_eq!(warnings, ["PromQL warning: a (1:1)", "PromQL warning: b (2:3)"]);
        assert!(infos.is_empty());
    }

    #[test]
    fn floats_are_printed_like_gos_general_format() {
        let cases = [
            (2.0, "2"),
            (0.5, "0.5"),
            (1234567.0, "1.234567e+06"),
            (-1e19, "-1e+19"),
            (1e-5, "1e-05"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(go_general(value), text);
        }
        assert_eq!(two_digits(0.123), "0.12");
        assert_eq!(two_digits(123.0), "1.2e+02");
    }
}
