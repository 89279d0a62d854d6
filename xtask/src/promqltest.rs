//! `cargo xtask promqltest`: Prometheus's test scripts against the engine.

use crate::{process, workspace};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// Test scripts
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print every failed case, with what was expected and what came
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "tests", "--bin", "promqltest", "--"]);
    if options.verbose {
        command.arg("--verbose");
    }
    for file in &options.files {
        // cargo runs at the root; the paths are the caller's.
        command.arg(std::path::absolute(file).with_context(|| format!("finding {}", file.display()))?);
    }
    process::forward(&mut command)
}
