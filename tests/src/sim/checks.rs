//! What must be so when nothing has gone wrong for a while.

use super::node::machine_of;
use super::values::rows;
use super::world::{Out, World};
use cluster::placement::{NodeId, Phase, Placement};
use cluster::quorum::{Consistency, readers};
use cluster::view::View;
use model::value::Value;
use model::{Replica, Samples, Selection, Shard, ShardSet, Source, TimeRange};
use std::collections::BTreeMap;

/// What is still different between nodes: views, and digests of replicas. `None` if nothing is.
pub fn unequal(world: &World) -> Option<String> {
    let nodes = world.env_ref().swarm.nodes;
    let processes: Vec<_> = world.processes().collect();
    if processes.len() < nodes {
        return Some(format!("{} of {nodes} processes run", processes.len()));
    }
    let (_, first) = processes[0];
    let Some(view) = first.view() else { return Some("the first node has no view".into()) };
    if view.nodes.len() < nodes || view.leader.is_none() {
        return Some(format!("{} nodes and leader {:?}", view.nodes.len(), view.leader));
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
    let copies = nodes.min(usize::from(view.replication_factor));
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
    None
}

/// Whether a view may follow what was known on a machine before, in this run of its process or an earlier one: epochs do not go back, and no move
/// takes copies away that are needed.
pub fn follows(out: &mut Out<'_>, before: Option<&View>, view: &View) {
    let (me, epoch) = (out.me, view.epoch());
    let known = std::mem::replace(&mut out.env.epochs[me], epoch);
    if epoch < known {
        out.env.violated(format!("the epoch of {me} goes back from {known} to {epoch}"));
    }
    out.env.ghosts[me].holds(view.held_by(view.me));
    let Some(before) = before.filter(|before| before.has_data) else { return };
    for number in 0..view.shards() {
        let shard = Shard(number as u16);
        let (then, now) = (&before.placement, &view.placement);
        if then.phase(shard) == Phase::CutOver && now.changed(shard) > then.changed(shard) {
            ends(out, before, shard);
        }
        let count = |placement: &Placement| {
            let (may, _) = readers(placement.replicas(shard), Consistency::Majority);
            may.iter().filter(|node| view.nodes.contains_key(node)).count()
        };
        let (had, have) = (count(&before.placement), count(&view.placement));
        if have < had.min(usize::from(view.replication_factor)) {
            out.env.violated(format!(
                "{me} sees {have} whole copies of shard {number} in epoch {epoch}, and {had} before"
            ));
        }
    }
}

/// The move of a shard ends: no majority of its old replicas may be left that could still answer reads as before its cut-over.
fn ends(out: &mut Out<'_>, before: &View, shard: Shard) {
    let (old, since) = (before.placement.old_replicas(shard), before.placement.changed(shard));
    let machine = |node: &NodeId| before.nodes.get(node).and_then(|peer| machine_of(&peer.address));
    // Whose disk is gone answers nothing any more.
    let may = |node: &&NodeId| {
        let lost = out.env.lost.as_ref().is_some_and(|(lost, _)| lost == *node);
        !lost && machine(node).is_some_and(|machine| out.env.epochs[machine] < since)
    };
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
