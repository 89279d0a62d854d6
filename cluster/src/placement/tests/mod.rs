//! What placement promises, held to it.

mod bytes;
mod laws;
mod oracle;
mod scale;
mod scenarios;

use super::*;
use model::Shard;
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroU32};

/// A node that is up.
fn node(id: u128, domain: &str, capacity: u32) -> Node {
    Node {
        id: NodeId(id),
        domain: domain.parse().unwrap(),
        capacity: NonZeroU32::new(capacity).unwrap(),
        state: NodeState::Up,
    }
}

/// Nodes 1, 2, … of equal capacity in these domains.
fn nodes(domains: &[&str]) -> Vec<Node> {
    (1..).zip(domains).map(|(id, domain)| node(id, domain, 1)).collect()
}

fn policy(replication_factor: u8, shards: u32) -> Policy {
    Policy { replication_factor: NonZeroU8::new(replication_factor).unwrap(), shards }
}

/// A new cluster's placement.
fn fresh(nodes: &[Node], policy: &Policy) -> Placement {
    let empty = Placement::empty(policy.shards).unwrap();
    empty.adopt(&compute(&empty, nodes, policy).unwrap())
}

/// Copies per node.
fn held(shards: &[Vec<NodeId>]) -> BTreeMap<u128, u64> {
    let mut held = BTreeMap::new();
    shards.iter().flatten().for_each(|node| *held.entry(node.0).or_default() += 1);
    held
}

/// Copies of each shard that the target has and the placement does not.
fn new_copies(old: &Placement, target: &Target) -> usize {
    let added = |(old, new): (&Vec<Replica>, &Vec<NodeId>)| {
        new.iter().filter(|&&node| old.iter().all(|r| r.node != node)).count()
    };
    old.shards().iter().zip(&target.shards).map(added).sum()
}

/// How many of a shard's copies share a domain with another one at each level, highest first: pairs.
fn pairs(chosen: &[NodeId], nodes: &[Node]) -> Vec<usize> {
    let levels = nodes.iter().map(|node| node.domain.segments().len()).max().unwrap_or(0);
    let path = |id: &NodeId| nodes.iter().find(|node| node.id == *id).unwrap().domain.segments();
    let shared = |level: usize| {
        let same =
            |a: &[String], b: &[String]| a.len() > level && b.len() > level && a[..=level] == b[..=level];
        let all = chosen.iter().enumerate().flat_map(|(i, a)| chosen[..i].iter().map(move |b| (a, b)));
        all.filter(|(a, b)| same(path(a), path(b))).count()
    };
    (0..levels).map(shared).collect()
}

/// Begins a move.
fn begin(now: &Placement, step: &Move) -> Result<Placement, Error> {
    let Move { shard, from, to, .. } = *step;
    now.change(&[Change::Begin { shard, from, to }])
}

/// Ends one, from whatever phase it is in.
fn finish(now: &Placement, shard: Shard) -> Placement {
    let mut now = now.clone();
    if let Phase::Copying(_) = now.phase(shard) {
        now = now.change(&[Change::CutOver { shard, since: now.changed(shard) }]).unwrap();
    }
    now.change(&[Change::Finish { shard, since: now.changed(shard) }]).unwrap()
}

/// Carries a plan out, move by move, with everything checked that must hold on the way; returns where it leads.
fn carry_out(old: &Placement, target: &Target, plan: &Plan) -> Placement {
    let mut now = old.clone();
    let arrived = |shard: &Shard| old.replicas(*shard).iter().any(|r| r.state == ReplicaState::Arrived);
    for shard in old.moving().filter(arrived) {
        now = finish(&now, shard);
    }
    for &shard in &plan.cancel {
        now = now.change(&[Change::Cancel { shard, since: now.changed(shard) }]).unwrap();
    }
    let state = |id: NodeId| target.nodes.iter().find(|node| node.id == id).map(|node| node.state);
    let live = |placement: &Placement, shard: Shard| {
        let whole = placement
            .replicas(shard)
            .iter()
            .filter(|r| !matches!(r.state, ReplicaState::Initializing { .. }));
        whole.filter(|r| matches!(state(r.node), Some(NodeState::Up | NodeState::Draining))).count()
    };
    let mut waited = BTreeSet::new();
    for step in &plan.moves {
        // What waits for a node that is away counts it as live afterwards, which it is by then; but not here.
        let counts = !waited.contains(&step.shard.0);
        assert!(!counts || live(&now, step.shard) == step.live, "{step}");
        if step.waits {
            waited.insert(step.shard.0);
        }
        let epoch = now.epoch();
        if !step.under_way {
            now = begin(&now, step).unwrap();
        }
        let in_transit = |r: &&Replica| matches!(r.state, ReplicaState::Initializing { .. });
        let moving = now.replicas(step.shard).iter().filter(in_transit).count();
        assert_eq!(moving, usize::from(step.to.is_some()), "one replica at a time: {step}");
        assert!(!counts || live(&now, step.shard) == step.live, "nothing is given up before: {step}");
        now = finish(&now, step.shard);
        assert!(now.epoch() > epoch);
        assert_eq!(Placement::decode(&now.encode()).unwrap(), now);
    }
    now
}

/// The nodes of each shard.
fn ids(placement: &Placement) -> Vec<Vec<NodeId>> {
    placement.shards().iter().map(|replicas| replicas.iter().map(|r| r.node).collect()).collect()
}

/// Makes the target the placement by moves, and checks that the plan does lead there.
fn move_to(old: &Placement, target: &Target) -> Placement {
    let plan = plan(old, target, |_| 1);
    assert_eq!(plan.stranded, []);
    let new = carry_out(old, target, &plan);
    assert_eq!(ids(&new), target.shards);
    new
}
