//! What becomes of claims and volumes: a provisioner of folders on hosts, one of a network, the binder, the two protections, and attaching.
//!
//! ```text
//! claim, no volume ── scheduler annotates the node ── provisioner there: folder, PV(claimRef) ── binder: Bound
//! claim deleted    ── finalizer until no pod on a node names it ── PV Released ── policy Delete: folder and PV go, if the host lives
//! PV gone          ── claim Lost
//! ```
//!
//! A folder on a host is pinned to it by node affinity. A volume of the network is reachable from every host, but attached to one at a time.

use super::parameters::Parameters;
use super::quantity::thousandths;
use super::scheduler::{node_of, phase};
use super::world::Snapshot;
use super::{affinity, lifecycle};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The annotation with the node that the scheduler chose for a claim.
pub const SELECTED: &str = "volume.kubernetes.io/selected-node";
/// The annotation with who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Makes folders on hosts.
pub const LOCAL: &str = "local.nodes.test";
/// Makes volumes that any host can attach.
pub const NETWORK: &str = "network.nodes.test";
/// Holds a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while a claim has it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// A folder on the host, or of the network, and a volume for the claim.
    Provision(PersistentVolumeClaim, Option<String>),
    /// The claim has the volume.
    Bind(PersistentVolumeClaim, PersistentVolume),
    /// The claim's volume is gone.
    Lose(PersistentVolumeClaim),
    /// The node that was chosen did not give a volume.
    Unselect(PersistentVolumeClaim),
    /// The volume's phase.
    Phase(PersistentVolume, &'static str),
    /// The folder, and the volume.
    Reclaim(PersistentVolume),
    /// Nobody uses it: the finalizer is taken off.
    ReleaseClaim(PersistentVolumeClaim),
    /// The same of a volume.
    ReleaseVolume(PersistentVolume),
    /// The volume becomes as large as its claim wants it.
    Grow(PersistentVolumeClaim, PersistentVolume),
    /// To a node.
    Attach(PersistentVolume, String),
    /// From where it is.
    Detach(VolumeAttachment),
}

/// What hosts know, whatever the API server says.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Those whose provisioner can act: on, and in touch with the API server.
    pub living: BTreeSet<String>,
    /// Volumes that a host has mounted.
    pub mounted: BTreeSet<(String, String)>,
}

/// What the controllers remember.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Since when an attachment is of no use.
    unused: BTreeMap<String, Instant>,
    /// Since when a claim waits for the node that was chosen.
    waiting: BTreeMap<String, Instant>,
}

impl Volumes {
    /// One look at everything.
    pub fn step(
        &mut self,
        now: Instant,
        world: &Snapshot,
        hosts: &Hosts,
        parameters: &Parameters,
    ) -> Vec<Action> {
        let mut actions = vec![];
        self.waiting
            .retain(|uid, _| world.claims.iter().any(|claim| claim.metadata.uid.as_ref() == Some(uid)));
        for claim in &world.claims {
            if claim.metadata.deletion_timestamp.is_some()
                && !is_used(claim, world)
                && holds(claim.as_ref(), CLAIM_PROTECTION)
            {
                actions.push(Action::ReleaseClaim(PersistentVolumeClaim::clone(claim)));
            }
            actions.extend(self.claim(now, claim, world, hosts, parameters));
        }
        for volume in &world.volumes {
            actions.extend(volume_action(volume, world, hosts));
        }
        self.attachments(now, world, hosts, parameters, &mut actions);
        actions
    }

    fn claim(
        &mut self,
        now: Instant,
        claim: &PersistentVolumeClaim,
        world: &Snapshot,
        hosts: &Hosts,
        parameters: &Parameters,
    ) -> Option<Action> {
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let spec = claim.spec.as_ref()?;
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let own = world.volumes.iter().find(|volume| is_for(volume, claim));
        match (own, &spec.volume_name) {
            (Some(volume), name) => {
                self.waiting.remove(&uid);
                if phase != "Bound" || name.as_ref() != volume.metadata.name.as_ref() {
                    return Some(Action::Bind(claim.clone(), PersistentVolume::clone(volume)));
                }
                let may_grow =
                    world.class(claim).is_some_and(|class| class.allow_volume_expansion == Some(true));
                let wanted = requested(claim).and_then(thousandths)?;
                let is_larger = |capacity: Option<&Quantity>| {
                    capacity.and_then(thousandths).is_some_and(|now| now < wanted)
                };
                let granted =
                    claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
                (may_grow && is_larger(granted))
                    .then(|| Action::Grow(claim.clone(), PersistentVolume::clone(volume)))
            }
            (None, Some(_)) => (phase == "Bound").then(|| Action::Lose(claim.clone())),
            (None, None) if claim.metadata.deletion_timestamp.is_some() => None,
            (None, None) => {
                let class = world.class(claim)?;
                if ![LOCAL, NETWORK].contains(&class.provisioner.as_str()) {
                    return None;
                }
                let is_immediate = class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer");
                let Some(node) = claim.annotations().get(SELECTED) else {
                    return is_immediate.then(|| Action::Provision(claim.clone(), None));
                };
                // The provisioner of folders runs on the host itself.
                if class.provisioner == NETWORK || hosts.living.contains(node) {
                    return Some(Action::Provision(claim.clone(), Some(node.clone())));
                }
                let since = *self.waiting.entry(uid.clone()).or_insert(now);
                if now - since < parameters.bind_timeout {
                    return None;
                }
                self.waiting.remove(&uid);
                Some(Action::Unselect(claim.clone()))
            }
        }
    }

