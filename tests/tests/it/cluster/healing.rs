//! Nodes that are lost with their disks, and copies that heal by themselves: six processes in three zones.

use super::*;
use std::time::Instant;
use tests::cluster::Cluster;
use tests::random::Random;

/// As long as a rebuild of little data may take on a busy machine.
const HEALED: Duration = Duration::from_secs(120);
const ZONES: [&str; 6] = ["a", "b", "c", "a", "b", "c"];

/// Series in all, unless `SARSEN_TEST_SERIES` says otherwise.
const SERIES: u64 = 400;

fn settings() -> Settings {
    let environment = vec![("SARSEN_REPAIR_INTERVAL", "2s".into()), ("SARSEN_NODE_LOSS_GRACE", "3s".into())];
    Settings { environment }
}

/// A few writers with one request a second each, or as `SARSEN_TEST_SERIES` wants it.
fn loads(random: &mut Random) -> Vec<Load> {
    let series = std::env::var("SARSEN_TEST_SERIES").ok();
    let series: u64 = series.map_or(SERIES, |text| text.parse().expect("SARSEN_TEST_SERIES is a number"));
    let each = series.div_ceil(4).min(2_000);
    let count = series.div_ceil(each);
    let pace = Duration::from_millis(if series > SERIES { 1_000 } else { 100 });
    println!("{count} writers of {each} series, one request each {pace:?}, seed {}", random.number());
    (0..count).map(|n| Load::new(&format!("w{n}"), each, yesterday(), 1_000).every(pace)).collect()
}

fn end(loads: &[Load]) -> i64 {
    loads.iter().map(Load::end).max().expect("there are loads")
}

/// That of writes when nothing is the matter. Series are introduced to all nodes before, which takes longer than what follows.
fn p99_at_rest(loads: &[Load]) -> Duration {
    progress(loads, 5);
    p99(loads);
    progress(loads, 20);
    p99(loads)
}

fn are_moved(status: &serde_json::Value) -> bool {
    status["shards"]["moving"].as_u64().is_some_and(|moving| moving > 0)
}

fn await_moves(cluster: &Cluster, what: &str, so: impl Fn(&serde_json::Value) -> bool) {
    tests::until::until(what, HEALED, || {
        let status = cluster.running().next().expect("a node runs").status()?;
        if so(&status) { Ok(()) } else { Err(format!("{}: {}", status["summary"], status["shards"])) }
    });
}

fn p99(loads: &[Load]) -> Duration {
    loads.iter().map(Load::p99).max().expect("there are loads")
}

#[test]
fn a_zone_is_lost_node_after_node_with_the_disks_and_heals_in_the_others_and_moves_back() {
    let mut random = Random::announced("a zone is lost");
    let dir = folder();
    let mut cluster = Cluster::start_in(dir.path(), &ZONES, &settings());
    let loads = loads(&mut random);
    let start = yesterday();
    // Those that stay.
    let clients: Vec<Client> = [0, 1, 3, 4].map(|n: usize| cluster.nodes[n].client.clone()).to_vec();
    under_load(&loads, &clients, random.number(), || {
        let before = p99_at_rest(&loads);
        let began = Instant::now();
        cluster.nodes[2].lose();
        await_moves(&cluster, "copies to be made elsewhere", are_moved);
        // The other one of the zone, in the middle of it.
        cluster.nodes[5].lose();
        let equal = cluster.await_healed(start, end(&loads), HEALED);
        println!(
            "a zone healed in {:?}, digests after {equal:?}; p99 of writes {before:?}, meanwhile {:?}",
            began.elapsed(),
            p99(&loads)
        );
        // The zone is back, with empty disks.
        cluster.add(dir.path(), "c", &settings()).await_ready();
        await_moves(&cluster, "a copy of every shard in the zone that is back", |status| {
            let nodes = status["nodes"].as_array().expect("nodes");
            let held: u64 =
                nodes.iter().filter(|n| n["zone"] == "c").filter_map(|n| n["shards"].as_u64()).sum();
            Some(held) == status["shards"]["total"].as_u64() && status["shards"]["moving"] == 0
        });
        let equal = cluster.await_healed(start, end(&loads), HEALED);
        println!("moved back after {:?}, digests after {equal:?}", began.elapsed());
        progress(&loads, 5);
    });
    let equal = cluster.await_healed(start, end(&loads), HEALED);
    println!("digests equal {equal:?} after the last write");
    check_all(&loads, &cluster.running().map(|node| node.client.clone()).collect::<Vec<_>>());
}

