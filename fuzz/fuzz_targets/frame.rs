//! See `decoders::frame`.
#![no_main]

use fuzz::decoders::frame::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("frame", seeds()), |bytes: &[u8]| {
    check(bytes);
});
