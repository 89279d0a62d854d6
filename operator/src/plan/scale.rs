//! As many instances as are wanted: their claims, their pods, their part in the database.

use super::action::{Action, Note, Reason, Request};
use super::draft::Draft;
use super::instances::{Instance, Role, group_of};
use super::observed::{Answer, Health, Leaving, NodeState};
use crate::api::Group;
use crate::render::names::{self, serial_of};
use std::collections::BTreeSet;

/// A name that no instance has, or ever had as far as anybody knows: the claims, the placement with those that are gone, and the status.
pub fn next_name(draft: &Draft, group: &str) -> String {
    let observed = draft.observed;
    let gone = observed.database.iter().flat_map(|database| &database.gone).map(String::as_str);
    let known = draft.instances.all.keys().copied().chain(gone).chain(draft.made());
    let said = observed.status.last_serial(group);
    let last =
        known.filter(|name| group_of(&observed.name, name) == group).filter_map(serial_of).max().unwrap_or(0);
    names::instance(&observed.name, group, last.max(said) + 1)
}

/// New instances where there are too few.
pub fn out(draft: &mut Draft) {
    let spec = draft.spec;
    for group in &spec.groups {
        let there = draft.instances.members(&group.name).count();
        // Those that were asked for before this and are not seen yet have their names by now: at worst one too many is made, and goes again.
        for _ in there..group.nodes as usize {
            let instance = next_name(draft, &group.name);
            draft.act(Action::CreateClaim { instance, group: group.name.clone(), replaces: None });
        }
    }
}

/// Instances that go where there are too many: one at a time, and only while all is well.
pub fn inwards(draft: &mut Draft) {
    let spec = draft.spec;
    let wanted = |name: &str| {
        spec.groups.iter().find(|group| group.name == name).map_or(0, |group| group.nodes as usize)
    };
    let groups: BTreeSet<&str> = draft.instances.all.values().map(|instance| instance.group).collect();
    for group in groups {
        let members: Vec<Instance> = draft.instances.members(group).cloned().collect();
        if members.len() <= wanted(group) {
            continue;
        }
        let Some(database) = &draft.observed.database else { continue };
        let leaves =
            |instance: &Instance| matches!(instance.role, Role::Leaving(_)) && instance.node.is_some();
        if let Some(other) = draft.instances.all.values().find(|instance| leaves(instance)) {
            let message = format!("{} leaves first", other.name);
            draft.defer(group, Reason::Busy, message);
            continue;
        }
        if draft.instances.replacements().next().is_some() || draft.actions.iter().any(is_step) {
            draft.defer(group, Reason::Busy, "an instance is being replaced first");
            continue;
        }
        // Whoever does not answer first, then whoever holds least, then the youngest.
        let holds = |instance: &Instance| instance.node.map_or(0, |(id, _)| database.copies(id).count());
        let victim = members.iter().min_by_key(|instance| {
            (instance.is_well(), holds(instance), std::cmp::Reverse(serial_of(instance.name)))
        });
        if let Some(victim) = victim {
            draft.tell(
                false,
                "ScalingIn",
                format!("{} leaves, since group {group} is to have {} nodes", victim.name, wanted(group)),
            );
            draft.note(victim, Note::Leave(Leaving::ScaleIn));
        }
    }
}

fn is_step(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateClaim { replaces: Some(_), .. } | Action::Note { note: Note::Leave(_), .. }
    )
}

/// A pod for every claim that is not retired.
pub fn pods(draft: &mut Draft) {
    for instance in draft.all() {
        let (Some(claim), None) = (instance.claim, instance.pod) else { continue };
        let wanted = match instance.role {
            Role::Member | Role::Newcomer => true,
            // It is emptied before it goes, for which it must run.
            Role::Leaving(_) => instance.node.is_some(),
            Role::Retired => false,
        };
        if wanted && !claim.deleting {
            draft.act(Action::CreatePod { instance: instance.name.into(), group: instance.group.into() });
        }
    }
}

/// A node that belongs to a database, as far as anybody knows.
fn belongs(instance: &Instance) -> bool {
    let noted = instance.claim.is_some_and(|claim| claim.cluster_id.is_some());
    noted || matches!(instance.pod.and_then(|pod| pod.answer.as_ref()), Some(Answer::Belongs(_)))
}

