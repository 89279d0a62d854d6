//! Losses: what is one, what is none, what a replacement waits for, and what may go wrong with it.

use super::super::*;
use super::spec;
use super::story::{Change, Seen, Story, commits, defers, deleted, is_quiet, newcomers, node};
use super::world::TICK;
use crate::api::{FailureMode, Grace, Span};

/// Who is lost.
pub const VICTIM: &str = "db-b-1";
/// Who takes its place.
const HEIR: &str = "db-b-2";

fn settled() -> Story {
    let mut spec = spec(1);
    spec.failure_policy.pending_volume_grace = Span::seconds(100);
    Story::settled(spec, 3)
}

fn pod(observed: &mut Observed) -> &mut Pod {
    observed.pods.get_mut(VICTIM).unwrap()
}

fn machine(observed: &mut Observed) -> &mut Machine {
    let name = observed.claims[VICTIM].host.clone().unwrap().name;
    observed.machines.as_mut().unwrap().get_mut(&name).unwrap()
}

/// The database does not hear it, as so many of so many of the others say.
fn unheard(observed: &mut Observed, by: Option<(u32, u32)>) {
    let node = node(observed, VICTIM).unwrap();
    (node.health, node.heard_by) = (Health::Down, by);
}

fn fails(observed: &mut Observed, kind: TroubleKind) {
    pod(observed).containers_ready = false;
    pod(observed).trouble = Some(Trouble { kind, message: "it says so".into() });
}

fn cannot_be_placed(observed: &mut Observed) {
    let pod = pod(observed);
    (pod.machine, pod.containers_ready) = (None, false);
    pod.unschedulable = Some("0/9 nodes are available".into());
}

fn silent(observed: &mut Observed, by: Option<(u32, u32)>) {
    machine(observed).ready = false;
    unheard(observed, by);
}

#[test]
fn every_kind_of_evidence_leads_to_a_replacement_after_its_grace_and_not_before() {
    let table: [(&str, u64, Change); 15] = [
        ("Requested", 0, |story| story.claim(VICTIM).replace = true),
        ("OutOfService", 0, |story| {
            let machine = story.machine(VICTIM);
            story.world.boxes.get_mut(&machine).unwrap().out_of_service = true;
        }),
        ("VolumeLost", 0, |story| drop(story.world.claims.remove(VICTIM))),
        ("VolumeLost", 60, |story| story.claim(VICTIM).deleting = true),
        ("VolumeLost", 60, |story| story.claim(VICTIM).phase = ClaimPhase::Lost),
        ("VolumeLost", 60, |story| {
            story.seen = |observed| drop(observed.volumes.as_mut().unwrap().remove("pv-db-b-1"))
        }),
        ("VolumeLost", 60, |story| {
            story.seen =
                |observed| observed.volumes.as_mut().unwrap().get_mut("pv-db-b-1").unwrap().failed = true
        }),
        ("VolumeLost", 60, |story| story.seen = |observed| fails(observed, TroubleKind::Wiped)),
        ("VolumeLost", 60, |story| story.seen = |observed| fails(observed, TroubleKind::Foreign)),
        ("VolumeLost", 60, |story| story.seen = |observed| fails(observed, TroubleKind::DiskFailed)),
        ("NodeGone", 60, |story| story.destroy(VICTIM)),
        ("NodeGone", 60, |story| {
            // Set up anew by the same name, and the same disk by chance: the kubelet says that all is well.
            story.seen = |observed| machine(observed).machine = "another".into()
        }),
        ("VolumeUnreachable", 100, |story| {
            story.seen = |observed| {
                cannot_be_placed(observed);
                observed.claims.get_mut(VICTIM).unwrap().host = None;
                let volume = observed.volumes.as_mut().unwrap().get_mut("pv-db-b-1").unwrap();
                volume.pinned = Some(("kubernetes.io/hostname".into(), ["elsewhere".to_owned()].into()));
            }
        }),
        ("NodeNotReady", 120, |story| story.seen = |observed| silent(observed, Some((0, 2)))),
        ("NodeNotReady", 120, |story| story.seen = |observed| silent(observed, Some((1, 3)))),
    ];
    for (row, (word, grace, change)) in table.into_iter().enumerate() {
        let mut story = settled();
        change(&mut story);
        let mut since = None;
        let began = loop {
            let plan = story.step();
            let evidence = plan.status.replacements.iter().any(|step| step.old == VICTIM);
            since = since.or(evidence.then_some(story.world.now));
            match newcomers(&plan.actions).first() {
                Some(made) => {
                    assert_eq!(*made, (HEIR, VICTIM, word), "row {row}");
                    break story.world.now;
                }
                None => assert!(is_quiet(&plan.actions), "row {row}: {:?}", plan.actions),
            }
            let lasted = since.map_or(0, |since| story.world.now - since);
            assert!(lasted <= 10 * TICK, "row {row}: {word} leads to nothing: {:?}", plan.deferrals);
        };
        assert_eq!(began - since.unwrap_or(began), grace as i64 * 1000, "row {row}: {word}");
    }
}

