//! What must be so before something is done that cannot be undone at once.

use super::action::{Deferral, Reason};
use super::instances::{Instance, Instances, Role};
use super::observed::{CopyState, Database, Health, Node, NodeState, Observed};
use crate::api::{ClusterSpec, FailureMode, Topology};
use std::collections::BTreeSet;

/// Why not.
pub type Gate = Result<(), (Reason, String)>;

/// The database answers, can agree on something, and we are the one who heals it.
pub fn database(observed: &Observed) -> Result<&Database, (Reason, String)> {
    let Some(database) = &observed.database else {
        return Err((
            Reason::DatabaseSilent,
            "no node of the database answers; nothing is decided without it".into(),
        ));
    };
    if !database.has_leader {
        let message =
            "the database's control plane has no leader: most of its voters are away; bring back one of them";
        return Err((Reason::DatabaseSilent, message.into()));
    }
    if !database.lease_is_ours {
        return Err((Reason::Lease, "the lease of the database is not ours yet".into()));
    }
    Ok(database)
}

/// Every shard of which one of these nodes has a copy keeps a majority of live, complete copies without them.
pub fn quorum(database: &Database, without: &BTreeSet<&str>) -> Gate {
    let mut short = 0;
    for copies in &database.shards {
        if !copies.iter().any(|copy| without.contains(copy.node.as_str())) {
            continue;
        }
        let complete = copies.iter().filter(|copy| copy.state != CopyState::Initializing);
        let live = complete
            .filter(|copy| !without.contains(copy.node.as_str()) && database.hears(&copy.node))
            .count();
        short += usize::from(live < database.factor / 2 + 1);
    }
    if short == 0 {
        return Ok(());
    }
    Err((
        Reason::QuorumLost,
        format!(
            "{short} of {} shards would have fewer than {} live copies; bring back one of the nodes that are away",
            database.shards.len(),
            database.factor / 2 + 1
        ),
    ))
}

/// All other members answer.
pub fn whole(database: &Database, without: &str) -> Gate {
    let away = |(id, node): &(&String, &Node)| {
        *id != without
            && node.health != Health::Up
            && !matches!(node.state, NodeState::Standby | NodeState::Lost)
    };
    match database.nodes.iter().find(away) {
        None => Ok(()),
        Some((_, node)) => {
            Err((Reason::Busy, format!("{} does not answer; that is settled first", node.instance)))
        }
    }
}

/// No shard of which this node has a copy is on the move.
pub fn settled(database: &Database, node: &str) -> Gate {
    let moving = database.shards.iter().filter(|copies| {
        copies.iter().any(|copy| copy.node == node)
            && copies.iter().any(|copy| copy.state != CopyState::Available)
    });
    match moving.count() {
        0 => Ok(()),
        n => Err((Reason::Busy, format!("{n} shards of it are on the move"))),
    }
}

/// What the policy says of replacing without being asked.
pub fn mode(spec: &ClusterSpec, requested: bool) -> Gate {
    match spec.failure_policy.mode {
        FailureMode::Off => Err((Reason::Off, "failurePolicy.mode is Off".into())),
        FailureMode::Manual if !requested => Err((
            Reason::Manual,
            "failurePolicy.mode is Manual: put the annotation sarsen.dev/replace=true on its claim to have it replaced".into(),
        )),
        _ => Ok(()),
    }
}

/// Nothing that was lost is being made anew in another group, and not too much in this one.
///
/// What does not lack anything holds nobody up: a newcomer that is not committed may wait for long, one that has everything may itself be what is lost now, and an instance
/// that is emptied while it answers may wait for just what is lost here.
pub fn alone(
    spec: &ClusterSpec,
    database: Option<&Database>,
    instances: &Instances,
    instance: &Instance,
) -> Gate {
    let lacks = |new: &Instance| match (new.node, database) {
        (Some((id, node)), Some(database)) => {
            node.state != NodeState::Standby && database.initializing(id) > 0
        }
        _ => false,
    };
    let answers = |old: &str| instances.get(old).is_some_and(|old| old.is_heard());
    // A newcomer whose own place is being taken never settles; who takes it is what counts.
    let goes_on = |new: &Instance| instances.successor(new.name).is_some_and(Instance::has_part);
    let others: Vec<&Instance> = instances
        .replacements()
        .filter(|(new, old)| {
            lacks(new) && !goes_on(new) && !answers(old) && *old != instance.name && new.name != instance.name
        })
        .map(|(new, _)| new)
        .collect();
    if let Some(other) = others.iter().find(|other| other.group != instance.group) {
        let message = format!("{} of group {} takes the place of another first", other.name, other.group);
        return Err((Reason::Busy, message));
    }
    let max = spec.failure_policy.max_concurrent_replacements as usize;
    if others.len() >= max {
        let message = format!(
            "failurePolicy.maxConcurrentReplacements ({max}) instances of the group are being replaced"
        );
        return Err((Reason::Busy, message));
    }
    Ok(())
}

/// Not so many machines are away that it is rather what connects them. A person who asks knows better.
pub fn infrastructure(spec: &ClusterSpec, instances: &Instances, requested: bool) -> Gate {
    if requested {
        return Ok(());
    }
    let (mut machines, mut away) = (BTreeSet::new(), BTreeSet::new());
    let there =
        instances.all.values().filter(|instance| !matches!(instance.role, Role::Retired | Role::Leaving(_)));
    for instance in there {
        let Some(machine) = instances.machine(instance) else { continue };
        machines.insert(machine);
        // Of those whom a person calls lost it is known what is wrong.
        let is_called_lost = instance.claim.is_some_and(|claim| claim.replace);
        if instances.machine_is_away(instance) && !instance.is_heard() && !is_called_lost {
            away.insert(machine);
        }
    }
    let percent = spec.failure_policy.max_affected_nodes_percent as usize;
    let may = (machines.len() * percent / 100).max(1);
    if away.len() <= may {
        return Ok(());
    }
    Err((
        Reason::TooManyAway,
        format!(
            "{} of {} machines are away, more than failurePolicy.maxAffectedNodesPercent ({percent} %): rather what connects them is; bring them back",
            away.len(),
            machines.len()
        ),
    ))
}

/// Something could run in the group: not all of its machines are away.
pub fn zone(observed: &Observed, spec: &ClusterSpec, group: &str) -> Gate {
    match zone_is_away(observed, spec, group) {
        false => Ok(()),
        true => Err((
            Reason::ZoneAway,
            format!(
                "all machines of group {group} are away: nothing could run there; its copies are made in the other groups after failurePolicy.zoneLossGrace"
            ),
        )),
    }
}

/// Whether all machines on which the group could run are away. Unknown is no.
pub fn zone_is_away(observed: &Observed, spec: &ClusterSpec, group: &str) -> bool {
    let Some(machines) = &observed.machines else { return false };
    let topology =
        spec.groups.iter().find(|found| found.name == group).and_then(|group| group.topology.as_ref());
    let Some(Topology { key, values }) = topology else { return false };
    !machines.values().any(|machine| {
        machine.ready
            && !machine.out_of_service
            && machine.labels.get(key).is_some_and(|value| values.contains(value))
    })
}

/// A gate that is closed, as it is told.
pub fn deferral(instance: &str, (reason, message): (Reason, String)) -> Deferral {
    Deferral { instance: instance.into(), reason, message }
}
