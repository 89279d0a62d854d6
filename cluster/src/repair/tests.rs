use super::message::{Ask, Seen};
use super::windows::WINDOW_MS;
use super::*;
use crate::placement::{Change, NodeId};
use crate::testing::{self, Memory};
use crate::view::{Health, View};
use model::{Damage, Digest, Labels, Replica, SeriesId, Shard, TimeRange, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SHARDS: u32 = 4;
const WALL: i64 = 1_700_000_000_000;
const TICK_MS: u64 = 1_000;

fn options() -> Options {
    Options { recent_interval_ms: 60_000, old_interval_ms: 300_000, timeout_ms: 5_000, ..Options::default() }
}

/// Splitmix: small and good enough to decide what a network does.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

/// What a node says instead of what is so.
type Lie = fn(&mut Dice, Request, Reply) -> Reply;

enum Message {
    Question { from: usize, to: usize, token: u64, request: Vec<u8> },
    Answer { to: usize, token: u64, reply: Vec<u8> },
    Fails { to: usize, token: u64 },
    Work { node: usize, life: u32, token: u64, local: Local },
}

struct Node {
    view: Arc<View>,
    replica: Memory,
    repair: Repair,
    up: bool,
    life: u32,
    /// What it says of the copies that it makes.
    copied: Vec<(Shard, u64)>,
}

/// Nodes and a network that can be bad.
struct Net {
    nodes: Vec<Node>,
    dice: Dice,
    ms: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Message>,
    /// Loss and duplication in percent; the longest delay.
    loss: u64,
    twice: u64,
    delay_ms: u64,
    /// Changes what a node answers.
    lie: Option<(usize, Lie)>,
    logs: Vec<(usize, Level, String)>,
    questions: BTreeMap<(usize, usize), u64>,
}

impl Net {
    fn new(nodes: u128, replication_factor: u8, seed: u64) -> Net {
        let nodes = (1..=nodes).map(|me| {
            let view = Arc::new(testing::view(me, nodes, replication_factor, SHARDS));
            let repair = Repair::new(options(), 0);
            Node { view, replica: Memory::new(SHARDS), repair, up: true, life: 0, copied: Vec::new() }
        });
        let mut net = Net {
            nodes: nodes.collect(),
            dice: Dice(seed),
            ms: 0,
            order: 0,
            queue: BTreeMap::new(),
            loss: 0,
            twice: 0,
            delay_ms: 20,
            lie: None,
            logs: Vec::new(),
            questions: BTreeMap::new(),
        };
        (0..net.nodes.len()).for_each(|node| net.start(node));
        net
    }

    fn start(&mut self, node: usize) {
        let tokens_from = self.dice.roll();
        let this = &mut self.nodes[node];
        (this.up, this.life) = (true, this.life + 1);
        this.repair = Repair::new(options(), tokens_from);
        let view = this.view.clone();
        self.step(node, Event::View(view));
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].replica.crash();
    }

    fn now(&self) -> Now {
        Now { ms: self.ms, wall: Timestamp(WALL + self.ms as i64) }
    }

    fn send(&mut self, message: Message) {
        let at = self.ms + 1 + self.dice.roll() % self.delay_ms;
        self.order += 1;
        self.queue.insert((at, self.order), message);
    }

    fn step(&mut self, node: usize, event: Event) {
        let (now, mut effects) = (self.now(), Vec::new());
        self.nodes[node].repair.step(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Copied(copied) => self.nodes[node].copied = copied,
                Effect::Ask { token, peer, request, timeout_ms } => {
                    assert_eq!(timeout_ms, options().timeout_ms);
                    let to = (peer.0 - 1) as usize;
                    *self.questions.entry((node, to)).or_default() += 1;
                    // Sometimes the transport says so, sometimes nobody does.
                    if self.dice.percent(self.loss) {
                        if self.dice.percent(50) {
                            self.send(Message::Fails { to: node, token });
                        }
                        continue;
                    }
                    if self.dice.percent(self.twice) {
                        self.send(Message::Question { from: node, to, token, request: request.clone() });
                    }
                    self.send(Message::Question { from: node, to, token, request });
                }
                Effect::Work { token, local } => {
                    let life = self.nodes[node].life;
                    self.send(Message::Work { node, life, token, local });
                }
                Effect::Log { level, text } => self.logs.push((node, level, text)),
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Question { from, to, token, request } => {
                if !self.nodes[to].up {
                    return;
                }
                let node = &self.nodes[to];
                let mut replies = Vec::new();
                let who = NodeId(from as u128 + 1);
                let suspect =
                    serve(&node.view, &node.replica, who, &request, &mut |reply| replies.push(reply))
                        .unwrap();
                if let Some(suspect) = suspect {
                    self.step(to, suspect);
                }
                let mut reply = replies.pop().unwrap();
                assert!(replies.is_empty());
                if let Some((_, lie)) = self.lie.filter(|(liar, _)| *liar == to) {
                    let honest = Reply::decode(&reply).unwrap();
                    reply = lie(&mut self.dice, Request::decode(&request).unwrap(), honest).encode();
                }
                if self.dice.percent(self.twice) {
                    self.send(Message::Answer { to: from, token, reply: reply.clone() });
                }
                if !self.dice.percent(self.loss) {
                    self.send(Message::Answer { to: from, token, reply });
                }
            }
            Message::Answer { to, token, reply } => {
                if self.nodes[to].up {
                    self.step(to, Event::Answer { token, reply });
                }
            }
            Message::Fails { to, token } => {
                if self.nodes[to].up {
                    self.step(to, Event::Failed { token, why: "lost".to_owned() });
                }
            }
            Message::Work { node, life, token, local } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    let done = perform(&self.nodes[node].replica, local);
                    self.step(node, Event::Done { token, done });
                }
            }
        }
    }

    fn run(&mut self, for_ms: u64) {
        let end = self.ms + for_ms;
        while self.ms < end {
            let tick = self.ms + TICK_MS;
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > tick {
                    break;
                }
                let (at, _) = *entry.key();
                let message = entry.remove();
                self.ms = self.ms.max(at);
                self.deliver(message);
            }
            self.ms = tick;
            for node in 0..self.nodes.len() {
                if self.nodes[node].up {
                    self.step(node, Event::Tick);
                }
            }
        }
    }

    fn holders(&self, shard: Shard) -> Vec<usize> {
        self.nodes[0].view.placement.replicas(shard).iter().map(|r| (r.node.0 - 1) as usize).collect()
    }

    /// Whether every replica of every shard holds what `all` does, and nobody anything else.
    fn converged(&self, all: &Memory) -> bool {
        let content = |replica: &Memory| replica.content().into_iter().collect::<BTreeSet<_>>();
        let whole = content(all);
        for (number, node) in self.nodes.iter().enumerate() {
            let ours: BTreeSet<_> = whole
                .iter()
                .filter(|row| self.holders(row.0.shard(SHARDS)).contains(&number))
                .cloned()
                .collect();
            if content(&node.replica) != ours {
                return false;
            }
        }
        true
    }

    fn errors(&self) -> Vec<&str> {
        self.logs.iter().filter(|log| log.1 == Level::Error).map(|log| &*log.2).collect()
    }
}

