//! A copy that this node makes of a shard that moves to it: which of the old replicas it has all of.
//!
//! It is complete when it holds everything that was acknowledged before writes needed this node as well. Whoever acknowledged that had it before it
//! accepted the placement with the move, so one whole *pass* over such a replica, begun after it accepted, brings what it had: every window of all time
//! compared, and what differs fetched and made durable. Every row that was acknowledged is on a majority of the old replicas, so it is enough to have passed
//! so many that no majority is without one of them ([`blocking`]). What was acknowledged later a majority of the new replicas has.
//!
//! Where a replica only goes, those that stay do the same, each counting itself: of {A, B, C}, what A and B acknowledged must be on B and C, and not on B alone,
//! before these two are all that there is.
//!
//! What is equal may be so in memory only: a pass counts when everything that was here by its end is on the disk.
//!
//! A pass may span changes of other shards: the questions are asked again under the new placement, as long as the move is the same. It does not
//! count when the replica knows of damage of its own, when it failed, or when rows that it told of did not come. After a restart passes begin again;
//! what is on the disk makes them quick. What [`crate::bootstrap`] brings as files comes before the passes and promises nothing: they find
//! what it has left out.

use super::pair::back_off;
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::quorum::blocking;
use crate::view::{Health, View};
use model::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// One copy in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copying {
    /// When the move began: it names it.
    pub since: u64,
    /// Old replicas that were passed.
    pub passed: BTreeSet<NodeId>,
    /// Those of which everything is here and not yet known to be on the disk, with the work that makes it so.
    pub syncing: BTreeMap<NodeId, u64>,
    /// Those that could not be passed: how often in a row, and when the next try is due.
    pub failed: BTreeMap<NodeId, (u32, u64)>,
}

/// Between two tries of a replica that cannot be passed, at first and at most.
const RETRY_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 30_000;

impl Copying {
    /// The copies that this node makes under a view, with what is known of them.
    pub fn of(view: &View, mut known: BTreeMap<Shard, Copying>) -> BTreeMap<Shard, Copying> {
        let (placement, me) = (&view.placement, view.me);
        let mine = placement.moving().filter(|shard| placement.completing(*shard).contains(&me));
        mine.map(|shard| {
            let since = placement.changed(shard);
            let begun = Copying { since, ..Copying::default() };
            (shard, known.remove(&shard).filter(|copying| copying.since == since).unwrap_or(begun))
        })
        .collect()
    }

    /// The old replicas that can be passed now, those that have not failed first.
    pub fn sources(&self, view: &View, shard: Shard, now_ms: u64) -> Vec<NodeId> {
        let due = |node: &NodeId| self.failed.get(node).is_none_or(|(_, due_ms)| *due_ms <= now_ms);
        let mut all = view.placement.old_replicas(shard);
        let begun = |node: &NodeId| self.passed.contains(node) || self.syncing.contains_key(node);
        all.retain(|node| *node != view.me && !begun(node) && due(node));
        all.sort_by_key(|node| self.failed.contains_key(node));
        all
    }

    /// The work that makes a pass count is over.
    pub fn synced(&mut self, now_ms: u64, token: u64, well: bool) {
        let source = self.syncing.iter().find(|(_, work)| **work == token).map(|(node, _)| *node);
        if let Some(source) = source {
            self.syncing.remove(&source);
            self.ended(now_ms, source, well);
        }
    }

    /// A pass has ended.
    pub fn ended(&mut self, now_ms: u64, source: NodeId, whole: bool) {
        if whole {
            self.passed.insert(source);
            return;
        }
        let (times, due_ms) = self.failed.entry(source).or_default();
        *times = times.saturating_add(1);
        *due_ms = now_ms + back_off(RETRY_MS, *times, RETRY_MAX_MS);
    }

    /// This node has lost something of the shard: it may be what was brought.
    pub fn restart(&mut self) {
        self.passed.clear();
        self.syncing.clear();
        self.failed.clear();
    }

    /// Whether the copy is complete. All old replicas that seem to be there are tried, and enough must have been passed.
    pub fn is_complete(&self, view: &View, shard: Shard) -> bool {
        if planted(Mistake::CutOverUnpassed) {
            return true;
        }
        let old = view.placement.old_replicas(shard);
        if planted(Mistake::PassOne) {
            return !self.passed.is_empty();
        }
        let up = |node: &NodeId| view.nodes.get(node).is_some_and(|peer| peer.health == Health::Up);
        let passed = |node: &NodeId| *node == view.me || self.passed.contains(node);
        let tried = |node: &NodeId| passed(node) || self.failed.contains_key(node);
        let enough = old.iter().filter(|node| passed(node)).count() >= blocking(old.len());
        enough && old.iter().all(|node| tried(node) || !up(node))
    }
}
