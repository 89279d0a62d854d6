//! What the leader does by itself, one thing at a time.

use super::controller::Controller;
use super::event::Effect;
use super::loss::{self, Brake, Verdict};
use super::proposal::{Owner, Waiting};
use crate::faults::{Mistake, planted};
use crate::placement::{Change, Move, NodeId, NodeState, Phase, Placement, Plan, Replica, ReplicaState};
use crate::quorum::{blocking, is_available};
use crate::raft::{Candidate, choose_voters};
use crate::state::{Command, Node, State};
use crate::view::Health;
use model::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// Between two changes of the placement. Whoever meets another epoch has to ask again, so that many moves are taken a step further at once.
const MOVES_EVERY_MS: u64 = 1_000;
/// Copies under way to one node, and from one. A write of a shard that moves has one replica more; when a node dies, what was copied to it
/// was for nothing; and the shards that need it most come first.
const MOVES_PER_NODE: usize = 16;

/// What it remembers.
#[derive(Default)]
pub(super) struct Autopilot {
    /// Why nobody is declared lost although somebody is overdue.
    pub held: Option<Brake>,
    /// The lease as it was renewed last, and when that was seen.
    lease: Option<(u64, u64)>,
    /// The placement is not changed before.
    moves_due_ms: u64,
    /// The state was looked at, after this place in the order, and needed no other placement.
    settled_at: Option<u64>,
}

impl Controller {
    pub(super) fn drive_autopilot(&mut self) {
        let busy = self.proposals.values().any(|proposal| proposal.owner == Owner::Own);
        if !busy && let Some(command) = self.next_command() {
            self.propose(command, Owner::Own, Some(self.now_ms + self.options.propose_timeout_ms));
        }
        self.drive_voters();
    }

