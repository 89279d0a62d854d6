//! A node's process: the real engine and the real deciding pieces, and a shell that performs what they want.
//!
//! The shell decides nothing. It carries bytes between the pieces of different nodes with call numbers and time-outs, as the transport does; runs
//! what blocks at once; lets syncs of the log and of the Raft log take simulated time; and tells clients what the pieces say.

mod bootstrap;
mod calls;
mod control;
mod engine;
mod hints;
mod read;
mod repair;
mod write;

pub use calls::{Kind, Packet};

use super::clients::{Answer, Operation, Request};
use super::network::Machine;
use super::world::Out;
use calls::Calls;
use cluster::control::Controller;
use cluster::placement::NodeId;
use cluster::view::View;
use std::sync::Arc;

/// What a process wants to be woken for.
#[derive(Clone, Copy, Debug)]
pub enum Timer {
    /// The control plane's clock.
    Tick,
    /// A call has had its time.
    Expire {
        /// Its number.
        call: u64,
    },
    /// A call that was put off is to be made.
    Send {
        /// Its number.
        call: u64,
    },
    /// The sync of the write-ahead log is done.
    Synced,
    /// The sync of the Raft log is done.
    Persisted,
    /// The engine's maintenance is due.
    Maintain,
    /// Repair's clock.
    Repair,
    /// Bootstrap's clock.
    Bootstrap,
    /// A shard that was given up is to be forgotten, if that is still so.
    Forget {
        /// Which.
        shard: model::Shard,
        /// Since when.
        since: u64,
    },
    /// A read's coordinator wants to see the time.
    Read {
        /// Its number.
        number: u64,
    },
    /// A write's time is up.
    Write {
        /// Its number.
        number: u64,
    },
    /// Hints' clock.
    Hints,
}

/// A running node.
pub struct Process {
    me: NodeId,
    /// Of this run; in the numbers of calls.
    calls: Calls,
    control: control::Control,
    engine: Option<engine::Engine>,
    view: Option<Arc<View>>,
    writes: write::Writes,
    reads: read::Reads,
    repair: repair::Repairs,
    bootstrap: bootstrap::Bootstraps,
    hints: hints::Hints,
    stopped: Option<String>,
}

/// Random numbers of one run of one process, the same in every run of the seed.
pub fn dice(out: &Out<'_>, what: u64) -> crate::random::Random {
    let mix = crate::random::mix;
    crate::random::Random::new(mix(out.env.swarm.seed ^ mix(out.run << 32 | (out.me as u64) << 16 | what)))
}

/// `host:port` of a machine.
pub fn address(machine: Machine) -> String {
    format!("m{machine}:7421")
}

/// The machine that an address leads to.
pub fn machine_of(address: &str) -> Option<Machine> {
    address.strip_prefix('m')?.strip_suffix(":7421")?.parse().ok()
}

impl Process {
    /// Starts with what is on the disk.
    ///
    /// # Errors
    /// When it cannot be, and what would fix it.
    pub fn start(out: &mut Out<'_>) -> Result<Process, String> {
        let mut effects = Vec::new();
        let control = control::Control::start(out, &mut effects)?;
        let me = control.controller.me();
        let mut process = Process {
            me,
            calls: Calls::new(out.run),
            control,
            engine: None,
            view: None,
            writes: write::Writes::new(out),
            reads: read::Reads::new(out),
            repair: repair::Repairs::new(out),
            bootstrap: bootstrap::Bootstraps::new(out),
            hints: hints::Hints::new(),
            stopped: None,
        };
        if let Some(directory) = control::directory(out)? {
            process.open(out, directory);
        }
        process.perform_control(out, effects);
        out.note(format_args!("starts as {me}"));
        out.timer(100, Timer::Tick);
        match process.stopped.take() {
            Some(why) => Err(why),
            None => Ok(process),
        }
    }

