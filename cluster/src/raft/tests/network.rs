//! Members over disks that lose power and a network that loses, delays, repeats, reorders and cuts, in an order that follows from
//! a seed. Whatever happens, what must never happen is looked for at every step.

use super::super::*;
use disk::CrashVfs;
use disk::crash::Survivors;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

pub const CLUSTER: u128 = 0xc1;
const DIR: &str = "/raft";
const TICK: u64 = 10;

/// splitmix64.
pub struct Lots(pub u64);

impl Lots {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }
}

enum Event {
    Deliver { from: u64, to: u64, bytes: Vec<u8> },
    Tick(u64),
    Disk { node: u64, run: u64 },
}

pub struct Node {
    pub identity: Identity,
    vfs: CrashVfs,
    /// `None` while it is down.
    running: Option<(Store, Member)>,
    disk: VecDeque<Batch>,
    run: u64,
    /// The state machine: all commands in order.
    pub machine: Vec<u64>,
}

impl Node {
    pub fn member(&self) -> Option<&Member> {
        self.running.as_ref().map(|(_, member)| member)
    }
}

pub struct Network {
    pub lots: Lots,
    now: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub nodes: BTreeMap<u64, Node>,
    /// Directions in which nothing passes.
    pub cut: BTreeSet<(u64, u64)>,
    pub loss: u64,
    pub delay: u64,
    tokens: u64,
    /// Who led which term.
    leaders: BTreeMap<u64, u64>,
    /// What was agreed on.
    pub agreed: BTreeMap<u64, Vec<u8>>,
    /// Commands whose proposer was told that they are agreed on.
    pub acknowledged: BTreeSet<u64>,
    /// Reads under way: node, and what must be seen.
    reads: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    pub reads_done: u64,
    pub refused: u64,
    pub restored: u64,
    /// Everything that happened, as one number.
    pub trace: u64,
}

fn options(run: u64, id: u64) -> Options {
    Options { snapshot_entries: 12, seed: id << 32 | run, ..Options::default() }
}

pub fn identity(member: u64) -> Identity {
    Identity { cluster: CLUSTER, member, incarnation: member + 1000 }
}

