//! Reads of this node's clients: how requests to other nodes travel.

use super::shared::Shared;
use crate::placement::NodeId;
use crate::read::{Asker, Inbox};
use crate::repair;
use crate::transport::Kind;
use bytes::Bytes;
use model::{ShardSet, TimeRange};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Asks by the transport, from threads that block.
pub(super) struct Asking {
    pub shared: Arc<Shared>,
    pub runtime: Handle,
}

/// A request that ends when this is dropped.
struct Asked(JoinHandle<()>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Asker for Asking {
    fn ask(&self, to: NodeId, request: Vec<u8>, timeout_ms: u64, mut inbox: Inbox) -> Box<dyn Any + Send> {
        let shared = self.shared.clone();
        let asking = async move {
            let Some(transport) = shared.transport() else { return inbox.fail("the node is starting") };
            let within = Duration::from_millis(timeout_ms);
            let mut chunks = match transport.stream(to, Kind::Read, Bytes::from(request), within).await {
                Ok(chunks) => chunks,
                Err(error) => return inbox.fail(error.to_string()),
            };
            while let Some(chunk) = chunks.next().await {
                match chunk.map(|chunk| inbox.put(Vec::from(chunk))) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(error) => return inbox.fail(error.to_string()),
                }
            }
        };
        Box::new(Asked(self.runtime.spawn(asking)))
    }

    fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    fn differed(&self, shards: &ShardSet, range: TimeRange) {
        let Some(data) = self.shared.data() else { return };
        for shard in shards.iter() {
            // The rounds of repair find what does not fit here.
            let _ = data.suspects.try_send(repair::Event::Suspect { shard, range, peer: None });
        }
    }
}
