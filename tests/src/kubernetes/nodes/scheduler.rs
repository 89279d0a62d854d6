//! Which node a pod runs on: by affinity, taints, what is free, and where its volumes are.
//!
//! Only what is required counts; of the nodes that are left the one with the fewest pods is taken. Priorities, preemption and spread
//! constraints are left out.

use super::affinity::{allows, selects, toleration};
use super::quantity::thousandths;
use super::world::Snapshot;
use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, Taint};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What is to be done with a pod that has no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs there.
    Bind(String),
    /// It is to run there, when these claims have volumes there.
    Provision(String, Vec<String>),
    /// The volumes that were ordered are not there yet.
    Wait,
    /// No node fits, and why.
    Unschedulable(String),
}

/// Where a claim lets a pod run.
enum Claim {
    Bound,
    ToProvision,
    Ordered(String),
}

/// Decides for one pod.
pub fn decide(pod: &Pod, world: &Snapshot) -> Decision {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut missing = vec![];
    let mut ordered = None;
    for name in Snapshot::claims_of(pod) {
        match claim(world, namespace, name) {
            Ok(Claim::Bound) => {}
            Ok(Claim::ToProvision) => missing.push(name.to_string()),
            Ok(Claim::Ordered(node)) => ordered = Some(node),
            Err(why) => return Decision::Unschedulable(unavailable(world.nodes.len(), &[why])),
        }
    }
    if ordered.is_some() && missing.is_empty() {
        return Decision::Wait;
    }
    let mut reasons = BTreeMap::<String, usize>::new();
    let mut fitting: Vec<&str> = vec![];
    for node in &world.nodes {
        // A pod with one volume ordered on a node gets the others there, too.
        match obstacle(pod, node, world) {
            None if ordered.as_deref().is_none_or(|name| name == node.name_any()) => {
                fitting.extend(node.metadata.name.as_deref());
            }
            None => {}
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    let pods_on = |node: &str| world.pods.iter().filter(|other| node_of(other) == Some(node)).count();
    match fitting.into_iter().min_by_key(|node| (pods_on(node), node.to_string())) {
        None => {
            let reasons: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            Decision::Unschedulable(unavailable(world.nodes.len(), &reasons))
        }
        Some(node) if missing.is_empty() => Decision::Bind(node.into()),
        Some(node) => Decision::Provision(node.into(), missing),
    }
}

fn unavailable(nodes: usize, reasons: &[String]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    format!(
        "0/{nodes} nodes are available: {}. no new claims to deallocate, preemption: 0/{nodes} nodes are available: \
         {nodes} Preemption is not helpful for scheduling.",
        reasons.join(", ")
    )
}

fn claim(world: &Snapshot, namespace: &str, name: &str) -> Result<Claim, String> {
    let Some(claim) = world.claim(namespace, name) else {
        return Err(format!("persistentvolumeclaim \"{name}\" not found"));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match volume {
        Some(volume) if phase == "Lost" || world.volume(volume).is_none() => Err(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        )),
        Some(_) if phase == "Bound" => Ok(Claim::Bound),
        Some(_) => {
            Ok(Claim::Ordered(claim.annotations().get(super::volumes::SELECTED).cloned().unwrap_or_default()))
        }
        None => {
            let Some(class) = world.class(claim) else {
                return Err(format!(
                    "pod has unbound immediate PersistentVolumeClaims ({name} has no storage class)"
                ));
            };
            match claim.annotations().get(super::volumes::SELECTED) {
                _ if class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") => {
                    Err("pod has unbound immediate PersistentVolumeClaims".into())
                }
                Some(node) => Ok(Claim::Ordered(node.clone())),
                None => Ok(Claim::ToProvision),
            }
        }
    }
}

/// Why a pod cannot run on a node, in the words of the real scheduler.
fn obstacle(pod: &Pod, node: &Node, world: &Snapshot) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let node_spec = node.spec.clone().unwrap_or_default();
    // A cordon is a taint, too; its own reason is told.
    if node_spec.unschedulable == Some(true) && toleration(pod, &cordon()).is_none() {
        return Some("node(s) were unschedulable".into());
    }
    let is_untolerated =
        |taint: &&Taint| taint.effect != "PreferNoSchedule" && toleration(pod, taint).is_none();
    if let Some(taint) = node_spec.taints.iter().flatten().find(is_untolerated) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    let affinity = spec.affinity.as_ref();
    let required = affinity.and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    let wanted = spec.node_selector.iter().flatten();
    if required.is_some_and(|required| !allows(required, node))
        || wanted.into_iter().any(|(key, value)| node.labels().get(key) != Some(value))
    {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    if let Some(resource) = exceeded(pod, node, world) {
        return Some(format!("Insufficient {resource}"));
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = Snapshot::claims_of(pod)
        .filter_map(|name| world.claim(namespace, name)?.spec.as_ref()?.volume_name.as_deref())
        .filter_map(|name| world.volume(name));
    let reachable = |selector| allows(selector, node);
    for volume in volumes {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
        if !affinity.is_none_or(reachable) {
            return Some("node(s) didn't match PersistentVolume's node affinity".into());
        }
    }
    let others = || world.pods.iter().filter(|other| other.metadata.uid != pod.metadata.uid);
    let is_near = |other: &Pod, term: &PodAffinityTerm| {
        let domain = node.labels().get(&term.topology_key);
        let place = node_of(other).and_then(|name| world.node(name));
        domain.is_some() && place.is_some_and(|place| place.labels().get(&term.topology_key) == domain)
    };
    if others().any(|other| repels(pod).iter().any(|term| is_meant(pod, term, other) && is_near(other, term)))
    {
        return Some("node(s) didn't match pod anti-affinity rules".into());
    }
    // The rules of those who are there already bind newcomers, too.
    if others()
        .any(|other| repels(other).iter().any(|term| is_meant(other, term, pod) && is_near(other, term)))
    {
        return Some("node(s) didn't satisfy existing pods anti-affinity rules".into());
    }
    None
}

/// Whom a pod does not want near.
fn repels(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref());
    terms.unwrap_or_default()
}

/// Whether a rule of `owner` is about `other`.
fn is_meant(owner: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let is_over = matches!(phase(other), "Succeeded" | "Failed");
    let namespace = match &term.namespaces {
        Some(namespaces) if !namespaces.is_empty() => {
            other.metadata.namespace.iter().any(|name| namespaces.contains(name))
        }
        _ => owner.metadata.namespace == other.metadata.namespace,
    };
    !is_over
        && namespace
        && term.label_selector.as_ref().is_some_and(|selector| selects(selector, other.labels()))
}

/// The resource of which a node has not enough left.
fn exceeded(pod: &Pod, node: &Node, world: &Snapshot) -> Option<&'static str> {
    ["cpu", "memory"].into_iter().find(|resource| {
        let there = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get(*resource));
        let Some(there) = there.and_then(thousandths) else { return false };
        let on_node = world.pods.iter().filter(|other| {
            node_of(other) == node.metadata.name.as_deref() && !matches!(phase(other), "Succeeded" | "Failed")
        });
        let used: i128 = on_node.map(|other| requested(other, resource)).sum();
        used + requested(pod, resource) > there
    })
}

