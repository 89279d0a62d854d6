//! What the leader does for jobs: it sees what is left of each, holds back the moves of those that are paused, and ends those that are done.
//!
//! All of it follows from the state and from what nodes report, so that another leader goes on as if nothing had happened; only the pace is
//! measured anew.

use super::controller::Controller;
use crate::jobs::{self, Filling, Job, Kind, Outlook, Pace, Progress, Stage, Step};
use crate::placement::{Move, NodeId, NodeState, Placement, Plan, ReplicaState, plan};
use crate::state::{Command, State};
use crate::view::Health;
use model::Shard;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a copy, what is left when all its files are there.
const COMPARED: f64 = 0.05;

/// The way to where every copy should be.
pub(super) struct Ahead {
    /// As it was after this place in the order, with these nodes away.
    at: (u64, BTreeSet<NodeId>),
    pub plan: Plan,
    /// Why no shard can have all its copies.
    shortfall: Option<String>,
}

/// What it remembers.
#[derive(Default)]
pub(super) struct Watching {
    pub ahead: Option<Arc<Ahead>>,
    /// Of all copies.
    pace: Pace,
    /// Of each job.
    paces: BTreeMap<u64, Pace>,
    /// Of the copies to each node.
    fillings: BTreeMap<NodeId, Pace>,
    /// As this node saw it last while it led, or as the leader told.
    pub outlook: Arc<Outlook>,
}

impl Controller {
    /// The way to where every copy should be. Computed once for every state.
    pub(super) fn ahead(&mut self) -> Option<Arc<Ahead>> {
        let state = self.state.as_ref()?;
        let at = (state.applied(), self.away());
        if let Some(ahead) = self.watching.ahead.as_ref().filter(|ahead| ahead.at == at) {
            return Some(ahead.clone());
        }
        let target = state.target_without(&at.1)?;
        let plan = plan(state.placement(), &target, |_| 0);
        let ahead = Arc::new(Ahead { at, plan, shortfall: target.shortfall() });
        self.watching.ahead = Some(ahead.clone());
        Some(ahead)
    }

    /// Whether a move must not begin: a job that it belongs to is paused.
    pub(super) fn is_held_back(&self, step: &Move) -> bool {
        let jobs = self.state.iter().flat_map(|state| state.jobs().values());
        jobs.filter(|job| job.stage == Stage::Paused).any(|job| job.kind.owns(step))
    }

    /// A job that is done, or can never be; or one that nobody has to ask for: what a lost node held is healed.
    pub(super) fn next_job_change(&mut self) -> Option<Command> {
        let running = |job: &&Job| job.stage == Stage::Running;
        let state = self.state.as_ref()?;
        let lost = state.nodes().values().any(|node| node.state == NodeState::Lost);
        if !lost && state.jobs().values().find(running).is_none() {
            return None;
        }
        let ahead = self.ahead()?;
        let state = self.state.as_ref()?;
        if let Some(heal) = self.next_healing(state, &ahead.plan) {
            return Some(heal);
        }
        let voters = self.membership().voters;
        let votes = |node: NodeId| {
            let node = state.nodes().get(&node).filter(|node| node.state != NodeState::Gone);
            node.is_some_and(|node| voters.contains(&node.member))
        };
        let step = |(id, job): (&u64, &Job)| {
            // Once it is gone it cannot agree to lose its vote.
            let votes = match job.kind {
                Kind::Remove(node) | Kind::Replace { old: node, .. } => votes(node),
                _ => false,
            };
            let step = outcome(state, &ahead, &job.kind).filter(|step| *step != Step::Finish || !votes)?;
            Some(Command::ChangeJob { id: *id, revision: job.revision, step, at_ms: self.wall_ms })
        };
        state.jobs().iter().filter(|(_, job)| running(job)).find_map(step)
    }

    fn next_healing(&self, state: &State, plan: &Plan) -> Option<Command> {
        let active: Vec<&Kind> =
            state.jobs().values().filter(|job| job.is_active()).map(|job| &job.kind).collect();
        let mut lost = state.nodes().iter().filter(|(_, node)| node.state == NodeState::Lost);
        let unhealed = |node: NodeId| {
            let kind = Kind::Heal(node);
            let clashes = active.iter().any(|other| kind.clashes(other).is_some());
            !clashes && active.len() < jobs::ACTIVE_MAX && plan.moves.iter().any(|step| kind.owns(step))
        };
        let (node, _) = lost.find(|(node, _)| unhealed(**node))?;
        let kind = Kind::Heal(*node);
        let sizes = jobs::sizes(state.placement(), |node| self.data_bytes(node));
        let own: Vec<&Move> = plan.moves.iter().filter(|step| step.to.is_some() && kind.owns(step)).collect();
        let size = |step: &&Move| sizes.get(usize::from(step.shard.0)).copied().unwrap_or(0);
        Some(Command::StartJob {
            kind,
            lost: false,
            epoch: None,
            at_ms: self.wall_ms,
            by: "autopilot".into(),
            copies: own.len() as u64,
            bytes: own.iter().map(size).sum(),
        })
    }

