//! What a seed means: how large the cluster is, what is done with it, and what goes wrong and how badly.
//!
//! Most seeds leave most faults out. A bug that needs one fault and nothing else is drowned when everything fails all the time (swarm
//! testing, Groce and others 2012).

use super::errand::{self, Errand, Ground, Step};
use super::network::Machine;
use crate::random::{Random, mix};

/// Everything that is drawn once for a run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Where all lots come from.
    pub seed: u64,
    /// Machines, those included that come only in place of others.
    pub nodes: usize,
    /// The failure domain that each stands in.
    pub zones: Vec<usize>,
    /// When each is started first. `None`: when it comes in place of another.
    pub starts_ms: Vec<Option<u64>>,
    /// Copies of each shard that are wanted.
    pub replication_factor: u8,
    /// How many shards there are.
    pub shards: u32,
    /// How long things go wrong, before everything is healed.
    pub faults_ms: u64,
    /// The network on an ordinary day.
    pub network: NetworkWeather,
    /// The disks on an ordinary day.
    pub disk: DiskWeather,
    /// How often what goes wrong.
    pub faults: Vec<(FaultKind, u64)>,
    /// Nodes that go for good.
    pub departures: Vec<Departure>,
    /// What whoever operates the cluster does.
    pub errands: Vec<Errand>,
    /// It heals the cluster, and the leader takes nobody for lost meanwhile.
    pub holds_lease: bool,
    /// When another number of copies is wanted, and how many.
    pub replication: Vec<(u64, u8)>,
    /// After how long a node that nobody hears is lost, and its copies made elsewhere.
    pub loss_grace_ms: u64,
    /// How far wall clocks are apart at the beginning, at most.
    pub skew_ms: u64,
    /// What clients do.
    pub work: Work,
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub struct NetworkWeather {
    /// The fastest.
    pub delay_least_ms: u64,
    /// The slowest of the ordinary ones.
    pub delay_most_ms: u64,
    /// Of ten thousand, how many are lost.
    pub lost: u64,
    /// Of ten thousand, how many arrive twice.
    pub doubled: u64,
    /// Of ten thousand, how many are seconds late.
    pub late: u64,
    /// Whether messages overtake each other.
    pub overtaking: bool,
}

/// How long a sync takes.
#[derive(Clone, Copy, Debug)]
pub struct DiskWeather {
    /// The fastest.
    pub sync_least_ms: u64,
    /// The slowest of the ordinary ones.
    pub sync_most_ms: u64,
    /// Of a hundred, how many take seconds.
    pub stalls: u64,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A process is killed; its files stay.
    Kill,
    /// A machine loses power: what was not synced is there, gone or torn.
    PowerLoss,
    /// All machines at once.
    PowerLossOfAll,
    /// A process stands still for a while.
    Pause,
    /// Some machines do not hear some others, in both directions, in one, or in a ring.
    Partition,
    /// Messages between two machines take long.
    SlowLink,
    /// A wall clock jumps by up to an hour.
    ClockJump,
    /// A write or sync fails.
    DiskError,
    /// A bit of a finished block changes.
    BitFlip,
    /// Syncs take seconds for a while.
    SlowDisk,
    /// All machines of a failure domain at once, for a while: killed, without power, or not heard by the others.
    ZoneOutage,
}

/// Nodes that go for good, and whether others come.
#[derive(Clone, Debug)]
pub struct Departure {
    /// About when. It waits until the cluster can do without them.
    pub at_ms: u64,
    /// Where they run; several only if they are lost.
    pub machines: Vec<Machine>,
    /// In which way they go.
    pub how: How,
    /// Machines on which new nodes join when the old ones are removed: the same ones, wiped, or others, or fewer.
    pub instead: Vec<Machine>,
}

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its disk is gone.
    Lost,
    /// Its disk is gone, and nobody tells the cluster.
    Abandoned,
    /// It is emptied, and then removed.
    Drained,
    /// It is removed as it stands, and runs on until it hears of it.
    Removed,
    /// It is removed while it hears nobody, or only one other, and comes back as if nothing had happened.
    Banished,
    /// It stays: it has the only copy of something, and it is asked once to remove it.
    Needed,
}

