//! Text and OpenMetrics, line by line.

use crate::sink::{KEY, Memory};
use ingest::exposition::{Format, Options, detect, parse};
use ingest::{Limits, Reply, store};
use model::{Batch, Metadata, MetricType};
use proptest::prelude::*;
use std::sync::Arc;

const NOW: i64 = 1_700_000_000_123;

fn import(format: Format, body: impl AsRef<[u8]>) -> (Memory, Reply) {
    let options = Options { default_timestamp: NOW, ..Options::default() };
    import_with(format, body.as_ref(), &options, &Limits::default())
}

fn import_with(format: Format, body: &[u8], options: &Options, limits: &Limits) -> (Memory, Reply) {
    let sink = Memory::default();
    let mut batch = Batch::default();
    let reply = match parse(body, format, options, &mut batch, KEY, limits) {
        Ok(decoded) => Reply::stored(None, &store(&sink, &mut Arc::new(batch), decoded, limits).unwrap()),
        Err(refusal) => Reply::refused(None, &refusal),
    };
    assert!(sink.appends.lock().unwrap().len() <= 1, "labels were checked twice");
    (sink, reply)
}

/// One good line: what is stored for it, without the timestamp if that is the default.
fn stored(format: Format, line: &str) -> String {
    let body = if format == Format::OpenMetrics { format!("{line}\n# EOF\n") } else { line.to_string() };
    let (sink, reply) = import(format, &body);
    assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{line}");
    sink.dump().join("|").replace(&format!(" {NOW}="), " now=")
}

/// One bad line between two good ones: what is said of it.
fn fault(format: Format, line: &str) -> String {
    let (sink, reply) = import(format, format!("a 1\n{line}\nb 2\n# EOF\n"));
    assert_eq!(reply.status, 400, "{line}");
    assert_eq!(sink.dump(), [format!("a {NOW}=1"), format!("b {NOW}=2")], "{line}");
    let said = reply.body.strip_prefix("line 2: ").unwrap_or_else(|| panic!("{line}: {}", reply.body));
    said.to_string()
}

