//! How a loss is known. Seven kinds of evidence, from what somebody has said to what is merely likely, each with the time that it must last.
//!
//! What is *no* evidence is as important: a pod that waits for CPU or memory, a machine that is cordoned, a container that ends again and again, an image that
//! is not there. Nothing of that is mended by making the data anew elsewhere. [`trouble`] says what it is.

use super::instances::{Instance, Instances};
use super::observed::{Answer, ClaimPhase, Health, Host, Machine, Node, Observed, TroubleKind, Volume};
use crate::api::{FailurePolicy, Span};
use std::collections::BTreeMap;

/// Evidence that an instance is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What kind.
    pub kind: Kind,
    /// In a sentence.
    pub message: String,
    /// What there is to do about it.
    pub remedy: Remedy,
}

/// What there is to do about evidence that has lasted for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The data is lost with the machine or the volume: another instance takes its place.
    Replace,
    /// The machine is lost and the volume is not: its pod is taken off the machine, and comes elsewhere with its volume.
    Free,
}

/// Kinds of evidence, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A person has asked for it.
    Requested,
    /// The machine has the taint that says that it is off for good.
    OutOfService,
    /// The claim or its volume is gone, or empty, or of somebody else, or fails.
    VolumeLost,
    /// The machine is gone, or is another one by the same name.
    MachineGone,
    /// The pod cannot be placed, since the only machine that its volume can be used on does not exist.
    VolumeUnreachable,
    /// The machine does not answer, and neither does the node to the others.
    MachineSilent,
}

impl Kind {
    /// As it is written on claims, in status and Events.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Requested => "Requested",
            Kind::OutOfService => "OutOfService",
            Kind::VolumeLost => "VolumeLost",
            Kind::MachineGone => "NodeGone",
            Kind::VolumeUnreachable => "VolumeUnreachable",
            Kind::MachineSilent => "NodeNotReady",
        }
    }

    /// For how long it must last.
    pub fn grace(self, policy: &FailurePolicy) -> Span {
        match self {
            Kind::Requested | Kind::OutOfService => Span(0),
            Kind::VolumeLost | Kind::MachineGone => policy.node_gone_grace,
            Kind::VolumeUnreachable => policy.pending_volume_grace,
            Kind::MachineSilent => policy.node_not_ready_grace,
        }
    }
}

/// The strongest evidence that there is, if there is any.
pub fn evidence(observed: &Observed, instances: &Instances, instance: &Instance) -> Option<Evidence> {
    let found = |kind, message: String| Some(Evidence { kind, message, remedy: Remedy::Replace });
    let claim = instance.claim;
    if claim.is_some_and(|claim| claim.replace) {
        return found(Kind::Requested, "a person has asked for its replacement".into());
    }
    if pinned(observed, instance) == Some(false) {
        // The volume can follow the pod to another machine. Nothing is lost with a machine but the pod.
        return match volume_lost(observed, instance) {
            Some(message) => found(Kind::VolumeLost, message),
            None => pod_lost(observed, instances, instance),
        };
    }
    let name = instances.machine(instance);
    let object = instances.machine_object(instance);
    if object.is_some_and(|machine| machine.out_of_service) {
        let machine = name.unwrap_or_default();
        return found(Kind::OutOfService, format!("machine {machine} has the taint out-of-service"));
    }
    if let Some(message) = volume_lost(observed, instance) {
        return found(Kind::VolumeLost, message);
    }
    if let (Some(machines), Some(host)) = (&observed.machines, last_host(instance, name)) {
        match machines.get(&host.name) {
            None => return found(Kind::MachineGone, format!("machine {} is gone", host.name)),
            Some(machine) if is_another(&host, machine) => {
                let message = format!("machine {} is another one than before by the same name", host.name);
                return found(Kind::MachineGone, message);
            }
            Some(_) => {}
        }
    }
    if let Some(message) = unreachable(observed, instance) {
        return found(Kind::VolumeUnreachable, message);
    }
    if is_silent(object?, instance) {
        return found(Kind::MachineSilent, silent(name.unwrap_or_default()));
    }
    None
}

/// Evidence that the machine of a pod is lost whose volume can be used elsewhere. There is none while the process answers, and none that is not about the machine
/// that the pod is on *now*: when the pod is gone from there, however that came, all is done that has to be.
fn pod_lost(observed: &Observed, instances: &Instances, instance: &Instance) -> Option<Evidence> {
    let name = instance.pod?.machine.as_deref()?;
    if !instance.is_silent() {
        return None;
    }
    let found = |kind, message: String| Some(Evidence { kind, message, remedy: Remedy::Free });
    let Some(machine) = instances.machine_object(instance) else {
        observed.machines.as_ref()?;
        return found(Kind::MachineGone, format!("machine {name} is gone"));
    };
    if machine.out_of_service {
        return found(Kind::OutOfService, format!("machine {name} has the taint out-of-service"));
    }
    // Whatever is called by that name and is ready starts the pod itself.
    if !machine.ready && last_host(instance, Some(name)).is_some_and(|host| is_another(&host, machine)) {
        let message = format!("machine {name} is another one than before by the same name");
        return found(Kind::MachineGone, message);
    }
    is_silent(machine, instance).then(|| silent(name)).and_then(|message| found(Kind::MachineSilent, message))
}

/// Neither Kubernetes nor the other nodes hear anything.
fn is_silent(machine: &Machine, instance: &Instance) -> bool {
    let unheard = |node: &Node| node.health == Health::Down && others_agree(node.heard_by);
    !machine.ready && instance.node.is_some_and(|(_, node)| unheard(node))
}

