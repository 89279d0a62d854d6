//! All peers: a handle to send by, and the table of who is known.

use super::frame::{Answer, Frame};
use super::handshake::{self, Identity, Known, Refused, Run};
use super::link::{Link, Way, outcome};
use super::server::Server;
use super::{Bounds, Counters, Error, Event, Handler, Kind, Lane, Listener, PeerAddress};
use crate::placement::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

/// The way to other nodes, and theirs to this one.
pub struct Transport {
    identity: Arc<Identity>,
    bounds: Bounds,
    seed: u64,
    counters: Arc<Counters>,
    table: Arc<Table>,
    events: mpsc::UnboundedSender<Event>,
    address: SocketAddr,
    server: Mutex<Option<JoinHandle<()>>>,
}

/// Who is known. Asked for each stream, by both sides.
pub(super) struct Table {
    peers: Mutex<Peers>,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Default)]
struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    /// The newest runs that peers have said of themselves.
    met: BTreeMap<NodeId, Run>,
    removed: BTreeSet<NodeId>,
    stopped: bool,
}

struct Peer {
    at: PeerAddress,
    links: [Arc<Link>; Lane::ALL.len()],
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Table {
    pub fn new(events: mpsc::UnboundedSender<Event>) -> Table {
        Table { peers: Mutex::default(), events }
    }

    /// A peer has opened a lane to this node.
    pub fn called(&self, node: NodeId) {
        if let Some(peer) = self.peers.lock().peers.get(&node) {
            peer.links.iter().for_each(|link| link.called());
        }
    }
}

impl Known for Table {
    fn meet(&self, node: NodeId, run: Run) -> Result<(), Refused> {
        let mut peers = self.peers.lock();
        // Of others nothing is kept: whoever has the token could name any number of nodes.
        let Some(agreed) = peers.peers.get(&node).map(|peer| peer.at.starts) else { return Ok(()) };
        // Which process registered a start is for the control plane to judge, which knows it.
        let agreed = Run { starts: agreed, boot: run.boot };
        let met = peers.met.get(&node).copied().filter(|met| met.starts >= agreed.starts);
        if let Some(why) = handshake::outdated(node, run, met.unwrap_or(agreed)) {
            return Err(why);
        }
        if met != Some(run) {
            peers.met.insert(node, run);
            if run.starts > agreed.starts {
                // Nobody listens any more when the node stops.
                let _ = self.events.send(Event::Started(node, run));
            }
        }
        Ok(())
    }

    fn is_removed(&self, node: NodeId) -> bool {
        self.peers.lock().removed.contains(&node)
    }
}

/// What waits on the way to a peer, over all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Frames that wait to be sent.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Answers that are waited for.
    pub waiting: usize,
}

