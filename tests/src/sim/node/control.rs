//! The control plane's shell.

use super::super::checks;
use super::super::clients::{Answer, Operation};
use super::super::network::Machine;
use super::super::operator::{self, Order};
use super::super::world::Out;
use super::calls::{For, Packet};
use super::read::FirstRead;
use super::{Process, Timer, address, dice, machine_of};
use cluster::control::{
    ControlError, Controller, Directory, Effect, Event, Flags, Make, Me, NodeFile, NodeReport, Options,
    Target, decide, raft_dir,
};
use cluster::jobs::Kind;
use cluster::placement::{NodeId, NodeState};
use cluster::raft::{Batch, Store};
use cluster::state::{Command, Outcome, State};
use cluster::view::{Health, Namespace};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// Where everything is.
pub const DATA: &str = "/data";

/// What waits for a proposal.
pub enum Waiting {
    /// A client.
    Client(Operation),
    /// Writes that may begin when it is agreed on that there is data.
    FirstWrite,
    /// A read that begins when this node knows what was agreed on before.
    FirstRead(Box<FirstRead>),
    /// An operation that begins when this node knows what was agreed on before.
    Order(Operation, Order),
    /// Whoever operates the cluster, and when it was proposed.
    Ordered(Operation, u64),
    /// Whoever looks after the machines, and looks for himself.
    Nobody,
}

/// The controller and what it writes to.
pub struct Control {
    pub controller: Controller,
    store: Store,
    /// Not yet written.
    batches: VecDeque<Batch>,
    syncing: bool,
    tokens: u64,
    pub waiting: BTreeMap<u64, Waiting>,
    /// Who asked what this node has not answered yet.
    requests: BTreeMap<u64, (Machine, u64)>,
    request: u64,
    /// After how many changes of the state its view is.
    shown: u64,
}

/// Whose the data directory is.
pub fn directory(out: &Out<'_>) -> Result<Option<Directory>, String> {
    let identity = storage::identity::peek(&*out.disk.vfs(), Path::new(DATA)).map_err(|e| e.to_string())?;
    Ok(identity.map(|own| Directory {
        cluster: own.cluster,
        node: NodeId(own.node),
        disk: own.disk,
        shards: own.shards,
    }))
}

impl Control {
    /// What the real start does: looks at the directory, decides, and remembers this start before anything else.
    pub fn start(out: &mut Out<'_>, effects: &mut Vec<Effect>) -> Result<Control, String> {
        let vfs = out.disk.vfs();
        let dir = Path::new(DATA);
        vfs.create_dir_all(dir).map_err(|e| e.to_string())?;
        let own = directory(out)?;
        let file = NodeFile::read(&*vfs, dir).map_err(|e| e.to_string())?;
        let (store, durable) = Store::open(vfs.clone(), &raft_dir(dir), None).map_err(|e| e.to_string())?;
        let nodes = out.env.swarm.nodes;
        // The first machine makes the cluster; the others name all of them.
        let join = if out.me == 0 && !out.env.has_lost_disk[0] {
            Vec::new()
        } else {
            (0..nodes).map(address).collect()
        };
        let flags = Flags { join, own: vec![address(out.me)], rejoin: false };
        let mut lots = dice(out, 1);
        let mut draw = || u128::from(lots.number()) << 64 | u128::from(lots.number());
        let start =
            decide(&flags, own.as_ref(), file.as_ref(), &durable, &mut draw).map_err(|stop| stop.why)?;
        start.file.write(&*vfs, dir).map_err(|e| e.to_string())?;
        out.disk.settle(out.disk.position());
        let swarm = &out.env.swarm;
        let me = Me {
            address: address(out.me),
            http_address: String::new(),
            zone: char::from(b'a' + swarm.zones[out.me] as u8)
                .to_string()
                .parse()
                .map_err(|_| "BUG: a zone's name".to_owned())?,
            capacity: 1,
            standby: out.env.swarm.is_fetched(out.me),
            boot: draw(),
        };
        let make = Make { shards: swarm.shards, replication_factor: swarm.replication_factor };
        let mut options = Options::default();
        options.loss.grace_ms = swarm.loss_grace_ms;
        let controller = Controller::new(start, me, make, durable, options, out.now_ms(), effects)
            .map_err(|stop| stop.why)?;
        Ok(Control {
            controller,
            store,
            batches: VecDeque::new(),
            syncing: false,
            tokens: 0,
            waiting: BTreeMap::new(),
            requests: BTreeMap::new(),
            request: 0,
            shown: 0,
        })
    }

    /// A batch on its way gets there, or does not; a crash decides how much of it.
    pub fn interrupted(&mut self) {
        if self.syncing {
            self.batches.iter().for_each(|batch| drop(self.store.persist(batch)));
        }
    }
}

impl Process {
    pub(super) fn step_control(&mut self, out: &mut Out<'_>, event: Event) {
        let mut effects = Vec::new();
        self.control.controller.step(out.now_ms(), event, &mut effects);
        self.perform_control(out, effects);
    }

