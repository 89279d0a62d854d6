//! kill -9 of one node after the other, and of all at once.

use super::*;
use std::time::Instant;
use tests::cluster::Cluster;
use tests::random::Random;

/// How long the rounds of kills go on, in seconds, unless `SARSEN_TEST_SECONDS` says otherwise.
const SECONDS: u64 = 40;

fn duration() -> Duration {
    let text = std::env::var("SARSEN_TEST_SECONDS").ok();
    Duration::from_secs(text.map_or(SECONDS, |text| text.parse().expect("SARSEN_TEST_SECONDS is a number")))
}

#[test]
fn one_node_of_three_is_killed_again_and_again_and_no_client_notices() {
    let mut random = Random::announced("one of three");
    let dir = folder();
    let mut cluster = Cluster::start_with(dir.path(), 3, &repaired_every("5s"));
    let clients = cluster.clients();
    let start = yesterday();
    let loads = ["a", "b"].map(|name| Load::new(name, 50, start, 1_000));
    let (seed, began, mut rounds) = (random.number(), Instant::now(), 0);
    under_load(&loads, &clients, seed, || {
        progress(&loads, 20);
        while began.elapsed() < duration() || rounds < 3 {
            let victim = random.below(3) as usize;
            cluster.nodes[victim].kill();
            // Long enough that the others go on without it, and notice.
            progress(&loads, 50 + random.below(200) as i64);
            cluster.nodes[victim].start();
            progress(&loads, 20);
            cluster.await_safe();
            rounds += 1;
        }
    });
    let end = loads.iter().map(Load::end).max().expect("there are loads");
    let equal = cluster.await_equal_digests(start, end, Duration::from_secs(60));
    check_all(&loads, &clients);
    for load in &loads {
        println!(
            "{}: {} requests acknowledged, {} repeated, {} reads compared",
            load.name,
            load.acknowledged(),
            load.repeated.load(Ordering::Relaxed),
            load.checked.load(Ordering::Relaxed)
        );
    }
    println!("{rounds} kills in {:?}; digests equal after {equal:?}", began.elapsed());
}

#[test]
fn all_three_killed_at_once_twenty_times_come_back_by_themselves_with_everything() {
    let mut random = Random::announced("all of three");
    let dir = folder();
    let mut cluster = Cluster::start(dir.path(), 3);
    let clients = cluster.clients();
    let loads = ["a", "b"].map(|name| Load::new(name, 20, yesterday(), 1_000));
    for kill in 0..20 {
        let stop = AtomicBool::new(false);
        let seed = random.number();
        let moment = 5 + random.below(40) as i64;
        thread::scope(|scope| {
            let (stop, clients) = (&stop, &clients);
            let writers =
                loads.each_ref().map(|load| scope.spawn(move || load.write(clients, PATIENCE, stop, seed)));
            progress(&loads, moment);
            cluster.nodes.iter_mut().for_each(tests::cluster::Member::kill);
            cluster.nodes.iter_mut().for_each(tests::cluster::Member::spawn);
            cluster.nodes.iter_mut().for_each(tests::cluster::Member::await_ready);
            // The requests that the crash hit are sent again, and taken.
            progress(&loads, 2);
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                writer
                    .join()
                    .expect("no writer panics")
                    .unwrap_or_else(|failure| panic!("kill {kill}: {failure}"));
            }
        });
        check_all(&loads, &clients[kill % 3..=kill % 3]);
    }
    cluster.await_safe();
    check_all(&loads, &clients);
}
