//! The event loop: machines, network, clients and faults in one thread, in simulated time.

use super::clients::{Answer, Clients, Operation, PATIENCE_MS, Request};
use super::faults::{Action, Faults};
use super::ghost::Ghost;
use super::ledger::Ledger;
use super::machine::{Disk, WallClock};
use super::network::{Machine, Network};
use super::node::{Packet, Process, Timer};
use super::operator::{OPERATOR, Operated, Operator, Order};
use super::schedule::Schedule;
use super::swarm::{Streams, Swarm};
use super::trace::Trace;
use super::values::Values;
use crate::random::Random;
use cluster::placement::{NodeId, Placement};
use cluster::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::sync::Arc;

/// Something that happens.
pub enum Event {
    /// A message arrives.
    Arrive {
        /// At which machine it was sent.
        from: Machine,
        /// And where it arrives.
        to: Machine,
        /// What.
        packet: Packet,
    },
    /// What a process asked to be told after a while.
    Timer {
        /// Where it runs.
        machine: Machine,
        /// Which start of it asked.
        run: u64,
        /// What for.
        timer: Timer,
    },
    /// A client's request arrives.
    Ask {
        /// Where.
        machine: Machine,
        /// What it wants.
        operation: Operation,
    },
    /// An answer reaches a client, or it gives up waiting for one.
    Answered {
        /// Which client.
        client: usize,
        /// Which of its tries.
        number: u64,
        /// What it is told.
        answer: Answer,
    },
    /// It is a client's turn.
    Turn(usize),
    /// One fault of the swarm's list is due.
    Fault(usize),
    /// Something is done to the world.
    Act(Action),
}

/// What everybody shares.
pub struct Env {
    /// Time.
    pub schedule: Schedule<Event>,
    /// What happened.
    pub trace: Trace,
    /// Between machines.
    pub network: Network,
    /// What rows are.
    pub values: Values,
    /// What was sent and acknowledged.
    pub ledger: Ledger,
    /// What is durable where, by machine.
    pub ghosts: Vec<Ghost>,
    /// The machine whose disk loses bits.
    pub rots: Option<Machine>,
    /// By machine the newest epoch that its disk has seen.
    pub epochs: Vec<u64>,
    /// By machine whether its first disk is gone.
    pub has_lost_disk: Vec<bool>,
    /// Blocks that came from another node, as files.
    pub imported: u64,
    /// By machine the node on its disk.
    pub tenants: Vec<Option<NodeId>>,
    /// Nodes whose disks are gone, and what was on them.
    pub lost: BTreeMap<NodeId, Ghost>,
    /// The newest view that any node has, or had, and after how many changes of the state.
    pub newest: Option<(u64, Arc<View>)>,
    /// What each change of the placement led to.
    pub placements: BTreeMap<u64, Placement>,
    /// Requests of the operator, by when they were proposed.
    pub orders: BTreeMap<u64, Order>,
    /// What they have led to.
    pub operated: Operated,
    /// By a process's node and a node that was removed, since when the process knows that.
    pub informed: BTreeMap<(NodeId, NodeId), u64>,
    /// Who led in which term.
    pub leaders: BTreeMap<u64, NodeId>,
    /// What the run is.
    pub swarm: Swarm,
    /// The first thing that must not be.
    pub violation: Option<String>,
}

impl Env {
    /// Adds a line to the trace.
    pub fn note(&mut self, what: Arguments<'_>) {
        self.trace.add(self.schedule.now_ms(), what);
    }