    pub(super) fn drive_voters(&mut self) {
        let changes = self.waiting.values().any(|waiting| *waiting == Waiting::Change);
        if self.leads() && !changes {
            self.next_change();
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        let state = self.state.as_ref()?;
        // Every node may have noticed that it has data, or that another was started; the rest is the leader's.
        if self.report.has_data && !state.has_data() {
            return Some(Command::NoteData);
        }
        let is_news = |node: &NodeId, starts: &u64| {
            let known = state.nodes().get(node).filter(|node| node.state != NodeState::Gone);
            known.is_some_and(|known| known.profile.starts < *starts)
        };
        self.unregistered.retain(|node, (_, starts, _)| is_news(node, starts));
        // Whoever lives registers itself, and says more.
        let dead = |(since, ..): &(u64, u64, u128)| self.now_ms >= since + self.options.heartbeat_ms;
        if let Some((node, (_, starts, boot))) = self.unregistered.iter().find(|(_, start)| dead(start)) {
            return Some(Command::NoteStart { node: *node, starts: *starts, boot: *boot });
        }
        if !self.leads() {
            return None;
        }
        let joins = |node: &Node| node.state == NodeState::Joining && !node.profile.standby;
        let mut joining = state.nodes().iter().filter(|(_, node)| joins(node));
        if let Some((id, _)) = joining.find(|(id, node)| self.follows(**id, node)) {
            return Some(Command::SetNodeState { id: *id, state: NodeState::Up });
        }
        if let Some(found) = self.next_loss() {
            return Some(found);
        }
        if let Some(change) = self.next_job_change() {
            return Some(change);
        }
        if let Some(changes) = self.next_moves() {
            return Some(changes);
        }
        let state = self.state.as_ref()?;
        let applied = state.applied();
        if self.autopilot.settled_at == Some(applied) {
            return None;
        }
        let adoption = state.adoption();
        if adoption.is_none() {
            self.autopilot.settled_at = Some(applied);
        }
        adoption
    }

    /// Who is lost, or found again.
    fn next_loss(&mut self) -> Option<Command> {
        let is_lost = |state: &State| state.nodes().values().any(|node| node.state == NodeState::Lost);
        let ahead = if is_lost(self.state.as_ref()?) { self.ahead() } else { None };
        let state = self.state.as_ref()?;
        let (now_ms, settings) = (self.now_ms, state.settings());
        let lease = settings.lease.as_ref();
        if self.autopilot.lease.map(|(renewals, _)| renewals) != lease.map(|lease| lease.renewals) {
            self.autopilot.lease = lease.map(|lease| (lease.renewals, now_ms));
        }
        if let (Some((renewals, at_ms)), Some(lease)) = (self.autopilot.lease, lease)
            && now_ms.saturating_sub(at_ms) >= lease.ttl_ms
        {
            return Some(Command::EndLease { renewals });
        }
        let brake = match lease {
            _ if settings.autopilot_paused => Some(Brake::Paused),
            Some(lease) => Some(Brake::Lease(lease.holder.clone())),
            None => None,
        };
        let moves = ahead.iter().flat_map(|ahead| &ahead.plan.moves);
        // A destination that is away itself may be what the next verdict is about.
        let healing: BTreeSet<NodeId> =
            moves.filter(|step| !step.waits).filter_map(|step| step.from).collect();
        let member = |(id, node): (&NodeId, &Node)| {
            let sighting = self.watch.sighting(now_ms, *id, &self.options);
            let is_silent = *id != self.file.node && sighting.health == Health::Down;
            let silent = is_silent.then_some(sighting.age_ms);
            loss::Member {
                id: *id,
                domain: node.profile.zone.clone(),
                state: node.state,
                silent_ms: silent,
                seen_by: silent.and_then(|_| self.watch.seen_by(now_ms, *id, &self.options)),
                follows: self.follows(*id, node),
                is_healing: healing.contains(id),
            }
        };
        let there = state.nodes().iter().filter(|(_, node)| node.state != NodeState::Gone);
        let members: Vec<loss::Member> = there.map(member).collect();
        let verdict = loss::judge(&members, &self.options.loss, brake);
        let held = match &verdict {
            Verdict::Held(brake) => Some(brake.clone()),
            _ => None,
        };
        if self.autopilot.held != held {
            self.autopilot.held.clone_from(&held);
            self.out.push(Effect::Held(held));
        }
        match verdict {
            Verdict::Lost(id) => Some(Command::SetNodeState { id, state: NodeState::Lost }),
            Verdict::Back(id) => Some(Command::SetNodeState { id, state: NodeState::Up }),
            Verdict::Wait | Verdict::Held(_) => None,
        }
    }

    /// The members that do not answer now, as this node sees it.
    pub(super) fn away(&self) -> BTreeSet<NodeId> {
        let nodes = self.state.iter().flat_map(|state| state.nodes().keys()).copied();
        nodes.filter(|id| self.is_down(*id)).collect()
    }

    /// The next step towards where every copy should be. Nodes that are only away move nothing, until they are
    /// [`NodeState::Lost`] or [`NodeState::Gone`].
    fn next_moves(&mut self) -> Option<Command> {
        let state = self.state.as_ref()?;
        if !state.has_data() || self.now_ms < self.autopilot.moves_due_ms {
            return None;
        }
        self.autopilot.moves_due_ms = self.now_ms + MOVES_EVERY_MS;
        let ahead = self.ahead()?;
        let (state, plan) = (self.state.as_ref()?, &ahead.plan);
        let placement = state.placement();
        let mut changes: Vec<Change> = plan
            .cancel
            .iter()
            .map(|&shard| Change::Cancel { shard, since: placement.changed(shard) })
            .collect();
        let goes_on = |shard: &Shard| !plan.cancel.contains(shard);
        for shard in placement.moving().filter(goes_on) {
            changes.extend(match self.is_in_the_way(placement, shard) {
                true => Some(Change::Cancel { shard, since: placement.changed(shard) }),
                false => self.next_step(placement, shard),
            });
        }
        self.begin_moves(state, plan, &mut changes);
        let from_epoch = placement.epoch();
        (!changes.is_empty()).then_some(Command::MoveShards { from_epoch, changes })
    }

    fn is_down(&self, node: NodeId) -> bool {
        node != self.file.node && self.watch.health(self.now_ms, node, true, &self.options) == Health::Down
    }

    /// Whether a move keeps a shard from being written or read that could be without it, since somebody whom it needs is down. It can begin again.
    fn is_in_the_way(&self, placement: &Placement, shard: Shard) -> bool {
        let replicas = placement.replicas(shard);
        let works = |replicas: &[Replica]| is_available(replicas, |node| !self.is_down(node));
        let needed = placement.completing(shard);
        if needed.iter().all(|node| !self.is_down(*node)) || works(replicas) {
            return false;
        }
        let before: Vec<Replica> = placement
            .old_replicas(shard)
            .into_iter()
            .map(|node| Replica { node, state: ReplicaState::Available })
            .collect();
        works(&before)
    }

    /// What a shard that moves is ready for.
    fn next_step(&self, placement: &Placement, shard: Shard) -> Option<Change> {
        let since = placement.changed(shard);
        let copied = |node: &NodeId| match *node == self.file.node {
            true => self.copies.complete.contains(&(shard, since)),
            false => self.watch.has_copied(*node, shard, since),
        };
        // The last word of somebody who is not there any more counts for nothing.
        let complete = placement.completing(shard).iter().all(|node| copied(node) && !self.is_down(*node));
        match placement.phase(shard) {
            Phase::Settled => None,
            Phase::Copying(_) => {
                // So many of the old ones have to accept it then.
                let old = placement.old_replicas(shard);
                let there = old.iter().filter(|node| !self.is_down(**node)).count() >= blocking(old.len());
                (complete && there).then_some(Change::CutOver { shard, since })
            }
            Phase::CutOver => {
                // Whoever has accepted it answers no more reads as before. Whoever is gone for ever is not asked: if all that are left have accepted it, only
                // nodes that somebody called gone, and that run all the same, could still agree with each other on what was before.
                let accepted = |node: &NodeId| match *node == self.file.node {
                    true => self.accepted() >= since,
                    false => self.watch.last_beat(*node).is_some_and(|beat| beat.epoch >= since),
                };
                let old = placement.old_replicas(shard);
                let gone = |node: &NodeId| {
                    let node = self.state.as_ref().and_then(|state| state.nodes().get(node));
                    node.is_none_or(|node| node.state == NodeState::Gone)
                };
                let enough = old.iter().filter(|node| accepted(node)).count() >= blocking(old.len())
                    || old.iter().all(|node| accepted(node) || gone(node));
                let may = complete && (enough || planted(Mistake::FinishUnaccepted));
                may.then_some(Change::Finish { shard, since })
            }
        }
    }

    /// Moves that can begin, the most urgent first.
    fn begin_moves(&self, state: &State, plan: &Plan, changes: &mut Vec<Change>) {
        let placement = state.placement();
        let mut busy: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replicas in placement.moving().map(|shard| placement.replicas(shard)) {
            let moves = replicas.iter().filter(|replica| replica.state != ReplicaState::Available);
            moves.for_each(|replica| *busy.entry(replica.node).or_default() += 1);
        }
        for step in plan.moves.iter().filter(|step| step.step == 0 && !step.under_way && !step.waits) {
            let Move { shard, from, to, .. } = *step;
            let free = placement.phase(shard) == Phase::Settled || plan.cancel.contains(&shard);
            let room = [from, to]
                .into_iter()
                .flatten()
                .all(|node| busy.get(&node).is_none_or(|n| *n < MOVES_PER_NODE));
            let is_well = |id: NodeId| state.nodes().get(&id).is_some_and(|node| self.is_well(id, node));
            // Where a copy only goes, those that stay have to do something first.
            let there = match to {
                Some(to) => is_well(to),
                None => {
                    let stay = placement.replicas(shard).iter().map(|replica| replica.node);
                    { stay }.filter(|node| Some(*node) != from).all(is_well)
                }
            };
            if free && room && there && !self.is_held_back(step) {
                [from, to].into_iter().flatten().for_each(|node| *busy.entry(node).or_default() += 1);
                changes.push(Change::Begin { shard, from, to });
            }
        }
    }

    /// Whether a node is there, in the run that is registered, and knows what is agreed on.
    fn follows(&self, id: NodeId, node: &Node) -> bool {
        let own = id == self.file.node;
        let here = own || self.watch.last_beat(id).is_some_and(|beat| beat.boot == node.profile.boot);
        here && self.is_well(id, node)
    }

    pub(super) fn is_well(&self, id: NodeId, node: &Node) -> bool {
        let up =
            id == self.file.node || self.watch.health(self.now_ms, id, true, &self.options) == Health::Up;
        up && self.member.as_ref().is_some_and(|member| member.is_caught_up(node.member))
    }

    /// The next step towards the voters that should be.
    fn next_change(&mut self) {
        let (Some(state), Some(member)) = (&self.state, &self.member) else { return };
        let candidate = |(id, node): (&NodeId, &Node)| Candidate {
            member: node.member,
            incarnation: node.incarnation,
            zone: node.profile.zone.segments().to_vec(),
            gone: node.state == NodeState::Gone,
            lost: node.state == NodeState::Lost,
            leaves: node.state == NodeState::Draining && !state.placement().is_held_by(*id),
            well: self.is_well(*id, node),
        };
        let candidates: Vec<Candidate> = state.nodes().iter().map(candidate).collect();
        let Some(step) = choose_voters(&candidates, &member.membership(), member.identity().member) else {
            return;
        };
        self.count += 1;
        let token = self.count;
        self.waiting.insert(token, Waiting::Change);
        self.with_member(|member| member.change(step.change, token));
    }
}
