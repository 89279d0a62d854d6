//! What all loops and the faults have in common.

use super::host::Host;
use super::network::Network;
use super::parameters::Parameters;
use super::world::World;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::watch;

/// The state of a cluster of machines.
pub struct Shared {
    /// What was heard from the API server.
    pub world: World,
    /// The machines. Held for as long as it takes to look at processes, never across a request.
    pub machines: Mutex<Machines>,
    /// Clocks and sizes.
    pub parameters: Parameters,
    /// Where everything is.
    pub dir: PathBuf,
    /// The last event about an object and reason, so that a loop does not say the same again and again.
    pub told: Mutex<BTreeMap<(String, String), String>>,
}

/// The machines and what connects them.
pub struct Machines {
    /// In the order of zones.
    pub hosts: Vec<Host>,
    /// Of their pods.
    pub network: Network,
}

impl Shared {
    /// The hosts file of all containers.
    pub fn hosts_file(&self) -> PathBuf {
        self.dir.join("hosts.txt")
    }

    /// The folder of volumes that every host can attach.
    pub fn network_disk(&self) -> PathBuf {
        self.dir.join("network")
    }

    /// Waits for news, but not for ever: processes and clocks give no notice.
    pub async fn wait(&self, news: &mut watch::Receiver<()>) {
        // An error is a timeout, or the end of the world; the caller looks again either way.
        let _ = tokio::time::timeout(self.parameters.tick, news.changed()).await;
    }

    /// An Event about a pod, unless it was the last one that was said.
    pub async fn tell(&self, client: &Client, who: &str, pod: &Pod, reason: &str, note: &str) {
        let key = (pod.metadata.uid.clone().unwrap_or_default(), reason.to_string());
        if self.told.lock().insert(key, note.to_string()).as_deref() == Some(note) {
            return;
        }
        let recorder = Recorder::new(client.clone(), Reporter { controller: who.into(), instance: None });
        let action = if reason == "FailedScheduling" { "Scheduling" } else { "Mounting" };
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note.chars().take(1000).collect()),
            action: action.into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &pod.object_ref(&())).await {
            eprintln!("{who}: an event was not written: {error}");
        }
    }
}
