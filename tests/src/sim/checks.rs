//! What must be so when nothing has gone wrong for a while.

use super::operator;
use super::values::rows;
use super::world::{Env, Out, World};
use cluster::jobs::Kind;
use cluster::placement::{Domain, Node, NodeId, NodeState, Phase, Placement, Policy, compute};
use cluster::quorum::{Consistency, blocking, readers};
use cluster::view::{Peer, View};
use model::value::Value;
use model::{Digest, Replica, Samples, Selection, SeriesId, Shard, ShardSet, Source, TimeRange};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

/// What is still different between nodes: views, and digests of replicas. `None` if nothing is.
pub fn unequal(world: &World) -> Option<String> {
    if world.coming() > 0 {
        return Some(format!("{} nodes are yet to come", world.coming()));
    }
    if let Some(step) = world.errand_left() {
        return Some(format!("the operator has yet to {step:?}"));
    }
    let nodes = world.serving().count();
    let processes: Vec<_> = world.processes().collect();
    if processes.len() < nodes {
        return Some(format!("{} of {nodes} processes run", processes.len()));
    }
    let (_, first) = processes[0];
    let Some(view) = first.view() else { return Some("the first node has no view".into()) };
    // Whose disk is gone although nobody told the cluster stays known as lost.
    let there = view.nodes.values().filter(|peer| peer.state != NodeState::Lost).count();
    if there != nodes || view.leader.is_none() {
        return Some(format!("{there} nodes of {nodes} and leader {:?}", view.leader));
    }
    for (machine, process) in &processes {
        let Some(other) = process.view() else { return Some(format!("{machine} has no view")) };
        let same = other.placement == view.placement
            && other.namespaces == view.namespaces
            && other.leader == view.leader
            && other.nodes.keys().eq(view.nodes.keys());
        if !same {
            return Some(format!(
                "{machine} sees another cluster: epoch {} and {}",
                other.epoch(),
                view.epoch()
            ));
        }
    }
    for (machine, process) in &processes {
        let Some(engine) = process.replica() else { return Some(format!("{machine} has no engine")) };
        let held = view.held_by(process.id());
        let others =
            (0..view.shards()).map(|shard| Shard(shard as u16)).filter(|shard| !held.contains(*shard));
        for shard in others {
            if !matches!(engine.digest(shard, TimeRange::ALL), Ok(digest) if digest == Digest::default()) {
                return Some(format!("{machine} has something of {shard:?}, which others hold"));
            }
        }
    }
    let copies = nodes.min(usize::from(view.replication_factor));
    for (_, process) in &processes {
        let jobs = process.controller().state().into_iter().flat_map(|state| state.jobs());
        // More copies than there are nodes: others may come.
        let waits =
            |kind: &Kind| matches!(kind, Kind::ReplicationFactor { to, .. } if usize::from(*to) > nodes);
        if let Some((id, job)) = { jobs }.find(|(_, job)| job.is_active() && !waits(&job.kind)) {
            return Some(format!("job {id} ({}) should have ended", job.kind));
        }
    }
    for number in 0..view.shards() {
        let shard = Shard(number as u16);
        let replicas = view.placement.replicas(shard);
        if view.placement.phase(shard) != Phase::Settled || replicas.len() != copies {
            return Some(format!("shard {number} should have {copies} copies and not move: {replicas:?}"));
        }
        let mut first = None;
        for replica in view.placement.replicas(shard) {
            let Some((machine, process)) = processes.iter().find(|(_, process)| process.id() == replica.node)
            else {
                return Some(format!("shard {number} is placed on a node that is not there"));
            };
            let engine = process.replica()?;
            if engine.damage().iter().any(|damage| damage.shard == shard) {
                return Some(format!("shard {number} is damaged on {machine}"));
            }
            match engine.digest(shard, TimeRange::ALL) {
                Err(e) => return Some(format!("shard {number} on {machine}: {e}")),
                Ok(digest) => {
                    let (other, expected) = *first.get_or_insert((*machine, digest));
                    if expected != digest {
                        return Some(format!(
                            "shard {number} is {expected:?} on {other} and {digest:?} on {machine}"
                        ));
                    }
                }
            }
        }
    }
    misplaced(view)
}