    /// A packet came from the process at another machine.
    pub fn arrived(&mut self, out: &mut Out<'_>, from: Machine, packet: Packet) {
        match packet {
            Packet::Raft { from, bytes } => {
                self.step_control(out, cluster::control::Event::Message { from, bytes: bytes.to_vec() });
            }
            Packet::Request { from: node, to, call, kind, body } => {
                if to.is_some_and(|to| to != self.me) {
                    return out.send(from, Packet::Refused { call });
                }
                if let Some(node) = node {
                    self.step_control(out, cluster::control::Event::Seen(node));
                }
                match (kind, node) {
                    (Kind::Control, node) => self.called(out, from, node, call, &body),
                    (Kind::Write, Some(node)) => self.write_arrived(out, from, node, call, &body),
                    (Kind::Repair, Some(node)) => self.repair_arrived(out, from, node, call, &body),
                    (Kind::Bootstrap, Some(_)) => self.bootstrap_arrived(out, from, call, &body),
                    (Kind::Read, _) => self.read_arrived(out, from, call, &body),
                    (Kind::Write | Kind::Repair | Kind::Bootstrap, None) => {
                        out.send(from, Packet::Refused { call });
                    }
                }
            }
            Packet::Reply { from: node, call, chunks } => {
                self.step_control(out, cluster::control::Event::Seen(node));
                self.ended(out, call, Ok(chunks));
            }
            Packet::Refused { call } => {
                if let Some(node) = self.calls.node_of(call) {
                    self.step_control(out, cluster::control::Event::Lost(node));
                }
                self.ended(out, call, Err("connection refused".into()));
            }
        }
    }

    /// A call has come to its end, well or badly.
    fn ended(&mut self, out: &mut Out<'_>, call: u64, end: Result<Arc<[Vec<u8>]>, String>) {
        match self.calls.take(call) {
            None => {}
            Some(calls::For::Control { id }) => self.control_ended(out, id, end),
            Some(calls::For::Write { number, part, node }) => {
                self.write_ended(out, (number, part), node, end)
            }
            Some(calls::For::Hint { node }) => self.hint_ended(out, node, end),
            Some(calls::For::Read { number, ask }) => self.read_ended(out, number, ask, end),
            Some(calls::For::Repair { token }) => self.repair_ended(out, token, end),
            Some(calls::For::Bootstrap { token }) => self.bootstrap_ended(out, token, end),
        }
    }

    /// A timer rang.
    pub fn rang(&mut self, out: &mut Out<'_>, timer: Timer) {
        match timer {
            Timer::Tick => {
                self.step_control(out, cluster::control::Event::Tick);
                if out.now_ms() % 1_000 < 100 {
                    self.report(out);
                }
                out.timer(100, Timer::Tick);
            }
            Timer::Expire { call } => self.ended(out, call, Err("timed out".into())),
            Timer::Send { call } => self.send_now(out, call),
            Timer::Synced => self.synced(out),
            Timer::Persisted => self.persisted(out),
            Timer::Maintain => self.maintain(out),
            Timer::Repair => {
                self.step_repair(out, cluster::repair::Event::Tick);
                out.timer(250, Timer::Repair);
            }
            Timer::Bootstrap => {
                self.step_bootstrap(out, cluster::bootstrap::Event::Tick);
                out.timer(250, Timer::Bootstrap);
            }
            Timer::Forget { shard, since } => self.forget(out, shard, since),
            Timer::Read { number } => self.read_tick(out, number),
            Timer::Write { number } => self.write_late(out, number),
            Timer::Hints => self.hints_tick(out),
        }
    }

    /// A client asks for something.
    pub fn asked(&mut self, out: &mut Out<'_>, operation: Operation) {
        let ready = self.view.is_some() && self.engine.is_some();
        if !ready {
            return out.answer(&operation, Answer::Failed("starting".into()));
        }
        match operation.request.clone() {
            Request::Write { rows, consistency } => self.write(out, operation, rows, consistency),
            Request::Read { which, range, consistency, partial } => {
                let wanted = read::Wanted { what: None, which, range, partial };
                self.read(out, operation, wanted, consistency)
            }
            Request::Look { what, which, range, consistency } => {
                let wanted = read::Wanted { what: Some(what), which, range, partial: false };
                self.read(out, operation, wanted, consistency)
            }
            Request::Operate(order) => self.operate(out, operation, order),
            Request::Administer { retention_ms } => self.administer(out, operation, retention_ms),
        }
    }

    /// What was on its way to the disk may get there although the process is gone.
    pub fn interrupted(&mut self) {
        if let Some(engine) = &self.engine {
            engine.interrupted();
        }
        self.control.interrupted();
    }

    /// Why it must stop.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Whether its engine takes no writes.
    pub fn is_read_only(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.replica.stats().read_only.is_some())
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// The cluster as it sees it.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// Its engine, once it has one.
    pub fn replica(&self) -> Option<&Arc<storage::Engine>> {
        self.engine.as_ref().map(|engine| &engine.replica)
    }

    /// Its control plane.
    pub fn controller(&self) -> &Controller {
        &self.control.controller
    }

    /// What it has under way: calls, writes, reads.
    pub fn under_way(&self) -> (usize, usize, usize) {
        (self.calls.len(), self.writes.len(), self.reads.len())
    }

    /// It has to stop.
    fn stop_because(&mut self, why: String) {
        self.stopped.get_or_insert(why);
    }
}