    /// Something happened that must not. The first one ends the run.
    pub fn violated(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// The machine with the disk of a node; `None` if that is gone.
    pub fn home(&self, node: NodeId) -> Option<Machine> {
        self.tenants.iter().position(|tenant| *tenant == Some(node))
    }

    /// What is durable at a node, or was when its disk was lost.
    pub fn ghost(&self, node: NodeId) -> Option<&Ghost> {
        self.lost.get(&node).or_else(|| self.ghosts.get(self.home(node)?))
    }

    /// A node leads in a term. There is one in each.
    pub fn leads(&mut self, term: u64, node: NodeId) {
        let known = *self.leaders.entry(term).or_insert(node);
        if known != node {
            self.violated(format!("term {term} has two leaders, {known} and {node}"));
        }
    }
}

/// What a process is given whenever it runs.
pub struct Out<'a> {
    /// Where it runs.
    pub me: Machine,
    /// Which start of it this is.
    pub run: u64,
    /// Everything outside.
    pub env: &'a mut Env,
    /// Its disk.
    pub disk: &'a mut Disk,
    /// Its wall clock.
    pub clock: &'a WallClock,
}

impl Out<'_> {
    /// A clock that only goes forward.
    pub fn now_ms(&self) -> u64 {
        self.env.schedule.now_ms()
    }

    /// To be told after a while.
    pub fn timer(&mut self, after_ms: u64, timer: Timer) {
        let (machine, run) = (self.me, self.run);
        self.env.schedule.after(after_ms, Event::Timer { machine, run, timer });
    }

    /// Sends something to another process, or to itself.
    pub fn send(&mut self, to: Machine, packet: Packet) {
        let env = &mut *self.env;
        let arrivals = env.network.send(env.schedule.now_ms(), self.me, to);
        let me = self.me;
        env.note(format_args!("{me} > {to} {packet} {arrivals:?}"));
        for delay in arrivals {
            env.schedule.after(delay, Event::Arrive { from: me, to, packet: packet.clone() });
        }
    }

    /// Answers a client.
    pub fn answer(&mut self, operation: &Operation, answer: Answer) {
        let Operation { client, number, .. } = *operation;
        let me = self.me;
        self.env.note(format_args!("{me} answers {client}/{number}: {answer:?}"));
        self.env.schedule.after(1, Event::Answered { client, number, answer });
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, what: Arguments<'_>) {
        let me = self.me;
        self.env.note(format_args!("{me} {what}"));
    }
}

/// What a machine is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing yet, or nothing any more: it has no data.
    Idle,
    /// A node that belongs to it.
    Serving,
    /// A node that goes, or that was removed and may not know it.
    Leaving,
}

/// A machine and what runs on it.
pub(super) struct Slot {
    pub disk: Disk,
    clock: WallClock,
    pub role: Role,
    /// Whether its first node has been started.
    pub entered: bool,
    pub process: Option<Process>,
    /// The last node that was here.
    pub last: Option<NodeId>,
    /// How often something was started here.
    run: u64,
    /// Whether it has no power.
    pub is_off: bool,
    /// What waits for a process that stands still.
    paused: Option<Vec<Event>>,
}

/// A whole run.
pub struct World {
    pub(super) env: Env,
    pub(super) slots: Vec<Slot>,
    clients: Clients,
    faults: Faults,
    pub(super) lots: Random,
    /// Machines on which nodes are yet to start in place of others.
    pub(super) coming: BTreeSet<Machine>,
    /// By departure the nodes that the cluster does not know yet to be gone.
    pub(super) leaving: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Whoever operates the cluster.
    pub(super) operator: Operator,
    pub(super) healed: bool,
    /// How often something went wrong.
    fault_count: u64,
    /// How many nodes the cluster has forgotten.
    pub(super) removed: u64,
    /// Good answers to the auditor.
    audited: usize,
}

/// Where the write-ahead log is.
const LOG: &str = "/data/wal";
/// And the blocks.
const BLOCKS: &str = "/data/blocks";

/// The client who asks everybody for everything at the end.
const AUDITOR: usize = usize::MAX;

/// What [`World::audit`] has asked for.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// Questions.
    pub questions: usize,
    /// When they have to be answered.
    pub deadline_ms: u64,
}