/// A shard whose copies are not where they should be.
fn misplaced(view: &View) -> Option<String> {
    let nodes: Vec<Node> = view.nodes.iter().filter_map(|(id, peer)| placed(*id, peer)).collect();
    let replication_factor = NonZeroU8::new(view.replication_factor)?;
    let policy = Policy { replication_factor, shards: view.shards() };
    let target = match compute(&view.placement, &nodes, &policy) {
        Ok(target) => target,
        Err(e) => return Some(format!("there is no place for the copies: {e}")),
    };
    let holders = nodes.iter().filter(|node| node.state.has_share());
    let zones: BTreeSet<&Domain> = holders.map(|node| &node.domain).collect();
    for (number, wanted) in target.shards.iter().enumerate() {
        let shard = Shard(number as u16);
        let mut have: Vec<NodeId> = view.placement.replicas(shard).iter().map(|r| r.node).collect();
        // What can be said without the product's own idea of it.
        let spread: BTreeSet<&Domain> =
            have.iter().filter_map(|id| Some(&view.nodes.get(id)?.zone)).collect();
        if spread.len() < zones.len().min(have.len()) {
            return Some(format!("shard {number} is on {have:?}, in {spread:?} of {zones:?}"));
        }
        have.sort_unstable();
        if have != *wanted {
            return Some(format!("shard {number} is on {have:?} and should be on {wanted:?}"));
        }
    }
    None
}

fn placed(id: NodeId, peer: &Peer) -> Option<Node> {
    let capacity = NonZeroU32::new(peer.capacity)?;
    Some(Node { id, domain: peer.zone.clone(), capacity, state: peer.state })
}

/// Whether a view may follow what was known on a machine before, in this run of its process or an earlier one: epochs do not go back, an epoch is
/// the same for everybody, no change takes copies away that are needed, and after each everything that was acknowledged can be read.
pub fn follows(out: &mut Out<'_>, before: Option<&View>, view: &Arc<View>, applied: u64) {
    let (me, epoch) = (out.me, view.epoch());
    let known = std::mem::replace(&mut out.env.epochs[me], epoch);
    if epoch < known {
        out.env.violated(format!("the epoch of {me} goes back from {known} to {epoch}"));
    }
    if *out.env.placements.entry(epoch).or_insert_with(|| view.placement.clone()) != view.placement {
        out.env.violated(format!("{me} sees another placement of epoch {epoch} than others"));
    }
    if !view.nodes.contains_key(&view.me) {
        out.env.violated(format!("{me} knows that it was removed, and goes on"));
    }
    out.env.ghosts[me].holds(view.held_by(view.me));
    let now_ms = out.now_ms();
    for gone in view.gone.keys() {
        out.env.informed.entry((view.me, *gone)).or_insert(now_ms);
    }
    is_news(out.env, view, applied);
    let Some(before) = before.filter(|before| before.has_data) else { return };
    for number in 0..view.shards() {
        let shard = Shard(number as u16);
        let (then, now) = (&before.placement, &view.placement);
        // Where a copy only goes, that may be given up.
        let is_back = now.old_replicas(shard) == then.old_replicas(shard);
        if then.phase(shard) == Phase::CutOver && now.changed(shard) > then.changed(shard) && !is_back {
            ends(out, before, shard);
        }
        let count = |placement: &Placement, counts: &dyn Fn(&NodeId) -> bool| {
            let (may, _) = readers(placement.replicas(shard), Consistency::Majority);
            may.iter().filter(|node| counts(node)).count()
        };
        // Who was removed in the meantime was not given up by a move, and who is lost may be.
        let had = count(then, &|node| view.nodes.get(node).is_some_and(|peer| peer.state != NodeState::Lost));
        // One that came and was removed while this node was away is known only as gone, and that only now.
        let came_and_went = |node: &NodeId| {
            view.gone.contains_key(node)
                && !before.gone.contains_key(node)
                && !before.nodes.contains_key(node)
        };
        let have = count(now, &|node| view.nodes.contains_key(node) || came_and_went(node));
        let wanted = view.replication_factor.min(before.replication_factor);
        if have < had.min(usize::from(wanted)) {
            out.env.violated(format!(
                "{me} sees {have} whole copies of shard {number} in epoch {epoch}, and {had} before"
            ));
        }
    }
}

