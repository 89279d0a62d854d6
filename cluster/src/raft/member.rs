//! A member: events in, effects out.

use super::history::History;
use super::message::{self, Refused};
use super::record::{self, Batch, Durable, Identity, Snapshot};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
};
use raft::{Config, RawNode, ReadState, SnapshotStatus, StateRole};
use std::collections::BTreeMap;

/// The longest command.
const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Commands that wait to be agreed on, in bytes.
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;
/// Reads that wait at a time.
const READS_MAX: usize = 4096;

/// How a member behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ticks without a leader until an election; the real number is drawn between this and twice this.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks after which a read is asked for again.
    pub read_retry_ticks: u32,
    /// Ticks after which a read fails.
    pub read_timeout_ticks: u32,
    /// Delivered entries after which a snapshot is wanted.
    pub snapshot_entries: u64,
    /// Where random numbers come from. Must differ from start to start of one member: it also tells the reads of
    /// this run from those of earlier ones.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            election_ticks: 10,
            heartbeat_ticks: 2,
            read_retry_ticks: 4,
            read_timeout_ticks: 40,
            snapshot_entries: 4096,
            seed: 0,
        }
    }
}

/// A change of the membership, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody new, who gets everything and has no vote; or a voter who is to keep everything but the vote.
    AddLearner {
        /// The number, never used before for another.
        member: u64,
        /// Of the log that the member has made for itself.
        incarnation: u64,
    },
    /// A learner gets a vote.
    Promote {
        /// The number.
        member: u64,
    },
    /// Somebody goes for ever.
    Remove {
        /// The number.
        member: u64,
    },
}

/// Why a proposal got no place in the order, or none that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Ask the leader.
    #[error("this node does not lead; ask {}", leader.map_or("again when there is a leader".into(), |id| format!("member {id}")))]
    NotLeader {
        /// If one is known.
        leader: Option<u64>,
    },
    /// Too much is waiting, another membership change is under way, or leadership is being handed over.
    #[error("the control plane is busy; try again")]
    Busy,
    /// Leadership was lost on the way. The command may or may not be agreed on: send it again with the same token.
    #[error("leadership was lost before it was agreed on; send it again, with the same token")]
    Unknown,
    /// Empty or too long.
    #[error("a command has 1 to {max} bytes and this one {got}")]
    Size {
        /// The longest.
        max: usize,
        /// Its length.
        got: usize,
    },
    /// A membership change that makes no sense now.
    #[error("{0}")]
    Change(&'static str),
    /// A read that no leader confirmed in time.
    #[error("no leader confirmed the read in time; try again")]
    TimedOut,
}

/// Who belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those who vote, in order.
    pub voters: Vec<u64>,
    /// Those who only listen, in order.
    pub learners: Vec<u64>,
}

/// What the owner of a member has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this to the log, then say so with [`Member::persisted`].
    Persist(Batch),
    /// Send this; it may get lost.
    Send {
        /// The member.
        to: u64,
        /// For its [`Member::receive`].
        bytes: Vec<u8>,
    },
    /// Apply this command to the state machine.
    Commit {
        /// Its place in the order; places may be skipped.
        index: u64,
        /// What was proposed.
        command: Vec<u8>,
        /// Given if it was proposed here, in this term.
        token: Option<u64>,
    },
    /// Replace the state machine.
    Restore {
        /// Everything up to this place is in it.
        index: u64,
        /// What a [`Member::snapshot`] was given somewhere.
        state: Vec<u8>,
    },
    /// The state machine, as it is now, contains everything that was agreed on before the read was asked for.
    Read {
        /// The read's.
        token: u64,
    },
    /// A proposal, change or read came to nothing.
    Dropped {
        /// Its token.
        token: u64,
        /// Why.
        why: Dropped,
    },
    /// A membership change was made.
    Changed {
        /// Given if it was asked for here, in this term.
        token: Option<u64>,
        /// Who belongs to the group from now on.
        membership: Membership,
    },
    /// There is another leader, or none, or another term.
    Leader {
        /// The term.
        term: u64,
        /// The leader's number, perhaps one's own.
        leader: Option<u64>,
    },
    /// The log is long, or somebody is far behind: [`Member::snapshot`] would help.
    SnapshotWanted {
        /// What has been delivered so far.
        index: u64,
    },
}

