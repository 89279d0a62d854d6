//! The status of a pod as its kubelet reports it.

use super::record::{Container, End, Record};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// The kinds of conditions that a kubelet writes; all others are somebody else's.
const OWN: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// What to send, or nothing when the API server knows it.
pub fn report(record: &Record, host_ip: &str, clock: Timestamp) -> Option<Value> {
    let status = status(record, host_ip, clock);
    let is_sent = record.sent.as_ref() == Some(&status);
    (!is_sent || !is_known(&record.pod, &status)).then_some(status)
}

/// Whether the conditions of the pod are those of the status: a controller may have changed them in between.
fn is_known(pod: &Pod, status: &Value) -> bool {
    status["conditions"].as_array().into_iter().flatten().all(|wanted| {
        condition(pod, wanted["type"].as_str().unwrap_or_default())
            .is_some_and(|known| wanted["status"] == known.status)
    })
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn status(record: &Record, host_ip: &str, clock: Timestamp) -> Value {
    let specs = record.specs();
    let unready: Vec<&str> = specs
        .iter()
        .filter(|spec| !record.containers.get(&spec.name).is_some_and(|container| container.is_ready))
        .map(|spec| spec.name.as_str())
        .collect();
    let containers: Vec<Value> = specs
        .iter()
        .filter_map(|spec| Some((spec, record.containers.get(&spec.name)?)))
        .map(|(spec, container)| {
            let image = spec.image.as_deref().unwrap_or_default();
            json!({
                "name": spec.name, "image": image, "imageID": if container.process.is_some() { image } else { "" },
                "ready": container.is_ready, "started": container.is_started, "restartCount": container.restarts,
                "state": state(container, record.trouble.as_ref()),
                "lastState": container.last.as_ref().map_or(json!({}), |end| json!({"terminated": terminated(end)})),
            })
        })
        .collect();
    let phase = phase(record);
    let is_over = ["Succeeded", "Failed"].contains(&phase);
    let containers_ready = match unready.as_slice() {
        _ if is_over => (false, "PodCompleted", String::new()),
        [] => (true, "", String::new()),
        names => {
            (false, "ContainersNotReady", format!("containers with unready status: [{}]", names.join(" ")))
        }
    };
    let gate = closed_gate(&record.pod);
    let ready = match (&containers_ready, gate) {
        ((false, reason, message), _) => (false, *reason, message.clone()),
        (_, Some(why)) => (false, "ReadinessGatesNotReady", why),
        _ => (true, "", String::new()),
    };
    let conditions = [
        (OWN[0], (record.sandbox.is_some(), "", String::new())),
        (OWN[1], (true, "", String::new())),
        (OWN[2], containers_ready),
        (OWN[3], ready),
    ];
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, (is_true, reason, message))| {
            let status = if is_true { "True" } else { "False" };
            let mut value = json!({"type": kind, "status": status, "lastTransitionTime": since(record, kind, status, clock)});
            // Null, and not left out: what stood there before is to go.
            value["reason"] = if reason.is_empty() { Value::Null } else { json!(reason) };
            value["message"] = if message.is_empty() { Value::Null } else { json!(message) };
            value
        })
        .collect();
    let mut status = json!({
        "phase": phase, "conditions": conditions, "containerStatuses": containers,
        "hostIP": host_ip, "hostIPs": [{"ip": host_ip}], "qosClass": "Burstable",
    });
    if let Some(sandbox) = &record.sandbox {
        status["podIP"] = json!(sandbox.ip);
        status["podIPs"] = json!([{"ip": sandbox.ip}]);
    }
    let started = record.sent.as_ref().map(|sent| sent["startTime"].clone()).filter(|time| !time.is_null());
    status["startTime"] = started.unwrap_or_else(|| json!(second(clock)));
    status
}

fn phase(record: &Record) -> &'static str {
    let policy = record.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let ends: Vec<&End> = record.containers.values().filter_map(|container| container.end.as_ref()).collect();
    let is_ended = !record.is_running() && ends.len() == record.containers.len() && !ends.is_empty();
    let is_final = policy == "Never" || record.ending.is_some();
    if is_ended && (is_final || policy == "OnFailure") {
        match ends.iter().all(|end| end.code == 0) {
            true => return "Succeeded",
            false if is_final => return "Failed",
            false => {}
        }
    }
    let is_begun = |container: &Container| {
        container.process.is_some() || container.end.is_some() || container.last.is_some()
    };
    if record.containers.values().all(is_begun) { "Running" } else { "Pending" }
}

