//! The parser as a whole: what it takes, what it refuses and in which words, that it is bounded.

use super::*;
use crate::ast::*;
use proptest::prelude::*;

/// The tree without positions.
fn shape(expr: &Expr) -> String {
    let mut text = format!("{expr:?}");
    while let Some(at) = text.find("span: Span {") {
        let end = at + text[at..].find('}').expect("a span ends");
        text.replace_range(at..=end, "-");
    }
    text
}

fn message(text: &str) -> String {
    match parse(text) {
        Ok(expr) => format!("parses as {expr}"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check_round_trip(text: &str) {
    let expr = parse(text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let printed = expr.to_string();
    let again = parse(&printed).unwrap_or_else(|e| panic!("{text}\nprinted as {printed}\n{e}"));
    assert_eq!(shape(&again), shape(&expr), "{text}\nprinted as {printed}");
}

/// Every expression of Prometheus's test scripts, and whether it is expected to fail.
fn corpus() -> Vec<(String, String, bool)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/promqltest");
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| {
        panic!("{folder}: {e}. This test reads Prometheus's PromQL test scripts, which lie beside the project, in ../shared/promqltest")
    });
    let mut found = Vec::new();
    for file in files.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let mut words = line.splitn(3, char::is_whitespace);
            let command = words.next().unwrap_or_default();
            if !command.starts_with("eval") {
                continue;
            }
            let (kind, rest) = (words.next().unwrap(), words.next().unwrap());
            // `at T EXPR` or `from A to B step C EXPR`
            let skip = if kind == "instant" { 2 } else { 6 };
            let mut expr = rest;
            for _ in 0..skip {
                expr = expr.trim_start().split_once(char::is_whitespace).unwrap().1;
            }
            let mut fails = command == "eval_fail";
            while let Some((_, line)) = lines.next_if(|(_, l)| !l.trim().is_empty() && !l.starts_with("eval"))
            {
                fails |= line.trim_start().starts_with("expect fail");
            }
            let place = format!("{}:{}", file.file_name().unwrap().display(), number + 1);
            found.push((place, expr.trim().to_string(), fails));
        }
    }
    assert!(found.len() > 1_000, "only {} expressions in {folder}", found.len());
    found
}

#[test]
fn durations_print_as_durations() {
    let cases = [
        ("foo[1h30m]", "foo[1h30m]"),
        ("foo[90d:90s] offset -1w", "foo[90d:1m30s] offset -1w"),
        ("foo[300]", "foo[5m]"),
        ("foo[365d] offset 0s", "foo[1y] offset 0s"),
        ("foo[1ms]", "foo[1ms]"),
        ("5m * -1h", "5m * -1h"),
        ("300 + 3e2", "300 + 300"),
        ("foo[5m + 30]", "foo[5m + 30]"),
    ];
    for (text, printed) in cases {
        assert_eq!(parse(text).unwrap().to_string(), printed);
        check_round_trip(text);
    }
}

#[test]
fn every_expression_of_prometheus_parses_and_prints_to_itself() {
    for (place, text, fails) in corpus() {
        match parse(&text) {
            Ok(_) => check_round_trip(&text),
            Err(_) if fails => {}
            Err(error) => panic!("{place}: {text}\n{error}"),
        }
    }
}

