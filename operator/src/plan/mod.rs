//! What to do, from what was seen: a pure function that holds every decision of the operator.
//!
//! ```text
//! Observed ─► instances ─► evidence ─► create, replace, free, collect, change, grow ─► Plan: actions, status, what is put off and why
//! ```
//!
//! Nothing is remembered between two plans. What has been decided is written where it lasts, on claims and in the database's placement, before it is acted upon; the clocks of
//! evidence are on claims as well. So a plan can be made from any state, by any operator, as often as one likes.
//!
//! **Invariants.** At most one action of a plan takes something away, but for the nodes of a zone that are given up together, and what goes with a cluster that is deleted. No claim is deleted unless the database, asked now, says that its instance is gone for ever, or it never had
//! one, and none because of a machine if its volume can be used on another. Nothing is done to a second group while something of ours is not ready in a first. Every action names the uid or the epoch that it was decided on.
//! None of that holds before anybody was let write: until then there is nothing to lose, and an attempt that cannot go on is begun anew (`creation`).

mod action;
mod collect;
mod creation;
mod deletion;
mod draft;
mod evidence;
mod free;
mod gates;
mod instances;
mod observed;
mod problems;
mod quantity;
mod replace;
mod rollout;
mod scale;
mod status;
mod storage;
mod zone;

#[cfg(test)]
mod tests;

pub use action::{Action, Deferral, Facts, Note, Reason, Request, Told};
pub use instances::group_of;
pub use observed::*;
pub use quantity::bytes;

use crate::api::ClusterStatus;
use draft::Draft;

/// What to do, and what to say.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// What would be done, but.
    pub deferrals: Vec<Deferral>,
    /// What people should know, once.
    pub told: Vec<Told>,
    /// What the cluster object says.
    pub status: ClusterStatus,
    /// When to look again at the latest, though nothing changes.
    pub again: Option<Ms>,
}

impl Plan {
    /// Whether there is something in it that must be decided anew on what is read now.
    pub fn needs_certainty(&self) -> bool {
        self.actions.iter().any(Action::needs_certainty)
    }
}

/// What to do with a cluster.
pub fn plan(observed: &Observed) -> Plan {
    let Some(spec) = &observed.spec else {
        return Plan { status: status::unreadable(observed), ..Plan::default() };
    };
    let mut draft = Draft::new(observed, spec);
    if observed.deleting {
        deletion::advance(&mut draft);
    } else if observed.paused || spec.paused {
        draft.defer("", Reason::Paused, "the cluster is paused: nothing is done");
    } else {
        advance(&mut draft);
    }
    status::finish(draft)
}

fn advance(draft: &mut Draft) {
    let observed = draft.observed;
    if !observed.has_finalizer {
        draft.act(Action::AddFinalizer);
    }
    if !observed.has_token {
        draft.act(Action::CreateToken);
    }
    let valid = draft.problems.is_empty();
    if !valid {
        draft.defer("", Reason::SpecInvalid, draft.problems.join("; "));
    }
    for stale in &observed.wanted.stale {
        draft.act(Action::Apply(stale.clone()));
    }
    facts(draft);
    replace::suspect(draft);
    creation::advance(draft);
    replace::advance(draft);
    free::advance(draft);
    collect::advance(draft);
    zone::heal(draft);
    scale::add(draft);
    // What a specification that cannot work says is not done to a cluster that works.
    if valid {
        scale::out(draft);
        scale::inwards(draft);
        storage::advance(draft);
        rollout::advance(draft);
    }
    scale::pods(draft);
    scale::gates(draft);
    if let Some(surplus) = observed.wanted.surplus.first().filter(|_| !draft.is_disruptive()) {
        draft.act(Action::DeleteShared(surplus.clone()));
    }
}

/// Writes down what is known of instances, as long as it can be asked. Which database they are of is not written down before it is founded: it tells that it is.
fn facts(draft: &mut Draft) {
    let observed = draft.observed;
    let database = observed.database.as_ref().filter(|_| draft.is_founded);
    for instance in draft.all() {
        let Some(claim) = instance.claim else { continue };
        let node_id = instance.node.map(|(id, _)| id.to_owned());
        let cluster_id = database.filter(|_| node_id.is_some()).map(|database| database.cluster_id.clone());
        let runs = instance.pod.filter(|pod| pod.containers_ready);
        let machine = runs.and_then(|pod| pod.machine.as_ref());
        let host = machine.map(|name| {
            let object = observed.machines.as_ref().and_then(|machines| machines.get(name));
            let (uid, machine) =
                object.map(|machine| (machine.uid.clone(), machine.machine.clone())).unwrap_or_default();
            Host { name: name.clone(), uid, machine }
        });
        // A Node object that is gone, or came back as another, is what the evidence is about: it is not written over.
        let host = host.filter(|host| !host.uid.is_empty() || observed.machines.is_none());
        let host = host.filter(|_| !draft.evidence.contains_key(instance.name));
        let is_new = (node_id.is_some() && claim.node_id != node_id)
            || cluster_id.as_ref().is_some_and(|id| claim.contents != Contents::Of(id.clone()))
            || (host.is_some() && claim.host != host);
        if is_new {
            let facts = Facts { node_id, cluster_id, host };
            draft.note(&instance, Note::Facts(Box::new(facts)));
        }
    }
}
