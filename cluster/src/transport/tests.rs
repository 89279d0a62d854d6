//! The transport over loopback.

use super::frame::{Frame, Request};
use super::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(20);

/// What a handler does with frames.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Echo,
    /// Keeps the replies.
    Hold,
    /// Drops the replies.
    Forget,
    Busy,
}

struct Peer {
    manner: Mutex<Manner>,
    seen: Mutex<Vec<(NodeId, Kind, Bytes)>>,
    held: Mutex<Vec<(Bytes, Reply)>>,
    /// Chunks that streamed calls got rid of.
    emitted: watch::Sender<usize>,
    /// Streamed calls that noticed that nobody wants them any more.
    stopped: watch::Sender<usize>,
}

impl Peer {
    fn new(manner: Manner) -> Arc<Peer> {
        Arc::new(Peer {
            manner: Mutex::new(manner),
            seen: Mutex::default(),
            held: Mutex::default(),
            emitted: watch::channel(0).0,
            stopped: watch::channel(0).0,
        })
    }
}

struct Serving(Arc<Peer>);

impl Handler for Serving {
    fn frame(&self, from: NodeId, kind: Kind, body: Bytes, _: Duration, reply: Option<Reply>) {
        self.0.seen.lock().push((from, kind, body.clone()));
        let Some(reply) = reply else { return };
        match *self.0.manner.lock() {
            Manner::Echo => reply.send(body),
            Manner::Hold => self.0.held.lock().push((body, reply)),
            Manner::Forget => drop(reply),
            Manner::Busy => reply.busy(),
        }
    }

    /// The body is how many chunks, of how many bytes.
    fn stream(&self, _: NodeId, _: Kind, body: Bytes, _: Duration, emit: Emitter) {
        let peer = self.0.clone();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let (count, size) = text.split_once(' ').unwrap();
        let (count, size): (usize, usize) = (count.parse().unwrap(), size.parse().unwrap());
        tokio::task::spawn_blocking(move || {
            for chunk in 0..count {
                if emit.emit(vec![chunk as u8; size]).is_err() {
                    peer.stopped.send_modify(|stopped| *stopped += 1);
                    return;
                }
                peer.emitted.send_modify(|emitted| *emitted += 1);
            }
            if size == 0 {
                emit.fail("there is nothing in it");
            }
        });
    }

    fn join(&self, _: std::net::IpAddr, body: Bytes, _: Duration, reply: Reply) {
        match &body[..] {
            b"please" => reply.send("welcome"),
            _ => reply.fail("say please"),
        }
    }
}

fn identity(node: u128) -> Identity {
    let run = Run { starts: 5, boot: node };
    Identity { cluster: 7, node: NodeId(node), run, token: Token::new("secret") }
}

fn quick() -> Bounds {
    Bounds {
        connect_timeout: Duration::from_millis(500),
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(300),
        backoff: (Duration::from_millis(5), Duration::from_millis(40)),
        ..Bounds::default()
    }
}

type Running = (Arc<Transport>, UnboundedReceiver<Event>);

async fn start_at(address: &str, own: Identity, bounds: Bounds, peer: &Arc<Peer>) -> Running {
    let listener = Listener::bind(address).await.unwrap();
    Transport::start(listener, own, bounds, 1, Arc::new(Serving(peer.clone())))
}

async fn start(own: Identity, bounds: Bounds, peer: &Arc<Peer>) -> Running {
    start_at("127.0.0.1:0", own, bounds, peer).await
}

fn table(peers: &[(u128, String)]) -> BTreeMap<NodeId, PeerAddress> {
    let entry = |(node, address): &(u128, String)| {
        (NodeId(*node), PeerAddress { address: address.clone(), starts: 5 })
    };
    peers.iter().map(entry).collect()
}

fn connect(transport: &Transport, node: u128, address: impl ToString) {
    transport.set_peers(&table(&[(node, address.to_string())]), &BTreeSet::new());
}

async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
    timeout(LONG, events.recv()).await.expect("no event").unwrap()
}

