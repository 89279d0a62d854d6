//! Shards of which this node is no replica any more, and when what it has of them is forgotten.

use crate::placement::Phase;
use crate::view::{Health, View};
use model::Shard;
use std::collections::BTreeMap;

/// Between two looks at a shard: rows that were late, or that a restart has brought back.
const AGAIN_MS: u64 = 60_000;

/// Whether a view says that this node is no replica of a shard, as it was since that epoch: others hold it, all of them, and it does not move.
pub fn is_given_up(view: &View, shard: Shard, since: u64) -> bool {
    let placement = &view.placement;
    let replicas = placement.replicas(shard);
    placement.changed(shard) == since
        && placement.phase(shard) == Phase::Settled
        && !replicas.is_empty()
        && replicas.iter().all(|replica| replica.node != view.me)
}

/// Since when which shards are given up, and when each is due.
#[derive(Default)]
pub(super) struct GivenUp(BTreeMap<Shard, (u64, u64)>);

impl GivenUp {
    pub fn see(&mut self, now_ms: u64, view: &View, after_ms: u64) {
        let shards = (0..view.shards()).map(|shard| Shard(shard as u16));
        let given_up = shards.filter_map(|shard| {
            let since = view.placement.changed(shard);
            is_given_up(view, shard, since).then(|| {
                let known = self.0.get(&shard).filter(|(known, _)| *known == since);
                (shard, known.copied().unwrap_or((since, now_ms + after_ms)))
            })
        });
        self.0 = given_up.collect();
    }

    /// What is due now. Where a replica seems to be away, this copy may be wanted yet by whoever repairs by hand: it waits.
    pub fn due(&mut self, now_ms: u64, view: &View, after_ms: u64) -> Vec<(Shard, u64)> {
        let up = |shard: Shard| {
            let mut nodes =
                view.placement.replicas(shard).iter().map(|replica| view.nodes.get(&replica.node));
            nodes.all(|node| node.is_some_and(|node| node.health == Health::Up))
        };
        let due = self.0.iter_mut().filter(|(shard, (_, due_ms))| *due_ms <= now_ms && up(**shard));
        due.map(|(shard, (since, due_ms))| {
            *due_ms = now_ms + after_ms.min(AGAIN_MS);
            (*shard, *since)
        })
        .collect()
    }
}
