//! The guard around snappy: no body takes more memory than the limits allow.
#![no_main]

use ingest::Limits;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let mut decoded = vec![];
    if ingest::remote_write::decompress(body, &mut decoded, &limits).is_ok() {
        assert!(decoded.len() <= limits.decoded_bytes_max);
    }
    assert!(decoded.capacity() <= limits.decoded_bytes_max * 2);
    assert!(decoded.capacity() <= (body.len() + 1) * limits.decoded_ratio_max * 2);
});
