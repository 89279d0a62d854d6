//! Replicas that lie, are damaged, slow, or know another placement.

use super::*;
use crate::read::wire::{Chunk, VERSION};
use model::Damage;

/// Three copies of a series, of which this node lacks a sample.
fn world() -> World {
    let world = World::new(3, 3, 1);
    for (node, memory) in &world.nodes {
        memory.put(&series(1), &[(10, 1.0)]);
        if *node != ME {
            memory.put(&series(1), &[(20, 2.0)]);
            memory.put(&series(2), &[(30, 3.0)]);
        }
    }
    world
}

fn refused(tamper: Tamper, why: &str) {
    for liar in [2, 3] {
        let mut world = world();
        world.tamper = Some((NodeId(liar), tamper));
        let set = world.select(world.plan(), &mut order(liar as u64)).unwrap();
        assert_eq!(content(&set).len(), 3, "the other one is believed");
        // Without it, nothing is left.
        world.fates.insert(NodeId(5 - liar), Fate::Gone);
        let error = world.select(world.plan(), &mut order(liar as u64)).err().unwrap().to_string();
        assert!(error.contains(why) && error.contains(&format!("node-{liar}:7421")), "{error}");
    }
}

fn is(chunk: &[u8], kind: u8) -> bool {
    chunk.first() == Some(&kind)
}

#[test]
fn bytes_that_make_no_sense_are_no_answer() {
    refused(|chunk| chunk[0] = b'?', "malformed");
    refused(|chunk| chunk.truncate(chunk.len() - 1), "malformed");
    refused(|chunk| chunk.clear(), "malformed");
}

#[test]
fn an_answer_that_says_less_than_it_should_is_no_answer() {
    // The digests are left out, but not the count of them.
    refused(
        |chunk| {
            if is(chunk, b'D') {
                chunk.truncate(1);
            }
        },
        "a part of it is missing",
    );
    // The header says that no shard is answered.
    refused(
        |chunk| {
            if is(chunk, b'H') {
                *chunk = Chunk::Header { shards: Default::default(), refused: vec![] }.encode();
            }
        },
        "refused",
    );
}

#[test]
fn rows_of_series_that_were_not_asked_for_are_refused() {
    // The labels in the rows are changed: they are another series then, whatever the id was.
    let other = |chunk: &mut Vec<u8>| {
        if is(chunk, b'S') {
            let at = chunk.windows(3).position(|w| w == [1, b's', 0x12]);
            if let Some(at) = at {
                let value = at + 4;
                chunk[value] = b'9';
            }
        }
    };
    refused(other, "its answer was refused");
}

#[test]
fn a_series_given_twice_is_refused() {
    refused(
        |chunk| {
            if is(chunk, b'D') && chunk.len() > 48 {
                let first = chunk[1..25].to_vec();
                chunk[25..49].copy_from_slice(&first);
            }
        },
        "twice",
    );
}

#[test]
fn too_much_is_a_limit_that_is_named() {
    let world = world();
    let error = world.select_within(world.plan(), 60, &mut order(1)).err().unwrap();
    assert!(error.to_string().contains("limits.query_fetch_bytes_max"), "{error}");
}

#[test]
fn a_replica_under_another_placement_is_no_answer() {
    let mut world = world();
    let mut older = world.view.clone();
    older.placement = crate::placement::Placement::empty(1).unwrap();
    world.views.insert(NodeId(2), older.clone());
    assert_eq!(content(&world.select(world.plan(), &mut order(1)).unwrap()).len(), 3);
    world.views.insert(NodeId(3), older);
    let error = world.select(world.plan(), &mut order(1)).err().unwrap().to_string();
    assert!(error.contains("knows only the older placement 0"), "{error}");
}

#[test]
fn a_damaged_copy_counts_only_where_there_is_no_other() {
    let damage = |range| Damage { number: 1, shard: Shard(0), range, what: "page 7".into() };
    let mut world = world();
    world.nodes[&NodeId(2)].damage_at(damage(RANGE));
    assert_eq!(content(&world.select(world.plan(), &mut order(1)).unwrap()).len(), 3);
    assert!(world.log.borrow().iter().any(|(node, _)| *node == NodeId(3)));
    world.fates.insert(NodeId(3), Fate::Silent);
    let error = world.select(world.plan(), &mut order(1)).err().unwrap().to_string();
    assert!(error.contains("damaged: page 7") && error.contains("timed out"), "{error}");
    let plan = Plan { partial: true, ..world.plan() };
    let set = world.select(plan, &mut order(1)).unwrap();
    assert!(
        set.warnings().iter().any(|w| w.starts_with("samples may be missing: shard 0 ")),
        "{:?}",
        set.warnings()
    );

    // The only copy, and another time that is not read.
    let alone = World::new(1, 1, 1);
    alone.nodes[&ME].put(&series(1), &[(10, 1.0)]);
    alone.nodes[&ME].damage_at(damage(TimeRange::new(2_000_000, 3_000_000)));
    assert!(alone.select(alone.plan(), &mut order(1)).unwrap().warnings().is_empty());
    alone.nodes[&ME].damage_at(damage(RANGE));
    let set = alone.select(alone.plan(), &mut order(1)).unwrap();
    assert_eq!(content(&set).len(), 1);
    assert_eq!(set.warnings(), ["shard 0: samples may be missing: node-1:7421 has damaged data"]);
}

