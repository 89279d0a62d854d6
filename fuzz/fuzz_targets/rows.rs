//! See `decoders::rows`.
#![no_main]

use fuzz::decoders::rows::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("rows", seeds()), |bytes: &[u8]| {
    check(bytes);
});
