//! Digests say what reads see: the same for equal content, whatever way it came and lies; another one for any other.

use crate::world::*;
use disk::{CrashVfs, OpenMode, Vfs};
use model::value::Value;
use model::{Digest, Matcher, Replica, Samples, Selection, Shard, ShardSet, Sink, Source, TimeRange};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::Engine;

const SERIES: u32 = 5;
const WINDOWS: i64 = 6;

/// One sample as it may arrive.
#[derive(Clone, Debug)]
struct Row {
    series: u32,
    t: i64,
    start: i64,
    value: Value,
}

fn row() -> impl Strategy<Value = Row> {
    let float =
        prop::sample::select(vec![0.0, -0.0, 1.0, 2.5, f64::NAN, model::value::stale(), f64::INFINITY]);
    let value = prop_oneof![
        6 => float.prop_map(Value::Float),
        1 => (0u64..3).prop_map(|count| Value::Histogram(Arc::new(histogram(count)))),
    ];
    // Few timestamps, so that rows meet.
    let t = (0..WINDOWS, prop_oneof![1 => Just(0i64), 1 => Just(WINDOW - 1), 4 => 0..12i64]);
    let t = t.prop_map(|(window, within)| window * WINDOW + within);
    (0..SERIES, t, prop_oneof![2 => Just(0i64), 1 => -2..3i64], value)
        .prop_map(|(series, t, start, value)| Row { series, t, start, value })
}

/// What happens to an engine between two rows.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Commit,
    Maintain,
    FlushAll,
    Restart,
    /// Somebody asks for every window, so that it is remembered.
    Ask,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        12 => Just(Nothing), 2 => Just(Commit), 2 => Just(Maintain), 1 => Just(FlushAll), 1 => Just(Restart), 3 => Just(Ask)
    ]
}

/// Rows in some order, each with what happens before it and whether another node has sent it.
type Story = Vec<(Row, Event, bool)>;

fn story(rows: Vec<Row>) -> impl Strategy<Value = Story> {
    let again = prop::collection::vec(prop::sample::select(rows.clone()), 0..8);
    let all = again.prop_map(move |again| [rows.clone(), again].concat()).prop_shuffle();
    all.prop_flat_map(|rows| {
        let count = rows.len();
        let told = prop::collection::vec((event(), any::<bool>()), count);
        told.prop_map(move |told| {
            rows.iter()
                .cloned()
                .zip(told)
                .map(|(row, (event, replicated))| (row, event, replicated))
                .collect()
        })
    })
}

fn series(i: u32) -> model::Labels {
    labels("m", i)
}

fn append(engine: &Engine, row: &Row, replicated: bool) {
    let batch = match &row.value {
        Value::Float(v) => {
            Rows::default().with_starts(engine, &series(row.series), &[(row.t, row.start, *v)])
        }
        Value::Histogram(h) => {
            Rows::default().histograms(engine, &series(row.series), &[(row.t, row.start, (**h).clone())])
        }
    };
    let batch = Arc::new(batch.0);
    let append = if replicated { Replica::append_replicated } else { Sink::append };
    let appended = append(engine, &batch, None).unwrap();
    assert!(appended.unknown.is_empty() && appended.rejected.is_empty());
}

fn windows() -> impl Iterator<Item = TimeRange> {
    (0..WINDOWS).map(|number| TimeRange::new(number * WINDOW, (number + 1) * WINDOW - 1))
}

fn shards() -> impl Iterator<Item = Shard> {
    (0..4).map(Shard)
}

/// By shard and window; each shard's whole time last.
fn digests(engine: &Engine) -> Vec<Digest> {
    let ranges = || windows().chain([TimeRange::ALL]);
    shards().flat_map(|shard| ranges().map(move |range| engine.digest(shard, range).unwrap())).collect()
}

fn tell(story: &Story) -> (World, Arc<Engine>) {
    let world = World::on(Arc::new(CrashVfs::new()));
    world.set_now(WINDOWS * WINDOW);
    let mut engine = world.open();
    for (number, (row, event, replicated)) in story.iter().enumerate() {
        match event {
            Event::Nothing => {}
            Event::Commit => Engine::commit(&engine).unwrap(),
            Event::Maintain => {
                world.set_now(WINDOWS * WINDOW + number as i64 * 97);
                let _ = engine.maintain().unwrap();
            }
            Event::FlushAll => {
                engine.flush_all().unwrap();
            }
            Event::Restart => {
                engine.close().unwrap();
                drop(engine);
                engine = world.open();
            }
            Event::Ask => drop(digests(&engine)),
        }
        append(&engine, row, *replicated);
    }
    (world, engine)
}

