//! How a database comes to be, and what is lost before it is: nobody has written to it, so it is begun anew.

use super::super::*;
use super::spec;
use super::story::{Change, Seen, Story, defers, is_quiet};
use super::world::World;

/// From when `db-a-1` has created it.
fn created() -> Story {
    created_on(3)
}

fn created_on(machines: usize) -> Story {
    let mut story = Story::begun(World::new(spec(1), machines));
    // The others are not ready yet.
    story.seen = |observed| {
        let others = observed.pods.iter_mut().filter(|(name, _)| *name != "db-a-1");
        others.for_each(|(_, pod)| pod.answer = None);
    };
    story.until("it is created", has_created);
    story.seen = |_| {};
    story
}

fn is_noted(world: &World) -> bool {
    world.claims.values().any(|claim| matches!(claim.contents, Contents::Of(_)))
}

fn has_created(_: &World, done: &[Action]) -> bool {
    done.iter().any(|action| matches!(action, Action::Ask(Request::Create { .. })))
}

/// Whether there is room in the third group.
fn power_of_c(world: &mut World, power: bool) {
    world.boxes.values_mut().filter(|on| on.zone == "c").for_each(|on| on.power = power);
}

/// The operator does not see the database that it has had created.
fn blind(observed: &mut Observed) {
    observed.database = None;
    observed.pods.values_mut().for_each(|pod| pod.answer = None);
}

/// All are in it, and the operator, blind from now on, does not know.
fn join_unseen(story: &mut Story) {
    story.seen = blind;
    story.until("they join", |world, _| world.db.nodes.len() == 3);
}

fn complete(copies: &[Copy]) -> usize {
    copies.iter().filter(|copy| copy.state == CopyState::Available).count()
}

#[test]
fn somebody_may_write_only_when_every_shard_has_all_its_copies_and_claims_say_so() {
    let mut story = created();
    story.until("a gate opens", |world, _| {
        let shards = &world.db.shards;
        let founded = !shards.is_empty() && shards.iter().all(|copies| complete(copies) == 3);
        assert!(!is_noted(world) || founded, "it is noted before it is so");
        let open = world.pods.iter().filter(|(_, pod)| pod.gate == Some(true));
        let mut own = open.map(|(name, _)| &world.claims[name].contents);
        assert!(own.all(|own| *own == Contents::Of(world.db.id.clone())), "it is open before it is noted");
        world.let_in
    });
    story.until_well();
}

#[test]
fn what_is_lost_before_anybody_was_let_write_is_begun_anew() {
    let table: [(&str, Change); 6] = [
        ("the creator, alone", |story| {
            story.destroy("db-a-1");
        }),
        ("the creator, when others have joined and wait for their part", |story| {
            join_unseen(story);
            story.destroy("db-a-1");
            story.steps(5);
        }),
        ("all of them", |story| {
            join_unseen(story);
            for name in ["db-a-1", "db-b-1", "db-c-1"] {
                story.destroy(name);
            }
            story.steps(5);
        }),
        ("the creator, and one that joined is away and comes back later", |story| {
            join_unseen(story);
            story.destroy("db-a-1");
            story.power("db-c-1", false);
            story.seen = |_| {};
            story.steps(5);
            let go = ["db-a-1", "db-b-1", "db-c-1"].map(|name| story.claim(name).leaving);
            assert_eq!(go, [Some(Leaving::Abandoned); 3]);
            story.power("db-c-1", true);
        }),
        ("one of two who decide", |story| {
            power_of_c(&mut story.world, false);
            story.until("it takes its part", |world, _| world.db.voters.len() == 2);
            story.destroy("db-b-1");
            story.steps(5);
            power_of_c(&mut story.world, true);
        }),
        ("who has the only copies", |story| {
            story.until("all decide, and not all have copies", |world, _| {
                world.db.voters.len() == 3 && world.db.shards.iter().any(|copies| complete(copies) == 1)
            });
            story.destroy("db-a-1");
            assert!(story.world.has_leader());
        }),
    ];
    for (what, setup) in table {
        let mut story = created();
        setup(&mut story);
        story.seen = |_| {};
        assert!(!is_noted(&story.world), "{what}");
        let first = story.world.db.id.clone();
        story.until_well();
        assert_ne!(story.world.db.id, first, "{what}");
        assert_eq!(story.world.claims.len(), 3, "{what}: something of the first is left");
    }
}

