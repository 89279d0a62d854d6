//! See `decoders::raft_log`.
#![no_main]

use fuzz::decoders::raft_log::{check, seeds};

libfuzzer_sys::fuzz_target!(init: fuzz::plant("raft_log", seeds()), |bytes: &[u8]| {
    check(bytes);
});
