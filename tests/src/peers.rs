//! Prometheus, its node exporter and VictoriaMetrics' agent, as Debian packages them.

use crate::client::Client;
use crate::process::{Process, free_port};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A running peer.
pub struct Peer {
    /// Its process.
    pub process: Process,
    /// Talks to it.
    pub client: Client,
    /// Where it listens.
    pub port: u16,
}

impl Peer {
    fn start(name: &str, command: &mut Command, port: u16, dir: &Path, ready: &str) -> Peer {
        let mut process = Process::start(name, command, &dir.join(format!("{name}.log")));
        let client = Client::new(port);
        process.await_ready(|| client.is_ok(ready));
        Peer { process, client, port }
    }
}

/// A job to scrape every second: its name and the port of its target.
pub type Job<'a> = (&'a str, u16);

/// A node exporter, which shows the metrics of this machine.
pub fn node_exporter(dir: &Path) -> Peer {
    let port = free_port();
    let mut command = Command::new("prometheus-node-exporter");
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Peer::start("prometheus-node-exporter", &mut command, port, dir, "/metrics")
}

/// A Prometheus at `port` that scrapes the jobs and writes to `remote_write`.
pub fn prometheus(dir: &Path, port: u16, jobs: &[Job], remote_write: &str) -> Peer {
    prometheus_to(dir, port, jobs, &[remote_write])
}

/// The same, writing everything to several places.
pub fn prometheus_to(dir: &Path, port: u16, jobs: &[Job], remote_write: &[&str]) -> Peer {
    let mut config = scrape_config(jobs) + "remote_write:\n";
    for url in remote_write {
        config += &format!(
            "  - url: {url}\n    queue_config: {{batch_send_deadline: 1s, min_backoff: 100ms}}\n    \
             metadata_config: {{send: true, send_interval: 5s}}\n"
        );
    }
    let path = dir.join("prometheus.yml");
    fs::write(&path, config).expect("the configuration can be written");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", path.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn");
    Peer::start("prometheus", &mut command, port, dir, "/-/ready")
}

/// A vmagent that scrapes the jobs and writes to `remote_write`, every metric's name with `vm:` in front.
pub fn vmagent(dir: &Path, jobs: &[Job], remote_write: &str) -> Peer {
    let port = free_port();
    let path = dir.join("vmagent.yml");
    fs::write(&path, scrape_config(jobs)).expect("the configuration can be written");
    let relabel = dir.join("relabel.yml");
    let rule = "- {source_labels: [__name__], target_label: __name__, replacement: 'vm:$1'}\n";
    fs::write(&relabel, rule).expect("the configuration can be written");
    let mut command = Command::new("vmagent");
    command
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .arg(format!("-promscrape.config={}", path.display()))
        .arg(format!("-remoteWrite.url={remote_write}"))
        .arg(format!("-remoteWrite.relabelConfig={}", relabel.display()))
        .arg(format!("-remoteWrite.tmpDataPath={}", dir.join("vmagent").display()))
        .args(["-remoteWrite.flushInterval=1s", "-loggerLevel=WARN"]);
    Peer::start("vmagent", &mut command, port, dir, "/health")
}

fn scrape_config(jobs: &[Job]) -> String {
    let mut config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    for (name, port) in jobs {
        config += &format!("  - job_name: {name}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n");
    }
    config
}
