//! Nodes in memory, with a network whose every step is chosen.

use super::*;
use crate::placement::NodeId;
use crate::quorum::{Consistency, WriteQuorum};
use crate::rows::Limits;
use crate::testing::{KEY, Memory, batch, labels, view};
use crate::view::{Departed, View};
use bytes::Bytes;
use model::{Batch, Durable, Error, Labels, RejectReason, Replica};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

const SHARDS: u32 = 4;

fn poll(durable: &mut Durable) -> Poll<Result<(), Error>> {
    durable.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()))
}

struct Node {
    view: Arc<View>,
    replica: Memory,
    receiver: Receiver,
    /// Replies that wait for their rows to be durable.
    replies: Vec<(u8, Reply, Durable)>,
}

/// A request that is under way at node 1.
struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    dictionary: Arc<Dictionary>,
}

struct Request {
    coordinator: Coordinator,
    local: Option<Durable>,
    frames: Vec<(NodeId, Bytes)>,
    replies: Vec<(NodeId, Vec<u8>)>,
}

const ME: NodeId = NodeId(1);

impl Cluster {
    fn new(nodes: u128, replication_factor: u8) -> Cluster {
        let node = |id| Node {
            view: Arc::new(view(id, nodes, replication_factor, SHARDS)),
            replica: Memory::new(SHARDS),
            receiver: Receiver::new(Limits::default()),
            replies: Vec::new(),
        };
        Cluster {
            nodes: (1..=nodes).map(|id| (NodeId(id), node(id))).collect(),
            dictionary: Arc::new(Dictionary::new(SHARDS)),
        }
    }

    fn replica(&self, node: u128) -> &Memory {
        &self.nodes[&NodeId(node)].replica
    }

    fn context(&self, consistency: Consistency) -> Context {
        Context {
            view: self.nodes[&ME].view.clone(),
            bounds: Bounds::ALL,
            consistency,
            dictionary: self.dictionary.clone(),
            session: Session::new(1, 5),
            timeout_ms: 1000,
        }
    }

    fn begin(&self, context: Context, batch: &Arc<Batch>, only: Option<&[u32]>) -> Request {
        let mut coordinator = Coordinator::begin(context, batch, only);
        let (local, outgoing) = match coordinator.local() {
            (_, []) => (None, coordinator.on_local(Ok(Local::default()))),
            (batch, indices) => match self.nodes[&ME].replica.append_replicated(batch, Some(indices)) {
                Ok(appended) => {
                    let local = Local { unknown: appended.unknown, rejected: appended.rejected };
                    (Some(appended.durable), coordinator.on_local(Ok(local)))
                }
                Err(error) => (None, coordinator.on_local(Err(&error))),
            },
        };
        let frames = outgoing.into_iter().map(|one| (one.to, one.body)).collect();
        Request { coordinator, local, frames, replies: Vec::new() }
    }

    fn deliver(&mut self, to: NodeId, frame: &Bytes) {
        let node = self.nodes.get_mut(&to).expect("a node");
        let received = node.receiver.receive(&node.view, &node.replica, ME, frame);
        let durable = received.durable.unwrap_or_else(|| Box::pin(std::future::ready(Ok(()))));
        node.replies.push((received.round, received.reply, durable));
    }

    /// Moves replies whose rows are durable, or lost, to the network.
    fn collect(&mut self, request: &mut Request) {
        for (id, node) in &mut self.nodes {
            node.replies.retain_mut(|(round, reply, durable)| match poll(durable) {
                Poll::Pending => true,
                Poll::Ready(result) => {
                    let reply = result.map_or_else(|error| Received::failed(&error), |()| reply.clone());
                    request.replies.push((*id, reply.encode(*round)));
                    false
                }
            });
        }
        if let Some(durable) = &mut request.local
            && let Poll::Ready(result) = poll(durable)
        {
            request.coordinator.on_durable(result.as_ref().copied());
            request.local = None;
        }
    }

