//! The way in: [`Sink`] for the engine.

use super::{Durability, Engine};
use crate::head::Outcome;
use crate::shard::State;
use crate::wal::{RowsWriter, encode_metadata};
use disk::log::{Log, Position};
use model::{
    Appended, Batch, BatchSeries, DigestKey, Durable, Error, Metadata, RejectReason, Rejection, SeriesKey,
    Shard, Sink, TimeRange, Written,
};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A shard's rows are split into several log records at about this size.
pub(super) const RECORD_BYTES: usize = 1 << 20;

/// Working memory of a thread that appends.
#[derive(Default)]
struct Scratch {
    /// Where each shard's series begin in `order`.
    starts: Vec<u32>,
    /// Indices into the batch's series, sorted by shard.
    order: Vec<u32>,
    guesses: Vec<u32>,
    writer: RowsWriter,
    record: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Whose rows these are.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Origin {
    /// A writer's: measured by the clock, and told what was refused.
    Writer,
    /// Another node's that has let them in: what is too old is left out in silence, and labels are hashed again, since they may lie.
    Replica,
}

/// What becomes of a batch, gathered while it is worked through.
struct Outcomes {
    now: i64,
    accept: std::ops::RangeInclusive<i64>,
    origin: Origin,
    written: Written,
    out_of_order: u64,
    created: u64,
    unknown: Vec<u32>,
    rejected: Vec<Rejection>,
    upto: Option<Position>,
}

impl Sink for Engine {
    fn key(&self) -> SeriesKey {
        self.key
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        self.append_from(Origin::Writer, batch, only)
    }

    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error> {
        let mut known = self.metadata.lock();
        let fresh: Vec<&Metadata> =
            metadata.iter().filter(|m| known.get(&m.family).is_none_or(|old| old != *m)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let log = self.admit()?;
        let mut taken = Vec::new();
        for m in fresh {
            if known.len() < self.options.metadata_max || known.contains_key(&m.family) {
                known.insert(m.family.clone(), m.clone());
                taken.push(m);
            }
        }
        let mut record = Vec::new();
        encode_metadata(taken.into_iter(), &mut record);
        self.log_record(&log, &record)?;
        Ok(())
    }
}

impl Engine {
    pub(super) fn append_from(
        &self,
        origin: Origin,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
    ) -> Result<Appended, Error> {
        let log = self.admit()?;
        let now = (self.clock)().0;
        let oldest = self.cut_off_at(now);
        let newest = match origin {
            Origin::Writer => now.saturating_add(self.options.future_max_ms),
            Origin::Replica => i64::MAX,
        };
        let mut outcomes = Outcomes {
            now,
            // The last moment of all is what a flush of everything stops before.
            accept: oldest..=newest.min(i64::MAX - 1),
            origin,
            written: Written::default(),
            out_of_order: 0,
            created: 0,
            unknown: Vec::new(),
            rejected: Vec::new(),
            upto: None,
        };
        SCRATCH.with_borrow_mut(|scratch| self.append_all(batch, only, scratch, &mut outcomes))?;
        self.count(&outcomes);
        let durable: Durable = match (outcomes.upto, self.durability()) {
            (Some(upto), Durability::Fsync) => {
                let ticket = log.ticket(upto);
                Box::pin(async move { ticket.await.map_err(|e| crate::Error::from(e).into()) })
            }
            _ => Box::pin(std::future::ready(Ok(()))),
        };
        let Outcomes { written, unknown, rejected, .. } = outcomes;
        Ok(Appended { durable, written, unknown, rejected })
    }

    /// The log, if writes are taken at the moment.
    fn admit(&self) -> Result<Arc<Log>, Error> {
        self.check_writable()?;
        let log = self.log();
        if log.pending_bytes() > self.options.wal.pending_bytes_max {
            return Err(Error::Busy {
                reason: "the disk is behind with the write-ahead log",
                retry_after_s: 1,
            });
        }
        Ok(log)
    }

    pub(super) fn log_record(&self, log: &Log, record: &[u8]) -> crate::Result<Position> {
        let position = self.noted(log.append(record))?;
        self.counters.wal_bytes.fetch_add(record.len() as u64, Relaxed);
        Ok(position)
    }

    fn append_all(
        &self,
        batch: &Batch,
        only: Option<&[u32]>,
        scratch: &mut Scratch,
        outcomes: &mut Outcomes,
    ) -> Result<(), Error> {
        let Scratch { starts, order, guesses, writer, record } = scratch;
        group(batch, only, self.options.shards, starts, order);
        let mut at = 0;
        for (shard, &end) in self.shards.iter().zip(&*starts) {
            let rows = &order[at as usize..end as usize];
            at = end;
            if rows.is_empty() {
                continue;
            }
            let mut state = shard.state.lock();
            self.check_writable()?;
            state.head.approach(rows.iter().map(|&index| batch.series[index as usize].id), guesses);
            for &index in rows {
                self.append_series(&mut state, batch, index, writer, outcomes);
                if writer.len() >= RECORD_BYTES {
                    self.log_rows(shard.number, &mut state, writer, record)?;
                }
            }
            self.log_rows(shard.number, &mut state, writer, record)?;
            // Also for rows that were there already: their first bringer may still be waiting for its fsync.
            outcomes.upto = outcomes.upto.max(state.logged);
        }
        Ok(())
    }

