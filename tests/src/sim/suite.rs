//! Many seeds, on several threads; each seed runs on one.

use super::operator::Operated;
use super::{Report, run};
use crate::random::now;
use std::fmt;
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
    /// Nodes that were removed for good.
    pub removed: u64,
    /// What the operator's requests have led to.
    pub operated: Operated,
    /// Changes of the placement in all.
    pub epochs: u64,
    /// Events in all.
    pub events: u64,
    /// Runs in which blocks came from another node, as files, and how many in all.
    pub imported: (u64, u64),
    /// Simulated time in all.
    pub simulated_ms: u64,
    /// How long it took.
    pub real_ms: u64,
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
        self.removed += report.removed;
        self.operated.add(&report.operated);
        self.epochs += report.epochs;
        self.events += report.events;
        self.imported.0 += u64::from(report.imported > 0);
        self.imported.1 += report.imported;
        self.simulated_ms += report.simulated_ms;
        if report.violation.is_some() {
            self.failures.push(report);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { seeds, events, faults, removed, epochs, acknowledged, .. } = self;
        let (importing, imported) = self.imported;
        let Operated { granted, heals, lost_under_way, replaced_again, stale, repeated } = self.operated;
        let ((answered, not), failed) = (self.answered, self.failures.len());
        let (hours, times) =
            (self.simulated_ms as f64 / 3_600_000.0, self.simulated_ms / self.real_ms.max(1));
        write!(
            f,
            "{seeds} seeds, {failed} failed: {events} events, {faults} faults, {removed} nodes removed, {epochs} changes of the placement, \
             {imported} blocks copied in {importing} of them, \
             {granted} wishes of operators granted ({heals} heal a node that is away, {lost_under_way} give up one that goes, {replaced_again} replace one \
             that comes), {stale} refused for their epoch, {repeated} asked again, \
             {acknowledged} rows acknowledged, {answered} requests answered, {not} tries failed; {hours:.1} simulated hours, {times} times as \
             fast as real ones"
        )
    }
}

/// Runs these seeds on so many threads; each thread calls `prepare` before it begins. With `stop_early`, no seed is begun after the first failure.
pub fn run_all(seeds: Range<u64>, threads: usize, stop_early: bool, prepare: impl Fn() + Sync) -> Tally {
    let begun = now();
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
    tally.real_ms = now().saturating_sub(begun).as_millis() as u64;
    tally.failures.sort_by_key(|report| report.seed);
    tally
}

/// A mistake that is made on purpose.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// In the cluster.
    Cluster(cluster::faults::Mistake),
    /// In one node's engine.
    Storage(storage::faults::Mistake),
}

#[cfg(feature = "planted-bugs")]
impl std::fmt::Debug for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mistake::Cluster(mistake) => mistake.fmt(f),
            Mistake::Storage(mistake) => mistake.fmt(f),
        }
    }
}

#[cfg(feature = "planted-bugs")]
impl Mistake {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Mistake> {
        let cluster = cluster::faults::Mistake::ALL.into_iter().map(Mistake::Cluster);
        cluster.chain(storage::faults::Mistake::ALL.into_iter().map(Mistake::Storage))
    }

    /// From now on this thread makes this mistake, or none.
    pub fn plant(mistake: Option<Mistake>) {
        let (mut cluster, mut storage) = (None, None);
        match mistake {
            Some(Mistake::Cluster(mistake)) => cluster = Some(mistake),
            Some(Mistake::Storage(mistake)) => storage = Some(mistake),
            None => {}
        }
        cluster::faults::plant(cluster);
        storage::faults::plant(storage);
    }
}

/// Runs seeds that make a mistake, until one is caught: that many seeds, and how it was caught. `None` if none of them is.
#[cfg(feature = "planted-bugs")]
pub fn seeds_until_caught(mistake: Mistake, seeds_max: u64) -> Option<(u64, Report)> {
    for seed in 0..seeds_max {
        Mistake::plant(Some(mistake));
        let report = guarded(seed);
        Mistake::plant(None);
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
