//! What the leader does by itself, one thing at a time.

use super::controller::Controller;
use super::proposal::{Owner, Waiting};
use crate::placement::{NodeId, NodeState};
use crate::raft::{Candidate, choose_voters};
use crate::state::{Command, Node};
use crate::view::Health;

/// What it remembers.
#[derive(Default)]
pub(super) struct Autopilot {
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
