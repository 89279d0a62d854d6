//! What operators do and what happens to them, told one by one.

use super::*;

const SIX: [&str; 6] = ["eu/a", "eu/a", "eu/b", "eu/b", "eu/c", "eu/c"];

fn set_state(nodes: &mut [Node], ids: &[u128], state: NodeState) {
    nodes.iter_mut().filter(|node| ids.contains(&node.id.0)).for_each(|node| node.state = state);
}

/// Shards by how many of their copies each zone holds, zones ordered.
fn zones(shards: &[Vec<NodeId>], nodes: &[Node]) -> BTreeMap<Vec<usize>, usize> {
    let names: BTreeSet<&str> = nodes.iter().map(|node| node.domain.segments()[1].as_str()).collect();
    let zone = |id: &NodeId| nodes.iter().find(|node| node.id == *id).unwrap().domain.segments()[1].as_str();
    let mut counts = BTreeMap::new();
    for chosen in shards {
        let count: Vec<usize> =
            names.iter().map(|name| chosen.iter().filter(|id| zone(id) == *name).count()).collect();
        *counts.entry(count).or_default() += 1;
    }
    counts
}

fn reasons(plan: &Plan) -> BTreeSet<String> {
    plan.moves.iter().map(|step| step.reason.to_string()).collect()
}

#[test]
fn three_zones_of_two_nodes_hold_one_copy_each() {
    let nodes = nodes(&SIX);
    let placement = fresh(&nodes, &policy(3, 64));
    assert_eq!(placement.epoch(), 1);
    assert_eq!(zones(&ids(&placement), &nodes), BTreeMap::from([(vec![1, 1, 1], 64)]));
    assert!(held(&ids(&placement)).values().all(|&copies| copies == 32));
}

#[test]
fn a_lost_node_is_healed_by_the_other_in_its_zone() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[3], NodeState::Gone);
    let target = compute(&now, &nodes, &policy).unwrap();
    let plan = plan(&now, &target, |_| 1000);
    assert_eq!((plan.copies(), plan.bytes, plan.fewest_live), (32, 32_000, 2));
    assert!(plan.moves.iter().all(|step| step.from == Some(NodeId(3)) && step.to == Some(NodeId(4))));
    assert_eq!(reasons(&plan), BTreeSet::from(["node 3 is gone".to_owned()]));
    let healed = move_to(&now, &target);
    assert_eq!(zones(&ids(&healed), &nodes), BTreeMap::from([(vec![1, 1, 1], 64)]));
}

#[test]
fn a_node_that_is_away_for_a_while_moves_nothing() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[3], NodeState::Down);
    let target = compute(&now, &nodes, &policy).unwrap();
    let plan = plan(&now, &target, |_| 1);
    assert_eq!((plan.moves.len(), plan.fewest_live), (0, 2));
}

#[test]
fn a_lost_zone_is_healed_inside_the_others_and_moves_back_on_return() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[5, 6], NodeState::Gone);
    let target = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(target.shortfall(), None);
    let two =
        target.loads.iter().find(|load| load.domain.to_string() == "eu/a" && load.node.is_none()).unwrap();
    assert_eq!(two.per_shard, 1..=2, "the plan says that the spread is soft");
    let healed = move_to(&now, &target);
    assert_eq!(zones(&ids(&healed), &nodes), BTreeMap::from([(vec![1, 2, 0], 32), (vec![2, 1, 0], 32)]));
    assert!(held(&ids(&healed)).values().all(|&copies| copies == 48));

    set_state(&mut nodes, &[5, 6], NodeState::Up);
    let target = compute(&healed, &nodes, &policy).unwrap();
    let plan = plan(&healed, &target, |_| 1);
    assert_eq!(plan.copies(), 64, "one copy of each shard goes back");
    assert_eq!(plan.fewest_live, 3);
    assert_eq!(
        reasons(&plan),
        BTreeSet::from([
            "domain eu/a holds 2 copies of the shard and should hold 1".to_owned(),
            "domain eu/b holds 2 copies of the shard and should hold 1".to_owned()
        ])
    );
    let back = move_to(&healed, &target);
    assert_eq!(zones(&ids(&back), &nodes), BTreeMap::from([(vec![1, 1, 1], 64)]));
}

