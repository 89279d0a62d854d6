//! As many instances as are wanted: their claims, their pods, their part in the database.

use super::action::{Action, Note, Reason, Request};
use super::creation;
use super::draft::Draft;
use super::instances::{Instance, Role, group_of};
use super::observed::{Contents, Health, Leaving, NodeState};
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
    if creation::is_ending(draft) {
        return;
    }
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
        if !draft.is_founded {
            let message = "there are copies in every group first: an instance that goes may be one of the few that decide";
            draft.defer(group, Reason::Starting, message);
            continue;
        }
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
            Role::Leaving(_) => instance.node.is_some() && !draft.is_void,
            Role::Retired => false,
        };
        if wanted && !claim.deleting {
            draft.act(Action::CreatePod { instance: instance.name.into(), group: instance.group.into() });
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
    let is_noted =
        |instance: &Instance| instance.claim.is_some_and(|claim| matches!(claim.contents, Contents::Of(_)));
    let complete = creation::has_all_groups(draft);
    for instance in draft.all() {
        let Some(pod) = instance.pod.filter(|pod| !pod.deleting) else { continue };
        let holds = instance.node.is_some_and(|(id, node)| {
            matches!(node.state, NodeState::Up | NodeState::Draining) && database.initializing(id) == 0
        });
        // What is open stays open while the node does not answer for a moment: then its pod is not ready anyway.
        let open = match pod.gate {
            Some(true) => holds,
            // That it may be written to is noted first.
            _ => holds && complete && is_noted(&instance) && instance.is_heard(),
        };
        if pod.gate != Some(open) {
            draft.act(Action::SetGate { instance: instance.name.into(), uid: pod.uid.clone(), open });
        }
    }
}
