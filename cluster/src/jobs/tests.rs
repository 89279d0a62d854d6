use super::*;
use crate::placement::{Change, Domain, Node, NodeId, NodeState, Placement, Policy, Reason, compute};
use crate::state::{Cluster, Command, Fault, Profile, Request, State};
use crate::wire::{Reader, Writer};
use model::Shard;
use std::num::{NonZeroU8, NonZeroU32};

#[test]
fn a_job_is_what_its_bytes_say_whatever_is_cut_or_changed() {
    let kinds = [
        Kind::Add(NodeId(1)),
        Kind::Drain(NodeId(2)),
        Kind::Remove(NodeId(3)),
        Kind::Replace { old: NodeId(4), new: NodeId(5) },
        Kind::Rebalance,
        Kind::ReplicationFactor { from: 1, to: 3 },
        Kind::Heal(NodeId(6)),
    ];
    let stages = [Stage::Running, Stage::Paused, Stage::Done, Stage::Cancelled, Stage::Failed("why".into())];
    for (n, kind) in kinds.into_iter().enumerate() {
        let stage = stages[n % stages.len()].clone();
        let by = "ada".to_owned();
        let job =
            Job { revision: 3, kind, stage, created_ms: 7, finished_ms: 1 << 40, by, copies: 5, bytes: 300 };
        let bytes = job.encode();
        assert_eq!(Job::decode(3, &bytes), Ok(job));
        for at in 0..bytes.len() {
            assert!(Job::decode(3, &bytes[..at]).is_err(), "cut at {at}");
            let mut other = bytes.clone();
            other[at] ^= 1;
            if let Ok(job) = Job::decode(3, &other) {
                assert_eq!(job.encode(), other, "byte {at}");
            }
        }
    }
}

#[test]
fn what_the_leader_tells_is_bounded() {
    let take = |outlook: &Outlook| {
        let mut out = Writer::default();
        outlook.put(&mut out);
        Outlook::take(&mut Reader::new(&out.0, "outlook"))
    };
    let filling = Filling { node: NodeId(7), copies: 4, bytes: 5, eta_s: Some(6) };
    let jobs = vec![Progress { eta_s: Some(0), waits: "x".repeat(TEXT_BYTES_MAX), ..Progress::default() }];
    let outlook = Outlook {
        copies: 1,
        bytes: 2,
        bytes_per_s: 3,
        jobs,
        waits: vec!["y".into()],
        held: "v".into(),
        filling: vec![filling],
    };
    assert_eq!(take(&outlook).as_ref(), Ok(&outlook));
    assert_eq!(outlook.of(0), Some(&outlook.jobs[0]));
    assert_eq!((outlook.to(NodeId(7)), outlook.to(NodeId(8))), (Some(&filling), None));
    let many = Outlook { filling: vec![filling; Outlook::FILLING_MAX + 1], ..Outlook::default() };
    assert!(take(&many).is_err());
    let many = Outlook { waits: vec![String::new(); Outlook::WAITS_MAX + 1], ..Outlook::default() };
    assert!(take(&many).is_err());
    let many = Outlook { jobs: vec![Progress::default(); ACTIVE_MAX + 1], ..Outlook::default() };
    assert!(take(&many).is_err());
    let long = Outlook { held: "z".repeat(TEXT_BYTES_MAX + 1), ..Outlook::default() };
    assert!(take(&long).is_err());
    let long = Outlook { waits: vec!["z".repeat(TEXT_BYTES_MAX + 1)], ..Outlook::default() };
    assert!(take(&long).is_err());
    assert_eq!(cut("é".repeat(200)).len(), TEXT_BYTES_MAX - 1);
}

#[test]
fn the_pace_is_what_it_was_lately_and_more_work_is_no_step_back() {
    let mut pace = Pace::default();
    assert_eq!((pace.per_s(), pace.eta_s()), (None, None));
    let mut left = 1_000.0;
    for second in 0..60u64 {
        pace.note(second * 1_000, left);
        left -= 2.0;
    }
    assert!((pace.per_s().unwrap() - 2.0).abs() < 1e-9, "{pace:?}");
    // More to do is known at once, and changes the pace not at all.
    pace.note(60_000, 4_000.0);
    assert_eq!(pace.eta_s(), Some(2_000));
    for second in 61..400u64 {
        pace.note(second * 1_000, 4_000.0 - (second - 60) as f64 * 8.0);
    }
    assert!((pace.per_s().unwrap() - 8.0).abs() < 0.01, "{pace:?}");
}

