//! A copy of all shards is filled from two others, engine to engine: real files, real messages, no network.

use cluster::bootstrap::{Bootstrap, Effect, Event, Filled, Options, perform, serve};
use cluster::placement::{Change, Node, NodeId, NodeState, Placement, Policy, compute};
use cluster::view::View;
use disk::{CrashVfs, RealVfs, Vfs};
use model::{Batch, BatchSeries, Labels, Replica, Shard, Sink, TimeRange, Timestamp};
use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU32};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use storage::{Engine, Identity};

const SHARDS: u32 = 4;
const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_700_000_000_000 / (2 * HOUR) * 2 * HOUR;
const WINDOWS: i64 = 6;
const ME: u128 = 3;

fn open(vfs: Arc<dyn Vfs>, dir: &Path, node: u128) -> Arc<Engine> {
    let drawn = AtomicU64::new(0);
    // A restart must not draw the same ids again.
    let run = u128::from(vfs.unique());
    let random = move || u128::from(drawn.fetch_add(1, Relaxed) + 1) ^ node << 120 ^ run << 40;
    let mut options = storage::Options::new(dir, random);
    options.identity = Some(Identity { cluster: 7, node, disk: node, shards: SHARDS });
    options.disk_reserve_bytes = 0;
    options.wal = disk::log::Options { segment_bytes: 1 << 20, preallocate: false, ..Default::default() };
    Engine::open(vfs, options, Arc::new(|| Timestamp(NOW)), &|_| ()).unwrap()
}

/// Values that do not compress.
fn noise(series: u64, t: i64) -> u64 {
    let mixed = (t as u64 ^ series << 44).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 2
}

/// Rows of these windows to all series.
fn write(engine: &Engine, windows: std::ops::Range<i64>, step: i64) {
    let mut batch = Batch::default();
    for series in 0..40u64 {
        let labels = Labels::from_pairs([("__name__", "m"), ("i", &series.to_string())]).unwrap();
        let (labels_at, floats_at) = (batch.bytes.len() as u32, batch.timestamps.len() as u32);
        batch.bytes.extend_from_slice(labels.as_bytes());
        let first = NOW - 2 * HOUR * (WINDOWS - windows.start);
        for t in (first..NOW - 2 * HOUR * (WINDOWS - windows.end)).step_by(step as usize) {
            batch.timestamps.push(t);
            batch.values.push(noise(series, t));
        }
        batch.series.push(BatchSeries {
            id: engine.key().id(labels.as_bytes()),
            checked: true,
            labels_at,
            labels_len: labels.as_bytes().len() as u32,
            floats_at,
            floats_len: batch.timestamps.len() as u32 - floats_at,
            histograms_at: 0,
            histograms_len: 0,
        });
    }
    assert!(engine.append(&Arc::new(batch), None).unwrap().rejected.is_empty());
    engine.commit().unwrap();
}

/// Three nodes, a copy of everything at two of them, and a third that makes one.
fn view(me: u128) -> View {
    let node = |id: u128| Node {
        id: NodeId(id),
        domain: format!("zone-{id}").parse().unwrap(),
        capacity: NonZeroU32::MIN,
        state: NodeState::Up,
    };
    let nodes: Vec<Node> = (1..=3).map(node).collect();
    let policy = Policy { replication_factor: NonZeroU8::new(2).unwrap(), shards: SHARDS };
    let empty = Placement::empty(SHARDS).unwrap();
    let two = empty.adopt(&compute(&empty, &nodes[..2], &policy).unwrap());
    let begin = |shard: u32| Change::Begin { shard: Shard(shard as u16), from: None, to: Some(NodeId(ME)) };
    let placement = two.change(&(0..SHARDS).map(begin).collect::<Vec<_>>()).unwrap();
    View::at_rest(7, NodeId(me), &nodes, 3, placement)
}

