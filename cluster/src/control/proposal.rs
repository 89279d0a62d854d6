//! Changes on their way to the leader and back, and the calls that carry them.

use super::controller::Controller;
use super::event::*;
use super::message::{Answer, Call};
use crate::placement::{NodeId, NodeState};
use crate::raft::Dropped;
use crate::state::{Command, Fault, Outcome, Refusal, Request};

/// Proposals of this node at a time.
const PROPOSALS_MAX: usize = 256;
/// A node that was taken in and hears nothing from a leader asks again after this.
const JOIN_AGAIN_MS: u64 = 5_000;
/// Between being told who leads and asking there.
const HINT_MS: u64 = 50;

/// What a change is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// An [`Event::Local`].
    Local(u64),
    /// This start has to be registered.
    Register,
    /// This node wants to be taken in.
    Join,
    /// What the leader does by itself, or what every node may have noticed.
    Own,
}

/// A change that this node wants, until it is known what came of it.
pub(super) struct Proposal {
    pub request: Request,
    pub owner: Owner,
    /// After which it fails; some never do.
    deadline_ms: Option<u64>,
    /// Not tried before.
    pub next_ms: u64,
    way: Way,
    /// Who leads, as somebody said.
    hint: Option<Target>,
    tries: usize,
    /// What came of it, and what must be applied here before that is told.
    answer: Option<(u64, Result<Outcome, Refusal>)>,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Idle,
    Raft,
    Call,
}

impl Proposal {
    /// Whether it waits for its next try.
    pub fn idle(&self) -> bool {
        self.way == Way::Idle && self.answer.is_none()
    }
}

/// What a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Proposal(u64),
    Heartbeat,
    /// To find out whose an address of `--join` is.
    Probe(String),
    /// To find a cluster at an address of `--join`.
    Search(String),
}

/// What waits for the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Proposal(u64),
    Request { id: u64, joins: bool },
    Read { token: u64 },
    Change,
}

impl Controller {
    pub(super) fn propose_local(&mut self, token: u64, command: Command) {
        if self.proposals.len() >= PROPOSALS_MAX {
            return self.out.push(Effect::Done { token, result: Err(ControlError::Busy) });
        }
        let noted = command == Command::NoteData && self.state.as_ref().is_some_and(|state| state.has_data());
        if noted {
            return self.out.push(Effect::Done { token, result: Ok(Outcome::Done) });
        }
        self.propose(command, Owner::Local(token), Some(self.now_ms + self.options.propose_timeout_ms));
    }

    pub(super) fn propose_join(&mut self) {
        let command = Command::AddNode {
            id: self.file.node,
            disk: self.file.disk,
            incarnation: self.file.incarnation,
            cluster: self.file.cluster,
            profile: self.profile.clone(),
        };
        self.say(format!("asking to be taken in by {}", self.join.join(", ")));
        self.propose(command, Owner::Join, None);
    }

    /// The newest proposal is sent there first.
    pub(super) fn ask_first(&mut self, target: Target) {
        if let Some(proposal) = self.proposals.get_mut(&self.count) {
            proposal.hint = Some(target);
        }
    }

    pub(super) fn propose_start(&mut self) {
        let (node, disk) = (self.file.node, self.file.disk);
        let command = Command::RegisterStart { node, disk, profile: self.profile.clone() };
        self.propose(command, Owner::Register, None);
    }

    pub(super) fn propose(&mut self, command: Command, owner: Owner, deadline_ms: Option<u64>) {
        self.count += 1;
        // Never used before: the boot id is random, and the count is this process's.
        let token = self.profile.boot.wrapping_add(u128::from(self.count));
        let proposal = Proposal {
            request: Request { token, command },
            owner,
            deadline_ms,
            next_ms: self.now_ms,
            way: Way::Idle,
            hint: None,
            tries: 0,
            answer: None,
            why: "no leader is known".into(),
        };
        self.proposals.insert(self.count, proposal);
    }

    /// Sends what can be sent, and ends what has come to its end.
    pub(super) fn drive_proposals(&mut self) {
        let keys: Vec<u64> = self.proposals.keys().copied().collect();
        for key in keys {
            let Some(proposal) = self.proposals.get(&key) else { continue };
            let applied = self.state.as_ref().map_or(0, |state| state.applied());
            let late = proposal.deadline_ms.is_some_and(|deadline| self.now_ms >= deadline);
            // A refusal changed nothing that could be waited for.
            let seen = proposal.answer.as_ref().is_some_and(|(at, result)| applied >= *at || result.is_err());
            if seen || late {
                self.end(key, seen);
            } else if proposal.idle() && self.now_ms >= proposal.next_ms {
                self.send_proposal(key);
            }
        }
    }

