//! What this node does for others with its own replica.

use super::places::{Place, Places};
use super::shared::Shared;
use crate::placement::NodeId;
use crate::transport::{Emitter, Kind, Reply};
use crate::write::{self, Received};
use crate::{bootstrap, read, repair};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Reads of other nodes that are worked on at a time, for each CPU.
const READS_MAX: usize = 4;
/// The same for their repair, which can wait.
const REPAIRS_MAX: usize = 2;
/// The same for blocks that they copy.
const FILES_MAX: usize = 2;

/// Room for what other nodes ask of this one's replica.
pub(super) struct Serving {
    pub reads: Arc<Places>,
    pub repair: Arc<Places>,
    pub files: Arc<Places>,
}

impl Serving {
    pub fn new() -> Serving {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        let places = |each: usize| Arc::new(Places::new(each * cpus));
        Serving { reads: places(READS_MAX), repair: places(REPAIRS_MAX), files: places(FILES_MAX) }
    }
}

/// Series of a request may be read by so many threads at a time.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2)).min(4)
}

impl Shared {
    /// Appends rows, and answers when they are durable.
    pub(super) fn serve_write(&self, from: NodeId, frame: &[u8], reply: Reply) {
        let (Some(current), Some(data)) = (self.current(), self.data()) else {
            return reply.busy();
        };
        let Received { round, reply: answer, durable } =
            data.receiver.receive(&current.view, &*data.replica, from, frame);
        let Some(durable) = durable else {
            return reply.send(answer.encode(round));
        };
        // Whoever makes a copy of a shard relies on it: what this node takes under an older placement it has taken before it accepts the newer one.
        if let Some(epoch) = self.newer_than(&current.view) {
            return reply.send(write::Reply::StaleEpoch { epoch }.encode(round));
        }
        tokio::spawn(async move {
            match durable.await {
                Ok(()) => reply.send(answer.encode(round)),
                Err(error) => reply.send(Received::failed(&error).encode(round)),
            }
        });
    }

    /// Keeps what another node has heard of metric families. Best effort.
    pub(super) fn serve_describe(&self, from: NodeId, body: &[u8]) {
        let Some(data) = self.data() else { return };
        let described = match write::decode_metadata(body) {
            Ok(metadata) => data.replica.describe(&metadata).map_err(|error| error.to_string()),
            Err(malformed) => Err(malformed.to_string()),
        };
        if let Err(why) = described {
            tracing::debug!(peer = %self.address_of(from), %why, "metadata of another node was not kept");
        }
    }

    /// Answers reads, repair and whoever copies blocks, on a thread that may block.
    pub(super) fn serve_stream(
        self: Arc<Shared>,
        from: NodeId,
        kind: Kind,
        body: Bytes,
        within: Duration,
        emit: Emitter,
    ) {
        let places = self.data().and_then(|data| match kind {
            Kind::Read => Some(data.serving.reads.clone()),
            Kind::Repair => Some(data.serving.repair.clone()),
            Kind::Bootstrap => Some(data.serving.files.clone()),
            _ => None,
        });
        let Some(places) = places else { return emit.busy() };
        tokio::spawn(async move {
            // Who has asked does not wait for longer.
            match timeout(within, places.take(from)).await {
                Ok(place) => {
                    let work = move || self.answer(from, kind, &body, emit, place);
                    let _ = tokio::task::spawn_blocking(work).await;
                }
                Err(_) => emit.busy(),
            }
        });
    }

    fn answer(&self, from: NodeId, kind: Kind, body: &[u8], emit: Emitter, mut place: Place) {
        let (Some(current), Some(data)) = (self.current(), self.data()) else {
            return emit.busy();
        };
        if emit.is_stopped() {
            return;
        }
        let (view, replica) = (&*current.view, &*data.replica);
        let mut send = |chunk: Vec<u8>| match emit.is_full() {
            true => place.aside(|| emit.emit(chunk)),
            false => emit.emit(chunk),
        };
        match kind {
            Kind::Read => {
                let chunks = &mut |chunk: Vec<u8>| send(chunk).map_err(|_| read::Stop);
                // Who stopped knows.
                let _ = read::serve(view, replica, body, threads(), &|| self.now_ms(), chunks);
            }
            Kind::Repair => {
                let chunks = &mut |chunk: Vec<u8>| {
                    let _ = send(chunk);
                };
                match repair::serve(view, replica, from, body, chunks) {
                    // The rounds of repair find what does not fit here.
                    Ok(Some(suspect)) => drop(data.suspects.try_send(suspect)),
                    Ok(None) => {}
                    Err(malformed) => {
                        tracing::warn!(peer = %self.address_of(from), why = %malformed, "refused what a peer asked");
                        emit.fail(malformed.to_string());
                    }
                }
            }
            Kind::Bootstrap => match bootstrap::serve(view, replica, body) {
                // Who has gone knows.
                Ok(reply) => drop(send(reply)),
                Err(malformed) => {
                    tracing::warn!(peer = %self.address_of(from), why = %malformed, "refused what a peer asked");
                    emit.fail(malformed.to_string());
                }
            },
            _ => emit.fail("it is asked in another way"),
        }
    }
}
