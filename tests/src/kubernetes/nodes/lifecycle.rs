//! What becomes of nodes that are silent or gone, and of their pods: the node lifecycle controller, the taint manager and the garbage
//! collector of pods.
//!
//! ```text
//! no sign of life for a grace ── Ready=Unknown, taint unreachable:NoSchedule, pods' Ready=False
//!                             └─ taint unreachable:NoExecute (rate of the zone) ── toleration ── deletionTimestamp, and there it hangs
//! node object gone            ── quarantine ── pod removed
//! taint out-of-service        ── not ready, pod Terminating ── pod removed
//! ```
//!
//! With every zone dark no pod is evicted at all, and with most of a zone's nodes silent, but not all, none of that zone: then it is more
//! likely the controller that sees nothing. (The real one says "partial disruption" for at least three silent nodes and 55 % of them; a
//! zone that is dark as a whole is evicted from at the usual rate.)

use super::affinity::toleration;
use super::parameters::Parameters;
use super::scheduler::{node_of, phase};
use super::world::Snapshot;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// On a node that does not answer.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// On a node that says itself that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Put on by a person: the machine is off for certain.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The label that says where a node is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// How long pods that do not say otherwise tolerate a node that is not ready.
const TOLERATION_SECONDS: i64 = 300;
/// Silent nodes of a zone, of a hundred, from which on nothing is evicted there.
const DISRUPTED_PERCENT: usize = 55;
/// Fewer silent nodes than this are no disruption.
const DISRUPTED_MIN: usize = 3;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// The node's conditions become Unknown.
    Forget(String),
    /// The node gets exactly these taints, if it is still at this resource version.
    Taint(String, Option<String>, Vec<Taint>),
    /// The pod's Ready condition becomes False.
    Unready(Pod),
    /// The pod is deleted, with its grace.
    Evict(Pod),
    /// The pod is removed: nobody is there to say that it has ended.
    Collect(Pod),
}

/// What the controller remembers.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// The last renewal of each node's lease, and when it was seen here. Clocks of nodes are not trusted.
    renewed: BTreeMap<String, (Option<MicroTime>, Instant)>,
    /// Since when a node that pods name is gone.
    gone: BTreeMap<String, Instant>,
    /// When a node of the zone got the taint that evicts.
    evicted: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Normal,
    Partial,
    Dark,
}

impl Lifecycle {
    /// One look at everything.
    pub fn step(
        &mut self,
        now: Instant,
        clock: Timestamp,
        world: &Snapshot,
        parameters: &Parameters,
    ) -> Vec<Action> {
        let mut actions = vec![];
        let silent = self.silent(now, world, parameters.node_grace);
        let mut ready = BTreeMap::new();
        for node in &world.nodes {
            let name = node.name_any();
            let mut state = readiness(node).to_string();
            if silent.contains(&name) && state != "Unknown" {
                actions.push(Action::Forget(name.clone()));
                state = "Unknown".into();
            }
            ready.insert(name, state);
        }
        let zones = zones(world, &ready);
        let is_all_dark = !zones.is_empty() && zones.values().all(|zone| *zone == Zone::Dark);
        for node in &world.nodes {
            let zone = zone_of(node);
            let state = ready.get(&node.name_any()).map_or("Unknown", String::as_str);
            let may_evict = !is_all_dark && zones.get(&zone).is_some_and(|zone| *zone != Zone::Partial);
            let is_due = self.evicted.get(&zone).is_none_or(|last| now - *last >= parameters.taint_interval);
            let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
            let new = taints(&old, state, clock, may_evict && is_due, is_all_dark);
            if new != old {
                let executes =
                    |taints: &[Taint]| taints.iter().filter(|taint| taint.effect == "NoExecute").count();
                if executes(&new) > executes(&old) {
                    self.evicted.insert(zone, now);
                }
                actions.push(Action::Taint(node.name_any(), node.resource_version(), new));
            }
        }
        self.pods(now, clock, world, &ready, parameters, &mut actions);
        actions
    }

