//! The way from a placement to a target: moves, in order, each with its reason. Nothing is changed here.

use super::node::{Domain, Node, NodeId, NodeState};
use super::table::{Placement, Replica, ReplicaState};
use super::target::Target;
use super::tree::Tree;
use model::Shard;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// One change of one shard: a copy is made, one goes, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: Shard,
    /// The copy that goes; it stays until the new one is complete. `None` when one is added.
    pub from: Option<NodeId>,
    /// The copy that comes. `None` when one is given up.
    pub to: Option<NodeId>,
    /// Why.
    pub reason: Reason,
    /// Bytes to copy.
    pub bytes: u64,
    /// Live copies of the shard when this move begins, and while it runs.
    pub live: usize,
    /// Which of the moves of its shard this is, from 0: a shard makes one at a time.
    pub step: usize,
    /// It was begun already.
    pub under_way: bool,
    /// The destination of this move, or of one before it in its shard, is away: it goes on when that node is back.
    pub waits: bool,
}

/// Why a copy moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node is lost for good.
    Gone(NodeId),
    /// The node has been away for too long; its copy goes when another is complete.
    Lost(NodeId),
    /// The node is to be emptied.
    Draining(NodeId),
    /// The placement names a node that is no member, or not yet.
    NoMember(NodeId),
    /// Fewer copies than there should be.
    TooFew {
        /// Copies listed.
        have: usize,
        /// Copies wanted.
        want: usize,
    },
    /// More copies than there should be.
    TooMany {
        /// Copies listed.
        have: usize,
        /// Copies wanted.
        want: usize,
    },
    /// The copies of the shard can be spread better: this place has too many of them.
    Crowded {
        /// The domain.
        domain: Domain,
        /// Copies of the shard there.
        have: usize,
        /// As many as there should be at most.
        most: usize,
    },
    /// The copies of the shard can be spread better: this place should have one more.
    Missing {
        /// The domain.
        domain: Domain,
    },
    /// More than a fair share is here.
    Over {
        /// The domain or node, in words.
        place: String,
        /// Copies above the share, before the plan.
        by: u64,
    },
    /// Less than a fair share is there.
    Under {
        /// The domain or node, in words.
        place: String,
        /// Copies below the share, before the plan.
        by: u64,
    },
    /// Holds its share, but must take a copy that another cannot, and passes one on.
    MakesRoom(NodeId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(node) => write!(f, "node {node} is gone"),
            Self::Lost(node) => write!(f, "node {node} is lost"),
            Self::Draining(node) => write!(f, "node {node} is draining"),
            Self::NoMember(node) => write!(f, "node {node} is not a member"),
            Self::TooFew { have, want } => write!(f, "the shard has {have} of {want} copies"),
            Self::TooMany { have, want } => write!(f, "the shard has {have} copies and needs {want}"),
            Self::Crowded { domain, have, most } => {
                write!(f, "domain {domain} holds {have} copies of the shard and should hold {most}")
            }
            Self::Missing { domain } => write!(f, "domain {domain} should hold a copy of the shard"),
            Self::Over { place, by } => write!(f, "{place} is over its share by {by} {}", shards(*by)),
            Self::Under { place, by } => write!(f, "{place} is under its share by {by} {}", shards(*by)),
            Self::MakesRoom(node) => write!(f, "node {node} makes room for a shard that others cannot take"),
        }
    }
}

fn shards(count: u64) -> &'static str {
    if count == 1 { "shard" } else { "shards" }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: ", self.shard.0)?;
        match (self.from, self.to) {
            (Some(from), Some(to)) => write!(f, "{from} → {to}")?,
            (None, Some(to)) => write!(f, "add {to}")?,
            (Some(from), None) => write!(f, "drop {from}")?,
            (None, None) => {}
        }
        write!(f, ", {} bytes, {} live: {}", self.bytes, self.live, self.reason)
    }
}

/// The way to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do: the shards with the fewest live copies first, what waits for a node after that, and copies given up last. Of one shard, in
    /// the order of its steps.
    pub moves: Vec<Move>,
    /// Shards whose move under way leads elsewhere: to be cancelled before their moves begin.
    pub cancel: Vec<Shard>,
    /// Shards that should change but have no live copy: nothing to copy from until a node returns, or a human gives them up.
    pub stranded: Vec<Shard>,
    /// Bytes to copy in all.
    pub bytes: u64,
    /// The fewest live copies that any shard has at any moment of the plan, as long as no node fails.
    pub fewest_live: usize,
}

impl Plan {
    /// Copies to be made.
    pub fn copies(&self) -> usize {
        self.moves.iter().filter(|step| step.to.is_some()).count()
    }
}

