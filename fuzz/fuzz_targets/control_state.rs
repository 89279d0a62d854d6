//! See `decoders::control_state`.
#![no_main]

use fuzz::decoders::control_state::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("control_state", seeds()), |bytes: &[u8]| {
    check(bytes);
});