fn series(i: u32) -> Labels {
    testing::labels("m", &[("i", &i.to_string())])
}

fn id(i: u32) -> SeriesId {
    testing::KEY.id(series(i).as_bytes())
}

/// Puts a row on those of the shard's replicas whose bit is set; one at least.
fn put(net: &Net, all: &Memory, i: u32, t: i64, v: f64, on: u8) {
    let holders = net.holders(id(i).shard(SHARDS));
    let on = if (on as usize).is_multiple_of(1 << holders.len()) { 1 } else { on };
    for (bit, node) in holders.into_iter().enumerate() {
        if on >> bit & 1 == 1 {
            net.nodes[node].replica.put(&series(i), &[(t, v)]);
        }
    }
    all.put(&series(i), &[(t, v)]);
}

/// Moments of every kind: a minute ago, hours, days, a year, long before the epoch.
fn moments() -> impl Strategy<Value = i64> {
    prop_oneof![
        (61_000i64..4 * WINDOW_MS).prop_map(|age| WALL - age),
        (0i64..60 * 3_600_000).prop_map(|age| WALL - 61_000 - age),
        (0i64..400 * 24 * 3_600_000).prop_map(|age| WALL - 61_000 - age),
        -1_000_000_000_000i64..0,
        Just(i64::MIN),
    ]
}

