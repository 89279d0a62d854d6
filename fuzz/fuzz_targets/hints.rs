//! See `decoders::hints`.
#![no_main]

use fuzz::decoders::hints::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("hints", seeds()), |bytes: &[u8]| {
    check(bytes);
});
