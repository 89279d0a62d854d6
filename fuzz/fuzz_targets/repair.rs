//! See `decoders::repair`.
#![no_main]

use fuzz::decoders::repair::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("repair", seeds()), |bytes: &[u8]| {
    check(bytes);
});
