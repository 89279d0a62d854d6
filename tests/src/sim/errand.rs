//! What whoever operates the cluster is to do in a run, drawn once.
//!
//! An errand is a list of steps, one after the other; what makes it hard lies between them: a node that is emptied dies, the one that comes in its place dies, a
//! zone is back before its copies are made elsewhere. It may end before each of its disasters, and everything can be well then.

use super::network::Machine;
use crate::random::Random;

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Step {
    /// A node starts on a machine that had none, and holds nothing until that is asked for.
    Fetch(Machine),
    /// A machine's disk is gone, if the cluster can do without it.
    Destroy(Machine),
    /// These machines are away for so long: without power, or not heard.
    Away {
        /// Which.
        machines: Vec<Machine>,
        /// For how long.
        ms: u64,
        /// Whether without power.
        off: bool,
    },
    /// The cluster is asked, until it has agreed.
    Ask(Wish),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The node is emptied.
    Drain(Machine),
    /// It goes for ever.
    Remove {
        /// Which.
        node: Machine,
        /// Without being emptied, since it does not answer.
        lost: bool,
    },
    /// Another takes its place.
    Replace {
        /// Which goes.
        old: Machine,
        /// Which comes.
        new: Machine,
        /// The old one does not answer.
        lost: bool,
    },
    /// What it holds is made elsewhere, and it may come back.
    Heal(Machine),
}

/// The machines of a run, as far as they matter here.
pub struct Ground<'a> {
    /// By machine its failure domain; those that are fetched are added.
    pub zones: &'a mut Vec<usize>,
    /// By machine its start; the same.
    pub starts_ms: &'a mut Vec<Option<u64>>,
    /// Those that are there all the time.
    pub staying: Vec<Machine>,
    /// How many of them may go without another in their place.
    pub spare: usize,
}

impl Ground<'_> {
    /// A machine that has no node yet, beside another.
    fn fetch(&mut self, beside: Machine) -> Machine {
        self.zones.push(self.zones[beside]);
        self.starts_ms.push(None);
        self.zones.len() - 1
    }
}

/// Steps, and how long after the one before each is taken.
pub type Errand = Vec<(u64, Step)>;

/// An errand among these machines; `None` if there is none left for one.
pub fn draw(lots: &mut Random, ground: &mut Ground<'_>) -> Option<Errand> {
    if ground.staying.is_empty() {
        return None;
    }
    let old = ground.staying.swap_remove(lots.below(ground.staying.len() as u64) as usize);
    let begin_ms = lots.between(4_000, 20_000);
    let kind = lots.below(100);
    let shrinks = (25..50).contains(&kind) && ground.spare > 0;
    ground.spare -= usize::from(shrinks);
    let mut errand = match kind {
        0..25 => zone_is_away(lots, ground, old),
        25..38 if shrinks => removal(lots, old),
        25..50 if shrinks => drained(lots, ground, old),
        _ => replacement(lots, ground, old),
    };
    errand[0].0 += begin_ms;
    Some(errand)
}

/// At once, or in the middle of what was begun.
fn later(lots: &mut Random) -> u64 {
    if lots.percent(50) { lots.between(100, 2_500) } else { lots.between(2_500, 12_000) }
}

fn zone_is_away(lots: &mut Random, ground: &mut Ground<'_>, one: Machine) -> Errand {
    let zone = ground.zones[one];
    let beside = ground.staying.iter().copied().filter(|machine| ground.zones[*machine] == zone);
    let machines: Vec<Machine> = std::iter::once(one).chain(beside).collect();
    let away =
        Step::Away { machines: machines.clone(), ms: lots.between(20_000, 50_000), off: lots.percent(50) };
    let mut errand = vec![(0, away)];
    errand.extend(machines.iter().map(|machine| (lots.between(0, 500), Step::Ask(Wish::Heal(*machine)))));
    if lots.percent(40) {
        // One of them never comes back.
        errand.push((later(lots), Step::Destroy(one)));
        let new = ground.fetch(one);
        errand.push((0, Step::Fetch(new)));
        errand.push((later(lots), Step::Ask(Wish::Replace { old: one, new, lost: true })));
    }
    errand
}