impl World {
    /// Before anything has happened.
    pub fn new(swarm: Swarm, with_text: bool) -> World {
        let Streams { network, mut disk, work, mut faults } = Streams::new(swarm.seed);
        let mut slots = Vec::new();
        for _ in 0..swarm.nodes {
            let skew = faults.below(2 * swarm.skew_ms + 1) as i64 - swarm.skew_ms as i64;
            slots.push(Slot {
                disk: Disk::new(swarm.disk, Random::new(disk.number())),
                clock: WallClock::new(skew),
                role: Role::Idle,
                entered: false,
                process: None,
                last: None,
                run: 0,
                is_off: false,
                paused: None,
            });
        }
        let lots = Random::new(faults.number());
        let env = Env {
            schedule: Schedule::default(),
            trace: Trace::new(with_text),
            network: Network::new(swarm.network, network),
            values: Values::new(swarm.seed, swarm.work.series, swarm.work.histograms),
            ledger: Ledger::default(),
            ghosts: (0..swarm.nodes).map(|_| Ghost::default()).collect(),
            rots: None,
            epochs: vec![0; swarm.nodes],
            has_lost_disk: vec![false; swarm.nodes],
            imported: 0,
            tenants: vec![None; swarm.nodes],
            lost: BTreeMap::new(),
            newest: None,
            placements: BTreeMap::new(),
            orders: BTreeMap::new(),
            operated: Operated::default(),
            informed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            violation: None,
            swarm,
        };
        let clients = Clients::new(env.swarm.work, work);
        let faults = Faults::new(&env.swarm, faults);
        let operator = Operator::new(env.swarm.seed);
        World {
            env,
            slots,
            clients,
            faults,
            lots,
            coming: BTreeSet::new(),
            leaving: BTreeMap::new(),
            operator,
            healed: false,
            fault_count: 0,
            removed: 0,
            audited: 0,
        }
    }

    /// Starts everything, and plans the first turn of everybody.
    pub fn begin(&mut self) {
        let swarm = self.env.swarm.clone();
        self.env.note(format_args!("{swarm:?}"));
        for (machine, start_ms) in swarm.starts_ms.iter().enumerate() {
            let Some(start_ms) = start_ms else { continue };
            let delay = self.lots.between(0, 300) + 400 * machine as u64 + start_ms;
            self.env.schedule.after(delay, Event::Act(Action::Enter(machine)));
        }
        for client in 0..self.clients.len() {
            let delay = 3_000 + self.clients.pause_ms();
            self.env.schedule.after(delay, Event::Turn(client));
        }
        for (n, departure) in swarm.departures.iter().enumerate() {
            self.env.schedule.after(departure.at_ms, Event::Act(Action::Depart(n)));
        }
        if let Some((at_ms, _)) = swarm.errands.iter().flatten().next() {
            self.env.schedule.after(*at_ms, Event::Act(Action::Operate));
            if swarm.holds_lease {
                self.env.schedule.after(*at_ms, Event::Act(Action::HoldLease));
            }
        }
        for (at_ms, factor) in &swarm.replication {
            self.env.schedule.after(*at_ms, Event::Act(Action::Replicate(*factor)));
        }
        for (n, (_, every_ms)) in swarm.faults.iter().enumerate() {
            let delay = 1_000 + self.faults.pause_ms(*every_ms);
            self.env.schedule.after(delay, Event::Fault(n));
        }
    }

    /// Lets time go by until then, or until something is wrong.
    pub fn run_until(&mut self, end_ms: u64) {
        while self.env.violation.is_none()
            && let Some(event) = self.env.schedule.next_before(end_ms)
        {
            self.happen(event);
        }
    }

