//! See `decoders::identity`.
#![no_main]

use fuzz::decoders::identity::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("identity", seeds()), |bytes: &[u8]| {
    check(bytes);
});
