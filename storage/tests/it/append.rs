//! What is accepted, what is refused, and who wins.

use crate::world::*;
use model::{RejectReason, Sink, Written};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn a_series_is_created_only_from_labels_that_were_checked() {
    let world = World::real();
    let engine = world.open();
    let a = labels("a", 1);
    let rows = Rows::default().floats(&*engine, &a, &[(1, 1.0)]).unchecked();
    let appended = rows.append(&engine);
    assert_eq!((appended.unknown, appended.written), (vec![0], Written::default()));
    assert_eq!(read_all(&engine).len(), 0);

    let mut checked = rows.0.clone();
    checked.series[0].checked = true;
    let appended = engine.append(&Arc::new(checked), Some(&[0])).unwrap();
    assert_eq!((appended.unknown, appended.written.floats), (vec![], 1));
    // Known from now on.
    let appended = Rows::default().floats(&*engine, &a, &[(2, 2.0)]).unchecked().append(&engine);
    assert_eq!((appended.unknown, appended.written.floats), (vec![], 1));
    assert_eq!(floats(&engine, &a), [(1, 1.0), (2, 2.0)]);
}

#[test]
fn only_the_series_asked_for_are_appended() {
    let world = World::real();
    let engine = world.open();
    let all: Vec<_> = (0..20).map(|i| labels("a", i)).collect();
    let rows = all.iter().fold(Rows::default(), |rows, l| rows.floats(&*engine, l, &[(1, 1.0)]));
    engine.append(&Arc::new(rows.0), Some(&[3, 17, 5])).unwrap();
    let there: Vec<_> = read_all(&engine).into_keys().collect();
    let mut expected = vec![labels("a", 3), labels("a", 5), labels("a", 17)];
    expected.sort();
    assert_eq!(there, expected);
}

#[test]
fn rows_out_of_bounds_are_refused_one_by_one_and_the_rest_is_kept() {
    let mut world = World::real();
    world.options.retention_ms = Some(1000);
    world.options.future_max_ms = 100;
    world.set_now(10_000);
    let engine = world.open();
    let (a, b) = (labels("a", 1), labels("b", 1));
    let rows = [(8_998, 1.0), (8_999, 2.0), (9_000, 3.0), (10_100, 4.0), (10_101, 5.0)];
    let appended = Rows::default()
        .floats(&*engine, &a, &rows)
        .floats(&*engine, &b, &[(20_000, 1.0)])
        .histograms(&*engine, &a, &[(1, 0, histogram(1)), (9_500, 0, histogram(1))])
        .append(&engine);
    assert_eq!(appended.written, Written { floats: 2, histograms: 1 });
    let rejected: Vec<_> =
        appended.rejected.iter().map(|r| (r.series, r.timestamp, r.rows, r.reason)).collect();
    let mut expected = vec![
        (0, 8_998, 2, RejectReason::TooOld),
        (0, 10_101, 1, RejectReason::TooFarInFuture),
        (1, 20_000, 1, RejectReason::TooFarInFuture),
        (2, 1, 1, RejectReason::TooOld),
    ];
    let mut rejected = rejected;
    rejected.sort_by_key(|r| (r.0, r.1));
    expected.sort_by_key(|r| (r.0, r.1));
    assert_eq!(rejected, expected);
    assert_eq!(floats(&engine, &a), [(9_000, 3.0), (10_100, 4.0)]);
    // A series of which nothing was kept does not exist.
    assert!(!read_all(&engine).contains_key(&b));
    assert_eq!(engine.stats().series, 1);
    assert_eq!((engine.stats().rejected_too_old, engine.stats().rejected_future), (3, 2));
}

#[test]
fn the_limit_on_series_spares_those_that_are_there() {
    let mut world = World::real();
    world.options.series_max = 2;
    let engine = world.open();
    write(&engine, &labels("a", 1), &[(1, 1.0)]);
    write(&engine, &labels("a", 2), &[(1, 1.0)]);
    let appended = Rows::default()
        .floats(&*engine, &labels("a", 3), &[(1, 1.0), (2, 1.0)])
        .floats(&*engine, &labels("a", 1), &[(2, 2.0)])
        .append(&engine);
    assert_eq!(appended.written.floats, 1);
    assert_eq!(appended.rejected.len(), 1);
    assert_eq!((appended.rejected[0].reason, appended.rejected[0].rows), (RejectReason::SeriesLimit, 2));
}

#[test]
fn other_labels_under_the_same_id_are_refused() {
    let world = World::real();
    let engine = world.open();
    let (a, b) = (labels("a", 1), labels("b", 2));
    write(&engine, &a, &[(1, 1.0)]);
    let mut rows = Rows::default().floats(&*engine, &b, &[(2, 2.0)]);
    rows.0.series[0].id = engine.key().id(a.as_bytes());
    let appended = rows.append(&engine);
    assert_eq!(appended.rejected[0].reason, RejectReason::IdCollision);
    assert_eq!(floats(&engine, &a), [(1, 1.0)]);
}

#[test]
fn timestamps_far_apart_and_negative_are_kept() {
    let world = World::real();
    let engine = world.open();
    let a = labels("a", 1);
    let rows = [(i64::MIN + 1, 1.0), (-5, 2.0), (0, 3.0), (1, f64::NAN), (1 + (1 << 33), 5.0)];
    world.now.store(i64::MAX / 2, Relaxed);
    write(&engine, &a, &rows);
    let same = |found: Vec<(i64, f64)>| {
        assert_eq!(
            found.iter().map(|r| (r.0, r.1.to_bits())).collect::<Vec<_>>(),
            rows.map(|r| (r.0, r.1.to_bits()))
        );
    };
    same(floats(&engine, &a));
    drop(engine);
    same(floats(&world.open(), &a));
}

