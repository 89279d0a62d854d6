//! What a node does for the others: rows by id, answers with digests, digests of windows, exports.
//!
//! `cargo bench -p storage --bench replica -- [series]`; an hour of 15 s scrapes, in memory and in blocks. CPU time of the one
//! thread that works, the best of several rounds.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use model::{
    Batch, BatchSeries, Digest, Labels, Matcher, Replica, Samples, Selection, SeriesId, Shard, Sink, Source,
    TimeRange, Timestamp,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use storage::{Engine, Options};

const SCRAPES: i64 = 240;
const FIRST: i64 = 1_700_000_000_000 / 7_200_000 * 7_200_000;

/// Ten labels and about 220 bytes, as a node exporter's series in a Kubernetes cluster have.
fn labels(i: usize) -> Labels {
    let (host, series) = (i / 478, i % 478);
    let pairs = [
        ("__name__", format!("node_metric_family_{}_total", series / 6)),
        ("cluster", "production-eu-west-1".into()),
        ("cpu", (series % 6).to_string()),
        ("instance", format!("node-{host:05}.example.internal:9100")),
        ("job", "node-exporter".into()),
        ("mode", ["idle", "user", "system", "iowait", "irq", "steal"][series % 6].into()),
        ("namespace", "monitoring".into()),
        ("pod", format!("node-exporter-{:08x}", host * 2_654_435_761)),
        ("team", format!("team-{}", host % 12)),
        ("zone", ["a", "b", "c"][host % 3].into()),
    ];
    Labels::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_str()))).unwrap()
}

fn open(dir: &std::path::Path) -> Arc<Engine> {
    let options = Options::new(dir, || 7);
    let clock = Arc::new(|| Timestamp(FIRST + SCRAPES * 15_000));
    Engine::open(Arc::new(disk::RealVfs), options, clock, &|_| ()).unwrap()
}

/// The best time of a few rounds, in nanoseconds for each of `count`.
fn best(rounds: usize, count: u64, mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_nanos() as f64 / count as f64
    };
    (0..rounds).map(time).fold(f64::INFINITY, f64::min)
}

fn batches(engine: &Engine, series: usize) -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    for from in (0..series).step_by(2000) {
        let mut batch = Batch::default();
        for i in from..(from + 2000).min(series) {
            let labels = labels(i);
            batch.series.push(BatchSeries {
                id: engine.key().id(labels.as_bytes()),
                checked: true,
                labels_at: batch.bytes.len() as u32,
                labels_len: labels.as_bytes().len() as u32,
                floats_at: batch.timestamps.len() as u32,
                floats_len: 1,
                histograms_at: 0,
                histograms_len: 0,
            });
            batch.bytes.extend_from_slice(labels.as_bytes());
            batch.timestamps.push(0);
            batch.values.push(0);
        }
        batches.push(Arc::new(batch));
    }
    batches
}

/// Seconds that it took to append all scrapes but the first, with labels in the batches or without.
fn fill(engine: &Engine, series: usize, replicated: bool) -> f64 {
    let mut batches = batches(engine, series);
    let mut took = 0.0;
    for scrape in 0..SCRAPES {
        let began = Instant::now();
        for (b, batch) in batches.iter_mut().enumerate() {
            let rows = Arc::get_mut(batch).unwrap();
            rows.timestamps.fill(FIRST + scrape * 15_000 + b as i64 % 15);
            for (i, value) in rows.values.iter_mut().enumerate() {
                // A third constant, a third counters, a third gauges with two decimals.
                let wave = ((scrape as usize * 37 + i * 11) % 1000) as f64;
                let counter = (i * 1000 + scrape as usize * (i % 97)) as f64;
                *value = [i as f64, counter, wave / 100.0][i % 3].to_bits();
            }
            let append = if replicated { Replica::append_replicated } else { Sink::append };
            let appended = append(engine, batch, None).unwrap();
            assert!(appended.unknown.is_empty() && appended.rejected.is_empty());
        }
        took += if scrape > 0 { began.elapsed().as_secs_f64() } else { 0.0 };
        engine.commit().unwrap();
        for batch in &mut batches {
            let batch = Arc::get_mut(batch).unwrap();
            batch.series.iter_mut().for_each(|s| s.checked = false);
            if replicated {
                batch.bytes.clear();
                batch.series.iter_mut().for_each(|s| s.labels_len = 0);
            }
        }
    }
    took
}

