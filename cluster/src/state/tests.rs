use super::*;
use crate::jobs::{ACTIVE_MAX, Kind, OVER_MAX, Stage, Step};
use crate::placement::{Change, Replica, ReplicaState};
use crate::stop::Reason;
use model::Shard;
use proptest::prelude::*;

fn profile(n: u16, starts: u64, boot: u128) -> Profile {
    Profile {
        address: format!("n{n}:7421"),
        http_address: format!("n{n}:7420"),
        zone: format!("eu/z{n}").parse().unwrap(),
        capacity: 10,
        standby: false,
        starts,
        boot,
    }
}

fn add(n: u16) -> Command {
    let (id, disk) = (NodeId(u128::from(n)), u128::from(n) + 100);
    Command::AddNode { id, disk, incarnation: u64::from(n) + 1000, cluster: 0, profile: profile(n, 1, 1) }
}

fn up(n: u16) -> Command {
    Command::SetNodeState { id: NodeId(u128::from(n)), state: NodeState::Up }
}

fn first(has_data: bool) -> State {
    let cluster = Cluster { id: 0xc1, shards: 4 };
    State::create(cluster, 3, NodeId(1), (101, 1001), profile(1, 1, 1), has_data).unwrap()
}

/// Applies it at the next place, with a token of its own.
fn apply(state: &mut State, command: Command) -> Result<Outcome, Refusal> {
    let index = state.applied() + 1;
    state.apply(index, &Request { token: u128::from(index), command })
}

fn refused(state: &mut State, command: Command, fault: Fault, words: &str) {
    let before = State { applied: 0, answers: VecDeque::new(), ..state.clone() };
    let refusal = apply(state, command).unwrap_err();
    assert_eq!(refusal.fault, fault, "{refusal}");
    assert!(refusal.text.contains(words), "{refusal}");
    let after = State { applied: 0, answers: VecDeque::new(), ..state.clone() };
    assert_eq!(before, after, "a refusal changed something");
}

#[test]
fn empty_nodes_get_their_shares_until_there_is_data() {
    let mut state = first(false);
    assert_eq!((state.placement().epoch(), state.adoption()), (1, None));
    assert_eq!(apply(&mut state, add(2)), Ok(Outcome::Member(2)));
    assert_eq!(state.adoption(), None, "a node that joins has no share yet");
    apply(&mut state, up(2)).unwrap();
    let adopt = state.adoption().unwrap();
    assert_eq!(apply(&mut state, adopt.clone()), Ok(Outcome::Epoch(2)));
    assert!(state.placement().shards().iter().all(|replicas| replicas.len() == 2));
    refused(&mut state, adopt, Fault::Conflict, "compute it again");
    apply(&mut state, add(3)).unwrap();
    apply(&mut state, up(3)).unwrap();
    let adopt = state.adoption().unwrap();
    apply(&mut state, Command::NoteData).unwrap();
    assert_eq!(state.adoption(), None);
    refused(&mut state, adopt, Fault::Conflict, "there is data");
}

#[test]
fn a_placement_with_strangers_or_without_copies_is_refused() {
    let mut state = first(false);
    let own = Replica { node: NodeId(1), state: ReplicaState::Available };
    let with = |change: &dyn Fn(&mut Vec<Vec<Replica>>)| {
        let mut shards = vec![vec![own]; 4];
        change(&mut shards);
        shards
    };
    let place = |shards: Vec<Vec<Replica>>| {
        let target = crate::placement::Target {
            policy: Policy { replication_factor: NonZeroU8::MIN, shards: 4 },
            nodes: Vec::new(),
            shards: shards.into_iter().map(|replicas| replicas.iter().map(|r| r.node).collect()).collect(),
            loads: Vec::new(),
            copies: 1,
        };
        let placement = Placement::empty(4).unwrap().adopt(&target).adopt(&target);
        Command::AdoptPlacement { from_epoch: 1, placement }
    };
    let stranger = Replica { node: NodeId(9), ..own };
    refused(&mut state, place(with(&|shards| shards[2] = vec![stranger])), Fault::Conflict, "node 9");
    refused(&mut state, place(with(&|shards| shards[3].clear())), Fault::Invalid, "every shard");
    apply(&mut state, place(with(&|_| {}))).unwrap();
}

#[test]
fn a_token_that_was_taken_is_answered_as_then() {
    let mut state = first(false);
    let request = Request { token: 7, command: add(2) };
    assert_eq!(state.apply(5, &request), Ok(Outcome::Member(2)));
    apply(&mut state, Command::SetNodeState { id: NodeId(2), state: NodeState::Gone }).unwrap();
    assert_eq!(state.apply(9, &request), Ok(Outcome::Member(2)));
    assert_eq!((state.nodes()[&NodeId(2)].state, state.applied()), (NodeState::Gone, 9));
    // Tokens are forgotten in the end, so that memory is bounded.
    for _ in 0..TOKENS_MAX {
        apply(&mut state, Command::NoteData).unwrap();
    }
    assert_eq!(state.answers.len(), TOKENS_MAX);
    assert!(state.apply(state.applied() + 1, &request).is_err());
}

