//! See `decoders::handshake`.
#![no_main]

use fuzz::decoders::handshake::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("handshake", seeds()), |bytes: &[u8]| {
    check(bytes);
});
