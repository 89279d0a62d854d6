//! What the nodes agree on, and the commands that change it: refused, or the only form of what they say; and a command that is
//! taken leaves a state that can be written down.

use cluster::jobs::{Kind, Step};
use cluster::placement::{NodeId, NodeState};
use cluster::state::{Cluster, Command, Profile, Request, State, Table};
use cluster::view::Namespace;

fn profile(n: u128) -> Profile {
    Profile {
        address: format!("n{n}:7421"),
        http_address: format!("n{n}:7420"),
        zone: format!("eu/z{n}").parse().expect("a path"),
        capacity: 10,
        standby: false,
        starts: 2,
        boot: n,
    }
}

fn first() -> State {
    let cluster = Cluster { id: super::CLUSTER, shards: 4 };
    State::create(cluster, 3, NodeId(1), (101, 1001), profile(1), false).expect("a possible cluster")
}

fn commands() -> Vec<Command> {
    let id = NodeId(2);
    let namespace = Namespace { retention_ms: 3_600_000, ..Namespace::default() };
    let name = "scratch".to_owned();
    let cluster = super::CLUSTER;
    let mut all = vec![
        Command::AddNode { id, disk: 102, incarnation: 1002, cluster, profile: profile(2) },
        Command::RegisterStart { node: NodeId(1), disk: 101, profile: Profile { starts: 3, ..profile(1) } },
        Command::SetNodeState { id, state: NodeState::Up },
        Command::ApplyNamespace { name: name.clone(), namespace },
        Command::Put { table: Table::Tombstones, id: 0, revision: 0, bytes: vec![4] },
        Command::SetReplicationFactor { factor: 2 },
        Command::RaiseFeatures { version: 1 },
    ];
    let mut state = first();
    apply(&mut state, &all);
    all.extend(state.adoption());
    all.push(Command::NoteData);
    let start = |kind, lost| Command::StartJob {
        kind,
        lost,
        epoch: lost.then_some(300),
        at_ms: 5,
        by: "ada".to_owned(),
        copies: 2,
        bytes: 300,
    };
    let change = |id, step| Command::ChangeJob { id, revision: 1, step, at_ms: 6 };
    all.extend([
        start(Kind::Drain(NodeId(1)), false),
        change(1, Step::Cancel),
        start(Kind::ReplicationFactor { from: 2, to: 1 }, false),
        change(2, Step::Pause),
        start(Kind::Rebalance, false),
        change(3, Step::Fail("nothing can move".to_owned())),
        start(Kind::Remove(NodeId(1)), true),
        start(Kind::Replace { old: NodeId(1), new: NodeId(2) }, false),
        start(Kind::Add(NodeId(9)), false),
        start(Kind::Heal(NodeId(9)), false),
        change(4, Step::Resume),
        change(4, Step::Finish),
    ]);
    all.push(Command::Delete { table: Table::Tombstones, id: 1, revision: 1 });
    all.push(Command::DeleteNamespace { name });
    all
}

fn apply(state: &mut State, commands: &[Command]) {
    for (command, token) in commands.iter().zip(1..) {
        // A refusal is remembered as well.
        let _ = state.apply(state.applied() + 1, &Request { token, command: command.clone() });
    }
}

pub fn check(bytes: &[u8]) -> bool {
    let decoded = State::decode(bytes);
    if let Ok(state) = &decoded {
        assert_eq!(state.encode(), bytes);
        let _ = state.adoption();
    }
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        assert_eq!(request.encode(), bytes);
        let mut state = first();
        apply(&mut state, &commands());
        let _ = state.apply(state.applied() + 1, request);
        assert_eq!(State::decode(&state.encode()).as_ref(), Ok(&state));
    }
    decoded.is_ok() || request.is_ok()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut state = first();
    let mut seeds = vec![state.encode()];
    apply(&mut state, &commands());
    seeds.push(state.encode());
    seeds.extend(commands().into_iter().map(|command| Request { token: 99, command }.encode()));
    seeds
}
