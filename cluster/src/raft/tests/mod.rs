//! A group of members under faults, and what each of them refuses.

mod network;

use super::*;
use network::{CLUSTER, Lots, Network, identity};

fn three() -> Network {
    let mut network = Network::new(7);
    network.admit(2);
    network.admit(3);
    network
}

#[test]
fn what_is_acknowledged_survives_every_storm() {
    let (first, count) = match std::env::var("SARSEN_RAFT_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, 200),
    };
    let (mut acknowledged, mut reads, mut restored) = (0, 0, 0);
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| Network::storm(seed));
        let network = run.unwrap_or_else(|panic| {
            eprintln!("failed with SARSEN_RAFT_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        acknowledged += network.acknowledged.len();
        reads += network.reads_done;
        restored += network.restored;
    }
    // A storm in which nothing gets done would prove nothing.
    assert!(acknowledged as u64 > 20 * count, "{acknowledged} commands");
    assert!(reads > 20 * count, "{reads} reads");
    assert!(restored > count, "{restored} snapshots");
}

#[test]
fn a_seed_tells_everything_that_happens() {
    for seed in [3, 5] {
        assert_eq!(Network::storm(seed).trace, Network::storm(seed).trace, "seed {seed}");
    }
    assert_ne!(Network::storm(3).trace, Network::storm(5).trace);
}

#[test]
fn one_member_alone_agrees_with_itself() {
    let mut network = Network::new(1);
    network.heal_and_check();
    network.crash(1);
    network.heal_and_check();
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut network = three();
    network.heal_and_check();
    let leader = network.leader().unwrap();
    let behind = if leader == 3 { 2 } else { 3 };
    network.crash(behind);
    for _ in 0..100 {
        network.propose(leader);
        network.run(1);
    }
    let before = network.restored;
    network.heal_and_check();
    // Once from its own disk, once from the leader.
    assert!(network.restored >= before + 2);
}

#[test]
fn a_minority_agrees_on_nothing_and_answers_no_read() {
    let mut network = three();
    network.heal_and_check();
    let alone = network.leader().unwrap();
    network.cut = (1..=3).flat_map(|other| [(alone, other), (other, alone)]).collect();
    let reads = network.reads_done;
    let token = network.propose(alone);
    network.read(alone);
    network.run(60);
    assert!(!network.acknowledged.contains(&token));
    assert_eq!(network.reads_done, reads);
    assert!(!network.nodes[&alone].member().unwrap().leads(), "a leader without a quorum steps down");
    assert!(network.leader().is_some(), "the others go on");
    network.heal_and_check();
}

#[test]
fn a_member_that_lost_its_log_is_refused_until_it_joins_under_a_new_number() {
    let mut network = three();
    network.heal_and_check();
    let leader = network.leader().unwrap();
    let lost = if leader == 3 { 2 } else { 3 };
    network.crash(lost);
    let again = Identity { incarnation: 5555, ..identity(lost) };
    network.add(again, false);
    let refused = network.refused;
    network.run(60);
    assert!(network.refused > refused);
    assert_eq!(network.nodes[&lost].member().unwrap().delivered(), 0);
    network.crash(lost);
    network.admit(4);
    network.change(network.leader().unwrap(), Change::Remove { member: lost });
    network.nodes.remove(&lost);
    network.heal_and_check();
    let membership = network.nodes[&network.leader().unwrap()].member().unwrap().membership();
    assert!(membership.voters.contains(&4) && !membership.voters.contains(&lost), "{membership:?}");
}

#[test]
fn an_empty_log_under_the_same_incarnation_contradicts_the_leader_and_does_not_panic() {
    let mut network = three();
    network.heal_and_check();
    let leader = network.leader().unwrap();
    let lost = if leader == 3 { 2 } else { 3 };
    network.crash(lost);
    network.add(identity(lost), false);
    let refused = network.refused;
    network.run(60);
    assert!(network.refused > refused);
}

#[test]
fn a_log_of_somebody_else_or_none_is_refused_at_the_start() {
    let vfs = std::sync::Arc::new(disk::CrashVfs::new());
    let dir = std::path::Path::new("/raft");
    let open = |expected| Store::open(vfs.clone(), dir, expected);
    assert!(matches!(open(Some(identity(1))), Err(Error::Foreign { found: None, .. })));
    let (store, _) = open(None).unwrap();
    let (_, effects) = Member::create(identity(1), Vec::new(), Options::default());
    for effect in effects {
        if let Effect::Persist(batch) = effect {
            store.persist(&batch).unwrap();
        }
    }
    drop(store);
    assert!(open(Some(identity(1))).is_ok());
    assert!(matches!(open(Some(identity(2))), Err(Error::Foreign { found: Some(_), .. })));
}

#[test]
fn what_a_crash_leaves_of_segments_that_are_removed_is_read_over() {
    use ::raft::eraftpb::Entry;
    use disk::fault::{Fault, Operation, Rule};
    let dir = std::path::Path::new("/raft");
    let whole = |durable: &Durable| {
        let records = member::whole(&identity(1), durable);
        Batch { sequence: 1, records, sync: true, whole: true }
    };
    let next = |durable: &Durable| {
        let entry = Entry { index: durable.last_index() + 1, term: 1, ..Entry::default() };
        Batch { sequence: 2, records: vec![record::entry(&entry)], sync: true, whole: false }
    };
    // How much of a snapshot that failed on the way is in the segment that remains: nothing, or its beginning.
    for fails in [Fault::Eio, Fault::Short] {
        let vfs = std::sync::Arc::new(disk::FaultVfs::new(disk::CrashVfs::new()));
        let open = || Store::open(vfs.clone(), dir, Some(identity(1)));
        let (store, _) = Store::open(vfs.clone(), dir, None).unwrap();
        let (_, effects) = Member::create(identity(1), Vec::new(), Options::default());
        let batches = effects.into_iter().filter_map(|effect| match effect {
            Effect::Persist(batch) => Some(batch),
            _ => None,
        });
        batches.for_each(|batch| store.persist(&batch).unwrap());
        let (store, durable) = open().unwrap();
        vfs.add(Rule::new(Operation::Write, fails).path("0000000000000002-").nth(2));
        store.persist(&whole(&durable)).unwrap_err();
        vfs.clear();
        let (store, durable) = open().unwrap();
        store.persist(&next(&durable)).unwrap();
        let (store, durable) = open().unwrap();
        vfs.add(Rule::new(Operation::Remove, Fault::Eio).nth(2));
        store.persist(&whole(&durable)).unwrap_err();
        vfs.clear();
        let (_, again) = open().unwrap();
        assert_eq!((again.last_index(), &again.hard_state), (durable.last_index(), &durable.hard_state));
    }
}

#[test]
fn bytes_that_no_member_sent_change_nothing() {
    let mut lots = Lots(1);
    let (mut member, _) = Member::create(identity(1), Vec::new(), Options::default());
    member.persisted(1);
    let mut valid = vec![1];
    valid.extend_from_slice(&CLUSTER.to_le_bytes());
    for word in [2, 1002, 1, 1001_u64] {
        valid.extend_from_slice(&word.to_le_bytes());
    }
    for _ in 0..20_000 {
        let mut bytes = if lots.percent(80) { valid.clone() } else { Vec::new() };
        // Type, to and from of a real message, then noise: the deep ends of the decoder.
        if lots.percent(70) {
            bytes.extend_from_slice(&[8, lots.below(20) as u8, 16, 1, 24, 2]);
        }
        for _ in 0..lots.below(24) {
            bytes.push(lots.next() as u8 & if lots.percent(70) { 0x7f } else { 0xff });
        }
        let _ = member.receive(2, &bytes);
    }
    assert!(member.delivered() >= 1);
}

#[test]
fn later_records_supersede_earlier_ones() {
    use ::raft::eraftpb::{ConfState, Entry};
    let mut durable = record::Durable::default();
    let entry = |index, term| record::entry(&Entry { index, term, ..Entry::default() });
    assert!(durable.replay(&entry(1, 1)).is_err(), "the first record must be an identity");
    durable.replay(&record::identity(&identity(1))).unwrap();
    for (index, term) in [(1, 1), (2, 1), (3, 1), (2, 2)] {
        durable.replay(&entry(index, term)).unwrap();
    }
    assert_eq!(durable.last_index(), 2);
    assert!(durable.replay(&entry(4, 2)).is_err(), "a gap");
    let members = ConfState { voters: vec![1], ..ConfState::default() };
    let snapshot = |index, term| record::Snapshot {
        index,
        term,
        members: members.clone(),
        ..record::Snapshot::default()
    };
    durable.replay(&record::snapshot(&snapshot(1, 1))).unwrap();
    assert_eq!((durable.entries.len(), durable.last_index()), (1, 2), "what follows the snapshot stays");
    durable.replay(&record::snapshot(&snapshot(2, 9))).unwrap();
    assert_eq!((durable.entries.len(), durable.last_index()), (0, 2), "another history goes");
    durable.hard_state.commit = 3;
    assert!(durable.clone().finish().is_err(), "a committed entry is missing");
    durable.hard_state.commit = 0;
    durable.finish().unwrap();
    assert_eq!(durable.hard_state.commit, 2, "nothing is applied beyond what is committed");
    assert!(durable.replay(&record::identity(&identity(2))).is_err(), "two identities");
}

#[test]
fn a_snapshot_that_cannot_be_is_damage_and_no_panic() {
    use ::raft::eraftpb::ConfState;
    let whole = || ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
    let replay = |index, term, members| {
        let mut durable = record::Durable::default();
        durable.replay(&record::identity(&identity(1))).unwrap();
        let snapshot = record::Snapshot { index, term, members, ..record::Snapshot::default() };
        durable.replay(&record::snapshot(&snapshot)).map(|()| durable)
    };
    let durable = replay(9, 2, whole()).unwrap();
    assert!(Member::open(durable, Options::default()).is_some());
    for (index, term) in [(0, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(replay(index, term, whole()).is_err(), "{index} {term}");
    }
    let spoilt: [fn(&mut ConfState); 6] = [
        |members| members.voters.clear(),
        |members| members.voters.push(0),
        |members| members.learners.push(1),
        |members| members.voters.push(2),
        |members| members.voters_outgoing.push(1),
        |members| members.learners_next.push(1),
    ];
    for (number, spoil) in spoilt.iter().enumerate() {
        let mut members = whole();
        spoil(&mut members);
        assert!(replay(9, 2, members).is_err(), "{number}");
    }
}

#[test]
fn voters_are_added_spread_and_replaced_step_by_step() {
    let node = |member: u64, zone: &str| Candidate {
        member,
        incarnation: member + 1000,
        zone: zone.split('/').map(str::to_owned).collect(),
        gone: false,
        lost: false,
        leaves: false,
        well: true,
    };
    let zones = ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2", "c/3"];
    let mut nodes: Vec<Candidate> = zones.iter().zip(1..).map(|(zone, id)| node(id, zone)).collect();
    let mut current = Membership { voters: vec![1], learners: vec![] };
    let settle = |nodes: &[Candidate], current: &mut Membership| {
        for steps in 0.. {
            assert!(steps < 50, "it never ends");
            let Some(step) = choose_voters(nodes, current, 1) else { return };
            let (Change::AddLearner { member, .. } | Change::Promote { member } | Change::Remove { member }) =
                step.change;
            assert_ne!(member, 1, "the leader stays");
            current.voters.retain(|id| *id != member);
            current.learners.retain(|id| *id != member);
            match step.change {
                Change::AddLearner { .. } => current.learners.push(member),
                Change::Promote { .. } => current.voters.push(member),
                Change::Remove { .. } => {}
            }
            current.voters.sort_unstable();
        }
    };
    settle(&nodes[..1], &mut current);
    assert_eq!(current.voters, [1]);
    settle(&nodes, &mut current);
    assert_eq!(current.voters.len(), 5);
    assert_eq!(current.learners.len(), 2);
    let zone_counts = |current: &Membership, zone: &str| {
        current.voters.iter().filter(|id| zones[**id as usize - 1].starts_with(zone)).count()
    };
    assert!(["a", "b", "c"].iter().all(|zone| (1..=2).contains(&zone_counts(&current, zone))));
    // A voter that only does not answer keeps its vote, one that is gone is replaced.
    let victim = current.voters[4] as usize - 1;
    nodes[victim].well = false;
    let before = current.clone();
    settle(&nodes, &mut current);
    assert_eq!(current, before);
    // One that has been away for too long becomes a learner, as long as there is another to vote; and it is needed no more when it is back.
    nodes[victim].lost = true;
    settle(&nodes, &mut current);
    let member = victim as u64 + 1;
    assert!(current.voters.len() == 5 && current.learners.contains(&member));
    (nodes[victim].lost, nodes[victim].well) = (false, true);
    let before = current.clone();
    settle(&nodes, &mut current);
    assert_eq!(current, before);
    let three = &mut nodes[..3];
    (three[2].lost, three[2].well) = (true, false);
    let (mut few, before) = (Membership { voters: vec![1, 2, 3], learners: vec![] }, vec![1, 2, 3]);
    settle(three, &mut few);
    assert_eq!(few.voters, before, "nobody can vote instead");
    (three[2].lost, three[2].well) = (false, true);
    nodes[victim].gone = true;
    settle(&nodes, &mut current);
    assert!(
        current.voters.len() == 5 && !current.voters.contains(&member) && !current.learners.contains(&member)
    );
    // Who is emptied loses its vote before it goes, also where one voter is left; the leader first lets another lead.
    let mut nodes = vec![node(1, "a"), node(2, "b")];
    let mut current = Membership { voters: vec![1, 2], learners: vec![] };
    nodes[1].leaves = true;
    settle(&nodes, &mut current);
    assert_eq!((&current.voters[..], &current.learners[..]), (&[1][..], &[2][..]));
    (nodes[0].leaves, nodes[1].leaves) = (true, false);
    let before = Membership { voters: vec![1, 2], learners: vec![] };
    current = before.clone();
    settle(&nodes, &mut current);
    assert_eq!(current, before);
    // Three in one zone move apart when other zones come.
    let mut nodes: Vec<Candidate> = (1..=3).map(|id| node(id, "a/1")).collect();
    let mut current = Membership { voters: vec![1], learners: vec![] };
    settle(&nodes, &mut current);
    assert_eq!(current.voters, [1, 2, 3]);
    nodes.extend([node(4, "b/1")]);
    settle(&nodes, &mut current);
    assert_eq!(current.voters.len(), 3);
    assert!(current.voters.contains(&4));
}
