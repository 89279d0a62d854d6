//! What the leader does by itself, one thing at a time.

use super::controller::Controller;
use super::proposal::{Owner, Waiting};
use crate::faults::{Mistake, planted};
use crate::placement::{Change, Move, NodeId, NodeState, Phase, Placement, Plan, ReplicaState, plan};
use crate::quorum::blocking;
use crate::raft::{Candidate, choose_voters};
use crate::state::{Command, Node, State};
use crate::view::Health;
use model::Shard;
use std::collections::BTreeMap;

/// Between two changes of the placement. Whoever meets another epoch has to ask again, so that many moves are taken a step further at once.
const MOVES_EVERY_MS: u64 = 1_000;
/// Copies under way to one node, and from one. A write of a shard that moves has one replica more; when a node dies, what was copied to it
/// was for nothing; and the shards that need it most come first.
const MOVES_PER_NODE: usize = 16;

/// What it remembers.
#[derive(Default)]
pub(super) struct Autopilot {
    /// The way to where every copy should be, as it was after this place in the order.
    plan: Option<(u64, Plan)>,
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
        let mut joining = state.nodes().iter().filter(|(_, node)| node.state == NodeState::Joining);
        if let Some((id, _)) = joining.find(|(id, node)| self.follows(**id, node)) {
            return Some(Command::SetNodeState { id: *id, state: NodeState::Up });
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

    /// The next step towards where every copy should be. Nodes that are only away move nothing: what makes them count as lost says so by
    /// [`NodeState::Gone`].
    fn next_moves(&mut self) -> Option<Command> {
        let state = self.state.as_ref()?;
        if !state.has_data() || self.now_ms < self.autopilot.moves_due_ms {
            return None;
        }
        self.autopilot.moves_due_ms = self.now_ms + MOVES_EVERY_MS;
        let (placement, applied) = (state.placement(), state.applied());
        let plan = match self.autopilot.plan.take() {
            Some((at, plan)) if at == applied => plan,
            _ => plan(placement, &state.target()?, |_| 0),
        };
        let mut changes: Vec<Change> = plan
            .cancel
            .iter()
            .map(|&shard| Change::Cancel { shard, since: placement.changed(shard) })
            .collect();
        let goes_on = |shard: &Shard| !plan.cancel.contains(shard);
        changes
            .extend(placement.moving().filter(goes_on).filter_map(|shard| self.next_step(placement, shard)));
        self.begin_moves(state, &plan, &mut changes);
        self.autopilot.plan = Some((applied, plan));
        let from_epoch = self.state.as_ref()?.placement().epoch();
        (!changes.is_empty()).then_some(Command::MoveShards { from_epoch, changes })
    }

    /// What a shard that moves is ready for.
    fn next_step(&self, placement: &Placement, shard: Shard) -> Option<Change> {
        let since = placement.changed(shard);
        let copied = |node: &NodeId| match *node == self.file.node {
            true => self.copied.contains(&(shard, since)),
            false => self.watch.has_copied(*node, shard, since),
        };
        let complete = placement.completing(shard).iter().all(copied);
        match placement.phase(shard) {
            Phase::Settled => None,
            Phase::Copying(_) => complete.then_some(Change::CutOver { shard, since }),
            Phase::CutOver => {
                // Whoever has accepted it answers no more reads as before.
                let accepted = |node: &NodeId| match *node == self.file.node {
                    true => self.accepted() >= since,
                    false => self.watch.last_beat(*node).is_some_and(|beat| beat.epoch >= since),
                };
                let old = placement.old_replicas(shard);
                let enough = old.iter().filter(|node| accepted(node)).count() >= blocking(old.len());
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
            let there = to.is_none_or(|to| state.nodes().get(&to).is_some_and(|node| self.is_well(to, node)));
            if free && room && there {
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

    fn is_well(&self, id: NodeId, node: &Node) -> bool {
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
