//! Running other programs.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Runs a command that must succeed, its output going where ours goes.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Runs a command whose exit code becomes ours.
pub fn forward(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    Ok(ExitCode::from(status.code().map_or(1, |code| code.clamp(0, 255) as u8)))
}

/// Where a program is found on the `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