    /// Lets time go by until something is so, or until then; whether it is.
    pub fn run_until_it(&mut self, end_ms: u64, mut is: impl FnMut(&World) -> bool) -> bool {
        loop {
            if self.env.violation.is_some() {
                return false;
            }
            if is(self) {
                return true;
            }
            let now = self.env.schedule.now_ms();
            if now >= end_ms {
                return false;
            }
            self.run_until((now + 500).min(end_ms));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, packet } => {
                self.env.note(format_args!("{from} - {to} {packet}"));
                let slot = &mut self.slots[to];
                if let Some(waiting) = &mut slot.paused {
                    // A socket's buffer is not endless.
                    if waiting.len() < 10_000 {
                        waiting.push(Event::Arrive { from, to, packet });
                    }
                } else if slot.process.is_some() {
                    self.with(to, |process, out| process.arrived(out, from, packet));
                } else if let (Packet::Request { call, .. }, false) = (packet, slot.is_off) {
                    // Its kernel says that nobody listens.
                    let packet = Packet::Refused { call };
                    for delay in self.env.network.send(self.env.schedule.now_ms(), to, from) {
                        let packet = packet.clone();
                        self.env.schedule.after(delay, Event::Arrive { from: to, to: from, packet });
                    }
                }
            }
            Event::Timer { machine, run, timer } => {
                let slot = &mut self.slots[machine];
                if run != slot.run {
                    return;
                }
                match &mut slot.paused {
                    Some(waiting) => waiting.push(Event::Timer { machine, run, timer }),
                    None => self.with(machine, |process, out| process.rang(out, timer)),
                }
            }
            Event::Ask { machine, operation } => {
                let Operation { client, number, .. } = operation;
                self.env.note(format_args!("{client}/{number} asks {machine}: {:?}", operation.request));
                let slot = &mut self.slots[machine];
                if let Some(waiting) = &mut slot.paused {
                    waiting.push(Event::Ask { machine, operation });
                } else if slot.process.is_some() {
                    self.with(machine, |process, out| process.asked(out, operation));
                } else if !slot.is_off {
                    let answer = Answer::Failed("connection refused".into());
                    self.env.schedule.after(1, Event::Answered { client, number, answer });
                }
            }
            Event::Answered { client: AUDITOR, answer, .. } => {
                self.audited += usize::from(matches!(answer, Answer::Read { .. }));
            }
            Event::Answered { client: OPERATOR, number, answer } => self.told(number, &answer),
            Event::Answered { client, number, answer } => {
                if let Some(pause) = self.clients.answered(client, number, &answer) {
                    self.env.note(format_args!("{client}/{number} is told {answer:?}"));
                    self.env.schedule.after(pause, Event::Turn(client));
                }
            }
            Event::Turn(client) => {
                let now = self.env.schedule.now_ms();
                let machines = self.asked();
                let Some((machine, operation)) =
                    self.clients.next(client, now, &machines, &self.env.ledger, &self.env.values)
                else {
                    return;
                };
                if let Request::Write { rows, .. } = &operation.request {
                    rows.iter().for_each(|row| self.env.ledger.sent(*row));
                }
                let number = operation.number;
                self.env.schedule.after(1, Event::Ask { machine, operation });
                let answer = Answer::Failed("no answer".into());
                self.env.schedule.after(PATIENCE_MS, Event::Answered { client, number, answer });
            }
            Event::Fault(n) => {
                if self.healed {
                    return;
                }
                let (kind, every_ms) = self.env.swarm.faults[n];
                self.fault_count += 1;
                for (delay, action) in self.faults.draw(kind) {
                    self.env.schedule.after(delay, Event::Act(action));
                }
                let pause = self.faults.pause_ms(every_ms);
                self.env.schedule.after(pause, Event::Fault(n));
            }
            Event::Act(action) => {
                // After the healing, what was planned before does no harm any more.
                let anyway = matches!(
                    action,
                    Action::Start(_) | Action::Enter(_) | Action::Dismiss(..) | Action::Operate
                );
                if !self.healed || anyway {
                    self.act(action);
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.env.note(format_args!("-- {action:?}"));
        match action {
            Action::Kill(machine) => self.stop(machine),
            Action::PowerOff(machine) => {
                self.stop(machine);
                let slot = &mut self.slots[machine];
                if !slot.is_off {
                    let left = slot.disk.lose_power();
                    let flipped = if self.env.rots == Some(machine) { slot.disk.flip_log(LOG) } else { None };
                    self.env.note(format_args!("{machine} has {left}; {flipped:?} flipped"));
                }
                self.slots[machine].is_off = true;
            }
            Action::Start(machine) => self.start(machine),
            Action::Pause(machine) => {
                self.slots[machine].paused.get_or_insert_default();
            }
            Action::Resume(machine) => self.resume(machine),
            Action::Cut(_, ways) => ways.iter().for_each(|&(a, b)| self.env.network.cut(a, b)),
            Action::Join(ways) => ways.iter().for_each(|&(a, b)| self.env.network.join(a, b)),
            Action::Slow(a, b, by_ms) => self.env.network.slow(a, b, by_ms),
            Action::SpeedUp(a, b) => self.env.network.speed_up(a, b),
            Action::Jump(machine, by_ms) => self.slots[machine].clock.jump(by_ms),
            Action::FailDisk(machine) => {
                let what = self.slots[machine].disk.fail_one("data");
                self.env.note(format_args!("{machine} {what}"));
            }
            Action::Flip(machine) => {
                if !self.has_whole_copies() {
                    return;
                }
                self.env.rots = Some(machine);
                let what = self.slots[machine].disk.flip_bit(BLOCKS, ".block");
                self.env.note(format_args!("{machine} flips {what:?}"));
            }
            // Those that were to come later have come with the healing.
            Action::Enter(machine) if self.slots[machine].entered && !self.coming.contains(&machine) => {}
            Action::Enter(machine) => self.enter(machine),
            Action::Depart(n) => self.depart(n),
            Action::Dismiss(node, n) => self.dismiss(node, n),
            Action::Operate => self.operate(),
            Action::HoldLease => self.hold_lease(),
            Action::Replicate(factor) => self.replicate(factor),
            Action::SlowDisk(machine, slow) => self.slots[machine].disk.set_slow(slow),
        }
    }

    /// Whether all that one machine has is on two others, too: then its disk may rot.
    fn has_whole_copies(&self) -> bool {
        let mut views = self.processes().map(|(_, process)| process.view()).peekable();
        // No move is under way or to come: a copy that is given up is no copy any more.
        let nodes = self.env.swarm.starts_ms.iter().flatten().count();
        let whole = |view: &Arc<View>| {
            view.nodes.len() == nodes
                && view.placement.moving().next().is_none()
                && view.placement.shards().iter().all(|replicas| replicas.len() >= 3)
        };
        // Where nobody runs, nobody knows.
        views.peek().is_some() && views.all(|view| view.is_some_and(whole))
    }

    fn resume(&mut self, machine: Machine) {
        for event in self.slots[machine].paused.take().unwrap_or_default() {
            self.env.schedule.after(0, event);
        }
    }

    pub(super) fn stop(&mut self, machine: Machine) {
        let slot = &mut self.slots[machine];
        slot.run += 1;
        slot.paused = None;
        if let Some(mut process) = slot.process.take() {
            // What was on its way to the disk may or may not get there.
            process.interrupted();
        }
        slot.disk.replug();
    }

    pub(super) fn start(&mut self, machine: Machine) {
        let slot = &mut self.slots[machine];
        if slot.process.is_some() || slot.role == Role::Idle {
            return;
        }
        slot.is_off = false;
        slot.run += 1;
        // What it had heard it may have to hear again.
        self.env.informed.retain(|(node, _), _| Some(*node) != slot.last);
        slot.clock.set(self.env.schedule.now_ms());
        let mut out =
            Out { me: machine, run: slot.run, env: &mut self.env, disk: &mut slot.disk, clock: &slot.clock };
        match Process::start(&mut out) {
            Ok(process) => {
                out.env.tenants[machine] = Some(process.id());
                slot.last = Some(process.id());
                slot.process = Some(process);
            }
            Err(why) => {
                out.note(format_args!("does not start: {why}"));
                // Whoever looks after the machine tries again.
                slot.disk.replug();
                self.env.schedule.after(2_000, Event::Act(Action::Start(machine)));
            }
        }
    }

    /// Lets the process of a machine do something.
    pub(super) fn with(&mut self, machine: Machine, act: impl FnOnce(&mut Process, &mut Out<'_>)) {
        let slot = &mut self.slots[machine];
        let Some(process) = &mut slot.process else { return };
        slot.clock.set(self.env.schedule.now_ms());
        let mut out =
            Out { me: machine, run: slot.run, env: &mut self.env, disk: &mut slot.disk, clock: &slot.clock };
        act(process, &mut out);
        if let Some(why) = process.stopped().map(str::to_owned) {
            self.env.note(format_args!("{machine} stops: {why}"));
            self.stop(machine);
            self.env.schedule.after(2_000, Event::Act(Action::Start(machine)));
        }
    }

    /// Nothing goes wrong any more, and everything runs.
    pub fn heal(&mut self) {
        self.env.note(format_args!("-- heal"));
        self.healed = true;
        self.env.network.heal();
        for machine in 0..self.slots.len() {
            if self.env.swarm.starts_ms[machine].is_some() && !self.slots[machine].entered {
                // It would have come later.
                self.enter(machine);
            }
            self.resume(machine);
            let slot = &mut self.slots[machine];
            slot.disk.heal();
            slot.clock.heal();
            // A process whose disk has failed has to be started again.
            if slot.process.as_ref().is_some_and(Process::is_read_only) {
                self.stop(machine);
            }
            self.start(machine);
        }
    }

    /// What everybody shares.
    pub fn env(&mut self) -> &mut Env {
        &mut self.env
    }

    /// What everybody shares, to look at.
    pub fn env_ref(&self) -> &Env {
        &self.env
    }

    /// Clients want nothing new any more.
    pub fn stop_clients(&mut self) {
        self.clients.stop();
    }

    /// Clients that still want something, and since when.
    pub fn waiting(&self) -> Vec<(usize, u64)> {
        self.clients.waiting().collect()
    }

    /// Requests that were answered well, and tries that were not.
    pub fn answered(&self) -> (u64, u64) {
        (self.clients.done, self.clients.failed)
    }

    /// Asks every machine for everything.
    pub fn audit(&mut self) -> Audit {
        let now = self.env.schedule.now_ms();
        let machines: Vec<Machine> = self.serving().collect();
        for &machine in &machines {
            let request =
                Request::Read { which: 0, range: (i64::MIN, i64::MAX), consistency: None, partial: false };
            let operation = Operation { client: AUDITOR, number: machine as u64, request, since_ms: now };
            self.env.schedule.after(1, Event::Ask { machine, operation });
        }
        Audit { questions: machines.len(), deadline_ms: now + PATIENCE_MS }
    }

    /// Answers to the audit so far.
    pub fn audited(&self) -> usize {
        self.audited
    }

    /// The machines with a node that belongs to the cluster.
    pub fn serving(&self) -> impl Iterator<Item = Machine> {
        (0..self.slots.len()).filter(|machine| self.slots[*machine].role == Role::Serving)
    }

    /// How many nodes are yet to come in place of others.
    pub fn coming(&self) -> usize {
        self.coming.len()
    }

    /// Whom clients may ask. As long as not everything is well also whoever is no part of the cluster any more and may not know it.
    pub(super) fn asked(&self) -> Vec<Machine> {
        let may = |machine: &Machine| match self.slots[*machine].role {
            Role::Idle => false,
            Role::Serving => true,
            Role::Leaving => !self.healed,
        };
        let machines: Vec<Machine> = (0..self.slots.len()).filter(may).collect();
        if machines.is_empty() { vec![0] } else { machines }
    }

    /// The processes that run, of nodes that belong to the cluster, by machine.
    pub fn processes(&self) -> impl Iterator<Item = (Machine, &Process)> {
        self.serving().filter_map(|machine| Some((machine, self.slots[machine].process.as_ref()?)))
    }

    /// How often something went wrong.
    pub fn fault_count(&self) -> u64 {
        self.fault_count
    }

    /// How many nodes were removed for good.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// The end.
    pub fn into_env(self) -> Env {
        self.env
    }
}
