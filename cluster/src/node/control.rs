//! The control plane's shell: one task that steps the [`Controller`] and does what it says, one thread that writes its log.
//!
//! ```text
//!   peers, this node ─► inputs (bounded) ─► task: Controller ─┬─► raft log thread ─► Persisted
//!                                            ▲  every 100 ms  ├─► transport ─► Reply, Failed
//!                                            └────────────────┴─► view, answers
//! ```

use super::Error;
use super::shared::{Health, Joining, Shared};
use crate::control::{Controller, Effect, Event, NodeFile, NodeReport, Phase, Target};
use crate::placement::{NodeId, NodeState};
use crate::raft::Store;
use crate::state::{Command, Outcome, State};
use crate::stop::{Reason, Stop};
use crate::transport::{self, Event as Noticed, Kind, PeerAddress, Refusal, Reply, Run, Stranger};
use crate::view::View;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc as thread_mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Events that wait for the controller. Raft messages beyond it are lost, calls are told that there is too much to do.
pub(super) const INPUTS_MAX: usize = 4096;
/// Kinds of refused messages that are remembered, so that each is logged once.
const TOLD_MAX: usize = 1024;
/// A tick of the controller.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at disk and damage.
const REPORT: Duration = Duration::from_secs(2);
/// Between two looks at which peers answer.
const LOOK: Duration = Duration::from_secs(1);
/// Answers that are not given in this time are not waited for by anybody.
const ANSWER: Duration = Duration::from_secs(60);

/// What the controller's task is told.
pub(super) enum Input {
    /// For the controller.
    Event(Event),
    /// A peer, or somebody who wants to become one, calls.
    Request { from: Option<NodeId>, body: Vec<u8>, reply: Reply },
    /// Somebody on this node wants a change.
    Propose { command: Command, done: oneshot::Sender<Result<Outcome, Error>> },
    /// This node shall make a cluster, this one, if it waits for one.
    Create { cluster: u128, done: oneshot::Sender<Result<Outcome, Error>> },
    /// Somebody on this node wants to see everything that was agreed on before now.
    Read { done: oneshot::Sender<Result<Outcome, Error>> },
    /// Somebody on this node wants to know everything that is agreed on; nothing comes while it joins.
    Look { done: oneshot::Sender<State> },
    /// The data directory has its identity: the node may remember that it is a member.
    Identified,
    /// The log of the controller failed.
    Failed(Stop),
    /// The end.
    Stop,
}

/// What the task begins with.
pub(super) struct Control {
    pub shared: Arc<Shared>,
    pub controller: Controller,
    pub store: Store,
    pub file: NodeFile,
    pub began: Instant,
    /// For the transport, as soon as the cluster is known.
    pub joining: Option<Joining>,
    /// This node to those who do not know it.
    pub stranger: Stranger,
}

struct Task {
    shared: Arc<Shared>,
    controller: Controller,
    file: NodeFile,
    began: Instant,
    joining: Option<Joining>,
    stranger: Stranger,
    log: thread_mpsc::Sender<crate::raft::Batch>,
    replies: BTreeMap<u64, (Instant, Reply)>,
    done: BTreeMap<u64, oneshot::Sender<Result<Outcome, Error>>>,
    count: u64,
    /// The file that says that the node is a member, as long as the directory has no identity.
    held: Option<NodeFile>,
    identified: bool,
    told: BTreeSet<(Option<NodeId>, String)>,
    over: bool,
}

impl Control {
    /// Runs until it is told to stop. `effects` are those of [`Controller::new`].
    pub fn start(
        self,
        effects: Vec<Effect>,
        inputs: mpsc::Receiver<Input>,
        identified: bool,
    ) -> JoinHandle<()> {
        tokio::spawn(self.run(effects, inputs, identified))
    }

