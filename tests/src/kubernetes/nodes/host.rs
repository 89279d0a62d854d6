//! A machine: its disk, its network cable, and what its kubelet does with the pods that it knows.
//!
//! `step` looks at processes and clocks, starts and ends processes, and says what is to be asked or told. It talks to nobody itself, so a
//! kubelet that is cut off goes on like this.

use super::launch::{Facts, launch, termination_path};
use super::network::Network;
use super::parameters::Parameters;
use super::probe::{self, KINDS, Kind, Tally};
use super::process::Files;
use super::record::{Container, End, Ending, Process, Record};
use super::scheduler::phase;
use super::status;
use crate::namespaces::attempt;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts at what somebody else must do first.
const RETRY: Duration = Duration::from_secs(1);

/// How a kubelet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kubelet {
    /// As it should be.
    Working,
    /// It does not reach the API server. What it runs goes on.
    Silent,
    /// The machine is off.
    Off,
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Its name, of the node and in the label.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// From 1; a part of its pods' addresses.
    pub number: usize,
    /// Which machine it is, whatever its name.
    pub machine_id: String,
    /// Its disk and its kubelet's folder.
    pub dir: PathBuf,
    /// How its kubelet is.
    pub kubelet: Kubelet,
    /// Whether its cable is in.
    pub is_plugged: bool,
    /// Counts starts of the machine. A node is registered once after each.
    pub boot: u64,
    /// What it runs, by the pod's uid.
    pub records: BTreeMap<String, Record>,
}

/// What a step needs to know besides.
pub struct Surroundings<'a> {
    /// Now.
    pub now: Instant,
    /// The wall clock.
    pub clock: Timestamp,
    /// Clocks and images.
    pub parameters: &'a Parameters,
    /// Names.
    pub hosts: &'a Path,
}

/// What is to be asked or told.
#[derive(Debug)]
pub enum Effect {
    /// What does the pod need?
    Resolve(Pod),
    /// This is its status.
    Report(Pod, Value),
    /// It has ended; it can go.
    Remove(Pod),
    /// How is the container?
    Ask {
        /// The pod.
        uid: String,
        /// The container.
        container: String,
        /// Which start of it.
        start: u32,
        /// Which question.
        kind: Kind,
        /// `address:port`.
        address: String,
        /// Of the request.
        path: String,
        /// How long an answer may take.
        bound: Duration,
    },
    /// The pod's end is near.
    Hook {
        /// The pod.
        uid: String,
        /// `address:port` and path of each request.
        requests: Vec<(String, String)>,
        /// Until when the answer matters.
        bound: Duration,
    },
}

impl Host {
    /// The folder of its local volumes.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// The scratch folder of a pod.
    pub fn scratch(&self, uid: &str) -> PathBuf {
        self.dir.join("pods").join(uid)
    }

    /// The address that it says it has.
    pub fn ip(&self) -> String {
        format!("10.244.{}.1", self.number)
    }

    /// Whether its kubelet and the API server hear each other.
    pub fn is_in_touch(&self) -> bool {
        self.kubelet == Kubelet::Working && self.is_plugged
    }

