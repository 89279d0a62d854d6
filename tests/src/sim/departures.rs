//! Nodes that go for good, and those that come in their place.
//!
//! Whoever looks after the machines may make no mistake that loses data: a disk is only lost, and a node only removed, when enough copies of
//! everything are elsewhere. What the cluster itself says to a removal is another matter, and is looked at ([`super::checks::follows`]).

use super::faults::Action;
use super::machine::Disk;
use super::network::Machine;
use super::swarm::{Departure, How};
use super::world::{Event, Role, World};
use crate::random::Random;
use cluster::jobs::Kind;
use cluster::placement::{NodeId, NodeState, ReplicaState};
use cluster::quorum::blocking;
use cluster::view::{Peer, View};
use model::Shard;
use std::collections::BTreeSet;
use std::sync::Arc;

impl World {
    /// A node starts on a machine: its first one, or one in place of another that was removed.
    pub(super) fn enter(&mut self, machine: Machine) {
        if self.slots[machine].role == Role::Leaving {
            self.wipe(machine);
        }
        self.coming.remove(&machine);
        (self.slots[machine].role, self.slots[machine].entered) = (Role::Serving, true);
        self.start(machine);
    }

    /// Nodes go, or try it again later.
    pub(super) fn depart(&mut self, n: usize) {
        let Departure { machines, how, instead, .. } = self.env.swarm.departures[n].clone();
        let nodes: Vec<NodeId> = machines.iter().filter_map(|&machine| self.env.tenants[machine]).collect();
        if nodes.len() < machines.len() || !self.can_spare(&nodes, how) {
            return self.env.schedule.after(1_000, Event::Act(Action::Depart(n)));
        }
        let moving = self.env.newest.as_ref().map_or(0, |(_, view)| view.placement.moving().count());
        self.env.note(format_args!("{how:?} {machines:?} as {nodes:?} while {moving} shards move"));
        if how == How::Needed {
            return self.ask_in_vain(machines[0], nodes[0]);
        }
        self.coming.extend(&instead);
        if how == How::Abandoned {
            machines.iter().for_each(|machine| self.wipe(*machine));
            return self.replace(instead, 10_000);
        }
        self.leaving.insert(n, nodes.iter().copied().collect());
        for (&machine, &node) in machines.iter().zip(&nodes) {
            let after = match how {
                How::Lost => {
                    self.wipe(machine);
                    self.lots.between(500, 6_000)
                }
                How::Drained | How::Removed | How::Needed | How::Abandoned => 0,
                How::Banished => {
                    self.banish(machine);
                    self.lots.between(500, 3_000)
                }
            };
            if how != How::Lost {
                self.slots[machine].role = Role::Leaving;
            }
            self.env.schedule.after(after, Event::Act(Action::Dismiss(node, n)));
        }
    }

    /// A node is to be removed that is needed.
    fn ask_in_vain(&mut self, machine: Machine, node: NodeId) {
        let at = self.processes().map(|(at, _)| at).find(|at| *at != machine);
        if let Some(at) = at {
            self.with(at, |process, out| process.expect(out, node, NodeState::Gone));
        }
    }

    /// Another number of copies is wanted. Asked once: somebody else may just have wanted another one.
    pub(super) fn replicate(&mut self, to: u8) {
        // Who is emptied has nobody to give its copies to when more are wanted.
        let empties =
            |(_, view): &(u64, Arc<View>)| view.nodes.values().any(|peer| peer.state == NodeState::Draining);
        let known: Vec<(Machine, u8)> = self
            .processes()
            .filter_map(|(at, process)| Some((at, process.view()?.replication_factor)))
            .collect();
        if known.is_empty() || self.env.newest.as_ref().is_some_and(empties) {
            return self.env.schedule.after(1_000, Event::Act(Action::Replicate(to)));
        }
        let (at, from) = *self.lots.pick(&known);
        self.env.note(format_args!("{at} is asked for {to} copies instead of {from}"));
        self.with(at, |process, out| process.start_job(out, Kind::ReplicationFactor { from, to }));
    }

    /// The machine is off, and what was on its disk is gone.
    pub(super) fn wipe(&mut self, machine: Machine) {
        self.stop(machine);
        let slot = &mut self.slots[machine];
        slot.disk = Disk::new(self.env.swarm.disk, Random::new(self.lots.number()));
        (slot.is_off, slot.role) = (true, Role::Idle);
        if let Some(node) = self.env.tenants[machine].take() {
            self.env.lost.insert(node, std::mem::take(&mut self.env.ghosts[machine]));
        }
        (self.env.epochs[machine], self.env.has_lost_disk[machine]) = (0, true);
    }

    /// Nobody reaches the machine, or one does; in half of the cases it reaches the others. After a while it is back.
    fn banish(&mut self, machine: Machine) {
        let one = self.lots.below(2 * self.slots.len() as u64) as Machine;
        let others = (0..self.slots.len()).filter(|other| *other != machine && *other != one);
        let mut cuts: Vec<(Machine, Machine)> = others.map(|other| (other, machine)).collect();
        if self.lots.percent(50) {
            cuts.extend(cuts.clone().into_iter().map(|(other, machine)| (machine, other)));
        }
        self.env.schedule.after(0, Event::Act(Action::Cut("banished", cuts.clone())));
        let back = self.lots.between(6_000, 25_000);
        self.env.schedule.after(back, Event::Act(Action::Join(cuts)));
    }

