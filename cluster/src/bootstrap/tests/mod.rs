mod message;
mod network;

use super::*;
use crate::placement::{Change, NodeId};
use crate::view::Health;
use model::{Digest, Error, Replica as _, SealedBlocks, Shard, TimeRange};
use network::{ALL, Dice, Net, SHARDS};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn is_whole(filled: &[Filled]) -> bool {
    filled.len() == ALL.len() && filled.iter().all(|filled| filled.missed == 0 && filled.failure.is_none())
}

#[test]
fn everything_comes_once_from_all_peers_at_the_same_time() {
    let mut net = Net::new(1);
    net.populate(12, 200 << 10);
    net.fill_all();
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled) && net.is_equal_to(1), "{:?}", net.filled);
    assert_eq!(net.me.imports().0, 0, "something is left over");
    let sources: BTreeSet<NodeId> = net.asked.iter().map(|asked| asked.0).collect();
    assert_eq!(sources.len(), 3);
    // As much as one copy is, whoever gave it.
    let progress = net.bootstrap.progress();
    assert_eq!(
        (progress.bytes_done, progress.bytes_total, progress.blocks),
        (net.bytes_of(1), net.bytes_of(1), 48)
    );
    assert_eq!(net.asked.iter().map(|asked| asked.2).sum::<u64>(), net.bytes_of(1));
    assert_eq!((progress.running, progress.waiting, progress.filled, progress.eta_ms), (0, 0, 4, Some(0)));
    // Asked again, nothing is fetched.
    let before = net.asked.len();
    net.fill_all();
    net.run_until_filled(2 * ALL.len());
    assert_eq!(net.asked.len(), before);
}

#[test]
fn one_file_that_several_peers_have_comes_from_all_of_them() {
    let mut net = Net::new(2);
    net.populate(1, 3 << 20);
    let first = net.peers[&NodeId(1)].0.clone();
    net.peers.values().for_each(|(memory, _)| memory.copy_files(&first));
    net.bring(&[Shard(0)]);
    net.run_until_filled(1);
    let sources: BTreeSet<NodeId> = net.asked.iter().map(|asked| asked.0).collect();
    assert_eq!((sources.len(), net.filled[0].blocks, net.filled[0].missed), (3, 1, 0));
}