fn run_cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(run_cases(24))]

    #[test]
    fn replicas_converge_to_the_union_after_any_faults(
        seed in any::<u64>(), nodes in 2u128..6,
        rows in prop::collection::vec((0u32..24, moments(), 0u8..3, any::<u8>()), 1..120),
        deaths in prop::collection::vec((0usize..6, 1u64..90, 1u64..60), 0..5)
    ) {
        let mut net = Net::new(nodes, 3, seed);
        let all = Memory::new(SHARDS);
        for &(i, t, v, on) in &rows {
            put(&net, &all, i, t, f64::from(v), on);
        }
        let idle = |net: &Net| net.nodes.iter().map(|n| n.replica.idle_rows()).sum::<u64>();
        let idle_before = idle(&net);
        (net.loss, net.twice, net.delay_ms) = (25, 25, 8_000);
        for &(node, after, down) in &deaths {
            let node = node % net.nodes.len();
            net.run(after * 1_000);
            net.kill(node);
            net.run(down * 1_000);
            net.start(node);
        }
        net.run(60_000);
        // All is well again. A pull that failed waits up to one interval of the recent windows; then one round of each kind.
        (net.loss, net.twice, net.delay_ms) = (0, 0, 50);
        net.run(options().old_interval_ms + 3 * options().recent_interval_ms);
        prop_assert!(net.converged(&all), "seed {seed}: {:?}", net.nodes.iter().map(|n| n.repair.progress(net.now())).collect::<Vec<_>>());
        prop_assert_eq!(net.errors(), [""; 0]);
        for node in &net.nodes {
            let progress = node.repair.progress(net.now());
            // (A peer that is being repaired itself may change between its digests and its rows.)
            prop_assert_eq!((progress.refused, progress.damages), (0, 0));
        }
        prop_assert_eq!(idle(&net), idle_before, "repair writes nothing that is there");
        // Nothing is left to be fetched.
        let fetched = |net: &Net| net.nodes.iter().map(|n| n.repair.progress(net.now()).rows).sum::<u64>();
        let before = fetched(&net);
        net.run(2 * options().old_interval_ms);
        prop_assert_eq!(fetched(&net), before);
    }

    #[test]
    fn messages_round_trip_and_any_bytes_are_taken_or_refused(
        epoch in any::<u64>(), timeout_ms in any::<u32>(), shard in any::<u16>(), which in 0..3,
        times in prop::collection::vec((any::<i64>(), any::<i64>()), 1..9), ids in prop::collection::btree_set(any::<u128>(), 0..20),
        junk in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), damaged in any::<bool>()
    ) {
        let range = |&(a, b): &(i64, i64)| TimeRange::new(a.min(b), a.max(b));
        let series: Vec<SeriesId> = ids.into_iter().map(SeriesId).collect();
        let ask = match which {
            0 => Ask::Digests(times.iter().map(range).collect()),
            1 => Ask::Series { range: range(&times[0]), from: SeriesId(7) },
            _ => Ask::Export { range: range(&times[0]), series: series.clone() },
        };
        let request = Request { epoch, timeout_ms, shard: Shard(shard), ask };
        let bytes = request.encode();
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        prop_assert!(Request::decode(&bytes[..at.index(bytes.len())]).is_err());
        let digests: Vec<(SeriesId, Digest)> = series.iter().map(|id| (*id, Digest(id.0 >> 3))).collect();
        let reply = match which {
            0 => Reply::Digests(digests.iter().map(|d| Seen { digest: d.1, damaged }).collect()),
            1 => Reply::Series { series: digests, next: None },
            _ => Reply::Rows { rows: junk.clone(), next: series.first().copied() },
        };
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        for reply in [
            Reply::Stale { epoch }, Reply::Behind { epoch }, Reply::NotHeld { shard: Shard(shard) },
            Reply::Failed { why: "ö".repeat(times.len() * 100) },
        ] {
            let decoded = Reply::decode(&reply.encode()).unwrap();
            prop_assert_eq!(std::mem::discriminant(&decoded), std::mem::discriminant(&reply));
        }
        let _ = (Request::decode(&junk), Reply::decode(&junk));
    }
}

#[test]
fn equal_replicas_ask_for_digests_only_and_rarely() {
    let mut net = Net::new(3, 3, 1);
    let all = Memory::new(SHARDS);
    for i in 0..20 {
        put(&net, &all, i, WALL - 100_000 - i64::from(i) * WINDOW_MS, 1.0, 0b111);
    }
    net.run(options().old_interval_ms);
    let progress = net.nodes[0].repair.progress(net.now());
    assert_eq!((progress.divergent, progress.rows, progress.failed), (0, 0, 0));
    // Four shards, two peers: each recent round is one question, each old one as well.
    let questions: u64 = net.questions.iter().filter(|(pair, _)| pair.0 == 0).map(|(_, count)| count).sum();
    assert!(questions <= 4 * 2 * 7, "{questions}");
    assert!(progress.compared > 1_000 && progress.running == 0);
}

fn damage(number: u64, i: u32, range: TimeRange) -> Damage {
    Damage { number, shard: id(i).shard(SHARDS), range, what: "a page fails its checksum".to_owned() }
}

#[test]
fn damage_is_mended_when_a_majority_of_the_others_has_been_pulled_and_not_before() {
    let mut net = Net::new(3, 3, 2);
    let all = Memory::new(SHARDS);
    let old = WALL - 90 * 24 * 3_600_000;
    // Acknowledged by the first and the third, and lost on the first.
    put(&net, &all, 1, old, 1.0, 0b100);
    put(&net, &all, 1, old + 1, 2.0, 0b110);
    let range = TimeRange::new(old - 1_000, old + WINDOW_MS);
    net.nodes[0].replica.damage_at(damage(5, 1, range));
    net.kill(2);
    net.run(400_000);
    assert_eq!(net.nodes[0].replica.damage().len(), 1, "what only the third node has is not here yet");
    assert_eq!(net.nodes[0].repair.progress(net.now()).damages, 1);
    net.start(2);
    net.nodes[2].replica.put(&series(1), &[(old, 1.0), (old + 1, 2.0)]);
    net.run(70_000);
    assert_eq!(net.nodes[0].replica.damage(), []);
    assert!(net.converged(&all));
    let progress = net.nodes[0].repair.progress(net.now());
    assert_eq!((progress.damages, progress.mended, progress.mended_best_effort), (0, 1, 0));
    assert_eq!(net.errors(), [""; 0]);
}

