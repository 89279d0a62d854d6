//! Selecting series by matchers, and the lists of names and values.

use crate::world::*;
use model::{Error, LabelQuery, Labels, MatchOp, Matcher, Selection, Source, TimeRange};
use storage::Engine;

fn hosts(engine: &Engine) -> Vec<Labels> {
    let mut all = Vec::new();
    for i in 0..30u32 {
        let host = format!("host-{}", i % 10);
        let mut pairs = vec![("__name__", if i < 20 { "cpu" } else { "memory" }), ("host", &host)];
        let zone = format!("z{}", i % 3);
        if i % 2 == 0 {
            pairs.push(("zone", &zone));
        }
        if i < 20 {
            pairs.push(("mode", ["user", "idle"][i as usize / 10]));
        }
        let labels = Labels::from_pairs(pairs).unwrap();
        write(engine, &labels, &[(100 + i64::from(i), f64::from(i))]);
        all.push(labels);
    }
    all
}

fn check(engine: &Engine, all: &[Labels]) {
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
    use MatchOp::*;
    let lists = [
        vec![],
        vec![matcher("__name__", Equal, "cpu")],
        vec![matcher("__name__", Equal, "none")],
        vec![matcher("host", Matches, "host-[1-3]"), matcher("mode", NotEqual, "idle")],
        vec![matcher("zone", Equal, "")],
        vec![matcher("zone", NotEqual, "")],
        vec![matcher("zone", Matches, "z0|")],
        vec![matcher("zone", NotMatches, "z.*")],
        vec![matcher("zone", NotMatches, ".+")],
        vec![matcher("nope", Equal, ""), matcher("__name__", NotMatches, "cpu|disk")],
        vec![matcher("nope", Matches, ".+")],
    ];
    for matchers in lists {
        let mut wanted: Vec<&Labels> =
            all.iter().filter(|l| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")))).collect();
        wanted.sort();
        let found = read(engine, &matchers, TimeRange::ALL);
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted, "{matchers:?}");
    }
}

#[test]
fn matchers_mean_the_same_on_head_and_blocks() {
    let world = World::real();
    world.set_now(WINDOW);
    let engine = world.open();
    let all = hosts(&engine);
    check(&engine, &all);
    engine.flush_all().unwrap();
    check(&engine, &all);
    // Half here, half there.
    for labels in all.iter().step_by(2) {
        write(&engine, labels, &[(500, 1.0)]);
    }
    check(&engine, &all);
}

#[test]
fn a_range_selects_the_series_that_have_samples_in_it() {
    let world = World::real();
    world.set_now(WINDOW);
    let engine = world.open();
    let all = hosts(&engine);
    let found = read(&engine, &[], TimeRange::new(103, 104));
    assert_eq!(found.len(), 2);
    assert!(found.contains_key(&all[3]) && found.contains_key(&all[4]));
    let query = LabelQuery { selectors: vec![], range: TimeRange::new(103, 104), limit: None, shards: None };
    let zoned = LabelQuery { selectors: vec![vec![Matcher::equal("zone", "z1")]], ..query.clone() };
    for flushed in [false, true] {
        if flushed {
            engine.flush_all().unwrap();
        }
        assert_eq!(engine.series(&query).unwrap().items.len(), 2);
        assert_eq!(engine.label_values("host", &query).unwrap().items, ["host-3", "host-4"]);
        assert_eq!(engine.label_names(&query).unwrap().items, ["__name__", "host", "mode", "zone"]);
        assert_eq!(engine.label_values("__name__", &query).unwrap().items, ["cpu"]);
        assert_eq!(engine.label_values("host", &zoned).unwrap().items, ["host-4"]);
        let later = LabelQuery { range: TimeRange::new(200, 300), ..query.clone() };
        assert_eq!(engine.label_names(&later).unwrap().items, [""; 0]);
    }
    for i in 100..500 {
        write(
            &engine,
            &Labels::from_pairs([("__name__", "other"), ("i", &i.to_string())]).unwrap(),
            &[(900, 1.0)],
        );
    }
    write(&engine, &Labels::from_pairs([("__name__", "gone"), ("only", "old")]).unwrap(), &[(300, 1.0)]);
    engine.maintain().unwrap();
    let recent = LabelQuery { range: TimeRange::new(800, 1000), ..query };
    assert_eq!(engine.label_names(&recent).unwrap().items, ["__name__", "i"]);
}

#[test]
fn more_series_than_the_query_may_have_is_an_error_that_names_the_limit() {
    let world = World::real();
    world.set_now(WINDOW);
    let engine = world.open();
    hosts(&engine);
    let selection = Selection { matchers: vec![], range: TimeRange::ALL, series_max: 29, shards: None };
    match engine.select(&selection) {
        Err(Error::Limit { max: 29, got: 30, .. }) => {}
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("it was allowed"),
    }
    assert_eq!(engine.select(&Selection { series_max: 30, ..selection }).unwrap().len(), 30);
}

#[test]
fn names_values_and_series_are_sorted_and_cut_at_the_limit() {
    let world = World::real();
    world.set_now(WINDOW);
    let engine = world.open();
    let mut all = hosts(&engine);
    all.sort();
    let query = |selectors, limit| LabelQuery { selectors, range: TimeRange::ALL, limit, shards: None };
    for flushed in [false, true] {
        if flushed {
            engine.flush_all().unwrap();
        }
        assert_eq!(
            engine.label_names(&query(vec![], None)).unwrap().items,
            ["__name__", "host", "mode", "zone"]
        );
        let memory = vec![vec![Matcher::equal("__name__", "memory")]];
        assert_eq!(
            engine.label_names(&query(memory.clone(), None)).unwrap().items,
            ["__name__", "host", "zone"]
        );
        let modes = engine.label_values("mode", &query(vec![], Some(1))).unwrap();
        assert_eq!((modes.items, modes.truncated), (vec!["idle".to_owned()], true));
        let hosts = engine.label_values("host", &query(memory, Some(10))).unwrap();
        assert_eq!((hosts.items.len(), hosts.truncated), (10, false));
        let two = vec![vec![Matcher::equal("mode", "idle")], vec![Matcher::equal("host", "host-1")]];
        assert_eq!(engine.series(&query(two, None)).unwrap().items.len(), 12);
        assert_eq!(engine.series(&query(vec![], None)).unwrap().items, all);
    }
}
