//! The other side: takes connections, checks who calls, hands frames to the [`Handler`].

use super::codec::Codec;
use super::frame::{self, Answer, Frame, Request, Status};
use super::handshake::{self, Identity, Refusal, Refused};
use super::link::{CALL, FRAMES, JOIN};
use super::net::{self, Counted};
use super::peers::Table;
use super::{Bounds, Counters, Handler, Kind, Listener};
use crate::placement::NodeId;
use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Status as GrpcStatus, Streaming};

/// A frame takes as many of its stream's places as it has of these bytes, and one more.
const PLACE_BYTES: usize = 64 << 10;
/// Chunks of a streamed answer that wait for the network.
const CHUNKS_MAX: usize = 4;
/// Pairs of (address, reason) that are remembered, so that each is logged once.
const TOLD_MAX: usize = 1024;
/// How long accepting pauses after the operating system had no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves peers.
#[derive(Clone)]
pub(super) struct Server(Arc<Shared>);

struct Shared {
    identity: Arc<Identity>,
    table: Arc<Table>,
    bounds: Bounds,
    counters: Arc<Counters>,
    handler: Arc<dyn Handler>,
    told: Mutex<BTreeSet<(IpAddr, Refusal)>>,
    /// The node belongs to no cluster yet.
    waits: bool,
}

impl Server {
    pub fn new(
        identity: &Arc<Identity>,
        table: &Arc<Table>,
        bounds: Bounds,
        counters: &Arc<Counters>,
        handler: Arc<dyn Handler>,
    ) -> Server {
        Server(Arc::new(Shared {
            identity: identity.clone(),
            table: table.clone(),
            bounds,
            counters: counters.clone(),
            handler,
            told: Mutex::default(),
            waits: false,
        }))
    }

    /// Of a node that belongs to no cluster yet: it says so, and nothing else.
    pub fn waiting(identity: Arc<Identity>, bounds: Bounds) -> Server {
        let (events, _) = mpsc::unbounded_channel();
        Server(Arc::new(Shared {
            identity,
            table: Arc::new(Table::new(events)),
            bounds,
            counters: Arc::default(),
            handler: Arc::new(Nobody),
            told: Mutex::default(),
            waits: true,
        }))
    }