    fn end(&mut self, key: u64, seen: bool) {
        let Some(proposal) = self.proposals.remove(&key) else { return };
        let result = match proposal.answer {
            Some((_, answer)) if seen => answer.map_err(ControlError::Refused),
            Some(_) => Err(ControlError::NoLeader(
                "the leader took it, and this node has not heard of it since".into(),
            )),
            None => Err(ControlError::NoLeader(proposal.why)),
        };
        match (proposal.owner, result) {
            (Owner::Local(token), result) => self.out.push(Effect::Done { token, result }),
            // Only this node's start is at stake in these two, and a node that may not start must stop.
            (Owner::Register | Owner::Join, Err(why)) => self.stop(why),
            (Owner::Own | Owner::Register | Owner::Join, _) => {}
        }
    }

    fn send_proposal(&mut self, key: u64) {
        let leads = self.leads();
        let target = if leads { None } else { self.target(key) };
        let retry_ms = self.options.retry_ms;
        let Some(proposal) = self.proposals.get_mut(&key) else { return };
        proposal.next_ms = self.now_ms + retry_ms;
        if leads {
            proposal.way = Way::Raft;
            let bytes = proposal.request.encode();
            self.count += 1;
            let token = self.count;
            self.waiting.insert(token, Waiting::Proposal(key));
            self.with_member(|member| member.propose(bytes, token));
        } else if let Some(target) = target {
            proposal.way = Way::Call;
            proposal.tries += 1;
            let body = Call::Propose(proposal.request.clone()).encode(self.file.cluster);
            self.call(target, body, Purpose::Proposal(key));
        }
    }

    /// Whom to ask: who is said to lead, who is known to, or one after the other.
    fn target(&mut self, key: u64) -> Option<Target> {
        let own = self.file.node;
        let leader = self.leader().1.filter(|leader| *leader != own);
        let mut all: Vec<Target> = match &self.state {
            Some(state) => {
                let others = state.nodes().iter();
                let others = others.filter(|(id, node)| **id != own && node.state != NodeState::Gone);
                others.map(|(id, _)| Target::Node(*id)).collect()
            }
            None => Vec::new(),
        };
        let proposal = self.proposals.get_mut(&key)?;
        if matches!(proposal.owner, Owner::Join | Owner::Register) {
            all.extend(self.join.iter().cloned().map(Target::Address));
        }
        let hint = proposal.hint.take();
        // Known leaders first, but not for ever: who is known may be long gone.
        let next = match (hint, leader) {
            (Some(hint), _) => return Some(hint),
            (None, Some(leader)) if proposal.tries.is_multiple_of(2) => return Some(Target::Node(leader)),
            _ => proposal.tries,
        };
        (!all.is_empty()).then(|| all.swap_remove(next % all.len()))
    }

    pub(super) fn call(&mut self, to: Target, body: Vec<u8>, purpose: Purpose) {
        self.count += 1;
        let (id, timeout_ms) = (self.count, self.options.call_timeout_ms);
        // Longer than the shell's: this is for a shell that forgets one.
        self.calls.insert(id, (purpose, self.now_ms + 2 * timeout_ms));
        self.out.push(Effect::Call { to, id, body, timeout_ms });
    }

