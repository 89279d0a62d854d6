//! How fast a copy is filled with files of another node, over loopback and through all of both nodes, beside `cp` of the same files.
//!
//! `cargo bench -p tests --bench bootstrap -- [MiB]`
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use cluster::node::{Directory, Options, boot};
use cluster::state::Command;
use disk::{RealVfs, Vfs};
use model::{Labels, Samples, Shard, Sink, TimeRange, Timestamp};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use storage::{Engine, Identity, block};

const SHARDS: u32 = 16;
const WINDOWS: i64 = 6;
const WINDOW_MS: i64 = 7_200_000;
const ROWS: usize = 480;
/// The clocks stand still before the samples, so that repair takes them for rows that are still under way and leaves them alone.
const NOW: i64 = 1_700_000_000_000 / WINDOW_MS * WINDOW_MS;

fn random(seed: u128) -> impl Fn() -> u128 + Send + Sync + 'static {
    let drawn = AtomicU64::new(1);
    move || {
        (u128::from(drawn.fetch_add(1, Relaxed)) ^ seed << 64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}

fn options(dir: &Path, seed: u128, join: Option<String>) -> Options {
    Options {
        listen: "127.0.0.1:0".to_owned(),
        shards: SHARDS,
        replication_factor: 2,
        join: join.into_iter().collect(),
        bootstrap_bytes_per_second: 1 << 40,
        ..Options::new(dir, random(seed), || Timestamp(NOW))
    }
}

fn open(dir: &Path, directory: Directory) -> Arc<Engine> {
    let Directory { cluster, node, disk, shards } = directory;
    let mut options = storage::Options::new(dir, random(node));
    options.identity = Some(Identity { cluster, node, disk, shards });
    Engine::open(Arc::new(RealVfs), options, Arc::new(|| Timestamp(NOW)), &|_| ()).expect("an engine")
}

/// Writes blocks of about so many bytes in all, as a flush does.
fn populate(dir: &Path, engine: &Engine, bytes: u64) {
    let each = bytes / u64::from(SHARDS) / WINDOWS as u64;
    let (mut seed, mut samples) = (7u64, Samples::default());
    let id_of = random(99);
    for shard in (0..SHARDS).map(|shard| Shard(shard as u16)) {
        let folder = dir.join("blocks/default").join(shard.0.to_string());
        RealVfs.create_dir_all(&folder).expect("a folder");
        let count = (each / (8 * ROWS as u64)).max(1) as usize;
        let labels = (0..)
            .map(|i| Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:09}"))]).expect("labels"));
        let of_shard = labels.filter(|l| engine.key().id(l.as_bytes()).shard(SHARDS) == shard);
        let series: Vec<Labels> = of_shard.take(count).collect();
        for window in 0..WINDOWS {
            let first = NOW + window * WINDOW_MS;
            let range = TimeRange::new(first, first + WINDOW_MS - 1);
            let mut builder = block::Builder::new(block::Header { shard, range, level: 0, id: id_of() });
            for labels in &series {
                samples.clear();
                for row in 0..ROWS as i64 {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    samples.timestamps.push(first + row * 15_000);
                    samples.values.push(f64::from_bits(seed >> 2));
                }
                builder.add(engine.key().id(labels.as_bytes()), labels, &samples).expect("a series");
            }
            builder.finish(&RealVfs, &folder).expect("a block");
        }
    }
}

fn cp(from: &Path, to: &Path) -> Duration {
    let began = Instant::now();
    let status = process::Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
    began.elapsed()
}

/// As the blocks of a copy are: each file, one after the other.
fn fsync_all(folder: &Path) {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = files.partition(|path| path.is_dir());
    if !files.is_empty() {
        assert!(process::Command::new("sync").args(files).status().expect("sync").success());
    }
    folders.iter().for_each(|folder| fsync_all(folder));
}

/// What was written before must not be waited for in what is measured next.
fn settle() {
    assert!(process::Command::new("sync").status().expect("sync").success());
}

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` adds: only to see that it runs.
    let full = std::env::args().any(|argument| argument == "--bench");
    let mib = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let bytes = mib.unwrap_or(if full { 500 } else { 4 }) << 20;
    let rounds = if full { 4 } else { 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for round in 0..rounds {
        let place = folder.path().join(round.to_string());
        let (source, target) = (place.join("source"), place.join("target"));
        runtime.block_on(measure(&place, &source, &target, bytes));
        std::fs::remove_dir_all(&place).expect("it is removed");
    }
}

async fn measure(place: &Path, source: &Path, target: &Path, bytes: u64) {
    let first = boot(options(source, 1, None), Arc::new(RealVfs), None).await.expect("a first node");
    let address = first.address().to_string();
    let directory = first.directory();
    let engine = open(source, directory);
    populate(source, &engine, bytes);
    engine.close().expect("it closes");
    drop(engine);
    let engine = open(source, directory);
    let stored = engine.stats().block_bytes;
    settle();
    let before = cp(&source.join("blocks"), &place.join("before"));
    settle();
    let first = first.serve(engine).await.expect("it serves");
    first.propose(Command::NoteData).await.expect("copies are moved from now on");
    let second =
        boot(options(target, 2, Some(address)), Arc::new(RealVfs), None).await.expect("a second node");
    let empty = open(target, second.directory());
    let second = second.serve(empty.clone()).await.expect("it serves");
    // The leader begins all moves at once.
    let mut often = tokio::time::interval(Duration::from_millis(5));
    while second.filling().running == 0 {
        often.tick().await;
    }
    let began = Instant::now();
    while second.filling().filled < u64::from(SHARDS) {
        often.tick().await;
    }
    let (took, copied) = (began.elapsed(), second.filling().bytes_done);
    settle();
    let after = cp(&source.join("blocks"), &place.join("after"));
    let began = Instant::now();
    fsync_all(&place.join("after"));
    let durable = after + began.elapsed();
    assert_eq!((copied, empty.stats().block_bytes), (stored, stored));
    let rate = |took: Duration| copied as f64 / 1e6 / took.as_secs_f64();
    println!(
        "{:.0} MB in {} blocks: filled at {:.0} MB/s, durably; cp at {:.0} and {:.0} MB/s to memory, durably at {:.0} MB/s: {:.0} % of that",
        copied as f64 / 1e6,
        empty.stats().blocks,
        rate(took),
        rate(before),
        rate(after),
        rate(durable),
        100.0 * rate(took) / rate(durable),
    );
    first.stop().await;
    second.stop().await;
}
