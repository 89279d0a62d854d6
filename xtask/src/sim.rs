//! `cargo xtask sim`: a cluster in simulated time, by seeds (docs/simulation.md).

use crate::{process, workspace};
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// Run this seed only, as often as you like: it is the same every time
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "tests", "--bin", "sim", "--"]);
    match options.seed {
        Some(seed) => command.arg("--seed").arg(seed.to_string()),
        None => command
            .args(["--first", &options.first.to_string()])
            .args(["--seeds", &options.seeds.to_string()])
            .args(["--threads", &options.threads.to_string()]),
    };
    if options.trace {
        command.arg("--trace");
    }
    process::forward(&mut command)
}
