//! What jobs change: their first effect, and what their end or their cancellation does to nodes.

use super::*;
use crate::faults::{Mistake, planted};
use crate::jobs::{ACTIVE_MAX, Kind, OVER_MAX, Stage, Step, TEXT_BYTES_MAX};

fn conflict(text: String) -> Refusal {
    Refusal::new(Fault::Conflict, text)
}

impl State {
    pub(super) fn start_job(
        &mut self,
        (kind, lost): (&Kind, bool),
        epoch: Option<u64>,
        at_ms: u64,
        by: &str,
        (copies, bytes): (u64, u64),
    ) -> Result<Outcome, Refusal> {
        if by.len() > TEXT_BYTES_MAX {
            return Err(Refusal::invalid(format!("who asks has at most {TEXT_BYTES_MAX} bytes")));
        }
        // Before the epoch is looked at: it may have gone on because of what was asked for.
        if let Some(answer) = self.asked_before(kind, lost)
            && !planted(Mistake::BeginTwice)
        {
            return answer;
        }
        let now = self.placement.epoch();
        if let Some(seen) = epoch.filter(|seen| *seen != now && !planted(Mistake::SkipOperationEpoch)) {
            return Err(conflict(format!(
                "this was decided on under epoch {seen} of the placement, which is at {now} by now; look again and decide anew"
            )));
        }
        // All of it or nothing.
        let before = (self.nodes.clone(), self.jobs.clone());
        let id = match self.begin(kind, lost, at_ms) {
            Ok(id) => id,
            Err(refusal) => {
                (self.nodes, self.jobs) = before;
                return Err(refusal);
            }
        };
        if let Some(job) = id.and_then(|id| self.jobs.all.get_mut(&id)) {
            job.revision += 1;
            (job.copies, job.bytes) = (copies, bytes);
            return Ok(Outcome::Record { id: id.unwrap_or_default(), revision: job.revision });
        }
        self.jobs.given += 1;
        let (id, revision) = (self.jobs.given, 1);
        let (kind, by) = (*kind, by.to_owned());
        let job = Job {
            revision,
            kind,
            stage: Stage::Running,
            created_ms: at_ms,
            finished_ms: 0,
            by,
            copies,
            bytes,
        };
        self.jobs.all.insert(id, job);
        self.forget_jobs();
        Ok(Outcome::Record { id, revision })
    }

    /// What somebody is told who asks for what is at work already, or was done and is still so: who does not know whether it was heard asks
    /// again.
    pub(crate) fn asked_before(&self, kind: &Kind, lost: bool) -> Option<Result<Outcome, Refusal>> {
        let is = |node: NodeId, state: NodeState| self.node_state(node) == Ok(state);
        let same = |job: &Job| match (job.kind, *kind) {
            (Kind::ReplicationFactor { to, .. }, Kind::ReplicationFactor { to: wanted, .. }) => to == wanted,
            (known, wanted) => known == wanted,
        };
        // What it would do at once has been done.
        let is_so = match *kind {
            Kind::Add(node) => self.node_state(node).is_ok_and(NodeState::has_share),
            Kind::Drain(node) => is(node, NodeState::Draining),
            Kind::Remove(node) | Kind::Replace { old: node, .. } if lost => is(node, NodeState::Gone),
            Kind::Remove(node) | Kind::Replace { old: node, .. } => {
                is(node, NodeState::Gone) || is(node, NodeState::Draining)
            }
            Kind::Heal(node) => !lost || is(node, NodeState::Lost),
            Kind::ReplicationFactor { to, .. } => to == self.replication_factor,
            Kind::Rebalance => true,
        };
        let stands = |job: &Job| match job.stage {
            Stage::Running | Stage::Paused => true,
            // Each of these begins anew when it is wanted anew.
            Stage::Done => !matches!(job.kind, Kind::Rebalance | Kind::Heal(_)),
            Stage::Cancelled | Stage::Failed(_) => false,
        };
        let found = self.jobs.all.iter().rev().find(|(_, job)| same(job) && stands(job)).filter(|_| is_so);
        if let Some((id, job)) = found {
            return Some(Ok(Outcome::Record { id: *id, revision: job.revision }));
        }
        // Jobs are forgotten; who is gone, and who took its place, is not.
        let (Kind::Remove(node) | Kind::Replace { old: node, .. }) = *kind else { return None };
        let heir = self.nodes.get(&node).filter(|node| node.state == NodeState::Gone)?.gone.heir;
        match (kind, heir) {
            (Kind::Replace { new, .. }, Some(heir)) if heir != *new => Some(Err(conflict(format!(
                "node {node} is gone for ever, and node {heir} has taken its place; replace that one"
            )))),
            (Kind::Replace { .. }, None) => None,
            _ => Some(Ok(Outcome::Done)),
        }
    }

