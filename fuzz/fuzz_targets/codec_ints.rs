//! Chunks of integers.
#![no_main]

use storage::codec::{CHUNK_MAX, ints};

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    let mut out = vec![0; usize::from(count) % (CHUNK_MAX + 2)];
    let rest = ints::decode(bytes, &mut out);
    assert!(rest.is_none_or(|rest| rest.len() <= bytes.len()));

    let values: Vec<i64> = bytes
        .chunks_exact(8)
        .take(CHUNK_MAX)
        .map(|word| i64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let mut encoded = vec![];
    ints::encode(&values, &mut encoded);
    let mut decoded = vec![0; values.len()];
    assert_eq!(ints::decode(&encoded, &mut decoded), Some(&[][..]));
    assert_eq!(decoded, values);
});