fn requested(pod: &Pod, resource: &str) -> i128 {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let amounts = containers.iter().filter_map(|container| {
        let resources = container.resources.as_ref()?;
        let requests = resources.requests.as_ref().and_then(|requests| requests.get(resource));
        // What is limited and asks for nothing asks for its limit.
        requests.or_else(|| resources.limits.as_ref()?.get(resource)).and_then(thousandths)
    });
    amounts.sum()
}

fn cordon() -> Taint {
    Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() }
}

/// The node of a pod.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The phase of a pod.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    fn node(name: &str, zone: &str, more: Value) -> Value {
        let mut node = json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi"}},
        });
        node["spec"] = more;
        node
    }

    /// Two zones of two.
    fn nodes() -> Vec<Value> {
        [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")]
            .map(|(name, zone)| node(name, zone, json!({})))
            .to_vec()
    }

    fn pod(name: &str, on: Option<&str>, more: Value) -> Value {
        let mut spec = json!({"containers": [], "nodeName": on});
        for (key, value) in more.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        json!({"metadata": {"name": name, "namespace": "db", "uid": name, "labels": {"app": "db"}}, "spec": spec})
    }

    fn in_zone(zone: &str) -> Value {
        json!({"affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}}})
    }

    fn objects<T: k8s_openapi::serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<T>> {
        values.into_iter().map(|value| Arc::new(from_value(value).expect("an object"))).collect()
    }

    fn world(nodes: Vec<Value>, pods: Vec<Value>) -> Snapshot {
        Snapshot { nodes: objects(nodes), pods: objects(pods), ..Snapshot::default() }
    }

    fn decide(pod: Value, world: &Snapshot) -> Decision {
        super::decide(&from_value(pod).expect("a pod"), world)
    }

    fn why(decision: Decision) -> String {
        match decision {
            Decision::Unschedulable(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_zone_is_filled_host_by_host_and_then_nothing_fits() {
        let mut there = vec![];
        for (name, expected) in [("one", "a1"), ("two", "a2")] {
            let decision = decide(pod(name, None, in_zone("a")), &world(nodes(), there.clone()));
            assert_eq!(decision, Decision::Bind(expected.into()));
            there.push(pod(name, Some(expected), in_zone("a")));
        }
        let why = why(decide(pod("three", None, in_zone("a")), &world(nodes(), there)));
        assert!(why.starts_with("0/4 nodes are available: "), "{why}");
        assert!(why.contains("2 node(s) didn't match Pod's node affinity/selector"), "{why}");
        assert!(why.contains("2 node(s) didn't match pod anti-affinity rules"), "{why}");
    }

    #[test]
    fn those_who_are_there_repel_a_newcomer_that_has_no_rules() {
        let there = vec![pod("one", Some("a1"), in_zone("a"))];
        let only = vec![node("a1", "a", json!({}))];
        let why = why(decide(pod("two", None, json!({})), &world(only, there)));
        assert!(why.contains("existing pods anti-affinity"), "{why}");
    }

    #[test]
    fn cordons_taints_and_requests_keep_pods_away() {
        let taint = json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]});
        let nodes = vec![
            node("a1", "a", json!({"unschedulable": true})),
            node("a2", "a", taint),
            node("a3", "a", json!({})),
        ];
        let large = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]});
        let there = vec![pod("one", Some("a3"), large.clone())];
        let why = why(decide(pod("two", None, large), &world(nodes, there)));
        for reason in [
            "1 Insufficient cpu",
            "1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }",
            "1 node(s) were unschedulable",
        ] {
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn a_volume_is_ordered_where_the_pod_fits_and_keeps_the_pod_there_for_ever() {
        let mut world = world(nodes(), vec![]);
        world.classes = objects(vec![json!({"metadata": {"name": "local"}, "provisioner": "p",
            "volumeBindingMode": "WaitForFirstConsumer"})]);
        let mounts =
            json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-one"}}]});
        let with_claim = || {
            let mut spec = in_zone("b");
            spec["volumes"] = mounts["volumes"].clone();
            pod("one", None, spec)
        };
        assert!(why(decide(with_claim(), &world)).contains("\"data-one\" not found"));
        let mut claim = json!({"metadata": {"name": "data-one", "namespace": "db"}, "spec": {"storageClassName": "local"}});
        world.claims = objects(vec![claim.clone()]);
        assert_eq!(decide(with_claim(), &world), Decision::Provision("b1".into(), vec!["data-one".into()]));
        claim["metadata"]["annotations"] = json!({super::super::volumes::SELECTED: "b1"});
        world.claims = objects(vec![claim.clone()]);
        assert_eq!(decide(with_claim(), &world), Decision::Wait);

        claim["spec"]["volumeName"] = json!("pv");
        claim["status"] = json!({"phase": "Bound"});
        world.claims = objects(vec![claim.clone()]);
        assert!(why(decide(with_claim(), &world)).contains("non-existent persistentvolume \"pv\""));
        let pin = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b2"]}]}]}});
        world.volumes = objects(vec![json!({"metadata": {"name": "pv"}, "spec": {"nodeAffinity": pin}})]);
        assert_eq!(decide(with_claim(), &world), Decision::Bind("b2".into()));

        world.nodes.retain(|node| node.metadata.name.as_deref() != Some("b2"));
        let told = why(decide(with_claim(), &world));
        assert!(told.contains("1 node(s) didn't match PersistentVolume's node affinity"), "{told}");
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        world.claims = objects(vec![claim]);
        assert!(why(decide(with_claim(), &world)).contains("is being deleted"));
    }
}