#[test]
fn a_start_is_registered_once_and_only_with_the_newest_own_directory() {
    let mut state = first(false);
    let start = |disk, starts, boot| Command::RegisterStart {
        node: NodeId(1),
        disk,
        profile: profile(1, starts, boot),
    };
    apply(&mut state, start(101, 4, 9)).unwrap();
    apply(&mut state, start(101, 4, 9)).unwrap();
    refused(&mut state, start(101, 4, 8), Fault::Directory(Reason::Copied), "two use copies");
    refused(&mut state, start(101, 3, 9), Fault::Directory(Reason::Stale), "old copy");
    refused(&mut state, start(102, 5, 9), Fault::Directory(Reason::Foreign), "another data directory");
    refused(&mut state, start(101, 5, 0), Fault::Invalid, "boot id");
    apply(&mut state, start(101, 6, 8)).unwrap();
    let unknown = Command::RegisterStart { node: NodeId(5), disk: 1, profile: profile(5, 1, 1) };
    refused(&mut state, unknown, Fault::Directory(Reason::Foreign), "no member");
}

#[test]
fn a_start_that_only_others_tell_of_counts_as_one_that_was_registered() {
    let mut state = first(false);
    let note = |starts, boot| Command::NoteStart { node: NodeId(1), starts, boot };
    let start = |starts, boot| Command::RegisterStart {
        node: NodeId(1),
        disk: 101,
        profile: profile(1, starts, boot),
    };
    apply(&mut state, note(2, 7)).unwrap();
    refused(&mut state, start(2, 8), Fault::Directory(Reason::Copied), "two use copies");
    refused(&mut state, start(1, 1), Fault::Directory(Reason::Stale), "old copy");
    // It was only slow.
    apply(&mut state, start(2, 7)).unwrap();
    // What is told late changes nothing.
    let before = state.nodes().clone();
    apply(&mut state, note(2, 9)).unwrap();
    apply(&mut state, note(1, 9)).unwrap();
    assert_eq!(*state.nodes(), before);
    apply(&mut state, start(3, 9)).unwrap();
    refused(&mut state, note(9, 0), Fault::Invalid, "boot id");
    refused(
        &mut state,
        Command::NoteStart { node: NodeId(7), starts: 1, boot: 1 },
        Fault::NotFound,
        "no node",
    );
}

#[test]
fn a_node_that_lost_its_raft_log_gets_a_new_number_and_a_wiped_one_is_refused() {
    let mut state = first(false);
    apply(&mut state, add(2)).unwrap();
    apply(&mut state, up(2)).unwrap();
    let again = |id, disk, incarnation, cluster, starts| Command::AddNode {
        id: NodeId(id),
        disk,
        incarnation,
        cluster,
        profile: profile(2, starts, 5),
    };
    assert_eq!(apply(&mut state, again(2, 102, 1002, 0, 2)), Ok(Outcome::Member(2)));
    assert_eq!(apply(&mut state, again(2, 102, 77, 0xc1, 3)), Ok(Outcome::Member(3)));
    assert_eq!(state.nodes()[&NodeId(2)].state, NodeState::Up);
    refused(&mut state, again(2, 999, 78, 0, 4), Fault::Directory(Reason::Foreign), "another data directory");
    refused(&mut state, again(7, 107, 1, 0, 1), Fault::Directory(Reason::Wiped), "address of node 2");
    refused(&mut state, again(2, 102, 79, 0xc2, 4), Fault::Directory(Reason::Foreign), "take --join away");
    apply(&mut state, Command::SetNodeState { id: NodeId(2), state: NodeState::Gone }).unwrap();
    refused(&mut state, again(2, 102, 77, 0, 5), Fault::Directory(Reason::Removed), "removed for ever");
    assert_eq!(apply(&mut state, again(7, 107, 1, 0, 1)), Ok(Outcome::Member(4)), "the address is free");
    refused(&mut state, up(2), Fault::Invalid, "for ever");
}

#[test]
fn a_node_without_which_a_shard_could_not_be_healed_cannot_be_removed() {
    let mut state = first(true);
    let gone = |n| Command::SetNodeState { id: NodeId(n), state: NodeState::Gone };
    refused(&mut state, gone(1), Fault::Conflict, "too few copies of shard 0");
    for n in [2, 3] {
        apply(&mut state, add(n)).unwrap();
        apply(&mut state, up(n)).unwrap();
        for shard in 0..4 {
            let (shard, to) = (Shard(shard), Some(NodeId(u128::from(n))));
            move_on(&mut state, |_| Change::Begin { shard, from: None, to }).unwrap();
            move_on(&mut state, |since| Change::CutOver { shard, since: since(shard) }).unwrap();
            move_on(&mut state, |since| Change::Finish { shard, since: since(shard) }).unwrap();
        }
    }
    apply(&mut state, gone(3)).unwrap();
    refused(&mut state, gone(2), Fault::Conflict, "too few copies of shard 0");
}

fn start(kind: Kind, lost: bool) -> Command {
    Command::StartJob { kind, lost, epoch: None, at_ms: 5, by: "ada".into(), copies: 7, bytes: 900 }
}

/// Starts a job and gives its number.
fn started(state: &mut State, kind: Kind) -> u64 {
    match apply(state, start(kind, false)) {
        Ok(Outcome::Record { id, revision: 1 }) => id,
        other => panic!("{kind}: {other:?}"),
    }
}

fn change(state: &State, id: u64, step: Step) -> Command {
    Command::ChangeJob { id, revision: state.jobs()[&id].revision, step, at_ms: 9 }
}

fn stepped(state: &mut State, id: u64, step: Step) {
    let change = change(state, id, step);
    apply(state, change).unwrap();
}