fn node(id: u128, state: NodeState) -> Node {
    Node { id: NodeId(id), domain: Domain::default(), capacity: NonZeroU32::MIN, state }
}

fn place(nodes: &[Node], copies: u8) -> Placement {
    let empty = Placement::empty(8).unwrap();
    let policy = Policy { replication_factor: NonZeroU8::new(copies).unwrap(), shards: 8 };
    empty.adopt(&compute(&empty, nodes, &policy).unwrap())
}

#[test]
fn a_copy_is_as_large_as_the_smallest_part_that_a_holder_has() {
    let placement = place(&[node(1, NodeState::Up), node(2, NodeState::Up)], 2);
    // Node 2 still has what was moved away from it.
    let bytes = |node: NodeId| if node.0 == 1 { 8_000 } else { 80_000 };
    assert_eq!(sizes(&placement, bytes), [1_000; 8]);
    // Who says nothing does not count, and a copy under way is none.
    assert_eq!(sizes(&placement, |node| if node.0 == 2 { 80_000 } else { 0 }), [10_000; 8]);
    let begin = Change::Begin { shard: Shard(0), from: None, to: Some(NodeId(3)) };
    let moving = placement.change(&[begin]).unwrap();
    assert_eq!(sizes(&moving, |node| if node.0 == 3 { 1 } else { bytes(node) }), [1_000; 8]);
    assert_eq!(sizes(&placement, |_| 0), [0; 8]);
}

/// Nodes 1 to 3 hold all shards, node 4 joins.
fn state() -> State {
    let profile = |n: u128| Profile {
        address: format!("n{n}:7421"),
        http_address: String::new(),
        zone: Domain::default(),
        capacity: 1,
        standby: false,
        starts: 1,
        boot: 1,
    };
    let cluster = Cluster { id: 1, shards: 8 };
    let mut state = State::create(cluster, 3, NodeId(1), (1, 1), profile(1), false).unwrap();
    let apply = |state: &mut State, command| {
        let index = state.applied() + 1;
        state.apply(index, &Request { token: u128::from(index), command }).unwrap();
    };
    for n in 2..=4 {
        let (id, disk) = (NodeId(n), n);
        apply(&mut state, Command::AddNode { id, disk, incarnation: 1, cluster: 0, profile: profile(n) });
        if n < 4 {
            apply(&mut state, Command::SetNodeState { id, state: NodeState::Up });
        }
    }
    let adopt = state.adoption().unwrap();
    apply(&mut state, adopt);
    apply(&mut state, Command::NoteData);
    state
}

#[test]
fn a_preview_says_what_would_be_done_and_changes_nothing() {
    let state = state();
    let before = state.clone();
    let preview = |kind, lost| super::preview(&state, &kind, lost, &[].into(), |_| 100);
    let added = preview(Kind::Add(NodeId(4)), false).unwrap();
    assert_eq!((added.copies, added.bytes, added.bytes_to_one), (6, 600, 600));
    assert_eq!((added.fewest_live, added.others, added.shortfall), (3, 0, None));
    let replaced = preview(Kind::Replace { old: NodeId(2), new: NodeId(4) }, false).unwrap();
    assert_eq!((replaced.copies, replaced.fewest_live), (8, 3));
    assert!(replaced.moves.iter().all(|step| (step.from, step.to) == (Some(NodeId(2)), Some(NodeId(4)))));
    assert!(replaced.moves.iter().all(|step| step.reason == Reason::Draining(NodeId(2))));
    let lost = preview(Kind::Replace { old: NodeId(2), new: NodeId(4) }, true).unwrap();
    assert_eq!((lost.copies, lost.fewest_live), (8, 2));
    // Nobody is left for the third copy.
    let drained = preview(Kind::Drain(NodeId(2)), false).unwrap();
    assert_eq!(drained.copies, 0);
    assert!(drained.shortfall.unwrap().contains("add 1"));
    let fewer = preview(Kind::ReplicationFactor { from: 3, to: 2 }, false).unwrap();
    assert_eq!((fewer.copies, fewer.moves.len(), fewer.fewest_live), (0, 8, 2));
    // What is away counts for nothing, and is said to.
    let away = super::preview(&state, &Kind::Add(NodeId(4)), false, &[NodeId(3)].into(), |_| 100).unwrap();
    assert_eq!(away.fewest_live, 2);
    assert_eq!(preview(Kind::Drain(NodeId(9)), false).unwrap_err().fault, Fault::NotFound);
    assert_eq!(state, before);
}
