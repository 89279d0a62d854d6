//! From Kubernetes' objects to what a plan knows of them.

use crate::api::names;
use crate::plan::{
    Claim, ClaimPhase, Class, Host, Leaving, Machine, Ms, Pod, Replaces, Suspect, Trouble, TroubleKind,
    Volume, bytes,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// The taint of a machine that is off for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// On the storage class that is taken where none is named.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A claim of ours, with the instance that it makes.
pub fn claim(object: &core::PersistentVolumeClaim) -> Option<(String, Claim)> {
    let (labels, notes) = (object.labels(), object.annotations());
    let note = |name: &str| notes.get(name).filter(|text| !text.is_empty()).cloned();
    let (spec, status) = (object.spec.as_ref()?, object.status.as_ref());
    let size = |sizes: Option<&BTreeMap<String, Quantity>>| sizes?.get("storage").and_then(bytes);
    let claim = Claim {
        uid: object.uid()?,
        group: labels.get(names::GROUP)?.clone(),
        phase: match status.and_then(|status| status.phase.as_deref()) {
            Some("Bound") => ClaimPhase::Bound,
            Some("Lost") => ClaimPhase::Lost,
            _ => ClaimPhase::Pending,
        },
        volume: spec.volume_name.clone().filter(|name| !name.is_empty()),
        class: spec.storage_class_name.clone(),
        requested: size(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
            .unwrap_or(0),
        capacity: size(status.and_then(|status| status.capacity.as_ref())).unwrap_or(0),
        deleting: object.metadata.deletion_timestamp.is_some(),
        replaces: note(names::REPLACES).map(|old| Replaces {
            old,
            why: note(names::REPLACES_WHY).unwrap_or_default(),
            since: note(names::REPLACES_SINCE).and_then(|text| instant(&text)).unwrap_or(0),
        }),
        suspect: note(names::SUSPECT_WHY)
            .and_then(|why| Some(Suspect { since: instant(&note(names::SUSPECT_SINCE)?)?, why })),
        leaving: note(names::LEAVING).map(|why| match why == Leaving::Abandoned.word() {
            true => Leaving::Abandoned,
            // What somebody else has written is never a reason to delete.
            false => Leaving::ScaleIn,
        }),
        retired: note(names::RETIRED).and_then(|text| instant(&text)),
        node_id: note(names::NODE_ID),
        cluster_id: note(names::CLUSTER_ID),
        creates: note(names::CREATES).is_some(),
        replace: note(names::REPLACE).is_some_and(|text| text != "false"),
        host: note(names::HOST).map(|name| Host {
            name,
            uid: note(names::HOST_UID).unwrap_or_default(),
            machine: note(names::HOST_MACHINE).unwrap_or_default(),
        }),
    };
    Some((labels.get(names::INSTANCE)?.clone(), claim))
}

/// A pod of ours, with its instance.
pub fn pod(object: &core::Pod) -> Option<(String, Pod)> {
    let labels = object.labels();
    let (spec, status) = (object.spec.as_ref()?, object.status.as_ref());
    let condition = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
    };
    let is = |kind: &str| condition(kind).is_some_and(|condition| condition.status == "True");
    let scheduled = condition("PodScheduled").filter(|condition| condition.status == "False");
    let unschedulable = scheduled.filter(|condition| condition.reason.as_deref() == Some("Unschedulable"));
    let ready = condition("Ready").filter(|condition| condition.status == "True");
    let pod = Pod {
        uid: object.uid()?,
        group: labels.get(names::GROUP)?.clone(),
        hash: labels.get(names::SPEC_HASH).cloned().unwrap_or_default(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_millisecond()),
        machine: spec.node_name.clone().filter(|name| !name.is_empty()),
        unschedulable: unschedulable.map(|condition| condition.message.clone().unwrap_or_default()),
        ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
        containers_ready: is("ContainersReady"),
        ready: ready.map(|condition| {
            condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_millisecond())
        }),
        gate: condition(names::GATE).map(|condition| condition.status == "True"),
        deleting: object.metadata.deletion_timestamp.is_some(),
        trouble: status.and_then(trouble),
        answer: None,
    };
    Some((labels.get(names::INSTANCE)?.clone(), pod))
}