#[test]
fn what_is_here_by_digest_is_not_fetched() {
    let mut net = Net::new(3);
    net.populate(4, 100 << 10);
    // The same rows, in no file, of all windows but the last.
    for i in 0..24 {
        let labels = crate::testing::labels("m", &[("i", &i.to_string())]);
        let rows: Vec<_> = (0..12).map(|n| (n * 25, n as f64 + f64::from(i))).collect();
        net.me.put(&labels, &rows);
    }
    net.fill_all();
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled) && net.is_equal_to(1));
    assert_eq!(net.filled.iter().map(|filled| filled.blocks).sum::<u64>(), u64::from(SHARDS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_bad_network_and_restarts_keep_nothing_from_coming(
        seed: u64, loss in 0u64..12, twice in 0u64..20, delay_ms in 1u64..400,
        restarts in prop::collection::vec(20u64..3_000, 0..4), liar in prop::option::of(1u128..4)
    ) {
        let mut net = Net::new(seed);
        net.populate(6, 150 << 10);
        (net.loss, net.twice, net.delay_ms) = (loss, twice, delay_ms);
        // A bit of every tenth answer.
        let lie: network::Lie = |dice: &mut Dice, mut reply: Vec<u8>| {
            if dice.percent(10) {
                let at = dice.roll() as usize % reply.len();
                reply[at] ^= 1 << (dice.roll() % 8);
            }
            reply
        };
        net.lie = liar.map(|liar| (NodeId(liar), lie));
        for after in restarts {
            net.fill_all();
            net.run(after);
            net.start();
        }
        net.filled.clear();
        for _ in 0..20 {
            // What failed is asked for again, as the owner of the shard does.
            net.filled.clear();
            net.fill_all();
            net.run_until_filled(ALL.len());
            if is_whole(&net.filled) {
                break;
            }
        }
        prop_assert!(is_whole(&net.filled), "{:?}", net.filled);
        prop_assert!(net.is_equal_to(1));
        prop_assert_eq!(net.me.imports().0, 0);
    }
}

#[test]
fn after_a_restart_what_is_on_the_disk_does_not_come_again() {
    let mut net = Net::with_copies(5, 3);
    net.populate(3, 2 << 20);
    // Copies are on their way to this node: what an earlier run left of them is of use.
    let coming = net.bring_copies();
    net.run(150);
    let ((parts, before), total) = (net.me.imports(), net.bytes_of_shards(1, &coming));
    assert!(parts > 0 && before > total / 10 && before < total / 2, "{before} bytes of {total}");
    net.start();
    net.run_until_filled(coming.len());
    let (parts, after) = net.me.imports();
    assert!(parts == 0 && after < total, "{after} bytes of {total}");
    for shard in &coming {
        let digest =
            |memory: &crate::testing::Memory| model::Replica::digest(memory, *shard, model::TimeRange::ALL);
        assert_eq!(digest(&net.me).unwrap(), digest(&net.peers[&NodeId(1)].0).unwrap());
    }
    // Of a copy whose move was given up meanwhile nothing is kept.
    let mut given_up = Net::new(5);
    given_up.populate(3, 2 << 20);
    let before = given_up.view.clone();
    given_up.fill_all();
    given_up.run(150);
    assert!(given_up.me.imports().0 > 0);
    given_up.view = before;
    given_up.start();
    given_up.run(150);
    assert_eq!(given_up.me.imports().0, 0);
}

#[test]
fn peers_that_go_away_are_left_for_others_and_their_return_is_used() {
    let mut net = Net::new(6);
    net.populate(6, 400 << 10);
    net.fill_all();
    net.run(100);
    net.away = vec![NodeId(1), NodeId(2)];
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled) && net.is_equal_to(3));
    // Nobody is there: it ends and says so, and can be asked for again.
    let mut net = Net::new(7);
    net.populate(6, 400 << 10);
    net.away = vec![NodeId(1), NodeId(2), NodeId(3)];
    net.fill_all();
    net.run_until_filled(ALL.len());
    assert!(
        net.filled
            .iter()
            .all(|filled| filled.failure.as_ref().is_some_and(|why| why.contains("no other copy")))
    );
    net.come_back();
    net.filled.clear();
    net.fill_all();
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled) && net.is_equal_to(3));
}

#[test]
fn blocks_that_vanish_or_rot_at_one_peer_come_from_another() {
    let mut net = Net::new(8);
    net.populate(5, 300 << 10);
    let first = net.peers[&NodeId(1)].0.clone();
    // Everybody has the same files; one of the first peer's rots, and the second loses all of its own when they are begun.
    net.peers.values().for_each(|(memory, _)| memory.copy_files(&first));
    let blocks = SealedBlocks::list(&first, Shard(0)).unwrap();
    blocks.iter().for_each(|block| first.rot_file(Shard(0), block.id, 70_000));
    net.bring(&[Shard(0)]);
    net.run(40);
    assert!(net.filled.is_empty());
    blocks.iter().for_each(|block| net.peers[&NodeId(2)].0.remove_file(Shard(0), block.id));
    net.run_until_filled(1);
    assert_eq!((net.filled[0].blocks, net.filled[0].missed), (5, 0), "{:?}", net.filled);
    let progress = net.bootstrap.progress();
    assert!(progress.refused > 0 && progress.failed > 0, "{progress:?}");
    assert!(
        net.logs.iter().any(|(level, text)| *level == crate::repair::Level::Warn && text.contains("shard 0"))
    );
    // Where all have a rotten one, the window is missed, and said to be.
    let mut net = Net::new(9);
    net.populate(2, 300 << 10);
    for (memory, _) in net.peers.values() {
        let block = SealedBlocks::list(memory, Shard(1)).unwrap()[0];
        memory.rot_file(Shard(1), block.id, 5);
    }
    net.bring(&[Shard(1)]);
    net.run_until_filled(1);
    assert_eq!((net.filled[0].blocks, net.filled[0].missed), (1, 1), "{:?}", net.filled);
    assert_eq!(net.me.imports().0, 0);
}