    /// Hears which pods it is to run.
    pub fn hear(&mut self, pods: &[Arc<Pod>]) {
        for record in self.records.values_mut() {
            record.is_gone = true;
        }
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            match self.records.get_mut(&uid) {
                Some(record) => {
                    record.is_gone = false;
                    record.pod = Pod::clone(pod);
                }
                None if matches!(phase(pod), "Succeeded" | "Failed")
                    && pod.metadata.deletion_timestamp.is_none() => {}
                None => {
                    self.records.insert(uid, Record::new(Pod::clone(pod)));
                }
            }
        }
    }

    /// One look at everything that it runs.
    pub fn step(&mut self, network: &mut Network, around: &Surroundings) -> Vec<Effect> {
        if self.kubelet == Kubelet::Off {
            return vec![];
        }
        let (is_in_touch, is_plugged, ip) = (self.is_in_touch(), self.is_plugged, self.ip());
        let mut effects = vec![];
        let mut over = vec![];
        for (uid, record) in &mut self.records {
            let scratch = self.dir.join("pods").join(uid);
            reap(record, around);
            if record.pod.metadata.deletion_timestamp.is_some() || record.is_gone {
                effects.extend(end(record, around));
                let status = (is_in_touch && !record.is_gone)
                    .then(|| status::report(record, &ip, around.clock))
                    .flatten();
                let is_told = status.is_none();
                if let Some(status) = status.filter(|_| !record.is_talking) {
                    record.is_talking = true;
                    effects.push(Effect::Report(record.pod.clone(), status));
                }
                if record.is_running() || record.ending.as_ref().is_some_and(|ending| ending.is_hooked) {
                    continue;
                }
                if let Some(sandbox) = record.sandbox.take()
                    && let Err(failure) = network.detach(&sandbox)
                {
                    eprintln!("{}: {failure}", self.name);
                }
                if record.is_gone {
                    // What cannot be removed is in nobody's way.
                    let _ = fs::remove_dir_all(&scratch);
                    over.push(uid.clone());
                } else if is_in_touch
                    && is_told
                    && let Some(ending) = &mut record.ending
                    && ending.remove_at.is_none_or(|at| around.now >= at)
                {
                    ending.remove_at = Some(around.now + RETRY);
                    effects.push(Effect::Remove(record.pod.clone()));
                }
                continue;
            }
            if record.facts.is_none() {
                let is_due = record.retry_at.is_none_or(|at| around.now >= at);
                if is_in_touch && is_due && !record.is_talking {
                    record.is_talking = true;
                    record.retry_at = Some(around.now + RETRY / 4);
                    effects.push(Effect::Resolve(record.pod.clone()));
                }
            } else if let Err(failure) = begin(record, self.number, is_plugged, &scratch, network, around) {
                record.trouble = Some(("CreatePodSandboxError".into(), failure));
            }
            // A machine without a cable still reaches its own pods; what it would learn cannot be told before the cable is back.
            if is_plugged {
                effects.extend(ask(uid, record, around));
            }
            if is_in_touch
                && !record.is_talking
                && let Some(status) = status::report(record, &ip, around.clock)
            {
                record.is_talking = true;
                effects.push(Effect::Report(record.pod.clone(), status));
            }
        }
        for uid in over {
            self.records.remove(&uid);
        }
        effects
    }

    /// Takes an answer to a question about a container.
    pub fn answered(&mut self, uid: &str, name: &str, start: u32, kind: Kind, is_good: bool, now: Instant) {
        let Some(record) = self.records.get_mut(uid) else { return };
        let (grace, specs) = (record.grace(), record.specs());
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else { return };
        let Some(container) = record.containers.get_mut(name) else { return };
        let Some(process) = container.process.as_mut().filter(|process| process.start == start) else {
            return;
        };
        let Some(probe) = kind.of(spec) else { return };
        let Some(verdict) =
            container.probes.get_mut(&kind).and_then(|tally| tally.answer(is_good, probe, now))
        else {
            return;
        };
        match (kind, verdict) {
            (Kind::Readiness, verdict) => container.is_ready = verdict,
            (Kind::Startup, true) => {
                container.is_started = true;
                container.is_ready = spec.readiness_probe.is_none();
            }
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => tell_to_end(process, now + grace),
        }
    }

    /// The machine stops at once. Its disk stays.
    pub fn power_off(&mut self, network: &mut Network, clock: Timestamp) {
        self.kubelet = Kubelet::Off;
        for record in self.records.values_mut() {
            record.lose_power(clock);
            if let Some(sandbox) = record.sandbox.take()
                && let Err(failure) = network.detach(&sandbox)
            {
                eprintln!("{}: {failure}", self.name);
            }
        }
    }
}