    /// Until it is dropped, and its connections with it.
    pub async fn run(self, listener: Listener) {
        let places = Arc::new(Semaphore::new(self.0.bounds.connections_max));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, from)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let server = self.clone();
                        connections.spawn(async move {
                            server.connection(stream, from.ip()).await;
                            drop(place);
                        });
                    }
                    Err(_) => {
                        let why = "as many connections as are allowed are open".to_owned();
                        self.refuse(from.ip(), &Refused { reason: Refusal::Connections, why });
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection of a peer could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, from: IpAddr) {
        let Shared { bounds, counters, .. } = &*self.0;
        let opened = Opened::new(counters);
        let stream = Counted::new(stream, counters.clone());
        let spoke = stream.spoke();
        // Whoever has made no request in the time for connecting is no peer.
        let called = Arc::new(AtomicBool::new(false));
        let service = {
            let (server, called) = (self.clone(), called.clone());
            service_fn(move |request| {
                called.store(true, Ordering::Relaxed);
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(from, request).await) }
            })
        };
        let mut serving = std::pin::pin!(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(net::STREAM_WINDOW)
                .initial_connection_window_size(net::CONNECTION_WINDOW)
                .max_frame_size(net::HTTP_FRAME)
                .max_header_list_size(net::HEADERS_MAX)
                .max_concurrent_streams(bounds.streams_max)
                .keep_alive_interval(bounds.ping_interval)
                .keep_alive_timeout(bounds.ping_timeout)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = tokio::time::sleep(bounds.connect_timeout) => None,
        };
        let ended = match ended {
            Some(ended) => ended.is_ok(),
            None if called.load(Ordering::Relaxed) => serving.await.is_ok(),
            None => false,
        };
        if !ended && !called.load(Ordering::Relaxed) && spoke.load(Ordering::Relaxed) {
            let why = "this is the address for other Sarsen nodes, and what called is none; clients use the HTTP address";
            self.refuse(from, &Refused { reason: Refusal::Garbage, why: why.to_owned() });
        }
        drop(opened);
    }

    /// Counted always, logged once for an address and a reason.
    fn refuse(&self, from: IpAddr, refused: &Refused) {
        self.0.counters.refused(refused.reason);
        let mut told = self.0.told.lock();
        if told.len() < TOLD_MAX && told.insert((from, refused.reason)) {
            tracing::warn!(%from, reason = refused.reason.as_str(), why = %refused.why, "refused a peer");
        }
    }

    fn refused(&self, from: IpAddr, refused: &Refused) -> Response<Body> {
        self.refuse(from, refused);
        refused.status().into_http()
    }

    async fn answer(self, from: IpAddr, request: HttpRequest<Incoming>) -> Response<Body> {
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let longest = self.0.bounds.frame_bytes_max + frame::HEADER_BYTES_MAX;
        let path = request.uri().path();
        // Neither is anything to be told of.
        if path == JOIN && handshake::is_self(&self.0.identity, &metadata) {
            return handshake::itself().status().into_http();
        }
        if self.0.waits {
            return handshake::waits().status().into_http();
        }
        if path == JOIN {
            return match handshake::check_stranger(self.0.identity.token.as_ref(), &metadata) {
                Err(refused) => self.refused(from, &refused),
                Ok(()) => {
                    let mut grpc = tonic::server::Grpc::new(Codec::<Answer, Request>::new())
                        .max_decoding_message_size(longest);
                    grpc.unary(Joining { server: self, from }, request).await
                }
            };
        }
        let node = match handshake::check(&self.0.identity, &*self.0.table, &metadata) {
            Err(refused) => return self.refused(from, &refused),
            Ok(node) => node,
        };
        if path == FRAMES {
            self.0.table.called(node);
        }
        let caller = Caller { server: self, from, node };
        let mut grpc =
            tonic::server::Grpc::new(Codec::<Answer, Request>::new()).max_decoding_message_size(longest);
        match path {
            FRAMES => grpc.streaming(Frames(caller), request).await,
            CALL => grpc.server_streaming(Call(caller), request).await,
            _ => GrpcStatus::unimplemented("there is no such call between nodes").into_http(),
        }
    }
}

/// Nothing is asked of a node that waits.
struct Nobody;

impl Handler for Nobody {
    fn frame(&self, _: NodeId, _: Kind, _: Bytes, _: Duration, _: Option<Reply>) {}

    fn stream(&self, _: NodeId, _: Kind, _: Bytes, _: Duration, emit: Emitter) {
        emit.busy();
    }

    fn join(&self, _: IpAddr, _: Bytes, _: Duration, reply: Reply) {
        reply.busy();
    }
}

/// Counts a connection as long as it is there.
struct Opened(Arc<Counters>);

