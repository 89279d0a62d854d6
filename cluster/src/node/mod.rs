//! The shell of a cluster's node: threads, sockets and clocks around the pieces that decide.
//!
//! ```text
//!   boot ──► Boot ── serve(replica) ──► Node ── sink, source, propose, status
//!     │                                  │
//!     └─ control task, raft log thread,  └─ repair, bootstrap, hints, what others ask of the replica
//!        transport
//! ```
//!
//! It performs effects and decides nothing. The control plane runs from [`boot`] on: a node whose data takes minutes to open votes
//! meanwhile, and answers that it is busy to everything else. Stopping goes the other way: background work, connections, the control
//! plane's log.
//!
//! Locks: those of [`Shared`] are held for a moment, alone, and never across an `await`; [`Shared::note_data`] has one that is made for it.

mod bootstrap;
mod control;
mod hints;
mod options;
mod places;
mod race;
mod repair;
mod serve;
mod shared;
mod sink;
mod source;
mod status;
#[cfg(test)]
mod tests;

pub use hints::HintStatus;
pub use options::{Directory, Options, ReadOptions};
pub use shared::Facts;
pub use status::{Shards, Status};

use crate::control::{
    ControlError, Controller, Flags, How, Make, Me, NodeFile, Sighting, Start, decide, raft_dir,
};
use crate::jobs;
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::raft::{Durable, Store};
use crate::read::{self, ClusterSource};
use crate::state::{Command, Outcome};
use crate::stop::{Reason, Stop};
use crate::transport::{Listener, Run, Stranger, Token, Waiting};
use crate::view::{Health, View};
use crate::write::{Dictionary, Receiver, Session};
use control::{Control, INPUTS_MAX, Input};
use model::{Replica, Sink, Source};
use parking_lot::Mutex;
use shared::{Data, Joining, Shared};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// What expires so soon is not read: by the clock of another copy it may be hidden already, and copies that answer for the same range are equal.
const CLOCKS_DIFFER_MS: i64 = 60_000;

/// How long leadership may take to go to another node before this one stops all the same, and how often that is looked at.
const LEAVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);
const LEAVE_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Why a node cannot start, or cannot do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The directory, the settings and the cluster do not fit together, or the disk fails.
    #[error(transparent)]
    Refused(#[from] Stop),
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
    /// The change was not made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

impl Error {
    /// Of what kind this is where it keeps a node from starting.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Refused(stop) => stop.reason,
            Error::Listen { .. } | Error::Control(_) | Error::Stopped => Reason::Other,
        }
    }
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A node that knows who it is and whose control plane runs; the engine can be opened with its [`Directory`].
pub struct Boot {
    shared: Arc<Shared>,
    control: Task,
    directory: Directory,
    address: SocketAddr,
    starts: u64,
    /// Nobody else uses the control plane's files.
    lock: Option<Box<dyn Send + Sync>>,
}

/// What is found on the disk.
struct Found {
    start: Start,
    store: Store,
    durable: Durable,
    lock: Box<dyn Send + Sync>,
}

/// [`start`], and then [`Starting::joined`].
///
/// # Errors
/// As both.
pub async fn boot(
    options: Options,
    vfs: Arc<dyn disk::Vfs>,
    existing: Option<Directory>,
) -> Result<Boot, Error> {
    start(options, vfs, existing).await?.joined().await
}