/// Data on nodes 1 to 3, each with every shard; node 4 joins.
fn settled() -> State {
    let mut state = first(false);
    for n in [2, 3] {
        apply(&mut state, add(n)).unwrap();
        apply(&mut state, up(n)).unwrap();
    }
    let adopt = state.adoption().unwrap();
    apply(&mut state, adopt).unwrap();
    apply(&mut state, Command::NoteData).unwrap();
    apply(&mut state, add(4)).unwrap();
    state
}

fn node_state(state: &State, n: u128) -> NodeState {
    state.nodes()[&NodeId(n)].state
}

const N: fn(u128) -> NodeId = NodeId;

#[test]
fn a_job_and_its_first_effect_are_one_step_and_cancelling_it_undoes_that() {
    let mut state = settled();
    let add = started(&mut state, Kind::Add(N(4)));
    assert_eq!(node_state(&state, 4), NodeState::Up);
    let job = &state.jobs()[&add];
    assert_eq!((job.created_ms, job.by.as_str(), job.copies, job.bytes), (5, "ada", 7, 900));
    let cancel = change(&state, add, Step::Cancel);
    apply(&mut state, cancel.clone()).unwrap();
    assert_eq!(node_state(&state, 4), NodeState::Draining);
    refused(&mut state, cancel, Fault::Conflict, "is cancelled already");
    // Whoever was to be emptied takes copies again.
    started(&mut state, Kind::Add(N(4)));
    assert_eq!(node_state(&state, 4), NodeState::Up);

    let drain = started(&mut state, Kind::Drain(N(2)));
    assert_eq!(node_state(&state, 2), NodeState::Draining);
    stepped(&mut state, drain, Step::Pause);
    assert_eq!((&state.jobs()[&drain].stage, state.jobs()[&drain].finished_ms), (&Stage::Paused, 0));
    let old = Command::ChangeJob { id: drain, revision: 1, step: Step::Resume, at_ms: 9 };
    refused(&mut state, old, Fault::Conflict, "somebody else");
    stepped(&mut state, drain, Step::Cancel);
    assert_eq!((node_state(&state, 2), state.jobs()[&drain].finished_ms), (NodeState::Up, 9));

    let factor = started(&mut state, Kind::ReplicationFactor { from: 3, to: 1 });
    assert_eq!(state.replication_factor(), 1);
    stepped(&mut state, factor, Step::Cancel);
    assert_eq!(state.replication_factor(), 3);
    let unknown = Command::ChangeJob { id: 99, revision: 1, step: Step::Pause, at_ms: 9 };
    refused(&mut state, unknown, Fault::NotFound, "sarsen jobs list");
}

#[test]
fn what_was_wanted_of_a_node_before_a_job_empties_it_counts_no_more() {
    let mut state = settled();
    let set = |state| Command::SetNodeState { id: N(2), state };
    let job = started(&mut state, Kind::Drain(N(2)));
    refused(&mut state, set(NodeState::Up), Fault::Conflict, "jobs cancel 1");
    refused(&mut state, set(NodeState::Lost), Fault::Conflict, "empties node 2");
    stepped(&mut state, job, Step::Cancel);
    apply(&mut state, set(NodeState::Lost)).unwrap();
    refused(&mut state, start(Kind::Add(N(2)), false), Fault::Conflict, "by itself when it is back");
    refused(&mut state, start(Kind::Add(N(3)), false), Fault::Conflict, "already");
    let many = Command::SetReplicationFactor { factor: 10 };
    refused(&mut state, many, Fault::Invalid, "at most 9");
}

#[test]
fn a_lost_node_is_nothing_that_copies_are_made_from() {
    let mut state = settled();
    apply(&mut state, Command::SetNodeState { id: N(1), state: NodeState::Lost }).unwrap();
    let gone = Command::SetNodeState { id: N(2), state: NodeState::Gone };
    refused(&mut state, gone, Fault::Conflict, "too few copies");
    apply(&mut state, Command::SetNodeState { id: N(1), state: NodeState::Gone }).unwrap();
}

#[test]
fn of_two_jobs_that_contradict_each_other_the_second_is_refused_with_the_number_of_the_first() {
    let mut state = settled();
    started(&mut state, Kind::Drain(N(2)));
    for kind in [Kind::Remove(N(2)), Kind::Add(N(2)), Kind::Replace { old: N(2), new: N(4) }] {
        refused(
            &mut state,
            start(kind, false),
            Fault::Conflict,
            "job 1 (drain 2) is at work and concerns node 2",
        );
    }
    assert_eq!(node_state(&state, 4), NodeState::Joining, "a refusal brings nobody in");
    started(&mut state, Kind::Rebalance);
    started(&mut state, Kind::ReplicationFactor { from: 3, to: 2 });
    let again = Kind::ReplicationFactor { from: 2, to: 1 };
    refused(&mut state, start(again, false), Fault::Conflict, "does the same");
    // Another node is nobody's business.
    started(&mut state, Kind::Drain(N(3)));
}

/// The job that a command is answered with.
fn answered(state: &mut State, command: Command) -> u64 {
    match apply(state, command) {
        Ok(Outcome::Record { id, revision }) => {
            assert_eq!(state.jobs()[&id].revision, revision);
            id
        }
        other => panic!("{other:?}"),
    }
}

/// Takes every copy from a node, as moves would have done.
fn emptied(state: &mut State, from: u128, to: u128) {
    for shard in (0..4).map(Shard) {
        if state.placement().replicas(shard).iter().any(|replica| replica.node == N(from)) {
            move_on(state, |_| Change::Begin { shard, from: Some(N(from)), to: Some(N(to)) }).unwrap();
            move_on(state, |since| Change::CutOver { shard, since: since(shard) }).unwrap();
            move_on(state, |since| Change::Finish { shard, since: since(shard) }).unwrap();
        }
    }
}

