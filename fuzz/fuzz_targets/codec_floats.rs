//! Chunks of floats: arbitrary bytes do not harm the decoder, arbitrary values survive, bit by bit.
#![no_main]

use storage::codec::{CHUNK_MAX, floats};

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    let mut out = vec![];
    let rest = floats::decode(bytes, usize::from(count) % (CHUNK_MAX + 2), &mut out);
    assert!(rest.is_none_or(|rest| rest.len() <= bytes.len()) && out.len() <= CHUNK_MAX);

    let values: Vec<f64> = bytes
        .chunks_exact(8)
        .take(CHUNK_MAX)
        .map(|word| f64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let (mut encoded, mut decoded) = (vec![], vec![]);
    floats::encode(&values, &mut encoded);
    assert_eq!(floats::decode(&encoded, values.len(), &mut decoded), Some(&[][..]));
    assert!(values.iter().map(|v| v.to_bits()).eq(decoded.iter().map(|v| v.to_bits())));
});
