//! `cargo xtask deny`: licences, sources and bans.

use crate::process::{forward, must, which};
use crate::workspace;
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// What to check
    #[arg(default_values = ["licenses", "sources", "bans"])]
    checks: Vec<String>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    if which("cargo-deny").is_none() {
        println!("installing cargo-deny (a few minutes, once)");
        must(workspace::cargo().args(["install", "--locked", "cargo-deny"]))?;
    }
    forward(workspace::cargo().args(["deny", "--workspace", "--all-features", "check"]).args(&options.checks))
}
