//! Histories that are worth a name, other than losses and creation: changes of the specification, the end.

use super::super::*;
use super::spec;
use super::story::{Seen, Story, defers, deleted, is_quiet, newcomers, node};
use crate::api::{DeletePolicy, Storage};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn changed(done: &[Action]) -> Vec<&str> {
    done.iter()
        .filter_map(|action| match action {
            Action::DeletePod { instance, .. } => Some(instance.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn pods_are_changed_group_by_group_each_when_the_last_has_been_ready_for_long_enough() {
    let mut spec = spec(2);
    spec.rollout.min_ready_seconds = 100;
    let mut story = Story::settled(spec, 2);
    story.world.version += 1;
    let mut order: Vec<String> = Vec::new();
    while story.world.is_well().is_err() {
        let ready = |story: &Story, name: &String| story.world.pods[name].ready;
        let done = story.step().actions;
        for name in changed(&done) {
            if let Some(last) = order.last() {
                let since = ready(&story, last).expect("the last one is ready first");
                assert!(story.world.now - since >= 100_000, "{name} does not wait for {last}");
            }
            order.push(name.into());
        }
        assert!(order.len() <= 6);
    }
    assert_eq!(order, ["db-a-1", "db-a-2", "db-b-1", "db-b-2", "db-c-1", "db-c-2"]);
}

#[test]
fn a_canary_that_breaks_stops_the_rollout_and_a_better_specification_goes_on() {
    let mut story = Story::settled(spec(2), 2);
    (story.world.version, story.world.broken_version) = (2, true);
    let done = story.steps(60);
    assert_eq!(changed(&done), ["db-a-1"]);
    assert!(defers(&story.step(), "", Reason::RolloutStuck));
    (story.world.version, story.world.broken_version) = (3, false);
    story.seen = |observed| {
        observed.pods.get_mut("db-a-1").unwrap().containers_ready = false;
        node(observed, "db-a-1").unwrap().health = Health::Down;
    };
    assert_eq!(changed(&story.step().actions), ["db-a-1"], "what is broken is changed first");
    story.seen = |_| {};
    story.until_well();
}

#[test]
fn a_rollout_that_is_paused_changes_nothing_and_a_loss_is_repaired_all_the_same() {
    let mut story = Story::settled(spec(1), 2);
    story.world.spec.rollout.paused = true;
    story.world.version += 1;
    assert!(is_quiet(&story.steps(20)));
    assert!(defers(&story.step(), "", Reason::Paused));
    story.destroy("db-b-1");
    let done = story.until("a newcomer", |_, done| !newcomers(done).is_empty());
    assert_eq!(changed(&done), [""; 0]);
}

#[test]
fn a_rollout_waits_until_shards_are_not_on_the_move_and_keep_a_majority() {
    let moves: Seen = |observed| {
        observed.database.as_mut().unwrap().shards.iter_mut().for_each(|copies| {
            copies.last_mut().unwrap().state = CopyState::Leaving;
        });
    };
    let alone: Seen = |observed| {
        observed.database.as_mut().unwrap().shards.iter_mut().for_each(|copies| copies.truncate(2));
    };
    for (seen, reason) in [(moves, Reason::Busy), (alone, Reason::QuorumLost)] {
        let mut story = Story::settled(spec(1), 2);
        story.seen = seen;
        story.world.version += 1;
        let done = story.steps(20);
        assert_eq!(changed(&done), [""; 0], "{reason:?}");
        let plan = story.step();
        assert!(defers(&plan, "", reason), "{reason:?}: {:?}", plan.deferrals);
    }
}

#[test]
fn a_specification_that_cannot_work_is_not_done_to_a_cluster_that_works() {
    let mut story = Story::settled(spec(1), 3);
    story.world.spec.storage.size = Quantity("1Gi".into());
    story.world.spec.groups[0].nodes = 2;
    story.world.version += 1;
    assert!(is_quiet(&story.steps(20)));
    let conditions = story.step().status.conditions;
    let valid = conditions.iter().find(|condition| condition.type_ == "SpecValid").unwrap();
    assert_eq!((valid.status.as_str(), valid.reason.as_str()), ("False", "SpecInvalid"));
    story.destroy("db-b-1");
    story.until("a loss is repaired all the same", |_, done| !newcomers(done).is_empty());
}

#[test]
fn pods_that_no_machine_would_take_are_not_made_and_none_is_taken_down_for_them() {
    let seen: Seen = |observed| {
        for machine in observed.machines.as_mut().unwrap().values_mut() {
            machine.allocatable = [("memory", "8Gi"), ("cpu", "4")]
                .map(|(resource, has)| (resource.to_owned(), Quantity(has.into())))
                .into();
        }
    };
    let asks = |memory: &str, limit: &str| ResourceRequirements {
        requests: Some([("memory".to_owned(), Quantity(memory.into()))].into()),
        limits: Some([("cpu".to_owned(), Quantity(limit.into()))].into()),
        ..ResourceRequirements::default()
    };
    let labels = |label: &str| [("zone".to_owned(), label.to_owned())].into();
    let changes: [(Option<ResourceRequirements>, Option<&str>, &str); 6] = [
        (Some(asks("8Gi", "4000m")), None, ""),
        (
            Some(asks("17Gi", "4")),
            None,
            "which has 8Gi of memory, and each node asks for 17Gi: ask for less in resources, or have it replaced on another machine: kubectl annotate pvc data-db-a-1 sarsen.dev/replace=true",
        ),
        (Some(asks("1Gi", "4100m")), None, "has 4 of cpu, and each node asks for 4100m"),
        (
            None,
            Some("nowhere"),
            "has not the label zone=nowhere of podTemplate.nodeSelector: correct that, or label the machine",
        ),
        (None, Some("a"), "which has not the label zone=a of podTemplate.nodeSelector"),
        (None, None, ""),
    ];
    for (resources, selector, said) in changes {
        let mut story = Story::settled(spec(1), 2);
        story.seen = seen;
        story.world.spec.resources = resources;
        story.world.spec.pod_template.node_selector = selector.map(labels).unwrap_or_default();
        // What runs where it is needs no room.
        assert_eq!(story.step().status.phase, "Ready");
        story.world.version += 1;
        let done = story.steps(20);
        let status = story.step().status;
        assert_eq!(changed(&done).is_empty(), !said.is_empty(), "{said}: {done:?}");
        let valid = status.conditions.iter().find(|condition| condition.type_ == "SpecValid").unwrap();
        assert_eq!(valid.status == "True", said.is_empty(), "{}", valid.message);
        assert!(valid.message.contains(said), "{}", valid.message);
    }
    // A new one may go to any machine of its zone.
    for (memory, said) in [
        ("8Gi", ""),
        ("9Gi", "group a: no machine with zone=a would take a pod; the first has 8Gi of memory"),
    ] {
        let mut story = Story::settled(spec(1), 2);
        story.seen = seen;
        story.world.spec.resources = Some(asks(memory, "1"));
        story.world.spec.groups[0].nodes = 2;
        let message = story.step().status.conditions[0].message.clone();
        assert!(message.contains(said) && said.is_empty() == message.contains("can work"), "{message}");
    }
}

#[test]
fn volumes_grow_in_place_where_they_can_and_else_one_after_the_other_by_replacement() {
    for expands in [true, false] {
        let mut story = Story::settled(spec(1), 3);
        story.world.expands = expands;
        story.world.spec.storage.size = Quantity("200Gi".into());
        let (mut made, mut at_once) = (Vec::new(), 0);
        while story.world.is_well().is_err() {
            let done = story.step().actions;
            made.extend(newcomers(&done).into_iter().map(|(_, old, why)| format!("{old} {why}")));
            let coming = story.world.claims.values().filter(|claim| claim.replaces.is_some()).count();
            at_once = at_once.max(coming);
            assert!(!expands || is_quiet(&done), "{done:?}");
        }
        let one_by_one = ["db-a-1 StorageGrowth", "db-b-1 StorageGrowth", "db-c-1 StorageGrowth"];
        assert_eq!(made, if expands { &[][..] } else { &one_by_one[..] });
        assert_eq!(at_once, usize::from(!expands));
    }
}

#[test]
fn who_does_not_answer_leaves_first_and_else_the_youngest() {
    for (away, leaves) in [(Some("db-a-1"), "db-a-1"), (Some("db-a-2"), "db-a-2"), (None, "db-a-2")] {
        let mut story = Story::settled(spec(2), 3);
        // Each holds as much as the other.
        story.seen = |observed| observed.database.as_mut().unwrap().shards.clear();
        let machine = story.machine(away.unwrap_or("db-a-1"));
        story.world.boxes.get_mut(&machine).unwrap().network = away.is_none();
        story.world.spec.groups[0].nodes = 1;
        let done = story.step().actions;
        let left: Vec<&str> = done
            .iter()
            .filter_map(|action| match action {
                Action::Note { instance, note: Note::Leave(Leaving::ScaleIn), .. } => Some(instance.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(left, [leaves], "{away:?}");
        story.world.boxes.get_mut(&machine).unwrap().network = true;
        story.seen = |_| {};
        story.until_well();
    }
}

#[test]
fn who_leaves_is_emptied_first_and_its_claim_stays_unless_it_is_to_go() {
    for policy in [DeletePolicy::Retain, DeletePolicy::Delete] {
        let mut story = Story::settled(spec(2), 3);
        story.world.spec.storage.delete_policy = policy;
        story.world.spec.groups[0].nodes = 1;
        let done = story.until_well();
        let gone = |action: &Action| matches!(action, Action::Ask(Request::Remove { lost: false, .. }));
        assert!(done.iter().any(gone));
        assert_eq!(deleted(&done).len(), usize::from(policy == DeletePolicy::Delete), "{policy:?}");
    }
}

#[test]
fn a_name_is_never_used_again_even_if_only_the_status_knows_of_it() {
    let mut story = Story::settled(spec(2), 3);
    story.world.spec.storage.delete_policy = DeletePolicy::Delete;
    story.world.spec.groups[0].nodes = 1;
    story.until_well();
    story.world.db.gone.clear();
    story.world.spec.groups[0].nodes = 2;
    story.until_well();
    assert!(story.world.claims.contains_key("db-a-3"), "{:?}", story.world.claims.keys());
}

#[test]
fn with_the_cluster_object_claims_stay_unless_they_are_to_go() {
    let own = |policy| Storage { delete_policy: policy, ..spec(1).storage };
    let (retain, delete) = (DeletePolicy::Retain, DeletePolicy::Delete);
    for (all, of_a, stay) in
        [(retain, None, 3), (delete, None, 0), (delete, Some(retain), 1), (retain, Some(delete), 2)]
    {
        let mut story = Story::settled(spec(1), 2);
        story.world.spec.storage.delete_policy = all;
        story.world.spec.groups[0].storage = of_a.map(own);
        for _ in 0..20 {
            let mut observed = story.observe();
            observed.deleting = true;
            for action in plan(&observed).actions {
                match action {
                    Action::DeletePod { instance, .. } => drop(story.world.pods.remove(&instance)),
                    Action::DeleteClaim { instance, .. } => {
                        assert!(!story.world.pods.contains_key(&instance), "{instance} still runs");
                        story.world.claims.remove(&instance);
                    }
                    Action::RemoveFinalizer => story.world.finalizer = false,
                    other => panic!("{other} is no part of the end"),
                }
            }
            if !story.world.finalizer {
                break;
            }
        }
        assert!(!story.world.finalizer, "the object never goes");
        assert_eq!(story.world.claims.len(), stay, "{all:?} {of_a:?}");
    }
}
