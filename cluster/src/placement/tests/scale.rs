//! Large clusters: proved minimal by the flow's potentials (checked in every computation under test) and by a bound that needs no flow.

use super::*;

/// 100 nodes in 5 zones of 4 racks, of three sizes.
fn hundred() -> Vec<Node> {
    let place = |i: u128| format!("eu/zone-{}/rack-{}", i % 5, i / 5 % 4);
    (0..100).map(|i| node(i + 1, &place(i), [2, 3, 4][i as usize % 3])).collect()
}

/// Copies that must be made whatever one does: what the nodes below their shares lack, and what those above must pass on.
fn bound(old: &Placement, target: &Target) -> u64 {
    let held = held(&ids(old));
    let nodes = || target.loads.iter().filter_map(|load| Some((load.node?, load)));
    let has = |node: NodeId| held.get(&node.0).copied().unwrap_or(0);
    let lacking: u64 = nodes().map(|(node, load)| load.fair.start().saturating_sub(has(node))).sum();
    let kept: u64 = nodes().map(|(node, load)| has(node).min(*load.fair.end())).sum();
    lacking.max(target.loads[0].copies - kept)
}

#[test]
fn a_hundred_nodes_change_with_the_fewest_copies() {
    let policy = policy(3, 1024);
    let mut nodes = hundred();
    let now = fresh(&nodes, &policy);
    let unchanged = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(new_copies(&now, &unchanged), 0);

    nodes[41].state = NodeState::Gone;
    let lost = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(new_copies(&now, &lost) as u64, bound(&now, &lost), "only what was lost is copied");
    let healed = move_to(&now, &lost);

    nodes.push(node(101, "eu/zone-1/rack-0", 4));
    nodes.push(node(102, "eu/zone-5/rack-0", 4));
    let grown = compute(&healed, &nodes, &policy).unwrap();
    assert_eq!(
        new_copies(&healed, &grown) as u64,
        bound(&healed, &grown),
        "only what the new ones hold is copied"
    );
    move_to(&healed, &grown);
}

#[test]
fn the_copies_of_a_lost_node_are_rebuilt_by_many_from_many() {
    let policy = policy(3, 1024);
    let mut nodes = hundred();
    let now = fresh(&nodes, &policy);
    let peers: BTreeSet<NodeId> = now
        .shards()
        .iter()
        .filter(|replicas| replicas.iter().any(|r| r.node == NodeId(1)))
        .flat_map(|replicas| replicas.iter().map(|r| r.node))
        .collect();
    assert!(peers.len() > 25, "{} nodes share a shard with node 1", peers.len());
    nodes[0].state = NodeState::Gone;
    let plan = plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1);
    let receivers: BTreeSet<NodeId> = plan.moves.iter().filter_map(|step| step.to).collect();
    assert!(receivers.len() > 10, "{} nodes receive {} copies", receivers.len(), plan.copies());
}