    /// Checks whether a job may begin and performs its first effect, without the job itself. Gives the number of the one that is at work and becomes this
    /// one, if there is such a one. May have changed something when it fails.
    pub(crate) fn begin(&mut self, kind: &Kind, lost: bool, at_ms: u64) -> Result<Option<u64>, Refusal> {
        let becomes = |(_, job): &(&u64, &Job)| lost && job.is_active() && kind.is_lost_form_of(&job.kind);
        if let Some((id, job)) = self.jobs.all.iter().find(becomes) {
            let (id, kind) = (*id, job.kind);
            if let Some(node) = kind.leaving() {
                self.end_for_ever(node, &kind, at_ms)?;
            }
            return Ok(Some(id));
        }
        let outdone = |(_, job): &(&u64, &Job)| job.is_active() && kind.outdoes(lost, &job.kind);
        let outdone: Vec<u64> = self.jobs.all.iter().filter(outdone).map(|(id, _)| *id).collect();
        for id in outdone.iter().filter(|_| !planted(Mistake::KeepOutdone)) {
            let Some(job) = self.jobs.all.get_mut(id) else { continue };
            (job.stage, job.revision, job.finished_ms) = (Stage::Cancelled, job.revision + 1, at_ms);
            // Who was to come in its place is not wanted any more. The node that goes, goes.
            if let Some(node) = job.kind.coming().filter(|node| kind.coming() != Some(*node)) {
                self.give_up(node)?;
            }
        }
        // They are over, also where that was planted not to be so: else they would refuse what takes their place.
        let active = self.jobs.all.iter().filter(|(id, job)| job.is_active() && !outdone.contains(id));
        if active.clone().count() >= ACTIVE_MAX {
            return Err(Refusal::new(
                Fault::Limit,
                format!("at most {ACTIVE_MAX} jobs are at work at a time"),
            ));
        }
        for (id, job) in active {
            if let Some(why) = kind.clashes(&job.kind) {
                return Err(conflict(format!(
                    "job {id} ({}) is at work and {why}: wait until it is done (`sarsen jobs watch {id}`), or give it up \
                     (`sarsen jobs cancel {id}`)",
                    job.kind
                )));
            }
        }
        self.perform(kind, lost, at_ms)?;
        Ok(None)
    }

    /// The first effect of a job.
    fn perform(&mut self, kind: &Kind, lost: bool, at_ms: u64) -> Result<(), Refusal> {
        match *kind {
            Kind::Add(node) => self.take_in(node),
            Kind::Drain(node) => self.empty(node, kind),
            Kind::Remove(node) => self.send_away(node, lost, kind, at_ms),
            Kind::Replace { old, new } => {
                if old == new {
                    return Err(Refusal::invalid(format!("node {old} cannot replace itself")));
                }
                let state = self.node_state(new)?;
                if !matches!(state, NodeState::Joining | NodeState::Up) {
                    return Err(conflict(format!(
                        "node {new} is {state:?} and takes no copies; start another with --join and an empty data directory"
                    )));
                }
                self.set_node_state(new, NodeState::Up)?;
                self.send_away(old, lost, kind, at_ms)
            }
            Kind::Rebalance => Ok(()),
            Kind::ReplicationFactor { from, to } => {
                if from != self.replication_factor {
                    return Err(conflict(format!(
                        "the replication factor is {} now, not {from}; look again",
                        self.replication_factor
                    )));
                }
                if to == from {
                    return Err(Refusal::invalid(format!("the replication factor is {to} already")));
                }
                self.change(&Command::SetReplicationFactor { factor: to }).map(drop)
            }
            Kind::Heal(node) if lost => self.lose(node),
            Kind::Heal(node) => self.node_state(node).map(drop),
        }
    }

