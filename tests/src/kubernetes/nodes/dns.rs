//! Names of pods and services, as a hosts file that all containers share.

use super::affinity::selects;
use super::lifecycle::is_condition_true;
use super::scheduler::phase;
use super::world::Snapshot;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use std::fmt::Write as _;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// The hosts file for everything that there is at the moment.
pub fn hosts(world: &Snapshot) -> String {
    let mut lines = vec![("127.0.0.1", "localhost".to_string())];
    for service in &world.services {
        let (Some(spec), Some(namespace)) = (&service.spec, &service.metadata.namespace) else { continue };
        let name = format!("{}.{namespace}.svc", service.name_any());
        let selected = world.pods.iter().filter(|pod| is_behind(pod, service));
        for pod in selected {
            let Some(ip) = ip_of(pod) else { continue };
            if spec.publish_not_ready_addresses != Some(true) && !is_condition_true(pod, "Ready") {
                continue;
            }
            lines.push((ip, format!("{name} {name}.cluster.local")));
            // Only the service that a pod names as its subdomain gives it a name of its own.
            let own =
                pod.spec.as_ref().and_then(|spec| Some((spec.hostname.as_ref()?, spec.subdomain.as_ref()?)));
            if let Some((host, subdomain)) = own
                && *subdomain == service.name_any()
            {
                lines.push((ip, format!("{host}.{name} {host}.{name}.cluster.local {host}")));
            }
        }
    }
    lines.sort();
    lines.iter().fold(String::new(), |mut text, (ip, names)| {
        let _ = writeln!(text, "{ip} {names}");
        text
    })
}

fn is_behind(pod: &Pod, service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
    let Some(labels) = selector.filter(|labels| !labels.is_empty()) else { return false };
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    pod.metadata.namespace == service.metadata.namespace
        && !matches!(phase(pod), "Succeeded" | "Failed")
        && selects(&selector, pod.labels())
}

fn ip_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// Writes the file in place: it is bound over another name in every container, and a rename would not be seen there.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    // Old lines go last, so that a reader in the middle finds too much rather than nothing.
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::sync::Arc;

    fn pod(name: &str, ip: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "db", "labels": {"app": "db"}},
            "spec": {"containers": [], "hostname": name, "subdomain": "all"},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn a_headless_service_names_every_pod_and_another_only_those_that_are_ready() {
        let service = |name: &str, all: bool| {
            json!({"metadata": {"name": name, "namespace": "db"},
                "spec": {"selector": {"app": "db"}, "publishNotReadyAddresses": all}})
        };
        let world = Snapshot {
            services: [service("all", true), service("ready", false)]
                .map(|service| Arc::new(from_value(service).expect("a service")))
                .to_vec(),
            pods: [pod("one", "10.244.1.2", "True"), pod("two", "10.244.2.2", "False")]
                .map(|pod| Arc::new(from_value(pod).expect("a pod")))
                .to_vec(),
            ..Snapshot::default()
        };
        assert_eq!(
            hosts(&world),
            "10.244.1.2 all.db.svc all.db.svc.cluster.local\n\
             10.244.1.2 one.all.db.svc one.all.db.svc.cluster.local one\n\
             10.244.1.2 ready.db.svc ready.db.svc.cluster.local\n\
             10.244.2.2 all.db.svc all.db.svc.cluster.local\n\
             10.244.2.2 two.all.db.svc two.all.db.svc.cluster.local two\n\
             127.0.0.1 localhost\n"
        );
    }
}
