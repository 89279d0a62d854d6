//! What goes into a controller and what comes out.

use super::file::{Directory, NodeFile};
use super::health::Sighting;
use crate::bootstrap::CopyProgress;
use crate::jobs::Outlook;
use crate::placement::NodeId;
use crate::raft::Batch;
use crate::state::{Command, Fault, Outcome, Refusal};
use crate::stop::{Reason, Stop};
use crate::view::View;
use model::Shard;
use std::sync::Arc;

/// How a controller behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Without a sign of life for so long, a node is suspect.
    pub suspect_ms: u64,
    /// And after so long it is down.
    pub down_ms: u64,
    /// When a node that does not answer is lost, so that its copies are made elsewhere.
    pub loss: super::loss::Policy,
    /// Between two heartbeats of a node.
    pub heartbeat_ms: u64,
    /// Between two tries to join, or to register or propose where there was no leader.
    pub retry_ms: u64,
    /// What a call to another node may take.
    pub call_timeout_ms: u64,
    /// After which a proposal of this node fails.
    pub propose_timeout_ms: u64,
    /// Of the Raft member. A tick is an [`Event::Tick`]. The seed is set by the controller, from the boot id.
    pub raft: crate::raft::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            suspect_ms: 3_000,
            down_ms: 10_000,
            loss: super::loss::Policy { grace_ms: 900_000, dead_percent_max: 40 },
            heartbeat_ms: 1_000,
            retry_ms: 500,
            call_timeout_ms: 2_000,
            propose_timeout_ms: 10_000,
            raft: crate::raft::Options::default(),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// 100 ms have gone by.
    Tick,
    /// A Raft message, see [`Effect::Send`].
    Message {
        /// Who sent it.
        from: NodeId,
        /// As it was sent.
        bytes: Vec<u8>,
    },
    /// The batch with this sequence, and all before, are on disk.
    Persisted(u64),
    /// Somebody calls. Answered by [`Effect::Respond`] with the same number, now or later, or never.
    Request {
        /// Who; `None` if it only has the token, as a node that joins.
        from: Option<NodeId>,
        /// Chosen by the shell.
        id: u64,
        /// As in [`Effect::Call`].
        body: Vec<u8>,
    },
    /// An answer to a call.
    Reply {
        /// The call's number.
        id: u64,
        /// As in [`Effect::Respond`].
        body: Vec<u8>,
    },
    /// A call came to nothing.
    Failed {
        /// The call's number.
        id: u64,
        /// Why, for people.
        why: String,
    },
    /// A peer refused this node for good: it knows of a later start of it, or that it was removed.
    Unwelcome(Stop),
    /// Somebody on this node wants a change. Answered by [`Effect::Done`].
    Local {
        /// Chosen by the shell.
        token: u64,
        /// What.
        command: Command,
    },
    /// Somebody wants this node, which waits for a cluster to join, to make one instead. Answered by [`Effect::Done`].
    Create {
        /// Chosen by the shell, not in use otherwise.
        token: u64,
        /// 128 random bits: the cluster, if it is made.
        cluster: u128,
    },
    /// Somebody on this node wants to read what was agreed on before now. Answered by [`Effect::Done`]; the view is up to date then.
    Read {
        /// Chosen by the shell, not in use for a [`Event::Local`].
        token: u64,
    },
    /// How this node is; the last one is told to the leader.
    Report(NodeReport),
    /// What the clock on the wall shows, in milliseconds since 1970: for what people read, nothing follows from it.
    Clock(u64),
    /// The copies of shards that move here which are complete: [`crate::repair::Effect::Copied`]. Told to the leader.
    Copied(Vec<(Shard, u64)>),
    /// How far each copy is that this node makes: [`crate::bootstrap::Bootstrap::copies`]. Told to the leader, for people.
    Copying(Vec<CopyProgress>),
    /// This node is about to stop: somebody else shall lead, and others shall be asked first.
    Leave,
    /// A peer answered, or sent something.
    Seen(NodeId),
    /// The connection to a peer broke or could not be made.
    Lost(NodeId),
    /// A peer said that it was started more often than is agreed on.
    Started {
        /// Who.
        node: NodeId,
        /// How often.
        starts: u64,
        /// The process.
        boot: u128,
    },
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A node of the view.
    Node(NodeId),
    /// Whoever listens at `host:port`, without saying who calls.
    Address(String),
}

