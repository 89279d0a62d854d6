//! What must not be let in at the port for other nodes.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::cluster::{Cluster, Member};
use tests::random::Random;
use tests::until::until;

/// Sum of a metric over all its labels.
fn metric(client: &Client, name: &str, labels: &str) -> f64 {
    let text = client.get("/metrics").expect("an answer").body;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn garbage_and_giant_frames_at_the_cluster_port_change_nothing() {
    let mut random = Random::announced("garbage");
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 3);
    let address = &cluster.nodes[0].address;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let giant: Vec<u8> = [preface, &[0xff; 9], &vec![0xff; 1 << 20]].concat();
    let mut bodies = vec![b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), preface.to_vec(), giant];
    bodies.extend((0..30).map(|_| {
        let len = random.below(4096) as usize;
        random.bytes(len)
    }));
    bodies.extend((0..10).map(|_| {
        let len = random.below(4096) as usize;
        [preface.to_vec(), random.bytes(len)].concat()
    }));
    let memory = cluster.nodes[0].process.as_ref().expect("it runs").memory();
    for body in &bodies {
        let mut stream = TcpStream::connect(address).expect("the port is open");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time is no zero");
        // It may be closed at any moment.
        let _ = stream.write_all(body);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = vec![];
        let _ = stream.take(1 << 16).read_to_end(&mut answer);
    }
    let after = cluster.nodes[0].process.as_ref().expect("it runs").memory();
    assert!(after < memory + (64 << 20), "{memory} bytes before, {after} after");
    let loads = [Load::new("a", 20, yesterday(), 1_000)];
    under_load(&loads, &cluster.clients(), 2, || progress(&loads, 10));
    cluster.await_safe();
}

#[test]
fn a_node_with_a_wrong_token_is_refused_counted_and_told_what_to_do() {
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 1);
    let join = [cluster.nodes[0].address.clone()];
    let settings = Settings::default();
    let said =
        Member::new(&dir.path().join("stranger"), &settings, &join, Some("not-the-token-at-all")).refused();
    assert!(said.contains("token") && said.contains("--join-token"), "{said}");
    assert!(!dir.path().join("stranger/data/join-token").exists(), "a wrong token is not kept");
    let client = &cluster.nodes[0].client;
    until("the refusal to be counted", PATIENCE, || {
        match metric(client, "sarsen_cluster_connections_refused_total", "token") {
            count if count >= 1.0 => Ok(()),
            count => Err(format!("{count} refusals")),
        }
    });
    assert_eq!(cluster.nodes[0].status().expect("an answer")["nodes"].as_array().map(Vec::len), Some(1));
    let said = Member::new(&dir.path().join("unknowing"), &settings, &join, None).refused();
    assert!(said.contains("SARSEN_JOIN_TOKEN"), "{said}");
}
