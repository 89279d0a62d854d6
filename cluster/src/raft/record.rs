//! What a member keeps: records of a segment log, replayed when it is opened. `docs/format/raft.md` draws them.
//!
//! Later records supersede earlier ones: an entry removes all entries from its index on, a snapshot all that it covers.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::wire::{Malformed, Reader, Writer};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};
use std::collections::{BTreeMap, BTreeSet};

/// The version of all record layouts here.
const VERSION: u8 = 1;

/// No place and no term is as large: nothing counts so far, and sums with such numbers overflow.
pub(super) const COUNT_MAX: u64 = 1 << 62;

const IDENTITY: u8 = b'I';
const ENTRY: u8 = b'E';
const HARD_STATE: u8 = b'H';
const SNAPSHOT: u8 = b'S';

/// Who a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// The member's number, never zero and never given twice in a cluster.
    pub member: u64,
    /// Random, drawn when the member's log was made, never zero.
    pub incarnation: u64,
}

/// Records for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What [`super::Member::persisted`] wants to hear when this and everything before is on disk.
    pub sequence: u64,
    /// In order.
    pub records: Vec<Vec<u8>>,
    /// Whether it has to reach the disk now. If not, it may do so with the next one that has to.
    pub sync: bool,
    /// Whether it says everything that must be known, so that it begins a new segment and older ones can go.
    pub whole: bool,
}

/// A snapshot of the state machine and of the membership at the same point.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub members: ConfState,
    /// Number and incarnation of every member.
    pub incarnations: BTreeMap<u64, u64>,
    /// The state machine's.
    pub state: Vec<u8>,
}

impl Snapshot {
    /// The part that travels beside index, term and membership.
    pub fn data(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.count(self.incarnations.len());
        for (member, incarnation) in &self.incarnations {
            out.u64(*member);
            out.u64(*incarnation);
        }
        out.0.extend_from_slice(&self.state);
        out.0
    }

    pub fn from_parts(index: u64, term: u64, members: ConfState, data: &[u8]) -> Result<Snapshot, Malformed> {
        let mut reader = Reader::new(data, "snapshot of a Raft member");
        if reader.u8()? != VERSION {
            return Err(reader.malformed());
        }
        let incarnations = reader.list(|reader| Ok((reader.u64()?, reader.u64()?)))?.into_iter().collect();
        Ok(Snapshot { index, term, members, incarnations, state: reader.rest().to_vec() })
    }

    /// Whether there can be such a snapshot. The library relies on that.
    pub fn is_possible(&self) -> bool {
        let ConfState { voters, learners, voters_outgoing, learners_next, .. } = &self.members;
        let mut seen = BTreeSet::new();
        let single = voters.iter().chain(learners).all(|id| *id != 0 && seen.insert(*id));
        // Members change one by one.
        let joint = !voters_outgoing.is_empty() || !learners_next.is_empty() || self.members.auto_leave;
        let counted = (1..COUNT_MAX).contains(&self.index) && self.term < COUNT_MAX;
        !voters.is_empty() && single && !joint && counted
    }

    pub fn to_message(&self) -> raft::eraftpb::Snapshot {
        let mut message = raft::eraftpb::Snapshot::default();
        message.mut_metadata().index = self.index;
        message.mut_metadata().term = self.term;
        message.mut_metadata().set_conf_state(self.members.clone());
        message.data = self.data().into();
        message
    }

    pub fn from_message(message: &raft::eraftpb::Snapshot) -> Result<Snapshot, Malformed> {
        let metadata = message.get_metadata();
        let members = metadata.get_conf_state().clone();
        Snapshot::from_parts(metadata.index, metadata.term, members, &message.data)
    }
}

fn record(kind: u8) -> Writer {
    let mut out = Writer::default();
    out.u8(kind);
    out.u8(VERSION);
    out
}

pub(super) fn identity(identity: &Identity) -> Vec<u8> {
    let mut out = record(IDENTITY);
    out.u128(identity.cluster);
    out.u64(identity.member);
    out.u64(identity.incarnation);
    out.0
}

pub(super) fn entry(entry: &Entry) -> Vec<u8> {
    let mut out = record(ENTRY);
    out.u64(entry.index);
    out.u64(entry.term);
    out.u8(match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    });
    out.bytes(&entry.context);
    out.0.extend_from_slice(&entry.data);
    out.0
}

pub(super) fn hard_state(state: &HardState) -> Vec<u8> {
    let mut out = record(HARD_STATE);
    out.u64(state.term);
    out.u64(state.vote);
    out.u64(state.commit);
    out.0
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = record(SNAPSHOT);
    out.u64(snapshot.index);
    out.u64(snapshot.term);
    let members = &snapshot.members;
    for list in [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next] {
        out.count(list.len());
        list.iter().for_each(|id| out.u64(*id));
    }
    out.u8(u8::from(members.auto_leave));
    out.0.extend_from_slice(&snapshot.data());
    out.0
}

/// What a log says when all of its records have been read.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    pub(super) identity: Option<Identity>,
    pub(super) hard_state: HardState,
    pub(super) snapshot: Snapshot,
    /// Those behind the snapshot, without gaps.
    pub(super) entries: Vec<Entry>,
}