    pub(super) fn expire_calls(&mut self) {
        let late = self.calls.iter().filter(|(_, (_, until))| *until <= self.now_ms);
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.failed(id, "no answer in time".into());
        }
    }

    pub(super) fn failed(&mut self, id: u64, why: String) {
        match self.calls.remove(&id) {
            Some((Purpose::Proposal(key), _)) => self.again(key, self.options.retry_ms, why),
            Some((Purpose::Search(address), _)) => self.found_none(address, why),
            Some((Purpose::Heartbeat | Purpose::Probe(_), _)) | None => {}
        }
    }

    fn again(&mut self, key: u64, after_ms: u64, why: String) {
        let Some(proposal) = self.proposals.get_mut(&key) else { return };
        proposal.way = Way::Idle;
        proposal.next_ms = self.now_ms + after_ms;
        proposal.why.clone_from(&why);
        if proposal.owner == Owner::Join {
            self.say(format!(
                "waiting to be taken in by {}: {why}; trying again every {} ms",
                self.join.join(", "),
                self.options.retry_ms
            ));
        }
    }

    pub(super) fn replied(&mut self, id: u64, body: &[u8]) {
        let Some((purpose, _)) = self.calls.remove(&id) else { return };
        let answer = match Answer::decode(body) {
            Ok(answer) => answer,
            Err(why) => {
                match purpose {
                    Purpose::Proposal(key) => self.again(key, self.options.retry_ms, why.to_string()),
                    Purpose::Search(address) => self.found_none(address, why.to_string()),
                    Purpose::Heartbeat | Purpose::Probe(_) => {}
                }
                return;
            }
        };
        match (purpose, answer) {
            (Purpose::Search(address), Answer::Cluster(cluster)) => self.found(address, cluster),
            (Purpose::Search(address), _) => self.found_none(address, "it has no cluster yet".into()),
            (Purpose::Heartbeat, Answer::Health(table, outlook)) => self.tell(table, outlook),
            (Purpose::Probe(address), Answer::Foreign(cluster)) => self.foreign(&address, cluster),
            (Purpose::Proposal(key), Answer::Foreign(cluster)) => self.refused_as_foreign(key, cluster),
            (Purpose::Heartbeat | Purpose::Probe(_), Answer::Stop(refusal)) => self.stop(refusal),
            (Purpose::Proposal(key), Answer::Taken { index, result, state }) => {
                self.taken(key, index, result, state);
            }
            (Purpose::Proposal(key), Answer::NotLeader(leader)) => self.redirected(key, leader),
            (Purpose::Proposal(key), Answer::Busy) => {
                self.again(key, self.options.retry_ms, "the leader is busy".into());
            }
            (Purpose::Proposal(key), _) => {
                self.again(key, self.options.retry_ms, "an answer to another question".into());
            }
            _ => {}
        }
    }

    fn refused_as_foreign(&mut self, key: u64, cluster: u128) {
        match self.proposals.get(&key).map(|proposal| proposal.owner) {
            // It asks nobody but those of --join.
            Some(Owner::Join) => self.foreign("a node there", cluster),
            _ => self.again(key, self.options.retry_ms, format!("it belongs to cluster {cluster:032x}")),
        }
    }

    fn redirected(&mut self, key: u64, leader: Option<(NodeId, String)>) {
        let after_ms = if leader.is_some() { HINT_MS } else { self.options.retry_ms };
        let why = match &leader {
            Some((node, address)) => format!("node {node} at {address} is said to lead"),
            None => "the node that was asked knows no leader".into(),
        };
        self.again(key, after_ms, why);
        let own = self.file.node;
        let nodes = self.state.as_ref().map(|state| state.nodes());
        let known = |id: &NodeId, address: &String| {
            nodes.and_then(|nodes| nodes.get(id)).is_some_and(|node| node.profile.address == *address)
        };
        // By its address if the node is newer than what is known here, or has moved.
        let hint = leader.filter(|(id, _)| *id != own).map(|(id, address)| match known(&id, &address) {
            true => Target::Node(id),
            false => Target::Address(address),
        });
        if let Some(proposal) = self.proposals.get_mut(&key) {
            proposal.hint = hint;
        }
    }

    fn taken(&mut self, key: u64, index: u64, result: Result<Outcome, Refusal>, state: Option<Vec<u8>>) {
        let Some(proposal) = self.proposals.get(&key) else { return };
        match (proposal.owner, result, state) {
            (Owner::Join, Ok(Outcome::Member(number)), Some(state)) => {
                self.taken_in(number, &state);
                // Again, unless a leader comes by itself: who leads may have changed meanwhile.
                let why = "the leader has not sent the cluster's state yet".to_owned();
                match self.is_taken_in() {
                    true => drop(self.proposals.remove(&key)),
                    false => self.again(key, JOIN_AGAIN_MS, why),
                }
            }
            (Owner::Join, Err(Refusal { fault: Fault::Limit | Fault::Conflict, text }), _) => {
                // That passes. The answer is remembered by the token, so that this is a new wish.
                self.proposals.remove(&key);
                self.propose_join();
                let newest = self.count;
                self.again(newest, JOIN_AGAIN_MS, text);
            }
            (Owner::Register, result, Some(state)) => {
                self.learn(&state);
                self.answered(key, index, result);
            }
            (_, result, _) => self.answered(key, index, result),
        }
    }

    pub(super) fn answered(&mut self, key: u64, index: u64, result: Result<Outcome, Refusal>) {
        if let Some(proposal) = self.proposals.get_mut(&key) {
            proposal.answer = Some((index, result));
        }
    }

    /// The member did not take it, or does not know what came of it.
    pub(super) fn dropped(&mut self, token: u64, why: Dropped) {
        let retry_ms = self.options.retry_ms;
        match self.waiting.remove(&token) {
            Some(Waiting::Proposal(key)) => match why {
                Dropped::Size { .. } => {
                    let text = why.to_string();
                    self.answered(key, 0, Err(Refusal::new(Fault::Limit, text)));
                }
                why => self.again(key, retry_ms, why.to_string()),
            },
            Some(Waiting::Request { id, .. }) => match why {
                Dropped::NotLeader { .. } => self.respond(id, Answer::NotLeader(None)),
                _ => self.respond(id, Answer::Busy),
            },
            Some(Waiting::Read { token }) => {
                let result = match why {
                    Dropped::Busy => Err(ControlError::Busy),
                    why => Err(ControlError::NoLeader(why.to_string())),
                };
                self.out.push(Effect::Done { token, result });
            }
            Some(Waiting::Change) | None => {}
        }
    }
}
