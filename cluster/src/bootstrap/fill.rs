//! One shard on its way: what peers offer, what was chosen of it, how far each block is.

use super::window::{self, Window};
use crate::placement::NodeId;
use model::{Digest, SealedBlock, Shard, TimeRange};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// Blocks of one peer that are remembered. What is behind them is left to repair.
const OFFERED_MAX: usize = 32 << 10;

/// A block that is being copied: its window, and a number that is never given again.
pub(super) type Key = (usize, u64);

/// How far a fill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Peers are asked what they have, not before this.
    Listing { not_before_ms: u64 },
    /// What is here already is being looked at.
    Surveying,
    /// Blocks come.
    Copying,
    /// What is left over is being removed.
    Ending,
}

/// What one peer has said so far.
#[derive(Debug, Default)]
pub(super) struct List {
    pub blocks: Vec<SealedBlock>,
    pub is_asked: bool,
    pub is_complete: bool,
}

/// How far a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its tail is to be asked for.
    Tail,
    TailAsked,
    Beginning,
    Pieces,
    Finishing,
}

/// A block on its way.
#[derive(Debug)]
pub(super) struct Copy {
    pub block: SealedBlock,
    /// Who has this file.
    pub sources: Vec<NodeId>,
    pub stage: Stage,
    /// Pieces that are to be asked for.
    pub todo: VecDeque<Range<u64>>,
    /// Pieces that are asked for, or being written.
    pub under_way: usize,
    /// Bytes that are here.
    pub bytes: u64,
}

/// Bytes and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub bytes_total: u64,
    pub bytes_done: u64,
    pub blocks: u64,
}

/// A shard that is being filled.
pub(super) struct Fill {
    pub shard: Shard,
    /// When the move began for which it is.
    pub since: u64,
    /// Never given again: what was begun for an earlier fill of the shard is not for this one.
    pub number: u64,
    /// Copies of others that answer.
    pub live: usize,
    pub phase: Phase,
    /// How often peers were asked for lists again.
    pub round: u32,
    pub lists: BTreeMap<NodeId, List>,
    /// Everybody who is asked.
    pub peers: BTreeSet<NodeId>,
    windows: Vec<Window>,
    /// Digests of the windows here, before anything came.
    digests: Vec<Digest>,
    /// Blocks that are here, or have come.
    here: BTreeSet<u128>,
    pub copies: BTreeMap<Key, Copy>,
    /// Those of `copies` that have begun, and those that have not.
    pub begun: BTreeSet<Key>,
    pub waiting: BTreeSet<Key>,
    next: u64,
    /// Blocks that nobody can give any more: what came of them is to be removed.
    pub dropped: Vec<u128>,
    pub tally: Tally,
    /// Nobody waits for it any more.
    pub is_stopped: bool,
    /// Why it ends early.
    pub failure: Option<String>,
}

impl Fill {
    pub fn new(shard: Shard, since: u64, number: u64, peers: &[NodeId]) -> Fill {
        let mut fill = Fill {
            shard,
            since,
            number,
            live: peers.len(),
            phase: Phase::Listing { not_before_ms: 0 },
            round: 0,
            lists: BTreeMap::new(),
            peers: BTreeSet::new(),
            windows: Vec::new(),
            digests: Vec::new(),
            here: BTreeSet::new(),
            copies: BTreeMap::new(),
            begun: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next: 0,
            dropped: Vec::new(),
            tally: Tally::default(),
            is_stopped: false,
            failure: None,
        };
        fill.list_again(peers, 0);
        fill
    }

    /// Asks these peers, from the beginning.
    pub fn list_again(&mut self, peers: &[NodeId], not_before_ms: u64) {
        self.lists = peers.iter().map(|peer| (*peer, List::default())).collect();
        self.peers = peers.iter().copied().collect();
        self.phase = Phase::Listing { not_before_ms };
    }

    /// A page of a list.
    pub fn listed(&mut self, peer: NodeId, blocks: Vec<SealedBlock>, more: bool) {
        let Some(list) = self.lists.get_mut(&peer) else { return };
        list.blocks.extend(blocks);
        list.is_asked = false;
        list.is_complete = !more || list.blocks.len() >= OFFERED_MAX;
    }

