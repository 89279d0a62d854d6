//! Histograms as the log and blocks keep them.
#![no_main]

use model::Histogram;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((histogram, rest)) = Histogram::decode(bytes) else { return };
    assert!(rest.len() < bytes.len());
    let mut encoded = vec![];
    histogram.encode(&mut encoded);
    let (again, rest) = Histogram::decode(&encoded).expect("what was encoded can be decoded");
    assert!(rest.is_empty());
    let mut twice = vec![];
    again.encode(&mut twice);
    assert_eq!(encoded, twice, "bit by bit, NaNs too");
});
