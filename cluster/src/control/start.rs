//! What a node does when it starts: a pure decision from its flags and from what its data directory holds.
//!
//! ```text
//!   identity   cluster/node   Raft log    --join        decision
//!   ────────────────────────────────────────────────────────────────────────────────────────
//!   none       none           none        no            create a cluster
//!   none       none           none        yes           join one
//!   yes        none           none        no            make a cluster of a single node's directory
//!   yes        none           none        yes           refuse: it has a cluster of its own
//!   any        none           there       any           refuse: partly wiped
//!   any        creating       empty       any           create it, as the same node
//!   any        joining        no state    yes / no      join, as the same node / refuse: give --join again
//!   any        any of these   a state     any           go on as a member
//!   yes        member         its own     any           go on as a member
//!   yes        member         empty       any           refuse: partly wiped (with `rejoin`: join as a new member)
//!   none       member         any         any           refuse: partly wiped
//! ```
//!
//! "--join" counts only with addresses that are not one's own. What only the others can know is decided by them: a wiped directory by
//! its address, an old copy and one that is used twice by the number of starts ([`crate::state`]).

use super::file::{Directory, NodeFile, Phase};
use crate::placement::NodeId;
use crate::raft::Durable;
use crate::stop::{Reason, Stop};

/// What the node was started with.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The addresses of `--join`.
    pub join: Vec<String>,
    /// This node's own: where it listens and where others reach it.
    pub own: Vec<String>,
    /// Whether a node that has lost its Raft log, and nothing else, may join again as a new member.
    pub rejoin: bool,
}

/// What to do. First of all, `file` has to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What the node remembers from now on, with the number of this start.
    pub file: NodeFile,
    /// And then.
    pub how: How,
    /// The addresses of `--join` that are not this node's.
    pub join: Vec<String>,
}

/// How a node begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As the first of a new cluster. The data directory gets its identity from the file if it has none.
    Create,
    /// By asking others. The data directory gets its identity with [`super::Effect::Joined`] if it has none.
    Join,
    /// As the member that it is.
    Open,
}

/// Decides. `dice` gives 128 random bits at a time.
///
/// # Errors
/// When directory and flags do not fit together: why, and the ways out.
pub fn decide(
    flags: &Flags,
    directory: Option<&Directory>,
    file: Option<&NodeFile>,
    log: &Durable,
    dice: &mut dyn FnMut() -> u128,
) -> Result<Start, Stop> {
    let join: Vec<String> = flags.join.iter().filter(|to| !flags.own.contains(to)).cloned().collect();
    let (joins, logged) = (!join.is_empty(), log.identity());
    let incarnation = |dice: &mut dyn FnMut() -> u128| dice() as u64 | 1;
    let wiped = |why: &str| Err(Stop::new(Reason::Wiped, why));
    let foreign = |why: String| Err(Stop::new(Reason::Foreign, why));
    let Some(file) = file else {
        if logged.is_some() {
            return wiped(
                "the data directory is partly wiped: it has a Raft log and no file cluster/node, so it is not known which start \
                 this is; put the directory back as it was, or remove this node from the cluster and let it join with an empty directory",
            );
        }
        let (phase, cluster, node, disk) = match (directory, joins) {
            (None, false) => (Phase::Creating, dice(), NodeId(dice() | 1), dice()),
            (None, true) => (Phase::Joining, 0, NodeId(dice() | 1), dice()),
            (Some(own), false) => (Phase::Adopting, own.cluster, own.node, own.disk),
            (Some(own), true) => {
                return foreign(format!(
                    "the data directory belongs to a cluster of its own ({:032x}) and cannot join another; start without --join to go on \
                     with it, or with an empty data directory to join",
                    own.cluster
                ));
            }
        };
        let file = NodeFile {
            phase,
            cluster,
            node,
            disk,
            member: 0,
            incarnation: incarnation(dice),
            starts: 1,
            epoch: 0,
        };
        let how = if joins { How::Join } else { How::Create };
        return Ok(Start { file, how, join });
    };

    if let Some(own) = directory {
        let same_cluster = own.cluster == file.cluster || (file.phase == Phase::Joining && file.cluster == 0);
        if own.node != file.node || own.disk != file.disk || !same_cluster {
            return foreign(format!(
                "the data directory is put together from two: its identity says node {} of cluster {:032x}, and cluster/node says node \
                 {} of cluster {:032x}; put back the one or the other as a whole",
                own.node, own.cluster, file.node, file.cluster
            ));
        }
    }
    let mut next = NodeFile { starts: file.starts + 1, ..*file };
    let whole = log.has_state();
    let own_log = logged.is_none_or(|found| {
        let cluster = file.cluster == 0 || found.cluster == file.cluster;
        let member = file.member == 0 || found.member == file.member;
        cluster && member && found.incarnation == file.incarnation
    });
    if !own_log {
        return foreign(format!(
            "the Raft log in cluster/raft is that of {logged:?}, and this node is {:?}; put the data directory back as it was",
            file.identity()
        ));
    }
    let how = match (file.phase, logged) {
        (Phase::Member, _) if directory.is_none() => {
            return wiped(
                "the data directory is partly wiped: cluster/node is there and the identity file is not; put the directory back as \
                 it was, or remove this node from the cluster and let it join with an empty directory",
            );
        }
        (_, Some(found)) if whole => {
            next.phase = Phase::Member;
            (next.cluster, next.member) = (found.cluster, found.member);
            How::Open
        }
        (Phase::Creating | Phase::Adopting, _) => How::Create,
        (Phase::Joining, _) if joins => How::Join,
        (Phase::Joining, _) => {
            return Err(Stop::other(
                "this node began to join a cluster and has not finished; start it with --join and the address of a node of that \
                 cluster, or with an empty data directory to make a new one",
            ));
        }
        (Phase::Member, None) if flags.rejoin && joins => {
            next = NodeFile { phase: Phase::Joining, member: 0, incarnation: incarnation(dice), ..next };
            How::Join
        }
        (Phase::Member, _) => {
            return wiped(
                "the data directory is partly wiped: this node is a member and its Raft log (cluster/raft) is gone or cut off; put the \
                 folder back as it was, or start once with --rejoin and --join and the address of another node: it joins as a new member \
                 and keeps its samples",
            );
        }
    };
    Ok(Start { file: next, how, join })
}
