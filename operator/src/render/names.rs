//! Names of things. All are functions of the cluster's and the instance's name, so that they can be found again without any memory.

use super::CLUSTER_PORT;
use std::net::IpAddr;

/// An instance, which is the name of its pod, too: `metrics-a-7`. Serial numbers only grow, so that no name is used twice.
pub fn instance(cluster: &str, group: &str, serial: u64) -> String {
    format!("{cluster}-{group}-{serial}")
}

/// The serial number at the end of an instance's name.
pub fn serial_of(instance: &str) -> Option<u64> {
    let serial = instance.rsplit_once('-')?.1;
    // `parse` takes a sign, too, and zeros in front.
    serial.parse().ok().filter(|number: &u64| number.to_string() == serial)
}

/// The claim of an instance.
pub fn claim(instance: &str) -> String {
    format!("data-{instance}")
}

/// The service whose name resolves to the addresses of all pods, ready or not.
pub fn headless(cluster: &str) -> String {
    format!("{cluster}-nodes")
}

/// The service for those who write and query: any pod that is ready.
pub fn client(cluster: &str) -> String {
    cluster.to_owned()
}

/// The secret with the token that nodes must know to talk to each other.
pub fn secret(cluster: &str) -> String {
    format!("{cluster}-join-token")
}

/// The key in that secret.
pub const SECRET_KEY: &str = "token";

/// The PodDisruptionBudget.
pub fn budget(cluster: &str) -> String {
    cluster.to_owned()
}

/// The ConfigMap with the settings whose hash is `hash`.
pub fn config(cluster: &str, hash: &str) -> String {
    format!("{cluster}-config-{hash}")
}

/// Where all nodes can be met: what `--join` says.
pub fn join(cluster: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc:{CLUSTER_PORT}", headless(cluster))
}

/// Where other nodes reach an instance, as `--cluster-advertise` says, and the database as its node's address.
pub fn address(cluster: &str, namespace: &str, instance: &str) -> String {
    format!("{instance}.{}", join(cluster, namespace))
}

/// Of a node's address the instance: the first label of its host. `None` for an address that is no name.
pub fn instance_of_address(address: &str) -> Option<&str> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let is_number = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    host.split('.').next().filter(|label| !label.is_empty() && !is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_found_from_its_address_and_its_serial_from_its_name() {
        let name = instance("metrics", "eu-1a", 12);
        assert_eq!(name, "metrics-eu-1a-12");
        assert_eq!(serial_of(&name), Some(12));
        let address = address("metrics", "monitoring", &name);
        assert_eq!(address, "metrics-eu-1a-12.metrics-nodes.monitoring.svc:7421");
        assert_eq!(instance_of_address(&address), Some("metrics-eu-1a-12"));

        for other in ["metrics", "metrics-a", "metrics-a-", "metrics-a-+1", "metrics-a-01"] {
            assert_eq!(serial_of(other), None, "{other}");
        }
        for other in ["10.0.0.1:7421", "[fd00::1]:7421", ":7421", ""] {
            assert_eq!(instance_of_address(other), None, "{other}");
        }
    }

    #[test]
    fn the_longest_names_are_valid() {
        // The longest that the API accepts. A pod's name is its host name, so it must be a DNS label.
        let (cluster, group) = ("c".repeat(40), "g".repeat(15));
        assert!(instance(&cluster, &group, 999_999).len() <= 63);
        assert!(headless(&cluster).len() <= 63 && client(&cluster).len() <= 63);
    }
}
