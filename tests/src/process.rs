//! Real processes on loopback.

use crate::client::Client;
use crate::random::{Random, now};
use crate::until::until;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The unit in which the kernel tells processor time: `CLK_TCK`, which is 100 on every machine that Linux still runs on.
const CPU_TICK: Duration = Duration::from_millis(10);

/// How long a process may take to become ready or to end. Generous: the machine may be busy with other tests.
pub const BOUND: Duration = Duration::from_secs(60);

/// A port that nothing listens on.
///
/// It lies below the range that the kernel gives to outgoing connections, so that no client takes it before the
/// server that it is meant for has bound it, nor between a server's end and its restart.
pub fn free_port() -> u16 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut random = Random::new(now().as_nanos() as u64 ^ u64::from(std::process::id()) << 32 ^ call << 56);
    until("a free port", BOUND, || {
        let port = 12_000 + random.below(20_000) as u16;
        TcpListener::bind(("127.0.0.1", port)).map(|_| port).map_err(|error| error.to_string())
    })
}

/// A child process. It is killed, by its id, when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Process {
        let output = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
        let errors = output.try_clone().expect("the log can be written twice");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name} ({command:?}): {error}"));
        Process { name: name.into(), child, log: log.into() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `ready` says so. Panics with the process's output when it ends before, or takes too long.
    pub fn await_ready(&mut self, ready: impl Fn() -> bool) {
        until(&format!("{} to be ready", self.name), BOUND, || {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                panic!("{} ended with {status}:\n{}", self.name, self.output());
            }
            if ready() { Ok(()) } else { Err(format!("not ready; its output:\n{}", self.output())) }
        });
    }

    /// Waits until it ends by itself.
    pub fn await_end(&mut self) -> ExitStatus {
        until(&format!("{} to end", self.name), BOUND, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("still running".into()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// SIGKILL: the process does nothing any more, not even clean up.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        #[expect(
            unsafe_code,
            reason = "kill(2) takes two integers; the child has not been waited for, so the id is its own"
        )]
        let result = unsafe { libc::kill(self.pid() as libc::pid_t, libc::SIGTERM) };
        assert_eq!(result, 0, "a child can be signalled");
        self.await_end()
    }

    /// Memory in use (resident), in bytes.
    pub fn memory(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The most memory that was ever in use, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// The processor time that it has used, of itself and in the kernel, to 10 ms.
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // After the name, which may have spaces in it: utime and stime are fields 14 and 15 of proc_pid_stat(5), and the name is field 2.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks =
            fields.into_iter().flatten().map(|ticks| ticks.parse::<u32>().expect("a number of ticks"));
        CPU_TICK * ticks.sum::<u32>()
    }

    fn status_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{path} has no {key}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Both fail only if the child is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let from_environment = std::env::var_os("SARSEN_BIN").map(PathBuf::from);
    // Test binaries lie in target/debug/deps.
    let beside =
        || std::env::current_exe().ok()?.ancestors().nth(3).map(|target| target.join("release/sarsen"));
    match from_environment.or_else(beside) {
        Some(path) if path.is_file() => path,
        path => panic!(
            "there is no release binary at {path:?}: use `cargo xtask test`, or `cargo build --release -p server` before"
        ),
    }
}

/// The operator: `$SARSEN_OPERATOR_BIN`, or beside this test.
pub fn operator_binary() -> PathBuf {
    let from_environment = std::env::var_os("SARSEN_OPERATOR_BIN").map(PathBuf::from);
    let beside =
        || std::env::current_exe().ok()?.ancestors().nth(2).map(|debug| debug.join("sarsen-operator"));
    match from_environment.or_else(beside) {
        Some(path) if path.is_file() => path,
        path => panic!(
            "there is no operator at {path:?}: use `cargo xtask test`, or `cargo build -p operator` before"
        ),
    }
}

/// A database node.
pub struct Sarsen {
    /// Its process.
    pub process: Process,
    /// Talks to it.
    pub client: Client,
    /// Where it listens.
    pub port: u16,
}

impl Sarsen {
    /// Starts a node on `dir`, which keeps its data in `dir/data` and its log in `dir/log`, and waits until it is ready.
    pub fn start(dir: &Path) -> Sarsen {
        Sarsen::start_at(dir, free_port())
    }

    /// The same at a port of the caller's choice.
    pub fn start_at(dir: &Path, port: u16) -> Sarsen {
        Sarsen::start_with(dir, port, &[])
    }

    /// The same with more arguments.
    pub fn start_with(dir: &Path, port: u16, arguments: &[&str]) -> Sarsen {
        Sarsen::spawn(dir, port, arguments).ready()
    }

    /// The same, and the node stores nothing of its own.
    pub fn start_silent(dir: &Path, port: u16) -> Sarsen {
        Sarsen::launch(dir, port, &[], &[("SARSEN_SELF_SCRAPE_INTERVAL", "0")]).ready()
    }

    fn ready(self) -> Sarsen {
        let mut sarsen = self;
        let client = sarsen.client.clone();
        sarsen.process.await_ready(|| client.is_ok("/-/ready"));
        sarsen
    }

    /// Starts a node without waiting for anything.
    pub fn spawn(dir: &Path, port: u16, arguments: &[&str]) -> Sarsen {
        Sarsen::launch(dir, port, arguments, &[])
    }

    fn launch(dir: &Path, port: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Sarsen {
        let mut command = Command::new(binary());
        command.arg("server").arg("--data-dir").arg(dir.join("data"));
        command.args(["--http-listen", &format!("127.0.0.1:{port}")]);
        // A cluster of its own, whose other nodes would find it nowhere.
        command.args(["--cluster-listen", "127.0.0.1:0"]).args(arguments);
        command.envs(environment.iter().copied());
        let process = Process::start("sarsen", &mut command, &dir.join("log"));
        Sarsen { process, client: Client::new(port), port }
    }
}