/// Finds out who this node is: the first of a new cluster, one that joins another, or one that comes back. `existing` is what the data
/// directory's identity file says.
///
/// # Errors
/// When the directory and the settings do not fit together; the message names the way out.
pub async fn start(
    options: Options,
    vfs: Arc<dyn disk::Vfs>,
    existing: Option<Directory>,
) -> Result<Starting, Error> {
    let began = Instant::now();
    let token = match &options.token {
        None => None,
        Some(text) => Some(Token::new(text).ok_or_else(|| {
            Stop::other("the join token must be 1 to 1024 visible ASCII characters without spaces")
        })?),
    };
    let listen = &options.listen;
    let listener = Listener::bind(listen)
        .await
        .map_err(|error| Error::Listen { address: listen.clone(), why: error.to_string() })?;
    let address = listener.address();
    let advertised = options.advertise.clone().unwrap_or_else(|| address.to_string());

    let flags = Flags {
        join: options.join.clone(),
        own: vec![listen.clone(), address.to_string(), advertised.clone()],
        rejoin: options.rejoin,
    };
    let known = existing.map(Into::into);
    let (disk, dir, random) = (vfs.clone(), options.data_dir.clone(), options.random.clone());
    let finding = spawn_blocking(move || find(&flags, known, &*disk, disk.clone(), &dir, &*random));
    let Found { start, store, durable, lock } = finding.await.map_err(|_| Error::Stopped)??;

    let me = Me {
        address: advertised,
        http_address: options.http_address.clone(),
        zone: options.zone.clone(),
        capacity: options.capacity,
        standby: options.standby,
        // As everybody says it, from the first frame on.
        boot: (options.random)().max(1),
    };
    let make = Make {
        shards: existing.map_or(options.shards, |directory| directory.shards),
        replication_factor: options.replication_factor,
    };
    let (file, how) = (start.file, start.how);
    let run = Run { starts: file.starts, boot: me.boot };
    let mut effects = Vec::new();
    let controller = Controller::new(start, me, make, durable, options.control, 0, &mut effects)?;
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    let stranger = Stranger { node: file.node, run, token: token.clone() };
    let shared = Shared::new(options, vfs, token, inputs, began, (&file).into());
    let waiting = Waiting::start(listener.clone(), stranger.clone(), shared.bounds);
    let mut joining = Some(Joining { listener, node: file.node, run, waiting });
    if how == How::Open {
        // The cluster is known before anything has to be sent.
        if let Some(joining) = joining.take() {
            joining.open(&shared, file.cluster);
        }
    }
    let control = Control { shared: shared.clone(), controller, store, file, began, joining, stranger };
    let control = Task(control.start(effects, queue, existing.is_some()));

    Ok(Starting { shared, control, address, disk: file.disk, starts: file.starts, lock })
}

/// A node that may not know its cluster yet. Others are told so, and its control plane runs.
pub struct Starting {
    shared: Arc<Shared>,
    control: Task,
    address: SocketAddr,
    disk: u128,
    starts: u64,
    lock: Box<dyn Send + Sync>,
}

impl Starting {
    /// For who asks meanwhile.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Returns when the cluster is known: joining waits for as long as there is none, or until this node is told to make one ([`Handle::create`]).
    ///
    /// # Errors
    /// When the directory, the settings and the cluster do not fit together; the message names the way out.
    pub async fn joined(self) -> Result<Boot, Error> {
        let Starting { shared, control, address, disk, starts, lock } = self;
        let mut views = shared.views();
        let current = tokio::select! {
            current = views.wait_for(Option::is_some) => current.ok().and_then(|current| current.clone()),
            stop = shared.failed() => return Err(stop.into()),
        };
        let view = current.ok_or(Error::Stopped)?.view;
        let directory = Directory { cluster: view.cluster, node: view.me.0, disk, shards: view.shards() };
        Ok(Boot { shared, control, directory, address, starts, lock: Some(lock) })
    }
}

/// What can be known and asked of a node from its start on, whatever it is waiting for.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Who it is.
    pub fn facts(&self) -> Facts {
        self.0.facts()
    }

    /// The cluster, as soon as it is known to this node.
    pub fn view(&self) -> Option<Arc<View>> {
        self.0.current().map(|current| current.view)
    }

    /// Makes a cluster with this node as the first, if it waits for one. It is durable when this returns, and the others that wait join.
    ///
    /// # Errors
    /// When it is a member of one, or may be.
    pub async fn create(&self) -> Result<(), Error> {
        self.0.create().await
    }
}

