//! Chunks of timestamps.
#![no_main]

use storage::codec::{CHUNK_MAX, times};

libfuzzer_sys::fuzz_target!(|input: (u16, i64, &[u8])| {
    let (count, base, bytes) = input;
    let mut out = vec![];
    let rest = times::decode(bytes, base, usize::from(count) % (CHUNK_MAX + 2), &mut out);
    assert!(rest.is_none_or(|rest| rest.len() <= bytes.len()) && out.len() <= CHUNK_MAX);

    let values: Vec<i64> = bytes
        .chunks_exact(8)
        .take(CHUNK_MAX)
        .map(|word| i64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let (mut encoded, mut decoded) = (vec![], vec![]);
    times::encode(&values, base, &mut encoded);
    assert_eq!(times::decode(&encoded, base, values.len(), &mut decoded), Some(&[][..]));
    assert_eq!(decoded, values);
});
