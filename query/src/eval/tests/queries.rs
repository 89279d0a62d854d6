//! Whole queries: times, limits, annotations.

use super::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn counter() -> Memory {
    let values: Vec<f64> = (0..60).map(f64::from).collect();
    Memory::default().with("c", &[], 10_000, &some(&values))
}

#[test]
fn subqueries_run_at_multiples_of_their_step_in_a_left_open_window() {
    assert_eq!(values(&counter(), "count_over_time(c[60s:20s])", 125_000)[0].1, 3.0);
    assert_eq!(values(&counter(), "sum_over_time(c[60s:20s])", 120_000)[0].1, 8.0 + 10.0 + 12.0);
    assert_eq!(values(&counter(), "sum_over_time(c[40s:20s] @ 120 offset 20s)", 500_000)[0].1, 8.0 + 10.0);
    assert_eq!(values(&counter(), "max_over_time(sum_over_time(c[20s:10s])[30s:10s])", 60_000)[0].1, 11.0);
    assert_eq!(values(&counter(), "sum_over_time(vector(time())[30s:10s])", 30_000)[0].1, 60.0);
}

#[test]
fn a_pinned_selector_is_the_same_at_every_step() {
    let got = range(&counter(), "c @ 50 + c", [0, 20_000, 10_000]);
    assert_eq!(got["{}"], [(0, 5.0), (10_000, 6.0), (20_000, 7.0)]);
    let got = range(&counter(), "c @ end() - c @ start()", [0, 25_000, 10_000]);
    assert_eq!(got["{}"], [(0, 2.0), (10_000, 2.0), (20_000, 2.0)]);
}

#[test]
fn an_instant_query_of_a_range_vector_gives_its_samples() {
    match instant(&counter(), "c[20s]", 35_000).unwrap().value {
        Value::Matrix(matrix) => {
            let times: Vec<i64> = matrix[0].1.iter().map(|(t, _)| *t).collect();
            assert_eq!(times, [20_000, 30_000]);
        }
        other => panic!("{other:?}"),
    }
    let error = range_with(Options::default(), &counter(), "c[20s]", [0, 1, 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
}

#[test]
fn annotations_say_where_and_why() {
    let infos = instant(&counter(), "1 + sum(\n rate(c[1m]))", 60_000).unwrap().infos;
    assert_eq!(
        infos,
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"c\" (2:7)"
        ]
    );
    let warnings = instant(&counter(), "quantile(2, c)", 0).unwrap().warnings;
    assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]);
    let warnings = instant(&counter(), "histogram_quantile(0.5, c)", 0).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"\" for metric name \"c\" (1:25)"
        ]
    );
}

#[test]
fn buckets_that_fall_are_reported_once_for_all_steps() {
    let source = Memory::default()
        .with("h", &[("le", "1")], 60_000, &some(&[10.0, 10.0]))
        .with("h", &[("le", "2")], 60_000, &some(&[8.0, 7.0]))
        .with("h", &[("le", "+Inf")], 60_000, &some(&[12.0, 12.0]));
    let answer =
        range_with(Options::default(), &source, "histogram_quantile(0.5, h)", [0, 60_000, 60_000]).unwrap();
    assert_eq!(
        answer.infos,
        ["PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
          https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \"h\", \
          from buckets 2 to 2, with a max diff of 3, over 2 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z \
          (1:25)"]
    );
    assert_eq!(floats(answer)["{}"], [(0, 0.6), (60_000, 0.6)]);
}

fn limit_key(error: Error) -> &'static str {
    match error {
        Error::Source(model::Error::Limit { key, .. }) => key,
        other => panic!("{other}"),
    }
}

#[test]
fn limits_name_the_key_that_raises_them() {
    let run = |options: Options, query: &str| {
        range_with(options, &counter(), query, [0, 500_000, 10_000]).unwrap_err()
    };
    let options = Options { samples_max: 40, ..Options::default() };
    assert_eq!(limit_key(run(options, "c + c")), "limits.query_samples_max");
    let options = Options { series_max: 0, ..Options::default() };
    assert_eq!(limit_key(run(options, "c")), "limits.query_series_max");
    let options = Options { subquery_steps_max: 10, ..Options::default() };
    assert_eq!(limit_key(run(options, "sum_over_time(c[5m:1s])")), "limits.query_subquery_steps_max");
    let options = Options { steps_max: 10, ..Options::default() };
    assert!(
        matches!(run(options, "c"), Error::BadData(text) if text.contains("maximum resolution of 10 points"))
    );
}

#[test]
fn labels_that_a_query_makes_grow_count_against_its_budget() {
    let options = Options { samples_max: 1 << 16, ..Options::default() };
    let grown = |levels: usize| {
        let replacement = "$1".repeat(8);
        (0..levels).fold("label_replace(c, \"x\", \"12345678\", \"\", \"\")".to_string(), |inner, _| {
            format!("label_replace({inner}, \"x\", \"{replacement}\", \"x\", \"(.*)\")")
        })
    };
    let run = |levels| range_with(options.clone(), &counter(), &grown(levels), [0, 0, 1]);
    assert!(run(2).is_ok());
    assert_eq!(limit_key(run(20).unwrap_err()), "limits.query_samples_max");
}

#[test]
fn what_a_query_holds_is_given_back_as_it_goes() {
    let series = (0..50).fold(Memory::default(), |m, i| {
        m.with("x_total", &[("i", &i.to_string())], 1000, &some(&[1.0; 100]))
    });
    let options = Options::default();
    let answer = range_with(options, &series, "sum(rate(x_total[10s]))", [0, 99_000, 1000]).unwrap();
    assert_eq!(answer.samples_read, 5000);
    assert!(answer.samples_peak <= 300, "{}", answer.samples_peak);
}

#[test]
fn a_canceled_query_stops() {
    let params = Params { cancel: Some(Arc::new(AtomicBool::new(true))), ..Params::default() };
    let got = Engine::new(Options::default()).instant(&counter(), "c", Timestamp(0), &params);
    assert!(matches!(got, Err(Error::Canceled)));
}

#[test]
fn start_timestamps_tell_of_resets_that_values_hide() {
    let mut samples = counter().0.remove(0).1;
    samples.starts = samples.timestamps.iter().map(|t| if *t < 300_000 { 1 } else { 295_000 }).collect();
    let mut rate = crate::functions::counter::Rate::new(true, false, true);
    use crate::functions::range::{Function, Notes, Window};
    rate.begin(&samples);
    let window = Window {
        samples: &samples,
        floats: 28..33,
        histograms: 0..0,
        start: 270_000,
        end: 320_000,
        lookback: 0,
        step: 0,
        time: 0,
    };
    let Some(Point::Float(value)) = rate.at(&window, &mut Notes::default()) else { panic!("no value") };
    // 28 29 | 30 31 32, started anew before the third: 1 and then 32, over four intervals of five.
    assert!(near(value, 33.0 * 1.25), "{value}");
}
