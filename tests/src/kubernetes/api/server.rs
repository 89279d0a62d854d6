//! The server as a thing that a test starts: a port, a thread, and the switches.

use super::answer::answer;
use super::{Faults, Request, Shared, disruption, garbage};
use hyper::body::Incoming;
use hyper::header::USER_AGENT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running server. It ends when this is dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts a server there; port 0 is any. It has a thread of its own, so that tests need no runtime.
    pub fn start(listen: SocketAddr) -> ApiServer {
        let shared = Arc::new(Shared::default());
        let stop = watch::Sender::new(false);
        // The first listener is made here, so that the port is known and open when this returns.
        let socket = std::net::TcpListener::bind(listen)
            .unwrap_or_else(|error| panic!("listening for the API of Kubernetes at {listen}: {error}"));
        let address = socket.local_addr().expect("a socket that listens has an address");
        shared.faults.is_open.send_replace(true);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("kubernetes")
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let (own, stopped) = (shared.clone(), stop.subscribe());
        let thread = std::thread::spawn(move || {
            runtime.spawn(settle(own.clone()));
            runtime.block_on(serve(own, socket, address, stopped));
            // What still waits for somebody who will not come is dropped.
            runtime.shutdown_background();
        });
        ApiServer { address, shared, stop, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a file with which kubectl, the operator and other clients find it.
    pub fn kubeconfig(&self, path: &Path) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster: {{server: \"{}\"}}\n\
             contexts:\n- name: test\n  context: {{cluster: test, user: test, namespace: default}}\nusers:\n- name: test\n  user: {{}}\n",
            self.url()
        );
        std::fs::write(path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    }

    /// A client that calls itself so. It is to be made within a runtime, whose it is then. It asks only once: kube's own would ask for minutes
    /// again what is refused with 429, 503 or 504, evictions too.
    pub fn client(&self, user_agent: &str) -> kube::Client {
        let mut config = kube::Config::new(self.url().parse().expect("our URL is one"));
        let value = user_agent.parse().expect("a user agent has no control characters");
        config.default_retry = false;
        config.headers.push((USER_AGENT, value));
        kube::Client::try_from(config).expect("a client without certificates can be made")
    }

    /// What is to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What was asked for, in its order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.audit.all()
    }

    /// Forgets what was asked for.
    pub fn forget_requests(&self) {
        self.shared.audit.clear();
    }

    /// Holds only so many changes for watches: who is further behind is told 410.
    pub fn keep_changes(&self, count: usize) {
        self.shared.state.lock().store.keep(count);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It has told by itself if it panicked.
            let _ = thread.join();
        }
    }
}

/// Listens while the server is up, until it is to stop.
async fn serve(
    shared: Arc<Shared>,
    socket: std::net::TcpListener,
    address: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let mut ups = shared.faults.ups();
    let mut first = Some(socket);
    loop {
        let listener = match first.take() {
            Some(socket) => {
                socket.set_nonblocking(true).expect("a socket can be made to not block");
                TcpListener::from_std(socket)
            }
            None => TcpListener::bind(address).await,
        };
        let listener = listener.unwrap_or_else(|error| panic!("listening again at {address}: {error}"));
        shared.faults.is_open.send_replace(true);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(connection(shared.clone(), stream));
                    }
                }
                // Those that are over are forgotten.
                Some(_) = connections.join_next() => {}
                _ = ups.wait_for(|up| !*up) => break,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        drop(listener);
        connections.shutdown().await;
        shared.faults.is_open.send_replace(false);
        tokio::select! {
            _ = ups.wait_for(|up| *up) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// One connection, until it ends or its client is cut off.
async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let client = Arc::new(Mutex::new(String::new()));
    let mut turned = shared.faults.subscribe();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let agent =
            request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        *client.lock() = agent.into();
        answer(shared.clone(), request)
    });
    // A client may keep a connection for as long as it likes; one that ends in the moment of a request would be a fault that nobody asked for.
    let serving =
        http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            // How it ended is of no interest: clients go as they like.
            _ = &mut serving => return,
            _ = turned.changed() => {
                let client = client.lock().clone();
                if !client.is_empty() && shared.faults.is_cut(&client) {
                    return;
                }
            }
        }
    }
}

/// Does by itself what follows from what has changed.
async fn settle(shared: Arc<Shared>) {
    /// What follows from what follows ends somewhere; a mistake that does not is to be seen in a test, not to burn a processor.
    const ROUNDS_MAX: usize = 1_000;
    let mut newest = shared.state.lock().store.subscribe();
    loop {
        newest.mark_unchanged();
        for _ in 0..ROUNDS_MAX {
            let is_any = {
                let mut state = shared.state.lock();
                garbage::collect(&mut state) | disruption::observe(&mut state, Timestamp::now())
            };
            if !is_any {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Evictions are forgotten with time.
        let _ = tokio::time::timeout(Duration::from_secs(5), newest.changed()).await;
    }
}
