//! The developer's commands: `cargo xtask <command>`, one for each thing that is done to this repository.

mod bench;
mod deny;
mod fuzz;
mod manifests;
mod peers;
mod process;
mod promqltest;
mod sim;
mod tally;
mod test;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The developer's commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every test, fetching what they need; the last line is `N passed, N failed`
    Test(test::Options),
    /// Runs PromQL test scripts against the engine and prints, per file, passed of total
    Promqltest(promqltest::Options),
    /// Runs seeds of the simulator: a cluster in simulated time, with everything that can go wrong
    Sim(sim::Options),
    /// Fuzzes the decoders of outside bytes (all targets, or those named)
    Fuzz(fuzz::Options),
    /// Measures ingest against Debian's VictoriaMetrics and Prometheus, in pairs
    Bench(bench::Options),
    /// Writes the files in operator/deploy that are printed: kinds, roles, Helm chart
    Manifests,
    /// Checks the house rules: layers, purity, file sizes, documents
    Tidy,
    /// Checks licences, sources and bans of all dependencies with cargo-deny
    Deny(deny::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Test(options) => test::run(&options),
        Command::Promqltest(options) => promqltest::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Manifests => manifests::run(),
        Command::Tidy => tidy::run(),
        Command::Deny(options) => deny::run(&options),
    }
}