#[test]
fn damage_heals_within_a_minute_though_nothing_else_is_due() {
    let mut net = Net::new(3, 3, 3);
    let all = Memory::new(SHARDS);
    let old = WALL - 90 * 24 * 3_600_000;
    net.run(200_000);
    put(&net, &all, 1, old, 1.0, 0b110);
    let holder = net.holders(id(1).shard(SHARDS))[0];
    net.nodes[holder].replica.damage_at(damage(5, 1, TimeRange::new(old, old + 10)));
    net.run(15_000);
    assert_eq!(net.nodes[holder].replica.damage(), []);
    assert!(net.converged(&all));
}

#[test]
fn damage_of_all_replicas_at_different_places_heals_without_loss() {
    let mut net = Net::new(3, 3, 4);
    let all = Memory::new(SHARDS);
    let old = WALL - 90 * 24 * 3_600_000;
    // The helix: of each window another replica has lost its copy.
    for window in 0..30 {
        let from = (old.div_euclid(WINDOW_MS) + window) * WINDOW_MS;
        let loser = (window % 3) as usize;
        for i in 0..8 {
            put(&net, &all, i, from + i64::from(i), f64::from(i), 0b111 & !(1 << loser));
        }
        let holder = net.holders(id(1).shard(SHARDS))[loser];
        for shard in 0..SHARDS as u16 {
            let range = TimeRange::new(from, from + WINDOW_MS - 1);
            let number = window as u64 * 10 + u64::from(shard);
            let damage = Damage { number, shard: Shard(shard), range, what: "rotten".to_owned() };
            net.nodes[holder].replica.damage_at(damage);
        }
    }
    net.run(60_000);
    assert!(net.converged(&all));
    assert!(net.nodes.iter().all(|node| node.replica.damage().is_empty()));
    assert_eq!(net.errors(), [""; 0]);
    assert!(net.logs.iter().all(|log| log.1 == Level::Info), "{:?}", net.logs);
}

#[test]
fn damage_at_the_same_place_of_all_is_put_together_and_a_person_is_told() {
    let mut net = Net::new(3, 3, 5);
    let all = Memory::new(SHARDS);
    let old = WALL - 90 * 24 * 3_600_000;
    for (t, on) in [(old, 0b001), (old + 1, 0b010), (old + 2, 0b100)] {
        put(&net, &all, 1, t, t as f64, on);
    }
    for node in &net.nodes {
        node.replica.damage_at(damage(9, 1, TimeRange::new(old, old + 5)));
    }
    net.run(60_000);
    assert!(net.converged(&all), "the union of what is left");
    assert!(net.nodes.iter().all(|node| node.replica.damage().is_empty()));
    let errors = net.errors();
    assert!(
        !errors.is_empty() && errors.iter().all(|e| e.contains("restore them from a backup")),
        "{errors:?}"
    );
}

#[test]
fn a_lonely_node_keeps_its_damage() {
    let mut net = Net::new(1, 1, 6);
    net.nodes[0].replica.damage_at(damage(1, 1, TimeRange::ALL));
    net.run(100_000);
    assert_eq!(net.nodes[0].replica.damage().len(), 1);
    assert_eq!(net.logs, []);
}

/// Node 2 answers so; what becomes of the others' data and of node 1's opinion.
fn lied_to(lie: Lie) -> (Net, Memory) {
    let mut net = Net::new(3, 3, 7);
    let all = Memory::new(SHARDS);
    for i in 0..12 {
        put(&net, &all, i, WALL - 200_000, f64::from(i), 0b111 & !(1 << (i % 3)));
    }
    net.lie = Some((1, lie));
    net.run(3_600_000);
    (net, all)
}

#[test]
fn rows_that_were_not_asked_for_are_refused_with_the_address() {
    let (net, all) = lied_to(|_, request, reply| match (request.ask, reply) {
        (Ask::Export { series, .. }, Reply::Rows { .. }) => {
            // Labels of another series.
            let other = Memory::new(SHARDS);
            other.put(&testing::labels("invented", &[]), &[(WALL - 200_000, 666.0)]);
            let mut batch = model::Batch::default();
            let id = testing::KEY.id(testing::labels("invented", &[]).as_bytes());
            other.export(id.shard(SHARDS), TimeRange::ALL, &[id], 1 << 20, &mut batch).unwrap();
            let (mut encoder, mut rows) = (crate::rows::Encoder::default(), Vec::new());
            for series in &batch.series {
                encoder.push_batch(crate::rows::Name::Labels(batch.labels(series)), &batch, series);
            }
            encoder.finish(request.shard, 0, &mut rows);
            drop(series);
            Reply::Rows { rows, next: None }
        }
        (_, honest) => honest,
    });
    assert!(net.converged(&all), "the honest replica has all of it");
    let progress = net.nodes[0].repair.progress(net.now());
    assert!(progress.refused > 0);
    let told = net.logs.iter().find(|log| log.0 == 0 && log.1 == Level::Warn).unwrap();
    assert!(told.2.contains("node-2:7421") && told.2.contains("refused"), "{}", told.2);
}

