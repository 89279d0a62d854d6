//! Prometheus's PromQL test scripts, run against the real engine over the real storage.
//!
//! A script loads series and says what expressions evaluate to. Every instant case runs up to twelve times: as it is,
//! at five other times with all its selectors pinned to the case's time by `@`, and each of these again as the middle
//! step of a range query. It passes if all of them give what is expected, warnings and notes included.
//!
//! * [`script`] reads scripts; [`expectation`] is what a case expects, and the comparison.
//! * [`database`] is a storage engine with the loaded series; [`classic`] adds custom-bucket histograms to it for
//!   `load_with_nhcb`.
//! * [`case`] runs one case; [`pinned`] rewrites its expression.
//! * [`report`] counts.

pub mod case;
pub mod classic;
pub mod database;
pub mod expectation;
pub mod pinned;
pub mod report;
pub mod script;

use anyhow::{Context, Result};
use database::Database;
use report::{Failure, Report};
use script::Command;
use std::path::Path;

/// Runs all cases of a script. A case that fails is in the report; a script that makes no sense is an error.
pub fn run(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    run_text(&text).with_context(|| format!("in {}", path.display()))
}

/// The same with a script's text.
pub fn run_text(text: &str) -> Result<Report> {
    let mut database = Database::open()?;
    let mut report = Report::default();
    for command in script::parse(text)? {
        match command {
            Command::Clear => database = Database::open()?,
            Command::Load(load) => {
                database.load(&load).with_context(|| format!("line {}", load.line))?;
            }
            Command::Eval(case) => {
                let histograms = case::concerns_histograms(&case, &database);
                let failure = case::run(&case, &database).err().map(|why| Failure {
                    line: case.line,
                    text: case.text.clone(),
                    why: format!("{why:#}"),
                });
                report.count(histograms, failure);
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn failures(script: &str) -> Vec<usize> {
        run_text(script).unwrap_or_else(|e| panic!("{e:#}")).failures.iter().map(|f| f.line).collect()
    }

    #[test]
    fn right_answers_pass_and_wrong_ones_are_named_by_their_line() {
        let script = "
load 1m
  a{x=\"1\"} 0+1x10

eval instant at 5m a
  a{x=\"1\"} 5

eval instant at 5m a
  a{x=\"1\"} 6

eval range from 1m to 2m step 1m a * 2
  {x=\"1\"} 2 4

eval range from 1m to 2m step 1m a * 2
  {x=\"1\"} 2 5

eval instant at 1m a[2m]
  expect range vector from 0 to 1m step 1m
  a{x=\"1\"} 0 1

eval instant at 1m a[2m]
  expect range vector from 0 to 1m step 1m
  a{x=\"1\"} 1 2

clear
eval instant at 5m a

eval instant at 1m a
  expect fail
";
        assert_eq!(failures(script), [8, 14, 21, 28]);
    }

    #[test]
    fn samples_carry_their_start_timestamps() {
        let script = "
load 1m
  a@st _ -1mx3
  a    _ 60x3

eval instant at 4m start_timestamp(a)
  {} 180
";
        assert_eq!(failures(script), [0; 0]);
    }

    #[test]
    fn cases_that_meet_native_histograms_are_counted_apart() {
        let script = "
load_with_nhcb 1m
  x_bucket{le=\"1\"} 1 1
  x_bucket{le=\"+Inf\"} 2 2

eval instant at 1m x_bucket{le=\"1\"}
  x_bucket{le=\"1\"} 1

eval instant at 1m absent(x)

eval instant at 1m absent(y)
  {} 1
";
        let report = run_text(script).unwrap();
        assert_eq!((report.all.total, report.floats.total, report.floats.passed), (3, 2, 2));
    }

    #[test]
    fn the_highest_expressions_are_evaluated_on_the_stack_of_a_common_thread() {
        // Tests run on threads with the default stack, as queries do.
        let chain = vec!["a"; 240].join(" + ");
        let expr = format!("{}{chain}{}", "abs(".repeat(250), ")".repeat(250));
        let script = format!("load 1m\n  a 1x10\n\neval instant at 1m {expr}\n  {{}} 240\n");
        assert_eq!(failures(&script), [0; 0]);
    }
}
