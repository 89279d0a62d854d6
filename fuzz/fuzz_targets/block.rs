//! A block with changed bytes.
//!
//! Without new checksums, whatever is returned must be what was written. With new checksums, so that the changes get
//! past them to the decoders behind, anything may be returned, but nothing may panic or take memory without bound.
#![no_main]

use disk::Mapped;
use model::histogram::{Counts, ResetHint, Span};
use model::{Histogram, Labels, MatchOp, Matcher, Samples, SeriesKey, Shard, TimeRange, Timestamp};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use storage::block::{Builder, Header, Reader, order};

const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);
const ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
const PAGE: usize = 32 << 10;
const HEAD: usize = 16;
/// Checksum of the checksums, checksum of the footer, magic.
const FOOTER_TAIL: usize = 16;

const RANGE: TimeRange = TimeRange { min: Timestamp(0), max: Timestamp(7_200_000) };

fn histogram() -> Arc<Histogram> {
    Arc::new(Histogram {
        reset_hint: ResetHint::default(),
        schema: 3,
        zero_threshold: 1e-128,
        sum: 4.5,
        counts: Counts::Integer { count: 3, zero: 0, positive: vec![1, 2], negative: vec![] },
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: vec![],
        custom_values: vec![],
    })
}

/// Some of everything: kinds of values, shared and own times, start timestamps, histograms, many labels and one.
fn written() -> &'static (Vec<u8>, Vec<(Labels, Samples)>) {
    static WRITTEN: OnceLock<(Vec<u8>, Vec<(Labels, Samples)>)> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let mut all: Vec<(Labels, Samples)> = (0..40i64)
            .map(|k| {
                let (name, instance) = (format!("metric_{}", k % 7), format!("host-{k}"));
                let labels = [("__name__", &*name), ("instance", &*instance), ("job", "fuzz")];
                let labels = Labels::from_pairs(labels).unwrap();
                let mut samples = Samples::default();
                for t in 0..(k * 13 % 600) {
                    samples.timestamps.push(t * 10_000 + (k % 3) * (t % 5));
                    samples.values.push(match k % 5 {
                        0 => 1.0,
                        1 => t as f64,
                        2 => t as f64 / 8.0,
                        3 => (t as f64).sin(),
                        _ => f64::from_bits(0x7ff0_0000_0000_0002),
                    });
                }
                if k % 4 == 0 {
                    samples.starts = samples.timestamps.iter().map(|t| t - 1).collect();
                }
                if k % 6 == 0 {
                    samples.histograms = (0..9).map(|t| (7_000_000 + t, 0, histogram())).collect();
                }
                (labels, samples)
            })
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        all.sort_by(|a, b| order(&a.0, &b.0));
        let mut builder = Builder::new(Header { shard: Shard(3), range: RANGE, level: 0, id: ID });
        for (labels, samples) in &all {
            builder.add(KEY.id(labels.as_bytes()), labels, samples).unwrap();
        }
        (builder.encode().unwrap().0, all)
    })
}

/// New checksums for everything, as `docs/format/block.md` describes them.
fn seal(file: &mut [u8], body: usize) {
    let footer = body + 4 * body.div_ceil(PAGE);
    let crc = |parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new();
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().to_le_bytes()
    };
    for page in 0..body.div_ceil(PAGE) {
        let at = page * PAGE;
        let sum = crc(&[&file[at..body.min(at + PAGE)], &ID.to_le_bytes(), &(at as u64).to_le_bytes()]);
        file[body + 4 * page..][..4].copy_from_slice(&sum);
    }
    let tail = file.len() - FOOTER_TAIL;
    let sum = crc(&[&file[body..footer]]);
    file[tail..][..4].copy_from_slice(&sum);
    let sum = crc(&[&file[footer..tail + 4]]);
    file[tail + 4..][..4].copy_from_slice(&sum);
}

fn open(file: Vec<u8>) -> storage::Result<Reader> {
    Reader::from_bytes(Mapped(Arc::new(file)), Path::new("fuzz.block"))
}

fn same(a: &Samples, b: &Samples) -> bool {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let starts =
        |samples: &Samples| samples.starts.iter().copied().filter(|start| *start != 0).collect::<Vec<_>>();
    a.timestamps == b.timestamps
        && bits(&a.values) == bits(&b.values)
        && starts(a) == starts(b)
        && a.histograms == b.histograms
}

libfuzzer_sys::fuzz_target!(|input: (bool, Vec<(u16, u8)>)| {
    let (sealed, edits) = input;
    let (original, series) = written();
    let mut file = original.clone();
    let sections = open(file.clone()).expect("what the builder writes can be read").stats().sections;
    let body = HEAD + sections.iter().map(|section| section.1 as usize).sum::<usize>();
    if sealed && edits.is_empty() {
        // New checksums of what was not changed are those that it has.
        seal(&mut file, body);
        assert!(file == *original);
    }
    for (at, change) in edits.iter().take(16) {
        let at = usize::from(*at) * 7 % file.len();
        file[at] ^= change;
    }
    if sealed {
        seal(&mut file, body);
    }
    let Ok(reader) = open(file) else { return };
    let matcher = |op, name: &str, value: &str| Matcher::new(name, op, value).unwrap();
    for matcher in [
        matcher(MatchOp::Equal, "__name__", "metric_3"),
        matcher(MatchOp::NotEqual, "instance", "host-4"),
        matcher(MatchOp::Matches, "instance", "host-1.*"),
    ] {
        let _ = reader.select(&[matcher]);
    }
    let _ = (reader.label_names(), reader.label_values("instance"), reader.stats());
    for number in 0..reader.series_count().min(50) {
        let mut samples = Samples::default();
        let (labels, read) = (reader.labels(number), reader.read(number, RANGE, &mut samples));
        let _ = reader.span(number);
        if !sealed && let Some((written, values)) = series.get(number as usize) {
            assert!(
                labels.is_err() || labels.is_ok_and(|labels| labels == *written),
                "wrong labels of series {number}"
            );
            assert!(read.is_err() || same(&samples, values), "wrong samples of series {number}");
        }
    }
});
