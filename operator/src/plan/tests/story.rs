//! A world with the operator at work in it, for histories that are told step by step.

use super::super::*;
use super::world::{Dice, World};
use crate::api::ClusterSpec;

/// Moments in which anything must have happened that is waited for.
const MOMENTS_MAX: usize = 400;

/// A change of what is seen.
pub type Seen = fn(&mut Observed);
/// Something that happens.
pub type Change = fn(&mut Story);

/// A world, and what else the operator believes to see in it.
pub struct Story {
    pub world: World,
    dice: Dice,
    /// Changes what is seen: for what the world does not know of.
    pub seen: Seen,
}

impl Story {
    /// A database of which all is well, with so many machines in each zone.
    pub fn settled(spec: ClusterSpec, machines: usize) -> Story {
        Story::of(World::new(spec, machines))
    }

    /// A world, from when all is well in it.
    pub fn of(world: World) -> Story {
        let mut story = Story::begun(world);
        story.until_well();
        story
    }

    /// A world in which nothing has happened yet.
    pub fn begun(world: World) -> Story {
        Story { world, dice: Dice(7), seen: |_| {} }
    }

    pub fn observe(&self) -> Observed {
        let mut observed = self.world.observe();
        (self.seen)(&mut observed);
        observed
    }

    /// A moment passes, and the operator does what it decides on. What every plan must keep to is checked.
    pub fn step(&mut self) -> Plan {
        self.world.tick(&mut self.dice);
        let plan = plan(&self.observe());
        // Healing takes nothing away from a node that answers.
        let heals = |action: &&Action| matches!(action, Action::Ask(Request::Heal { .. }));
        let destructive = plan.actions.iter().filter(|action| action.is_destructive() && !heals(action));
        assert!(destructive.count() <= 1, "more than one thing is taken away: {:?}", plan.actions);
        for action in &plan.actions {
            self.world.act(action);
        }
        self.world.status = plan.status.clone();
        plan
    }

    /// So many moments pass. All that was done.
    pub fn steps(&mut self, count: usize) -> Vec<Action> {
        (0..count).flat_map(|_| self.step().actions).collect()
    }

    /// Goes on until something has been done, and returns all that was done.
    pub fn until(&mut self, what: &str, is_done: impl Fn(&World, &[Action]) -> bool) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..MOMENTS_MAX {
            done.extend(self.step().actions);
            if is_done(&self.world, &done) {
                return done;
            }
        }
        panic!("never: {what}\n{:#?}\n{done:#?}", plan(&self.observe()).deferrals);
    }

    /// Goes on until all is well and nothing is left to do.
    pub fn until_well(&mut self) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..MOMENTS_MAX {
            let plan = self.step();
            let nothing = plan.actions.is_empty();
            done.extend(plan.actions);
            if nothing && self.world.is_well().is_ok() {
                return done;
            }
        }
        panic!("never well: {:?}\n{:#?}", self.world.is_well(), plan(&self.observe()).deferrals);
    }

    /// The machine of an instance.
    pub fn machine(&self, instance: &str) -> String {
        self.world.pods[instance].machine.clone().expect("it runs")
    }

    /// The machine of an instance burns down.
    pub fn destroy(&mut self, instance: &str) {
        let machine = self.machine(instance);
        self.world.boxes.remove(&machine);
        for disk in self.world.disks.values_mut() {
            if disk.machine == machine && disk.network.is_none() {
                disk.data = None;
            }
        }
    }

    /// Whether the machine of an instance has power.
    pub fn power(&mut self, instance: &str, power: bool) {
        let machine = self.machine(instance);
        self.world.boxes.get_mut(&machine).unwrap().power = power;
    }

    /// The claim of an instance.
    pub fn claim(&mut self, instance: &str) -> &mut Claim {
        self.world.claims.get_mut(instance).unwrap()
    }
}

/// The newcomers that were made, with whose place they are to take and why.
pub fn newcomers(done: &[Action]) -> Vec<(&str, &str, &str)> {
    done.iter()
        .filter_map(|action| match action {
            Action::CreateClaim { instance, replaces: Some((old, why)), .. } => {
                Some((instance.as_str(), old.as_str(), why.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// Whether anything was done that begins, takes away or asks for something.
pub fn is_quiet(done: &[Action]) -> bool {
    !done
        .iter()
        .any(|action| action.needs_certainty() || matches!(action, Action::Note { note: Note::Leave(_), .. }))
}

/// Whether a plan puts off something of an instance for a reason.
pub fn defers(plan: &Plan, instance: &str, reason: Reason) -> bool {
    plan.deferrals.iter().any(|deferral| deferral.instance == instance && deferral.reason == reason)
}

/// Places that were taken in the placement: whether the old one counted as lost.
pub fn commits(done: &[Action]) -> Vec<bool> {
    let lost = |action: &Action| match action {
        Action::Ask(Request::Replace { lost, .. }) => Some(*lost),
        _ => None,
    };
    done.iter().filter_map(lost).collect()
}

/// The claims that were deleted.
pub fn deleted<'a>(done: &'a [Action]) -> Vec<&'a str> {
    let name = |action: &'a Action| match action {
        Action::DeleteClaim { instance, .. } => Some(instance.as_str()),
        _ => None,
    };
    done.iter().filter_map(name).collect()
}

/// The node of an instance.
pub fn node<'a>(observed: &'a mut Observed, instance: &str) -> Option<&'a mut Node> {
    observed.database.as_mut()?.nodes.values_mut().find(|node| node.instance == instance)
}