#[test]
fn evidence_that_changes_its_kind_begins_anew_and_what_was_back_does_too() {
    let mut story = settled();
    story.power(VICTIM, false);
    story.steps(6);
    story.power(VICTIM, true);
    let done = story.until_well();
    story.power(VICTIM, false);
    assert!(is_quiet(&done) && is_quiet(&story.steps(6)));
    // The silent machine turns out to be gone: the grace of that is counted from now.
    story.destroy(VICTIM);
    assert!(is_quiet(&story.steps(3)));
    assert_eq!(newcomers(&story.steps(1)), [(HEIR, VICTIM, "NodeGone")]);
}

#[test]
fn what_is_no_loss_never_leads_to_a_replacement() {
    let table: [(&str, Seen); 11] = [
        ("a cordoned machine", |observed| machine(observed).cordoned = true),
        ("no room on a machine that exists", |observed| {
            cannot_be_placed(observed);
            unheard(observed, Some((0, 2)));
        }),
        ("a container that ends again and again", |observed| {
            fails(observed, TroubleKind::Crash);
            unheard(observed, Some((0, 2)));
        }),
        ("an image that is not there", |observed| {
            fails(observed, TroubleKind::Image);
            unheard(observed, Some((0, 2)));
        }),
        ("a silent kubelet and a heard process", |observed| machine(observed).ready = false),
        ("a silent kubelet and a process not heard for a moment", |observed| {
            machine(observed).ready = false;
            node(observed, VICTIM).unwrap().health = Health::Suspect;
        }),
        ("a silent machine that half of the others hear", |observed| silent(observed, Some((1, 2)))),
        ("a silent machine of which nobody is asked", |observed| silent(observed, None)),
        ("a silent machine with no others to ask", |observed| silent(observed, Some((0, 0)))),
        ("a process that is not heard on a machine that is well", |observed| unheard(observed, Some((0, 2)))),
        ("the same machine under a new Node object", |observed| machine(observed).uid = "another".into()),
    ];
    comes_to_nothing(settled, &table);
}

/// None of that is evidence of a loss, however long it lasts.
pub fn comes_to_nothing(settled: fn() -> Story, table: &[(&str, Seen)]) {
    for (what, seen) in table {
        let mut story = settled();
        story.seen = *seen;
        let done = story.steps(60);
        assert!(is_quiet(&done), "{what}: {done:?}");
        assert_eq!(story.claim(VICTIM).suspect, None, "{what}");
    }
}

#[test]
fn without_the_id_of_a_machine_the_uid_of_its_node_object_tells_whether_it_is_another() {
    let mut story = settled();
    story.seen = |observed| {
        observed.machines.as_mut().unwrap().values_mut().for_each(|machine| machine.machine.clear());
        machine(observed).uid = "another".into();
    };
    assert_eq!(newcomers(&story.steps(10)), [(HEIR, VICTIM, "NodeGone")]);
}