/// Reads what there is, decides what this start is, and counts it.
fn find(
    flags: &Flags,
    existing: Option<crate::control::Directory>,
    vfs: &dyn disk::Vfs,
    shared_vfs: Arc<dyn disk::Vfs>,
    dir: &std::path::Path,
    random: &dyn Fn() -> u128,
) -> Result<Found, Error> {
    let folder = dir.join("cluster");
    vfs.create_dir_all(&folder).map_err(Stop::from)?;
    let lock = vfs.lock(&folder.join("lock")).map_err(Stop::from)?.ok_or_else(|| {
        Stop::other(format!(
            "another process has the data directory {} open; stop it, or choose another with --data-dir",
            dir.display()
        ))
    })?;
    let file = NodeFile::read(vfs, dir).map_err(Stop::from)?;
    let raft = raft_dir(dir);
    vfs.create_dir_all(&raft).map_err(Stop::from)?;
    let (store, durable) = Store::open(shared_vfs, &raft, None).map_err(Stop::from)?;
    let start = decide(flags, existing.as_ref(), file.as_ref(), &durable, &mut || random())?;
    // Before anything is said to others.
    start.file.write(vfs, dir).map_err(Stop::from)?;
    Ok(Found { start, store, durable, lock })
}

impl Boot {
    /// Who the data directory belongs to, or is to belong to.
    pub fn directory(&self) -> Directory {
        self.directory
    }

    /// The cluster as far as it is known: what was agreed on when the node was last here, at least.
    pub fn view(&self) -> Arc<View> {
        self.shared.current().expect("BUG: a node boots without a view").view
    }

    /// Where this node listens for others.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the node must stop before its data is open, with the reason.
    pub async fn failed(&self) -> Stop {
        self.shared.failed().await
    }

    /// Serves other nodes and this one's clients from `replica`, whose directory has the identity by now.
    pub async fn serve(self, replica: Arc<dyn Replica>) -> Result<Arc<Node>, Error> {
        let Boot { shared, control, directory, address, starts, lock } = self;
        let (suspects, inbox) = mpsc::channel(repair::EVENTS_MAX);
        let session = Session::new(starts, (shared.options.random)() as u32);
        let opening = shared.clone();
        let opened =
            spawn_blocking(move || hints::Hints::open(&opening)).await.map_err(|_| Error::Stopped)?;
        let (hints, replaying) = opened?;
        let (filling, filling_inbox) = bootstrap::Filling::new();
        let opened = shared.open(Data {
            replica,
            receiver: Receiver::default(),
            dictionary: Arc::new(Dictionary::new(directory.shards)),
            session,
            described: Mutex::default(),
            reading: Arc::default(),
            serving: serve::Serving::new(),
            hints,
            suspects: suspects.clone(),
            repair: Mutex::default(),
            filling,
        });
        assert!(opened, "BUG: a node serves twice");
        shared.inputs.send(Input::Identified).await.map_err(|_| Error::Stopped)?;
        let fill = Task(tokio::spawn(bootstrap::run(shared.clone(), filling_inbox, suspects.clone())));
        let repair = Task(tokio::spawn(repair::run(shared.clone(), suspects, inbox)));
        let replay = Task(tokio::spawn(hints::replay(shared.clone(), replaying)));
        let asking = Arc::new(source::Asking { shared: shared.clone(), runtime: runtime::Handle::current() });
        let running = Mutex::new(Some(Running { control, repair, fill, replay, _lock: lock }));
        Ok(Arc::new(Node { shared, asking, address, running }))
    }
}

/// A node at work. Every method may be called from any thread.
pub struct Node {
    shared: Arc<Shared>,
    asking: Arc<source::Asking>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
}