/// Whether there never was a database: nobody was chosen to create it, or everybody who is not lost says that they still wait for it. Then nobody holds anything, and even
/// if one that is lost has created it, nobody was let write to it.
pub fn was_never_created(draft: &Draft) -> bool {
    let instances = || draft.instances.all.values();
    if draft.observed.database.is_some() || instances().any(belongs) {
        return false;
    }
    let is_lost = |instance: &Instance| {
        let is_silent = instance.pod.is_none_or(|pod| pod.answer.is_none());
        let is_given_up = matches!(instance.role, Role::Leaving(_) | Role::Retired);
        (is_silent && draft.evidence.contains_key(instance.name)) || is_given_up
    };
    let waits = |instance: &Instance| match instance.pod {
        Some(pod) => {
            pod.answer == Some(Answer::Waiting)
                || (pod.machine.is_none() && instance.claim.is_some_and(|claim| claim.host.is_none()))
        }
        None => false,
    };
    let chosen = instances().any(|instance| instance.claim.is_some_and(|claim| claim.creates));
    !chosen || instances().all(|instance| is_lost(instance) || waits(instance))
}

/// Creates the database, once in its life.
///
/// Who creates it is written on a claim before it is told to, so that no two ever are. A claim that has belonged to a cluster says so: as long as
/// there is one, nobody creates another.
pub fn database(draft: &mut Draft) {
    let observed = draft.observed;
    if observed.database.is_some() {
        return;
    }
    if draft.instances.all.values().any(belongs) {
        return;
    }
    let suspects: BTreeSet<&str> = draft.evidence.keys().copied().collect();
    let waits = |instance: &&Instance| {
        let waiting = instance.pod.is_some_and(|pod| pod.answer == Some(Answer::Waiting) && !pod.deleting);
        waiting && !suspects.contains(instance.name)
    };
    let chosen = draft
        .instances
        .all
        .values()
        .find(|instance| instance.claim.is_some_and(|claim| claim.creates))
        .cloned();
    match chosen {
        Some(chosen) if matches!(chosen.role, Role::Leaving(_) | Role::Retired) => {
            draft.note(&chosen, Note::CreateNot)
        }
        Some(chosen) if waits(&&chosen) => {
            draft.act(Action::Ask(Request::Create { instance: chosen.name.into() }))
        }
        Some(_) => {}
        None => {
            let first = draft
                .spec
                .groups
                .iter()
                .find_map(|Group { name, .. }| draft.instances.members(name).find(waits))
                .cloned();
            if let Some(first) = first {
                draft.note(&first, Note::Create);
            }
        }
    }
}

/// Members that have joined take their share, and those that were to be emptied take it back when nobody wants that any more.
pub fn add(draft: &mut Draft) {
    let Some(database) = &draft.observed.database else { return };
    if !database.has_leader {
        return;
    }
    for instance in draft.all() {
        let Some((id, node)) = instance.node else { continue };
        if instance.role != Role::Member
            || node.health != Health::Up
            || draft.evidence.contains_key(instance.name)
        {
            continue;
        }
        let job = database.jobs.iter().find(|job| job.leaving.as_deref() == Some(id));
        let stays = draft.instances.successor(instance.name).is_none();
        match (node.state, job) {
            (NodeState::Draining, Some(job)) if stays => {
                draft.act(Action::Ask(Request::Cancel { job: job.id }))
            }
            (NodeState::Draining, None) if stays => draft.act(Action::Ask(Request::Add { node: id.into() })),
            (NodeState::Standby, _) => draft.act(Action::Ask(Request::Add { node: id.into() })),
            _ => {}
        }
    }
}

/// Readiness gates: whether the copies that an instance is to have are there.
pub fn gates(draft: &mut Draft) {
    let Some(database) = &draft.observed.database else { return };
    let domains: BTreeSet<&str> = draft
        .instances
        .all
        .values()
        .filter(|instance| {
            // One that is lost has been there: then the others have its copies, or are to have them.
            instance.node.is_some_and(|(_, node)| node.state != NodeState::Standby)
        })
        .map(|instance| instance.group)
        .collect();
    // Before there is a group for every copy, nobody is to write: it would be on too few disks.
    let complete = domains.len() >= usize::from(draft.spec.replication_factor);
    for instance in draft.all() {
        let Some(pod) = instance.pod.filter(|pod| !pod.deleting) else { continue };
        let holds = instance.node.is_some_and(|(id, node)| {
            matches!(node.state, NodeState::Up | NodeState::Draining) && database.initializing(id) == 0
        });
        // What is open stays open while the node does not answer for a moment: then its pod is not ready anyway.
        let open = match pod.gate {
            Some(true) => holds,
            _ => holds && complete && instance.is_heard(),
        };
        if pod.gate != Some(open) {
            draft.act(Action::SetGate { instance: instance.name.into(), uid: pod.uid.clone(), open });
        }
    }
}