/// Skips others.
async fn wait_for(events: &mut UnboundedReceiver<Event>, wanted: Event) {
    while next(events).await != wanted {}
}

async fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    let mut often = interval(Duration::from_millis(2));
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen");
        often.tick().await;
    }
}

/// Two nodes, 1 connected to 2.
async fn pair(manner: Manner, bounds: Bounds) -> (Running, Running, Arc<Peer>) {
    let peer = Peer::new(manner);
    let two = start(identity(2), bounds, &peer).await;
    let mut one = start(identity(1), bounds, &Peer::new(Manner::Echo)).await;
    connect(&one.0, 2, two.0.address());
    wait_for(&mut one.1, Event::Seen(NodeId(2))).await;
    (one, two, peer)
}

const TWO: NodeId = NodeId(2);

#[tokio::test]
async fn frames_arrive_in_order_many_at_a_time_and_answers_find_their_callers() {
    let ((one, _e1), _two, peer) = pair(Manner::Hold, quick()).await;
    let calls: Vec<_> =
        (0..500u32).map(|i| one.call(TWO, Kind::Write, Bytes::from(i.to_string()), LONG)).collect();
    until(|| peer.held.lock().len() == 500).await;
    let order: Vec<_> = peer.seen.lock().iter().map(|(_, _, body)| body.clone()).collect();
    let sent: Vec<_> = (0..500u32).map(|i| Bytes::from(i.to_string())).collect();
    assert_eq!(order, sent);
    // Answers in the opposite order.
    let held = std::mem::take(&mut *peer.held.lock());
    held.into_iter().rev().for_each(|(body, reply)| reply.send(body));
    for (call, body) in calls.into_iter().zip(sent) {
        assert_eq!(call.await, Ok(body));
    }
    let (sent, received) = (one.counters().snapshot().sent, one.counters().snapshot().received);
    assert_eq!(sent[Kind::Write as usize].frames, 500);
    assert_eq!(received[Kind::Write as usize].frames, 500);
    assert_eq!(one.queues()[&TWO], Queues::default());
}

#[tokio::test]
async fn control_does_not_wait_behind_rows() {
    // The peer takes no rows any more: its places are taken, and the window of the stream fills up.
    let bounds = Bounds { served_frames_max: 4, queue_bytes_max: 1 << 30, ..quick() };
    let ((one, _e1), _two, _peer) = pair(Manner::Hold, bounds).await;
    let rows: Vec<_> = (0..64)
        .map(|_| tokio::spawn(one.call(TWO, Kind::Write, Bytes::from(vec![0; 1 << 20]), LONG)))
        .collect();
    until(|| one.queues()[&TWO].frames > 0).await;
    for _ in 0..4 {
        one.send(TWO, Kind::Raft, Bytes::from_static(b"vote")).unwrap();
    }
    until(|| _peer.seen.lock().iter().filter(|(_, kind, _)| *kind == Kind::Raft).count() == 4).await;
    assert!(_peer.held.lock().len() <= 4, "no more than its places");
    rows.iter().for_each(|row| row.abort());
}

#[tokio::test]
async fn a_peer_that_restarts_is_lost_and_seen_again() {
    let ((one, mut events), two, peer) = pair(Manner::Hold, quick()).await;
    let address = two.0.address().to_string();
    let waiting = tokio::spawn(one.call(TWO, Kind::Write, Bytes::from_static(b"x"), LONG));
    until(|| peer.held.lock().len() == 1).await;
    two.0.stop().await;
    assert_eq!(waiting.await.unwrap(), Err(Error::Lost(TWO)), "at once, not at the deadline");
    wait_for(&mut events, Event::Lost(TWO)).await;
    until(|| one.send(TWO, Kind::Raft, Bytes::new()).is_err()).await;
    let away = one.call(TWO, Kind::Write, Bytes::new(), LONG).await;
    assert!(matches!(away, Err(Error::Unreachable { .. })), "{away:?}");

    let again = Peer::new(Manner::Echo);
    let _two = start_at(&address, identity(2), quick(), &again).await;
    // Each lane comes back on its own.
    wait_for(&mut events, Event::Connected(TWO)).await;
    let answer = one.call(TWO, Kind::Write, Bytes::from_static(b"y"), LONG).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"y")));
}

