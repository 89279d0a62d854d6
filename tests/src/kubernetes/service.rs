//! What `kube-proxy` is for a Service: one address, behind which are all pods that are ready.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks at which pods are ready.
const LOOK: Duration = Duration::from_millis(100);
/// How long a pod may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// An address of pods. It goes when this is dropped.
pub struct Service {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
}

impl Service {
    /// The ready pods with these labels, at this port of theirs.
    pub fn start(kubernetes: &super::nodes::Kubernetes, labels: &str, port: u16) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let address = listener.local_addr().expect("a listener has an address");
        let (ready, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        kubernetes.spawn(follow(kubernetes.client(), labels.to_owned(), ready.clone(), ends.clone()));
        let is_over = ends.clone();
        thread::spawn(move || {
            let turn = AtomicUsize::new(0);
            for client in listener.incoming().flatten() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let pods: Vec<String> = ready.lock().clone();
                // With nobody ready the connection is refused, as it is there.
                let Some(ip) = pods.get(turn.fetch_add(1, Ordering::Relaxed) % pods.len().max(1)) else {
                    continue;
                };
                let pod = format!("{ip}:{port}");
                thread::spawn(move || connect(&client, &pod));
            }
        });
        Service { address, ends }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes whoever accepts.
        let _ = TcpStream::connect(self.address);
    }
}

async fn follow(client: Client, labels: String, ready: Arc<Mutex<Vec<String>>>, ends: Arc<AtomicBool>) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut pause = tokio::time::interval(LOOK);
    while !ends.load(Ordering::Relaxed) {
        pause.tick().await;
        if let Ok(list) = pods.list(&ListParams::default().labels(&labels)).await {
            *ready.lock() = list.items.iter().filter_map(ip_if_ready).collect();
        }
    }
}

fn ip_if_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let is_ready =
        status.conditions.iter().flatten().any(|known| known.type_ == "Ready" && known.status == "True");
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then(|| status.pod_ip.clone()).flatten()
}

fn connect(client: &TcpStream, pod: &str) -> Option<()> {
    let to = TcpStream::connect_timeout(&pod.parse().ok()?, CONNECT).ok()?;
    let (from, back) = (client.try_clone().ok()?, to.try_clone().ok()?);
    thread::scope(|scope| {
        scope.spawn(|| pipe(&from, &to));
        pipe(&back, client);
    });
    Some(())
}

fn pipe(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
