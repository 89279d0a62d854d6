//! kill -9 in the middle of writing.
//!
//! Four connections write samples whose value is a function of series and timestamp. Each remembers what was
//! acknowledged. The process is killed at a random moment, 20 times, and restarted on the same folder; then every
//! acknowledged sample must be there, and every sample that is there must have been sent and carry its value.
//!
//! Time in the data runs much faster than on the clock, so heads are flushed to blocks meanwhile; every fifth kill hits
//! in the middle of that. How far it runs between two kills is bounded, or a fast disk would let it run through years:
//! a writer that has come so far repeats its newest requests, which changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::client::Client;
use tests::process::{BOUND, Sarsen, free_port};
use tests::random::{Random, mix, now_ms};
use tests::until::until;
use tests::wire::{Series, v1, v2};

const KILLS: usize = 20;
const WRITERS: u64 = 4;
/// Series of each writer; every request has one sample of each.
const SERIES: u64 = 25;
/// Between two samples of a series.
const STEP_MS: i64 = 15_000;
/// Most new requests of a writer between two kills: half a day of data, and six windows to flush.
const REQUESTS_MAX: i64 = 3_000;

/// What a series has at a time. An integer, so that it survives every textual form.
fn value(writer: u64, series: u64, timestamp: i64) -> f64 {
    (mix(mix(writer << 32 | series) ^ timestamp as u64) >> 20) as f64
}

/// One connection and what became of its requests. Request number k carries the samples at `start + k * STEP_MS`.
struct Writer {
    number: u64,
    start: i64,
    random: Random,
    /// Numbers of requests that no answer has settled yet: those in flight, or held back to arrive out of order.
    open: Vec<i64>,
    next: i64,
    sent: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
}