#[test]
fn a_new_node_takes_its_share_from_its_zone_and_nothing_else_moves() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    nodes.push(node(7, "eu/b", 1));
    let target = compute(&now, &nodes, &policy).unwrap();
    let plan = plan(&now, &target, |_| 1);
    assert_eq!(plan.copies(), 21, "a third of the zone's 64, rounded down");
    assert!(plan.moves.iter().all(|step| step.to == Some(NodeId(7))));
    assert!(
        reasons(&plan).iter().all(|why| why.ends_with("over its share by 10 shards")),
        "{:?}",
        reasons(&plan)
    );
    move_to(&now, &target);
}

#[test]
fn a_fourth_zone_takes_from_all_three() {
    let mut nodes = nodes(&["a", "b", "c"]);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    nodes.push(node(4, "d", 1));
    let target = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(plan(&now, &target, |_| 1).copies(), 48);
    let spread = move_to(&now, &target);
    assert!(held(&ids(&spread)).values().all(|&copies| copies == 48));
}

#[test]
fn a_node_that_joins_gets_nothing_until_it_is_up() {
    let mut nodes = nodes(&["a", "b", "c"]);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    nodes.push(Node { state: NodeState::Joining, ..node(4, "d", 1) });
    assert_eq!(plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1).moves, []);
}

#[test]
fn a_draining_node_is_emptied_with_all_copies_live() {
    let mut nodes = nodes(&["a", "a", "b", "b", "c", "c"]);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[1], NodeState::Draining);
    let target = compute(&now, &nodes, &policy).unwrap();
    let plan = plan(&now, &target, |_| 1);
    assert_eq!((plan.copies(), plan.fewest_live), (32, 3));
    assert_eq!(reasons(&plan), BTreeSet::from(["node 1 is draining".to_owned()]));
    assert!(!held(&ids(&move_to(&now, &target))).contains_key(&1));
}

#[test]
fn a_node_that_cannot_be_emptied_keeps_its_copies_and_says_so() {
    let mut nodes = nodes(&["a", "b", "c"]);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[1], NodeState::Draining);
    let target = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(plan(&now, &target, |_| 1).moves, [], "three copies are safer than two");
    assert_eq!(target.shortfall().unwrap(), "replication factor 3 with 2 nodes to hold copies: add 1");
}

#[test]
fn a_replacement_takes_over_what_the_lost_node_held_and_nothing_else_moves() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    set_state(&mut nodes, &[3], NodeState::Gone);
    nodes.push(node(7, "eu/b", 1));
    let target = compute(&now, &nodes, &policy).unwrap();
    let plan = plan(&now, &target, |_| 1);
    assert_eq!(plan.copies(), 32);
    assert!(plan.moves.iter().all(|step| (step.from, step.to) == (Some(NodeId(3)), Some(NodeId(7)))));
    move_to(&now, &target);
}

#[test]
fn a_larger_disk_takes_its_part_of_the_zone() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    nodes[2].capacity = NonZeroU32::new(3).unwrap();
    let target = compute(&now, &nodes, &policy).unwrap();
    assert_eq!(plan(&now, &target, |_| 1).copies(), 16);
    let held = held(&ids(&move_to(&now, &target)));
    assert_eq!((held[&3], held[&4], held[&1]), (48, 16, 32), "each zone still has one copy of all");
}

#[test]
fn more_copies_are_added_and_the_existing_ones_stay() {
    let nodes = nodes(&["a", "b", "c", "d", "e"]);
    let one = fresh(&nodes[..1], &policy(1, 64));
    let target = compute(&one, &nodes[..3], &policy(3, 64)).unwrap();
    let to_three = plan(&one, &target, |_| 1);
    assert_eq!((to_three.moves.len(), to_three.fewest_live), (128, 1));
    assert!(to_three.moves.iter().all(|step| step.from.is_none()));
    let (first, second) = to_three.moves.split_at(64);
    assert!(first.iter().all(|step| step.live == 1) && second.iter().all(|step| step.live == 2));
    assert!(reasons(&to_three).contains("the shard has 1 of 3 copies"));

    let three = move_to(&one, &target);
    let target = compute(&three, &nodes, &policy(5, 64)).unwrap();
    assert_eq!(plan(&three, &target, |_| 1).copies(), 128);
    let five = move_to(&three, &target);

    let target = compute(&five, &nodes, &policy(3, 64)).unwrap();
    let back = plan(&five, &target, |_| 1);
    assert_eq!((back.copies(), back.moves.len(), back.bytes, back.fewest_live), (0, 128, 0, 3));
    assert_eq!(back.moves[0].reason.to_string(), "the shard has 5 copies and needs 3");
    move_to(&five, &target);
}