/// Fills all shards of `to`, or goes on until so many events have happened.
fn fill(to: &Engine, from: &[Arc<Engine>], events_max: usize) -> (Vec<Filled>, cluster::bootstrap::Progress) {
    let options = Options { piece_bytes: 64 << 10, bytes_per_s: 1 << 40, ..Options::default() };
    let mut bootstrap = Bootstrap::new(options, 0);
    let mut events = VecDeque::from([Event::View(Arc::new(view(ME)))]);
    let (mut effects, mut filled) = (Vec::new(), Vec::new());
    for number in 0..events_max {
        if filled.len() == SHARDS as usize {
            break;
        }
        let event = events.pop_front().unwrap_or(Event::Tick);
        bootstrap.step(number as u64, event, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { token, peer, request, .. } => {
                    let engine = &from[peer.0 as usize - 1];
                    let reply = serve(&view(peer.0), &**engine, &request).unwrap().into();
                    events.push_back(Event::Answer { token, reply });
                }
                Effect::Work { token, local } => {
                    events.push_back(Event::Done { token, done: perform(to, local) });
                }
                Effect::Filled(one) => filled.push(one),
                Effect::Forget(shards) => panic!("{shards:?} are not given up"),
                Effect::Log { text, .. } => panic!("{text}"),
            }
        }
    }
    (filled, bootstrap.progress())
}

fn digests(engine: &Engine) -> Vec<model::Digest> {
    (0..SHARDS as u16).map(|shard| engine.digest(Shard(shard), TimeRange::ALL).unwrap()).collect()
}

/// Two engines with the same rows in blocks of their own; of the last window each has only what the log has.
fn sources() -> Vec<Arc<Engine>> {
    let source = |node: u128| {
        let engine = open(Arc::new(CrashVfs::new()), "/data".as_ref(), node);
        write(&engine, 0..WINDOWS - 1, 15_000);
        engine.flush_all().unwrap();
        // The second has one block more of some time, with rows that the first has too.
        if node == 2 {
            write(&engine, 1..2, 60_000);
            engine.flush_all().unwrap();
        }
        engine
    };
    vec![source(1), source(2)]
}

fn is_whole(filled: &[Filled]) -> bool {
    filled.len() == SHARDS as usize && filled.iter().all(|one| one.missed == 0 && one.failure.is_none())
}

#[test]
fn a_copy_filled_with_files_of_two_others_is_equal_to_them() {
    let from = sources();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let to = open(Arc::new(RealVfs), &dir, ME);
    // Rows that came before, of a window that is in blocks elsewhere.
    write(&to, 2..3, 30_000);
    let (filled, progress) = fill(&to, &from, 100_000);
    assert!(is_whole(&filled), "{filled:?}");
    assert_eq!(digests(&to), digests(&from[0]));
    assert!(to.verify().is_empty() && progress.refused == 0);
    let blocks = |engine: &Engine| engine.blocks().into_iter().map(|block| block.id).collect::<Vec<_>>();
    let ids = from.iter().map(|engine| blocks(engine));
    let counts = ids.map(|theirs| blocks(&to).iter().filter(|id| theirs.contains(id)).count());
    assert!(counts.clone().all(|count| count > 0), "one gave everything: {:?}", counts.collect::<Vec<_>>());
    // Again: nothing is left to do; and after a restart all is still there.
    let before = blocks(&to);
    assert!(is_whole(&fill(&to, &from, 100_000).0));
    assert_eq!(blocks(&to), before);
    drop(to);
    let to = open(Arc::new(RealVfs), &dir, ME);
    assert_eq!(digests(&to), digests(&from[0]));
}

#[test]
fn a_copy_that_loses_power_again_and_again_is_filled_all_the_same() {
    let from = sources();
    let mut vfs = CrashVfs::new();
    let (mut rounds, mut last) = (0, 0);
    loop {
        let to = open(Arc::new(vfs.clone()), "/data".as_ref(), ME);
        let (filled, _) = fill(&to, &from, 40 + 3 * rounds as usize);
        let blocks = to.blocks().len();
        assert!(blocks >= last, "{blocks} blocks after {last}");
        if is_whole(&filled) {
            assert_eq!(digests(&to), digests(&from[0]));
            assert!(to.verify().is_empty());
            break;
        }
        rounds += 1;
        assert!(rounds < 200, "it does not end");
        drop(to);
        // The power fails, one time after all that was done and one time somewhere before.
        let journal = vfs.journal();
        let exploration = disk::crash::Exploration { subsets_max: 2, samples: 1, seed: rounds };
        let after = journal.len() - (rounds as usize * 7) % journal.len().clamp(1, 40);
        let crash = journal.states(&exploration).filter(|crash| crash.after <= after).last().unwrap();
        vfs = crash.vfs;
        last = open(Arc::new(vfs.clone()), "/data".as_ref(), ME).blocks().len();
    }
    assert!(rounds > 3, "{rounds} rounds");
}