    pub(super) fn perform_control(&mut self, out: &mut Out<'_>, effects: Vec<Effect>) {
        for effect in effects {
            if self.stopped.is_some() {
                // As the real shell: nothing is done before what had to be durable first.
                return;
            }
            match effect {
                Effect::Persist(batch) => {
                    self.control.batches.push_back(batch);
                    self.sync_raft(out);
                }
                Effect::Send { to, bytes } => {
                    if let Some(machine) = self.machine_of(to) {
                        out.send(machine, Packet::Raft { from: self.me, bytes: bytes.into() });
                    }
                }
                Effect::Call { to, id, body, timeout_ms } => {
                    let (machine, node) = match to {
                        Target::Node(node) => (self.machine_of(node), Some(node)),
                        Target::Address(address) => (machine_of(&address), None),
                    };
                    match machine {
                        Some(machine) => {
                            self.call(out, 0, (machine, node), body, timeout_ms, For::Control { id });
                        }
                        None => {
                            self.step_control(out, Event::Failed { id, why: "no address".into() });
                        }
                    }
                }
                Effect::Respond { id, body } => {
                    if let Some((machine, call)) = self.control.requests.remove(&id) {
                        self.reply(out, machine, call, vec![body]);
                    }
                }
                Effect::Joined(directory) => self.open(out, directory),
                Effect::Remember(file) => match file.write(&*out.disk.vfs(), Path::new(DATA)) {
                    Ok(()) => out.disk.settle(out.disk.position()),
                    Err(e) => self.stop_because(e.to_string()),
                },
                Effect::View(view) => {
                    out.note(format_args!("sees epoch {}, leader {:?}", view.epoch(), view.leader));
                    let applied = self.control.controller.state().map_or(0, State::applied);
                    let shown = std::mem::replace(&mut self.control.shown, applied);
                    if applied < shown {
                        let me = out.me;
                        out.env
                            .violated(format!("the view of {me} goes back from change {shown} to {applied}"));
                    }
                    checks::follows(out, self.view.as_deref(), &view, applied);
                    self.view = Some(view.clone());
                    self.step_repair(out, cluster::repair::Event::View(view.clone()));
                    self.step_bootstrap(out, cluster::bootstrap::Event::View(view));
                }
                Effect::Done { token, result } => {
                    out.note(format_args!("proposal {token}: {result:?}"));
                    match self.control.waiting.remove(&token) {
                        None | Some(Waiting::Nobody) => {}
                        Some(Waiting::Order(operation, order)) => match result {
                            Ok(_) => self.order(out, operation, order),
                            Err(e) => out.answer(&operation, Answer::Failed(e.to_string())),
                        },
                        Some(Waiting::Ordered(operation, at_ms)) => {
                            self.ordered(out, &operation, at_ms, result);
                        }
                        Some(Waiting::Client(operation)) => out.answer(
                            &operation,
                            match result {
                                Ok(_) => Answer::Administered,
                                Err(e) => Answer::Failed(e.to_string()),
                            },
                        ),
                        Some(Waiting::FirstWrite) => {
                            self.first_write(out, result.map(drop).map_err(|e| e.to_string()))
                        }
                        Some(Waiting::FirstRead(first)) => {
                            self.first_read(out, *first, result.map(drop).map_err(|e| e.to_string()))
                        }
                    }
                }
                Effect::Refused { from, why } => out.note(format_args!("refuses {from:?}: {why}")),
                Effect::Progress(what) => out.note(format_args!("progress: {what}")),
                Effect::Held(why) => out.note(format_args!("nobody is declared lost: {why:?}")),
                Effect::Health(_) | Effect::Outlook(_) => {}
                Effect::Fatal(stop) => self.stop_because(stop.why),
            }
        }
        let (term, leader) = self.control.controller.leader();
        if self.control.controller.leads() && leader == Some(self.me) {
            out.env.leads(term, self.me);
        }
    }

    fn sync_raft(&mut self, out: &mut Out<'_>) {
        if !self.control.syncing && !self.control.batches.is_empty() {
            self.control.syncing = true;
            let after = out.disk.sync_ms();
            out.timer(after, Timer::Persisted);
        }
    }

    /// What waited when the sync was over is on disk.
    pub(super) fn persisted(&mut self, out: &mut Out<'_>) {
        self.control.syncing = false;
        let mut last = None;
        for batch in std::mem::take(&mut self.control.batches) {
            if let Err(e) = self.control.store.persist(&batch) {
                return self.stop_because(format!("the Raft log: {e}"));
            }
            last = Some(batch.sequence);
        }
        out.disk.settle(out.disk.position());
        if let Some(sequence) = last {
            self.step_control(out, Event::Persisted(sequence));
        }
        self.sync_raft(out);
    }

    pub(super) fn called(
        &mut self,
        out: &mut Out<'_>,
        machine: Machine,
        from: Option<NodeId>,
        call: u64,
        body: &Arc<[u8]>,
    ) {
        self.control.request += 1;
        let id = self.control.request;
        self.control.requests.insert(id, (machine, call));
        self.step_control(out, Event::Request { from, id, body: body.to_vec() });
    }