struct Running {
    control: Task,
    repair: Task,
    fill: Task,
    replay: Task,
    _lock: Option<Box<dyn Send + Sync>>,
}

impl Node {
    /// The cluster as this node sees it now.
    pub fn view(&self) -> Arc<View> {
        self.current().view
    }

    fn current(&self) -> shared::Current {
        self.shared.current().expect("BUG: a node serves without a view")
    }

    fn data(&self) -> &Data {
        self.shared.data().expect("BUG: a node serves without data")
    }

    /// Who this is.
    pub fn me(&self) -> NodeId {
        self.view().me
    }

    /// Where it listens for other nodes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where writes go. `None`: as durable as the namespace says.
    pub fn sink(&self, consistency: Option<Consistency>) -> Arc<dyn Sink> {
        Arc::new(sink::ClusterSink { shared: self.shared.clone(), consistency })
    }

    /// Before a read. While the cluster is not known to have data, this node may just not have heard of it, nor of the placement under which it
    /// came, and would answer from what it holds alone: so it waits until it knows what was agreed on before now. Afterwards, never.
    ///
    /// # Errors
    /// When no leader says so in time.
    pub async fn before_read(&self, within: std::time::Duration) -> Result<(), model::Error> {
        if self.current().view.has_data {
            return Ok(());
        }
        match tokio::time::timeout(within, self.catch_up()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(model::Error::Busy {
                reason: "the control plane has no leader that says whether there is any data yet",
                retry_after_s: 1,
            }),
        }
    }

    /// Where reads come from, after [`Node::before_read`]. Blocking, as every source.
    pub fn source(&self, options: ReadOptions) -> Arc<dyn Source> {
        let data = self.data();
        let current = self.current();
        if current.alone {
            return data.replica.clone();
        }
        let own = &self.shared.options;
        let timeout = options.timeout.unwrap_or(own.read_timeout);
        let options = read::Options {
            consistency: options.consistency.unwrap_or_else(|| self.shared.read_consistency()),
            partial: options.partial,
            timeout_ms: timeout.as_millis() as u64,
            fetch_bytes_max: own.fetch_bytes_max,
            threads: serve::threads(),
            oldest: match self.shared.oldest(&current.view) {
                i64::MIN => i64::MIN,
                oldest => oldest.saturating_add(CLOCKS_DIFFER_MS),
            },
        };
        let shared = self.shared.clone();
        let view = Arc::new(move || shared.current().expect("BUG: a node serves without a view").view);
        let (asking, reading) = (self.asking.clone(), data.reading.clone());
        Arc::new(ClusterSource::new(view, data.replica.clone(), asking, reading, options))
    }

