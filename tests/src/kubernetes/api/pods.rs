//! What only pods have: binding to a node, and eviction, which asks the disruption budgets.

use super::delete::Options;
use super::failure::Failure;
use super::object::{self, items, text};
use super::selector::Selector;
use super::state::{Call, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// Says which node the pod is to run on, once and for all.
pub fn bind(state: &mut State, call: &Call, binding: &Value) -> Result<Value, Failure> {
    let old = state.get(call)?.clone();
    let node = text(binding, "/target/name");
    if node.is_empty() {
        return Err(Failure::bad_request("a binding needs target.name, the name of the node"));
    }
    let uid = object::uid(binding);
    if !uid.is_empty() && uid != object::uid(&old) {
        return Err(Failure::conflict(
            &call.kind,
            &call.name,
            "the pod has another uid than the binding says",
        ));
    }
    if object::is_deleting(&old) {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", call.name);
        return Err(Failure::conflict(&call.kind, &call.name, &why));
    }
    let bound = text(&old, "/spec/nodeName");
    if !bound.is_empty() {
        let why = format!("pod {} is already assigned to node {bound:?}", call.name);
        return Err(Failure::conflict(&call.kind, &call.name, &why));
    }
    let mut new = (*old).clone();
    new["spec"]["nodeName"] = node.into();
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::time(call.now)});
    let conditions = object::map(&mut new["status"]).entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(scheduled);
    }
    state.put(call, new);
    Ok(success())
}

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// Deletes a pod if its disruption budget allows it.
pub fn evict(state: &mut State, call: &Call, eviction: &Value) -> Result<Value, Failure> {
    let pod = state.get(call)?.clone();
    let options = Options::parse(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    let is_over = matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending");
    if !is_over && !object::is_deleting(&pod) {
        ask_budgets(state, call, &pod)?;
    }
    state.delete(call, &options)?;
    Ok(success())
}

fn ask_budgets(state: &mut State, call: &Call, pod: &Arc<Value>) -> Result<(), Failure> {
    let budgets: Vec<Arc<Value>> = state
        .store
        .list("poddisruptionbudgets.policy", &call.namespace)
        .filter(|budget| {
            Selector::from_object(budget.pointer("/spec/selector"))
                .is_some_and(|selector| selector.matches(pod))
        })
        .cloned()
        .collect();
    let [budget] = budgets.as_slice() else {
        return match budgets.len() {
            0 => Ok(()),
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                Err(Failure::new(500, "InternalError", why))
            }
        };
    };
    let name = object::name(budget);
    let number = |pointer| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let is_healthy = items(pod, "/status/conditions")
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if !is_healthy {
        // A pod that serves nobody is not what the budget protects.
        let is_enough = number("/status/currentHealthy") >= number("/status/desiredHealthy")
            && number("/status/desiredHealthy") > 0;
        if text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow" || is_enough {
            return Ok(());
        }
    }
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Err(Failure::disruption_budget(name, "is still being processed by the server."));
    }
    if number("/status/disruptionsAllowed") <= 0 {
        let why = format!(
            "needs {} healthy pods and has {} currently",
            number("/status/desiredHealthy"),
            number("/status/currentHealthy")
        );
        return Err(Failure::disruption_budget(name, &why));
    }
    let mut new = (**budget).clone();
    let left = number("/status/disruptionsAllowed") - 1;
    new["status"]["disruptionsAllowed"] = left.into();
    let disrupted = object::map(&mut new["status"]).entry("disruptedPods").or_insert_with(|| json!({}));
    object::map(disrupted).insert(call.name.clone(), object::time(call.now).into());
    let own = Call {
        dry_run: call.dry_run,
        ..Call::own(state.kinds.known("policy", "poddisruptionbudgets"), budget, "kube-apiserver")
    };
    state.put(&own, new);
    Ok(())
}