/// How to get from the placement to the target. A cut-over to a copy that has arrived counts as finished, since it has no way back. `size` is what a copy of a shard has in bytes.
pub fn plan(old: &Placement, target: &Target, size: impl Fn(Shard) -> u64) -> Plan {
    let old = &old.settled();
    let planner = Planner::new(old, target);
    let mut plan = Plan { fewest_live: usize::MAX, ..Plan::default() };
    for (number, (replicas, wanted)) in old.shards().iter().zip(&target.shards).enumerate() {
        let shard = Shard(number as u16);
        planner.shard(shard, replicas, wanted, size(shard), &mut plan);
    }
    // Within a shard this order keeps the steps, since live copies only rise until copies are given up.
    plan.moves.sort_by_key(|step| match step.to {
        Some(_) => (false, step.waits, step.live, step.step, step.shard),
        None => (true, step.waits, 0, step.step, step.shard),
    });
    plan.moves.iter_mut().filter(|step| step.to.is_none()).for_each(|step| step.bytes = 0);
    plan.bytes = plan.moves.iter().fold(0, |sum: u64, step| sum.saturating_add(step.bytes));
    plan
}

struct Planner<'a> {
    target: &'a Target,
    nodes: HashMap<NodeId, &'a Node>,
    /// Vertices of the nodes that have a share.
    leaf: HashMap<NodeId, usize>,
    tree: Tree,
    /// What each vertex holds before the plan.
    held: Vec<u64>,
}

impl<'a> Planner<'a> {
    fn new(old: &Placement, target: &'a Target) -> Self {
        let holders = target.holders();
        let tree = Tree::new(&holders);
        let leaf: HashMap<NodeId, usize> =
            holders.iter().enumerate().map(|(i, node)| (node.id, tree.leaf(i))).collect();
        let nodes = target.nodes.iter().map(|node| (node.id, node)).collect();
        let mut planner = Self { target, nodes, leaf, tree, held: Vec::new() };
        let settled = old.shards().iter().flatten().filter(|r| r.state != ReplicaState::Leaving);
        planner.held = planner.count(settled.map(|r| r.node));
        planner
    }

    /// How many of these nodes' copies each vertex has.
    fn count(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<u64> {
        let mut held = vec![0; self.leaf.len()];
        let first = self.tree.leaves().start;
        nodes.filter_map(|node| self.leaf.get(&node)).for_each(|leaf| held[leaf - first] += 1);
        self.tree.sums(held)
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.state.is_live())
    }

    fn is_away(&self, destination: Option<NodeId>) -> bool {
        destination.is_some_and(|node| !self.is_live(node))
    }

    fn shard(&self, shard: Shard, replicas: &[Replica], wanted: &[NodeId], bytes: u64, plan: &mut Plan) {
        let initializing = |r: &&Replica| matches!(r.state, ReplicaState::Initializing { .. });
        let mut live = replicas.iter().filter(|r| !initializing(r) && self.is_live(r.node)).count();
        if !replicas.is_empty() {
            plan.fewest_live = plan.fewest_live.min(live);
        }
        let coming = replicas.iter().find(initializing).map(|r| r.node);
        let leaving = replicas.iter().find(|r| r.state == ReplicaState::Leaving).map(|r| r.node);
        let wants = |node: NodeId| wanted.contains(&node);
        let stays = |node: &NodeId| replicas.iter().any(|r| r.node == *node) && Some(*node) != leaving;
        // Where one only goes, nothing may have to come.
        let ends = || leaving.is_some() && wanted.iter().all(stays);
        let goes_on = coming.map_or_else(ends, wants) && !leaving.is_some_and(wants);

        // What the shard has once the move under way has ended, one way or the other.
        let over = if goes_on { leaving } else { coming };
        let have: Vec<NodeId> = replicas.iter().map(|r| r.node).filter(|&node| Some(node) != over).collect();
        let gone: Vec<NodeId> = have.iter().copied().filter(|&node| !wants(node)).collect();
        let added: Vec<NodeId> = wanted.iter().copied().filter(|node| !have.contains(node)).collect();
        if coming.is_none() && leaving.is_none() && gone.is_empty() && added.is_empty() {
            return;
        }
        if live == 0 && !replicas.is_empty() {
            plan.stranded.push(shard);
            return;
        }
        let mut changes = Vec::new();
        if goes_on {
            changes.push((leaving, coming));
        } else if coming.is_some() || leaving.is_some() {
            plan.cancel.push(shard);
        }
        changes.extend(self.pairs(gone, added));

        let mut now: HashSet<NodeId> =
            replicas.iter().map(|r| r.node).filter(|&node| Some(node) != coming).collect();
        let mut waits = false;
        for (step, (from, to)) in changes.into_iter().enumerate() {
            let reason = self.reason(&now, wanted.len(), from, to);
            let under_way = goes_on && step == 0;
            waits |= self.is_away(to);
            plan.moves.push(Move { shard, from, to, reason, bytes, live, step, under_way, waits });
            live += usize::from(to.is_some());
            live -= usize::from(from.is_some_and(|from| self.is_live(from)));
            plan.fewest_live = plan.fewest_live.min(live);
            now.retain(|&node| Some(node) != from);
            now.extend(to);
        }
    }

