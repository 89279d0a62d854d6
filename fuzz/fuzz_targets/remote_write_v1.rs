//! The decoder of `prometheus.WriteRequest`, and the way of its series into a sink.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    fuzz::remote_write(ingest::remote_write::Protocol::V1, message);
});