/// What must be on disk before the member goes on.
struct Waiting {
    sequence: u64,
    /// The library's number of it.
    number: u64,
    messages: Vec<Message>,
    restore: Option<Snapshot>,
}

struct Read {
    token: u64,
    context: [u8; 24],
    age: u32,
    /// Delivery must have come so far, once that is known.
    index: Option<u64>,
}

/// One of those who agree.
pub struct Member {
    identity: Identity,
    options: Options,
    node: RawNode<History>,
    lots: u64,
    sequence: u64,
    waiting: Option<Waiting>,
    delivered: u64,
    /// The delivered place at which a snapshot was last wanted.
    wanted: u64,
    incarnations: BTreeMap<u64, u64>,
    /// Proposals under way: place, then term and token.
    proposals: BTreeMap<u64, (u64, u64)>,
    reads: Vec<Read>,
    read_count: u64,
    /// Ticks that peers have been waited for to install a snapshot.
    installing: BTreeMap<u64, usize>,
    leader: (u64, u64),
    effects: Vec<Effect>,
}

impl Member {
    /// The first member of a new cluster, alone in it, whose state machine begins as `state`.
    pub fn create(identity: Identity, state: Vec<u8>, options: Options) -> (Member, Vec<Effect>) {
        // As a snapshot, not as an empty log: who joins later cannot begin with the entries and must get this first.
        let members = ConfState { voters: vec![identity.member], ..ConfState::default() };
        let incarnations = BTreeMap::from([(identity.member, identity.incarnation)]);
        let snapshot = Snapshot { index: 1, term: 1, members, incarnations, state };
        Member::begin(identity, snapshot, options)
    }

    /// A member of an existing cluster that knows nothing yet. It stays silent until a leader has taken it in.
    pub fn join(identity: Identity, options: Options) -> (Member, Vec<Effect>) {
        Member::begin(identity, Snapshot::default(), options)
    }

    fn begin(identity: Identity, snapshot: Snapshot, options: Options) -> (Member, Vec<Effect>) {
        assert!(identity.member != 0 && identity.incarnation != 0, "BUG: an identity of zeros");
        let mut durable = Durable { identity: Some(identity), ..Durable::default() };
        durable.install(snapshot);
        durable.finish().expect("BUG: a snapshot contradicts itself");
        let records = whole(&identity, &durable);
        let mut member = Member::new(identity, durable, options);
        member.persist(records, true, true);
        member.waiting = Some(Waiting { sequence: 1, number: 0, messages: Vec::new(), restore: None });
        let effects = member.finish();
        (member, effects)
    }

    /// A member as its log tells it. `None` if nothing was ever written, or nothing but an identity: then creating or joining
    /// was interrupted before it had any effect, and has to be done again.
    pub fn open(durable: Durable, options: Options) -> Option<(Member, Vec<Effect>)> {
        let identity = durable.identity?;
        if durable.last_index() == 0 && durable.hard_state.term == 0 {
            return None;
        }
        let mut member = Member::new(identity, durable, options);
        let effects = member.finish();
        Some((member, effects))
    }

    fn new(identity: Identity, durable: Durable, options: Options) -> Member {
        let config = Config {
            id: identity.member,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            // Delivery begins at the snapshot, which is never beyond what is committed.
            applied: durable.snapshot.index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let snapshot = durable.snapshot.clone();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, History::new(durable), &logger)
            .expect("BUG: a replayed log contradicts itself");
        let mut member = Member {
            identity,
            options,
            node,
            lots: options.seed ^ identity.incarnation,
            sequence: 0,
            waiting: None,
            delivered: 0,
            wanted: 0,
            incarnations: BTreeMap::new(),
            proposals: BTreeMap::new(),
            reads: Vec::new(),
            read_count: 0,
            installing: BTreeMap::new(),
            leader: (0, 0),
            effects: Vec::new(),
        };
        if snapshot.index > 0 {
            member.restore(snapshot);
        }
        member
    }

    /// Who this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The current term, and its leader if it is known.
    pub fn leader(&self) -> (u64, Option<u64>) {
        (self.node.raft.term, Some(self.node.raft.leader_id).filter(|id| *id != 0))
    }