/// Why a container does not run: what it says in waiting, and how it ended last.
fn trouble(status: &core::PodStatus) -> Option<Trouble> {
    let container = status.container_statuses.as_ref()?.iter().find(|status| status.name == "sarsen")?;
    let (state, last) = (container.state.as_ref(), container.last_state.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") {
            let message = format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default());
            return Some(Trouble { kind: TroubleKind::Image, message });
        }
    }
    // One that runs again has got over it when it is ready.
    let last = last.and_then(|last| last.terminated.as_ref()).filter(|_| !container.ready);
    let ended = ended.or(last)?;
    let kind = match ended.exit_code {
        0 => return None,
        code => exit(code),
    };
    let said = ended.message.as_deref().unwrap_or_default().trim();
    // The last line is the reason.
    let message = said.lines().last().unwrap_or_default();
    let message = format!("exit code {}: {message}", ended.exit_code);
    Some(Trouble { kind, message })
}

/// What the exit codes of `sarsen server` mean (docs/operations/cluster.md).
fn exit(code: i32) -> TroubleKind {
    match code {
        10 => TroubleKind::Wiped,
        // Another's data, or an old copy of its own: the right volume is not there.
        11 | 12 => TroubleKind::Foreign,
        14 => TroubleKind::Removed,
        16 => TroubleKind::DiskFailed,
        // A wrong token, or two of them on copies of one volume (13, 15), are a person's to put right: data made anew elsewhere would mend nothing.
        _ => TroubleKind::Crash,
    }
}

/// A machine.
pub fn machine(object: &core::Node) -> Option<(String, Machine)> {
    let (spec, status) = (object.spec.as_ref(), object.status.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    let machine = Machine {
        uid: object.uid()?,
        machine: status
            .and_then(|status| status.node_info.as_ref())
            .map(|info| info.machine_id.clone())
            .unwrap_or_default(),
        labels: object.labels().clone(),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        out_of_service: taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE),
        cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
    };
    Some((object.name_any(), machine))
}

/// A volume.
pub fn volume(object: &core::PersistentVolume) -> (String, Volume) {
    let affinity = object.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity
        .and_then(|affinity| affinity.required.as_ref())
        .map(|required| &required.node_selector_terms);
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = Volume { failed: phase == Some("Failed"), pinned: terms.and_then(|terms| pinned(terms)) };
    (object.name_any(), volume)
}

/// A volume of a machine names it by a label that only it has. One that merely says its zone follows the pod within it.
fn pinned(terms: &[core::NodeSelectorTerm]) -> Option<(String, BTreeSet<String>)> {
    let requirements = terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let of_a_machine = |label: &str| {
        !label.contains("topology.kubernetes.io/")
            && !label.contains("failure-domain.")
            && !label.ends_with("/zone")
            && !label.ends_with("/region")
    };
    let mut found: Option<(String, BTreeSet<String>)> = None;
    for requirement in
        requirements.filter(|requirement| requirement.operator == "In" && of_a_machine(&requirement.key))
    {
        let values = requirement.values.iter().flatten().cloned();
        match &mut found {
            Some((key, known)) if *key == requirement.key => known.extend(values),
            Some(_) => {}
            None => found = Some((requirement.key.clone(), values.collect())),
        }
    }
    found
}

/// A storage class.
pub fn class(object: &StorageClass) -> (String, Class) {
    let class = Class {
        expands: object.allow_volume_expansion.unwrap_or(false),
        is_default: object.annotations().get(DEFAULT_CLASS).is_some_and(|text| text == "true"),
    };
    (object.name_any(), class)
}

/// RFC 3339 to milliseconds.
pub fn instant(text: &str) -> Option<Ms> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}