    fn attachments(
        &mut self,
        now: Instant,
        world: &Snapshot,
        hosts: &Hosts,
        parameters: &Parameters,
        actions: &mut Vec<Action>,
    ) {
        for volume in world.volumes.iter().filter(|volume| is_of_network(volume)) {
            let is_attached = world
                .attachments
                .iter()
                .any(|attachment| attached(attachment) == volume.metadata.name.as_deref());
            if let Some(node) = users(volume, world).find_map(node_of)
                && !is_attached
            {
                actions.push(Action::Attach(PersistentVolume::clone(volume), node.into()));
            }
        }
        self.unused.retain(|name, _| {
            world.attachments.iter().any(|attachment| attachment.metadata.name.as_ref() == Some(name))
        });
        for attachment in &world.attachments {
            let Some(volume) = attached(attachment) else { continue };
            let node = &attachment.spec.node_name;
            let is_used = world
                .volume(volume)
                .is_some_and(|volume| users(volume, world).any(|pod| node_of(pod) == Some(node)));
            if is_used {
                self.unused.remove(&attachment.name_any());
                continue;
            }
            let since = *self.unused.entry(attachment.name_any()).or_insert(now);
            let place = world.node(node);
            let is_off = place.is_some_and(|place| {
                let taints = place.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
                taints.iter().any(|taint| taint.key == lifecycle::OUT_OF_SERVICE)
            });
            let is_ready = place.is_some_and(|place| lifecycle::readiness(place) == "True");
            // A host that answers says itself when it has unmounted; of one that does not, time is the only witness.
            let is_free = match is_ready {
                true => !hosts.mounted.contains(&(node.clone(), volume.to_string())),
                false => is_off || now - since >= parameters.detach_wait,
            };
            if is_free {
                actions.push(Action::Detach(VolumeAttachment::clone(attachment)));
            }
        }
    }
}

fn volume_action(volume: &PersistentVolume, world: &Snapshot, hosts: &Hosts) -> Option<Action> {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let spec = volume.spec.as_ref()?;
    let owner = spec.claim_ref.as_ref();
    let is_claimed = world.claims.iter().any(|claim| is_for(volume, claim));
    let wanted = match owner.and_then(|owner| owner.uid.as_ref()) {
        Some(_) if is_claimed => "Bound",
        Some(_) => "Released",
        None => "Available",
    };
    if phase != wanted {
        return Some(Action::Phase(volume.clone(), wanted));
    }
    if volume.metadata.deletion_timestamp.is_some() && wanted != "Bound" && holds(volume, VOLUME_PROTECTION) {
        return Some(Action::ReleaseVolume(volume.clone()));
    }
    let is_ours =
        volume.annotations().get(PROVISIONED_BY).is_some_and(|by| [LOCAL, NETWORK].contains(&by.as_str()));
    let is_kept = spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete");
    let is_reachable = is_of_network(volume)
        || world
            .nodes
            .iter()
            .any(|node| hosts.living.contains(&node.name_any()) && is_reachable(volume, node));
    let is_deleted = volume.metadata.deletion_timestamp.is_some();
    (wanted == "Released" && is_ours && !is_kept && is_reachable && !is_deleted)
        .then(|| Action::Reclaim(volume.clone()))
}

fn is_reachable(volume: &PersistentVolume, node: &k8s_openapi::api::core::v1::Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|affinity| affinity::allows(affinity, node))
}

/// Whether any host can attach a volume.
pub fn is_of_network(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).is_some_and(|csi| csi.driver == NETWORK)
}

/// The folder of a volume, on its host or of the network.
pub fn path_of(volume: &PersistentVolume) -> Option<&str> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|local| local.path.as_str());
    local.or_else(|| spec.csi.as_ref().map(|csi| csi.volume_handle.as_str()))
}