#[test]
fn who_asks_again_for_what_is_at_work_or_done_is_told_that_job_whatever_the_epoch() {
    let mut state = settled();
    let replace = Kind::Replace { old: N(2), new: N(4) };
    let at = |state: &State, kind| {
        let Command::StartJob { kind, lost, at_ms, by, copies, bytes, .. } = start(kind, false) else {
            unreachable!()
        };
        let epoch = Some(state.placement().epoch());
        Command::StartJob { kind, lost, epoch, at_ms, by, copies, bytes }
    };
    let first = at(&state, replace);
    let id = answered(&mut state, first.clone());
    let before = state.jobs().clone();
    assert_eq!(answered(&mut state, first.clone()), id, "it runs");
    emptied(&mut state, 2, 4);
    assert_eq!(answered(&mut state, first.clone()), id, "its own moves are no reason to refuse it");
    refused(&mut state, at(&settled(), Kind::Drain(N(3))), Fault::Conflict, "which is at");
    assert_eq!((node_state(&state, 3), state.jobs()), (NodeState::Up, &before));
    stepped(&mut state, id, Step::Finish);
    assert_eq!(node_state(&state, 2), NodeState::Gone);
    assert_eq!(answered(&mut state, first), id, "it is done");
    assert_eq!(answered(&mut state, start(replace, true)), id);
    // Somebody else's place is taken, whoever has forgotten the job.
    apply(&mut state, add(5)).unwrap();
    let other = Kind::Replace { old: N(2), new: N(5) };
    refused(&mut state, start(other, true), Fault::Conflict, "node 4 has taken its place");
    state.jobs.all.clear();
    assert_eq!(apply(&mut state, start(replace, true)), Ok(Outcome::Done));
    assert_eq!(apply(&mut state, start(Kind::Remove(N(2)), false)), Ok(Outcome::Done));
    assert_eq!(state.nodes()[&N(2)].gone, Gone { at_ms: 9, heir: Some(N(4)) });

    for kind in
        [Kind::Add(N(5)), Kind::Drain(N(3)), Kind::ReplicationFactor { from: 3, to: 2 }, Kind::Rebalance]
    {
        let id = started(&mut state, kind);
        let again = match kind {
            Kind::ReplicationFactor { to, .. } => Kind::ReplicationFactor { from: to, to },
            kind => kind,
        };
        assert_eq!(answered(&mut state, start(again, false)), id, "{kind}");
    }
    // What was given up is not what somebody wants who asks anew.
    let drain = *state.jobs().iter().find(|(_, job)| job.kind == Kind::Drain(N(3))).unwrap().0;
    stepped(&mut state, drain, Step::Cancel);
    assert_ne!(answered(&mut state, start(Kind::Drain(N(3)), false)), drain);
}

#[test]
fn a_node_that_dies_while_it_is_emptied_is_given_up_by_the_same_job_or_by_one_that_goes_further() {
    // As it was begun, for lost.
    let mut state = settled();
    let replace = Kind::Replace { old: N(2), new: N(4) };
    let id = started(&mut state, replace);
    assert_eq!(answered(&mut state, start(replace, true)), id);
    assert_eq!((node_state(&state, 2), state.jobs()[&id].revision), (NodeState::Gone, 2));
    assert_eq!(state.nodes()[&N(2)].gone, Gone { at_ms: 5, heir: Some(N(4)) });
    assert_eq!(answered(&mut state, start(replace, true)), id, "again");
    assert_eq!(state.jobs()[&id].revision, 2);
    // Removed, while it was being replaced: who comes in its place stays wanted.
    let mut state = settled();
    let id = started(&mut state, replace);
    assert_eq!(answered(&mut state, start(Kind::Remove(N(2)), true)), id);
    assert_eq!((node_state(&state, 2), node_state(&state, 4)), (NodeState::Gone, NodeState::Up));
    // A drain ends in the replacement of the node, or in its removal.
    for kind in [replace, Kind::Remove(N(2))] {
        let mut state = settled();
        let drain = started(&mut state, Kind::Drain(N(2)));
        refused(&mut state, start(kind, false), Fault::Conflict, "job 1 (drain 2)");
        let next = answered(&mut state, start(kind, true));
        assert_eq!((&state.jobs()[&drain].stage, state.jobs()[&drain].finished_ms), (&Stage::Cancelled, 5));
        assert!(next != drain && node_state(&state, 2) == NodeState::Gone);
    }
    // What cannot be is refused as a whole.
    let mut state = settled();
    apply(&mut state, Command::SetNodeState { id: N(1), state: NodeState::Lost }).unwrap();
    let drain = started(&mut state, Kind::Drain(N(2)));
    let before = (state.nodes().clone(), state.jobs().clone());
    refused(&mut state, start(replace, true), Fault::Conflict, "too few copies");
    assert_eq!((state.nodes(), state.jobs()), (&before.0, &before.1));
    assert!(state.jobs()[&drain].is_active() && node_state(&state, 4) == NodeState::Joining);
}

