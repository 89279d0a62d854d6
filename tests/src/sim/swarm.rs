//! What a seed means: how large the cluster is, what is done with it, and what goes wrong and how badly.
//!
//! Most seeds leave most faults out. A bug that needs one fault and nothing else is drowned when everything fails all the time (swarm
//! testing, Groce and others 2012).

use crate::random::{Random, mix};

/// Everything that is drawn once for a run.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Where all lots come from.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// Failure domains that they stand in.
    pub zones: usize,
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
    /// The last machine is started only then.
    pub late_ms: u64,
    /// All machines but the first are started only then: one node with data becomes several.
    pub alone_ms: u64,
    /// A machine loses its disk for good, at about this time.
    pub loss: Option<(usize, u64)>,
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
}

impl FaultKind {
    /// All of them.
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
        // Lots of their own, so that what was drawn before moves came stays as it was.
        let mut moves = Random::new(mix(seed ^ mix(6)));
        let alone_ms = if moves.percent(20) { moves.between(4_000, 15_000) } else { 0 };
        // Where bits rot as well there need be no whole copy left.
        let rots = faults.iter().any(|(kind, _)| *kind == FaultKind::BitFlip);
        let loses = moves.percent(35) && replication_factor >= 2 && !rots;
        let loss = (moves.below(nodes as u64) as usize, moves.between(6_000, faults_ms));
        Swarm {
            seed,
            nodes,
            zones,
            replication_factor,
            shards,
            faults_ms,
            alone_ms,
            loss: loses.then_some(loss),
            network,
            disk: DiskWeather { sync_least_ms: 1, sync_most_ms, stalls },
            faults,
            late_ms: if lots.percent(20) { lots.between(3_000, 15_000) } else { 0 },
            skew_ms: *lots.pick(&[0, 50, 5_000]),
            work: Work {
                series: lots.between(8, 40) as u16,
                writers: lots.between(1, 3) as usize,
                readers: lots.between(1, 2) as usize,
                interval_ms: *lots.pick(&[100, 300, 700]),
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