#[test]
fn a_node_is_lost_with_its_disk_and_another_is_killed_while_its_copies_are_made() {
    let mut random = Random::announced("a node is lost");
    let dir = folder();
    let mut cluster = Cluster::start_in(dir.path(), &ZONES, &settings());
    let loads = loads(&mut random);
    let start = yesterday();
    let clients: Vec<Client> = [1, 2, 3, 4, 5].map(|n: usize| cluster.nodes[n].client.clone()).to_vec();
    under_load(&loads, &clients, random.number(), || {
        let before = p99_at_rest(&loads);
        let began = Instant::now();
        // It made the cluster, and may lead.
        cluster.nodes[0].lose();
        await_moves(&cluster, "copies to be made elsewhere", are_moved);
        // Of shards that were on both one copy is left: until it is back, their writes and reads wait.
        cluster.nodes[4].kill();
        cluster.nodes[4].start();
        let equal = cluster.await_healed(start, end(&loads), HEALED);
        println!(
            "healed in {:?}, digests after {equal:?}; p99 of writes {before:?}, meanwhile {:?}",
            began.elapsed(),
            p99(&loads)
        );
        progress(&loads, 5);
    });
    cluster.await_healed(start, end(&loads), HEALED);
    check_all(&loads, &clients);
}

/// The status of the node with an address, as the first node sees it.
fn node(cluster: &Cluster, address: &str) -> Result<serde_json::Value, String> {
    let status = cluster.nodes[0].status()?;
    let found = status["nodes"].as_array().into_iter().flatten().find(|node| node["address"] == address);
    found.cloned().ok_or_else(|| format!("{address} is no member"))
}

/// Starts a job, and waits until it is done.
fn job(cluster: &Cluster, what: &str, body: &serde_json::Value) {
    let client = &cluster.nodes[0].client;
    let path = format!("/api/v1/admin/cluster/{what}");
    let answer = client.send("POST", &path, &[], body.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    let id = answer.json()["data"]["job"]["id"].as_u64().expect("a job");
    tests::until::until(what, HEALED, || {
        let job = client.get(&format!("/api/v1/admin/jobs/{id}"))?.json()["data"].clone();
        if job["phase"] == "done" { Ok(()) } else { Err(job.to_string()) }
    });
}

#[test]
fn one_node_grows_to_three_at_a_steady_rate() {
    let mut random = Random::announced("one grows to three");
    let dir = folder();
    let mut cluster = Cluster { nodes: Vec::new(), token: String::new() };
    cluster.add(dir.path(), "a", &settings()).await_ready();
    let loads = loads(&mut random);
    let start = yesterday();
    let clients = cluster.clients();
    under_load(&loads, &clients, random.number(), || {
        let before = p99_at_rest(&loads);
        for zone in ["b", "c"] {
            cluster.add(dir.path(), zone, &settings()).await_ready();
        }
        let equal = cluster.await_healed(start, end(&loads), HEALED);
        println!(
            "three copies after {equal:?}; p99 of writes to one copy {before:?}, while it grew {:?}",
            p99(&loads)
        );
        progress(&loads, 20);
        println!("p99 of writes to three copies {:?}", p99(&loads));
    });
    cluster.await_healed(start, end(&loads), HEALED);
    check_all(&loads, &cluster.clients());
}

#[test]
fn a_node_is_added_one_drained_and_one_replaced_under_load() {
    let mut random = Random::announced("added, drained, replaced");
    let dir = folder();
    let mut cluster = Cluster::start_in(dir.path(), &["a", "b", "c", "a"], &settings());
    let loads = loads(&mut random);
    let start = yesterday();
    let clients: Vec<Client> = [0, 1, 2].map(|n: usize| cluster.nodes[n].client.clone()).to_vec();
    under_load(&loads, &clients, random.number(), || {
        let before = p99_at_rest(&loads);
        cluster.add(dir.path(), "b", &settings()).await_ready();
        let added = cluster.nodes[4].address.clone();
        tests::until::until("the new node to have its share", HEALED, || {
            let holds = node(&cluster, &added)?["shards"].as_u64();
            if holds == Some(32) { Ok(()) } else { Err(format!("{holds:?} of 32 shards")) }
        });
        cluster.await_healed(start, end(&loads), HEALED);
        let while_added = p99(&loads);

        let drained = node(&cluster, &cluster.nodes[3].address).expect("a member");
        job(&cluster, "drain", &serde_json::json!({ "node": drained["id"] }));
        cluster.await_healed(start, end(&loads), HEALED);
        let while_drained = p99(&loads);

        let mut settings = settings();
        settings.environment.push(("SARSEN_STANDBY", "yes".into()));
        cluster.add(dir.path(), "b", &settings).await_ready();
        let new = cluster.nodes[5].address.clone();
        let new =
            tests::until::until("the one that stands by to be a member", HEALED, || node(&cluster, &new));
        assert_eq!((&new["state"], &new["shards"]), (&"joining".into(), &0.into()), "{new}");
        let old = node(&cluster, &added).expect("a member");
        job(&cluster, "replace", &serde_json::json!({ "old": old["id"], "new": new["id"] }));
        // Who was replaced ends by itself.
        cluster.nodes[4].process.take().expect("it ran").await_end();
        cluster.await_healed(start, end(&loads), HEALED);
        println!(
            "p99 of writes {before:?}; while a node was added {while_added:?}, drained {while_drained:?}, replaced {:?}",
            p99(&loads)
        );
        progress(&loads, 5);
    });
    cluster.await_healed(start, end(&loads), HEALED);
    check_all(&loads, &clients);
}