fn state(container: &Container, trouble: Option<&(String, String)>) -> Value {
    if let Some(process) = &container.process {
        return json!({"running": {"startedAt": second(process.started)}});
    }
    let waiting = container.waiting.as_ref().or(trouble);
    match (waiting, &container.end) {
        (Some((reason, message)), _) => json!({"waiting": {"reason": reason, "message": message}}),
        (None, Some(end)) => json!({"terminated": terminated(end)}),
        (None, None) => json!({"waiting": {"reason": "ContainerCreating"}}),
    }
}

fn terminated(end: &End) -> Value {
    let mut value = json!({"exitCode": end.code, "reason": end.reason,
        "startedAt": second(end.started), "finishedAt": second(end.finished)});
    if !end.message.is_empty() {
        value["message"] = json!(end.message);
    }
    value
}

/// Why a readiness gate keeps the pod from being ready.
fn closed_gate(pod: &Pod) -> Option<String> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_deref()?;
    gates.iter().find_map(|gate| {
        let kind = &gate.condition_type;
        match condition(pod, kind) {
            None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(known) if known.status != "True" => Some(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                known.status
            )),
            Some(_) => None,
        }
    })
}

/// Since when a condition has this status: as it was sent, or as the API server has it.
fn since(record: &Record, kind: &str, status: &str, clock: Timestamp) -> String {
    let sent = record.sent.as_ref().and_then(|sent| {
        sent["conditions"].as_array()?.iter().find(|known| known["type"] == kind && known["status"] == status)
    });
    let sent = sent.and_then(|known| known["lastTransitionTime"].as_str().map(String::from));
    let known = || {
        let known = condition(&record.pod, kind).filter(|known| known.status == status)?;
        Some(second(known.last_transition_time.as_ref()?.0))
    };
    sent.or_else(known).unwrap_or_else(|| second(clock))
}

/// A time as Kubernetes writes it: without parts of a second.
pub fn second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    fn clock() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().expect("a time")
    }

    fn record() -> Record {
        Record::new(
            from_value(json!({"metadata": {"name": "one"}, "spec": {
                "readinessGates": [{"conditionType": "gate"}], "containers": [{"name": "c", "image": "i"}]}}))
            .expect("a pod"),
        )
    }

    fn ready(status: &Value) -> (&str, &str) {
        let ready = status["conditions"].as_array().expect("conditions").last().expect("Ready");
        (ready["status"].as_str().expect("text"), ready["message"].as_str().unwrap_or_default())
    }

    fn end(code: i32) -> End {
        End { code, reason: "Error".into(), message: "why".into(), started: clock(), finished: clock() }
    }

    #[test]
    fn a_pod_is_ready_when_its_containers_are_and_its_gates_are_open() {
        let mut record = record();
        let first = status(&record, "10.0.0.1", clock());
        assert_eq!(first["phase"], "Pending");
        assert_eq!(first["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
        assert_eq!(ready(&first), ("False", "containers with unready status: [c]"));
        record.containers.get_mut("c").expect("c").is_ready = true;
        let closed = status(&record, "10.0.0.1", clock());
        assert_eq!(
            ready(&closed).1,
            "corresponding condition of pod readiness gate \"gate\" does not exist."
        );
        let conditions = json!({"conditions": [{"type": "gate", "status": "False"}]});
        record.pod.status = Some(from_value(conditions).expect("a status"));
        assert_eq!(
            ready(&status(&record, "", clock())).1,
            "the status of pod readiness gate \"gate\" is not \"True\", but False"
        );
        record.pod.status =
            Some(from_value(json!({"conditions": [{"type": "gate", "status": "True"}]})).expect("a status"));
        assert_eq!(ready(&status(&record, "", clock())).0, "True");
    }

    #[test]
    fn the_last_end_stays_visible_while_a_container_waits_for_its_next_start() {
        let mut record = record();
        let container = record.containers.get_mut("c").expect("c");
        container.last = Some(end(3));
        container.waiting = Some(("CrashLoopBackOff".into(), "back-off".into()));
        let status = status(&record, "", clock());
        let container = &status["containerStatuses"][0];
        assert_eq!(status["phase"], "Running");
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(container["lastState"]["terminated"]["message"], "why");
    }

    #[test]
    fn nothing_is_sent_twice_unless_somebody_changed_it() {
        let mut record = record();
        let sent = report(&record, "", clock()).expect("never sent");
        record.sent = Some(sent.clone());
        record.pod.status = Some(from_value(sent).expect("a status"));
        assert_eq!(report(&record, "", "2026-01-02T00:00:00Z".parse().expect("a time")), None);
        let conditions =
            record.pod.status.as_mut().expect("a status").conditions.as_mut().expect("conditions");
        conditions.iter_mut().find(|known| known.type_ == "Initialized").expect("one").status =
            "False".into();
        assert!(report(&record, "", clock()).is_some());
    }
}
