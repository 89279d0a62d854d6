//! Whole nodes as far as the control plane goes: disks that lose power, a network that loses, delays, repeats, reorders and cuts, in an
//! order that follows from a seed. What must never happen is looked for at every step.

use super::super::*;
use crate::bootstrap::CopyProgress;
use crate::placement::{NodeId, Placement};
use crate::quorum::{Consistency, readers};
use crate::raft::{Batch, Durable, Store};
use crate::state::{Command, Outcome};
use crate::stop::Stop;
use crate::view::{Health, View};
use disk::crash::Survivors;
use disk::{CrashVfs, OpenMode, Vfs};
use model::Shard;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data";
const TICK: u64 = 100;
pub const LOSS_GRACE_MS: u64 = 90_000;

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
}

enum Happening {
    Tick(u16),
    Disk { at: u16, run: u64 },
    Message { from: u16, to: u16, bytes: Vec<u8> },
    Request { from: u16, run: u64, call: u64, to: u16, named: bool, body: Vec<u8> },
    Reply { to: u16, run: u64, call: u64, body: Vec<u8> },
    TimeOut { at: u16, run: u64, call: u64 },
}

/// A machine: a disk, and a process while it is up.
pub struct Machine {
    pub vfs: CrashVfs,
    pub flags: Flags,
    pub running: Option<(Store, Controller)>,
    disk: VecDeque<Batch>,
    run: u64,
    calls: BTreeSet<u64>,
    /// How it was answered whom: own number to caller, run and call.
    requests: BTreeMap<u64, (u16, u64, u64)>,
    epoch: u64,
    pub fatal: Option<Stop>,
    pub progress: Vec<String>,
    pub done: BTreeMap<u64, Result<Outcome, ControlError>>,
}

pub struct Network {
    pub lots: Lots,
    pub now: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub machines: BTreeMap<u16, Machine>,
    /// Directions in which nothing passes.
    pub cut: BTreeSet<(u16, u16)>,
    pub loss: u64,
    /// Who does not say that its copies are complete.
    pub mute: BTreeSet<u16>,
    /// Whoever starts from now on stands by.
    pub stand_by: bool,
    pub delay: u64,
    /// Chance of a crash in the middle of a small file, in percent.
    pub tear: u64,
    pub leaders: BTreeMap<(u128, u64), NodeId>,
    /// The state of each cluster after each place.
    states: BTreeMap<(u128, u64), Vec<u8>>,
    /// Namespaces whose proposer was told that they are there.
    pub acknowledged: BTreeSet<String>,
    pub named: BTreeMap<u64, String>,
    pub tokens: u64,
    /// The epoch from which on copies have to be moved.
    pub settled: Option<Placement>,
}

pub fn address(n: u16) -> String {
    super::me(n, 1).address
}

impl Network {
    pub fn new(seed: u64) -> Network {
        Network {
            lots: Lots(seed),
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            machines: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            mute: BTreeSet::new(),
            stand_by: false,
            delay: 10,
            tear: 0,
            leaders: BTreeMap::new(),
            states: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            named: BTreeMap::new(),
            tokens: 0,
            settled: None,
        }
    }

