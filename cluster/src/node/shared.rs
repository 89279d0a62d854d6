//! What the parts of a node share: the view, the way to others, the data once it is open.

use super::bootstrap::Filling;
use super::control::{self, Input};
use super::hints::Hints;
use super::serve::Serving;
use super::{Error, Options};
use crate::control::{CopyStatus, NodeFile, Sighting};
use crate::jobs::Outlook;
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::state::{Command, Outcome, State};
use crate::stop::Stop;
use crate::transport::{
    Bounds, Emitter, Handler, Identity, Kind, Listener, Reply, Run, Token, Transport, Waiting,
};
use crate::view::{Namespace, View};
use crate::write::{Described, Dictionary, Receiver, Session};
use crate::{bootstrap, read, repair};
use bytes::Bytes;
use model::{Forgotten, Replica, Shard, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// A view and what follows from it.
#[derive(Clone)]
pub(super) struct Current {
    pub view: Arc<View>,
    /// Whether this node alone holds everything: then nobody else has to be asked.
    pub alone: bool,
}

/// How the nodes are, which of them vote, and the copies that they make.
#[derive(Clone, Default)]
pub(super) struct Health {
    pub nodes: Arc<Vec<(NodeId, Sighting)>>,
    pub voters: Arc<BTreeSet<NodeId>>,
    pub copies: Arc<BTreeMap<Shard, CopyStatus>>,
}

/// What the parts of a node share.
pub(super) struct Shared {
    pub options: Options,
    pub vfs: Arc<dyn disk::Vfs>,
    pub token: Option<Token>,
    pub bounds: Bounds,
    pub inputs: mpsc::Sender<Input>,
    pub began: Instant,
    facts: Mutex<Facts>,
    current: watch::Sender<Option<Current>>,
    health: Mutex<Health>,
    outlook: Mutex<Arc<Outlook>>,
    /// For how long shards had fewer copies than are wanted, since the start, as far as this node saw.
    short_ms: AtomicU64,
    failed: watch::Sender<Option<Stop>>,
    transport: OnceLock<Arc<Transport>>,
    data: OnceLock<Data>,
    control_refused: AtomicU64,
    /// Of requests that are answered and wait for slow replicas.
    pub lingering_bytes: AtomicUsize,
    /// Held by who tells the control plane that there is data.
    noting: tokio::sync::Mutex<()>,
}

/// The node's replica and what moves its rows.
pub(super) struct Data {
    pub replica: Arc<dyn Replica>,
    pub receiver: Receiver,
    pub dictionary: Arc<Dictionary>,
    pub session: Session,
    pub described: Mutex<Described>,
    pub reading: Arc<read::Shared>,
    pub serving: Serving,
    pub hints: Arc<Hints>,
    pub suspects: mpsc::Sender<repair::Event>,
    pub repair: Mutex<repair::Progress>,
    pub filling: Filling,
}

/// What is needed to be reached, kept until the cluster is known.
pub(super) struct Joining {
    pub listener: Listener,
    pub node: NodeId,
    pub run: Run,
    /// Answers meanwhile.
    pub waiting: Waiting,
}

/// What a node knows of itself before it knows its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is.
    pub node: NodeId,
    /// Its cluster, or that which it joins.
    pub cluster: Option<u128>,
    /// It waits until there is a cluster to join, or until it is told to make one.
    pub waits: bool,
}

impl From<&NodeFile> for Facts {
    fn from(file: &NodeFile) -> Facts {
        let cluster = (file.cluster != 0).then_some(file.cluster);
        Facts { node: file.node, cluster, waits: file.waits() }
    }
}

/// Tells when the one who holds it panics.
pub(super) struct Watched {
    shared: Arc<Shared>,
    what: &'static str,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = format!("{} ended by a bug, see the log; restart the node", self.what);
            self.shared.fail(Stop::other(why));
        }
    }
}

impl Joining {
    /// Serves others and is ready to call them.
    pub fn open(self, shared: &Arc<Shared>, cluster: u128) {
        let Joining { listener, node, run, waiting } = self;
        drop(waiting);
        let identity = Identity { cluster, node, run, token: shared.token.clone() };
        let seed = (shared.options.random)() as u64;
        let handler = Arc::new(Served(Arc::downgrade(shared)));
        let (transport, noticed) = Transport::start(listener, identity, shared.bounds, seed, handler);
        if shared.transport.set(transport).is_ok() {
            tokio::spawn(control::notice(noticed, Arc::downgrade(shared)));
        }
    }
}

