//! Requests made to cost more than they should.

use crate::allocations;
use crate::sink::KEY;
use ingest::Limits;
use ingest::remote_write::encode::{self, Series};
use ingest::remote_write::{Protocol, decode, decompress};
use model::Batch;

fn fleet(protocol: Protocol, timestamp: i64) -> Vec<u8> {
    let series: Vec<Series> = (0..2000)
        .map(|i| {
            let instance = format!("host-{i:05}.example.net:9100");
            Series::new(
                &[
                    ("__name__", "node_cpu_seconds_total"),
                    ("cpu", "3"),
                    ("instance", &instance),
                    ("mode", "idle"),
                ],
                &[(timestamp, i as f64)],
            )
        })
        .collect();
    match protocol {
        Protocol::V1 => encode::v1(&series, &[]),
        Protocol::V2 => encode::v2(&series),
    }
}

#[test]
fn a_recycled_batch_decodes_without_an_allocation_per_series() {
    for (protocol, max) in [(Protocol::V1, 0), (Protocol::V2, 16)] {
        let mut batch = Batch::default();
        let limits = Limits::default();
        for round in 0..3 {
            let body = encode::compress(&fleet(protocol, round));
            batch.clear();
            decompress(&body, &mut batch.bytes, &limits).unwrap();
            let (decoded, allocated) = allocations::during(|| decode(protocol, &mut batch, KEY, &limits));
            assert!(decoded.unwrap().problems.is_empty());
            assert_eq!(batch.series.len(), 2000);
            if round > 0 {
                assert!(allocated.count <= max, "{protocol:?}: {allocated:?}");
            }
        }
    }
}

/// A message that repeats `unit` for about a megabyte.
fn repeated(head: &[u8], unit: &[u8]) -> Vec<u8> {
    let mut message = head.to_vec();
    while message.len() < 1 << 20 {
        message.extend_from_slice(unit);
    }
    message
}

fn nested(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    model::varint::put(&mut out, inner.len() as u64);
    out.extend_from_slice(inner);
    out
}

#[test]
fn memory_is_bounded_by_the_limit_whatever_is_repeated() {
    let limits = Limits { batch_bytes_max: 4 << 20, ..Limits::default() };
    let long_symbol = nested(0x22, &[b'x'; 4000]);
    let mut symbols = nested(0x22, b"");
    symbols.extend_from_slice(&long_symbol);
    let cases: Vec<(Protocol, &str, Vec<u8>)> = vec![
        (Protocol::V1, "empty series", repeated(&[], &[0x0a, 0])),
        (Protocol::V1, "empty samples", nested(0x0a, &repeated(&[], &[0x12, 0]))),
        (Protocol::V1, "empty histograms", nested(0x0a, &repeated(&[], &[0x22, 0]))),
        (Protocol::V1, "series of one empty sample", repeated(&[], &[0x0a, 2, 0x12, 0])),
        (Protocol::V1, "labels in pieces", nested(0x0a, &repeated(&[0x12, 0], &[0x0a, 0, 0x12, 0]))),
        (Protocol::V1, "metadata", repeated(&[], &[0x1a, 5, 0x08, 1, 0x12, 1, b'a'])),
        (Protocol::V2, "empty symbols", repeated(&[], &[0x22, 0])),
        (Protocol::V2, "empty series", repeated(&[], &[0x2a, 0])),
        (Protocol::V2, "empty histograms", nested(0x2a, &repeated(&[], &[0x1a, 0]))),
        (Protocol::V2, "series of one empty sample", repeated(&[], &[0x2a, 2, 0x12, 0])),
        (Protocol::V2, "a long symbol used often", repeated(&symbols, &[0x2a, 6, 0x0a, 2, 1, 1, 0x12, 0])),
        (Protocol::V2, "one series of long symbols", {
            let refs = nested(0x0a, &vec![1; 1 << 20]);
            let mut message = symbols.clone();
            message.extend_from_slice(&nested(0x2a, &refs));
            message
        }),
    ];
    for (protocol, what, message) in cases {
        let mut batch = Batch { bytes: message, ..Batch::default() };
        let (result, allocated) = allocations::during(|| decode(protocol, &mut batch, KEY, &limits));
        // Vectors grow by doubling and are copied while they do.
        assert!(allocated.peak < 4 * limits.batch_bytes_max, "{what}: {allocated:?}");
        if let Err(refusal) = result {
            assert!(refusal.message.contains("limits.write_batch_bytes_max"), "{what}: {refusal}");
        }
    }
}
