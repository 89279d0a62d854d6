//! Whoever operates the cluster: runs its errand, step by step, through the requests that the Kubernetes operator makes.
//!
//! What it wants follows from what one node shows, as old as that may be, and is bound to the epoch that was seen. An answer may be lost; then it asks again, the same or
//! with what it sees by then, and now and then although it was answered. It may make no mistake that loses data: it takes nothing away that [`super::departures`]
//! would not.

use super::clients::{Answer, Operation, Request};
use super::errand::{Step, Wish};
use super::faults::Action;
use super::network::Machine;
use super::swarm::How;
use super::world::{Env, Event, Role, World};
use crate::random::{Random, mix};
use cluster::jobs::{Job, Kind, Stage};
use cluster::placement::{NodeId, NodeState, Replica, ReplicaState};
use cluster::state::Command;
use cluster::view::{Health, View};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who it is as a client.
pub const OPERATOR: usize = usize::MAX - 1;
/// Who it is in jobs and leases.
pub const NAME: &str = "operator";
/// How long it waits for an answer. A proposal may take longer, so that the same is asked twice at a time.
const PATIENCE_MS: u64 = 6_000;
/// Between two looks when something cannot be done yet.
const AGAIN_MS: u64 = 1_000;
/// Its lease ends when it was not renewed for so long.
const LEASE_MS: u64 = 10_000;

/// A request, as it is made once or several times.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// For which step of which errand.
    pub step: (usize, usize),
    /// What is wanted.
    pub kind: Kind,
    /// The node that goes does not answer.
    pub lost: bool,
    /// The placement that was seen.
    pub epoch: u64,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operated {
    /// Wishes that were granted.
    pub granted: u64,
    /// Those of them that healed what is away.
    pub heals: u64,
    /// Jobs that were given up, or became final, since their node did not answer any more.
    pub lost_under_way: u64,
    /// Replacements that were replaced: the node that comes, or whose place is taken.
    pub replaced_again: u64,
    /// Requests that were refused because of their epoch.
    pub stale: u64,
    /// Requests that were answered with what had been begun by another.
    pub repeated: u64,
}

impl Operated {
    /// Both together.
    pub fn add(&mut self, other: &Operated) {
        self.granted += other.granted;
        self.heals += other.heals;
        self.lost_under_way += other.lost_under_way;
        self.replaced_again += other.replaced_again;
        self.stale += other.stale;
        self.repeated += other.repeated;
    }
}

/// What it remembers.
pub struct Operator {
    lots: Random,
    /// The step that is due, and of which errand.
    step: (usize, usize),
    /// Of the request whose answer is waited for; 0 if none is.
    number: u64,
    requests: u64,
    order: Option<Order>,
    /// It was granted, and is asked for all the same.
    granted: bool,
    /// Until when machines are away.
    away_until_ms: u64,
}

impl Operator {
    /// Before anything has happened.
    pub fn new(seed: u64) -> Operator {
        let lots = Random::new(mix(seed ^ mix(11)));
        Operator { lots, step: (0, 0), number: 0, requests: 0, order: None, granted: false, away_until_ms: 0 }
    }
}

impl World {
    /// What the operator has yet to do; `None` when it is done.
    pub fn errand_left(&self) -> Option<&Step> {
        let (errand, step) = self.operator.step;
        self.env.swarm.errands.get(errand)?.get(step).map(|(_, step)| step)
    }

    /// It says that it heals this cluster, and says so again in time.
    pub(super) fn hold_lease(&mut self) {
        let machines: Vec<Machine> = self.processes().map(|(at, _)| at).collect();
        if !machines.is_empty() {
            let at = *self.operator.lots.pick(&machines);
            let lease = Command::HoldLease { holder: NAME.into(), ttl_ms: LEASE_MS };
            self.with(at, |process, out| process.command(out, lease));
        }
        self.env.schedule.after(3_000, Event::Act(Action::HoldLease));
    }

    /// The operator's turn.
    pub(super) fn operate(&mut self) {
        let Some(step) = self.errand_left().cloned() else { return };
        let is_done = match step {
            Step::Destroy(_) | Step::Away { .. } if self.healed => return self.end_errand(),
            Step::Fetch(machine) => {
                if !self.slots[machine].entered {
                    self.enter(machine);
                }
                let joined = |node: NodeId| self.knows(node);
                self.env.tenants[machine].is_some_and(joined)
            }
            Step::Destroy(machine) => match self.tenant(machine) {
                Some(node) if self.knows(node) => {
                    let may = self.spares(&[node], How::Lost);
                    if may {
                        self.env.note(format_args!("{machine} is lost as {node}"));
                        self.wipe(machine);
                    }
                    may
                }
                // It was to die in the middle of something that is over.
                _ => return self.end_errand(),
            },
            Step::Away { machines, ms, off } => {
                self.go_away(&machines, ms, off);
                true
            }
            Step::Ask(wish) => return self.consider(wish),
        };
        match is_done {
            true => self.proceed(),
            false => self.env.schedule.after(AGAIN_MS, Event::Act(Action::Operate)),
        }
    }

