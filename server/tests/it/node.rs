//! A node under test.

use ingest::remote_write::encode::{self, Series};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const SARSEN: &str = env!("CARGO_BIN_EXE_sarsen");

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A command with nothing of this process's environment that could change what it does.
pub fn sarsen() -> Command {
    let mut command = Command::new(SARSEN);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SARSEN_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running node. Killed when dropped.
pub struct Node {
    pub child: Child,
    pub url: String,
    pub dir: PathBuf,
    stderr: Option<std::thread::JoinHandle<String>>,
    _own: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Node {
    /// A node in a folder of its own that stores nothing by itself.
    pub fn start() -> Node {
        Node::with(&[("SARSEN_SELF_SCRAPE_INTERVAL", "0")])
    }

    /// The same with more environment.
    pub fn with(environment: &[(&str, &str)]) -> Node {
        let own = tempfile::tempdir().unwrap();
        let mut node = Node::on(own.path(), environment);
        node._own = Some(own);
        node
    }

    /// A node on an existing folder.
    pub fn on(dir: &Path, environment: &[(&str, &str)]) -> Node {
        let mut command = sarsen();
        command.args([
            "server",
            "--http-listen",
            "127.0.0.1:0",
            "--cluster-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        command.arg(dir);
        // The test's own disk may be nearly full; that is not what is tested.
        command.env("SARSEN_LIMITS_DISK_FREE_MIN", "1MiB").envs(environment.iter().copied());
        Node::spawn(command, dir)
    }

    fn spawn(mut command: Command, dir: &Path) -> Node {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let (found, url) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.split_whitespace().find_map(|w| w.strip_suffix("/api/v1/write")) {
                    let _ = found.send(url.to_string());
                }
            }
        });
        let url = url.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the node did not start")
        });
        Node { child, url, dir: dir.to_path_buf(), stderr: Some(stderr), _own: None }
    }

    pub fn get(&self, path: &str) -> Answer {
        request(&self.url, "GET", path, &[], &[])
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(&self.url, "POST", path, headers, body)
    }

    /// Writes series with remote write 1.
    pub fn write(&self, series: &[Series]) -> Answer {
        let body = encode::compress(&encode::v1(series, &[]));
        self.post(
            "/api/v1/write",
            &[("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")],
            &body,
        )
    }

    pub fn signal(&self, signal: i32) {
        let pid = self.child.id() as i32;
        let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and what became of it, with the log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(15);
        self.wait()
    }

    pub fn wait(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the node did not end"),
            }
            std::thread::yield_now();
        };
        (status, self.stderr.take().unwrap().join().unwrap())
    }

    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn request(base: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = axum::http::Request::builder().method(method).uri(format!("{base}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.to_vec()).unwrap()).unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_string()))
            .collect(),
        body: response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap(),
    }
}

/// Waits until `probe` gives something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