impl Opened {
    fn new(counters: &Arc<Counters>) -> Opened {
        counters.opened();
        Opened(counters.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// A member whose handshake was good.
struct Caller {
    server: Server,
    from: IpAddr,
    node: NodeId,
}

impl Caller {
    /// What cannot be read ends the stream.
    fn malformed(&self, status: &GrpcStatus) {
        if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::OutOfRange) {
            let why = format!("node {} sent what is no frame: {}", self.node, status.message());
            self.server.refuse(self.from, &Refused { reason: Refusal::Malformed, why });
        }
    }
}

/// Answers on their way to the network. What an answered request took of its stream's places is free when its answer is sent.
type Answers = mpsc::UnboundedSender<Result<(Answer, Option<OwnedSemaphorePermit>), GrpcStatus>>;

struct Frames(Caller);

impl tower_service::Service<tonic::Request<Streaming<Request>>> for Frames {
    type Response = tonic::Response<Sending>;
    type Error = GrpcStatus;
    type Future = Ready<Result<tonic::Response<Sending>, GrpcStatus>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GrpcStatus>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Streaming<Request>>) -> Self::Future {
        let Caller { server, from, node } = &self.0;
        let caller = Caller { server: server.clone(), from: *from, node: *node };
        // Bounded by the stream's places: an answer holds its request's until it is sent.
        let (answers, sending) = mpsc::unbounded_channel();
        let own = server.0.identity.run;
        tokio::spawn(receive(caller, request.into_inner(), answers));
        let mut response = tonic::Response::new(Sending(sending));
        handshake::answer(own, response.metadata_mut());
        ready(Ok(response))
    }
}

/// Reads frames in order, as far as there are places.
async fn receive(caller: Caller, mut frames: Streaming<Request>, answers: Answers) {
    let Shared { bounds, counters, handler, .. } = &*caller.server.0;
    let all = bounds.served_frames_max;
    let places = Arc::new(Semaphore::new(all));
    loop {
        let frame = tokio::select! {
            frame = frames.message() => frame,
            () = answers.closed() => return,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(status) => {
                caller.malformed(&status);
                // The stream is over whether or not the peer hears why.
                let _ = answers.send(Err(status));
                return;
            }
        };
        counters.received(frame.kind, frame.wire_bytes());
        let timeout = Duration::from_millis(u64::from(frame.timeout_ms));
        let mut reply = None;
        if frame.id != 0 {
            let wanted = (1 + frame.body.len() / PLACE_BYTES).min(all);
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            // It is never closed.
            let Ok(place) = places.clone().acquire_many_owned(wanted).await else { return };
            reply = Some(Reply {
                kind: frame.kind,
                counters: counters.clone(),
                to: Some(To::Stream { id: frame.id, answers: answers.clone(), place }),
            });
        }
        handler.frame(caller.node, frame.kind, frame.body, timeout, reply);
    }
}

/// The answers of one stream.
struct Sending(mpsc::UnboundedReceiver<Result<(Answer, Option<OwnedSemaphorePermit>), GrpcStatus>>);

impl tokio_stream::Stream for Sending {
    type Item = Result<Answer, GrpcStatus>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(|answer| answer.map(|(answer, _place)| answer)))
    }
}

/// Where one answer goes. Dropped without one, it says that there is none.
#[must_use]
pub struct Reply {
    kind: Kind,
    counters: Arc<Counters>,
    to: Option<To>,
}

enum To {
    Stream { id: u64, answers: Answers, place: OwnedSemaphorePermit },
    Once(oneshot::Sender<Answer>),
}

impl Reply {
    /// Answers.
    pub fn send(mut self, body: impl Into<Bytes>) {
        self.finish(Status::Done, body.into());
    }

    /// Says that there is too much to do; nothing was done.
    pub fn busy(mut self) {
        self.finish(Status::Busy, Bytes::new());
    }

    /// Says why there is no answer.
    pub fn fail(mut self, why: impl Into<String>) {
        self.finish(Status::Failed, Bytes::from(why.into()));
    }

    fn finish(&mut self, status: Status, body: Bytes) {
        let Some(to) = self.to.take() else { return };
        let id = if let To::Stream { id, .. } = &to { *id } else { 0 };
        let answer = Answer { status, id, body };
        self.counters.sent(self.kind, answer.wire_bytes());
        // Whoever asked may be gone.
        match to {
            To::Stream { answers, place, .. } => drop(answers.send(Ok((answer, Some(place))))),
            To::Once(once) => drop(once.send(answer)),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.finish(Status::Failed, Bytes::from_static(b"it gave up before it had an answer"));
    }
}

struct Call(Caller);

impl tower_service::Service<tonic::Request<Request>> for Call {
    type Response = tonic::Response<Emitting>;
    type Error = GrpcStatus;
    type Future = Ready<Result<tonic::Response<Emitting>, GrpcStatus>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GrpcStatus>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Request>) -> Self::Future {
        let Caller { server, node, .. } = &self.0;
        let Shared { counters, handler, .. } = &*server.0;
        let frame = request.into_inner();
        counters.received(frame.kind, frame.wire_bytes());
        let (chunks, emitting) = mpsc::channel(CHUNKS_MAX);
        let timeout = Duration::from_millis(u64::from(frame.timeout_ms));
        let (deadline, runtime) = (Instant::now() + timeout, Handle::current());
        let emit = Emitter { kind: frame.kind, counters: counters.clone(), chunks, deadline, runtime };
        handler.stream(*node, frame.kind, frame.body, timeout, emit);
        ready(Ok(tonic::Response::new(Emitting(emitting))))
    }
}