/// Sees which processes have ended, and kills those whose time is over.
fn reap(record: &mut Record, around: &Surroundings) {
    let policy = record
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.clone())
        .unwrap_or_else(|| "Always".into());
    let name = format!(
        "{}_{}({})",
        record.pod.name_any(),
        record.pod.namespace().unwrap_or_default(),
        record.pod.uid().unwrap_or_default()
    );
    let is_ending = record.ending.is_some();
    for spec in record.specs() {
        let Some(container) = record.containers.get_mut(&spec.name) else { continue };
        let Some(process) = &mut container.process else { continue };
        if process.kill_at.is_some_and(|at| around.now >= at) {
            // It may have ended meanwhile.
            let _ = process.child.kill();
        }
        let Ok(Some(exit)) = process.child.try_wait() else { continue };
        let end = End::of(&spec, process, exit, around.clock);
        let ran = around.now - process.since;
        let may_restart = policy == "Always" || policy == "OnFailure" && end.code != 0;
        container.process = None;
        container.ended(end);
        if !may_restart || is_ending {
            continue;
        }
        if ran >= around.parameters.backoff_reset {
            container.delay = Duration::ZERO;
        }
        container.not_before = Some(around.now + container.delay);
        if !container.delay.is_zero() {
            let message = format!(
                "back-off {:?} restarting failed container={} pod={name}",
                container.delay, spec.name
            );
            container.waiting = Some(("CrashLoopBackOff".into(), message));
            container.last = container.end.take();
        }
        container.delay =
            (container.delay * 2).clamp(around.parameters.backoff, around.parameters.backoff_max);
    }
}

fn tell_to_end(process: &mut Process, deadline: Instant) {
    if process.kill_at.is_none() {
        process.kill_at = Some(deadline);
        // It may have ended meanwhile. Until it is waited for, the number is its own.
        let _ = attempt(&format!("kill -TERM {}", process.child.id()));
    }
}

/// Leads a pod to its end: hook, SIGTERM, SIGKILL.
fn end(record: &mut Record, around: &Surroundings) -> Option<Effect> {
    let Some(ending) = &mut record.ending else {
        let grace = record.grace();
        let requests: Vec<(String, String)> = if record.is_running() { hooks(record) } else { vec![] };
        let is_hooked = !requests.is_empty();
        let deadline = around.now + grace;
        record.ending = Some(Ending { deadline, is_hooked, is_told: false, remove_at: None });
        let uid = record.pod.uid().unwrap_or_default();
        return is_hooked.then_some(Effect::Hook { uid, requests, bound: grace });
    };
    ending.is_hooked &= around.now < ending.deadline;
    let is_told = std::mem::replace(&mut ending.is_told, !ending.is_hooked);
    if ending.is_told && !is_told {
        let deadline = ending.deadline;
        for container in record.containers.values_mut() {
            if let Some(process) = &mut container.process {
                tell_to_end(process, deadline);
            }
        }
    }
    None
}

fn hooks(record: &Record) -> Vec<(String, String)> {
    let Some(sandbox) = &record.sandbox else { return vec![] };
    let specs = record.specs();
    let hooks = specs.iter().filter_map(|spec| {
        let get = spec.lifecycle.as_ref()?.pre_stop.as_ref()?.http_get.as_ref()?;
        probe::target(get, spec, &sandbox.ip)
    });
    hooks.collect()
}

