//! What goes wrong, when, and how it ends.

use super::network::{Machine, partition};
use super::swarm::{FaultKind, Swarm};
use crate::random::Random;
use cluster::placement::NodeId;

/// Something that is done to the world.
#[derive(Clone, Debug)]
pub enum Action {
    /// The process is gone, the files stay.
    Kill(Machine),
    /// The machine is off.
    PowerOff(Machine),
    /// The process starts, if it does not run.
    Start(Machine),
    /// The process stands still.
    Pause(Machine),
    /// It goes on.
    Resume(Machine),
    /// Nothing passes in these directions.
    Cut(&'static str, Vec<(Machine, Machine)>),
    /// It does again.
    Join(Vec<(Machine, Machine)>),
    /// A link is slow.
    Slow(Machine, Machine, u64),
    /// It is as fast as before.
    SpeedUp(Machine, Machine),
    /// A wall clock jumps.
    Jump(Machine, i64),
    /// An operation of the disk will fail.
    FailDisk(Machine),
    /// A bit changes.
    Flip(Machine),
    /// A machine becomes part of the cluster: its process starts for the first time.
    Enter(Machine),
    /// The nodes of [`Swarm::departures`] with this number go, if the cluster can do without them; else later.
    Depart(usize),
    /// Whoever looks after the machines has the cluster forget a node that went with this departure.
    Dismiss(NodeId, usize),
    /// The operator takes the next step of its errand, or tries to.
    Operate,
    /// It says that it heals the cluster.
    HoldLease,
    /// Somebody wants so many copies of everything.
    Replicate(u8),
    /// Syncs are slow, or no longer.
    SlowDisk(Machine, bool),
}

/// Draws what goes wrong.
pub struct Faults {
    lots: Random,
    nodes: usize,
    zones: Vec<usize>,
    /// Only this machine's blocks rot: the atlas of faults leaves a whole copy of everything.
    rots: Option<Machine>,
    /// Leaves disk errors to one machine at a time, too.
    fails: Machine,
}

impl Faults {
    /// For a run.
    pub fn new(swarm: &Swarm, mut lots: Random) -> Faults {
        let rots = (swarm.replication_factor >= 3).then(|| lots.below(swarm.nodes as u64) as Machine);
        let fails = lots.below(swarm.nodes as u64) as Machine;
        Faults { lots, nodes: swarm.nodes, zones: swarm.zones.clone(), rots, fails }
    }

    /// Until the next fault of a kind that comes so often.
    pub fn pause_ms(&mut self, every_ms: u64) -> u64 {
        self.lots.between(every_ms / 4, every_ms * 7 / 4)
    }

    /// What happens now and, after so many milliseconds, later.
    pub fn draw(&mut self, kind: FaultKind) -> Vec<(u64, Action)> {
        let lots = &mut self.lots;
        let one = lots.below(self.nodes as u64) as Machine;
        let other = (one + lots.between(1, self.nodes as u64 - 1) as usize) % self.nodes;
        let short = lots.between(50, 3_000);
        let long = lots.between(500, 12_000);
        match kind {
            FaultKind::Kill => vec![(0, Action::Kill(one)), (short, Action::Start(one))],
            FaultKind::PowerLoss => vec![(0, Action::PowerOff(one)), (long, Action::Start(one))],
            FaultKind::PowerLossOfAll => {
                let off = (0..self.nodes).map(|machine| (0, Action::PowerOff(machine)));
                let mut actions: Vec<_> = off.collect();
                actions.extend(
                    (0..self.nodes).map(|machine| (lots.between(100, 4_000), Action::Start(machine))),
                );
                actions
            }
            FaultKind::Pause => vec![(0, Action::Pause(one)), (long, Action::Resume(one))],
            FaultKind::Partition => {
                let (name, cuts) = partition(lots, self.nodes);
                vec![(0, Action::Cut(name, cuts.clone())), (long, Action::Join(cuts))]
            }
            FaultKind::SlowLink => {
                let by = lots.between(100, 2_000);
                vec![(0, Action::Slow(one, other, by)), (long, Action::SpeedUp(one, other))]
            }
            FaultKind::ClockJump => {
                let hour = lots.between(1_000, 3_600_000) as i64;
                vec![(0, Action::Jump(one, if lots.percent(50) { hour } else { -hour }))]
            }
            // A disk that failed takes no more writes; somebody starts the process again.
            FaultKind::DiskError => vec![
                (0, Action::FailDisk(self.fails)),
                (2_000 + long, Action::Kill(self.fails)),
                (2_000 + long + short, Action::Start(self.fails)),
            ],
            FaultKind::BitFlip => self.rots.map(|machine| (0, Action::Flip(machine))).into_iter().collect(),
            FaultKind::SlowDisk => {
                vec![(0, Action::SlowDisk(one, true)), (long, Action::SlowDisk(one, false))]
            }
            FaultKind::ZoneOutage => self.zone_outage(one, long),
        }
    }

    /// All machines that share a failure domain with this one.
    fn zone_outage(&mut self, one: Machine, long: u64) -> Vec<(u64, Action)> {
        let lots = &mut self.lots;
        let (inside, outside): (Vec<Machine>, Vec<Machine>) =
            (0..self.nodes).partition(|machine| self.zones[*machine] == self.zones[one]);
        let across = || inside.iter().flat_map(|&x| outside.iter().map(move |&y| (x, y)));
        let back = |(x, y)| (y, x);
        let (name, cuts) = match lots.below(6) {
            0 | 1 => ("zone", across().chain(across().map(back)).collect::<Vec<_>>()),
            2 if lots.percent(50) => ("zone is not heard", across().collect()),
            2 => ("zone does not hear", across().map(back).collect()),
            kind => {
                let off = |machine: &Machine| match kind {
                    3 => (0, Action::Kill(*machine)),
                    _ => (0, Action::PowerOff(*machine)),
                };
                let mut actions: Vec<_> = inside.iter().map(off).collect();
                let on =
                    inside.iter().map(|machine| (long + lots.between(0, 2_000), Action::Start(*machine)));
                actions.extend(on);
                return actions;
            }
        };
        vec![(0, Action::Cut(name, cuts.clone())), (long, Action::Join(cuts))]
    }
}