#[test]
fn what_is_given_up_stays_given_up_though_who_was_lost_is_back() {
    // There is no room for another instance before the old one has gone.
    let mut story = created_on(1);
    power_of_c(&mut story.world, false);
    story.until("it takes its part", |world, _| world.db.voters.len() == 2);
    let machine = story.machine("db-a-1");
    let is_there = |story: &mut Story, is_there: bool| {
        let on = story.world.boxes.get_mut(&machine).unwrap();
        (on.object, on.kubelet, on.power) = (is_there, is_there, is_there);
    };
    is_there(&mut story, false);
    let first = story.world.db.id.clone();
    story.until("the other is given up", |world, _| world.claims["db-b-1"].leaving.is_some());
    is_there(&mut story, true);
    power_of_c(&mut story.world, true);
    story.until_well();
    assert_ne!(story.world.db.id, first);
    assert_eq!(story.world.claims.len(), 3);
}

#[test]
fn what_somebody_has_written_to_though_it_was_not_ready_is_not_begun_anew() {
    let mut story = created();
    join_unseen(&mut story);
    story.destroy("db-a-1");
    story.seen = |observed| {
        if let Some(database) = &mut observed.database {
            database.has_data = true;
        }
    };
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    assert!(defers(&story.step(), "db-a-1", Reason::DatabaseSilent));
}

#[test]
fn a_claim_that_a_person_has_deleted_holds_nothing_up() {
    let mut story = created();
    power_of_c(&mut story.world, false);
    story.until("it takes its part", |world, _| world.db.voters.len() == 2);
    story.destroy("db-a-1");
    story.world.pods.remove("db-a-1");
    story.world.claims.remove("db-a-1");
    story.steps(5);
    power_of_c(&mut story.world, true);
    let first = story.world.db.id.clone();
    story.until_well();
    assert_ne!(story.world.db.id, first);
}

#[test]
fn a_pod_that_hangs_does_not_keep_another_from_creating_it() {
    let mut story = created();
    story.power("db-a-1", false);
    story.world.may_look = false;
    story.claim("db-a-1").replace = true;
    let first = story.world.db.id.clone();
    story.until("another one", |world, _| world.db.id != first);
    assert!(story.world.pods.contains_key("db-a-1"), "nobody has said that the machine is off");
}

#[test]
fn a_creator_that_is_emptied_does_not_create_a_second_one_while_the_others_are_away() {
    let mut story = created();
    story.until("copies are made", |world, _| world.db.voters.len() == 3);
    story.steps(1);
    assert!(!is_noted(&story.world));
    let first = story.world.db.id.clone();
    ["db-b-1", "db-c-1"].iter().for_each(|name| story.power(name, false));
    story.world.disks.get_mut("pv-db-a-1").unwrap().data = None;
    let done = story.steps(2);
    assert!(!has_created(&story.world, &done), "{done:?}");
    assert!(story.world.claims["db-a-1"].suspect.is_some());
    ["db-b-1", "db-c-1"].iter().for_each(|name| story.power(name, true));
    story.until_well();
    assert_ne!(story.world.db.id, first);
}

