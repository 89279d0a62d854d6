//! The columnar evaluator against one that looks at each step alone.

use super::*;
use model::value::{is_stale, stale};
use proptest::prelude::*;

/// Samples with gaps, stale markers, resets and jumps.
fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        8 => (0..50i32).prop_map(f64::from),
        1 => Just(stale()),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-3.5), Just(1e15)],
    ];
    prop::collection::vec((1..40_000i64, value), 0..60).prop_map(|gaps| {
        let mut time = -100_000;
        gaps.into_iter()
            .map(|(gap, value)| {
                time += gap;
                (time, value)
            })
            .collect()
    })
}

const FUNCTIONS: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "changes",
    "resets",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "ts_of_max_over_time",
    "quantile_over_time",
    "stdvar_over_time",
];

/// The value of a function for the samples of one window, straight from its definition.
fn naive(function: &str, window: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
    let values: Vec<f64> = window.iter().map(|(_, v)| *v).collect();
    let (first, last) = (*window.first()?, *window.last()?);
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let falls = || values.windows(2).filter(|w| w[1] < w[0]);
    let best = |better: fn(f64, f64) -> bool| {
        let numbers = window.iter().filter(|(_, v)| !v.is_nan());
        numbers.fold(None, |best: Option<(i64, f64)>, s| match best {
            Some(b) if !better(s.1, b.1) => Some(b),
            _ => Some(*s),
        })
    };
    Some(match function {
        "rate" | "increase" | "delta" => {
            if window.len() < 2 {
                return None;
            }
            let counter = function != "delta";
            let mut rise = last.1 - first.1;
            if counter {
                rise += falls().map(|w| w[0]).sum::<f64>();
            }
            let sampled = seconds(last.0 - first.0);
            let interval = sampled / (window.len() - 1) as f64;
            let mut before = seconds(first.0 - start);
            let mut after = seconds(end - last.0);
            if before >= 1.1 * interval {
                before = interval / 2.0;
            }
            if after >= 1.1 * interval {
                after = interval / 2.0;
            }
            if counter && rise > 0.0 && first.1 >= 0.0 {
                before = before.min(sampled * first.1 / rise);
            }
            let per = if function == "rate" { seconds(end - start) } else { 1.0 };
            rise * (sampled + before + after) / sampled / per
        }
        "irate" | "idelta" => {
            let before = window[window.len().checked_sub(2)?];
            let difference = last.1 - before.1;
            match function {
                "idelta" => difference,
                _ if last.1 < before.1 => last.1 / seconds(last.0 - before.0),
                _ => difference / seconds(last.0 - before.0),
            }
        }
        "changes" => {
            values.windows(2).filter(|w| w[0] != w[1] && !(w[0].is_nan() && w[1].is_nan())).count() as f64
        }
        "resets" => falls().count() as f64,
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => values.iter().sum::<f64>() / values.len() as f64,
        "min_over_time" => best(|a, b| a < b).map_or(f64::NAN, |b| b.1),
        "max_over_time" => best(|a, b| a > b).map_or(f64::NAN, |b| b.1),
        "ts_of_max_over_time" => seconds(best(|a, b| a >= b).map_or(last.0, |b| b.0)),
        "count_over_time" => values.len() as f64,
        "first_over_time" => first.1,
        "last_over_time" => last.1,
        "present_over_time" => 1.0,
        "quantile_over_time" => {
            let mut sorted = values;
            sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
            let rank = 0.3 * (sorted.len() - 1) as f64;
            let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
            let weight = rank - rank.floor();
            if weight == 0.0 && !sorted[(low + 1).min(sorted.len() - 1)].is_finite() {
                return Some(f64::NAN * 0.0);
            }
            sorted[low] * (1.0 - weight) + sorted[high] * weight
        }
        "stdvar_over_time" => {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64
        }
        _ => unreachable!(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn windows_over_columns_equal_windows_step_by_step(
        data in samples(),
        function in prop::sample::select(FUNCTIONS),
        width in 1..200_000i64,
        start in -50_000..200_000i64,
        step in 1..70_000i64,
        count in 1..20i64,
        offset in -60..60i64,
    ) {
        let mut source = Memory::default();
        let mut samples = Samples::default();
        (samples.timestamps, samples.values) = data.iter().copied().unzip();
        source.0.push((Labels::from_pairs([("__name__", "x_total")]).unwrap(), samples));
        let argument = if function == "quantile_over_time" { "0.3, " } else { "" };
        let query = format!("{function}({argument}x_total[{width}ms] offset {offset}s)");
        let got = range(&source, &query, [start, start + step * (count - 1), step]);
        let mut expected = Vec::new();
        for i in 0..count {
            let time = start + i * step;
            let end = time - offset * 1000;
            let window: Vec<(i64, f64)> = data
                .iter()
                .copied()
                .filter(|(t, v)| *t > end - width && *t <= end && !is_stale(*v))
                .collect();
            if let Some(value) = naive(function, &window, end - width, end) {
                expected.push((time, value));
            }
        }
        let got: Vec<(i64, f64)> = got.into_values().next().unwrap_or_default();
        prop_assert_eq!(got.len(), expected.len(), "{}", query);
        for ((at, got), (time, expected)) in got.into_iter().zip(expected) {
            prop_assert_eq!(at, time);
            // With an infinity or NaN inside, sums that are corrected differ from plain ones in nothing that matters.
            let odd = !expected.is_finite() && !got.is_finite();
            let scale = data.iter().map(|(_, v)| v.abs()).filter(|v| v.is_finite()).fold(1.0, f64::max);
            let close = (got - expected).abs() <= 1e-7 * scale || near(got, expected);
            let close = close || function == "stdvar_over_time" && scale > 1e9;
            prop_assert!(odd || close, "{} at {}: {} and {}", query, at, got, expected);
        }
    }

    #[test]
    fn instant_selectors_see_the_last_sample_unless_it_is_stale_or_old(
        data in samples(),
        start in -50_000..200_000i64,
        step in 1..70_000i64,
        count in 1..20i64,
        lookback in 1..300_000i64,
    ) {
        let mut source = Memory::default();
        let mut samples = Samples::default();
        (samples.timestamps, samples.values) = data.iter().copied().unzip();
        source.0.push((Labels::from_pairs([("__name__", "x")]).unwrap(), samples));
        let options = Options { lookback_ms: lookback, ..Options::default() };
        let got = floats(range_with(options, &source, "x", [start, start + step * (count - 1), step]).unwrap());
        let mut expected = Vec::new();
        for time in (0..count).map(|i| start + i * step) {
            let last = data.iter().rev().find(|(t, _)| *t <= time).filter(|(t, _)| *t > time - lookback);
            if let Some((_, value)) = last.filter(|(_, v)| !is_stale(*v)) {
                expected.push((time, value.to_bits()));
            }
        }
        let got = got.into_values().next().unwrap_or_default();
        let got: Vec<(i64, u64)> = got.into_iter().map(|(t, v)| (t, v.to_bits())).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn a_range_query_equals_instant_queries_at_its_steps(
        a in samples(),
        b in samples(),
        start in 0..100_000i64,
        step in 1_000..70_000i64,
        query in prop::sample::select(&[
            "sum by (g) (x)",
            "sum(rate(x[1m]))",
            "x > 10 or on(i) vector(1)",
            "topk(1, x)",
            "max_over_time(x[2m:13s])",
            "x - on(i) group_left sum by (i) (x offset 30s)",
            "avg without (i) (x) and on() (x{i=\"a\"} >= 5)",
            "quantile(0.7, x)",
            "absent(x > 40)",
            "count_values(\"v\", x)",
            "sum_over_time(x[90s] @ 60) + x",
        ]),
    ) {
        let mut source = Memory::default();
        for (name, data) in [("a", a), ("b", b)] {
            let labels = Labels::from_pairs([("__name__", "x"), ("i", name), ("g", "all")]).unwrap();
            let (timestamps, values) = data.into_iter().unzip();
            source.0.push((labels, Samples { timestamps, values, ..Samples::default() }));
        }
        let whole = range(&source, query, [start, start + 5 * step, step]);
        let mut single = Matrix::new();
        for time in (0..6).map(|i| start + i * step) {
            for (labels, value) in values(&source, query, time) {
                single.entry(labels).or_default().push((time, value));
            }
        }
        assert_near(&whole, &single, query);
    }
}
