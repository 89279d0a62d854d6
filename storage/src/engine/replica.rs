//! What a cluster needs besides: [`Replica`] for the engine.

use super::Engine;
use super::append::Origin;
use crate::head::histogram_bytes;
use model::{
    Appended, Batch, BatchSeries, Damage, Digest, Error, Forgotten, HistogramRow, Labels, Replica, Samples,
    SealedBlocks, SeriesId, Shard, TimeRange,
};
use std::sync::Arc;

/// Most bytes of one export, since places in a batch are 32 bits.
const EXPORT_BYTES_MAX: usize = 1 << 30;

impl Replica for Engine {
    fn shards(&self) -> u32 {
        self.options.shards
    }

    fn append_replicated(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        self.append_from(Origin::Replica, batch, only)
    }

    fn commit(&self) -> Result<(), Error> {
        Ok(Engine::commit(self)?)
    }

    fn digest(&self, shard: Shard, range: TimeRange) -> Result<Digest, Error> {
        self.digest_of(self.shard(shard)?, range)
    }

    fn summary(&self, shard: Shard, range: TimeRange) -> Vec<(TimeRange, Digest)> {
        self.shard(shard).map_or(Vec::new(), |shard| self.summary_of(shard, range))
    }

    fn known_digests(&self, shard: Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>> {
        let none = || vec![None; ranges.len()];
        self.shard(shard).map_or_else(|_| none(), |shard| self.known_digests_of(shard, ranges))
    }

    fn series_digests(&self, shard: Shard, range: TimeRange) -> Result<Vec<(SeriesId, Digest)>, Error> {
        self.series_digests_of(self.shard(shard)?, range)
    }

    fn export(
        &self,
        shard: Shard,
        range: TimeRange,
        series: &[SeriesId],
        bytes_max: usize,
        into: &mut Batch,
    ) -> Result<Option<SeriesId>, Error> {
        debug_assert!(series.is_sorted(), "BUG: series must be sorted by id");
        let range = self.visible(range);
        let bytes_max = bytes_max.min(EXPORT_BYTES_MAX);
        let mut found = Vec::new();
        let mut gather = self.gather(range, true, &mut found);
        let (head, blocks) = self.view_shard(self.shard(shard)?, range, |head| {
            gather.head(head, series.iter().filter_map(|&id| head.find(id)))
        });
        head?;
        for block in &blocks {
            gather.block(block, 0..block.series_count(), |id| series.binary_search(&id).is_ok())?;
        }
        found.sort_unstable_by_key(|series| series.id);
        let mut samples = Samples::default();
        let (mut bytes, mut exported) = (bytes_of(into), false);
        for series in &found {
            // One at least, or it would never end.
            if bytes >= bytes_max && exported {
                return Ok(Some(series.id));
            }
            series.read(range, &mut samples)?;
            if !samples.is_empty() {
                bytes += push(into, series.id, &series.labels, &samples);
                exported = true;
            }
        }
        Ok(None)
    }

    fn labels_of(&self, id: SeriesId, into: &mut Vec<u8>) -> bool {
        let Ok(shard) = self.shard(id.shard(self.options.shards)) else { return false };
        let state = shard.state.lock();
        match state.head.find(id) {
            Some(slot) => {
                state.head.labels_bytes(slot, into);
                true
            }
            None => false,
        }
    }

    fn damage(&self) -> Vec<Damage> {
        self.damages()
    }

    fn mended(&self, number: u64) -> Result<(), Error> {
        Ok(self.mend(number)?)
    }

    fn forget(&self, shard: Shard) -> Result<Forgotten, Error> {
        self.forget_shard(shard)
    }

    fn sealed(&self) -> Option<&dyn SealedBlocks> {
        Some(self)
    }
}

impl Engine {
    pub(super) fn shard(&self, shard: Shard) -> Result<&crate::shard::Shard, Error> {
        let found = self.shards.get(usize::from(shard.0));
        found.ok_or_else(|| Error::Unavailable {
            shards: vec![shard.0],
            have: 0,
            need: 1,
            missing: Vec::new(),
        })
    }
}

/// The bytes of a batch, roughly.
fn bytes_of(batch: &Batch) -> usize {
    let histograms = batch.histograms.iter().map(|row| histogram_bytes(&row.histogram)).sum::<usize>();
    batch.bytes.len()
        + batch.series.len() * size_of::<BatchSeries>()
        + (batch.timestamps.len() + batch.values.len() + batch.starts.len()) * 8
        + histograms
}

/// Appends one series and its samples; the bytes that this takes, roughly.
fn push(batch: &mut Batch, id: SeriesId, labels: &Labels, samples: &Samples) -> usize {
    let labels = labels.as_bytes();
    batch.series.push(BatchSeries {
        id,
        checked: true,
        labels_at: batch.bytes.len() as u32,
        labels_len: labels.len() as u32,
        floats_at: batch.timestamps.len() as u32,
        floats_len: samples.timestamps.len() as u32,
        histograms_at: batch.histograms.len() as u32,
        histograms_len: samples.histograms.len() as u32,
    });
    batch.bytes.extend_from_slice(labels);
    if !samples.starts.is_empty() || !batch.starts.is_empty() {
        // Unset for all that came before, and for what has none now.
        batch.starts.resize(batch.timestamps.len(), 0);
        batch.starts.extend_from_slice(&samples.starts);
        batch.starts.resize(batch.timestamps.len() + samples.timestamps.len(), 0);
    }
    batch.timestamps.extend_from_slice(&samples.timestamps);
    batch.values.extend(samples.values.iter().map(|value| value.to_bits()));
    let row = |&(timestamp, start, ref histogram): &(i64, i64, Arc<model::Histogram>)| HistogramRow {
        timestamp,
        start,
        histogram: (**histogram).clone(),
    };
    batch.histograms.extend(samples.histograms.iter().map(row));
    let histograms = samples.histograms.iter().map(|row| histogram_bytes(&row.2)).sum::<usize>();
    size_of::<BatchSeries>() + labels.len() + 24 * samples.timestamps.len() + histograms
}