/// What holds a replacement up, and whether a person's annotation does away with that.
pub const GATES: [(Reason, bool, Change); 9] = [
    (Reason::Manual, true, |story| story.world.spec.failure_policy.mode = FailureMode::Manual),
    (Reason::Off, false, |story| story.world.spec.failure_policy.mode = FailureMode::Off),
    (Reason::DatabaseSilent, false, |story| story.seen = |observed| observed.database = None),
    (Reason::DatabaseSilent, false, |story| {
        story.seen = |observed| observed.database.as_mut().unwrap().has_leader = false
    }),
    (Reason::Lease, false, |story| {
        story.seen = |observed| observed.database.as_mut().unwrap().lease_is_ours = false
    }),
    (Reason::ZoneAway, false, |story| {
        let silent = story.world.boxes.values_mut().filter(|on| on.zone == "b");
        silent.for_each(|on| on.kubelet = false);
    }),
    (Reason::TooManyAway, true, |story| {
        story.seen = |observed| {
            // Another machine is silent, on which there are no copies.
            let name = observed.claims["db-c-1"].host.clone().unwrap().name;
            observed.machines.as_mut().unwrap().get_mut(&name).unwrap().ready = false;
            node(observed, "db-c-1").unwrap().health = Health::Suspect;
            let [here, there] =
                ["db-a-1", "db-c-1"].map(|name| observed.claims[name].node_id.clone().unwrap());
            for copy in observed.database.as_mut().unwrap().shards.iter_mut().flatten() {
                if copy.node == there {
                    copy.node = here.clone();
                }
            }
        }
    }),
    (Reason::QuorumLost, false, |story| {
        story.seen = |observed| node(observed, "db-c-1").unwrap().health = Health::Down
    }),
    (Reason::QuorumLost, false, |story| {
        story.seen = |observed| {
            let there = observed.claims["db-c-1"].node_id.clone().unwrap();
            let copies = observed.database.as_mut().unwrap().shards.iter_mut().flatten();
            copies.filter(|copy| copy.node == there).for_each(|copy| copy.state = CopyState::Initializing);
        }
    }),
];

#[test]
fn each_gate_defers_a_replacement_with_its_reason_and_nothing_else_happens() {
    for (reason, _, setup) in GATES {
        let mut story = settled();
        story.destroy(VICTIM);
        setup(&mut story);
        let done = story.steps(40);
        assert!(is_quiet(&done), "{reason:?}: {done:?}");
        let plan = story.step();
        assert!(defers(&plan, VICTIM, reason), "{reason:?}: {:?}", plan.deferrals);
    }
}

#[test]
fn each_gate_is_asked_again_before_the_placement_is_changed() {
    for (reason, _, setup) in GATES {
        let mut story = settled();
        story.destroy(VICTIM);
        story.seen = without_heir;
        story.until("the newcomer runs", |world, _| {
            world.claims.get(HEIR).is_some_and(|claim| claim.host.is_some())
        });
        story.seen = |_| {};
        setup(&mut story);
        let done = story.steps(40);
        assert!(commits(&done).is_empty(), "{reason:?}: {done:?}");
        let plan = story.step();
        // Where nobody answers, nobody says that it has joined.
        let reason = if story.observe().database.is_none() { Reason::Starting } else { reason };
        assert!(defers(&plan, VICTIM, reason), "{reason:?}: {:?}", plan.deferrals);
    }
}

/// The newcomer has not joined.
fn without_heir(observed: &mut Observed) {
    if let Some(database) = &mut observed.database {
        database.nodes.retain(|_, node| node.instance != HEIR);
    }
}

#[test]
fn a_persons_annotation_overrides_what_is_only_caution() {
    for (reason, overrides, setup) in GATES {
        let mut story = settled();
        story.destroy(VICTIM);
        setup(&mut story);
        story.steps(10);
        story.claim(VICTIM).replace = true;
        let done = story.steps(2);
        assert_eq!(newcomers(&done).len(), usize::from(overrides), "{reason:?}: {done:?}");
    }
}

#[test]
fn whoever_a_person_calls_lost_is_not_counted_among_those_that_are_away() {
    let mut story = Story::settled(spec(2), 4);
    story.destroy("db-b-1");
    story.destroy("db-b-2");
    story.steps(20);
    assert!(defers(&story.step(), "db-b-2", Reason::TooManyAway));
    story.claim("db-b-1").replace = true;
    let plan = story.step();
    assert!(!defers(&plan, "db-b-2", Reason::TooManyAway), "{:?}", plan.deferrals);
    story.until_well();
}

#[test]
fn an_operator_that_is_paused_does_nothing() {
    let pauses: [Change; 2] = [|story| story.world.paused = true, |story| story.world.spec.paused = true];
    for pause in pauses {
        let mut story = settled();
        pause(&mut story);
        story.destroy(VICTIM);
        assert_eq!(story.steps(40), []);
        assert!(defers(&story.step(), "", Reason::Paused));
        story.world.paused = false;
        story.world.spec.paused = false;
        story.until_well();
    }
}

