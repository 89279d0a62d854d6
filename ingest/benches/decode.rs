//! What one series costs on its way in: `cargo bench -p ingest`.
//!
//! A fleet of 2,000 series with 10 to 12 labels and one sample each, about 230 label bytes a series. The best of many
//! rounds is reported, since anything slower is somebody else's work on the machine.

use ingest::exposition::{self, Format, Options};
use ingest::remote_write::encode::{self, Series};
use ingest::remote_write::{Protocol, decode, decompress};
use ingest::{Limits, store};
use model::{Appended, Batch, Error, Metadata, SeriesKey, Sink, Written};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const SERIES: usize = 2000;
const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);

fn fleet() -> Vec<Series> {
    (0..SERIES)
        .map(|i| {
            let host = i / 40;
            let mut labels = vec![
                ("__name__".to_string(), format!("node_subsystem_{:02}_operations_total", i % 40)),
                ("cluster".to_string(), "production-eu-west-1".to_string()),
                ("cpu".to_string(), (i % 16).to_string()),
                ("datacenter".to_string(), format!("dc-{}", host % 3)),
                ("env".to_string(), "production".to_string()),
                ("instance".to_string(), format!("host-{host:05}.example.net:9100")),
                ("job".to_string(), "node-exporter".to_string()),
                ("mode".to_string(), ["idle", "system", "user", "iowait"][i % 4].to_string()),
                ("pod".to_string(), format!("node-exporter-{:08x}-x7k2p", host * 2_654_435)),
                ("rack".to_string(), format!("rack-{:03}", host % 20)),
            ];
            if i % 3 > 0 {
                labels.push(("team".to_string(), "infrastructure".to_string()));
            }
            if i % 3 > 1 {
                labels.push(("zone".to_string(), format!("eu-west-1{}", ["a", "b", "c"][host % 3])));
            }
            let mut series = Series::new(&[], &[(1_750_000_000_000 + i as i64 % 7, i as f64 * 1.25)]);
            series.labels = labels;
            series
        })
        .collect()
}

fn text(series: &[Series]) -> String {
    let mut out = String::new();
    for one in series {
        let inside: Vec<String> = one.labels[1..].iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let sample = &one.samples[0];
        out.push_str(&format!(
            "{}{{{}}} {} {}\n",
            one.labels[0].1,
            inside.join(","),
            sample.value,
            sample.timestamp
        ));
    }
    out
}

/// Takes everything: what is left is the cost of storing's own work.
struct Known;

impl Sink for Known {
    fn key(&self) -> SeriesKey {
        KEY
    }

    fn append(&self, batch: &Arc<Batch>, _: Option<&[u32]>) -> Result<Appended, Error> {
        let written = Written { floats: batch.values.len() as u64, histograms: 0 };
        let durable = Box::pin(std::future::ready(Ok(())));
        Ok(Appended { durable, written, unknown: Vec::new(), rejected: Vec::new() })
    }

    fn describe(&self, _: &[Metadata]) -> Result<(), Error> {
        Ok(())
    }
}

/// Says that it knows nothing, once.
struct Unknown;

impl Sink for Unknown {
    fn key(&self) -> SeriesKey {
        KEY
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let unknown = if only.is_some() { Vec::new() } else { (0..batch.series.len() as u32).collect() };
        let durable = Box::pin(std::future::ready(Ok(())));
        Ok(Appended { durable, written: Written::default(), unknown, rejected: Vec::new() })
    }

    fn describe(&self, _: &[Metadata]) -> Result<(), Error> {
        Ok(())
    }
}

/// Nanoseconds per series of the best round.
fn measure(what: &str, bytes: usize, mut prepare: impl FnMut(), mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_millis() < 1500 {
        prepare();
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    println!("{what:<44} {:>7.1} ns/series {:>8.0} MB/s", best / SERIES as f64, bytes as f64 / best * 1000.0);
}

fn main() {
    let fleet = fleet();
    let limits = Limits::default();
    let label_bytes: usize =
        fleet.iter().flat_map(|s| &s.labels).map(|(n, v)| n.len() + v.len()).sum::<usize>() / SERIES;
    println!("{SERIES} series, {label_bytes} bytes of names and values each");
    let cell = std::cell::RefCell::new(Batch::default());
    for protocol in [Protocol::V1, Protocol::V2] {
        let message = match protocol {
            Protocol::V1 => encode::v1(&fleet, &[]),
            Protocol::V2 => encode::v2(&fleet),
        };
        let body = encode::compress(&message);
        println!("{protocol:?}: {} bytes, {} in snappy", message.len(), body.len());
        measure(
            &format!("{protocol:?} decompress"),
            message.len(),
            || cell.borrow_mut().clear(),
            || {
                decompress(black_box(&body), &mut cell.borrow_mut().bytes, &limits).unwrap();
            },
        );
        let fill = || {
            let mut batch = cell.borrow_mut();
            batch.clear();
            batch.bytes.extend_from_slice(&message);
        };
        measure(&format!("{protocol:?} decode and hash"), message.len(), fill, || {
            black_box(decode(protocol, &mut cell.borrow_mut(), KEY, &limits).unwrap());
        });
        let shared = RefCell::new(Arc::new(Batch::default()));
        let decoded = || {
            let mut batch = shared.borrow_mut();
            let batch = Arc::get_mut(&mut batch).unwrap();
            batch.clear();
            batch.bytes.extend_from_slice(&message);
            decode(protocol, batch, KEY, &limits).unwrap();
        };
        measure(&format!("{protocol:?} store, series known"), message.len(), decoded, || {
            black_box(store(&Known, &mut shared.borrow_mut(), Default::default(), &limits).unwrap());
        });
        measure(&format!("{protocol:?} store, every series new"), message.len(), decoded, || {
            black_box(store(&Unknown, &mut shared.borrow_mut(), Default::default(), &limits).unwrap());
        });
    }
    let batch = cell.borrow();
    let len: usize = batch.series.iter().map(|s| s.labels_len as usize).sum();
    measure(
        &format!("hash of {} bytes", len / SERIES),
        len,
        || (),
        || {
            for one in &batch.series {
                black_box(KEY.id(black_box(batch.labels(one))));
            }
        },
    );
    drop(batch);
    let text = text(&fleet);
    let options = Options::default();
    measure(
        "text parse and hash",
        text.len(),
        || cell.borrow_mut().clear(),
        || {
            let batch = &mut cell.borrow_mut();
            black_box(
                exposition::parse(text.as_bytes(), Format::Text, &options, batch, KEY, &limits).unwrap(),
            );
        },
    );
}
