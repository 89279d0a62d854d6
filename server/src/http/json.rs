//! Results as Prometheus writes them.
//!
//! Written by hand into one buffer: a matrix can have millions of points, and the numbers have a form of their own
//! (timestamps in seconds with three decimals or none, values quoted in Go's shortest notation).

use super::error::ApiError;
use super::histogram;
use model::{Labels, Metadata};
use query::{Point, Value};
use std::io::Write;

/// JSON text under construction, with a limit on its size.
#[derive(Debug, Default)]
pub struct Json(pub Vec<u8>);

impl Json {
    /// Appends text as it is.
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends a string in quotes, escaped.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        let bytes = text.as_bytes();
        let mut copied = 0;
        for (i, &byte) in bytes.iter().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.0.extend_from_slice(&bytes[copied..i]);
            copied = i + 1;
            match byte {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                b'\r' => self.raw("\\r"),
                b'\t' => self.raw("\\t"),
                control => self.raw(&format!("\\u{control:04x}")),
            };
        }
        self.0.extend_from_slice(&bytes[copied..]);
        self.0.push(b'"');
        self
    }

    /// Appends an integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        put_int(&mut self.0, value);
        self
    }

    /// Appends a list, items written by `item`.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Json, T),
    ) -> &mut Self {
        self.0.push(b'[');
        for (i, it) in items.into_iter().enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            item(self, it);
        }
        self.0.push(b']');
        self
    }

    /// Appends `{"name":"value",…}`.
    pub fn labels(&mut self, labels: &Labels) -> &mut Self {
        self.0.push(b'{');
        for (i, (name, value)) in labels.iter().enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            self.string(name).raw(":").string(value);
        }
        self.0.push(b'}');
        self
    }

    /// Appends a timestamp in milliseconds as seconds.
    pub fn timestamp(&mut self, millis: i64) -> &mut Self {
        put_timestamp(&mut self.0, millis);
        self
    }

    /// Appends a timestamp in milliseconds as seconds, with as many decimals as it needs.
    fn seconds(&mut self, millis: i64) -> &mut Self {
        put_timestamp(&mut self.0, millis);
        if millis % 1000 != 0 {
            while self.0.last() == Some(&b'0') {
                self.0.pop();
            }
        }
        self
    }

    /// Appends `[timestamp,"value"]`.
    pub fn pair(&mut self, millis: i64, value: f64) -> &mut Self {
        self.0.push(b'[');
        put_timestamp(&mut self.0, millis);
        self.0.extend_from_slice(b",\"");
        put_float(&mut self.0, value);
        self.0.extend_from_slice(b"\"]");
        self
    }

    fn point(&mut self, millis: i64, point: &Point) -> &mut Self {
        match point {
            Point::Float(value) => self.pair(millis, *value),
            Point::Histogram(h) => {
                self.raw("[").timestamp(millis).raw(",");
                histogram::write(self, h);
                self.raw("]")
            }
        }
    }
}

/// `{"status":"success","data":…,"warnings":[…],"infos":[…]}`
#[derive(Debug, Default)]
pub struct Notes {
    /// What may make the answer wrong.
    pub warnings: Vec<String>,
    /// What may be a mistake in the query.
    pub infos: Vec<String>,
}

/// Most warnings, and most infos, that are spelled out.
const NOTES_MAX: usize = 10;

/// A successful answer with the data that `data` writes.
pub fn success(
    notes: &Notes,
    data: impl FnOnce(&mut Json) -> Result<(), ApiError>,
) -> Result<Vec<u8>, ApiError> {
    let mut json = Json::default();
    json.raw("{\"status\":\"success\",\"data\":");
    data(&mut json)?;
    for (key, texts, kind) in [("warnings", &notes.warnings, "warning"), ("infos", &notes.infos, "info")] {
        if texts.is_empty() {
            continue;
        }
        let more = texts.len().saturating_sub(NOTES_MAX);
        let more = (more > 0).then(|| format!("{more} more {kind} annotations omitted"));
        let shown = texts.iter().take(NOTES_MAX).chain(&more);
        json.raw(",\"").raw(key).raw("\":").list(shown, |json, text| {
            json.string(text);
        });
    }
    json.raw("}");
    Ok(json.0)
}

