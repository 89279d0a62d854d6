//! The state machine.

use super::autopilot::Autopilot;
use super::event::*;
use super::file::{Directory, NodeFile, Phase};
use super::health::{Beat, Copies, Sighting, Tidings, Watch};
use super::jobs::Watching;
use super::message::{Answer, Call};
use super::proposal::{Owner, Proposal, Purpose, Waiting};
use super::search::Search;
use super::start::{How, Start};
use crate::bootstrap::CopyProgress;
use crate::faults::{Mistake, planted};
use crate::jobs::Outlook;
use crate::placement::{Domain, NodeId, NodeState, Phase as MovePhase};
use crate::raft::{self, Durable, Member, Membership};
use crate::state::{Cluster, Command, Fault, Gone, Outcome, Profile, Refusal, Request, State};
use crate::stop::{Reason, Stop};
use crate::view::{Departed, Health, Peer, View};
use model::Shard;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Requests of others, and own ones, that wait for agreement at a time.
const WAITING_MAX: usize = 1024;
/// Between two tries to find out who somebody unknown is.
const MEET_MS: u64 = 5_000;

/// What a process knows of itself.
#[derive(Clone, Debug)]
pub struct Me {
    /// `host:port` where other nodes reach it.
    pub address: String,
    /// `host:port` of its HTTP API.
    pub http_address: String,
    /// Where it stands.
    pub zone: Domain,
    /// Its share of the data relative to others.
    pub capacity: u32,
    /// Joins without taking copies, until somebody says that it shall.
    pub standby: bool,
    /// 128 random bits, drawn by this process.
    pub boot: u128,
}

/// What a new cluster is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// Number of shards; of a directory that has an identity, its number.
    pub shards: u32,
    /// Copies of each.
    pub replication_factor: u8,
}

/// One node's control plane.
pub struct Controller {
    pub(super) options: Options,
    pub(super) file: NodeFile,
    pub(super) profile: Profile,
    /// What a cluster that is made here is like.
    make: Make,
    /// The addresses of `--join` that are not this node's.
    pub(super) join: Vec<String>,
    pub(super) search: Search,
    pub(super) state: Option<State>,
    pub(super) member: Option<Member>,
    /// What a node that joins found in its log.
    log: Option<Durable>,
    pub(super) watch: Watch,
    pub(super) autopilot: Autopilot,
    pub(super) watching: Watching,
    /// Starts of others that they have not registered yet: since when they are known of, and their numbers.
    pub(super) unregistered: BTreeMap<NodeId, (u64, u64, u128)>,
    pub(super) report: NodeReport,
    /// The copies that this node makes.
    pub(super) copies: Copies,
    pub(super) proposals: BTreeMap<u64, Proposal>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Calls under way: what for, and until when.
    pub(super) calls: BTreeMap<u64, (Purpose, u64)>,
    pub(super) count: u64,
    pub(super) now_ms: u64,
    /// What the clock on the wall showed last.
    pub(super) wall_ms: u64,
    next_beat_ms: u64,
    /// Addresses of `--join` that have not said yet to which cluster they belong.
    probes: Vec<String>,
    next_probe_ms: u64,
    next_meeting_ms: u64,
    view: Option<Arc<View>>,
    stale: bool,
    /// The place in the order that the view shows.
    shown: u64,
    said: String,
    pub(super) out: Vec<Effect>,
    /// It is about to stop: others are to lead, and to be asked first.
    leaving: bool,
    stopped: bool,
}