    async fn run(self, effects: Vec<Effect>, mut inputs: mpsc::Receiver<Input>, identified: bool) {
        let Control { shared, controller, store, file, began, joining, stranger } = self;
        let _watched = shared.watch("the control plane");
        let (log, batches) = thread_mpsc::channel::<crate::raft::Batch>();
        let logging = {
            let inputs = shared.inputs.clone();
            let watched = shared.watch("the thread of the Raft log");
            let work = move || {
                let _watched = watched;
                write_log(&store, &batches, &inputs);
            };
            std::thread::Builder::new().name("raft-log".into()).spawn(work)
        };
        let logging = match logging {
            Ok(logging) => logging,
            Err(error) => {
                return shared
                    .fail(Stop::other(format!("no thread for the Raft log can be started: {error}")));
            }
        };
        let mut task = Task {
            shared,
            controller,
            file,
            began,
            joining,
            stranger,
            log,
            replies: BTreeMap::new(),
            done: BTreeMap::new(),
            count: 0,
            held: None,
            identified,
            told: BTreeSet::new(),
            over: false,
        };
        task.perform(effects).await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reported, mut looked) = (None::<Instant>, Instant::now());
        while !task.over {
            tokio::select! {
                _ = ticks.tick() => {
                    task.step(Event::Tick).await;
                    let now = Instant::now();
                    if looked + LOOK < now {
                        task.shared.note_safety(now - looked);
                        looked = now;
                        task.look().await;
                    }
                    if reported.is_none_or(|at| at + REPORT < now) {
                        reported = Some(now);
                        task.report();
                    }
                }
                input = inputs.recv() => match input {
                    Some(input) => task.take(input).await,
                    None => break,
                },
            }
        }
        let Task { log, .. } = task;
        drop(log);
        // Nobody takes from it any more, and the thread must not wait for that.
        drop(inputs);
        // It ends when it has written what it was given.
        let _ = tokio::task::spawn_blocking(move || logging.join()).await;
    }
}

fn write_log(
    store: &Store,
    batches: &thread_mpsc::Receiver<crate::raft::Batch>,
    inputs: &mpsc::Sender<Input>,
) {
    for batch in batches {
        let input = match store.persist(&batch) {
            Ok(()) => Input::Event(Event::Persisted(batch.sequence)),
            Err(error) => {
                let why = format!(
                    "the log of the control plane cannot be written ({error}); restart on a healthy disk with free space"
                );
                Input::Failed(Stop { why, ..error.into() })
            }
        };
        let failed = matches!(input, Input::Failed(_));
        if inputs.blocking_send(input).is_err() || failed {
            return;
        }
    }
}

