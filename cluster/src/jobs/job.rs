//! A job, what it concerns, and its bytes.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::TEXT_BYTES_MAX;
use crate::placement::{Move, NodeId, Reason};
use crate::state::codec;
use crate::wire::{Malformed, Reader, Writer};
use std::fmt;

const VERSION: u8 = 1;

/// Work that outlives whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Grows with every change; who changes the job says which one was seen.
    pub revision: u64,
    /// What.
    pub kind: Kind,
    /// How it stands.
    pub stage: Stage,
    /// When it was asked for, in milliseconds since 1970 by the clock of the node that was asked.
    pub created_ms: u64,
    /// When it was over; 0 until then.
    pub finished_ms: u64,
    /// Who asked, for people.
    pub by: String,
    /// Copies to be made, as it was computed when the job began.
    pub copies: u64,
    /// Bytes of these, roughly.
    pub bytes: u64,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node gets its share.
    Add(NodeId),
    /// A node is emptied, and stays a member.
    Drain(NodeId),
    /// A node is emptied and then removed for ever; one that is lost is removed at once and its copies are made anew.
    Remove(NodeId),
    /// As [`Kind::Remove`] and [`Kind::Add`] in one: a node that holds little or nothing takes the place of another.
    Replace {
        /// The node that goes.
        old: NodeId,
        /// The node that comes.
        new: NodeId,
    },
    /// Copies move to where the spread and the shares want them.
    Rebalance,
    /// Every shard gets another number of copies.
    ReplicationFactor {
        /// As many as before.
        from: u8,
        /// As many as wanted.
        to: u8,
    },
    /// The copies of a node that is lost are made anew on others.
    Heal(NodeId),
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its moves are made.
    Running,
    /// No move of it begins; those under way end.
    Paused,
    /// Nothing of it is left to do.
    Done,
    /// It was given up, and undone as far as it could be.
    Cancelled,
    /// It can never be done.
    Failed(String),
}

/// What shall become of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin no more moves of it.
    Pause,
    /// Go on.
    Resume,
    /// Give it up, and undo what can be undone.
    Cancel,
    /// Nothing of it is left: for the leader only.
    Finish,
    /// It can never be done, and why: for the leader only.
    Fail(String),
}

impl Kind {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Add(_) => "add",
            Kind::Drain(_) => "drain",
            Kind::Remove(_) => "remove",
            Kind::Replace { .. } => "replace",
            Kind::Rebalance => "rebalance",
            Kind::ReplicationFactor { .. } => "replication-factor",
            Kind::Heal(_) => "heal",
        }
    }

    /// The node that shall be empty.
    pub fn leaving(&self) -> Option<NodeId> {
        match *self {
            Kind::Drain(node) | Kind::Remove(node) | Kind::Heal(node) | Kind::Replace { old: node, .. } => {
                Some(node)
            }
            Kind::Add(_) | Kind::Rebalance | Kind::ReplicationFactor { .. } => None,
        }
    }

    /// The node that somebody wants to be empty, whether it answers or not.
    pub fn empties(&self) -> Option<NodeId> {
        self.leaving().filter(|_| !matches!(self, Kind::Heal(_)))
    }

    /// The node that shall have its share.
    pub fn coming(&self) -> Option<NodeId> {
        match *self {
            Kind::Add(node) | Kind::Replace { new: node, .. } => Some(node),
            _ => None,
        }
    }

    /// Whether a move is made because of such a job. A move may belong to several.
    pub fn owns(&self, step: &Move) -> bool {
        let leaves = self.leaving().is_some_and(|node| step.from == Some(node));
        let comes = self.coming().is_some_and(|node| step.to == Some(node));
        let why = match self {
            Kind::Rebalance => matches!(
                step.reason,
                Reason::Crowded { .. }
                    | Reason::Missing { .. }
                    | Reason::Over { .. }
                    | Reason::Under { .. }
                    | Reason::MakesRoom(_)
            ),
            Kind::ReplicationFactor { .. } => {
                matches!(step.reason, Reason::TooFew { .. } | Reason::TooMany { .. })
            }
            _ => false,
        };
        leaves || comes || why
    }

    /// Whether another job becomes this one when the node that goes is found to be lost: what it was doing, it goes on doing.
    pub fn is_lost_form_of(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Remove(node), Kind::Remove(old) | Kind::Replace { old, .. }) => node == old,
            (Kind::Replace { .. }, Kind::Replace { .. }) => self == other,
            _ => false,
        }
    }

    /// Whether another job is given up for this one, which empties the same node and goes further: for good, or into another node.
    pub fn outdoes(&self, lost: bool, other: &Kind) -> bool {
        let same = self.empties().is_some() && self.empties() == other.empties() && self != other;
        same && match (self, other) {
            (Kind::Replace { .. }, Kind::Replace { .. }) => true,
            (Kind::Replace { .. } | Kind::Remove(_), _) => lost,
            _ => false,
        }
    }

    /// Why this cannot begin while `other` is at work, in words; `None` if it can.
    ///
    /// A node that was to come and is lost can be replaced or removed at once: what it was to take over goes to others then.
    pub fn clashes(&self, other: &Kind) -> Option<String> {
        let nodes = |kind: &Kind| [kind.leaving(), kind.coming()].into_iter().flatten().collect::<Vec<_>>();
        let replaces = matches!(self, Kind::Remove(_) | Kind::Replace { .. });
        let may = |node: NodeId| match self.leaving() == Some(node) {
            true if matches!(other, Kind::Heal(_)) => replaces,
            true => other.leaving() != Some(node) && (replaces || matches!(self, Kind::Heal(_))),
            false => false,
        };
        let common = nodes(self).into_iter().find(|node| nodes(other).contains(node) && !may(*node));
        match (self, other) {
            (Kind::Rebalance, Kind::Rebalance)
            | (Kind::ReplicationFactor { .. }, Kind::ReplicationFactor { .. }) => {
                Some("does the same".into())
            }
            _ => common.map(|node| format!("concerns node {node}, too")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Add(node) => write!(f, "add {node}"),
            Kind::Drain(node) => write!(f, "drain {node}"),
            Kind::Remove(node) => write!(f, "remove {node}"),
            Kind::Replace { old, new } => write!(f, "replace {old} by {new}"),
            Kind::Rebalance => write!(f, "rebalance"),
            Kind::ReplicationFactor { from, to } => write!(f, "{to} copies instead of {from}"),
            Kind::Heal(node) => write!(f, "heal what {node} held"),
        }
    }
}

