//! See `decoders::read`.
#![no_main]

use fuzz::decoders::read::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("read", seeds()), |bytes: &[u8]| {
    check(bytes);
});
