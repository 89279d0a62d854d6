//! Bytes and nanoseconds a sample, of the codec and of whole blocks.
//!
//! ```text
//! cargo bench -p storage --bench codec                    a synthetic fleet
//! cargo bench -p storage --bench codec -- FILE            the output of `promtool tsdb dump`; `-` reads standard input
//! ```
//!
//! Every value is compared bit for bit after decoding. Times are of one thread, the best of several runs: on a shared
//! machine only the best says something.

use disk::Mapped;
use model::{Labels, Matcher, Samples, Shard, TimeRange};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use storage::block::{self, Builder, Header, Reader};
use storage::codec::{floats, times};

type Fleet = Vec<(Labels, Samples)>;

fn main() {
    let argument = std::env::args().skip(1).find(|a| a != "--bench");
    let fleet = match argument.as_deref() {
        None => synthetic(),
        Some("-") => parse(std::io::stdin().lock()),
        Some(path) => parse(std::fs::read(path).expect("the dump is readable").as_slice()),
    };
    let samples: usize = fleet.iter().map(|(_, s)| s.timestamps.len()).sum();
    println!("{} series, {samples} samples", fleet.len());
    for chunk in [32, 64, 120, 240, 480] {
        codec(&fleet, chunk, samples as f64);
    }
    for shards in [1, 64] {
        blocks(&fleet, shards, samples as f64);
    }
}