impl Controller {
    /// Begins as [`super::decide`] said; its file is written already. `log` is what [`raft::Store::open`] gave.
    ///
    /// # Errors
    /// When there cannot be such a cluster or node; the message says what to do.
    pub fn new(
        start: Start,
        me: Me,
        make: Make,
        log: Durable,
        options: Options,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Controller, Stop> {
        let Start { file, how, join } = start;
        let Me { address, http_address, zone, capacity, standby, boot } = me;
        let boot = boot.max(1);
        let profile = Profile { address, http_address, zone, capacity, standby, starts: file.starts, boot };
        let mut options = options;
        options.raft.seed = boot as u64;
        let mut controller = Controller {
            options,
            file,
            profile,
            make,
            join,
            search: Search::default(),
            state: None,
            member: None,
            log: None,
            watch: Watch::default(),
            autopilot: Autopilot::default(),
            watching: Watching::default(),
            unregistered: BTreeMap::new(),
            report: NodeReport::default(),
            copies: Copies::default(),
            proposals: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            count: 0,
            now_ms,
            wall_ms: 0,
            next_beat_ms: now_ms,
            probes: Vec::new(),
            next_probe_ms: now_ms,
            next_meeting_ms: now_ms,
            view: None,
            stale: true,
            shown: 0,
            said: String::new(),
            out: Vec::new(),
            leaving: false,
            stopped: false,
        };
        match how {
            How::Create => controller.create(file)?,
            How::Join => {
                controller.log = Some(log);
                // Without a cluster it is looked for first.
                if !file.waits() {
                    controller.propose_join();
                }
            }
            How::Open => {
                let (member, effects) = Member::open(log, options.raft).ok_or_else(|| {
                    Stop::other("BUG: a Raft log with a state cannot be opened without one")
                })?;
                controller.member = Some(member);
                controller.perform(effects);
                if controller.state.is_none() && !controller.stopped {
                    return Err(Stop::new(
                        Reason::Wiped,
                        "the Raft log in cluster/raft holds no state; put the data directory back as it was",
                    ));
                }
                // The crash may have come before this was written.
                controller.remember_member();
                controller.probes = controller.join.clone();
                controller.propose_start();
            }
        }
        controller.settle();
        out.append(&mut controller.out);
        Ok(controller)
    }

    /// Makes a cluster, as `file` says; it is remembered first if it is not yet.
    fn create(&mut self, file: NodeFile) -> Result<(), Refusal> {
        let Make { shards, replication_factor } = self.make;
        let cluster = Cluster { id: file.cluster, shards };
        let has_data = file.phase == Phase::Adopting;
        let own = (file.disk, file.incarnation);
        let state =
            State::create(cluster, replication_factor, file.node, own, self.profile.clone(), has_data)?;
        if self.file != file {
            self.file = file;
            self.out.push(Effect::Remember(file));
        }
        self.joined(&state);
        let identity = raft::Identity { member: 1, ..self.file.identity() };
        let (member, effects) = Member::create(identity, state.encode(), self.options.raft);
        self.member = Some(member);
        self.perform(effects);
        Ok(())
    }

    /// Somebody has decided that this is the first node of a cluster. Only a node that waits can be: whoever has named itself to a cluster may be a
    /// member of that one.
    fn create_when_asked(&mut self, token: u64, cluster: u128) {
        let own = self.file.cluster;
        let result = if self.state.is_some() {
            let text = format!("this node is a member of cluster {own:032x} already");
            Err(Refusal::new(Fault::Conflict, text))
        } else if !self.file.waits() {
            let text = format!(
                "this node is joining cluster {own:032x} and may be a member of it already; wait until it is, or start it with an empty data directory"
            );
            Err(Refusal::new(Fault::Conflict, text))
        } else {
            self.log = None;
            self.create(NodeFile { phase: Phase::Creating, cluster, ..self.file }).map(|()| Outcome::Done)
        };
        self.out.push(Effect::Done { token, result: result.map_err(ControlError::Refused) });
    }

    /// Takes what happened, and appends to `out` what has to be done about it. `now_ms` never goes back.
    pub fn step(&mut self, now_ms: u64, event: Event, out: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        self.now_ms = self.now_ms.max(now_ms);
        match event {
            Event::Tick => self.tick(),
            Event::Message { from, bytes } => self.receive(from, &bytes),
            Event::Persisted(sequence) => {
                self.with_member(|member| member.persisted(sequence));
                self.remember_member();
            }
            Event::Request { from, id, body } => self.requested(from, id, &body),
            Event::Reply { id, body } => self.replied(id, &body),
            Event::Failed { id, why } => self.failed(id, why),
            Event::Local { token, command } => self.propose_local(token, command),
            Event::Create { token, cluster } => self.create_when_asked(token, cluster),
            Event::Read { token } => self.read(token),
            Event::Report(report) => self.report = report,
            Event::Clock(wall_ms) => self.wall_ms = wall_ms,
            Event::Copied(complete) => self.copies.complete = complete,
            Event::Copying(progress) => self.copies.progress = progress,
            Event::Leave => {
                self.leaving = true;
                self.next_beat_ms = self.now_ms;
            }
            Event::Seen(node) => self.watch.seen(self.now_ms, node),
            Event::Unwelcome(why) => self.stop(why),
            Event::Lost(node) => self.watch.lost(self.now_ms, node),
            Event::Started { node, starts, boot } => {
                self.unregistered.insert(node, (self.now_ms, starts, boot));
            }
        }
        self.settle();
        out.append(&mut self.out);
    }

    /// What is agreed on, as far as this node knows. `None` while it joins.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The last [`Effect::View`].
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.member.as_ref().is_some_and(Member::leads)
    }

