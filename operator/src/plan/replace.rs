//! Replacing an instance that is lost: make before break.
//!
//! ```text
//! evidence ─► (grace) ─► gates ─► newcomer: claim, pod, joins as standby ─► gates ─► replace in the placement ─► old one is collected
//!                                     │ the old one is back                                 │
//!                                     └─► newcomer is abandoned                             └─► newcomer has everything ─► settled
//! ```
//!
//! Until the placement is changed everything can be taken back. What has been done is in the placement and on the claims, so that any operator goes on from any point.
//! A newcomer that is lost is an instance that is lost.

use super::action::{Action, Note, Reason, Request};
use super::draft::Draft;
use super::evidence::{Kind, Remedy, pinned, trouble};
use super::gates;
use super::instances::{Instance, Role};
use super::observed::{Health, Leaving, NodeState};
use super::storage;
use std::collections::BTreeSet;

/// Starts and stops the clocks of evidence.
pub fn suspect(draft: &mut Draft) {
    for instance in draft.all() {
        let Some(claim) = instance.claim else { continue };
        match (draft.evidence.get(instance.name).cloned(), &claim.suspect) {
            (Some(found), noted) if noted.as_ref().is_none_or(|noted| noted.why != found.kind.word()) => {
                let grace = found.kind.grace(&draft.spec.failure_policy);
                let what = match found.remedy {
                    Remedy::Replace => "it is replaced",
                    Remedy::Free => "its pod is taken off the machine",
                };
                let message =
                    format!("{}: {}; {what} if this lasts for {grace}", instance.name, found.message);
                draft.tell(true, "InstanceSuspect", message);
                draft.note(&instance, Note::Suspect(found.kind.word().into()));
            }
            (None, Some(_)) if instance.role != Role::Retired => {
                let message = match has_left(draft, &instance) {
                    true => format!("{} has left the machine, and its volume follows", instance.name),
                    false => format!("{} is there again", instance.name),
                };
                draft.tell(false, "InstanceBack", message);
                draft.note(&instance, Note::Clear);
            }
            _ => {}
        }
    }
}

/// Whether the pod is not any more where it was last, with a volume that can be used elsewhere.
fn has_left(draft: &Draft, instance: &Instance) -> bool {
    let before = instance.claim.and_then(|claim| claim.host.as_ref()).map(|host| host.name.as_str());
    let now = instance.pod.and_then(|pod| pod.machine.as_deref());
    pinned(draft.observed, instance) == Some(false) && before != now
}

/// The kind of evidence that the data of an instance is lost, if there is any and it has lasted long enough.
pub fn lost(draft: &mut Draft, instance: &Instance) -> Option<Kind> {
    due(draft, instance, Remedy::Replace)
}

/// The kind of evidence that calls for this remedy, if there is any and it has lasted long enough.
pub fn due(draft: &mut Draft, instance: &Instance, remedy: Remedy) -> Option<Kind> {
    let kind = draft.evidence.get(instance.name).filter(|found| found.remedy == remedy)?.kind;
    let Some(claim) = instance.claim else {
        // There is nothing to write a clock on, and nothing that could come back.
        return Some(kind);
    };
    let suspect = claim.suspect.as_ref().filter(|suspect| suspect.why == kind.word());
    let grace = kind.grace(&draft.spec.failure_policy);
    let Some(suspect) = suspect else { return (grace.0 == 0).then_some(kind) };
    if draft.has_lasted(suspect.since, grace) {
        return Some(kind);
    }
    let message = match remedy {
        Remedy::Replace => format!("{} is not lost before that has lasted for {grace}", instance.name),
        Remedy::Free => {
            format!("the pod {} is not taken off before that has lasted for {grace}", instance.name)
        }
    };
    draft.defer(instance.name, Reason::Grace, message);
    None
}

/// Goes on with replacements, and begins them.
pub fn advance(draft: &mut Draft) {
    let under_way: Vec<(Instance, &str)> =
        draft.instances.replacements().map(|(new, old)| (new.clone(), old)).collect();
    for (new, old) in under_way {
        match (new.role, draft.instances.get(old).cloned()) {
            (Role::Newcomer, Some(old)) => before_the_commit(draft, &new, &old),
            _ => after_the_commit(draft, &new, old),
        }
    }
    let lost_ones: Vec<Instance> = draft
        .instances
        .all
        .values()
        .filter(|instance| {
            matches!(instance.role, Role::Member) && draft.evidence.contains_key(instance.name)
        })
        .cloned()
        .collect();
    for instance in lost_ones {
        begin(draft, &instance);
    }
}

fn begin(draft: &mut Draft, old: &Instance) {
    // Who is to take its place sees to it, unless nothing is held that one could take over.
    if draft.instances.successor(old.name).is_some() && !draft.is_void {
        return;
    }
    let Some(kind) = lost(draft, old) else { return };
    if !holds_something(draft, old) {
        abandon(draft, old, "it is lost and held nothing yet");
        return;
    }
    let (observed, spec) = (draft.observed, draft.spec);
    let requested = kind == Kind::Requested;
    let gates = [
        gates::mode(spec, requested),
        gates::database(observed).map(drop),
        gates::zone(observed, spec, old.group),
        infrastructure(draft, requested),
        gates::alone(spec, observed.database.as_ref(), &draft.instances, old),
        others_hold(draft, old),
    ];
    if !draft.may(old.name, gates) {
        return;
    }
    make(draft, old, kind.word());
}