    fn schedule(&mut self, after: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), happening);
    }

    /// A machine with an empty disk that joins at these addresses.
    pub fn add(&mut self, n: u16, join: &[u16]) {
        let vfs = CrashVfs::new();
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        self.put(n, vfs, join);
    }

    /// A machine with this disk.
    pub fn put(&mut self, n: u16, vfs: CrashVfs, join: &[u16]) {
        let join = join.iter().map(|n| address(*n)).collect();
        let flags = Flags { join, own: vec![address(n)], rejoin: false };
        let machine = Machine {
            vfs,
            flags,
            running: None,
            disk: VecDeque::new(),
            run: u64::from(n) << 32,
            calls: BTreeSet::new(),
            requests: BTreeMap::new(),
            epoch: 0,
            fatal: None,
            progress: Vec::new(),
            done: BTreeMap::new(),
        };
        let known = self.machines.insert(n, machine);
        if known.is_none() {
            self.schedule(1, Happening::Tick(n));
        }
        self.start(n);
    }

    pub fn at(&self, n: u16) -> &Controller {
        &self.machines[&n].running.as_ref().expect("it is down").1
    }

    pub fn controller(&self, n: u16) -> Option<&Controller> {
        self.machines.get(&n)?.running.as_ref().map(|(_, controller)| controller)
    }

    pub fn up(&self) -> Vec<u16> {
        self.machines.iter().filter(|(_, m)| m.running.is_some()).map(|(n, _)| *n).collect()
    }

    pub fn view(&self, n: u16) -> Option<Arc<View>> {
        self.controller(n)?.view().cloned()
    }

    pub fn leader(&self) -> Option<u16> {
        let leads = |n: &u16| self.controller(*n).is_some_and(Controller::leads);
        self.up().into_iter().filter(leads).max_by_key(|n| self.at(*n).leader().0)
    }

    /// Turns a machine on.
    pub fn start(&mut self, n: u16) {
        let machine = self.machines.get_mut(&n).unwrap();
        if machine.running.is_some() || machine.fatal.is_some() {
            return;
        }
        machine.run += 1;
        let run = machine.run;
        let (vfs, dir) = (machine.vfs.clone(), Path::new(DIR));
        let file = NodeFile::read(&vfs, dir).unwrap();
        let (store, log) = Store::open(Arc::new(vfs.clone()), &raft_dir(dir), None).unwrap();
        let directory = read_identity(&vfs);
        let lots = &mut self.lots;
        let mut dice = || u128::from(lots.next()) << 64 | u128::from(lots.next());
        let start = match decide(&machine.flags, directory.as_ref(), file.as_ref(), &log, &mut dice) {
            Ok(start) => start,
            Err(stop) => {
                machine.fatal = Some(stop);
                return;
            }
        };
        if !self.write_file(n, &start.file) {
            return;
        }
        let boot = u128::from(run) << 64 | u128::from(self.lots.next());
        self.open(n, store, log, start, boot);
    }

    fn open(&mut self, n: u16, store: Store, log: Durable, start: Start, boot: u128) {
        let mut out = Vec::new();
        let mut options = Options::default();
        options.raft.snapshot_entries = 16;
        options.loss.grace_ms = LOSS_GRACE_MS;
        let me = Me { standby: self.stand_by, ..super::me(n, boot) };
        let made = Controller::new(start, me, super::MAKE, log, options, self.now, &mut out);
        let machine = self.machines.get_mut(&n).unwrap();
        match made {
            Ok(controller) => {
                machine.epoch = 0;
                machine.running = Some((store, controller));
                self.perform(n, out);
            }
            Err(stop) => machine.fatal = Some(stop),
        }
    }

    /// Writes a small file; false when power goes in the middle of it.
    fn write_file(&mut self, n: u16, file: &NodeFile) -> bool {
        let file = *file;
        self.write(n, &|vfs| file.write(vfs, Path::new(DIR)).unwrap())
    }

    fn write(&mut self, n: u16, act: &dyn Fn(&CrashVfs)) -> bool {
        let (tear, lot, survivors) =
            (self.lots.percent(self.tear), self.lots.next(), Survivors::Lots(self.lots.next()));
        let machine = self.machines.get_mut(&n).unwrap();
        let before = machine.vfs.operations();
        act(&machine.vfs);
        if !tear {
            return true;
        }
        let after = before + (lot % (machine.vfs.operations() - before + 1) as u64) as usize;
        machine.vfs = machine.vfs.journal().crash(after, survivors).vfs;
        self.forget(n);
        false
    }

    fn forget(&mut self, n: u16) {
        let machine = self.machines.get_mut(&n).unwrap();
        machine.running = None;
        machine.disk.clear();
        machine.calls.clear();
        machine.requests.clear();
        machine.run += 1;
    }

    /// Power goes, perhaps in the middle of a write.
    pub fn crash(&mut self, n: u16) {
        let (survivors, writes, lot) =
            (Survivors::Lots(self.lots.next()), self.lots.percent(50), self.lots.next());
        let machine = self.machines.get_mut(&n).unwrap();
        let Some((store, controller)) = machine.running.take() else { return };
        drop(controller);
        let before = machine.vfs.operations();
        if let Some(batch) = machine.disk.pop_front().filter(|_| writes) {
            store.persist(&batch).unwrap();
        }
        let after = before + (lot % (machine.vfs.operations() - before + 1) as u64) as usize;
        machine.vfs = machine.vfs.journal().crash(after, survivors).vfs;
        self.forget(n);
    }

    pub fn step(&mut self, n: u16, event: Event) {
        let now = self.now;
        let Some((_, controller)) = self.machines.get_mut(&n).and_then(|m| m.running.as_mut()) else {
            return;
        };
        let mut out = Vec::new();
        controller.step(now, event, &mut out);
        self.perform(n, out);
        self.check(n);
    }

    fn perform(&mut self, n: u16, effects: Vec<Effect>) {
        let run = self.machines[&n].run;
        for effect in effects {
            // Power went in the middle.
            if self.machines[&n].run != run {
                return;
            }
            let machine = self.machines.get_mut(&n).unwrap();
            match effect {
                Effect::Persist(batch) => {
                    machine.disk.push_back(batch);
                    let delay = self.lots.below(8);
                    self.schedule(delay, Happening::Disk { at: n, run });
                }
                Effect::Send { to, bytes } => {
                    for to in self.addressees(n, &Target::Node(to)) {
                        self.transmit(n, to, |_| Happening::Message { from: n, to, bytes: bytes.clone() });
                    }
                }
                Effect::Call { to, id, body, timeout_ms } => {
                    machine.calls.insert(id);
                    self.schedule(timeout_ms, Happening::TimeOut { at: n, run, call: id });
                    let named = matches!(to, Target::Node(_));
                    for to in self.addressees(n, &to) {
                        self.transmit(n, to, |_| Happening::Request {
                            from: n,
                            run,
                            call: id,
                            to,
                            named,
                            body: body.clone(),
                        });
                    }
                }
                Effect::Respond { id, body } => {
                    // One that was asked twice answers twice.
                    let Some((to, run, call)) = machine.requests.remove(&id) else { continue };
                    self.transmit(n, to, |_| Happening::Reply { to, run, call, body: body.clone() });
                }
                Effect::Joined(directory) => {
                    if let Some(found) = read_identity(&machine.vfs) {
                        assert_eq!(found, directory, "the directory has another identity");
                    } else {
                        self.write(n, &|vfs| write_identity(vfs, &directory));
                    }
                }
                Effect::Remember(file) => drop(self.write_file(n, &file)),
                Effect::View(view) => {
                    assert!(view.epoch() >= machine.epoch, "the epoch of node {n} goes back");
                    machine.epoch = view.epoch();
                    if let Some(before) = self.settled.as_ref().filter(|_| view.has_data) {
                        for shard in (0..view.shards()).map(|shard| Shard(shard as u16)) {
                            let (old, _) = readers(before.replicas(shard), Consistency::Majority);
                            let (new, _) = readers(view.placement.replicas(shard), Consistency::Majority);
                            let kept =
                                view.epoch() < before.epoch() || old.iter().any(|node| new.contains(node));
                            assert!(kept, "a placement with data was replaced");
                        }
                    }
                    if view.has_data && view.nodes.len() > 1 {
                        self.settled = Some(view.placement.clone());
                    }
                    // Copies are made in no time.
                    let (me, now) = (view.me, &view.placement);
                    let copied = now.moving().filter(|shard| now.completing(*shard).contains(&me));
                    let copied: Vec<_> = copied.map(|shard| (shard, now.changed(shard))).collect();
                    let half = |&(shard, _): &(Shard, u64)| CopyProgress {
                        shard,
                        bytes_done: u64::from(n),
                        bytes_total: Some(2 * u64::from(n)),
                    };
                    self.step(n, Event::Copying(copied.iter().map(half).collect()));
                    if !self.mute.contains(&n) {
                        self.step(n, Event::Copied(copied));
                    }
                }
                Effect::Done { token, result } => {
                    if let (Some(name), true) = (self.named.get(&token), result.is_ok()) {
                        assert!(
                            self.at(n).view().is_some_and(|view| view.namespaces.contains_key(name)),
                            "an own change is not seen after it was acknowledged"
                        );
                        self.acknowledged.insert(name.clone());
                    }
                    self.machines.get_mut(&n).unwrap().done.insert(token, result);
                }
                Effect::Progress(text) => machine.progress.push(text),
                Effect::Fatal(stop) => {
                    machine.fatal = Some(stop);
                    return self.forget(n);
                }
                Effect::Health(_) | Effect::Outlook(_) | Effect::Held(_) | Effect::Refused { .. } => {}
            }
        }
    }

    fn addressees(&self, n: u16, to: &Target) -> Vec<u16> {
        let address = match to {
            Target::Address(address) => Some(address.clone()),
            Target::Node(node) => self
                .controller(n)
                .and_then(Controller::state)
                .and_then(|state| state.nodes().get(node))
                .map(|node| node.profile.address.clone()),
        };
        let there = |m: &u16| address.as_ref() == Some(&self::address(*m));
        self.machines.keys().copied().filter(there).collect()
    }

    fn transmit(&mut self, from: u16, to: u16, make: impl Fn(u64) -> Happening) {
        let copies = if self.lots.percent(3) { 2 } else { 1 };
        for copy in 0..copies {
            if !self.lots.percent(self.loss) && !self.cut.contains(&(from, to)) {
                let far = if self.lots.percent(2) { 30 * TICK } else { 0 };
                let delay = 1 + self.lots.below(self.delay) + self.lots.below(far + 1);
                self.schedule(delay, make(copy));
            }
        }
    }

    fn node_id(&self, n: u16) -> Option<NodeId> {
        self.controller(n).map(Controller::me)
    }

    /// Time goes on.
    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            match entry.remove() {
                Happening::Tick(n) => {
                    let after = TICK - 5 + self.lots.below(11);
                    self.schedule(after, Happening::Tick(n));
                    self.step(n, Event::Tick);
                }
                Happening::Disk { at, run } => {
                    let machine = self.machines.get_mut(&at).unwrap();
                    if machine.run == run
                        && let (Some((store, _)), Some(batch)) = (&machine.running, machine.disk.pop_front())
                    {
                        store.persist(&batch).unwrap();
                        self.step(at, Event::Persisted(batch.sequence));
                    }
                }
                Happening::Message { from, to, bytes } => {
                    if let Some(from) = self.node_id(from) {
                        self.step(to, Event::Message { from, bytes });
                    }
                }
                Happening::Request { from, run, call, to, named, body } => {
                    let Some(caller) = self.node_id(from) else { continue };
                    self.count += 1;
                    let id = self.count;
                    let Some(machine) = self.machines.get_mut(&to).filter(|m| m.running.is_some()) else {
                        continue;
                    };
                    machine.requests.insert(id, (from, run, call));
                    self.step(to, Event::Request { from: named.then_some(caller), id, body });
                }
                Happening::Reply { to, run, call, body } => {
                    let machine = self.machines.get_mut(&to).unwrap();
                    if machine.run == run && machine.calls.remove(&call) {
                        self.step(to, Event::Reply { id: call, body });
                    }
                }
                Happening::TimeOut { at, run, call } => {
                    let machine = self.machines.get_mut(&at).unwrap();
                    if machine.run == run && machine.calls.remove(&call) {
                        self.step(at, Event::Failed { id: call, why: "nobody answered".into() });
                    }
                }
            }
        }
        self.now = until;
    }

    fn check(&mut self, n: u16) {
        let Some(controller) = self.controller(n) else { return };
        let me = controller.me();
        if controller.leads() {
            let (term, _) = controller.leader();
            let cluster = controller.state().map_or(0, |state| state.cluster().id);
            let known = *self.leaders.entry((cluster, term)).or_insert(me);
            assert_eq!(known, me, "two leaders in term {term}");
        }
        let Some(state) = self.controller(n).and_then(Controller::state) else { return };
        let at = (state.cluster().id, state.applied());
        if self.states.last_key_value().is_none_or(|(last, _)| *last != at) {
            let bytes = state.encode();
            let known = self.states.entry(at).or_insert_with(|| bytes.clone());
            assert!(*known == bytes, "two states after place {}", at.1);
        }
    }

    /// Waits, for a bounded time, until something is so.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Network) -> bool) {
        for _ in 0..2000 {
            if so(self) {
                return;
            }
            self.run(TICK);
        }
        let fatal: Vec<_> = self.machines.iter().map(|(n, m)| (n, &m.fatal, m.progress.last())).collect();
        let views: Vec<_> =
            self.up().into_iter().map(|n| (n, self.at(n).membership(), self.view(n))).collect();
        panic!("it never came to be: {what}\n{fatal:#?}\n{views:#?}");
    }

    pub fn propose(&mut self, n: u16, command: Command) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        self.step(n, Event::Local { token, command });
        token
    }

    /// Makes a namespace with a new name.
    pub fn name(&mut self, n: u16) -> u64 {
        let name = format!("ns{}", self.tokens + 1);
        self.named.insert(self.tokens + 1, name.clone());
        self.propose(n, Command::ApplyNamespace { name, namespace: Default::default() })
    }

    /// Whether everybody who is up knows everybody as up, and agrees in everything that is agreed on.
    pub fn agree(&self, nodes: usize) -> bool {
        let up = self.up();
        let views: Vec<_> = up.iter().filter_map(|n| self.view(*n)).collect();
        let Some(first) = views.first() else { return false };
        let same = |view: &Arc<View>| View { me: first.me, ..(**view).clone() } == **first;
        let well = first
            .nodes
            .values()
            .all(|peer| peer.health == Health::Up && peer.state == crate::placement::NodeState::Up);
        views.len() == nodes
            && views.iter().all(same)
            && well
            && first.nodes.len() == nodes
            && first.leader.is_some()
    }

    /// Everything works again: all must come to agree, with everything that was acknowledged.
    pub fn heal_and_check(&mut self) {
        self.cut.clear();
        (self.loss, self.delay, self.tear) = (0, 10, 0);
        let all: Vec<u16> = self.machines.keys().copied().collect();
        all.iter().for_each(|n| self.start(*n));
        for (n, machine) in &self.machines {
            assert_eq!(machine.fatal, None, "machine {n}");
        }
        let count = all.len();
        self.until("all agree", |network| network.agree(count));
        let token = self.name(all[count / 2]);
        let at = all[count / 2];
        self.until("a change is made", |network| network.machines[&at].done.contains_key(&token));
        assert_eq!(self.machines[&at].done[&token], Ok(Outcome::Done));
        self.until("all agree again", |network| network.agree(count));
        let voters = count - 1 + count % 2;
        self.until("there are voters enough", |network| {
            let leader = network.leader().unwrap();
            let members = network.at(leader).membership();
            // Two stay two, and an even number is left for later if somebody would be lost.
            members.voters.len() >= voters && members.voters.len() + members.learners.len() == count
        });
        let view = self.view(all[0]).unwrap();
        for name in &self.acknowledged {
            assert!(view.namespaces.contains_key(name), "{name} was acknowledged and is lost");
        }
        let copies = view.placement.shards().iter().map(Vec::len).min().unwrap();
        match view.has_data {
            true => assert!(copies >= 1),
            false => assert_eq!(copies, count.min(3), "empty nodes have their shares"),
        }
    }

    /// A run with everything that can go wrong.
    pub fn storm(seed: u64) -> Network {
        let mut network = Network::new(seed);
        network.tear = 10;
        let size = 3 + network.lots.below(3) as u16;
        let all: Vec<u16> = (1..=size).collect();
        network.add(1, &[]);
        all[1..].iter().for_each(|n| network.add(*n, &all));
        for _ in 0..40 {
            let n = 1 + network.lots.below(u64::from(size)) as u16;
            let wait = network.lots.below(3 * TICK * 10);
            network.run(wait);
            match network.lots.below(13) {
                0 | 1 => network.crash(n),
                2..=4 => all.iter().for_each(|n| network.start(*n)),
                5 => {
                    let other = 1 + network.lots.below(u64::from(size)) as u16;
                    network.cut.insert((n, other));
                }
                6 => network.cut = all.iter().flat_map(|other| [(n, *other), (*other, n)]).collect(),
                7 => network.cut.clear(),
                8 => network.loss = network.lots.below(30),
                9 => network.delay = 1 + network.lots.below(4 * TICK),
                10 => all.iter().for_each(|n| network.crash(*n)),
                11 if network.lots.percent(20) => drop(network.propose(n, Command::NoteData)),
                _ => drop(network.name(n)),
            }
        }
        network.heal_and_check();
        network
    }
}