impl Transport {
    /// Serves peers from `listener` and is ready to send. `seed` is for the pauses between attempts to connect.
    pub fn start(
        listener: Listener,
        identity: Identity,
        bounds: Bounds,
        seed: u64,
        handler: Arc<dyn Handler>,
    ) -> (Arc<Transport>, mpsc::UnboundedReceiver<Event>) {
        let (events, noticed) = mpsc::unbounded_channel();
        let address = listener.address();
        let (identity, counters) = (Arc::new(identity), Arc::new(Counters::default()));
        let table = Arc::new(Table::new(events.clone()));
        let server = Server::new(&identity, &table, bounds, &counters, handler);
        let serving = tokio::spawn(server.run(listener));
        let server = Mutex::new(Some(serving));
        let transport = Transport { identity, bounds, seed, counters, table, events, address, server };
        (Arc::new(transport), noticed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The peers that answer now: pings prove it.
    pub fn connected(&self) -> Vec<NodeId> {
        let table = self.table.peers.lock();
        let up = |peer: &Peer| peer.links[Lane::Control as usize].is_up();
        table.peers.iter().filter(|(_, peer)| up(peer)).map(|(node, _)| *node).collect()
    }

    /// What waits, by peer.
    pub fn queues(&self) -> BTreeMap<NodeId, Queues> {
        let depth = |peer: &Peer| {
            let mut all = Queues::default();
            for link in &peer.links {
                let (frames, bytes, waiting) = link.depth();
                all.frames += frames;
                all.bytes += bytes;
                all.waiting += waiting;
            }
            all
        };
        self.table.peers.lock().peers.iter().map(|(node, peer)| (*node, depth(peer))).collect()
    }

    /// Connects to these, and to no others any more. Those in `removed` are refused.
    pub fn set_peers(&self, peers: &BTreeMap<NodeId, PeerAddress>, removed: &BTreeSet<NodeId>) {
        let mut table = self.table.peers.lock();
        if table.stopped {
            return;
        }
        table.removed.clone_from(removed);
        table.peers.retain(|node, peer| peers.get(node).is_some_and(|at| at.address == peer.at.address));
        table.met.retain(|node, _| peers.contains_key(node));
        for (node, at) in peers {
            if *node == self.identity.node {
                continue;
            }
            match table.peers.get_mut(node) {
                Some(peer) => peer.at.starts = at.starts,
                None => drop(table.peers.insert(*node, self.connect(*node, at))),
            }
        }
    }

    fn connect(&self, node: NodeId, at: &PeerAddress) -> Peer {
        let links = Lane::ALL.map(|lane| Link::new(node, lane, self.bounds, self.counters.clone()));
        let keep = |link: &Arc<Link>| {
            let way = Way {
                identity: self.identity.clone(),
                table: self.table.clone(),
                address: at.address.clone(),
                seed: self.seed,
                events: self.events.clone(),
            };
            tokio::spawn(link.clone().keep(way))
        };
        let tasks = links.iter().map(keep).collect();
        Peer { at: at.clone(), links, tasks }
    }

    fn link(&self, node: NodeId, kind: Kind) -> Result<Arc<Link>, Error> {
        let table = self.table.peers.lock();
        let peer = table
            .peers
            .get(&node)
            .ok_or_else(|| Error::Unreachable { node, why: "its address is not known (yet)".to_owned() })?;
        Ok(peer.links[kind.lane() as usize].clone())
    }

    /// Sends what needs no answer and may get lost.
    pub fn send(&self, to: NodeId, kind: Kind, body: Bytes) -> Result<(), Error> {
        self.link(to, kind)?.send(kind, body)
    }

    /// Asks. The frame has its place in the order, or was refused, when this returns; the future only waits.
    pub fn call(
        &self,
        to: NodeId,
        kind: Kind,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + use<> {
        let calling = self.link(to, kind).map(|link| link.call(kind, body, within));
        async move { calling?.await }
    }

    /// Asks for what comes in chunks. Dropping them tells the peer to stop.
    pub async fn stream(
        &self,
        to: NodeId,
        kind: Kind,
        body: Bytes,
        within: Duration,
    ) -> Result<Chunks, Error> {
        let deadline = Instant::now() + within;
        let link = self.link(to, kind)?;
        let answers = link.stream(&self.identity, kind, body, deadline).await?;
        Ok(Chunks { node: to, kind, link, answers, deadline, ended: false })
    }

    /// Ends all connections and takes no more.
    pub async fn stop(&self) {
        let peers = {
            let mut table = self.table.peers.lock();
            table.stopped = true;
            std::mem::take(&mut table.peers)
        };
        drop(peers);
        let server = self.server.lock().take();
        if let Some(server) = server {
            server.abort();
            let _ = server.await;
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().take() {
            server.abort();
        }
        self.table.peers.lock().peers.clear();
    }
}

/// An answer in parts.
pub struct Chunks {
    node: NodeId,
    kind: Kind,
    link: Arc<Link>,
    answers: Streaming<Answer>,
    deadline: Instant,
    ended: bool,
}

impl Chunks {
    /// The next part; `None` after the last one. Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.ended {
            return None;
        }
        let next = match timeout_at(self.deadline, self.answers.message()).await {
            Ok(Ok(Some(answer))) => {
                self.link.received(self.kind, answer.wire_bytes());
                Some(outcome(self.node, answer))
            }
            Ok(Ok(None)) => None,
            Ok(Err(status)) => Some(Err(self.link.error(&status))),
            Err(_) => Some(Err(Error::Deadline(self.node))),
        };
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