/// What happens to an engine between two appends.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Restart,
    Flush,
    Maintain,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        6 => Just(Between::Nothing),
        1 => Just(Between::Restart),
        1 => Just(Between::Flush),
        1 => Just(Between::Maintain),
    ]
}

/// A row: series, timestamp, start timestamp, value. Few of each, so that they meet. Value 9 is a histogram, 8 a stale
/// marker.
fn row() -> impl Strategy<Value = (u32, i64, i64, u64)> {
    (0u32..3, 0i64..60, prop_oneof![4 => Just(0i64), 1 => 1i64..3], 0u64..10)
        .prop_map(|(series, t, start, v)| (series, t * 97, start, v))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The conflict rule, out-of-order samples, flushes, restarts: whatever the order, the content is that of a simple map.
    #[test]
    fn content_does_not_depend_on_the_order_of_arrival_nor_on_flushes_and_restarts(
        rows in prop::collection::vec((prop::collection::vec(row(), 1..40), between()), 1..12)
    ) {
        let world = World::real();
        world.set_now(10 * WINDOW);
        let mut engine = world.open();
        let mut expected: std::collections::BTreeMap<(u32, i64), (model::value::Value, i64)> = Default::default();
        for (rows, between) in &rows {
            let mut batch = Rows::default();
            for &(series, t, start, v) in rows {
                let l = labels("m", series);
                let value = match v {
                    9 => model::value::Value::Histogram(std::sync::Arc::new(histogram(t as u64 % 3))),
                    8 => model::value::Value::Float(model::value::stale()),
                    v => model::value::Value::Float(v as f64),
                };
                batch = match &value {
                    model::value::Value::Histogram(h) => batch.histograms(&*engine, &l, &[(t, start, (**h).clone())]),
                    model::value::Value::Float(v) if start != 0 => batch.with_starts(&*engine, &l, &[(t, start, *v)]),
                    model::value::Value::Float(v) => batch.floats(&*engine, &l, &[(t, *v)]),
                };
                let known = expected.entry((series, t)).or_insert_with(|| (value.clone(), start));
                if value.cmp_conflict(&known.0).then(start.cmp(&known.1)).is_gt() {
                    *known = (value, start);
                }
            }
            batch.append(&engine);
            engine.commit().unwrap();
            match between {
                Between::Nothing => {}
                Between::Restart => {
                    drop(engine);
                    engine = world.open();
                }
                Between::Flush => drop(engine.flush_all().unwrap()),
                Between::Maintain => drop(engine.maintain().unwrap()),
            }
        }
        let check = |engine: &storage::Engine| {
            let found = read_all(engine);
            for series in 0..3 {
                let found = found.get(&labels("m", series)).cloned().unwrap_or_default();
                let mut wanted = Plain::default();
                for ((_, t), (value, start)) in expected.range((series, i64::MIN)..=(series, i64::MAX)) {
                    match value {
                        model::value::Value::Float(v) => wanted.floats.push((*t, *start, v.to_bits())),
                        model::value::Value::Histogram(h) => wanted.histograms.push((*t, *start, (**h).clone())),
                    }
                }
                assert_eq!(found, wanted, "series {series}");
            }
        };
        check(&engine);
        engine.flush_all().unwrap();
        check(&engine);
        drop(engine);
        check(&world.open());
    }
}

#[test]
fn samples_from_all_of_time_are_kept_through_flush_and_restart() {
    let world = World::real();
    let now = 1_700_000_000_000;
    world.set_now(now);
    let engine = world.open();
    // Enough around each moment for packed chunks that span thousands of years, and for more windows than blocks.
    let year_one = -62_135_596_800_000;
    let moments = [i64::MIN, i64::MIN + 1000, -(1 << 61), year_one, -1, 0, 1_000_000_000_000, now - 100_000];
    let rows: Vec<(i64, f64)> =
        moments.iter().flat_map(|&t| (0..20).map(move |i| (t + i * 700, (t / 1000 + i) as f64))).collect();
    let mut sorted = rows.clone();
    sorted.sort_by_key(|row| row.0);
    sorted.dedup_by_key(|row| row.0);
    let straight = labels("straight", 0);
    write(&engine, &straight, &sorted);
    // The first alone, and all the wrong way round.
    write(&engine, &labels("first", 0), &[(i64::MIN, 1.0)]);
    let late: Vec<(i64, f64)> = sorted.iter().rev().copied().collect();
    write(&engine, &labels("late", 0), &late);
    let check = |engine: &storage::Engine| {
        assert!(floats(engine, &straight) == sorted && floats(engine, &labels("late", 0)) == sorted);
        assert_eq!(floats(engine, &labels("first", 0)), [(i64::MIN, 1.0)]);
        let range = model::TimeRange::new(i64::MIN, i64::MIN);
        assert_eq!(read(engine, &[], range).len(), 3);
        assert_eq!(read(engine, &[], model::TimeRange::new(year_one, year_one)).len(), 2);
    };
    check(&engine);
    drop(engine);
    let engine = world.open();
    check(&engine);
    engine.maintain().unwrap();
    check(&engine);
    engine.flush_all().unwrap();
    check(&engine);
    // Nothing twice, and not a block for every window since the beginning of time.
    let stats = engine.stats();
    assert_eq!(stats.block_samples + stats.head_samples, 2 * sorted.len() as u64 + 1);
    assert!(stats.blocks <= 3 * 2 * 16, "{} blocks", stats.blocks);
    drop(engine);
    check(&world.open());
}
