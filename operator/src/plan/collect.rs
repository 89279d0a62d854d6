//! What goes: instances that are to leave, and what is left of those that have. Storage is the last to go.

use super::action::{Action, Note, Reason, Request};
use super::creation;
use super::draft::Draft;
use super::evidence::pinned;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::{Claim, Contents, Database, Health, Leaving};
use crate::api::DeletePolicy;
use std::collections::BTreeSet;

/// Goes on with everything that is to go.
pub fn advance(draft: &mut Draft) {
    for instance in draft.all() {
        match instance.role {
            Role::Leaving(why) => leave(draft, &instance, why),
            Role::Retired => retire(draft, &instance),
            // A person has deleted its claim before it held anything: nothing else would take it out of the placement.
            Role::Member if instance.claim.is_none() && (draft.is_void || !instance.has_part()) => {
                leave(draft, &instance, Leaving::Abandoned);
            }
            Role::Member | Role::Newcomer => {}
        }
    }
}

fn leave(draft: &mut Draft, instance: &Instance, why: Leaving) {
    let observed = draft.observed;
    if draft.is_void {
        let it = "nobody was let write to it yet";
        let goes = why == Leaving::Abandoned && pod_is_gone(draft, instance, it);
        if goes && creation::is_over(draft) && may_be_deleted(draft, instance) {
            delete_claim(draft, instance, it);
        }
        return;
    }
    let Some(database) = &observed.database else { return };
    let Some((id, node)) = instance.node else {
        match why {
            Leaving::Abandoned => clear_away(draft, instance, "it never held anything"),
            // It was a member and is gone from the placement without a trace, or never came.
            Leaving::ScaleIn => depart(draft, instance),
        }
        return;
    };
    let is_under_way =
        database.jobs.iter().any(|job| job.kind == "remove" && job.leaving.as_deref() == Some(id));
    let silent = node.health == Health::Down;
    if draft.is_disruptive() || node.health == Health::Suspect || (is_under_way && !silent) {
        return;
    }
    // It may be back in a moment, with its copies; if not, it is lost like any other.
    if silent
        && instance.has_part()
        && why == Leaving::ScaleIn
        && super::replace::lost(draft, instance).is_none()
    {
        draft.defer(
            instance.name,
            Reason::Starting,
            format!("{} does not answer; it is emptied when it does", instance.name),
        );
        return;
    }
    // Taking one away while another is away would leave the fewer who vote and hold copies.
    let quorum =
        if silent { gates::quorum(database, &BTreeSet::from([id])) } else { gates::whole(database, id) };
    let gates = [gates::database(observed).map(drop), quorum];
    if draft.may(instance.name, gates) {
        draft.act(Action::Ask(Request::Remove { node: id.into(), lost: silent, epoch: database.epoch }));
    }
}

/// The placement has no place for it any more.
fn retire(draft: &mut Draft, instance: &Instance) {
    let claim = instance.claim;
    if let Some(Claim { leaving: Some(why), .. }) = claim {
        match why {
            Leaving::Abandoned => {
                clear_away(draft, instance, "it is gone from the placement and never held anything")
            }
            Leaving::ScaleIn => depart(draft, instance),
        }
        return;
    }
    if claim.is_some_and(|claim| claim.retired.is_none()) {
        draft.note(instance, Note::Retire);
    }
    if !pod_is_gone(draft, instance, "another instance has taken its place") {
        return;
    }
    let Some(claim) = claim else { return };
    let Some(since) = claim.retired else { return };
    // Its successor may yet be lost, and then this is one more disk that a person could read.
    if draft.instances.successor(instance.name).is_some() || !may_be_deleted(draft, instance) {
        return;
    }
    if !may_come_back(draft, instance)
        || draft.has_lasted(since, draft.spec.failure_policy.retain_lost_volumes)
    {
        delete_claim(draft, instance, "another instance has taken its place and has everything");
    }
}

/// An instance that the group does not need any more, and that the placement has let go.
fn depart(draft: &mut Draft, instance: &Instance) {
    let Some(claim) = instance.claim else {
        pod_is_gone(draft, instance, "its group has fewer nodes now");
        return;
    };
    if claim.retired.is_none() {
        draft.note(instance, Note::Retire);
    }
    let gone = pod_is_gone(draft, instance, "its group has fewer nodes now");
    if gone && may_be_deleted(draft, instance) && policy(draft, instance) == DeletePolicy::Delete {
        delete_claim(draft, instance, "its group has fewer nodes now, and storage.deletePolicy is Delete");
    }
}

fn clear_away(draft: &mut Draft, instance: &Instance, why: &str) {
    // Whoever was a member of a database that was written to held something, whatever was decided on since.
    if pod_is_gone(draft, instance, why) && may_be_deleted(draft, instance) {
        delete_claim(draft, instance, why);
    }
}

/// The database, asked now, says that the instance is gone for ever, or we have made its claim and nobody was let write to it.
fn may_be_deleted(draft: &Draft, instance: &Instance) -> bool {
    let has_nothing = instance.claim.is_some_and(|claim| claim.contents == Contents::Nothing);
    let is_gone = |database: &Database| database.gone.contains(instance.name);
    has_nothing || draft.observed.database.as_ref().is_some_and(is_gone)
}

/// Whether there is no pod any more. If there is one, it is to go.
fn pod_is_gone(draft: &mut Draft, instance: &Instance, why: &str) -> bool {
    let Some(pod) = instance.pod else { return true };
    // Nobody on that machine would say that it has ended. It is fenced: no node takes anything from it any more.
    let force = draft.instances.machine_is_away(instance);
    if !draft.is_disruptive() && (!pod.deleting || force) {
        draft.act(Action::DeletePod {
            instance: instance.name.into(),
            uid: pod.uid.clone(),
            force,
            why: why.into(),
        });
    }
    false
}

fn delete_claim(draft: &mut Draft, instance: &Instance, why: &str) {
    let Some(claim) = instance.claim else { return };
    if !claim.deleting && !draft.is_disruptive() {
        draft.act(Action::DeleteClaim {
            instance: instance.name.into(),
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            why: why.into(),
        });
    }
}

/// Whether what is on the volume may be read again some day: it is not bound to a machine, or that machine is there, or nobody knows.
fn may_come_back(draft: &Draft, instance: &Instance) -> bool {
    let is_pinned = pinned(draft.observed, instance).unwrap_or(true);
    let machines_known = draft.observed.machines.is_some();
    !is_pinned || !machines_known || draft.instances.machine_object(instance).is_some()
}

/// What is to become of claims of the instance's group.
pub fn policy(draft: &Draft, instance: &Instance) -> DeletePolicy {
    draft.spec.storage_of(instance.group).delete_policy
}