    /// Looks at how far everything is. Once a second, so that the pace is measured evenly.
    pub(super) fn look_ahead(&mut self) {
        let Some(ahead) = self.ahead() else { return };
        let Some(state) = &self.state else { return };
        let sizes = jobs::sizes(state.placement(), |node| self.data_bytes(node));
        let size = |shard: Shard| sizes.get(usize::from(shard.0)).copied().unwrap_or(0);
        // What is left of a copy: all of it, or of one under way what has not come yet.
        let under_way = self.copies();
        let left = |step: &Move| {
            let whole = Left { copies: 1, parts: 1.0, bytes: size(step.shard) };
            let copy = under_way.get(&step.shard).filter(|copy| step.under_way && Some(copy.node) == step.to);
            let Some(copy) = copy else { return whole };
            let bytes = copy.bytes_total.unwrap_or(whole.bytes).max(copy.bytes_done);
            let left = bytes - copy.bytes_done;
            // The files are not all: copies are compared afterwards.
            let parts = (left as f64 / bytes.max(1) as f64).max(COMPARED);
            Left { bytes: left, parts, ..whole }
        };
        let copies: Vec<(&Move, Left)> =
            ahead.plan.moves.iter().filter(|step| step.to.is_some()).map(|step| (step, left(step))).collect();
        let sum = |of: &dyn Fn(&Move) -> bool| {
            copies.iter().filter(|(step, _)| of(step)).fold(Left::default(), |sum, (_, one)| sum.plus(*one))
        };
        let mut waits = self.hindrances(state, &ahead.plan, &|_| true);
        waits.extend(ahead.shortfall.clone());
        let all = sum(&|_| true);
        let active: Vec<(u64, Kind, u64, Left, String)> = state
            .jobs()
            .iter()
            .filter(|(_, job)| job.is_active())
            .map(|(id, job)| {
                let owns = |step: &Move| job.kind.owns(step);
                let mut waits = self.hindrances(state, &ahead.plan, &owns);
                waits.extend(stays(state, &ahead, &job.kind));
                (*id, job.kind, job.copies, sum(&owns), waits.into_iter().next().unwrap_or_default())
            })
            .collect();
        let now_ms = self.now_ms;
        self.watching.pace.note(now_ms, all.parts);
        self.watching.paces.retain(|id, _| active.iter().any(|(active, ..)| active == id));
        let progress = active.into_iter().map(|(id, _, total, left, waits)| {
            let pace = self.watching.paces.entry(id).or_default();
            pace.note(now_ms, left.parts);
            Progress {
                id,
                copies: left.copies,
                bytes: left.bytes,
                permille: left.permille(total),
                bytes_per_s: left.bytes_per_s(pace),
                eta_s: pace.eta_s(),
                waits,
            }
        });
        let jobs = progress.collect();
        let mut to: BTreeMap<NodeId, Left> = BTreeMap::new();
        for (node, left) in copies.iter().filter_map(|(step, left)| Some((step.to?, left))) {
            let sum = to.entry(node).or_default();
            *sum = sum.plus(*left);
        }
        self.watching.fillings.retain(|node, _| to.contains_key(node));
        let filling = to.into_iter().take(Outlook::FILLING_MAX).map(|(node, left)| {
            let pace = self.watching.fillings.entry(node).or_default();
            pace.note(now_ms, left.parts);
            Filling { node, copies: left.copies, bytes: left.bytes, eta_s: pace.eta_s() }
        });
        let filling = filling.collect();
        waits.truncate(Outlook::WAITS_MAX);
        let bytes_per_s = all.bytes_per_s(&self.watching.pace);
        let held =
            self.autopilot.held.as_ref().map_or_else(String::new, |brake| jobs::cut(brake.to_string()));
        let outlook =
            Outlook { copies: all.copies, bytes: all.bytes, bytes_per_s, jobs, waits, held, filling };
        self.watching.outlook = Arc::new(outlook);
    }

