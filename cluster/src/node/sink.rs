//! Writes of this node's clients: to the own replica, and over the network to the others.

use super::race::Race;
use super::shared::{Current, Data, Shared};
use crate::placement::NodeId;
use crate::quorum::Consistency;
use crate::transport::{self, Kind};
use crate::view::View;
use crate::write::{
    Bounds, Context, Coordinator, Local, Most, Outgoing, Piece, encode_metadata, in_frames, pieces,
};
use bytes::Bytes;
use model::{
    Appended, Batch, BatchSeries, Durable, Error, HistogramRow, Metadata, Rejection, SeriesKey, Sink, Written,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// How often a write that met a newer placement is tried.
const ATTEMPTS: usize = 3;
/// What requests may hold that are answered and wait for slow replicas. Beyond it these get hints instead.
const LINGERING_BYTES_MAX: usize = 256 << 20;

/// Writes with one consistency.
pub(super) struct ClusterSink {
    pub shared: Arc<Shared>,
    pub consistency: Option<Consistency>,
}

/// Something that a request waits for.
enum Happened {
    Durable(Result<(), Error>),
    Reply(NodeId, Result<Bytes, transport::Error>),
}

fn stopped() -> Error {
    Error::Busy { reason: "the node is starting or stopping", retry_after_s: 1 }
}

fn moved() -> Error {
    Error::Busy { reason: "the cluster is changing its placement", retry_after_s: 1 }
}

impl ClusterSink {
    fn bounds(&self, view: &View) -> Bounds {
        let (now, options) = (self.shared.wall().0, &self.shared.options);
        let future = i64::try_from(options.future_max.as_millis()).unwrap_or(i64::MAX);
        Bounds { oldest: self.shared.oldest(view), newest: now.saturating_add(future) }
    }

    fn context(&self, data: &Data, view: &Arc<View>, deadline: Instant) -> Context {
        let left = deadline.saturating_duration_since(Instant::now());
        Context {
            view: view.clone(),
            bounds: self.bounds(view),
            consistency: self.consistency.unwrap_or(self.shared.namespace(view).write),
            dictionary: data.dictionary.clone(),
            session: data.session,
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// The own replica has everything: the engine as it is.
    fn append_alone(
        &self,
        data: &Data,
        view: &View,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
        deadline: Instant,
    ) -> Result<Appended, Error> {
        let mut appended = data.replica.append(batch, only)?;
        // What was all refused, or is only metadata, must not settle who holds what: it would be for nothing.
        if !view.has_data && appended.written != Written::default() {
            let (shared, epoch) = (self.shared.clone(), view.epoch());
            let durable = std::mem::replace(&mut appended.durable, Box::pin(async { Ok(()) }));
            appended.durable = Box::pin(async move {
                shared.note_data(deadline).await?;
                match shared.current() {
                    Some(current) if current.view.epoch() == epoch => durable.await,
                    // Somebody joined just before.
                    _ => Err(moved()),
                }
            });
        }
        Ok(appended)
    }

    /// Appends to the own replica, and gives the frames for the others. If this node accepts a newer placement meanwhile, it is done again under that
    /// one: whoever makes a copy of a shard relies on it that this node has what it acknowledges under an older placement before it accepts the newer.
    fn begin(
        &self,
        data: &Data,
        view: &mut Arc<View>,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
        deadline: Instant,
    ) -> Begun {
        loop {
            let begun = self.begin_under(data, view, batch, only, deadline);
            match self.shared.current() {
                Some(current) if current.view.epoch() > view.epoch() => *view = current.view,
                _ => return begun,
            }
        }
    }

    fn begin_under(
        &self,
        data: &Data,
        view: &Arc<View>,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
        deadline: Instant,
    ) -> Begun {
        let mut coordinator = Coordinator::begin(self.context(data, view, deadline), batch, only);
        let mut taken = Written::default();
        let (own, indices) = coordinator.local();
        let (local, durable) = match indices.is_empty() {
            true => (Ok(Local::default()), None),
            false => match data.replica.append_replicated(own, Some(indices)) {
                Ok(Appended { durable, unknown, rejected, written }) => {
                    taken = written;
                    (Ok(Local { unknown, rejected }), Some(durable))
                }
                Err(error) => (Err(error), None),
            },
        };
        let sends = match local {
            Ok(local) => coordinator.on_local(Ok(local)),
            Err(error) => coordinator.on_local(Err(&error)),
        };
        let is_data = taken != Written::default() || !sends.is_empty();
        Begun { coordinator, durable, sends, is_data }
    }

    fn prepare(
        &self,
        data: &Data,
        view: &Arc<View>,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
        deadline: Instant,
    ) -> Prepared {
        let mut view = view.clone();
        let Begun { coordinator, durable, sends, is_data } =
            self.begin(data, &mut view, batch, only, deadline);
        let unknown = coordinator.unknown().to_vec();
        let rejected = coordinator.rejected().to_vec();
        let written = written(coordinator.local().0, only, &unknown);
        let mut request = Request {
            sink: ClusterSink { shared: self.shared.clone(), consistency: self.consistency },
            batch: batch.clone(),
            // Series that come again have no part in this request.
            only: (!unknown.is_empty()).then(|| known(batch, only, &unknown)).or(only.map(<[u32]>::to_vec)),
            race: Race::default(),
            deadline,
            busy: false,
            lingering: None,
        };
        request.wait_for(durable);
        let first_data = (!view.has_data && is_data).then(|| view.epoch());
        Prepared { request, coordinator, held: sends, first_data, written, unknown, rejected }
    }

    /// A batch that fits into frames.
    fn append_one(
        &self,
        data: &Data,
        view: &Arc<View>,
        batch: &Arc<Batch>,
        only: Option<&[u32]>,
        deadline: Instant,
    ) -> Appended {
        let mut prepared = self.prepare(data, view, batch, only, deadline);
        prepared.send();
        let (written, unknown) = (prepared.written, std::mem::take(&mut prepared.unknown));
        let rejected = std::mem::take(&mut prepared.rejected);
        let (tell, told) = oneshot::channel();
        tokio::spawn(prepared.run(tell));
        let durable: Durable = Box::pin(async move { told.await.unwrap_or_else(|_| Err(stopped())) });
        Appended { durable, written, unknown, rejected }
    }

    /// A batch that does not. Its pieces go out one after the other, so that all of them together need no more room in the queues to other
    /// nodes than one.
    fn append_pieces(
        &self,
        data: &Data,
        view: &Arc<View>,
        pieces: Vec<Piece>,
        deadline: Instant,
    ) -> Appended {
        let (mut written, mut unknown, mut rejected) = (Written::default(), BTreeSet::new(), Vec::new());
        let mut all = Vec::with_capacity(pieces.len());
        for Piece { batch, series } in pieces {
            let mut prepared = self.prepare(data, view, &batch, None, deadline);
            written.floats += prepared.written.floats;
            written.histograms += prepared.written.histograms;
            let whole = |index: u32| series.get(index as usize).copied().unwrap_or(index);
            unknown.extend(prepared.unknown.drain(..).map(whole));
            let refused = prepared.rejected.drain(..);
            rejected.extend(refused.map(|one| Rejection { series: whole(one.series), ..one }));
            all.push(prepared);
        }
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let mut outcome = Ok(());
            for prepared in all {
                let (tell, told) = oneshot::channel();
                tokio::spawn(prepared.run(tell));
                outcome = worse(outcome, told.await.unwrap_or_else(|_| Err(stopped())));
            }
            let _ = tell.send(outcome);
        });
        let durable: Durable = Box::pin(async move { told.await.unwrap_or_else(|_| Err(stopped())) });
        Appended { durable, written, unknown: unknown.into_iter().collect(), rejected }
    }
}

/// Of what became of two parts of a request: what passes comes before what does not, since the whole is to be sent again then.
fn worse(one: Result<(), Error>, other: Result<(), Error>) -> Result<(), Error> {
    match (&one, &other) {
        (Ok(()), _) | (Err(Error::Limit { .. }), Err(_)) => other,
        _ => one,
    }
}

/// A request whose rows the own replica has, ready to be run.
struct Prepared {
    request: Request,
    coordinator: Coordinator,
    /// Frames that are to go out first.
    held: Vec<Outgoing>,
    /// The epoch under which this was made, if the cluster does not know of any data yet: it has to before anything goes out or is answered,
    /// also if no other node has a copy.
    first_data: Option<u64>,
    written: Written,
    unknown: Vec<u32>,
    rejected: Vec<Rejection>,
}

impl Prepared {
    /// Gives the frames their places in the queues, if they may go out already.
    fn send(&mut self) {
        if self.first_data.is_none() {
            std::mem::take(&mut self.held).into_iter().for_each(|send| self.request.send(send));
        }
    }

    async fn run(mut self, tell: oneshot::Sender<Result<(), Error>>) {
        let shared = self.request.sink.shared.clone();
        if let Some(epoch) = self.first_data {
            if let Err(error) = shared.note_data(self.request.deadline).await {
                return drop(tell.send(Err(error)));
            }
            if shared.current().is_none_or(|current| current.view.epoch() != epoch) {
                return drop(tell.send(Err(moved())));
            }
            self.first_data = None;
        }
        self.send();
        let epoch = self.coordinator.epoch();
        self.request.run(self.coordinator, epoch, tell).await;
    }
}

/// A request whose rows the own replica has.
struct Begun {
    coordinator: Coordinator,
    durable: Option<Durable>,
    sends: Vec<Outgoing>,
    /// Whether there is any row that a replica has taken, or may take.
    is_data: bool,
}

impl Sink for ClusterSink {
    fn key(&self) -> SeriesKey {
        match self.shared.data() {
            Some(data) => data.replica.key(),
            None => SeriesKey::of_cluster(0),
        }
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        let (Some(data), Some(Current { mut view, mut alone })) = (self.shared.data(), self.shared.current())
        else {
            return Err(stopped());
        };
        let deadline = Instant::now() + self.shared.options.write_timeout;
        while alone {
            let appended = self.append_alone(data, &view, batch, only, deadline)?;
            match self.shared.current() {
                // It is to have copies elsewhere, and these need what comes from now on.
                Some(current) if current.view.epoch() > view.epoch() => {
                    (view, alone) = (current.view, current.alone)
                }
                _ => return Ok(appended),
            }
        }
        match pieces(batch, only, &Most::of_frame(self.shared.bounds.frame_bytes_max)) {
            None => Ok(self.append_one(data, &view, batch, only, deadline)),
            Some(pieces) => Ok(self.append_pieces(data, &view, pieces, deadline)),
        }
    }

    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error> {
        let (Some(data), Some(current)) = (self.shared.data(), self.shared.current()) else {
            return Err(stopped());
        };
        data.replica.describe(metadata)?;
        if current.view.nodes.len() > 1 {
            let changed = data.described.lock().changed(metadata);
            let Some(transport) = self.shared.transport() else { return Ok(()) };
            for some in in_frames(&changed, self.shared.bounds.frame_bytes_max) {
                let body = Bytes::from(encode_metadata(some));
                for node in current.view.nodes.keys().filter(|node| **node != current.view.me) {
                    // Who is away hears it after coming back, and who has no room when it is written again.
                    if let Err(transport::Error::Busy(_)) =
                        transport.send(*node, Kind::Describe, body.clone())
                    {
                        self.shared.tell_metadata_again();
                    }
                }
            }
        }
        Ok(())
    }
}

/// The series of a request without those that are unknown.
fn known(batch: &Batch, only: Option<&[u32]>, unknown: &[u32]) -> Vec<u32> {
    let unknown: BTreeSet<u32> = unknown.iter().copied().collect();
    let all = 0..batch.series.len() as u32;
    let wanted: Vec<u32> = only.map_or_else(|| all.collect(), <[u32]>::to_vec);
    wanted.into_iter().filter(|index| !unknown.contains(index)).collect()
}

/// The rows that were let in, of series that are known.
fn written(batch: &Batch, only: Option<&[u32]>, unknown: &[u32]) -> Written {
    let mut written = Written::default();
    let mut add = |index: u32, sign: i64| {
        if let Some(series) = batch.series.get(index as usize) {
            written.floats = written.floats.wrapping_add_signed(sign * i64::from(series.floats_len));
            written.histograms =
                written.histograms.wrapping_add_signed(sign * i64::from(series.histograms_len));
        }
    };
    match only {
        Some(only) => only.iter().for_each(|index| add(*index, 1)),
        None => (0..batch.series.len() as u32).for_each(|index| add(index, 1)),
    }
    unknown.iter().for_each(|index| add(*index, -1));
    written
}

/// One request, until every replica has answered or the time is up.
struct Request {
    sink: ClusterSink,
    batch: Arc<Batch>,
    only: Option<Vec<u32>>,
    race: Race<Happened>,
    deadline: Instant,
    /// Whether a replica was not asked because there is too much to do.
    busy: bool,
    /// Since its client has the answer.
    lingering: Option<Lingering>,
}

/// Bytes of a request whose client has its answer, counted as long as this is there.
struct Lingering {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Lingering {
    fn new(shared: &Arc<Shared>, batch: &Batch) -> Lingering {
        let columns = batch.timestamps.len() + batch.values.len() + batch.starts.len();
        let series = batch.series.len() * size_of::<BatchSeries>();
        let histograms = batch.histograms.len() * size_of::<HistogramRow>();
        let bytes = batch.bytes.len() + columns * 8 + series + histograms;
        shared.lingering_bytes.fetch_add(bytes, Ordering::Relaxed);
        Lingering { shared: shared.clone(), bytes }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.shared.lingering_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Request {
    fn wait_for(&mut self, durable: Option<Durable>) {
        if let Some(durable) = durable {
            self.race.push(async move { Happened::Durable(durable.await) });
        }
    }

    fn send(&mut self, send: Outgoing) {
        let Outgoing { to, body, after_ms } = send;
        let Some(transport) = self.sink.shared.transport().cloned() else { return };
        let deadline = self.deadline;
        let left = move || deadline.saturating_duration_since(Instant::now());
        if after_ms == 0 {
            let calling = transport.call(to, Kind::Write, body, left());
            self.race.push(async move { Happened::Reply(to, calling.await) });
        } else {
            self.race.push(async move {
                sleep(Duration::from_millis(u64::from(after_ms))).await;
                Happened::Reply(to, transport.call(to, Kind::Write, body, left()).await)
            });
        }
    }

    async fn run(
        mut self,
        mut coordinator: Coordinator,
        epoch: u64,
        tell: oneshot::Sender<Result<(), Error>>,
    ) {
        let shared = self.sink.shared.clone();
        let mut tell = Some(tell);
        for attempt in 1..=ATTEMPTS {
            self.drive(&mut coordinator, &mut tell, attempt < ATTEMPTS).await;
            if tell.is_none() {
                break;
            }
            // It failed because a replica knows a newer placement. The rows are the same.
            let newer = coordinator.newer_epoch().unwrap_or(epoch);
            let (Some(data), Some(Current { mut view, .. })) =
                (shared.data(), shared.view_of(newer, self.deadline).await)
            else {
                break;
            };
            self.race = Race::default();
            let begun = self.sink.begin(data, &mut view, &self.batch, self.only.as_deref(), self.deadline);
            if !begun.coordinator.unknown().is_empty() {
                // Only the sender can bring the labels.
                break;
            }
            coordinator = begun.coordinator;
            self.wait_for(begun.durable);
            begun.sends.into_iter().for_each(|send| self.send(send));
        }
        tell_once(&mut tell, Err(moved()));
        if let Some(data) = shared.data() {
            data.hints.add(coordinator.missed());
        }
    }

    /// Takes what happens until nobody is waited for. With `again` it returns without telling if a newer placement may help.
    async fn drive(
        &mut self,
        coordinator: &mut Coordinator,
        tell: &mut Option<oneshot::Sender<Result<(), Error>>>,
        again: bool,
    ) {
        loop {
            match coordinator.outcome() {
                Some(Err(_)) if tell.is_some() && again && coordinator.newer_epoch().is_some() => return,
                Some(Err(Error::Unavailable { .. })) if self.busy => tell_once(
                    tell,
                    Err(Error::Busy { reason: "the queue to another replica is full", retry_after_s: 1 }),
                ),
                Some(outcome) => tell_once(tell, outcome),
                None => {}
            }
            if coordinator.waiting().is_empty() {
                return;
            }
            if tell.is_none() {
                let shared = &self.sink.shared;
                self.lingering.get_or_insert_with(|| Lingering::new(shared, &self.batch));
                if shared.lingering_bytes.load(Ordering::Relaxed) > LINGERING_BYTES_MAX {
                    coordinator.on_deadline();
                    continue;
                }
            }
            match timeout_at(self.deadline, self.race.next()).await {
                Ok(Some(Happened::Durable(result))) => coordinator.on_durable(result.as_ref().copied()),
                Ok(Some(Happened::Reply(from, Ok(reply)))) => {
                    if let Some(next) = coordinator.on_reply(from, &reply) {
                        self.send(next);
                    }
                }
                Ok(Some(Happened::Reply(from, Err(error)))) => {
                    self.busy |= matches!(error, transport::Error::Busy(_) | transport::Error::PeerBusy(_));
                    coordinator.on_failed(from, &error.to_string());
                }
                Ok(None) | Err(_) => coordinator.on_deadline(),
            }
        }
    }
}

fn tell_once(tell: &mut Option<oneshot::Sender<Result<(), Error>>>, outcome: Result<(), Error>) {
    if let Some(tell) = tell.take() {
        // Whoever waited may be gone; the request goes on, for the replicas' sake.
        let _ = tell.send(outcome);
    }
}
