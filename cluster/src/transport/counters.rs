//! What went over the network, counted.

use super::{Kind, Refusal};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
struct Pair {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Pair {
    fn read(&self) -> Flow {
        Flow { frames: self.frames.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}

/// Counts since the start.
#[derive(Default)]
pub struct Counters {
    sent: [Pair; Kind::ALL.len()],
    received: [Pair; Kind::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
    socket_sent: AtomicU64,
    socket_received: AtomicU64,
    connects: AtomicU64,
    connections: AtomicU64,
}

/// Frames and their bytes, gRPC's own five a frame among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// How many.
    pub frames: u64,
    /// How long together.
    pub bytes: u64,
}

/// [`Counters`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By [`Kind::ALL`]; requests and answers.
    pub sent: [Flow; Kind::ALL.len()],
    /// By [`Kind::ALL`]; requests and answers.
    pub received: [Flow; Kind::ALL.len()],
    /// By [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Bytes written to sockets, HTTP's own and pings among them.
    pub socket_sent: u64,
    /// Bytes read from sockets.
    pub socket_received: u64,
    /// Attempts to connect to peers.
    pub connects: u64,
    /// Connections of peers that are open now.
    pub connections: u64,
}

impl Counters {
    pub(super) fn sent(&self, kind: Kind, bytes: usize) {
        add(&self.sent, kind, bytes);
    }

    pub(super) fn received(&self, kind: Kind, bytes: usize) {
        add(&self.received, kind, bytes);
    }

    pub(super) fn refused(&self, reason: Refusal) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn socket_sent(&self, bytes: usize) {
        self.socket_sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn socket_received(&self, bytes: usize) {
        self.socket_received.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn connecting(&self) {
        self.connects.fetch_add(1, Relaxed);
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// All of it now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sent: self.sent.each_ref().map(Pair::read),
            received: self.received.each_ref().map(Pair::read),
            refused: self.refused.each_ref().map(|count| count.load(Relaxed)),
            socket_sent: self.socket_sent.load(Relaxed),
            socket_received: self.socket_received.load(Relaxed),
            connects: self.connects.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }
}

fn add(flows: &[Pair], kind: Kind, bytes: usize) {
    if let Some(flow) = flows.get(kind as usize) {
        flow.frames.fetch_add(1, Relaxed);
        flow.bytes.fetch_add(bytes as u64, Relaxed);
    }
}
