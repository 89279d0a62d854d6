//! Who seems to be alive: what the leader hears, what a node sees itself, and what follows from both.

use super::event::{NodeReport, Options};
use crate::bootstrap::CopyProgress;
use crate::placement::NodeId;
use crate::view::Health;
use model::Shard;
use std::collections::BTreeMap;

/// What a node tells the leader each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Which start of its directory this is.
    pub starts: u64,
    /// The process.
    pub boot: u128,
    /// How far it has applied what is agreed on.
    pub applied: u64,
    /// Of its view: it has accepted this placement, and never goes back behind it.
    pub epoch: u64,
    /// It is about to stop, and others should be asked first.
    pub leaving: bool,
    /// How it is.
    pub report: NodeReport,
}

/// What else a node tells the leader each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidings {
    /// The copies that it makes.
    pub copies: Copies,
    /// Nodes that it has heard of lately.
    pub sees: Vec<NodeId>,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How it seems to be.
    pub health: Health,
    /// How long ago it was heard of.
    pub age_ms: u64,
    /// What it said then.
    pub beat: Beat,
    /// Who else hears it.
    pub heard: Heard,
}

/// How many of the other nodes that the leader hears, and the leader, have heard of a node lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// So many have.
    pub by: u32,
    /// So many could.
    pub of: u32,
}

/// What a node tells the leader of the copies that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Those that are complete, with the epoch at which their shards last changed.
    pub complete: Vec<(Shard, u64)>,
    /// How far each is: of [`COPIES_MAX`] at most.
    pub progress: Vec<CopyProgress>,
}

/// Copies whose progress one node tells.
pub const COPIES_MAX: usize = 1024;

/// The memory of it.
#[derive(Default)]
pub(super) struct Watch {
    /// The last heartbeats, as far as this node leads.
    beats: BTreeMap<NodeId, (u64, Beat)>,
    /// And what came with them.
    tidings: BTreeMap<NodeId, Tidings>,
    /// Since when it leads.
    since_ms: u64,
    /// Who is heard by how many, as it was counted last.
    heard: BTreeMap<NodeId, Heard>,
    /// What the leader last told.
    told: BTreeMap<NodeId, Sighting>,
    /// When this node last saw whom, and whether it has lost it since.
    seen: BTreeMap<NodeId, (u64, bool)>,
}

impl Watch {
    /// This node leads from now on: everybody has the full time to be heard of.
    pub fn lead(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
        self.beats.clear();
        self.tidings.clear();
        self.heard.clear();
    }

    pub fn beat(&mut self, now_ms: u64, from: NodeId, beat: Beat, tidings: Tidings) {
        self.beats.insert(from, (now_ms, beat));
        self.tidings.insert(from, tidings);
        self.seen(now_ms, from);
    }

    pub fn last_beat(&self, node: NodeId) -> Option<&Beat> {
        self.beats.get(&node).map(|(_, beat)| beat)
    }

    /// Whether a node said that its copy of a shard is complete that it makes in the move, or step of one, that began then.
    pub fn has_copied(&self, node: NodeId, shard: Shard, since: u64) -> bool {
        self.tidings.get(&node).is_some_and(|tidings| tidings.copies.complete.contains(&(shard, since)))
    }

    /// How far a node said that its copy of a shard is.
    pub fn copy_of(&self, node: NodeId, shard: Shard) -> Option<CopyProgress> {
        self.tidings.get(&node)?.copies.progress.iter().find(|copy| copy.shard == shard).copied()
    }

    /// Whom this node has heard of lately.
    pub fn sees(&self, now_ms: u64, options: &Options) -> Vec<NodeId> {
        let lately = |at: u64, lost: bool| !lost && now_ms.saturating_sub(at) < options.down_ms;
        self.seen.iter().filter(|(_, (at, lost))| lately(*at, *lost)).map(|(node, _)| *node).collect()
    }

    /// A node from which the leader hears and that has heard of another lately.
    pub fn seen_by(&self, now_ms: u64, node: NodeId, options: &Options) -> Option<NodeId> {
        let heard = |from: &NodeId| self.sighting(now_ms, *from, options).health == Health::Up;
        let mut sees =
            self.tidings.iter().filter(|(from, tidings)| tidings.sees.contains(&node) && heard(from));
        sees.next().map(|(from, _)| *from)
    }

    pub fn told(&mut self, table: Vec<(NodeId, Sighting)>) {
        self.told = table.into_iter().collect();
    }

    pub fn seen(&mut self, now_ms: u64, node: NodeId) {
        self.seen.insert(node, (now_ms, false));
    }