impl Shared {
    pub fn new(
        options: Options,
        vfs: Arc<dyn disk::Vfs>,
        token: Option<Token>,
        inputs: mpsc::Sender<Input>,
        began: Instant,
        facts: Facts,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            options,
            vfs,
            token,
            bounds: Bounds::default(),
            inputs,
            began,
            facts: Mutex::new(facts),
            current: watch::channel(None).0,
            health: Mutex::default(),
            outlook: Mutex::default(),
            short_ms: AtomicU64::new(0),
            failed: watch::channel(None).0,
            transport: OnceLock::new(),
            data: OnceLock::new(),
            control_refused: AtomicU64::new(0),
            lingering_bytes: AtomicUsize::new(0),
            noting: tokio::sync::Mutex::new(()),
        })
    }

    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn wall(&self) -> Timestamp {
        (self.options.clock)()
    }

    pub fn facts(&self) -> Facts {
        *self.facts.lock()
    }

    pub fn set_facts(&self, facts: Facts) {
        *self.facts.lock() = facts;
    }

    /// Makes a cluster, if this node waits for one.
    pub async fn create(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let cluster = (self.options.random)().max(1);
        self.inputs.send(Input::Create { cluster, done }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?.map(drop)
    }

    /// `None` while the node joins.
    pub fn current(&self) -> Option<Current> {
        self.current.borrow().clone()
    }

    /// Forgets what is here of a shard that this node has given up at that epoch, if that is still so. As long as the view is looked at, no other
    /// takes its place ([`watch::Sender::borrow`] holds a lock that [`Shared::set_view`] waits for), and forgetting does not wait for the disk.
    pub fn forget(&self, shard: Shard, since: u64) {
        let Some(data) = self.data() else { return };
        let outcome = {
            let current = self.current.borrow();
            let given_up = |current: &Current| bootstrap::is_given_up(&current.view, shard, since);
            if !current.as_ref().is_some_and(given_up) {
                return;
            }
            data.replica.forget(shard)
        };
        match outcome {
            Ok(Forgotten { series: 0, blocks: 0 }) | Err(model::Error::Busy { .. }) => {}
            Ok(Forgotten { series, blocks }) => {
                tracing::info!(
                    shard = shard.0,
                    series,
                    blocks,
                    "what was left of a shard that others hold is removed"
                )
            }
            Err(error) => {
                tracing::warn!(shard = shard.0, %error, "what is left of a shard that others hold cannot be removed")
            }
        }
    }

    /// The epoch of the placement, if this node has accepted a newer one than that of `view`.
    pub fn newer_than(&self, view: &View) -> Option<u64> {
        let epoch = self.current.borrow().as_ref().map(|current| current.view.epoch());
        epoch.filter(|epoch| *epoch > view.epoch())
    }

    pub fn views(&self) -> watch::Receiver<Option<Current>> {
        self.current.subscribe()
    }

    pub fn set_view(&self, view: Arc<View>) {
        let mine = |replicas: &Vec<crate::placement::Replica>| matches!(&replicas[..], [only] if only.node == view.me);
        let alone = view.placement.shards().iter().all(mine);
        self.current.send_replace(Some(Current { view, alone }));
    }

    /// There is somebody who may not have heard of every metric family: new, or back after being away.
    pub fn tell_metadata_again(&self) {
        if let Some(data) = self.data() {
            data.described.lock().forget();
        }
    }

    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    pub fn set_health(&self, health: Health) {
        *self.health.lock() = health;
    }

    pub fn outlook(&self) -> Arc<Outlook> {
        self.outlook.lock().clone()
    }

    pub fn set_outlook(&self, outlook: Arc<Outlook>) {
        *self.outlook.lock() = outlook;
    }

    /// So much time has gone by under the view there is.
    pub fn note_safety(&self, elapsed: Duration) {
        if self.current().is_some_and(|current| current.view.under_replicated().0 > 0) {
            self.short_ms.fetch_add(elapsed.as_millis() as u64, Ordering::Relaxed);
        }
    }

    pub fn short_ms(&self) -> u64 {
        self.short_ms.load(Ordering::Relaxed)
    }

    /// Everything that is agreed on, as far as this node knows.
    pub async fn state(&self) -> Result<State, Error> {
        let (done, state) = oneshot::channel();
        self.inputs.send(Input::Look { done }).await.map_err(|_| Error::Stopped)?;
        state.await.map_err(|_| Error::Stopped)
    }

    /// The node must stop.
    pub fn fail(&self, stop: Stop) {
        tracing::error!(reason = %stop.reason, why = %stop, "the node must stop");
        // What came first is the reason; what comes later may follow from it.
        self.failed.send_if_modified(|failed| {
            let is_first = failed.is_none();
            failed.get_or_insert(stop);
            is_first
        });
    }

    /// To be held by a task or thread without which the node does not work: if it panics, the node must stop.
    pub fn watch(self: &Arc<Shared>, what: &'static str) -> Watched {
        Watched { shared: self.clone(), what }
    }

    /// Resolves when the node must stop, with the reason.
    pub async fn failed(&self) -> Stop {
        let mut failed = self.failed.subscribe();
        let stop = failed.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        stop.expect("BUG: the sender lives as long as this")
    }

    pub fn transport(&self) -> Option<&Arc<Transport>> {
        self.transport.get()
    }

    pub fn data(&self) -> Option<&Data> {
        self.data.get()
    }

    pub fn replica(&self) -> Option<&Arc<dyn Replica>> {
        self.data.get().map(|data| &data.replica)
    }

    /// Whether this was the first time.
    pub fn open(&self, data: Data) -> bool {
        self.data.set(data).is_ok()
    }

    pub fn control_refused(&self) {
        self.control_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages of the control plane that made no sense.
    pub fn control_refusals(&self) -> u64 {
        self.control_refused.load(Ordering::Relaxed)
    }

    /// Where a node is, for people.
    pub fn address_of(&self, node: NodeId) -> String {
        let current = self.current.borrow();
        let peer = current.as_ref().and_then(|current| current.view.nodes.get(&node));
        peer.map_or_else(|| format!("node {node}"), |peer| peer.address.clone())
    }

    /// How the one namespace that holds series is kept.
    pub fn namespace(&self, view: &View) -> Namespace {
        view.namespaces.get("default").copied().unwrap_or_default()
    }

    /// The first moment within retention. It is the cluster's: no node has one of its own, or copies would lack what others have.
    pub fn oldest(&self, view: &View) -> i64 {
        match i64::try_from(self.namespace(view).retention_ms) {
            Ok(0) | Err(_) => i64::MIN,
            Ok(retention_ms) => self.wall().0.saturating_sub(retention_ms),
        }
    }

    pub fn read_consistency(&self) -> Consistency {
        self.current().map(|current| self.namespace(&current.view).read).unwrap_or_default()
    }

    /// Changes what is agreed on.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let (done, answer) = oneshot::channel();
        self.inputs.send(Input::Propose { command, done }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Resolves when everything that was agreed on before now is in the view.
    pub async fn read(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.inputs.send(Input::Read { done }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?.map(drop)
    }

    /// Resolves when the cluster knows that there is data. Nothing is acknowledged before: until then a placement may be replaced.
    pub async fn note_data(&self, deadline: Instant) -> Result<(), model::Error> {
        let has_data = |current: &Option<Current>| current.as_ref().is_some_and(|c| c.view.has_data);
        let noting = async {
            let _alone = self.noting.lock().await;
            if !has_data(&self.current.borrow()) {
                self.propose(Command::NoteData).await.map_err(|_| ())?;
                self.current.subscribe().wait_for(has_data).await.map_err(|_| ())?;
                self.tell_settled();
            }
            Ok::<_, ()>(())
        };
        match timeout_at(deadline, noting).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(model::Error::Busy {
                reason: "the control plane has no leader that takes note of the first data",
                retry_after_s: 1,
            }),
        }
    }

    /// For whoever wonders later when that was.
    fn tell_settled(&self) {
        let Some(Current { view, .. }) = self.current() else { return };
        let copies = view.placement.shards().iter().map(Vec::len).min().unwrap_or(0);
        let (nodes, wanted) = (view.nodes.len(), view.replication_factor);
        tracing::info!(
            nodes,
            copies,
            wanted,
            epoch = view.epoch(),
            "the first data came to this node: from now on copies are moved, and no placement is replaced"
        );
    }

    /// The view, when it has come so far.
    pub async fn view_of(&self, epoch: u64, deadline: Instant) -> Option<Current> {
        let mut views = self.current.subscribe();
        let reached = |current: &Option<Current>| current.as_ref().is_some_and(|c| c.view.epoch() >= epoch);
        timeout_at(deadline, views.wait_for(reached)).await.ok()?.ok()?.clone()
    }
}

/// What other nodes ask of this one.
struct Served(Weak<Shared>);

impl Handler for Served {
    fn frame(&self, from: NodeId, kind: Kind, body: Bytes, _within: Duration, reply: Option<Reply>) {
        let Some(shared) = self.0.upgrade() else { return };
        match (kind, reply) {
            (Kind::Raft | Kind::Control, reply) => shared.control_frame(Some(from), kind, body, reply),
            (Kind::Write, Some(reply)) => shared.serve_write(from, &body, reply),
            (Kind::Describe, reply) => {
                shared.serve_describe(from, &body);
                if let Some(reply) = reply {
                    reply.send(Bytes::new());
                }
            }
            // Kinds that go another way.
            (_, Some(reply)) => reply.fail("it is asked in another way"),
            (_, None) => {}
        }
    }

    fn stream(&self, from: NodeId, kind: Kind, body: Bytes, within: Duration, emit: Emitter) {
        match self.0.upgrade() {
            Some(shared) => shared.serve_stream(from, kind, body, within, emit),
            None => emit.busy(),
        }
    }

    fn join(&self, _from: IpAddr, body: Bytes, _within: Duration, reply: Reply) {
        match self.0.upgrade() {
            Some(shared) => shared.control_frame(None, Kind::Control, body, Some(reply)),
            None => reply.busy(),
        }
    }
}
