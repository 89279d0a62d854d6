//! Vector matching and aggregation.

use super::*;

fn hosts() -> Memory {
    Memory::default()
        .with("req", &[("host", "a"), ("code", "200")], 1000, &some(&[10.0]))
        .with("req", &[("host", "a"), ("code", "500")], 1000, &some(&[2.0]))
        .with("req", &[("host", "b"), ("code", "200")], 1000, &some(&[30.0]))
        .with("cap", &[("host", "a"), ("rack", "r1")], 1000, &some(&[100.0]))
        .with("cap", &[("host", "c"), ("rack", "r2")], 1000, &some(&[50.0]))
}

fn error(query: &str) -> String {
    instant(&hosts(), query, 0).unwrap_err().to_string()
}

#[test]
fn many_meet_one_and_take_labels_along() {
    let got = values(&hosts(), "req / on(host) group_left(rack) cap", 0);
    assert_eq!(
        got,
        [
            (r#"{code="200", host="a", rack="r1"}"#.into(), 0.1),
            (r#"{code="500", host="a", rack="r1"}"#.into(), 0.02),
        ]
    );
    let swapped = values(&hosts(), "cap / on(host) group_right(rack) req", 0);
    assert_eq!(swapped.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [10.0, 50.0]);
}

#[test]
fn what_does_not_match_one_to_one_is_explained() {
    assert_eq!(
        error("cap * on(host) req"),
        "found duplicate series for the match group {host=\"a\"} on the right hand-side of the operation: \
         [{__name__=\"req\", code=\"500\", host=\"a\"}, {__name__=\"req\", code=\"200\", host=\"a\"}];\
         many-to-many matching not allowed: matching labels must be unique on one side"
    );
    assert_eq!(
        error("req * on(host) cap"),
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    );
    assert_eq!(
        error("req * on(host) group_left(code) cap"),
        "multiple matches for labels: grouping labels must ensure unique matches"
    );
}

#[test]
fn names_that_are_dropped_must_not_make_two_series_one() {
    let source = Memory::default().with("a", &[("x", "1")], 1000, &[Some(1.0), None]).with(
        "b",
        &[("x", "1")],
        1000,
        &[Some(1.0), None],
    );
    for delayed in [false, true] {
        let options = Options { delayed_name_removal: delayed, ..Options::default() };
        for query in [r#"-{x="1"}"#, r#"abs({x="1"})"#, r#"count_over_time({x="1"}[5s])"#, r#"{x="1"} * 2"#] {
            let got = range_with(options.clone(), &source, query, [0, 1000, 1000]);
            assert_eq!(
                got.unwrap_err().to_string(),
                "vector cannot contain metrics with the same labelset",
                "{query}"
            );
        }
    }
    let error = instant(&source, r#"sum(rate({x="1"}[5s]))"#, 0);
    assert!(floats(error.unwrap()).is_empty());
    assert!(instant(&source, r#"sum(count_over_time({x="1"}[5s]))"#, 0).is_err());
}

#[test]
fn a_dropped_name_can_be_read_until_the_end_when_removal_is_delayed() {
    let query = r#"label_replace(abs(cap), "old", "$1", "__name__", "(.*)")"#;
    let options = Options { delayed_name_removal: true, ..Options::default() };
    let delayed = floats(range_with(options, &hosts(), query, [0, 0, 1]).unwrap());
    assert!(delayed.contains_key(r#"{host="a", old="cap", rack="r1"}"#));
    let immediate = range(&hosts(), query, [0, 0, 1]);
    assert!(immediate.contains_key(r#"{host="a", rack="r1"}"#), "{immediate:?}");
}

#[test]
fn set_operators_decide_step_by_step() {
    let source = Memory::default().with("a", &[("x", "1")], 600_000, &[Some(1.0), None, Some(3.0)]).with(
        "b",
        &[("x", "1")],
        600_000,
        &[Some(7.0), Some(8.0), None],
    );
    let steps = [0, 1_200_000, 600_000];
    let get = |query: &str| -> Vec<(i64, f64)> {
        range(&source, query, steps).into_values().flatten().map(|(t, v)| (t / 600_000, v)).collect()
    };
    assert_eq!(get("a and b"), [(0, 1.0)]);
    assert_eq!(get("a unless b"), [(2, 3.0)]);
    assert_eq!(get("a or b"), [(0, 1.0), (2, 3.0), (1, 8.0)]);
    assert_eq!(get("sum(a or b)"), [(0, 1.0), (1, 8.0), (2, 3.0)]);
}

#[test]
fn comparisons_filter_or_answer_with_bool() {
    assert_eq!(values(&hosts(), "cap > 60", 0), [(r#"cap{host="a", rack="r1"}"#.into(), 100.0)]);
    assert_eq!(values(&hosts(), "60 < cap", 0), [(r#"cap{host="a", rack="r1"}"#.into(), 100.0)]);
    let flags = values(&hosts(), "cap > bool 60", 0);
    assert_eq!(flags.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [1.0, 0.0]);
    assert_eq!(values(&hosts(), "1 >= bool 2", 0), [(String::new(), 0.0)]);
}

#[test]
fn aggregations_keep_the_labels_that_are_asked_for() {
    let s = hosts();
    assert_eq!(
        values(&s, "sum by (code, none) (req)", 0),
        [(r#"{code="200"}"#.into(), 40.0), (r#"{code="500"}"#.into(), 2.0)]
    );
    assert_eq!(
        values(&s, "max without (code) (req)", 0),
        [(r#"{host="a"}"#.into(), 10.0), (r#"{host="b"}"#.into(), 30.0)]
    );
    assert_eq!(values(&s, "sum by (__name__) (cap)", 0), [("cap".into(), 150.0)]);
    assert_eq!(values(&s, "count(req)", 0), [("{}".into(), 3.0)]);
    assert_eq!(values(&s, "stdvar(cap)", 0), [("{}".into(), 625.0)]);
}

#[test]
fn series_taken_as_they_come_by_many_threads_aggregate_as_collected_ones() {
    let mut source = Memory::default();
    for i in 0..400 {
        let id = i.to_string();
        let group = (i % 7).to_string();
        let counts: Vec<Option<f64>> =
            (0..200).map(|k| (k % 13 != i % 13).then(|| f64::from((k * (i + 1)) % 1000))).collect();
        source = source.with("c_total", &[("i", &id), ("g", &group)], 5_000, &counts);
    }
    for op in ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"] {
        for inner in ["c_total", "rate(c_total[1m])"] {
            let streamed = format!("{op} by (g) ({inner})");
            let collected = format!("{op} by (g) ({inner} + 0)");
            let steps = [0, 1_000_000, 10_000];
            let options = Options { threads: 4, ..Options::default() };
            let many = floats(range_with(options, &source, &streamed, steps).unwrap());
            assert_eq!(many.len(), 7);
            assert_near(&many, &range(&source, &streamed, steps), &streamed);
            assert_near(&many, &range(&source, &collected, steps), &streamed);
        }
    }
}

#[test]
fn topk_orders_its_answer_and_puts_nan_last() {
    let source = hosts().with("req", &[("host", "z")], 1000, &some(&[f64::NAN]));
    let order = |query: &str| match instant(&source, query, 0).unwrap().value {
        Value::Vector(v) => v.iter().map(|(l, _, _)| l.get("host").unwrap().to_string()).collect::<String>(),
        _ => panic!("no vector"),
    };
    assert_eq!(order("topk(3, req)"), "baa");
    assert_eq!(order("bottomk(9, req)"), "aabz");
    assert_eq!(order("sort_desc(req)"), "baaz");
    assert_eq!(instant(&source, "topk(NaN, req)", 0).unwrap_err().to_string(), "Parameter value is NaN");
}

#[test]
fn the_two_sides_of_limit_ratio_complete_each_other() {
    let mut source = Memory::default();
    for i in 0..200 {
        source = source.with("x", &[("i", &i.to_string())], 1000, &some(&[1.0]));
    }
    let part = values(&source, "count(limit_ratio(0.3, x))", 0)[0].1;
    assert!((30.0..90.0).contains(&part), "{part}");
    assert_eq!(values(&source, "count(limit_ratio(0.3, x) or limit_ratio(-0.7, x))", 0)[0].1, 200.0);
    assert!(values(&source, "limit_ratio(0.3, x) and limit_ratio(-0.7, x)", 0).is_empty());
}
