//! Bytes between processes, and the questions that are still open.

use super::super::network::Machine;
use super::super::world::Out;
use super::{Process, Timer};
use cluster::placement::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A controller's call.
    Control,
    /// A frame of rows.
    Write,
    /// A read's question.
    Read,
    /// A question of repair.
    Repair,
    /// A question of bootstrap.
    Bootstrap,
}

/// What travels.
#[derive(Clone)]
pub enum Packet {
    /// A Raft message.
    Raft {
        /// The sender's node; the transport's handshake knows it.
        from: NodeId,
        /// For the controller.
        bytes: Arc<[u8]>,
    },
    /// A question.
    Request {
        /// The sender's node. Whoever calls an address does not say.
        from: Option<NodeId>,
        /// Who is meant to be there, if that is known.
        to: Option<NodeId>,
        /// For the answer.
        call: u64,
        /// Whose.
        kind: Kind,
        /// What.
        body: Arc<[u8]>,
    },
    /// A whole answer. A stream that breaks off is one that never comes.
    Reply {
        /// The sender's node.
        from: NodeId,
        /// To which question.
        call: u64,
        /// Its pieces in order.
        chunks: Arc<[Vec<u8>]>,
    },
    /// Nobody listens, or somebody else does.
    Refused {
        /// To which question.
        call: u64,
    },
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |bytes: &[u8]| crc32(bytes);
        match self {
            Packet::Raft { bytes, .. } => write!(f, "raft {:08x}", sum(bytes)),
            Packet::Request { call, kind, body, .. } => write!(f, "{kind:?} {call:x} {:08x}", sum(body)),
            Packet::Reply { call, chunks, .. } => {
                write!(f, "reply {call:x}")?;
                chunks.iter().try_for_each(|chunk| write!(f, " {:08x}", sum(chunk)))
            }
            Packet::Refused { call } => write!(f, "refused {call:x}"),
        }
    }
}

/// A sum that tells bytes apart in a trace.
fn crc32(bytes: &[u8]) -> u32 {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add) as u32
}

/// What an answer is for.
#[derive(Clone, Copy, Debug)]
pub enum For {
    /// A call of the controller.
    Control {
        /// The controller's number.
        id: u64,
    },
    /// A frame of a write.
    Write {
        /// The write's.
        number: u64,
        /// Which part of it.
        part: usize,
        /// Whom it was sent to.
        node: NodeId,
    },
    /// A frame of hints.
    Hint {
        /// Whom it was sent to.
        node: NodeId,
    },
    /// A read's question.
    Read {
        /// The read's.
        number: u64,
        /// The coordinator's.
        ask: u32,
    },
    /// A question of repair.
    Repair {
        /// Its token.
        token: u64,
    },
    /// A question of bootstrap.
    Bootstrap {
        /// Its token.
        token: u64,
    },
}

impl For {
    /// Whose bytes these are.
    fn kind(self) -> Kind {
        match self {
            For::Control { .. } => Kind::Control,
            For::Write { .. } | For::Hint { .. } => Kind::Write,
            For::Read { .. } => Kind::Read,
            For::Repair { .. } => Kind::Repair,
            For::Bootstrap { .. } => Kind::Bootstrap,
        }
    }
}

struct Open {
    what: For,
    node: Option<NodeId>,
}

/// The open questions.
pub struct Calls {
    last: u64,
    open: BTreeMap<u64, Open>,
    /// To be sent later.
    later: BTreeMap<u64, (Machine, Packet)>,
}

impl Calls {
    /// Of a process that has just started.
    pub fn new(run: u64) -> Calls {
        Calls { last: run << 32, open: BTreeMap::new(), later: BTreeMap::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The answer is here, or will not come.
    pub fn take(&mut self, call: u64) -> Option<For> {
        self.open.remove(&call).map(|open| open.what)
    }

    /// Whom a question was sent to.
    pub fn node_of(&self, call: u64) -> Option<NodeId> {
        self.open.get(&call)?.node
    }
}

impl Process {
    /// Asks the process at a machine, in a while or at once; [`Process::ended`] is called exactly once.
    pub(super) fn call(
        &mut self,
        out: &mut Out<'_>,
        after_ms: u64,
        (to, node): (Machine, Option<NodeId>),
        body: Vec<u8>,
        timeout_ms: u64,
        what: For,
    ) {
        self.calls.last += 1;
        let call = self.calls.last;
        self.calls.open.insert(call, Open { what, node });
        let from = node.map(|_| self.me);
        let packet = Packet::Request { from, to: node, call, kind: what.kind(), body: body.into() };
        match after_ms {
            0 => out.send(to, packet),
            after_ms => {
                self.calls.later.insert(call, (to, packet));
                out.timer(after_ms, Timer::Send { call });
            }
        }
        out.timer(after_ms + timeout_ms, Timer::Expire { call });
    }

    /// It is time for what [`Process::call`] put off.
    pub(super) fn send_now(&mut self, out: &mut Out<'_>, call: u64) {
        if let Some((to, packet)) = self.calls.later.remove(&call) {
            out.send(to, packet);
        }
    }

    /// The machine of a node, as far as is known here.
    pub(super) fn machine_of(&self, node: NodeId) -> Option<Machine> {
        let state = self.control.controller.state()?;
        super::machine_of(&state.nodes().get(&node)?.profile.address)
    }

    /// Answers a question.
    pub(super) fn reply(&self, out: &mut Out<'_>, to: Machine, call: u64, chunks: Vec<Vec<u8>>) {
        out.send(to, Packet::Reply { from: self.me, call, chunks: chunks.into() });
    }
}