    /// Changes what is agreed on, through any node.
    ///
    /// # Errors
    /// When the change makes no sense, or no leader took it in time.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        self.shared.propose(command).await
    }

    /// Resolves when everything that was agreed on before now is in [`Node::view`].
    ///
    /// # Errors
    /// When no leader confirmed it in time.
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.shared.read().await
    }

    /// How the cluster and this node's part in it are.
    pub fn status(&self) -> Status {
        let current = self.current();
        let transport = self.shared.transport();
        let health = self.shared.health();
        let (under, unavailable) = current.view.under_replicated();
        Status {
            shards: Shards {
                total: current.view.shards(),
                under_replicated: under as u32,
                unavailable: unavailable as u32,
                moving: current.view.placement.moving().count() as u32,
                min_copies: current.view.fewest_copies() as u32,
            },
            health: health.nodes,
            outlook: self.shared.outlook(),
            short_ms: self.shared.short_ms(),
            copies: health.copies,
            voters: health.voters,
            view: current.view,
            transport: transport.map(|transport| transport.counters().snapshot()).unwrap_or_default(),
            queues: transport.map(|transport| transport.queues()).unwrap_or_default(),
            repair: *self.data().repair.lock(),
            hints: self.data().hints.status(),
            damage: self.data().replica.damage(),
            control_refused: self.shared.control_refusals(),
        }
    }

    /// What a job would do, as this node knows the cluster. Nothing is changed.
    ///
    /// # Errors
    /// When it would be refused, with the same words.
    pub async fn preview(&self, kind: jobs::Kind, lost: bool) -> Result<jobs::Preview, Error> {
        let state = self.shared.state().await?;
        let health = self.shared.health().nodes;
        let computed = spawn_blocking(move || {
            let known: BTreeMap<NodeId, u64> =
                health.iter().map(|(node, seen)| (*node, seen.beat.report.data_bytes)).collect();
            let sizes = jobs::sizes(state.placement(), |node| known.get(&node).copied().unwrap_or(0));
            let size = |shard: model::Shard| sizes.get(usize::from(shard.0)).copied().unwrap_or(0);
            let is_away = |seen: &Sighting| seen.health == Health::Down;
            let away = health.iter().filter(|(_, seen)| is_away(seen)).map(|(node, _)| *node).collect();
            jobs::preview(&state, &kind, lost, &away, size)
        });
        let preview = computed.await.map_err(|_| Error::Stopped)?;
        preview.map_err(|refusal| Error::Control(ControlError::Refused(refusal)))
    }

    /// Bytes a second of blocks that a node takes from others, as this one is set up.
    pub fn copying_limit(&self) -> u64 {
        self.shared.options.bootstrap_bytes_per_second
    }

    /// Bytes a second of blocks that may be copied to this node, whatever the cluster allows besides; 0 for no limit.
    pub async fn limit_filling(&self, bytes_per_s: u64) {
        self.data().filling.limit(bytes_per_s).await;
    }

    /// Copies that this node makes wait, or go on.
    pub async fn pause_filling(&self, is_paused: bool) {
        self.data().filling.pause(is_paused).await;
    }

    /// How long clients wait of late, and how long they do when nothing is copied: filling yields to them.
    pub async fn tell_latency(&self, latency: std::time::Duration, usual: std::time::Duration) {
        self.data().filling.foreground(latency, usual).await;
    }

    /// How far filling is.
    pub fn filling(&self) -> crate::bootstrap::Progress {
        self.data().filling.progress()
    }

    /// Resolves when the node must stop, with the reason and the way out: another process runs with a copy of the directory,
    /// the directory is an old copy, the node was removed, the control plane's log failed.
    pub async fn failed(&self) -> Stop {
        self.shared.failed().await
    }

    /// This node stops soon: somebody else leads the control plane, if there is anybody, and other nodes ask it last. Returns when that is so, or
    /// after a while.
    pub async fn leave(&self) {
        let leave = self.shared.inputs.send(Input::Event(crate::control::Event::Leave));
        if !matches!(tokio::time::timeout(LEAVE_WITHIN, leave).await, Ok(Ok(()))) {
            return;
        }
        let leads = || {
            let view = self.view();
            let other =
                |(id, peer): (&NodeId, &crate::view::Peer)| *id != view.me && peer.health == Health::Up;
            view.leader == Some(view.me) && view.nodes.iter().any(other)
        };
        let end = Instant::now() + LEAVE_WITHIN;
        while leads() && Instant::now() < end {
            tokio::time::sleep(LEAVE_LOOK).await;
        }
    }

    /// Ends background work and connections, in order, and closes the control plane's log. What was acknowledged is durable before.
    pub async fn stop(&self) {
        let Some(Running { mut control, repair, fill, replay, _lock }) = self.running.lock().take() else {
            return;
        };
        drop((repair, fill, replay));
        if let Some(transport) = self.shared.transport() {
            transport.stop().await;
        }
        let hints = self.data().hints.clone();
        let _ = spawn_blocking(move || hints.stop()).await;
        if self.shared.inputs.send(Input::Stop).await.is_ok() {
            let _ = (&mut control.0).await;
        }
    }
}