    /// The cluster is told that a node is gone, until it knows.
    pub(super) fn dismiss(&mut self, node: NodeId, n: usize) {
        let how = self.env.swarm.departures[n].how;
        if self.env.newest.as_ref().is_some_and(|(_, view)| !view.nodes.contains_key(&node)) {
            return self.dismissed(node, n);
        }
        let views: Vec<(Machine, Arc<View>)> =
            self.processes().filter_map(|(at, process)| Some((at, process.view()?.clone()))).collect();
        if !views.is_empty() {
            let (at, view) = self.lots.pick(&views).clone();
            let is_asked = |peer: &Peer| peer.state == NodeState::Draining;
            let asked = view.nodes.get(&node).is_some_and(is_asked);
            match how {
                // The job goes on by itself.
                How::Drained if asked => {}
                How::Drained => self.with(at, |process, out| process.start_job(out, Kind::Remove(node))),
                _ => self.with(at, |process, out| process.expect(out, node, NodeState::Gone)),
            }
        }
        self.env.schedule.after(3_000, Event::Act(Action::Dismiss(node, n)));
    }

    /// The cluster knows that a node is gone. When it knows it of all that went together, others come.
    fn dismissed(&mut self, node: NodeId, n: usize) {
        let Some(left) = self.leaving.get_mut(&n) else { return };
        left.remove(&node);
        self.removed += 1;
        if !left.is_empty() {
            return;
        }
        self.leaving.remove(&n);
        let Departure { how, instead, .. } = self.env.swarm.departures[n].clone();
        // Who was banished is back before its machine is used for something else.
        self.replace(instead, if how == How::Banished { 30_000 } else { 10_000 });
    }

    /// New nodes start on these machines.
    fn replace(&mut self, instead: Vec<Machine>, latest_ms: u64) {
        for machine in instead {
            let after = self.lots.between(latest_ms / 3, latest_ms);
            self.env.schedule.after(after, Event::Act(Action::Enter(machine)));
        }
    }

    /// Whether the cluster loses nothing when these nodes go now.
    fn can_spare(&self, nodes: &[NodeId], how: How) -> bool {
        let Some((_, view)) = &self.env.newest else { return false };
        let is_member = |node: &NodeId| view.nodes.get(node).is_some_and(|peer| peer.state == NodeState::Up);
        let may = nodes.iter().all(is_member) && self.spares(nodes, how);
        may && (how != How::Drained || nodes.iter().all(|node| self.has_room(*node, 0)))
    }

    /// Whether every shard can have all its copies without this node, when so many others have come: else it keeps some.
    pub(super) fn has_room(&self, without: NodeId, coming: usize) -> bool {
        let Some((_, view)) = &self.env.newest else { return false };
        let stays = |(node, peer): &(&NodeId, &Peer)| **node != without && peer.state == NodeState::Up;
        view.nodes.iter().filter(stays).count() + coming >= usize::from(view.replication_factor)
    }

    /// Whether nothing is lost when these nodes go now, as long as they are members.
    pub(super) fn spares(&self, nodes: &[NodeId], how: How) -> bool {
        let Some((_, view)) = &self.env.newest else { return false };
        // Others are on their way: nobody knows yet what will be left of their shards.
        let mut departing = self.slots.iter().enumerate().filter(|(_, slot)| slot.role == Role::Leaving);
        let leaves = departing.any(|(at, _)| {
            self.env.tenants[at].is_some_and(|node| view.nodes.contains_key(&node) && !nodes.contains(&node))
        });
        let mut lost = self.env.lost.keys().filter(|node| view.nodes.contains_key(node));
        let heals = lost.any(|node| !view.held_by(*node).is_empty());
        if leaves || heals && !matches!(how, How::Lost | How::Abandoned) {
            return false;
        }
        if how == How::Needed {
            // By then nothing of it may have gone elsewhere.
            let settled =
                view.placement.moving().next().is_none() && view.nodes.len() == self.serving().count();
            return settled && view.has_data && nodes.iter().all(|node| !view.held_by(*node).is_empty());
        }
        let gone: BTreeSet<NodeId> = self.env.lost.keys().chain(nodes).copied().collect();
        let stays = |node: &NodeId| !gone.contains(node) && view.nodes.contains_key(node);
        // Who is drained goes when all that it holds is elsewhere.
        let holds = |node: &&NodeId| stays(node) || how == How::Drained && nodes.contains(node);
        let enough = |all: &[NodeId]| all.iter().filter(holds).count() >= blocking(all.len());
        let shards = (0..view.shards()).map(|shard| Shard(shard as u16));
        let held = { shards }.all(|shard| {
            // As it will be when the move under way has ended, too: that may be agreed on already. And as it was before, for after the cut-over enough of
            // these have to accept it.
            let after = view.placement.replicas(shard).iter().filter(|r| r.state != ReplicaState::Leaving);
            let after: Vec<NodeId> = after.map(|r| r.node).collect();
            enough(&view.placement.old_replicas(shard)) && enough(&after)
        });
        let leads = self.processes().any(|(_, process)| process.controller().leads());
        held && leads
            && self.processes().all(|(_, process)| {
                let Some(state) = process.controller().state() else { return true };
                let voters = process.controller().membership().voters;
                let live =
                    voters.iter().filter(|id| state.node_of_member(**id).is_some_and(|node| stays(&node)));
                // With fewer the next one may be about to get its vote, and two cannot do without one of them. So may one of those that go.
                let votes = |node: &NodeId| voters.iter().any(|id| state.node_of_member(*id) == Some(*node));
                let about_to = usize::from(!nodes.iter().all(votes));
                voters.len() >= 3 && live.count() > (voters.len() + about_to) / 2
            })
    }
}
