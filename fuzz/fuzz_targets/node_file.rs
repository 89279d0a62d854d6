//! See `decoders::node_file`.
#![no_main]

use fuzz::decoders::node_file::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("node_file", seeds()), |bytes: &[u8]| {
    check(bytes);
});