    fn node_state(&self, id: NodeId) -> Result<NodeState, Refusal> {
        let node = self.nodes.get(&id);
        node.map(|node| node.state)
            .ok_or_else(|| Refusal::new(Fault::NotFound, format!("there is no node {id}")))
    }

    /// The node shall have a share.
    fn take_in(&mut self, id: NodeId) -> Result<(), Refusal> {
        match self.node_state(id)? {
            NodeState::Up | NodeState::Down => Err(conflict(format!(
                "node {id} takes its share of the copies already; `sarsen cluster rebalance` says whether anything is to be moved"
            ))),
            NodeState::Lost => Err(conflict(format!(
                "node {id} is lost: nobody has heard of it for a while, and it takes its share again by itself when it is back"
            ))),
            _ => self.set_node_state(id, NodeState::Up).map(drop),
        }
    }

    /// The node shall be empty; others must be there to take what it has.
    fn empty(&mut self, id: NodeId, kind: &Kind) -> Result<(), Refusal> {
        let state = self.node_state(id)?;
        if state == NodeState::Lost {
            return Err(conflict(format!(
                "node {id} is lost, and its copies are made elsewhere: wait until it is back, or remove or replace it for good (--lost)"
            )));
        }
        let others = self.nodes.iter().filter(|(other, node)| **other != id && node.state.has_share());
        if others.count() == 0 {
            return Err(conflict(format!(
                "no other node is there to take the copies of node {id}: add one first (`sarsen server --join`)"
            )));
        }
        if state == NodeState::Joining && matches!(kind, Kind::Drain(_)) {
            return Err(conflict(format!("node {id} is joining and holds nothing; remove it instead")));
        }
        self.set_node_state(id, NodeState::Draining).map(drop)
    }

    /// Somebody knows that the node does not come back soon: nobody waits for it.
    fn lose(&mut self, id: NodeId) -> Result<(), Refusal> {
        match self.node_state(id)? {
            NodeState::Lost => Ok(()),
            NodeState::Up | NodeState::Down => self.set_node_state(id, NodeState::Lost).map(drop),
            NodeState::Joining => {
                Err(conflict(format!("node {id} is joining and holds nothing that could be healed")))
            }
            NodeState::Draining => Err(conflict(format!(
                "node {id} is to be emptied, and gets no copies back; if it never comes back, remove or replace it (--lost)"
            ))),
            NodeState::Gone => Err(Refusal::invalid(format!(
                "node {id} is gone for ever, and its copies are made anew without being asked for"
            ))),
        }
    }

    /// The node was to come, and shall not any more: it is emptied, if others are there.
    fn give_up(&mut self, id: NodeId) -> Result<(), Refusal> {
        let others = self.nodes.iter().any(|(other, node)| *other != id && node.state.has_share());
        match self.node_state(id)? {
            NodeState::Up if others => self.set_node_state(id, NodeState::Draining).map(drop),
            _ => Ok(()),
        }
    }

