//! What a plan consists of.

use super::observed::{Leaving, Shared};
use std::fmt;

/// One step. Each is safe to repeat, and does nothing when what it was decided on has changed: it carries the uid, or the epoch, that was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Our finalizer is put on the cluster object.
    AddFinalizer,
    /// Our finalizer is taken off, so that the object goes.
    RemoveFinalizer,
    /// The secret that nodes share is made.
    CreateToken,
    /// An object that all instances share is made, or brought up to date.
    Apply(Shared),
    /// An object that all instances shared is of no use any more.
    DeleteShared(Shared),
    /// A new instance: its claim.
    CreateClaim {
        /// The instance.
        instance: String,
        /// Its group.
        group: String,
        /// Whose place it is to take, and why.
        replaces: Option<(String, String)>,
    },
    /// Something is written on a claim.
    Note {
        /// The instance.
        instance: String,
        /// The uid of its claim.
        uid: String,
        /// What.
        note: Note,
    },
    /// A claim asks for more.
    ExpandClaim {
        /// The instance.
        instance: String,
        /// The uid of its claim.
        uid: String,
    },
    /// A claim goes, and its volume with it.
    DeleteClaim {
        /// The instance.
        instance: String,
        /// The uid of its claim.
        uid: String,
        /// The version of the claim that this was decided on: what is noted since may be a reason against it.
        version: String,
        /// Why that is right.
        why: String,
    },
    /// A pod for a claim.
    CreatePod {
        /// The instance.
        instance: String,
        /// Its group.
        group: String,
    },
    /// A pod goes.
    DeletePod {
        /// The instance.
        instance: String,
        /// The uid of the pod.
        uid: String,
        /// Without waiting for its machine, which does not answer.
        force: bool,
        /// Why.
        why: String,
    },
    /// The readiness gate of a pod says whether its copies are there.
    SetGate {
        /// The instance.
        instance: String,
        /// The uid of the pod.
        uid: String,
        /// Yes or no.
        open: bool,
    },
    /// The database is asked for something.
    Ask(Request),
}

/// What is written on a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// There is evidence that the instance is lost.
    Suspect(String),
    /// There is none any more.
    Clear,
    /// It is to go.
    Leave(Leaving),
    /// It is gone from the placement for ever.
    Retire,
    /// It has taken the other's place, and has everything.
    Settle,
    /// It creates the cluster.
    Create,
    /// What is known of it: the database's ids and the machine that it is on.
    Facts(Box<Facts>),
}

/// What is known of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The database's id of the node.
    pub node_id: Option<String>,
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The machine.
    pub host: Option<super::observed::Host>,
}

/// What the database is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new cluster, at a node that waits for one.
    Create {
        /// The instance.
        instance: String,
    },
    /// A member takes its share.
    Add {
        /// The node's id.
        node: String,
    },
    /// A member takes the place of another.
    Replace {
        /// Who goes.
        old: String,
        /// Who comes.
        new: String,
        /// The old one does not answer, and never will.
        lost: bool,
        /// The placement that this was decided on.
        epoch: u64,
    },
    /// A member goes for ever.
    Remove {
        /// The node's id.
        node: String,
        /// It does not answer, and never will.
        lost: bool,
        /// The placement that this was decided on.
        epoch: u64,
    },
    /// A job is given up: who was to be emptied takes copies again.
    Cancel {
        /// The job.
        job: u64,
    },
    /// The copies of a member that is away are made elsewhere; it is welcome back.
    Heal {
        /// The node's id.
        node: String,
        /// The placement that this was decided on.
        epoch: u64,
    },
}

impl Action {
    /// Whether it takes something away that may be needed. A plan has one such action at most.
    pub fn is_destructive(&self) -> bool {
        match self {
            Action::DeleteClaim { .. }
            | Action::DeletePod { .. }
            | Action::DeleteShared(_)
            | Action::RemoveFinalizer => true,
            Action::Ask(request) => !matches!(request, Request::Add { .. } | Request::Cancel { .. }),
            _ => false,
        }
    }

