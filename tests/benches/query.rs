//! Queries over the real storage engine, in one process: a long window over few series, a count over many, and how soon
//! a query stops once it is cancelled.
//!
//! `cargo bench -p tests --bench query -- [threads]`
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use model::{Batch, BatchSeries, Labels, Sink, Timestamp};
use query::{Options, Params};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const INTERVAL_MS: i64 = 15_000;
const START_MS: i64 = 1_700_000_000_000;

/// Adds `count` series of `samples` samples each.
fn load(storage: &storage::Engine, metric: &str, count: usize, samples: usize) {
    for from in (0..count).step_by(500) {
        let mut batch = Batch::default();
        for i in from..count.min(from + 500) {
            let (instance, core) = (format!("host-{:05}", i / 8), (i % 8).to_string());
            let pairs = [
                ("__name__", metric),
                ("core", core.as_str()),
                ("instance", instance.as_str()),
                ("job", "node"),
            ];
            let labels = Labels::from_pairs(pairs).unwrap();
            let bytes = labels.as_bytes();
            batch.series.push(BatchSeries {
                id: storage.key().id(bytes),
                checked: true,
                labels_at: batch.bytes.len() as u32,
                labels_len: bytes.len() as u32,
                floats_at: batch.timestamps.len() as u32,
                floats_len: samples as u32,
                histograms_at: 0,
                histograms_len: 0,
            });
            batch.bytes.extend_from_slice(bytes);
            for k in 0..samples {
                batch.timestamps.push(START_MS + k as i64 * INTERVAL_MS);
                batch.values.push((((k * 7 + i * 13) % 101) as f64 * 0.25).to_bits());
            }
        }
        assert!(storage.append(&Arc::new(batch), None).unwrap().rejected.is_empty());
        storage.commit().unwrap();
    }
}

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` adds: only to see that it runs.
    let full = std::env::args().any(|a| a == "--bench");
    let threads = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(2);
    let (few, many, samples) = if full { (400, 12_000, 1440) } else { (8, 40, 40) };
    let folder = tempfile::tempdir().unwrap();
    let options = storage::Options::new(folder.path(), || 1);
    let end = START_MS + samples as i64 * INTERVAL_MS;
    let clock = Arc::new(move || Timestamp(end));
    let storage = storage::Engine::open(Arc::new(disk::RealVfs), options, clock, &|_| ()).unwrap();
    let began = Instant::now();
    load(&storage, "few", few, samples);
    load(&storage, "many", many, samples);
    println!("loaded in {:.1} s", began.elapsed().as_secs_f64());
    let engine = query::Engine::new(Options { threads, ..Options::default() });
    let (start, end) = (Timestamp(START_MS), Timestamp(end));

    let instant = |text: &str| {
        let began = Instant::now();
        let answer = engine.instant(&*storage, text, end, &Params::default()).unwrap();
        report(text, began.elapsed(), answer.samples_read);
    };
    let range = |text: &str, step: i64| {
        let began = Instant::now();
        let answer = engine.range(&*storage, text, start, end, step, &Params::default()).unwrap();
        report(&format!("{text} every {} s", step / 1000), began.elapsed(), answer.samples_read);
    };
    for _ in 0..if full { 3 } else { 1 } {
        instant("avg_over_time(few[6h])");
        range("avg_over_time(few[6h])", INTERVAL_MS);
        range("sum_over_time(few[6h])", INTERVAL_MS);
        range("stddev_over_time(few[6h])", INTERVAL_MS);
        range("max_over_time(few[6h])", INTERVAL_MS);
        range("rate(few[1h])", INTERVAL_MS);
        instant("count({job=\"node\"})");
        range("count({job=\"node\"})", 60_000);
        range("sum by (instance) (rate(many[5m]))", 60_000);
        range("topk(5, many)", 60_000);
        range("quantile(0.9, many)", 60_000);
    }

    for text in [
        "sum by (core) (rate(many[1h]))",
        "quantile_over_time(0.9, many[6h])",
        "topk(5, many)",
        "many * on(instance, core) many",
        "label_replace(many, \"x\", \"$1\", \"instance\", \"(.*)\")",
        "histogram_quantile(0.9, label_replace(many, \"le\", \"$1\", \"core\", \"(.*)\"))",
        "count_values(\"v\", many)",
    ] {
        let cancel = Arc::new(AtomicBool::new(false));
        let params = Params { cancel: Some(cancel.clone()), ..Params::default() };
        let (answer, late) = std::thread::scope(|scope| {
            let (done, ended) = std::sync::mpsc::channel();
            let (engine, storage, params) = (&engine, &storage, &params);
            scope.spawn(move || {
                let answer = engine.range(&**storage, text, start, end, INTERVAL_MS, params);
                done.send((answer, Instant::now())).expect("the receiver outlives the query");
            });
            let early = ended.recv_timeout(Duration::from_millis(150));
            let asked = Instant::now();
            cancel.store(true, Relaxed);
            let (answer, ended) = early.or_else(|_| ended.recv()).expect("the query sends its answer");
            (answer, ended.saturating_duration_since(asked))
        });
        let how = match answer {
            Ok(_) => "answered before".to_string(),
            Err(error) => error.to_string(),
        };
        println!("{text}: {how}, {:.1} ms after the request to stop", late.as_secs_f64() * 1e3);
    }
}

fn report(text: &str, took: Duration, samples: u64) {
    println!("{:9.2} ms  {samples:>10} samples  {text}", took.as_secs_f64() * 1e3);
}