impl Writer {
    fn new(number: u64, start: i64, seed: u64) -> Writer {
        let random = Random::new(seed ^ number);
        Writer {
            number,
            start,
            random,
            open: vec![],
            next: 0,
            sent: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn timestamp(&self, request: i64) -> i64 {
        self.start + request * STEP_MS
    }

    /// Writes until a request gets no answer or the test says stop. Requests leave in an order shuffled within a
    /// window of eight; what got no answer before a crash is sent again after it, as a sender does.
    fn run(&mut self, client: &Client, stop: &AtomicBool, acknowledged: &AtomicU64) {
        let end = self.next + REQUESTS_MAX;
        while !stop.load(Ordering::Relaxed) {
            while self.open.len() < 8 {
                if self.next < end {
                    self.open.push(self.next);
                    self.next += 1;
                } else {
                    self.open.push(end - 1 - self.random.below(8) as i64);
                }
            }
            let index = self.random.below(self.open.len() as u64) as usize;
            let request = self.open[index];
            let timestamp = self.timestamp(request);
            let series: Vec<Series> = (0..SERIES)
                .map(|series| {
                    let labels = [("writer", self.number.to_string()), ("series", series.to_string())];
                    let labels =
                        [("__name__", "crash"), (labels[0].0, &labels[0].1), (labels[1].0, &labels[1].1)];
                    Series::new(&labels).sample(timestamp, value(self.number, series, timestamp))
                })
                .collect();
            self.sent.insert(request);
            let answer = if self.number.is_multiple_of(2) {
                client.send("POST", "/api/v1/write", &[], &v1::request(&series).snappy())
            } else {
                let content = ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
                client.send("POST", "/api/v1/write", &[content], &v2::request(&series).snappy())
            };
            match answer {
                Ok(response) if response.status == 204 => {
                    self.open.swap_remove(index);
                    self.acknowledged.insert(request);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response) if response.status >= 500 => {}
                Ok(response) => {
                    panic!("{} is no answer to a good request: {}", response.status, response.body)
                }
                Err(_) => return,
            }
        }
    }

    /// Compares the node's samples of the requests from `first` on with what was sent and acknowledged.
    fn check(&self, client: &Client, first: i64) -> u64 {
        let (from, to) = (self.timestamp(first), self.timestamp(self.next));
        let query = format!("crash{{writer=\"{}\"}}[{}ms]", self.number, to - from + 1);
        let matrix = client.instant(&query, to as f64 / 1e3).expect("the node answers after a crash");
        let mut seen = 0;
        for series in 0..SERIES {
            let found = matrix.iter().find(|(labels, _)| labels["series"] == series.to_string());
            let points = found.map_or(&[][..], |(_, points)| points);
            let mut requests = BTreeSet::new();
            for (seconds, got) in points {
                let timestamp = (seconds * 1e3).round() as i64;
                let request = (timestamp - self.start) / STEP_MS;
                assert_eq!(self.timestamp(request), timestamp, "nobody wrote a sample at this time");
                assert!(self.sent.contains(&request), "request {request} was never sent");
                let want = value(self.number, series, timestamp);
                assert_eq!(*got, want, "series {series} of writer {} at {timestamp}", self.number);
                requests.insert(request);
            }
            let missing: Vec<_> =
                self.acknowledged.range(first..).filter(|k| !requests.contains(k)).collect();
            assert!(
                missing.is_empty(),
                "acknowledged and gone: series {series} of writer {}, requests {missing:?}",
                self.number
            );
            seen += points.len() as u64;
        }
        seen
    }
}

/// Files below a folder; 0 if it is not there.
fn files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let count = |entry: std::fs::DirEntry| if entry.path().is_dir() { files(&entry.path()) } else { 1 };
    entries.filter_map(Result::ok).map(count).sum()
}

#[test]
fn no_acknowledged_sample_is_missing_after_twenty_kills_in_the_middle_of_writing() {
    let mut random = Random::announced("crash");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    // Own metrics are of now, and as long as the present window of two hours is young, nothing before it is flushed, since late samples may come: there
    // would be blocks or not by the time of day.
    let mut sarsen = Sarsen::start_silent(dir.path(), free_port());
    // Far enough back that the present is not reached.
    let start = now_ms() / STEP_MS * STEP_MS - (KILLS as i64 + 1) * REQUESTS_MAX * STEP_MS;
    let seed = random.number();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, start, seed)).collect();
    let began = Instant::now();

    for kill in 0..KILLS {
        let first: Vec<i64> =
            writers.iter().map(|writer| writer.open.iter().copied().min().unwrap_or(0)).collect();
        let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
        // The moment is counted in acknowledgements, and then some microseconds: it hits every phase of a request.
        let moment = 20 + random.below(600);
        let pause = Duration::from_micros(random.below(3_000));
        let blocks = || files(&dir.path().join("data/blocks"));
        let blocks_min = if kill % 5 == 4 { blocks() + 1 + random.below(40) as usize } else { 0 };
        thread::scope(|scope| {
            for writer in &mut writers {
                let (client, stop, acknowledged) = (sarsen.client.clone(), &stop, &acknowledged);
                scope.spawn(move || writer.run(&client, stop, acknowledged));
            }
            until("the moment of the crash", BOUND, || match acknowledged.load(Ordering::Relaxed) {
                count if count < moment => Err(format!("{count} of {moment} requests acknowledged")),
                _ if blocks() < blocks_min => Err(format!("{} of {blocks_min} blocks", blocks())),
                _ => Ok(()),
            });
            thread::park_timeout(pause);
            sarsen.process.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let restart = Instant::now();
        sarsen = Sarsen::start_silent(dir.path(), sarsen.port);
        let restart = restart.elapsed();
        let seen: u64 =
            writers.iter().zip(first).map(|(writer, first)| writer.check(&sarsen.client, first)).sum();
        println!(
            "kill {kill}: after {moment} acknowledgements; ready again in {restart:?}; {seen} samples checked"
        );
    }

    let seen: u64 = writers.iter().map(|writer| writer.check(&sarsen.client, 0)).sum();
    let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged.len() as u64 * SERIES).sum();
    let blocks = files(&dir.path().join("data/blocks"));
    println!("{acknowledged} samples acknowledged, {seen} found, {blocks} blocks, in {:?}", began.elapsed());
    assert!(blocks > 0, "nothing was flushed");
    assert!(acknowledged >= KILLS as u64 * 20 * SERIES, "too little was written to mean anything");
}
