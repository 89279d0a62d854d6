//! A node that is filled, its peers, and a network that can be bad.

use super::super::*;
use crate::placement::{Change, NodeId, Phase};
use crate::testing::{self, Memory};
use crate::view::View;
use bytes::Bytes;
use model::{Replica, SealedBlocks, Shard, TimeRange};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SHARDS: u32 = 4;
pub const PEERS: u128 = 3;
/// The node that is filled.
pub const ME: u128 = 4;
pub const TICK_MS: u64 = 50;
pub const ALL: [Shard; SHARDS as usize] = [Shard(0), Shard(1), Shard(2), Shard(3)];

pub fn options() -> Options {
    Options {
        bytes_per_s: 64 << 20,
        piece_bytes: 64 << 10,
        peer_max: 3,
        under_way_max: 7,
        imports_max: 4,
        timeout_ms: 2_000,
        forget_after_ms: 60_000,
    }
}

/// Splitmix: small and good enough to decide what a network does.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

enum Message {
    Question { peer: NodeId, token: u64, request: Vec<u8> },
    Answer { token: u64, reply: Bytes },
    Fails { token: u64 },
    Work { life: u32, token: u64, local: Local },
}

/// Changes the bytes of an answer.
pub type Lie = fn(&mut Dice, Vec<u8>) -> Vec<u8>;

pub struct Net {
    pub me: Memory,
    pub view: Arc<View>,
    pub peers: BTreeMap<NodeId, (Memory, View)>,
    pub away: Vec<NodeId>,
    pub bootstrap: Bootstrap,
    pub dice: Dice,
    pub ms: u64,
    order: u64,
    life: u32,
    queue: BTreeMap<(u64, u64), Message>,
    /// Loss and duplication in percent; the longest delay.
    pub loss: u64,
    pub twice: u64,
    pub delay_ms: u64,
    pub lie: Option<(NodeId, Lie)>,
    pub options: Options,
    /// Open questions: whose, and how many bytes of pieces.
    open: BTreeMap<u64, NodeId>,
    /// Pieces asked for, in order, with their shard.
    pub asked: Vec<(NodeId, Shard, u64)>,
    pub filled: Vec<Filled>,
    /// When what was forgotten.
    pub forgotten: Vec<(u64, Shard)>,
    pub logs: Vec<(crate::repair::Level, String)>,
}

impl Net {
    /// Each shard has a copy at each of the nodes 1, 2 and 3.
    pub fn new(seed: u64) -> Net {
        Net::with_view(seed, testing::view(ME, PEERS, PEERS as u8, SHARDS))
    }

    /// Each shard has so many copies, at some of the nodes.
    pub fn with_copies(seed: u64, copies: u8) -> Net {
        Net::with_view(seed, testing::view(ME, ME, copies, SHARDS))
    }

    fn with_view(seed: u64, own: View) -> Net {
        let view = |me: u128| View { me: NodeId(me), ..own.clone() };
        let peers = (1..=PEERS).map(|peer| (NodeId(peer), (Memory::new(SHARDS), view(peer))));
        let mut net = Net {
            me: Memory::new(SHARDS),
            view: Arc::new(view(ME)),
            peers: peers.collect(),
            away: Vec::new(),
            bootstrap: Bootstrap::new(options(), 0),
            dice: Dice(seed),
            ms: 1_000,
            order: 0,
            life: 0,
            queue: BTreeMap::new(),
            loss: 0,
            twice: 0,
            delay_ms: 10,
            lie: None,
            options: options(),
            open: BTreeMap::new(),
            asked: Vec::new(),
            filled: Vec::new(),
            forgotten: Vec::new(),
            logs: Vec::new(),
        };
        net.start();
        net
    }

    /// This node is to have the shards that it has no copy of; which these are.
    pub fn bring_copies(&mut self) -> Vec<Shard> {
        let held = self.view.held_by(self.view.me);
        let coming: Vec<Shard> =
            (0..SHARDS as u16).map(Shard).filter(|shard| !held.contains(*shard)).collect();
        self.bring(&coming);
        coming
    }

