//! Small cases against exhaustive search that shares no code with the computation.

use super::*;
use proptest::prelude::*;

/// Every set of so many of the nodes, as bits.
fn subsets(nodes: usize, copies: usize) -> Vec<u32> {
    (0..1u32 << nodes).filter(|set| set.count_ones() as usize == copies).collect()
}

/// Every best-spread way to hold one shard.
fn best_spread(nodes: &[Node], copies: usize) -> Vec<u32> {
    let chosen = |set: &u32| -> Vec<NodeId> {
        (0..nodes.len()).filter(|i| set >> i & 1 == 1).map(|i| nodes[i].id).collect()
    };
    let all = subsets(nodes.len(), copies);
    let best = all.iter().map(|set| pairs(&chosen(set), nodes)).min().unwrap();
    all.into_iter().filter(|set| pairs(&chosen(set), nodes) == best).collect()
}

/// The largest total that a set of nodes can hold.
fn most(ways: &[u32], set: u32, shards: u64) -> u64 {
    u64::from(ways.iter().map(|way| (way & set).count_ones()).max().unwrap()) * shards
}

/// Fair shares as exact fractions over a common denominator, by the definition of the best: the set of nodes that cannot be
/// loaded less than the rest is cut off, greatest load first.
///
/// Which sets are forced to be the most loaded: those for which (least that they must hold) / capacity is greatest. The maximal one holds exactly
/// that least, evenly; the rest goes on with what remains.
fn fair(nodes: &[Node], ways: &[u32], shards: u64) -> Vec<(u128, u128)> {
    let all = (1u32 << nodes.len()) - 1;
    let capacity = |set: u32| -> u128 {
        (0..nodes.len()).filter(|i| set >> i & 1 == 1).map(|i| u128::from(nodes[i].capacity.get())).sum()
    };
    let total = most(ways, all, shards);
    let least = |set: u32| total - most(ways, all & !set, shards);
    let mut shares = vec![(0, 1); nodes.len()];
    let mut done = 0u32;
    while done != all {
        let candidates = (1..=all).filter(|set| set & done == 0);
        let forced = |set: u32| u128::from(least(set | done) - least(done));
        let densest = candidates.max_by(|&a, &b| {
            let load = (forced(a) * capacity(b)).cmp(&(forced(b) * capacity(a)));
            load.then(a.count_ones().cmp(&b.count_ones()))
        });
        let set = densest.unwrap();
        for i in (0..nodes.len()).filter(|i| set >> i & 1 == 1) {
            shares[i] = (forced(set) * u128::from(nodes[i].capacity.get()), capacity(set));
        }
        done |= set;
    }
    shares
}

/// What a move turned back counts, in the unit of a thousandth of a new copy.
const TURNED_BACK: usize = 1;
const NEW_COPY: usize = 1000;

/// What it costs that a shard has a copy on the node.
fn cost(replicas: &[Replica], node: NodeId) -> usize {
    match replicas.iter().find(|r| r.node == node).map(|r| r.state) {
        None => NEW_COPY,
        Some(ReplicaState::Leaving) => TURNED_BACK,
        Some(_) => 0,
    }
}

