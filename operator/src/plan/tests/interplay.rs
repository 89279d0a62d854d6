//! Several things at once: what waits for what.

use super::super::*;
use super::spec;
use super::story::{Seen, Story, commits, defers, is_quiet, newcomers, node};
use crate::api::{DeletePolicy, Grace, Span};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A newcomer that has not joined, as far as is seen.
fn without_heir(observed: &mut Observed) {
    observed.database.as_mut().unwrap().nodes.retain(|_, node| node.instance != "db-b-2");
}

/// A story up to a newcomer that runs and has not joined, for one whose machine is silent.
fn before_the_commit() -> Story {
    let mut story = Story::settled(spec(1), 3);
    story.power("db-b-1", false);
    story.seen = without_heir;
    story.until("the newcomer runs", |world, _| {
        world.claims.get("db-b-2").is_some_and(|claim| claim.host.is_some())
    });
    story.seen = |_| {};
    story
}

#[test]
fn new_evidence_has_its_own_grace_before_the_commit_too() {
    let mut story = before_the_commit();
    story.destroy("db-b-1");
    assert_eq!(commits(&story.steps(3)), [true; 0]);
    assert_eq!(commits(&story.steps(1)), [true]);
}

#[test]
fn a_newcomer_that_is_not_heard_takes_no_place() {
    let mut story = before_the_commit();
    story.seen = |observed| {
        if let Some(node) = node(observed, "db-b-2") {
            node.health = Health::Suspect;
        }
    };
    assert_eq!(commits(&story.steps(10)), [true; 0]);
    assert!(defers(&story.step(), "db-b-1", Reason::Starting));
    story.seen = |_| {};
    assert_eq!(commits(&story.until_well()), [true]);
}

#[test]
fn one_that_answers_is_replaced_on_request_though_the_others_do_not_hold_enough() {
    let mut story = Story::settled(spec(1), 2);
    story.seen = |observed| node(observed, "db-c-1").unwrap().health = Health::Suspect;
    story.claim("db-b-1").replace = true;
    let done = story.until("the commit", |_, done| !commits(done).is_empty());
    assert_eq!(commits(&done), [false]);
}

#[test]
fn a_pod_that_hangs_on_a_silent_machine_is_not_waited_for() {
    let mut story = Story::settled(spec(1), 2);
    story.power("db-b-1", false);
    story.world.pods.get_mut("db-b-1").unwrap().deleting = true;
    story.until("the pod goes", |world, _| !world.pods.contains_key("db-b-1"));
}

#[test]
fn the_copies_of_a_zone_are_not_made_elsewhere_while_another_is_away_or_too_few_are_left() {
    fn away(observed: &mut Observed, zones: &[&str]) {
        for machine in observed.machines.as_mut().unwrap().values_mut() {
            machine.ready &= !zones.contains(&machine.labels["zone"].as_str());
        }
        let node = node(observed, "db-b-1").unwrap();
        (node.health, node.heard_by) = (Health::Down, Some((0, 2)));
    }
    let table: [(Reason, Seen); 2] = [
        (Reason::ZoneAway, |observed| away(observed, &["b", "c"])),
        (Reason::QuorumLost, |observed| {
            away(observed, &["b"]);
            node(observed, "db-c-1").unwrap().health = Health::Suspect;
        }),
    ];
    for (reason, seen) in table {
        let mut spec = spec(1);
        spec.failure_policy.zone_loss_grace = Grace::After(Span::seconds(200));
        let mut story = Story::settled(spec, 2);
        story.seen = seen;
        let done = story.steps(30);
        assert!(is_quiet(&done), "{reason:?}: {done:?}");
        let plan = story.step();
        assert!(defers(&plan, "", reason), "{reason:?}: {:?}", plan.deferrals);
    }
}

