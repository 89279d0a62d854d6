//! What a kubelet knows of a pod that it runs, and of its containers. It lives on the host: no API server is needed for it.

use super::launch::{Facts, Trouble};
use super::network::Sandbox;
use super::probe::{KINDS, Kind, Tally};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Of a log, as the last words of a process that left none.
const MESSAGE_BYTES_MAX: usize = 2048;
const MESSAGE_LINES_MAX: usize = 80;

/// A pod on its host.
#[derive(Debug)]
pub struct Record {
    /// The pod as it was last heard of.
    pub pod: Pod,
    /// What it needs, when that is known.
    pub facts: Option<Facts>,
    /// Its place in the network.
    pub sandbox: Option<Sandbox>,
    /// By name.
    pub containers: BTreeMap<String, Container>,
    /// Why it is not started.
    pub trouble: Option<Trouble>,
    /// Since somebody wants it to end.
    pub ending: Option<Ending>,
    /// The API server does not have it any more.
    pub is_gone: bool,
    /// The status that was last sent.
    pub sent: Option<Value>,
    /// Something about it is being asked or told.
    pub is_talking: bool,
    /// When what it needs is looked for again.
    pub retry_at: Option<Instant>,
}

/// A container of it.
#[derive(Debug, Default)]
pub struct Container {
    /// Its process, if it runs.
    pub process: Option<Process>,
    /// How the last process ended.
    pub end: Option<End>,
    /// How the one before this ended.
    pub last: Option<End>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it does not run.
    pub waiting: Option<Trouble>,
    /// When it may be started again.
    pub not_before: Option<Instant>,
    /// How long it waits after the next end.
    pub delay: Duration,
    /// Its startup probe is content.
    pub is_started: bool,
    /// Its readiness probe is content.
    pub is_ready: bool,
    /// Answers.
    pub probes: BTreeMap<Kind, Tally>,
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    /// The process itself.
    pub child: Child,
    /// Of the wall clock, for the status.
    pub started: Timestamp,
    /// The same, for time to be measured from.
    pub since: Instant,
    /// What it prints.
    pub log: PathBuf,
    /// Its last words.
    pub termination: PathBuf,
    /// The image that it is.
    pub image: String,
    /// Whether it is this start of the container: answers about others do not count.
    pub start: u32,
    /// It was told to end, and is killed at this moment.
    pub kill_at: Option<Instant>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The exit code, 128 and the signal where that ended it.
    pub code: i32,
    /// `Completed`, `Error`.
    pub reason: String,
    /// Its last words.
    pub message: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// The end of a pod.
#[derive(Clone, Debug)]
pub struct Ending {
    /// When everything is killed.
    pub deadline: Instant,
    /// A preStop hook is under way.
    pub is_hooked: bool,
    /// SIGTERM was sent.
    pub is_told: bool,
    /// When the API server is asked (again) to remove the pod.
    pub remove_at: Option<Instant>,
}

impl Record {
    /// Of a pod that nothing has been done for.
    pub fn new(pod: Pod) -> Record {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let containers = containers.map(|container| (container.name.clone(), Container::default())).collect();
        Record {
            pod,
            facts: None,
            sandbox: None,
            containers,
            trouble: None,
            ending: None,
            is_gone: false,
            sent: None,
            is_talking: false,
            retry_at: None,
        }
    }

    /// The specifications of its containers.
    pub fn specs(&self) -> Vec<Spec> {
        self.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default()
    }

    /// Whether any process is left.
    pub fn is_running(&self) -> bool {
        self.containers.values().any(|container| container.process.is_some())
    }

    /// How long it may take to end.
    pub fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(30);
        // The real one leaves a second to a pod that was given none.
        Duration::from_secs(seconds.max(1).unsigned_abs())
    }

    /// The power is gone: all processes have ended, and nobody saw it.
    pub fn lose_power(&mut self, now: Timestamp) {
        self.ending = None;
        self.sent = None;
        for container in self.containers.values_mut() {
            if let Some(mut process) = container.process.take() {
                // It may have ended by itself a moment ago.
                let _ = process.child.kill();
                let _ = process.child.wait();
                container.ended(End {
                    code: 255,
                    reason: "Unknown".into(),
                    message: String::new(),
                    started: process.started,
                    finished: now,
                });
            }
            container.not_before = None;
            container.delay = Duration::ZERO;
        }
    }
}

impl Container {
    /// A process of it has started.
    pub fn began(&mut self, process: Process, spec: &Spec, now: Instant) {
        self.last = self.end.take().or(self.last.take());
        self.waiting = None;
        self.is_started = spec.startup_probe.is_none();
        self.is_ready = self.is_started && spec.readiness_probe.is_none();
        let probes = KINDS.into_iter().filter_map(|kind| Some((kind, Tally::new(kind.of(spec)?, now))));
        self.probes = probes.collect();
        self.process = Some(process);
    }

    /// Its process has ended.
    pub fn ended(&mut self, end: End) {
        self.end = Some(end);
        self.is_ready = false;
        self.is_started = false;
        self.probes.clear();
    }
}

impl End {
    /// How a process of this container has ended, with what it left to be said.
    pub fn of(spec: &Spec, process: &Process, exit: ExitStatus, clock: Timestamp) -> End {
        let code = exit.code().unwrap_or_else(|| 128 + exit.signal().unwrap_or(0));
        let mut message = fs::read_to_string(&process.termination).unwrap_or_default();
        let falls_back = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if message.is_empty() && falls_back && code != 0 {
            message = tail(&String::from_utf8_lossy(&fs::read(&process.log).unwrap_or_default()));
        }
        let reason = if code == 0 { "Completed" } else { "Error" };
        End { code, reason: reason.into(), message, started: process.started, finished: clock }
    }
}

/// The end of a log, not longer than a status may be.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(MESSAGE_LINES_MAX).collect();
    let text = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    let mut from = text.len().saturating_sub(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_fits_a_status_and_keeps_whole_letters() {
        assert_eq!(tail("one\ntwo\n"), "one\ntwo");
        let long = "ä\n".repeat(200);
        assert_eq!(tail(&long).lines().count(), MESSAGE_LINES_MAX);
        let wide = format!("x{}", "ä".repeat(MESSAGE_BYTES_MAX));
        let end = tail(&wide);
        assert!(end.len() <= MESSAGE_BYTES_MAX && end.chars().all(|letter| letter == 'ä'));
    }
}
