//! Jobs, driven by whoever leads.

use super::*;
use crate::jobs::{Job, Kind, Stage, Step};
use crate::placement::NodeId;
use crate::view::View;

fn start(network: &mut Network, n: u16, kind: Kind) {
    network.propose(
        n,
        Command::StartJob { kind, lost: false, epoch: None, at_ms: 1, by: "ada".into(), copies: 6, bytes: 0 },
    );
}

fn job(view: &View, id: u64) -> Option<&Job> {
    view.jobs.get(&id)
}

fn change(network: &mut Network, n: u16, (id, revision): (u64, u64), step: Step) {
    network.propose(n, Command::ChangeJob { id, revision, step, at_ms: 2 });
}

fn is(network: &Network, n: u16, id: u64, stage: Stage) -> bool {
    network.view(n).is_some_and(|view| job(&view, id).is_some_and(|job| job.stage == stage))
}

fn held(network: &Network, n: u16, node: NodeId) -> usize {
    network.view(n).unwrap().held_by(node).len()
}

/// Four nodes with data, and nothing moves. Gives the id of the fourth.
fn four(seed: u64) -> (Network, NodeId) {
    let mut network = three(seed);
    network.propose(1, Command::NoteData);
    network.add(4, &[1]);
    network.until("four with their shares", |network| {
        network.agree(4) && network.view(1).unwrap().placement.moving().next().is_none()
    });
    let fourth = network.at(4).me();
    network.until("the fourth has its share", |network| {
        held(network, 1, fourth) == 6 && network.view(1).unwrap().placement.moving().next().is_none()
    });
    (network, fourth)
}

#[test]
fn a_node_is_drained_and_filled_again_and_everybody_knows_how_far_that_is() {
    let (mut network, fourth) = four(31);
    start(&mut network, 2, Kind::Drain(fourth));
    network.until("all know how far it is", |network| {
        (1..=4).all(|n| network.at(n).watching.outlook.of(1).is_some_and(|progress| progress.copies > 0))
    });
    network.until("it is drained", |network| is(network, 3, 1, Stage::Done));
    assert_eq!(held(&network, 3, fourth), 0);
    assert_eq!(network.view(3).unwrap().nodes[&fourth].state, NodeState::Draining);
    start(&mut network, 3, Kind::Add(fourth));
    network.until("it has its share again", |network| is(network, 2, 2, Stage::Done));
    assert_eq!(held(&network, 2, fourth), 6);
    network.until("nothing is left to do", |network| {
        (1..=4).all(|n| *network.at(n).watching.outlook == crate::jobs::Outlook::default())
    });
}

#[test]
fn no_move_of_a_paused_job_begins_and_another_leader_goes_on_with_it() {
    let (mut network, fourth) = four(32);
    let leader = (1..=4).find(|n| network.at(*n).leads()).unwrap();
    start(&mut network, leader, Kind::Remove(fourth));
    change(&mut network, leader, (1, 1), Step::Pause);
    network.until("it is paused", |network| is(network, leader, 1, Stage::Paused));
    network.run(20_000);
    assert_eq!(held(&network, leader, fourth), 6);
    assert!(network.view(leader).unwrap().placement.moving().next().is_none());
    // What belongs to no paused job goes on.
    start(&mut network, leader, Kind::ReplicationFactor { from: 3, to: 2 });
    network.until("copies are given up", |network| is(network, leader, 2, Stage::Done));
    assert_eq!(network.view(leader).unwrap().nodes[&fourth].state, NodeState::Draining);

    change(&mut network, leader, (1, 2), Step::Resume);
    network.until("it goes on", |network| is(network, leader, 1, Stage::Running));
    network.crash(leader);
    let other = (1..=3).find(|n| *n != leader).unwrap();
    network.until("another leads", |network| network.up().into_iter().any(|n| network.at(n).leads()));
    // Copies go to it, too.
    network.start(leader);
    network.until("it is removed", |network| is(network, other, 1, Stage::Done));
    let view = network.view(other).unwrap();
    assert!(!view.nodes.contains_key(&fourth), "{view:?}");
    assert!(view.held_by(fourth).is_empty());
}

#[test]
fn a_copy_that_only_goes_is_kept_when_one_that_should_stay_is_lost() {
    let (mut network, fourth) = four(36);
    let leader = (1..=3).find(|n| network.at(*n).leads()).expect("one of three leads");
    // It does not say any more that it has passed the others.
    network.mute.insert(4);
    start(&mut network, leader, Kind::ReplicationFactor { from: 3, to: 2 });
    let drops = |network: &Network| {
        let placement = &network.view(leader).unwrap().placement;
        let waits = |shard: &model::Shard| placement.completing(*shard).contains(&fourth);
        placement.moving().filter(waits).count()
    };
    network.until("copies wait for it to go", |network| drops(network) > 0);
    network.crash(4);
    network.until("everything has two copies on those that are left", |network| {
        let view = network.view(leader).unwrap();
        let two = |replicas: &Vec<crate::placement::Replica>| {
            replicas.len() == 2 && replicas.iter().all(|replica| replica.node != fourth)
        };
        view.placement.shards().iter().all(two) && view.placement.moving().next().is_none()
    });
}

#[test]
fn a_job_that_waits_says_for_what() {
    let (mut network, fourth) = four(33);
    network.crash(4);
    network.run(15_000);
    let leader = (1..=3).find(|n| network.at(*n).leads()).unwrap();
    let third = network.at(3).me();
    start(&mut network, leader, Kind::Drain(third));
    let waits = |network: &Network, n: u16, id| {
        network.at(n).watching.outlook.of(id).map(|progress| progress.waits.clone()).unwrap_or_default()
    };
    let down = format!("node {fourth} (10.0.0.4:7421), which is down: start it again, or replace it");
    network.until("it waits for a node that is away", |network| waits(network, 1, 1).contains(&down));
    network.start(4);
    network.until("it is drained", |network| is(network, 1, 1, Stage::Done));
    // Three are left for three copies.
    start(&mut network, 1, Kind::Drain(fourth));
    network.until("it waits for one more node", |network| {
        waits(network, 2, 2).contains(&format!("no node is left for 8 copies of node {fourth}"))
    });
    change(&mut network, 1, (2, 1), Step::Cancel);
    network.until("it is given up", |network| is(network, 2, 2, Stage::Cancelled));
    assert_eq!(network.view(2).unwrap().nodes[&fourth].state, NodeState::Up);
}

#[test]
fn what_a_lost_node_held_is_healed_as_a_job_that_nobody_had_to_ask_for() {
    let (mut network, id, leader) = four_and_one_is_away(34);
    network.until("it is being healed", |network| is(network, leader, 1, Stage::Running));
    let healing = network.view(leader).unwrap().jobs[&1].clone();
    assert_eq!((healing.kind, healing.by.as_str(), healing.copies), (Kind::Heal(id), "autopilot", 6));
    change(&mut network, leader, (1, 1), Step::Cancel);
    network.until("it is healed", |network| is(network, leader, 1, Stage::Done));
    assert_eq!(holds(&network, leader, id), 0);
    network.start(4);
    network.until("it has its share again", |network| {
        holds(network, leader, id) == 6 && network.view(leader).unwrap().placement.moving().next().is_none()
    });
    assert_eq!(network.view(leader).unwrap().jobs.len(), 1);
}