/// Input and the whole message, positions included. `parses as …` where there is nothing wrong.
const MESSAGES: &[(&str, &str)] = &[
    // Nothing to parse, or not all of it.
    ("", "unknown position: parse error: no expression found in input"),
    ("# just a comment\n\n", "1:1: parse error: no expression found in input"),
    ("1+", "1:3: parse error: unexpected end of input"),
    ("1 /", "1:4: parse error: unexpected end of input"),
    ("a b", "1:3: parse error: unexpected identifier \"b\""),
    ("a\n+ b c", "2:5: parse error: unexpected identifier \"c\""),
    ("*1", "1:1: parse error: unexpected <op:*>"),
    ("-=", "1:2: parse error: unexpected \"=\""),
    ("++-++-+-+-<", "1:11: parse error: unexpected <op:<>"),
    // Brackets of all kinds.
    ("(1))", "1:5: parse error: unexpected right parenthesis ')'"),
    ("((1)", "1:5: parse error: unclosed left parenthesis"),
    ("(", "1:2: parse error: unclosed left parenthesis"),
    ("rate(foo[5m]", "1:13: parse error: unclosed left parenthesis"),
    ("{", "1:2: parse error: unexpected end of input inside braces"),
    ("some{", "1:6: parse error: unexpected end of input inside braces"),
    ("}", "1:1: parse error: unexpected character: '}'"),
    ("some}", "1:5: parse error: unexpected character: '}'"),
    ("foo[5m", "1:7: parse error: unexpected end of input in brackets"),
    ("foo]", "1:4: parse error: unexpected right bracket ']'"),
    ("foo[[5m]]", "1:5: parse error: unexpected left bracket '['"),
    // Characters and literals.
    (".", "1:1: parse error: unexpected character: '.'"),
    ("2.5.", "1:1: parse error: bad number or duration syntax: \"2.5.\""),
    ("100..4", "1:1: parse error: bad number or duration syntax: \"100..\""),
    ("0deadbeef", "1:1: parse error: bad number or duration syntax: \"0de\""),
    ("1_000", "parses as 1000"),
    ("1__000", "1:1: parse error: bad number or duration syntax: \"1__\""),
    ("0x1F + 010 + 1e3", "parses as 31 + 8 + 1000"),
    ("5m", "parses as 5m"),
    ("1h30m == bool 5400", "parses as 1h30m == bool 5400"),
    (
        "1e400",
        "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e400\": value out of range",
    ),
    ("0x", "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"0x\": invalid syntax"),
    ("1 =~ 1", "1:3: parse error: unexpected character after '=': '~'"),
    ("1 !~ 1", "1:3: parse error: unexpected character after '!': '~'"),
    ("a ; b", "1:3: parse error: unexpected character: ';'"),
    ("\"open", "1:1: parse error: unterminated quoted string"),
    ("`open", "1:1: parse error: unterminated raw string"),
    (r#""\c""#, "1:1: parse error: unknown escape sequence U+0063 'c'"),
    (r#""\x4""#, "1:1: parse error: invalid character U+0022 '\"' in escape sequence"),
    (r#""\ud800""#, "1:1: parse error: escape sequence is an invalid Unicode code point"),
    (r#""\u00e9\x41\101\n""#, r#"parses as "éAA\n""#),
    (r#"`\n`"#, r#"parses as "\\n""#),
    // Matchers.
    ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    (r#"{x=""}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    (r#"{x=~".*"}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    (r#"{x!~".+"}"#, "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    (r#"foo{__name__="bar"}"#, "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
    (r#"foo{"bar"}"#, "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
    (
        "foo{gibberish}",
        "1:14: parse error: unexpected \"}\" in label matching, expected label matching operator",
    ),
    ("foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"),
    ("foo{1}", "1:5: parse error: unexpected character inside braces: '1'"),
    ("foo{a:b=\"c\"}", "1:6: parse error: unexpected character inside braces: ':'"),
    ("foo{a*\"b\"}", "1:6: parse error: unexpected character inside braces: '*'"),
    ("foo{a!\"b\"}", "1:6: parse error: unexpected character after '!' inside braces: '\"'"),
    ("foo{{}}", "1:5: parse error: unexpected left brace '{'"),
    (
        r#"foo{a="b" or c="d"}"#,
        "1:11: parse error: unexpected identifier \"or\" in label matching, expected \",\" or \"}\"",
    ),
    (r#"foo{,}"#, "1:5: parse error: unexpected \",\" in label matching, expected identifier or \"}\""),
    (r#"{"my.metric", "l.x"="v",}"#, r#"parses as {__name__="my.metric", "l.x"="v"}"#),
    // Time modifiers.
    (
        "1 offset 1d",
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo offset 1s offset 2s", "1:1: parse error: offset may not be set multiple times"),
    (
        "foo offset",
        "1:11: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
    ),
    ("foo offset 5m1h", "1:12: parse error: not a valid duration string: \"5m1h\""),
    ("foo offset 300y", "1:12: parse error: duration out of range"),
    ("foo @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times"),
    ("foo @", "1:6: parse error: unexpected end of input in @, expected timestamp"),
    ("foo @ 1m", "1:7: parse error: unexpected duration \"1m\" in @, expected timestamp"),
    ("foo @ Inf", "1:7: parse error: timestamp out of bounds for @ modifier: +Inf"),
    ("foo @ 1e16", "1:7: parse error: timestamp out of bounds for @ modifier: 10000000000000000.000000"),
    (
        "(a + b) @ 1",
        "1:1: parse error: @ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    ),
    ("foo @ -1.5 offset -5m", "parses as foo @ -1.500 offset -5m"),
    ("foo anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together"),
    ("foo[5m:] anchored", "1:1: parse error: anchored modifier is not supported for subqueries"),
    // Ranges.
    (
        "foo[]",
        "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
    ),
    ("foo[0m]", "1:5: parse error: duration must be greater than 0"),
    ("foo[-5m]", "1:5: parse error: duration must be greater than 0"),
    ("foo[5mm]", "1:5: parse error: bad number or duration syntax: \"5mm\""),
    ("foo[5m1]", "1:5: parse error: bad number or duration syntax: \"5m1\""),
    ("foo[5m:1m:1m]", "1:10: parse error: unexpected colon ':'"),
    ("foo[abc]", "1:5: parse error: unexpected character: 'a', expected ':'"),
    (
        "foo[5m 1h]",
        "1:8: parse error: unexpected duration \"1h\" in subquery or range, expected \":\" or \"]\"",
    ),
    ("foo offset 1m[5m]", "1:14: parse error: no offset modifiers allowed before range"),
    ("foo @ 1234 [5m]", "1:12: parse error: no @ modifiers allowed before range"),
    ("(foo + bar)[5m]", "1:12: parse error: ranges only allowed for vector selectors"),
    ("foo[5m][5m]", "1:8: parse error: ranges only allowed for vector selectors"),
    ("foo[5m][5m:1m]", "1:1: parse error: subquery is only allowed on instant vector, got matrix instead"),
    // Operators.
    ("1 and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
    ("foo or 1", "1:1: parse error: set operator \"or\" not allowed in binary scalar expression"),
    ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
    ("foo + bool bar", "1:5: parse error: bool modifier can only be used on comparison operators"),
    ("foo and bool 10", "1:5: parse error: bool modifier can only be used on comparison operators"),
    (
        "-\"string\"",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
    ),
    (
        "-foo[5m]",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
    ),
    ("foo[5m] + 1", "1:1: parse error: binary expression must contain only scalar and instant vector types"),
    ("1 + foo[5m]", "1:5: parse error: binary expression must contain only scalar and instant vector types"),
    ("a - on(b) ignoring(c) d", "1:11: parse error: unexpected <ignoring>"),
    ("a + group_left b", "1:5: parse error: unexpected <group_left>"),
    ("foo or on(bar) group_left(baz) bar", "1:1: parse error: no grouping allowed for \"or\" operation"),
    (
        "foo + on(a) group_left(a, b) bar",
        "1:5: parse error: label \"a\" must not occur in ON and GROUP clause at once",
    ),
    ("foo + on(a) 1", "1:1: parse error: vector matching only allowed between instant vectors"),
    ("foo and fill(0) bar", "1:1: parse error: filling in missing series not allowed for set operators"),
    ("foo + fill(1) fill(2) bar", "1:15: parse error: unexpected <fill>"),
    ("foo + fill", "parses as foo + fill"),
    // Calls and aggregations.
    ("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0"),
    ("hour(a, b, c)", "1:1: parse error: expected at most 1 argument(s) in call to \"hour\", got 3"),
    ("label_join(a)", "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 1"),
    ("time(a)", "1:1: parse error: expected 0 argument(s) in call to \"time\", got 1"),
    ("floor(1)", "1:7: parse error: expected type instant vector in call to function \"floor\", got scalar"),
    (
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    ),
    ("1 + nope(foo)", "1:5: parse error: unknown function with name \"nope\""),
    ("floor(a, )", "1:8: parse error: trailing commas not allowed in function call args"),
    ("info(a, b)", "1:9: parse error: expected label selectors only, got vector selector instead"),
    ("info(a, {b=~\".*\"})", "parses as info(a, {b=~\".*\"})"),
    ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
    (
        "topk(foo)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    ),
    ("topk(foo, bar)", "1:6: parse error: expected type scalar in aggregation parameter, got instant vector"),
    ("count_values(5, foo)", "1:14: parse error: expected type string in aggregation parameter, got scalar"),
    (
        "sum(foo[5m])",
        "1:5: parse error: expected type instant vector in aggregation expression, got range vector",
    ),
    ("sum without(==)(foo)", "1:13: parse error: unexpected <op:==> in grouping opts, expected label"),
    ("sum without(,)(foo)", "1:13: parse error: unexpected \",\" in grouping opts, expected label"),
    (
        "sum by (a b) (foo)",
        "1:11: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
    ),
    ("sum by x (foo)", "1:8: parse error: unexpected identifier \"x\" in grouping opts, expected \"(\""),
    ("sum(foo) without (a) by (b)", "1:22: parse error: unexpected <by>"),
    ("sum foo by (a)", "1:5: parse error: unexpected identifier \"foo\""),
    ("sum by (a) foo", "1:12: parse error: unexpected identifier \"foo\" in aggregation"),
    (r#"sum by ("a.b", on, bool,) (foo)"#, r#"parses as sum by ("a.b", on, bool) (foo)"#),
];

#[test]
fn mistakes_are_told_in_prometheus_words_at_prometheus_places() {
    let wrong: Vec<_> = MESSAGES
        .iter()
        .filter(|(text, expected)| message(text) != *expected)
        .map(|(text, expected)| format!("{text}\n  expected {expected}\n  got      {}", message(text)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Input and the same with all parentheses that precedence puts in.
const PRECEDENCE: &[(&str, &str)] = &[
    ("-1 ^ 2", "-(1 ^ 2)"),
    ("-a * b", "(-a) * b"),
    ("a ^ -b ^ c", "a ^ (-(b ^ c))"),
    ("a ^ b ^ c", "a ^ (b ^ c)"),
    ("a - b - c", "(a - b) - c"),
    ("a + b * c % d atan2 e", "a + (((b * c) % d) atan2 e)"),
    ("a == b + c > d", "(a == (b + c)) > d"),
    ("a or b and c unless d", "a or ((b and c) unless d)"),
    ("a </ 1 and b >/ 2", "(a </ 1) and (b >/ 2)"),
    ("a offset 2 ^ 2", "(a offset 2) ^ 2"),
    ("a offset -2 ^ 2", "(a offset -2) ^ 2"),
    ("a offset step() * 2", "(a offset step()) * 2"),
    ("-a @ 5 offset 1m", "-(a @ 5 offset 1m)"),
    ("and + or", "(and) + (or)"),
    ("a and and", "(a) and (and)"),
];

#[test]
fn precedence_is_prometheus() {
    fn bare(mut expr: Expr) -> Expr {
        while let Kind::Paren(inner) = expr.kind {
            expr = *inner;
        }
        expr.children_mut().into_iter().for_each(|child| {
            let inner = std::mem::replace(&mut child.kind, Kind::Number(0.0, Notation::Decimal));
            child.kind = bare(Expr { kind: inner, span: child.span }).kind;
        });
        expr
    }
    for (text, grouped) in PRECEDENCE {
        let (text_tree, grouped_tree) = (parse(text).unwrap(), parse(grouped).unwrap());
        assert_eq!(shape(&bare(text_tree)), shape(&bare(grouped_tree)), "{text}");
        check_round_trip(text);
        check_round_trip(grouped);
    }
}

#[test]
fn spans_cover_exactly_what_a_node_is_written_as() {
    let text = "sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m)) + on (x) bar @ 5 ^ (1)";
    let mut found = Vec::new();
    fn walk<'a>(expr: &Expr, text: &'a str, found: &mut Vec<&'a str>) {
        found.push(&text[expr.span.start as usize..expr.span.end as usize]);
        if let Kind::Matrix(matrix) = &expr.kind {
            found.push(&text[matrix.selector_span.start as usize..matrix.selector_span.end as usize]);
        }
        expr.children().into_iter().for_each(|child| walk(child, text, found));
    }
    walk(&parse(text).unwrap(), text, &mut found);
    assert_eq!(
        found,
        [
            text,
            "sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m))",
            "rate(foo{a=\"b\"}[5m] offset 1m)",
            "foo{a=\"b\"}[5m] offset 1m",
            "foo{a=\"b\"}",
            "bar @ 5 ^ (1)",
            "bar @ 5",
            "(1)",
            "1",
        ]
    );
}

#[test]
fn durations_are_computed_from_step_and_range() {
    let resolve = |text: &str| {
        let expr = parse(&format!("foo[{text}]")).unwrap_or_else(|e| panic!("{text}: {e}"));
        let Kind::Matrix(matrix) = expr.kind else { panic!("not a range") };
        matrix.range.resolve_positive(10_000, 3_600_000)
    };
    assert_eq!(resolve("1h30m"), Ok(5_400_000));
    assert_eq!(resolve("1.5"), Ok(1_500));
    for millis in 1..5_000 {
        assert_eq!(resolve(&format!("{millis}ms")), Ok(millis));
    }
    assert_eq!(resolve("step() + 5m"), Ok(310_000));
    assert_eq!(resolve("max_of(range() / 2, 1m) - -STEP()"), Ok(1_810_000));
    assert_eq!(resolve("2 ^ 3 ^ 2 % 100"), Ok(12_000));
    assert_eq!(resolve("-5m + 6m"), Ok(60_000));
    assert_eq!(resolve("step() - 1m"), Err("4:15: duration must be greater than 0".into()));
    assert_eq!(resolve("1m / (1 - 1)"), Err("4:16: division by zero".into()));
    assert_eq!(resolve("1m % 0"), Err("4:10: modulo by zero".into()));
    assert_eq!(resolve("1e300 * 1"), Err("4:13: duration is out of range".into()));
}

#[test]
fn positions_count_lines_and_bytes_from_one() {
    assert_eq!(Position::of("ab\ncd", 0).to_string(), "1:1");
    assert_eq!(Position::of("ab\ncd", 4).to_string(), "2:2");
    assert_eq!(Position::of("é\n\nx", 4).to_string(), "3:1");
    assert_eq!(Position::of("ab", 99).to_string(), "1:3");
}

/// Runs `f` where a recursion without bounds would be noticed: on half of the stack that threads get by default.
fn with_little_stack<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(1 << 20).spawn(f).unwrap().join().unwrap()
}

#[test]
fn nesting_is_bounded_and_costs_bounded_stack() {
    with_little_stack(|| {
        let opens: &[(&str, &str)] =
            &[("(", ")"), ("-", ""), ("abs(", ")"), ("sum(", ")"), ("a ^ ", ""), ("topk(1, ", ")")];
        for (open, close) in opens {
            let repeat = |n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
            let deep = message(&repeat(100_000));
            assert!(deep.contains("nested deeper than 256 levels"), "{open}: {deep}");
            check_round_trip(&repeat(200));
        }
        let durations = format!("a[{}1{}]", "(".repeat(100_000), ")".repeat(100_000));
        assert!(message(&durations).contains("nested deeper than 256 levels"));
    });
}

#[test]
fn chains_are_bounded_in_height_and_cost_bounded_stack() {
    with_little_stack(|| {
        for op in ["+", "and", "== bool", "</"] {
            let chain = |terms: usize| vec!["a"; terms].join(&format!(" {op} "));
            let longest = parse(&chain(HEIGHT_MAX as usize)).unwrap();
            assert_eq!(longest.value_type(), ValueType::Vector);
            check_round_trip(&chain(HEIGHT_MAX as usize));
            assert!(message(&chain(100_000)).contains("more than 500 operations on top of each other"));
        }
        // In groups, any number of terms is fine.
        let group = format!("({})", vec!["a"; 300].join(" + "));
        parse(&vec![group; 100].join(" + ")).unwrap();
        assert!(message(&format!("a{}", "[1m:]".repeat(10_000))).contains("on top of each other"));
        assert!(message(&format!("a[1{}]", " + 1".repeat(10_000))).contains("on top of each other"));
    });
}

proptest! {
    #[test]
    fn any_text_gives_a_tree_or_a_message(text in "\\PC{0,60}") {
        let _ = parse(&text);
        let _ = series::parse(&text);
    }

    #[test]
    fn any_words_of_the_language_give_a_tree_that_prints_to_itself(
        words in prop::collection::vec(prop::sample::select(WORDS), 1..12)
    ) {
        let text = words.join(" ");
        if parse(&text).is_ok() {
            check_round_trip(&text);
        }
    }

    #[test]
    fn strings_and_numbers_print_to_themselves(text in any::<String>(), number in any::<f64>()) {
        let string = Expr { kind: Kind::String(text.clone()), span: Span::default() };
        match parse(&string.to_string()).unwrap().kind {
            Kind::String(again) => prop_assert_eq!(again, text),
            other => prop_assert!(false, "{:?}", other),
        }
        let printed = Expr { kind: Kind::Number(number, Notation::Decimal), span: Span::default() }.to_string();
        match parse(&printed).unwrap().kind {
            Kind::Number(again, Notation::Decimal) => {
                prop_assert!(again.to_bits() == number.to_bits() || (again.is_nan() && number.is_nan()), "{}", printed)
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

const WORDS: &[&str] = &[
    "foo",
    "sum",
    "by",
    "(",
    ")",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "[5m]",
    "[5m:]",
    "[5m:1m]",
    "+",
    "-",
    "^",
    "*",
    "and",
    "or",
    "==",
    "bool",
    "on",
    "ignoring",
    "(x)",
    "group_left",
    "fill",
    "fill_left(1)",
    "offset",
    "1m",
    "5",
    "-",
    "@",
    "start",
    "()",
    "end()",
    "step()",
    "range()",
    "min_of",
    ",",
    "a=\"b\"",
    "\"c.d\"",
    "rate",
    "rate(foo[1m])",
    "topk(1,",
    "anchored",
    "smoothed",
    "NaN",
    "Inf",
    "'str'",
    "{a!~\"b\"}",
    "without",
    "</",
    "atan2",
    "abs(",
];
