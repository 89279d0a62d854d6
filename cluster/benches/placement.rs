//! How long placements of 100 nodes take: `cargo bench -p cluster --bench placement`.

use cluster::placement::{Node, NodeId, NodeState, Placement, Policy, Target, compute, plan};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Instant;

/// 100 nodes in 5 zones of 4 racks, of three sizes.
fn hundred() -> Vec<Node> {
    (0..100u32)
        .map(|i| Node {
            id: NodeId(u128::from(i) + 1),
            domain: format!("eu/zone-{}/rack-{}", i % 5, i / 5 % 4).parse().expect("a valid path"),
            capacity: NonZeroU32::new(2 + i % 3).expect("not zero"),
            state: NodeState::Up,
        })
        .collect()
}

fn timed(what: &str, old: &Placement, nodes: &[Node], policy: &Policy) -> Target {
    let start = Instant::now();
    let target = compute(old, nodes, policy).expect("a placement");
    println!("{:6} shards, {what}: {:?}", policy.shards, start.elapsed());
    target
}

fn main() {
    for shards in [4096, 65_536] {
        let policy = Policy { replication_factor: NonZeroU8::new(3).expect("not zero"), shards };
        let mut nodes = hundred();
        let empty = Placement::empty(shards).expect("a power of two");
        let now = empty.adopt(&timed("new", &empty, &nodes, &policy));
        timed("unchanged", &now, &nodes, &policy);
        nodes[3].state = NodeState::Gone;
        let target = timed("node lost", &now, &nodes, &policy);
        let start = Instant::now();
        plan(&now, &target, |_| 1);
        println!("{shards:6} shards, plan: {:?}, {} bytes encoded", start.elapsed(), now.encode().len());
        let lost = nodes.iter_mut().filter(|n| n.domain.segments()[1] == "zone-2");
        lost.for_each(|n| n.state = NodeState::Gone);
        timed("zone lost", &now, &nodes, &policy);
    }
}