/// A newcomer for the place of another.
pub fn make(draft: &mut Draft, old: &Instance, why: &str) {
    let instance = super::scale::next_name(draft, old.group);
    draft.tell(
        why != storage::GROWTH,
        "ReplacementStarted",
        format!("{instance} is to take the place of {} ({why})", old.name),
    );
    draft.act(Action::CreateClaim {
        instance,
        group: old.group.into(),
        replaces: Some((old.name.into(), why.into())),
    });
}

/// Whether the instance is part of the placement, so that something is lost with it. Unknown is yes, unless nobody was let write yet and nobody decides.
pub fn holds_something(draft: &Draft, instance: &Instance) -> bool {
    !draft.is_void && (draft.observed.database.is_none() || instance.has_part())
}

/// An instance goes that nothing is lost with.
pub fn abandon(draft: &mut Draft, instance: &Instance, why: &str) {
    if instance.claim.is_none() {
        return;
    }
    draft.tell(false, "InstanceAbandoned", format!("{} goes: {why}", instance.name));
    draft.note(instance, Note::Leave(Leaving::Abandoned));
}

/// Not so many machines are away that it is rather the network. A person who knows better can say so.
fn infrastructure(draft: &Draft, requested: bool) -> gates::Gate {
    gates::infrastructure(draft.spec, &draft.instances, requested).map_err(|(reason, message)| {
        (reason, format!("{message}, or put the annotation sarsen.dev/replace=true on the claims of those that are lost"))
    })
}

/// The others hold enough without this instance. One that answers is emptied before it goes, so that nothing depends on them.
pub fn others_hold(draft: &Draft, old: &Instance) -> gates::Gate {
    let (Some(database), Some((id, _))) = (&draft.observed.database, old.node) else { return Ok(()) };
    if old.is_heard() {
        return Ok(());
    }
    gates::quorum(database, &BTreeSet::from([id]))
}

fn before_the_commit(draft: &mut Draft, new: &Instance, old: &Instance) {
    let why =
        new.claim.and_then(|claim| claim.replaces.as_ref()).map_or("", |replaces| replaces.why.as_str());
    let planned = why == storage::GROWTH;
    let evidence = draft.evidence.get(old.name).cloned();
    let is_committed = new.has_part();
    if new.node.is_some_and(|(_, node)| node.state == NodeState::Draining) {
        abandon(draft, new, "somebody has given its replacement up");
        return;
    }
    if lost(draft, new).is_some() {
        abandon(draft, new, "it is lost itself before it has taken the place of another");
        return;
    }
    if evidence.is_none() && !planned && !is_committed && old.is_heard() {
        abandon(draft, new, &format!("{} is there again", old.name));
        return;
    }
    let Some((new_id, newcomer)) = new.node else {
        let message = match trouble(draft.observed, new) {
            Some(message) => message,
            None => format!("{} has not joined the database yet", new.name),
        };
        let unschedulable = new.pod.is_some_and(|pod| pod.unschedulable.is_some());
        draft.defer(old.name, if unschedulable { Reason::NoCapacity } else { Reason::Starting }, message);
        return;
    };
    if newcomer.health != Health::Up {
        draft.defer(old.name, Reason::Starting, format!("{} does not answer the others yet", new.name));
        return;
    }
    let Some((old_id, node)) = old.node.filter(|(_, node)| node.state != NodeState::Standby) else {
        // It never held anything, so there is no place to take: the newcomer is one of many, and the old one goes.
        abandon(draft, old, "it never held anything, and another one is there");
        return;
    };
    let gone_silent = node.health == Health::Down;
    // One that answers is emptied. One that has fallen silent meanwhile may be back, until it counts as lost.
    let is_due = (planned && !gone_silent) || lost(draft, old).is_some();
    // While the old one is being emptied and answers, there is nothing to do but to wait.
    if (is_committed && !gone_silent) || !is_due || node.health == Health::Suspect || draft.is_disruptive() {
        return;
    }
    let (observed, spec) = (draft.observed, draft.spec);
    let requested = evidence.is_some_and(|evidence| evidence.kind == Kind::Requested);
    let mode = if planned && !gone_silent { Ok(()) } else { gates::mode(spec, requested) };
    let database = gates::database(observed);
    let epoch = database.as_ref().map_or(0, |database| database.epoch);
    let gates = [
        mode,
        database.map(drop),
        gates::zone(observed, spec, old.group),
        infrastructure(draft, requested),
        gates::alone(spec, observed.database.as_ref(), &draft.instances, old),
        others_hold(draft, old),
    ];
    if !draft.may(old.name, gates) {
        return;
    }
    let request = Request::Replace { old: old_id.into(), new: new_id.into(), lost: gone_silent, epoch };
    draft.tell(
        false,
        "ReplacementCommitted",
        format!("{} takes the place of {} in the placement", new.name, old.name),
    );
    draft.act(Action::Ask(request));
}

fn after_the_commit(draft: &mut Draft, new: &Instance, old: &str) {
    let Some(database) = &draft.observed.database else { return };
    let Some((id, node)) = new.node else {
        // The old one is gone otherwise; the newcomer is one of many.
        draft.note(new, Note::Settle);
        return;
    };
    let has_everything = node.state == NodeState::Up && database.initializing(id) == 0;
    if !has_everything || !new.is_well() || draft.evidence.contains_key(new.name) {
        return;
    }
    let since = new
        .claim
        .and_then(|claim| claim.replaces.as_ref())
        .map_or(draft.observed.now, |replaces| replaces.since);
    let seconds = (draft.observed.now - since) / 1000;
    draft.tell(
        false,
        "ReplacementCompleted",
        format!("{} has everything that {old} had, {seconds} s after it was begun", new.name),
    );
    draft.note(new, Note::Settle);
}