/// The chunks of one call.
struct Emitting(mpsc::Receiver<Answer>);

impl tokio_stream::Stream for Emitting {
    type Item = Result<Answer, GrpcStatus>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// Nobody wants the rest of an answer any more: the caller is gone, or its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller is gone")]
pub struct Stopped;

/// Where the chunks of one answer go. The answer is complete when this is dropped.
pub struct Emitter {
    kind: Kind,
    counters: Arc<Counters>,
    chunks: mpsc::Sender<Answer>,
    /// Until then the caller waits for what it has asked for.
    deadline: Instant,
    runtime: Handle,
}

impl Emitter {
    /// Whether the next chunk has to wait for the caller to take those before.
    pub fn is_full(&self) -> bool {
        self.chunks.capacity() == 0
    }

    /// Whether the caller has given up.
    pub fn is_stopped(&self) -> bool {
        self.chunks.is_closed()
    }

    fn answer(&self, status: Status, body: Bytes) -> Answer {
        let answer = Answer { status, id: 0, body };
        self.counters.sent(self.kind, answer.wire_bytes());
        answer
    }

    /// Sends an answer when the network has room, but not after the caller's deadline: it may be there and not take anything.
    fn send(&self, answer: Answer) -> Result<(), Stopped> {
        let answer = match self.chunks.try_send(answer) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Stopped),
            Err(mpsc::error::TrySendError::Full(answer)) => answer,
        };
        let sent = self.runtime.block_on(async { timeout_at(self.deadline, self.chunks.send(answer)).await });
        sent.ok().and_then(Result::ok).ok_or(Stopped)
    }

    /// Sends a chunk. Blocks while the network has no room; not for threads of the runtime.
    pub fn emit(&self, body: impl Into<Bytes>) -> Result<(), Stopped> {
        self.send(self.answer(Status::Done, body.into()))
    }

    /// Says why the answer is not complete. Blocks; not for threads of the runtime.
    pub fn fail(self, why: impl Into<String>) {
        let _ = self.send(self.answer(Status::Failed, Bytes::from(why.into())));
    }

    /// Says that there is too much to do. Only instead of the first chunk.
    pub fn busy(self) {
        let _ = self.chunks.try_send(self.answer(Status::Busy, Bytes::new()));
    }
}

struct Joining {
    server: Server,
    from: IpAddr,
}

impl tower_service::Service<tonic::Request<Request>> for Joining {
    type Response = tonic::Response<Answer>;
    type Error = GrpcStatus;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answer>, GrpcStatus>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GrpcStatus>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Request>) -> Self::Future {
        let Shared { counters, handler, .. } = &*self.server.0;
        let frame = request.into_inner();
        counters.received(frame.kind, frame.wire_bytes());
        let (once, answered) = oneshot::channel();
        let reply = Reply { kind: frame.kind, counters: counters.clone(), to: Some(To::Once(once)) };
        let timeout = Duration::from_millis(u64::from(frame.timeout_ms));
        handler.join(self.from, frame.body, timeout, reply);
        Box::pin(async move {
            let answer = answered.await.map_err(|_| GrpcStatus::aborted("it gave up"))?;
            Ok(tonic::Response::new(answer))
        })
    }
}