#[test]
fn uneven_zones_hold_a_copy_each_all_the_same() {
    let nodes = nodes(&["a", "a", "a", "a", "b", "c"]);
    let placement = fresh(&nodes, &policy(3, 64));
    let held = held(&ids(&placement));
    assert_eq!(held.values().copied().collect::<Vec<_>>(), [16, 16, 16, 16, 64, 64]);
}

#[test]
fn capacities_that_the_spread_forbids_give_the_best_that_is_possible() {
    // Node 1 alone could hold all that the others cannot, but only one copy of each shard.
    let nodes = [node(1, "", 100), node(2, "", 1), node(3, "", 1), node(4, "", 2)];
    let held = held(&ids(&fresh(&nodes, &policy(2, 64))));
    assert_eq!(held.values().copied().collect::<Vec<_>>(), [64, 16, 16, 32]);
}

#[test]
fn more_zones_than_copies_share_by_capacity() {
    let nodes = [node(1, "a", 2), node(2, "b", 1), node(3, "c", 1), node(4, "d", 1), node(5, "e", 1)];
    let held = held(&ids(&fresh(&nodes, &policy(3, 64))));
    assert_eq!(held.values().copied().collect::<Vec<_>>(), [64, 32, 32, 32, 32]);
}

#[test]
fn the_highest_level_that_distinguishes_counts_first_and_lower_ones_next() {
    let nodes = nodes(&["eu/a/1", "eu/a/1", "eu/a/2", "eu/a/3", "eu/b/1", "eu/b/1"]);
    let placement = fresh(&nodes, &policy(3, 64));
    for chosen in ids(&placement) {
        assert_eq!(pairs(&chosen, &nodes), [3, 1, 0], "{chosen:?}: two zones, three racks");
    }
}

#[test]
fn one_node_alone_works_and_says_that_it_is_below_target() {
    let nodes = nodes(&["a"]);
    let empty = Placement::empty(64).unwrap();
    let target = compute(&empty, &nodes, &policy(3, 64)).unwrap();
    assert!(target.shards.iter().all(|chosen| chosen == &[NodeId(1)]));
    assert_eq!(target.shortfall().unwrap(), "replication factor 3 with 1 node to hold copies: add 2");
}

#[test]
fn two_nodes_hold_two_copies_and_say_that_a_third_is_missing() {
    let nodes = nodes(&["a", "b"]);
    let target = compute(&Placement::empty(64).unwrap(), &nodes, &policy(3, 64)).unwrap();
    assert!(target.shards.iter().all(|chosen| chosen == &[NodeId(1), NodeId(2)]));
    assert_eq!(target.shortfall().unwrap(), "replication factor 3 with 2 nodes to hold copies: add 1");
}

#[test]
fn nodes_that_join_before_any_data_share_from_the_start() {
    let nodes = nodes(&["a", "b", "c"]);
    let policy = policy(3, 64);
    let alone = fresh(&nodes[..1], &policy);
    let three = alone.adopt(&compute(&alone, &nodes, &policy).unwrap());
    assert_eq!(three.epoch(), 2);
    assert!(three.shards().iter().all(|replicas| replicas.len() == 3));
}

#[test]
fn a_shard_without_live_copy_is_named_and_not_moved() {
    let mut nodes = nodes(&["a", "b", "c", "d"]);
    let policy = policy(1, 4);
    let now = fresh(&nodes, &policy);
    let only = now.replicas(Shard(2))[0].node;
    set_state(&mut nodes, &[only.0], NodeState::Gone);
    let plan = plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1);
    assert_eq!(plan.stranded, [Shard(2)]);
    assert_eq!(plan.fewest_live, 0);
    assert!(plan.moves.iter().all(|step| step.shard != Shard(2)));
}

#[test]
fn a_destination_that_dies_is_replaced_and_the_source_stays_until_then() {
    let mut nodes = nodes(&["a", "a", "a", "b", "c"]);
    let policy = policy(3, 1);
    let now = fresh(&nodes, &policy);
    let in_a = now.replicas(Shard(0)).iter().find(|r| r.node.0 <= 3).unwrap().node;
    set_state(&mut nodes, &[in_a.0], NodeState::Draining);
    let first = plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1).moves.remove(0);
    let moving = begin(&now, &first).unwrap();
    assert_eq!(
        begin(&moving, &first),
        Err(Error::Moving { shard: Shard(0) }),
        "one move of a shard at a time"
    );

    set_state(&mut nodes, &[first.to.unwrap().0], NodeState::Gone);
    let target = compute(&moving, &nodes, &policy).unwrap();
    let again = plan(&moving, &target, |_| 1);
    assert_eq!(again.cancel, [Shard(0)]);
    assert_eq!((again.moves.len(), again.moves[0].live, again.fewest_live), (1, 3, 3));
    assert_eq!(again.moves[0].from, Some(in_a));
    assert_ne!(again.moves[0].to, first.to);
    move_to(&moving, &target);
}

