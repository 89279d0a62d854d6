//! The simulator (docs/simulation.md): seeds, each as often as it takes, and what it must have found before it can be believed.

use tests::sim::regressions;
use tests::sim::suite::{describe, guarded, run_all};

/// A number from the environment, for longer runs by hand.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails_and_everything_heals() {
    let (first, seeds) = (setting("SIM_FIRST", 0), setting("SIM_SEEDS", 1_000));
    println!("SIM_FIRST={first} SIM_SEEDS={seeds}");
    let tally = run_all(first..first + seeds, 2, false, || ());
    let failures: Vec<String> = tally.failures.iter().map(describe).collect();
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed\n{}",
        failures.len(),
        tally.seeds,
        failures.join("\n")
    );
    // A run in which nothing happens proves nothing.
    let enough = tally.acknowledged > 100 * seeds && tally.faults > seeds && tally.answered.0 > 50 * seeds;
    assert!(enough, "the seeds do too little: {tally:?}");
    println!("{tally:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let (once, again) = (guarded(seed), guarded(seed));
        assert_eq!((once.hash, once.events), (again.hash, again.events), "seed {seed} is not the same twice");
    }
}

#[test]
fn what_was_found_once_is_not_there_any_more() {
    for (name, seed) in regressions::ALL {
        let report = guarded(*seed);
        assert!(report.violation.is_none(), "{name}: {}", describe(&report));
    }
}