    fn answer(request: &mut Request, at: usize) {
        let (from, reply) = request.replies.remove(at);
        if let Some(more) = request.coordinator.on_reply(from, &reply) {
            request.frames.push((more.to, more.body));
        }
    }

    /// Lets everything happen that can.
    fn settle(&mut self, request: &mut Request) {
        for _ in 0..100 {
            for (to, frame) in std::mem::take(&mut request.frames) {
                self.deliver(to, &frame);
            }
            self.nodes.values().for_each(|node| drop(node.replica.commit()));
            self.collect(request);
            if request.replies.is_empty() && request.frames.is_empty() {
                return;
            }
            while !request.replies.is_empty() {
                Cluster::answer(request, 0);
            }
        }
        panic!("the request does not come to an end");
    }

    /// Sends a batch as `ingest` does: what is unknown goes once more with labels that are checked.
    fn write(&mut self, batch: &Arc<Batch>, consistency: Consistency) -> Vec<Verdict> {
        let mut first = self.begin(self.context(consistency), batch, None);
        self.settle(&mut first);
        let mut verdicts = vec![first.coordinator.verdict()];
        let unknown = first.coordinator.unknown().to_vec();
        if !unknown.is_empty() {
            let mut checked = Batch::clone(batch);
            unknown.iter().for_each(|&index| checked.series[index as usize].checked = true);
            let mut second = self.begin(self.context(consistency), &Arc::new(checked), Some(&unknown));
            self.settle(&mut second);
            assert_eq!(second.coordinator.unknown(), [0u32; 0]);
            verdicts.push(second.coordinator.verdict());
        }
        verdicts
    }

    /// Whether a quorum has every row durably that is not among `rejected`.
    fn is_durable(&self, batch: &Batch, indices: &[u32], consistency: Consistency) -> bool {
        indices.iter().all(|&index| {
            let series = &batch.series[index as usize];
            let replicas = self.nodes[&ME].view.placement.replicas(series.id.shard(SHARDS));
            WriteQuorum::new(replicas, consistency).is_met(|node| {
                let replica = &self.nodes[&node].replica;
                series.floats().all(|row| {
                    replica.has_durably(series.id, batch.timestamps[row], f64::from_bits(batch.values[row]))
                })
            })
        })
    }
}

fn series(count: usize, first: usize) -> Vec<Labels> {
    (first..first + count).map(|i| labels("up", &[("i", &i.to_string())])).collect()
}

/// One row for each series, labels not checked.
fn unchecked(series: &[Labels], timestamp: i64) -> Arc<Batch> {
    let rows = |labels: &Labels| (labels.clone(), vec![(timestamp, timestamp as f64 + 0.5)]);
    let mut batch = Arc::unwrap_or_clone(batch(&series.iter().map(rows).collect::<Vec<_>>()));
    batch.series.iter_mut().for_each(|one| one.checked = false);
    Arc::new(batch)
}

fn acknowledged() -> Verdict {
    Verdict::Acknowledged { rejected: vec![] }
}

#[test]
fn new_series_come_by_labels_then_known_ones_by_number_in_twelve_bytes_a_row() {
    let mut cluster = Cluster::new(3, 3);
    let all = series(400, 0);
    assert_eq!(cluster.write(&unchecked(&all, 1), Consistency::Majority), [acknowledged(), acknowledged()]);
    for timestamp in [1_700_000_000_000, 1_700_000_015_000] {
        let batch = unchecked(&all, timestamp);
        let mut request = cluster.begin(cluster.context(Consistency::All), &batch, None);
        assert_eq!(request.frames.len(), 2);
        assert_eq!(request.frames[0].1.as_ptr(), request.frames[1].1.as_ptr(), "one body for both");
        let bytes = request.frames[0].1.len() as f64 / 400.0;
        assert!(bytes < 12.0, "{bytes} bytes a row");
        cluster.settle(&mut request);
        assert_eq!(request.coordinator.verdict(), acknowledged());
        assert!(request.coordinator.unknown().is_empty());
    }
    let content = cluster.replica(1).content();
    assert_eq!(content.len(), 1200);
    assert!(cluster.replica(2).content() == content && cluster.replica(3).content() == content);
}

