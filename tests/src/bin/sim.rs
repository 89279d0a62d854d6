//! `cargo xtask sim`: runs seeds of the simulator.

use anyhow::{Result, bail};
use std::io::Write;
use std::process::ExitCode;
#[cfg(feature = "planted-bugs")]
use tests::sim::suite::Mistake;
use tests::sim::suite::{describe, run_all};

fn main() -> Result<ExitCode> {
    let mut seed = None;
    let (mut first, mut seeds, mut threads, mut trace) = (0, 1_000, 2, false);
    #[cfg(feature = "planted-bugs")]
    let mut mistake = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            match args.next().map(|text| text.parse()) {
                Some(Ok(number)) => Ok(number),
                _ => bail!("{arg} takes a number"),
            }
        };
        match arg.as_str() {
            "--seed" => seed = Some(number()?),
            "--first" => first = number()?,
            "--seeds" => seeds = number()?,
            "--threads" => threads = number()? as usize,
            "--trace" => trace = true,
            #[cfg(feature = "planted-bugs")]
            "--planted" => return Ok(planted(args.next().as_deref(), seeds)),
            #[cfg(feature = "planted-bugs")]
            "--plant" => {
                let name = args.next().unwrap_or_default();
                mistake = Mistake::all().find(|mistake| format!("{mistake:?}") == name);
            }
            _ => bail!("{arg} is unknown; there are --seed N, --trace, --first N, --seeds N and --threads N"),
        }
    }
    let prepare = || {
        #[cfg(feature = "planted-bugs")]
        Mistake::plant(mistake);
    };
    if let Some(seed) = seed {
        prepare();
        return one(seed, trace);
    }
    let tally = run_all(first..first + seeds, threads, false, prepare);
    println!("{tally}");
    Ok(if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every mistake, and how many seeds it takes until it is caught.
#[cfg(feature = "planted-bugs")]
fn planted(only: Option<&str>, seeds_max: u64) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for mistake in Mistake::all() {
        let name = format!("{mistake:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        match tests::sim::suite::seeds_until_caught(mistake, seeds_max) {
            Some((seeds, report)) => {
                println!("{name}: {seeds} seeds: {}", report.violation.unwrap_or_default())
            }
            None => {
                println!("{name}: NOT CAUGHT in {seeds_max} seeds");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn one(seed: u64, trace: bool) -> Result<ExitCode> {
    let report = tests::sim::run(seed, trace);
    if let Some(text) = &report.trace {
        std::io::stdout().write_all(text.as_bytes())?;
    }
    println!(
        "seed {seed}: {} events, {} faults, {} rows acknowledged, {:?} requests answered and failed, {} ms, trace {:016x}",
        report.events, report.faults, report.acknowledged, report.answered, report.simulated_ms, report.hash
    );
    match report.violation {
        None => Ok(ExitCode::SUCCESS),
        Some(_) => {
            println!("{}", describe(&report));
            Ok(ExitCode::FAILURE)
        }
    }
}
