//! Questions for blocks and answers with them, from a peer that may say anything.
#![no_main]

use cluster::bootstrap::{Reply, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What is taken has one form, so it is written as it was read.
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(reply) = Reply::decode(bytes.to_vec().into()) {
        if !matches!(reply, Reply::Failed { .. }) {
            assert_eq!(reply.encode(), bytes);
        }
    }
});
