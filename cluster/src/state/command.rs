//! What can be asked of the state, and what it answers.

use super::Profile;
use crate::jobs;
use crate::placement::{Change, NodeId, NodeState, Placement};
use crate::stop::Reason;
use crate::view::Namespace;

/// A command with the token of whoever wants it. The same token means the same wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Random.
    pub token: u128,
    /// The wish.
    pub command: Command,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A node joins, or joins again because it lost its Raft log and nothing else. Gives [`Outcome::Member`].
    AddNode {
        /// Drawn once, kept in its directory.
        id: NodeId,
        /// Of its data directory.
        disk: u128,
        /// Of the Raft log that it has made or will make; never zero.
        incarnation: u64,
        /// The cluster that its directory belongs to; 0 if it belongs to none.
        cluster: u128,
        /// The rest.
        profile: Profile,
    },
    /// A node has started.
    RegisterStart {
        /// Which.
        node: NodeId,
        /// Of its data directory.
        disk: u128,
        /// The rest.
        profile: Profile,
    },
    /// A node said to others that it has started, and has not registered that itself: it may have ended before. Changes nothing if that
    /// start, or a later one, is registered.
    NoteStart {
        /// Which.
        node: NodeId,
        /// Which start of its data directory.
        starts: u64,
        /// Drawn by its process.
        boot: u128,
    },
    /// Something else is expected of a node. Gone is for ever.
    SetNodeState {
        /// Which.
        id: NodeId,
        /// What.
        state: NodeState,
    },
    /// Makes a namespace or changes it.
    ApplyNamespace {
        /// Its name.
        name: String,
        /// How its samples are kept.
        namespace: Namespace,
    },
    /// Removes a namespace.
    DeleteNamespace {
        /// Its name.
        name: String,
    },
    /// Replaces the placement at once. Gives [`Outcome::Epoch`].
    AdoptPlacement {
        /// The epoch that it was computed from.
        from_epoch: u64,
        /// The next placement.
        placement: Placement,
    },
    /// Begins moves of shards, takes them a step further, or gives them up; all in one epoch, or none. Gives [`Outcome::Epoch`].
    MoveShards {
        /// The epoch that this was computed from.
        from_epoch: u64,
        /// What changes, in order.
        changes: Vec<Change>,
    },
    /// From now on there may be data.
    NoteData,
    /// Another number of copies is wanted.
    SetReplicationFactor {
        /// From 1.
        factor: u8,
    },
    /// Whether the autopilot declares nodes lost.
    PauseAutopilot {
        /// Not any more, or again.
        paused: bool,
    },
    /// Somebody outside heals this cluster, such as a Kubernetes operator, and will say so again in time: the autopilot stands by meanwhile.
    HoldLease {
        /// Who.
        holder: String,
        /// For how long this holds; 0 gives it up.
        ttl_ms: u64,
    },
    /// The lease was not renewed in time.
    EndLease {
        /// As the leader knows it; a later one goes on.
        renewals: u64,
    },
    /// Bytes a second of blocks that each node may fetch for the copies that it makes.
    ThrottleMoves {
        /// 0 for what the nodes are configured with.
        bytes_per_second: u64,
    },
    /// All nodes know the features of this version. There is no way back.
    RaiseFeatures {
        /// The version.
        version: u32,
    },
    /// Begins a job, with its first effect, unless another job contradicts it. Gives [`Outcome::Record`]; of what is at work or was done before, that
    /// of the job then.
    StartJob {
        /// What.
        kind: jobs::Kind,
        /// The node that goes never comes back: it is gone at once. One that is healed is lost from now on.
        lost: bool,
        /// The placement from which this follows; none if it follows from any.
        epoch: Option<u64>,
        /// Now, in milliseconds since 1970.
        at_ms: u64,
        /// Who asks, for people.
        by: String,
        /// Copies to be made, as the proposer computed them.
        copies: u64,
        /// Bytes of these.
        bytes: u64,
    },
    /// Takes a job further, or gives it up. Gives [`Outcome::Record`].
    ChangeJob {
        /// Its number.
        id: u64,
        /// The revision that was seen.
        revision: u64,
        /// What shall become of it.
        step: jobs::Step,
        /// Now, in milliseconds since 1970.
        at_ms: u64,
    },
    /// Writes a record. Gives [`Outcome::Record`].
    Put {
        /// Where.
        table: Table,
        /// Its number; 0 for a new one.
        id: u64,
        /// The revision that is replaced; 0 for a new one.
        revision: u64,
        /// Its owner's.
        bytes: Vec<u8>,
    },
    /// Removes a record.
    Delete {
        /// Where.
        table: Table,
        /// Its number.
        id: u64,
        /// The revision that is removed.
        revision: u64,
    },
}

/// Which records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Deletions; the number is the generation.
    Tombstones,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now.
    Done,
    /// The node's number as a member.
    Member(u64),
    /// The placement's epoch.
    Epoch(u64),
    /// The record's number and revision.
    Record {
        /// Number.
        id: u64,
        /// Revision.
        revision: u64,
    },
}

/// Of what kind a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It can never be so.
    Invalid,
    /// What it is about is not there.
    NotFound,
    /// It was computed from something that has changed; look again.
    Conflict,
    /// There is too much already.
    Limit,
    /// The data directory of the node that asks cannot be used (any more), and why.
    Directory(Reason),
}

/// Why a command changed nothing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Its kind.
    pub fault: Fault,
    /// For people.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(fault: Fault, text: impl ToString) -> Refusal {
        Refusal { fault, text: text.to_string() }
    }

    pub(crate) fn invalid(text: impl ToString) -> Refusal {
        Refusal::new(Fault::Invalid, text)
    }
}
