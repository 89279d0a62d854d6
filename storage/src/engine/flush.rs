//! From the heads to blocks, and what follows from that for the log; retention.
//!
//! Time is cut at a boundary `T`, in two steps a quarter of a window apart, so that little is written to the log twice:
//!
//! 1. *Cut*, when data reaches `T`: the log goes on in a new segment `S`, every shard in a new generation, and the few
//!    samples from `T` on that are already in the head are logged again ("carried over").
//! 2. *Flush*, when data has passed `T` by a quarter of a window: everything before `T` becomes blocks. Now every sample
//!    of a segment before `S` is in a durable block or was carried over. A checkpoint says so, then those segments go.
//!
//! A crash anywhere in between replays to the same content: what was flushed and is still in the log is merged away.
//! When memory runs short, when the log has grown long, and when it has grown old without data moving on, everything is
//! flushed: `T` is the end of time and nothing is carried over.

use super::{Engine, append};
use crate::head::{Garbage, Snapshot};
use crate::shard::State;
use crate::wal::{self, RowsWriter};
use crate::{Result, block};
use disk::log::SegmentNumber;
use model::{Labels, Samples, SeriesId, TimeRange, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Most blocks that one flush makes of one shard. Data of more windows than this goes to longer blocks.
const BLOCKS_MAX: usize = 16;
/// A carry-over commits when so much of it waits.
const CARRY_BYTES: usize = 8 << 20;

/// A boundary in time and in the log.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Samples before this are to be flushed.
    before: i64,
    /// The first segment that is needed afterwards...
    segment: SegmentNumber,
    /// ...and the first generation.
    generation: u32,
    /// When it was made.
    at: Timestamp,
}

/// What maintenance remembers from one call to the next.
pub(super) struct Maintenance {
    generation: u32,
    /// Made and not yet flushed.
    pending: Option<Cut>,
    /// Up to where everything has been flushed.
    flushed: i64,
    /// Nothing in the log was written before this.
    log_since: Timestamp,
}

impl Maintenance {
    pub fn new(generation: u32, now: Timestamp) -> Maintenance {
        Maintenance { generation, pending: None, flushed: i64::MIN, log_since: now }
    }

    /// Generations only go up.
    pub fn next_generation(&mut self) -> u32 {
        self.generation += 1;
        self.generation
    }
}

/// What one call of [`Engine::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Blocks written.
    pub flushed: u64,
    /// Blocks removed because of their age.
    pub expired: u64,
    /// Segments of the log removed.
    pub segments_removed: u64,
}

/// What maintenance looks at to decide.
#[derive(Clone, Copy, Debug)]
struct View {
    now: i64,
    window: i64,
    /// The span of time in the heads.
    head: Option<(i64, i64)>,
    head_bytes: u64,
    /// What of these a flush would free: packed samples, not the series themselves.
    sample_bytes: u64,
    head_bytes_max: u64,
    wal_bytes: u64,
    wal_bytes_max: u64,
    flushed: i64,
    pending: Option<i64>,
    log_since: i64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Cut(i64),
    Flush,
    /// Everything, at once.
    FlushAll,
}

impl View {
    fn decide(&self) -> Step {
        let long_log = self.wal_bytes > self.wal_bytes_max;
        let Some((oldest, newest)) = self.head else {
            // A log may also be long with what has left the heads since.
            return if long_log {
                Step::FlushAll
            } else if self.pending.is_some() {
                Step::Flush
            } else {
                Step::Nothing
            };
        };
        let old_log = self.now.saturating_sub(self.log_since) > self.window.saturating_mul(2);
        // When it is the series that take the memory, flushing all the time would only make many small blocks.
        let full = self.head_bytes > self.head_bytes_max && self.sample_bytes > self.head_bytes_max / 8;
        // Everything was to be flushed and could not be: once more.
        let again = self.pending == Some(i64::MAX);
        if full || long_log || old_log || again {
            return Step::FlushAll;
        }
        // Samples from the future must not close a window early.
        let newest = newest.min(self.now);
        let boundary = newest.div_euclid(self.window).saturating_mul(self.window);
        if self.pending.is_none_or(|pending| pending < boundary)
            && boundary > self.flushed
            && oldest < boundary
        {
            return Step::Cut(boundary);
        }
        match self.pending {
            Some(pending) if newest.max(self.now) >= pending.saturating_add(self.window / 4) => Step::Flush,
            _ => Step::Nothing,
        }
    }
}

