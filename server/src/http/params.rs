//! Parameters of the API: from the URL, or from the form in the body of a POST.

use super::error::ApiError;
use crate::time;
use axum::http::HeaderMap;
use cluster::quorum::Consistency;
use model::{Matcher, TimeRange, Timestamp};
use query::ast::Kind as ExprKind;
use std::num::IntErrorKind;

/// The header that says how many copies must take part in a read or a write.
pub const CONSISTENCY: &str = "x-sarsen-consistency";

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
    fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        time::parse_time(text).map(Some).ok_or_else(|| cannot_parse(name, text, "timestamp"))
    }

    /// A moment where Prometheus has a default for a missing one; it says so in other words than elsewhere.
    pub fn optional_time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let problem = || {
            let text = format!("Invalid time value for '{name}': cannot parse {text:?} to a valid timestamp");
            ApiError::parameter(name, text)
        };
        time::parse_time(text).map(Some).ok_or_else(problem)
    }

    /// A moment that must be there.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        self.time(name)?.ok_or_else(|| cannot_parse(name, "", "timestamp"))
    }

    /// A span in milliseconds.
    pub fn span(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        time::parse_span_ms(text).map(Some).ok_or_else(|| {
            let finite = text.parse::<f64>().is_ok_and(f64::is_finite);
            let overflow = if finite { "duration. It overflows int64" } else { "duration" };
            cannot_parse(name, text, overflow)
        })
    }

    /// A span that must be there.
    pub fn required_span(&self, name: &str) -> Result<i64, ApiError> {
        self.span(name)?.ok_or_else(|| cannot_parse(name, "", "duration"))
    }

    /// A whole number, in Prometheus's words (which are Go's) when it is none.
    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse::<i64>().map(Some).map_err(|error| {
            let why = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            format!("strconv.Atoi: parsing {text:?}: {why}")
        })
    }

    /// `limit`: absent and 0 mean none.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        match self.int("limit").map_err(|text| ApiError::parameter("limit", text))? {
            None | Some(0) => Ok(None),
            Some(n) if n < 0 => Err(ApiError::parameter("limit", "limit must be non-negative")),
            Some(n) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
        }
    }

    /// `start` and `end` of a lookup; all of time where they are missing. An end before the start is an empty range.
    pub fn lookup_range(&self) -> Result<TimeRange, ApiError> {
        let min = self.optional_time("start")?.unwrap_or(Timestamp::MIN);
        let max = self.optional_time("end")?.unwrap_or(Timestamp::MAX);
        Ok(TimeRange { min, max })
    }

    /// Yes or no, in Go's words; missing is no.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => {
                Err(ApiError::parameter(name, format_args!("{text:?} is neither `true` nor `false`")))
            }
        }
    }

    /// Whether an answer may lack what cannot be reached.
    pub fn partial(&self) -> Result<bool, ApiError> {
        Ok(self.flag("partial")? || self.flag("partial_response")?)
    }

    /// How many copies must take part: the parameter `consistency`, or else the header.
    pub fn consistency(&self, headers: &HeaderMap) -> Result<Option<Consistency>, ApiError> {
        let header = || headers.get(CONSISTENCY).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let text = self.get("consistency").map(Into::into).or_else(header);
        let parse = |text: std::borrow::Cow<str>| text.trim().parse();
        text.map(parse).transpose().map_err(|why| ApiError::parameter("consistency", why))
    }

    /// Every `match[]`.
    pub fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        self.all("match[]").map(selector).collect()
    }
}

fn cannot_parse(name: &str, text: &str, what: &str) -> ApiError {
    ApiError::parameter(name, format_args!("cannot parse {text:?} to a valid {what}"))
}

/// The matchers of one `match[]`. `series` names the parameter in front of the problem, the other lookups do not.
pub fn selector(text: &str) -> Result<Vec<Matcher>, ApiError> {
    let empty = || ApiError::bad_data("match[] must contain at least one non-empty matcher");
    let expr = query::parser::parse(text).map_err(|e| {
        // What the parser says of a selector in a query, Prometheus says of one here in its own words.
        if e.message.ends_with("at least one non-empty matcher") {
            empty()
        } else {
            let text = e.to_string().replace("no expression found in input", "unexpected end of input");
            ApiError::bad_data(text)
        }
    })?;
    let ExprKind::Vector(selector) = expr.kind else {
        return Err(ApiError::bad_data("match[]: expected a series selector such as up{job=\"x\"}"));
    };
    if selector.offset.is_some() || selector.at.is_some() {
        return Err(ApiError::bad_data("match[]: a series selector here takes no offset and no @"));
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
            text(params.limit().map(drop)),
            r#"invalid parameter "limit": limit must be non-negative"#
        );
        assert_eq!(
            text(params.optional_time("time").map(drop)),
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "foo" to a valid timestamp"#
        );
        let text_of = |query: &str| text(Params::new(query, b"").limit().map(drop));
        assert_eq!(
            text_of("limit=x"),
            r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#
        );
        let huge = "9".repeat(20);
        assert!(text_of(&format!("limit={huge}")).ends_with("value out of range"));
        let params_of = |query: &str| text(Params::new(query, b"").required_span("step").map(drop));
        assert_eq!(
            params_of("step=1e300"),
            r#"invalid parameter "step": cannot parse "1e300" to a valid duration. It overflows int64"#
        );
        assert_eq!(
            text(params.required_time("absent").map(drop)),
            r#"invalid parameter "absent": cannot parse "" to a valid timestamp"#
        );
    }

    #[test]
    fn consistency_is_a_parameter_or_a_header_and_a_bad_one_is_told_the_good_ones() {
        let of = |query: &str, header: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert(CONSISTENCY, axum::http::HeaderValue::from_static(value));
            }
            Params::new(query, b"").consistency(&headers)
        };
        assert_eq!(of("", None).unwrap(), None);
        assert_eq!(of("consistency=all", Some("one")).unwrap(), Some(Consistency::All));
        assert_eq!(of("", Some("one")).unwrap(), Some(Consistency::One));
        for bad in [of("consistency=quorum", None), of("", Some("two"))] {
            let bad = bad.unwrap_err();
            assert!(bad.message.contains("`one`, `majority` or `all`"), "{}", bad.message);
        }
    }

    #[test]
    fn partial_answers_are_given_only_to_who_asks() {
        let of = |query: &str| Params::new(query, b"").partial();
        assert!(!of("").unwrap() && !of("partial=false").unwrap());
        assert!(of("partial=1").unwrap() && of("partial_response=true").unwrap());
        assert!(of("partial=maybe").unwrap_err().message.contains("`true` nor `false`"));
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