#[test]
fn who_comes_and_dies_is_replaced_by_another_whether_the_old_node_is_there_or_the_new_one_has_anything() {
    let mut state = settled();
    apply(&mut state, add(5)).unwrap();
    let first = started(&mut state, Kind::Replace { old: N(2), new: N(4) });
    // Another comes instead; the one that died gets nothing more, and the old one goes as before.
    let second = started(&mut state, Kind::Replace { old: N(2), new: N(5) });
    assert_eq!(state.jobs()[&first].stage, Stage::Cancelled);
    assert_eq!(
        [2, 4, 5].map(|n| node_state(&state, n)),
        [NodeState::Draining, NodeState::Draining, NodeState::Up]
    );
    // A chain: who came last is replaced itself, and has not everything yet.
    apply(&mut state, add(6)).unwrap();
    let third = started(&mut state, Kind::Replace { old: N(5), new: N(6) });
    assert_eq!([5, 6].map(|n| node_state(&state, n)), [NodeState::Draining, NodeState::Up]);
    assert!([second, third].iter().all(|id| state.jobs()[id].is_active()));
    assert_eq!(answered(&mut state, start(Kind::Replace { old: N(5), new: N(6) }, true)), third);
    assert_eq!((node_state(&state, 5), state.nodes()[&N(5)].gone.heir), (NodeState::Gone, Some(N(6))));
    // The first of the chain dies, too.
    assert_eq!(answered(&mut state, start(Kind::Replace { old: N(2), new: N(5) }, false)), second);
    assert_eq!(answered(&mut state, start(Kind::Remove(N(2)), true)), second);
    assert_eq!(node_state(&state, 2), NodeState::Gone);
}

#[test]
fn a_node_is_lost_as_soon_as_somebody_who_knows_says_so() {
    let mut state = settled();
    let heal = |n| Kind::Heal(N(n));
    let lease = Command::HoldLease { holder: "operator".into(), ttl_ms: 60_000 };
    apply(&mut state, lease).unwrap();
    let id = answered(&mut state, start(heal(2), true));
    assert_eq!(node_state(&state, 2), NodeState::Lost);
    assert_eq!(answered(&mut state, start(heal(2), true)), id);
    apply(&mut state, Command::SetNodeState { id: N(2), state: NodeState::Up }).unwrap();
    refused(&mut state, start(heal(4), true), Fault::Conflict, "holds nothing");
    refused(&mut state, start(heal(9), true), Fault::NotFound, "no node 9");
    apply(&mut state, Command::SetNodeState { id: N(3), state: NodeState::Gone }).unwrap();
    refused(&mut state, start(heal(3), true), Fault::Invalid, "gone for ever");
    started(&mut state, Kind::Add(N(4)));
    stepped(&mut state, id, Step::Finish);
    started(&mut state, Kind::Drain(N(2)));
    refused(&mut state, start(heal(2), true), Fault::Conflict, "is at work");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut state = settled();
    let mut refuse = |kind, fault, words: &str| refused(&mut state, start(kind, false), fault, words);
    refuse(Kind::Drain(N(9)), Fault::NotFound, "no node 9");
    refuse(Kind::Drain(N(4)), Fault::Conflict, "is joining and holds nothing");
    refuse(Kind::Replace { old: N(2), new: N(2) }, Fault::Invalid, "cannot replace itself");
    refuse(Kind::Replace { old: N(9), new: N(4) }, Fault::NotFound, "no node 9");
    refuse(Kind::ReplicationFactor { from: 3, to: 3 }, Fault::Invalid, "3 already");
    refuse(Kind::ReplicationFactor { from: 2, to: 1 }, Fault::Conflict, "look again");
    refuse(Kind::ReplicationFactor { from: 3, to: 0 }, Fault::Invalid, "at least 1");
    let mut alone = first(true);
    refused(&mut alone, start(Kind::Drain(N(1)), false), Fault::Conflict, "add one first");
    refused(&mut alone, start(Kind::Remove(N(1)), true), Fault::Conflict, "too few copies");
}

