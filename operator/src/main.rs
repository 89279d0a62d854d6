//! The `sarsen-operator` binary.

use anyhow::{Context, Result};
use clap::Parser;
use operator::args::{Cli, Command, ManifestsArgs, RunArgs};
use operator::manifests::{self, Choices};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Manifests(args) => print_manifests(&args),
        Command::Version => print(&format!("sarsen-operator {}\n", env!("CARGO_PKG_VERSION"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<()> {
    let level = args.log_level.parse::<tracing::Level>();
    let level = level.with_context(|| {
        format!("--log-level {:?}; it is error, warn, info, debug or trace", args.log_level)
    })?;
    tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(io::stderr).init();
    // It waits most of the time: two threads are plenty.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(operator::run::run(args))
}

fn print_manifests(args: &ManifestsArgs) -> Result<()> {
    let choices = Choices::new(&args.namespace, args.image.as_deref());
    let Some(folder) = &args.write else {
        return print(&manifests::yaml(&manifests::objects(&choices, args.only, args.cluster_scoped)));
    };
    for (path, text) in manifests::files(&choices) {
        let path = folder.join(path);
        let parent = path.parent().context("a file has a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}
