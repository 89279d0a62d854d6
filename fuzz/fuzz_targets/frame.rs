//! Frames between nodes: refused, or the only form of what they say.
#![no_main]

use cluster::transport::frame::{Answer, Frame, Request};

fn check<F: Frame>(bytes: &[u8]) {
    if let Ok(frame) = F::decode(&mut &bytes[..]) {
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(frame.wire_bytes(), bytes.len() + 5);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::<Request>(bytes);
    check::<Answer>(bytes);
});
