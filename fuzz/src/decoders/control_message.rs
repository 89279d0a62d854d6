//! Calls between controllers, and their answers: refused, or the only form of what they say.

use cluster::bootstrap::CopyProgress;
use cluster::control::{Answer, Beat, Call, Copies, Heard, NodeReport, Sighting, Tidings};
use cluster::jobs::{Filling, Outlook, Progress};
use cluster::placement::NodeId;
use cluster::state::{Command, Fault, Outcome, Refusal, Request};
use cluster::view::Health;
use model::Shard;

pub fn check(bytes: &[u8]) -> bool {
    let call = Call::decode(bytes);
    if let Ok((cluster, call)) = &call {
        assert_eq!(call.encode(*cluster), bytes);
    }
    let answer = Answer::decode(bytes);
    if let Ok(answer) = &answer {
        assert_eq!(answer.encode(), bytes);
    }
    call.is_ok() || answer.is_ok()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let report = NodeReport {
        disk_free: 1 << 40,
        disk_total: 1 << 41,
        series: 50_000,
        load_permille: 250,
        damage: 1,
        data_bytes: 1 << 33,
        has_data: true,
    };
    let beat = Beat { starts: 3, boot: 4, applied: 300, epoch: 5, leaving: true, report };
    let sighting = |health| Sighting { health, age_ms: 1_000, beat, heard: Heard { by: 1, of: 2 } };
    let copy = |shard, bytes_total| CopyProgress { shard: Shard(shard), bytes_done: 300, bytes_total };
    let calls = [
        Call::Propose(Request { token: 9, command: Command::NoteData }),
        Call::Whose,
        Call::Heartbeat(
            beat,
            Tidings {
                copies: Copies {
                    complete: vec![(Shard(2), 4)],
                    progress: vec![copy(2, Some(900)), copy(3, None)],
                },
                sees: vec![NodeId(3)],
            },
        ),
    ];
    let progress = Progress {
        id: 4,
        copies: 7,
        bytes: 1 << 30,
        permille: 250,
        bytes_per_s: 1 << 24,
        eta_s: Some(64),
        waits: "the copy of shard 5 waits for node 2".to_owned(),
    };
    let outlook = Outlook {
        copies: 9,
        bytes: 1 << 31,
        bytes_per_s: 1 << 24,
        jobs: vec![progress.clone(), Progress { eta_s: None, ..progress }],
        waits: vec!["add a node".to_owned()],
        held: "the autopilot is paused".to_owned(),
        filling: vec![Filling { node: NodeId(2), copies: 3, bytes: 900, eta_s: Some(0) }],
    };
    let healthy = vec![(NodeId(1), sighting(Health::Up)), (NodeId(2), sighting(Health::Down))];
    let refusal = Refusal {
        fault: Fault::Directory(cluster::stop::Reason::Stale),
        text: "it is an old copy".to_owned(),
    };
    let taken = |result, state| Answer::Taken { index: 300, result, state };
    let answers = [
        taken(Ok(Outcome::Done), None),
        taken(Ok(Outcome::Member(3)), Some(vec![1, 2, 3])),
        taken(Ok(Outcome::Epoch(7)), None),
        taken(Ok(Outcome::Record { id: 1, revision: 2 }), None),
        taken(Err(refusal.clone()), None),
        Answer::NotLeader(Some((NodeId(2), "n2:7421".to_owned()))),
        Answer::NotLeader(None),
        Answer::Busy,
        Answer::Health(healthy, outlook),
        Answer::Health(Vec::new(), Outlook::default()),
        Answer::Stop(refusal),
        Answer::Foreign(8),
        Answer::Cluster(8),
    ];
    calls.iter().map(|call| call.encode(super::CLUSTER)).chain(answers.iter().map(Answer::encode)).collect()
}