#[test]
fn a_peer_whose_digests_are_invented_is_asked_less_and_less_often_and_reported() {
    let (net, all) = lied_to(|dice, _, reply| match reply {
        Reply::Digests(seen) => Reply::Digests(
            seen.into_iter().map(|s| Seen { digest: Digest(dice.roll().into()), ..s }).collect(),
        ),
        Reply::Series { series, next } => Reply::Series {
            series: series.into_iter().map(|(id, _)| (id, Digest(dice.roll().into()))).collect(),
            next,
        },
        honest => honest,
    });
    assert!(net.converged(&all));
    let progress = net.nodes[0].repair.progress(net.now());
    assert!(progress.unlike >= 3 && progress.refused == 0, "{progress:?}");
    let told = net
        .logs
        .iter()
        .filter(|log| log.0 == 0 && log.1 == Level::Warn)
        .map(|log| &log.2)
        .collect::<Vec<_>>();
    assert!(
        !told.is_empty() && told.iter().all(|t| t.contains("node-2:7421") && t.contains("digests")),
        "{told:?}"
    );
    let hour = net.questions[&(0, 1)];
    let mut net = net;
    net.run(3_600_000);
    let next = net.questions[&(0, 1)] - hour;
    // Each pull is bounded, and they come as seldom as those of everything old.
    let pulls = 4 * 3_600_000 / options().old_interval_ms + 4 * 4;
    assert!(hour < pulls * 100 && next <= hour, "{hour} questions in the first hour, {next} in the second");
}

#[test]
fn answers_that_make_no_sense_change_nothing_and_do_not_loop() {
    let lies: [Lie; 4] = [
        |_, _, _| Reply::Digests(Vec::new()),
        |_, request, reply| match request.ask {
            Ask::Export { series, .. } => Reply::Rows { rows: Vec::new(), next: series.first().copied() },
            _ => reply,
        },
        |_, request, reply| match request.ask {
            Ask::Export { .. } => Reply::Rows { rows: vec![1, 2, 3], next: None },
            _ => reply,
        },
        |_, _, _| Reply::Series { series: Vec::new(), next: None },
    ];
    for lie in lies {
        let (net, all) = lied_to(lie);
        assert!(net.converged(&all));
        assert!(net.nodes[0].repair.progress(net.now()).refused > 0);
        let asked = net.questions[&(0, 1)];
        assert!(asked < 4 * 2 * 60 * 4, "{asked} questions in an hour");
    }
}

#[test]
fn another_placement_is_answered_so_and_nothing_is_done() {
    let net = Net::new(4, 3, 8);
    let node = &net.nodes[0];
    let ask = |epoch, shard| {
        let ask = Ask::Digests(vec![TimeRange::ALL]);
        let request = Request { epoch, timeout_ms: 1, shard: Shard(shard), ask }.encode();
        let mut replies = Vec::new();
        serve(&node.view, &node.replica, NodeId(2), &request, &mut |reply| replies.push(reply)).unwrap();
        Reply::decode(&replies[0]).unwrap()
    };
    let epoch = node.view.epoch();
    let held = (0..SHARDS as u16).find(|s| net.holders(Shard(*s)).contains(&0)).unwrap();
    let strange = (0..SHARDS as u16).find(|s| !net.holders(Shard(*s)).contains(&0)).unwrap();
    assert!(matches!(ask(epoch, held), Reply::Digests(_)));
    assert_eq!(ask(epoch - 1, held), Reply::Stale { epoch });
    assert_eq!(ask(epoch + 1, held), Reply::Behind { epoch });
    assert_eq!(ask(epoch, strange), Reply::NotHeld { shard: Shard(strange) });
    assert_eq!(ask(epoch, 999), Reply::NotHeld { shard: Shard(999) });
    assert!(serve(&node.view, &node.replica, NodeId(2), b"junk", &mut |_| panic!("no answer")).is_err());
}

#[test]
fn a_reported_difference_is_repaired_before_its_round() {
    let mut net = Net::new(3, 3, 9);
    let all = Memory::new(SHARDS);
    net.run(200_000);
    let old = WALL - 90 * 24 * 3_600_000;
    put(&net, &all, 3, old, 3.0, 0b110);
    let shard = id(3).shard(SHARDS);
    let holder = net.holders(shard)[0];
    net.step(holder, Event::Suspect { shard, range: TimeRange::new(old - 5, old + 5), peer: None });
    net.run(5_000);
    assert!(net.converged(&all));
}

#[test]
fn only_what_is_missing_is_appended_and_told_apart_from_what_was_fetched() {
    let mut net = Net::new(2, 2, 13);
    let all = Memory::new(SHARDS);
    // One row of a hundred is missing, and one loses against the other node's.
    for t in 0..100 {
        put(&net, &all, 1, WALL - 200_000 + t, 1.0, if t == 50 { 0b10 } else { 0b11 });
    }
    let holders = net.holders(id(1).shard(SHARDS));
    let rows = [(WALL - 200_000, 2.0)];
    net.nodes[holders[1]].replica.put(&series(1), &rows);
    all.put(&series(1), &rows);
    net.run(30_000);
    assert!(net.converged(&all));
    let progress = |node: usize| {
        let progress = net.nodes[node].repair.progress(net.now());
        (progress.rows, progress.appended)
    };
    assert_eq!(progress(holders[0]), (100, 2));
    assert_eq!(progress(holders[1]).1, 0);
    assert!(net.nodes.iter().all(|node| node.replica.idle_rows() == 0));
}

