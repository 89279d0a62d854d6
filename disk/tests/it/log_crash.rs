//! Every crash of workloads on the log: nothing committed is lost, and what comes back is a prefix of what was appended.

use disk::crash::{Crash, Exploration};
use disk::log::{Log, Options, Recovered, SegmentNumber};
use disk::{CrashVfs, Vfs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIR: &str = "/log";

/// Something to do to a log.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Appends so many records of about this length.
    Append(u32, usize),
    Commit,
    Rotate,
    /// Removes all segments but the last.
    Remove,
    Close,
    /// Opens it again, without a crash.
    Reopen,
}
use Step::{Append, Close, Commit, Remove, Reopen, Rotate};

/// What was promised when.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// Valid for crashes after this many operations or more.
    operations: usize,
    /// So many records are durable.
    durable: u64,
    /// Removal of so many records was begun.
    removable: u64,
}

struct Workload {
    vfs: CrashVfs,
    appended: u64,
    promises: Vec<Promise>,
}

/// Record `n`: its content follows from its number.
fn record(n: u64, len: usize) -> Vec<u8> {
    let len = 12 + (n as usize * 7919) % (len + 1);
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((len as u32).to_le_bytes());
    bytes.extend((0..len - 12).map(|i| (n as usize * 31 + i * 7) as u8));
    bytes
}

fn number(payload: &[u8]) -> u64 {
    let n = u64::from_le_bytes(payload[..8].try_into().unwrap());
    let rest = payload[12..].iter().enumerate().all(|(i, b)| *b == (n as usize * 31 + i * 7) as u8);
    assert!(rest && payload[8..12] == (payload.len() as u32).to_le_bytes(), "a record nobody appended");
    n
}

fn open(vfs: &CrashVfs, options: &Options) -> Result<(Log, Recovered, Vec<u64>), disk::Error> {
    let mut numbers = Vec::new();
    let mut visit = |record: disk::log::Record<'_>| numbers.push(number(record.payload));
    let (log, recovered) = Log::recover(Arc::new(vfs.clone()), Path::new(DIR), options.clone(), &mut visit)?;
    Ok((log, recovered, numbers))
}

impl Workload {
    fn run(vfs: CrashVfs, options: &Options, first: u64, steps: &[Step]) -> Workload {
        let mut done = Workload { vfs, appended: first, promises: Vec::new() };
        let (mut log, _, _) = open(&done.vfs, options).unwrap();
        let mut promise = Promise { operations: 0, durable: first, removable: 0 };
        for step in steps {
            match *step {
                Append(count, len) => {
                    for _ in 0..count {
                        log.append(&record(done.appended, len)).unwrap();
                        done.appended += 1;
                    }
                }
                Commit => {
                    log.commit(log.appended()).unwrap();
                    promise.durable = done.appended;
                }
                Rotate => {
                    log.rotate().unwrap();
                    promise.durable = done.appended;
                }
                Remove => {
                    // From now on all that lies in earlier segments may be gone.
                    let last = log.segments().last().unwrap().segment;
                    promise.removable = promise.durable;
                    promise.operations = done.vfs.operations();
                    done.promises.push(promise);
                    log.remove_before(last).unwrap();
                }
                Close => {
                    log.close();
                    promise.durable = done.appended;
                }
                Reopen => {
                    drop(log);
                    let (again, recovered, _) = open(&done.vfs, options).unwrap();
                    assert_eq!((recovered.torn, &recovered.corrupt[..]), (None, &[][..]));
                    log = again;
                    // What was only pending is gone; the numbers go on where the log does.
                    done.appended = promise.durable;
                }
            }
            promise.operations = done.vfs.operations();
            done.promises.push(promise);
        }
        done
    }

    fn promised(&self, after: usize) -> Promise {
        let mut promise = Promise { operations: 0, durable: 0, removable: 0 };
        for &made in self.promises.iter().filter(|promise| promise.operations <= after) {
            promise = made;
        }
        promise
    }