/// The volume that an attachment is about.
pub fn attached(attachment: &VolumeAttachment) -> Option<&str> {
    attachment.spec.source.persistent_volume_name.as_deref()
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

/// Whether a volume is, or is to be, this claim's. A claim that was made anew under the same name is another one.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(ObjectReference { namespace, name, uid, .. }) =
        volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref())
    else {
        return false;
    };
    let is_named = *namespace == claim.metadata.namespace && *name == claim.metadata.name;
    is_named && uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

/// The pods that name the claim of a volume.
fn users<'a>(volume: &'a PersistentVolume, world: &'a Snapshot) -> impl Iterator<Item = &'a Pod> {
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    world.pods.iter().map(|pod| pod.as_ref()).filter(move |pod| {
        owner.is_some_and(|owner| {
            owner.namespace == pod.metadata.namespace
                && !matches!(phase(pod), "Succeeded" | "Failed")
                && Snapshot::claims_of(pod).any(|name| owner.name.as_deref() == Some(name))
        })
    })
}

/// Whether a pod that has a node names the claim.
fn is_used(claim: &PersistentVolumeClaim, world: &Snapshot) -> bool {
    world.pods.iter().any(|pod| {
        pod.metadata.namespace == claim.metadata.namespace
            && node_of(pod).is_some()
            && !matches!(phase(pod), "Succeeded" | "Failed")
            && Snapshot::claims_of(pod).any(|name| claim.metadata.name.as_deref() == Some(name))
    })
}

