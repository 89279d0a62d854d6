//! Volumes that can be used on another machine than the one that is lost: the pod is freed, and nothing is replaced.

use super::super::*;
use super::losses::{GATES, VICTIM, comes_to_nothing};
use super::spec;
use super::story::{Change, Seen, Story, commits, defers, deleted, is_quiet, newcomers, node};
use super::world::{TICK, World};
use crate::api::ClusterSpec;

/// All is well, and the volumes of all groups are of the network.
fn settled_with(spec: ClusterSpec, machines: usize, exclusive: bool) -> Story {
    let mut world = World::new(spec, machines);
    world.networks = ["a", "b", "c"].map(|group| (group.to_owned(), exclusive)).into();
    Story::of(world)
}

fn settled() -> Story {
    settled_with(spec(1), 3, true)
}

/// The pods that were deleted, and whether by force.
fn freed(done: &[Action]) -> Vec<(&str, bool)> {
    done.iter()
        .filter_map(|action| match action {
            Action::DeletePod { instance, force, .. } => Some((instance.as_str(), *force)),
            _ => None,
        })
        .collect()
}

/// Its machine is cut off, and everything on it lives.
fn cut_off(story: &mut Story, instance: &str, is_off: bool) {
    let machine = story.machine(instance);
    let on = story.world.boxes.get_mut(&machine).unwrap();
    (on.kubelet, on.network) = (!is_off, !is_off);
}

fn unheard(observed: &mut Observed) {
    let node = node(observed, VICTIM).unwrap();
    (node.health, node.heard_by) = (Health::Down, Some((0, 2)));
}

fn machine(observed: &mut Observed) -> &mut Machine {
    let name = observed.pods[VICTIM].machine.clone().unwrap();
    observed.machines.as_mut().unwrap().get_mut(&name).unwrap()
}

/// The Node object is gone.
fn gone(observed: &mut Observed) {
    let name = observed.pods[VICTIM].machine.clone().unwrap();
    observed.machines.as_mut().unwrap().remove(&name);
}

#[test]
fn a_pod_is_freed_from_a_lost_machine_after_its_grace_and_nothing_else_is_done() {
    let table: [(&str, i64, Seen); 4] = [
        ("NodeNotReady", 120, |_| {}),
        ("NodeGone", 60, gone),
        ("NodeGone", 60, |observed| machine(observed).machine = "another".into()),
        ("OutOfService", 0, |observed| machine(observed).out_of_service = true),
    ];
    for (row, (word, grace, seen)) in table.into_iter().enumerate() {
        let mut story = settled();
        let before = story.claim(VICTIM).clone();
        story.power(VICTIM, false);
        story.seen = seen;
        let mut since = None;
        loop {
            let plan = story.step();
            let degraded = plan.status.conditions.iter().find(|condition| condition.type_ == "Degraded");
            since = since.or(degraded.filter(|found| found.reason == word).map(|_| story.world.now));
            if freed(&plan.actions) == [(VICTIM, true)] {
                assert!(plan.told.iter().any(|told| told.reason == "PodFreed"), "row {row}: {:?}", plan.told);
                break;
            }
            assert!(is_quiet(&plan.actions), "row {row}: {:?}", plan.actions);
            let lasted = since.map_or(0, |since| story.world.now - since);
            assert!(lasted <= 10 * TICK, "row {row}: {word} leads to nothing: {:?}", plan.deferrals);
        }
        assert_eq!(story.world.now - since.unwrap(), grace * 1000, "row {row}: {word}");
        story.seen = |_| {};
        assert!(is_quiet(&story.until_well()), "row {row}");
        let after = story.claim(VICTIM);
        assert_eq!((&after.uid, &after.node_id), (&before.uid, &before.node_id), "row {row}");
    }
}

