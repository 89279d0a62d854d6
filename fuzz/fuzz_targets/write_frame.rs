//! See `decoders::write_frame`.
#![no_main]

use fuzz::decoders::write_frame::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("write_frame", seeds()), |bytes: &[u8]| {
    check(bytes);
});
