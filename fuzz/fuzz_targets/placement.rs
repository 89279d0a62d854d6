//! See `decoders::placement`.
#![no_main]

use fuzz::decoders::placement::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("placement", seeds()), |bytes: &[u8]| {
    check(bytes);
});