    /// The Raft term, and the leader if one is known.
    pub fn leader(&self) -> (u64, Option<NodeId>) {
        let Some(member) = &self.member else { return (0, None) };
        let (term, leader) = member.leader();
        (term, leader.and_then(|leader| self.state.as_ref()?.node_of_member(leader)))
    }

    /// Who votes and who follows, by their numbers as members.
    pub fn membership(&self) -> Membership {
        self.member.as_ref().map(Member::membership).unwrap_or_default()
    }

    /// Who this node is.
    pub fn me(&self) -> NodeId {
        self.file.node
    }

    /// How the nodes are, as the leader or this node sees it.
    pub fn health(&self) -> Vec<(NodeId, Sighting)> {
        let leads = self.leads();
        let told = |id: NodeId| self.watch.told_of(id).copied().unwrap_or_default();
        let sighting = |id: &NodeId| match leads {
            _ if *id == self.file.node => {
                let heard = if leads { self.watch.heard_of(*id) } else { told(*id).heard };
                Sighting { health: Health::Up, age_ms: 0, beat: self.beat(), heard }
            }
            true => self.watch.sighting(self.now_ms, *id, &self.options),
            false => {
                let told = told(*id);
                Sighting { health: self.watch.health(self.now_ms, *id, false, &self.options), ..told }
            }
        };
        let nodes = self.state.iter().flat_map(State::nodes);
        nodes.filter(|(_, node)| node.state != NodeState::Gone).map(|(id, _)| (*id, sighting(id))).collect()
    }

    /// How far the copies are of shards that move, as far as the nodes that make them have said. Only the leader is told.
    pub fn copies(&self) -> BTreeMap<Shard, CopyStatus> {
        let placement = self.state.as_ref().filter(|_| self.leads()).map(State::placement);
        let of = |shard: Shard| {
            let MovePhase::Copying(node) = placement?.phase(shard) else { return None };
            let copy = match node == self.file.node {
                true => self.copies.progress.iter().find(|copy| copy.shard == shard).copied(),
                false => self.watch.copy_of(node, shard),
            };
            let CopyProgress { bytes_done, bytes_total, .. } = copy?;
            Some((shard, CopyStatus { node, bytes_done, bytes_total }))
        };
        placement.into_iter().flat_map(|placement| placement.moving()).filter_map(of).collect()
    }

    fn beat(&self) -> Beat {
        let state = self.state.as_ref();
        Beat {
            starts: self.profile.starts,
            boot: self.profile.boot,
            applied: state.map_or(0, State::applied),
            epoch: self.accepted(),
            leaving: self.leaving,
            report: self.report,
        }
    }

