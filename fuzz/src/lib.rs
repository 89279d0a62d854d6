//! What several fuzz targets need.

use ingest::{Limits, remote_write};
use model::{Appended, Batch, Error, Metadata, SeriesKey, Sink, Written};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

pub mod decoders;

/// Puts real encodings into a target's corpus, where libFuzzer looks for them when it begins.
pub fn plant(target: &str, seeds: Vec<Vec<u8>>) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let written = std::fs::create_dir_all(&corpus).and_then(|()| {
        let named = seeds.iter().enumerate().map(|(n, seed)| (corpus.join(format!("seed-{n}")), seed));
        named.into_iter().try_for_each(|(path, seed)| std::fs::write(path, seed))
    });
    written.unwrap_or_else(|e| panic!("writing seeds to {}: {e}", corpus.display()));
}

/// A sink that checks what it is given and keeps the ids.
#[derive(Default)]
pub struct Checked {
    known: Mutex<HashSet<u128>>,
}

impl Sink for Checked {
    fn key(&self) -> SeriesKey {
        SeriesKey([1, 2, 3, 4])
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let mut known = self.known.lock().unwrap();
        let all: Vec<u32> = (0..batch.series.len() as u32).collect();
        let mut appended = Appended {
            durable: Box::pin(std::future::ready(Ok(()))),
            written: Written::default(),
            unknown: vec![],
            rejected: vec![],
        };
        for index in only.unwrap_or(&all) {
            let series = &batch.series[*index as usize];
            let labels = batch.labels(series);
            if series.checked {
                assert!(model::labels::is_canonical(labels), "labels that were checked are canonical");
                assert_eq!(series.id, self.key().id(labels));
                known.insert(series.id.0);
            } else if !known.contains(&series.id.0) {
                appended.unknown.push(*index);
                continue;
            }
            appended.written.floats += batch.timestamps[series.floats()].len() as u64;
            assert_eq!(batch.values[series.floats()].len(), batch.timestamps[series.floats()].len());
            assert!(batch.starts.is_empty() || batch.starts.len() == batch.timestamps.len());
            appended.written.histograms += batch.histograms[series.histograms()].len() as u64;
        }
        Ok(appended)
    }

    fn describe(&self, _: &[Metadata]) -> Result<(), Error> {
        Ok(())
    }
}

/// Decodes a message and stores it twice: a request sent again is one that changes nothing.
pub fn remote_write(protocol: remote_write::Protocol, message: &[u8]) {
    let (sink, limits) = (Checked::default(), Limits { batch_bytes_max: 1 << 20, ..Limits::default() });
    let mut batch = Arc::new(Batch::default());
    let mut round = || {
        let rows = Arc::make_mut(&mut batch);
        rows.clear();
        rows.bytes.extend_from_slice(message);
        let decoded = remote_write::decode(protocol, rows, sink.key(), &limits).ok()?;
        Some(ingest::store(&sink, &mut batch, decoded, &limits).expect("this sink does not fail").written)
    };
    assert_eq!(round(), round());
}
