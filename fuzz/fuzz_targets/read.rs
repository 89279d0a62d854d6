//! What nodes ask and answer of reads: any request is answered or refused, any answer is taken or refused.
#![no_main]

use cluster::read::{Bounds, Effect, Event, Plan, Request, Select};
use cluster::placement::{Node, NodeId, NodeState, Placement, Policy, compute};
use cluster::quorum::Consistency;
use cluster::view::{Health, Peer, View};
use model::{Matcher, Selection, SeriesKey, SeriesSet, TimeRange};
use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

/// Two nodes, each with half of two shards: this one asks the other for everything it has.
fn view() -> View {
    let nodes: Vec<Node> = (1..=2)
        .map(|id| Node {
            id: NodeId(id),
            domain: "z".parse().unwrap(),
            capacity: NonZeroU32::MIN,
            state: NodeState::Up,
        })
        .collect();
    let policy = Policy { replication_factor: NonZeroU8::MIN, shards: 2 };
    let empty = Placement::empty(2).unwrap();
    let placement = empty.adopt(&compute(&empty, &nodes, &policy).unwrap());
    let peer = |node: &Node| Peer {
        address: String::new(),
        http_address: String::new(),
        zone: node.domain.clone(),
        capacity: 1,
        state: NodeState::Up,
        health: Health::Up,
        starts: 1,
    };
    View {
        cluster: 7,
        key: SeriesKey([1, 2, 3, 4]),
        // Nobody: every shard is read from others.
        me: NodeId(9),
        placement,
        replication_factor: 1,
        nodes: nodes.iter().map(|node| (node.id, peer(node))).collect(),
        namespaces: BTreeMap::new(),
        leader: None,
        has_data: true,
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()).unwrap().encode(), request.encode());
    }
    let plan = Plan {
        consistency: Consistency::Majority,
        partial: true,
        digests: true,
        hedge_after_ms: 10,
        deadline_ms: 1000,
        load: BTreeMap::new(),
    };
    let matchers = vec![Matcher::equal("a", "b")];
    let range = TimeRange::new(0, 1_000_000);
    let selection = Selection { matchers, range, series_max: 100, shards: None };
    let mut select =
        Select::new(Arc::new(view()), selection, plan, Bounds { fetch_bytes_max: 1 << 20 });
    let mut asked: Vec<u32> = Vec::new();
    let note = |effects: Vec<Effect>, asked: &mut Vec<u32>| {
        for effect in effects {
            if let Effect::Send { number, .. } = effect {
                asked.push(number);
            }
        }
    };
    note(select.step(0, Event::Tick), &mut asked);
    // Chunks with a byte of length and a byte for the ask in front.
    let mut rest = bytes;
    while let [len, which, tail @ ..] = rest {
        let (chunk, behind) = tail.split_at(tail.len().min(usize::from(*len)));
        let number = asked[usize::from(*which) % asked.len()];
        note(select.step(1, Event::Chunk { number, bytes: chunk.to_vec() }), &mut asked);
        rest = behind;
    }
    for now in [500, 1000, 2000] {
        note(select.step(now, Event::Tick), &mut asked);
    }
    // Over a limit is an answer, too.
    let Ok(set) = select.finish() else { return };
    let mut samples = model::Samples::default();
    for index in 0..set.len() {
        set.read(index, TimeRange::ALL, &mut samples).unwrap();
        assert_eq!(set.labels(index).get("a"), Some("b"));
        assert!(samples.timestamps.iter().all(|t| range.contains(*t)));
    }
});