    /// Moves of these shards to this node begin; where one is under way, another.
    pub fn bring(&mut self, shards: &[Shard]) {
        self.cancel(shards);
        let (me, placement) = (self.view.me, &self.view.placement);
        let begin = |shard: &Shard| Change::Begin { shard: *shard, from: None, to: Some(me) };
        let placement = placement.change(&shards.iter().map(begin).collect::<Vec<_>>()).unwrap();
        self.show(View { placement, ..(*self.view).clone() });
    }

    /// Moves of these shards are given up.
    pub fn cancel(&mut self, shards: &[Shard]) {
        let placement = &self.view.placement;
        let moving = shards.iter().filter(|shard| placement.phase(**shard) != Phase::Settled);
        let cancel = |shard: &Shard| Change::Cancel { shard: *shard, since: placement.changed(*shard) };
        let placement = placement.change(&moving.map(cancel).collect::<Vec<_>>()).unwrap();
        self.show(View { placement, ..(*self.view).clone() });
    }

    /// Everybody sees this change.
    pub fn change(&mut self, change: Change) {
        let placement = self.view.placement.change(&[change]).unwrap();
        self.show(View { placement, ..(*self.view).clone() });
    }

    /// Everybody sees this.
    pub fn show(&mut self, view: View) {
        for (peer, (_, theirs)) in &mut self.peers {
            *theirs = View { me: *peer, ..view.clone() };
        }
        self.view = Arc::new(view);
        self.step(Event::View(self.view.clone()));
    }

    /// The same series at all peers, in files of their own of each of `windows` windows of 100 ms.
    pub fn populate(&mut self, windows: i64, bytes: usize) {
        for (number, (memory, _)) in (1u128..).zip(self.peers.values()) {
            for i in 0..24 {
                let labels = testing::labels("m", &[("i", &i.to_string())]);
                let rows: Vec<_> = (0..windows * 4).map(|n| (n * 25, n as f64 + f64::from(i))).collect();
                memory.put(&labels, &rows);
            }
            for window in 0..windows {
                let range = TimeRange::new(window * 100, window * 100 + 99);
                memory.seal(range, bytes, number << 64 | window as u128);
            }
        }
    }

    /// The process begins anew; what is durable is still there.
    pub fn start(&mut self) {
        self.me.crash();
        (self.life, self.open) = (self.life + 1, BTreeMap::new());
        self.bootstrap = Bootstrap::new(self.options, self.dice.roll() >> 1);
        self.step(Event::View(self.view.clone()));
    }

    /// Everybody is there again; what was asked meanwhile is not answered any more.
    pub fn come_back(&mut self) {
        self.away.clear();
        self.open.clear();
    }

    pub fn fill_all(&mut self) {
        self.bring(&ALL);
    }

    fn send(&mut self, message: Message) {
        let at = self.ms + 1 + self.dice.roll() % self.delay_ms;
        self.order += 1;
        self.queue.insert((at, self.order), message);
    }