fn silent(machine: &str) -> String {
    format!("machine {machine} is not ready, and the other nodes do not hear the instance")
}

/// Trouble that no replacement mends, for people.
pub fn trouble(observed: &Observed, instance: &Instance) -> Option<String> {
    let pod = instance.pod?;
    if let Some(trouble) = &pod.trouble {
        let what = match trouble.kind {
            TroubleKind::Image => "its image cannot be had",
            TroubleKind::Crash => "its container ends again and again",
            _ => return None,
        };
        return Some(format!("{}: {what}: {}", instance.name, trouble.message));
    }
    let message = pod.unschedulable.as_ref()?;
    Some(match cordoned(observed, instance) {
        Some(machine) => format!(
            "{name} waits for machine {machine}, which is cordoned and has its volume: kubectl uncordon {machine}, or, if it does not come back, \
             kubectl annotate pvc {claim} {replace}=true",
            name = instance.name,
            claim = crate::render::names::claim(instance.name),
            replace = crate::api::names::REPLACE,
        ),
        None => format!("{} cannot be placed: {message}", instance.name),
    })
}

/// Where it was last: what is written on the claim, and, before that was written, where the pod is.
fn last_host(instance: &Instance, name: Option<&str>) -> Option<Host> {
    let noted = instance.claim.and_then(|claim| claim.host.clone());
    match (noted, name) {
        (Some(host), Some(name)) if host.name == name => Some(host),
        (_, Some(name)) => Some(Host { name: name.into(), ..Host::default() }),
        (noted, None) => noted,
    }
}

/// A machine that has come back under a new Node object is the same machine; one that was set up anew is not.
fn is_another(host: &Host, machine: &Machine) -> bool {
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    if host.machine.is_empty() || machine.machine.is_empty() {
        differ(&host.uid, &machine.uid)
    } else {
        host.machine != machine.machine
    }
}

/// Whether the volume of an instance can be used on some machines only. `None`: that is not known.
pub fn pinned(observed: &Observed, instance: &Instance) -> Option<bool> {
    let Some((label, values)) = &volume(observed, instance)?.pinned else { return Some(false) };
    // A label that several machines share is that of a place, whatever it is called: the volume follows the pod within it.
    let of_machines = observed.machines.iter().flat_map(BTreeMap::values);
    let labelled = of_machines.filter_map(|machine| machine.labels.get(label));
    let there = labelled.filter(|value| values.contains(*value)).count();
    Some(there <= values.len())
}

/// The volume of an instance, as far as it is known.
pub fn volume<'a>(observed: &'a Observed, instance: &Instance) -> Option<&'a Volume> {
    observed.volumes.as_ref()?.get(instance.claim?.volume.as_ref()?)
}

fn volume_lost(observed: &Observed, instance: &Instance) -> Option<String> {
    let Some(claim) = instance.claim else {
        return Some("its claim is gone".into());
    };
    if claim.deleting {
        return Some("its claim is being deleted".into());
    }
    if claim.phase == ClaimPhase::Lost {
        return Some("its claim has lost its volume".into());
    }
    if let (Some(volumes), Some(volume)) = (&observed.volumes, &claim.volume) {
        match volumes.get(volume) {
            None => return Some(format!("its volume {volume} is gone")),
            Some(found) if found.failed => return Some(format!("its volume {volume} has failed")),
            Some(_) => {}
        }
    }
    let pod = instance.pod?;
    if claim.node_id.is_some() && pod.answer == Some(Answer::Waiting) {
        return Some("its volume is empty: it was a node of a database, and waits for one".into());
    }
    let trouble = pod.trouble.as_ref()?;
    let what = match trouble.kind {
        TroubleKind::Wiped => "its volume is empty",
        TroubleKind::Foreign => "its volume has the data of another node",
        TroubleKind::DiskFailed => "its disk fails",
        TroubleKind::Removed | TroubleKind::Image | TroubleKind::Crash => return None,
    };
    Some(format!("{what}: {}", trouble.message))
}

/// The machine that has the volume of an instance, if nothing new is to run there.
fn cordoned<'a>(observed: &'a Observed, instance: &Instance) -> Option<&'a str> {
    pinned(observed, instance).filter(|is_pinned| *is_pinned)?;
    let (label, values) = volume(observed, instance)?.pinned.as_ref()?;
    let has_it = |machine: &Machine| machine.labels.get(label).is_some_and(|value| values.contains(value));
    let (name, machine) = observed.machines.as_ref()?.iter().find(|(_, machine)| has_it(machine))?;
    machine.cordoned.then_some(name.as_str())
}

fn unreachable(observed: &Observed, instance: &Instance) -> Option<String> {
    let pod = instance.pod?;
    pod.unschedulable.as_ref()?;
    let (label, values) = volume(observed, instance)?.pinned.as_ref()?;
    let machines = observed.machines.as_ref()?;
    let reachable = machines
        .values()
        .any(|machine| machine.labels.get(label).is_some_and(|value| values.contains(value)));
    (!reachable).then(|| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        format!("its volume is on machine {}, which does not exist", values.join(", "))
    })
}

/// At least half of the live others do not hear it. Unknown is no.
fn others_agree(heard_by: Option<(u32, u32)>) -> bool {
    heard_by.is_some_and(|(hear, of)| of > 0 && 2 * hear < of)
}