#[test]
fn rows_that_are_here_and_not_yet_durable_are_waited_for() {
    let net = Net::new(2, 2, 14);
    let (shard, range) = (id(1).shard(SHARDS), TimeRange::ALL);
    let theirs = &net.nodes[1].replica;
    theirs.put(&series(1), &[(5, 1.0)]);
    let mut replies = Vec::new();
    let ask = Ask::Export { range, series: vec![id(1)] };
    let request = Request { epoch: net.nodes[1].view.epoch(), timeout_ms: 1, shard, ask }.encode();
    serve(&net.nodes[1].view, theirs, NodeId(1), &request, &mut |reply| replies.push(reply)).unwrap();
    let Ok(Reply::Rows { rows, .. }) = Reply::decode(&replies[0]) else { panic!("no rows") };
    let wanted = theirs.series_digests(shard, range).unwrap();
    let apply = || Local::Apply { shard, range, wanted: wanted.clone(), rows: rows.clone() };
    let own = &net.nodes[0].replica;
    own.lag(true);
    assert!(matches!(perform(own, apply()), Done::Failed(_)));
    assert!(matches!(perform(own, apply()), Done::Failed(_)), "the row is here, and not durable");
    own.lag(false);
    assert_eq!(perform(own, apply()), Done::Applied { fetched: 1, appended: 0, unlike: 0, missing: 0 });
    assert!(own.has_durably(id(1), 5, 1.0) && own.idle_rows() == 0);
}

#[test]
fn who_is_asked_for_a_window_looks_at_it_as_well() {
    let mut net = Net::new(2, 2, 15);
    let all = Memory::new(SHARDS);
    // The rounds of everything old have just been.
    net.run(200_000);
    let old = WALL - 90 * 24 * 3_600_000;
    put(&net, &all, 3, old, 3.0, 0b01);
    put(&net, &all, 3, old + 1, 4.0, 0b10);
    let shard = id(3).shard(SHARDS);
    net.step(0, Event::Suspect { shard, range: TimeRange::new(old - 5, old + 5), peer: None });
    net.run(5_000);
    assert!(net.converged(&all), "one side was told, and both are equal");
}

/// What a machine asks one after the other, when the answers to questions for digests are these and nobody has a series.
struct Alone {
    repair: Repair,
    effects: Vec<Effect>,
    digest: fn(TimeRange) -> Digest,
}

impl Alone {
    fn new(options: Options, view: View, digest: fn(TimeRange) -> Digest) -> Alone {
        let (mut repair, mut effects) = (Repair::new(options, 0), Vec::new());
        repair.step(Alone::NOW, Event::View(Arc::new(view)), &mut effects);
        Alone { repair, effects, digest }
    }

    const NOW: Now = Now { ms: 0, wall: Timestamp(WALL) };

    fn step(&mut self, event: Event) {
        self.repair.step(Alone::NOW, event, &mut self.effects);
    }

    /// The next question; everything that this node does by itself is done.
    fn next(&mut self) -> Option<(u64, Request)> {
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Ask { token, request, .. } => {
                    return Some((token, Request::decode(&request).unwrap()));
                }
                Effect::Work { token, local: Local::Digests { ranges, .. } } => {
                    let done = Done::Digests(vec![Digest::default(); ranges.len()]);
                    self.step(Event::Done { token, done });
                }
                Effect::Work { token, local: Local::Differ { .. } } => {
                    self.step(Event::Done { token, done: Done::Differ(Vec::new()) });
                }
                other => panic!("{other:?}"),
            }
        }
        None
    }

    fn answer(&mut self, token: u64, ask: &Ask) {
        let reply = match ask {
            Ask::Digests(ranges) => Reply::Digests(
                ranges.iter().map(|range| Seen { digest: (self.digest)(*range), damaged: false }).collect(),
            ),
            Ask::Series { range, .. } => {
                // One that is the same here.
                Reply::Series { series: vec![(SeriesId(1), (self.digest)(*range))], next: None }
            }
            Ask::Export { .. } => panic!("everything is here"),
        };
        self.step(Event::Answer { token, reply: reply.encode() });
    }
}