    /// Everything up to this place has been delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Who belongs to the group, as far as delivery has come.
    pub fn membership(&self) -> Membership {
        let members = self.node.raft.prs().conf().to_conf_state();
        let sorted = |mut ids: Vec<u64>| {
            ids.sort_unstable();
            ids
        };
        Membership { voters: sorted(members.voters), learners: sorted(members.learners) }
    }

    /// Whether a member has all but the newest entries, as far as the leader knows.
    pub fn is_caught_up(&self, member: u64) -> bool {
        let raft = &self.node.raft;
        self.leads() && raft.prs().get(member).is_some_and(|peer| peer.matched >= raft.raft_log.committed)
    }

    /// Time goes by.
    pub fn tick(&mut self) -> Vec<Effect> {
        if self.node.raft.election_elapsed == 0 {
            // Instead of the library's own choice, which nothing could repeat.
            let timeout = self.options.election_ticks + self.draw() as usize % self.options.election_ticks;
            self.node.raft.set_randomized_election_timeout(timeout);
        }
        // Who waits for the disk is no candidate: the library relies on a candidate's log being on disk.
        if self.waiting.is_none() || self.leads() {
            self.node.tick();
        }
        self.unstick();
        let mut again = Vec::new();
        let mut failed = Vec::new();
        for (place, read) in self.reads.iter_mut().enumerate() {
            read.age += 1;
            if read.age >= self.options.read_timeout_ticks {
                failed.push(read.token);
            } else if read.index.is_none() && read.age.is_multiple_of(self.options.read_retry_ticks) {
                again.push(place);
            }
        }
        again.into_iter().for_each(|place| self.ask(place));
        self.reads.retain(|read| read.age < self.options.read_timeout_ticks);
        failed.into_iter().for_each(|token| self.drop_one(token, Dropped::TimedOut));
        self.finish()
    }

    /// A message came from the member `from`.
    ///
    /// # Errors
    /// When it is not from a member that is well; nothing has changed then.
    pub fn receive(&mut self, from: u64, bytes: &[u8]) -> Result<Vec<Effect>, Refused> {
        let message = message::open(&self.identity, &self.incarnations, &self.node, from, bytes)?;
        // For the same reason as in `tick`.
        let campaign_now = message.get_msg_type() == MessageType::MsgTimeoutNow;
        if self.waiting.is_none() || !campaign_now {
            // What the library refuses is late or from somebody who has been removed.
            let _ = self.node.step(message);
        }
        Ok(self.finish())
    }

    /// A message to this member could not be delivered.
    pub fn unreachable(&mut self, member: u64) -> Vec<Effect> {
        self.node.report_unreachable(member);
        self.finish()
    }

    /// Asks for a place in the order. Answered by [`Effect::Commit`] or [`Effect::Dropped`] with the token.
    pub fn propose(&mut self, command: Vec<u8>, token: u64) -> Vec<Effect> {
        let got = command.len();
        if got == 0 || got > COMMAND_BYTES_MAX {
            self.drop_one(token, Dropped::Size { max: COMMAND_BYTES_MAX, got });
        } else if self.may_propose(token) {
            let result = self.node.propose(Vec::new(), command);
            self.proposed(token, result);
        }
        self.finish()
    }

    /// Asks for a change of the membership. Answered by [`Effect::Changed`] or [`Effect::Dropped`] with the token.
    pub fn change(&mut self, change: Change, token: u64) -> Vec<Effect> {
        if self.may_propose(token) {
            if self.node.raft.has_pending_conf() {
                self.drop_one(token, Dropped::Busy);
            } else if let Err(why) = self.check(change) {
                self.drop_one(token, Dropped::Change(why));
            } else {
                let (member, kind, context) = match change {
                    Change::AddLearner { member, incarnation } => {
                        (member, ConfChangeType::AddLearnerNode, incarnation.to_le_bytes().to_vec())
                    }
                    Change::Promote { member } => (member, ConfChangeType::AddNode, Vec::new()),
                    Change::Remove { member } => (member, ConfChangeType::RemoveNode, Vec::new()),
                };
                let mut single = ConfChangeSingle { node_id: member, ..ConfChangeSingle::default() };
                single.set_change_type(kind);
                let changes = ConfChangeV2 { changes: vec![single].into(), ..ConfChangeV2::default() };
                let result = self.node.propose_conf_change(context, changes);
                self.proposed(token, result);
            }
        }
        self.finish()
    }