/// Appends a query's value: `"resultType":…,"result":…`. Stops with an error above `bytes_max`.
pub fn result(json: &mut Json, value: &Value, bytes_max: u64) -> Result<(), ApiError> {
    let check = |json: &Json| {
        if json.0.len() as u64 <= bytes_max {
            return Ok(());
        }
        Err(ApiError::from(model::Error::Limit {
            what: "bytes of one answer",
            key: "limits.query_response_bytes_max",
            max: bytes_max,
            got: json.0.len() as u64,
        }))
    };
    json.raw("\"resultType\":\"");
    match value {
        Value::Scalar(t, v) => {
            // Alone of all values these two are written by Go's own JSON: no padding, no exponents.
            json.raw("scalar\",\"result\":[").seconds(*t).raw(",\"");
            match v.is_finite() {
                true => json.raw(&v.to_string()),
                false => {
                    put_float(&mut json.0, *v);
                    json
                }
            }
            .raw("\"]");
        }
        Value::String(t, text) => {
            json.raw("string\",\"result\":[").seconds(*t).raw(",").string(text).raw("]");
        }
        Value::Vector(samples) => {
            json.raw("vector\",\"result\":[");
            for (i, (labels, t, point)) in samples.iter().enumerate() {
                json.raw(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" }).labels(labels);
                json.raw(match point {
                    Point::Float(_) => ",\"value\":",
                    Point::Histogram(_) => ",\"histogram\":",
                });
                json.point(*t, point).raw("}");
                check(json)?;
            }
            json.raw("]");
        }
        Value::Matrix(series) => {
            json.raw("matrix\",\"result\":[");
            for (i, (labels, points)) in series.iter().enumerate() {
                json.raw(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" }).labels(labels);
                let floats = || points.iter().filter(|(_, p)| matches!(p, Point::Float(_)));
                let histograms = || points.iter().filter(|(_, p)| matches!(p, Point::Histogram(_)));
                if floats().next().is_some() {
                    json.raw(",\"values\":").list(floats(), |json, (t, p)| {
                        json.point(*t, p);
                    });
                }
                if histograms().next().is_some() {
                    json.raw(",\"histograms\":").list(histograms(), |json, (t, p)| {
                        json.point(*t, p);
                    });
                }
                json.raw("}");
                check(json)?;
            }
            json.raw("]");
        }
    }
    Ok(())
}

/// `{"family":[{"type":…,"help":…,"unit":…}],…}` of metadata sorted by family.
pub fn metadata(json: &mut Json, items: &[Metadata], families_max: usize, per_family_max: usize) {
    json.raw("{");
    for (i, family) in items.chunk_by(|a, b| a.family == b.family).take(families_max).enumerate() {
        json.raw(if i > 0 { "," } else { "" }).string(&family[0].family).raw(":");
        json.list(family.iter().take(per_family_max), |json, m| {
            json.raw("{\"type\":").string(m.metric_type.as_str());
            json.raw(",\"help\":").string(&m.help).raw(",\"unit\":").string(&m.unit).raw("}");
        });
    }
    json.raw("}");
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Seconds, with exactly three decimals if there is a fraction and none otherwise.
pub fn put_timestamp(out: &mut Vec<u8>, millis: i64) {
    let (seconds, fraction) = ((millis / 1000).unsigned_abs(), (millis % 1000).unsigned_abs());
    if millis < 0 {
        out.push(b'-');
    }
    put_int(out, seconds as i64);
    if fraction != 0 {
        let digit = |d: u64| b'0' + (d % 10) as u8;
        out.extend_from_slice(&[b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)]);
    }
}

/// The shortest digits that read back to the same float; exponents below 1e-6 and from 1e21, as Go writes them.
pub fn put_float(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let magnitude = value.abs();
    let written = if value.is_nan() {
        out.write_all(b"NaN")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    } else if value == value.trunc() && magnitude < EXACT && (value != 0.0 || value.is_sign_positive()) {
        // Counters, sizes, states: most of what there is, and many times cheaper.
        put_int(out, value as i64);
        Ok(())
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        write!(out, "{digits}e{sign}{exponent:0>2}")
    } else {
        write!(out, "{value}")
    };
    written.expect("BUG: writing to memory failed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        put_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn timestamp(millis: i64) -> String {
        let mut out = Vec::new();
        put_timestamp(&mut out, millis);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (9.999e-7, "9.999e-07"),
            (1e-7, "1e-07"),
            (-2.5e-100, "-2.5e-100"),
            (5e-324, "5e-324"),
            (123456789012345680.0, "123456789012345680"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.30000000000000004, "0.30000000000000004"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn timestamps_have_three_decimals_or_none() {
        for (millis, text) in [
            (0, "0"),
            (1, "0.001"),
            (1_435_781_451_781, "1435781451.781"),
            (1_435_781_451_000, "1435781451"),
            (1_435_781_451_010, "1435781451.010"),
            (-1, "-0.001"),
            (-1500, "-1.500"),
            (i64::MAX, "9223372036854775.807"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(timestamp(millis), text);
        }
    }

    proptest! {
        #[test]
        fn every_float_reads_back_bit_by_bit_and_has_the_notation_of_its_size(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let text = float(value);
            if value.is_nan() {
                prop_assert_eq!(text, "NaN");
            } else {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
                if value.is_finite() {
                    let exponent = value != 0.0 && !(1e-6..1e21).contains(&value.abs());
                    prop_assert_eq!(text.contains('e'), exponent);
                }
            }
        }

        #[test]
        fn whole_floats_agree_with_the_general_path(value in -(1i64 << 53)..(1i64 << 53)) {
            prop_assert_eq!(float(value as f64), format!("{}", value as f64));
        }

        #[test]
        fn strings_read_back(text in any::<String>()) {
            let mut json = Json::default();
            json.string(&text);
            let back: String = serde_json::from_slice(&json.0).unwrap();
            prop_assert_eq!(back, text);
        }
    }

    #[test]
    fn eleven_warnings_are_ten_and_a_count() {
        let notes = Notes { warnings: (0..12).map(|i| i.to_string()).collect(), infos: vec![] };
        let body = success(&notes, |json| {
            json.raw("null");
            Ok(())
        })
        .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["warnings"].as_array().unwrap().len(), 11);
        assert_eq!(body["warnings"][10], "2 more warning annotations omitted");
        assert_eq!(body.get("infos"), None);
    }

    #[test]
    fn an_answer_over_the_limit_names_the_key() {
        let labels = Labels::from_pairs([("a", "b")]).unwrap();
        let value = Value::Matrix(vec![(labels, (0..100).map(|i| (i, Point::Float(0.5))).collect())]);
        let error = result(&mut Json::default(), &value, 100).unwrap_err();
        assert!(error.message.contains("limits.query_response_bytes_max"), "{}", error.message);
        assert!(result(&mut Json::default(), &value, 10_000).is_ok());
    }
}
