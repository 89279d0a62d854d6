//! One lane to one peer: what waits to be sent, who waits for an answer, and the connection.
//!
//! ```text
//!   Connecting ──► Up ──► Down ──► Up …        at first, frames wait for the connection;
//!        └─────────────────▲                   once it was found to be away, they fail at once
//! ```

use super::codec::Codec;
use super::frame::{self, Answer, Frame, Request, Status};
use super::handshake::{self, Identity, Known, Refused};
use super::net::{self, Counted};
use super::peers::Table;
use super::{Bounds, Counters, Error, Event, Kind, Lane};
use crate::placement::NodeId;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request as HttpRequest, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Streaming;
use tonic::body::Body;

pub(super) const FRAMES: &str = "/sarsen.Peer/Frames";
pub(super) const CALL: &str = "/sarsen.Peer/Call";
pub(super) const JOIN: &str = "/sarsen.Peer/Join";

/// A connection that lived so long was good; the next one is tried without a longer pause.
const GOOD: Duration = Duration::from_secs(1);

/// Between two attempts, however often the peer calls.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// One lane to one peer.
pub(super) struct Link {
    node: NodeId,
    lane: Lane,
    bounds: Bounds,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// Wakes calls that wait for the first connection.
    changed: Notify,
    /// The peer has called.
    called: Notify,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Of the connection that takes from the queue; an earlier one takes nothing any more.
    generation: u64,
    queue: VecDeque<Request>,
    queue_bytes: usize,
    waker: Option<Waker>,
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// For streams of their own on this connection.
    channel: Option<Channel>,
}

struct Waiting {
    kind: Kind,
    answer: oneshot::Sender<Result<Bytes, Error>>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Connecting,
    Up,
    Down(String),
}

