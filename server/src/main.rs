//! The `sarsen` binary.

use clap::Parser;
use server::args::{CheckCommand, Cli, Command, ServerArgs};
use server::config::{self, Config, Sources};
use server::{client, exit, log, node};
use std::process::ExitCode;

/// Long-lived small objects beside large short-lived buffers from many threads: jemalloc keeps them apart and gives
/// pages back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Server(args) => return serve(&args),
        Command::Query(command) => client::query::run(command),
        Command::Status(remote) => client::status::run(&remote),
        Command::Cluster(command) => client::cluster::run(command),
        Command::Jobs(command) => client::jobs::run(command),
        Command::Ns(command) => client::ns::run(command),
        Command::Tsdb(command) => client::tsdb::run(command),
        Command::Check(CheckCommand::Config { file }) => check_config(&file),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // A reader that has seen enough (`| head`) is no failure.
    let closed = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    ExitCode::from(code)
}

fn serve(args: &ServerArgs) -> ExitCode {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let sources = Sources { file: args.config.clone(), environment, flags: args.flags() };
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), exit::USAGE),
    };
    if args.print_config {
        print!("{}", config.to_yaml());
        return ExitCode::SUCCESS;
    }
    log::init(config.log_format, config.log_level);
    for (name, meant) in config::suspicious_variables(&sources.environment) {
        tracing::warn!(name, meant, "an environment variable that means nothing; a spelling mistake?");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting threads"), 1),
    };
    let outcome = runtime.block_on(node::run(config));
    // Evaluations that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = exit::reason(&error);
            tracing::error!(%reason, code = exit::code(reason), "the node ends");
            // The last line: Kubernetes, for one, shows it as why the container ended.
            eprintln!("error: {error:#}");
            ExitCode::from(exit::code(reason))
        }
    }
}

fn check_config(file: &std::path::Path) -> anyhow::Result<()> {
    Config::default().apply_file(file)?;
    println!("{} is valid", file.display());
    Ok(())
}