fn encode(machine: &[u64]) -> Vec<u8> {
    machine.iter().flat_map(|command| command.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

impl Network {
    pub fn new(seed: u64) -> Network {
        let mut network = Network {
            lots: Lots(seed),
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            delay: 4,
            tokens: 0,
            leaders: BTreeMap::new(),
            agreed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            reads: BTreeMap::new(),
            reads_done: 0,
            refused: 0,
            restored: 0,
            trace: 0,
        };
        network.add(identity(1), true);
        network
    }

    fn note(&mut self, what: &[u64]) {
        for word in [self.now].iter().chain(what) {
            self.trace = Lots(self.trace ^ word).next();
        }
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), event);
    }

    /// A machine with an empty disk.
    pub fn add(&mut self, identity: Identity, first: bool) {
        let id = identity.member;
        let vfs = CrashVfs::new();
        let (store, durable) = Store::open(Arc::new(vfs.clone()), Path::new(DIR), None).unwrap();
        assert!(Member::open(durable, options(0, id)).is_none());
        let (member, effects) = match first {
            true => Member::create(identity, Vec::new(), options(0, id)),
            false => Member::join(identity, options(0, id)),
        };
        let known = self.nodes.contains_key(&id);
        let run = self.nodes.get(&id).map_or(0, |node| node.run + 1);
        let running = Some((store, member));
        let node = Node { identity, vfs, running, disk: VecDeque::new(), run, machine: Vec::new() };
        self.nodes.insert(id, node);
        if !known {
            self.schedule(1, Event::Tick(id));
        }
        self.perform(id, effects);
    }

    pub fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].running.is_some()
    }

    pub fn leader(&self) -> Option<u64> {
        let leading = self.nodes.values().filter_map(Node::member).filter(|member| member.leads());
        leading.max_by_key(|member| member.leader().0).map(|member| member.identity().member)
    }

    /// Lets somebody do something.
    pub fn at<T>(&mut self, id: u64, act: impl FnOnce(&mut Member) -> (T, Vec<Effect>)) -> Option<T> {
        let (_, member) = self.nodes.get_mut(&id)?.running.as_mut()?;
        let (result, effects) = act(member);
        self.perform(id, effects);
        Some(result)
    }

    pub fn propose(&mut self, at: u64) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        self.at(at, |member| ((), member.propose(token.to_le_bytes().to_vec(), token)));
        token
    }

    pub fn change(&mut self, at: u64, change: Change) {
        self.tokens += 1;
        let token = self.tokens;
        self.at(at, |member| ((), member.change(change, token)));
    }

    pub fn read(&mut self, at: u64) {
        self.tokens += 1;
        let token = self.tokens;
        self.reads.insert(token, (at, self.acknowledged.clone()));
        self.at(at, |member| ((), member.read(token)));
    }

    fn perform(&mut self, id: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(batch) => {
                    let (node, delay) = (self.nodes.get_mut(&id).unwrap(), self.lots.below(8));
                    node.disk.push_back(batch);
                    let run = node.run;
                    self.schedule(delay, Event::Disk { node: id, run });
                }
                Effect::Send { to, bytes } => {
                    self.note(&[id, to, bytes.len() as u64]);
                    let copies = if self.lots.percent(3) { 2 } else { 1 };
                    for _ in 0..copies {
                        if !self.lots.percent(self.loss) {
                            let far = if self.lots.percent(2) { 50 * TICK } else { 0 };
                            let delay = 1 + self.lots.below(self.delay) + self.lots.below(far + 1);
                            self.schedule(delay, Event::Deliver { from: id, to, bytes: bytes.clone() });
                        }
                    }
                }
                Effect::Commit { index, command, token } => {
                    self.note(&[id, index]);
                    let known = self.agreed.entry(index).or_insert_with(|| command.clone());
                    assert_eq!(*known, command, "two commands at place {index}");
                    let value = u64::from_le_bytes(command.try_into().unwrap());
                    self.nodes.get_mut(&id).unwrap().machine.push(value);
                    if let Some(token) = token {
                        assert_eq!(token, value, "an acknowledgement of another command");
                        self.acknowledged.insert(token);
                    }
                }
                Effect::Restore { index, state } => {
                    self.note(&[id, index]);
                    self.restored += 1;
                    let node = self.nodes.get_mut(&id).unwrap();
                    let before = std::mem::replace(&mut node.machine, decode(&state));
                    assert!(node.machine.starts_with(&before), "a snapshot takes something back");
                }
                Effect::Read { token } => {
                    let (at, wanted) = self.reads.remove(&token).expect("a read is answered twice");
                    assert_eq!(at, id);
                    let seen: BTreeSet<u64> = self.nodes[&id].machine.iter().copied().collect();
                    assert!(seen.is_superset(&wanted), "a read misses what was acknowledged before it");
                    self.reads_done += 1;
                }
                Effect::Dropped { token, why } => {
                    self.reads.remove(&token);
                    assert!(
                        !self.acknowledged.contains(&token) || why == Dropped::Unknown,
                        "an acknowledged command is dropped: {why}"
                    );
                }
                Effect::Leader { term, leader } => {
                    self.note(&[id, term, leader.unwrap_or(0)]);
                    if leader == Some(id) {
                        let known = *self.leaders.entry(term).or_insert(id);
                        assert_eq!(known, id, "two leaders in term {term}");
                    }
                }
                Effect::SnapshotWanted { index } => {
                    let state = encode(&self.nodes[&id].machine);
                    if self.nodes[&id].member().is_some_and(|member| member.delivered() == index) {
                        self.at(id, |member| ((), member.snapshot(index, state)));
                    }
                }
                Effect::Changed { membership, .. } => {
                    self.note(&[id, membership.voters.len() as u64, membership.learners.len() as u64]);
                }
            }
        }
    }

    /// Power goes, perhaps in the middle of a write.
    pub fn crash(&mut self, id: u64) {
        let survivors = Survivors::Lots(self.lots.next());
        let writes = self.lots.percent(50);
        let lot = self.lots.next();
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((store, member)) = node.running.take() else { return };
        drop(member);
        let before = node.vfs.operations();
        if let Some(batch) = node.disk.pop_front().filter(|_| writes) {
            store.persist(&batch).unwrap();
        }
        let after = before + (lot % (node.vfs.operations() - before + 1) as u64) as usize;
        node.vfs = node.vfs.journal().crash(after, survivors).vfs;
        node.disk.clear();
        node.run += 1;
        node.machine.clear();
        self.reads.retain(|_, (at, _)| *at != id);
        self.note(&[id, after as u64]);
    }

    pub fn start(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.running.is_some() {
            return;
        }
        let (store, durable) = Store::open(Arc::new(node.vfs.clone()), Path::new(DIR), None).unwrap();
        let options = options(node.run, id);
        let opened = Member::open(durable, options);
        let identity = node.identity;
        // An interrupted beginning is begun again; only a first member's that was alone.
        let (member, effects) = opened.unwrap_or_else(|| match id {
            1 => Member::create(identity, Vec::new(), options),
            _ => Member::join(identity, options),
        });
        node.running = Some((store, member));
        self.perform(id, effects);
    }

    /// Time goes on until `until`, or until nothing is left to do.
    pub fn run(&mut self, ticks: u64) {
        let until = self.now + ticks * TICK;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            match entry.remove() {
                Event::Tick(id) => {
                    let after = TICK - 1 + self.lots.below(3);
                    self.schedule(after, Event::Tick(id));
                    self.at(id, |member| ((), member.tick()));
                }
                Event::Disk { node, run } => self.write(node, run),
                Event::Deliver { from, to, bytes } if !self.cut.contains(&(from, to)) => {
                    let refused = self.at(to, |member| match member.receive(from, &bytes) {
                        Ok(effects) => (false, effects),
                        Err(_) => (true, Vec::new()),
                    });
                    self.refused += u64::from(refused == Some(true));
                }
                Event::Deliver { .. } => {}
            }
        }
        self.now = until;
    }

    fn write(&mut self, id: u64, run: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else { return };
        if let (Some((store, _)), Some(batch)) = (&node.running, node.disk.pop_front()) {
            store.persist(&batch).unwrap();
            self.at(id, |member| ((), member.persisted(batch.sequence)));
        }
    }

    /// Waits, for a bounded time, until something is so.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Network) -> bool) {
        for _ in 0..3000 {
            if so(self) {
                return;
            }
            self.run(1);
        }
        panic!("it never came to be: {what}");
    }

    /// Makes a node a voter and waits for that.
    pub fn admit(&mut self, id: u64) {
        self.add(identity(id), false);
        self.vote(id);
    }

    pub fn vote(&mut self, id: u64) {
        self.until("a new member votes", |network| {
            let Some(leader) = network.leader() else { return false };
            let member = network.nodes[&leader].member().unwrap();
            let membership = member.membership();
            let incarnation = network.nodes[&id].identity.incarnation;
            if membership.voters.contains(&id) {
                return true;
            }
            let change = match membership.learners.contains(&id) {
                true => Change::Promote { member: id },
                false => Change::AddLearner { member: id, incarnation },
            };
            network.change(leader, change);
            false
        });
    }

    /// Everything works again: all must come to agree, on everything that was acknowledged.
    pub fn heal_and_check(&mut self) {
        self.cut.clear();
        self.loss = 0;
        self.delay = 4;
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        all.iter().for_each(|id| self.start(*id));
        self.until("a command is acknowledged after all is healed", |network| {
            let Some(leader) = network.leader() else { return false };
            let token = network.propose(leader);
            network.run(4);
            network.acknowledged.contains(&token)
        });
        let leader = self.leader().unwrap();
        let members = self.nodes[&leader].member().unwrap().membership();
        let all: Vec<u64> = members.voters.iter().chain(&members.learners).copied().collect();
        self.until("all members have the same", |network| {
            let newest = network.nodes[&leader].member().map(Member::delivered);
            all.iter().all(|id| network.nodes[id].member().map(Member::delivered) == newest)
        });
        let reference = self.nodes[&leader].machine.clone();
        let agreed: Vec<u64> =
            self.agreed.values().map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap())).collect();
        assert_eq!(reference, agreed, "the leader's state machine is not what was agreed on");
        for id in all {
            assert_eq!(self.nodes[&id].machine, reference, "member {id} differs");
        }
        let have: BTreeSet<u64> = reference.into_iter().collect();
        assert!(have.is_superset(&self.acknowledged), "something acknowledged is lost");
        let before = self.reads_done;
        self.read(leader);
        self.until("a read is answered after all is healed", |network| network.reads_done > before);
    }

    /// A run with everything that can go wrong.
    pub fn storm(seed: u64) -> Network {
        let mut network = Network::new(seed);
        let size = 3 + network.lots.below(3);
        for id in 2..=size {
            network.admit(id);
        }
        let mut next = size + 1;
        for _ in 0..40 {
            let ids: Vec<u64> = network.nodes.keys().copied().collect();
            let id = network.lots.pick(&ids).unwrap();
            match network.lots.below(12) {
                0 | 1 => network.crash(id),
                2 | 3 => ids.iter().for_each(|id| network.start(*id)),
                4 => {
                    // One direction only, or a side of its own.
                    let other = network.lots.pick(&ids).unwrap();
                    network.cut.insert((id, other));
                }
                5 => network.cut = ids.iter().flat_map(|other| [(id, *other), (*other, id)]).collect(),
                6 => network.cut.clear(),
                7 => network.loss = network.lots.below(30),
                8 => network.delay = 1 + network.lots.below(6 * TICK),
                9 => network
                    .nodes
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|id| network.crash(id)),
                10 => {
                    if let Some(leader) = network.leader() {
                        network.at(leader, |member| ((), member.hand_over(id)));
                    }
                }
                _ => {
                    let Some(leader) = network.leader() else { continue };
                    match network.lots.below(3) {
                        0 if network.nodes.len() < 8 => {
                            network.add(identity(next), false);
                            let incarnation = identity(next).incarnation;
                            network.change(leader, Change::AddLearner { member: next, incarnation });
                            next += 1;
                        }
                        1 => network.change(leader, Change::Promote { member: id }),
                        _ => {
                            let voters = network.nodes[&leader].member().unwrap().membership().voters;
                            if voters.len() > 2 {
                                network.change(leader, Change::Remove { member: id });
                            }
                        }
                    }
                }
            }
            for _ in 0..network.lots.below(12) {
                let up: Vec<u64> = ids.iter().copied().filter(|id| network.is_up(*id)).collect();
                let leader = network.leader();
                if let Some(at) = network.lots.pick(&up) {
                    network.propose(leader.unwrap_or(at));
                    network.read(at);
                }
                let ticks = 1 + network.lots.below(4);
                network.run(ticks);
            }
        }
        network.heal_and_check();
        network
    }
}