    /// Checks one disk, and returns how many records the log on it has.
    fn check(&self, crash: &Crash, options: &Options) -> u64 {
        let (log, recovered, numbers) =
            open(&crash.vfs, options).unwrap_or_else(|error| panic!("{crash}: {error}"));
        let promise = self.promised(crash.after);
        assert!(recovered.corrupt.is_empty(), "{crash}: a crash was taken for damage: {recovered:?}");
        assert!(recovered.foreign.is_empty(), "{crash}: {recovered:?}");
        let first = numbers.first().copied().unwrap_or(promise.durable);
        assert!(first <= promise.removable, "{crash}: begins with record {first}, {promise:?}");
        assert!(numbers.iter().copied().eq(first..first + numbers.len() as u64), "{crash}: {numbers:?}");
        let end = first + numbers.len() as u64;
        assert!(end >= promise.durable, "{crash}: ends with record {end}, {promise:?}");
        assert!(end <= self.appended, "{crash}: ends with record {end}");
        drop(log);
        end
    }
}

/// Looks at every crash of the workload, and at crashes of what comes after some of those.
fn explore(name: &str, options: &Options, steps: &[Step], exploration: &Exploration) -> u64 {
    let began = Instant::now();
    let done = Workload::run(CrashVfs::new(), options, 0, steps);
    let mut states = 0;
    for crash in done.vfs.journal().states(exploration) {
        let end = done.check(&crash, options);
        states += 1;
        // What recovery itself did can be cut short too, and the log must work again afterwards.
        if states % 16 == 0 {
            let again = Exploration { subsets_max: 8, samples: 4, seed: states };
            for second in crash.vfs.journal().states(&again) {
                let seen = done.check(&Crash { after: crash.after, ..second }, options);
                // Recovery had delivered these; but only when it has returned were they durable.
                assert!(seen <= end, "{crash}, then during recovery: {seen} records, and {end} before");
                states += 1;
            }
            let on = [Append(3, 300), Commit, Append(2, 300)];
            let after = Workload::run(crash.vfs.clone(), options, end, &on);
            let removable = done.promised(crash.after).removable;
            let journal = after.vfs.journal();
            for third in journal.states(&again).skip(1).step_by(7) {
                let (_, recovered, numbers) = open(&third.vfs, options).unwrap();
                assert!(recovered.corrupt.is_empty(), "{crash}, then {third}: {recovered:?}");
                let first = numbers.first().copied().unwrap_or(end);
                assert!(first <= removable, "{crash}, then {third}: begins with {first}");
                assert!(
                    numbers.iter().copied().eq(first..first + numbers.len() as u64),
                    "{crash}, then {third}"
                );
                // The first operations belong to the recovery after the first crash.
                let durable = after.promised(third.after).durable.max(done.promised(crash.after).durable);
                assert!(first + numbers.len() as u64 >= durable, "{crash}, then {third}: {numbers:?}");
                states += 1;
            }
        }
    }
    let took = began.elapsed().max(Duration::from_millis(1));
    println!("{name}: {states} states in {took:?}, {:.0} a second", states as f64 / took.as_secs_f64());
    states
}

fn options(segment_bytes: u64, preallocate: bool) -> Options {
    Options { segment_bytes, pending_bytes_max: 1 << 20, preallocate }
}

const EXPLORATION: Exploration = Exploration { subsets_max: 128, samples: 150, seed: 0x5a25 };

#[test]
fn appends_and_commits_survive_every_crash() {
    let steps = [
        Append(3, 40),
        Commit,
        Append(1, 900),
        Append(2, 10),
        Commit,
        Append(2, 2500),
        Commit,
        Append(5, 60),
    ];
    for preallocate in [false, true] {
        let states = explore("append and commit", &options(16 << 10, preallocate), &steps, &EXPLORATION);
        assert!(states > 500);
    }
}

#[test]
fn batches_that_span_segments_survive_every_crash() {
    let steps =
        [Append(40, 100), Commit, Append(30, 100), Append(1, 3000), Append(5, 10), Commit, Append(20, 100)];
    for preallocate in [false, true] {
        let states = explore("spanning", &options(1 << 10, preallocate), &steps, &EXPLORATION);
        assert!(states > 1_000);
    }
}

