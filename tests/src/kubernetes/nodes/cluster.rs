//! A whole cluster: API server, controllers, machines.

use super::controllers::Controller;
use super::host::{Host, Kubelet};
use super::kubelet::Agent;
use super::network::Network;
use super::parameters::Parameters;
use super::shared::{Machines, Shared};
use super::volumes::{LOCAL, NETWORK};
use super::world::{LEASES, World};
use crate::kubernetes::api::ApiServer;
use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A storage class of folders on hosts, which go with their claims.
pub const CLASS_LOCAL: &str = "local";
/// The same, and the folders stay.
pub const CLASS_LOCAL_RETAIN: &str = "local-retain";
/// A storage class of volumes that any host can attach, and that can grow.
pub const CLASS_NETWORK: &str = "network";

/// A Kubernetes cluster. It lives in namespaces of the test's own ([`crate::namespaces::inside`]); all of it ends when it is dropped.
pub struct Kubernetes {
    /// Where all meet.
    pub api: ApiServer,
    pub(super) shared: Arc<Shared>,
    client: kube::Client,
    handle: Handle,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// Starts everything, with what is on disk below `dir`, and returns when all nodes are ready.
    pub fn start(dir: &Path, parameters: Parameters) -> Kubernetes {
        let network = Network::new();
        let api = ApiServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let hosts = hosts(dir, &parameters);
        for host in &hosts {
            fs::create_dir_all(host.disk()).expect("a host's disk can be made");
        }
        fs::create_dir_all(dir.join("network")).expect("the network's disk can be made");
        super::dns::write(&dir.join("hosts.txt"), "127.0.0.1 localhost\n")
            .expect("the hosts file can be made");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let entered = handle.enter();
        let client = api.client("nodes-test");
        let (world, watches) = World::new(&api.client("nodes-world"));
        drop(entered);
        let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
        let machines = Mutex::new(Machines { hosts, network });
        let told = Mutex::new(BTreeMap::new());
        let shared = Arc::new(Shared { world, machines, parameters, dir: dir.into(), told });

        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let loops = Loops { names, shared: shared.clone() };
        let clients: Vec<kube::Client> = {
            let _entered = handle.enter();
            let agents = loops.names.iter().map(|name| format!("kubelet/{name}"));
            let controllers = CONTROLLERS.map(|name| format!("{name}/v1.36.2"));
            controllers.into_iter().chain(agents).map(|agent| api.client(&agent)).collect()
        };
        let own = client.clone();
        let thread = std::thread::Builder::new().name("nodes".into()).spawn(move || {
            runtime.block_on(async move {
                prepare(&own).await.expect("an empty API server takes what every cluster has");
                for watch in watches {
                    tokio::spawn(watch);
                }
                loops.shared.world.heard().await;
                loops.spawn(clients);
                // Nobody waits for it any more when the test has ended.
                let _ = ready.send(());
                let _ = stopped.await;
            });
            // Aborts all loops, before the processes go.
            drop(runtime);
        });
        let thread = Some(thread.expect("a thread can be started"));
        is_ready.recv().expect("the loops begin; see above");
        let kubernetes = Kubernetes { api, shared, client, handle, stop: Some(stop), thread };
        kubernetes.await_nodes();
        kubernetes
    }

    fn await_nodes(&self) {
        crate::until::until("all nodes to be ready", crate::process::BOUND, || {
            let world = self.shared.world.snapshot();
            let ready = world.nodes.iter().filter(|node| super::lifecycle::readiness(node) == "True").count();
            let all = self.shared.machines.lock().hosts.len();
            if ready == all { Ok(()) } else { Err(format!("{ready} of {all}")) }
        });
    }

    /// A client of the API server, for use with [`Kubernetes::wait`].
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Does what a test wants done with the client, and waits for it.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        // The other end of a client lives on the thread of the loops, so this thread may wait.
        self.handle.block_on(future)
    }

    /// Runs something beside the controllers, until it ends or the cluster does.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(future);
    }

    /// The same for requests that do not fail.
    pub fn must<T>(&self, future: impl Future<Output = kube::Result<T>>) -> T {
        self.wait(future).unwrap_or_else(|error| panic!("the API server: {error}"))
    }

    /// The folder that everything is in.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the loops of nodes have panicked; see above");
        }
        let mut machines = self.shared.machines.lock();
        let Machines { hosts, network } = &mut *machines;
        for host in hosts {
            host.power_off(network, Timestamp::now());
        }
    }
}

/// The user agents of the controllers, in the order in which they are started.
const CONTROLLERS: [&str; 4] = ["kube-scheduler", "kube-controller-manager", "volume-controller", "coredns"];

struct Loops {
    names: Vec<String>,
    shared: Arc<Shared>,
}

impl Loops {
    fn spawn(self, clients: Vec<kube::Client>) {
        let mut clients = clients.into_iter();
        let mut controller =
            || Controller { shared: self.shared.clone(), client: clients.next().expect("a client each") };
        tokio::spawn(controller().schedule());
        tokio::spawn(controller().lifecycle());
        tokio::spawn(controller().volumes());
        tokio::spawn(controller().names());
        for (index, (name, client)) in self.names.into_iter().zip(clients).enumerate() {
            let agent = Agent { shared: self.shared.clone(), index, name, client };
            tokio::spawn(agent.clone().heartbeat());
            tokio::spawn(agent.run());
        }
    }
}

fn hosts(dir: &Path, parameters: &Parameters) -> Vec<Host> {
    let mut hosts = vec![];
    for (zone, count) in &parameters.zones {
        for number in 1..=*count {
            let name = format!("{zone}{number}");
            hosts.push(Host {
                dir: dir.join("hosts").join(&name),
                machine_id: format!("{name}-machine-1"),
                name,
                zone: zone.clone(),
                number: hosts.len() + 1,
                kubelet: Kubelet::Working,
                is_plugged: true,
                boot: 1,
                records: BTreeMap::new(),
            });
        }
    }
    hosts
}

/// What every cluster has before anything runs in it.
async fn prepare(client: &kube::Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["default", "kube-system", LEASES] {
        if namespaces.get_opt(name).await?.is_none() {
            namespaces
                .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}}))?)
                .await?;
        }
    }
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = |name: &str, provisioner: &str, policy: &str, more: Value| {
        let mut class = json!({"metadata": {"name": name}, "provisioner": provisioner, "reclaimPolicy": policy,
            "volumeBindingMode": "WaitForFirstConsumer"});
        for (key, value) in more.as_object().into_iter().flatten() {
            class[key] = value.clone();
        }
        class
    };
    for class in [
        class(CLASS_LOCAL, LOCAL, "Delete", json!({})),
        class(CLASS_LOCAL_RETAIN, LOCAL, "Retain", json!({})),
        class(CLASS_NETWORK, NETWORK, "Delete", json!({"allowVolumeExpansion": true})),
    ] {
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    }
    Ok(())
}
