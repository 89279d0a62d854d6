//! What repair does with a replica's data: here, and for peers that ask. Blocking.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::machine::Event;
use super::message::{Ask, EXPORT_BYTES_MAX, EXPORT_SERIES_MAX, PAGE_SERIES, Reply, Request, Seen};
use crate::faults::{Mistake, planted};
use crate::placement::NodeId;
use crate::rows::{self, Decoder, Encoder, Limits, Name, NoNumbers};
use crate::view::View;
use crate::wire::Malformed;
use model::{
    Batch, BatchSeries, Damage, Digest, Error, HistogramRow, Replica, Samples, SeriesId, Shard, TimeRange,
    merge,
};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Something to be done with this node's own data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// The digests of these ranges.
    Digests {
        /// Of which shard.
        shard: Shard,
        /// When.
        ranges: Vec<TimeRange>,
    },
    /// Which of these series, all of the peer's between two ids, are not the same here.
    Differ {
        /// Of which shard.
        shard: Shard,
        /// When.
        range: TimeRange,
        /// Ascending.
        theirs: Vec<(SeriesId, Digest)>,
    },
    /// Append what is missing here of rows that were asked for, and make all of them durable.
    Apply {
        /// Of which shard.
        shard: Shard,
        /// When.
        range: TimeRange,
        /// The series that may be among them and the digests that the peer has told of them, ascending.
        wanted: Vec<(SeriesId, Digest)>,
        /// As they came.
        rows: Vec<u8>,
    },
    /// Make everything that was appended so far durable.
    Sync,
    /// What is damaged.
    Damage,
    /// Forget a damage.
    Mend {
        /// Which.
        number: u64,
    },
}

/// What came of a [`Local`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// To [`Local::Digests`], in the same order.
    Digests(Vec<Digest>),
    /// To [`Local::Differ`]: the peer's digests of those series, ascending.
    Differ(Vec<(SeriesId, Digest)>),
    /// To [`Local::Apply`].
    Applied {
        /// Rows that came.
        fetched: u64,
        /// Rows of these that were not here, and were appended.
        appended: u64,
        /// Series whose rows do not have the digest that the peer told, or did not come.
        unlike: u32,
        /// Of these, the series that did not come.
        missing: u32,
    },
    /// To [`Local::Apply`]: the peer sent what was not asked for, or what makes no sense. Nothing was appended.
    Refused(String),
    /// To [`Local::Sync`].
    Synced,
    /// To [`Local::Damage`].
    Damage(Vec<Damage>),
    /// To [`Local::Mend`].
    Mended,
    /// It could not be done.
    Failed(String),
}

/// Does it.
pub fn perform(replica: &dyn Replica, local: Local) -> Done {
    try_perform(replica, local).unwrap_or_else(|e| Done::Failed(e.to_string()))
}

fn try_perform(replica: &dyn Replica, local: Local) -> Result<Done, Error> {
    Ok(match local {
        Local::Digests { shard, ranges } => {
            let digests = ranges.into_iter().map(|range| replica.digest(shard, range));
            Done::Digests(digests.collect::<Result<_, _>>()?)
        }
        Local::Differ { shard, range, theirs } => {
            let ours = replica.series_digests(shard, range)?;
            let same = |(id, digest): &(SeriesId, Digest)| {
                let at = ours.binary_search_by_key(id, |own| own.0).ok();
                at.and_then(|at| ours.get(at))
                    .is_some_and(|own| own.1 == *digest || planted(Mistake::CompareSeriesOnly))
            };
            Done::Differ(theirs.into_iter().filter(|series| !same(series)).collect())
        }
        Local::Apply { shard, range, wanted, rows } => apply(replica, shard, range, &wanted, &rows)?,
        Local::Sync => {
            replica.commit()?;
            Done::Synced
        }
        Local::Damage => Done::Damage(replica.damage()),
        Local::Mend { number } => {
            replica.mended(number)?;
            Done::Mended
        }
    })
}