/// Reads everything as a query does; with digests, as the answer to a peer.
fn select(engine: &Engine, samples: u64, with_digests: bool) {
    let range = TimeRange::new(FIRST, FIRST + SCRAPES * 15_000);
    let matchers = vec![Matcher::equal("job", "node-exporter")];
    let selection = Selection { matchers, range, series_max: usize::MAX, shards: None };
    let set = engine.select(&selection).unwrap();
    let (mut into, mut count, mut sum) = (Samples::default(), 0, Digest::default());
    for i in 0..set.len() {
        set.read(i, range, &mut into).unwrap();
        count += into.timestamps.len() as u64;
        if with_digests {
            sum += Digest::of(set.id(i), &into);
        }
    }
    black_box(sum);
    assert_eq!(count, samples);
}

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` adds: only to see that it runs.
    let full = std::env::args().any(|a| a == "--bench");
    let series = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let series = series.unwrap_or(if full { 100_000 } else { 1000 });
    let rounds = if full { 5 } else { 1 };
    let samples = series as u64 * SCRAPES as u64;

    let one: Vec<(SeriesId, Samples)> = (0..200u128)
        .map(|i| {
            let timestamps: Vec<i64> = (0..SCRAPES).map(|t| FIRST + t * 15_000).collect();
            let values = timestamps.iter().map(|&t| (t as f64 + i as f64).sqrt()).collect();
            (SeriesId(i << 100 | i), Samples { timestamps, values, ..Samples::default() })
        })
        .collect();
    let hashing = best(200, 200 * SCRAPES as u64, || {
        black_box(one.iter().map(|(id, samples)| Digest::of(*id, samples)).sum::<Digest>());
    });
    println!("Digest::of: {hashing:.2} ns a sample");

    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let engines = [open(dirs[0].path()), open(dirs[1].path())];
    for (engine, replicated) in engines.iter().zip([false, true]) {
        let took = fill(engine, series, replicated);
        let each = took * 1e9 / (samples - series as u64) as f64;
        let what = if replicated { "append_replicated, by id" } else { "append, with labels" };
        println!("{what}: {each:.1} ns a sample");
    }
    let [engine, peer] = &engines;
    let window = TimeRange::new(FIRST, FIRST + 7_200_000 - 1);
    let shards = || (0..64).map(Shard);
    for place in ["memory", "blocks"] {
        if place == "blocks" {
            engine.flush_all().unwrap();
        }
        let without = best(rounds, samples, || select(engine, samples, false));
        let with = best(rounds, samples, || select(engine, samples, true));
        println!(
            "select of {series} series x 1 h in {place}: {without:.1} ns a sample, with digests {with:.1}"
        );
        let scan = best(rounds, samples, || {
            shards().for_each(|shard| {
                black_box(engine.series_digests(shard, window).unwrap());
            });
        });
        println!("digests by series in {place}: {scan:.1} ns a sample");
        let (first, again) = (Instant::now(), |began: Instant| began.elapsed().as_secs_f64() * 1e6 / 64.0);
        let sum: Digest = shards().map(|shard| engine.digest(shard, window).unwrap()).sum();
        let first = again(first);
        let began = Instant::now();
        assert_eq!(sum, shards().map(|shard| engine.digest(shard, window).unwrap()).sum());
        println!("digest of a window in {place}: {first:.1} us, remembered {:.1} us a shard", again(began));
    }
    let peers: Digest = shards().map(|shard| peer.digest(shard, window).unwrap()).sum();
    assert_eq!(peers, shards().map(|shard| engine.digest(shard, window).unwrap()).sum());

    let began = Instant::now();
    let mut exported = 0;
    for shard in shards() {
        let ids: Vec<_> = engine.series_digests(shard, window).unwrap().into_iter().map(|s| s.0).collect();
        let mut rest = &ids[..];
        while !rest.is_empty() {
            let mut batch = Batch::default();
            let next = engine.export(shard, window, rest, 4 << 20, &mut batch).unwrap();
            exported += batch.timestamps.len() as u64;
            rest = next.map_or(&[], |next| &rest[rest.binary_search(&next).unwrap()..]);
        }
    }
    assert_eq!(exported, samples);
    println!(
        "export in parts of 4 MiB: {:.1} ns a sample",
        began.elapsed().as_nanos() as f64 / samples as f64
    );
}