/// The fewest copies to be made, and moves under way turned back, over every placement that keeps to the spread and whose nodes and domains have their fair
/// shares rounded down or up: by dynamic programming over what the nodes hold.
fn fewest(old: &Placement, nodes: &[Node], ways: &[u32], shares: &[(u128, u128)]) -> Option<usize> {
    let mut reached: BTreeMap<Vec<u64>, usize> = BTreeMap::from([(vec![0; nodes.len()], 0)]);
    for replicas in old.shards() {
        let mut next: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
        for (loads, cost) in &reached {
            for way in ways {
                let mut loads = loads.clone();
                let mut cost = *cost;
                for i in (0..nodes.len()).filter(|i| way >> i & 1 == 1) {
                    loads[i] += 1;
                    cost += self::cost(replicas, nodes[i].id);
                }
                next.entry(loads).and_modify(|known| *known = cost.min(*known)).or_insert(cost);
            }
        }
        reached = next;
    }
    let mut prefixes: BTreeSet<Vec<String>> = BTreeSet::new();
    for node in nodes {
        let path = node.domain.segments();
        prefixes.extend((0..=path.len()).map(|depth| path[..depth].to_vec()));
    }
    let mut groups: Vec<Vec<usize>> = (0..nodes.len()).map(|i| vec![i]).collect();
    groups.extend(prefixes.iter().map(|prefix| {
        (0..nodes.len()).filter(|&i| nodes[i].domain.segments().starts_with(prefix)).collect()
    }));
    let rounded = |loads: &[u64]| {
        groups.iter().all(|group| {
            let denominator: u128 = group.iter().map(|&i| shares[i].1).product();
            let share: u128 = group.iter().map(|&i| shares[i].0 * (denominator / shares[i].1)).sum();
            let load: u128 = group.iter().map(|&i| u128::from(loads[i])).sum();
            (share / denominator..=share.div_ceil(denominator)).contains(&load)
        })
    };
    reached.iter().filter(|(loads, _)| rounded(loads)).map(|(_, cost)| *cost).min()
}

const DOMAINS: [&str; 9] = ["a", "b", "c", "a/x", "a/y", "b/x", "b/y/1", "c/z", ""];

prop_compose! {
    fn some_nodes(most: usize)(
        parts in prop::collection::vec((0..DOMAINS.len(), prop_oneof![Just(1u32), 1..7u32]), 1..=most)
    ) -> Vec<Node> {
        (1..).zip(parts).map(|(id, (domain, capacity))| node(id, DOMAINS[domain], capacity)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_placement_is_better_than_the_computed_one(
        nodes in some_nodes(5),
        replication_factor in 1..=4u8,
        bits in 0..=3u32,
        before in prop::collection::vec((0..1u32 << 6, prop::bool::weighted(0.3)), 8),
    ) {
        let shards = 1 << bits;
        // Any former placement at all, on these nodes and on one that is no longer there.
        let former = before[..shards as usize].iter().map(|&(set, moving)| {
            let members = (0..6).filter(|i| set >> i & 1 == 1);
            let mut replicas: Vec<Replica> =
                members.map(|i| Replica { node: NodeId(i + 1), state: ReplicaState::Available }).collect();
            if let ([first, .., last], true) = (&mut replicas[..], moving) {
                first.state = ReplicaState::Leaving;
                last.state = ReplicaState::Initializing { source: Some(first.node) };
            }
            replicas
        });
        let old = Placement::from_parts(7, former.collect(), vec![0; shards as usize]);
        let copies = nodes.len().min(usize::from(replication_factor));
        let target = compute(&old, &nodes, &policy(replication_factor, shards)).unwrap();

        let ways = best_spread(&nodes, copies);
        for chosen in &target.shards {
            let bit = |id: &NodeId| 1 << nodes.iter().position(|node| node.id == *id).unwrap();
            let set: u32 = chosen.iter().map(bit).sum();
            prop_assert!(ways.contains(&set), "{chosen:?} is not a best spread");
        }
        let shares = fair(&nodes, &ways, u64::from(shards));
        for (i, node) in nodes.iter().enumerate() {
            let load = target.loads.iter().find(|load| load.node == Some(node.id)).unwrap();
            let (numerator, denominator) = shares[i];
            let expected = (numerator / denominator) as u64..=numerator.div_ceil(denominator) as u64;
            prop_assert_eq!(&load.fair, &expected, "share of {}", node.id);
            prop_assert!(load.fair.contains(&load.copies));
        }
        let fewest = fewest(&old, &nodes, &ways, &shares);
        let all = old.shards().iter().zip(&target.shards);
        let made = all.flat_map(|(replicas, chosen)| chosen.iter().map(|&node| cost(replicas, node)));
        prop_assert_eq!(Some(made.sum::<usize>()), fewest);
    }
}