fn apply(
    replica: &dyn Replica,
    shard: Shard,
    range: TimeRange,
    wanted: &[(SeriesId, Digest)],
    rows: &[u8],
) -> Result<Done, Error> {
    let batch = match decode(replica, shard, rows) {
        Ok(batch) => batch,
        Err(e) => return Ok(Done::Refused(e.to_string())),
    };
    let mut alike = 0;
    let mut last = None;
    let mut theirs = Vec::with_capacity(batch.series.len());
    for series in &batch.series {
        let told =
            wanted.binary_search_by_key(&series.id, |wanted| wanted.0).ok().and_then(|at| wanted.get(at));
        let Some((_, told)) = told else {
            return Ok(Done::Refused(format!("series {:?} was not asked for", series.id)));
        };
        if last.replace(series.id).is_some_and(|last| last >= series.id) {
            return Ok(Done::Refused(format!("series {:?} is out of order", series.id)));
        }
        let Some(samples) = samples(&batch, series).filter(|samples| is_inside(samples, range)) else {
            return Ok(Done::Refused(format!("series {:?} has rows that were not asked for", series.id)));
        };
        alike += usize::from(Digest::of(series.id, &samples) == *told);
        theirs.push(samples);
    }
    let count = |batch: &Batch| (batch.timestamps.len() + batch.histograms.len()) as u64;
    let fetched = count(&batch);
    let missing = wanted.len().saturating_sub(batch.series.len()) as u32;
    let lacking = lacking(replica, shard, range, batch, &theirs)?;
    let appended = count(&lacking);
    if fetched > 0 {
        append(replica, lacking)?;
    }
    // A series of which nothing came is no better than one that differs.
    let unlike = wanted.len().saturating_sub(alike) as u32;
    Ok(Done::Applied { fetched, appended, unlike, missing })
}

/// What came without the rows that are here: they would be logged and kept once more. `theirs` are the rows of the batch. Every series stays,
/// if need be without rows: what is here need not be durable yet, and an append waits until all of its series are.
fn lacking(
    replica: &dyn Replica,
    shard: Shard,
    range: TimeRange,
    came: Batch,
    theirs: &[Samples],
) -> Result<Batch, Error> {
    let ids: Vec<SeriesId> = came.series.iter().map(|series| series.id).collect();
    let mut lacking = Batch { bytes: came.bytes, ..Batch::default() };
    let (mut own, mut left) = (Batch::default(), Samples::default());
    let mut all = came.series.iter().zip(theirs).peekable();
    // As much of the own rows at a time as a peer is sent, so that memory is bounded by the same.
    let mut rest = &ids[..];
    while !rest.is_empty() {
        own.clear();
        let next = replica.export(shard, range, rest, EXPORT_BYTES_MAX, &mut own)?;
        rest = match next {
            Some(next) => rest.get(rest.partition_point(|id| *id < next)..).unwrap_or(&[]),
            None => &[],
        };
        while let Some((series, theirs)) = all.next_if(|(series, _)| next.is_none_or(|next| series.id < next))
        {
            let here = own.series.binary_search_by_key(&series.id, |own| own.id).ok();
            let ours = here.and_then(|at| samples(&own, own.series.get(at)?)).unwrap_or_default();
            merge::lacking(&ours, theirs, &mut left);
            push(&mut lacking, series, &left);
        }
    }
    Ok(lacking)
}

/// Adds a series with these rows; its labels are there.
fn push(batch: &mut Batch, series: &BatchSeries, rows: &Samples) {
    batch.series.push(BatchSeries {
        floats_at: batch.timestamps.len() as u32,
        floats_len: rows.timestamps.len() as u32,
        histograms_at: batch.histograms.len() as u32,
        histograms_len: rows.histograms.len() as u32,
        ..*series
    });
    if !rows.starts.is_empty() || !batch.starts.is_empty() {
        // Unset for all that came before, and for what has none.
        batch.starts.resize(batch.timestamps.len(), 0);
        batch.starts.extend_from_slice(&rows.starts);
        batch.starts.resize(batch.timestamps.len() + rows.timestamps.len(), 0);
    }
    batch.timestamps.extend_from_slice(&rows.timestamps);
    batch.values.extend(rows.values.iter().map(|value| value.to_bits()));
    batch.histograms.extend(rows.histograms.iter().map(|(timestamp, start, histogram)| HistogramRow {
        timestamp: *timestamp,
        start: *start,
        histogram: (**histogram).clone(),
    }));
}

/// What one chunk may hold. A window of one series may be longer than a chunk, and comes in one piece.
const LIMITS: Limits = Limits { series_max: EXPORT_SERIES_MAX as u32, rows_max: 1 << 22 };

/// The rows of a chunk. The ids are computed here, so nobody can lie about them; series without labels have nothing to lie with, and are
/// refused as well.
fn decode(replica: &dyn Replica, shard: Shard, rows: &[u8]) -> Result<Batch, rows::Error> {
    let decoder = Decoder { key: replica.key(), shards: replica.shards(), limits: LIMITS };
    let (mut batch, mut unresolved) = (Batch::default(), Vec::new());
    for section in rows::sections(rows) {
        decoder.decode(&section?, &mut NoNumbers, &mut batch, &mut unresolved)?;
    }
    let wrong = |series: &BatchSeries| !series.checked || series.id.shard(decoder.shards) != shard;
    if batch.series.iter().any(wrong) {
        return Err(Malformed { what: "rows of a replica" }.into());
    }
    Ok(batch)
}

