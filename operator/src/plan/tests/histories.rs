//! Random histories: machines die, hang, are cut off, come back, are replaced; disks are lost; zones go; the specification changes; the operator reads old
//! things, stops between any two actions, does things twice. The world checks every action; in the end all must be well, and nothing left to do.

use super::super::{Observed, Reason, plan};
use super::spec;
use super::world::{Dice, TICK, World};
use crate::api::{DeletePolicy, Grace, Span};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Histories a run.
const HISTORIES: u64 = 10_000;
/// Moments in which things go wrong.
const TROUBLED: usize = 40;
/// Moments until all must be well again.
const CALM_MAX: usize = 600;

/// The operator at work, once. `old` is what its caches may still say.
fn operate(world: &mut World, dice: &mut Dice, old: &Observed, careful: bool) {
    let cached = if !careful && dice.one_in(4) { old.clone() } else { world.observe() };
    let mut decided = plan(&cached);
    if decided.needs_certainty() {
        // As the real one: what takes something away is decided on what is read now.
        decided = plan(&world.observe());
    }
    let mut all_done = true;
    for action in &decided.actions {
        // The operator may end between any two actions.
        if !careful && dice.one_in(12) {
            all_done = false;
            break;
        }
        world.act(action);
        if !careful && dice.one_in(10) {
            world.act(action);
        }
    }
    if all_done {
        world.status = decided.status;
    }
}

/// Something goes wrong, or somebody changes their mind.
fn trouble(world: &mut World, dice: &mut Dice) {
    let names: Vec<String> = world.boxes.keys().cloned().collect();
    let Some(name) = dice.pick(&names).cloned() else { return };
    let may_lose = world.may_lose(&name);
    let zone = world.boxes[&name].zone.clone();
    let what = dice.below(25);
    world.tell(format_args!("trouble {what} at {name}, may be lost: {may_lose}"));
    match what {
        0..=2 => world.boxes.get_mut(&name).unwrap().power ^= true,
        3 => world.boxes.get_mut(&name).unwrap().kubelet ^= true,
        4 => world.boxes.get_mut(&name).unwrap().network ^= true,
        // The Node object is deleted, and the processes live on, or not.
        5 | 6 => {
            let on = world.boxes.get_mut(&name).unwrap();
            on.object = false;
            on.kubelet = false;
            on.power &= dice.one_in(2);
        }
        7 | 8 if world.may_destroy(&name) => destroy(world, &name),
        // The disk is emptied under a machine that goes on.
        9 | 10 if may_lose => {
            for disk in world.disks.values_mut().filter(|disk| disk.machine == name) {
                disk.data = None;
            }
            for pod in world.pods.values_mut().filter(|pod| pod.machine.as_deref() == Some(&name)) {
                pod.containers_ready = false;
            }
            world.zombies.retain(|zombie| zombie.machine != name);
        }
        // Set up anew under the same name.
        11 if may_lose => {
            world.serial += 1;
            let machine = format!("machine{}", world.serial);
            let on = world.boxes.get_mut(&name).unwrap();
            (on.machine, on.object, on.power, on.kubelet, on.network) = (machine, false, true, true, true);
            for pod in world.pods.values_mut().filter(|pod| pod.machine.as_deref() == Some(&name)) {
                pod.containers_ready = false;
            }
        }
        12 if world.may_destroy(&name) => {
            if let Some(disk) = world.disks.values_mut().find(|disk| disk.machine == name) {
                disk.object = false;
            }
        }
        13 => {
            let power = dice.one_in(2);
            for on in world.boxes.values_mut().filter(|on| on.zone == zone) {
                on.power = power;
            }
        }
        14 => world.boxes.values_mut().filter(|on| on.zone == zone).for_each(|on| {
            (on.power, on.kubelet, on.network) = (true, true, true);
        }),
        15 => {
            world.version += 1;
            world.broken_version = dice.one_in(3);
        }
        16 => {
            let group = dice.below(3);
            world.spec.groups[group].nodes = 1 + dice.below(3) as u32;
        }
        17 => world.new_box(&zone),
        18 if dice.one_in(3) => world.spec.storage.size = Quantity("200Gi".into()),
        19 if dice.one_in(3) => world.paused ^= true,
        20 => {
            let claims: Vec<String> = world.claims.keys().cloned().collect();
            if let Some(claim) = dice.pick(&claims).filter(|_| dice.one_in(2)) {
                world.claims.get_mut(claim).unwrap().replace = true;
            }
        }
        21 => {
            if let Some(pod) = world.pods.keys().nth(dice.below(world.pods.len())).cloned() {
                world.pods.get_mut(&pod).unwrap().containers_ready = false;
            }
        }
        // Cut off, with everything on it alive.
        22 | 23 => {
            let on = world.boxes.get_mut(&name).unwrap();
            (on.kubelet, on.network) = (false, false);
        }
        // Somebody has switched it off and says so.
        24 => {
            let on = world.boxes.get_mut(&name).unwrap();
            (on.power, on.out_of_service) = (false, true);
        }
        _ => {}
    }
}