impl Engine {
    /// Does what is due: flushes, retention, files of forgotten shards and damaged blocks out of the way, a look at the free space. Call it every few seconds. An error means that
    /// something could not be done and is tried again at the next call.
    pub fn maintain(&self) -> Result<Maintained> {
        let mut maintenance = self.maintenance.lock();
        let mut done = Maintained::default();
        // Removing first: it makes room. What fails does not keep the rest from being done.
        let (swept, expired) = (self.sweep(&maintenance), self.expire(&mut done));
        let looked = self.look_at_space(&mut maintenance);
        let quarantined = self.quarantine(&mut maintenance);
        let flushed = self.flush_what_is_due(&mut maintenance, &mut done);
        swept.and(expired).and(looked).and(quarantined).and(flushed).map(|()| done)
    }

    fn flush_what_is_due(&self, maintenance: &mut Maintenance, done: &mut Maintained) -> Result<()> {
        loop {
            match self.view(maintenance).decide() {
                Step::Nothing => return Ok(()),
                Step::Cut(before) => maintenance.pending = Some(self.cut(maintenance, before)?),
                Step::Flush => self.flush(maintenance, done)?,
                Step::FlushAll => return self.flush_everything(maintenance, done),
            }
        }
    }

    /// Flushes everything in memory to blocks.
    pub fn flush_all(&self) -> Result<Maintained> {
        let mut done = Maintained::default();
        self.flush_everything(&mut self.maintenance.lock(), &mut done)?;
        Ok(done)
    }

    pub(super) fn flush_everything(
        &self,
        maintenance: &mut Maintenance,
        done: &mut Maintained,
    ) -> Result<()> {
        maintenance.pending = Some(self.cut(maintenance, i64::MAX)?);
        self.flush(maintenance, done)
    }

    fn view(&self, maintenance: &Maintenance) -> View {
        let mut head: Option<(i64, i64)> = None;
        let (mut head_bytes, mut sample_bytes) = (0, 0);
        for shard in &self.shards {
            let state = shard.state.lock();
            if let (Some(a), Some(b)) = (state.head.oldest, state.head.newest) {
                head = Some(head.map_or((a, b), |(c, d)| (a.min(c), b.max(d))));
            }
            head_bytes += state.head.bytes() as u64;
            sample_bytes += state.head.sample_bytes as u64;
        }
        View {
            now: (self.clock)().0,
            window: self.options.block_window_ms,
            head,
            head_bytes,
            sample_bytes,
            head_bytes_max: self.options.head_bytes_max,
            wal_bytes: self.log().segments().iter().map(|segment| segment.bytes).sum(),
            wal_bytes_max: self.options.wal_bytes_max,
            flushed: maintenance.flushed,
            pending: maintenance.pending.map(|cut| cut.before),
            log_since: maintenance.log_since.0,
        }
    }

    /// Step 1: a new segment and a new generation.
    fn cut(&self, maintenance: &mut Maintenance, before: i64) -> Result<Cut> {
        let log = self.log();
        let segment = self.noted(log.rotate())?;
        let generation = maintenance.next_generation();
        let (mut writer, mut record) = (RowsWriter::default(), Vec::new());
        for shard in &self.shards {
            {
                let mut state = shard.state.lock();
                state.generation = generation;
                state.next_number = 0;
                if before < i64::MAX {
                    let range = TimeRange { min: Timestamp(before), max: Timestamp::MAX };
                    self.carry_over(shard.number, &mut state, range, &mut writer, &mut record)?;
                }
            }
            if log.pending_bytes() > CARRY_BYTES {
                self.commit()?;
            }
        }
        let metadata = self.metadata.lock();
        if !metadata.is_empty() {
            wal::encode_metadata(metadata.values(), &mut record);
            self.log_record(&log, &record)?;
        }
        Ok(Cut { before, segment, generation, at: (self.clock)() })
    }

    /// Logs once more what is in the head of a shard in `range`.
    fn carry_over(
        &self,
        shard: model::Shard,
        state: &mut State,
        range: TimeRange,
        writer: &mut RowsWriter,
        record: &mut Vec<u8>,
    ) -> Result<()> {
        for slot in 0..state.head.series.len() as u32 {
            let Some(snapshot) = state.head.series[slot as usize].snapshot(range) else { continue };
            let State { head, generation, next_number, .. } = state;
            append::define(head, slot, *generation, next_number, writer);
            let number = head.series[slot as usize].number;
            let (mut straight, mut side) = (Samples::default(), Vec::new());
            snapshot.runs(range, &mut straight, &mut side);
            for (&t, &v) in straight.timestamps.iter().zip(&straight.values) {
                writer.float(number, t, v);
            }
            for run in side {
                for (i, (&t, &v)) in run.timestamps.iter().zip(&run.values).enumerate() {
                    match run.starts.get(i) {
                        Some(&start) if start != 0 => writer.float_with_start(number, t, start, v),
                        _ => writer.float(number, t, v),
                    }
                }
                for (t, start, h) in &run.histograms {
                    writer.histogram(number, *t, *start, h);
                }
            }
            if writer.len() >= append::RECORD_BYTES {
                self.log_rows(shard, state, writer, record)?;
            }
        }
        self.log_rows(shard, state, writer, record)
    }

