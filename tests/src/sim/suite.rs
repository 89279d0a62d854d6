//! Many seeds, on several threads; each seed runs on one.

use super::{Report, run};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What many seeds have shown.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Seeds run.
    pub seeds: u64,
    /// Rows acknowledged in all.
    pub acknowledged: u64,
    /// Requests answered well, and tries that were not.
    pub answered: (u64, u64),
    /// Faults in all.
    pub faults: u64,
    /// Events in all.
    pub events: u64,
    /// Simulated time in all.
    pub simulated_ms: u64,
    /// Reports of the runs that failed, by seed.
    pub failures: Vec<Report>,
}

impl Tally {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.acknowledged += report.acknowledged;
        self.answered.0 += report.answered.0;
        self.answered.1 += report.answered.1;
        self.faults += report.faults;
        self.events += report.events;
        self.simulated_ms += report.simulated_ms;
        if report.violation.is_some() {
            self.failures.push(report);
        }
    }
}

/// Runs these seeds on so many threads; each thread calls `prepare` before it begins. With `stop_early`, no seed is begun after the first failure.
pub fn run_all(seeds: Range<u64>, threads: usize, stop_early: bool, prepare: impl Fn() + Sync) -> Tally {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                prepare();
                while !stop.load(Relaxed) {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = guarded(seed);
                    if report.violation.is_some() {
                        println!("{}", describe(&report));
                    }
                    if report.violation.is_some() && stop_early {
                        stop.store(true, Relaxed);
                    }
                    tally.lock().expect("BUG: a run panicked outside of its guard").add(report);
                }
            });
        }
    });
    let mut tally = tally.into_inner().expect("BUG: a run panicked outside of its guard");
    tally.failures.sort_by_key(|report| report.seed);
    tally
}

/// Runs seeds that make a mistake, until one is caught: that many seeds, and how it was caught. `None` if none of them is.
#[cfg(feature = "planted-bugs")]
pub fn seeds_until_caught(mistake: cluster::faults::Mistake, seeds_max: u64) -> Option<(u64, Report)> {
    for seed in 0..seeds_max {
        cluster::faults::plant(Some(mistake));
        let report = guarded(seed);
        cluster::faults::plant(None);
        if report.violation.is_some() {
            return Some((seed + 1, report));
        }
    }
    None
}

/// A run that panics has failed, and the others go on.
pub fn guarded(seed: u64) -> Report {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Report { seed, violation: Some(format!("panic: {}", text.unwrap_or_default())), ..Report::default() }
    };
    std::panic::catch_unwind(|| run(seed, false)).unwrap_or_else(panicked)
}

/// What a failure looks like to people.
pub fn describe(report: &Report) -> String {
    let what = report.violation.as_deref().unwrap_or("no violation");
    format!("seed {}: {what}\n    replay: cargo xtask sim --seed {} --trace", report.seed, report.seed)
}