#[test]
fn shards_with_the_fewest_live_copies_come_first() {
    let mut net = Net::new(10);
    net.populate(4, 400 << 10);
    // Two shards lose a copy.
    let risky = [Shard(2), Shard(3)];
    let drops = risky.map(|shard| Change::Begin { shard, from: Some(NodeId(3)), to: None });
    let placement = net.view.placement.change(&drops).unwrap();
    let ends = risky.map(|shard| Change::Finish { shard, since: placement.epoch() });
    let placement = placement.change(&ends).unwrap();
    net.show(crate::view::View { placement, ..(*net.view).clone() });
    // Bytes are scarce, so that the order shows; blocks that have begun are finished whatever comes.
    net.step(Event::Rate { bytes_per_s: 2 << 20 });
    net.delay_ms = 1;
    net.fill_all();
    net.run_until_filled(ALL.len());
    let first: BTreeSet<Shard> = net.filled.iter().take(2).map(|filled| filled.shard).collect();
    assert_eq!(first, BTreeSet::from(risky), "{:?}", net.filled);
}

#[test]
fn the_budget_holds_and_can_be_changed_and_paused() {
    let mut net = Net::new(11);
    net.populate(8, 1 << 20);
    let rate = 2 << 20;
    net.step(Event::Rate { bytes_per_s: rate });
    net.fill_all();
    net.run(3_000);
    let asked = |net: &Net| net.asked.iter().map(|asked| asked.2).sum::<u64>();
    let first = asked(&net);
    assert!((rate * 5 / 2..rate * 7 / 2).contains(&first), "{first} bytes in 3 s");
    let progress = net.bootstrap.progress();
    assert!(progress.bytes_per_s.abs_diff(rate) < rate / 3, "{progress:?}");
    let left = progress.bytes_total - progress.bytes_done;
    assert!(progress.eta_ms.unwrap().abs_diff(left * 1000 / rate) < left * 500 / rate, "{progress:?}");
    // Clients wait longer than usual: it yields.
    for _ in 0..6 {
        net.step(Event::Foreground { latency_us: 9_000, usual_us: 1_000 });
        net.run(1_000);
    }
    let before = asked(&net);
    net.run(4_000);
    assert!(asked(&net) - before < rate, "{} bytes in 4 s", asked(&net) - before);
    net.step(Event::Pause(true));
    net.run(1_000);
    let before = asked(&net);
    net.run(10_000);
    assert_eq!(asked(&net), before);
    assert_eq!(net.bootstrap.progress().eta_ms.is_some(), net.bootstrap.progress().bytes_per_s > 0);
    // Clients are well again. What the cluster allows counts as well, the lesser of the two.
    for _ in 0..16 {
        net.step(Event::Foreground { latency_us: 1_000, usual_us: 1_000 });
        net.run(1_000);
    }
    net.step(Event::Rate { bytes_per_s: 0 });
    net.step(Event::Pause(false));
    net.show(crate::view::View { move_bytes_per_second: Some(rate / 2), ..(*net.view).clone() });
    net.run(1_000);
    let before = asked(&net);
    net.run(2_000);
    let got = asked(&net) - before;
    assert!((rate * 3 / 4..rate * 5 / 4).contains(&got), "{got} bytes in 2 s");
    net.show(crate::view::View { move_bytes_per_second: Some(0), ..(*net.view).clone() });
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled));
}

#[test]
fn under_another_placement_nothing_is_answered_until_they_agree() {
    let mut net = Net::with_copies(12, 3);
    net.populate(2, 100 << 10);
    let old = net.view.clone();
    let coming = net.bring_copies();
    // Nobody else has heard of it.
    let hear = |net: &mut Net, view: &crate::view::View| {
        net.peers.iter_mut().for_each(|(peer, (_, theirs))| {
            *theirs = crate::view::View { me: *peer, ..view.clone() };
        });
    };
    hear(&mut net, &old);
    net.run(2_000);
    assert!(net.filled.is_empty() && net.asked.is_empty());
    let new = net.view.clone();
    hear(&mut net, &new);
    net.run_until_filled(1);
    assert_eq!((net.filled[0].shard, net.filled[0].since), (coming[0], new.epoch()));
    assert_eq!((net.filled[0].missed, net.filled[0].blocks), (0, 2));
}

#[test]
fn a_fill_that_is_stopped_leaves_nothing_and_can_begin_again() {
    let mut net = Net::new(13);
    net.populate(3, 1 << 20);
    net.fill_all();
    net.run(100);
    assert!(net.me.imports().0 > 0);
    net.cancel(&ALL);
    // At once, while answers and work of the first are under way.
    net.bring(&[Shard(2)]);
    net.run_until_filled(1);
    net.run(5_000);
    assert_eq!(net.filled.len(), 1);
    assert_eq!((net.filled[0].shard, net.filled[0].missed), (Shard(2), 0));
    assert_eq!(net.me.imports().0, 0);
}