    /// Logs what was collected. The shard's lock is held, so that its records are in the order of its changes.
    pub(super) fn log_rows(
        &self,
        shard: Shard,
        state: &mut State,
        writer: &mut RowsWriter,
        record: &mut Vec<u8>,
    ) -> crate::Result<()> {
        if !writer.is_empty() {
            writer.finish(shard, state.generation, record);
            state.logged = Some(self.log_record(&state.log, record)?);
        }
        Ok(())
    }

    fn append_series(
        &self,
        state: &mut State,
        batch: &Batch,
        index: u32,
        writer: &mut RowsWriter,
        outcomes: &mut Outcomes,
    ) {
        let series = &batch.series[index as usize];
        let refused = outcomes.reject_out_of_bounds(batch, series, index);
        // Nothing to keep, nothing to create a series for.
        if refused == series.floats_len + series.histograms_len {
            return outcomes.count_left_out(batch, series);
        }
        let slot = match state.head.find(series.id) {
            Some(slot) if series.checked && !state.head.has_labels(slot, batch.labels(series)) => {
                return outcomes.reject_all(batch, series, index, RejectReason::IdCollision);
            }
            Some(slot) => slot,
            None if !series.checked => {
                outcomes.forget(index);
                outcomes.unknown.push(index);
                return;
            }
            None if outcomes.origin == Origin::Replica && !self.is_named_rightly(batch, series) => {
                return outcomes.reject_all(batch, series, index, RejectReason::IdCollision);
            }
            None => {
                let limit = self.options.series_max;
                let room = |n: u64| (n < limit).then_some(n + 1);
                if self.counters.series.fetch_update(Relaxed, Relaxed, room).is_err() {
                    return outcomes.reject_all(batch, series, index, RejectReason::SeriesLimit);
                }
                outcomes.created += 1;
                state.head.create(series.id, batch.labels(series))
            }
        };
        if refused > 0 {
            outcomes.count_left_out(batch, series);
        }
        let State { head, generation, next_number, digests, .. } = state;
        if head.series[slot as usize].generation != *generation {
            define(head, slot, *generation, next_number, writer);
        }
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        let key = DigestKey::new(series.id);
        let (known, minutes) = (&mut head.series[slot as usize], &mut head.minutes);
        let number = known.number;
        for row in series.floats() {
            let (t, v, start) = (batch.timestamps[row], f64::from_bits(batch.values[row]), batch.start(row));
            if refused > 0 && !outcomes.accept.contains(&t) {
                continue;
            }
            outcomes.written.floats += 1;
            let straight = known.is_straight(t, start);
            outcomes.out_of_order += u64::from(!straight);
            if known.append_float(t, start, v, &mut head.scratch, &mut head.sample_bytes) == Outcome::Known {
                continue;
            }
            (first, last) = (first.min(t), last.max(t));
            match straight {
                true => minutes.count(outcomes.now, key, t, v),
                false => minutes.mix(outcomes.now, TimeRange::new(t, t)),
            }
            if start == 0 {
                writer.float(number, t, v);
            } else {
                writer.float_with_start(number, t, start, v);
            }
        }
        for row in &batch.histograms[series.histograms()] {
            if refused > 0 && !outcomes.accept.contains(&row.timestamp) {
                continue;
            }
            outcomes.written.histograms += 1;
            outcomes.out_of_order += 1;
            let shared = Arc::new(row.histogram.clone());
            known.append_histogram(row.timestamp, row.start, shared, &mut head.sample_bytes);
            (first, last) = (first.min(row.timestamp), last.max(row.timestamp));
            minutes.mix(outcomes.now, TimeRange::new(row.timestamp, row.timestamp));
            writer.histogram(number, row.timestamp, row.start, &row.histogram);
        }
        if first <= last {
            head.saw(first);
            head.saw(last);
            digests.changed(TimeRange::new(first, last));
        }
    }

    /// Whether labels that another node has sent are canonical and have the id that it says.
    fn is_named_rightly(&self, batch: &Batch, series: &BatchSeries) -> bool {
        let labels = batch.labels(series);
        model::labels::is_canonical(labels) && self.key.id(labels) == series.id
    }