#[test]
fn another_group_waits_until_a_replacement_has_everything() {
    let mut story = settled();
    story.world.spec.failure_policy.max_concurrent_replacements = 2;
    story.destroy(VICTIM);
    story.until("the commit", |_, done| !commits(done).is_empty());
    // It copies for ever, and its pod is said to be ready by what was read a moment ago.
    story.seen = |observed| {
        if let Some(pod) = observed.pods.get_mut(HEIR) {
            pod.ready = Some(0);
        }
        for copy in observed.database.as_mut().unwrap().shards.iter_mut().flatten() {
            if is_of(&observed.claims, HEIR, &copy.node) {
                copy.state = CopyState::Initializing;
            }
        }
    };
    story.claim("db-a-1").replace = true;
    let done = story.steps(40);
    assert_eq!(newcomers(&done), []);
    assert_eq!(deleted(&done), [""; 0], "the old claim goes while its successor lacks copies");
    let plan = story.step();
    assert!(defers(&plan, "db-a-1", Reason::Busy), "{:?}", plan.deferrals);
    story.seen = |_| {};
    let done = story.until_well();
    assert_eq!(newcomers(&done), [("db-a-2", "db-a-1", "Requested")]);
    assert!(deleted(&done).contains(&VICTIM), "{done:?}");
}

fn is_of(claims: &std::collections::BTreeMap<String, Claim>, instance: &str, node: &str) -> bool {
    claims.get(instance).is_some_and(|claim| claim.node_id.as_deref() == Some(node))
}

#[test]
fn no_more_of_a_group_are_replaced_at_a_time_than_the_policy_says() {
    for max in [1, 2] {
        let mut spec = spec(2);
        spec.failure_policy.max_affected_nodes_percent = 100;
        spec.failure_policy.max_concurrent_replacements = max;
        let mut story = Story::settled(spec, 5);
        story.destroy("db-b-1");
        story.destroy("db-b-2");
        let mut most = 0;
        while story.world.is_well().is_err() {
            story.step();
            // One that has everything leaves its place to the next, though it is not called settled yet.
            let copying = |claim: &&Claim| {
                let mut copies = story.world.db.shards.iter().flatten();
                let is_own = |copy: &Copy| claim.node_id.as_ref() == Some(&copy.node);
                claim.replaces.is_some()
                    && copies.any(|copy| is_own(copy) && copy.state == CopyState::Initializing)
            };
            most = most.max(story.world.claims.values().filter(copying).count());
        }
        assert_eq!(most, max as usize);
    }
}

#[test]
fn a_newcomer_without_a_machine_or_a_node_is_waited_for() {
    let mut story = Story::settled(spec(1), 1);
    story.world.new_box("b");
    story.destroy(VICTIM);
    story.until("a newcomer", |_, done| !newcomers(done).is_empty());
    story.world.boxes.values_mut().filter(|on| on.zone == "b").for_each(|on| on.out_of_service = true);
    story.world.new_box("b");
    story.world.boxes.values_mut().filter(|on| on.zone == "b").for_each(|on| on.out_of_service = false);
    story.seen = without_heir;
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    assert!(defers(&story.step(), VICTIM, Reason::Starting));
    story.seen = |observed| {
        without_heir(observed);
        observed.pods.get_mut(HEIR).unwrap().unschedulable = Some("0/3 nodes are available".into());
    };
    assert!(defers(&story.step(), VICTIM, Reason::NoCapacity));
    story.seen = |_| {};
    story.until_well();
}

#[test]
fn an_old_one_that_is_back_before_the_commit_makes_the_newcomer_go() {
    let mut story = settled();
    story.power(VICTIM, false);
    story.until("a newcomer", |_, done| !newcomers(done).is_empty());
    story.power(VICTIM, true);
    let done = story.until_well();
    assert_eq!((commits(&done).len(), deleted(&done)), (0, vec![HEIR]));
    assert!(story.world.claims.contains_key(VICTIM) && !story.world.claims.contains_key(HEIR));
}