fn best_of<T>(runs: usize, mut run: impl FnMut() -> T) -> (T, f64) {
    let mut best = f64::MAX;
    let mut result = None;
    for _ in 0..runs {
        let start = Instant::now();
        result = Some(run());
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    (result.expect("at least one run"), best)
}

fn codec(fleet: &Fleet, chunk: usize, samples: f64) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let ((), encode) = best_of(5, || {
        bytes.clear();
        ends.clear();
        for (_, s) in fleet {
            for values in s.values.chunks(chunk) {
                floats::encode(values, &mut bytes);
                ends.push(bytes.len());
            }
        }
    });
    let mut out = Vec::with_capacity(chunk);
    let mut pass = |check: bool| {
        let mut at = 0;
        let mut ends = ends.iter();
        for (_, s) in fleet {
            for values in s.values.chunks(chunk) {
                let end = *ends.next().expect("as many chunks as were encoded");
                out.clear();
                floats::decode(&bytes[at..end], values.len(), &mut out).expect("own bytes decode");
                std::hint::black_box(&out);
                if check {
                    assert!(out.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
                }
                at = end;
            }
        }
    };
    pass(true);
    let ((), decode) = best_of(5, || pass(false));
    let mut clock = Vec::new();
    let (column_bytes, clock_encode) = best_of(3, || {
        clock.clear();
        fleet
            .iter()
            .flat_map(|(_, s)| s.timestamps.chunks(chunk))
            .for_each(|t| times::encode(t, t[0], &mut clock));
        clock.len()
    });
    let mut column = Vec::new();
    let ((), clock_decode) = best_of(3, || {
        let mut rest = &clock[..];
        for (_, s) in fleet {
            for t in s.timestamps.chunks(chunk) {
                column.clear();
                rest = times::decode(rest, t[0], t.len(), &mut column).expect("own bytes decode");
                std::hint::black_box(&column);
            }
        }
    });
    println!(
        "chunk {chunk:3}: values {:.3} B, encode {:.1} ns, decode {:.2} ns | own timestamps {:.3} B, encode {:.1} ns, decode {:.2} ns",
        bytes.len() as f64 / samples,
        encode / samples,
        decode / samples,
        column_bytes as f64 / samples,
        clock_encode / samples,
        clock_decode / samples,
    );
}

fn blocks(fleet: &Fleet, shards: u32, samples: f64) {
    let key = model::SeriesKey([1, 2, 3, 4]);
    let shard = |labels: &Labels| key.id(labels.as_bytes()).shard(shards).0;
    let (files, build) = best_of(1, || {
        (0..shards as u16)
            .map(|number| {
                let header = Header { shard: Shard(number), range: TimeRange::ALL, level: 0, id: 1 };
                let mut builder = Builder::new(header);
                for (labels, samples) in fleet.iter().filter(|(labels, _)| shard(labels) == number) {
                    builder.add(key.id(labels.as_bytes()), labels, samples).expect("the series fit");
                }
                builder.encode().expect("the block fits")
            })
            .collect::<Vec<_>>()
    });
    let total: u64 = files.iter().map(|(_, meta)| meta.bytes).sum();
    print!("{shards} blocks, {:.4} B a sample, built in {:.1} ns:", total as f64 / samples, build / samples);
    let readers: Vec<Reader> = (files.into_iter())
        .map(|(bytes, _)| Reader::from_bytes(Mapped(Arc::new(bytes)), Path::new("bench")).expect("own block"))
        .collect();
    let mut sections: BTreeMap<String, u64> = BTreeMap::new();
    for stats in readers.iter().map(Reader::stats) {
        *sections.entry("frame".into()).or_default() += stats.frame_bytes;
        stats
            .sections
            .iter()
            .for_each(|(s, bytes)| *sections.entry(format!("{s:?}").to_lowercase()).or_default() += bytes);
    }
    sections.iter().for_each(|(name, bytes)| print!(" {name} {:.4}", *bytes as f64 / samples));
    println!();

    let by_labels: Vec<(&Reader, Vec<Matcher>)> = (fleet.iter().step_by(fleet.len().div_ceil(1000)))
        .map(|(labels, _)| {
            (&readers[usize::from(shard(labels))], labels.iter().map(|(n, v)| Matcher::equal(n, v)).collect())
        })
        .collect();
    let select = |times: usize| {
        best_of(times, || by_labels.iter().map(|(r, m)| r.select(m).expect("readable").len()).sum::<usize>())
    };
    let (found, hit) = select(5);
    assert_eq!(found, by_labels.len());
    let missing = [Matcher::equal("__name__", "no_such_metric"), Matcher::equal("job", "node")];
    let (_, miss) =
        best_of(5, || readers.iter().map(|r| r.select(&missing).expect("readable").len()).sum::<usize>());
    let mut bytes = Vec::new();
    let (series, labels) = best_of(5, || {
        let mut series = 0;
        for reader in &readers {
            let mut cursor = reader.cursor();
            for number in 0..reader.series_count() {
                bytes.clear();
                cursor.bytes(number, &mut bytes).expect("readable");
                series += 1;
            }
        }
        series
    });
    let ((), single) = best_of(5, || {
        for reader in &readers {
            for number in 0..reader.series_count() {
                bytes.clear();
                reader.labels_bytes(number, &mut bytes).expect("readable");
            }
        }
    });
    let mut out = Samples::default();
    let (read_samples, read) = best_of(5, || {
        let mut count = 0;
        for reader in &readers {
            for number in 0..reader.series_count() {
                out.clear();
                reader.read(number, TimeRange::ALL, &mut out).expect("readable");
                count += out.timestamps.len();
            }
        }
        count
    });
    assert_eq!(read_samples as f64, samples);
    println!(
        "    find one series {:.1} us, a miss {:.2} us a block, labels {:.0} ns (one by one {:.0} ns), read all {:.2} ns a sample",
        hit / by_labels.len() as f64 / 1e3,
        miss / readers.len() as f64 / 1e3,
        labels / f64::from(series),
        single / f64::from(series),
        read / samples,
    );
}

/// Lines such as `{__name__="up", job="node"} 1 1795359501412`.
fn parse(mut input: impl BufRead) -> Fleet {
    let mut fleet = BTreeMap::<String, Samples>::new();
    let mut line = String::new();
    while input.read_line(&mut line).expect("the dump is text") > 0 {
        if let Some((rest, t)) = line.trim_end().rsplit_once(' ')
            && let Some((labels, value)) = rest.rsplit_once(' ')
            && let (Ok(t), Ok(value)) = (t.parse::<i64>(), value.parse::<f64>())
        {
            let samples = match fleet.get_mut(labels) {
                Some(samples) => samples,
                None => fleet.entry(labels.into()).or_default(),
            };
            samples.timestamps.push(t);
            samples.values.push(value);
        }
        line.clear();
    }
    let pairs = |text: &str| {
        let text = text.trim_start_matches('{').trim_end_matches('}');
        let mut pairs = BTreeMap::new();
        let mut rest = text;
        while let Some((name, after)) = rest.split_once("=\"") {
            let mut end = 0;
            while !after[end..].starts_with('"') {
                end += if after[end..].starts_with('\\') { 2 } else { 1 };
            }
            pairs.insert(name.trim_start_matches([',', ' ']).to_string(), after[..end].to_string());
            rest = &after[end + 1..];
        }
        Labels::from_pairs(pairs.iter().map(|(n, v)| (&**n, &**v))).expect("valid labels")
    };
    let mut fleet: Fleet = fleet.into_iter().map(|(labels, samples)| (pairs(&labels), samples)).collect();
    fleet.sort_by(|a, b| block::order(&a.0, &b.0));
    fleet
}

/// A generator good enough for benchmarks (xorshift).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What servers usually expose, in rough proportion.
#[derive(Clone, Copy)]
enum Kind {
    Constant,
    Idle,
    Counter(f64),
    Seconds(f64, i32),
    Gauge(f64, f64),
    Decimal(f64, i32),
    Noise,
}

fn synthetic() -> Fleet {
    let kinds: [(&str, usize, Kind); 12] = [
        ("node_info", 60, Kind::Constant),
        ("node_errors_total", 30, Kind::Idle),
        ("node_packets_total", 25, Kind::Counter(21_000.0)),
        ("node_bytes_total", 15, Kind::Counter(2.4e7)),
        ("http_bucket", 60, Kind::Counter(300.0)),
        ("node_cpu_seconds_total", 45, Kind::Seconds(2.0, 2)),
        ("container_cpu_seconds_total", 4, Kind::Seconds(3.0, 9)),
        ("node_memory_bytes", 25, Kind::Gauge(2e6, 4096.0)),
        ("node_sockets", 15, Kind::Gauge(300.0, 1.0)),
        ("node_temperature", 12, Kind::Decimal(45.0, 1)),
        ("cache_hit_ratio", 4, Kind::Decimal(0.6, 4)),
        ("scrape_duration_seconds", 16, Kind::Noise),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut fleet = Fleet::new();
    for host in 0..8 {
        let late = |i: i64| if (i * 7919 + host) % 33 == 0 { (i * 31 + host) % 9 } else { 0 };
        let scrapes: Vec<i64> =
            (0..1440).map(|i| 1_767_225_600_000 + host * 1731 + i * 15_000 + late(i)).collect();
        for (name, count, kind) in kinds {
            for number in 0..count {
                let labels = Labels::from_pairs([
                    ("__name__", name),
                    ("instance", &*format!("10.0.0.{host}:9100")),
                    ("job", "node"),
                    ("n", &*format!("{number}")),
                ]);
                let scale = 0.5 + random.unit();
                let mut at = (random.unit() * 1e6).round();
                let values = scrapes.iter().map(|_| step(kind, &mut at, scale, &mut random)).collect();
                let samples = Samples { timestamps: scrapes.clone(), values, ..Samples::default() };
                fleet.push((labels.expect("valid labels"), samples));
            }
        }
    }
    fleet.sort_by(|a, b| block::order(&a.0, &b.0));
    fleet
}

fn step(kind: Kind, at: &mut f64, scale: f64, random: &mut Random) -> f64 {
    let round = |value: f64, decimals: i32| (value * 10f64.powi(decimals)).round() / 10f64.powi(decimals);
    match kind {
        Kind::Constant => *at,
        Kind::Idle => {
            *at += f64::from(u8::from(random.unit() < 0.01));
            *at
        }
        Kind::Counter(rate) => {
            *at += (rate * scale * (0.5 + random.unit())).floor();
            *at
        }
        Kind::Seconds(rate, decimals) => {
            *at += rate * scale * (0.8 + 0.4 * random.unit());
            round(*at, decimals)
        }
        Kind::Gauge(spread, unit) => {
            *at += (random.unit() - 0.5) * spread * scale;
            (at.abs() / unit).round() * unit
        }
        Kind::Decimal(mean, decimals) => round(mean * (0.9 + 0.2 * random.unit()), decimals),
        Kind::Noise => (0.002 * scale * (0.7 + 0.6 * random.unit()) * 1e9).round() / 1e9,
    }
}
