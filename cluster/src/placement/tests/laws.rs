//! Each promise as a property of random clusters through random histories.

use super::*;
use proptest::prelude::*;

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Add { zone: u8, rack: u8, capacity: u32 },
    State { node: usize, state: NodeState },
    Capacity { node: usize, capacity: u32 },
    ReplicationFactor(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        Just(NodeState::Up),
        Just(NodeState::Down),
        Just(NodeState::Lost),
        Just(NodeState::Draining),
        Just(NodeState::Gone),
        Just(NodeState::Joining)
    ];
    prop_oneof![
        (0..4u8, 0..3u8, 1..9u32).prop_map(|(zone, rack, capacity)| Event::Add { zone, rack, capacity }),
        (any::<prop::sample::Index>(), state)
            .prop_map(|(node, state)| Event::State { node: node.index(1000), state }),
        (0..1000usize, 1..9u32).prop_map(|(node, capacity)| Event::Capacity { node, capacity }),
        (1..=5u8).prop_map(Event::ReplicationFactor),
    ]
}

fn happen(event: &Event, nodes: &mut Vec<Node>, policy: &mut Policy) {
    let count = nodes.len();
    match *event {
        Event::Add { zone, rack, capacity } => {
            nodes.push(node(count as u128 + 1, &format!("eu/{zone}/{rack}"), capacity));
        }
        Event::State { node, state } => nodes[node % count].state = state,
        Event::Capacity { node, capacity } => {
            nodes[node % count].capacity = NonZeroU32::new(capacity).unwrap()
        }
        Event::ReplicationFactor(factor) => policy.replication_factor = NonZeroU8::new(factor).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn through_any_history_every_promise_holds(
        start in prop::collection::vec((0..4u8, 0..3u8), 1..8),
        events in prop::collection::vec((event(), any::<bool>(), any::<u64>()), 1..12),
    ) {
        let mut nodes: Vec<Node> =
            (1..).zip(&start).map(|(id, (zone, rack))| node(id, &format!("eu/{zone}/{rack}"), 4)).collect();
        let mut policy = policy(3, 16);
        let mut now = fresh(&nodes, &policy);
        for (event, interrupted, choice) in &events {
            happen(event, &mut nodes, &mut policy);
            let target = compute(&now, &nodes, &policy).unwrap();
            check(&now, &nodes, &policy, &target)?;
            let plan = plan(&now, &target, |shard| u64::from(shard.0) + 1);
            prop_assert_eq!(&plan, &super::super::plan(&now, &target, |shard| u64::from(shard.0) + 1));
            let order = |step: &Move| (step.to.is_none(), step.waits, step.to.map_or(0, |_| step.live));
            prop_assert!(plan.moves.is_sorted_by_key(order), "the riskiest first, copies given up last");
            let bytes: u64 = plan.moves.iter().filter(|s| s.to.is_some()).map(|s| u64::from(s.shard.0) + 1).sum();
            prop_assert_eq!(plan.bytes, bytes);
            // Without a move under way the plan makes exactly the copies that are missing.
            if plan.stranded.is_empty() && plan.cancel.is_empty() && plan.moves.iter().all(|s| !s.under_way) {
                prop_assert_eq!(plan.copies(), new_copies(&now.settled(), &target));
            }
            if *interrupted && !plan.moves.is_empty() {
                // Some moves are done, one is under way when the next event comes.
                let mut part = plan.clone();
                part.moves.truncate(*choice as usize % plan.moves.len());
                now = carry_out(&now, &target, &part);
                let next = &plan.moves[part.moves.len()];
                if !next.under_way {
                    now = begin(&now, next).unwrap();
                }
                continue;
            }
            let stranded: BTreeSet<u16> = plan.stranded.iter().map(|shard| shard.0).collect();
            now = carry_out(&now, &target, &plan);
            for (shard, (nodes, wanted)) in ids(&now).iter().zip(&target.shards).enumerate() {
                prop_assert!(stranded.contains(&(shard as u16)) || nodes == wanted, "the plan leads to the target");
            }
            if stranded.is_empty() {
                let again = compute(&now, &nodes, &policy).unwrap();
                prop_assert_eq!(&again.shards, &target.shards, "once there, nothing moves");
            }
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        lost in 0..9usize,
    ) {
        let mut nodes: Vec<Node> = (0..9u8).map(|i| node(u128::from(i) + 1, &format!("z{}", i % 3), 1 + u32::from(i) % 2)).collect();
        let policy = policy(3, 32);
        let now = fresh(&nodes, &policy);
        nodes[lost].state = NodeState::Gone;
        let shuffled: Vec<Node> = order.iter().map(|&i| nodes[i].clone()).collect();
        prop_assert_eq!(compute(&now, &nodes, &policy).unwrap(), compute(&now, &shuffled, &policy).unwrap());
    }
}

/// What the module promises of a target, one sentence after the other.
fn check(old: &Placement, nodes: &[Node], policy: &Policy, target: &Target) -> Result<(), TestCaseError> {
    let wanted = usize::from(policy.replication_factor.get());
    let holders: Vec<Node> = nodes.iter().filter(|node| node.state.has_share()).cloned().collect();
    let zones: BTreeSet<&str> = holders.iter().map(|node| node.domain.segments()[1].as_str()).collect();
    prop_assert_eq!(target.copies, wanted.min(holders.len()));
    prop_assert_eq!(target.shortfall().is_some(), holders.len() < wanted);
    for (replicas, chosen) in old.shards().iter().zip(&target.shards) {
        let unique: BTreeSet<&NodeId> = chosen.iter().collect();
        prop_assert_eq!(unique.len(), chosen.len(), "a node holds a shard once");
        let (regular, staying): (Vec<NodeId>, Vec<NodeId>) =
            chosen.iter().partition(|id| holders.iter().any(|node| node.id == **id));
        prop_assert_eq!(regular.len(), target.copies, "as many copies as possible");
        prop_assert!(chosen.len() <= wanted);
        for id in staying {
            let state = nodes.iter().find(|node| node.id == id).map(|node| node.state);
            let stays = matches!(state, Some(NodeState::Draining | NodeState::Lost));
            prop_assert!(stays, "only what drains or may come back stays beyond its share");
            prop_assert!(replicas.iter().any(|r| r.node == id));
        }
        let spread: BTreeSet<&str> = regular
            .iter()
            .map(|id| nodes.iter().find(|node| node.id == *id).unwrap().domain.segments()[1].as_str())
            .collect();
        prop_assert_eq!(spread.len(), zones.len().min(target.copies), "as many zones as possible");
    }
    for load in &target.loads {
        prop_assert!(load.fair.contains(&load.copies), "{load} holds {} of {:?}", load.copies, load.fair);
        prop_assert!(load.fair.end() - load.fair.start() <= 1);
    }
    Ok(())
}