#[test]
fn a_database_in_which_nobody_decides_is_waited_for_and_the_way_out_is_named() {
    let mut story = created();
    join_unseen(&mut story);
    // Its kubelet says that all is well, and it is not heard.
    let machine = story.machine("db-a-1");
    story.world.boxes.get_mut(&machine).unwrap().network = false;
    story.seen = |observed| {
        if let Some(pod) = observed.pods.get_mut("db-a-1") {
            pod.answer = None;
        }
    };
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    let plan = story.step();
    assert!(defers(&plan, "", Reason::DatabaseSilent), "{:?}", plan.deferrals);
    let way = "kubectl annotate pvc data-db-a-1 sarsen.dev/replace=true";
    assert!(plan.deferrals.iter().any(|deferral| deferral.message.contains(way)), "{:?}", plan.deferrals);
    story.claim("db-a-1").replace = true;
    story.until("its pod is gone", |world, _| !world.pods.contains_key("db-a-1"));
    story.world.boxes.get_mut(&machine).unwrap().network = true;
    story.seen = |_| {};
    let first = story.world.db.id.clone();
    story.until_well();
    assert_ne!(story.world.db.id, first);
}

#[test]
fn no_instance_goes_before_all_are_there() {
    let mut world = World::new(spec(2), 3);
    power_of_c(&mut world, false);
    let mut story = Story::begun(world);
    story.until("there is a database", |world, _| {
        world.db.nodes.values().filter(|member| member.state == NodeState::Up).count() == 4
    });
    story.world.spec.groups[0].nodes = 1;
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    assert!(defers(&story.step(), "a", Reason::Starting));
    power_of_c(&mut story.world, true);
    story.until_well();
}

#[test]
fn no_second_cluster_is_created_while_any_claim_may_belong_to_one() {
    fn waits(observed: &mut Observed) {
        observed.database = None;
        for pod in observed.pods.values_mut() {
            (pod.answer, pod.gate) = (Some(Answer::Waiting), None);
        }
    }
    fn forgets(observed: &mut Observed, but: usize, contents: Contents) {
        waits(observed);
        for claim in observed.claims.values_mut().skip(but) {
            (claim.contents, claim.node_id, claim.creates) = (contents.clone(), None, false);
        }
    }
    fn one(observed: &mut Observed, answer: Option<Answer>) {
        observed.pods.get_mut("db-c-1").unwrap().answer = answer;
    }
    let table: [(Seen, bool); 7] = [
        (waits, false),
        (|observed| forgets(observed, 1, Contents::Nothing), false),
        (
            |observed| {
                forgets(observed, 0, Contents::Nothing);
                one(observed, Some(Answer::Belongs("c1".into())));
            },
            false,
        ),
        // As if there never had been one, and one of them is slow.
        (|observed| forgets(observed, 0, Contents::Nothing), true),
        (
            |observed| {
                forgets(observed, 0, Contents::Nothing);
                one(observed, None);
            },
            true,
        ),
        // A person has made the claims.
        (|observed| forgets(observed, 0, Contents::Unknown), true),
        (
            |observed| {
                forgets(observed, 0, Contents::Unknown);
                one(observed, None);
            },
            false,
        ),
    ];
    for (row, (seen, creates)) in table.into_iter().enumerate() {
        let mut story = Story::settled(spec(1), 2);
        story.seen = seen;
        let chosen = |action: &Action| {
            matches!(action, Action::Note { note: Note::Create, .. } | Action::Ask(Request::Create { .. }))
        };
        assert_eq!(story.step().actions.iter().any(chosen), creates, "row {row}");
    }
}

#[test]
fn of_what_another_hand_has_made_nothing_is_given_up() {
    let mut story = Story::settled(spec(1), 3);
    // From a backup: they have the data and no notes, and two of the machines fail before anything answers.
    story.seen = |observed| {
        observed.database = None;
        for claim in observed.claims.values_mut() {
            (claim.contents, claim.node_id, claim.creates) = (Contents::Unknown, None, false);
        }
        for pod in observed.pods.values_mut() {
            (pod.gate, pod.answer) = (None, None);
        }
        observed.pods.get_mut("db-c-1").unwrap().answer = Some(Answer::Belongs("c1".into()));
    };
    for name in ["db-a-1", "db-b-1"] {
        story.power(name, false);
        let machine = story.machine(name);
        let on = story.world.boxes.get_mut(&machine).unwrap();
        (on.object, on.kubelet) = (false, false);
    }
    let done = story.steps(40);
    assert!(is_quiet(&done), "{done:?}");
    assert_eq!(story.world.claims.len(), 3);
}