    /// Whether what it is decided on must be read anew first: a cache may say what is not so any more. A new instance is among it, since its name must never have been used,
    /// and who creates the database, since somebody else may have been chosen.
    pub fn needs_certainty(&self) -> bool {
        let decides = |note: &Note| matches!(note, Note::Create | Note::Leave(_));
        match self {
            Action::CreateClaim { .. } | Action::Ask(_) => true,
            Action::Note { note, .. } => decides(note),
            _ => self.is_destructive(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::AddFinalizer => f.write_str("put the finalizer on"),
            Action::RemoveFinalizer => f.write_str("take the finalizer off"),
            Action::CreateToken => f.write_str("make the secret of the nodes"),
            Action::Apply(Shared { kind, name }) => write!(f, "apply {kind} {name}"),
            Action::DeleteShared(Shared { kind, name }) => {
                write!(f, "delete {kind} {name}: nothing needs it")
            }
            Action::CreateClaim { instance, replaces: None, .. } => write!(f, "make instance {instance}"),
            Action::CreateClaim { instance, replaces: Some((old, why)), .. } => {
                write!(f, "make instance {instance} to take the place of {old} ({why})")
            }
            Action::Note { instance, note, .. } => write!(f, "note on {instance}: {note:?}"),
            Action::ExpandClaim { instance, .. } => write!(f, "expand the claim of {instance}"),
            Action::DeleteClaim { instance, why, .. } => write!(f, "delete the claim of {instance}: {why}"),
            Action::CreatePod { instance, .. } => write!(f, "make the pod {instance}"),
            Action::DeletePod { instance, why, .. } => write!(f, "delete the pod {instance}: {why}"),
            Action::SetGate { instance, open: true, .. } => {
                write!(f, "{instance} has all copies that it is to have")
            }
            Action::SetGate { instance, open: false, .. } => write!(f, "{instance} lacks copies"),
            Action::Ask(Request::Create { instance }) => write!(f, "create the cluster at {instance}"),
            Action::Ask(Request::Add { node }) => write!(f, "node {node} takes its share"),
            Action::Ask(Request::Replace { old, new, lost, .. }) => {
                let lost = if *lost { ", which is lost" } else { "" };
                write!(f, "node {new} takes the place of node {old}{lost}")
            }
            Action::Ask(Request::Remove { node, .. }) => write!(f, "node {node} goes for ever"),
            Action::Ask(Request::Cancel { job }) => write!(f, "job {job} is given up"),
            Action::Ask(Request::Heal { node, .. }) => {
                write!(f, "the copies of node {node} are made elsewhere")
            }
        }
    }
}

/// Something that would be done, but.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deferral {
    /// The instance that it is about; empty: the cluster.
    pub instance: String,
    /// Why, in a word that never changes.
    pub reason: Reason,
    /// Why, and what would help.
    pub message: String,
}

/// Why something is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The evidence is not old enough.
    Grace,
    /// A person has to decide.
    Manual,
    /// The policy says never.
    Off,
    /// The database does not answer, or has no leader.
    DatabaseSilent,
    /// Somebody else holds the lease.
    Lease,
    /// Something else is being done.
    Busy,
    /// Too few other copies.
    QuorumLost,
    /// Too many machines are away.
    TooManyAway,
    /// A whole group is away.
    ZoneAway,
    /// Nowhere to put a new instance.
    NoCapacity,
    /// The volume can be used on another machine, and is not there yet, or might then be used on both.
    NetworkVolume,
    /// The new instance has not joined yet.
    Starting,
    /// A changed pod did not become ready in time.
    RolloutStuck,
    /// A person has paused it.
    Paused,
    /// The specification cannot work.
    SpecInvalid,
}

impl Reason {
    /// Nothing is wrong: it merely takes its time.
    pub fn is_usual(self) -> bool {
        matches!(
            self,
            Reason::Grace | Reason::Busy | Reason::Starting | Reason::Paused | Reason::Off | Reason::Manual
        )
    }

    /// As conditions, Events and metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Grace => "Grace",
            Reason::Manual => "Manual",
            Reason::Off => "Off",
            Reason::DatabaseSilent => "DatabaseSilent",
            Reason::Lease => "LeaseHeld",
            Reason::Busy => "Busy",
            Reason::QuorumLost => "QuorumLost",
            Reason::TooManyAway => "TooManyAway",
            Reason::ZoneAway => "ZoneAway",
            Reason::NoCapacity => "NoCapacity",
            Reason::NetworkVolume => "NetworkVolume",
            Reason::Starting => "Starting",
            Reason::RolloutStuck => "RolloutStuck",
            Reason::Paused => "Paused",
            Reason::SpecInvalid => "SpecInvalid",
        }
    }
}

/// Something that people should know of, said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// It is about something that is not well.
    pub warning: bool,
    /// In a word that never changes.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}
