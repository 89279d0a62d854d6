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
    let commands = script::parse(&text).with_context(|| format!("in {}", path.display()))?;
    let mut database = Database::open()?;
    let mut report = Report::default();
    for command in commands {
        match command {
            Command::Clear => database = Database::open()?,
            Command::Load(load) => {
                database.load(&load).with_context(|| format!("{}:{}", path.display(), load.line))?;
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
