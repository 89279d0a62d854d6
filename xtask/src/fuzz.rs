//! `cargo xtask fuzz`: coverage-guided fuzzing of everything that reads bytes from outside.

use crate::process::{must, which};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// Targets, that is, files in `fuzz/fuzz_targets`; all of them when none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only list the targets
    #[arg(long)]
    list: bool,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let known = targets(&workspace::root().join("fuzz/fuzz_targets"))?;
    if options.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    for target in &options.targets {
        ensure!(known.contains(target), "there is no fuzz target {target:?}; there are {}", known.join(", "));
    }
    if which("cargo-fuzz").is_none() {
        println!("installing cargo-fuzz (once)");
        must(workspace::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    let mut failed = vec![];
    for target in chosen {
        println!("fuzzing {target} for {} s", options.seconds);
        let mut command = std::process::Command::new("cargo");
        command.current_dir(workspace::root());
        // Sanitizers and coverage need nightly. An inherited choice of toolchain would win over `+nightly`.
        command
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .args(["+nightly", "fuzz", "run", target, "--"]);
        command.arg(format!("-max_total_time={}", options.seconds));
        command.args(["-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=0", "-verbosity=0"]);
        if !command.status().context("starting cargo fuzz")?.success() {
            failed.push(target.as_str());
        }
    }
    ensure!(failed.is_empty(), "{} found failures; the inputs are in fuzz/artifacts", failed.join(", "));
    println!("{} targets, no failure", chosen.len());
    Ok(ExitCode::SUCCESS)
}

fn targets(dir: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(String::from));
        }
    }
    names.sort();
    Ok(names)
}