#[test]
fn no_pod_is_changed_while_one_of_another_group_is_not_ready() {
    let mut spec = spec(1);
    spec.rollout.max_unavailable_in_group = 2;
    let mut story = Story::settled(spec, 2);
    story.seen = |observed| observed.pods.get_mut("db-c-1").unwrap().ready = None;
    story.world.version += 1;
    assert!(is_quiet(&story.steps(20)));
    assert!(defers(&story.step(), "", Reason::Busy));
    story.seen = |_| {};
    story.until_well();
}

#[test]
fn one_instance_leaves_at_a_time_and_none_while_another_is_replaced_or_away() {
    let mut story = Story::settled(spec(2), 3);
    story.claim("db-c-1").replace = true;
    story.step();
    story.world.spec.groups.iter_mut().for_each(|group| group.nodes = 1);
    let mut most = 0;
    while story.world.is_well().is_err() {
        story.step();
        let member = |name: &str| story.world.db.nodes.values().any(|member| member.instance == name);
        let leaving = |(name, claim): &(&String, &Claim)| claim.leaving.is_some() && member(name);
        let leave = story.world.claims.iter().filter(leaving).count();
        let replaced = story.world.claims.values().filter(|claim| claim.replaces.is_some()).count();
        assert!(leave == 0 || replaced == 0);
        most = most.max(leave);
    }
    assert_eq!(most, 1);

    let mut story = Story::settled(spec(2), 3);
    story.seen = |observed| node(observed, "db-c-1").unwrap().health = Health::Suspect;
    story.world.spec.groups[0].nodes = 1;
    assert!(!story.steps(20).iter().any(|action| matches!(action, Action::Ask(_))));
    assert!(story.step().deferrals.iter().any(|deferral| deferral.reason == Reason::Busy));
}

#[test]
fn no_volume_grows_by_replacement_while_an_instance_may_be_lost() {
    let mut story = Story::settled(spec(1), 3);
    story.power("db-b-1", false);
    story.world.spec.storage.size = Quantity("200Gi".into());
    assert_eq!(newcomers(&story.steps(5)), []);
    assert!(defers(&story.step(), "db-a-1", Reason::Busy));
}

#[test]
fn names_are_new_if_only_the_placement_knows_the_old_ones_and_if_several_are_made_at_once() {
    let mut story = Story::settled(spec(2), 4);
    story.world.spec.storage.delete_policy = DeletePolicy::Delete;
    story.world.spec.groups[0].nodes = 1;
    story.until_well();
    story.world.status = Default::default();
    story.world.spec.groups[0].nodes = 3;
    let done = story.step().actions;
    let made: Vec<&str> = done
        .iter()
        .filter_map(|action| match action {
            Action::CreateClaim { instance, .. } => Some(instance.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(made, ["db-a-3", "db-a-4"]);
}

#[test]
fn a_pod_is_not_ready_before_there_is_a_group_for_every_copy_and_while_it_lacks_one() {
    fn lacks(observed: &mut Observed) {
        let here = observed.claims["db-b-1"].node_id.clone().unwrap();
        let copies = observed.database.as_mut().unwrap().shards.iter_mut().flatten();
        copies.filter(|copy| copy.node == here).for_each(|copy| copy.state = CopyState::Initializing);
    }
    fn alone(observed: &mut Observed) {
        node(observed, "db-c-1").unwrap().state = NodeState::Standby;
        observed.pods.values_mut().for_each(|pod| pod.gate = None);
    }
    let table: [(Seen, usize); 3] = [(|_| {}, 0), (lacks, 1), (alone, 3)];
    for (seen, closed) in table {
        let mut story = Story::settled(spec(1), 2);
        story.seen = seen;
        let done = story.step().actions;
        assert!(!done.iter().any(|action| matches!(action, Action::SetGate { open: true, .. })));
        let closes = |action: &&Action| matches!(action, Action::SetGate { open: false, .. });
        assert_eq!(done.iter().filter(closes).count(), closed);
    }
}
