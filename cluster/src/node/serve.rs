//! What this node does for others with its own replica.

use super::shared::Shared;
use crate::placement::NodeId;
use crate::transport::{Emitter, Kind, Reply};
use crate::write::{self, Received};
use crate::{read, repair};
use bytes::Bytes;
use std::sync::Arc;

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

    /// Answers reads and repair, on a thread that may block.
    pub(super) fn serve_stream(self: Arc<Shared>, from: NodeId, kind: Kind, body: Bytes, emit: Emitter) {
        let Some(places) = self.data().map(|data| data.serving.clone()) else {
            return emit.busy();
        };
        tokio::spawn(async move {
            // It is never closed.
            let Ok(place) = places.acquire_owned().await else { return };
            let work = move || {
                self.answer(from, kind, &body, emit);
                drop(place);
            };
            let _ = tokio::task::spawn_blocking(work).await;
        });
    }

    fn answer(&self, from: NodeId, kind: Kind, body: &[u8], emit: Emitter) {
        let (Some(current), Some(data)) = (self.current(), self.data()) else {
            return emit.busy();
        };
        if emit.is_stopped() {
            return;
        }
        let (view, replica) = (&*current.view, &*data.replica);
        match kind {
            Kind::Read => {
                let chunks = &mut |chunk: Vec<u8>| emit.emit(chunk).map_err(|_| read::Stop);
                // Who stopped knows.
                let _ = read::serve(view, replica, body, threads(), &|| self.now_ms(), chunks);
            }
            Kind::Repair => {
                let chunks = &mut |chunk: Vec<u8>| {
                    let _ = emit.emit(chunk);
                };
                if let Err(malformed) = repair::serve(view, replica, from, body, chunks) {
                    tracing::warn!(peer = %self.address_of(from), why = %malformed, "refused what a peer asked");
                    emit.fail(malformed.to_string());
                }
            }
            _ => emit.fail("it is asked in another way"),
        }
    }
}