#[test]
fn a_long_round_stands_aside_for_what_is_more_urgent_and_goes_on_where_it_was() {
    let year = 365 * 24 * 3_600_000i64;
    let options = Options { pulls_max: 1, retention_ms: year as u64, ..options() };
    // Every window differs.
    let mut alone = Alone::new(options, testing::view(1, 2, 2, 1), |range| Digest(range.min.0 as u128 | 1));
    let suspect = |times: i64| TimeRange::new(WALL - year / 2 + times, WALL - year / 2 + 5);
    let (mut leaves, mut heard) = (Vec::new(), Vec::new());
    while let Some((token, request)) = alone.next() {
        if let Ask::Series { range, .. } = request.ask {
            leaves.push(range);
        }
        // In the midst of recent windows, and of old ones.
        if [10, 500].contains(&leaves.len()) && heard.last() != Some(&leaves.len()) {
            heard.push(leaves.len());
            alone.step(Event::Suspect { shard: Shard(0), range: suspect(heard.len() as i64), peer: None });
        }
        alone.answer(token, &request.ask);
    }
    assert_eq!(heard, [10, 500]);
    // In the order of removal, the later place first.
    for (times, at) in [(2, 500), (1, 10)] {
        assert_eq!(leaves.remove(at), suspect(times), "before anything else");
    }
    assert!(leaves.len() > 4_000, "{}", leaves.len());
    assert!(
        leaves.windows(2).all(|w| w[1].max.0 + 1 == w[0].min.0),
        "each once, the newest first, none left out"
    );
    let progress = alone.repair.progress(Alone::NOW);
    assert_eq!((progress.running, progress.waiting, progress.unlike), (0, 0, 0));
}

#[test]
fn of_reported_differences_the_newest_comes_first_and_nothing_that_may_be_under_way() {
    let mut alone =
        Alone::new(Options { pulls_max: 1, ..options() }, testing::view(1, 2, 2, 1), |_| Digest(1));
    let (token, request) = alone.next().unwrap();
    let hour = |ago: i64| TimeRange::new(WALL - ago * 3_600_000, WALL - ago * 3_600_000 + 1);
    for ago in [500, 100, 700, 0, 300] {
        alone.step(Event::Suspect { shard: Shard(0), range: hour(ago), peer: None });
    }
    alone.answer(token, &request.ask);
    let mut leaves = Vec::new();
    while leaves.len() < 4 {
        let (token, request) = alone.next().unwrap();
        if let Ask::Series { range, .. } = request.ask {
            leaves.push(range);
        }
        alone.answer(token, &request.ask);
    }
    assert_eq!(leaves, [100, 300, 500, 700].map(hour));
}

#[test]
fn a_peer_that_is_down_is_not_asked_and_asked_at_once_when_it_is_back() {
    let mut net = Net::new(3, 3, 10);
    let all = Memory::new(SHARDS);
    let with = |view: &View, health| {
        let mut view = view.clone();
        view.nodes.get_mut(&NodeId(2)).unwrap().health = health;
        Arc::new(view)
    };
    let view = net.nodes[0].view.clone();
    net.step(0, Event::View(with(&view, Health::Down)));
    let before = net.questions.get(&(0, 1)).copied().unwrap_or(0);
    net.run(200_000);
    assert_eq!(net.questions.get(&(0, 1)).copied().unwrap_or(0), before);
    for i in 0..4 {
        for node in [1, 2] {
            net.nodes[node].replica.put(&series(i), &[(WALL - 61_000, 1.0)]);
        }
        all.put(&series(i), &[(WALL - 61_000, 1.0)]);
    }
    net.kill(2);
    net.step(0, Event::View(with(&view, Health::Up)));
    net.run(10_000);
    assert_eq!(net.nodes[0].replica.content(), all.content());
}