    /// Step 2: blocks, then a shorter log.
    fn flush(&self, maintenance: &mut Maintenance, done: &mut Maintained) -> Result<()> {
        let Some(cut) = maintenance.pending else { return Ok(()) };
        for shard in &self.shards {
            done.flushed += self.flush_shard(shard, cut.before)?;
        }
        let log = self.log();
        let mut record = Vec::new();
        wal::encode_checkpoint(cut.generation, &mut record);
        self.log_record(&log, &record)?;
        // What was carried over must be durable before its first home goes.
        self.commit()?;
        let before = log.segments().len();
        log.remove_before(cut.segment)?;
        done.segments_removed += (before - log.segments().len()) as u64;
        maintenance.pending = None;
        maintenance.log_since = cut.at;
        if cut.before < i64::MAX {
            maintenance.flushed = maintenance.flushed.max(cut.before);
        }
        self.counters.flushes.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Writes what a shard has before `before`, and swaps it for the blocks.
    fn flush_shard(&self, shard: &crate::shard::Shard, before: i64) -> Result<u64> {
        let (frozen, mut series) = {
            let mut state = shard.state.lock();
            let frozen = state.head.freeze(before);
            let head = &state.head;
            let snapshot = |&(slot, frozen)| {
                let series = &head.series[slot as usize];
                Some((series.id, head.labels(slot), series.frozen(frozen)?))
            };
            let series: Vec<(SeriesId, Labels, Snapshot)> = frozen.iter().filter_map(snapshot).collect();
            (frozen, series)
        };
        let blocks = if series.is_empty() { Vec::new() } else { self.write_blocks(shard, &mut series)? };
        drop(series);
        let written = blocks.len() as u64;
        let (_garbage, dropped): (Garbage, usize) = {
            let mut state = shard.state.lock();
            if let Some(last) = blocks.iter().map(|block| block.meta().span.max.0).max() {
                state.head.minutes.seal(last);
                state.blocks = state.blocks.iter().cloned().chain(blocks).collect();
            }
            // What is past its retention was left out, and would be seen again if the clock went back.
            let expired = TimeRange::new(i64::MIN, self.cut_off().saturating_sub(1));
            state.changed((self.clock)().0, expired);
            (state.head.forget(&frozen), state.head.shrink())
        };
        self.counters.series.fetch_sub(dropped as u64, Relaxed);
        self.counters.series_dropped.fetch_add(dropped as u64, Relaxed);
        Ok(written)
    }

    /// One block for each window of time that has samples.
    fn write_blocks(
        &self,
        shard: &crate::shard::Shard,
        series: &mut [(SeriesId, Labels, Snapshot)],
    ) -> Result<Vec<Arc<block::Reader>>> {
        let dir = self.blocks_dir(shard.number);
        self.vfs.create_dir_all(&dir)?;
        series.sort_by(|a, b| block::order(&a.1, &b.1));
        let cut_off = self.cut_off();
        let mut windows = BTreeSet::new();
        for (_, _, snapshot) in series.iter() {
            snapshot.windows(self.options.block_window_ms, &mut windows);
        }
        // Wide, since the first and the last window reach beyond the ends of time.
        let mut length = i128::from(self.options.block_window_ms);
        let clamp = |t: i128| t.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        while windows.len() > BLOCKS_MAX {
            windows = windows.into_iter().map(|w| w.div_euclid(2)).collect();
            length *= 2;
        }
        let mut blocks = Vec::new();
        let mut samples = Samples::default();
        for number in windows {
            let first = i128::from(number) * length;
            let (first, last) = (clamp(first), clamp(first + length - 1));
            let range = TimeRange::new(first.max(cut_off), last);
            if range.min > range.max {
                continue;
            }
            let header = block::Header {
                shard: shard.number,
                range: TimeRange::new(first, range.max.0),
                level: 0,
                id: (self.options.random)(),
            };
            let mut builder = block::Builder::new(header);
            for (id, labels, snapshot) in series.iter() {
                super::read::combine(range, Some(snapshot), &[], &mut samples)?;
                builder.add(*id, labels, &samples)?;
            }
            if !builder.is_empty() {
                let meta = builder.finish(&*self.vfs, &dir)?;
                blocks.push(Arc::new(block::Reader::open(&*self.vfs, &meta.path)?));
            }
        }
        Ok(blocks)
    }

    /// Removes blocks that lie wholly before the retention.
    fn expire(&self, done: &mut Maintained) -> Result<()> {
        let cut_off = self.cut_off();
        if cut_off == i64::MIN {
            return Ok(());
        }
        for shard in &self.shards {
            let expired: Vec<_> = {
                let mut state = shard.state.lock();
                let (expired, kept): (Vec<_>, Vec<_>) =
                    state.blocks.iter().cloned().partition(|block| block.meta().span.max.0 < cut_off);
                if expired.is_empty() {
                    continue;
                }
                state.blocks = kept.into();
                state.changed((self.clock)().0, TimeRange::new(i64::MIN, cut_off.saturating_sub(1)));
                expired
            };
            for block in &expired {
                match self.vfs.remove(&block.meta().path) {
                    Err(e) if !e.is_not_found() => return Err(e.into()),
                    _ => {}
                }
            }
            self.vfs.sync_dir(&self.blocks_dir(shard.number))?;
            done.expired += expired.len() as u64;
            self.counters.blocks_expired.fetch_add(expired.len() as u64, Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View {
        now: 1050,
        window: 100,
        head: Some((950, 1049)),
        head_bytes: 1,
        sample_bytes: 1,
        head_bytes_max: 10,
        wal_bytes: 20,
        wal_bytes_max: 20,
        flushed: i64::MIN,
        pending: None,
        log_since: 1000,
    };

    #[test]
    fn a_window_is_cut_when_data_reaches_its_end_and_flushed_a_quarter_later() {
        let early = View { now: 1001, head: Some((950, 999)), ..VIEW };
        // Data has not reached the boundary of 1000; the clock alone does not cut.
        assert_eq!(View { flushed: 900, ..early }.decide(), Step::Nothing);
        let reached = View { now: 1001, head: Some((950, 1000)), ..VIEW };
        assert_eq!(reached.decide(), Step::Cut(1000));
        let cut = View { pending: Some(1000), ..reached };
        assert_eq!(cut.decide(), Step::Nothing);
        assert_eq!(View { now: 1025, ..cut }.decide(), Step::Flush);
    }

    #[test]
    fn late_samples_of_a_flushed_window_wait_for_the_next_boundary() {
        let late = View { flushed: 1000, ..VIEW };
        assert_eq!(late.decide(), Step::Nothing);
        assert_eq!(View { now: 1101, head: Some((950, 1101)), ..late }.decide(), Step::Cut(1100));
    }

    #[test]
    fn memory_and_an_old_log_flush_everything() {
        let series_only = View { head_bytes: 11, ..VIEW };
        assert_ne!(series_only.decide(), Step::FlushAll);
        assert_eq!(View { sample_bytes: 2, ..series_only }.decide(), Step::FlushAll);
        assert_eq!(View { log_since: 849, ..VIEW }.decide(), Step::FlushAll);
        assert_eq!(View { head: None, log_since: 0, ..VIEW }.decide(), Step::Nothing);
    }

    #[test]
    fn a_long_log_flushes_everything() {
        assert_ne!(VIEW.decide(), Step::FlushAll);
        let long = View { wal_bytes: 21, ..VIEW };
        assert_eq!(long.decide(), Step::FlushAll);
        assert_eq!(View { pending: Some(1000), ..long }.decide(), Step::FlushAll);
        assert_eq!(View { head: None, ..long }.decide(), Step::FlushAll);
    }

    #[test]
    fn what_could_not_be_flushed_is_flushed_later() {
        assert_eq!(View { pending: Some(1000), now: 1030, ..VIEW }.decide(), Step::Flush);
        assert_eq!(View { pending: Some(i64::MAX), ..VIEW }.decide(), Step::FlushAll);
        assert_eq!(View { pending: Some(i64::MAX), head: None, ..VIEW }.decide(), Step::Flush);
    }

    #[test]
    fn samples_from_the_future_close_no_window() {
        assert_eq!(View { now: 990, head: Some((950, 1005)), flushed: 900, ..VIEW }.decide(), Step::Nothing);
    }
}