#[test]
fn what_cannot_be_done_here_ends_the_fill_and_says_why() {
    let mut net = Net::new(14);
    net.populate(3, 1 << 20);
    net.fill_all();
    net.run(100);
    net.me.fail(Some(Error::ReadOnly { reason: "the disk is full".into() }));
    net.run_until_filled(ALL.len());
    assert!(
        net.filled.iter().all(|filled| filled.failure.as_ref().is_some_and(|why| why.contains("is full")))
    );
    net.me.fail(None);
    net.filled.clear();
    net.fill_all();
    net.run_until_filled(ALL.len());
    assert!(is_whole(&net.filled) && net.is_equal_to(1) && net.me.imports().0 == 0);
}

#[test]
fn what_was_given_up_is_forgotten_when_others_hold_it_for_good_and_are_there() {
    let mut net = Net::with_copies(16, 3);
    let coming = net.bring_copies();
    net.populate(2, 0);
    net.run_until_filled(coming.len());
    let shard = coming[0];
    let has = |net: &Net| net.me.digest(shard, TimeRange::ALL).unwrap() != Digest::default();
    // A copy that is being made, a replica, and one that leaves are all wanted.
    net.run(100_000);
    net.change(Change::CutOver { shard, since: net.view.placement.changed(shard) });
    net.change(Change::Finish { shard, since: net.view.placement.changed(shard) });
    net.run(100_000);
    net.change(Change::Begin { shard, from: Some(net.view.me), to: None });
    net.run(100_000);
    assert!(has(&net) && net.forgotten.is_empty());
    // It is given up, and one of the others is away.
    net.change(Change::Finish { shard, since: net.view.placement.changed(shard) });
    let health = |net: &Net, health| {
        let mut view = (*net.view).clone();
        let first = view.placement.replicas(shard)[0].node;
        view.nodes.get_mut(&first).unwrap().health = health;
        view
    };
    net.show(health(&net, Health::Down));
    net.run(100_000);
    assert!(has(&net));
    // Back before its time: nothing is forgotten.
    net.change(Change::Begin { shard, from: None, to: Some(net.view.me) });
    net.show(health(&net, Health::Up));
    net.run(100_000);
    assert!(has(&net));
    net.change(Change::Cancel { shard, since: net.view.placement.changed(shard) });
    let since_ms = net.ms;
    net.run(59_000);
    assert!(has(&net));
    net.run(2_000);
    assert!(!has(&net));
    assert!(net.forgotten.iter().all(|(at, other)| *other == shard && *at >= since_ms + 60_000));
    // Looked at again and again: what was late does not stay.
    for i in 0..24 {
        net.me.put(&crate::testing::labels("m", &[("i", &i.to_string())]), &[(1, 1.0)]);
    }
    assert!(has(&net));
    net.run(61_000);
    assert!(!has(&net));
}

#[test]
fn only_copies_that_answer_reads_are_given_away() {
    let mut net = Net::with_copies(15, 3);
    let coming = net.bring_copies();
    net.populate(1, 0);
    let view = (*net.view).clone();
    let ask = |view: &crate::view::View, epoch: u64, shard: Shard| {
        let request = Request { epoch, shard, ask: Ask::Blocks { after: None } };
        let memory = &net.peers[&NodeId(1)].0;
        Reply::decode(serve(view, memory, &request.encode()).unwrap().into()).unwrap()
    };
    let epoch = view.epoch();
    assert_eq!(ask(&view, epoch, coming[0]), Reply::NotHeld { shard: coming[0] });
    let theirs = crate::view::View { me: view.placement.replicas(coming[0])[0].node, ..view };
    assert!(
        matches!(ask(&theirs, epoch, coming[0]), Reply::Blocks { blocks, more: false } if blocks.len() == 1)
    );
    assert_eq!(ask(&theirs, epoch - 1, coming[0]), Reply::Stale { epoch });
    assert_eq!(ask(&theirs, epoch + 1, coming[0]), Reply::Behind { epoch });
    assert!(serve(&theirs, &net.me, b"\x01nonsense").is_err());
}
