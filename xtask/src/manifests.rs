//! `cargo xtask manifests`: the files in `operator/deploy` that are printed.

use crate::{process, workspace};
use anyhow::Result;
use std::process::ExitCode;

pub fn run() -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "operator", "--bin", "sarsen-operator", "--"]);
    process::forward(command.args(["manifests", "--write", "operator/deploy"]))
}