/// As the engine's identity file: written once, by rename.
fn write_identity(vfs: &CrashVfs, directory: &Directory) {
    let Directory { cluster, node, disk, shards } = directory;
    let text = format!("{cluster:032x} {:032x} {disk:032x} {shards}", node.0);
    let dir = Path::new(DIR);
    let temporary = dir.join("identity.tmp");
    let _ = vfs.remove(&temporary);
    let file = vfs.open(&temporary, OpenMode::Create).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    file.sync_data().unwrap();
    vfs.rename(&temporary, &dir.join("identity")).unwrap();
    vfs.sync_dir(dir).unwrap();
}

pub fn read_identity(vfs: &CrashVfs) -> Option<Directory> {
    let file = vfs.open(&Path::new(DIR).join("identity"), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let mut words = text.split(' ');
    let mut hex = || u128::from_str_radix(words.next().unwrap(), 16).unwrap();
    let (cluster, node, disk) = (hex(), NodeId(hex()), hex());
    Some(Directory { cluster, node, disk, shards: words.next().unwrap().parse().unwrap() })
}

pub fn wipe_raft(vfs: &CrashVfs) {
    let dir = raft_dir(Path::new(DIR));
    for entry in vfs.list(&dir).unwrap() {
        vfs.remove(&dir.join(entry.name)).unwrap();
    }
    vfs.sync_dir(&dir).unwrap();
}

pub fn copy(vfs: &CrashVfs) -> CrashVfs {
    vfs.journal().crash(vfs.operations(), Survivors::Everything).vfs
}