#[test]
fn a_replica_that_lost_its_numbers_or_the_series_asks_and_gets_the_rows() {
    let mut cluster = Cluster::new(3, 3);
    let all = series(50, 0);
    cluster.write(&unchecked(&all, 1), Consistency::Majority);
    // Node 2 forgets the numbers, node 3 the numbers and all series.
    for (node, replica) in [(2, None), (3, Some(Memory::new(SHARDS)))] {
        let node = cluster.nodes.get_mut(&NodeId(node)).expect("there");
        node.receiver = Receiver::new(Limits::default());
        node.replica = replica.unwrap_or(node.replica.clone());
    }
    assert_eq!(cluster.write(&unchecked(&all, 2), Consistency::All), [acknowledged()]);
    assert_eq!(cluster.replica(1).content(), cluster.replica(2).content());
    assert_eq!(cluster.replica(3).content().len(), 50);
    // And from then on it knows.
    let batch = unchecked(&all, 3);
    let mut request = cluster.begin(cluster.context(Consistency::All), &batch, None);
    for (to, frame) in std::mem::take(&mut request.frames) {
        cluster.deliver(to, &frame);
        let (_, reply, _) = &cluster.nodes[&to].replies[0];
        assert!(
            matches!(reply, Reply::Appended { missing, unknown, .. } if missing.is_empty() && unknown.is_empty())
        );
    }
}

#[test]
fn a_node_without_replicas_of_a_shard_tells_what_it_cannot_place() {
    // Five nodes, so node 1 has none of some shards.
    let mut cluster = Cluster::new(5, 3);
    let all = series(100, 0);
    assert_eq!(cluster.write(&unchecked(&all, 1), Consistency::All), [acknowledged(), acknowledged()]);
    assert_eq!(cluster.write(&unchecked(&all, 2), Consistency::All), [acknowledged()]);
    let rows: usize = (1..=5).map(|node| cluster.replica(node).content().len()).sum();
    assert_eq!(rows, 100 * 2 * 3);
    // After a restart it has no numbers, and no series of those shards.
    cluster.dictionary = Arc::new(Dictionary::new(SHARDS));
    let request = cluster.begin(cluster.context(Consistency::All), &unchecked(&all, 3), None);
    let view = &cluster.nodes[&ME].view;
    let held = view.held_by(ME);
    let foreign = all.iter().filter(|labels| !held.contains(KEY.id(labels.as_bytes()).shard(SHARDS))).count();
    assert!(foreign > 0);
    assert_eq!(request.coordinator.unknown().len(), foreign);
}

#[test]
fn an_epoch_that_differs_a_foreign_shard_and_malformed_bytes_change_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let rows = batch(&[(labels("up", &[]), vec![(1, 1.0)])]);
    let request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    let frame = request.frames[0].1.clone();
    let node = cluster.nodes.get_mut(&NodeId(2)).expect("there");
    let receive = |view: &View, frame: &[u8]| {
        let received = node.receiver.receive(view, &node.replica, ME, frame);
        assert!(received.durable.is_none());
        received.reply
    };
    let mut other = frame.to_vec();
    other[0] = 0;
    assert_eq!(receive(&node.view, &other), Reply::StaleEpoch { epoch: 1 });
    other[0] = 2;
    assert_eq!(receive(&node.view, &other), Reply::BehindEpoch { epoch: 1 });
    let stranger = View { me: NodeId(9), ..View::clone(&node.view) };
    assert!(matches!(receive(&stranger, &frame), Reply::NotHeld { .. }));
    for len in 0..frame.len() {
        // A header alone is a frame without rows.
        let reply = receive(&node.view, &frame[..len]);
        assert!(matches!(reply, Reply::Never { .. }) || len == Header::BYTES, "{len} {reply:?}");
    }
    assert!(cluster.replica(2).content().is_empty());
}

