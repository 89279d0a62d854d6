//! Times and durations as people and Prometheus's API write them, and the one door to the wall clock.

use model::Timestamp;

/// The wall clock. The only place where it enters: everything below is handed the time.
#[expect(clippy::disallowed_methods, reason = "this is the server's edge")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
}

/// Units of Prometheus's durations, longest first, in milliseconds, for printing.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A Prometheus duration: `1h30m`, `500ms`; units from long to short, each at most once. `0` needs no unit.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    query::parser::literal::duration(text).ok()
}

/// The shortest text that [`parse_duration_ms`] reads back.
pub fn print_duration_ms(mut millis: i64) -> String {
    let mut text = String::new();
    for (name, unit) in UNITS {
        // Years and weeks only when they fit exactly: `90d` is not `12w6d`.
        let exact = !matches!(name, "y" | "w") || millis % unit == 0;
        if exact && millis >= unit {
            text.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    if text.is_empty() { "0s".to_string() } else { text }
}

/// What [`parse_time`] gives for the texts with which Prometheus's own clients mean "from the beginning".
pub const MIN_TEXT: &str = "-292273086-05-16T16:47:06Z";
/// The same for "to the end".
pub const MAX_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// A moment as in the HTTP API: Unix seconds with a fraction, or RFC 3339.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1000.0).round();
        return (millis.is_finite() && millis.abs() < 9.2e18).then_some(Timestamp(millis as i64));
    }
    match text {
        MIN_TEXT => return Some(Timestamp::MIN),
        MAX_TEXT => return Some(Timestamp::MAX),
        _ => {}
    }
    // The reader takes more of ISO 8601 than RFC 3339 has, and Prometheus takes only that.
    let strict = |b: &[u8]| b.get(10) == Some(&b'T') && b.get(16) == Some(&b':') && !b.ends_with(b"z");
    if !strict(text.as_bytes()) || text.ends_with(']') {
        return None;
    }
    text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()))
}

/// A span as in the HTTP API, in milliseconds: seconds with a fraction, or a duration.
pub fn parse_span_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = seconds * 1000.0;
        return (millis.is_finite() && millis.abs() < 9.2e15).then_some(millis.round() as i64);
    }
    parse_duration_ms(text)
}

/// A moment as people write it on the command line: what [`parse_time`] reads, `now`, `now-1h30m`, `now+5m`.
pub fn parse_human_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let Some(shift) = text.strip_prefix("now") else { return parse_time(text) };
    let shift = match shift.split_at_checked(1) {
        None => 0,
        Some(("-", span)) => -parse_span_ms(span.trim())?,
        Some(("+", span)) => parse_span_ms(span.trim())?,
        Some(_) => return None,
    };
    Some(Timestamp(now.0.checked_add(shift)?))
}

/// RFC 3339 with milliseconds, UTC; plain milliseconds where the calendar ends.
pub fn print_rfc3339(t: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(t.0) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => t.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_prometheus() {
        assert_eq!(parse_duration_ms("1h30m"), Some(5_400_000));
        assert_eq!(parse_duration_ms("1y2w3d4h5m6s7ms"), Some(31_536_000_000 + 1_209_600_000 + 273_906_007));
        assert_eq!(parse_duration_ms("0"), Some(0));
        assert_eq!(parse_duration_ms("0s"), Some(0));
        for bad in ["", "5", "1m1h", "1h1h", "h", "-5m", "1.5h", "1 h", "5µs", "293y", "99999999999999y"] {
            assert_eq!(parse_duration_ms(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn printed_durations_read_back() {
        for ms in [0, 1, 999, 60_000, 5_400_000, 86_400_000, 90 * 86_400_000, 365 * 86_400_000, 1_234_567_891]
        {
            assert_eq!(parse_duration_ms(&print_duration_ms(ms)), Some(ms));
        }
        assert_eq!(print_duration_ms(90 * 86_400_000), "90d");
    }

    #[test]
    fn times_are_seconds_or_rfc3339() {
        assert_eq!(parse_time("1435781451.781"), Some(Timestamp(1_435_781_451_781)));
        assert_eq!(parse_time("-1.5"), Some(Timestamp(-1500)));
        assert_eq!(parse_time("1e3"), Some(Timestamp(1_000_000)));
        assert_eq!(parse_time("2015-07-01T20:10:51.781Z"), Some(Timestamp(1_435_781_451_781)));
        assert_eq!(parse_time("2015-07-01T22:10:51.781+02:00"), Some(Timestamp(1_435_781_451_781)));
        assert_eq!(parse_time(MIN_TEXT), Some(Timestamp::MIN));
        assert_eq!(parse_time(MAX_TEXT), Some(Timestamp::MAX));
        for bad in [
            "",
            "foo",
            "30s",
            "NaN",
            "inf",
            "1e300",
            "2015-07-01",
            "2015-07-01t20:10:51Z",
            "2015-07-01 20:10:51Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn human_times_are_relative_to_now() {
        let now = Timestamp(10_000_000);
        assert_eq!(parse_human_time("now", now), Some(now));
        assert_eq!(parse_human_time("now-1h", now), Some(Timestamp(6_400_000)));
        assert_eq!(parse_human_time("now+90", now), Some(Timestamp(10_090_000)));
        assert_eq!(parse_human_time("12.5", now), Some(Timestamp(12_500)));
        assert_eq!(parse_human_time("now1h", now), None);
        assert_eq!(parse_human_time("yesterday", now), None);
    }
}
