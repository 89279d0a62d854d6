//! The controllers' loops: they look at the world, have something decided, and do it.
//!
//! What fails is decided anew in the next pass.

use super::lifecycle::{self, Lifecycle};
use super::scheduler::{self, Decision, node_of, phase};
use super::shared::Shared;
use super::status::second;
use super::volumes::{
    self, CLAIM_PROTECTION, Hosts, LOCAL, NETWORK, PROVISIONED_BY, SELECTED, VOLUME_PROTECTION, Volumes,
};
use super::world::Snapshot;
use super::{dns, record::Record};
use anyhow::Result;
use k8s_openapi::api::core::v1::{Binding, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::time::Instant;

/// One of the loops.
pub struct Controller {
    /// Everything around it.
    pub shared: Arc<Shared>,
    /// Its way to the API server.
    pub client: Client,
}

impl Controller {
    /// Binds pods to nodes for ever.
    pub async fn schedule(self) {
        let mut news = self.shared.world.news();
        loop {
            let heard = self.shared.world.snapshot();
            if heard.pods.iter().any(|pod| is_unscheduled(pod)) {
                report("scheduler", self.schedule_all().await);
            }
            self.shared.wait(&mut news).await;
        }
    }

    /// One decision for each pod. All is asked anew before each: what was heard may not know the last binding yet.
    async fn schedule_all(&self) -> Result<()> {
        let mut world = Snapshot::live(&self.client).await?;
        let mut waiting: Vec<Arc<Pod>> =
            world.pods.iter().filter(|pod| is_unscheduled(pod)).cloned().collect();
        waiting
            .sort_by_key(|pod| (pod.metadata.creation_timestamp.clone().map(|time| time.0), pod.name_any()));
        for pod in waiting {
            let namespace = pod.namespace().unwrap_or_default();
            match scheduler::decide(&pod, &world.clone().with_promises()) {
                Decision::Wait => continue,
                Decision::Unschedulable(why) => {
                    self.unschedulable(&pod, &why).await?;
                    continue;
                }
                Decision::Provision(node, claims) => {
                    let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
                    for claim in claims {
                        let patch = json!({"metadata": {"annotations": {SELECTED: node}}});
                        api.patch(&claim, &PatchParams::default(), &Patch::Merge(patch)).await?;
                    }
                }
                Decision::Bind(node) => {
                    let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
                    let binding = json!({"metadata": {"name": pod.name_any(), "namespace": namespace, "uid": pod.uid()},
                        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
                    let binding: Binding = serde_json::from_value(binding)?;
                    let _: Value = api
                        .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
                        .await?;
                    self.condition(
                        &pod,
                        json!({"type": "PodScheduled", "status": "True", "reason": null, "message": null}),
                    )
                    .await?;
                }
            }
            world = Snapshot::live(&self.client).await?;
        }
        Ok(())
    }

    async fn unschedulable(&self, pod: &Pod, why: &str) -> Result<()> {
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let is_known = conditions.iter().any(|known| {
            known.type_ == "PodScheduled" && known.status == "False" && known.message.as_deref() == Some(why)
        });
        if is_known {
            return Ok(());
        }
        self.condition(
            pod,
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}),
        )
        .await?;
        self.shared.tell(&self.client, "default-scheduler", pod, "FailedScheduling", why).await;
        Ok(())
    }

    /// Sets one condition of a pod; its time is that of the change of its status.
    async fn condition(&self, pod: &Pod, mut condition: Value) -> Result<()> {
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let known = conditions
            .iter()
            .find(|known| condition["type"] == known.type_ && condition["status"] == known.status);
        let since = known
            .and_then(|known| known.last_transition_time.as_ref())
            .map_or_else(Timestamp::now, |time| time.0);
        condition["lastTransitionTime"] = json!(second(since));
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Watches nodes, and what becomes of pods without them, for ever.
    pub async fn lifecycle(self) {
        let mut news = self.shared.world.news();
        let mut lifecycle = Lifecycle::default();
        loop {
            let world = self.shared.world.snapshot();
            for action in lifecycle.step(Instant::now(), Timestamp::now(), &world, &self.shared.parameters) {
                report("node lifecycle", self.perform(action).await);
            }
            self.shared.wait(&mut news).await;
        }
    }

    async fn perform(&self, action: lifecycle::Action) -> Result<()> {
        use lifecycle::Action;
        let nodes: Api<Node> = Api::all(self.client.clone());
        match action {
            Action::Forget(name) => {
                let now = second(Timestamp::now());
                let condition = |kind: &str| {
                    json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                        "message": "Kubelet stopped posting node status.", "lastTransitionTime": now})
                };
                let conditions = ["MemoryPressure", "DiskPressure", "Ready"].map(condition);
                let patch = json!({"status": {"conditions": conditions}});
                nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Action::Taint(name, version, taints) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
                nodes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Action::Unready(pod) => {
                self.condition(
                    &pod,
                    json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "message": null}),
                )
                .await?;
            }
            Action::Evict(pod) => self.delete(&pod, None).await?,
            Action::Collect(pod) => {
                // What was heard may be old, and this cannot be taken back.
                let node = node_of(&pod).unwrap_or_default();
                let there = if node.is_empty() { None } else { nodes.get_opt(node).await? };
                let is_off = |node: &Node| {
                    let taints =
                        node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
                    taints.iter().any(|taint| taint.key == lifecycle::OUT_OF_SERVICE)
                };
                if there.as_ref().is_none_or(is_off) {
                    self.delete(&pod, Some(0)).await?;
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, pod: &Pod, grace: Option<u32>) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let preconditions = Some(Preconditions { uid: pod.uid(), resource_version: None });
        let params = DeleteParams { grace_period_seconds: grace, preconditions, ..DeleteParams::default() };
        match api.delete(&pod.name_any(), &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    /// Makes, binds, grows, attaches and removes volumes for ever.
    pub async fn volumes(self) {
        let mut news = self.shared.world.news();
        let mut volumes = Volumes::default();
        loop {
            let (world, hosts) = (self.shared.world.snapshot(), self.hosts());
            for action in volumes.step(Instant::now(), &world, &hosts, &self.shared.parameters) {
                report("volumes", self.carry_out(action, &world).await);
            }
            self.shared.wait(&mut news).await;
        }
    }

    fn hosts(&self) -> Hosts {
        let machines = self.shared.machines.lock();
        let mut hosts = Hosts::default();
        for host in &machines.hosts {
            if host.is_in_touch() {
                hosts.living.insert(host.name.clone());
            }
            let mounted = host.records.values().filter(|record: &&Record| record.sandbox.is_some());
            let names = mounted.filter_map(|record| record.facts.as_ref()).flat_map(|facts| &facts.mounted);
            hosts.mounted.extend(names.map(|name| (host.name.clone(), name.clone())));
        }
        hosts
    }

    async fn carry_out(&self, action: volumes::Action, world: &Snapshot) -> Result<()> {
        use volumes::Action;
        let params = PatchParams::default();
        let all: Api<PersistentVolume> = Api::all(self.client.clone());
        let claims = |claim: &PersistentVolumeClaim| -> Api<PersistentVolumeClaim> {
            Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default())
        };
        match action {
            Action::Provision(claim, node) => self.provision(&claim, node, world).await?,
            Action::Bind(claim, volume) => {
                let (name, spec) = (volume.name_any(), volume.spec.unwrap_or_default());
                let patch = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": name}});
                claims(&claim).patch(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
                let status = json!({"status": {"phase": "Bound", "capacity": spec.capacity, "accessModes": spec.access_modes}});
                claims(&claim).patch_status(&claim.name_any(), &params, &Patch::Merge(status)).await?;
                let owner = json!({"spec": {"claimRef": {"uid": claim.uid(), "apiVersion": "v1", "kind": "PersistentVolumeClaim"}}});
                all.patch(&name, &params, &Patch::Merge(owner)).await?;
            }
            Action::Lose(claim) => {
                let patch = json!({"status": {"phase": "Lost"}});
                claims(&claim).patch_status(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
            }
            Action::Unselect(claim) => {
                let patch = json!({"metadata": {"annotations": {SELECTED: null}}});
                claims(&claim).patch(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
            }
            Action::Phase(volume, phase) => {
                let patch = json!({"status": {"phase": phase}});
                all.patch_status(&volume.name_any(), &params, &Patch::Merge(patch)).await?;
            }
            Action::Reclaim(volume) => {
                if let Some(path) = volumes::path_of(&volume)
                    && let Err(error) = fs::remove_dir_all(path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    anyhow::bail!("{path}: {error}");
                }
                all.delete(&volume.name_any(), &DeleteParams::default()).await?;
            }
            Action::ReleaseClaim(claim) => release(&claims(&claim), &claim, CLAIM_PROTECTION).await?,
            Action::ReleaseVolume(volume) => release(&all, &volume, VOLUME_PROTECTION).await?,
            Action::Grow(claim, volume) => {
                let capacity = json!({"storage": volumes::requested(&claim)});
                let patch = json!({"spec": {"capacity": capacity}});
                all.patch(&volume.name_any(), &params, &Patch::Merge(patch)).await?;
                let patch = json!({"status": {"capacity": capacity}});
                claims(&claim).patch_status(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
            }
            Action::Attach(volume, node) => {
                let name = format!("csi-{}", volume.name_any());
                let attachment = json!({"metadata": {"name": name}, "spec": {"attacher": NETWORK, "nodeName": node,
                    "source": {"persistentVolumeName": volume.name_any()}}});
                let api: Api<VolumeAttachment> = Api::all(self.client.clone());
                let attachment: VolumeAttachment = serde_json::from_value(attachment)?;
                api.create(&PostParams::default(), &attachment).await?;
                let status = json!({"status": {"attached": true}});
                api.patch_status(&name, &params, &Patch::Merge(status)).await?;
            }
            Action::Detach(attachment) => {
                let api: Api<VolumeAttachment> = Api::all(self.client.clone());
                let preconditions = Some(Preconditions { uid: attachment.uid(), resource_version: None });
                api.delete(
                    &attachment.name_any(),
                    &DeleteParams { preconditions, ..DeleteParams::default() },
                )
                .await?;
            }
        }
        Ok(())
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        node: Option<String>,
        world: &Snapshot,
    ) -> Result<()> {
        let name = format!("pvc-{}", claim.uid().unwrap_or_default());
        let Some(class) = world.class(claim) else { return Ok(()) };
        let spec = claim.spec.clone().unwrap_or_default();
        let mut volume = json!({
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: class.provisioner}},
            "spec": {
                "capacity": {"storage": volumes::requested(claim)}, "accessModes": spec.access_modes, "volumeMode": "Filesystem",
                "storageClassName": class.name_any(),
                "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                    "name": claim.name_any(), "uid": claim.uid()},
            },
        });
        let folder = if class.provisioner == LOCAL {
            let node = node.unwrap_or_default();
            let machines = self.shared.machines.lock();
            let host = machines.hosts.iter().find(|host| host.name == node);
            let Some(host) = host.filter(|host| host.is_in_touch()) else { return Ok(()) };
            let folder = host.disk().join(&name);
            volume["spec"]["local"] = json!({"path": folder});
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
            folder
        } else {
            let folder = self.shared.network_disk().join(&name);
            volume["spec"]["csi"] = json!({"driver": NETWORK, "volumeHandle": folder});
            folder
        };
        fs::create_dir_all(folder)?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &serde_json::from_value(volume)?).await {
            // What was heard does not know it yet.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    /// Keeps names up to date for ever.
    pub async fn names(self) {
        let mut news = self.shared.world.news();
        let mut written = None;
        loop {
            let text = dns::hosts(&self.shared.world.snapshot());
            if written.as_ref() != Some(&text) {
                match dns::write(&self.shared.hosts_file(), &text) {
                    Ok(()) => written = Some(text),
                    Err(error) => eprintln!("names: {error}"),
                }
            }
            self.shared.wait(&mut news).await;
        }
    }
}

/// Takes a finalizer off, if nobody has changed the object since.
async fn release<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource + Clone + k8s_openapi::serde::de::DeserializeOwned + std::fmt::Debug,
{
    let left: Vec<&String> = object.finalizers().iter().filter(|name| *name != finalizer).collect();
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": left}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

fn is_unscheduled(pod: &Pod) -> bool {
    node_of(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase(pod), "Succeeded" | "Failed")
}

/// Says what went wrong, unless it is what always happens: somebody was faster, or the API server is away.
fn report(who: &str, result: Result<()>) {
    let Err(error) = result else { return };
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 409 || status.is_not_found() => {}
        Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => {}
        _ => eprintln!("{who}: {error:#}"),
    }
}