fn encode(shard: Shard, batch: &Batch) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    for series in &batch.series {
        encoder.push_batch(Name::Labels(batch.labels(series)), batch, series);
    }
    encoder.finish(shard, 0, &mut out);
    out
}

/// The rows of one series of a batch in columns.
fn samples(batch: &Batch, series: &BatchSeries) -> Option<Samples> {
    let bits = batch.values.get(series.floats())?;
    Some(Samples {
        timestamps: batch.timestamps.get(series.floats())?.to_vec(),
        values: bits.iter().map(|bits| f64::from_bits(*bits)).collect(),
        starts: series.floats().map(|row| batch.start(row)).collect(),
        histograms: batch
            .histograms
            .get(series.histograms())?
            .iter()
            .map(|row| (row.timestamp, row.start, Arc::new(row.histogram.clone())))
            .collect(),
    })
}

fn is_inside(samples: &Samples, range: TimeRange) -> bool {
    let mut times = samples.timestamps.iter().copied().chain(samples.histograms.iter().map(|row| row.0));
    times.all(|t| range.contains(t))
}

/// Appends, and returns when it is durable.
fn append(replica: &dyn Replica, batch: Batch) -> Result<(), Error> {
    let mut appended = replica.append_replicated(&Arc::new(batch), None)?;
    if let Some(rejection) = appended.rejected.first() {
        return Err(Error::Busy { reason: rejection.reason.as_str(), retry_after_s: 60 });
    }
    replica.commit()?;
    match appended.durable.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => {
            Err(Error::Busy { reason: "the commit of repaired rows is still under way", retry_after_s: 1 })
        }
    }
}

/// Answers a peer's question. `emit` gets the reply, in one piece. The transport has proved who asks; which shards a replica
/// holds, and under which placement, is checked here. A question that makes no sense is an error, for the connection to end.
///
/// Who asks for the series of a window has seen that the two copies differ there. Its one may be the one that has more, so that is
/// [`Event::Suspect`] here, and both sides are equal after one round instead of two.
pub fn serve(
    view: &View,
    replica: &dyn Replica,
    from: NodeId,
    request: &[u8],
    emit: &mut dyn FnMut(Vec<u8>),
) -> Result<Option<Event>, Malformed> {
    let request = Request::decode(request)?;
    let shard = request.shard;
    let differs = match &request.ask {
        Ask::Series { range, from: SeriesId(0) } => Some(*range),
        _ => None,
    };
    let reply = answer(view, replica, request);
    let suspect = differs.filter(|_| matches!(reply, Reply::Series { .. }));
    emit(reply.encode());
    Ok(suspect.map(|range| Event::Suspect { shard, range, peer: Some(from) }))
}

fn answer(view: &View, replica: &dyn Replica, request: Request) -> Reply {
    let (epoch, shard) = (view.epoch(), request.shard);
    if request.epoch < epoch {
        return Reply::Stale { epoch };
    }
    if request.epoch > epoch && !planted(Mistake::PassBeforeAccepted) {
        return Reply::Behind { epoch };
    }
    if !view.placement.replicas(shard).iter().any(|r| r.node == view.me) {
        return Reply::NotHeld { shard };
    }
    look(replica, shard, request.ask).unwrap_or_else(|e| Reply::Failed { why: e.to_string() })
}

fn look(replica: &dyn Replica, shard: Shard, ask: Ask) -> Result<Reply, Error> {
    Ok(match ask {
        Ask::Digests(ranges) => {
            let digests =
                ranges.iter().map(|range| replica.digest(shard, *range)).collect::<Result<Vec<_>, _>>()?;
            // Afterwards: what the scan itself found damaged is told.
            let damage = replica.damage();
            let damaged =
                |range: &TimeRange| damage.iter().any(|d| d.shard == shard && d.range.overlaps(range));
            let seen =
                ranges.iter().zip(digests).map(|(range, digest)| Seen { digest, damaged: damaged(range) });
            Reply::Digests(seen.collect())
        }
        Ask::Series { range, from } => {
            let all = replica.series_digests(shard, range)?;
            let rest = all.get(all.partition_point(|series| series.0 < from)..).unwrap_or(&[]);
            let (page, behind) = rest.split_at_checked(PAGE_SERIES).unwrap_or((rest, &[]));
            Reply::Series { series: page.to_vec(), next: behind.first().map(|series| series.0) }
        }
        Ask::Export { range, series } => {
            let mut batch = Batch::default();
            let next = replica.export(shard, range, &series, EXPORT_BYTES_MAX, &mut batch)?;
            Reply::Rows { rows: encode(shard, &batch), next }
        }
    })
}