fn removal(lots: &mut Random, old: Machine) -> Errand {
    vec![
        (0, Step::Ask(Wish::Remove { node: old, lost: false })),
        (later(lots), Step::Destroy(old)),
        (0, Step::Ask(Wish::Remove { node: old, lost: true })),
    ]
}

/// A node is emptied, and another is there for it; it may die meanwhile.
fn drained(lots: &mut Random, ground: &mut Ground<'_>, old: Machine) -> Errand {
    let new = ground.fetch(old);
    let mut errand =
        vec![(0, Step::Fetch(new)), (0, Step::Ask(Wish::Drain(old))), (later(lots), Step::Destroy(old))];
    errand.push((0, Step::Ask(Wish::Replace { old, new, lost: true })));
    errand
}

fn replacement(lots: &mut Random, ground: &mut Ground<'_>, old: Machine) -> Errand {
    let new = ground.fetch(old);
    let mut errand = Vec::new();
    let is_lost = match lots.below(10) {
        0..3 => {
            errand.push((0, Step::Destroy(old)));
            true
        }
        // It lives, and nobody hears it.
        3..5 => {
            let ms = lots.between(14_000, 40_000);
            errand.push((0, Step::Away { machines: vec![old], ms, off: false }));
            true
        }
        _ => false,
    };
    errand.push((0, Step::Fetch(new)));
    errand.push((lots.between(0, 2_000), Step::Ask(Wish::Replace { old, new, lost: is_lost })));
    let middle = later(lots);
    match lots.below(4) {
        // The one that comes dies.
        0 | 1 if is_lost || lots.percent(70) => {
            errand.push((middle, Step::Destroy(new)));
            let next = ground.fetch(new);
            errand.push((0, Step::Fetch(next)));
            if is_lost || lots.percent(50) {
                errand.push((0, Step::Ask(Wish::Replace { old: new, new: next, lost: true })));
            } else {
                errand.push((0, Step::Ask(Wish::Replace { old, new: next, lost: false })));
                errand.push((0, Step::Ask(Wish::Remove { node: new, lost: true })));
            }
        }
        // The one that goes dies.
        1 | 2 if !is_lost => {
            errand.push((middle, Step::Destroy(old)));
            let wish = match lots.percent(70) {
                true => Wish::Replace { old, new, lost: true },
                false => Wish::Remove { node: old, lost: true },
            };
            errand.push((0, Step::Ask(wish)));
        }
        // Another one is to come.
        3 if !is_lost => {
            let dies = lots.percent(50);
            if dies {
                errand.push((middle, Step::Destroy(old)));
            }
            let next = ground.fetch(new);
            errand.push((0, Step::Fetch(next)));
            errand.push((later(lots), Step::Ask(Wish::Replace { old, new: next, lost: dies })));
            errand.push((later(lots), Step::Ask(Wish::Remove { node: new, lost: false })));
        }
        _ => {}
    }
    errand
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Swarm;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_kind_is_drawn_and_who_comes_has_a_machine_of_its_own() {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for swarm in (0..1_000).map(Swarm::of) {
            let (mut fetched, mut going) = (BTreeSet::new(), BTreeSet::new());
            for (_, step) in swarm.errands.iter().flatten() {
                let kind = match step {
                    Step::Fetch(machine) => {
                        let is_new = fetched.insert(*machine) && swarm.starts_ms[*machine].is_none();
                        let others = swarm.departures.iter().flat_map(|departure| &departure.instead);
                        assert!(is_new && !others.into_iter().any(|other| other == machine), "{swarm:?}");
                        "fetch"
                    }
                    Step::Destroy(machine) => {
                        assert!(going.insert(*machine), "a machine dies twice: {swarm:?}");
                        "destroy"
                    }
                    Step::Away { .. } => "away",
                    Step::Ask(Wish::Drain(_)) => "drain",
                    Step::Ask(Wish::Heal(_)) => "heal",
                    Step::Ask(Wish::Remove { lost, .. }) => {
                        if *lost {
                            "remove lost"
                        } else {
                            "remove"
                        }
                    }
                    Step::Ask(Wish::Replace { lost, .. }) => {
                        if *lost {
                            "replace lost"
                        } else {
                            "replace"
                        }
                    }
                };
                *kinds.entry(kind).or_default() += 1;
            }
        }
        assert!(kinds.len() == 9 && kinds.values().all(|count| *count > 20), "{kinds:?}");
    }
}