    fn proceed(&mut self) {
        let (errand, step) = self.operator.step;
        let is_last = step + 1 == self.env.swarm.errands[errand].len();
        self.turn_to(if is_last { (errand + 1, 0) } else { (errand, step + 1) });
    }

    /// What is left makes no sense any more.
    fn end_errand(&mut self) {
        self.turn_to((self.operator.step.0 + 1, 0));
    }

    fn turn_to(&mut self, next: (usize, usize)) {
        let Operator { step, order, granted, .. } = &mut self.operator;
        (*step, *order, *granted) = (next, None, false);
        let (errand, step) = next;
        if let Some((after_ms, _)) = self.env.swarm.errands.get(errand).and_then(|errand| errand.get(step)) {
            self.env.schedule.after(*after_ms, Event::Act(Action::Operate));
        }
    }

    /// Whether the cluster has a node as a member.
    fn knows(&self, node: NodeId) -> bool {
        self.env.newest.as_ref().is_some_and(|(_, view)| view.nodes.contains_key(&node))
    }

    /// The last node on a machine.
    fn tenant(&self, machine: Machine) -> Option<NodeId> {
        self.slots[machine].last
    }

    fn go_away(&mut self, machines: &[Machine], ms: u64, off: bool) {
        self.operator.away_until_ms = self.env.schedule.now_ms() + ms;
        if off {
            for &machine in machines {
                self.env.schedule.after(0, Event::Act(Action::PowerOff(machine)));
                self.env.schedule.after(ms, Event::Act(Action::Start(machine)));
            }
            return;
        }
        // One that is alone may still have one that hears it.
        let all = self.slots.len();
        let one = if machines.len() == 1 { self.operator.lots.below(2 * all as u64) as Machine } else { all };
        let others = (0..all).filter(|other| !machines.contains(other) && *other != one);
        let across = others.flat_map(|other| machines.iter().map(move |&machine| (other, machine)));
        let cuts: Vec<_> = across.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.env.schedule.after(0, Event::Act(Action::Cut("away", cuts.clone())));
        self.env.schedule.after(ms, Event::Act(Action::Join(cuts)));
    }

    /// Looks at the cluster, and asks if it may.
    fn consider(&mut self, wish: Wish) {
        let views: Vec<Arc<View>> =
            self.processes().filter_map(|(_, process)| process.view().cloned()).collect();
        if views.is_empty() {
            return self.env.schedule.after(AGAIN_MS, Event::Act(Action::Operate));
        }
        let view = self.operator.lots.pick(&views).clone();
        match self.decide(wish, &view) {
            Ok((kind, lost)) => {
                let back = if self.operator.lots.percent(15) { self.operator.lots.between(1, 3) } else { 0 };
                let epoch = view.epoch().saturating_sub(back);
                self.operator.order = Some(Order { step: self.operator.step, kind, lost, epoch });
                let think_ms = self.operator.lots.between(1, 1_500);
                self.ask(think_ms);
            }
            Err(After::Later) => self.env.schedule.after(AGAIN_MS, Event::Act(Action::Operate)),
            Err(After::Over) => self.proceed(),
            Err(After::Never) => self.end_errand(),
        }
    }