    /// Which copy replaces which: near ones first, so that the spread is kept on the way. Ordered so that live copies rise first
    /// and fall last.
    fn pairs(&self, mut gone: Vec<NodeId>, mut added: Vec<NodeId>) -> Vec<(Option<NodeId>, Option<NodeId>)> {
        let domain = |node: &NodeId| self.nodes.get(node).map(|node| &node.domain);
        let near = |a: &NodeId, b: &NodeId| match (domain(a), domain(b)) {
            (Some(a), Some(b)) => a.common_depth(b),
            _ => 0,
        };
        let mut pairs = Vec::new();
        while !gone.is_empty() && !added.is_empty() {
            let all = (0..gone.len()).flat_map(|g| (0..added.len()).map(move |a| (g, a)));
            // The lost ones first: a live copy for a dead one. `max_by_key` takes the last of equals, hence backwards.
            let best = all.rev().max_by_key(|&(g, a)| (!self.is_live(gone[g]), near(&gone[g], &added[a])));
            let Some((g, a)) = best else { break };
            pairs.push((Some(gone.remove(g)), Some(added.remove(a))));
        }
        pairs.extend(added.into_iter().map(|to| (None, Some(to))));
        pairs.extend(gone.into_iter().map(|from| (Some(from), None)));
        let rank = |&(from, to): &(Option<NodeId>, Option<NodeId>)| {
            (to.is_none(), self.is_away(to), from.is_some_and(|from| self.is_live(from)))
        };
        pairs.sort_by_key(rank);
        pairs
    }

    fn reason(
        &self,
        now: &HashSet<NodeId>,
        wanted: usize,
        from: Option<NodeId>,
        to: Option<NodeId>,
    ) -> Reason {
        let Some(from) = from else { return Reason::TooFew { have: now.len(), want: wanted } };
        match self.nodes.get(&from).map(|node| node.state) {
            None | Some(NodeState::Joining) => return Reason::NoMember(from),
            Some(NodeState::Gone) => return Reason::Gone(from),
            Some(NodeState::Lost) => return Reason::Lost(from),
            Some(NodeState::Draining) => return Reason::Draining(from),
            Some(NodeState::Up | NodeState::Down) => {}
        }
        let Some(to) = to else { return Reason::TooMany { have: now.len(), want: wanted } };
        let path = |node: NodeId| self.leaf.get(&node).map_or(Vec::new(), |&leaf| self.tree.path(leaf));
        let (mut left, mut entered) = (path(from), path(to));
        let shared = left.iter().zip(&entered).take_while(|(a, b)| a == b).count();
        (left, entered) = (left.split_off(shared), entered.split_off(shared));
        let (loads, held) = (&self.target.loads, &self.held);
        let copies = self.count(now.iter().copied());
        let domain = |v: usize| loads[v].domain.clone();
        let crowded = left.iter().find(|&&v| copies[v] > u64::from(*loads[v].per_shard.end()));
        let missing = entered.iter().find(|&&v| copies[v] < u64::from(*loads[v].per_shard.start()));
        let over = left.iter().find(|&&v| held[v] > *loads[v].fair.end());
        let under = entered.iter().find(|&&v| held[v] < *loads[v].fair.start());
        let place = |v: usize| loads[v].to_string();
        match (crowded, missing, over, under) {
            (Some(&v), ..) => {
                let most = *loads[v].per_shard.end() as usize;
                Reason::Crowded { domain: domain(v), have: copies[v] as usize, most }
            }
            (_, Some(&v), ..) => Reason::Missing { domain: domain(v) },
            (_, _, Some(&v), _) => Reason::Over { place: place(v), by: held[v] - loads[v].fair.end() },
            (_, _, _, Some(&v)) => Reason::Under { place: place(v), by: loads[v].fair.start() - held[v] },
            _ => Reason::MakesRoom(from),
        }
    }
}