    fn check(&self, change: Change) -> Result<(), &'static str> {
        let Membership { voters, learners } = self.membership();
        let own = self.identity.member;
        match change {
            Change::AddLearner { member, incarnation } => match self.incarnations.get(&member) {
                _ if member == 0 || incarnation == 0 => Err("a member's number and incarnation are not zero"),
                _ if member == own => Err("the leader cannot give up its vote; hand over leadership first"),
                Some(known) if *known != incarnation => Err(
                    "this number belongs to a member with another log; a node that lost its log gets a new number",
                ),
                _ => Ok(()),
            },
            Change::Promote { member } if !learners.contains(&member) => {
                Err("only a learner can be promoted; add it as one first")
            }
            Change::Promote { member } if !self.is_caught_up(member) => {
                Err("the learner is still behind; promote it when it has caught up")
            }
            Change::Remove { member } if member == own => {
                Err("the leader cannot remove itself; hand over leadership first")
            }
            Change::Remove { member } if !voters.contains(&member) && !learners.contains(&member) => {
                Err("there is no such member")
            }
            _ => Ok(()),
        }
    }

    /// Leads at once if nobody else has a vote: there is nobody to wait for. Does nothing otherwise, or while something has to reach the disk.
    pub fn lead_alone(&mut self) -> Vec<Effect> {
        let raft = &self.node.raft;
        let alone = raft.prs().conf().to_conf_state().voters == [self.identity.member];
        if alone && raft.state == StateRole::Follower && self.waiting.is_none() {
            // Refused only to members that may not campaign.
            let _ = self.node.campaign();
        }
        self.finish()
    }

    /// Hands leadership to another voter, if this member leads and the other one is well.
    pub fn hand_over(&mut self, to: u64) -> Vec<Effect> {
        if self.leads() && self.membership().voters.contains(&to) {
            self.node.transfer_leader(to);
        }
        self.finish()
    }

    /// Asks when the state machine here will contain everything agreed on so far. Answered by [`Effect::Read`] or [`Effect::Dropped`].
    pub fn read(&mut self, token: u64) -> Vec<Effect> {
        if self.reads.len() >= READS_MAX {
            self.drop_one(token, Dropped::Busy);
        } else {
            self.reads.push(Read { token, context: [0; 24], age: 0, index: None });
            self.ask(self.reads.len() - 1);
        }
        self.finish()
    }

    /// The batch with this sequence, and all before, are on disk.
    pub fn persisted(&mut self, sequence: u64) -> Vec<Effect> {
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.sequence <= sequence) {
            self.node.on_persist_ready(waiting.number);
            if let Some(snapshot) = waiting.restore {
                let index = snapshot.index;
                self.restore(snapshot);
                self.node.advance_apply_to(index);
            }
            self.send(waiting.messages);
        }
        self.finish()
    }

    /// Takes the state machine as it is after everything that was delivered up to `index`, so that the log can be shortened.
    /// Does nothing if more has been delivered since.
    pub fn snapshot(&mut self, index: u64, state: Vec<u8>) -> Vec<Effect> {
        let history = self.node.store();
        if index == self.delivered && index > history.durable.snapshot.index {
            let term = history.term_at(index).expect("BUG: a delivered entry is not in the log");
            let members = self.node.raft.prs().conf().to_conf_state();
            let snapshot = Snapshot { index, term, members, incarnations: self.incarnations.clone(), state };
            self.node.mut_store().install(snapshot);
            let records = whole(&self.identity, &self.node.store().durable);
            self.persist(records, false, true);
        }
        self.finish()
    }

    fn may_propose(&mut self, token: u64) -> bool {
        let leads = self.leads();
        if !leads {
            let (_, leader) = self.leader();
            self.drop_one(token, Dropped::NotLeader { leader });
        }
        leads
    }

    fn proposed(&mut self, token: u64, result: raft::Result<()>) {
        match result {
            Ok(()) => {
                let raft = &self.node.raft;
                self.proposals.insert(raft.raft_log.last_index(), (raft.term, token));
            }
            Err(_) => self.drop_one(token, Dropped::Busy),
        }
    }

    fn drop_one(&mut self, token: u64, why: Dropped) {
        self.effects.push(Effect::Dropped { token, why });
    }

    /// Asks the leader, with a context that was never used before, in any run.
    fn ask(&mut self, place: usize) {
        self.read_count += 1;
        let parts = [self.identity.member, self.options.seed, self.read_count];
        let read = &mut self.reads[place];
        for (to, from) in read.context.chunks_exact_mut(8).zip(parts) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        let context = read.context.to_vec();
        self.node.read_index(context);
    }

    /// Takes it for lost when a snapshot was sent and nothing came back for an election's time; else nothing else would be sent.
    fn unstick(&mut self) {
        let raft = &self.node.raft;
        let mut installing = BTreeMap::new();
        if self.leads() {
            for (id, peer) in raft.prs().iter() {
                if peer.state == raft::ProgressState::Snapshot {
                    installing.insert(*id, self.installing.get(id).unwrap_or(&0) + 1);
                }
            }
        }
        for (id, ticks) in &installing {
            if *ticks % self.options.election_ticks == 0 {
                self.node.report_snapshot(*id, SnapshotStatus::Failure);
            }
        }
        self.installing = installing;
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let bytes = message::seal(&self.identity, &self.incarnations, &message);
            self.effects.push(Effect::Send { to: message.to, bytes });
        }
    }

    fn persist(&mut self, records: Vec<Vec<u8>>, sync: bool, whole: bool) {
        self.sequence += 1;
        self.effects.push(Effect::Persist(Batch { sequence: self.sequence, records, sync, whole }));
    }

    fn restore(&mut self, snapshot: Snapshot) {
        self.delivered = snapshot.index;
        self.incarnations = snapshot.incarnations;
        self.effects.push(Effect::Restore { index: snapshot.index, state: snapshot.state });
        self.effects.push(Effect::Changed { token: None, membership: self.membership() });
        // What was proposed at places that the snapshot covers was agreed on or not.
        let later = self.proposals.split_off(&(self.delivered + 1));
        let covered = std::mem::replace(&mut self.proposals, later);
        covered.into_values().for_each(|(_, token)| self.drop_one(token, Dropped::Unknown));
    }

    /// Lets the library go on as far as it can without waiting, and returns all effects so far.
    fn finish(&mut self) -> Vec<Effect> {
        self.note_leader();
        while self.waiting.is_none() && self.node.has_ready() {
            self.step();
        }
        self.note_leader();
        let (delivered, history) = (self.delivered, self.node.store());
        let length = delivered - history.durable.snapshot.index.min(delivered);
        let asked = history.snapshot_wanted.take();
        if (asked && length > 0) || length >= self.options.snapshot_entries && delivered > self.wanted {
            self.wanted = delivered;
            self.effects.push(Effect::SnapshotWanted { index: delivered });
        }
        std::mem::take(&mut self.effects)
    }

    fn step(&mut self) {
        let mut ready = self.node.ready();
        let mut sync = ready.must_sync();
        let mut records: Vec<Vec<u8>> = ready.entries().iter().map(record::entry).collect();
        let history = self.node.mut_store();
        let (mut voted, mut committed_more) = (false, false);
        if let Some(state) = ready.hs() {
            let known = &history.durable.hard_state;
            voted = state.term != known.term || state.vote != known.vote;
            // Nobody waits for it, but a member that restarts alone shall know what it knew.
            committed_more = state.commit > known.commit;
            history.durable.hard_state = state.clone();
            // Behind the entries that it may call committed.
            records.push(record::hard_state(state));
        }
        let restore = (!ready.snapshot().is_empty()).then(|| {
            Snapshot::from_message(ready.snapshot()).expect("BUG: a snapshot was received unchecked")
        });
        if let Some(snapshot) = &restore {
            history.install(snapshot.clone());
        }
        history.append(ready.entries());
        if restore.is_some() {
            records = whole(&self.identity, &history.durable);
        }
        let mut messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        if voted {
            // The only voter leads without asking anybody: the term in its messages is not on disk yet.
            held.append(&mut messages);
            sync = true;
        }
        let number = ready.number();
        let committed = ready.take_committed_entries();
        let read_states = ready.take_read_states();
        self.node.advance_append_async(ready);
        self.send(messages);
        if !records.is_empty() {
            self.persist(records, sync || committed_more, restore.is_some());
        }
        if sync {
            self.waiting = Some(Waiting { sequence: self.sequence, number, messages: held, restore });
        } else {
            self.node.on_persist_ready(number);
            self.send(held);
        }
        self.deliver(committed);
        self.answer(read_states);
    }

    fn deliver(&mut self, committed: Vec<Entry>) {
        for entry in committed {
            let index = entry.index;
            self.delivered = index;
            let token = match self.proposals.remove(&index) {
                Some((term, token)) if term == entry.term => Some(token),
                Some((_, token)) => {
                    self.drop_one(token, Dropped::Unknown);
                    None
                }
                None => None,
            };
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {
                    // The first entry of a leader, or a membership change that came too close behind another.
                    if let Some(token) = token {
                        self.drop_one(token, Dropped::Busy);
                    }
                }
                EntryType::EntryNormal => {
                    self.effects.push(Effect::Commit { index, command: entry.data.to_vec(), token });
                }
                _ => self.apply_change(&entry, token),
            }
            self.node.advance_apply_to(index);
        }
        let delivered = self.delivered;
        let done = self.reads.extract_if(.., |read| read.index.is_some_and(|index| index <= delivered));
        self.effects.extend(done.map(|read| Effect::Read { token: read.token }));
    }

    fn apply_change(&mut self, entry: &Entry, token: Option<u64>) {
        let mut changes = ConfChangeV2::default();
        // What makes no sense makes none to any member.
        if changes.merge_from_bytes(&entry.data).is_ok() && self.node.apply_conf_change(&changes).is_ok() {
            for change in changes.get_changes() {
                match change.get_change_type() {
                    ConfChangeType::RemoveNode => drop(self.incarnations.remove(&change.node_id)),
                    ConfChangeType::AddLearnerNode => {
                        if let Ok(incarnation) = entry.context.as_ref().try_into() {
                            self.incarnations.insert(change.node_id, u64::from_le_bytes(incarnation));
                        }
                    }
                    ConfChangeType::AddNode => {}
                }
            }
        }
        let membership = self.membership();
        if self.leads() && !membership.voters.contains(&self.identity.member) {
            // An earlier leader began this. The library would go on to lead a group that it is not in.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
        self.effects.push(Effect::Changed { token, membership });
    }

    fn answer(&mut self, states: Vec<ReadState>) {
        for state in states {
            if let Some(place) = self.reads.iter().position(|read| read.context[..] == state.request_ctx[..])
            {
                if state.index <= self.delivered {
                    let read = self.reads.remove(place);
                    self.effects.push(Effect::Read { token: read.token });
                } else {
                    self.reads[place].index = Some(state.index);
                }
            }
        }
    }

    fn note_leader(&mut self) {
        let (term, leader) = self.leader();
        let now = (term, leader.unwrap_or(0));
        if now != self.leader {
            self.leader = now;
            if !self.leads() {
                let lost = std::mem::take(&mut self.proposals);
                lost.into_values().for_each(|(_, token)| self.drop_one(token, Dropped::Unknown));
            }
            self.effects.push(Effect::Leader { term, leader });
        }
    }

    /// splitmix64 (Steele, Lea and Flood 2014).
    fn draw(&mut self) -> u64 {
        self.lots = self.lots.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.lots ^ (self.lots >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Records that say everything. The snapshot first: it keeps of earlier segments what still matters, should the rest not be reached.
pub(super) fn whole(identity: &Identity, durable: &Durable) -> Vec<Vec<u8>> {
    let mut records = vec![record::identity(identity)];
    if durable.snapshot.index > 0 {
        records.push(record::snapshot(&durable.snapshot));
    }
    records.extend(durable.entries.iter().map(record::entry));
    records.push(record::hard_state(&durable.hard_state));
    records
}