/// What a link needs to connect.
pub(super) struct Way {
    pub identity: Arc<Identity>,
    pub table: Arc<Table>,
    pub address: String,
    pub seed: u64,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Link {
    pub fn new(node: NodeId, lane: Lane, bounds: Bounds, counters: Arc<Counters>) -> Arc<Link> {
        Arc::new(Link {
            node,
            lane,
            bounds,
            counters,
            state: Mutex::default(),
            changed: Notify::new(),
            called: Notify::new(),
        })
    }

    /// The peer has called, so it is there: whoever waits to try it again tries at once.
    pub fn called(&self) {
        self.called.notify_one();
    }

    /// Frames that wait to be sent, their bytes, and answers that are waited for.
    pub fn depth(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.queue_bytes, state.waiting.len())
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Up)
    }

    /// Sends what needs no answer.
    pub fn send(&self, kind: Kind, body: Bytes) -> Result<(), Error> {
        self.enter(kind, 0, body, None).map(drop)
    }

    /// Sends what is to be answered within `within`. It has its place in the order when this returns.
    pub fn call(
        self: &Arc<Link>,
        kind: Kind,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let entered = self.enter(kind, milliseconds(within), body, Some(answer));
        let deadline = Instant::now() + within;
        let forget = entered.map(|id| Forget(self.clone(), id));
        let node = self.node;
        async move {
            let forget = forget?;
            let result = match timeout_at(deadline, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Error::Lost(node)),
                Err(_) => Err(Error::Deadline(node)),
            };
            drop(forget);
            result
        }
    }

    fn enter(
        &self,
        kind: Kind,
        timeout_ms: u32,
        body: Bytes,
        answer: Option<oneshot::Sender<Result<Bytes, Error>>>,
    ) -> Result<u64, Error> {
        let node = self.node;
        let (got, max) = (body.len(), self.bounds.frame_bytes_max);
        if got > max {
            return Err(Error::TooLarge { got, max });
        }
        let mut state = self.state.lock();
        if let Phase::Down(why) = &state.phase {
            return Err(Error::Unreachable { node, why: why.clone() });
        }
        let frames = state.queue.len().max(state.waiting.len());
        if frames >= self.bounds.queue_frames_max || state.queue_bytes + got > self.bounds.queue_bytes_max {
            return Err(Error::Busy(node));
        }
        let mut id = 0;
        if let Some(answer) = answer {
            state.next_id += 1;
            id = state.next_id;
            state.waiting.insert(id, Waiting { kind, answer });
        }
        state.queue_bytes += got;
        state.queue.push_back(Request { kind, id, timeout_ms, body });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(id)
    }

    /// A stream of its own for one call, answered in chunks.
    pub async fn stream(
        &self,
        identity: &Identity,
        kind: Kind,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Streaming<Answer>, Error> {
        let node = self.node;
        let (got, max) = (body.len(), self.bounds.frame_bytes_max);
        if got > max {
            return Err(Error::TooLarge { got, max });
        }
        let channel = loop {
            let changed = self.changed.notified();
            {
                let state = self.state.lock();
                match (&state.phase, &state.channel) {
                    (Phase::Down(why), _) => return Err(Error::Unreachable { node, why: why.clone() }),
                    (_, Some(channel)) => break channel.clone(),
                    (_, None) => {}
                }
            }
            timeout_at(deadline, changed).await.map_err(|_| Error::Deadline(node))?;
        };
        let timeout_ms = milliseconds(deadline.saturating_duration_since(Instant::now()));
        let frame = Request { kind, id: 0, timeout_ms, body };
        self.counters.sent(kind, frame.wire_bytes());
        let mut request = tonic::Request::new(frame);
        handshake::greet(identity, node, request.metadata_mut());
        let mut client = channel.client(&self.bounds);
        let calling = async {
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            client.server_streaming(request, PathAndQuery::from_static(CALL), Codec::new()).await
        };
        match timeout_at(deadline, calling).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(Error::Deadline(node)),
        }
    }

    pub fn received(&self, kind: Kind, bytes: usize) {
        self.counters.received(kind, bytes);
    }

    /// What the peer, or the connection to it, means by a status.
    pub fn error(&self, status: &tonic::Status) -> Error {
        let (node, why) = (self.node, status.message().to_owned());
        match status.code() {
            tonic::Code::ResourceExhausted => Error::PeerBusy(node),
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => Error::Lost(node),
            _ => Error::Failed { node, why },
        }
    }

    /// Keeps the connection, for ever.
    pub async fn keep(self: Arc<Link>, way: Way) {
        let mut lots = way.seed ^ self.node.0 as u64 ^ (self.lane as u64) << 32;
        let (first, longest) = self.bounds.backoff;
        let mut pause = first;
        let mut told = String::new();
        loop {
            self.counters.connecting();
            let opened = timeout(self.bounds.connect_timeout, self.open(&way)).await;
            let began = Instant::now();
            let (why, refused) = match opened {
                Ok(Ok((answers, _connection))) => {
                    told.clear();
                    match self.lane {
                        Lane::Write => drop(way.events.send(Event::Connected(self.node))),
                        _ => self.tell(&way, Event::Seen(self.node)),
                    }
                    self.receive(answers).await
                }
                Ok(Err(failed)) => failed,
                Err(_) => {
                    let seconds = self.bounds.connect_timeout.as_secs_f64();
                    (format!("{} did not answer within {seconds} s", way.address), None)
                }
            };
            if told != why {
                // The lanes to a peer come and go together; one of them says so.
                match self.lane {
                    Lane::Control => {
                        tracing::warn!(node = %self.node, address = %way.address, %why, "no connection to a peer");
                    }
                    lane => tracing::debug!(node = %self.node, ?lane, %why, "no connection to a peer"),
                }
                self.tell(
                    &way,
                    match refused {
                        Some(Refused { reason, why }) => Event::Refused { by: self.node, reason, why },
                        None => Event::Lost(self.node),
                    },
                );
                told.clone_from(&why);
            }
            self.down(why);
            pause = if began.elapsed() > GOOD { first } else { (pause * 2).min(longest) };
            // Between half of it and all of it, so that peers do not come back in step.
            let pausing = pause / 2 + pause.mul_f64(draw(&mut lots) / 2.0);
            tokio::time::sleep(pausing.min(PAUSE_MIN)).await;
            tokio::select! {
                () = tokio::time::sleep(pausing.saturating_sub(PAUSE_MIN)) => {}
                () = self.called.notified() => pause = first,
            }
        }
    }

    fn tell(&self, way: &Way, event: Event) {
        if self.lane == Lane::Control {
            // Nobody listens any more when the node stops.
            let _ = way.events.send(event);
        }
    }

    async fn open(
        self: &Arc<Link>,
        way: &Way,
    ) -> Result<(Streaming<Answer>, Connection), (String, Option<Refused>)> {
        let failed = |why: String| (format!("{}: {why}", way.address), None);
        let (channel, connection) =
            Channel::open(&way.address, &self.bounds, &self.counters).await.map_err(failed)?;
        let generation = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.generation
        };
        let mut request = tonic::Request::new(Outgoing { link: self.clone(), generation });
        handshake::greet(&way.identity, self.node, request.metadata_mut());
        let mut client = channel.client(&self.bounds);
        client.ready().await.map_err(|error| failed(error.to_string()))?;
        let answers = client
            .streaming(request, PathAndQuery::from_static(FRAMES), Codec::<Request, Answer>::new())
            .await
            .map_err(|status| (format!("{}: {}", way.address, status.message()), Refused::of(&status)))?;
        let run = handshake::answered(answers.metadata()).map_err(failed)?;
        // An old copy may serve before it is told that it is one.
        way.table.meet(self.node, run).map_err(|refused| failed(refused.why))?;
        let answers = answers.into_inner();
        let mut state = self.state.lock();
        state.phase = Phase::Up;
        state.channel = Some(channel);
        self.changed.notify_waiters();
        Ok((answers, connection))
    }

    /// Hands answers to who waits for them, until the connection ends.
    async fn receive(&self, mut answers: Streaming<Answer>) -> (String, Option<Refused>) {
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return ("the peer ended the connection".to_owned(), None),
                Err(status) => {
                    let why = format!("the connection was lost: {}", status.message());
                    return (why, Refused::of(&status));
                }
            };
            let bytes = answer.wire_bytes();
            // Nobody: the caller has given up.
            let Some(waiting) = self.state.lock().waiting.remove(&answer.id) else { continue };
            self.counters.received(waiting.kind, bytes);
            let _ = waiting.answer.send(outcome(self.node, answer));
        }
    }

    fn down(&self, why: String) {
        let (queue, waiting);
        {
            let mut state = self.state.lock();
            state.phase = Phase::Down(why);
            state.generation += 1;
            state.channel = None;
            state.queue_bytes = 0;
            queue = std::mem::take(&mut state.queue);
            waiting = std::mem::take(&mut state.waiting);
        }
        self.changed.notify_waiters();
        drop(queue);
        for (_, waiting) in waiting {
            let _ = waiting.answer.send(Err(Error::Lost(self.node)));
        }
    }
}

