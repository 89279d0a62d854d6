//! Frames between nodes, over one gRPC service with opaque bodies. `docs/format/transport.md` draws them.
//!
//! ```text
//!   to each peer, four connections of one's own, so that none waits behind another:
//!     control  one stream of frames: Raft messages, heartbeats, proposals
//!     write    one stream of frames: rows, metadata
//!     bulk     a stream for each call: reads and repair, answers in chunks
//!     files    the same for blocks
//!
//!   call ─► queue (bounded) ─► stream ─► peer: handler ─► reply ─► stream ─► caller, by id
//! ```
//!
//! It carries and knows nothing of what it carries. Every stream begins with a [`handshake`]: who calls, whom, of which
//! cluster, with which token. What must stay true:
//!
//! * Frames of a lane arrive in the order in which they were sent, or not at all; a lost connection fails what was under way.
//! * Nothing blocks the caller: a full queue is [`Error::Busy`] at once, a peer that is away [`Error::Unreachable`] at once.
//! * A peer that stops answering is noticed within seconds, by pings, and a call ends at its deadline whatever happens.
//! * Bytes from a peer are bounded before memory is taken for them, and whatever they are, the stream ends and the node goes on.
//!
//! Locks: a link's state is locked alone and never across an `await`.

mod codec;
mod counters;
pub mod frame;
pub mod handshake;
mod join;
mod link;
mod net;
mod peers;
mod server;
#[cfg(test)]
mod tests;

pub use counters::{Counters, Flow, Snapshot};
pub use handshake::{Identity, Refusal, Run, Token};
pub use join::{Stranger, Waiting, join};
pub use net::Listener;
pub use peers::{Chunks, Queues, Transport};
pub use server::{Emitter, Reply, Stopped};

use crate::placement::NodeId;
use bytes::Bytes;
use std::net::IpAddr;
use std::time::Duration;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Raft messages, one way.
    Raft = 0,
    /// Calls of the control plane: heartbeats, proposals.
    Control = 1,
    /// Rows.
    Write = 2,
    /// Metadata of metric families.
    Describe = 3,
    /// Selections and lookups; answered in chunks.
    Read = 4,
    /// Digests and exports; answered in chunks.
    Repair = 5,
    /// Blocks as files; answered in chunks.
    Bootstrap = 6,
}

impl Kind {
    /// All of them, by their numbers.
    pub const ALL: [Kind; 7] =
        [Kind::Raft, Kind::Control, Kind::Write, Kind::Describe, Kind::Read, Kind::Repair, Kind::Bootstrap];

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Raft => "raft",
            Kind::Control => "control",
            Kind::Write => "write",
            Kind::Describe => "describe",
            Kind::Read => "read",
            Kind::Repair => "repair",
            Kind::Bootstrap => "bootstrap",
        }
    }

    fn lane(self) -> Lane {
        match self {
            Kind::Raft | Kind::Control => Lane::Control,
            Kind::Write | Kind::Describe => Lane::Write,
            Kind::Read | Kind::Repair => Lane::Bulk,
            Kind::Bootstrap => Lane::Files,
        }
    }
}

/// A connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Control,
    Write,
    Bulk,
    Files,
}

impl Lane {
    const ALL: [Lane; 4] = [Lane::Control, Lane::Write, Lane::Bulk, Lane::Files];
}

/// Bounds and pace. Every queue has its bound here.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest body of a frame.
    pub frame_bytes_max: usize,
    /// Frames that wait to be sent to one peer on one lane, or for its answer.
    pub queue_frames_max: usize,
    /// Bytes that wait to be sent to one peer on one lane.
    pub queue_bytes_max: usize,
    /// Requests of one peer on one lane that are worked on at a time; more wait in its queue.
    pub served_frames_max: usize,
    /// Streamed calls that one connection may have at a time.
    pub streams_max: u32,
    /// Connections of all peers.
    pub connections_max: usize,
    /// To connect and agree on who is who.
    pub connect_timeout: Duration,
    /// Between pings.
    pub ping_interval: Duration,
    /// A peer that does not answer a ping for so long is away.
    pub ping_timeout: Duration,
    /// First and longest pause between attempts to connect.
    pub backoff: (Duration, Duration),
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            frame_bytes_max: frame::BYTES_MAX,
            queue_frames_max: 4096,
            queue_bytes_max: 64 << 20,
            served_frames_max: 1024,
            streams_max: 256,
            connections_max: 1024,
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
        }
    }
}

/// Where a peer is, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`.
    pub address: String,
    /// How often it was started, as far as is known: who says less stands on an old copy of its directory.
    pub starts: u64,
}

/// What is noticed of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It answers.
    Seen(NodeId),
    /// It does not, or not any more.
    Lost(NodeId),
    /// There is a connection for rows and metadata, a new one: what was sent before, and not answered, may be lost.
    Connected(NodeId),
    /// It was started more often than is known from elsewhere.
    Started(NodeId, Run),
    /// It answered, and does not want to have to do with this node.
    Refused {
        /// Who.
        by: NodeId,
        /// Why, to be decided on.
        reason: Refusal,
        /// Why, for people.
        why: String,
    },
}

/// What a peer asks of this node. Called in the order of sending, one after the other for each peer and lane, on threads that must
/// not be blocked.
pub trait Handler: Send + Sync + 'static {
    /// A frame. `reply` is `None` for what goes one way.
    fn frame(&self, from: NodeId, kind: Kind, body: Bytes, timeout: Duration, reply: Option<Reply>);

    /// A call that is answered in chunks, from any thread.
    fn stream(&self, from: NodeId, kind: Kind, body: Bytes, timeout: Duration, emit: Emitter);

    /// Somebody who belongs to no cluster yet and has the token wants to join.
    fn join(&self, from: IpAddr, body: Bytes, timeout: Duration, reply: Reply);
}

/// Why a call came to nothing. What it asked for may have happened unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was sent: too much waits already.
    #[error("the queue to node {0} is full")]
    Busy(NodeId),
    /// Nothing was sent: there is no connection.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        node: NodeId,
        /// Of the last attempt.
        why: String,
    },
    /// The connection was lost.
    #[error("the connection to node {0} was lost before it answered")]
    Lost(NodeId),
    /// No answer in time.
    #[error("node {0} did not answer in time")]
    Deadline(NodeId),
    /// The peer could not or would not.
    #[error("node {node} answered: {why}")]
    Failed {
        /// Who.
        node: NodeId,
        /// Its words.
        why: String,
    },
    /// The peer has too much to do.
    #[error("node {0} has too much to do")]
    PeerBusy(NodeId),
    /// Longer than any frame may be.
    #[error("a body of {got} bytes, and a frame has at most {max}")]
    TooLarge {
        /// Its length.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// The node at an address did not let this one join, or could not be asked.
    #[error("{address}: {why}")]
    Join {
        /// Who was asked.
        address: String,
        /// Why, from the answer if there was one.
        why: String,
        /// Why, to be decided on, if it was refused by the handshake.
        reason: Option<Refusal>,
    },
}
