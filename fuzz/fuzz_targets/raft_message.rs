//! See `decoders::raft_message`.
#![no_main]

use fuzz::decoders::raft_message::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("raft_message", seeds()), |bytes: &[u8]| {
    check(bytes);
});