/// What the shell has to do, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write this to the Raft log, one batch after the other, and say so with [`Event::Persisted`].
    Persist(Batch),
    /// Send this Raft message; it may get lost, but must not be held up by others for long.
    Send {
        /// A node of the view.
        to: NodeId,
        /// For its [`Event::Message`].
        bytes: Vec<u8>,
    },
    /// Ask somebody. Ends with [`Event::Reply`] or [`Event::Failed`].
    Call {
        /// Whom.
        to: Target,
        /// The call's number, for the answer.
        id: u64,
        /// For its [`Event::Request`].
        body: Vec<u8>,
        /// After which it failed.
        timeout_ms: u64,
    },
    /// The answer to an [`Event::Request`].
    Respond {
        /// The request's number.
        id: u64,
        /// For its [`Event::Reply`].
        body: Vec<u8>,
    },
    /// This node belongs to this cluster from now on: the data directory gets this identity, durably, before any later effect.
    Joined(Directory),
    /// Write this to the data directory ([`NodeFile::write`]), durably, before any later effect.
    Remember(NodeFile),
    /// The cluster looks like this from now on.
    View(Arc<View>),
    /// Why no node is declared lost although one has been away for too long; none, if none is. Told when it changes.
    Held(Option<super::loss::Brake>),
    /// How the nodes are, as the leader or this node sees it. For people.
    Health(Arc<Vec<(NodeId, Sighting)>>),
    /// How far everything is, as the leader sees it. For people.
    Outlook(Arc<Outlook>),
    /// What came of an [`Event::Local`], [`Event::Create`] or [`Event::Read`].
    Done {
        /// Its token.
        token: u64,
        /// What.
        result: Result<Outcome, ControlError>,
    },
    /// What a start that takes long is waiting for, in words. Said once for each.
    Progress(String),
    /// A peer sent what was not taken; nothing has changed. For the log, and to be counted.
    Refused {
        /// Who, if it said so.
        from: Option<NodeId>,
        /// Why.
        why: String,
    },
    /// This node must stop. Why, with the way out. Nothing comes after it.
    Fatal(Stop),
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No leader took it in time. It may or may not be made yet.
    #[error(
        "no leader of the control plane took the change in time (it may still be made): {0}; try again when a majority of the voters is up"
    )]
    NoLeader(String),
    /// Too much waits already. A condition that passes.
    #[error("the control plane is busy; try again")]
    Busy,
}

impl From<Refusal> for Stop {
    fn from(Refusal { fault, text }: Refusal) -> Stop {
        match fault {
            Fault::Directory(reason) => Stop::new(reason, text),
            Fault::Invalid | Fault::NotFound | Fault::Conflict | Fault::Limit => Stop::other(text),
        }
    }
}

impl From<ControlError> for Stop {
    fn from(error: ControlError) -> Stop {
        match error {
            ControlError::Refused(refusal) => refusal.into(),
            ControlError::NoLeader(_) | ControlError::Busy => Stop::new(Reason::Other, error.to_string()),
        }
    }
}

/// A copy on its way, as the leader knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// Who makes it.
    pub node: NodeId,
    /// Bytes of blocks that have come.
    pub bytes_done: u64,
    /// Bytes of blocks that there are to be; `None` until that node knows.
    pub bytes_total: Option<u64>,
}

/// How a node is. A few numbers, for the leader and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Bytes free on its disk.
    pub disk_free: u64,
    /// Bytes of its disk.
    pub disk_total: u64,
    /// Active series.
    pub series: u64,
    /// Busy share of its CPUs, in thousandths.
    pub load_permille: u32,
    /// Damaged places that are not mended.
    pub damage: u32,
    /// Bytes of its data on disk: blocks and log.
    pub data_bytes: u64,
    /// Whether its engine has, or ever had, any sample.
    pub has_data: bool,
}
