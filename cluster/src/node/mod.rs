//! The shell of a cluster's node: threads, sockets and clocks around the pieces that decide.
//!
//! ```text
//!   boot ──► Boot ── serve(replica) ──► Node ── sink, source, propose, status
//!                                        │
//!                                        └─ background: control, hints, repair
//! ```
//!
//! It performs effects and decides nothing. Stopping goes in order: no new requests from others, background work ends, the control
//! plane's log is closed last.

mod options;
mod status;

pub use options::{Directory, Options, ReadOptions};
pub use status::{Shards, Status};

use crate::placement::{Node as Member, NodeId, NodeState, Placement, Policy, compute};
use crate::quorum::Consistency;
use crate::view::{Health, Namespace, Peer, View};
use model::{Replica, SeriesKey, Sink, Source};
use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;
use tokio::sync::watch;

/// Why a node cannot start, or cannot do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The directory, the settings and the cluster do not fit together.
    #[error("{0}")]
    Refused(String),
    /// The address for other nodes cannot be listened on.
    #[error(
        "cannot listen on {address} for other nodes: {why}; choose another address with --cluster-listen"
    )]
    Listen {
        /// What was asked for.
        address: String,
        /// The operating system's message.
        why: String,
    },
    /// A file of the control plane.
    #[error("{0}")]
    Disk(String),
    /// The control plane did not agree in time, or not at all.
    #[error("the control plane did not take the change: {0}")]
    Control(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// A node that knows who it is and whose control plane runs; the engine can be opened with its [`Directory`].
pub struct Boot {
    options: Options,
    directory: Directory,
}

/// Finds out who this node is: the first of a new cluster, one that joins another, or one that comes back.
///
/// # Errors
/// When the directory, the settings and the cluster do not fit together; the message names the way out.
pub async fn boot(
    options: Options,
    vfs: Arc<dyn disk::Vfs>,
    existing: Option<Directory>,
) -> Result<Boot, Error> {
    let _ = vfs;
    let random = &options.random;
    let shards = options.shards;
    let directory =
        existing.unwrap_or_else(|| Directory { cluster: random(), node: random(), disk: random(), shards });
    Ok(Boot { options, directory })
}

impl Boot {
    /// Who the data directory belongs to, or is to belong to.
    pub fn directory(&self) -> Directory {
        self.directory
    }

    /// Serves other nodes and this one's clients from `replica`.
    pub async fn serve(self, replica: Arc<dyn Replica>) -> Result<Arc<Node>, Error> {
        let view = Arc::new(alone(&self.options, &self.directory)?);
        let (failed, _) = watch::channel(None);
        Ok(Arc::new(Node { view, replica, failed }))
    }
}

/// The view of a cluster of one.
fn alone(options: &Options, directory: &Directory) -> Result<View, Error> {
    let refused = |error: crate::placement::Error| Error::Refused(error.to_string());
    let me = NodeId(directory.node);
    let capacity = NonZeroU32::new(options.capacity).unwrap_or(NonZeroU32::MIN);
    let member = Member { id: me, domain: options.zone.clone(), capacity, state: NodeState::Up };
    let factor = NonZeroU8::new(options.replication_factor).unwrap_or(NonZeroU8::MIN);
    let empty = Placement::empty(directory.shards).map_err(refused)?;
    let policy = Policy { replication_factor: factor, shards: directory.shards };
    let target = compute(&empty, &[member], &policy).map_err(refused)?;
    let peer = Peer {
        address: options.advertise.clone().unwrap_or_else(|| options.listen.clone()),
        http_address: options.http_address.clone(),
        zone: options.zone.clone(),
        capacity: capacity.get(),
        state: NodeState::Up,
        health: Health::Up,
        starts: 1,
    };
    Ok(View {
        cluster: directory.cluster,
        key: SeriesKey::of_cluster(directory.cluster),
        me,
        placement: empty.adopt(&target),
        replication_factor: factor.get(),
        nodes: BTreeMap::from([(me, peer)]),
        namespaces: BTreeMap::from([("default".to_owned(), Namespace::default())]),
        leader: Some(me),
        has_data: true,
    })
}

/// A node at work. Every method may be called from any thread.
pub struct Node {
    view: Arc<View>,
    replica: Arc<dyn Replica>,
    failed: watch::Sender<Option<String>>,
}

impl Node {
    /// The cluster as this node sees it now.
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Where writes go. `None`: as durable as the namespace says.
    pub fn sink(&self, consistency: Option<Consistency>) -> Arc<dyn Sink> {
        let _ = consistency;
        self.replica.clone()
    }

    /// Where reads come from. Blocking, as every source.
    pub fn source(&self, options: ReadOptions) -> Arc<dyn Source> {
        let _ = options;
        self.replica.clone()
    }

    /// How the cluster and this node's part in it are.
    pub fn status(&self) -> Status {
        Status::new(self.view())
    }

    /// Resolves when the node must stop, with the reason and the way out: another process runs with a copy of the directory,
    /// the directory is an old copy, the control plane's log failed.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // The sender lives as long as this node.
            _ => std::future::pending().await,
        }
    }

    /// Ends background work and connections, in order. What was acknowledged is durable before.
    pub async fn stop(&self) {}
}