    pub(super) fn control_ended(&mut self, out: &mut Out<'_>, id: u64, end: Result<Arc<[Vec<u8>]>, String>) {
        let event = match end {
            Ok(chunks) => Event::Reply { id, body: chunks.concat() },
            Err(why) => Event::Failed { id, why },
        };
        self.step_control(out, event);
    }

    /// Asks for a change.
    pub(super) fn propose(&mut self, out: &mut Out<'_>, command: Command, waiting: Waiting) {
        self.control.tokens += 1;
        let token = self.control.tokens;
        self.control.waiting.insert(token, waiting);
        self.step_control(out, Event::Local { token, command });
    }

    /// Waits until this node knows what was agreed on before now.
    pub(super) fn catch_up(&mut self, out: &mut Out<'_>, waiting: Waiting) {
        self.control.tokens += 1;
        let token = self.control.tokens;
        self.control.waiting.insert(token, waiting);
        self.step_control(out, Event::Read { token });
    }

    pub(super) fn administer(&mut self, out: &mut Out<'_>, operation: Operation, retention_ms: u64) {
        let namespace = Namespace { retention_ms, ..Namespace::default() };
        let command = Command::ApplyNamespace { name: "other".into(), namespace };
        self.propose(out, command, Waiting::Client(operation));
    }

    /// What the server does: it knows what was agreed on before, and takes nobody for lost who answers.
    pub(super) fn operate(&mut self, out: &mut Out<'_>, operation: Operation, order: Order) {
        self.catch_up(out, Waiting::Order(operation, order));
    }

    fn order(&mut self, out: &mut Out<'_>, operation: Operation, order: Order) {
        let Order { kind, lost, epoch, .. } = order;
        let leaving = kind.leaving().filter(|_| lost);
        let peer = |node: NodeId| self.view.as_ref()?.nodes.get(&node);
        if leaving.and_then(peer).is_some_and(|peer| peer.health != Health::Down) {
            return out.answer(&operation, Answer::Refused("it answers".into()));
        }
        // By its time what comes of it is known again.
        let mut at_ms = out.now_ms();
        while out.env.orders.contains_key(&at_ms) {
            at_ms += 1;
        }
        out.env.orders.insert(at_ms, order);
        let (epoch, by) = (Some(epoch), operator::NAME.into());
        let command = Command::StartJob { kind, lost, epoch, at_ms, by, copies: 0, bytes: 0 };
        self.propose(out, command, Waiting::Ordered(operation, at_ms));
    }

    /// The one who asked is told, and it is counted what that shows.
    fn ordered(
        &mut self,
        out: &mut Out<'_>,
        operation: &Operation,
        at_ms: u64,
        result: Result<Outcome, ControlError>,
    ) {
        let operated = &mut out.env.operated;
        let answer = match result {
            Ok(outcome) => {
                let jobs = self.view.iter().flat_map(|view| view.jobs.iter());
                let began = { jobs }.any(|(number, job)| {
                    matches!(outcome, Outcome::Record { id, .. } if id == *number) && job.created_ms == at_ms
                });
                let mut gone = self.view.iter().flat_map(|view| view.gone.values());
                operated.repeated += u64::from(!began && !gone.any(|gone| gone.at_ms == at_ms));
                Answer::Administered
            }
            Err(ControlError::Refused(refusal)) => {
                operated.stale += u64::from(refusal.text.contains("decided on under epoch"));
                Answer::Refused(refusal.text)
            }
            Err(e) => Answer::Failed(e.to_string()),
        };
        out.answer(operation, answer);
    }

    /// Asks for a change, and looks for itself what becomes of it.
    pub fn command(&mut self, out: &mut Out<'_>, command: Command) {
        self.propose(out, command, Waiting::Nobody);
    }

    /// Something else is expected of a node.
    pub fn expect(&mut self, out: &mut Out<'_>, id: NodeId, state: NodeState) {
        let command = Command::SetNodeState { id, state };
        self.propose(out, command, Waiting::Nobody);
    }

    /// Proposes a job.
    pub fn start_job(&mut self, out: &mut Out<'_>, kind: Kind) {
        let at_ms = out.now_ms();
        let command = Command::StartJob {
            kind,
            lost: false,
            epoch: None,
            at_ms,
            by: "somebody".into(),
            copies: 0,
            bytes: 0,
        };
        self.propose(out, command, Waiting::Nobody);
    }

    /// Tells the controller how this node is.
    pub(super) fn report(&mut self, out: &mut Out<'_>) {
        let Some(engine) = &self.engine else { return };
        let stats = engine.replica.stats();
        let report = NodeReport {
            series: stats.series,
            has_data: stats.head_samples + stats.block_samples > 0,
            damage: model::Replica::damage(&*engine.replica).len() as u32,
            ..NodeReport::default()
        };
        self.step_control(out, Event::Copying(self.bootstrap.copies()));
        self.step_control(out, Event::Report(report));
    }
}