#[test]
fn a_machine_that_is_cut_off_loses_the_volume_before_another_gets_it_and_may_come_back() {
    let mut story = settled();
    let old = story.machine(VICTIM);
    cut_off(&mut story, VICTIM, true);
    let done = story.until("the pod is freed", |_, done| !freed(done).is_empty());
    assert_eq!(freed(&done), [(VICTIM, true)]);
    assert!(!story.world.zombies.is_empty(), "the old process is to live");
    story.until("another machine", |world, _| {
        world.pods.get(VICTIM).is_some_and(|pod| pod.machine.as_ref().is_some_and(|machine| *machine != old))
    });
    let plan = story.step();
    assert!(defers(&plan, VICTIM, Reason::NetworkVolume), "{:?}", plan.deferrals);
    assert!(is_quiet(&story.until_well()));
    assert_ne!(story.machine(VICTIM), old);
    let on = story.world.boxes.get_mut(&old).unwrap();
    (on.kubelet, on.network) = (true, true);
    assert_eq!(story.steps(40), []);
}

#[test]
fn a_pod_whose_process_answers_or_whose_machine_does_is_not_freed() {
    let table: [(&str, Seen); 7] = [
        ("a silent kubelet", |observed| machine(observed).ready = false),
        ("a Node object that is gone", gone),
        ("a process not heard for a moment", |observed| {
            gone(observed);
            node(observed, VICTIM).unwrap().health = Health::Suspect;
        }),
        ("a taint on a machine whose process answers", |observed| machine(observed).out_of_service = true),
        ("a silent machine that half of the others hear", |observed| {
            machine(observed).ready = false;
            unheard(observed);
            node(observed, VICTIM).unwrap().heard_by = Some((1, 2));
        }),
        ("a process that is not heard on a machine that is well", unheard),
        ("another machine by that name, which starts the pod itself", |observed| {
            unheard(observed);
            machine(observed).machine = "another".into();
        }),
    ];
    comes_to_nothing(settled, &table);
}

#[test]
fn a_volume_that_could_be_used_on_both_machines_is_left_to_a_person() {
    let mut story = settled_with(spec(1), 3, false);
    cut_off(&mut story, VICTIM, true);
    let done = story.steps(60);
    assert!(is_quiet(&done), "{done:?}");
    let plan = story.step();
    assert!(defers(&plan, VICTIM, Reason::NetworkVolume), "{:?}", plan.deferrals);
    let blocked = plan.status.conditions.iter().find(|condition| condition.type_ == "ReplacementBlocked");
    assert_eq!(blocked.map(|blocked| blocked.reason.as_str()), Some("NetworkVolume"));
    // Which switches it off, and deletes the pod.
    story.power(VICTIM, false);
    story.world.pods.remove(VICTIM);
    assert!(is_quiet(&story.until_well()));
}

#[test]
fn each_gate_of_a_replacement_is_one_of_freeing_a_pod() {
    for (reason, _, setup) in GATES {
        let mut story = settled();
        story.power(VICTIM, false);
        setup(&mut story);
        let done = story.steps(40);
        assert!(is_quiet(&done), "{reason:?}: {done:?}");
        let plan = story.step();
        // Where nobody answers, nobody says that the machine is more than slow.
        let is_told = defers(&plan, VICTIM, reason) || story.observe().database.is_none();
        assert!(is_told, "{reason:?}: {:?}", plan.deferrals);
    }
}

#[test]
fn of_two_machines_of_two_groups_none_is_freed_until_one_is_back() {
    let mut story = settled_with(spec(2), 3, true);
    story.world.spec.failure_policy.max_affected_nodes_percent = 100;
    // They have copies of the same shards.
    let both = |world: &World, copies: &[Copy]| {
        let is_at = |copy: &&Copy| ["db-a-1", VICTIM].contains(&world.db.nodes[&copy.node].instance.as_str());
        copies.iter().filter(is_at).count() == 2
    };
    assert!(story.world.db.shards.iter().any(|copies| both(&story.world, copies)));
    story.power("db-a-1", false);
    story.power(VICTIM, false);
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    let plan = story.step();
    for instance in ["db-a-1", VICTIM] {
        assert!(defers(&plan, instance, Reason::QuorumLost), "{instance}: {:?}", plan.deferrals);
    }
    story.power("db-a-1", true);
    let done = story.until_well();
    assert_eq!((freed(&done), deleted(&done)), (vec![(VICTIM, true)], vec![]));
}