#[tokio::test]
async fn a_peer_that_calls_is_called_back_at_once() {
    let reserved = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.address().to_string();
    drop(reserved);
    // Who was away is tried again after half a minute at the earliest.
    let minute = Duration::from_secs(60);
    let patient = Bounds { backoff: (minute, minute), ..quick() };
    let mut one = start(identity(1), patient, &Peer::new(Manner::Echo)).await;
    connect(&one.0, 2, &address);
    wait_for(&mut one.1, Event::Lost(TWO)).await;
    let peer = Peer::new(Manner::Echo);
    let two = start_at(&address, identity(2), quick(), &peer).await;
    connect(&two.0, 1, one.0.address());
    wait_for(&mut one.1, Event::Seen(TWO)).await;
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let bounds = Bounds { queue_frames_max: 10, ..quick() };
    let ((one, _e1), _two, _peer) = pair(Manner::Hold, bounds).await;
    let calls: Vec<_> = (0..10).map(|_| one.call(TWO, Kind::Write, Bytes::new(), LONG)).collect();
    assert_eq!(one.call(TWO, Kind::Write, Bytes::new(), LONG).await, Err(Error::Busy(TWO)));
    assert_eq!(one.send(TWO, Kind::Raft, Bytes::new()), Ok(()), "another lane");
    // Who gives up makes room.
    drop(calls);
    until(|| one.queues()[&TWO] == Queues::default()).await;
    let call = one.call(TWO, Kind::Write, Bytes::new(), Duration::from_millis(1));
    assert_eq!(call.await, Err(Error::Deadline(TWO)));

    let bounds = Bounds { queue_bytes_max: 1000, ..quick() };
    let one = start(identity(1), bounds, &Peer::new(Manner::Echo)).await.0;
    // Nobody listens there yet, so nothing leaves the queue.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    connect(&one, 2, silent.local_addr().unwrap());
    assert_eq!(one.send(TWO, Kind::Write, Bytes::from(vec![0; 900])), Ok(()));
    assert_eq!(one.send(TWO, Kind::Write, Bytes::from(vec![0; 101])), Err(Error::Busy(TWO)));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_when_its_handler_gives_up_or_is_busy() {
    let ((one, _e1), _two, peer) = pair(Manner::Hold, quick()).await;
    let call = |within| one.call(TWO, Kind::Control, Bytes::new(), within);
    assert_eq!(call(Duration::from_millis(20)).await, Err(Error::Deadline(TWO)));
    assert_eq!(one.queues()[&TWO].waiting, 0);
    *peer.manner.lock() = Manner::Forget;
    assert!(matches!(call(LONG).await, Err(Error::Failed { .. })));
    *peer.manner.lock() = Manner::Busy;
    assert_eq!(call(LONG).await, Err(Error::PeerBusy(TWO)));
    let nobody = one.call(NodeId(9), Kind::Control, Bytes::new(), LONG).await;
    assert!(matches!(nobody, Err(Error::Unreachable { .. })));
}

async fn stream(one: &Transport, body: &'static str, within: Duration) -> Chunks {
    let deadline = Instant::now() + LONG;
    loop {
        // The lane for streams may come up after the one whose event was waited for.
        match one.stream(TWO, Kind::Read, Bytes::from_static(body.as_bytes()), within).await {
            Ok(chunks) => return chunks,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_whole_and_in_order() {
    let ((one, _e1), _two, _peer) = pair(Manner::Echo, quick()).await;
    let mut chunks = stream(&one, "100 100000", LONG).await;
    let mut count = 0;
    while let Some(chunk) = chunks.next().await {
        assert_eq!(chunk, Ok(Bytes::from(vec![count as u8; 100_000])));
        count += 1;
    }
    assert_eq!(count, 100);
    let mut chunks = stream(&one, "0 0", LONG).await;
    assert!(matches!(chunks.next().await, Some(Err(Error::Failed { .. }))));
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn a_streamed_answer_waits_for_its_reader_and_stops_without_one() {
    let ((one, _e1), _two, peer) = pair(Manner::Echo, quick()).await;
    let mut chunks = stream(&one, "1000000 1000000", LONG).await;
    assert!(chunks.next().await.is_some());
    let emitted = || *peer.emitted.borrow();
    // Windows, chunks that wait, and buffers: some megabytes, and then no more.
    let mut last = 0;
    let mut often = interval(Duration::from_millis(100));
    often.tick().await;
    loop {
        often.tick().await;
        if emitted() == last {
            break;
        }
        last = emitted();
        assert!(last < 64, "it does not wait");
    }
    drop(chunks);
    until(|| *peer.stopped.borrow() == 1).await;
}

#[tokio::test]
async fn a_streamed_call_ends_at_its_deadline() {
    let ((one, _e1), _two, peer) = pair(Manner::Echo, quick()).await;
    let mut chunks = stream(&one, "1000000 1000000", Duration::from_millis(300)).await;
    let mut last = None;
    while let Some(chunk) = chunks.next().await {
        last = Some(chunk);
        tokio::task::yield_now().await;
    }
    assert_eq!(last, Some(Err(Error::Deadline(TWO))));
    drop(chunks);
    until(|| *peer.stopped.borrow() == 1).await;
}

#[tokio::test]
async fn a_streamed_answer_that_is_not_taken_is_given_up_at_the_deadline() {
    let ((one, _e1), _two, peer) = pair(Manner::Echo, quick()).await;
    // Its connection is alive, and nobody reads.
    let chunks = stream(&one, "1000000 1000000", Duration::from_millis(300)).await;
    until(|| *peer.stopped.borrow() == 1).await;
    drop(chunks);
}

#[tokio::test]
async fn the_longest_frame_goes_through_and_a_longer_one_does_not_leave() {
    let ((one, _e1), _two, _peer) = pair(Manner::Echo, Bounds { ping_timeout: LONG, ..quick() }).await;
    let body = Bytes::from(vec![7; frame::BYTES_MAX]);
    assert_eq!(one.call(TWO, Kind::Write, body.clone(), LONG).await, Ok(body));
    let longer = Bytes::from(vec![7; frame::BYTES_MAX + 1]);
    let refused = one.call(TWO, Kind::Write, longer, LONG).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_is_away() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, mut events) = start(identity(1), quick(), &Peer::new(Manner::Echo)).await;
    connect(&one, 2, silent.local_addr().unwrap());
    let call = one.call(TWO, Kind::Write, Bytes::new(), LONG).await;
    assert_eq!(call, Err(Error::Lost(TWO)), "long before the deadline");
    wait_for(&mut events, Event::Lost(TWO)).await;
}

/// Passes bytes on until told to stop; then it keeps the connections and passes nothing.
async fn proxy(to: String, frozen: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let to = TcpStream::connect(&to).await.unwrap();
            let (from, to) = (from.into_split(), to.into_split());
            for (mut from, mut to) in [(from.0, to.1), (to.0, from.1)] {
                let frozen = frozen.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut bytes).await {
                        if *frozen.borrow() {
                            std::future::pending::<()>().await;
                        }
                        if to.write_all(&bytes[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    address
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_by_pings() {
    let two = start(identity(2), quick(), &Peer::new(Manner::Hold)).await;
    let (freeze, frozen) = watch::channel(false);
    let address = proxy(two.0.address().to_string(), frozen).await;
    let (one, mut events) = start(identity(1), quick(), &Peer::new(Manner::Echo)).await;
    connect(&one, 2, address);
    wait_for(&mut events, Event::Seen(TWO)).await;
    freeze.send_replace(true);
    let call = one.call(TWO, Kind::Control, Bytes::new(), LONG).await;
    assert_eq!(call, Err(Error::Lost(TWO)));
    wait_for(&mut events, Event::Lost(TWO)).await;
}

/// What node 2 says to a node 1 that is changed by `change`, and that node 2 counts it.
async fn refusal(change: impl Fn(&mut Identity), known: u64, removed: bool) -> (Refusal, String) {
    let (two, _e2) = start(identity(2), quick(), &Peer::new(Manner::Echo)).await;
    let peer = PeerAddress { address: "127.0.0.1:1".to_owned(), starts: known };
    let gone = if removed { BTreeSet::from([NodeId(1)]) } else { BTreeSet::new() };
    two.set_peers(&BTreeMap::from([(NodeId(1), peer)]), &gone);
    let mut own = identity(1);
    change(&mut own);
    let (one, mut events) = start(own, quick(), &Peer::new(Manner::Echo)).await;
    connect(&one, 2, two.address());
    match next(&mut events).await {
        Event::Refused { by: TWO, reason, why } => {
            assert!(two.counters().snapshot().refused[reason as usize] > 0);
            let call = one.call(TWO, Kind::Write, Bytes::new(), LONG).await;
            assert!(call.is_err(), "{call:?}");
            (reason, why)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_refusal_names_its_reason_and_the_way_out() {
    let (reason, why) = refusal(|own| own.token = Token::new("another"), 5, false).await;
    assert_eq!(reason, Refusal::Token);
    assert!(why.contains("--join-token"), "{why}");
    let (reason, _) = refusal(|own| own.token = None, 5, false).await;
    assert_eq!(reason, Refusal::Token);
    let (reason, why) = refusal(|own| own.cluster = 8, 5, false).await;
    assert_eq!(reason, Refusal::Cluster);
    assert!(why.contains("--join"), "{why}");
    let (reason, why) = refusal(|_| (), 6, false).await;
    assert_eq!(reason, Refusal::Stale);
    assert!(why.contains("old copy"), "{why}");
    let (reason, why) = refusal(|_| (), 5, true).await;
    assert_eq!(reason, Refusal::Removed);
    assert!(why.contains("empty data directory"), "{why}");
}

fn run_of(node: u128, starts: u64, boot: u128) -> Identity {
    Identity { run: Run { starts, boot }, ..identity(node) }
}

#[tokio::test]
async fn a_start_is_remembered_by_who_was_called_and_an_old_copy_of_that_moment_refused() {
    let (two, mut events) = start(identity(2), quick(), &Peer::new(Manner::Echo)).await;
    // Nobody there: only node 1 calls.
    connect(&two, 1, "127.0.0.1:1");
    let attempt = async |starts, boot| {
        let (one, mut events) = start(run_of(1, starts, boot), quick(), &Peer::new(Manner::Echo)).await;
        connect(&one, 2, two.address());
        let event = next(&mut events).await;
        one.stop().await;
        event
    };
    assert_eq!(attempt(6, 60).await, Event::Seen(TWO));
    wait_for(&mut events, Event::Started(NodeId(1), Run { starts: 6, boot: 60 })).await;
    for (starts, boot, expected) in [(6, 61, Refusal::Copied), (5, 1, Refusal::Stale)] {
        match attempt(starts, boot).await {
            Event::Refused { by: TWO, reason, why } if reason == expected => {
                assert!(
                    why.contains("old copy") && why.contains("the newest directory or an empty one"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(attempt(6, 60).await, Event::Seen(TWO), "the same process once more");
    assert_eq!(attempt(7, 70).await, Event::Seen(TWO));
    wait_for(&mut events, Event::Started(NodeId(1), Run { starts: 7, boot: 70 })).await;
    // Agreed on by now: nothing to tell, and nothing forgotten.
    let agreed = PeerAddress { address: "127.0.0.1:2".to_owned(), starts: 7 };
    two.set_peers(&BTreeMap::from([(NodeId(1), agreed)]), &BTreeSet::new());
    assert!(matches!(attempt(7, 71).await, Event::Refused { reason: Refusal::Copied, .. }));
}

#[tokio::test]
async fn a_start_is_remembered_by_who_calls_and_an_old_copy_of_that_moment_not_talked_to() {
    let (one, mut events) = start(identity(1), quick(), &Peer::new(Manner::Echo)).await;
    let serving = Peer::new(Manner::Echo);
    let (two, _e2) = start(run_of(2, 6, 60), quick(), &serving).await;
    let address = two.address().to_string();
    connect(&one, 2, &address);
    wait_for(&mut events, Event::Started(TWO, Run { starts: 6, boot: 60 })).await;
    wait_for(&mut events, Event::Seen(TWO)).await;
    two.stop().await;
    wait_for(&mut events, Event::Lost(TWO)).await;

    let (old, _e3) = start_at(&address, run_of(2, 6, 61), quick(), &serving).await;
    until(|| {
        let sent = one.send(TWO, Kind::Raft, Bytes::new());
        sent.is_err_and(|error| error.to_string().contains("old copy"))
    })
    .await;
    assert!(serving.seen.lock().is_empty());
    old.stop().await;

    let _newer = start_at(&address, run_of(2, 7, 70), quick(), &serving).await;
    wait_for(&mut events, Event::Started(TWO, Run { starts: 7, boot: 70 })).await;
    wait_for(&mut events, Event::Seen(TWO)).await;
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let (two, _e2) = start(identity(2), quick(), &Peer::new(Manner::Echo)).await;
    let (one, mut events) = start(identity(1), quick(), &Peer::new(Manner::Echo)).await;
    connect(&one, 3, two.address());
    let event = next(&mut events).await;
    assert!(matches!(event, Event::Refused { by: NodeId(3), reason: Refusal::Node, .. }), "{event:?}");
}

#[tokio::test]
async fn who_joins_needs_the_token_only() {
    let (two, _e2) = start(identity(2), quick(), &Peer::new(Manner::Echo)).await;
    let address = two.address().to_string();
    let bounds = quick();
    let stranger = |token| Stranger { node: NodeId(9), run: Run { starts: 1, boot: 9 }, token };
    let ask = async |token, body| join(&address, &stranger(Token::new(token)), body, &bounds, LONG).await;
    assert_eq!(ask("secret", Bytes::from_static(b"please")).await, Ok(Bytes::from_static(b"welcome")));
    let refused = ask("secret", Bytes::from_static(b"now")).await.unwrap_err();
    assert!(refused.to_string().contains("say please"), "{refused}");
    let refused = ask("other", Bytes::from_static(b"please")).await.unwrap_err();
    assert!(matches!(refused, Error::Join { reason: Some(Refusal::Token), .. }), "{refused}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    assert!(join(&nobody, &stranger(None), Bytes::new(), &bounds, LONG).await.is_err());
}

#[tokio::test]
async fn who_waits_says_so_until_it_is_a_member_and_whoever_meets_itself_is_told() {
    let bounds = quick();
    let own = identity(9);
    let stranger = Stranger { node: own.node, run: own.run, token: own.token.clone() };
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    let waiting = Waiting::start(listener.clone(), stranger.clone(), bounds);
    let ask = async |stranger: &Stranger| {
        let error = join(&address, stranger, Bytes::new(), &bounds, LONG).await.unwrap_err();
        let Error::Join { reason, why, .. } = error else { panic!("{error:?}") };
        (reason, why)
    };
    let (reason, why) = ask(&stranger).await;
    assert!(reason == Some(Refusal::Node) && why.contains("this node itself"), "{why}");
    // Of a node whose token may be wrong or not: nobody knows yet.
    let other = Stranger { node: NodeId(8), token: Token::new("other"), ..stranger.clone() };
    let (reason, why) = ask(&other).await;
    assert!(reason == Some(Refusal::Waiting) && why.contains("waits for a cluster"), "{why}");
    // As soon as it is a member it answers at the same address, with its own connections only.
    drop(waiting);
    let (transport, _events) =
        Transport::start(listener, identity(9), bounds, 1, Arc::new(Serving(Peer::new(Manner::Echo))));
    let asked = join(
        &transport.address().to_string(),
        &Stranger { token: stranger.token.clone(), ..other },
        Bytes::from_static(b"please"),
        &bounds,
        LONG,
    )
    .await;
    assert_eq!(asked, Ok(Bytes::from_static(b"welcome")));
    let itself = ask(&stranger).await;
    assert_eq!(itself.0, Some(Refusal::Node));
    let nameless = join("nobody.invalid:1", &stranger, Bytes::new(), &bounds, LONG).await.unwrap_err();
    assert!(nameless.to_string().contains("its name "), "{nameless}");
}

async fn talk(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    // It ends, in whatever way.
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("the connection stays open");
}

#[tokio::test]
async fn garbage_and_silence_end_their_connection_and_nothing_else() {
    let ((one, _e1), (two, _e2), _peer) = pair(Manner::Echo, quick()).await;
    let before = two.counters().snapshot().connections;
    talk(two.address(), b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    talk(two.address(), &[0; 5000]).await;
    talk(two.address(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff").await;
    assert_eq!(two.counters().snapshot().refused[Refusal::Garbage as usize], 3);
    // Who says nothing is sent away.
    talk(two.address(), b"").await;
    until(|| two.counters().snapshot().connections == before).await;
    assert_eq!(
        one.call(TWO, Kind::Control, Bytes::from_static(b"x"), LONG).await,
        Ok(Bytes::from_static(b"x"))
    );
}

/// A stream of frames in which anything may be.
struct Raw(Vec<u8>);

impl Frame for Raw {
    fn encode(&self, out: &mut impl bytes::BufMut) {
        out.put_slice(&self.0);
    }
    fn decode(_: &mut impl bytes::Buf) -> Result<Raw, frame::Malformed> {
        Ok(Raw(Vec::new()))
    }
    fn wire_bytes(&self) -> usize {
        self.0.len()
    }
}

async fn send_raw(address: &str, bytes: Vec<u8>) -> tonic::Status {
    let counters = Arc::new(Counters::default());
    let (channel, _connection) = link::Channel::open(address, &quick(), &counters).await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::iter([Raw(bytes)]));
    handshake::greet(&identity(1), TWO, request.metadata_mut());
    let mut client = channel.client(&Bounds { frame_bytes_max: 1 << 30, ..quick() });
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(link::FRAMES);
    let answers = client.streaming(request, path, codec::Codec::<Raw, Raw>::new()).await;
    match answers {
        Err(status) => status,
        Ok(answers) => answers.into_inner().message().await.err().expect("no answer but a status"),
    }
}

#[tokio::test]
async fn a_frame_that_is_none_or_too_long_ends_its_stream_and_is_counted() {
    let ((one, _e1), (two, _e2), peer) = pair(Manner::Echo, quick()).await;
    let address = two.address().to_string();
    let malformed = || two.counters().snapshot().refused[Refusal::Malformed as usize];
    for bytes in [vec![], vec![99, 0, 0], vec![0, 0x80, 0], vec![2, 1, 0xff]] {
        let before = malformed();
        let status = send_raw(&address, bytes).await;
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert_eq!(malformed(), before + 1);
    }
    let mut long = Vec::new();
    let body = Bytes::from(vec![0; frame::BYTES_MAX + 100]);
    Request { kind: Kind::Write, id: 1, timeout_ms: 1, body }.encode(&mut long);
    let before = malformed();
    send_raw(&address, long).await;
    until(|| malformed() == before + 1).await;
    assert!(peer.seen.lock().is_empty());
    assert_eq!(
        one.call(TWO, Kind::Control, Bytes::from_static(b"x"), LONG).await,
        Ok(Bytes::from_static(b"x"))
    );
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let bounds = Bounds { connections_max: 4, ..quick() };
    let ((one, _e1), (two, _e2), _peer) = pair(Manner::Echo, bounds).await;
    until(|| two.counters().snapshot().connections == 4).await;
    talk(two.address(), b"x").await;
    assert_eq!(two.counters().snapshot().refused[Refusal::Connections as usize], 1);
    assert_eq!(
        one.call(TWO, Kind::Control, Bytes::from_static(b"x"), LONG).await,
        Ok(Bytes::from_static(b"x"))
    );
}