impl Task {
    async fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.step(event).await,
            Input::Request { from, body, reply } => {
                self.count += 1;
                let id = self.count;
                self.replies.insert(id, (Instant::now() + ANSWER, reply));
                self.step(Event::Request { from, id, body }).await;
            }
            Input::Propose { command, done } => {
                self.count += 1;
                let token = self.count;
                self.done.insert(token, done);
                self.step(Event::Local { token, command }).await;
            }
            Input::Create { cluster, done } => {
                self.count += 1;
                let token = self.count;
                self.done.insert(token, done);
                self.step(Event::Create { token, cluster }).await;
            }
            Input::Read { done } => {
                self.count += 1;
                let token = self.count;
                self.done.insert(token, done);
                self.step(Event::Read { token }).await;
            }
            Input::Look { done } => {
                if let Some(state) = self.controller.state() {
                    // Whoever asked may have gone.
                    let _ = done.send(state.clone());
                }
            }
            Input::Identified => {
                self.identified = true;
                if let Some(file) = self.held.take() {
                    self.remember(file).await;
                }
            }
            Input::Failed(stop) => self.end(stop),
            Input::Stop => self.over = true,
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    async fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        let now_ms = self.now_ms();
        self.controller.step(now_ms, event, &mut effects);
        self.perform(effects).await;
    }

    async fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if self.over {
                return;
            }
            match effect {
                // The thread has ended only after a failure, of which it has told.
                Effect::Persist(batch) => drop(self.log.send(batch)),
                Effect::Send { to, bytes } => {
                    if let Some(transport) = self.shared.transport() {
                        // It may get lost.
                        let _ = transport.send(to, Kind::Raft, Bytes::from(bytes));
                    }
                }
                Effect::Call { to, id, body, timeout_ms } => {
                    self.call(to, id, Bytes::from(body), Duration::from_millis(timeout_ms));
                }
                Effect::Respond { id, body } => {
                    if let Some((_, reply)) = self.replies.remove(&id) {
                        reply.send(body);
                    }
                }
                Effect::Joined(directory) => self.open_transport(directory.cluster),
                Effect::Remember(file) if file.phase == Phase::Member && !self.identified => {
                    // Until then a directory without an identity is one that has not finished joining.
                    self.held = Some(file);
                }
                Effect::Remember(file) => self.remember(file).await,
                Effect::View(view) => self.see(view),
                Effect::Outlook(outlook) => self.shared.set_outlook(outlook),
                Effect::Held(held) => {
                    if let Some(brake) = held {
                        tracing::warn!(why = %brake, "a node has been away for longer than node_loss_grace, and its copies are not made elsewhere");
                    }
                }
                Effect::Health(nodes) => {
                    let copies = Arc::new(self.controller.copies());
                    self.shared.set_health(Health { nodes, voters: self.voters(), copies });
                }
                Effect::Done { token, result } => {
                    if let Some(done) = self.done.remove(&token) {
                        let _ = done.send(result.map_err(Error::Control));
                    }
                }
                Effect::Progress(text) => (self.shared.options.progress)(text),
                Effect::Refused { from, why } => {
                    self.shared.control_refused();
                    if self.told.len() < TOLD_MAX && self.told.insert((from, why.clone())) {
                        let peer = from.map(|from| self.shared.address_of(from)).unwrap_or_default();
                        tracing::warn!(peer, %why, "refused what a peer sent");
                    }
                }
                Effect::Fatal(stop) => self.end(stop),
            }
        }
    }

    fn end(&mut self, stop: Stop) {
        self.over = true;
        self.shared.fail(stop);
    }

    async fn remember(&mut self, file: NodeFile) {
        let (vfs, dir) = (self.shared.vfs.clone(), self.shared.options.data_dir.clone());
        let written = tokio::task::spawn_blocking(move || file.write(&*vfs, &dir)).await;
        match written {
            Ok(Ok(())) => {
                self.file = file;
                self.shared.set_facts((&file).into());
            }
            Ok(Err(error)) => self.end(error.into()),
            Err(_) => self.over = true,
        }
    }

    /// The cluster is known: others may call, and be called.
    fn open_transport(&mut self, cluster: u128) {
        if let Some(joining) = self.joining.take() {
            joining.open(&self.shared, cluster);
        }
    }

    fn see(&mut self, view: Arc<View>) {
        // A node that comes back knows its cluster from its log.
        self.open_transport(view.cluster);
        let me = view.me;
        let others = view.nodes.iter().filter(|(node, _)| **node != me);
        let at =
            |peer: &crate::view::Peer| PeerAddress { address: peer.address.clone(), starts: peer.starts };
        let peers = others.map(|(node, peer)| (*node, at(peer))).collect();
        let state = self.controller.state();
        let gone = state.into_iter().flat_map(|state| state.nodes());
        let gone = gone.filter(|(_, node)| node.state == NodeState::Gone).map(|(node, _)| *node).collect();
        if let Some(transport) = self.shared.transport() {
            transport.set_peers(&peers, &gone);
        }
        self.shared.set_view(view);
    }

    fn voters(&self) -> Arc<BTreeSet<NodeId>> {
        let voters = self.controller.membership().voters;
        let state = self.controller.state().into_iter();
        Arc::new(
            voters.iter().flat_map(|voter| state.clone().filter_map(|s| s.node_of_member(*voter))).collect(),
        )
    }

    fn call(&self, to: Target, id: u64, body: Bytes, within: Duration) {
        let inputs = self.shared.inputs.clone();
        let transport = self.shared.transport().cloned();
        let joining = self.shared.current().is_none();
        let calling: std::pin::Pin<Box<dyn Future<Output = Result<Bytes, transport::Error>> + Send>> =
            match to {
                Target::Node(node) => match transport {
                    Some(transport) => Box::pin(transport.call(node, Kind::Control, body, within)),
                    None => return,
                },
                Target::Address(address) => {
                    let (stranger, bounds) = (self.stranger.clone(), self.shared.bounds);
                    Box::pin(async move { transport::join(&address, &stranger, body, &bounds, within).await })
                }
            };
        tokio::spawn(async move {
            let event = match calling.await {
                Ok(body) => Event::Reply { id, body: body.to_vec() },
                // That does not get better by asking again.
                Err(error) => match for_good(&error).filter(|_| joining) {
                    Some(reason) => Event::Unwelcome(Stop::new(reason, error.to_string())),
                    None => Event::Failed { id, why: error.to_string() },
                },
            };
            // Nobody listens any more when the node stops.
            let _ = inputs.send(Input::Event(event)).await;
        });
    }

    /// Which peers answer, and which callers have given up.
    async fn look(&mut self) {
        let now = Instant::now();
        self.replies.retain(|_, (until, _)| *until > now);
        let connected = self.shared.transport().map(|transport| transport.connected()).unwrap_or_default();
        for node in connected {
            self.step(Event::Seen(node)).await;
        }
    }

    /// Looks at the disk, where that may take as long as it takes.
    fn report(&self) {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let mut report: NodeReport = (shared.options.report)();
            if let Ok(space) = shared.vfs.space(&shared.options.data_dir) {
                (report.disk_free, report.disk_total) = (space.free, space.total);
            }
            if let Some(replica) = shared.replica() {
                report.damage = u32::try_from(replica.damage().len()).unwrap_or(u32::MAX);
            }
            let copies = shared.data().map(|data| data.filling.copies()).unwrap_or_default();
            let clock = Event::Clock(u64::try_from(shared.wall().0).unwrap_or(0));
            for event in [Event::Copying(copies), Event::Report(report), clock] {
                let _ = shared.inputs.blocking_send(Input::Event(event));
            }
        });
    }
}