#[test]
fn a_node_that_is_known_to_be_removed_gives_nobody_rows_although_the_placement_is_the_same() {
    let mut cluster = Cluster::new(3, 3);
    let rows = batch(&[(labels("up", &[]), vec![(1, 1.0)])]);
    let request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    let frame = request.frames[0].1.clone();
    let node = cluster.nodes.get_mut(&NodeId(2)).expect("there");
    let mut view = View::clone(&node.view);
    view.nodes.remove(&ME);
    view.gone.insert(ME, Departed { address: String::new(), at_ms: 0, heir: None });
    let received = node.receiver.receive(&view, &node.replica, ME, &frame);
    assert!(received.durable.is_none());
    assert!(
        matches!(&received.reply, Reply::Failed { why } if why.contains("removed")),
        "{:?}",
        received.reply
    );
    assert!(cluster.replica(2).content().is_empty());
}

#[test]
fn what_is_out_of_bounds_reaches_nobody() {
    let mut cluster = Cluster::new(3, 3);
    let (up, down) = (labels("up", &[]), labels("down", &[]));
    let rows = batch(&[(up, vec![(5, 5.0), (50, 50.0), (7, 7.0), (500, 500.0)]), (down, vec![(500, 1.0)])]);
    let context = Context { bounds: Bounds { oldest: 10, newest: 100 }, ..cluster.context(Consistency::All) };
    let mut request = cluster.begin(context, &rows, None);
    cluster.settle(&mut request);
    assert_eq!(request.coordinator.verdict(), acknowledged());
    let rejected: Vec<_> =
        request.coordinator.rejected().iter().map(|r| (r.series, r.timestamp, r.rows, r.reason)).collect();
    assert_eq!(
        rejected,
        [
            (0, 5, 2, RejectReason::TooOld),
            (0, 500, 1, RejectReason::TooFarInFuture),
            (1, 500, 1, RejectReason::TooFarInFuture)
        ]
    );
    for node in 1..=3 {
        let content = cluster.replica(node).content();
        assert_eq!(content.iter().map(|(_, t, _)| *t).collect::<Vec<_>>(), [50], "node {node}");
    }
}

#[test]
fn one_full_replica_does_not_matter_and_two_refuse_for_good() {
    let mut cluster = Cluster::new(3, 3);
    cluster.replica(2).limit_series(Some(0));
    let rows = |name| batch(&[(labels(name, &[]), vec![(1, 1.0)])]);
    assert_eq!(cluster.write(&rows("a"), Consistency::Majority), [acknowledged()]);
    cluster.replica(3).limit_series(Some(1));
    let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows("b"), None);
    cluster.settle(&mut request);
    let Verdict::Acknowledged { rejected } = request.coordinator.verdict() else { panic!("not decided") };
    assert_eq!((rejected.len(), rejected[0].reason), (1, RejectReason::SeriesLimit));
    assert!(matches!(request.coordinator.outcome(), Some(Err(Error::Limit { .. }))));
    // The own replica's word is told at once.
    cluster.replica(1).limit_series(Some(0));
    let request = cluster.begin(cluster.context(Consistency::Majority), &rows("c"), None);
    assert_eq!(request.coordinator.rejected().len(), 1);
    assert!(request.frames.is_empty());
}

#[test]
fn without_a_majority_the_shards_are_named_and_what_was_missed_becomes_a_hint() {
    let mut cluster = Cluster::new(3, 3);
    let rows = batch(&[(labels("up", &[]), vec![(1, 1.0)])]);
    let shard = rows.series[0].id.shard(SHARDS);
    let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    request.frames.retain(|(to, _)| *to != NodeId(3));
    cluster.settle(&mut request);
    assert_eq!(request.coordinator.verdict(), acknowledged());
    assert!(request.coordinator.missed().is_empty(), "node 3 may still answer");
    request.coordinator.on_deadline();
    assert_eq!(request.coordinator.verdict(), acknowledged());
    let missed = request.coordinator.missed();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].node, NodeId(3));

    let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    request.coordinator.on_failed(NodeId(2), "connection refused");
    request.frames.clear();
    cluster.settle(&mut request);
    assert_eq!(request.coordinator.verdict(), Verdict::Waiting);
    request.coordinator.on_deadline();
    assert_eq!(request.coordinator.verdict(), Verdict::Unavailable { shards: vec![shard], have: 1, need: 2 });
    assert!(request.coordinator.missed().is_empty());
    let Some(Err(error)) = request.coordinator.outcome() else { panic!("no outcome") };
    let named = format!(
        "shard {} has 1 of the 2 replicas that are needed; no answer from node-2:7421 (connection refused), node-3:7421 (timed out)",
        shard.0
    );
    assert_eq!(error.to_string(), named);
}

