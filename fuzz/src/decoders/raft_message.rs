//! Messages between members of the control plane. Whatever one of them is told, it goes on.

use cluster::raft::{Change, Effect, Identity, Member, Options};
use std::collections::VecDeque;

/// What stands before the library's bytes: version, cluster, and number and incarnation of sender and addressee.
const ENVELOPE: usize = 1 + 16 + 4 * 8;

fn identity(member: u64) -> Identity {
    Identity { cluster: super::CLUSTER, member, incarnation: member + 1000 }
}

/// A leader and a follower, both voters, with a disk that is never behind.
pub struct Pair {
    members: [Member; 2],
    /// By member.
    pub records: [Vec<Vec<u8>>; 2],
    queue: VecDeque<(usize, usize, Vec<u8>)>,
    /// Everything that was sent: to whom, and the library's bytes.
    sent: Vec<(usize, Vec<u8>)>,
}

impl Pair {
    pub fn new() -> Pair {
        let options = |seed| Options { snapshot_entries: 6, seed, ..Options::default() };
        let (first, created) = Member::create(identity(1), vec![1; 20], options(1));
        let (second, joined) = Member::join(identity(2), options(2));
        let mut pair = Pair {
            members: [first, second],
            records: [Vec::new(), Vec::new()],
            queue: VecDeque::new(),
            sent: Vec::new(),
        };
        pair.perform(0, created);
        pair.perform(1, joined);
        let effects = pair.members[0].lead_alone();
        pair.perform(0, effects);
        let add = Change::AddLearner { member: 2, incarnation: identity(2).incarnation };
        for change in [add, Change::Promote { member: 2 }] {
            let effects = pair.members[0].change(change, 1);
            pair.perform(0, effects);
            pair.run(6);
        }
        for command in 0..8u8 {
            let effects = pair.members[0].propose(vec![command; 9], 2);
            pair.perform(0, effects);
            pair.run(1);
        }
        let effects = pair.members[1].read(3);
        pair.perform(1, effects);
        pair.run(4);
        assert!(pair.members[0].leads() && pair.members[1].membership().voters == [1, 2]);
        pair
    }

    fn perform(&mut self, who: usize, effects: Vec<Effect>) {
        for effect in effects {
            let more = match effect {
                Effect::Persist(batch) => {
                    if batch.whole {
                        self.records[who].clear();
                    }
                    self.records[who].extend(batch.records);
                    self.members[who].persisted(batch.sequence)
                }
                Effect::Send { to, bytes } => {
                    let to = (to as usize).wrapping_sub(1);
                    if to < 2 {
                        self.sent.push((to, bytes[ENVELOPE..].to_vec()));
                        self.queue.push_back((who, to, bytes));
                    }
                    continue;
                }
                Effect::SnapshotWanted { index } => self.members[who].snapshot(index, vec![2; 30]),
                _ => continue,
            };
            self.perform(who, more);
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, bytes)) = self.queue.pop_front() {
            if let Ok(effects) = self.members[to].receive(from as u64 + 1, &bytes) {
                self.perform(to, effects);
            }
        }
    }

    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.deliver();
            for who in 0..2 {
                let effects = self.members[who].tick();
                self.perform(who, effects);
            }
        }
        self.deliver();
    }
}

/// Each part is a byte that says to whom, and the library's bytes of a message from the other one.
pub fn check(bytes: &[u8]) -> bool {
    let mut pair = Pair::new();
    let mut taken = false;
    for part in super::parts(bytes).take(20) {
        let Some((to, message)) = part.split_first() else { continue };
        let to = usize::from(to % 2);
        let (from, own) = (identity(2 - to as u64), identity(1 + to as u64));
        let mut whole = vec![1];
        whole.extend_from_slice(&super::CLUSTER.to_le_bytes());
        for number in [from.member, from.incarnation, own.member, own.incarnation] {
            whole.extend_from_slice(&number.to_le_bytes());
        }
        whole.extend_from_slice(message);
        if let Ok(effects) = pair.members[to].receive(from.member, &whole) {
            pair.perform(to, effects);
            taken = true;
        }
        let effects = pair.members[to].tick();
        pair.perform(to, effects);
        // What it says to that is heard by nobody.
        pair.queue.clear();
    }
    taken
}

pub fn seeds() -> Vec<Vec<u8>> {
    let pair = Pair::new();
    let all: Vec<Vec<u8>> =
        pair.sent.iter().map(|(to, message)| [&[*to as u8][..], message].concat()).collect();
    let last = super::join(&all[all.len().saturating_sub(10)..]);
    let each = all.iter().map(|message| super::join([message]));
    // What came before it was taken in is refused now.
    each.filter(|message| check(message)).chain([last.clone()]).collect()
}