#[test]
fn who_is_silent_is_hedged_and_not_waited_for() {
    let mut world = world();
    for silent in [2, 3] {
        world.fates = BTreeMap::from([(NodeId(silent), Fate::Silent)]);
        // The deadline is far away: if it were waited for, the answer would be another.
        let plan = Plan { deadline_ms: u64::MAX, ..world.plan() };
        assert_eq!(content(&world.select(plan, &mut order(1)).unwrap()).len(), 3);
    }
}

/// A select up to the fetch of what this node lacks, which is left open; what the fetch asks for, and of whom.
fn fetching(world: &World) -> (Select, u32, NodeId, Vec<u8>) {
    let matchers = vec![Matcher::equal("__name__", "m")];
    let selection = Selection { matchers, range: RANGE, series_max: 1000, shards: None };
    let plan = Plan { deadline_ms: 60_000, ..world.plan() };
    let bounds = Bounds { fetch_bytes_max: 1 << 20 };
    let mut select = Select::new(Arc::new(world.view.clone()), selection, plan, bounds);
    let mut todo: VecDeque<Effect> = select.step(0, Event::Tick).into();
    while let Some(effect) = todo.pop_front() {
        match effect {
            Effect::Own(ask) => {
                let answer = ask.perform(&world.view, &world.nodes[&ME], 1, &|| false);
                todo.extend(select.step(0, Event::Own { number: ask.number, answer }));
            }
            Effect::Send { number, to, request, .. } => {
                if let Body::Fetch { .. } = Request::decode(&request).unwrap().body {
                    return (select, number, to, request);
                }
                for chunk in world.answer(to, &request).into_iter().flatten() {
                    todo.extend(select.step(0, Event::Chunk { number, bytes: chunk }));
                }
            }
        }
    }
    panic!("nothing was fetched");
}

#[test]
fn a_slow_fetch_is_waited_for_where_there_is_nobody_else() {
    let mut world = world();
    // One of three is known to be away.
    for node in [NodeId(2), NodeId(3)] {
        world.view.nodes.get_mut(&node).unwrap().health = crate::view::Health::Up;
    }
    world.view.nodes.get_mut(&NodeId(3)).unwrap().health = crate::view::Health::Down;
    let (mut select, number, to, request) = fetching(&world);
    assert_eq!(to, NodeId(2));
    for now in [100, 1_000, 10_000, 30_000] {
        assert!(select.wake_at_ms() > now && select.step(now, Event::Tick).is_empty() && !select.is_done());
    }
    for chunk in world.answer(to, &request).into_iter().flatten() {
        select.step(30_001, Event::Chunk { number, bytes: chunk });
    }
    assert_eq!(content(&select.finish().unwrap()).len(), 3);
}

#[test]
fn a_silent_fetch_is_given_up_where_another_copy_is_well() {
    let world = world();
    let (mut select, _, to, _) = fetching(&world);
    assert!(select.step(500, Event::Tick).is_empty(), "half a second is not long");
    let wake = select.wake_at_ms();
    assert!(wake < 5_000);
    let asked = select.step(wake, Event::Tick);
    assert!(matches!(&asked[..], [Effect::Send { to: other, .. }] if *other != to), "{asked:?}");
    assert!(!select.is_done());
}

#[test]
fn requests_round_trip_and_every_cut_is_refused() {
    let matchers =
        vec![Matcher::equal("a", "b"), Matcher::new("c", model::MatchOp::NotMatches, "x.*|\\d").unwrap()];
    let shards: model::ShardSet = [0, 3, 64, 65_535].map(Shard).into_iter().collect();
    let selection = Selection {
        matchers: matchers.clone(),
        range: TimeRange::ALL,
        series_max: 500_000,
        shards: Some(shards.clone()),
    };
    let query =
        LabelQuery { selectors: vec![matchers, vec![]], range: RANGE, limit: Some(0), shards: Some(shards) };
    let group =
        Group { shard: Shard(9), labels: true, series: vec![model::SeriesId(1), model::SeriesId(u128::MAX)] };
    for body in [
        Body::Select { selection, mode: Mode::Digests, damaged: true, summaries: Summaries::new() },
        Body::Fetch { range: RANGE, groups: vec![group] },
        Body::Lookup { what: What::Values("é".into()), query, damaged: false },
        Body::Metadata { family: Some("up".into()) },
        Body::Metadata { family: None },
    ] {
        let request = Request { epoch: 1 << 40, timeout_ms: 30_000, body };
        let bytes = request.encode();
        let again = Request::decode(&bytes).unwrap();
        assert_eq!(format!("{request:?}"), format!("{again:?}"));
        assert_eq!(again.encode(), bytes);
        assert_eq!(bytes[0], VERSION);
        for cut in 0..bytes.len() {
            assert!(Request::decode(&bytes[..cut]).is_err(), "{cut} of {}", bytes.len());
        }
    }
}

#[test]
fn digests_of_an_own_copy_that_was_given_up_meanwhile_are_passed_over() {
    let world = World::new(3, 3, 4);
    let selection = Selection { matchers: vec![], range: RANGE, series_max: 10, shards: None };
    let bounds = Bounds { fetch_bytes_max: 1 << 20 };
    let mut select = Select::new(Arc::new(world.view.clone()), selection, world.plan(), bounds);
    select.step(0, Event::Tick);
    // Of two stretches that were hashed one could not be read, and the other one comes after that.
    let fails = || OwnAnswer::Digests(Err(Error::Canceled));
    select.step(0, Event::Own { number: 0, answer: fails() });
    assert!(select.step(0, Event::Own { number: 1, answer: OwnAnswer::Digests(Ok(vec![7])) }).is_empty());
    assert!(!select.is_done());
}
