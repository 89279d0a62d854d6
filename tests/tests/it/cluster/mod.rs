//! Three nodes as one database: real processes on loopback, and in network namespaces.

mod create;
mod directories;
mod equal;
mod healing;
mod hostile;
mod joining;
mod kill;
mod majority;
mod moves;
mod operations;
mod page;
mod partition;
mod restart;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tests::client::Client;
use tests::cluster::Settings;
use tests::load::Load;
use tests::random::now_ms;

/// How long a client tries again. Longer than it takes to notice that a node is gone.
const PATIENCE: Duration = Duration::from_secs(30);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A day ago: far enough in the past that data whose time runs faster than the clock does not reach the present.
fn yesterday() -> i64 {
    now_ms() / 60_000 * 60_000 - 86_400_000
}

/// Settings under which copies are compared often.
fn repaired_every(interval: &str) -> Settings {
    Settings { environment: vec![("SARSEN_REPAIR_INTERVAL", interval.into())] }
}

/// Writes and reads all loads through `clients` while `disturb` runs, and panics with what went wrong.
fn under_load(loads: &[Load], clients: &[Client], seed: u64, disturb: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (number, load) in loads.iter().enumerate() {
            let (stop, seed) = (&stop, seed ^ (number as u64) << 32);
            workers.push(scope.spawn(move || load.write(clients, PATIENCE, stop, seed)));
            workers.push(scope.spawn(move || load.read(clients, PATIENCE, stop, seed ^ 1)));
        }
        // Whatever happens in it, the workers end.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ending = Stop(&stop);
        disturb();
        drop(ending);
        for worker in workers {
            worker.join().expect("no worker panics").unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}

/// Waits until each load has been acknowledged `more` times from now.
fn progress(loads: &[Load], more: i64) {
    let before: Vec<i64> = loads.iter().map(Load::acknowledged).collect();
    tests::until::until("writes to go on", PATIENCE, || {
        let done = loads.iter().zip(&before).filter(|(load, before)| load.acknowledged() >= **before + more);
        let done = done.count();
        if done == loads.len() { Ok(()) } else { Err(format!("{done} of {} writers", loads.len())) }
    });
}

/// Every sample that was acknowledged is at every node, and every sample there was sent.
fn check_all(loads: &[Load], clients: &[Client]) {
    for client in clients {
        for load in loads {
            load.check(client).unwrap_or_else(|failure| panic!("{}: {failure}", client.base()));
        }
    }
}
