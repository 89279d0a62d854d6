//! The simulator: a whole cluster in one thread, in simulated time, with everything that can go wrong, as a function of a seed.
//!
//! ```text
//!                 Swarm::of(seed): how many nodes, what fails, how badly
//!                                   │
//!   Schedule ── the next event ──► World ──┬─► Process at a machine ── Out ──► messages, timers, answers ──► Schedule
//!    (time, order of planning)             │     the real engine, controller, coordinators, repair
//!                                          ├─► Clients: writes and reads whose answers the Ledger checks
//!                                          └─► Faults: kill, power loss, partition, pause, clocks, disks, bit rot
//! ```
//!
//! The pieces that decide are those of the product; only their shell is replaced. The [`node`] performs effects as the real shell does and decides
//! nothing. Files lie on disks that lose power ([`disk::CrashVfs`]) and fail ([`disk::FaultVfs`]).
//!
//! A run first lets everything go wrong and looks for what must never happen, then heals everything and waits, within bounds, for what
//! must happen: clients are answered, replicas become equal, views too. `docs/simulation.md` says what is checked and how to replay.
//!
//! The same seed gives the same run, event by event: no threads, no clock, no other randomness, no order of hash maps.

pub mod careless;
pub mod checks;
pub mod clients;
pub mod departures;
pub mod errand;
pub mod faults;
pub mod ghost;
pub mod ledger;
pub mod machine;
pub mod network;
pub mod node;
pub mod operator;
pub mod regressions;
pub mod schedule;
pub mod suite;
pub mod swarm;
pub mod trace;
pub mod values;
pub mod world;

use swarm::Swarm;
use world::World;

/// After the healing, clients go on for so long.
const AFTERMATH_MS: u64 = 15_000;
/// And have all answers after so long.
const ANSWERS_MS: u64 = 25_000;
/// Then replicas are equal after so long.
const REPAIR_MS: u64 = 240_000;

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What happened that must not, or did not happen in time.
    pub violation: Option<String>,
    /// Of everything that happened, in order.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Rows that were acknowledged.
    pub acknowledged: u64,
    /// Requests that were answered well, and tries that were not.
    pub answered: (u64, u64),
    /// How often something went wrong.
    pub faults: u64,
    /// Blocks that came from another node, as files.
    pub imported: u64,
    /// Nodes that were removed for good.
    pub removed: u64,
    /// What the operator's requests have led to.
    pub operated: operator::Operated,
    /// Changes of the placement.
    pub epochs: u64,
    /// How much time went by in it.
    pub simulated_ms: u64,
    /// Everything that happened, in words, if that was wanted.
    pub trace: Option<String>,
}

/// Runs a seed.
pub fn run(seed: u64, with_text: bool) -> Report {
    let mut world = World::new(Swarm::of(seed), with_text);
    world.begin();
    act(&mut world);
    let (faults, removed, answered) = (world.fault_count(), world.removed(), world.answered());
    let env = world.into_env();
    Report {
        seed,
        hash: env.trace.hash(),
        events: env.trace.lines(),
        acknowledged: env.ledger.acknowledged_count(),
        answered,
        faults,
        imported: env.imported,
        removed,
        operated: env.operated,
        epochs: env.newest.map_or(0, |(_, view)| view.epoch()),
        simulated_ms: env.schedule.now_ms(),
        violation: env.violation,
        trace: env.trace.into_text(),
    }
}

/// Safety first, then liveness.
fn act(world: &mut World) {
    let faults_ms = world.env().swarm.faults_ms;
    world.run_until(faults_ms);
    if world.env().violation.is_some() {
        return;
    }
    world.heal();
    world.run_until(faults_ms + AFTERMATH_MS);
    world.stop_clients();
    let answered =
        world.run_until_it(faults_ms + AFTERMATH_MS + ANSWERS_MS, |world| world.waiting().is_empty());
    if !answered {
        let waiting = world.waiting();
        world
            .env()
            .violated(format!("liveness: everything is well, and clients wait for answers: {waiting:?}"));
        return;
    }
    let now = world.env().schedule.now_ms();
    world.run_until_it(now + REPAIR_MS, |world| checks::unequal(world).is_none());
    if let Some(what) = checks::unequal(world) {
        world.env().violated(format!("convergence: {what}"));
        return;
    }
    if let Err(what) = checks::content(world) {
        world.env().violated(what);
        return;
    }
    let audit = world.audit();
    if !world.run_until_it(audit.deadline_ms, |world| world.audited() == audit.questions) {
        world.env().violated("liveness: everything is well, and a read of everything is not answered".into());
    }
}
