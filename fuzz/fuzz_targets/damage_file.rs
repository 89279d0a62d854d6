//! See `decoders::damage_file`.
#![no_main]

use fuzz::decoders::damage_file::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("damage_file", seeds()), |bytes: &[u8]| {
    check(bytes);
});