    pub fn all_listed(&self) -> bool {
        self.lists.values().all(|list| list.is_complete)
    }

    /// Divides what was offered; the windows that have to be looked at here.
    pub fn divide(&mut self) -> Vec<TimeRange> {
        let lists = std::mem::take(&mut self.lists);
        self.windows = window::divide(lists.into_iter().map(|(peer, list)| (peer, list.blocks)).collect());
        self.phase = Phase::Surveying;
        self.windows.iter().map(|window| window.range).collect()
    }

    /// What is here is known: chooses.
    pub fn surveyed(&mut self, ids: Vec<u128>, digests: Vec<Digest>) {
        self.phase = Phase::Copying;
        self.here = ids.into_iter().collect();
        self.digests = digests;
        (0..self.windows.len()).for_each(|at| self.choose(at));
    }

    /// Takes the best offer for a window, unless its content is here.
    fn choose(&mut self, at: usize) {
        let window = &mut self.windows[at];
        let Some((_, blocks)) = window.choose(self.shard) else { return };
        let is_here = window::digest(blocks).is_some_and(|digest| self.digests.get(at) == Some(&digest));
        let coming: BTreeSet<u128> =
            self.copies.range((at, 0)..(at + 1, 0)).map(|(_, copy)| copy.block.id).collect();
        let wanted =
            |block: &&SealedBlock| !is_here && !self.here.contains(&block.id) && !coming.contains(&block.id);
        let missing: Vec<SealedBlock> = blocks.iter().filter(wanted).copied().collect();
        window.is_filled = missing.is_empty() && coming.is_empty();
        for block in missing {
            let sources = window.sources(&block);
            let (stage, todo) = (Stage::Tail, VecDeque::new());
            self.next += 1;
            let key = (at, self.next);
            self.copies.insert(key, Copy { block, sources, stage, todo, under_way: 0, bytes: 0 });
            self.waiting.insert(key);
            self.tally.bytes_total += block.bytes;
        }
    }

    /// More of a block is here.
    pub fn came(&mut self, key: Key, bytes: u64) {
        if let Some(copy) = self.copies.get_mut(&key) {
            copy.bytes += bytes;
            self.tally.bytes_done += bytes;
        }
    }

    /// A block is visible.
    pub fn finished(&mut self, key: Key) {
        let Some(copy) = self.forget(key) else { return };
        self.tally.bytes_done += copy.block.bytes - copy.bytes;
        self.tally.blocks += 1;
        self.here.insert(copy.block.id);
        if self.copies.range((key.0, 0)..(key.0 + 1, 0)).next().is_none() {
            self.windows[key.0].is_filled = true;
        }
    }

    fn forget(&mut self, key: Key) -> Option<Copy> {
        self.begun.remove(&key);
        self.waiting.remove(&key);
        self.copies.remove(&key)
    }

    /// A peer cannot give what it has offered of a window. Where nobody else has the same files, another offer is chosen.
    pub fn forsake(&mut self, at: usize, peer: NodeId) {
        let Some(window) = self.windows.get_mut(at) else { return };
        window.offers.remove(&peer);
        let mut lost = Vec::new();
        for (key, copy) in self.copies.range_mut((at, 0)..(at + 1, 0)) {
            copy.sources.retain(|source| *source != peer);
            lost.extend(copy.sources.is_empty().then_some(*key));
        }
        for key in &lost {
            let Some(copy) = self.forget(*key) else { continue };
            self.tally.bytes_total -= copy.block.bytes - copy.bytes;
            self.dropped.push(copy.block.id);
        }
        if !lost.is_empty() {
            self.choose(at);
        }
    }

    /// A peer is not asked any more.
    pub fn leave(&mut self, peer: NodeId) {
        if !self.peers.remove(&peer) {
            return;
        }
        self.lists.remove(&peer);
        for at in 0..self.windows.len() {
            if self.windows[at].offers.contains_key(&peer) {
                self.forsake(at, peer);
            }
        }
    }

    /// Whether it is known how much is to come.
    pub fn is_sized(&self) -> bool {
        matches!(self.phase, Phase::Copying | Phase::Ending)
    }

    /// Windows whose content could not be brought.
    pub fn missed(&self) -> u64 {
        self.windows.iter().filter(|window| !window.is_filled).count() as u64
    }
}
