//! Parameters of the API: from the URL, or from the form in the body of a POST.

use super::error::ApiError;
use crate::time;
use model::{Matcher, TimeRange, Timestamp};
use query::ast::Kind as ExprKind;

/// Names and values in the order of Go's `FormValue`: the body's before the URL's, the first of a name counts.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// From the query of the URL and the form in the body.
    pub fn new(url_query: &str, form: &[u8]) -> Params {
        let pairs = form_urlencoded::parse(form).chain(form_urlencoded::parse(url_query.as_bytes()));
        Params(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first value of `name`, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A moment.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.parsed(name, time::parse_time, "timestamp")
    }

    /// A moment that must be there.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        self.time(name)?.ok_or_else(|| cannot_parse(name, "", "timestamp"))
    }

    /// A span in milliseconds.
    pub fn span(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.parsed(name, time::parse_span_ms, "duration")
    }

    /// A span that must be there.
    pub fn required_span(&self, name: &str) -> Result<i64, ApiError> {
        self.span(name)?.ok_or_else(|| cannot_parse(name, "", "duration"))
    }

    fn parsed<T>(&self, name: &str, parse: fn(&str) -> Option<T>, what: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| cannot_parse(name, text, what))
    }

    /// `limit`, or another count: absent and 0 mean none.
    pub fn limit(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Err(_) => Err(ApiError::parameter(name, format_args!("cannot parse {text:?} as a whole number"))),
            Ok(n) if n < 0 => Err(ApiError::parameter(name, format_args!("{name} must be non-negative"))),
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
        }
    }

    /// `start` and `end` of a lookup; all of time where they are missing.
    pub fn lookup_range(&self) -> Result<TimeRange, ApiError> {
        let min = self.time("start")?.unwrap_or(Timestamp::MIN);
        let max = self.time("end")?.unwrap_or(Timestamp::MAX);
        if max < min {
            return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
        }
        Ok(TimeRange { min, max })
    }

    /// Every `match[]`.
    pub fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        self.all("match[]").map(selector).collect()
    }
}

fn cannot_parse(name: &str, text: &str, what: &str) -> ApiError {
    ApiError::parameter(name, format_args!("cannot parse {text:?} to a valid {what}"))
}

/// The matchers of one `match[]`.
pub fn selector(text: &str) -> Result<Vec<Matcher>, ApiError> {
    let empty = || ApiError::bad_data("match[] must contain at least one non-empty matcher");
    let expr = query::parser::parse(text).map_err(|e| {
        // What the parser says of a selector in a query, Prometheus says of one here in its own words.
        if e.message.ends_with("at least one non-empty matcher") {
            empty()
        } else {
            ApiError::parameter("match[]", e)
        }
    })?;
    let ExprKind::Vector(selector) = expr.kind else {
        return Err(ApiError::parameter("match[]", "expected a series selector such as up{job=\"x\"}"));
    };
    if selector.offset.is_some() || selector.at.is_some() {
        return Err(ApiError::parameter("match[]", "a series selector here takes no offset and no @"));
    }
    if selector.matchers.iter().all(Matcher::matches_missing) {
        return Err(empty());
    }
    Ok(selector.matchers)
}

/// A label's name in a path: `U__` and `_2e_` give names outside the classic alphabet.
pub fn unescape_label_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_string() };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let Some((hex, after)) = rest.split_once('_') else { return name.to_string() };
        // As Prometheus: what does not decode is taken as it was written.
        let decoded = (hex.len() <= 6).then(|| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32));
        let Some(Some(c)) = decoded else { return name.to_string() };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_wins_over_the_url_and_the_first_value_counts() {
        let params = Params::new("query=url&match[]=a&match%5B%5D=b", b"query=form%20%2B+1&query=second");
        assert_eq!(params.get("query"), Some("form + 1"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(params.get("time"), None);
    }

    #[test]
    fn errors_are_in_prometheus_words() {
        let params = Params::new("time=foo&step=bar&limit=-1&start=5&end=4", b"");
        let text = |e: Result<(), ApiError>| e.unwrap_err().message;
        assert_eq!(
            text(params.time("time").map(drop)),
            r#"invalid parameter "time": cannot parse "foo" to a valid timestamp"#
        );
        assert_eq!(
            text(params.span("step").map(drop)),
            r#"invalid parameter "step": cannot parse "bar" to a valid duration"#
        );
        assert_eq!(
            text(params.limit("limit").map(drop)),
            r#"invalid parameter "limit": limit must be non-negative"#
        );
        assert_eq!(
            text(params.lookup_range().map(drop)),
            r#"invalid parameter "end": end timestamp must not be before start time"#
        );
        assert_eq!(
            text(params.required_time("absent").map(drop)),
            r#"invalid parameter "absent": cannot parse "" to a valid timestamp"#
        );
    }

    #[test]
    fn escaped_label_names_are_decoded() {
        for (escaped, name) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_", "😀"),
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_", "U__a_"),
            ("U__", ""),
        ] {
            assert_eq!(unescape_label_name(escaped), name, "{escaped}");
        }
    }
}
