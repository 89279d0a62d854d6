//! What each disruption budget allows now.
//!
//! A budget as a number of pods that must be there counts pods. One as a share, or as a number that may be missing, needs to know how many
//! there should be, which only a controller with a scale could say: pods of anybody else are then never evicted.

use super::object::{self, items, text};
use super::selector::Selector;
use super::state::{Call, State};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// How long a pod counts as evicted whose deletion nobody has seen.
const DISRUPTED: SignedDuration = SignedDuration::from_secs(120);

/// Writes the status of the budgets whose status is no longer so. Says whether there was one.
pub fn observe(state: &mut State, now: Timestamp) -> bool {
    let budgets: Vec<Arc<Value>> = state.store.list("poddisruptionbudgets.policy", "").cloned().collect();
    let mut any = false;
    for budget in budgets.into_iter().filter(|budget| !object::is_deleting(budget)) {
        let status = status(state, &budget, now);
        if budget.get("status") == Some(&status) {
            continue;
        }
        let mut new = (*budget).clone();
        new["status"] = status;
        let kind = state.kinds.known("policy", "poddisruptionbudgets").clone();
        let call = Call {
            subresource: "status".into(),
            now,
            ..Call::own(&kind, &budget, "kube-controller-manager")
        };
        any |= state.write(&call, &budget, new, false).is_ok();
    }
    any
}

fn status(state: &State, budget: &Value, now: Timestamp) -> Value {
    let selector = Selector::from_object(budget.pointer("/spec/selector"));
    let selects = |pod: &&Arc<Value>| selector.as_ref().is_some_and(|selector| selector.matches(pod));
    let pods: Vec<&Arc<Value>> =
        state.store.list("pods", object::namespace(budget)).filter(selects).collect();
    let disrupted: Map<String, Value> = budget
        .pointer("/status/disruptedPods")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(name, at)| {
            let is_there =
                pods.iter().any(|pod| object::name(pod) == name.as_str() && !object::is_deleting(pod));
            let at: Option<Timestamp> = at.as_str().and_then(|at| at.parse().ok());
            is_there && at.is_some_and(|at| now.duration_since(at) < DISRUPTED)
        })
        .map(|(name, at)| (name.clone(), at.clone()))
        .collect();
    let is_healthy = |pod: &&&Arc<Value>| {
        let is_ready = items(pod, "/status/conditions")
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        is_ready && !object::is_deleting(pod) && !disrupted.contains_key(object::name(pod))
    };
    let healthy = pods.iter().filter(is_healthy).count() as i64;
    let desired = budget.pointer("/spec/minAvailable").and_then(Value::as_i64);
    let (desired, allowed) = match desired {
        Some(desired) if !pods.is_empty() => (desired, (healthy - desired).max(0)),
        Some(desired) => (desired, 0),
        None => (0, 0),
    };
    let (reason, message) =
        match (desired > 0 || budget.pointer("/spec/minAvailable").is_some_and(Value::is_i64), allowed) {
            (false, _) if !pods.is_empty() => (
                "SyncFailed",
                "found no controllers for the pods, whose scale would say how many there should be",
            ),
            (_, 0) => ("InsufficientPods", ""),
            _ => ("SufficientPods", ""),
        };
    let is_allowed = if allowed > 0 { "True" } else { "False" };
    let before =
        items(budget, "/status/conditions").find(|condition| condition["type"] == "DisruptionAllowed");
    let since = before
        .filter(|before| before["status"] == is_allowed)
        .map(|before| text(before, "/lastTransitionTime").to_owned());
    let generation = budget["metadata"]["generation"].clone();
    let mut status = json!({
        "expectedPods": pods.len(), "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed,
        "observedGeneration": generation,
        "conditions": [{
            "type": "DisruptionAllowed", "status": is_allowed, "reason": reason, "message": message,
            "observedGeneration": generation, "lastTransitionTime": since.unwrap_or_else(|| object::time(now)),
        }],
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = disrupted.into();
    }
    status
}