impl Stage {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Stage::Running => "running",
            Stage::Paused => "paused",
            Stage::Done => "done",
            Stage::Cancelled => "cancelled",
            Stage::Failed(_) => "failed",
        }
    }
}

impl Job {
    /// Whether it is not over.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Paused)
    }

    /// Its bytes, without the revision: that is the record's.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        put_kind(&mut out, &self.kind);
        let stage = match &self.stage {
            Stage::Running => 0,
            Stage::Paused => 1,
            Stage::Done => 2,
            Stage::Cancelled => 3,
            Stage::Failed(_) => 4,
        };
        out.u8(stage);
        if let Stage::Failed(why) = &self.stage {
            out.bytes(why.as_bytes());
        }
        out.varint(self.created_ms);
        out.varint(self.finished_ms);
        out.bytes(self.by.as_bytes());
        out.varint(self.copies);
        out.varint(self.bytes);
        out.0
    }

    /// Reads what [`Job::encode`] wrote.
    pub(crate) fn decode(revision: u64, bytes: &[u8]) -> Result<Job, Malformed> {
        let mut reader = Reader::new(bytes, "job");
        if reader.u8()? != VERSION {
            return Err(reader.malformed());
        }
        let kind = take_kind(&mut reader)?;
        let stage = match reader.u8()? {
            0 => Stage::Running,
            1 => Stage::Paused,
            2 => Stage::Done,
            3 => Stage::Cancelled,
            4 => Stage::Failed(short(&mut reader)?),
            _ => return Err(reader.malformed()),
        };
        let (created_ms, finished_ms, by) = (reader.varint()?, reader.varint()?, short(&mut reader)?);
        let (copies, bytes) = (reader.varint()?, reader.varint()?);
        reader.end()?;
        Ok(Job { revision, kind, stage, created_ms, finished_ms, by, copies, bytes })
    }
}

/// A text that is not too long.
pub(crate) fn short(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = codec::text(reader)?;
    if text.len() > TEXT_BYTES_MAX { Err(reader.malformed()) } else { Ok(text) }
}

pub(crate) fn put_kind(out: &mut Writer, kind: &Kind) {
    let (number, nodes): (u8, &[NodeId]) = match kind {
        Kind::Add(node) => (1, &[*node]),
        Kind::Drain(node) => (2, &[*node]),
        Kind::Remove(node) => (3, &[*node]),
        Kind::Replace { old, new } => (4, &[*old, *new]),
        Kind::Rebalance => (5, &[]),
        Kind::ReplicationFactor { .. } => (6, &[]),
        Kind::Heal(node) => (7, &[*node]),
    };
    out.u8(number);
    nodes.iter().for_each(|node| out.u128(node.0));
    if let Kind::ReplicationFactor { from, to } = kind {
        out.u8(*from);
        out.u8(*to);
    }
}

pub(crate) fn take_kind(reader: &mut Reader<'_>) -> Result<Kind, Malformed> {
    let number = reader.u8()?;
    let mut node = || reader.u128().map(NodeId);
    Ok(match number {
        1 => Kind::Add(node()?),
        2 => Kind::Drain(node()?),
        3 => Kind::Remove(node()?),
        4 => Kind::Replace { old: node()?, new: node()? },
        5 => Kind::Rebalance,
        6 => Kind::ReplicationFactor { from: reader.u8()?, to: reader.u8()? },
        7 => Kind::Heal(node()?),
        _ => return Err(reader.malformed()),
    })
}

pub(crate) fn put_step(out: &mut Writer, step: &Step) {
    match step {
        Step::Pause => out.u8(1),
        Step::Resume => out.u8(2),
        Step::Cancel => out.u8(3),
        Step::Finish => out.u8(4),
        Step::Fail(why) => {
            out.u8(5);
            out.bytes(why.as_bytes());
        }
    }
}

pub(crate) fn take_step(reader: &mut Reader<'_>) -> Result<Step, Malformed> {
    Ok(match reader.u8()? {
        1 => Step::Pause,
        2 => Step::Resume,
        3 => Step::Cancel,
        4 => Step::Finish,
        5 => Step::Fail(short(reader)?),
        _ => return Err(reader.malformed()),
    })
}