/// What must come out, by nothing but the conflict rule: the greatest value, then the latest start timestamp.
fn settled(rows: &[Row]) -> BTreeMap<(u32, i64), (Value, i64)> {
    let mut settled: BTreeMap<(u32, i64), (Value, i64)> = BTreeMap::new();
    for row in rows {
        let new = (row.value.clone(), row.start);
        let known = settled.entry((row.series, row.t)).or_insert_with(|| new.clone());
        if new.0.cmp_conflict(&known.0).then(new.1.cmp(&known.1)).is_gt() {
            *known = new;
        }
    }
    settled
}

fn expected(engine: &Engine, rows: &[Row]) -> Vec<Digest> {
    let settled = settled(rows);
    let of = |shard: Shard, range: TimeRange| {
        let mut sum = Digest::default();
        for (&(number, t), (value, start)) in settled.iter().filter(|((_, t), _)| range.contains(*t)) {
            let id = engine.key().id(series(number).as_bytes());
            if id.shard(4) == shard {
                let mut one = Samples::default();
                match value {
                    Value::Float(v) => model::merge::push_float(&mut one, t, *v, *start),
                    Value::Histogram(h) => one.histograms.push((t, *start, h.clone())),
                }
                sum += Digest::of(id, &one);
            }
        }
        sum
    };
    shards()
        .flat_map(|shard| windows().chain([TimeRange::ALL]).map(move |range| (shard, range)))
        .map(|(shard, range)| of(shard, range))
        .collect()
}

