//! How many cases passed.

use std::ops::AddAssign;

/// Cases that passed, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// All.
    pub total: usize,
}

impl Tally {
    /// Passed of all, from 0 to 1. All of nothing is 1.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.passed as f64 / self.total as f64 }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.total += other.total;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.passed, self.total)
    }
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Where it is in its script.
    pub line: usize,
    /// Its first line.
    pub text: String,
    /// The first difference.
    pub why: String,
}

/// What became of the cases of one script, or of many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All cases.
    pub all: Tally,
    /// Those that native histograms play no part in.
    pub floats: Tally,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Counts one case.
    pub fn count(&mut self, histograms: bool, failure: Option<Failure>) {
        let one = Tally { passed: usize::from(failure.is_none()), total: 1 };
        self.all += one;
        if !histograms {
            self.floats += one;
        }
        self.failures.extend(failure);
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Report) {
        self.all += other.all;
        self.floats += other.floats;
        self.failures.extend(other.failures);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed; without histograms {}", self.all, self.floats)
    }
}
