//! What must not be let in at the port for other nodes.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::cluster::{Cluster, Member};
use tests::peer::Hello;
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
fn who_is_no_peer_or_sends_no_frames_is_refused_counted_logged_once_and_changes_nothing() {
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 3);
    let loads = [Load::new("a", 20, yesterday(), 1_000)];
    under_load(&loads, &cluster.clients(), 4, || progress(&loads, 10));
    let (first, client) = (&cluster.nodes[0], &cluster.nodes[0].client);
    let facts = || {
        let status = first.status().expect("an answer");
        let id = |name: &str| status[name].as_str().expect("an id").to_owned();
        let nodes: Vec<_> = status["nodes"].as_array().into_iter().flatten().collect();
        let known: Vec<String> = nodes
            .iter()
            .map(|node| format!("{} {} {}", node["id"], node["address"], node["starts"]))
            .collect();
        (id("cluster"), id("me"), status["epoch"].to_string(), known)
    };
    let before = facts();
    cluster.await_equal_digests(0, now_ms(), PATIENCE);
    let digests = first.digests(0, now_ms()).expect("an answer");
    let good = Hello {
        protocol: "1".into(),
        cluster: before.0.clone(),
        from: "abcdef".into(),
        to: before.1.clone(),
        token: cluster.token.clone(),
    };
    let longest = 16 << 20;
    // Rows with the number 1 that wait for 1 s, and a body of zeros.
    let oversized = [&[2, 1, 0xe8, 7][..], &[0; 30_000]].concat();
    let one = |change: &dyn Fn(&mut Hello)| {
        let mut hello = good.clone();
        change(&mut hello);
        hello
    };
    let attempts: Vec<(&str, Hello, &[u8], usize)> = vec![
        ("cluster", one(&|hello| hello.cluster = "1".repeat(32)), &[], 0),
        ("version", one(&|hello| hello.protocol = "7".into()), &[], 0),
        ("token", one(&|hello| hello.token = "guessed".into()), &[], 0),
        ("node", one(&|hello| hello.to = "fedcba".into()), &[], 0),
        ("garbage", one(&|hello| hello.from = "nobody".into()), &[], 0),
        ("version", one(&|hello| hello.protocol = "3".into()), &[], 0),
        // A kind of frame that there is not; a length that no frame has. Versions next to this one come so far, too.
        ("malformed", good.clone(), &[99, 0, 0], 3),
        ("malformed", one(&|hello| hello.protocol = "0".into()), &[99, 0, 0], 3),
        ("malformed", one(&|hello| hello.protocol = "2".into()), &[99, 0, 0], 3),
        ("malformed", good.clone(), &oversized, longest + 100),
    ];
    let count = |reason: &str| {
        let labels = format!("reason=\"{reason}\"");
        metric(client, "sarsen_cluster_connections_refused_total", &labels)
    };
    for (reason, hello, message, announced) in &attempts {
        for _ in 0..3 {
            let counted = count(reason);
            hello
                .send(&first.address, message, *announced)
                .unwrap_or_else(|error| panic!("{reason}: {error}"));
            until(&format!("{reason} to be counted"), PATIENCE, || match count(reason) - counted {
                1.0 => Ok(()),
                more => Err(format!("{more} more")),
            });
        }
    }
    let log = first.process.as_ref().expect("it runs").output();
    for (reason, ..) in &attempts {
        let told = format!("msg=\"refused a peer\" from=127.0.0.1 reason={reason} ");
        assert_eq!(log.matches(&told).count(), 1, "{told}\n{log}");
    }
    assert!(log.contains("speaks protocol 7 between nodes and this node 1"), "{log}");
    assert_eq!(facts(), before);
    assert_eq!(first.digests(0, now_ms()).expect("an answer"), digests);
    let more = [Load::new("b", 20, yesterday(), 1_000)];
    under_load(&more, &cluster.clients(), 5, || progress(&more, 10));
    check_all(&loads, &cluster.clients());
}

#[test]
fn a_node_with_a_wrong_token_is_refused_counted_and_told_what_to_do() {
    let dir = folder();
    let cluster = Cluster::start(dir.path(), 1);
    let join = [cluster.nodes[0].address.clone()];
    let settings = Settings::default();
    let said =
        Member::new(&dir.path().join("stranger"), &settings, &join, Some("not-the-token-at-all")).refused(15);
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
    let said = Member::new(&dir.path().join("unknowing"), &settings, &join, None).refused(1);
    assert!(said.contains("SARSEN_JOIN_TOKEN"), "{said}");
}
