//! The network of pods, inside of the namespaces of the test.
//!
//! ```text
//!   pod 10.244.<host>.<n>  eth0 ─── v<host>-<n> ─ br0 10.244.0.1   the test, the operator, kubelets
//! ```
//!
//! A host is unplugged by taking the outer ends of its pods down. An address is given to a second pod only when all others of its host
//! have been used: who still talks to an address of a dead pod meets nobody rather than somebody else.

use crate::namespaces::{attempt, prepare, run};
use std::collections::{BTreeMap, BTreeSet};

/// The last part of addresses, without those of networks and of everybody.
const LAST_MAX: u8 = 254;

/// A bridge, and what hangs on it.
#[derive(Debug)]
pub struct Network {
    last: BTreeMap<usize, u8>,
    used: BTreeSet<(usize, u8)>,
}

/// Where a pod's containers are in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The network namespace.
    pub namespace: String,
    /// The pod's address.
    pub ip: String,
    host: usize,
    number: u8,
}

impl Network {
    /// Makes the bridge. Panics outside of namespaces of the test's own.
    pub fn new() -> Network {
        prepare();
        run("ip link add br0 type bridge");
        run("ip addr add 10.244.0.1/16 dev br0");
        run("ip link set br0 up");
        Network { last: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// An address and a namespace for a new pod on a host.
    pub fn attach(&mut self, host: usize, is_plugged: bool) -> Result<Sandbox, String> {
        let mut number = self.last.get(&host).copied().unwrap_or(1);
        loop {
            number = if number == LAST_MAX { 2 } else { number + 1 };
            if !self.used.contains(&(host, number)) {
                break;
            }
            if self.used.len() >= usize::from(LAST_MAX) {
                return Err(format!("no address is left for a pod on host {host}"));
            }
        }
        self.last.insert(host, number);
        let sandbox = Sandbox {
            namespace: format!("pod{host}-{number}"),
            ip: format!("10.244.{host}.{number}"),
            host,
            number,
        };
        let Sandbox { namespace, ip, .. } = &sandbox;
        let link = sandbox.link();
        let state = if is_plugged { "up" } else { "down" };
        attempt(&format!("ip netns add {namespace}"))?;
        self.used.insert((host, number));
        attempt(&format!("ip link add {link} type veth peer name eth0 netns {namespace}"))?;
        attempt(&format!("ip link set {link} master br0 {state}"))?;
        attempt(&format!("ip -n {namespace} addr add {ip}/16 dev eth0"))?;
        attempt(&format!("ip -n {namespace} link set lo up"))?;
        attempt(&format!("ip -n {namespace} link set eth0 up"))?;
        Ok(sandbox)
    }

    /// The pod is gone.
    pub fn detach(&mut self, sandbox: &Sandbox) -> Result<(), String> {
        self.used.remove(&(sandbox.host, sandbox.number));
        // The link first: a namespace goes only when its last process has, and until then the address would answer.
        let link = attempt(&format!("ip link del {}", sandbox.link()));
        attempt(&format!("ip netns del {}", sandbox.namespace))?;
        link
    }
}

impl Default for Network {
    fn default() -> Network {
        Network::new()
    }
}

impl Sandbox {
    fn link(&self) -> String {
        format!("v{}-{}", self.host, self.number)
    }

    /// Lets no more than so many kilobits a second through to the pod.
    pub fn slow(&self, kilobits: u32) -> Result<(), String> {
        attempt(&format!(
            "tc qdisc replace dev {} root tbf rate {kilobits}kbit burst 16kb latency 2s",
            self.link()
        ))
    }

    /// Puts the pod's cable in, or takes it out.
    pub fn plug(&self, is_plugged: bool) -> Result<(), String> {
        attempt(&format!("ip link set {} {}", self.link(), if is_plugged { "up" } else { "down" }))
    }
}