    /// The node is gone for ever.
    fn end_for_ever(&mut self, id: NodeId, kind: &Kind, at_ms: u64) -> Result<(), Refusal> {
        if self.node_state(id)? == NodeState::Gone {
            return Ok(());
        }
        self.set_node_state(id, NodeState::Gone)?;
        // Who was to come may have gone before.
        let heir = kind.coming().filter(|heir| self.node_state(*heir) != Ok(NodeState::Gone));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.gone = Gone { at_ms, heir };
        }
        Ok(())
    }

    fn send_away(&mut self, id: NodeId, lost: bool, kind: &Kind, at_ms: u64) -> Result<(), Refusal> {
        match self.node_state(id)? {
            NodeState::Gone => Ok(()),
            _ if lost => self.end_for_ever(id, kind, at_ms),
            _ => self.empty(id, kind),
        }
    }

    pub(super) fn change_job(
        &mut self,
        id: u64,
        revision: u64,
        step: &Step,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let Some(job) = self.jobs.all.get(&id) else {
            return Err(Refusal::new(
                Fault::NotFound,
                format!("there is no job {id}; `sarsen jobs list` shows them"),
            ));
        };
        let kind = job.kind;
        if !job.is_active() {
            return Err(conflict(format!("job {id} ({kind}) is {} already", job.stage.word())));
        }
        if job.revision != revision {
            return Err(conflict(format!("somebody else has just changed job {id} ({kind}); look again")));
        }
        let stage = match step {
            Step::Pause => Stage::Paused,
            Step::Resume => Stage::Running,
            Step::Cancel => {
                self.undo(id, &kind)?;
                Stage::Cancelled
            }
            Step::Finish => {
                self.end(&kind, at_ms)?;
                Stage::Done
            }
            Step::Fail(why) if why.len() > TEXT_BYTES_MAX => {
                return Err(Refusal::invalid(format!("a reason has at most {TEXT_BYTES_MAX} bytes")));
            }
            Step::Fail(why) => Stage::Failed(why.clone()),
        };
        let revision = revision + 1;
        if let Some(job) = self.jobs.all.get_mut(&id) {
            (job.stage, job.revision) = (stage, revision);
            job.finished_ms = if job.is_active() { 0 } else { at_ms };
        }
        self.forget_jobs();
        Ok(Outcome::Record { id, revision })
    }

    /// A node that was to go stays, one that was to come goes. Who was removed stays so.
    fn undo(&mut self, id: u64, kind: &Kind) -> Result<(), Refusal> {
        if let Kind::Remove(node) | Kind::Replace { old: node, .. } = kind
            && self.node_state(*node)? == NodeState::Gone
        {
            return Err(conflict(format!(
                "node {node} is gone for good, and its copies are made anew with or without job {id}; `sarsen jobs pause {id}` \
                 holds them back"
            )));
        }
        if let Kind::Heal(node) = kind
            && self.node_state(*node)? == NodeState::Lost
        {
            return Err(conflict(format!(
                "node {node} is lost, and what it held is made anew with or without job {id}; `sarsen jobs pause {id}` holds that back"
            )));
        }
        if let Kind::ReplicationFactor { from, .. } = kind {
            self.change(&Command::SetReplicationFactor { factor: *from })?;
        }
        // Whatever else has happened to a node since counts more.
        let is = |state: &State, node: NodeId, expected| state.node_state(node) == Ok(expected);
        let leaving = kind.leaving().filter(|node| is(self, *node, NodeState::Draining));
        let coming = kind.coming().filter(|node| is(self, *node, NodeState::Up));
        if let Some(node) = leaving {
            self.set_node_state(node, NodeState::Up)?;
        }
        coming.map_or(Ok(()), |node| self.give_up(node))
    }

    fn end(&mut self, kind: &Kind, at_ms: u64) -> Result<(), Refusal> {
        let Some(node) = kind.empties() else { return Ok(()) };
        if self.placement.is_held_by(node) {
            return Err(conflict(format!("node {node} holds copies still")));
        }
        match kind {
            Kind::Remove(_) | Kind::Replace { .. } => self.end_for_ever(node, kind, at_ms),
            _ => Ok(()),
        }
    }

    /// Only the last jobs that are over are remembered.
    fn forget_jobs(&mut self) {
        let over = self.jobs.all.iter().filter(|(_, job)| !job.is_active());
        let mut over: Vec<(u64, u64)> = over.map(|(id, job)| (job.finished_ms, *id)).collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(OVER_MAX);
        over.into_iter().take(surplus).for_each(|(_, id)| drop(self.jobs.all.remove(&id)));
    }
}
