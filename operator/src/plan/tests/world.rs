//! A toy of everything around the operator: machines, claims, volumes, pods, and a database that knows only who holds which shard.
//!
//! It is cruder than the real ones, and harsher: it fails more often, answers older things, and checks at every step what must never happen.

use super::super::*;
use super::disks::{Disk, Network, Zombie};
use crate::api::{ClusterSpec, ClusterStatus, DeletePolicy};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds between two moments.
pub const TICK: Ms = 20_000;
const SHARDS: usize = 6;

/// A small generator, so that a seed is a history.
pub struct Dice(pub u64);

impl Dice {
    pub fn number(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

#[derive(Clone, Debug)]
pub struct Box_ {
    pub zone: String,
    pub object: bool,
    pub uid: String,
    pub machine: String,
    /// Processes run.
    pub power: bool,
    /// Its kubelet talks to the API server.
    pub kubelet: bool,
    /// Its processes reach others.
    pub network: bool,
    pub out_of_service: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Member {
    pub instance: String,
    pub state: NodeState,
    pub removing: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Db {
    pub id: String,
    pub epoch: u64,
    pub nodes: BTreeMap<String, Member>,
    pub gone: BTreeSet<String>,
    pub shards: Vec<Vec<Copy>>,
    /// By who is emptied: who is filled, and the number of the job.
    pub replacing: BTreeMap<String, (String, u64)>,
    /// Who must agree: as long as most of them do, others take the place of those that are away.
    pub voters: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: Ms,
    pub spec: ClusterSpec,
    /// Stands for the image and the configuration.
    pub version: u32,
    pub broken_version: bool,
    pub paused: bool,
    pub boxes: BTreeMap<String, Box_>,
    pub claims: BTreeMap<String, Claim>,
    pub disks: BTreeMap<String, Disk>,
    pub pods: BTreeMap<String, Pod>,
    pub zombies: Vec<Zombie>,
    /// Groups whose disks are of the network, and whether they are attached to one machine at a time.
    pub networks: BTreeMap<String, bool>,
    pub finalizer: bool,
    pub token: bool,
    pub status: ClusterStatus,
    pub db: Db,
    /// A readiness gate was open once: somebody may have written.
    pub let_in: bool,
    pub serial: u64,
    /// Pods of ours that work and that we have deleted, until they are ready again.
    pub disturbed: BTreeMap<String, String>,
    pub may_look: bool,
    pub expands: bool,
    /// Every step is printed.
    pub is_told: bool,
}

fn bytes_of(spec: &ClusterSpec, group: &str) -> u64 {
    bytes(&spec.storage_of(group).size).unwrap()
}

impl World {
    pub fn new(spec: ClusterSpec, machines_per_zone: usize) -> World {
        let mut world = World {
            now: 1_800_000_000_000,
            spec,
            version: 1,
            broken_version: false,
            paused: false,
            boxes: BTreeMap::new(),
            claims: BTreeMap::new(),
            disks: BTreeMap::new(),
            pods: BTreeMap::new(),
            zombies: Vec::new(),
            networks: BTreeMap::new(),
            finalizer: false,
            token: false,
            status: ClusterStatus::default(),
            db: Db::default(),
            let_in: false,
            serial: 0,
            disturbed: BTreeMap::new(),
            may_look: true,
            expands: false,
            is_told: std::env::var_os("SEED").is_some(),
        };
        for zone in ["a", "b", "c"] {
            for _ in 0..machines_per_zone {
                world.new_box(zone);
            }
        }
        world
    }

    /// Prints a step, if somebody looks at this history.
    pub fn tell(&self, what: impl std::fmt::Display) {
        if self.is_told {
            println!("{:>6} {what}", (self.now - 1_800_000_000_000) / 1000);
        }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}{}", self.serial)
    }

    pub fn new_box(&mut self, zone: &str) {
        let (uid, machine) = (self.fresh("uid"), self.fresh("machine"));
        let name = self.fresh(zone);
        self.boxes.insert(
            name,
            Box_ {
                zone: zone.into(),
                object: true,
                uid,
                machine,
                power: true,
                kubelet: true,
                network: true,
                out_of_service: false,
            },
        );
    }

    pub fn box_of(&self, instance: &str) -> Option<&Box_> {
        self.boxes.get(self.pods.get(instance)?.machine.as_deref()?)
    }

    /// The process of an instance runs in its pod, with its data.
    pub fn runs(&self, instance: &str) -> bool {
        let Some(pod) = self.pods.get(instance) else { return false };
        let (Some(on), Some(disk)) = (self.box_of(instance), self.disk_of(instance)) else { return false };
        on.power && pod.containers_ready && disk.is_usable_at(&on.machine)
    }

    pub fn hears(&self, node: &str) -> bool {
        let Some(member) = self.db.nodes.get(node) else { return false };
        self.disk_of(&member.instance).is_some_and(|disk| disk.data.as_deref() == Some(node))
            && self.writers(&member.instance).iter().any(|on| on.network)
    }

    /// Complete copies of a shard on disks that are there, whether they run or not.
    fn intact(&self, shard: usize, without: Option<&str>) -> usize {
        let complete = self.db.shards[shard].iter().filter(|copy| copy.state != CopyState::Initializing);
        complete
            .filter(|copy| Some(copy.node.as_str()) != without)
            .filter(|copy| self.is_intact(&copy.node))
            .count()
    }

    /// The disk of a member is there, with its data.
    pub fn is_intact(&self, node: &str) -> bool {
        let member = self.db.nodes.get(node);
        member.and_then(|member| self.disk_of(&member.instance)).is_some_and(|disk| {
            let there = self.boxes.get(&disk.machine).is_some_and(|on| on.machine == disk.machine_id);
            disk.object && (there || disk.network.is_some()) && disk.data.as_deref() == Some(node)
        })
    }

    /// Whether nothing that somebody wrote is lost for ever with the disks of this machine.
    pub fn may_destroy(&self, machine: &str) -> bool {
        let is_founded = self.claims.values().any(|claim| matches!(claim.contents, Contents::Of(_)));
        !is_founded || self.may_lose(machine)
    }

    /// Whether every shard keeps a majority of intact copies if the disks of this machine are lost.
    pub fn may_lose(&self, machine: &str) -> bool {
        let nodes: Vec<&String> = self
            .db
            .nodes
            .iter()
            .filter(|(_, member)| self.disk_of(&member.instance).is_some_and(|disk| disk.machine == machine))
            .map(|(id, _)| id)
            .collect();
        let left = self.db.voters.iter().filter(|id| !nodes.contains(id) && self.is_intact(id)).count();
        let all = self.db.voters.len();
        nodes.len() <= 1
            && (all == 0 || 2 * left > all)
            && (0..self.db.shards.len()).all(|shard| {
                self.intact(shard, nodes.first().map(|node| node.as_str()))
                    >= self.majority().min(self.full())
            })
    }

    fn full(&self) -> usize {
        usize::from(self.spec.replication_factor)
    }

    fn majority(&self) -> usize {
        self.full() / 2 + 1
    }

    pub fn has_leader(&self) -> bool {
        2 * self.db.voters.iter().filter(|node| self.hears(node)).count() > self.db.voters.len()
    }

    fn is_heard(&self) -> bool {
        self.db.nodes.keys().any(|node| self.hears(node))
    }

    fn choose_voters(&mut self) {
        let heard = |(id, member): &(&String, &Member)| {
            member.state != NodeState::Standby && self.hears(id) && self.is_intact(id)
        };
        let chosen: BTreeSet<String> =
            self.db.nodes.iter().filter(heard).take(5).map(|(id, _)| id.clone()).collect();
        if !chosen.is_empty() {
            self.db.voters = chosen;
        }
    }

    /// What the operator sees.
    pub fn observe(&self) -> Observed {
        let answers = self.is_heard();
        let machines = self.boxes.iter().filter(|(_, on)| on.object).map(|(name, on)| {
            let labels = [("zone", &on.zone), ("kubernetes.io/hostname", name)];
            let machine = Machine {
                uid: on.uid.clone(),
                machine: on.machine.clone(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.clone())).into(),
                ready: on.power && on.kubelet,
                out_of_service: on.out_of_service,
                cordoned: false,
                allocatable: BTreeMap::new(),
            };
            (name.clone(), machine)
        });
        let volumes = self.disks.iter().filter(|(_, disk)| disk.object).map(|(name, disk)| {
            let here = ("kubernetes.io/hostname".to_owned(), BTreeSet::from([disk.machine.clone()]));
            let exclusive = disk.network.as_ref().is_some_and(|network| network.exclusive);
            (
                name.clone(),
                Volume { failed: false, pinned: disk.network.is_none().then_some(here), exclusive },
            )
        });
        let groups = self.spec.groups.iter().map(|group| group.name.clone());
        Observed {
            now: self.now,
            name: "db".into(),
            generation: 1,
            deleting: false,
            has_finalizer: self.finalizer,
            paused: self.paused,
            spec: Some(self.spec.clone()),
            status: self.status.clone(),
            wanted: Wanted {
                hashes: groups.map(|group| (group, format!("v{}", self.version))).collect(),
                ..Wanted::default()
            },
            claims: self.claims.clone(),
            pods: self.seen_pods(),
            machines: self.may_look.then(|| machines.collect()),
            volumes: self.may_look.then(|| volumes.collect()),
            classes: Some([("local".to_owned(), Class { expands: self.expands, is_default: true })].into()),
            has_token: self.token,
            database: answers.then(|| self.seen_database()),
        }
    }

    fn seen_pods(&self) -> BTreeMap<String, Pod> {
        let see = |(name, pod): (&String, &Pod)| {
            let mut pod = pod.clone();
            let silent = self.box_of(name).is_some_and(|on| !on.power || !on.kubelet || !on.object);
            if silent {
                (pod.containers_ready, pod.ready) = (false, None);
            }
            // Those that are of no database are asked as long as nobody decides.
            if self.runs(name) && !(self.is_heard() && self.has_leader()) {
                pod.answer = Some(match self.disk_of(name).and_then(|disk| disk.data.as_ref()) {
                    Some(node) if !self.db.nodes.contains_key(node) => Answer::Belongs("another".into()),
                    Some(_) => Answer::Belongs(self.db.id.clone()),
                    // It has heard of one from others.
                    None if self.is_heard() => Answer::Belongs(self.db.id.clone()),
                    None => Answer::Waiting,
                });
            }
            (name.clone(), pod)
        };
        self.pods.iter().map(see).collect()
    }

    fn seen_database(&self) -> Database {
        let others = self.db.nodes.keys().filter(|node| self.hears(node)).count() as u32;
        let node = |(id, member): (&String, &Member)| {
            let heard = self.hears(id);
            let node = Node {
                instance: member.instance.clone(),
                state: member.state,
                health: if heard { Health::Up } else { Health::Down },
                heard_by: Some(if heard { (others - 1, others - 1) } else { (0, others) }),
                ..Node::default()
            };
            (id.clone(), node)
        };
        let removing = self.db.nodes.iter().filter(|(_, member)| member.removing);
        let remove = removing.zip(1..).map(|((id, _), number)| Job {
            id: number,
            kind: "remove".into(),
            leaving: Some(id.clone()),
            ..Job::default()
        });
        let replace = self.db.replacing.iter().map(|(old, (new, id))| Job {
            id: *id,
            kind: "replace".into(),
            leaving: Some(old.clone()),
            coming: Some(new.clone()),
            ..Job::default()
        });
        Database {
            cluster_id: self.db.id.clone(),
            epoch: self.db.epoch,
            has_leader: self.has_leader(),
            has_data: self.let_in,
            factor: self.full(),
            nodes: self.db.nodes.iter().map(node).collect(),
            gone: self.db.gone.clone(),
            shards: self.db.shards.clone(),
            jobs: remove.chain(replace).collect(),
            lease_is_ours: true,
        }
    }

    /// Everything but the operator goes on for a moment.
    pub fn tick(&mut self, dice: &mut Dice) {
        self.now += TICK;
        self.kubernetes(dice);
        self.database(dice);
    }

    fn kubernetes(&mut self, dice: &mut Dice) {
        // The pods of machines that are no more are collected; those of silent ones hang.
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            let pod = self.pods[&name].clone();
            let on = self.box_of(&name).cloned();
            match (&pod.machine, on) {
                (Some(_), None) => {
                    self.pods.remove(&name);
                }
                (Some(_), Some(on)) if !on.object || on.out_of_service => {
                    if dice.one_in(3) {
                        self.remove_pod(&name);
                    }
                }
                (Some(_), Some(on)) if on.power && on.kubelet => {
                    if pod.deleting {
                        self.pods.remove(&name);
                    } else {
                        self.run(&name, dice);
                    }
                }
                (Some(_), Some(_)) => {}
                (None, _) if pod.deleting => {
                    self.pods.remove(&name);
                }
                (None, _) => self.place(&name),
            }
        }
        self.bury();
        self.attachments();
        for on in self.boxes.values_mut() {
            // A machine that was set up anew, or comes back, registers itself.
            if !on.object && on.power && on.kubelet {
                on.object = true;
                self.serial += 1;
                on.uid = format!("uid{}", self.serial);
            }
        }
        let names: Vec<String> = self.claims.keys().cloned().collect();
        for name in names {
            let claim = self.claims.get_mut(&name).unwrap();
            // Kubernetes says so of a claim whose volume is no more.
            let volume = claim.volume.as_ref().and_then(|volume| self.disks.get(volume));
            if volume.is_some_and(|disk| !disk.object) {
                claim.phase = ClaimPhase::Lost;
            }
            let claim = &self.claims[&name];
            if claim.deleting && !self.pods.contains_key(&name) {
                if let Some(volume) = &claim.volume {
                    self.disks.remove(volume);
                }
                self.claims.remove(&name);
            }
        }
        let Self { disturbed, pods, .. } = self;
        disturbed.retain(|name, _| pods.get(name).is_none_or(|pod| pod.ready.is_none()));
        // What could not run anyway is not away because of us any more.
        let could_run = |name: &String| {
            let node = self.db.nodes.iter().find(|(_, member)| member.instance == *name).map(|(id, _)| id);
            let on = self.disk_of(name).and_then(|disk| self.boxes.get(&disk.machine));
            node.is_some_and(|node| self.is_intact(node))
                && on.is_some_and(|on| on.power && on.kubelet && on.network)
        };
        let gone: Vec<String> = self.disturbed.keys().filter(|name| !could_run(name)).cloned().collect();
        self.disturbed.retain(|name, _| !gone.contains(name));
    }

    fn place(&mut self, name: &str) {
        let Some(claim) = self.claims.get(name) else { return };
        let group = self.pods[name].group.clone();
        let taken: BTreeSet<String> = self.pods.values().filter_map(|pod| pod.machine.clone()).collect();
        let fits = |machine: &String, on: &Box_| {
            on.object
                && on.power
                && on.kubelet
                && !on.out_of_service
                && on.zone == group
                && !taken.contains(machine)
        };
        let on = match &claim.volume {
            Some(volume) => match self.disks.get(volume) {
                Some(disk) if disk.network.is_some() => {
                    self.boxes.iter().find(|(machine, on)| fits(machine, on))
                }
                Some(disk) => {
                    self.boxes.get_key_value(&disk.machine).filter(|(machine, on)| fits(machine, on))
                }
                None => None,
            },
            None => self.boxes.iter().find(|(machine, on)| {
                let is_here = |disk: &Disk| disk.network.is_none() && disk.machine == **machine;
                let used = self.disks.values().any(is_here);
                fits(machine, on) && !used
            }),
        };
        let Some((machine, id)) = on.map(|(machine, on)| (machine.clone(), on.machine.clone())) else {
            self.pods.get_mut(name).unwrap().unschedulable = Some("0 nodes are available".into());
            return;
        };
        if claim.volume.is_none() {
            let volume = format!("pv-{name}");
            let network =
                self.networks.get(&group).map(|exclusive| Network { exclusive: *exclusive, unused: None });
            let disk = Disk { machine: machine.clone(), machine_id: id, data: None, object: true, network };
            self.disks.insert(volume.clone(), disk);
            let claim = self.claims.get_mut(name).unwrap();
            (claim.volume, claim.phase, claim.capacity) = (Some(volume), ClaimPhase::Bound, claim.requested);
        }
        let pod = self.pods.get_mut(name).unwrap();
        (pod.machine, pod.unschedulable) = (Some(machine), None);
    }

    /// A kubelet at work on a pod.
    fn run(&mut self, name: &str, dice: &mut Dice) {
        let works = !(self.broken_version && self.pods[name].hash == format!("v{}", self.version));
        let machine_id = self.box_of(name).map(|on| on.machine.clone());
        let Some(volume) = self.claims.get(name).and_then(|claim| claim.volume.clone()) else { return };
        let member =
            self.db.nodes.iter().find(|(_, member)| member.instance == *name).map(|(id, _)| id.clone());
        let now = self.now;
        let gone = self.db.gone.contains(name);
        // Those who decide know that somebody was there before; nobody else does.
        let is_decided_in = self.is_heard() && self.has_leader();
        let Some(disk) = self.disks.get_mut(&volume) else { return };
        if disk.network.is_some() {
            // It has not been attached here yet.
            if machine_id.as_ref().is_none_or(|id| !disk.is_usable_at(id)) {
                return;
            }
        } else if Some(&disk.machine_id) != machine_id.as_ref() {
            // Another machine by the same name has an empty folder.
            disk.machine_id = machine_id.unwrap_or_default();
            disk.data = None;
        }
        let data = disk.data.clone();
        let pod = self.pods.get_mut(name).unwrap();
        let trouble = match (&data, &member) {
            _ if !works => Some(TroubleKind::Crash),
            _ if gone => Some(TroubleKind::Removed),
            (None, Some(_)) if is_decided_in => Some(TroubleKind::Wiped),
            (Some(data), Some(id)) if data != id => Some(TroubleKind::Foreign),
            _ => None,
        };
        if let Some(kind) = trouble {
            pod.trouble = Some(Trouble { kind, message: "it says so".into() });
            (pod.containers_ready, pod.ready) = (false, None);
            return;
        }
        pod.trouble = None;
        if !pod.containers_ready {
            pod.containers_ready = !dice.one_in(3);
        }
        if pod.containers_ready && pod.gate == Some(true) {
            pod.ready.get_or_insert(now);
        } else {
            pod.ready = None;
        }
        pod.ip = Some("10.0.0.1".into());
    }

    fn database(&mut self, dice: &mut Dice) {
        // Whoever runs with an empty disk joins.
        if self.has_leader() {
            let names: Vec<String> = self.pods.keys().cloned().collect();
            for name in names {
                let fresh = self.disk_of(&name).is_some_and(|disk| disk.data.is_none());
                let known = self.db.nodes.values().any(|member| member.instance == name)
                    || self.db.gone.contains(&name);
                let reached = self.box_of(&name).is_some_and(|on| on.network);
                if fresh && !known && reached && self.runs(&name) {
                    let id = self.fresh("node");
                    let volume = self.claims[&name].volume.clone().unwrap();
                    self.disks.get_mut(&volume).unwrap().data = Some(id.clone());
                    self.db.nodes.insert(id, Member { instance: name, ..Member::default() });
                }
            }
        }
        if !self.has_leader() {
            return;
        }
        self.choose_voters();
        let ids: Vec<String> = self.db.nodes.keys().cloned().collect();
        for id in &ids {
            if self.db.nodes[id].state == NodeState::Lost && self.hears(id) {
                self.db.nodes.get_mut(id).unwrap().state = NodeState::Up;
            }
        }
        self.moves(dice);
        for id in ids {
            let member = self.db.nodes[&id].clone();
            let holds = self.db.shards.iter().flatten().any(|copy| copy.node == id);
            let replaced = self.db.replacing.contains_key(&id);
            if member.state == NodeState::Draining && !holds && (member.removing || replaced) {
                self.forget(&id);
            }
        }
    }

    /// Copies come and go until every shard has its copies on nodes that are up, in groups of their own.
    fn moves(&mut self, dice: &mut Dice) {
        for shard in 0..self.db.shards.len() {
            let copies = self.db.shards[shard].clone();
            let live = |copy: &&Copy| copy.state != CopyState::Initializing && self.hears(&copy.node);
            let complete = copies.iter().filter(|copy| copy.state != CopyState::Initializing).count();
            let enough = copies.iter().filter(live).count() >= self.majority().min(complete);
            let up = |node: &str| self.db.nodes.get(node).is_some_and(|member| member.state == NodeState::Up);
            let group = |node: &str| group_of("db", &self.db.nodes[node].instance).to_owned();
            // New copies get what they lack.
            let coming = copies.iter().position(|copy| copy.state == CopyState::Initializing);
            if let Some(coming) = coming {
                if !up(&copies[coming].node) {
                    self.db.shards[shard].remove(coming);
                    self.db.epoch += 1;
                } else if enough && self.hears(&copies[coming].node) && dice.one_in(2) {
                    self.db.shards[shard][coming].state = CopyState::Available;
                    self.db.epoch += 1;
                }
                continue;
            }
            // Surplus goes.
            let placed: Vec<&Copy> = copies.iter().filter(|copy| up(&copy.node)).collect();
            let domains: BTreeSet<String> = placed.iter().map(|copy| group(&copy.node)).collect();
            // Of two in a group the one that does not answer; never one that is needed.
            let is_surplus = |copy: &Copy| {
                let twice = placed
                    .iter()
                    .filter(|other| up(&copy.node) && group(&other.node) == group(&copy.node))
                    .count()
                    > 1;
                let rest =
                    copies.iter().filter(|other| other.node != copy.node && self.hears(&other.node)).count();
                (!up(&copy.node) || (twice && domains.len() >= self.full())) && rest >= self.majority()
            };
            let surplus = (0..copies.len())
                .filter(|n| is_surplus(&copies[*n]))
                .min_by_key(|n| self.hears(&copies[*n].node));
            if domains.len() >= self.full() && placed.len() >= self.full() {
                if let Some(surplus) = surplus.filter(|_| copies.len() > self.full()) {
                    self.db.shards[shard].remove(surplus);
                    self.db.epoch += 1;
                }
                continue;
            }
            // What is missing is made: in a group of its own if one is there.
            let load = |node: &str| self.db.shards.iter().flatten().filter(|copy| copy.node == node).count();
            let free = |node: &&String| {
                up(node) && self.hears(node) && !copies.iter().any(|copy| copy.node == **node)
            };
            let all_domains: BTreeSet<String> =
                self.db.nodes.keys().filter(|node| up(node)).map(|node| group(node)).collect();
            let candidates: Vec<&String> = self
                .db
                .nodes
                .keys()
                .filter(free)
                .filter(|node| {
                    !domains.contains(&group(node))
                        || (all_domains.len() < self.full() && placed.len() < self.full())
                })
                .collect();
            let replaced =
                copies.iter().filter_map(|copy| self.db.replacing.get(&copy.node)).map(|(new, _)| new).next();
            let best = replaced
                .filter(|node| candidates.contains(node))
                .or(candidates.into_iter().min_by_key(|node| load(node)));
            if let Some(best) = best.cloned() {
                self.db.shards[shard].push(Copy { node: best, state: CopyState::Initializing });
                self.db.epoch += 1;
            }
        }
    }

    fn forget(&mut self, id: &str) {
        let member = self.db.nodes.remove(id).expect("a member");
        self.db.gone.insert(member.instance);
        self.db.voters.remove(id);
        self.db.replacing.remove(id);
        for copies in &mut self.db.shards {
            copies.retain(|copy| copy.node != id);
        }
        self.db.epoch += 1;
    }

    /// Live and complete copies of each shard that a node has, without it.
    fn others_hold(&self, without: &str) -> bool {
        self.db.shards.iter().filter(|copies| copies.iter().any(|copy| copy.node == without)).all(|copies| {
            let live = copies.iter().filter(|copy| {
                copy.node != without && copy.state != CopyState::Initializing && self.hears(&copy.node)
            });
            live.count() >= self.majority()
        })
    }

    /// Does what was decided, if what it was decided on is still so, and checks that it is allowed.
    pub fn act(&mut self, action: &Action) {
        self.tell(action);
        match action {
            Action::AddFinalizer => self.finalizer = true,
            Action::RemoveFinalizer => self.finalizer = false,
            Action::CreateToken => self.token = true,
            Action::Apply(_) | Action::DeleteShared(_) => {}
            Action::CreateClaim { instance, group, replaces } => {
                assert!(!self.db.gone.contains(instance), "the name {instance} was used before");
                let uid = self.fresh("claim");
                let now = self.now;
                let requested = bytes_of(&self.spec, group);
                if let Some((old, why)) = replaces {
                    assert!(
                        !self.is_of_machine(old, why),
                        "{old} is replaced ({why}), and its disk is no machine's"
                    );
                }
                self.claims.entry(instance.clone()).or_insert_with(|| Claim {
                    uid,
                    group: group.clone(),
                    requested,
                    class: Some("local".into()),
                    contents: Contents::Nothing,
                    replaces: replaces.clone().map(|(old, why)| Replaces { old, why, since: now }),
                    ..Claim::default()
                });
            }
            Action::Note { instance, uid, note } => {
                let now = self.now;
                let Some(claim) = self.claims.get_mut(instance).filter(|claim| claim.uid == *uid) else {
                    return;
                };
                match note {
                    Note::Suspect(why) => claim.suspect = Some(Suspect { since: now, why: why.clone() }),
                    Note::Clear => claim.suspect = None,
                    Note::Leave(why) => claim.leaving = Some(*why),
                    Note::Retire => claim.retired = Some(now),
                    Note::Settle => claim.replaces = None,
                    Note::Create => claim.creates = true,
                    Note::Facts(facts) => {
                        claim.node_id = facts.node_id.clone().or(claim.node_id.take());
                        if let Some(id) = &facts.cluster_id {
                            claim.contents = Contents::Of(id.clone());
                        }
                        claim.host = facts.host.clone().or(claim.host.take());
                    }
                }
            }
            Action::ExpandClaim { instance, uid } => {
                let wanted = self.claims.get(instance).map(|claim| bytes_of(&self.spec, &claim.group));
                let Some(claim) = self.claims.get_mut(instance).filter(|claim| claim.uid == *uid) else {
                    return;
                };
                (claim.requested, claim.capacity) = (wanted.unwrap(), wanted.unwrap());
            }
            Action::DeleteClaim { instance, uid, .. } => {
                let Some(claim) = self.claims.get(instance).filter(|claim| claim.uid == *uid) else { return };
                let is_member = self.db.nodes.values().any(|member| member.instance == *instance);
                let gone = self.db.gone.contains(instance);
                let never = claim.contents == Contents::Nothing && (!is_member || !self.let_in);
                assert!(
                    gone || never,
                    "the claim of {instance} is deleted, and the placement has not let it go"
                );
                if claim.leaving == Some(Leaving::ScaleIn) {
                    assert_eq!(
                        self.spec.storage.delete_policy,
                        DeletePolicy::Delete,
                        "{instance} was to be kept"
                    );
                }
                self.claims.get_mut(instance).unwrap().deleting = true;
            }
            Action::CreatePod { instance, group } => {
                let uid = self.fresh("pod");
                let (hash, created) = (format!("v{}", self.version), self.now);
                let pod = Pod { uid, group: group.clone(), hash, created, ..Pod::default() };
                self.pods.entry(instance.clone()).or_insert(pod);
            }
            Action::DeletePod { instance, uid, force, .. } => self.delete_pod(instance, uid, *force),
            Action::SetGate { instance, uid, open } => {
                let Some(pod) = self.pods.get_mut(instance).filter(|pod| pod.uid == *uid) else { return };
                pod.gate = Some(*open);
                self.let_in |= *open;
            }
            Action::Ask(request) => self.ask(request),
        }
    }

    fn delete_pod(&mut self, instance: &str, uid: &str, force: bool) {
        let Some(pod) = self.pods.get(instance).filter(|pod| pod.uid == *uid).cloned() else { return };
        let node =
            self.db.nodes.iter().find(|(_, member)| member.instance == *instance).map(|(id, _)| id.clone());
        if let Some(node) = node.filter(|node| self.let_in && self.hears(node) && !pod.deleting) {
            assert!(
                self.others_hold(&node) || self.db.shards.is_empty(),
                "{instance} was needed: {:?}",
                self.db
            );
            let holds = self.db.shards.iter().flatten().any(|copy| copy.node == node);
            if holds {
                let other = self.disturbed.iter().find(|(_, group)| **group != pod.group);
                assert!(other.is_none(), "{instance} is disturbed while {other:?} is");
                self.disturbed.insert(instance.into(), pod.group.clone());
            }
            assert!(!force, "{instance} is deleted by force and its node is a member that answers");
        }
        if force {
            let disk = self.disk_of(instance).filter(|_| !self.db.gone.contains(instance));
            if let Some(network) = disk.and_then(|disk| disk.network.as_ref()) {
                // Who goes without ever having been a member is not run again.
                let is_member = self.db.nodes.values().any(|member| member.instance == *instance);
                let goes = match self.claims[instance].leaving {
                    Some(Leaving::Abandoned) => true,
                    Some(Leaving::ScaleIn) => !is_member,
                    None => false,
                };
                assert!(network.exclusive || goes, "{instance} is freed and could be run twice");
            }
            let member = self.db.nodes.iter().find(|(_, member)| member.instance == *instance);
            if let Some((id, _)) = member.filter(|_| self.let_in) {
                assert!(self.others_hold(id), "{instance} is freed and is needed: {:?}", self.db);
            }
            self.remove_pod(instance);
        } else {
            self.pods.get_mut(instance).unwrap().deleting = true;
        }
    }

    fn ask(&mut self, request: &Request) {
        match request {
            Request::Create { instance } => {
                if !self.runs(instance) || self.disk_of(instance).is_some_and(|disk| disk.data.is_some()) {
                    return;
                }
                // One that nobody was let write to may be begun anew, when nothing is left of it that could come back.
                assert!(!self.let_in, "a second cluster is created");
                let left = self.claims.keys().find(|name| {
                    let claim = &self.claims[*name];
                    let stays = claim.leaving.is_none() && claim.retired.is_none();
                    let has_data = self.disk_of(name).is_some_and(|disk| disk.object && disk.data.is_some());
                    has_data && (stays || self.runs(name))
                });
                assert_eq!(
                    left, None,
                    "a second cluster is created, and that one is of the first: {:?}",
                    self.db
                );
                self.db = Db { id: self.fresh("cluster"), ..Db::default() };
                let id = self.fresh("node");
                let volume = self.claims[instance].volume.clone().unwrap();
                self.disks.get_mut(&volume).unwrap().data = Some(id.clone());
                let copies = vec![Copy { node: id.clone(), state: CopyState::Available }];
                self.db.shards = vec![copies; SHARDS];
                self.db.voters.insert(id.clone());
                self.db
                    .nodes
                    .insert(id, Member { instance: instance.clone(), state: NodeState::Up, removing: false });
            }
            _ if !self.has_leader() => {}
            Request::Add { node } => {
                let waits = |member: &&mut Member| {
                    matches!(member.state, NodeState::Standby | NodeState::Draining) && !member.removing
                };
                if let Some(member) = self.db.nodes.get_mut(node).filter(waits) {
                    member.state = NodeState::Up;
                    self.db.epoch += 1;
                }
            }
            Request::Replace { old, new, lost, epoch } => {
                if *epoch != self.db.epoch
                    || !self.db.nodes.contains_key(old)
                    || !self.db.nodes.contains_key(new)
                {
                    return;
                }
                assert_ne!(self.db.nodes[old].state, NodeState::Standby, "nothing is to be replaced");
                assert!(!*lost || self.others_hold(old), "{old} is needed: {:?}", self.db);
                assert!(
                    !*lost || !self.is_needlessly_lost(old),
                    "{old} is called lost, and its disk is no machine's"
                );
                self.db.nodes.get_mut(new).unwrap().state = NodeState::Up;
                if *lost {
                    assert!(!self.hears(old), "{old} answers and is called lost");
                    self.forget(old);
                } else {
                    self.db.nodes.get_mut(old).unwrap().state = NodeState::Draining;
                    self.serial += 1;
                    self.db.replacing.insert(old.clone(), (new.clone(), self.serial));
                }
                self.db.epoch += 1;
            }
            Request::Remove { node, lost, epoch } => {
                let Some(member) = self.db.nodes.get(node).cloned() else { return };
                if *epoch != self.db.epoch {
                    return;
                }
                if member.state == NodeState::Standby {
                    self.forget(node);
                } else if *lost {
                    assert!(!self.hears(node), "{node} answers and is called lost");
                    assert!(self.others_hold(node), "{node} is needed");
                    assert!(
                        !self.is_needlessly_lost(node),
                        "{node} is called lost, and its disk is no machine's"
                    );
                    self.forget(node);
                } else {
                    let member = self.db.nodes.get_mut(node).unwrap();
                    (member.state, member.removing) = (NodeState::Draining, true);
                    self.db.epoch += 1;
                }
            }
            Request::Cancel { job } => {
                let found = self.db.replacing.iter().find(|(_, (_, id))| id == job);
                if let Some((old, new)) = found.map(|(old, (new, _))| (old.clone(), new.clone())) {
                    self.db.replacing.remove(&old);
                    self.db.epoch += 1;
                    for (node, state) in [(old, NodeState::Up), (new, NodeState::Draining)] {
                        if let Some(member) = self.db.nodes.get_mut(&node) {
                            member.state = state;
                        }
                    }
                }
            }
            Request::Heal { node, epoch } => {
                if *epoch != self.db.epoch
                    && !self.db.nodes.values().any(|member| member.state == NodeState::Lost)
                {
                    return;
                }
                assert!(!self.hears(node), "{node} answers and is called lost");
                if let Some(member) = self.db.nodes.get_mut(node) {
                    member.state = NodeState::Lost;
                    self.db.epoch += 1;
                }
            }
        }
    }

    /// Everything is as it should be; why not, otherwise.
    pub fn is_well(&self) -> Result<(), String> {
        for group in &self.spec.groups {
            let there: Vec<&String> = self
                .claims
                .iter()
                .filter(|(_, claim)| {
                    claim.group == group.name && claim.leaving.is_none() && claim.retired.is_none()
                })
                .map(|(name, _)| name)
                .collect();
            if there.len() != group.nodes as usize {
                return Err(format!("group {} has {there:?}, {} are wanted", group.name, group.nodes));
            }
            for name in there {
                let pod = self.pods.get(name);
                if pod.is_none_or(|pod| pod.ready.is_none() || pod.hash != format!("v{}", self.version)) {
                    return Err(format!("{name}: {pod:?}"));
                }
                let claim = &self.claims[name];
                if claim.replaces.is_some()
                    || claim.suspect.is_some()
                    || claim.capacity < bytes_of(&self.spec, &group.name)
                {
                    return Err(format!("{name}: {claim:?}"));
                }
            }
        }
        for (shard, copies) in self.db.shards.iter().enumerate() {
            let live = copies
                .iter()
                .filter(|copy| copy.state == CopyState::Available && self.hears(&copy.node))
                .count();
            if live != self.full() || copies.len() != self.full() {
                return Err(format!("shard {shard} has {copies:?}"));
            }
        }
        match self.db.shards.is_empty() {
            true => Err("there is no database".into()),
            false => Ok(()),
        }
    }
}