/// Reads the records of a log in order.
///
/// Older segments are removed one by one, so that a crash may leave the last of them: it begins in the middle of what is not there any more. All of it is said
/// anew in the segment behind it, as a whole, or it would not have been removed.
#[derive(Default)]
pub(super) struct Replay {
    durable: Durable,
    /// What makes no sense, as long as it was not said anew.
    broken: Option<Malformed>,
    /// It is being said anew; the hard state is the end of that.
    begun: bool,
}

impl Replay {
    /// Takes in the next record.
    pub fn take(&mut self, record: &[u8]) {
        let kind = record.first();
        if self.broken.is_some() && kind == Some(&IDENTITY) {
            self.durable = Durable { identity: self.durable.identity, ..Durable::default() };
            self.begun = true;
        }
        if self.broken.is_some() && !self.begun {
            return;
        }
        match self.durable.replay(record) {
            Err(error) => (self.broken, self.begun) = (Some(error), false),
            Ok(()) if self.begun && kind == Some(&HARD_STATE) => (self.broken, self.begun) = (None, false),
            Ok(()) => {}
        }
    }

    /// What the log says.
    ///
    /// # Errors
    /// When something is missing.
    pub fn finish(mut self) -> Result<Durable, Malformed> {
        match self.broken {
            Some(error) => Err(error),
            None => self.durable.finish().map(|()| self.durable),
        }
    }
}

impl Durable {
    /// Whose log it is; `None` as long as nothing was written.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether it holds a state machine: its owner was taken in, or made the group.
    pub fn has_state(&self) -> bool {
        self.snapshot.index > 0
    }

    /// Takes in the next record.
    pub fn replay(&mut self, record: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(record, "record of the Raft log");
        let kind = reader.u8()?;
        if reader.u8()? != VERSION {
            return Err(Malformed { what: "record of the Raft log (unknown version)" });
        }
        if self.identity.is_none() && kind != IDENTITY {
            return Err(Malformed { what: "Raft log (its first record is no identity)" });
        }
        match kind {
            IDENTITY => {
                let identity =
                    Identity { cluster: reader.u128()?, member: reader.u64()?, incarnation: reader.u64()? };
                reader.end()?;
                if identity.member == 0
                    || identity.incarnation == 0
                    || self.identity.is_some_and(|known| known != identity)
                {
                    return Err(Malformed { what: "Raft log (two identities)" });
                }
                self.identity = Some(identity);
            }
            ENTRY => {
                let mut entry = Entry { index: reader.u64()?, term: reader.u64()?, ..Entry::default() };
                entry.set_entry_type(match reader.u8()? {
                    0 => EntryType::EntryNormal,
                    1 => EntryType::EntryConfChange,
                    2 => EntryType::EntryConfChangeV2,
                    _ => return Err(reader.malformed()),
                });
                entry.context = reader.bytes()?.to_vec().into();
                entry.data = reader.rest().to_vec().into();
                self.push(entry)?;
            }
            HARD_STATE => {
                self.hard_state.term = reader.u64()?;
                self.hard_state.vote = reader.u64()?;
                self.hard_state.commit = reader.u64()?;
                reader.end()?;
            }
            SNAPSHOT => {
                let (index, term) = (reader.u64()?, reader.u64()?);
                let mut ids = || reader.list(Reader::u64);
                let (voters, learners, outgoing, next) = (ids()?, ids()?, ids()?, ids()?);
                let mut members = ConfState { voters, learners, ..ConfState::default() };
                members.voters_outgoing = outgoing;
                members.learners_next = next;
                members.auto_leave = reader.u8()? != 0;
                let snapshot = Snapshot::from_parts(index, term, members, reader.rest())?;
                if !snapshot.is_possible() {
                    return Err(Malformed { what: "Raft log (a snapshot that cannot be)" });
                }
                self.install(snapshot);
            }
            _ => return Err(reader.malformed()),
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<(), Malformed> {
        let Some(position) = entry.index.checked_sub(self.snapshot.index + 1) else {
            // Covered by the snapshot.
            return Ok(());
        };
        if position > self.entries.len() as u64 {
            return Err(Malformed { what: "Raft log (an entry is missing)" });
        }
        self.entries.truncate(position as usize);
        self.entries.push(entry);
        Ok(())
    }

    /// Entries behind the snapshot stay only if the log goes through the snapshot's last entry.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        if snapshot.index <= self.snapshot.index {
            return;
        }
        let position = (snapshot.index - self.snapshot.index - 1) as usize;
        match self.entries.get(position) {
            Some(entry) if entry.term == snapshot.term => drop(self.entries.drain(..=position)),
            _ => self.entries.clear(),
        }
        self.snapshot = snapshot;
    }

    /// The last entry there is, or the snapshot's.
    pub(super) fn last_index(&self) -> u64 {
        self.snapshot.index + self.entries.len() as u64
    }

    /// Completes what was replayed. What a snapshot covers is committed whether or not a hard state says so; an entry that a
    /// hard state calls committed was written before it, so it must be there.
    pub(super) fn finish(&mut self) -> Result<(), Malformed> {
        self.hard_state.commit = self.hard_state.commit.max(self.snapshot.index);
        self.hard_state.term = self.hard_state.term.max(self.snapshot.term);
        if self.hard_state.commit > self.last_index() {
            return Err(Malformed { what: "Raft log (a committed entry is missing)" });
        }
        Ok(())
    }
}