#[test]
fn rotation_and_removal_survive_every_crash() {
    let steps = [
        Append(5, 100),
        Rotate,
        Rotate,
        Append(5, 100),
        Commit,
        Rotate,
        Remove,
        Append(5, 700),
        Commit,
        Append(9, 700),
        Rotate,
        Append(3, 100),
        Remove,
        Commit,
        Rotate,
        Remove,
        Append(2, 50),
        Commit,
    ];
    for preallocate in [false, true] {
        let states = explore("rotate and remove", &options(2 << 10, preallocate), &steps, &EXPLORATION);
        assert!(states > 1_000);
    }
}

#[test]
fn closing_and_reopening_survive_every_crash() {
    let steps = [
        Append(5, 100),
        Close,
        Reopen,
        Append(5, 100),
        Commit,
        Append(3, 100),
        Reopen,
        Append(4, 100),
        Commit,
        Rotate,
        Close,
        Reopen,
        Append(4, 100),
        Rotate,
        Remove,
        Close,
        Reopen,
        Append(1, 10),
        Commit,
    ];
    for preallocate in [false, true] {
        let states = explore("close and reopen", &options(1 << 10, preallocate), &steps, &EXPLORATION);
        assert!(states > 1_000);
    }
}

#[test]
fn random_workloads_survive_every_crash() {
    let seed = std::env::var("SARSEN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    println!("SARSEN_SEED={seed}");
    let mut lot = seed;
    let mut draw = |n: u64| {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (lot >> 33) % n
    };
    let mut states = 0;
    for _ in 0..12 {
        let steps: Vec<Step> = (0..12)
            .map(|_| match draw(10) {
                0..4 => Append(1 + draw(12) as u32, [8, 100, 1000][draw(3) as usize]),
                4..7 => Commit,
                7 => Rotate,
                8 => Remove,
                _ => Reopen,
            })
            .collect();
        let options = options([512, 2 << 10, 8 << 10][draw(3) as usize], draw(2) == 0);
        let exploration = Exploration { subsets_max: 32, samples: 12, seed: draw(u64::MAX >> 34) };
        states += explore(&format!("{steps:?}"), &options, &steps, &exploration);
    }
    assert!(states > 5_000, "{states}");
}

/// The promises above would be worth nothing if the exploration could not see a broken one.
#[test]
fn the_exploration_notices_a_commit_that_does_not_sync() {
    let done = Workload::run(CrashVfs::new(), &options(4 << 10, false), 0, &[Append(3, 100), Commit]);
    let mut early = done;
    // As if the commit had been acknowledged before the fsync, which is the last operation.
    early.promises.last_mut().unwrap().operations -= 1;
    let lost = early.vfs.journal().states(&EXPLORATION).any(|crash| {
        let numbers = open(&crash.vfs, &options(4 << 10, false)).unwrap().2;
        (numbers.len() as u64) < early.promised(crash.after).durable
    });
    assert!(lost);
}

#[test]
fn positions_and_segment_numbers_go_on_after_reopening() {
    let vfs = CrashVfs::new();
    let options = options(1 << 10, true);
    let (log, _, _) = open(&vfs, &options).unwrap();
    let mut last = log.append(&record(0, 100)).unwrap();
    let mut segment = SegmentNumber(0);
    for round in 1..20 {
        let position = log.append(&record(round, 100)).unwrap();
        assert!(position > last);
        last = position;
        let rotated = log.rotate().unwrap();
        assert!(rotated > segment);
        segment = rotated;
    }
    log.remove_before(segment).unwrap();
    assert_eq!(log.segments().len(), 1);
    drop(log);
    let (log, recovered, _) = open(&vfs, &options).unwrap();
    assert_eq!((recovered.records, log.durable()), (0, last));
    assert_eq!(log.segments()[0].segment, segment);
    assert!(log.append(b"0123456789ab").unwrap() > last);
    assert_eq!(vfs.list(Path::new(DIR)).unwrap().len(), 1);
}
