//! Volumes that grow: in place where the storage class can, else by instances with larger ones, one after the other.

use super::action::{Action, Reason};
use super::draft::Draft;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::{Claim, ClaimPhase, Class, Observed};
use super::quantity::bytes;
use crate::api::ClusterSpec;
use std::collections::BTreeSet;

/// Why an instance is replaced whose volume is too small.
pub const GROWTH: &str = "StorageGrowth";

/// The class of a claim. `None`: it has none, or it is not known.
fn class(observed: &Observed, claim: &Claim) -> Option<Class> {
    let classes = observed.classes.as_ref()?;
    match &claim.class {
        Some(name) => classes.get(name).copied(),
        None => classes.values().find(|class| class.is_default).copied(),
    }
}

/// Whether the volume of an instance is smaller than wanted.
pub fn is_small(spec: &ClusterSpec, instance: &Instance) -> bool {
    let wanted = bytes(&spec.storage_of(instance.group).size);
    instance.claim.is_some_and(|claim| wanted.is_some_and(|wanted| claim.requested < wanted))
}

/// Goes on with it.
pub fn advance(draft: &mut Draft) {
    let small: Vec<Instance> = draft
        .instances
        .all
        .values()
        .filter(|instance| {
            matches!(instance.role, Role::Member | Role::Newcomer) && is_small(draft.spec, instance)
        })
        .cloned()
        .collect();
    for instance in small {
        let Some(claim) = instance.claim else { continue };
        // Where the operator may not look at classes, the API server says whether it can.
        let expands = class(draft.observed, claim).is_none_or(|class| class.expands);
        if expands && claim.phase == ClaimPhase::Bound {
            draft.act(Action::ExpandClaim { instance: instance.name.into(), uid: claim.uid.clone() });
        } else if !expands && instance.role == Role::Member {
            replace(draft, &instance);
        }
    }
}

fn replace(draft: &mut Draft, old: &Instance) {
    if draft.instances.replacements().next().is_some() || draft.is_disruptive() {
        return;
    }
    if draft.made().next().is_some() {
        return;
    }
    if !draft.evidence.is_empty() {
        draft.defer(old.name, Reason::Busy, "an instance may be lost; its volume grows when that is settled");
        return;
    }
    let Some((id, _)) = old.node else { return };
    let gates = match gates::database(draft.observed) {
        Err(closed) => [Err(closed), Ok(())],
        Ok(database) => [gates::settled(database, id), gates::quorum(database, &BTreeSet::from([id]))],
    };
    if draft.may(old.name, gates) {
        super::replace::make(draft, old, GROWTH);
    }
}