/// Sums of the digests by series, in the order of [`digests`].
fn sums(engine: &Engine) -> Vec<Digest> {
    let mut sums = Vec::new();
    for shard in shards() {
        for range in windows().chain([TimeRange::ALL]) {
            let all = engine.series_digests(shard, range).unwrap();
            assert!(all.is_sorted_by(|a, b| a.0 < b.0), "sorted, each once");
            sums.push(all.into_iter().map(|series| series.1).sum());
        }
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn equal_content_has_equal_digests_whatever_its_history(
        (rows, a, b) in prop::collection::vec(row(), 1..50)
            .prop_flat_map(|rows| (Just(rows.clone()), story(rows.clone()), story(rows)))
    ) {
        let ((_world_a, a), (world_b, b)) = (tell(&a), tell(&b));
        let wanted = expected(&a, &rows);
        prop_assert_eq!(&digests(&a), &wanted);
        prop_assert_eq!(&digests(&b), &wanted);
        prop_assert_eq!(&sums(&a), &wanted);
        // Once more, out of memory; from blocks; and after a restart.
        prop_assert_eq!(&digests(&a), &wanted);
        a.flush_all().unwrap();
        prop_assert_eq!(&digests(&a), &wanted);
        prop_assert_eq!(&sums(&a), &wanted);
        prop_assert!(a.verify().is_empty());
        b.close().unwrap();
        drop(b);
        prop_assert_eq!(&digests(&world_b.open()), &wanted);
    }

    #[test]
    fn a_row_more_or_another_one_shows_in_its_window_and_only_there(
        (rows, changed, told) in prop::collection::vec(row(), 1..30)
            .prop_flat_map(|rows| (Just(rows.clone()), row(), story(rows)))
    ) {
        let (_world, engine) = tell(&told);
        let before = digests(&engine);
        append(&engine, &changed, true);
        let after = digests(&engine);
        let settled = settled(&rows);
        let known = settled.get(&(changed.series, changed.t));
        let is_known = known.is_some_and(|known| {
            changed.value.cmp_conflict(&known.0).then(changed.start.cmp(&known.1)).is_le()
        });
        let shard = engine.key().id(series(changed.series).as_bytes()).shard(4);
        let cells = shards().flat_map(|shard| windows().chain([TimeRange::ALL]).map(move |range| (shard, range)));
        for (at, (of, range)) in cells.enumerate() {
            let touched = !is_known && of == shard && range.contains(changed.t);
            prop_assert_eq!(before[at] != after[at], touched, "{:?} {:?}", of, range);
        }
    }
}

/// An engine with samples in every shard and window, each window in one block a shard.
fn sealed() -> (CrashVfs, World, Arc<Engine>) {
    let vfs = CrashVfs::new();
    let world = World::on(Arc::new(vfs.clone()));
    world.set_now(WINDOWS * WINDOW);
    let engine = world.open();
    for i in 0..40 {
        let rows: Vec<_> =
            (0..WINDOWS * 10).map(|n| (n * 100 + 7, f64::from(i) + (n as f64).sqrt())).collect();
        write(&engine, &series(i), &rows);
    }
    engine.flush_all().unwrap();
    assert_eq!(engine.stats().blocks, 4 * WINDOWS as u64);
    (vfs, world, engine)
}

#[test]
fn windows_that_are_sealed_in_one_block_each_cost_no_look_at_samples() {
    let (vfs, world, engine) = sealed();
    let wanted = digests(&engine);
    assert!(wanted.iter().all(|digest| *digest != Digest::default()));
    drop(engine);
    // The first page of every block: values. Whoever reads one fails.
    for shard in 0..4 {
        let dir = world.options.dir.join(format!("blocks/default/{shard}"));
        for entry in vfs.list(&dir).unwrap() {
            let file = vfs.open(&dir.join(&entry.name), OpenMode::Write).unwrap();
            file.write_all_at(&[0xff; 8], 40).unwrap();
        }
    }
    let engine = world.open();
    assert_eq!(digests(&engine), wanted);
    assert!(engine.series_digests(Shard(0), TimeRange::ALL).is_err(), "the damage is no damage");
    // Half a window is not what a block has a digest of.
    assert!(engine.digest(Shard(0), TimeRange::new(0, WINDOW / 2)).is_err());
    // A late row in one window: that one must be read, the others not.
    let late = (0..40).find(|i| engine.key().id(series(*i).as_bytes()).shard(4) == Shard(0)).unwrap();
    write(&engine, &series(late), &[(2 * WINDOW + 8, 1.0)]);
    for (number, window) in windows().enumerate() {
        assert_eq!(engine.digest(Shard(0), window).is_err(), number == 2, "window {number}");
    }
}

#[test]
fn a_window_is_hashed_once_and_again_after_something_arrived_in_it() {
    let (_vfs, world, engine) = sealed();
    // Not a block's whole time, so it must be computed.
    let half = TimeRange::new(0, WINDOW / 2);
    let before = engine.digest(Shard(1), half).unwrap();
    let mine = (0..40).find(|i| engine.key().id(series(*i).as_bytes()).shard(4) == Shard(1)).unwrap();
    write(&engine, &series(mine), &[(WINDOW / 2 + 1, 1.0)]);
    assert_eq!(engine.digest(Shard(1), half).unwrap(), before, "it arrived beside the window");
    write(&engine, &series(mine), &[(3, 1.0)]);
    let after = engine.digest(Shard(1), half).unwrap();
    assert_ne!(after, before);
    engine.flush_all().unwrap();
    assert_eq!(engine.digest(Shard(1), half).unwrap(), after, "a flush changes nothing");
    drop(engine);
    assert_eq!(world.open().digest(Shard(1), half).unwrap(), after);
}

#[test]
fn what_retention_hides_is_in_no_digest() {
    let mut world = World::on(Arc::new(CrashVfs::new()));
    world.options.retention_ms = Some(3 * WINDOW);
    world.set_now(3 * WINDOW);
    let engine = world.open();
    write(&engine, &series(0), &[(10, 1.0), (WINDOW + 10, 2.0), (2 * WINDOW + 10, 3.0)]);
    let shard = engine.key().id(series(0).as_bytes()).shard(4);
    let all = engine.digest(shard, TimeRange::ALL).unwrap();
    let parts: Vec<Digest> = windows().map(|window| engine.digest(shard, window).unwrap()).collect();
    assert_eq!(parts.iter().copied().sum::<Digest>(), all);
    for flushed in [false, true] {
        if flushed {
            engine.flush_all().unwrap();
        }
        world.set_now(3 * WINDOW + 500);
        assert_eq!(engine.digest(shard, TimeRange::ALL).unwrap(), parts[1] + parts[2], "flushed: {flushed}");
        assert_eq!(engine.digest(shard, windows().next().unwrap()).unwrap(), Digest::default());
        world.set_now(3 * WINDOW);
    }
}

#[test]
fn only_the_shards_that_are_asked_for_answer() {
    let (_vfs, _world, engine) = sealed();
    write(&engine, &labels("head", 1), &[(WINDOWS * WINDOW, 1.0)]);
    for shard in shards() {
        let only = Some(ShardSet::from_iter([shard]));
        let selection = Selection {
            matchers: vec![Matcher::equal("job", "test")],
            range: TimeRange::ALL,
            series_max: usize::MAX,
            shards: only.clone(),
        };
        let set = engine.select(&selection).unwrap();
        let mine = (0..40).map(series).chain([labels("head", 1)]);
        let mine: Vec<_> = mine.filter(|l| engine.key().id(l.as_bytes()).shard(4) == shard).collect();
        assert_eq!(set.len(), mine.len());
        assert!((0..set.len()).all(|i| set.id(i).shard(4) == shard));
        let query = model::LabelQuery { selectors: vec![], range: TimeRange::ALL, limit: None, shards: only };
        assert_eq!(engine.series(&query).unwrap().items.len(), mine.len());
        let values = engine.label_values("i", &query).unwrap().items;
        assert!(mine.iter().all(|l| values.contains(&l.get("i").unwrap().to_string())));
        assert!(values.len() <= mine.len());
        let head = mine.contains(&labels("head", 1));
        let names = engine.label_values("__name__", &query).unwrap().items;
        assert_eq!(names.contains(&"head".to_string()), head);
        assert_eq!(engine.label_names(&query).unwrap().items, ["__name__", "i", "job"]);
    }
}

const MINUTE: i64 = 60_000;
/// A window of ten minutes.
const LONG: i64 = 10 * MINUTE;

/// What happens to an engine whose rows spread over an hour and a half.
#[derive(Clone, Debug)]
enum Deed {
    /// The next scrape of every series, so many seconds later.
    Scrape(i64),
    /// A row that is late, so many seconds before the newest.
    Late(u32, i64, f64),
    /// A row of one of the last scrapes once more.
    Again(u32, usize, f64),
    /// A row with a start timestamp.
    Started(u32, i64),
    /// A row far ahead of the clock, from another node.
    Ahead(u32, i64),
    Maintain,
    FlushAll,
    Restart,
    /// Somebody asks for a window, so that it is remembered.
    Ask(i64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        30 => (1i64..60).prop_map(Deed::Scrape),
        3 => (0..SERIES, 0i64..4000, prop::sample::select(vec![1.0, 2.0])).prop_map(|(s, t, v)| Deed::Late(s, t, v)),
        3 => (0..SERIES, 0usize..8, prop::sample::select(vec![0.0, f64::INFINITY])).prop_map(|(s, n, v)| Deed::Again(s, n, v)),
        1 => (0..SERIES, 0i64..4000).prop_map(|(s, t)| Deed::Started(s, t)),
        1 => (0..SERIES, 0i64..9000).prop_map(|(s, t)| Deed::Ahead(s, t)),
        2 => Just(Deed::Maintain),
        1 => Just(Deed::FlushAll),
        1 => Just(Deed::Restart),
        2 => (0i64..9).prop_map(Deed::Ask),
    ]
}

/// What the engine says that it knows must be what a scan gives.
fn check_known(engine: &Engine, ranges: &[TimeRange]) -> Result<(), TestCaseError> {
    for shard in shards() {
        let scan = |range: TimeRange| -> Digest {
            engine.series_digests(shard, range).unwrap().into_iter().map(|series| series.1).sum()
        };
        for &range in ranges {
            let pieces = engine.summary(shard, range);
            prop_assert!(pieces.is_sorted_by(|a, b| a.0.max < b.0.min), "{:?}", pieces);
            for &(piece, digest) in &pieces {
                prop_assert_eq!(digest, scan(piece), "{:?} of {:?}", piece, range);
            }
            let asked: Vec<_> = pieces.iter().map(|(piece, _)| *piece).chain([range]).collect();
            for (asked, known) in asked.iter().zip(engine.known_digests(shard, &asked)) {
                if let Some(known) = known {
                    prop_assert_eq!(known, scan(*asked), "{:?}", asked);
                }
            }
        }
    }
    Ok(())
}

fn spread_out() -> World {
    let mut world = World::on(Arc::new(CrashVfs::new()));
    world.options.block_window_ms = LONG;
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_known_without_a_scan_is_what_a_scan_gives(
        deeds in prop::collection::vec(deed(), 1..160),
        ranges in prop::collection::vec((0i64..6000, 0i64..6000), 1..6)
    ) {
        let world = spread_out();
        let mut engine = world.open();
        let (mut now, mut scrapes) = (0i64, Vec::new());
        let put = |engine: &Engine, number: u32, t: i64, start: i64, v: f64| {
            append(engine, &Row { series: number, t, start, value: Value::Float(v) }, true);
        };
        for deed in &deeds {
            match *deed {
                Deed::Scrape(seconds) => {
                    now += seconds * 1000;
                    scrapes.push(now);
                    world.set_now(now);
                    (0..SERIES).for_each(|i| put(&engine, i, now + i64::from(i), 0, now as f64));
                }
                Deed::Late(i, seconds, v) => put(&engine, i, (now - seconds * 1000).max(0), 0, v),
                Deed::Again(i, back, v) => {
                    if let Some(at) = scrapes.iter().rev().nth(back) {
                        put(&engine, i, at + i64::from(i), 0, v);
                    }
                }
                Deed::Started(i, seconds) => put(&engine, i, (now - seconds * 1000).max(0), 7, 3.0),
                Deed::Ahead(i, seconds) => put(&engine, i, now + seconds * 1000, 0, 4.0),
                Deed::Maintain => drop(engine.maintain().unwrap()),
                Deed::FlushAll => drop(engine.flush_all().unwrap()),
                Deed::Restart => {
                    engine.close().unwrap();
                    drop(engine);
                    engine = world.open();
                }
                Deed::Ask(window) => {
                    let range = TimeRange::new(window * LONG, (window + 1) * LONG - 1);
                    for shard in shards() {
                        engine.digest(shard, range).unwrap();
                    }
                }
            }
        }
        let ranges = ranges.iter().map(|&(from, len)| TimeRange::new(from * 1000, (from + len) * 1000 + 17));
        check_known(&engine, &ranges.chain([TimeRange::ALL]).collect::<Vec<_>>())?;
    }
}

#[test]
fn rows_that_come_in_order_are_known_whole_also_out_of_blocks_and_after_a_restart() {
    let world = spread_out();
    let mut engine = world.open();
    for scrape in 0..240 {
        let now = scrape * 15_000;
        world.set_now(now);
        (0..40).for_each(|i| write(&engine, &series(i), &[(now + 3, f64::from(i))]));
        engine.maintain().unwrap();
    }
    // The last hour, and all of time; neither begins or ends with a minute.
    for range in [TimeRange::new(2_000, 3_600_001), TimeRange::new(600_007, 3_500_003), TimeRange::ALL] {
        for restarted in [false, true] {
            if restarted {
                engine.close().unwrap();
                drop(engine);
                engine = world.open();
            }
            for shard in shards() {
                let pieces = engine.summary(shard, range);
                let (first, last) = (pieces.first().unwrap().0, pieces.last().unwrap().0);
                assert!(first.min <= range.min && last.max >= range.max, "{restarted} {range:?}: {pieces:?}");
                let is_adjacent =
                    |a: &(TimeRange, Digest), b: &(TimeRange, Digest)| a.0.max.0 + 1 == b.0.min.0;
                assert!(pieces.is_sorted_by(is_adjacent), "{restarted} {range:?}: {pieces:?}");
                assert!((2..=16).contains(&pieces.len()), "few pieces: {pieces:?}");
                let asked: Vec<_> = pieces.iter().map(|(piece, _)| *piece).collect();
                let known = engine.known_digests(shard, &asked);
                assert!(known.iter().zip(&pieces).all(|(known, piece)| *known == Some(piece.1)));
            }
        }
    }
}

#[test]
fn a_row_that_comes_again_when_its_series_has_left_the_head_is_not_counted_twice() {
    let world = spread_out();
    let engine = world.open();
    world.set_now(90_000);
    for number in 0..SERIES {
        append(&engine, &Row { series: number, t: 90_000, start: 0, value: Value::Float(1.0) }, true);
    }
    engine.flush_all().unwrap();
    for (number, value) in [(0, 1.0), (1, 2.0)] {
        append(&engine, &Row { series: number, t: 90_000, start: 0, value: Value::Float(value) }, true);
    }
    check_known(&engine, &[TimeRange::ALL]).unwrap();
}
