//! See `decoders::control_message`.
#![no_main]

use fuzz::decoders::control_message::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("control_message", seeds()), |bytes: &[u8]| {
    check(bytes);
});