impl FaultKind {
    /// All that need no second failure domain.
    pub const ALL: [FaultKind; 10] = [
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::PowerLossOfAll,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::SlowLink,
        FaultKind::ClockJump,
        FaultKind::DiskError,
        FaultKind::BitFlip,
        FaultKind::SlowDisk,
    ];
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Series that there are.
    pub series: u16,
    /// Clients that write.
    pub writers: usize,
    /// Clients that read.
    pub readers: usize,
    /// Between two requests of one client, on average.
    pub interval_ms: u64,
    /// Series in one request, at most.
    pub batch_series: u64,
    /// Of a hundred rows, how many are of a time long past.
    pub old: u64,
    /// Of a hundred rows, how many have a second value from another client.
    pub conflicting: u64,
    /// Of a hundred requests, how many are changes of a namespace.
    pub administration: u64,
    /// Of a hundred values, how many are histograms.
    pub histograms: u64,
    /// Of a hundred requests of readers, how many look up series or labels.
    pub lookups: u64,
    /// Of a hundred reads of samples, how many are content with a part of them.
    pub partial: u64,
}

/// One stream of lots for each concern: to leave one concern out does not shift the others.
pub struct Streams {
    /// Delays and losses.
    pub network: Random,
    /// What survives a crash, how long a sync takes, which bit flips.
    pub disk: Random,
    /// What clients do.
    pub work: Random,
    /// What goes wrong when.
    pub faults: Random,
}

impl Streams {
    /// Those of a seed.
    pub fn new(seed: u64) -> Streams {
        let stream = |n: u64| Random::new(mix(seed ^ mix(n)));
        Streams { network: stream(1), disk: stream(2), work: stream(3), faults: stream(4) }
    }
}

impl Swarm {
    /// Whether the operator has a machine's node come.
    pub fn is_fetched(&self, machine: Machine) -> bool {
        let mut steps = self.errands.iter().flatten();
        steps.any(|(_, step)| matches!(step, Step::Fetch(fetched) if *fetched == machine))
    }