fn destroy(world: &mut World, name: &str) {
    world.boxes.remove(name);
    for disk in world.disks.values_mut().filter(|disk| disk.machine == *name && disk.network.is_none()) {
        disk.data = None;
    }
}

/// Everything that can be mended by people is, and there is room.
fn mend(world: &mut World) {
    for on in world.boxes.values_mut() {
        (on.power, on.kubelet, on.network, on.out_of_service) = (true, true, true, false);
    }
    for zone in ["a", "b", "c"] {
        for _ in 0..5 {
            world.new_box(zone);
        }
    }
    world.paused = false;
    if world.broken_version {
        world.version += 1;
        world.broken_version = false;
    }
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let mut spec = spec(1 + dice.below(2) as u32);
    if dice.one_in(3) {
        spec.failure_policy.zone_loss_grace = Grace::After(Span::seconds(200));
    }
    if dice.one_in(3) {
        spec.storage.delete_policy = DeletePolicy::Delete;
    }
    spec.failure_policy.max_concurrent_replacements = 1 + dice.below(2) as u32;
    let mut world = World::new(spec, 2 + dice.below(2));
    (world.may_look, world.expands) = (!dice.one_in(6), dice.one_in(2));
    if dice.one_in(2) {
        let groups =
            ["a", "b", "c"].into_iter().filter(|_| !dice.one_in(3)).map(str::to_owned).collect::<Vec<_>>();
        world.networks = groups.into_iter().map(|group| (group, !dice.one_in(4))).collect();
    }
    let quiet = dice.below(30);
    let rate = 1 + dice.below(6);
    let mut old = world.observe();
    for moment in 0..TROUBLED + quiet {
        if moment >= quiet && dice.one_in(rate) {
            trouble(&mut world, &mut dice);
        }
        if dice.one_in(4) {
            old = world.observe();
        }
        world.tick(&mut dice);
        // Now and then the operator does not run.
        if !dice.one_in(8) {
            operate(&mut world, &mut dice, &old, false);
        }
    }
    mend(&mut world);
    for moment in 0..CALM_MAX {
        world.tick(&mut dice);
        // Without a look at machines and volumes, or when very many are away, a person must say which instances are lost.
        let held =
            plan(&world.observe()).deferrals.iter().any(|deferral| deferral.reason == Reason::TooManyAway);
        if !world.may_look || held {
            help(&mut world);
        }
        operate(&mut world, &mut dice, &old, true);
        if moment > 5 && world.is_well().is_ok() {
            return settle(&mut world, &mut dice, &old);
        }
    }
    let why = world.is_well().unwrap_err();
    let decided = plan(&world.observe());
    panic!("not well: {why}\n{:#?}\n{:#?}\n{:#?}", decided.actions, decided.deferrals, world);
}

/// What a person does who sees that nothing happens.
fn help(world: &mut World) {
    let lost: Vec<String> = world
        .claims
        .iter()
        .filter(|(name, claim)| {
            let disk = claim.volume.as_ref().and_then(|volume| world.disks.get(volume));
            let there = disk.is_some_and(|disk| {
                disk.object && (disk.network.is_some() || world.boxes.contains_key(&disk.machine))
            });
            claim.volume.is_some() && !there && world.pods.contains_key(*name)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in lost {
        world.claims.get_mut(&name).unwrap().replace = true;
    }
}

/// When all is well, there is nothing to do, and a little later there is still nothing to do.
fn settle(world: &mut World, dice: &mut Dice, old: &Observed) {
    for _ in 0..80 {
        world.now += TICK;
        world.tick(dice);
        operate(world, dice, old, true);
    }
    world.is_well().expect("what is well stays well");
    let decided = plan(&world.observe());
    assert!(decided.actions.is_empty(), "all is well, and yet: {:?}", decided.actions);
    assert_eq!(decided.status, world.status, "what is said does not settle");
    for (name, claim) in &world.claims {
        let kept = claim.leaving.is_some() || claim.retired.is_some();
        assert!(
            !kept || world.spec.storage.delete_policy == DeletePolicy::Retain,
            "{name} was to go: {claim:?}"
        );
    }
}

#[test]
fn whatever_happens_nothing_is_lost_and_all_is_well_in_the_end() {
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        // Every run is another one.
        RandomState::new().hash_one(1) >> 16
    });
    let count = if std::env::var_os("SEED").is_some() { 1 } else { HISTORIES };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (first + thread..first + count).step_by(threads as usize) {
                    let outcome = std::panic::catch_unwind(|| history(seed));
                    assert!(outcome.is_ok(), "SEED={seed}");
                }
            });
        }
    });
}