#[test]
fn who_is_removed_goes_when_it_is_empty_and_who_is_lost_goes_at_once() {
    let mut state = settled();
    let remove = started(&mut state, Kind::Remove(N(2)));
    assert_eq!(node_state(&state, 2), NodeState::Draining);
    let finish = change(&state, remove, Step::Finish);
    refused(&mut state, finish, Fault::Conflict, "node 2 holds copies still");
    stepped(&mut state, remove, Step::Cancel);

    // Lost: replaced at once, or not at all.
    let lost = Kind::Replace { old: N(2), new: N(4) };
    let id = match apply(&mut state, start(lost, true)) {
        Ok(Outcome::Record { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!((node_state(&state, 2), node_state(&state, 4)), (NodeState::Gone, NodeState::Up));
    let cancel = change(&state, id, Step::Cancel);
    refused(&mut state, cancel, Fault::Conflict, "gone for good");
    refused(&mut state, start(Kind::Remove(N(3)), true), Fault::Conflict, "too few copies of shard 0");

    // The replacement is lost, too: it held nothing yet, and another takes its place.
    apply(&mut state, add(5)).unwrap();
    apply(&mut state, start(Kind::Replace { old: N(4), new: N(5) }, true)).unwrap();
    assert_eq!((node_state(&state, 4), node_state(&state, 5)), (NodeState::Gone, NodeState::Up));

    // Who joins holds nothing, and is gone when its removal is done.
    apply(&mut state, add(6)).unwrap();
    let newcomer = started(&mut state, Kind::Remove(N(6)));
    stepped(&mut state, newcomer, Step::Finish);
    assert_eq!((node_state(&state, 6), &state.jobs()[&newcomer].stage), (NodeState::Gone, &Stage::Done));
}

#[test]
fn the_last_jobs_that_are_over_are_remembered_and_the_numbers_go_on() {
    let mut state = settled();
    let count = OVER_MAX as u64 + 3;
    for _ in 0..count {
        let id = started(&mut state, Kind::Rebalance);
        stepped(&mut state, id, Step::Fail("no way".into()));
    }
    let kept: Vec<u64> = state.jobs().keys().copied().collect();
    assert_eq!(kept, (4..=count).collect::<Vec<_>>());
    assert_eq!(State::decode(&state.encode()).as_ref(), Ok(&state));
    // Healing may be wanted of as many nodes as there are.
    let mut state = first(true);
    for n in 0..=ACTIVE_MAX as u16 {
        apply(&mut state, add(n + 2)).unwrap();
        let heal = start(Kind::Heal(N(u128::from(n) + 2)), false);
        if usize::from(n) < ACTIVE_MAX {
            apply(&mut state, heal).unwrap();
        } else {
            refused(&mut state, heal, Fault::Limit, "at most 64 jobs");
        }
    }
}

/// Moves one shard one step further.
fn move_on(state: &mut State, change: impl Fn(&dyn Fn(Shard) -> u64) -> Change) -> Result<Outcome, Refusal> {
    let placement = state.placement();
    let (from_epoch, change) = (placement.epoch(), change(&|shard| placement.changed(shard)));
    apply(state, Command::MoveShards { from_epoch, changes: vec![change] })
}

#[test]
fn moves_change_the_epoch_once_and_all_or_nothing_and_an_old_wish_is_refused() {
    let mut state = first(true);
    apply(&mut state, add(2)).unwrap();
    let begin = |n: u16| Change::Begin { shard: Shard(n), from: None, to: Some(NodeId(2)) };
    let ask = |from_epoch, changes: &[Change]| Command::MoveShards { from_epoch, changes: changes.to_vec() };
    refused(&mut state, ask(1, &[begin(0)]), Fault::Conflict, "takes no copies");
    apply(&mut state, up(2)).unwrap();
    refused(&mut state, ask(0, &[begin(0)]), Fault::Conflict, "compute them again");
    refused(&mut state, ask(1, &[]), Fault::Invalid, "nothing to move");
    refused(&mut state, ask(1, &[begin(0), begin(0)]), Fault::Conflict, "shard 0 is moving already");
    refused(&mut state, ask(1, &[begin(0), begin(4)]), Fault::Conflict, "no such shard");
    assert_eq!(apply(&mut state, ask(1, &[begin(0), begin(1)])), Ok(Outcome::Epoch(2)));
    refused(&mut state, ask(2, &[begin(1)]), Fault::Conflict, "wait for that move or cancel it");
    let since = 2;
    refused(
        &mut state,
        ask(2, &[Change::Finish { shard: Shard(0), since }]),
        Fault::Conflict,
        "not complete",
    );
    refused(
        &mut state,
        ask(2, &[Change::CutOver { shard: Shard(3), since }]),
        Fault::Conflict,
        "is not moving",
    );
    // Given up, and begun again: what was reported of the first does not end the second.
    let again = [Change::Cancel { shard: Shard(0), since }, begin(0)];
    assert_eq!(apply(&mut state, ask(2, &again)), Ok(Outcome::Epoch(3)));
    refused(
        &mut state,
        ask(3, &[Change::CutOver { shard: Shard(0), since }]),
        Fault::Conflict,
        "that is over",
    );
    // The other has waited meanwhile, and its report still counts.
    assert_eq!(
        apply(&mut state, ask(3, &[Change::CutOver { shard: Shard(1), since }])),
        Ok(Outcome::Epoch(4))
    );
    let cancel = Change::Cancel { shard: Shard(1), since: 4 };
    refused(&mut state, ask(4, &[cancel]), Fault::Conflict, "only goes on");
    assert_eq!(
        apply(&mut state, ask(4, &[Change::Finish { shard: Shard(1), since: 4 }])),
        Ok(Outcome::Epoch(5))
    );
    assert_eq!(state.placement().replicas(Shard(1)).len(), 2);
}

#[test]
fn namespaces_have_plain_names_and_default_stays() {
    let mut state = first(false);
    let make = |name: &str| Command::ApplyNamespace { name: name.into(), namespace: Namespace::default() };
    apply(&mut state, make("long-1_y")).unwrap();
    for name in ["", "A", "a b", "../x", &"a".repeat(64)] {
        refused(&mut state, make(name), Fault::Invalid, "no name");
    }
    let delete = |name: &str| Command::DeleteNamespace { name: name.into() };
    refused(&mut state, delete("default"), Fault::Invalid, "always there");
    refused(&mut state, delete("other"), Fault::NotFound, "no namespace");
    apply(&mut state, delete("long-1_y")).unwrap();
    for n in 1..NAMESPACES_MAX {
        apply(&mut state, make(&format!("n{n}"))).unwrap();
    }
    refused(&mut state, make("more"), Fault::Limit, "at most");
}

#[test]
fn records_are_changed_only_by_who_saw_the_last_revision() {
    let mut state = first(false);
    let put = |id, revision, bytes: &[u8]| Command::Put {
        table: Table::Tombstones,
        id,
        revision,
        bytes: bytes.into(),
    };
    assert_eq!(apply(&mut state, put(0, 0, b"a")), Ok(Outcome::Record { id: 1, revision: 1 }));
    assert_eq!(apply(&mut state, put(1, 1, b"b")), Ok(Outcome::Record { id: 1, revision: 2 }));
    refused(&mut state, put(1, 1, b"c"), Fault::Conflict, "revision 2");
    refused(&mut state, put(2, 1, b"c"), Fault::NotFound, "no record 2");
    refused(&mut state, put(0, 0, &vec![0; RECORD_BYTES_MAX + 1]), Fault::Limit, "at most");
    let delete = |revision| Command::Delete { table: Table::Tombstones, id: 1, revision };
    refused(&mut state, delete(1), Fault::Conflict, "revision 2");
    apply(&mut state, delete(2)).unwrap();
    assert_eq!(apply(&mut state, put(0, 0, b"a")), Ok(Outcome::Record { id: 2, revision: 1 }));
    assert_eq!(state.records(Table::Tombstones).len(), 1);
}

#[test]
fn features_and_copies_only_make_sense_within_bounds() {
    let mut state = first(false);
    refused(&mut state, Command::SetReplicationFactor { factor: 0 }, Fault::Invalid, "at least 1");
    apply(&mut state, Command::SetReplicationFactor { factor: 2 }).unwrap();
    assert_eq!(state.replication_factor(), 2);
    refused(&mut state, Command::RaiseFeatures { version: FEATURES + 1 }, Fault::Invalid, "never go back");
    apply(&mut state, Command::RaiseFeatures { version: FEATURES }).unwrap();
}

#[test]
fn a_lease_has_one_holder_and_ends_only_if_nobody_renewed_it() {
    let mut state = first(true);
    let hold = |holder: &str, ttl_ms| Command::HoldLease { holder: holder.into(), ttl_ms };
    refused(&mut state, hold("", 1_000), Fault::Invalid, "a holder");
    refused(&mut state, hold("operator", 1 << 40), Fault::Invalid, "renewed at least every");
    apply(&mut state, hold("operator", 60_000)).unwrap();
    let renewals = |state: &State| state.settings().lease.as_ref().map(|lease| lease.renewals);
    let seen = renewals(&state).unwrap();
    refused(&mut state, hold("another", 1_000), Fault::Conflict, "holds the lease");
    apply(&mut state, hold("operator", 60_000)).unwrap();
    apply(&mut state, Command::EndLease { renewals: seen }).unwrap();
    assert_eq!(renewals(&state), Some(seen + 1), "it was renewed meanwhile");
    apply(&mut state, Command::EndLease { renewals: seen + 1 }).unwrap();
    apply(&mut state, hold("another", 60_000)).unwrap();
    refused(&mut state, hold("operator", 0), Fault::Conflict, "holds the lease");
    apply(&mut state, hold("another", 0)).unwrap();
    assert_eq!(state.settings(), &Settings::default());
}

/// One of everything.
fn example() -> State {
    let mut state = first(true);
    apply(&mut state, add(2)).unwrap();
    let put = |table| Command::Put { table, id: 0, revision: 0, bytes: vec![0xab; 3] };
    apply(&mut state, up(2)).unwrap();
    apply(&mut state, start(Kind::Drain(NodeId(2)), false)).unwrap();
    apply(&mut state, put(Table::Tombstones)).unwrap();
    apply(&mut state, Command::HoldLease { holder: "op".into(), ttl_ms: 30_000 }).unwrap();
    apply(&mut state, Command::ThrottleMoves { bytes_per_second: 1 << 20 }).unwrap();
    apply(&mut state, Command::DeleteNamespace { name: "x".into() }).unwrap_err();
    state
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_format_page_shows_the_bytes_that_are_written() {
    let page = include_str!("../../../docs/format/control-state.md");
    let request = Request { token: 3, command: add(2) };
    for bytes in [example().encode(), request.encode()] {
        assert!(page.contains(&hex(&bytes)), "docs/format/control-state.md does not show:\n{}", hex(&bytes));
    }
}

#[test]
fn whatever_is_cut_or_changed_is_refused_or_means_what_it_says() {
    let bytes = example().encode();
    assert_eq!(State::decode(&bytes), Ok(example()));
    for at in 0..bytes.len() {
        assert!(State::decode(&bytes[..at]).is_err(), "cut at {at}");
        for bit in [1, 0x80] {
            let mut other = bytes.clone();
            other[at] ^= bit;
            if let Ok(state) = State::decode(&other) {
                assert_eq!(state.encode(), other, "byte {at}");
            }
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let node = || prop::option::of((1u128..6).prop_map(NodeId));
    let shard = || (0u16..5).prop_map(Shard);
    prop_oneof![
        (shard(), node(), node()).prop_map(|(shard, from, to)| Change::Begin { shard, from, to }),
        (shard(), 0u64..4).prop_map(|(shard, since)| Change::CutOver { shard, since }),
        (shard(), 0u64..4).prop_map(|(shard, since)| Change::Finish { shard, since }),
        (shard(), 0u64..4).prop_map(|(shard, since)| Change::Cancel { shard, since }),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let node = || (1u128..6).prop_map(NodeId);
    prop_oneof![
        node().prop_map(Kind::Add),
        node().prop_map(Kind::Drain),
        node().prop_map(Kind::Remove),
        (node(), node()).prop_map(|(old, new)| Kind::Replace { old, new }),
        Just(Kind::Rebalance),
        (0u8..4, 0u8..4).prop_map(|(from, to)| Kind::ReplicationFactor { from, to }),
        node().prop_map(Kind::Heal),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Pause),
        Just(Step::Resume),
        Just(Step::Cancel),
        Just(Step::Finish),
        Just(Step::Fail("why".to_owned())),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let node = 1u16..6;
    let state = prop_oneof![
        Just(NodeState::Joining),
        Just(NodeState::Up),
        Just(NodeState::Down),
        Just(NodeState::Lost),
        Just(NodeState::Draining),
        Just(NodeState::Gone)
    ];
    let table = Just(Table::Tombstones);
    let profiled = (node.clone(), 1u64..5, 1u128..3);
    prop_oneof![
        (profiled.clone(), 0u128..3, 0u64..4).prop_map(|((n, starts, boot), disk, incarnation)| {
            Command::AddNode {
                id: NodeId(u128::from(n)),
                disk,
                incarnation,
                cluster: 0,
                profile: profile(n, starts, boot),
            }
        }),
        (profiled, 0u128..3).prop_map(|((n, starts, boot), disk)| Command::RegisterStart {
            node: NodeId(u128::from(n)),
            disk,
            profile: profile(n, starts, boot)
        }),
        (node.clone(), 0u64..5, 0u128..3).prop_map(|(n, starts, boot)| Command::NoteStart {
            node: NodeId(u128::from(n)),
            starts,
            boot
        }),
        (node, state).prop_map(|(n, state)| Command::SetNodeState { id: NodeId(u128::from(n)), state }),
        "[a-c]{0,2}".prop_map(|name| Command::ApplyNamespace { name, namespace: Namespace::default() }),
        "[a-c]{1,2}".prop_map(|name| Command::DeleteNamespace { name }),
        (0u64..3).prop_map(|from_epoch| Command::AdoptPlacement {
            from_epoch,
            placement: Placement::empty(4).unwrap()
        }),
        (0u64..3, prop::collection::vec(any_change(), 0..3))
            .prop_map(|(from_epoch, changes)| Command::MoveShards { from_epoch, changes }),
        Just(Command::NoteData),
        (0u8..4).prop_map(|factor| Command::SetReplicationFactor { factor }),
        (0u32..3).prop_map(|version| Command::RaiseFeatures { version }),
        (table, 0u64..3, 0u64..3, prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(table, id, revision, bytes)| Command::Put { table, id, revision, bytes }),
        (table, 0u64..3, 0u64..3).prop_map(|(table, id, revision)| Command::Delete { table, id, revision }),
        (any_kind(), any::<bool>()).prop_map(|(kind, lost)| start(kind, lost)),
        (1u64..6, 1u64..4, any_step()).prop_map(|(id, revision, step)| Command::ChangeJob {
            id,
            revision,
            step,
            at_ms: 9
        }),
    ]
}

proptest! {
    /// Whatever is agreed on: bytes go round, equal commands give equal states, and what never goes back does not.
    #[test]
    fn any_commands_keep_the_invariants(commands in prop::collection::vec((any_command(), 0u8..4), 0..60)) {
        let (mut state, mut other) = (first(false), first(false));
        for (at, (command, token)) in commands.into_iter().enumerate() {
            let before = state.clone();
            // The leader's choice now and then instead.
            let command = if token == 0 { state.adoption().unwrap_or(command) } else { command };
            let token = if token == 1 { 1 } else { at as u128 + 2 };
            let request = Request { token, command };
            let bytes = request.encode();
            prop_assert_eq!(Request::decode(&bytes), Ok(request.clone()));
            let answer = state.apply(at as u64 + 1, &request);
            let copy = State::decode(&other.encode()).unwrap();
            other = copy;
            prop_assert_eq!(&answer, &other.apply(at as u64 + 1, &request));
            prop_assert_eq!(&state, &other);
            prop_assert_eq!(state.encode(), other.encode());
            prop_assert!(state.has_data || !before.has_data);
            prop_assert!(state.members_given >= before.members_given);
            prop_assert!(state.placement.epoch() >= before.placement.epoch());
            prop_assert!(state.placement == before.placement || state.placement.epoch() > before.placement.epoch());
            for (id, node) in &before.nodes {
                let now = &state.nodes[id];
                prop_assert!(now.profile.starts >= node.profile.starts);
                prop_assert!(node.state != NodeState::Gone || now.state == NodeState::Gone);
                prop_assert!(now.incarnation == node.incarnation || now.member > node.member);
            }
            let members: std::collections::BTreeSet<u64> = state.nodes.values().map(|node| node.member).collect();
            prop_assert_eq!(members.len(), state.nodes.len(), "a number was given twice");
            prop_assert!(state.namespaces.contains_key("default"));
            prop_assert!(state.jobs.given >= before.jobs.given);
            let active: Vec<&Kind> = state.jobs.all.values().filter(|job| job.is_active()).map(|job| &job.kind).collect();
            let leaving: Vec<NodeId> =
                active.iter().filter(|kind| !matches!(kind, Kind::Heal(_))).filter_map(|kind| kind.leaving()).collect();
            prop_assert!((1..leaving.len()).all(|n| !leaving[..n].contains(&leaving[n])), "two jobs empty one node");
            prop_assert!(active.iter().filter(|kind| ***kind == Kind::Rebalance).count() <= 1);
        }
    }

    #[test]
    fn any_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        for bytes in [&bytes, &versioned] {
            if let Ok(state) = State::decode(bytes) {
                prop_assert_eq!(&state.encode(), bytes);
            }
            if let Ok(request) = Request::decode(bytes) {
                prop_assert_eq!(&request.encode(), bytes);
            }
        }
    }
}
