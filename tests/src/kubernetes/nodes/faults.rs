//! What happens to machines, disks and cables.

use super::cluster::Kubernetes;
use super::host::{Host, Kubelet};
use super::network::Sandbox;
use super::shared::Machines;
use super::volumes::path_of;
use super::world::Snapshot;
use crate::namespaces::{attempt, run};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// What becomes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// It is there when the machine is back.
    Kept,
    /// It is empty then.
    Gone,
}

impl Kubernetes {
    pub(super) fn host<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Host, &mut super::network::Network) -> T,
    ) -> T {
        let mut machines = self.shared.machines.lock();
        let Machines { hosts, network } = &mut *machines;
        let host = hosts.iter_mut().find(|host| host.name == name);
        act(host.unwrap_or_else(|| panic!("there is no host {name}")), network)
    }

    /// The machine stops at once, all processes with it.
    pub fn lose(&self, host: &str, disk: Disk) {
        self.host(host, |host, network| {
            host.power_off(network, Timestamp::now());
            if disk == Disk::Gone {
                host.records.clear();
                empty(&host.dir);
                fs::create_dir_all(host.disk()).expect("a host's disk can be made");
            }
        });
    }

    /// The machine is as it should be: it starts if it was off, its kubelet is heard, its cable is in.
    pub fn restore(&self, host: &str) {
        self.host(host, |host, _| {
            if host.kubelet == Kubelet::Off {
                host.boot += 1;
            }
            host.kubelet = Kubelet::Working;
            plug(host, true);
        });
    }

    /// Another machine, with an empty disk, takes the name of this one.
    pub fn replace_machine(&self, host: &str) {
        self.lose(host, Disk::Gone);
        self.host(host, |host, _| host.machine_id = format!("{}-machine-{}", host.name, host.boot + 1));
        self.restore(host);
    }

    /// The kubelet and the API server do not hear each other any more. Everything on the host goes on.
    pub fn cut_kubelet(&self, host: &str) {
        self.host(host, |host, _| host.kubelet = Kubelet::Silent);
    }

    /// The machine's cable is out: nobody reaches its pods, they reach nobody, and its kubelet is silent. Everything on the host goes on.
    pub fn unplug(&self, host: &str) {
        self.host(host, |host, _| plug(host, false));
    }

    /// The power of a zone.
    pub fn power(&self, zone: &str, is_on: bool) {
        let names: Vec<String> = {
            let machines = self.shared.machines.lock();
            machines.hosts.iter().filter(|host| host.zone == zone).map(|host| host.name.clone()).collect()
        };
        for name in names {
            match is_on {
                true => self.restore(&name),
                false => self.lose(&name, Disk::Kept),
            }
        }
    }

    /// What an autoscaler does with a machine that is gone, and a person by mistake with one that is not.
    pub fn delete_node_object(&self, host: &str) {
        let nodes: Api<Node> = Api::all(self.client());
        self.must(async move { nodes.delete(host, &DeleteParams::default()).await });
    }

    /// Puts a taint on a node.
    pub fn taint(&self, host: &str, key: &str, effect: &str) {
        let nodes: Api<Node> = Api::all(self.client());
        let taint = json!({"key": key, "effect": effect});
        // Controllers write taints at the same time; a list is written by whoever has seen the last one.
        crate::until::until("a taint to be taken", crate::process::BOUND, || {
            let attempt = async {
                let node = nodes.get(host).await?;
                let mut taints = serde_json::to_value(node.spec.iter().find_map(|spec| spec.taints.clone()))
                    .map_err(kube::Error::SerdeError)?;
                match taints.as_array_mut() {
                    Some(taints) => taints.push(taint.clone()),
                    None => taints = json!([taint]),
                }
                let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": taints}});
                nodes.patch(host, &PatchParams::default(), &Patch::Merge(patch)).await
            };
            self.wait(attempt).map_err(|error| error.to_string())
        });
    }

    /// Marks a node as one that gets no new pods, or ends that.
    pub fn cordon(&self, host: &str, is_cordoned: bool) {
        let nodes: Api<Node> = Api::all(self.client());
        let patch = json!({"spec": {"unschedulable": is_cordoned}});
        self.must(async move { nodes.patch(host, &PatchParams::default(), &Patch::Merge(patch)).await });
    }

    /// The folder of a claim's volume, wherever it is.
    pub fn folder(&self, namespace: &str, claim: &str) -> PathBuf {
        let client = self.client();
        let world = self.wait(async move { Snapshot::live(&client).await }).expect("the API server answers");
        let name = world.claim(namespace, claim).and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
        let volume = name.and_then(|name| world.volume(&name).cloned());
        let path = volume.as_ref().and_then(|volume| path_of(volume)).map(PathBuf::from);
        path.unwrap_or_else(|| panic!("the claim {claim} has no volume"))
    }

    /// Everything in a claim's volume is gone, under the process that uses it.
    pub fn wipe(&self, namespace: &str, claim: &str) {
        empty(&self.folder(namespace, claim));
    }

    /// Kills the processes of a pod, and empties the volume of a claim before they can start again.
    pub fn kill_and_wipe(&self, namespace: &str, pod: &str, claim: &str) {
        let folder = self.folder(namespace, claim);
        let mut machines = self.shared.machines.lock();
        kill(&mut machines, namespace, &[pod]);
        empty(&folder);
    }

    /// Kills two pods, and exchanges what is in the volumes of their claims before they can start again.
    pub fn swap(&self, namespace: &str, pods: [&str; 2], claims: [&str; 2]) {
        let folders = claims.map(|claim| self.folder(namespace, claim));
        let aside = folders[0].with_extension("aside");
        let mut machines = self.shared.machines.lock();
        kill(&mut machines, namespace, &pods);
        for (from, to) in [(&folders[0], &aside), (&folders[1], &folders[0]), (&aside, &folders[1])] {
            run(&format!("mv -T {} {}", from.display(), to.display()));
        }
    }

    /// Kills the processes of a pod (SIGKILL). Their kubelet starts them again.
    pub fn kill(&self, namespace: &str, pod: &str) {
        kill(&mut self.shared.machines.lock(), namespace, &[pod]);
    }

    /// Stops the processes of a pod where they are, or lets them go on.
    pub fn freeze(&self, namespace: &str, pod: &str, is_frozen: bool) {
        let signal = if is_frozen { "STOP" } else { "CONT" };
        for pid in self.pids(namespace, pod) {
            run(&format!("kill -{signal} {pid}"));
        }
    }

    /// The processes of a pod that live, whatever the API server knows of them.
    pub fn pids(&self, namespace: &str, pod: &str) -> Vec<u32> {
        let machines = self.shared.machines.lock();
        let records = machines.hosts.iter().flat_map(|host| host.records.values());
        let records = records.filter(|record| {
            record.pod.name_any() == pod && record.pod.namespace().as_deref() == Some(namespace)
        });
        records
            .flat_map(|record| record.containers.values())
            .filter_map(|container| Some(container.process.as_ref()?.child.id()))
            .collect()
    }

    /// The address of a pod that its host still has, whatever the API server knows of it.
    pub fn address(&self, namespace: &str, pod: &str) -> Option<String> {
        self.sandbox(namespace, pod).map(|sandbox| sandbox.ip)
    }

    /// Lets no more than so many kilobits a second through to a pod, once it is on a machine.
    pub fn slow(&self, namespace: &str, pod: &str, kilobits: u32) {
        crate::until::until("a pod to have a cable", crate::process::BOUND, || {
            self.sandbox(namespace, pod).ok_or("it has none")?.slow(kilobits)
        });
    }

    fn sandbox(&self, namespace: &str, pod: &str) -> Option<Sandbox> {
        let machines = self.shared.machines.lock();
        let mut records = machines.hosts.iter().flat_map(|host| host.records.values());
        let record = records.find(|record| {
            record.pod.name_any() == pod && record.pod.namespace().as_deref() == Some(namespace)
        })?;
        record.sandbox.clone()
    }

    /// What the containers of a pod have printed, of all starts that are still on disk.
    pub fn output(&self, pod: &str) -> String {
        let mut folders = vec![];
        {
            let machines = self.shared.machines.lock();
            for host in &machines.hosts {
                let own = host.records.iter().filter(|(_, record)| record.pod.name_any() == pod);
                folders.extend(own.map(|(uid, _)| host.scratch(uid)));
            }
        }
        let mut text = String::new();
        for folder in folders {
            let mut logs: Vec<PathBuf> =
                fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
            logs.sort();
            for log in logs {
                text.push_str(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()));
            }
        }
        text
    }
}

fn plug(host: &mut Host, is_plugged: bool) {
    host.is_plugged = is_plugged;
    for sandbox in host.records.values().filter_map(|record| record.sandbox.as_ref()) {
        sandbox.plug(is_plugged).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

fn kill(machines: &mut Machines, namespace: &str, pods: &[&str]) {
    let records = machines.hosts.iter_mut().flat_map(|host| host.records.values_mut());
    let is_meant = |record: &&mut super::record::Record| {
        record.pod.namespace().as_deref() == Some(namespace) && pods.contains(&record.pod.name_any().as_str())
    };
    for record in records.filter(is_meant) {
        for process in record.containers.values_mut().filter_map(|container| container.process.as_mut()) {
            process.child.kill().expect("a child can be killed");
            // The kubelet sees the status, too: it is kept for whoever asks again.
            process.child.wait().expect("a child can be waited for");
        }
    }
}

/// Removes everything in a folder, and not the folder.
fn empty(folder: &Path) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        // A process that lives may make and remove files at the same time.
        let _ = attempt(&format!("rm -rf {}", entry.path().display()));
    }
}
