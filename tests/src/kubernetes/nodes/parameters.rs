//! What a cluster of machines is made of, and its clocks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Machines, images, and how patient the controllers are. The default is a small cluster in a hurry; the time that a real
/// control plane takes stands beside each clock.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Zones by name, with this many machines in each.
    pub zones: Vec<(String, usize)>,
    /// Of every machine.
    pub cpu: String,
    /// Of every machine.
    pub memory: String,
    /// Which binary an image is. An image that is not here cannot be pulled.
    pub images: BTreeMap<String, PathBuf>,
    /// Between two passes of a loop that nothing has woken, and between two looks at processes.
    pub tick: Duration,
    /// Between two renewals of a machine's lease: 10 s.
    pub lease_interval: Duration,
    /// Without a renewal for so long, a node's state is unknown: 50 s.
    pub node_grace: Duration,
    /// How long a pod stays on a node that is not ready, when it says nothing of it or the default: 300 s.
    pub toleration: Duration,
    /// Between two nodes of a zone that get the taint which evicts: 10 s.
    pub taint_interval: Duration,
    /// How long the garbage collector of pods distrusts that a node is gone: 40 s.
    pub quarantine: Duration,
    /// How long a volume stays attached to a node that does not answer, when no pod uses it there: 6 min.
    pub detach_wait: Duration,
    /// How long the scheduler waits for a volume on the node that it chose: 10 min.
    pub bind_timeout: Duration,
    /// Before the second restart of a container; doubled from one to the next: 10 s.
    pub backoff: Duration,
    /// The longest wait before a restart: 5 min.
    pub backoff_max: Duration,
    /// A container that has run for so long is restarted at once: 10 min.
    pub backoff_reset: Duration,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            zones: ["a", "b", "c"].map(|zone| (zone.to_string(), 2)).to_vec(),
            cpu: "4".into(),
            memory: "8Gi".into(),
            images: BTreeMap::new(),
            tick: Duration::from_millis(100),
            lease_interval: Duration::from_millis(500),
            node_grace: Duration::from_secs(3),
            toleration: Duration::from_secs(3),
            taint_interval: Duration::ZERO,
            quarantine: Duration::from_secs(2),
            detach_wait: Duration::from_secs(5),
            bind_timeout: Duration::from_secs(10),
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(5),
            backoff_reset: Duration::from_secs(60),
        }
    }
}