    /// What is to be asked for, for who sees this.
    fn decide(&mut self, wish: Wish, view: &View) -> Result<(Kind, bool), After> {
        let node = |machine: Machine| self.tenant(machine).ok_or(After::Never);
        match wish {
            Wish::Heal(machine) => {
                let node = node(machine)?;
                let back = self.healed || self.env.schedule.now_ms() >= self.operator.away_until_ms;
                match view.nodes.get(&node).map(|peer| (peer.state, peer.health)) {
                    Some((NodeState::Up | NodeState::Lost, Health::Down)) if has_quorum(view, node) => {
                        Ok((Kind::Heal(node), true))
                    }
                    Some((NodeState::Up | NodeState::Lost, _)) if !back => Err(After::Later),
                    _ => Err(After::Over),
                }
            }
            Wish::Drain(machine) => {
                let node = node(machine)?;
                self.leaves(machine, node, false, 0, view).map(|lost| (Kind::Drain(node), lost))
            }
            Wish::Remove { node: machine, lost } => {
                let node = node(machine)?;
                let lost = self.leaves(machine, node, lost, 0, view)?;
                self.dismisses(machine);
                Ok((Kind::Remove(node), lost))
            }
            Wish::Replace { old, new, lost } => {
                let (first, new) = (node(old)?, node(new)?);
                // Whose place was taken already is replaced by replacing who took it.
                let heir = |old: &NodeId| view.gone.get(old)?.heir.filter(|heir| *heir != new);
                let last = std::iter::successors(Some(first), heir).last().unwrap_or(first);
                let (machine, lost) = match last == first {
                    true => (old, lost),
                    false => {
                        let on = |machine: &Machine| self.tenant(*machine) == Some(last);
                        let machine = (0..self.slots.len()).find(on).ok_or(After::Never)?;
                        (machine, self.env.lost.contains_key(&last))
                    }
                };
                if !view.nodes.contains_key(&new) {
                    return Err(After::Later);
                }
                let lost = self.leaves(machine, last, lost, 1, view)?;
                self.dismisses(machine);
                Ok((Kind::Replace { old: last, new }, lost))
            }
        }
    }

    /// Whether a node may be asked to go now, and whether as one that is lost. So many others come with it.
    fn leaves(
        &self,
        machine: Machine,
        node: NodeId,
        lost: bool,
        coming: usize,
        view: &View,
    ) -> Result<bool, After> {
        // It has gone before.
        let Some(peer) = view.nodes.get(&node) else { return Ok(lost) };
        let down = peer.health == Health::Down;
        if self.env.lost.contains_key(&node) {
            return if down { Ok(lost) } else { Err(After::Later) };
        }
        let away = self.env.schedule.now_ms() < self.operator.away_until_ms && !self.healed;
        if lost && away && !down {
            return Err(After::Later);
        }
        let lost = lost && down;
        // Who goes already was looked at before.
        let begun = peer.state == NodeState::Draining || self.slots[machine].role == Role::Leaving;
        let how = if lost { How::Banished } else { How::Drained };
        let may = begun || self.spares(&[node], how) && (lost || self.has_room(node, coming));
        match may {
            true => Ok(lost),
            // Nobody needs it to go.
            false if self.healed => Err(After::Never),
            false => Err(After::Later),
        }
    }

    /// The machine's node will not be one of the cluster's for long.
    fn dismisses(&mut self, machine: Machine) {
        if self.slots[machine].role == Role::Serving {
            self.slots[machine].role = Role::Leaving;
        }
    }

    /// Asks somebody, in a while.
    fn ask(&mut self, after_ms: u64) {
        let Some(order) = self.operator.order else { return };
        let machines = self.asked();
        let operator = &mut self.operator;
        let machine = *operator.lots.pick(&machines);
        operator.requests += 1;
        operator.number = operator.requests;
        let (client, number) = (OPERATOR, operator.number);
        let since_ms = self.env.schedule.now_ms();
        let operation = Operation { client, number, request: Request::Operate(order), since_ms };
        self.env.schedule.after(after_ms, Event::Ask { machine, operation });
        let answer = Answer::Failed("no answer".into());
        self.env.schedule.after(after_ms + PATIENCE_MS, Event::Answered { client, number, answer });
    }

    /// An answer reaches the operator, or its patience is at an end.
    pub(super) fn told(&mut self, number: u64, answer: &Answer) {
        if self.operator.number != number {
            return;
        }
        let is_late = matches!(answer, Answer::Failed(why) if why == "no answer");
        if !is_late && !self.healed && self.operator.lots.percent(15) {
            return self.env.note(format_args!("the operator is not told {answer:?}"));
        }
        self.env.note(format_args!("the operator is told {answer:?}"));
        self.operator.number = 0;
        let again_ms = self.operator.lots.between(10, 3_000);
        let failed = matches!(answer, Answer::Failed(_));
        if self.operator.granted && !failed {
            return self.proceed();
        }
        match answer {
            Answer::Administered => {
                self.env.operated.granted += 1;
                if self.operator.lots.percent(70) {
                    return self.proceed();
                }
                // As if it had ended before it heard that.
                self.operator.granted = true;
                self.ask(again_ms);
            }
            Answer::Failed(_) if self.operator.granted || self.operator.lots.percent(60) => {
                self.ask(again_ms)
            }
            _ => self.env.schedule.after(again_ms, Event::Act(Action::Operate)),
        }
    }
}