    /// The nodes whose lease was not renewed for too long.
    fn silent(&mut self, now: Instant, world: &Snapshot, grace: Duration) -> BTreeSet<String> {
        self.renewed.retain(|name, _| world.node(name).is_some());
        let mut silent = BTreeSet::new();
        for node in &world.nodes {
            let name = node.name_any();
            let lease = world.leases.iter().find(|lease| lease.metadata.name.as_ref() == Some(&name));
            let renewal = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
            let seen = self.renewed.entry(name.clone()).or_insert((renewal.clone(), now));
            if seen.0 != renewal {
                *seen = (renewal, now);
            }
            if now - seen.1 > grace {
                silent.insert(name);
            }
        }
        silent
    }

    fn pods(
        &mut self,
        now: Instant,
        clock: Timestamp,
        world: &Snapshot,
        ready: &BTreeMap<String, String>,
        parameters: &Parameters,
        actions: &mut Vec<Action>,
    ) {
        let named: BTreeSet<&str> = world.pods.iter().filter_map(|pod| node_of(pod)).collect();
        self.gone.retain(|name, _| named.contains(name.as_str()) && world.node(name).is_none());
        for pod in &world.pods {
            let is_ending = pod.metadata.deletion_timestamp.is_some();
            let Some(name) = node_of(pod) else {
                // Nobody ran it, so nobody ends it.
                if is_ending {
                    actions.push(Action::Collect(Pod::clone(pod)));
                }
                continue;
            };
            let Some(node) = world.node(name) else {
                let since = *self.gone.entry(name.into()).or_insert(now);
                if now - since >= parameters.quarantine {
                    actions.push(Action::Collect(Pod::clone(pod)));
                }
                continue;
            };
            let is_ready = ready.get(name).is_some_and(|state| state == "True");
            if !is_ready && is_condition_true(pod, "Ready") {
                actions.push(Action::Unready(Pod::clone(pod)));
            }
            let is_off = node
                .spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten())
                .any(|taint| taint.key == OUT_OF_SERVICE);
            if is_ending && is_off && !is_ready {
                actions.push(Action::Collect(Pod::clone(pod)));
            } else if !is_ending && is_evicted(pod, node, clock, parameters.toleration) {
                actions.push(Action::Evict(Pod::clone(pod)));
            }
        }
    }
}

fn zones(world: &Snapshot, ready: &BTreeMap<String, String>) -> BTreeMap<String, Zone> {
    let mut counts = BTreeMap::<String, (usize, usize)>::new();
    for node in &world.nodes {
        let (silent, all) = counts.entry(zone_of(node)).or_default();
        *all += 1;
        *silent += usize::from(ready.get(&node.name_any()).is_none_or(|state| state != "True"));
    }
    let judge = |(silent, all): (usize, usize)| match silent {
        _ if silent == all => Zone::Dark,
        _ if silent >= DISRUPTED_MIN && silent * 100 >= all * DISRUPTED_PERCENT => Zone::Partial,
        _ => Zone::Normal,
    };
    counts.into_iter().map(|(zone, count)| (zone, judge(count))).collect()
}

/// The taints that a node should have: those that it has, but for the two keys that say how it is.
fn taints(old: &[Taint], ready: &str, clock: Timestamp, may_evict: bool, must_not_evict: bool) -> Vec<Taint> {
    let key = match ready {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    let is_kept = |taint: &&Taint| {
        let is_ours = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        !is_ours || key == Some(&taint.key) && !(must_not_evict && taint.effect == "NoExecute")
    };
    let mut new: Vec<Taint> = old.iter().filter(is_kept).cloned().collect();
    let wanted = [("NoSchedule", true), ("NoExecute", may_evict)];
    for (effect, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
        let Some(key) = key else { break };
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(Time(clock)),
                value: None,
            });
        }
    }
    new
}

