//! Pods that are not as they should be are made anew: group by group, one at a time, the first as a canary.
//!
//! The claim stays, so that a pod comes back with its data. A pod that is not ready anyway can always be changed, so that a mistake in the
//! specification is mended by a better one.

use super::action::{Action, Reason};
use super::draft::Draft;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::Observed;
use crate::api::Span;
use std::collections::BTreeSet;

/// Changes the next pod.
pub fn advance(draft: &mut Draft) {
    let spec = draft.spec;
    // Who is about to go need not be changed.
    let stays = |instance: &Instance| draft.instances.successor(instance.name).is_none();
    let outdated: Vec<Instance> =
        in_order(draft).filter(|instance| is_outdated(draft.observed, instance) && stays(instance)).collect();
    if outdated.is_empty() || draft.is_disruptive() {
        return;
    }
    // What does not work is no worse for being changed.
    let broken = outdated.iter().find(|instance| {
        instance.pod.is_some_and(|pod| !pod.containers_ready && !pod.deleting)
            && !instance.is_heard()
            && !draft.evidence.contains_key(instance.name)
    });
    if spec.rollout.paused {
        draft.defer("", Reason::Paused, "rollout.paused is true: pods are not changed");
        return;
    }
    if let Some(broken) = broken.cloned() {
        replace(draft, &broken, "it does not work, and is not as it should be");
        return;
    }
    if let Some((reason, message)) = waits(draft) {
        draft.defer("", reason, message);
        return;
    }
    let next = outdated
        .into_iter()
        .find(|instance| instance.is_well() && !draft.evidence.contains_key(instance.name));
    let Some(next) = next else { return };
    let Some((id, _)) = next.node else { return };
    let gates = match gates::database(draft.observed) {
        Err(closed) => [Err(closed), Ok(()), Ok(())],
        Ok(database) => [
            Ok(()),
            gates::settled(database, id),
            gates::quorum(database, &disturbed(draft, &next).into_iter().chain([id]).collect()),
        ],
    };
    if draft.may("", gates) {
        replace(draft, &next, "it is not as it should be");
    }
}

/// Members by group, in the order of the specification.
fn in_order<'a>(draft: &Draft<'a>) -> impl Iterator<Item = Instance<'a>> {
    let spec = draft.spec;
    let instances: Vec<Instance> =
        spec.groups.iter().flat_map(|group| draft.instances.members(&group.name)).cloned().collect();
    instances.into_iter()
}

/// Whether the pod of an instance was made from something else than is wanted now.
pub fn is_outdated(observed: &Observed, instance: &Instance) -> bool {
    let wanted = observed.wanted.hashes.get(instance.group);
    instance.pod.is_some_and(|pod| wanted.is_some_and(|wanted| *wanted != pod.hash))
}

/// What a change of one more pod waits for.
fn waits(draft: &mut Draft) -> Option<(Reason, String)> {
    let rollout = &draft.spec.rollout;
    let (min_ready, max) =
        (Span::seconds(u64::from(rollout.min_ready_seconds)), rollout.max_unavailable_in_group as usize);
    let next =
        in_order(draft).find(|instance| is_outdated(draft.observed, instance) && instance.is_well())?;
    // Who may be lost is nobody's change; that enough is left without it is looked at shard by shard.
    let counts = |instance: &&Instance| {
        let holds = match instance.role {
            Role::Member => true,
            Role::Leaving(_) => instance.node.is_some(),
            Role::Newcomer | Role::Retired => false,
        };
        holds && !draft.evidence.contains_key(instance.name)
    };
    let members: Vec<Instance> = draft.instances.all.values().filter(counts).cloned().collect();
    let (well, away): (Vec<Instance>, Vec<Instance>) = members.into_iter().partition(Instance::is_well);
    for instance in &away {
        if let Some(stuck) = stuck(draft, instance) {
            return Some((Reason::RolloutStuck, stuck));
        }
    }
    let elsewhere = away.iter().find(|instance| instance.group != next.group);
    if let Some(first) = elsewhere.or(away.first().filter(|_| away.len() >= max)) {
        return Some((Reason::Busy, format!("{} is not ready yet", first.name)));
    }
    for instance in &well {
        if is_outdated(draft.observed, instance) {
            continue;
        }
        let since = instance.pod.and_then(|pod| pod.ready).unwrap_or(draft.observed.now);
        if !draft.has_lasted(since, min_ready) {
            return Some((
                Reason::Busy,
                format!("{} has not been ready for rollout.minReadySeconds yet", instance.name),
            ));
        }
    }
    None
}

/// A changed pod that does not become ready.
fn stuck(draft: &mut Draft, instance: &Instance) -> Option<String> {
    let pod = instance.pod?;
    let deadline = draft.spec.rollout.progress_deadline;
    if is_outdated(draft.observed, instance)
        || pod.ready.is_some()
        || !draft.has_lasted(pod.created, deadline)
    {
        return None;
    }
    let trouble = super::evidence::trouble(draft.observed, instance)
        .unwrap_or_else(|| format!("{} is not ready", instance.name));
    Some(format!("{trouble}; no more pods are changed: correct the specification"))
}

/// Nodes of other instances of which something of ours is not ready.
fn disturbed<'a>(draft: &Draft<'a>, next: &Instance) -> BTreeSet<&'a str> {
    draft
        .instances
        .all
        .values()
        .filter(|instance| instance.name != next.name && !instance.is_well())
        .filter_map(|instance| instance.node.map(|(id, _)| id))
        .collect()
}

fn replace(draft: &mut Draft, instance: &Instance, why: &str) {
    let Some(pod) = instance.pod else { return };
    draft.tell(false, "PodChanged", format!("the pod {} is made anew: {why}", instance.name));
    draft.act(Action::DeletePod {
        instance: instance.name.into(),
        uid: pod.uid.clone(),
        force: false,
        why: why.into(),
    });
}
