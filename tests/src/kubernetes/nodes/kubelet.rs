//! The kubelet of a host: tells the API server what the host's `step` wants told, and brings back the answers.

use super::host::{Effect, Surroundings};
use super::launch::{Facts, Trouble, config_data, field_of, files, needs, secret_data};
use super::lifecycle::{ZONE, readiness};
use super::shared::Shared;
use super::status::second;
use super::volumes::{attached, is_of_network, path_of};
use super::world::{LEASES, Snapshot};
use super::{probe, record::Record};
use crate::namespaces::attempt;
use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Why the pod is not started, and what somebody should read about it.
const CREATING: &str = "ContainerCreating";

/// The kubelet of the host with this index.
#[derive(Clone)]
pub struct Agent {
    /// Everything around it.
    pub shared: Arc<Shared>,
    /// Of its host.
    pub index: usize,
    /// Its host's name.
    pub name: String,
    /// Its own way to the API server.
    pub client: Client,
}

impl Agent {
    /// Looks at the host's pods for ever.
    pub async fn run(self) {
        let mut news = self.shared.world.news();
        loop {
            self.pass();
            self.shared.wait(&mut news).await;
        }
    }

    fn pass(&self) {
        let pods = self.shared.world.pods_of(&self.name);
        let around = Surroundings {
            now: Instant::now(),
            clock: Timestamp::now(),
            parameters: &self.shared.parameters,
            hosts: &self.shared.hosts_file(),
        };
        let effects = {
            let mut machines = self.shared.machines.lock();
            let machines = &mut *machines;
            let host = &mut machines.hosts[self.index];
            if host.is_in_touch() {
                host.hear(&pods);
            }
            host.step(&mut machines.network, &around)
        };
        for effect in effects {
            let agent = self.clone();
            // An answer may take long; the processes are looked at meanwhile.
            tokio::spawn(async move { agent.perform(effect).await });
        }
    }