#[test]
fn the_budget_of_bytes_is_kept() {
    let mut net = Net::new(2, 2, 11);
    net.kill(0);
    // A hundred windows, so that a chunk is small.
    let noise = |t: i64| f64::from_bits((t as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
    let rows: Vec<(i64, f64)> = (0..2_000i64).map(|t| (WALL - 800_000_000 + t * 360_000, noise(t))).collect();
    for i in 0..40 {
        net.nodes[1].replica.put(&series(i), &rows);
    }
    net.start(0);
    net.nodes[0].repair.set_bytes_per_s(10_000);
    net.run(20_000);
    let progress = net.nodes[0].repair.progress(net.now());
    // What was allowed, and a chunk of each pull.
    assert!(progress.bytes > 50_000 && progress.bytes < 20 * 10_000 + 4 * 10_000, "{progress:?}");
    assert!(net.nodes[0].replica.content().len() < net.nodes[1].replica.content().len());
    net.nodes[0].repair.set_bytes_per_s(100 << 20);
    net.run(120_000);
    assert_eq!(net.nodes[0].replica.content(), net.nodes[1].replica.content());
}

#[test]
fn a_replica_that_cannot_keep_rows_tries_again_later_and_loses_none() {
    let mut net = Net::new(2, 2, 12);
    for i in 0..8 {
        net.nodes[1].replica.put(&series(i), &[(WALL - 100_000, 1.0)]);
    }
    net.nodes[0].replica.lag(true);
    net.run(60_000);
    let progress = net.nodes[0].repair.progress(net.now());
    assert!(progress.failed > 0 && progress.failed < 100, "{progress:?}");
    net.nodes[0].replica.crash();
    net.nodes[0].replica.lag(false);
    net.run(150_000);
    assert_eq!(net.nodes[0].replica.content(), net.nodes[1].replica.content());
}

#[test]
fn the_format_page_shows_the_bytes_that_are_sent() {
    let page = include_str!("../../../docs/format/repair.md");
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let range = TimeRange::new(-1, 7_199_999);
    let request = |ask| hex(Request { epoch: 3, timeout_ms: 30_000, shard: Shard(5), ask }.encode());
    let shown = [
        request(Ask::Digests(vec![range])),
        request(Ask::Series { range, from: SeriesId(9) }),
        request(Ask::Export { range, series: vec![SeriesId(9)] }),
        hex(Reply::Digests(vec![Seen { digest: Digest(1), damaged: true }]).encode()),
        hex(Reply::Series { series: vec![(SeriesId(9), Digest(1))], next: None }.encode()),
        hex(Reply::Rows { rows: vec![0xaa], next: Some(SeriesId(9)) }.encode()),
        hex(Reply::Stale { epoch: 3 }.encode()),
        hex(Reply::Behind { epoch: 3 }.encode()),
        hex(Reply::NotHeld { shard: Shard(5) }.encode()),
        hex(Reply::Failed { why: "why".to_owned() }.encode()),
    ];
    for bytes in shown {
        assert!(page.contains(&bytes), "docs/format/repair.md does not show {bytes}");
    }
}

#[test]
fn what_is_about_to_expire_is_not_compared_whoever_says_how_long_it_is_kept() {
    let week = 7 * 24 * 3_600_000;
    let now = Now { ms: 0, wall: Timestamp(WALL) };
    for by_namespace in [false, true] {
        let mut view = testing::view(1, 3, 3, SHARDS);
        let retention_ms = if by_namespace { 0 } else { week as u64 };
        if by_namespace {
            view.namespaces.entry("default".into()).or_default().retention_ms = week as u64;
        }
        let mut repair = Repair::new(Options { pulls_max: 64, retention_ms, ..options() }, 0);
        let (mut effects, mut oldest) = (Vec::new(), i64::MAX);
        repair.step(now, Event::View(Arc::new(view)), &mut effects);
        // Every answer is the same as here.
        while let Some(effect) = effects.pop() {
            let event = match effect {
                Effect::Ask { token, request, .. } => {
                    let Ask::Digests(ranges) = Request::decode(&request).unwrap().ask else {
                        panic!("all is equal")
                    };
                    oldest = ranges.iter().map(|range| range.min.0).min().unwrap().min(oldest);
                    let seen = Seen { digest: Digest::default(), damaged: false };
                    Event::Answer { token, reply: Reply::Digests(vec![seen; ranges.len()]).encode() }
                }
                Effect::Work { token, local: Local::Digests { ranges, .. } } => {
                    Event::Done { token, done: Done::Digests(vec![Digest::default(); ranges.len()]) }
                }
                other => panic!("{other:?}"),
            };
            repair.step(now, event, &mut effects);
        }
        assert!(repair.progress(now).compared > 0 && repair.progress(now).waiting == 0);
        assert!((WALL - week..WALL - week + 3 * WINDOW_MS).contains(&oldest), "{}", WALL - oldest);
    }
}

#[test]
fn the_passes_of_a_copy_begin_when_what_comes_as_files_has_come() {
    let mut net = Net::new(3, 2, 61);
    let all = Memory::new(SHARDS);
    (0..24).for_each(|i| put(&net, &all, i, WALL - 3_600_000, f64::from(i), 3));
    let shard = id(0).shard(SHARDS);
    let view = net.nodes[0].view.clone();
    let to = (0..3).find(|node| !net.holders(shard).contains(node)).unwrap();
    let begin = Change::Begin { shard, from: None, to: Some(NodeId(to as u128 + 1)) };
    let placement = view.placement.change(&[begin]).unwrap();
    let since = placement.changed(shard);
    // It may be heard of before the move is; what was said of another move counts for nothing.
    net.step(to, Event::Filled { shard, since: since - 1 });
    for node in 0..3 {
        let me = NodeId(node as u128 + 1);
        let view = Arc::new(View { me, placement: placement.clone(), ..(*view).clone() });
        net.nodes[node].view = view.clone();
        net.step(node, Event::View(view));
    }
    let digest = |net: &Net, node: usize| net.nodes[node].replica.digest(shard, TimeRange::ALL).unwrap();
    let complete = vec![(shard, since)];
    net.run(2 * options().old_interval_ms);
    assert!(net.nodes[to].copied.is_empty());
    assert_eq!(digest(&net, to), Digest::default(), "rows are pulled that come as files");
    net.step(to, Event::Filled { shard, since });
    net.run(40_000);
    assert_eq!(net.nodes[to].copied, complete);
    assert_eq!(digest(&net, to), digest(&net, net.holders(shard)[0]));
    // After a restart it is not known any more.
    net.kill(to);
    net.start(to);
    net.run(40_000);
    assert_eq!(net.nodes[to].repair.progress(net.now()).copied, 0);
    net.step(to, Event::Filled { shard, since });
    net.run(40_000);
    assert_eq!(net.nodes[to].repair.progress(net.now()).copied, 1);
}