#[test]
fn a_replica_that_has_not_heard_of_the_placement_is_asked_again_and_a_newer_one_is_told() {
    let mut cluster = Cluster::new(3, 3);
    let rows = batch(&[(labels("up", &[]), vec![(1, 1.0)])]);
    let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    let behind = Reply::BehindEpoch { epoch: 0 }.encode(1);
    let again = request.coordinator.on_reply(NodeId(2), &behind).expect("once more");
    assert!(again.after_ms > 0 && again.to == NodeId(2) && again.body == request.frames[0].1);
    assert_eq!(request.coordinator.on_reply(NodeId(3), &Reply::StaleEpoch { epoch: 8 }.encode(1)), None);
    assert_eq!(request.coordinator.newer_epoch(), Some(8));
    request.frames.retain(|(to, _)| *to == NodeId(2));
    cluster.settle(&mut request);
    assert_eq!(request.coordinator.verdict(), acknowledged());
}

#[test]
fn a_reply_that_makes_no_sense_is_a_failure_of_its_sender() {
    let mut cluster = Cluster::new(3, 3);
    let rows = batch(&[(labels("up", &[]), vec![(1, 1.0)])]);
    let lies = [
        Reply::Appended { missing: vec![7], unknown: vec![], refused: vec![] }.encode(1),
        Reply::Appended { missing: vec![], unknown: vec![1], refused: vec![] }.encode(1),
        vec![],
        vec![1, 99],
    ];
    for lie in lies {
        let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
        assert_eq!(request.coordinator.on_reply(NodeId(2), &lie), None);
        assert!(!request.coordinator.waiting().contains(&NodeId(2)));
        request.frames.clear();
        cluster.settle(&mut request);
        assert_eq!(request.coordinator.verdict(), Verdict::Waiting, "the others decide");
    }
    // Somebody who asks for ever is given up.
    let mut request = cluster.begin(cluster.context(Consistency::Majority), &rows, None);
    for round in 1..20 {
        let asks = Reply::Appended { missing: vec![0], unknown: vec![], refused: vec![] };
        request.coordinator.on_reply(NodeId(2), &asks.encode(round));
    }
    assert!(!request.coordinator.waiting().contains(&NodeId(2)));
}