    pub fn lost(&mut self, now_ms: u64, node: NodeId) {
        self.seen.entry(node).or_insert((now_ms, true)).1 = true;
    }

    /// Forgets nodes that are not there any more.
    pub fn retain(&mut self, there: impl Fn(NodeId) -> bool) {
        self.beats.retain(|node, _| there(*node));
        self.tidings.retain(|node, _| there(*node));
        self.heard.retain(|node, _| there(*node));
        self.told.retain(|node, _| there(*node));
        self.seen.retain(|node, _| there(*node));
    }

    /// What the leader knows of a node.
    pub fn sighting(&self, now_ms: u64, node: NodeId, options: &Options) -> Sighting {
        let (at, beat) = self.beats.get(&node).copied().unwrap_or((self.since_ms, Beat::default()));
        let age_ms = now_ms.saturating_sub(at.max(self.since_ms));
        let least = if beat.leaving { Health::Suspect } else { Health::Up };
        Sighting { health: by_age(age_ms, options).max(least), age_ms, beat, heard: self.heard_of(node) }
    }

    /// By how many a node is heard, as it was counted last.
    pub fn heard_of(&self, node: NodeId) -> Heard {
        self.heard.get(&node).copied().unwrap_or_default()
    }

    /// Counts anew who is heard by how many: once for all who ask, since it takes a look at every pair.
    pub fn count(&mut self, now_ms: u64, me: NodeId, nodes: &[NodeId], options: &Options) {
        let own = self.sees(now_ms, options);
        let is_up = |node: &NodeId| *node == me || self.sighting(now_ms, *node, options).health == Health::Up;
        let listeners: Vec<NodeId> = nodes.iter().copied().filter(is_up).collect();
        let sees = |node: &NodeId| match *node == me {
            true => Some(&own),
            false => self.tidings.get(node).map(|tidings| &tidings.sees),
        };
        let mut by: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (listener, seen) in listeners.iter().filter_map(|node| Some((node, sees(node)?))) {
            seen.iter().filter(|seen| *seen != listener).for_each(|seen| *by.entry(*seen).or_default() += 1);
        }
        let heard = |node: &NodeId| {
            let of = listeners.iter().filter(|listener| *listener != node).count() as u32;
            (*node, Heard { by: by.get(node).copied().unwrap_or(0).min(of), of })
        };
        self.heard = nodes.iter().map(heard).collect();
    }

    /// What the leader last told of a node.
    pub fn told_of(&self, node: NodeId) -> Option<&Sighting> {
        self.told.get(&node)
    }

    /// How a node seems to be. What this node sees itself counts more than what it is told: between these two nodes, it is true.
    pub fn health(&self, now_ms: u64, node: NodeId, leads: bool, options: &Options) -> Health {
        let own = self.seen.get(&node).and_then(|(at, lost)| match (now_ms.saturating_sub(*at), lost) {
            (age, false) if age < options.suspect_ms => Some(Health::Up),
            (_, false) => None,
            (age, true) if age < options.down_ms => Some(Health::Suspect),
            (_, true) => Some(Health::Down),
        });
        let known = || match leads {
            true => Some(self.sighting(now_ms, node, options)),
            false => self.told.get(&node).copied(),
        };
        match own {
            // That it stops soon cannot be seen.
            Some(Health::Up) if known().is_some_and(|known| known.beat.leaving) => Health::Suspect,
            Some(own) => own,
            None => known().map_or(Health::Up, |known| known.health),
        }
    }
}

fn by_age(age_ms: u64, options: &Options) -> Health {
    match age_ms {
        age if age < options.suspect_ms => Health::Up,
        age if age < options.down_ms => Health::Suspect,
        _ => Health::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_heard_by_how_many_counts_those_only_that_are_heard_themselves() {
        let options = Options::default();
        let [one, two, three, four] = [1, 2, 3, 4].map(NodeId);
        let mut watch = Watch::default();
        watch.lead(0);
        let sees = |sees: &[NodeId]| Tidings { sees: sees.to_vec(), ..Tidings::default() };
        // Node 4 was heard of by everybody, a while ago.
        watch.beat(1_000, four, Beat::default(), sees(&[one, two, three]));
        watch.beat(20_000, two, Beat::default(), sees(&[one, three, four]));
        watch.beat(20_000, three, Beat::default(), sees(&[one, two, three]));
        watch.count(20_000, one, &[one, two, three, four], &options);
        let heard = |node| (watch.heard_of(node).by, watch.heard_of(node).of);
        assert_eq!([one, two, three, four].map(heard), [(2, 2), (2, 2), (2, 2), (1, 3)]);
        assert_eq!(watch.sighting(20_000, four, &options).heard, Heard { by: 1, of: 3 });
    }
}
