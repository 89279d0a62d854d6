//! `cargo xtask bench`: the same load on Sarsen, VictoriaMetrics and Prometheus, alternating, on fresh folders.
//!
//! The load comes from `tsbench`, a harness of its own, which also reads the server's CPU time and memory.

use crate::process::must;
use crate::{peers, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Options {
    /// The program `tsbench`
    #[arg(long, value_name = "PATH")]
    tsbench: PathBuf,
    /// How often each system is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Active series
    #[arg(long, default_value_t = 100_000)]
    series: u64,
    /// Scrapes written after the first
    #[arg(long, default_value_t = 40)]
    scrapes: u64,
    /// Connections
    #[arg(long, default_value_t = 2)]
    connections: u64,
    /// Version of remote write
    #[arg(long, default_value = "v1")]
    protocol: String,
    /// Systems to measure, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Sarsen, System::Victoria, System::Prometheus])]
    systems: Vec<System>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum System {
    Sarsen,
    Victoria,
    Prometheus,
}

/// What one round says about one system.
struct Measured {
    system: System,
    created_per_cpu_s: f64,
    written_per_cpu_s: f64,
    written_per_s: f64,
    memory_mib: f64,
    disk_mib: f64,
}

/// A server under load; it is killed, by its id, when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(options: &Options) -> Result<ExitCode> {
    ensure!(
        options.tsbench.is_file(),
        "there is no tsbench at {}; build it there first",
        options.tsbench.display()
    );
    let path = peers::ensure()?;
    must(workspace::cargo().args(["build", "--release", "--package", "server"]))?;
    let home = workspace::target_dir()?.join("bench");
    let mut measured = vec![];
    for round in 0..options.rounds {
        let mut systems = options.systems.clone();
        if round % 2 == 1 {
            systems.reverse();
        }
        for system in systems {
            let result = measure(options, system, &home, &path)?;
            println!("round {}: {}", round + 1, row(system, &[&result]));
            measured.push(result);
        }
    }
    println!(
        "\n{} series, {} scrapes, {} connections, remote write {}; medians of {}\n",
        options.series, options.scrapes, options.connections, options.protocol, options.rounds
    );
    println!(
        "| | creating series, samples/CPU-s | steady, samples/CPU-s | steady, samples/s | memory, MiB | on disk, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for system in &options.systems {
        let own: Vec<&Measured> = measured.iter().filter(|result| result.system == *system).collect();
        println!("{}", row(*system, &own));
    }
    fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn row(system: System, results: &[&Measured]) -> String {
    let median = |of: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = results.iter().map(|result| of(result)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    format!(
        "| {system:?} | {} | {} | {} | {} | {} |",
        thousands(median(|m| m.created_per_cpu_s)),
        thousands(median(|m| m.written_per_cpu_s)),
        thousands(median(|m| m.written_per_s)),
        thousands(median(|m| m.memory_mib)),
        thousands(median(|m| m.disk_mib)),
    )
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn measure(options: &Options, system: System, home: &Path, path: &OsString) -> Result<Measured> {
    let dir = home.join(format!("{system:?}").to_lowercase());
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let port = TcpListener::bind("127.0.0.1:0").context("looking for a port")?.local_addr()?.port();
    let server = start(system, &dir, port, path)?;
    let write = |first: u64, steps: u64| -> Result<Value> {
        let output = Command::new(&options.tsbench)
            .args(["write", "--prebuild", "--settle", "10s"])
            .args(["--url", &format!("http://127.0.0.1:{port}/api/v1/write")])
            .args(["--pid", &server.0.id().to_string()])
            .args(["--series", &options.series.to_string()])
            .args(["--first-step", &first.to_string(), "--steps", &steps.to_string()])
            .args(["--connections", &options.connections.to_string(), "--protocol", &options.protocol])
            .arg("--data-dir")
            .arg(&dir)
            .stderr(Stdio::inherit())
            .output()
            .context("starting tsbench")?;
        ensure!(output.status.success(), "tsbench ended with {}", output.status);
        let result: Value = serde_json::from_slice(&output.stdout).context("reading what tsbench says")?;
        ensure!(result["failed_samples"] == 0, "{system:?} did not take everything: {result}");
        Ok(result)
    };
    let (created, written) = (write(0, 1)?, write(1, options.scrapes)?);
    let number = |value: &Value| value.as_f64().context("tsbench left out a figure");
    Ok(Measured {
        system,
        created_per_cpu_s: number(&created["samples_per_server_cpu_s_settled"])?,
        written_per_cpu_s: number(&written["samples_per_server_cpu_s_settled"])?,
        written_per_s: number(&written["acked_samples_per_s"])?,
        memory_mib: number(&written["server_settled"]["rss_bytes"])? / f64::from(1 << 20),
        disk_mib: number(&written["disk"]["allocated_bytes"])? / f64::from(1 << 20),
    })
}

fn start(system: System, dir: &Path, port: u16, path: &OsString) -> Result<Server> {
    let (mut command, ready) = match system {
        System::Sarsen => {
            let mut command = Command::new(workspace::sarsen()?);
            command.arg("server").arg("--data-dir").arg(dir.join("data"));
            command.args(["--http-listen", &format!("127.0.0.1:{port}")]);
            (command, "/-/ready")
        }
        System::Victoria => {
            let mut command = Command::new("env");
            command.arg("victoria-metrics").arg(format!("-storageDataPath={}", dir.join("data").display()));
            command.args([
                &format!("-httpListenAddr=127.0.0.1:{port}"),
                "-retentionPeriod=100y",
                "-loggerLevel=WARN",
            ]);
            (command, "/health")
        }
        System::Prometheus => {
            let config = dir.join("prometheus.yml");
            fs::write(&config, "storage: {tsdb: {out_of_order_time_window: 30m}}\n")
                .with_context(|| format!("writing {}", config.display()))?;
            let mut command = Command::new("env");
            command.arg("prometheus").arg(format!("--config.file={}", config.display()));
            command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.args([
                "--storage.tsdb.retention.time=100y",
                "--web.enable-remote-write-receiver",
                "--log.level=warn",
            ]);
            (command, "/-/ready")
        }
    };
    let log = dir.join("log");
    let output =
        fs::OpenOptions::new().create(true).append(true).open(&log).context("opening the server's log")?;
    // `env` replaces itself by the program, so the child's id is the server's.
    let command = command.env("PATH", path).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut server = Server(command.spawn().with_context(|| format!("starting {system:?}"))?);
    let began = Instant::now();
    while !answers(port, ready) {
        let text = || fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = server.0.try_wait().context("waiting for the server")? {
            bail!("{system:?} ended with {status}:\n{}", text());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{system:?} does not get ready:\n{}", text());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(server)
}

/// Whether GET of a path answers 200.
fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0.4, 999.0, 1000.0, 12_345_678.0].map(thousands));
    }

    #[test]
    fn a_row_shows_medians() {
        let result = |n: f64| Measured {
            system: System::Sarsen,
            created_per_cpu_s: n,
            written_per_cpu_s: 10.0 * n,
            written_per_s: 100.0 * n,
            memory_mib: n,
            disk_mib: n,
        };
        let (a, b, c) = (result(30.0), result(10.0), result(20.0));
        assert_eq!(row(System::Sarsen, &[&a, &b, &c]), "| Sarsen | 20 | 200 | 2,000 | 20 | 20 |");
    }
}