#[test]
fn a_reply_that_comes_twice_counts_once() {
    let mut cluster = Cluster::new(3, 3);
    let all = series(20, 0);
    cluster.write(&unchecked(&all, 1), Consistency::All);
    cluster.nodes.get_mut(&NodeId(2)).expect("there").replica = Memory::new(SHARDS);
    let rows = unchecked(&all, 2);
    let mut request = cluster.begin(cluster.context(Consistency::All), &rows, None);
    for (to, frame) in std::mem::take(&mut request.frames) {
        cluster.deliver(to, &frame);
    }
    cluster.nodes.values().for_each(|node| node.replica.commit().unwrap());
    cluster.collect(&mut request);
    let (from, asks) = request.replies.iter().find(|(from, _)| *from == NodeId(2)).expect("it asks").clone();
    assert!(request.coordinator.on_reply(from, &asks).is_some());
    assert_eq!(request.coordinator.on_reply(from, &asks), None);
    assert!(request.coordinator.waiting().contains(&from), "the rows are still on their way");
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(prop::sample::Index),
    Duplicate(prop::sample::Index),
    Lose(prop::sample::Index),
    Answer(prop::sample::Index),
    Repeat(prop::sample::Index),
    LoseReply(prop::sample::Index),
    Commit(u128),
    Crash(u128),
    Unreachable(u128),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::Duplicate),
        1 => index().prop_map(Step::Lose),
        6 => index().prop_map(Step::Answer),
        1 => index().prop_map(Step::Repeat),
        1 => index().prop_map(Step::LoseReply),
        6 => (1u128..5).prop_map(Step::Commit),
        1 => (1u128..5).prop_map(Step::Crash),
        1 => (2u128..5).prop_map(Step::Unreachable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens on the way, what is acknowledged is durable on a quorum at that moment; and a verdict stands.
    #[test]
    fn acknowledged_means_that_a_quorum_has_it_durably(
        steps in prop::collection::vec(step(), 0..60),
        consistency in prop::sample::select(vec![Consistency::One, Consistency::Majority, Consistency::All]),
        nodes in 3u128..5, known in 0usize..6, forgets in any::<bool>(), checked in any::<bool>(),
        empty in 2u128..9,
    ) {
        let mut cluster = Cluster::new(nodes, 3);
        let all = series(6, 0);
        if known > 0 {
            cluster.write(&unchecked(&all[..known], 1), Consistency::Majority);
        }
        if forgets {
            cluster.dictionary = Arc::new(Dictionary::new(SHARDS));
        }
        if let Some(node) = cluster.nodes.get_mut(&NodeId(empty)) {
            // It has the numbers, and no series.
            node.replica = Memory::new(SHARDS);
        }
        let mut rows = Arc::unwrap_or_clone(unchecked(&all, 2));
        rows.series.iter_mut().for_each(|one| one.checked = checked);
        let rows = Arc::new(rows);
        let mut request = cluster.begin(cluster.context(consistency), &rows, None);
        let taken: Vec<u32> =
            (0..6).filter(|index| !request.coordinator.unknown().contains(index)).collect();
        prop_assert!(!checked || taken.len() == 6);
        let mut decided = false;
        for step in steps {
            match step {
                Step::Deliver(at) if !request.frames.is_empty() => {
                    let (to, frame) = request.frames.remove(at.index(request.frames.len()));
                    cluster.deliver(to, &frame);
                }
                Step::Duplicate(at) if !request.frames.is_empty() => {
                    let (to, frame) = request.frames[at.index(request.frames.len())].clone();
                    cluster.deliver(to, &frame);
                }
                Step::Lose(at) if !request.frames.is_empty() => {
                    request.frames.remove(at.index(request.frames.len()));
                }
                Step::Answer(at) if !request.replies.is_empty() => {
                    let at = at.index(request.replies.len());
                    Cluster::answer(&mut request, at);
                }
                Step::Repeat(at) if !request.replies.is_empty() => {
                    let again = request.replies[at.index(request.replies.len())].clone();
                    request.replies.push(again);
                }
                Step::LoseReply(at) if !request.replies.is_empty() => {
                    request.replies.remove(at.index(request.replies.len()));
                }
                Step::Commit(node) if node <= nodes => cluster.replica(node).commit().unwrap(),
                Step::Crash(node) if node <= nodes => {
                    let node = cluster.nodes.get_mut(&NodeId(node)).unwrap();
                    node.replica.crash();
                    node.receiver = Receiver::new(Limits::default());
                }
                Step::Unreachable(node) => request.coordinator.on_failed(NodeId(node), "gone"),
                _ => {}
            }
            cluster.collect(&mut request);
            let verdict = request.coordinator.verdict();
            if let Verdict::Acknowledged { rejected } = &verdict {
                prop_assert!(rejected.is_empty());
                if !decided {
                    prop_assert!(cluster.is_durable(&rows, &taken, consistency));
                }
            }
            prop_assert!(!decided || verdict != Verdict::Waiting);
            decided = verdict != Verdict::Waiting;
        }
        request.coordinator.on_deadline();
        prop_assert!(request.coordinator.verdict() != Verdict::Waiting);
        for missed in request.coordinator.missed() {
            prop_assert!(missed.node != ME && !missed.sections.is_empty());
        }
    }
}