/// Starts what should run and does not; ends what should be another image.
fn begin(
    record: &mut Record,
    host: usize,
    is_plugged: bool,
    scratch: &Path,
    network: &mut Network,
    around: &Surroundings,
) -> Result<(), String> {
    let policy = record.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let is_to_start = |container: &Container| {
        let is_final = policy == "Never"
            || policy == "OnFailure" && container.end.as_ref().is_some_and(|end| end.code == 0);
        container.process.is_none()
            && !(is_final && container.end.is_some())
            && container.not_before.is_none_or(|at| around.now >= at)
    };
    let due: Vec<String> = record
        .containers
        .iter()
        .filter(|(_, container)| is_to_start(container))
        .map(|(name, _)| name.clone())
        .collect();
    let (grace, specs, pod) = (record.grace(), record.specs(), record.pod.clone());
    for spec in &specs {
        let Some(container) = record.containers.get_mut(&spec.name) else { continue };
        if let Some(process) = &mut container.process
            && Some(&process.image) != spec.image.as_ref()
        {
            tell_to_end(process, around.now + grace);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    if record.sandbox.is_none() {
        record.sandbox = Some(network.attach(host, is_plugged)?);
    }
    record.trouble = None;
    let (Some(facts), Some(sandbox)) = (&mut record.facts, &record.sandbox) else { return Ok(()) };
    facts.pod_ip.clone_from(&sandbox.ip);
    for spec in specs.iter().filter(|spec| due.contains(&spec.name)) {
        let Some(container) = record.containers.get_mut(&spec.name) else { continue };
        if let Err((reason, message)) =
            start(&pod, spec, container, facts, &sandbox.namespace, scratch, around)
        {
            let is_known = container.waiting.as_ref().is_some_and(|(known, _)| known.contains("ImagePull"));
            container.waiting = Some(match reason.as_str() {
                "ErrImagePull" if is_known => {
                    let image = spec.image.as_deref().unwrap_or_default();
                    ("ImagePullBackOff".into(), format!("Back-off pulling image \"{image}\": {message}"))
                }
                _ => (reason, message),
            });
            container.not_before = Some(around.now + RETRY);
        }
    }
    Ok(())
}

fn start(
    pod: &Pod,
    spec: &Spec,
    container: &mut Container,
    facts: &Facts,
    namespace: &str,
    scratch: &Path,
    around: &Surroundings,
) -> Result<(), (String, String)> {
    let launch = launch(pod, spec, facts, &around.parameters.images)?;
    let is_again = container.end.is_some() || container.last.is_some();
    let start = container.restarts + u32::from(is_again);
    let own = |what: &str| scratch.join(format!("{}.{start}.{what}", spec.name));
    let files = Files {
        root: scratch.join(format!("{}.root", spec.name)),
        log: own("log"),
        termination: own("end"),
        script: own("sh"),
        hosts: around.hosts.into(),
    };
    let child = launch
        .start(namespace, &files, &termination_path(spec).to_string_lossy())
        .map_err(|error| ("RunContainerError".to_string(), error.to_string()))?;
    container.restarts = start;
    let process = Process {
        child,
        started: around.clock,
        since: around.now,
        log: files.log,
        termination: files.termination,
        image: spec.image.clone().unwrap_or_default(),
        start,
        kill_at: None,
    };
    container.began(process, spec, around.now);
    Ok(())
}

/// The questions that are due.
fn ask(uid: &str, record: &mut Record, around: &Surroundings) -> Vec<Effect> {
    let specs = record.specs();
    let Some(ip) = record.sandbox.as_ref().map(|sandbox| sandbox.ip.clone()) else { return vec![] };
    let mut effects = vec![];
    for spec in &specs {
        let Some(container) = record.containers.get_mut(&spec.name) else { continue };
        let Some(start) = container.process.as_ref().map(|process| process.start) else { continue };
        for kind in KINDS {
            let Some(probe) = kind.of(spec) else { continue };
            let request = probe.http_get.as_ref().and_then(|get| probe::target(get, spec, &ip));
            let Some((address, path)) = request else { continue };
            let is_its_time = (kind == Kind::Startup) != container.is_started;
            let tally = container.probes.entry(kind).or_insert_with(|| Tally::new(probe, around.now));
            if is_its_time && tally.ask(around.now) {
                effects.push(Effect::Ask {
                    uid: uid.into(),
                    container: spec.name.clone(),
                    start,
                    kind,
                    address,
                    path,
                    bound: probe::timeout(probe),
                });
            }
        }
    }
    effects
}
