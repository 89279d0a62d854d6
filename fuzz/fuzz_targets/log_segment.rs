//! A segment of the log as it may lie on a damaged disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut payload = 0;
    let decoded = disk::log::decode_segment(bytes, &mut |record| payload += record.payload.len());
    if let Some(decoded) = decoded {
        assert!(payload <= bytes.len(), "records are parts of the segment");
        assert!(decoded.torn.is_none_or(|offset| offset <= bytes.len() as u64));
    }
});
