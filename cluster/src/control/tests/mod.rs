//! Controllers by themselves and against each other.

mod jobs;
mod network;

use super::*;
use crate::placement::Domain;
use crate::placement::{NodeId, NodeState};
use crate::raft::Durable;
use crate::state::{Command, Outcome, Profile};
use crate::stop::{Reason, Stop};
use crate::view::Health;
use network::{Network, copy, read_identity, wipe_raft};
use std::collections::BTreeMap;

pub fn me(n: u16, boot: u128) -> Me {
    Me {
        address: format!("10.0.0.{n}:7421"),
        http_address: format!("10.0.0.{n}:7420"),
        zone: format!("z{n}").parse::<Domain>().unwrap(),
        capacity: 10,
        standby: false,
        boot,
    }
}

pub const MAKE: Make = Make { shards: 8, replication_factor: 3 };

#[test]
fn a_cluster_of_one_leads_and_takes_commands_without_a_tick() {
    let mut lots = 7;
    let mut dice = || {
        lots += 1;
        lots
    };
    let start = decide(&Flags::default(), None, None, &Durable::default(), &mut dice).unwrap();
    assert_eq!((start.how, start.file.phase, start.file.starts), (How::Create, Phase::Creating, 1));
    let mut out = Vec::new();
    let mut controller =
        Controller::new(start, me(1, 99), MAKE, Durable::default(), Options::default(), 0, &mut out).unwrap();
    controller.step(0, Event::Local { token: 5, command: Command::NoteData }, &mut out);
    let (mut at, mut done, mut phase) = (0, None, None);
    while at < out.len() {
        let effect = out[at].clone();
        at += 1;
        match effect {
            Effect::Persist(batch) => controller.step(0, Event::Persisted(batch.sequence), &mut out),
            Effect::Done { token, result } => done = Some((token, result)),
            Effect::Remember(file) => phase = Some(file.phase),
            Effect::Fatal(why) => panic!("{why}"),
            _ => {}
        }
    }
    assert_eq!(done, Some((5, Ok(Outcome::Done))));
    assert_eq!(phase, Some(Phase::Member));
    let view = controller.view().unwrap();
    assert!(view.has_data && view.leader == Some(controller.me()) && view.epoch() == 1);
    assert_eq!(view.held_by(controller.me()).len(), 8);
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("CONTROL_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = if first.is_some() { 1 } else { count };
    first.unwrap_or(0)..first.unwrap_or(0) + count
}

#[test]
fn storms_end_in_agreement() {
    for seed in seeds(300) {
        eprintln!("CONTROL_SEED={seed}");
        Network::storm(seed);
    }
}

/// Three nodes that know each other.
fn three(seed: u64) -> Network {
    let mut network = Network::new(seed);
    network.add(1, &[]);
    network.add(2, &[1, 2, 3]);
    network.add(3, &[1, 2, 3]);
    network.until("three agree, vote and have their shares", |network| {
        let shares = |view: &crate::view::View| view.placement.shards().iter().all(|r| r.len() == 3);
        network.agree(3)
            && network.at(1).membership().voters.len() == 3
            && network.view(1).is_some_and(|view| shares(&view))
    });
    network
}

#[test]
fn empty_nodes_that_join_get_their_shares_and_votes() {
    let network = three(1);
    let view = network.view(2).unwrap();
    assert_eq!(view.under_replicated(), (0, 0));
    assert!(!view.has_data);
}

#[test]
fn from_one_voter_to_three_two_are_needed_of_two_for_a_moment_only() {
    let mut network = Network::new(18);
    network.add(1, &[]);
    network.add(2, &[1]);
    network.add(3, &[1]);
    let (mut voters, mut two_ms) = (0, 0);
    while voters < 3 {
        network.run(1);
        assert!(network.now < 60_000, "{voters} voters");
        voters = network.at(1).membership().voters.len();
        two_ms += u64::from(voters == 2);
    }
    // Some messages and syncs, and no tick of 100 ms.
    assert!((1..60).contains(&two_ms), "{two_ms} ms");
}

#[test]
fn nodes_that_join_when_there_is_data_get_copies_by_moves() {
    let mut network = Network::new(2);
    network.add(1, &[]);
    network.run(1_000);
    network.propose(1, Command::NoteData);
    network.run(1_000);
    network.add(2, &[1]);
    network.add(3, &[1]);
    let mut told = BTreeMap::new();
    network.until("three copies of everything, and nothing moves", |network| {
        told.extend(network.at(1).copies());
        assert!([2, 3].iter().all(|n| network.controller(*n).is_none_or(|c| c.copies().is_empty())));
        let whole = |view: &crate::view::View| {
            view.placement.shards().iter().all(|r| r.len() == 3) && view.placement.moving().next().is_none()
        };
        network.agree(3) && whole(&network.view(2).unwrap())
    });
    // The leader has heard how far the copies were, from who made them.
    assert!(
        network.at(1).copies().is_empty() && told.len() == network.view(1).unwrap().placement.shards().len()
    );
    for copy in told.into_values() {
        let n = [2, 3].into_iter().find(|n| network.at(*n).me() == copy.node).unwrap();
        assert_eq!((copy.bytes_done, copy.bytes_total), (u64::from(n), Some(2 * u64::from(n))));
    }
    // All eight shards are taken a step further at once, and the two destinations together.
    assert!(network.view(1).unwrap().epoch() <= 10, "{}", network.view(1).unwrap().epoch());
}

#[test]
fn a_node_that_is_gone_is_replaced_and_one_that_is_away_is_not() {
    let mut network = three(21);
    network.add(4, &[1]);
    network.until("four agree", |network| network.agree(4));
    network.propose(1, Command::NoteData);
    network.until("all have their share, and nothing moves", |network| {
        let view = network.view(1).unwrap();
        let shared = view.nodes.keys().all(|id| !view.held_by(*id).is_empty());
        network.agree(4) && shared && view.placement.moving().next().is_none()
    });
    let settled = network.view(1).unwrap();
    network.crash(4);
    network.run(60_000);
    let leader = (1..=3).find(|n| network.at(*n).leads()).unwrap();
    let away = network.view(leader).unwrap();
    assert_eq!(away.placement.shards(), settled.placement.shards(), "somebody who is away moves nothing");
    let gone = settled.nodes.keys().copied().find(|id| (1..=3).all(|n| network.at(n).me() != *id)).unwrap();
    network.propose(leader, Command::SetNodeState { id: gone, state: NodeState::Gone });
    network.until("the others have all copies", |network| {
        let view = network.view(leader).unwrap();
        let all = |replicas: &Vec<crate::placement::Replica>| {
            replicas.len() == 3 && replicas.iter().all(|replica| replica.node != gone)
        };
        view.placement.shards().iter().all(all) && view.placement.moving().next().is_none()
    });
}

/// Four nodes with data at rest, three copies of each shard; node 4 is away.
fn four_and_one_is_away(seed: u64) -> (Network, NodeId, u16) {
    let mut network = three(seed);
    network.add(4, &[1]);
    network.until("four agree", |network| network.agree(4));
    network.propose(1, Command::NoteData);
    network.until("all have their share, and nothing moves", |network| {
        let view = network.view(1).unwrap();
        let shared = view.nodes.keys().all(|id| !view.held_by(*id).is_empty());
        network.agree(4) && shared && view.placement.moving().next().is_none()
    });
    let id = network.at(4).me();
    network.crash(4);
    network.until("the others have a leader", |network| (1..=3).any(|n| network.at(n).leads()));
    let leader = (1..=3).find(|n| network.at(*n).leads()).unwrap();
    (network, id, leader)
}

fn holds(network: &Network, n: u16, id: NodeId) -> usize {
    network.view(n).unwrap().held_by(id).len()
}

#[test]
fn a_node_that_is_away_for_too_long_is_lost_and_gets_its_share_when_it_is_back() {
    let (mut network, id, leader) = four_and_one_is_away(22);
    let share = holds(&network, leader, id);
    assert!(share > 0);
    network.until("it is lost", |network| network.view(leader).unwrap().nodes[&id].state == NodeState::Lost);
    network.until("the others have its copies", |network| {
        let view = network.view(leader).unwrap();
        let whole = view.placement.shards().iter().all(|replicas| replicas.len() == 3);
        whole && holds(network, leader, id) == 0 && view.placement.moving().next().is_none()
    });
    let membership = network.at(leader).membership();
    assert!(
        !membership.voters.contains(&4),
        "it votes no more: {membership:?} {:?}",
        network.view(leader).unwrap().nodes
    );
    network.start(4);
    network.until("it is up, with its share", |network| {
        let view = network.view(leader).unwrap();
        let up = view.nodes[&id].state == NodeState::Up;
        up && holds(network, leader, id) == share && view.placement.moving().next().is_none()
    });
    network.until("four agree", |network| network.agree(4));
}

#[test]
fn nobody_is_declared_lost_while_somebody_else_heals_or_the_autopilot_is_paused() {
    let (mut network, id, leader) = four_and_one_is_away(23);
    let state = |network: &Network| network.view(leader).unwrap().nodes[&id].state;
    // Every node can say why.
    let held =
        |network: &Network, why: &str| (1..=3).all(|n| network.at(n).watching.outlook.held.contains(why));
    network.propose(leader, Command::HoldLease { holder: "operator".into(), ttl_ms: 600_000 });
    network.run(2 * network::LOSS_GRACE_MS);
    assert_eq!(state(&network), NodeState::Up);
    assert!(held(&network, "operator holds the lease"));
    network.propose(leader, Command::PauseAutopilot { paused: true });
    network.propose(leader, Command::HoldLease { holder: "operator".into(), ttl_ms: 0 });
    network.run(network::LOSS_GRACE_MS);
    assert_eq!(state(&network), NodeState::Up);
    assert!(held(&network, "`sarsen cluster autopilot resume`"));
    assert!((1..=3).all(|n| network.view(n).unwrap().autopilot_paused));
    // A lease that nobody renews ends by itself.
    network.propose(leader, Command::PauseAutopilot { paused: false });
    network.propose(leader, Command::HoldLease { holder: "operator".into(), ttl_ms: 5_000 });
    network.run(3_000);
    assert_eq!(state(&network), NodeState::Up);
    network.until("it is lost", |network| state(network) == NodeState::Lost);
    network.run(2_000);
    let none = |n| network.at(n).watching.outlook.held.is_empty() && network.view(n).unwrap().lease.is_none();
    assert!((1..=3).all(none));
}

#[test]
fn who_stands_by_gets_nothing_before_somebody_says_so() {
    let mut network = three(24);
    network.propose(1, Command::NoteData);
    network.stand_by = true;
    network.add(4, &[1]);
    network
        .until("all know it", |network| (1..=4).all(|n| network.view(n).is_some_and(|v| v.nodes.len() == 4)));
    network.run(10_000);
    let id = network.at(4).me();
    assert_eq!(network.view(1).unwrap().nodes[&id].state, NodeState::Joining);
    assert_eq!(holds(&network, 1, id), 0);
    network.propose(1, Command::SetNodeState { id, state: NodeState::Up });
    network.until("it has its share", |network| holds(network, 1, id) > 0);
}

#[test]
fn who_leaves_lets_another_lead_and_is_asked_last() {
    let mut network = three(25);
    let leader = (1..=3).find(|n| network.at(*n).leads()).unwrap();
    let id = network.at(leader).me();
    network.step(leader, Event::Leave);
    network.until("another leads, and all know that it leaves", |network| {
        let others = || (1..=3).filter(|n| *n != leader);
        others().any(|n| network.at(n).leads())
            && others().all(|n| network.view(n).unwrap().nodes[&id].health == Health::Suspect)
    });
    network.run(20_000);
    assert!(!network.at(leader).leads(), "it does not lead again");
    network.crash(leader);
    network.start(leader);
    network.until("it is back", |network| network.agree(3));
}

#[test]
fn who_only_has_data_says_so() {
    let mut network = three(3);
    network.step(2, Event::Report(NodeReport { has_data: true, ..NodeReport::default() }));
    network.until("all know", |network| (1..=3).all(|n| network.view(n).unwrap().has_data));
}

#[test]
fn all_restart_at_once_and_each_alone_knows_what_it_knew() {
    let mut network = three(4);
    for round in 0..5 {
        network.run(100);
        let before = network.view(3).unwrap();
        (1..=3).for_each(|n| network.crash(n));
        network.start(3);
        let alone = network.view(3).expect("a view without anybody");
        assert_eq!(alone.placement, before.placement, "round {round}");
        assert_eq!(alone.leader, None);
        network.run(5_000);
        assert_eq!(network.view(3).unwrap().placement, before.placement);
        network.start(1);
        network.start(2);
        network.until("three agree", |network| network.agree(3));
        network.until("all starts are registered", |network| {
            network.view(1).unwrap().nodes.values().all(|peer| peer.starts == round + 2)
        });
    }
}

#[test]
fn a_lost_leader_is_replaced_and_seen_to_be_down() {
    let mut network = three(5);
    let old = network.leader().unwrap();
    let id = network.at(old).me();
    network.crash(old);
    let others: Vec<u16> = (1..=3).filter(|n| *n != old).collect();
    network.until("another leads and knows", |network| {
        others.iter().all(|n| {
            let view = network.view(*n).unwrap();
            view.nodes[&id].health == Health::Down && view.leader.is_some_and(|leader| leader != id)
        })
    });
    let token = network.name(others[0]);
    network.until("a change is made", |network| network.machines[&others[0]].done.contains_key(&token));
    assert_eq!(network.machines[&others[0]].done[&token], Ok(Outcome::Done));
    network.heal_and_check();
}

#[test]
fn a_node_that_was_away_meets_a_leader_that_joined_meanwhile() {
    let mut network = three(12);
    network.cut.extend([1, 2, 4, 5].into_iter().flat_map(|n| [(3, n), (n, 3)]));
    network.add(4, &[1, 2]);
    network.add(5, &[1, 2]);
    network.until("all five vote", |network| {
        network.leader().is_some_and(|leader| network.at(leader).membership().voters.len() == 5)
    });
    for _ in 0..20 {
        let old = network.leader().unwrap();
        if old > 3 {
            break;
        }
        network.crash(old);
        network.until("another leads", |network| network.leader().is_some_and(|n| n != old && n != 3));
        network.start(old);
        network.run(3_000);
    }
    assert!(network.leader().is_some_and(|leader| leader > 3));
    network.cut.clear();
    network.until("all five agree", |network| network.agree(5));
}

#[test]
fn without_a_majority_changes_fail_in_time_and_the_view_stays() {
    let mut network = three(6);
    let placement = network.view(1).unwrap().placement.clone();
    network.crash(2);
    network.crash(3);
    let token = network.name(1);
    network.run(30_000);
    assert!(matches!(network.machines[&1].done[&token], Err(ControlError::NoLeader(_))));
    let token = network.tokens + 1;
    network.step(1, Event::Read { token });
    network.run(30_000);
    assert!(matches!(network.machines[&1].done[&token], Err(ControlError::NoLeader(_))));
    let view = network.view(1).unwrap();
    assert_eq!((view.leader, &view.placement), (None, &placement));
    network.heal_and_check();
    // And now a read comes through, at a node that does not lead.
    let follower = (1..=3).find(|n| !network.at(*n).leads()).unwrap();
    let token = network.tokens + 1;
    network.step(follower, Event::Read { token });
    network.until("a read", |network| network.machines[&follower].done.contains_key(&token));
    assert_eq!(network.machines[&follower].done[&token], Ok(Outcome::Done));
}

#[test]
fn who_joins_waits_until_somebody_answers() {
    let mut network = Network::new(7);
    network.add(2, &[1]);
    network.run(20_000);
    assert!(network.view(2).is_none() && read_identity(&network.machines[&2].vfs).is_none());
    let said = &network.machines[&2].progress;
    assert!(
        said.len() == 2 && said[1].contains("10.0.0.1:7421") && said[1].contains("nobody answered"),
        "{said:?}"
    );
    network.add(1, &[]);
    network.until("both agree", |network| network.agree(2));
}

/// Asks machine `n` to make a cluster.
fn create(network: &mut Network, n: u16) -> Result<Outcome, ControlError> {
    network.tokens += 1;
    let (token, cluster) = (network.tokens, u128::from(network.lots.next()));
    network.step(n, Event::Create { token, cluster });
    network.machines[&n].done[&token].clone()
}

#[test]
fn nodes_that_wait_for_each_other_make_no_cluster_until_one_of_them_is_asked() {
    let mut network = Network::new(19);
    for n in 1..=3 {
        network.add(n, &[1, 2, 3]);
    }
    network.run(60_000);
    let waits = |network: &Network, n: u16| {
        let file = NodeFile::read(&network.machines[&n].vfs, std::path::Path::new("/data")).unwrap().unwrap();
        network.view(n).is_none() && file.waits() && file.starts == 1
    };
    assert!((1..=3).all(|n| waits(&network, n)));
    let said = &network.machines[&2].progress;
    // What is the same again is not said again.
    assert!(said.len() < 12 && said[2].contains("10.0.0.3:7421: it has no cluster yet"), "{said:?}");
    let (before, own) = (network.at(2).me(), network.machines[&2].flags.own.clone());
    assert_eq!(create(&mut network, 2), Ok(Outcome::Done));
    // The power goes before anything is written but that it was asked.
    network.crash(2);
    network.start(2);
    network.until("all are members", |network| network.agree(3));
    assert_eq!((network.at(2).me(), &network.machines[&2].flags.own), (before, &own));
    // Asked again, it says that it is done, and so does everybody else.
    let cluster = network.view(2).unwrap().cluster;
    for n in 1..=3 {
        assert_eq!(network.view(n).unwrap().cluster, cluster);
        let again = create(&mut network, n).unwrap_err().to_string();
        assert!(again.contains(&format!("a member of cluster {cluster:032x} already")), "{again}");
    }
}

#[test]
fn who_has_named_itself_to_a_cluster_makes_none_even_after_a_restart() {
    let mut network = Network::new(20);
    network.add(1, &[]);
    network.run(1_000);
    network.add(2, &[1]);
    let found = |network: &Network| {
        let file = NodeFile::read(&network.machines[&2].vfs, std::path::Path::new("/data")).unwrap();
        file.is_some_and(|file| file.cluster != 0)
    };
    while !found(&network) {
        network.run(1);
        assert!(network.now < 60_000 && network.view(2).is_none());
    }
    // Whatever the other one answers does not come back.
    network.cut.insert((1, 2));
    network.until("it is taken in", |network| network.view(1).is_some_and(|view| view.nodes.len() == 2));
    for _ in 0..2 {
        let refused = create(&mut network, 2).unwrap_err().to_string();
        assert!(refused.contains("may be a member of it already"), "{refused}");
        network.crash(2);
        network.start(2);
    }
    network.cut.clear();
    network.until("both agree", |network| network.agree(2));
}

/// The reason why machine `n` stops, in the end.
fn fatal(network: &mut Network, n: u16) -> Stop {
    network.until("it stops", |network| network.machines[&n].fatal.is_some());
    network.machines[&n].fatal.clone().unwrap()
}

#[test]
fn a_wiped_directory_is_recognised_by_its_address() {
    let mut network = three(8);
    network.crash(3);
    network.add(3, &[1, 2]);
    let stop = fatal(&mut network, 3);
    assert!(
        stop.why.contains("another data directory") && stop.why.contains("put the directory back"),
        "{stop}"
    );
    assert_eq!(stop.reason, Reason::Wiped);
    assert_eq!(network.view(1).unwrap().nodes.len(), 3);
}

#[test]
fn a_wiped_node_joins_as_a_new_one_when_the_old_one_is_removed() {
    let mut network = three(9);
    let id = network.at(3).me();
    network.crash(3);
    let token = network.propose(1, Command::SetNodeState { id, state: NodeState::Gone });
    network.until("it is gone", |network| network.machines[&1].done.contains_key(&token));
    network.add(3, &[1, 2]);
    network.until("three agree", |network| network.agree(3));
    assert!(network.view(1).unwrap().placement.shards().iter().flatten().all(|replica| replica.node != id));
}

#[test]
fn a_removed_node_stops() {
    let mut network = three(10);
    let id = network.at(3).me();
    network.propose(1, Command::SetNodeState { id, state: NodeState::Gone });
    let stop = fatal(&mut network, 3);
    assert!(stop.why.contains("removed"), "{stop}");
    assert_eq!(stop.reason, Reason::Removed);
}

#[test]
fn an_old_copy_of_a_directory_is_refused() {
    let mut network = three(11);
    let backup = copy(&network.machines[&3].vfs);
    let id = network.at(3).me();
    for starts in 2..4 {
        network.crash(3);
        network.start(3);
        network.until("it is registered", |network| network.view(1).unwrap().nodes[&id].starts == starts);
    }
    network.crash(3);
    network.put(3, backup, &[]);
    let stop = fatal(&mut network, 3);
    assert!(stop.why.contains("old copy"), "{stop}");
    assert_eq!(stop.reason, Reason::Stale);
}

#[test]
fn an_old_copy_is_told_by_a_start_that_ended_before_it_was_registered() {
    let mut network = three(16);
    let backup = copy(&network.machines[&3].vfs);
    let id = network.at(3).me();
    // It starts, is seen by a peer, and is gone before anything is agreed on.
    network.cut.extend([1, 2].into_iter().flat_map(|n| [(3, n), (n, 3)]));
    network.crash(3);
    network.start(3);
    let Profile { starts, boot, .. } = network.at(3).profile;
    network.step(1, Event::Started { node: id, starts, boot });
    network.crash(3);
    network.until("all know", |network| network.view(2).unwrap().nodes[&id].starts == starts);

    // The same start once more, from the directory as it was before.
    network.cut.clear();
    network.put(3, backup, &[]);
    assert_eq!(network.at(3).profile.starts, starts);
    let stop = fatal(&mut network, 3);
    assert!(stop.why.contains("old copy") || stop.why.contains("two use copies"), "{stop}");
}

#[test]
fn who_registers_its_start_itself_is_not_told_of_by_others() {
    let mut network = three(17);
    let id = network.at(3).me();
    network.crash(3);
    network.start(3);
    let Profile { starts, boot, .. } = network.at(3).profile;
    for n in [1, 2] {
        network.step(n, Event::Started { node: id, starts, boot });
    }
    network.until("it is registered", |network| network.view(1).unwrap().nodes[&id].starts == starts);
    network.run(100);
    for _ in 0..50 {
        network.run(100);
        for n in [1, 2] {
            let mut proposals = network.at(n).proposals.values();
            assert!(proposals.all(|p| !matches!(p.request.command, Command::NoteStart { .. })));
            assert!(network.at(n).unregistered.is_empty());
        }
    }
}

#[test]
fn of_two_copies_of_a_directory_only_one_goes_on() {
    let mut network = three(12);
    let other = copy(&network.machines[&3].vfs);
    network.crash(3);
    // The same start of the same node, at another address and at its own.
    network.put(4, other, &[]);
    network.start(3);
    network.until("one stops", |network| [3, 4].iter().any(|n| network.machines[n].fatal.is_some()));
    let stopped = if network.machines[&3].fatal.is_some() { 3 } else { 4 };
    let stop = network.machines[&stopped].fatal.clone().unwrap();
    assert!(stop.why.contains("two use copies"), "{stop}");
    assert_eq!(stop.reason, Reason::Copied);
    network.until("the other goes on", |network| network.agree(3));
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let mut network = three(13);
    // A cluster of its own, started without --join, and then with.
    network.add(4, &[]);
    network.run(1_000);
    let vfs = copy(&network.machines[&4].vfs);
    network.crash(4);
    network.put(4, vfs, &[1]);
    let stop = fatal(&mut network, 4);
    assert!(stop.why.contains("take --join away"), "{stop}");
    assert_eq!(stop.reason, Reason::Foreign);
    assert_eq!(network.view(1).unwrap().nodes.len(), 3);
}

#[test]
fn a_lost_raft_log_is_refused_and_the_node_joins_again_as_a_new_member() {
    let mut network = three(14);
    let id = network.at(3).me();
    network.crash(3);
    wipe_raft(&network.machines[&3].vfs);
    network.start(3);
    let stop = network.machines[&3].fatal.clone().expect("it starts without its log");
    assert!(stop.why.contains("--rejoin"), "{stop}");
    assert_eq!(stop.reason, Reason::Wiped);
    let machine = network.machines.get_mut(&3).unwrap();
    (machine.fatal, machine.flags.rejoin) = (None, true);
    network.start(3);
    network.until("three agree", |network| network.agree(3));
    assert_eq!(network.at(3).me(), id);
    network.until("it votes with another number", |network| {
        let members = network.at(1).membership();
        members.voters.len() == 3 && members.voters.contains(&4) && members.learners.is_empty()
    });
}

#[test]
fn what_peers_send_in_error_is_refused_and_changes_nothing() {
    let mut network = three(15);
    let (from, before) = (network.at(2).me(), network.at(1).state().cloned());
    let speaks_for_another = Call::Propose(crate::state::Request {
        token: 1,
        command: Command::RegisterStart {
            node: network.at(3).me(),
            disk: 1,
            profile: network.at(3).profile.clone(),
        },
    });
    let bodies = [Vec::new(), vec![1; 40], speaks_for_another.encode(0)];
    for body in bodies {
        let mut out = Vec::new();
        let (_, controller) = network.machines.get_mut(&1).unwrap().running.as_mut().unwrap();
        controller.step(network.now, Event::Request { from: Some(from), id: 1 << 40, body }, &mut out);
        assert!(matches!(&out[0], Effect::Refused { from: Some(by), .. } if *by == from), "{out:?}");
        controller.step(network.now, Event::Message { from, bytes: vec![7; 9] }, &mut out);
        assert!(matches!(out.last(), Some(Effect::Refused { .. })), "{out:?}");
    }
    assert_eq!(network.at(1).state(), before.as_ref());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let end = |seed| {
        let network = Network::storm(seed);
        (network.now, network.leaders.clone(), network.at(1).state().map(crate::state::State::encode))
    };
    assert_eq!(end(77), end(77));
}

#[test]
fn a_start_without_an_identity_or_with_two_halves_is_refused() {
    let mut dice = || 5;
    let log = Durable::default();
    let file = NodeFile {
        phase: Phase::Member,
        cluster: 1,
        node: crate::placement::NodeId(2),
        disk: 3,
        member: 4,
        incarnation: 5,
        starts: 6,
        epoch: 7,
    };
    let own = Directory { cluster: 1, node: file.node, disk: 3, shards: 8 };
    let joins = Flags { join: vec!["a:1".into(), "b:1".into()], own: vec!["a:1".into()], rejoin: false };
    let alone = Flags { join: vec!["a:1".into()], ..joins.clone() };
    let mut ask = |flags: &Flags, directory: Option<&Directory>, file: Option<&NodeFile>| {
        decide(flags, directory, file, &log, &mut dice)
            .map(|start| (start.how, start.file.phase, start.file.starts))
    };
    let has = |result: Result<(How, Phase, u64), Stop>, reason: Reason, words: &str| {
        let stop = result.unwrap_err();
        assert!(stop.reason == reason && stop.why.contains(words), "{stop:?}");
    };
    // Only addresses of others join; a node never makes a cluster when it was told to join one.
    assert_eq!(ask(&alone, None, None), Ok((How::Create, Phase::Creating, 1)));
    assert_eq!(ask(&joins, None, None), Ok((How::Join, Phase::Joining, 1)));
    assert_eq!(ask(&alone, Some(&own), None), Ok((How::Create, Phase::Adopting, 1)));
    has(ask(&joins, Some(&own), None), Reason::Foreign, "a cluster of its own");
    has(ask(&alone, None, Some(&file)), Reason::Wiped, "the identity file is not");
    has(ask(&alone, Some(&own), Some(&file)), Reason::Wiped, "its Raft log (cluster/raft) is gone");
    let other = Directory { disk: 9, ..own };
    has(ask(&alone, Some(&other), Some(&file)), Reason::Foreign, "put together from two");
    let joining = NodeFile { phase: Phase::Joining, cluster: 0, member: 0, ..file };
    assert_eq!(ask(&joins, None, Some(&joining)), Ok((How::Join, Phase::Joining, 7)));
    has(ask(&alone, None, Some(&joining)), Reason::Other, "has not finished");
    let creating = NodeFile { phase: Phase::Creating, member: 0, ..file };
    assert_eq!(ask(&joins, None, Some(&creating)), Ok((How::Create, Phase::Creating, 7)));
}

#[test]
fn the_node_file_round_trips_and_every_damaged_byte_is_noticed() {
    let file = NodeFile {
        phase: Phase::Member,
        cluster: 1,
        node: crate::placement::NodeId(2),
        disk: 3,
        member: 4,
        incarnation: 5,
        starts: 6,
        epoch: 7,
    };
    let text = file.render();
    assert_eq!(NodeFile::parse(&text), Ok(file));
    for i in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[i] ^= 1;
        assert!(NodeFile::parse(&String::from_utf8_lossy(&bytes)).is_err(), "byte {i}");
        assert!(NodeFile::parse(&text[..i]).is_err(), "cut at {i}");
    }
    let page = include_str!("../../../../docs/format/control-state.md");
    assert!(page.contains(&text), "docs/format/control-state.md does not show:\n{text}");
}