    async fn perform(&self, effect: Effect) {
        match effect {
            Effect::Resolve(pod) => {
                let result = self.resolve(&pod).await;
                if let Err((_, message)) = &result {
                    self.shared.tell(&self.client, "kubelet", &pod, "FailedMount", message).await;
                }
                self.with(&pod, |record| {
                    record.is_talking = false;
                    match result {
                        Ok(facts) => (record.facts, record.trouble) = (Some(facts), None),
                        Err(trouble) => record.trouble = Some(trouble),
                    }
                });
            }
            Effect::Report(pod, status) => {
                let result = self.report(&pod, &status).await;
                self.with(&pod, |record| {
                    record.is_talking = false;
                    if result.is_ok() {
                        record.sent = Some(status);
                    }
                });
            }
            Effect::Remove(pod) => {
                let api: Api<Pod> =
                    Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
                let params = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(preconditions),
                    ..DeleteParams::default()
                };
                // Tried again while the pod is there.
                let _ = api.delete(&pod.name_any(), &params).await;
            }
            Effect::Ask { uid, container, start, kind, address, path, bound } => {
                let answer = probe::get(&address, &path, bound).await;
                let is_good = answer.is_ok_and(|status| (200..400).contains(&status));
                let mut machines = self.shared.machines.lock();
                machines.hosts[self.index].answered(&uid, &container, start, kind, is_good, Instant::now());
            }
            Effect::Hook { uid, requests, bound } => {
                for (address, path) in requests {
                    // A hook that fails does not keep a pod.
                    let _ = probe::get(&address, &path, bound).await;
                }
                let mut machines = self.shared.machines.lock();
                let record = machines.hosts[self.index].records.get_mut(&uid);
                if let Some(ending) = record.and_then(|record| record.ending.as_mut()) {
                    ending.is_hooked = false;
                }
            }
        }
    }

    fn with(&self, pod: &Pod, change: impl FnOnce(&mut Record)) {
        let mut machines = self.shared.machines.lock();
        let uid = pod.uid().unwrap_or_default();
        if let Some(record) = machines.hosts[self.index].records.get_mut(&uid) {
            change(record);
        }
    }

    /// Whether what is to be said now still reaches anybody.
    fn is_in_touch(&self) -> bool {
        self.shared.machines.lock().hosts[self.index].is_in_touch()
    }

    async fn report(&self, pod: &Pod, status: &Value) -> Result<()> {
        anyhow::ensure!(self.is_in_touch(), "cut off");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        // The uid says which pod is meant, should there be another of the name.
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Finds everything that a pod needs, and puts its files in place.
    async fn resolve(&self, pod: &Pod) -> Result<Facts, Trouble> {
        let creating = |message: String| (CREATING.to_string(), message);
        let mut facts =
            Facts { host_ip: self.shared.machines.lock().hosts[self.index].ip(), ..Facts::default() };
        let world = self.shared.world.snapshot();
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes.clone() {
            let Some(claim) = &volume.persistent_volume_claim else { continue };
            let (name, folder) = self.persistent(pod, &claim.claim_name, &world).map_err(creating)?;
            let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
            give(&folder, group).map_err(creating)?;
            facts.folders.insert(volume.name.clone(), folder);
            facts.mounted.insert(name);
        }
        let namespace = pod.namespace().unwrap_or_default();
        let (configs, secrets) = needs(pod);
        for (name, is_optional) in configs {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
            match api.get_opt(&name).await.map_err(|error| creating(error.to_string()))? {
                Some(config) => drop(facts.configs.insert(name, config_data(config))),
                None if is_optional => {}
                None => return Err(creating(format!("configmap \"{name}\" not found"))),
            }
        }
        for (name, is_optional) in secrets {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
            match api.get_opt(&name).await.map_err(|error| creating(error.to_string()))? {
                Some(secret) => drop(facts.secrets.insert(name, secret_data(secret))),
                None if is_optional => {}
                None => return Err(creating(format!("secret \"{name}\" not found"))),
            }
        }
        let scratch = self.shared.machines.lock().hosts[self.index].scratch(&pod.uid().unwrap_or_default());
        for volume in volumes {
            let folder = scratch.join("volumes").join(&volume.name);
            let empty = BTreeMap::new();
            let content = if let Some(config) = &volume.config_map {
                files(facts.configs.get(&config.name).unwrap_or(&empty), config.items.as_deref())
            } else if let Some(secret) = &volume.secret {
                let name = secret.secret_name.as_deref().unwrap_or_default();
                files(facts.secrets.get(name).unwrap_or(&empty), secret.items.as_deref())
            } else if let Some(downward) = &volume.downward_api {
                let items = downward.items.iter().flatten();
                let value = |path: &str| field_of(pod, path, &facts).unwrap_or_default().into_bytes();
                items
                    .filter_map(|item| Some((item.path.clone(), value(&item.field_ref.as_ref()?.field_path))))
                    .collect()
            } else if volume.empty_dir.is_some() {
                vec![]
            } else if volume.persistent_volume_claim.is_some() {
                continue;
            } else {
                return Err(creating(format!(
                    "volume \"{}\" is of a kind that this kubelet does not know",
                    volume.name
                )));
            };
            put(&folder, &content).map_err(|error| creating(format!("{}: {error}", folder.display())))?;
            facts.folders.insert(volume.name.clone(), folder);
        }
        Ok(facts)
    }

    /// The volume of a claim, and its folder.
    fn persistent(&self, pod: &Pod, claim: &str, world: &Snapshot) -> Result<(String, PathBuf), String> {
        let namespace = pod.namespace().unwrap_or_default();
        let volume =
            world.claim(&namespace, claim).and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
        let volume = volume
            .and_then(|name| world.volume(&name))
            .ok_or_else(|| format!("claim \"{claim}\" is not bound"))?;
        let name = volume.name_any();
        if is_of_network(volume) {
            let attachments =
                world.attachments.iter().filter(|attachment| attached(attachment) == Some(&name));
            let mut places = attachments.map(|attachment| attachment.spec.node_name.as_str());
            match places.next() {
                Some(place) if place == self.name => {}
                Some(place) => {
                    return Err(format!(
                        "Multi-Attach error for volume \"{name}\": it is attached to {place}"
                    ));
                }
                None => return Err(format!("volume \"{name}\" is not attached yet")),
            }
        }
        let folder = path_of(volume).map(PathBuf::from).unwrap_or_default();
        match folder.is_dir() {
            true => Ok((name, folder)),
            false => Err(format!(
                "MountVolume.NewMounter initialization failed for volume \"{name}\" : path \"{}\" does not exist",
                folder.display()
            )),
        }
    }

    /// Gives signs of life for ever.
    pub async fn heartbeat(self) {
        let mut interval = tokio::time::interval(self.shared.parameters.lease_interval);
        let mut registered = None;
        loop {
            interval.tick().await;
            let (is_in_touch, boot) = {
                let machines = self.shared.machines.lock();
                let host = &machines.hosts[self.index];
                (host.is_in_touch(), host.boot)
            };
            if !is_in_touch {
                continue;
            }
            // A node that somebody deletes is registered again only when its machine starts again.
            if registered != Some(boot) && self.register().await.is_ok() {
                registered = Some(boot);
            }
            // The next beat tries again.
            let _ = self.beat().await;
        }
    }

    async fn register(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_opt(&self.name).await?.is_none() {
            let node = {
                let machines = self.shared.machines.lock();
                let host = &machines.hosts[self.index];
                let labels = json!({"kubernetes.io/hostname": host.name, "kubernetes.io/os": "linux", ZONE: host.zone});
                json!({"metadata": {"name": host.name, "labels": labels}, "spec": {"podCIDR": format!("10.244.{}.0/24", host.number)}})
            };
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        self.say_ready().await
    }

    async fn say_ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let now = second(Timestamp::now());
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now});
        let status = {
            let machines = self.shared.machines.lock();
            let host = &machines.hosts[self.index];
            let amounts = json!({"cpu": self.shared.parameters.cpu, "memory": self.shared.parameters.memory, "pods": "110"});
            json!({
                "capacity": amounts, "allocatable": amounts,
                "conditions": [condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                    condition("DiskPressure", "False", "KubeletHasNoDiskPressure"), condition("Ready", "True", "KubeletReady")],
                "addresses": [{"type": "InternalIP", "address": host.ip()}, {"type": "Hostname", "address": host.name}],
                "nodeInfo": {"machineID": host.machine_id, "systemUUID": host.machine_id, "bootID": format!("{}-{}", host.machine_id, host.boot),
                    "kubeletVersion": "v1.36.2", "kubeProxyVersion": "", "kernelVersion": "", "osImage": "", "operatingSystem": "linux",
                    "architecture": "amd64", "containerRuntimeVersion": "nodes.test://1"},
            })
        };
        nodes
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(json!({"status": status})))
            .await?;
        Ok(())
    }

    async fn beat(&self) -> Result<()> {
        let world = self.shared.world.snapshot();
        let node = world.node(&self.name);
        if node.is_some_and(|node| readiness(node) != "True") && self.is_in_touch() {
            self.say_ready().await?;
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40,
            "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now())});
        let renewal =
            leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
        match renewal {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let lease = json!({"metadata": {"name": self.name, "namespace": LEASES}, "spec": spec});
                leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
            }
            other => drop(other.context("renewing a lease")?),
        }
        Ok(())
    }
}

/// Makes a volume the group's, as a pod with `fsGroup` expects it.
fn give(folder: &Path, group: Option<i64>) -> Result<(), String> {
    let Some(group) = group.and_then(|group| u32::try_from(group).ok()) else { return Ok(()) };
    let metadata = fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Only where the root does not fit (OnRootMismatch): a large volume is not walked through at each start.
    if metadata.gid() == group && metadata.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    attempt(&format!("chown -R :{group} {}", folder.display()))?;
    attempt(&format!("chmod -R g+rwX {}", folder.display()))?;
    attempt(&format!("chmod g+s {}", folder.display()))
}

/// Writes the files of a volume, for everybody in the pod.
fn put(folder: &Path, content: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
    for (name, bytes) in content {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}
