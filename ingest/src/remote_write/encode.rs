//! The sender's side of both versions: for tests, benchmarks and the command line.

use model::histogram::{Counts, Span};
use model::{Histogram, HistogramRow, Metadata, varint};
use std::collections::HashMap;

/// One series to send. Nothing is checked or sorted: what a receiver must refuse can be sent, too.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name and value of each label.
    pub labels: Vec<(String, String)>,
    /// Float samples.
    pub samples: Vec<Sample>,
    /// Native histograms.
    pub histograms: Vec<HistogramRow>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// What version 2 says of the series' family; the family's name is not sent.
    pub metadata: Option<Metadata>,
}

/// One float sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Milliseconds.
    pub timestamp: i64,
    /// Raw bits are sent as they are.
    pub value: f64,
    /// Milliseconds, 0 for unset; only version 2 sends it.
    pub start: i64,
}

/// One exemplar.
#[derive(Clone, Debug, Default)]
pub struct Exemplar {
    /// Name and value of each label.
    pub labels: Vec<(String, String)>,
    /// The exemplary value.
    pub value: f64,
    /// Milliseconds.
    pub timestamp: i64,
}

impl Series {
    /// A series with float samples `(timestamp, value)`.
    pub fn new(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
        Series {
            labels: labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            samples: samples
                .iter()
                .map(|&(timestamp, value)| Sample { timestamp, value, start: 0 })
                .collect(),
            ..Series::default()
        }
    }
}

/// A `prometheus.WriteRequest`, not compressed.
pub fn v1(series: &[Series], metadata: &[Metadata]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in series {
        message(&mut out, 1, |out| {
            labels(out, &one.labels);
            for sample in &one.samples {
                message(out, 2, |out| {
                    double(out, 1, sample.value);
                    number(out, 2, sample.timestamp as u64);
                });
            }
            for exemplar in &one.exemplars {
                message(out, 3, |out| {
                    labels(out, &exemplar.labels);
                    double(out, 2, exemplar.value);
                    number(out, 3, exemplar.timestamp as u64);
                });
            }
            for row in &one.histograms {
                message(out, 4, |out| histogram(out, row));
            }
        });
    }
    for entry in metadata {
        message(&mut out, 3, |out| {
            number(out, 1, entry.metric_type as u64);
            bytes(out, 2, entry.family.as_bytes());
            bytes(out, 4, entry.help.as_bytes());
            bytes(out, 5, entry.unit.as_bytes());
        });
    }
    out
}

/// An `io.prometheus.write.v2.Request`, not compressed.
pub fn v2(series: &[Series]) -> Vec<u8> {
    let mut symbols = Symbols::default();
    symbols.get("");
    let mut body = Vec::new();
    for one in series {
        message(&mut body, 5, |out| {
            symbols.refs(out, &one.labels);
            for sample in &one.samples {
                message(out, 2, |out| {
                    double(out, 1, sample.value);
                    number(out, 2, sample.timestamp as u64);
                    number(out, 3, sample.start as u64);
                });
            }
            for row in &one.histograms {
                message(out, 3, |out| {
                    histogram(out, row);
                    number(out, 17, row.start as u64);
                });
            }
            for exemplar in &one.exemplars {
                message(out, 4, |out| {
                    symbols.refs(out, &exemplar.labels);
                    double(out, 2, exemplar.value);
                    number(out, 3, exemplar.timestamp as u64);
                });
            }
            if let Some(metadata) = &one.metadata {
                let (help, unit) = (symbols.get(&metadata.help), symbols.get(&metadata.unit));
                message(out, 5, |out| {
                    number(out, 1, metadata.metric_type as u64);
                    number(out, 3, help.into());
                    number(out, 4, unit.into());
                });
            }
        });
    }
    let mut out = Vec::new();
    for symbol in &symbols.list {
        bytes_always(&mut out, 4, symbol.as_bytes());
    }
    out.extend_from_slice(&body);
    out
}

/// A message in a snappy block, as it is sent.
pub fn compress(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("BUG: a message of more than 4 GiB")
}

#[derive(Default)]
struct Symbols {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Symbols {
    fn get(&mut self, symbol: &str) -> u32 {
        if let Some(&index) = self.index.get(symbol) {
            return index;
        }
        let index = self.list.len() as u32;
        self.list.push(symbol.to_string());
        self.index.insert(symbol.to_string(), index);
        index
    }

    fn refs(&mut self, out: &mut Vec<u8>, labels: &[(String, String)]) {
        packed(out, 1, labels.iter().flat_map(|(n, v)| [n, v]), |out, symbol| {
            varint::put(out, self.get(symbol).into());
        });
    }
}

fn labels(out: &mut Vec<u8>, labels: &[(String, String)]) {
    for (name, value) in labels {
        message(out, 1, |out| {
            bytes(out, 1, name.as_bytes());
            bytes(out, 2, value.as_bytes());
        });
    }
}

fn histogram(out: &mut Vec<u8>, row: &HistogramRow) {
    let Histogram {
        reset_hint,
        schema,
        zero_threshold,
        sum,
        counts,
        positive_spans,
        negative_spans,
        custom_values,
    } = &row.histogram;
    let signed = |out: &mut Vec<u8>, value: i64| varint::put(out, varint::zigzag(value));
    let spans = |out: &mut Vec<u8>, field: u32, spans: &[Span]| {
        for span in spans {
            message(out, field, |out| {
                number(out, 1, varint::zigzag(span.offset.into()));
                number(out, 2, span.length.into());
            });
        }
    };
    let deltas = |out: &mut Vec<u8>, field: u32, buckets: &[i64]| {
        let mut before = 0i64;
        packed(out, field, buckets, |out, &count| {
            signed(out, count.wrapping_sub(before));
            before = count;
        });
    };
    let doubles = |out: &mut Vec<u8>, field: u32, values: &[f64]| {
        packed(out, field, values, |out, value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
    };
    // Members of a oneof are sent even when zero: which one it is tells integers from floats.
    match counts {
        Counts::Integer { count, zero, positive, negative } => {
            key(out, 1, 0);
            varint::put(out, *count);
            key(out, 6, 0);
            varint::put(out, *zero);
            spans(out, 8, negative_spans);
            deltas(out, 9, negative);
            spans(out, 11, positive_spans);
            deltas(out, 12, positive);
        }
        Counts::Float { count, zero, positive, negative } => {
            key(out, 2, 1);
            out.extend_from_slice(&count.to_bits().to_le_bytes());
            key(out, 7, 1);
            out.extend_from_slice(&zero.to_bits().to_le_bytes());
            spans(out, 8, negative_spans);
            doubles(out, 10, negative);
            spans(out, 11, positive_spans);
            doubles(out, 13, positive);
        }
    }
    double(out, 3, *sum);
    number(out, 4, varint::zigzag(i64::from(*schema)));
    double(out, 5, *zero_threshold);
    number(out, 14, *reset_hint as u64);
    number(out, 15, row.timestamp as u64);
    doubles(out, 16, custom_values);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint::put(out, u64::from(field << 3 | wire_type));
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, 0);
        varint::put(out, value);
    }
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        key(out, field, 1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        bytes_always(out, field, value);
    }
}

fn bytes_always(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, 2);
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn message(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes_always(out, field, &inner);
}

fn packed<T>(
    out: &mut Vec<u8>,
    field: u32,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    let mut inner = Vec::new();
    items.into_iter().for_each(|item| put(&mut inner, item));
    bytes(out, field, &inner);
}