/// Why who was asked to let this node join will never do so, as it was started.
fn for_good(error: &transport::Error) -> Option<Reason> {
    match error {
        transport::Error::Join { reason: Some(Refusal::Token), .. } => Some(Reason::Token),
        transport::Error::Join { reason: Some(Refusal::Version), .. } => Some(Reason::Other),
        _ => None,
    }
}

/// Passes on what the transport notices of peers.
pub(super) async fn notice(mut noticed: mpsc::UnboundedReceiver<Noticed>, shared: Weak<Shared>) {
    while let (Some(event), Some(shared)) = (noticed.recv().await, shared.upgrade()) {
        let event = match event {
            Noticed::Connected(_) => {
                shared.tell_metadata_again();
                continue;
            }
            Noticed::Seen(node) => Event::Seen(node),
            Noticed::Started(node, Run { starts, boot }) => Event::Started { node, starts, boot },
            Noticed::Refused { reason: Refusal::Stale, why, .. } => {
                Event::Unwelcome(Stop::new(Reason::Stale, why))
            }
            Noticed::Refused { reason: Refusal::Copied, why, .. } => {
                Event::Unwelcome(Stop::new(Reason::Copied, why))
            }
            Noticed::Refused { reason: Refusal::Removed, why, .. } => {
                Event::Unwelcome(Stop::new(Reason::Removed, why))
            }
            Noticed::Lost(node) | Noticed::Refused { by: node, .. } => Event::Lost(node),
        };
        if shared.inputs.send(Input::Event(event)).await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// Passes on what a peer sends to the control plane.
    pub(super) fn control_frame(&self, from: Option<NodeId>, kind: Kind, body: Bytes, reply: Option<Reply>) {
        let body = body.to_vec();
        match (kind, reply) {
            // What does not fit is lost; Raft sends again.
            (Kind::Raft, _) => {
                let Some(from) = from else { return };
                let _ = self.inputs.try_send(Input::Event(Event::Message { from, bytes: body }));
            }
            (_, Some(reply)) => {
                if let Err(error) = self.inputs.try_send(Input::Request { from, body, reply }) {
                    let (mpsc::error::TrySendError::Full(input) | mpsc::error::TrySendError::Closed(input)) =
                        error;
                    if let Input::Request { reply, .. } = input {
                        reply.busy();
                    }
                }
            }
            (_, None) => {}
        }
    }
}
