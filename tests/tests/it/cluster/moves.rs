//! Shards that move between real processes.

use super::*;
use std::sync::atomic::AtomicU64;
use tests::cluster::{Cluster, Member};

/// A sample of each of so many series in one request.
const SERIES: usize = 200;

/// Writes without a pause and without trying again until it is told to stop; each answer must be good.
fn write_on(client: &Client, rounds: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        let at = now_ms();
        let body: String = (0..SERIES).map(|i| format!("moved{{i=\"{i}\"}} {round} {at}\n")).collect();
        let answer = client.send("POST", "/api/v1/import/prometheus", &[], body.as_bytes());
        let answer = answer.expect("an answer to a write");
        assert_eq!(answer.status, 204, "write {round}: {answer:?}");
        rounds.store(round + 1, Ordering::Relaxed);
    }
}

/// Asks without a pause until it is told to stop; each answer must be good and have all series.
fn ask_on(client: &Client, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("/api/v1/query?query=count%28moved%29").expect("an answer to a query");
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["data"]["result"][0]["value"][1], SERIES.to_string(), "{answer}");
    }
}

#[test]
fn one_node_with_data_becomes_three_under_load_and_no_write_or_query_fails() {
    let dir = folder();
    let home = dir.path().join("node0");
    let mut node = Member::new(&home, &repaired_every("1s"), &[], None);
    node.start();
    let token = std::fs::read_to_string(home.join("data/join-token")).expect("a new cluster has a token");
    let mut cluster = Cluster { nodes: vec![node], token: token.trim_end().to_owned() };
    let first = cluster.nodes[0].client.clone();
    let loads = [Load::new("before", 300, yesterday(), 1000)];
    under_load(&loads, std::slice::from_ref(&first), 1, || progress(&loads, 20));

    let (rounds, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    write_once(&first, &rounds);
    thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ending = Stop(&stop);
        let writer = scope.spawn(|| write_on(&first, &rounds, &stop));
        let asker = scope.spawn(|| ask_on(&first, &stop));
        for number in 1..3 {
            let folder = dir.path().join(format!("joins-{number}"));
            let join = [cluster.nodes[0].address.clone()];
            let mut node = Member::new(&folder, &repaired_every("1s"), &join, Some(&cluster.token));
            node.start();
            cluster.nodes.push(node);
        }
        cluster.await_safe();
        tests::until::until(
            "moves to end",
            PATIENCE,
            || match cluster.nodes[0].status()?["shards"]["moving"].as_u64() {
                Some(0) => Ok(()),
                moving => Err(format!("{moving:?} shards move")),
            },
        );
        let before = rounds.load(Ordering::Relaxed);
        tests::until::until("writes to go on", PATIENCE, || match rounds.load(Ordering::Relaxed) {
            now if now > before => Ok(()),
            now => Err(format!("{now} requests")),
        });
        drop(ending);
        writer.join().expect("every write is taken");
        asker.join().expect("every query is answered");
    });

    let status = cluster.nodes[2].status().expect("a status");
    assert_eq!(status["shards"]["min_copies"], 3, "{status}");
    cluster.await_equal_digests(yesterday() - 1, now_ms() + 1, PATIENCE);
    check_all(&loads, &cluster.clients());
}

fn write_once(client: &Client, rounds: &AtomicU64) {
    let body: String = (0..SERIES).map(|i| format!("moved{{i=\"{i}\"}} 0\n")).collect();
    let answer = client.send("POST", "/api/v1/import/prometheus", &[], body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 204, "{answer:?}");
    rounds.store(1, Ordering::Relaxed);
}
