//! What jobs change: their first effect, and what their end or their cancellation does to nodes.

use super::*;
use crate::jobs::{ACTIVE_MAX, Kind, OVER_MAX, Stage, Step, TEXT_BYTES_MAX};

fn conflict(text: String) -> Refusal {
    Refusal::new(Fault::Conflict, text)
}

impl State {
    pub(super) fn start_job(
        &mut self,
        kind: &Kind,
        lost: bool,
        at_ms: u64,
        by: &str,
        (copies, bytes): (u64, u64),
    ) -> Result<Outcome, Refusal> {
        if by.len() > TEXT_BYTES_MAX {
            return Err(Refusal::invalid(format!("who asks has at most {TEXT_BYTES_MAX} bytes")));
        }
        self.begin(kind, lost)?;
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
        Ok(Outcome::Record { id, revision })
    }

    /// Checks whether a job may begin and performs its first effect, without the job itself.
    pub(crate) fn begin(&mut self, kind: &Kind, lost: bool) -> Result<(), Refusal> {
        let active = self.jobs.all.iter().filter(|(_, job)| job.is_active());
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
        match *kind {
            Kind::Add(node) => self.take_in(node),
            Kind::Drain(node) => self.empty(node, kind),
            Kind::Remove(node) => self.send_away(node, lost, kind),
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
                // Both or none.
                let before = state;
                self.set_node_state(new, NodeState::Up)?;
                self.send_away(old, lost, kind).or_else(|why| {
                    self.set_node_state(new, before)?;
                    Err(why)
                })
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

    fn send_away(&mut self, id: NodeId, lost: bool, kind: &Kind) -> Result<(), Refusal> {
        match self.node_state(id)? {
            NodeState::Gone => Ok(()),
            _ if lost => self.set_node_state(id, NodeState::Gone).map(drop),
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
                self.end(&kind)?;
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
        let others = self.nodes.iter().filter(|(node, _)| Some(**node) != coming);
        if others.filter(|(_, node)| node.state.has_share()).count() > 0
            && let Some(node) = coming
        {
            self.set_node_state(node, NodeState::Draining)?;
        }
        Ok(())
    }

    fn end(&mut self, kind: &Kind) -> Result<(), Refusal> {
        let Some(node) = kind.empties() else { return Ok(()) };
        if self.placement.is_held_by(node) {
            return Err(conflict(format!("node {node} holds copies still")));
        }
        match kind {
            Kind::Remove(_) | Kind::Replace { .. } => self.set_node_state(node, NodeState::Gone).map(drop),
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