#[test]
fn machines_of_one_group_are_freed_one_after_the_other() {
    let mut story = settled_with(spec(2), 5, true);
    story.world.spec.failure_policy.max_affected_nodes_percent = 100;
    story.power(VICTIM, false);
    story.power("db-b-2", false);
    // That there is no more than one of them in a plan is checked of every plan.
    let mut done = story.until_well();
    assert_eq!((freed(&done).len(), newcomers(&done).len(), deleted(&done).len()), (2, 0, 0));
    done.retain(|action| !matches!(action, Action::DeletePod { .. }));
    assert!(is_quiet(&done), "{done:?}");
}

#[test]
fn a_person_who_asks_for_it_and_a_volume_that_is_lost_still_lead_to_a_replacement() {
    let table: [(&str, Change); 3] = [
        ("Requested", |story| {
            story.power(VICTIM, false);
            story.claim(VICTIM).replace = true;
        }),
        ("VolumeLost", |story| {
            story.power(VICTIM, false);
            story.world.disks.get_mut("pv-db-b-1").unwrap().object = false;
        }),
        ("VolumeLost", |story| {
            story.world.pods.get_mut(VICTIM).unwrap().containers_ready = false;
            story.world.disks.get_mut("pv-db-b-1").unwrap().data = None;
        }),
    ];
    for (row, (word, change)) in table.into_iter().enumerate() {
        let mut story = settled();
        change(&mut story);
        let done = story.until("a newcomer", |_, done| !newcomers(done).is_empty());
        assert_eq!(newcomers(&done), [("db-b-2", VICTIM, word)], "row {row}");
        let done = story.until("the commit", |_, done| !commits(done).is_empty());
        assert_eq!(commits(&done), [true], "row {row}");
        assert!(freed(&done).iter().all(|(instance, _)| *instance != VICTIM), "row {row}: {done:?}");
    }
}

#[test]
fn a_newcomer_whose_machine_is_lost_is_freed_and_not_abandoned() {
    let mut story = settled();
    story.claim(VICTIM).replace = true;
    story.until("the newcomer runs", |world, _| {
        world.claims.get("db-b-2").is_some_and(|claim| claim.node_id.is_some() && claim.host.is_some())
    });
    // It has not joined yet, as far as is seen, so that nothing is committed.
    story.seen =
        |observed| observed.database.as_mut().unwrap().nodes.retain(|_, node| node.instance != "db-b-2");
    let machine = story.machine("db-b-2");
    let on = story.world.boxes.get_mut(&machine).unwrap();
    (on.object, on.power) = (false, false);
    let done = story.until("it is elsewhere", |world, _| {
        world.pods.get("db-b-2").is_some_and(|pod| pod.machine.as_ref().is_some_and(|now| *now != machine))
    });
    assert_eq!((deleted(&done), newcomers(&done)), (vec![], vec![]));
    story.seen = |_| {};
    let done = story.until_well();
    assert_eq!(newcomers(&done), []);
    assert!(story.world.claims.contains_key("db-b-2"));
}

#[test]
fn who_leaves_is_freed_to_be_emptied_and_not_given_up() {
    let mut story = settled_with(spec(2), 4, true);
    story.world.spec.groups[1].nodes = 1;
    story.until("one leaves", |world, _| world.claims.values().any(|claim| claim.leaving.is_some()));
    let leaves = story.world.claims.iter().find(|(_, claim)| claim.leaving.is_some()).unwrap().0.clone();
    story.power(&leaves, false);
    let done = story.until_well();
    assert_eq!(freed(&done).first(), Some(&(leaves.as_str(), true)));
    let lost = |action: &Action| matches!(action, Action::Ask(Request::Remove { lost: true, .. }));
    assert!(!done.iter().any(lost), "{done:?}");
}
