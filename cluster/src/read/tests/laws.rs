//! What holds whoever fails, and in whatever order answers arrive.

use super::*;
use proptest::prelude::*;

/// A row that was acknowledged: which series, when, what, and where it is missing.
#[derive(Clone, Debug)]
struct Row {
    series: u32,
    time: i64,
    value: f64,
    missing: usize,
}

fn row() -> impl Strategy<Value = Row> {
    (0u32..12, 0i64..80, 0u8..4, any::<usize>()).prop_map(|(series, time, value, missing)| Row {
        series,
        time,
        value: f64::from(value) + 0.5,
        missing,
    })
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Well),
        1 => Just(Fate::Gone),
        1 => Just(Fate::Silent),
        1 => (0u32..3).prop_map(Fate::GoesAfter),
        1 => Just(Fate::CutOff),
    ]
}

/// Puts every row on a majority of its shard's replicas; gives what a read must see.
fn fill(world: &World, rows: &[Row]) -> Content {
    let mut expected = Content::new();
    for row in rows {
        let labels = series(row.series);
        let mut replicas = world.replicas(world.shard(&labels));
        let missing = row.missing % (replicas.len() - replicas.len() / 2);
        let turn = row.missing / 7 % replicas.len();
        replicas.rotate_left(turn);
        for node in &replicas[missing..] {
            world.nodes[node].put(&labels, &[(row.time, row.value)]);
        }
        let best = expected.entry((labels.to_string(), row.time)).or_insert(row.value.to_bits());
        *best = (*best).max(row.value.to_bits());
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_read_of_a_majority_sees_what_was_acknowledged_or_says_which_shards_it_cannot_read(
        nodes in 3u128..7, factor in 1u8..6, rows in prop::collection::vec(row(), 0..60),
        fates in prop::collection::vec(fate(), 6), own_fails in prop::bool::weighted(0.1), seed in any::<u64>(),
        silent in prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 6),
    ) {
        let mut world = World::new(nodes, factor.min(nodes as u8), 4);
        let expected = fill(&world, &rows);
        for (node, silent) in world.nodes.values().zip(silent) {
            node.forget_digests((0..4).filter(|shard| silent >> shard & 1 == 1).map(Shard).collect());
        }
        world.fates = (2..=nodes).map(NodeId).zip(fates).collect();
        if own_fails {
            world.nodes[&ME].fail(Some(Error::Canceled));
        }
        let is_well = |node: NodeId| if node == ME { !own_fails } else { world.fate(node) == Fate::Well };
        let may_fail = |node: NodeId| if node == ME { own_fails } else { world.fate(node) != Fate::Well };
        let lacking = |shard: u16| {
            let replicas = world.replicas(Shard(shard));
            replicas.iter().filter(|node| is_well(**node)).count() < replicas.len() / 2 + 1
        };
        let lacking: Vec<u16> = (0..4).filter(|shard| lacking(*shard)).collect();
        match world.select(world.plan(), &mut order(seed)) {
            Ok(set) => {
                prop_assert_eq!(content(&set), expected.clone());
                prop_assert!(set.warnings().is_empty());
            }
            Err(Error::Unavailable { shards, have, need, missing }) => {
                prop_assert!(!shards.is_empty() && shards.iter().all(|shard| lacking.contains(shard)));
                prop_assert!(have < need && !missing.is_empty());
                let failed = world.view.nodes.iter().filter(|(id, _)| may_fail(**id));
                let names: Vec<&str> = failed.map(|(_, peer)| &peer.address[..]).collect();
                for name in &missing {
                    prop_assert!(names.iter().any(|n| name.starts_with(n)), "{} is well", name);
                }
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        let plan = Plan { partial: true, ..world.plan() };
        let set = world.select(plan, &mut order(!seed)).unwrap();
        let partial = content(&set);
        prop_assert!(partial.keys().all(|key| expected.contains_key(key)), "nothing is invented");
        let shard_of = |key: &str| (0..12).map(series).find(|s| s.to_string() == key).map(|s| world.shard(&s).0);
        for ((labels, time), bits) in &expected {
            let shard = shard_of(labels).unwrap();
            if !lacking.contains(&shard) {
                prop_assert_eq!(partial.get(&(labels.clone(), *time)), Some(bits));
            }
        }
        let mut named: Vec<u16> = Vec::new();
        for warning in set.warnings() {
            let shards = warning.strip_prefix("samples may be missing: shard").and_then(|rest| rest.split_once(" ha"));
            let (shards, _) = shards.unwrap_or_else(|| panic!("{warning}"));
            named.extend(shards.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u16>().ok()));
        }
        // A node that goes may have answered before.
        prop_assert!(named.iter().all(|shard| lacking.contains(shard)), "{:?} of {:?}", named, lacking);
        for ((labels, time), bits) in &expected {
            let is_there = partial.get(&(labels.clone(), *time)) == Some(bits);
            prop_assert!(is_there || named.contains(&shard_of(labels).unwrap()), "{} is missed in silence", labels);
        }
    }

    #[test]
    fn a_lookup_of_a_majority_finds_every_series_that_was_acknowledged(
        nodes in 3u128..7, rows in prop::collection::vec(row(), 0..40), gone in 2u128..7,
        limit in prop::option::of(0usize..8), seed in any::<u64>(),
    ) {
        let mut world = World::new(nodes, 3, 4);
        let expected = fill(&world, &rows);
        world.fates.insert(NodeId(gone), Fate::Gone);
        let mut names: Vec<Labels> = (0..12).map(series).collect();
        names.retain(|labels| expected.keys().any(|(known, _)| *known == labels.to_string()));
        names.sort();
        let found = world.lookup(What::Series, limit, world.plan(), &mut order(seed)).series().unwrap();
        let limit = limit.unwrap_or(usize::MAX);
        prop_assert_eq!(found.truncated, names.len() > limit);
        names.truncate(limit);
        prop_assert_eq!(found.items, names);
    }

    #[test]
    fn all_copies_are_read_when_asked_for(
        rows in prop::collection::vec(row(), 0..40), extra in prop::collection::vec((row(), 1u128..4), 0..10),
        seed in any::<u64>(),
    ) {
        let world = World::new(3, 3, 4);
        let mut expected = fill(&world, &rows);
        for (row, node) in extra {
            world.nodes[&NodeId(node)].put(&series(row.series), &[(row.time, row.value)]);
            let best = expected.entry((series(row.series).to_string(), row.time)).or_insert(0);
            *best = (*best).max(row.value.to_bits());
        }
        let plan = Plan { consistency: Consistency::All, ..world.plan() };
        prop_assert_eq!(content(&world.select(plan, &mut order(seed)).unwrap()), expected);
    }
}