    /// What a seed means.
    pub fn of(seed: u64) -> Swarm {
        let mut lots = Random::new(mix(seed ^ mix(5)));
        let nodes = *lots.pick(&[3, 3, 3, 3, 4, 5, 6]);
        let delay_most_ms = *lots.pick(&[2, 5, 20, 80]);
        let sync_most_ms = *lots.pick(&[1, 5, 20, 60]);
        let rough = lots.percent(60);
        let network = NetworkWeather {
            delay_least_ms: 1,
            delay_most_ms,
            lost: if rough { *lots.pick(&[0, 20, 100, 500]) } else { 0 },
            doubled: if rough { *lots.pick(&[0, 50, 500]) } else { 0 },
            late: if rough { *lots.pick(&[0, 10, 50]) } else { 0 },
            overtaking: lots.percent(70),
        };
        let stalls = *lots.pick(&[0, 0, 1]);
        let mut faults = Vec::new();
        for kind in FaultKind::ALL {
            let every_ms = lots.between(4_000, 25_000);
            if lots.percent(35) {
                faults.push((kind, every_ms));
            }
        }
        let (zones, replication_factor) =
            (*lots.pick(&[1, 2, 3, 3, nodes]), *lots.pick(&[1, 2, 3, 3, 3, 3, 3]));
        let shards = *lots.pick(&[4, 8]);
        let faults_ms = lots.between(20_000, 90_000);
        let mut operator = Random::new(mix(seed ^ mix(10)));
        let is_operated = operator.percent(70);
        // Where bits rot as well there need be no whole copy left.
        let rots = faults.iter().any(|(kind, _)| *kind == FaultKind::BitFlip);
        // Where bits rot the others' copies are whole as long as nothing moves.
        let loss_grace_ms = *Random::new(mix(seed ^ mix(8))).pick(&[6_000, 12_000, 25_000, NEVER_MS]);
        let loss_grace_ms = if rots { NEVER_MS } else { loss_grace_ms };
        let Machines { mut zones, mut starts_ms, departures, replication_factor } = {
            let mut wide = Random::new(mix(seed ^ mix(7)));
            if wide.percent(60) {
                if wide.percent(40) {
                    faults.push((FaultKind::ZoneOutage, wide.between(8_000, 30_000)));
                }
                wide_cluster(&mut wide, faults_ms, rots, loss_grace_ms < NEVER_MS)
            } else {
                let late_ms = if lots.percent(20) { lots.between(3_000, 15_000) } else { 0 };
                // Lots of their own, so that what was drawn before moves came stays as it was.
                let mut moves = Random::new(mix(seed ^ mix(6)));
                let alone_ms = if moves.percent(20) { moves.between(4_000, 15_000) } else { 0 };
                let loses = moves.percent(35) && replication_factor >= 2 && !rots;
                let machine = moves.below(nodes as u64) as Machine;
                let at_ms = moves.between(6_000, faults_ms);
                let (machines, instead) = (vec![machine], vec![machine]);
                let loss = Departure { at_ms, machines, how: How::Lost, instead };
                let late = |machine| if machine + 1 == nodes { late_ms } else { 0 };
                let start = |machine| if machine > 0 { alone_ms + late(machine) } else { 0 };
                Machines {
                    zones: (0..nodes).map(|machine| machine % zones).collect(),
                    starts_ms: (0..nodes).map(|machine| Some(start(machine))).collect(),
                    departures: loses.then_some(loss).into_iter().collect(),
                    replication_factor,
                }
            }
        };
        let (mut errands, holds_lease) = (Vec::new(), operator.percent(50));
        let mut faults_ms = faults_ms;
        if is_operated && starts_ms.len() >= 5 && replication_factor >= 2 && !rots {
            // What dies is known to be dead only after a while.
            faults_ms = faults_ms.max(60_000);
            let mut ground = ground(&mut zones, &mut starts_ms, &departures, replication_factor);
            for _ in 0..operator.between(1, 2) {
                errands.extend(errand::draw(&mut operator, &mut ground));
            }
        }
        let first_nodes = starts_ms.iter().flatten().count();
        // Bits rot only where there are three copies of everything.
        let mut wishes = Random::new(mix(seed ^ mix(9)));
        let mut replication = Vec::new();
        if zones.len() >= 4 && replication_factor >= 2 && !rots && wishes.percent(30) {
            let first = *wishes.pick(&[2, 2, 4]);
            let at_ms = wishes.between(6_000, faults_ms);
            replication.push((at_ms, first));
            if wishes.percent(60) {
                replication.push((at_ms + wishes.between(500, 15_000), *wishes.pick(&[3, 3, 5])));
            }
        }
        Swarm {
            seed,
            nodes: zones.len(),
            zones,
            starts_ms,
            replication_factor,
            shards,
            faults_ms,
            departures,
            errands,
            holds_lease,
            replication,
            loss_grace_ms,
            network,
            disk: DiskWeather { sync_least_ms: 1, sync_most_ms, stalls },
            faults,
            skew_ms: *lots.pick(&[0, 50, 5_000]),
            work: Work {
                series: lots.between(8, 40) as u16,
                writers: lots.between(1, 3) as usize,
                readers: lots.between(1, 2) as usize,
                // What goes wrong among many nodes needs time more than requests.
                interval_ms: *lots.pick(if first_nodes >= 5 { &[300, 500, 900] } else { &[100, 300, 700] }),
                batch_series: lots.between(3, 15),
                old: *lots.pick(&[0, 5, 30]),
                conflicting: *lots.pick(&[0, 5, 30]),
                administration: *lots.pick(&[0, 0, 2]),
                histograms: *lots.pick(&[0, 0, 10, 50]),
                lookups: *lots.pick(&[0, 20, 50]),
                partial: *lots.pick(&[0, 10, 40]),
            },
        }
    }
}

/// What the operator finds.
fn ground<'a>(
    zones: &'a mut Vec<usize>,
    starts_ms: &'a mut Vec<Option<u64>>,
    departures: &[Departure],
    replication_factor: u8,
) -> Ground<'a> {
    let all = || departures.iter().filter(|departure| departure.how != How::Needed);
    let going = |machine: &Machine| departures.iter().any(|departure| departure.machines.contains(machine));
    let staying: Vec<Machine> =
        (0..zones.len()).filter(|machine| starts_ms[*machine] == Some(0) && !going(machine)).collect();
    let count = |of: &dyn Fn(&Departure) -> usize| all().map(of).sum::<usize>();
    let there = starts_ms.iter().flatten().count() + count(&|departure| departure.instead.len());
    let left = there.saturating_sub(count(&|departure| departure.machines.len()));
    let spare = left.saturating_sub(usize::from(replication_factor).max(3));
    Ground { zones, starts_ms, staying, spare }
}

/// Which machines there are, and which come and go.
struct Machines {
    zones: Vec<usize>,
    starts_ms: Vec<Option<u64>>,
    departures: Vec<Departure>,
    replication_factor: u8,
}

/// A grace that is longer than any run.
const NEVER_MS: u64 = 900_000;
/// Failure domains of a wide cluster.
const ZONES: usize = 3;