#[test]
fn lines_of_the_text_format() {
    for (line, expected) in [
        ("up 1", "up now=1"),
        ("up 1 1500000000000", "up 1500000000000=1"),
        ("up 1 -5", "up -5=1"),
        ("up{} 1", "up now=1"),
        ("up { } 1", "up now=1"),
        ("\t up\t{\tjob = \"x\" ,\tb=\"y\" , } \t 1.5e3 \t 12 \t", r#"up{b="y", job="x"} 12=1500"#),
        ("job:up:sum{a=\"b\"} 1", r#"job:up:sum{a="b"} now=1"#),
        (":up 1", ":up now=1"),
        ("up{a=\"}\",b=\"x,y\",c=\"# {\"} 1", r##"up{a="}", b="x,y", c="# {"} now=1"##),
        (r#"up{a="x\\y\"z\n"} 1"#, r#"up{a="x\\y\"z\n"} now=1"#),
        (r#"up{a="",b="é"} 1"#, r#"up{b="é"} now=1"#),
        (r#"up{B="1",_a="2",a="3"} 1"#, r#"up{B="1", _a="2", a="3"} now=1"#),
        (r#"{"my.metric","l.x"="v", job="y"} 1"#, r#"{"my.metric", job="y", "l.x"="v"} now=1"#),
        (r#"{"up"} 1"#, "up now=1"),
        (r#"{"quo\"te"} 1"#, r#"{"quo\"te"} now=1"#),
        (r#"{__name__="up"} 1"#, "up now=1"),
        (r#"up{"a"="b"} 1"#, r#"up{a="b"} now=1"#),
        ("up NaN", "up now=NaN"),
        ("up nan", "up now=NaN"),
        ("up +Inf", "up now=inf"),
        ("up -Inf", "up now=-inf"),
        ("up Inf", "up now=inf"),
        ("up -0", "up now=-0"),
        ("up .5", "up now=0.5"),
        ("up 1\r\n", "up now=1"),
        ("\r\n\n  \nup 1\n\n", "up now=1"),
        ("# a remark\n#HELP\n# EOF\n#\nup 1", "up now=1"),
        ("up_created 1.5", "up_created now=1.5"),
        ("NaN 1", "NaN now=1"),
    ] {
        assert_eq!(stored(Format::Text, line), expected, "{line:?}");
    }
}

#[test]
fn lines_of_openmetrics() {
    for (line, expected) in [
        ("up 1", "up now=1"),
        ("up 1 1500000000", "up 1500000000000=1"),
        ("up 1 1520879607.789", "up 1520879607789=1"),
        ("up 1 -1.5e-3", "up -2=1"),
        ("up_total 1 # {trace_id=\"x\"} 0.5", "up_total now=1"),
        ("up_total 1 12 # {} 0.5 11.5", "up_total 12000=1"),
        (
            "up_bucket{le=\"+Inf\"} 17 12 # {trace_id=\"a # b\",\"s.x\"=\"y\"} 0.5 1.6e9",
            r#"up_bucket{le="+Inf"} 12000=17"#,
        ),
        ("up_created 1520430000.123", "up_created now=1520430000.123"),
        ("up 1\r", "up now=1"),
    ] {
        assert_eq!(stored(Format::OpenMetrics, line), expected, "{line:?}");
    }
}

#[test]
fn bad_lines_are_reported_with_their_number_and_the_others_stored() {
    for (line, said) in [
        ("up", "expected a value, got the end of the line"),
        ("up{", "expected a label name or }, got the end of the line"),
        ("up{a} 1", r#"expected =, got "} 1""#),
        (r#"up{"a"} 1"#, r#"expected =, got "} 1""#),
        (r#"{"a",__name__="b"} 1"#, "duplicated label __name__"),
        (r#"up{a="b" c="d"} 1"#, r#"expected , or }, got "c=\"d\"} 1""#),
        (r#"up{,} 1"#, r#"expected a label name or }, got ",} 1""#),
        (r#"up{a="b",,} 1"#, r#"expected a label name or }, got ",} 1""#),
        (r#"up{a=b} 1"#, r#"expected a quoted text, got "b} 1""#),
        (r#"up{1="b"} 1"#, r#"expected a label name or }, got "1=\"b\"} 1""#),
        (r#"up{a:b="c"} 1"#, r#"expected =, got ":b=\"c\"} 1""#),
        (r#"up{""="c"} 1"#, "invalid name: it is empty"),
        (r#"up{a="b} 1"#, "invalid text: its closing quote is missing"),
        (r#"up{a="\x"} 1"#, r#"invalid escape: only \\, \" and \n are known"#),
        (r#"up{a="1",a="2"} 1"#, "duplicated label a"),
        ("{} 1", "no metric name"),
        (r#"{a="b"} 1"#, "no metric name"),
        (r#"{a="b","c"} 1"#, r#"expected =, got "} 1""#),
        ("1up 1", r#"expected a metric name, got "1up 1""#),
        ("up x", r#"expected a value, got "x""#),
        ("up 0x1p3", r#"expected a value, got "0x1p3""#),
        ("up 1_000", r#"expected a value, got "1_000""#),
        ("up -NaN", r#"expected a value, got "-NaN""#),
        ("up 1 1.5", r#"expected a timestamp in milliseconds, got "1.5""#),
        ("up 1 99999999999999999999", r#"expected a timestamp in milliseconds, got "99999999999999999999""#),
        ("up 1 2 3", r#"expected the end of the line, got "3""#),
        ("up 1 # {} 1", r##"expected the end of the line, got "# {} 1""##),
        ("up 1\rx", r#"expected the end of the line, got "\rx""#),
        ("# TYPE up", "invalid metric type"),
        ("# TYPE up stateset", "invalid metric type"),
        ("# TYPE", "expected a metric name, got the end of the line"),
        ("# HELP 1", r#"expected a metric name, got "1""#),
    ] {
        assert_eq!(fault(Format::Text, line), said, "{line:?}");
    }
    for (line, said) in [
        ("# a remark", "invalid comment: OpenMetrics has HELP, TYPE, UNIT and EOF only"),
        ("# TYPE up untyped", "invalid metric type"),
        ("up 1 x", r#"expected a timestamp in seconds, got "x""#),
        ("up 1 NaN", r#"expected a timestamp in seconds, got "NaN""#),
        ("up 1 1e300", r#"expected a timestamp in seconds, got "1e300""#),
        ("up 1 # 1", r#"expected the exemplar's labels, got "1""#),
        (r#"up 1 # {"a"} 1"#, r#"expected =, got "} 1""#),
        ("up 1 # {}", "expected a value, got the end of the line"),
    ] {
        assert_eq!(fault(Format::OpenMetrics, line), said, "{line:?}");
    }
}

#[test]
fn bytes_that_are_not_utf8_cost_only_their_line() {
    let (sink, reply) = import(Format::Text, b"a{x=\"\xff\"} 1\nb{x=\"\xc3\xa9\"} 2\n\xff 3\n");
    assert_eq!(sink.dump(), [format!(r#"b{{x="é"}} {NOW}=2"#)]);
    assert_eq!(
        reply.body,
        "line 1: invalid UTF-8 in a label name or value\nline 3: expected a metric name, got bytes that are not UTF-8"
    );
}

#[test]
fn openmetrics_must_be_closed_and_nothing_may_follow() {
    let (sink, reply) = import(Format::OpenMetrics, "a 1\n");
    assert_eq!(sink.dump().len(), 1);
    assert_eq!(reply.body, "line 2: the body does not end with # EOF, so it may have been cut off");
    let (sink, reply) = import(Format::OpenMetrics, "a 1\n# EOF\nb 1\nc 1\n");
    assert_eq!(sink.dump().len(), 1);
    assert_eq!((reply.status, reply.body.as_str()), (400, "line 3: there is more after # EOF"));
    assert_eq!(import(Format::OpenMetrics, "a 1\n# EOF").1.status, 204);
    assert_eq!(import(Format::OpenMetrics, "# EOF\n").1.status, 204);
}

#[test]
fn metadata_lines_describe_families() {
    let entry = |family: &str, metric_type, help: &str, unit: &str| Metadata {
        family: family.into(),
        metric_type,
        help: help.into(),
        unit: unit.into(),
    };
    let text = "# HELP a_total  All \\\\ of\\nthem \\\"\r\n# TYPE a_total counter\na_total 1\n# TYPE b untyped\n# HELP b\n\
                # TYPE \"my.metric\" gauge\n";
    assert_eq!(
        import(Format::Text, text).0.metadata(),
        [
            entry("a_total", MetricType::Counter, " All \\ of\nthem \\\"", ""),
            entry("my.metric", MetricType::Gauge, "", ""),
        ]
    );
    let open =
        "# TYPE a_seconds gaugehistogram\n# UNIT a_seconds seconds\n# HELP a_seconds \\\"x\\\"\n# EOF\n";
    assert_eq!(
        import(Format::OpenMetrics, open).0.metadata(),
        [entry("a_seconds", MetricType::GaugeHistogram, "\"x\"", "seconds")]
    );
}

#[test]
fn extra_labels_are_set_on_every_series() {
    let mut options = Options { default_timestamp: 7, ..Options::default() };
    options.extra_label("job=first").unwrap();
    options.extra_label("job=x=y").unwrap();
    options.extra_label("b=").unwrap();
    let (sink, reply) =
        import_with(Format::Text, b"up{job=\"old\",b=\"c\"} 1\nup 2 8", &options, &Limits::default());
    assert_eq!(reply.status, 204);
    assert_eq!(sink.dump(), [r#"up{job="x=y"} 7=1 8=2"#]);
    for bad in ["", "job", "=x"] {
        assert_eq!(options.extra_label(bad).unwrap_err().status, 400);
    }
}

#[test]
fn limits_are_named_and_cost_only_their_line() {
    let limits = Limits {
        labels_max: 2,
        label_name_bytes_max: 8,
        label_value_bytes_max: 4,
        line_bytes_max: 60,
        ..Limits::default()
    };
    for (line, key) in [
        (r#"up{a="b",c="d"} 1"#, "limits.labels_per_series_max"),
        (r#"up{aaaaaaaaa="b"} 1"#, "limits.label_name_bytes_max"),
        (r#"up{a="bbbbb"} 1"#, "limits.label_value_bytes_max"),
        (&format!("up 1 {} 2", " ".repeat(60)), "limits.import_line_bytes_max"),
    ] {
        let body = format!("{line}\nok 1\n");
        let (sink, reply) = import_with(Format::Text, body.as_bytes(), &Options::default(), &limits);
        assert_eq!(reply.status, 400);
        assert!(reply.body.starts_with("line 1: ") && reply.body.contains(key), "{}", reply.body);
        assert_eq!(sink.dump(), ["ok 0=1"]);
    }
    let limits = Limits { decoded_bytes_max: 3, ..Limits::default() };
    let (_, reply) = import_with(Format::Text, b"up 1", &Options::default(), &limits);
    assert_eq!(reply.status, 413);
    let limits = Limits { batch_bytes_max: 1000, ..Limits::default() };
    let (sink, reply) =
        import_with(Format::Text, "up 1\n".repeat(50).as_bytes(), &Options::default(), &limits);
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("limits.write_batch_bytes_max"), "{}", reply.body);
    assert!(sink.dump().is_empty());
}

#[test]
fn the_list_of_bad_lines_is_bounded() {
    let (sink, reply) = import(Format::Text, format!("{}ok 1\n", "!\n".repeat(10_000)));
    assert_eq!(sink.dump().len(), 1);
    assert!(reply.body.starts_with("line 1: ") && reply.body.ends_with("\nand 9900 more"), "{}", reply.body);
}

#[test]
fn the_format_is_told_by_content_type_or_by_the_closing_line() {
    for (content_type, body, expected) in [
        (Some("application/openmetrics-text; version=1.0.0; charset=utf-8"), "a 1", Format::OpenMetrics),
        (Some("text/plain; version=0.0.4"), "a 1\n# EOF\n", Format::Text),
        (Some("text/plain"), "a 1\n# EOF\n", Format::OpenMetrics),
        (Some("application/x-www-form-urlencoded"), "a 1\n# EOF", Format::OpenMetrics),
        (None, "a 1\n# EOF\r\n", Format::OpenMetrics),
        (None, "a 1\n", Format::Text),
    ] {
        assert_eq!(detect(content_type, body.as_bytes()), expected, "{content_type:?}");
    }
}

// --- Print, parse, compare ----------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Printed {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    timestamp: Option<i64>,
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
}

impl Printed {
    /// As a line, in one of the many ways; `style` decides.
    fn print(&self, format: Format, style: u8) -> String {
        let blank = if style & 1 == 0 { "" } else { "\t " };
        let classic = model::labels::is_legacy_name(&self.name, true) && style & 2 == 0;
        let mut inside: Vec<String> = Vec::new();
        if !classic {
            inside.push(quoted(&self.name));
        }
        for (name, value) in &self.labels {
            let name = if model::labels::is_legacy_name(name, false) { name.clone() } else { quoted(name) };
            inside.push(format!("{name}{blank}={blank}{}", quoted(value)));
        }
        let comma = if style & 4 == 0 || inside.is_empty() { "" } else { "," };
        let mut line = if classic { self.name.clone() } else { String::new() };
        if !inside.is_empty() || style & 8 == 0 {
            line.push_str(&format!("{blank}{{{}{comma}{blank}}}", inside.join(&format!("{blank},{blank}"))));
        }
        line.push_str(&format!(" {}", self.value));
        if let Some(timestamp) = self.timestamp {
            line.push_str(&match format {
                Format::Text => format!(" {timestamp}"),
                Format::OpenMetrics => format!(" {}", timestamp as f64 / 1000.0),
            });
        }
        line.push_str(if style & 16 == 0 { "\n" } else { " \r\n" });
        line
    }
}

fn printed() -> impl Strategy<Value = Printed> {
    let name = prop_oneof!["[a-z_:][a-zA-Z0-9_:]{0,12}", "\\PC{1,8}"];
    let label = (prop_oneof!["[a-zA-Z_][a-zA-Z0-9_]{0,8}", "\\PC{1,6}"], "[^\r]{0,10}");
    let value =
        prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), -1e9..1e9, any::<f64>()];
    let timestamp = prop::option::of(-4_000_000_000_000i64..4_000_000_000_000);
    (name, prop::collection::btree_map(label.0, label.1, 0..5), value, timestamp).prop_map(
        |(name, labels, value, timestamp)| Printed {
            name,
            labels: labels.into_iter().collect(),
            value,
            timestamp,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_printed_is_what_is_parsed(series in printed(), style in any::<u8>(), open in any::<bool>()) {
        let format = if open { Format::OpenMetrics } else { Format::Text };
        let mut body = series.print(format, style);
        if open {
            body.push_str("# EOF\n");
        }
        let mut batch = Batch::default();
        let options = Options { default_timestamp: NOW, ..Options::default() };
        let decoded = parse(body.as_bytes(), format, &options, &mut batch, KEY, &Limits::default()).unwrap();
        prop_assert!(decoded.problems.is_empty(), "{body:?}: {:?}", decoded.problems);
        let pairs = series.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain([("__name__", series.name.as_str())]);
        let expected = model::Labels::from_pairs(pairs).unwrap();
        prop_assert_eq!(batch.series.len(), 1);
        prop_assert_eq!(batch.labels(&batch.series[0]), expected.as_bytes());
        prop_assert_eq!(batch.series[0].id, KEY.id(expected.as_bytes()));
        prop_assert_eq!(&batch.timestamps, &[series.timestamp.unwrap_or(NOW)]);
        let bits = if series.value.is_nan() { 0x7ff8_0000_0000_0001 } else { series.value.to_bits() };
        prop_assert_eq!(&batch.values, &[bits]);
    }

    #[test]
    fn random_text_never_panics_and_every_series_taken_is_canonical(
        lines in prop::collection::vec("[ -~]{0,12}|[a{}=\",# 1\\\\\t\r]{0,30}|\\PC{0,20}", 0..12), open in any::<bool>()
    ) {
        let body = lines.join("\n");
        check(body.as_bytes(), open)?;
    }

    #[test]
    fn damaged_text_never_panics_and_every_series_taken_is_canonical(
        series in prop::collection::vec((printed(), any::<u8>()), 1..4), open in any::<bool>(),
        how in prop::collection::vec(any::<(u16, u8)>(), 1..4)
    ) {
        let format = if open { Format::OpenMetrics } else { Format::Text };
        let mut body: Vec<u8> = series.iter().map(|(s, style)| s.print(format, *style)).collect::<String>().into_bytes();
        for (at, byte) in how {
            let at = usize::from(at) % body.len();
            body[at] = byte;
        }
        check(&body, open)?;
    }
}

/// Lines are either taken or reported, and what is taken is fit for a sink.
fn check(body: &[u8], open: bool) -> Result<(), TestCaseError> {
    let format = if open { Format::OpenMetrics } else { Format::Text };
    let mut batch = Batch::default();
    let decoded = parse(body, format, &Options::default(), &mut batch, KEY, &Limits::default()).unwrap();
    for one in &batch.series {
        prop_assert!(one.checked && model::labels::is_canonical(batch.labels(one)));
        prop_assert!(model::Labels::from_canonical(batch.labels(one)).metric_name().is_some());
    }
    prop_assert_eq!(batch.values.len(), batch.series.len());
    let lines = body.split(|b| *b == b'\n').count();
    prop_assert!(decoded.problems.spelled_out().len() <= lines + 1);
    Ok(())
}