/// Whether every shard of which this node has a copy keeps a majority of live, whole copies without it.
fn has_quorum(view: &View, without: NodeId) -> bool {
    let mut shards = view.placement.shards().iter();
    shards.all(|replicas| {
        let whole = |replica: &&Replica| !matches!(replica.state, ReplicaState::Initializing { .. });
        let is_up = |node: NodeId| view.nodes.get(&node).is_some_and(|peer| peer.health == Health::Up);
        let live =
            replicas.iter().filter(whole).filter(|replica| replica.node != without && is_up(replica.node));
        let concerned = replicas.iter().any(|replica| replica.node == without);
        !concerned || live.count() > usize::from(view.replication_factor) / 2
    })
}

/// Why nothing is asked for.
enum After {
    /// It is looked at again.
    Later,
    /// It is not needed any more; what comes next is.
    Over,
    /// Nor is anything that was to come next.
    Never,
}

/// What requests of the operator have led to between two views: nothing under another epoch than was seen, and nothing twice. And whoever asked, no two jobs empty the
/// same node.
pub fn follows(env: &mut Env, before: &View, view: &View) {
    let wrong =
        emptied_twice(view).or_else(|| stale(env, before, view)).or_else(|| begun_twice(env, before, view));
    match wrong {
        Some(what) => env.violated(what),
        None => count(env, before, view),
    }
}

fn emptied_twice(view: &View) -> Option<String> {
    let mut known = BTreeMap::new();
    let mut active = view.jobs.iter().filter(|(_, job)| job.is_active());
    active.find_map(|(id, job)| {
        let other = known.insert(job.kind.empties()?, *id)?;
        Some(format!("jobs {other} and {id} ({}) empty the same node", job.kind))
    })
}

/// Jobs that the operator's requests have begun.
fn begun<'a>(before: &'a View, view: &'a View) -> impl Iterator<Item = (&'a u64, &'a Job)> {
    view.jobs.iter().filter(|(id, job)| job.by == NAME && !before.jobs.contains_key(id))
}

/// A request that was done although the placement was another already.
fn stale(env: &Env, before: &View, view: &View) -> Option<String> {
    let gone = view.gone.iter().filter(|(node, _)| !before.gone.contains_key(node));
    let at = gone.map(|(_, gone)| gone.at_ms).chain(begun(before, view).map(|(_, job)| job.created_ms));
    let mut orders = at.filter_map(|at_ms| env.orders.get(&at_ms));
    let order = orders.find(|order| order.epoch < before.epoch())?;
    Some(format!("{order:?} was done although the placement was at {} already", before.epoch()))
}

/// A request that was repeated, and began a second job.
fn begun_twice(env: &Env, before: &View, view: &View) -> Option<String> {
    let stands = |job: &Job| match job.stage {
        Stage::Running | Stage::Paused => true,
        // Healing begins anew when it is wanted anew.
        Stage::Done => !matches!(job.kind, Kind::Heal(_)),
        Stage::Cancelled | Stage::Failed(_) => false,
    };
    let step = |job: &Job| env.orders.get(&job.created_ms).map(|order| order.step);
    begun(before, view).find_map(|(id, job)| {
        let same = |known: &&Job| known.by == NAME && known.kind == job.kind && step(known) == step(job);
        let known = before.jobs.values().filter(same).find(|known| stands(known))?;
        Some(format!("job {id} ({}) was begun, and this was begun for it before: {known:?}", job.kind))
    })
}

fn count(env: &mut Env, before: &View, view: &View) {
    let replaces = |kind: Kind| matches!(kind, Kind::Replace { .. });
    let was_active = || before.jobs.iter().filter(|(_, job)| job.is_active());
    let is_over = |id: &u64| view.jobs.get(id).is_some_and(|job| job.stage == Stage::Cancelled);
    let outdone: Vec<Kind> = was_active().filter(|(id, _)| is_over(id)).map(|(_, job)| job.kind).collect();
    for (_, job) in begun(before, view) {
        // Whoever comes by this job's forerunner goes by this one.
        let follows = |old: Kind| replaces(old) && old.coming() == job.kind.leaving();
        let is_again =
            outdone.iter().any(|old| replaces(*old)) || was_active().any(|(_, old)| follows(old.kind));
        match job.kind {
            Kind::Heal(_) => env.operated.heals += 1,
            kind if replaces(kind) && is_again => env.operated.replaced_again += 1,
            _ => env.operated.lost_under_way += u64::from(!outdone.is_empty()),
        }
    }
    // The same job, and its node does not come back any more.
    let ended = was_active().filter_map(|(_, job)| job.kind.empties()).filter(|node| {
        let at_ms = view.gone.get(node).filter(|_| !before.gone.contains_key(node)).map(|gone| gone.at_ms);
        at_ms.is_some_and(|at_ms| env.orders.contains_key(&at_ms)) && outdone.is_empty()
    });
    env.operated.lost_under_way += ended.count() as u64;
}
