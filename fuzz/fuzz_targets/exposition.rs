//! Prometheus text and OpenMetrics.
#![no_main]

use ingest::Limits;
use ingest::exposition::{self, Format, Options};
use model::{Batch, Sink};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let (sink, limits) = (fuzz::Checked::default(), Limits { batch_bytes_max: 1 << 20, ..Limits::default() });
    let options = Options { default_timestamp: 1_000, extra_labels: vec![("extra".into(), "x".into())] };
    for format in [Format::Text, Format::OpenMetrics] {
        let mut batch = Batch::default();
        if let Ok(decoded) = exposition::parse(body, format, &options, &mut batch, sink.key(), &limits) {
            ingest::store(&sink, &mut batch.into(), decoded, &limits).expect("this sink does not fail");
        }
    }
    exposition::detect(None, body);
});