/// A view after so many changes of the state, if that is more than any had before: what it changes must be safe.
fn is_news(env: &mut Env, view: &Arc<View>, applied: u64) {
    if env.newest.as_ref().is_some_and(|(known, _)| *known >= applied) {
        return;
    }
    let before = env.newest.replace((applied, view.clone()));
    if let Some((_, before)) = &before {
        operator::follows(env, before, view);
    }
    let is_new = |shard: Shard| {
        let known = before.as_ref().map(|(_, known)| &known.placement);
        known.is_none_or(|known| known.changed(shard) < view.placement.changed(shard))
    };
    let shards = (0..view.shards()).map(|shard| Shard(shard as u16));
    for shard in shards.filter(|shard| is_new(*shard)) {
        let replicas = view.placement.replicas(shard).iter();
        let all: Vec<_> = replicas.map(|r| (env.home(r.node), r.state)).collect();
        env.note(format_args!("epoch {}: {shard:?} is at {all:?}", view.epoch()));
    }
    if !view.has_data {
        return;
    }
    for number in 0..view.shards() {
        let holding = view.placement.holding(Shard(number as u16));
        let left = holding.iter().filter(|node| view.nodes.contains_key(node)).count();
        if left < blocking(holding.len()) {
            let epoch = view.epoch();
            return env.violated(format!(
                "epoch {epoch}: of those who hold shard {number}, {holding:?}, too many were removed"
            ));
        }
    }
    for number in 0..env.values.len() {
        let id = view.key.id(env.values.labels(number).as_bytes());
        let shard = id.shard(view.shards());
        if !is_new(shard) {
            continue;
        }
        let mut rows = env.ledger.acknowledged_of(&env.values, number);
        if let Some(why) = rows.find_map(|(t, value)| unreadable(env, shard, (id, t), &value)) {
            drop(rows);
            return env.violated(format!("epoch {}: series {number}, {why}", view.epoch()));
        }
    }
}

/// Why a row that was acknowledged might be missing in an answer, if it might be: so many of those who answer reads in the newest placement lack it that
/// they are a majority. `None` if it is in every answer.
pub fn unreadable(env: &Env, shard: Shard, (id, t): (SeriesId, i64), value: &Value) -> Option<String> {
    let (_, view) = env.newest.as_ref()?;
    let (may, need) = readers(view.placement.replicas(shard), Consistency::Majority);
    // Whose disk is gone answers nothing any more.
    let answers = may.iter().filter(|node| !env.lost.contains_key(node));
    let lacks = |node: &&NodeId| !env.ghost(**node).is_some_and(|ghost| ghost.has(id, t, value));
    let lacking: Vec<&NodeId> = answers.filter(lacks).collect();
    let epoch = view.epoch();
    // A new copy is made from so many that each majority has one among them: a majority must have had it, those included that are lost since.
    let without = may.iter().filter(lacks).count();
    if view.placement.phase(shard) == Phase::Settled
        && may.len() - without < Consistency::Majority.need(may.len())
    {
        return Some(format!(
            "in epoch {epoch} {without} of {may:?} never had what was acknowledged at {t} of {shard:?}"
        ));
    }
    (lacking.len() >= need)
        .then(|| format!("{shard:?} is read from {may:?} in epoch {epoch}, and {lacking:?} lack what was acknowledged at {t}"))
}