fn holds<K: kube::Resource>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;
    use std::time::Duration;

    /// A claim `data` of the class `local` that the scheduler wants on `a1`, and a pod that names it.
    struct Case {
        world: Snapshot,
        hosts: Hosts,
        volumes: Volumes,
        now: Instant,
    }

    fn objects<T: k8s_openapi::serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<T>> {
        values.into_iter().map(|value| Arc::new(from_value(value).expect("an object"))).collect()
    }

    fn claim() -> Value {
        json!({"metadata": {"name": "data", "namespace": "db", "uid": "c1", "annotations": {SELECTED: "a1"}, "finalizers": [CLAIM_PROTECTION]},
            "spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}})
    }

    fn bound() -> Value {
        let mut claim = claim();
        claim["spec"]["volumeName"] = json!("pv");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        claim
    }

    fn volume(phase: &str) -> Value {
        json!({"metadata": {"name": "pv", "annotations": {PROVISIONED_BY: LOCAL}, "finalizers": [VOLUME_PROTECTION]},
            "spec": {"claimRef": {"namespace": "db", "name": "data", "uid": "c1"}, "persistentVolumeReclaimPolicy": "Delete",
                "local": {"path": "/disk/pv"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a1"]}]}]}}},
            "status": {"phase": phase}})
    }

    fn of_network(phase: &str) -> Value {
        let mut volume = volume(phase);
        let spec = volume["spec"].as_object_mut().expect("fields");
        spec.remove("local");
        spec.remove("nodeAffinity");
        spec.insert("csi".into(), json!({"driver": NETWORK, "volumeHandle": "/network/pv"}));
        volume
    }

    fn pod(node: Option<&str>) -> Value {
        json!({"metadata": {"name": "pod", "namespace": "db"}, "spec": {"containers": [], "nodeName": node,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    impl Case {
        fn new() -> Case {
            let nodes = ["a1", "a2"].map(|name| {
                json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
            });
            let world = Snapshot {
                nodes: objects(nodes.to_vec()),
                classes: objects(vec![json!({"metadata": {"name": "local"}, "provisioner": LOCAL,
                    "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true})]),
                ..Snapshot::default()
            };
            let living = ["a1", "a2"].map(String::from).into();
            Case {
                world,
                hosts: Hosts { living, ..Hosts::default() },
                volumes: Volumes::default(),
                now: Instant::now(),
            }
        }

        fn with(mut self, claim: Option<Value>, volume: Option<Value>, pod: Option<Value>) -> Case {
            self.world.claims = objects(claim.into_iter().collect());
            self.world.volumes = objects(volume.into_iter().collect());
            self.world.pods = objects(pod.into_iter().collect());
            self
        }

        /// What is decided so many seconds after the start, by name.
        fn at(&mut self, seconds: u64) -> Vec<String> {
            let now = self.now + Duration::from_secs(seconds);
            let actions = self.volumes.step(now, &self.world, &self.hosts, &Parameters::default());
            let name = |action: &Action| match action {
                Action::Attach(_, node) => format!("Attach {node}"),
                Action::Phase(_, phase) => format!("Phase {phase}"),
                Action::Provision(_, node) => format!("Provision {}", node.as_deref().unwrap_or("anywhere")),
                other => format!("{other:?}").split('(').next().unwrap_or_default().to_string(),
            };
            actions.iter().map(name).collect()
        }
    }

    #[test]
    fn a_folder_is_made_by_a_living_host_and_bound() {
        let mut case = Case::new().with(Some(claim()), None, Some(pod(None)));
        assert_eq!(case.at(0), ["Provision a1"]);
        case.hosts.living.remove("a1");
        assert!(case.at(1).is_empty(), "its host is dead");
        assert_eq!(case.at(11), ["Unselect"], "the scheduler may choose again");
        let mut case = Case::new().with(Some(claim()), Some(volume("Bound")), Some(pod(None)));
        assert_eq!(case.at(0), ["Bind"]);
        let mut case = Case::new().with(Some(bound()), Some(volume("Bound")), Some(pod(Some("a1"))));
        assert!(case.at(0).is_empty(), "all is as it should be");
    }

    #[test]
    fn a_claim_whose_volume_is_gone_is_lost() {
        let mut case = Case::new().with(Some(bound()), None, Some(pod(Some("a1"))));
        assert_eq!(case.at(0), ["Lose"]);
    }

    #[test]
    fn a_deleted_claim_is_held_by_a_pod_with_a_node() {
        let mut deleted = bound();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut case = Case::new().with(Some(deleted.clone()), Some(volume("Bound")), Some(pod(Some("a1"))));
        assert!(case.at(0).is_empty());
        let mut case = Case::new().with(Some(deleted), Some(volume("Bound")), Some(pod(None)));
        assert_eq!(case.at(0), ["ReleaseClaim"], "a pod without a node does not use it");
    }

    #[test]
    fn a_released_folder_goes_only_while_its_host_lives_and_only_by_policy() {
        let mut case = Case::new().with(None, Some(volume("Bound")), None);
        assert_eq!(case.at(0), ["Phase Released"]);
        let mut case = Case::new().with(None, Some(volume("Released")), None);
        assert_eq!(case.at(0), ["Reclaim"]);
        case.hosts.living.remove("a1");
        assert!(case.at(0).is_empty(), "nobody is there to remove the folder");
        let mut kept = volume("Released");
        kept["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
        let mut case = Case::new().with(None, Some(kept.clone()), None);
        assert!(case.at(0).is_empty());
        kept["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut case = Case::new().with(None, Some(kept), None);
        assert_eq!(case.at(0), ["ReleaseVolume"]);
        let mut renewed = bound();
        renewed["metadata"]["uid"] = json!("c2");
        let mut case = Case::new().with(Some(renewed), Some(volume("Bound")), None);
        assert_eq!(case.at(0), ["Lose", "Phase Released"], "another claim of the same name");
    }

    #[test]
    fn a_claim_grows_where_its_class_lets_it() {
        let mut larger = bound();
        larger["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        let mut case = Case::new().with(Some(larger), Some(volume("Bound")), None);
        assert_eq!(case.at(0), ["Grow"]);
        let mut class = (*case.world.classes[0]).clone();
        class.allow_volume_expansion = None;
        case.world.classes = vec![Arc::new(class)];
        assert!(case.at(0).is_empty());
    }

    #[test]
    fn a_volume_of_the_network_is_attached_to_one_host_at_a_time() {
        let mut case = Case::new().with(Some(bound()), Some(of_network("Bound")), Some(pod(Some("a1"))));
        assert_eq!(case.at(0), ["Attach a1"]);
        let attachment = json!({"metadata": {"name": "att"}, "spec": {"attacher": NETWORK, "nodeName": "a1",
            "source": {"persistentVolumeName": "pv"}}});
        case.world.attachments = objects(vec![attachment]);
        assert!(case.at(0).is_empty());
        // Another pod, elsewhere.
        case.world.pods = objects(vec![pod(Some("a2"))]);
        case.hosts.mounted.insert(("a1".into(), "pv".into()));
        assert!(case.at(1).is_empty(), "the host says that it has it mounted");
        case.hosts.mounted.clear();
        assert_eq!(case.at(2), ["Detach"]);
        // The same, and the host does not answer.
        let mut node = (*case.world.nodes[0]).clone();
        node.status = None;
        case.world.nodes[0] = Arc::new(node);
        case.volumes = Volumes::default();
        assert!(case.at(2).is_empty());
        assert_eq!(case.at(7), ["Detach"], "after a long wait");
    }
}