    pub fn step(&mut self, event: Event) {
        match &event {
            Event::Answer { token, .. } | Event::Failed { token, .. } => drop(self.open.remove(token)),
            _ => {}
        }
        let mut effects = Vec::new();
        self.bootstrap.step(self.ms, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ask { token, peer, request, timeout_ms } => {
                    assert_eq!(timeout_ms, self.options.timeout_ms);
                    if let Request { shard, ask: Ask::Piece { len, .. }, .. } =
                        Request::decode(&request).unwrap()
                    {
                        self.asked.push((peer, shard, len));
                    }
                    self.open.insert(token, peer);
                    // Sometimes the transport says so, sometimes nobody does.
                    if self.dice.percent(self.loss) || self.away.contains(&peer) {
                        if self.dice.percent(50) {
                            self.send(Message::Fails { token });
                        }
                        continue;
                    }
                    if self.dice.percent(self.twice) {
                        self.send(Message::Question { peer, token, request: request.clone() });
                    }
                    self.send(Message::Question { peer, token, request });
                }
                Effect::Work { token, local } => self.send(Message::Work { life: self.life, token, local }),
                Effect::Filled(filled) => self.filled.push(filled),
                Effect::Forget(shards) => {
                    for (shard, since) in shards {
                        if is_given_up(&self.view, shard, since) {
                            self.forgotten.push((self.ms, shard));
                            self.me.forget(shard).unwrap();
                        }
                    }
                }
                Effect::Log { level, text } => self.logs.push((level, text)),
            }
        }
        if self.loss == 0 && self.away.is_empty() {
            assert!(self.open.len() <= self.options.under_way_max, "{} questions", self.open.len());
            for peer in self.peers.keys() {
                let count = self.open.values().filter(|asked| *asked == peer).count();
                assert!(count <= self.options.peer_max, "{count} questions to one peer");
            }
        }
        // What runs before this one have begun stays until the fill ends.
        let imports_max = 2 * self.options.imports_max * self.life as usize;
        assert!(self.me.imports().0 <= imports_max, "{} imports", self.me.imports().0);
        let progress = self.bootstrap.progress();
        assert!(progress.bytes_done <= progress.bytes_total, "{progress:?}");
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Question { peer, token, request } => {
                let (memory, view) = &self.peers[&peer];
                let mut reply = serve(view, memory, &request).unwrap();
                if let Some((_, lie)) = self.lie.filter(|(liar, _)| *liar == peer) {
                    reply = lie(&mut self.dice, reply);
                }
                let reply = Bytes::from(reply);
                if self.dice.percent(self.twice) {
                    self.send(Message::Answer { token, reply: reply.clone() });
                }
                if !self.dice.percent(self.loss) {
                    self.send(Message::Answer { token, reply });
                }
            }
            Message::Answer { token, reply } => self.step(Event::Answer { token, reply }),
            Message::Fails { token } => self.step(Event::Failed { token, why: "lost".to_owned() }),
            Message::Work { life, token, local } => {
                if life == self.life {
                    let done = perform(&self.me, local);
                    self.step(Event::Done { token, done });
                }
            }
        }
    }

    pub fn run(&mut self, for_ms: u64) {
        let end = self.ms + for_ms;
        while self.ms < end {
            let tick = self.ms + TICK_MS;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= tick) {
                let ((at, _), message) = entry.remove_entry();
                self.ms = self.ms.max(at);
                self.deliver(message);
            }
            self.ms = tick;
            self.step(Event::Tick);
        }
    }

    /// Until so many shards are filled.
    pub fn run_until_filled(&mut self, count: usize) {
        let end = self.ms + 600_000;
        while self.filled.len() < count {
            assert!(self.ms < end, "it does not end: {:?} {:?}", self.bootstrap.progress(), self.logs);
            self.run(TICK_MS);
        }
    }

    pub fn digests(memory: &Memory) -> Vec<model::Digest> {
        (0..SHARDS as u16).map(|shard| memory.digest(Shard(shard), TimeRange::ALL).unwrap()).collect()
    }

    /// Whether everything of a peer is here.
    pub fn is_equal_to(&self, peer: u128) -> bool {
        Net::digests(&self.me) == Net::digests(&self.peers[&NodeId(peer)].0)
    }

    /// Bytes of files of one peer.
    pub fn bytes_of(&self, peer: u128) -> u64 {
        self.bytes_of_shards(peer, &(0..SHARDS as u16).map(Shard).collect::<Vec<_>>())
    }

    pub fn bytes_of_shards(&self, peer: u128, shards: &[Shard]) -> u64 {
        let memory = &self.peers[&NodeId(peer)].0;
        let blocks = shards.iter().flat_map(|shard| SealedBlocks::list(memory, *shard).unwrap());
        blocks.map(|block| block.bytes).sum()
    }
}
