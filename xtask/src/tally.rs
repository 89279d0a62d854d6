//! Sums what the test binaries say.

/// Results over all test binaries of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// Names of tests that were not run, with the reason that they give.
    pub ignored: Vec<String>,
    /// Names of tests that failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// Takes in one line of the output of `cargo test`.
    pub fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if let Some(test) = line.strip_prefix("test ") {
            match test.rsplit_once(" ... ") {
                Some((name, "FAILED")) => self.failures.push(name.into()),
                Some((name, outcome)) if outcome.starts_with("ignored") => {
                    self.ignored.push(format!("{name}{}", outcome.trim_start_matches("ignored")));
                }
                _ => {}
            }
        }
    }

    /// Counts what left no result line: tests that did not compile, or a test binary that died. Without this a run
    /// whose worst binary was killed would look green.
    pub fn exited(&mut self, success: bool) {
        if !success && self.failed == 0 {
            self.failed = 1;
            self.failures.push("cargo test: a crate did not compile, or a test binary died".into());
        }
    }

    /// The line that a run ends with.
    pub fn summary(&self) -> String {
        let mut text = format!("{} passed, {} failed", self.passed, self.failed);
        if !self.ignored.is_empty() {
            text += &format!(", {} skipped", self.ignored.len());
        }
        text
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let digits = text.split(word).next().unwrap_or_default();
    digits.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_of_several_binaries_are_summed_and_failures_and_skips_are_named() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test wal::keeps_order ... ok",
            "test prometheus::answers_agree ... ignored, needs prometheus",
            "test wal::survives ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            tally.line(line);
        }
        assert_eq!(tally.summary(), "13 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["wal::survives"]);
        assert_eq!(tally.ignored, ["prometheus::answers_agree, needs prometheus"]);
    }

    #[test]
    fn a_binary_that_died_without_a_result_is_a_failure() {
        let mut tally = Tally { passed: 5, ..Tally::default() };
        tally.exited(false);
        assert_eq!(tally.summary(), "5 passed, 1 failed");
    }

    #[test]
    fn failures_that_were_counted_are_not_counted_twice() {
        let mut tally = Tally { passed: 5, failed: 2, ..Tally::default() };
        tally.exited(false);
        assert_eq!(tally.summary(), "5 passed, 2 failed");
    }
}