/// The move of a shard ends: no majority of its old replicas may be left that could still answer reads as before its cut-over, those included that
/// the cluster has removed and that may not know it.
fn ends(out: &mut Out<'_>, before: &View, shard: Shard) {
    let (old, since) = (before.placement.old_replicas(shard), before.placement.changed(shard));
    // Whose disk is gone answers nothing any more.
    let may = |node: &&NodeId| out.env.home(**node).is_some_and(|machine| out.env.epochs[machine] < since);
    let behind = old.iter().filter(may).count();
    if behind > old.len() / 2 {
        let (me, all) = (out.me, old.len());
        out.env.violated(format!(
            "{me} sees the end of the move of {shard:?}, and {behind} of {all} old replicas have not accepted its cut-over of epoch {since}"
        ));
    }
}

/// Every replica by itself has everything that was acknowledged and nothing that was not sent, and all are equal, sample by sample: digests
/// are not taken at their word.
///
/// # Errors
/// What is different.
pub fn content(world: &World) -> Result<(), String> {
    let env = world.env_ref();
    let processes: Vec<_> = world.processes().collect();
    let Some(view) = processes.first().and_then(|(_, process)| process.view()) else { return Ok(()) };
    let key = view.key;
    for number in 0..view.shards() {
        let shard = Shard(number as u16);
        let mut first: Option<(usize, BTreeMap<u16, Samples>)> = None;
        for replica in view.placement.replicas(shard) {
            let there = processes.iter().find(|(_, process)| process.id() == replica.node);
            let Some((machine, engine)) =
                there.and_then(|(machine, process)| Some((*machine, process.replica()?)))
            else {
                return Err(format!("shard {number} has a replica that does not run"));
            };
            let shards: ShardSet = [shard].into_iter().collect();
            let matchers = env.values.matchers(0);
            let selection =
                Selection { matchers, range: TimeRange::ALL, series_max: usize::MAX, shards: Some(shards) };
            let set = engine.select(&selection).map_err(|e| e.to_string())?;
            let mut all = BTreeMap::new();
            for index in 0..set.len() {
                let mut samples = Samples::default();
                set.read(index, TimeRange::ALL, &mut samples).map_err(|e| e.to_string())?;
                let series = env.values.number_of(&set.labels(index)).ok_or("a series that nobody wrote")?;
                if !samples.is_empty() {
                    all.insert(series, samples);
                }
            }
            let none = Samples::default();
            for series in 0..env.values.len() {
                if key.id(env.values.labels(series).as_bytes()).shard(view.shards()) != shard {
                    if all.contains_key(&series) {
                        return Err(format!("series {series} is not of shard {number}"));
                    }
                    continue;
                }
                let samples = all.get(&series).unwrap_or(&none);
                let rows = rows(samples);
                let everything = (i64::MIN, i64::MAX);
                let checked = env.ledger.check(&env.values, series, everything, env.schedule.now_ms(), rows);
                checked.map_err(|what| format!("replica of shard {number} at {machine}: {what}"))?;
            }
            match &first {
                None => first = Some((machine, all)),
                Some((other, known)) => {
                    if let Some(what) = different(known, &all) {
                        return Err(format!(
                            "shard {number} has equal digests and is different on {other} and {machine}: {what}"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

fn different(a: &BTreeMap<u16, Samples>, b: &BTreeMap<u16, Samples>) -> Option<String> {
    if !a.keys().eq(b.keys()) {
        return Some(format!("series {:?} and {:?}", a.keys(), b.keys()));
    }
    for ((series, a), b) in a.iter().zip(b.values()) {
        let (a, b) = (rows(a), rows(b));
        let equal = |(x, y): (&(i64, Value), &(i64, Value))| x.0 == y.0 && x.1.cmp_conflict(&y.1).is_eq();
        if a.len() != b.len() || !a.iter().zip(&b).all(equal) {
            return Some(format!("series {series}: {a:?} and {b:?}"));
        }
    }
    None
}