    fn tidings(&self) -> Tidings {
        Tidings { copies: self.copies.clone(), sees: self.watch.sees(self.now_ms, &self.options) }
    }

    /// The placement under which this node works, and behind which it never goes back.
    pub(super) fn accepted(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.epoch())
    }

    fn tick(&mut self) {
        self.with_member(Member::tick);
        self.expire_calls();
        let own = self.state.as_ref().and_then(|state| state.nodes().get(&self.file.node));
        if self.leaving || own.is_some_and(|own| own.state == NodeState::Draining) {
            self.hand_over();
        }
        if self.now_ms >= self.next_beat_ms {
            self.next_beat_ms = self.now_ms + self.options.heartbeat_ms;
            self.send_beat();
        }
        if self.now_ms >= self.next_probe_ms && !self.probes.is_empty() {
            self.next_probe_ms = self.now_ms + self.options.retry_ms;
            let address = self.probes.remove(0);
            let body = Call::Heartbeat(self.beat(), self.tidings()).encode(self.file.cluster);
            self.call(Target::Address(address.clone()), body, Purpose::Probe(address));
        }
        self.drive_autopilot();
    }

    /// Somebody else leads, if anybody can.
    fn hand_over(&mut self) {
        let (Some(member), Some(state)) = (&self.member, &self.state) else { return };
        if !member.leads() {
            return;
        }
        let voters = member.membership().voters;
        let fit = |(id, node): &(&NodeId, &crate::state::Node)| {
            **id != self.file.node
                && node.state == NodeState::Up
                && voters.contains(&node.member)
                && member.is_caught_up(node.member)
                && self.watch.sighting(self.now_ms, **id, &self.options).health == Health::Up
        };
        if let Some((_, node)) = state.nodes().iter().find(fit) {
            let to = node.member;
            self.with_member(|member| member.hand_over(to));
        }
    }

    fn send_beat(&mut self) {
        let (_, leader) = self.leader();
        match leader {
            Some(leader) if leader == self.file.node => {
                let nodes = self.state.iter().flat_map(|state| state.nodes().iter());
                let there = nodes.filter(|(_, node)| node.state != NodeState::Gone).map(|(id, _)| *id);
                self.watch.count(self.now_ms, self.file.node, &there.collect::<Vec<_>>(), &self.options);
                self.look_ahead();
                self.tell_health();
            }
            Some(leader) if self.calls.values().all(|(purpose, _)| *purpose != Purpose::Heartbeat) => {
                let body = Call::Heartbeat(self.beat(), self.tidings()).encode(self.file.cluster);
                self.call(Target::Node(leader), body, Purpose::Heartbeat);
            }
            _ => {}
        }
    }

    fn tell_health(&mut self) {
        let table = Arc::new(self.health());
        self.out.push(Effect::Health(table));
        self.out.push(Effect::Outlook(self.watching.outlook.clone()));
    }

    fn receive(&mut self, from: NodeId, bytes: &[u8]) {
        self.watch.seen(self.now_ms, from);
        let (Some(member), Some(state)) = (&mut self.member, &self.state) else { return };
        // Whoever is not known yet sends again; what it says is not lost.
        let Some(node) = state.nodes().get(&from) else { return self.meet() };
        match member.receive(node.member, bytes) {
            Ok(effects) => self.perform(effects),
            Err(why) => self.refuse(Some(from), why.to_string()),
        }
    }

    /// Somebody unknown speaks: it joined while this node was away. It may lead, and then nothing can be learned from the log before it is
    /// known who it is: whoever answers that this node has started tells the state, too.
    fn meet(&mut self) {
        let asks = self.proposals.values().any(|proposal| proposal.owner == Owner::Register);
        if !asks && self.now_ms >= self.next_meeting_ms {
            self.next_meeting_ms = self.now_ms + MEET_MS;
            self.propose_start();
        }
    }

    /// What is agreed on, as a leader told it: what comes later by the log is taken from where that is newer.
    pub(super) fn learn(&mut self, bytes: &[u8]) {
        let Ok(told) = State::decode(bytes) else { return };
        let is_news = |own: &State| own.cluster() == told.cluster() && own.applied() < told.applied();
        if self.state.as_ref().is_some_and(is_news) {
            self.state = Some(told);
            self.stale = true;
        }
    }

    pub(super) fn refuse(&mut self, from: Option<NodeId>, why: String) {
        self.out.push(Effect::Refused { from, why });
    }

    fn requested(&mut self, from: Option<NodeId>, id: u64, body: &[u8]) {
        from.inspect(|from| self.watch.seen(self.now_ms, *from));
        let (cluster, call) = match Call::decode(body) {
            Ok(call) => call,
            Err(why) => return self.refuse(from, why.to_string()),
        };
        let own = self.file.cluster;
        if cluster != 0 && own != 0 && cluster != own {
            return self.respond(id, Answer::Foreign(own));
        }
        let speaks_for = match &call {
            Call::Propose(Request { command: Command::AddNode { id, .. }, .. }) => Some(*id),
            Call::Propose(Request { command: Command::RegisterStart { node, .. }, .. }) => Some(*node),
            _ => None,
        };
        if let (Some(from), Some(other)) = (from, speaks_for)
            && from != other
        {
            return self.refuse(Some(from), format!("it speaks for node {other}, which it is not"));
        }
        if call == Call::Whose && self.state.is_some() {
            return self.respond(id, Answer::Cluster(own));
        }
        if !self.leads() {
            return self.respond(id, Answer::NotLeader(self.leader_address()));
        }
        match call {
            Call::Whose => self.respond(id, Answer::NotLeader(None)),
            Call::Heartbeat(beat, tidings) => self.heard(from, id, beat, tidings),
            Call::Propose(_) if self.waiting.len() >= WAITING_MAX => self.respond(id, Answer::Busy),
            Call::Propose(request) => {
                let joins =
                    matches!(request.command, Command::AddNode { .. } | Command::RegisterStart { .. });
                self.count += 1;
                let token = self.count;
                self.waiting.insert(token, Waiting::Request { id, joins });
                self.with_member(|member| member.propose(request.encode(), token));
            }
        }
    }

    fn heard(&mut self, from: Option<NodeId>, id: u64, beat: Beat, tidings: Tidings) {
        let node = from.and_then(|from| Some((from, self.state.as_ref()?.nodes().get(&from)?)));
        // Only a probe.
        let Some((from, node)) = node else {
            return self.respond(id, Answer::Health(Vec::new(), Outlook::default()));
        };
        let known = &node.profile;
        let stop = if node.state == NodeState::Gone {
            Some(removed(from))
        } else if beat.starts < known.starts || (beat.starts == known.starts && beat.boot != known.boot) {
            Some(replaced(from, beat.starts, known.starts))
        } else {
            None
        };
        match stop {
            Some(refusal) => self.respond(id, Answer::Stop(refusal)),
            None => {
                self.watch.beat(self.now_ms, from, beat, tidings);
                let table = self.health();
                let outlook = Outlook::clone(&self.watching.outlook);
                self.respond(id, Answer::Health(table, outlook));
            }
        }
    }

    pub(super) fn respond(&mut self, id: u64, answer: Answer) {
        self.out.push(Effect::Respond { id, body: answer.encode() });
    }

    fn leader_address(&self) -> Option<(NodeId, String)> {
        let leader = self.leader().1?;
        let node = self.state.as_ref()?.nodes().get(&leader)?;
        (leader != self.file.node).then(|| (leader, node.profile.address.clone()))
    }

    pub(super) fn tell(&mut self, table: Vec<(NodeId, Sighting)>, outlook: Outlook) {
        self.watch.told(table);
        self.watching.outlook = Arc::new(outlook);
        self.tell_health();
    }

    /// An address of `--join` belongs to another cluster.
    pub(super) fn foreign(&mut self, address: &str, cluster: u128) {
        self.stop_for(Reason::Foreign, format!(
            "the data directory belongs to cluster {:032x}, and --join names another ({address}, of cluster {cluster:032x}); take --join away to go on \
             with the former, or start with an empty data directory to join the latter",
            self.file.cluster
        ));
    }

    fn read(&mut self, token: u64) {
        if self.member.is_none() {
            let result = Err(ControlError::NoLeader("this node has not joined yet".into()));
            return self.out.push(Effect::Done { token, result });
        }
        self.count += 1;
        let key = self.count;
        self.waiting.insert(key, Waiting::Read { token });
        self.with_member(|member| member.read(key));
    }

    /// Lets the member do something and performs what it wants.
    pub(super) fn with_member(&mut self, act: impl FnOnce(&mut Member) -> Vec<raft::Effect>) {
        if let Some(member) = &mut self.member {
            let effects = act(member);
            self.perform(effects);
        }
    }

    fn perform(&mut self, effects: Vec<raft::Effect>) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front().filter(|_| !self.stopped) {
            match effect {
                raft::Effect::Persist(batch) => self.out.push(Effect::Persist(batch)),
                raft::Effect::Send { to, bytes } => {
                    if let Some(to) = self.state.as_ref().and_then(|state| state.node_of_member(to)) {
                        self.out.push(Effect::Send { to, bytes });
                    }
                }
                raft::Effect::Commit { index, command, token } => self.commit(index, &command, token),
                raft::Effect::Restore { state, .. } => self.restore(&state),
                raft::Effect::Read { token } => {
                    if let Some(Waiting::Read { token }) = self.waiting.remove(&token) {
                        self.publish();
                        self.out.push(Effect::Done { token, result: Ok(Outcome::Done) });
                    }
                }
                raft::Effect::Dropped { token, why } => self.dropped(token, why),
                raft::Effect::Changed { token, .. } => {
                    token.map(|token| self.waiting.remove(&token));
                }
                raft::Effect::Leader { leader, .. } => {
                    self.stale = true;
                    if leader == self.member.as_ref().map(|member| member.identity().member) {
                        self.watch.lead(self.now_ms);
                    }
                    // Who waited for a leader need not wait for its turn.
                    let idle =
                        self.proposals.values_mut().filter(|proposal| leader.is_some() && proposal.idle());
                    idle.for_each(|proposal| proposal.next_ms = self.now_ms);
                }
                raft::Effect::SnapshotWanted { index } => {
                    if let (Some(member), Some(state)) = (&mut self.member, &self.state) {
                        queue.extend(member.snapshot(index, state.encode()));
                    }
                }
            }
        }
    }

    fn restore(&mut self, bytes: &[u8]) {
        match State::decode(bytes) {
            // What a leader told before may be newer.
            Ok(state)
                if !planted(Mistake::ViewGoesBack)
                    && self.state.as_ref().is_some_and(|own| own.applied() > state.applied()) => {}
            Ok(state) => {
                self.state = Some(state);
                self.stale = true;
            }
            Err(why) => self.stop_for(Reason::Other, format!(
                "the cluster's state cannot be read ({why}); upgrade this node to the version of the others"
            )),
        }
    }

    fn commit(&mut self, index: u64, command: &[u8], token: Option<u64>) {
        let request = match Request::decode(command) {
            Ok(request) => request,
            Err(why) => {
                return self.stop_for(Reason::Other, format!(
                    "a command of the cluster cannot be read ({why}); upgrade this node to the version of the others"
                ));
            }
        };
        let Some(state) = &mut self.state else {
            return self.stop(Stop::other("BUG: a command came before the state that it changes"));
        };
        if index <= state.applied() {
            // It is in what a leader told.
            return;
        }
        let result = state.apply(index, &request);
        self.stale = true;
        match token.and_then(|token| self.waiting.remove(&token)) {
            Some(Waiting::Proposal(key)) => self.answered(key, index, result),
            Some(Waiting::Request { id, joins }) => {
                let state = (joins && result.is_ok()).then(|| state.encode());
                self.respond(id, Answer::Taken { index, result, state });
            }
            _ => {}
        }
    }

    /// The first answer to a node that joins, or a newer one while no leader has sent anything.
    pub(super) fn taken_in(&mut self, number: u64, state: &[u8]) {
        let state = match State::decode(state) {
            Ok(state) => state,
            Err(why) => {
                return self.stop_for(Reason::Other, format!(
                    "the cluster's state cannot be read ({why}); upgrade this node to the version of the others"
                ));
            }
        };
        if self.is_taken_in() {
            return;
        }
        let cluster = state.cluster().id;
        if self.file.cluster != 0 && self.file.cluster != cluster {
            return self.foreign("a node there", cluster);
        }
        self.file.cluster = cluster;
        if self.member.is_none() {
            self.joined(&state);
        }
        self.state = Some(state);
        self.stale = true;
        let Some(log) = self.log.take() else { return };
        let identity = raft::Identity { member: number, ..self.file.identity() };
        if log.identity().is_some_and(|found| found != identity) {
            return self.stop_for(Reason::Foreign, format!(
                "the Raft log in cluster/raft is that of {:?}, and this node was taken in as {identity:?}; remove the node from the \
                 cluster and let it join with an empty data directory",
                log.identity()
            ));
        }
        let opened = Member::open(log, self.options.raft);
        let (member, effects) = opened.unwrap_or_else(|| Member::join(identity, self.options.raft));
        self.member = Some(member);
        self.perform(effects);
    }

    /// Whether a leader has sent the state: from then on this node remembers by itself.
    pub(super) fn is_taken_in(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.delivered() > 0)
    }

    fn joined(&mut self, state: &State) {
        let Cluster { id, shards } = state.cluster();
        let (node, disk) = (self.file.node, self.file.disk);
        self.out.push(Effect::Joined(Directory { cluster: id, node, disk, shards }));
    }

    fn remember_member(&mut self) {
        let Some(member) = self.member.as_ref().filter(|_| self.is_taken_in()) else { return };
        let raft::Identity { cluster, member, .. } = member.identity();
        if self.file.phase != Phase::Member || self.file.member != member {
            self.file = NodeFile { phase: Phase::Member, cluster, member, ..self.file };
            self.out.push(Effect::Remember(self.file));
        }
    }

    /// Everything that follows, whatever happened.
    fn settle(&mut self) {
        if !self.stopped {
            self.with_member(Member::lead_alone);
            // Of an even number of voters one more is needed than of the odd one below, and none more may be lost: on the way from one to
            // three, two are needed of two. So the next step does not wait for a tick.
            if self.membership().voters.len().is_multiple_of(2) {
                self.drive_voters();
            }
        }
        self.check_own_start();
        if !self.stopped {
            self.publish();
            self.seek();
            self.drive_proposals();
        }
    }

    fn check_own_start(&mut self) {
        let id = self.file.node;
        let Some(node) = self.state.as_ref().and_then(|state| state.nodes().get(&id)) else { return };
        let (known, own) = (&node.profile, &self.profile);
        if node.state == NodeState::Gone && !planted(Mistake::StayAfterRemoval) {
            self.stop(removed(id));
        } else if known.starts > own.starts || (known.starts == own.starts && known.boot != own.boot) {
            let why = replaced(id, own.starts, known.starts);
            self.stop(why);
        }
    }

    /// Makes a new view if anything in it has changed.
    fn publish(&mut self) {
        // What a node was shown when it joined may be newer than the first snapshot it gets.
        let is_news = |state: &&State| state.applied() >= self.shown || planted(Mistake::ViewGoesBack);
        let Some(state) = self.state.as_ref().filter(is_news) else { return };
        let epoch = state.placement().epoch();
        if epoch < self.file.epoch {
            // What was agreed on later is lost with the power, or was heard from a leader and never written. Whoever has worked under it does not work
            // under less.
            let text = format!(
                "waiting for placement {}: this node knew it, and finds {epoch} in its log",
                self.file.epoch
            );
            return self.say(text);
        }
        if self.stale {
            self.watch.retain(|node| state.nodes().contains_key(&node));
        }
        let leads = self.leads();
        let health = |id: NodeId| match id == self.file.node {
            true => Health::Up,
            false => self.watch.health(self.now_ms, id, leads, &self.options),
        };
        let same = |view: &Arc<View>| view.nodes.iter().all(|(id, peer)| peer.health == health(*id));
        if !self.stale && self.view.as_ref().is_some_and(same) {
            return;
        }
        let peer = |id: NodeId, node: &crate::state::Node| Peer {
            address: node.profile.address.clone(),
            http_address: node.profile.http_address.clone(),
            zone: node.profile.zone.clone(),
            capacity: node.profile.capacity,
            state: node.state,
            health: health(id),
            starts: node.profile.starts,
        };
        let nodes = state.nodes().iter().filter(|(_, node)| node.state != NodeState::Gone);
        let view = View {
            cluster: state.cluster().id,
            key: state.cluster().key(),
            me: self.file.node,
            placement: state.placement().clone(),
            replication_factor: state.replication_factor(),
            nodes: nodes.map(|(id, node)| (*id, peer(*id, node))).collect(),
            gone: state.nodes().iter().filter_map(|(id, node)| Some((*id, departed(node)?))).collect(),
            namespaces: state.namespaces().clone(),
            jobs: state.jobs().clone(),
            leader: self.leader().1,
            has_data: state.has_data(),
            move_bytes_per_second: match state.settings().move_bytes_per_second {
                0 => None,
                bytes => Some(bytes),
            },
            autopilot_paused: state.settings().autopilot_paused,
            lease: state.settings().lease.as_ref().map(|lease| (lease.holder.clone(), lease.ttl_ms)),
        };
        (self.stale, self.shown) = (false, state.applied());
        if self.view.as_deref() != Some(&view) {
            if epoch > self.file.epoch && !planted(Mistake::ForgetEpoch) {
                self.file.epoch = epoch;
                self.out.push(Effect::Remember(self.file));
            }
            let view = Arc::new(view);
            self.view = Some(view.clone());
            self.out.push(Effect::View(view));
        }
    }

    /// Says once what is being waited for.
    pub(super) fn say(&mut self, text: String) {
        if self.said != text {
            self.said.clone_from(&text);
            self.out.push(Effect::Progress(text));
        }
    }

    pub(super) fn stop_for(&mut self, reason: Reason, why: String) {
        self.stop(Stop::new(reason, why));
    }

    pub(super) fn stop(&mut self, why: impl Into<Stop>) {
        if !self.stopped {
            self.stopped = true;
            self.out.push(Effect::Fatal(why.into()));
        }
    }
}

fn departed(node: &crate::state::Node) -> Option<Departed> {
    let Gone { at_ms, heir } = node.gone;
    let address = node.profile.address.clone();
    (node.state == NodeState::Gone).then_some(Departed { address, at_ms, heir })
}

fn removed(node: NodeId) -> Refusal {
    let text = format!(
        "node {node} was removed from the cluster for ever; to join again, start it with an empty data directory and --join"
    );
    Refusal::new(Fault::Directory(Reason::Removed), text)
}

fn replaced(node: NodeId, own: u64, registered: u64) -> Refusal {
    let text = format!(
        "this is start {own} of node {node}, and another process has registered start {registered}: two use copies of one data directory, \
         or this one is an old copy; stop one of them, and start it with an empty directory and --join"
    );
    let reason = if own < registered { Reason::Stale } else { Reason::Copied };
    Refusal::new(Fault::Directory(reason), text)
}
