//! `cargo xtask test`: every test of the workspace.
//!
//! Tests that need a program from outside are marked `#[ignore = "needs …"]`, so that a plain `cargo test` works
//! everywhere. Here they run too, unless `--without-peers` says otherwise, and then each one that is skipped is named. kubectl is not fetched:
//! the tests that need it run where it is.

use crate::process::must;
use crate::tally::Tally;
use crate::{peers, workspace};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

#[derive(clap::Args)]
pub struct Options {
    /// Skip, loudly, the tests that need Debian's prometheus, prometheus-node-exporter and victoria-metrics
    #[arg(long)]
    without_peers: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// The tests that need kubectl.
const KUBECTL_TESTS: &str = "::kubectl::";

pub fn run(options: &Options) -> Result<ExitCode> {
    let path = if options.without_peers { None } else { Some(peers::ensure()?) };
    // The tests that start real processes use the binary that users get.
    must(workspace::cargo().args(["build", "--release", "--package", "server"]))?;
    // The operator waits most of the time, and its dependencies have been built for its own tests.
    must(workspace::cargo().args(["build", "--package", "operator"]))?;

    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--features", "tests/planted-bugs"]);
    command.env("SARSEN_BIN", workspace::sarsen()?).stdout(Stdio::piped());
    command.args(&options.filter).arg("--");
    let mut tally = Tally::default();
    if let Some(path) = path {
        command.env("PATH", path).arg("--include-ignored");
        if !peers::has_kubectl() {
            // These cannot be fetched; all of them are in modules of this name.
            command.args(["--skip", KUBECTL_TESTS]);
            tally.ignored.push(format!("*{KUBECTL_TESTS}*, needs kubectl 1.25 or newer on the PATH"));
        }
    }
    let mut child = command.spawn().context("starting cargo test")?;
    let mut lines = BufReader::new(child.stdout.take().context("cargo test's output was not captured")?);
    let mut line = vec![];
    // Tests may print anything; lines are passed on as the bytes that they are.
    while lines.read_until(b'\n', &mut line).context("reading the output of cargo test")? > 0 {
        std::io::stdout().write_all(&line).context("passing on the output of cargo test")?;
        tally.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    tally.exited(child.wait().context("waiting for cargo test")?.success());

    println!();
    for test in &tally.ignored {
        println!("SKIPPED  {test}");
    }
    for test in &tally.failures {
        println!("FAILED   {test}");
    }
    println!("{}", tally.summary());
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