/// Whether a pod has borne a taint that evicts for as long as it wanted to.
fn is_evicted(pod: &Pod, node: &Node, clock: Timestamp, default: Duration) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").any(|taint| {
        let is_of_readiness = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        let patience = match toleration(pod, taint) {
            Some(toleration) => match toleration.toleration_seconds {
                // The API server gave the pod this one when it was created: the default, which is shorter here.
                Some(TOLERATION_SECONDS) if is_of_readiness => default,
                Some(seconds) => Duration::from_secs(seconds.max(0).unsigned_abs()),
                None => return false,
            },
            None => Duration::ZERO,
        };
        let since = taint.time_added.as_ref().map_or(clock, |time| time.0);
        clock.duration_since(since).unsigned_abs() >= patience && clock >= since
    })
}

/// The status of a node's Ready condition.
pub fn readiness(node: &Node) -> &str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready").map_or("Unknown", |ready| &ready.status)
}

/// Whether a pod has a condition, and it is true.
pub fn is_condition_true(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !matches!(phase(pod), "Succeeded" | "Failed")
        && conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn zone_of(node: &Node) -> String {
    node.labels().get(ZONE).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    /// Nodes by zone, a pod on each, and a controller that has seen their leases once.
    struct Case {
        world: Snapshot,
        lifecycle: Lifecycle,
        start: Instant,
        clock: Timestamp,
        parameters: Parameters,
    }

    impl Case {
        fn new(zones: &[(&str, usize)]) -> Case {
            let mut world = Snapshot::default();
            for (zone, count) in zones {
                for number in 0..*count {
                    let name = format!("{zone}{number}");
                    world
                        .nodes
                        .push(Arc::new(object(json!({"metadata": {"name": name, "labels": {ZONE: zone}},
                        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))));
                    let tolerations = [NOT_READY, UNREACHABLE]
                        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
                    world.pods.push(Arc::new(object(json!({"metadata": {"name": name, "uid": name},
                        "spec": {"containers": [], "nodeName": name, "tolerations": tolerations},
                        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}))));
                    world.leases.push(Arc::new(object(json!({"metadata": {"name": name},
                        "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}))));
                }
            }
            let mut case = Case {
                world,
                lifecycle: Lifecycle::default(),
                start: Instant::now(),
                clock: "2026-01-01T00:00:00Z".parse().expect("a time"),
                parameters: Parameters::default(),
            };
            assert!(case.at(0, &[]).is_empty(), "all is well");
            case
        }

        /// What is decided so many seconds after the start, when these nodes have been silent since then. What concerns nodes is done.
        fn at(&mut self, seconds: i64, silent: &[&str]) -> Vec<String> {
            let clock = self.clock + Duration::from_secs(seconds.unsigned_abs());
            for lease in &mut self.world.leases {
                if !silent.contains(&lease.name_any().as_str()) {
                    Arc::make_mut(lease).spec.get_or_insert_default().renew_time = Some(MicroTime(clock));
                }
            }
            let now = self.start + Duration::from_secs(seconds.unsigned_abs());
            let actions = self.lifecycle.step(now, clock, &self.world, &self.parameters);
            actions.iter().map(|action| self.apply(action)).collect()
        }

        fn apply(&mut self, action: &Action) -> String {
            match action {
                Action::Forget(name) => {
                    let status = self.node(name).status.get_or_insert_default();
                    status.conditions.as_mut().expect("conditions")[0].status = "Unknown".into();
                    format!("forget {name}")
                }
                Action::Taint(name, _, taints) => {
                    self.node(name).spec.get_or_insert_default().taints = Some(taints.clone());
                    let taints: Vec<String> = taints.iter().map(|taint| taint.effect.clone()).collect();
                    format!("taint {name} {}", taints.join(","))
                }
                Action::Unready(pod) => format!("unready {}", pod.name_any()),
                Action::Evict(pod) => format!("evict {}", pod.name_any()),
                Action::Collect(pod) => format!("collect {}", pod.name_any()),
            }
        }

        fn node(&mut self, name: &str) -> &mut Node {
            let node = self.world.nodes.iter_mut().find(|node| node.metadata.name.as_deref() == Some(name));
            Arc::make_mut(node.expect("the node"))
        }

        fn pod(&mut self, name: &str) -> &mut Pod {
            let pod = self.world.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name));
            Arc::make_mut(pod.expect("the pod"))
        }
    }

    fn object<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
        from_value(value).expect("an object")
    }

    #[test]
    fn a_silent_node_is_unknown_then_tainted_then_its_pod_is_evicted() {
        let mut case = Case::new(&[("a", 2), ("b", 2)]);
        assert!(case.at(3, &["a0"]).is_empty(), "within the grace");
        assert_eq!(case.at(4, &["a0"]), ["forget a0", "taint a0 NoSchedule,NoExecute", "unready a0"]);
        assert!(!case.at(6, &["a0"]).contains(&"evict a0".into()), "tolerated for 3 s");
        assert!(case.at(7, &["a0"]).contains(&"evict a0".into()));
        case.pod("a0").metadata.deletion_timestamp = Some(Time(case.clock));
        assert_eq!(case.at(8, &["a0"]), ["unready a0"], "it hangs");
    }

    #[test]
    fn a_node_that_is_back_loses_the_taints_and_nothing_else() {
        let mut case = Case::new(&[("a", 2)]);
        case.at(4, &["a0"]);
        let own = Taint { key: "own".into(), effect: "NoSchedule".into(), ..Taint::default() };
        case.node("a0").spec.get_or_insert_default().taints.get_or_insert_default().push(own);
        case.node("a0").status.get_or_insert_default().conditions.as_mut().expect("conditions")[0].status =
            "True".into();
        assert_eq!(case.at(5, &[]), ["taint a0 NoSchedule"]);
    }

    #[test]
    fn a_pod_says_how_long_it_bears_which_taint() {
        let mut case = Case::new(&[("a", 3)]);
        let bears = |seconds: Option<i64>| json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        case.pod("a0").spec.as_mut().expect("a spec").tolerations = Some(object(bears(None)));
        case.pod("a1").spec.as_mut().expect("a spec").tolerations = Some(object(bears(Some(1))));
        case.at(4, &["a0", "a1"]);
        let done = case.at(30, &["a0", "a1"]);
        assert!(done.contains(&"evict a1".into()) && !done.contains(&"evict a0".into()), "{done:?}");
    }

    #[test]
    fn most_of_a_zone_silent_evicts_nothing_and_neither_does_everything_dark() {
        let mut case = Case::new(&[("a", 5), ("b", 1)]);
        let done = case.at(4, &["a0", "a1", "a2"]);
        assert!(done.contains(&"taint a0 NoSchedule".into()), "{done:?}");
        assert!(done.iter().all(|action| !action.contains("NoExecute")), "{done:?}");

        let mut case = Case::new(&[("a", 2), ("b", 1)]);
        let done = case.at(4, &["a0", "a1"]);
        assert!(done.contains(&"taint a0 NoSchedule,NoExecute".into()), "one dark zone of two: {done:?}");
        let done = case.at(5, &["a0", "a1", "b0"]);
        assert!(done.iter().all(|action| !action.starts_with("taint b0")), "{done:?}");
        let done = case.at(9, &["a0", "a1", "b0"]);
        assert!(
            done.contains(&"taint a0 NoSchedule".into()),
            "all dark, so the taint that evicts goes: {done:?}"
        );
    }

    #[test]
    fn pods_of_a_node_that_is_gone_are_collected_after_a_quarantine() {
        let mut case = Case::new(&[("a", 2)]);
        case.world.nodes.remove(0);
        assert!(case.at(1, &[]).is_empty());
        assert!(case.at(2, &[]).is_empty());
        assert_eq!(case.at(3, &[]), ["collect a0"]);
    }

    #[test]
    fn a_node_out_of_service_has_its_pods_evicted_and_collected_only_while_it_is_not_ready() {
        let mut case = Case::new(&[("a", 2)]);
        let off = Taint { key: OUT_OF_SERVICE.into(), effect: "NoExecute".into(), ..Taint::default() };
        case.node("a0").spec.get_or_insert_default().taints = Some(vec![off]);
        assert_eq!(case.at(1, &[]), ["evict a0"]);
        case.pod("a0").metadata.deletion_timestamp = Some(Time(case.clock));
        assert!(case.at(2, &[]).is_empty(), "its kubelet ends it");
        assert!(case.at(6, &["a0"]).contains(&"collect a0".into()));
    }
}
