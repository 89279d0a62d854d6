//! A plan in the making.

use super::action::{Action, Deferral, Note, Reason, Told};
use super::creation;
use super::evidence::{Evidence, evidence};
use super::gates::{Gate, deferral};
use super::instances::{Instance, Instances, Role};
use super::observed::{Ms, Observed};
use super::problems::problems;
use crate::api::{ClusterSpec, Span};
use std::collections::BTreeMap;

/// A plan in the making: what was seen, what that means, and what is to be done.
pub struct Draft<'a> {
    /// What was seen.
    pub observed: &'a Observed,
    /// What is wanted.
    pub spec: &'a ClusterSpec,
    /// What was seen, by instance.
    pub instances: Instances<'a>,
    /// Who may be lost, and why.
    pub evidence: BTreeMap<&'a str, Evidence>,
    /// Somebody may have written to the database ([`creation::is_founded`]).
    pub is_founded: bool,
    /// Nothing is lost with anybody ([`creation::is_void`]).
    pub is_void: bool,
    /// Why the specification cannot work.
    pub problems: Vec<String>,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What would be done, but.
    pub deferrals: Vec<Deferral>,
    /// What people should know.
    pub told: Vec<Told>,
    /// When to look again at the latest.
    pub again: Option<Ms>,
}

impl<'a> Draft<'a> {
    /// Nothing yet.
    pub fn new(observed: &'a Observed, spec: &'a ClusterSpec) -> Draft<'a> {
        let instances = Instances::of(observed);
        let at_stake = |instance: &&Instance| instance.role != Role::Retired;
        let evidence = instances
            .all
            .values()
            .filter(at_stake)
            .filter_map(|instance| Some((instance.name, evidence(observed, &instances, instance)?)))
            .collect();
        let problems = problems(observed, spec, &instances);
        let mut draft = Draft {
            observed,
            spec,
            instances,
            evidence,
            is_founded: false,
            is_void: false,
            problems,
            actions: Vec::new(),
            deferrals: Vec::new(),
            told: Vec::new(),
            again: None,
        };
        draft.is_founded = creation::is_founded(&draft);
        draft.is_void = creation::is_void(&draft);
        draft
    }

    /// All instances, to go over while the plan is being made.
    pub fn all(&self) -> Vec<Instance<'a>> {
        self.instances.all.values().cloned().collect()
    }

    /// The instances that the plan makes, as far as it goes by now.
    pub fn made(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter_map(|action| match action {
            Action::CreateClaim { instance, .. } => Some(instance.as_str()),
            _ => None,
        })
    }

    /// One more thing to do.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Something is written on the claim of an instance.
    pub fn note(&mut self, instance: &Instance, note: Note) {
        if let Some(claim) = instance.claim {
            self.act(Action::Note { instance: instance.name.into(), uid: claim.uid.clone(), note });
        }
    }

    /// Something is put off.
    pub fn defer(&mut self, instance: &str, reason: Reason, message: impl Into<String>) {
        self.deferrals.push(deferral(instance, (reason, message.into())));
    }

    /// Whether all gates are open. The first that is not is told.
    pub fn may(&mut self, instance: &str, gates: impl IntoIterator<Item = Gate>) -> bool {
        match gates.into_iter().find_map(Result::err) {
            None => true,
            Some(closed) => {
                self.deferrals.push(deferral(instance, closed));
                false
            }
        }
    }

    /// People should know.
    pub fn tell(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        self.told.push(Told { warning, reason, message: message.into() });
    }

    /// There is something to do then.
    pub fn look_at(&mut self, at: Ms) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    /// Whether something has lasted long enough; if not, the plan is made again when it has.
    pub fn has_lasted(&mut self, since: Ms, span: Span) -> bool {
        let due = since.saturating_add(i64::try_from(span.0).unwrap_or(Ms::MAX));
        if due > self.observed.now {
            self.look_at(due);
        }
        due <= self.observed.now
    }

    /// Whether something is to be done already that takes something away.
    pub fn is_disruptive(&self) -> bool {
        self.actions.iter().any(Action::is_destructive)
    }
}