    fn data_bytes(&self, node: NodeId) -> u64 {
        match node == self.file.node {
            true => self.report.data_bytes,
            false => self.watch.last_beat(node).map_or(0, |beat| beat.report.data_bytes),
        }
    }

    /// What keeps moves from going on, in words.
    fn hindrances(&self, state: &State, plan: &Plan, owns: &dyn Fn(&Move) -> bool) -> Vec<String> {
        let mut to: BTreeMap<NodeId, Vec<Shard>> = BTreeMap::new();
        for step in plan.moves.iter().filter(|step| owns(step)) {
            if let Some(node) = step.to {
                to.entry(node).or_default().push(step.shard);
            }
        }
        let mut waits = Vec::new();
        for (id, shards) in to {
            let Some(node) = state.nodes().get(&id).filter(|node| !self.is_well(id, node)) else { continue };
            let how = match self.watch.health(self.now_ms, id, true, &self.options) {
                Health::Down => "which is down: start it again, or replace it",
                Health::Suspect => "which has not answered for a moment",
                Health::Up => "which does not follow the control plane yet",
            };
            let what = match shards[..] {
                [shard] => format!("the copy of shard {} waits", shard.0),
                _ => format!("{} copies wait", shards.len()),
            };
            waits.push(jobs::cut(format!("{what} for node {id} ({}), {how}", node.profile.address)));
        }
        if let [shard, ..] = plan.stranded[..] {
            waits.push(format!(
                "{} shards ({} and others) have no live copy to make others from: bring one of their nodes back",
                plan.stranded.len(),
                shard.0
            ));
        }
        waits
    }
}

/// What is left of copies.
#[derive(Clone, Copy, Default)]
struct Left {
    copies: u64,
    /// The same with what was fetched of those under way taken off.
    parts: f64,
    bytes: u64,
}

impl Left {
    fn plus(self, other: Left) -> Left {
        Left {
            copies: self.copies + other.copies,
            parts: self.parts + other.parts,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Done, in thousandths of what it was, or of what it has become.
    fn permille(self, total: u64) -> u32 {
        let total = total.max(self.copies).max(1) as f64;
        // What is left is not done, however little it is.
        let most = if self.copies == 0 { 1000 } else { 999 };
        ((1.0 - self.parts / total).clamp(0.0, 1.0) * 1000.0).min(f64::from(most)) as u32
    }

    fn bytes_per_s(self, pace: &Pace) -> u64 {
        let of_one = if self.parts > 0.0 { self.bytes as f64 / self.parts } else { 0.0 };
        pace.per_s().map_or(0, |copies| (copies * of_one) as u64)
    }
}

/// What has become of a job, if it is over.
fn outcome(state: &State, ahead: &Ahead, kind: &Kind) -> Option<Step> {
    let has_share = |node: NodeId| state.nodes().get(&node).is_some_and(|node| node.state.has_share());
    if let Kind::Add(node) = kind
        && !has_share(*node)
    {
        return Some(Step::Fail(format!("node {node} is to be emptied, or was removed")));
    }
    let placement = state.placement();
    let is_up = |node: NodeId| state.nodes().get(&node).is_some_and(|node| node.state == NodeState::Up);
    let back = matches!(kind, Kind::Heal(node) if is_up(*node));
    let empty = kind.leaving().is_none_or(|node| back || !placement.is_held_by(node));
    let arrived = kind.coming().is_none_or(|node| !arrives(placement, node));
    let left = ahead.plan.moves.iter().any(|step| kind.owns(step));
    // More copies than there are nodes: those that come later are waited for.
    let short = matches!(kind, Kind::ReplicationFactor { .. }) && ahead.shortfall.is_some();
    (empty && arrived && !left && !short).then_some(Step::Finish)
}

/// Whether a copy at a node is not at the end of its move.
fn arrives(placement: &Placement, node: NodeId) -> bool {
    let under_way =
        |state: ReplicaState| matches!(state, ReplicaState::Initializing { .. } | ReplicaState::Arrived);
    placement.shards().iter().flatten().any(|replica| replica.node == node && under_way(replica.state))
}

/// Why a node that shall be empty is not going to be.
fn stays(state: &State, ahead: &Ahead, kind: &Kind) -> Option<String> {
    if let Kind::ReplicationFactor { .. } = kind {
        return ahead.shortfall.clone();
    }
    let node = kind.leaving()?;
    let held = state.placement().shards().iter().flatten().filter(|replica| replica.node == node).count();
    let short = ahead.shortfall.as_ref().filter(|_| held > 0)?;
    Some(format!("no node is left for {held} copies of node {node}: {short}"))
}
