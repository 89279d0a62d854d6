//! From Kubernetes' objects to what a plan knows of them.

use crate::api::names;
use crate::plan::{
    Claim, ClaimPhase, Contents, Host, Leaving, Machine, Ms, Pod, Replaces, Suspect, Trouble, TroubleKind,
    bytes,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The taint of a machine that is off for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

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
        version: object.metadata.resource_version.clone().unwrap_or_default(),
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
        contents: match note(names::CLUSTER_ID) {
            None => Contents::Unknown,
            Some(none) if none == names::NO_CLUSTER => Contents::Nothing,
            Some(id) => Contents::Of(id),
        },
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
        allocatable: status.and_then(|status| status.allocatable.clone()).unwrap_or_default(),
    };
    Some((object.name_any(), machine))
}

/// RFC 3339 to milliseconds.
pub fn instant(text: &str) -> Option<Ms> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn at(text: &str) -> Ms {
        instant(text).unwrap()
    }

    fn labels() -> Value {
        json!({ "sarsen.dev/cluster": "metrics", "sarsen.dev/group": "a", "sarsen.dev/instance": "metrics-a-1", "sarsen.dev/spec-hash": "0123456789ab" })
    }

    #[test]
    fn every_field_of_a_claim_is_read() {
        let object = of(json!({
            "metadata": {
                "name": "data-metrics-a-1", "namespace": "db", "uid": "claim-1", "resourceVersion": "77", "labels": labels(),
                "deletionTimestamp": "2026-01-01T00:00:09Z",
                "annotations": {
                    "sarsen.dev/replaces": "metrics-a-0",
                    "sarsen.dev/replaces-reason": "NodeGone",
                    "sarsen.dev/replaces-since": "2026-01-01T00:00:01.5Z",
                    "sarsen.dev/suspect-since": "2026-01-01T00:00:02Z",
                    "sarsen.dev/suspect-reason": "VolumeLost",
                    "sarsen.dev/leaving": "abandoned",
                    "sarsen.dev/retired-since": "2026-01-01T00:00:03Z",
                    "sarsen.dev/node-id": "ab12",
                    "sarsen.dev/cluster-id": "cd34",
                    "sarsen.dev/creates-cluster": "true",
                    "sarsen.dev/host": "machine-1",
                    "sarsen.dev/host-uid": "machine-uid",
                    "sarsen.dev/host-machine-id": "0f0f",
                    "sarsen.dev/replace": "true",
                },
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeName": "pv-1", "storageClassName": "local",
                "resources": { "requests": { "storage": "10Gi" } },
            },
            "status": { "phase": "Bound", "capacity": { "storage": "20Gi" } },
        }));
        let wanted = Claim {
            uid: "claim-1".into(),
            group: "a".into(),
            phase: ClaimPhase::Bound,
            version: "77".into(),
            volume: Some("pv-1".into()),
            class: Some("local".into()),
            requested: 10 << 30,
            capacity: 20 << 30,
            deleting: true,
            replaces: Some(Replaces {
                old: "metrics-a-0".into(),
                why: "NodeGone".into(),
                since: at("2026-01-01T00:00:01.5Z"),
            }),
            suspect: Some(Suspect { since: at("2026-01-01T00:00:02Z"), why: "VolumeLost".into() }),
            leaving: Some(Leaving::Abandoned),
            retired: Some(at("2026-01-01T00:00:03Z")),
            node_id: Some("ab12".into()),
            contents: Contents::Of("cd34".into()),
            creates: true,
            replace: true,
            host: Some(Host { name: "machine-1".into(), uid: "machine-uid".into(), machine: "0f0f".into() }),
        };
        assert_eq!(claim(&object), Some(("metrics-a-1".into(), wanted)));
    }

    #[test]
    fn what_is_not_on_a_claim_is_nothing_and_what_is_none_of_ours_is_none() {
        let mut object =
            json!({ "metadata": { "name": "x", "uid": "claim-1", "labels": labels() }, "spec": {} });
        let wanted = Claim { uid: "claim-1".into(), group: "a".into(), ..Claim::default() };
        assert_eq!(claim(&of(object.clone())).unwrap().1, wanted);
        for (note, value) in
            [("replace", "false"), ("replace", ""), ("suspect-reason", "NodeGone"), ("retired-since", "soon")]
        {
            object["metadata"]["annotations"] = json!({ format!("sarsen.dev/{note}"): value });
            assert_eq!(claim(&of(object.clone())).unwrap().1, wanted, "{note}");
        }
        // A word that we do not know is never a reason to delete something.
        object["metadata"]["annotations"] = json!({ "sarsen.dev/leaving": "whatever" });
        assert_eq!(claim(&of(object.clone())).unwrap().1.leaving, Some(Leaving::ScaleIn));
        object["status"] = json!({ "phase": "Lost" });
        assert_eq!(claim(&of(object.clone())).unwrap().1.phase, ClaimPhase::Lost);
        object["metadata"]["labels"] = json!({ "sarsen.dev/cluster": "metrics" });
        assert_eq!(claim(&of(object)), None);
    }

    /// A pod that is ready.
    fn ready() -> Value {
        let is = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z" });
        json!({
            "metadata": { "name": "metrics-a-1", "uid": "pod-1", "labels": labels(), "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": "machine-1", "containers": [{ "name": "sarsen" }] },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [is("PodScheduled"), is("ContainersReady"), is("sarsen.dev/shards-available"), is("Ready")],
                "containerStatuses": [
                    { "name": "proxy", "ready": false, "image": "", "imageID": "", "restartCount": 9, "state": { "terminated": { "exitCode": 10 } } },
                    { "name": "sarsen", "ready": true, "image": "sarsen:1", "imageID": "", "restartCount": 0, "state": { "running": {} } },
                ],
            },
        })
    }

    #[test]
    fn every_field_of_a_pod_is_read() {
        let wanted = Pod {
            uid: "pod-1".into(),
            group: "a".into(),
            hash: "0123456789ab".into(),
            created: at("2026-01-01T00:00:00Z"),
            machine: Some("machine-1".into()),
            unschedulable: None,
            ip: Some("10.0.0.1".into()),
            containers_ready: true,
            ready: Some(at("2026-01-01T00:01:00Z")),
            gate: Some(true),
            deleting: false,
            trouble: None,
            answer: None,
        };
        assert_eq!(pod(&of(ready())), Some(("metrics-a-1".into(), wanted)));
        let mut other = ready();
        other["metadata"]["labels"] = json!({ "app": "other" });
        assert_eq!(pod(&of(other)), None);
    }

    #[test]
    fn a_pod_that_waits_for_a_machine_says_why_and_only_if_there_is_none_for_it() {
        let waits = |reason: &str| {
            let mut object = ready();
            object["spec"].as_object_mut().unwrap().remove("nodeName");
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:02:00Z");
            object["status"] = json!({ "phase": "Pending", "conditions": [
                { "type": "PodScheduled", "status": "False", "reason": reason, "message": "0/3 nodes are available" },
            ] });
            pod(&of(object)).unwrap().1
        };
        let pod = waits("Unschedulable");
        assert_eq!(pod.unschedulable.as_deref(), Some("0/3 nodes are available"));
        assert_eq!((pod.machine, pod.ip, pod.ready, pod.gate), (None, None, None, None));
        assert!(pod.deleting && !pod.containers_ready);
        assert_eq!(waits("SchedulingGated").unschedulable, None);
    }

    /// The trouble of a pod whose container is in this state, and was in the other.
    fn troubled(state: Value, last: Value) -> Option<Trouble> {
        let mut object = ready();
        let container = &mut object["status"]["containerStatuses"][1];
        (container["ready"], container["state"], container["lastState"]) = (json!(false), state, last);
        pod(&of(object)).unwrap().1.trouble
    }

    fn ended(code: i32) -> Value {
        let message = "starting\nerror: the directory is not what it was; put it back\n";
        json!({ "terminated": { "exitCode": code, "message": message } })
    }

    #[test]
    fn exit_codes_are_read_as_the_database_means_them() {
        for (code, kind) in [
            (1, TroubleKind::Crash),
            (2, TroubleKind::Crash),
            (10, TroubleKind::Wiped),
            (11, TroubleKind::Foreign),
            (12, TroubleKind::Foreign),
            (13, TroubleKind::Crash),
            (14, TroubleKind::Removed),
            (15, TroubleKind::Crash),
            (16, TroubleKind::DiskFailed),
            (137, TroubleKind::Crash),
        ] {
            let message = format!("exit code {code}: error: the directory is not what it was; put it back");
            assert_eq!(troubled(ended(code), json!({})), Some(Trouble { kind, message }));
        }
        assert_eq!(troubled(ended(0), json!({})), None);
    }

    #[test]
    fn between_two_attempts_the_reason_is_that_of_the_last_one() {
        let back_off = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container" } });
        let kind = |trouble: Option<Trouble>| trouble.map(|trouble| trouble.kind);
        assert_eq!(kind(troubled(back_off.clone(), ended(10))), Some(TroubleKind::Wiped));
        // The next attempt is under way.
        assert_eq!(kind(troubled(json!({ "running": {} }), ended(16))), Some(TroubleKind::DiskFailed));
        assert_eq!(troubled(back_off, json!({})), None);
        // And has succeeded.
        let mut object = ready();
        object["status"]["containerStatuses"][1]["lastState"] = ended(10);
        assert_eq!(pod(&of(object)).unwrap().1.trouble, None);
    }

    #[test]
    fn an_image_that_cannot_be_had_is_no_crash() {
        let waits = |reason: &str| json!({ "waiting": { "reason": reason, "message": "no such image" } });
        for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"] {
            let message = format!("{reason}: no such image");
            let wanted = Some(Trouble { kind: TroubleKind::Image, message });
            assert_eq!(troubled(waits(reason), ended(10)), wanted);
        }
        assert_eq!(troubled(waits("ContainerCreating"), json!({})), None);
    }

    #[test]
    fn a_machine_is_read_with_what_people_have_said_of_it() {
        let object = |taint: &str, ready: &str| {
            of(json!({
                "metadata": { "name": "machine-1", "uid": "machine-uid", "labels": { "topology.kubernetes.io/zone": "eu-1a" } },
                "spec": { "unschedulable": true, "taints": [{ "key": taint, "effect": "NoExecute" }] },
                "status": {
                    "conditions": [{ "type": "MemoryPressure", "status": "True" }, { "type": "Ready", "status": ready }],
                    "allocatable": { "memory": "8Gi" },
                    "nodeInfo": {
                        "machineID": "0f0f", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
                        "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "", "architecture": "",
                    },
                },
            }))
        };
        let wanted = Machine {
            uid: "machine-uid".into(),
            machine: "0f0f".into(),
            labels: [("topology.kubernetes.io/zone".to_owned(), "eu-1a".to_owned())].into(),
            ready: true,
            out_of_service: true,
            cordoned: true,
            allocatable: [("memory".to_owned(), Quantity("8Gi".into()))].into(),
        };
        let read = machine(&object("node.kubernetes.io/out-of-service", "True"));
        assert_eq!(read, Some(("machine-1".into(), wanted)));
        let away = machine(&object("node.kubernetes.io/unreachable", "Unknown")).unwrap().1;
        assert!(!away.ready && !away.out_of_service);
        let new = of(json!({ "metadata": { "name": "machine-2", "uid": "2" } }));
        assert_eq!(machine(&new).unwrap().1, Machine { uid: "2".into(), ..Machine::default() });
    }
}