    fn count(&self, outcomes: &Outcomes) {
        let c = &self.counters;
        let add = |counter: &AtomicU64, n: u64| {
            if n > 0 {
                counter.fetch_add(n, Relaxed);
            }
        };
        add(&c.floats, outcomes.written.floats);
        add(&c.histograms, outcomes.written.histograms);
        add(&c.out_of_order, outcomes.out_of_order);
        add(&c.series_created, outcomes.created);
        for r in &outcomes.rejected {
            let counter = match r.reason {
                RejectReason::TooOld => &c.too_old,
                RejectReason::TooFarInFuture => &c.future,
                RejectReason::SeriesLimit => &c.series_limit,
                RejectReason::IdCollision => &c.id_collision,
            };
            add(counter, u64::from(r.rows));
        }
    }
}

/// Gives a series its number in the current generation.
pub(super) fn define(
    head: &mut crate::head::Head,
    slot: u32,
    generation: u32,
    next_number: &mut u32,
    writer: &mut RowsWriter,
) {
    let mut labels = Vec::with_capacity(256);
    head.labels_bytes(slot, &mut labels);
    writer.define(*next_number, &labels);
    let series = &mut head.series[slot as usize];
    (series.generation, series.number) = (generation, *next_number);
    *next_number += 1;
}

/// Sorts the wanted series by shard, by counting. `starts[s]` is where shard `s` ends in `order`.
fn group(batch: &Batch, only: Option<&[u32]>, shards: u32, starts: &mut Vec<u32>, order: &mut Vec<u32>) {
    starts.clear();
    starts.resize(shards as usize + 1, 0);
    let shard = |index: u32| batch.series[index as usize].id.shard(shards).0 as usize;
    let all = 0..batch.series.len() as u32;
    let count = only.map_or(all.len(), <[u32]>::len);
    let wanted = || (0..count).map(|i| only.map_or(i as u32, |only| only[i]));
    for index in wanted() {
        starts[shard(index) + 1] += 1;
    }
    for s in 1..starts.len() {
        starts[s] += starts[s - 1];
    }
    order.clear();
    order.resize(count, 0);
    for index in wanted() {
        let at = &mut starts[shard(index)];
        order[*at as usize] = index;
        *at += 1;
    }
}

impl Outcomes {
    /// Notes rows outside the accepted time, and returns how many there are.
    #[inline]
    fn reject_out_of_bounds(&mut self, batch: &Batch, series: &BatchSeries, index: u32) -> u32 {
        let floats = &batch.timestamps[series.floats()];
        let histograms = &batch.histograms[series.histograms()];
        let outside = |t: i64| !self.accept.contains(&t);
        if !floats.iter().any(|&t| outside(t)) && !histograms.iter().any(|h| outside(h.timestamp)) {
            return 0;
        }
        let times = || floats.iter().copied().chain(histograms.iter().map(|h| h.timestamp));
        let mut refused = 0;
        let mut note = |reason, is: &dyn Fn(i64) -> bool| {
            if let Some(timestamp) = times().find(|&t| is(t)) {
                let rows = times().filter(|&t| is(t)).count() as u32;
                refused += rows;
                if self.origin == Origin::Writer || reason != RejectReason::TooOld {
                    self.rejected.push(Rejection { series: index, timestamp, rows, reason });
                }
            }
        };
        let (min, max) = (*self.accept.start(), *self.accept.end());
        note(RejectReason::TooOld, &|t| t < min);
        note(RejectReason::TooFarInFuture, &|t| t > max);
        refused
    }

    /// What another node has let in and is too old by now counts as written: it would not be seen if it was there.
    fn count_left_out(&mut self, batch: &Batch, series: &BatchSeries) {
        if self.origin == Origin::Replica {
            let old = |t: i64| t < *self.accept.start();
            let floats = batch.timestamps[series.floats()].iter().filter(|&&t| old(t)).count();
            let histograms =
                batch.histograms[series.histograms()].iter().filter(|h| old(h.timestamp)).count();
            self.written.floats += floats as u64;
            self.written.histograms += histograms as u64;
        }
    }

    /// Notes all rows of a series that are within bounds.
    fn reject_all(&mut self, batch: &Batch, series: &BatchSeries, index: u32, reason: RejectReason) {
        let floats = batch.timestamps[series.floats()].iter().copied();
        let histograms = batch.histograms[series.histograms()].iter().map(|h| h.timestamp);
        let mut within = floats.chain(histograms).filter(|t| self.accept.contains(t));
        if let Some(timestamp) = within.next() {
            let rows = 1 + within.count() as u32;
            self.rejected.push(Rejection { series: index, timestamp, rows, reason });
        }
    }

    /// Takes back what was noted about a series that the caller will send again.
    fn forget(&mut self, index: u32) {
        while self.rejected.last().is_some_and(|r| r.series == index) {
            self.rejected.pop();
        }
    }
}