#[test]
fn a_newcomer_that_is_lost_before_the_commit_is_abandoned_and_another_one_comes() {
    let mut story = settled();
    story.destroy(VICTIM);
    story.seen = without_heir;
    story.until("the newcomer runs", |world, _| {
        world.claims.get(HEIR).is_some_and(|claim| claim.host.is_some())
    });
    story.destroy(HEIR);
    story.seen = |_| {};
    let done = story.until_well();
    assert_eq!(newcomers(&done), [("db-b-3", VICTIM, "NodeGone")]);
    assert!(deleted(&done).contains(&HEIR), "{done:?}");
}

#[test]
fn a_newcomer_that_is_lost_after_the_commit_is_replaced_like_any_other() {
    let mut story = settled();
    story.destroy(VICTIM);
    story.until("the commit", |_, done| !commits(done).is_empty());
    story.destroy(HEIR);
    let done = story.until_well();
    assert_eq!(newcomers(&done), [("db-b-3", HEIR, "NodeGone")]);
}

#[test]
fn an_old_one_that_dies_while_it_is_emptied_is_let_go_as_lost() {
    let mut story = settled();
    story.claim(VICTIM).replace = true;
    let done = story.until("the commit", |_, done| !commits(done).is_empty());
    assert_eq!(commits(&done), [false], "one that answers is emptied");
    story.destroy(VICTIM);
    assert_eq!(commits(&story.until_well()), [true]);
}

#[test]
fn the_copies_of_a_zone_that_is_away_are_made_elsewhere_only_if_the_policy_says_so() {
    for grace in [Grace::Never, Grace::After(Span::seconds(200))] {
        let mut story = settled();
        story.world.spec.failure_policy.zone_loss_grace = grace;
        let dark = |story: &mut Story, power| {
            story.world.boxes.values_mut().filter(|on| on.zone == "b").for_each(|on| on.power = power);
        };
        dark(&mut story, false);
        let heals =
            |done: &[Action]| done.iter().any(|action| matches!(action, Action::Ask(Request::Heal { .. })));
        let done = story.steps(6);
        assert!(is_quiet(&done) && defers(&story.step(), "", Reason::ZoneAway), "{done:?}");
        let done = story.steps(30);
        assert_eq!(heals(&done), grace != Grace::Never, "{grace:?}");
        assert!(newcomers(&done).is_empty());
        dark(&mut story, true);
        assert_eq!(deleted(&story.until_well()), [""; 0]);
    }
}

#[test]
fn the_claim_is_kept_for_a_while_if_its_machine_is_there_and_goes_at_once_if_not() {
    for there in [true, false] {
        let mut story = settled();
        match there {
            true => story.claim(VICTIM).replace = true,
            false => story.destroy(VICTIM),
        }
        let (mut settled, mut retired) = (None, None);
        loop {
            let plan = story.step();
            let now = story.world.now;
            let heir = story.world.claims.get(HEIR);
            settled = settled.or((heir.is_some_and(|heir| heir.replaces.is_none())).then_some(now));
            retired = retired.or(story.world.claims.get(VICTIM).and_then(|claim| claim.retired));
            if deleted(&plan.actions) == [VICTIM] {
                let kept = now - retired.expect("it is retired first");
                let waited = now - settled.expect("its successor has everything first");
                assert!(if there { kept == 600_000 } else { waited <= TICK }, "{there}: {kept} {waited}");
                break;
            }
            assert!(settled.is_none_or(|since| now - since <= 700_000), "it is never deleted");
        }
    }
}

#[test]
fn no_claim_goes_that_the_placement_does_not_call_gone() {
    let mut story = settled();
    story.destroy(VICTIM);
    story.seen = |observed| {
        if let Some(database) = &mut observed.database {
            database.gone.clear();
        }
    };
    let done = story.steps(100);
    assert_eq!((commits(&done), deleted(&done)), (vec![true], vec![]));
}

#[test]
fn where_a_pod_was_is_not_written_over_while_it_tells_of_a_loss() {
    let mut story = settled();
    let before = story.claim(VICTIM).host.clone();
    assert!(before.as_ref().is_some_and(|host| !host.machine.is_empty()));
    story.seen = |observed| machine(observed).machine = "another".into();
    story.until("a newcomer", |_, done| !newcomers(done).is_empty());
    assert_eq!(story.claim(VICTIM).host, before);
}
