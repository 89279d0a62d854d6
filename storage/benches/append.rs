//! The write path on a real disk: series created, then scrapes appended, with a thread that commits as in the server.
//!
//! `cargo bench -p storage --bench append -- [series] [scrapes]`; prints CPU time of the whole process, with commits
//! and, at the end, the flush of everything to blocks.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock and at /proc")]

use model::{Batch, BatchSeries, Labels, Sink, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;
use storage::{Engine, Options};

/// CPU seconds of this process, user and system.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

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

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` adds: only to see that it runs.
    let default = if std::env::args().any(|a| a == "--bench") { (100_000, 40) } else { (2_000, 3) };
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (series, scrapes) = (numbers.next().unwrap_or(default.0), numbers.next().unwrap_or(default.1));
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let clock = now.clone();
    let options = Options::new(dir.path(), || 7);
    let began = Instant::now();
    let clock = Arc::new(move || Timestamp(clock.load(Relaxed)));
    let engine = Engine::open(Arc::new(disk::RealVfs), options, clock, &|_| ()).unwrap();
    println!("open of an empty folder: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);

    // Batches of 2,000 series, made once.
    let mut batches: Vec<Arc<Batch>> = Vec::new();
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

    std::thread::scope(|scope| {
        let committing = scope.spawn(|| engine.commit_loop().unwrap());
        let run = |what: &str, batches: &mut [Arc<Batch>], from: usize, to: usize| {
            let (began, cpu_before) = (Instant::now(), cpu());
            for scrape in from..to {
                let t = 1_700_000_000_000 + scrape as i64 * 15_000;
                now.store(t, Relaxed);
                let mut last = None;
                for (b, batch) in batches.iter_mut().enumerate() {
                    let rows = Arc::get_mut(batch).unwrap();
                    rows.timestamps.fill(t + b as i64 % 15);
                    for (i, value) in rows.values.iter_mut().enumerate() {
                        // A third constant, a third counters, a third gauges with two decimals.
                        let wave = ((scrape * 37 + i * 11) % 1000) as f64;
                        *value =
                            [i as f64, (i * 1000 + scrape * (i % 97)) as f64, wave / 100.0][i % 3].to_bits();
                    }
                    last = Some(engine.append(batch, None).unwrap());
                }
                assert!(last.is_some_and(|l| l.unknown.is_empty() && l.rejected.is_empty()));
            }
            engine.commit().unwrap();
            let samples = ((to - from) * series) as f64;
            let used = cpu() - cpu_before;
            println!(
                "{what}: {samples} samples, {:.2} s, {used:.2} CPU-s, {:.0} samples per CPU-s, {:.3} CPU-us each, RSS {:.0} MiB",
                began.elapsed().as_secs_f64(),
                samples / used,
                used * 1e6 / samples,
                memory_mib()
            );
        };
        run("create", &mut batches, 0, 1);
        batches.iter_mut().flat_map(|b| &mut Arc::get_mut(b).unwrap().series).for_each(|s| s.checked = false);
        run("steady", &mut batches, 1, scrapes + 1);
        let stats = engine.stats();
        println!("head: {} bytes a series", stats.head_bytes / stats.series.max(1));
        println!("log: {:.2} bytes a sample", stats.wal_bytes as f64 / stats.floats as f64);
        let (began, cpu_before) = (Instant::now(), cpu());
        engine.flush_all().unwrap();
        let stats = engine.stats();
        println!(
            "flush: {:.2} s, {:.2} CPU-s, {} blocks, {:.2} bytes a sample",
            began.elapsed().as_secs_f64(),
            cpu() - cpu_before,
            stats.blocks,
            stats.block_bytes as f64 / stats.floats as f64
        );
        engine.close().unwrap();
        committing.join().unwrap();
    });
}