#[test]
fn a_move_under_way_goes_on_when_the_target_is_computed_again() {
    let mut nodes = nodes(&SIX);
    let policy = policy(3, 64);
    let now = fresh(&nodes, &policy);
    nodes.push(node(7, "eu/b", 1));
    let first = plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1);
    let moving = begin(&now, &first.moves[0]).unwrap();
    let again = plan(&moving, &compute(&moving, &nodes, &policy).unwrap(), |_| 1);
    assert_eq!((again.cancel.len(), again.copies()), (0, first.copies()));
    let under_way: Vec<&Move> = again.moves.iter().filter(|step| step.under_way).collect();
    assert_eq!(under_way.len(), 1);
    assert_eq!((under_way[0].from, under_way[0].to), (first.moves[0].from, first.moves[0].to));
}

#[test]
fn a_destination_that_is_away_makes_its_moves_wait() {
    let mut nodes = nodes(&["a", "b", "c"]);
    let now = fresh(&nodes[..2], &policy(3, 4));
    nodes[2].state = NodeState::Down;
    let plan = plan(&now, &compute(&now, &nodes, &policy(3, 4)).unwrap(), |_| 1);
    assert_eq!(plan.moves.len(), 4);
    assert!(plan.moves.iter().all(|step| step.waits));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let placement = Placement::empty(4).unwrap();
    let twice = [node(1, "a", 1), node(1, "b", 1)];
    assert_eq!(compute(&placement, &twice, &policy(3, 4)), Err(Error::DuplicateNode { node: NodeId(1) }));
    assert_eq!(compute(&placement, &[], &policy(3, 3)), Err(Error::ShardCount { got: 3 }));
    assert_eq!(compute(&placement, &[], &policy(3, 8)), Err(Error::ShardsDiffer { have: 4, want: 8 }));
    assert_eq!(Placement::empty(1 << 17), Err(Error::ShardCount { got: 1 << 17 }));
    for bad in ["eu//a", "/eu", "eu/", "eu/a b", &"x".repeat(256)] {
        assert!(bad.parse::<Domain>().is_err(), "{bad}");
    }
    assert_eq!("eu/a/rack-3".parse::<Domain>().unwrap().to_string(), "eu/a/rack-3");
}

#[test]
fn no_node_at_all_keeps_what_there_is() {
    let nodes = nodes(&["a", "b", "c"]);
    let now = fresh(&nodes, &policy(3, 4));
    let plan = plan(&now, &compute(&now, &[], &policy(3, 4)).unwrap(), |_| 1);
    assert_eq!((plan.moves.len(), plan.stranded.len()), (0, 4));
}

#[test]
fn a_copy_is_added_before_a_live_one_is_replaced() {
    let mut nodes = nodes(&["a", "b", "c", "d"]);
    let now = fresh(&nodes[..1], &policy(1, 8));
    set_state(&mut nodes, &[1], NodeState::Draining);
    let target = compute(&now, &nodes, &policy(2, 8)).unwrap();
    let plan = plan(&now, &target, |_| 1);
    let steps: Vec<_> = plan.moves.iter().map(|step| (step.step, step.live, step.from)).collect();
    assert_eq!(steps[..8], [(0, 1, None); 8]);
    assert_eq!(steps[8..], [(1, 2, Some(NodeId(1))); 8]);
    move_to(&now, &target);
}

#[test]
fn a_copy_is_replaced_by_the_nearest_so_that_the_spread_is_kept_on_the_way() {
    let mut nodes = nodes(&["eu/a", "eu/b", "eu/b", "eu/a"]);
    let policy = policy(2, 8);
    let now = fresh(&nodes[..2], &policy);
    set_state(&mut nodes, &[1, 2], NodeState::Draining);
    let plan = plan(&now, &compute(&now, &nodes, &policy).unwrap(), |_| 1);
    let pairs: BTreeSet<_> =
        plan.moves.iter().map(|step| (step.from.unwrap().0, step.to.unwrap().0)).collect();
    assert_eq!(pairs, BTreeSet::from([(1, 4), (2, 3)]));
}