/// Five to nine nodes in three failure domains. Some join when there is data, some go, some of these are replaced.
fn wide_cluster(lots: &mut Random, faults_ms: u64, rots: bool, heals: bool) -> Machines {
    let nodes = *lots.pick(&[5, 5, 6, 6, 6, 7, 7, 8, 9]);
    let replication_factor = *lots.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 3]);
    let mut zones: Vec<usize> = (0..nodes).map(|machine| machine % ZONES).collect();
    let mut starts_ms = vec![Some(0); nodes];
    let late = *lots.pick(&[0, 0, 1, 2, 3]);
    // At last those, so that the first ones are there to begin with.
    for start in starts_ms.iter_mut().rev().take(late) {
        *start = Some(lots.between(3_000, faults_ms * 2 / 3));
    }
    let mut departures: Vec<Departure> = Vec::new();
    let count = if rots { 0 } else { *lots.pick(&[0, 1, 1, 2, 2, 3]) };
    // So many are left at least, when all have gone that are not replaced.
    let mut spare = nodes.saturating_sub(usize::from(replication_factor).max(3));
    let mut staying: Vec<Machine> = (0..nodes).collect();
    let mut abandoned = false;
    for _ in 0..count {
        let kind = lots.below(100);
        let at_ms = match departures.last() {
            // In the middle of what the last one has begun.
            Some(Departure { at_ms, .. }) if lots.percent(50) => at_ms + lots.between(1_000, 12_000),
            _ => lots.between(6_000, faults_ms),
        };
        let one = staying.remove(lots.below(staying.len() as u64) as usize);
        let how = match kind {
            0..60 if replication_factor == 1 => How::Needed,
            _ if replication_factor == 1 => How::Drained,
            // One, so that the leader does not take it for something between the nodes.
            15..40 if heals && replication_factor == 3 && !abandoned => How::Abandoned,
            0..50 => How::Lost,
            50..65 => How::Drained,
            65..80 => How::Removed,
            _ => How::Banished,
        };
        abandoned |= how == How::Abandoned;
        let mut machines = vec![one];
        if kind < 15 && how == How::Lost && replication_factor == 3 {
            // The whole failure domain.
            machines.extend(staying.iter().filter(|machine| zones[**machine] == zones[one]));
            staying.retain(|machine| zones[*machine] != zones[one]);
        }
        let mut instead = Vec::new();
        for machine in machines.iter().filter(|_| how != How::Needed) {
            match lots.below(100) {
                0..40 if spare > 0 => spare -= 1,
                // The address of a node that may come back is not free.
                0..75 if how != How::Abandoned => instead.push(*machine),
                _ => {
                    instead.push(zones.len());
                    let same = lots.percent(50);
                    zones.push(if same { zones[*machine] } else { lots.below(ZONES as u64) as usize });
                    starts_ms.push(None);
                }
            }
        }
        departures.push(Departure { at_ms, machines, how, instead });
    }
    Machines { zones, starts_ms, departures, replication_factor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn most_clusters_are_wide_and_keep_enough_nodes() {
        let (mut wide, mut kinds) = (0, BTreeSet::new());
        for swarm in (0..1_000).map(Swarm::of) {
            let Swarm { seed, nodes, zones, starts_ms, departures, .. } = &swarm;
            assert!(
                (zones.len(), starts_ms.len()) == (*nodes, *nodes) && starts_ms[0] == Some(0),
                "seed {seed}"
            );
            let first = starts_ms.iter().flatten().count();
            let domains: BTreeSet<usize> = zones.iter().copied().collect();
            wide += usize::from((5..=9).contains(&first) && domains.len() == 3);
            kinds.extend(departures.iter().map(|departure| format!("{:?}", departure.how)));

            let all = || departures.iter().filter(|departure| departure.how != How::Needed);
            let going: Vec<Machine> = all().flat_map(|departure| departure.machines.clone()).collect();
            let coming: BTreeSet<Machine> = all().flat_map(|departure| departure.instead.clone()).collect();
            let spared: BTreeSet<Machine> = going.iter().copied().collect();
            assert_eq!(going.len(), spared.len(), "seed {seed}: no machine goes twice");
            let left = first + coming.len() - going.len();
            assert!(left >= usize::from(swarm.replication_factor), "seed {seed}: {left} nodes are left");
        }
        assert!(wide > 500, "{wide} of 1,000 seeds are wide");
        assert_eq!(kinds.len(), 6, "{kinds:?}");
    }
}
