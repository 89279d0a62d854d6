//! A network that falls apart, in namespaces of the test's own.
//!
//! ```text
//!    node i in namespace n<i>:  eth0 10.77.0.1<i>  ─── c<i> ─ br0       other nodes; c<i> is taken down to cut it off
//!                               eth1 10.78.<i>.2   ─── m<i> 10.78.<i>.1 clients, never cut
//! ```

use super::*;
use std::path::Path;
use tests::cluster::{Cluster, Member};
use tests::namespaces::{inside, prepare, run};
use tests::random::Random;
use tests::until::until;
use tests::wire::v1;

fn network(count: usize) {
    prepare();
    run("ip link add br0 type bridge");
    run("ip link set br0 up");
    for i in 0..count {
        run(&format!("ip netns add n{i}"));
        run(&format!("ip link add c{i} type veth peer name eth0 netns n{i}"));
        run(&format!("ip link set c{i} master br0 up"));
        run(&format!("ip link add m{i} type veth peer name eth1 netns n{i}"));
        run(&format!("ip addr add 10.78.{i}.1/24 dev m{i}"));
        run(&format!("ip link set m{i} up"));
        run(&format!("ip -n n{i} addr add 10.77.0.1{i}/24 dev eth0"));
        run(&format!("ip -n n{i} addr add 10.78.{i}.2/24 dev eth1"));
        for device in ["lo", "eth0", "eth1"] {
            run(&format!("ip -n n{i} link set {device} up"));
        }
    }
}

fn cut(node: usize) {
    run(&format!("ip link set c{node} down"));
}

fn heal(node: usize) {
    run(&format!("ip link set c{node} up"));
}

fn member(dir: &Path, number: usize, token: &str) -> Member {
    let namespace = format!("n{number}");
    let prefix = ["ip", "netns", "exec", namespace.as_str()];
    let (http, address) = (format!("10.78.{number}.2:7420"), format!("10.77.0.1{number}:7421"));
    let join = if number == 0 { vec![] } else { vec!["10.77.0.10:7421".to_string()] };
    let dir = dir.join(format!("node{number}"));
    Member::within(&prefix, &dir, &repaired_every("5s"), [&http, &address], &join, token)
}

#[test]
#[ignore = "needs root"]
fn the_majority_goes_on_the_minority_refuses_and_all_heals_by_itself() {
    if !inside("cluster::partition::the_majority_goes_on_the_minority_refuses_and_all_heals_by_itself") {
        return;
    }
    let mut random = Random::announced("partition");
    network(3);
    let dir = folder();
    let token = "a-token-for-this-test".to_string();
    let mut nodes: Vec<Member> = (0..3).map(|number| member(dir.path(), number, &token)).collect();
    nodes[0].start();
    nodes.iter_mut().skip(1).for_each(Member::start);
    let cluster = Cluster { nodes, token };
    cluster.await_safe();
    let clients = cluster.clients();
    let start = yesterday();
    let loads = ["a", "b"].map(|name| Load::new(name, 50, start, 1_000));
    under_load(&loads, &clients, random.number(), || progress(&loads, 20));

    for round in 0..3 {
        let alone = (round + random.below(3) as usize) % 3;
        cut(alone);
        let majority: Vec<Client> =
            (0..3).filter(|node| *node != alone).map(|node| clients[node].clone()).collect();
        // The two that see each other take writes and answer reads.
        under_load(&loads, &majority, random.number(), || progress(&loads, 100));
        // The one alone does neither, and says so.
        let body = v1::request(&loads[0].samples(loads[0].acknowledged() - 1)).snappy();
        until("the minority to refuse writes", PATIENCE, || {
            match clients[alone].send("POST", "/api/v1/write", &[], &body)? {
                answer if answer.status == 503 && answer.body.contains("shard") => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        });
        let query = format!("/api/v1/query?query=count(load)&time={}", loads[0].end() as f64 / 1e3);
        let read = clients[alone].get(&query).expect("an answer");
        assert_eq!(read.status, 503, "{read:?}");
        cluster.nodes[alone].await_safety("unavailable");
        heal(alone);
        cluster.await_safe();
        under_load(&loads, &clients, random.number(), || progress(&loads, 20));
    }
    let end = loads.iter().map(Load::end).max().expect("there are loads");
    cluster.await_equal_digests(start, end, Duration::from_secs(60));
    check_all(&loads, &clients);
}