/// What an answer means to the caller.
pub(super) fn outcome(node: NodeId, answer: Answer) -> Result<Bytes, Error> {
    match answer.status {
        Status::Done => Ok(answer.body),
        Status::Busy => Err(Error::PeerBusy(node)),
        Status::Failed => {
            Err(Error::Failed { node, why: String::from_utf8_lossy(&answer.body).into_owned() })
        }
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A number from 0 to 1: splitmix64 (Steele, Lea and Flood 2014).
fn draw(lots: &mut u64) -> f64 {
    *lots = lots.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*lots ^ (*lots >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A caller that has given up is not waited for, and what it asked is not sent if it was not yet.
struct Forget(Arc<Link>, u64);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.state.lock().waiting.remove(&self.1);
    }
}

/// The queue of a link as the stream that one connection sends.
struct Outgoing {
    link: Arc<Link>,
    generation: u64,
}

impl tokio_stream::Stream for Outgoing {
    type Item = Request;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let mut state = self.link.state.lock();
        if state.generation != self.generation {
            return Poll::Ready(None);
        }
        while let Some(frame) = state.queue.pop_front() {
            state.queue_bytes -= frame.body.len();
            if frame.id == 0 || state.waiting.contains_key(&frame.id) {
                self.link.counters.sent(frame.kind, frame.wire_bytes());
                return Poll::Ready(Some(frame));
            }
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// An open connection, closed when this is dropped.
pub(super) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens streams on a connection.
#[derive(Clone)]
pub(super) struct Channel {
    sender: SendRequest<Body>,
    origin: Uri,
}

impl Channel {
    pub async fn open(
        address: &str,
        bounds: &Bounds,
        counters: &Arc<Counters>,
    ) -> Result<(Channel, Connection), String> {
        let origin = Uri::builder().scheme("http").authority(address).path_and_query("/").build();
        let origin = origin.map_err(|_| "not an address of the form host:port".to_owned())?;
        let stream = net::connect(address).await.map_err(|error| error.to_string())?;
        let stream = TokioIo::new(Counted::new(stream, counters.clone()));
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(net::STREAM_WINDOW)
            .initial_connection_window_size(net::CONNECTION_WINDOW)
            .max_frame_size(net::HTTP_FRAME)
            .max_header_list_size(net::HEADERS_MAX)
            .keep_alive_interval(bounds.ping_interval)
            .keep_alive_timeout(bounds.ping_timeout)
            .keep_alive_while_idle(true)
            .handshake(stream)
            .await
            .map_err(|error| error.to_string())?;
        let driving = tokio::spawn(async move {
            // Whoever uses the connection learns of its end from their streams.
            let _ = connection.await;
        });
        Ok((Channel { sender, origin }, Connection(driving)))
    }

    pub fn client(&self, bounds: &Bounds) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(bounds.frame_bytes_max + frame::HEADER_BYTES_MAX)
    }
}

impl tower_service::Service<HttpRequest<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
