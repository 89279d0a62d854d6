//! Messages between members: who to whom, and the library's bytes. `docs/format/raft.md` draws them.
//!
//! The library takes it for a bug, and panics, when a message says what cannot be. What is opened here has been looked at:
//! whatever a peer sends, a message is refused or harmless.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::history::History;
use super::record::{COUNT_MAX, Identity, Snapshot};
use crate::wire::{Malformed, Reader, Writer};
use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{Message, MessageType};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
/// The longest message that is opened.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// Why a message was not taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// From another cluster.
    #[error(
        "a message of cluster {0:032x}; this node belongs to another, take one of them out of the other's --join"
    )]
    Cluster(u128),
    /// For another member, or for one that had this number before.
    #[error(
        "a message for member {member} with incarnation {incarnation:016x}, which this node is not; if its Raft log was lost, it must join again as a new member"
    )]
    Addressee {
        /// The number.
        member: u64,
        /// The incarnation.
        incarnation: u64,
    },
    /// From somebody who uses the number of a member and has not its log.
    #[error(
        "a message from member {member} with incarnation {got:016x}, which is known as {known:016x}; its Raft log was lost or copied, and it must join again as a new member"
    )]
    Impostor {
        /// The number.
        member: u64,
        /// The incarnation of the member.
        known: u64,
        /// The sender's.
        got: u64,
    },
    /// It contradicts what is known to be agreed on: this member or the sender has lost what it once acknowledged.
    #[error(
        "a message from member {member} that cannot be true ({what}); one of the two has lost part of its Raft log and must join again as a new member"
    )]
    Contradiction {
        /// The sender.
        member: u64,
        /// What it says.
        what: &'static str,
    },
}

/// Wraps what the library wants to send.
pub(super) fn seal(own: &Identity, incarnations: &BTreeMap<u64, u64>, message: &Message) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(VERSION);
    out.u128(own.cluster);
    out.u64(own.member);
    out.u64(own.incarnation);
    out.u64(message.to);
    // 0: not known yet, as of a leader before the first snapshot from it.
    out.u64(incarnations.get(&message.to).copied().unwrap_or(0));
    // Writing to memory fails only for messages beyond 4 GiB, which the limits on entries and snapshots exclude.
    out.0.extend_from_slice(&message.write_to_bytes().unwrap_or_default());
    out.0
}

/// Opens what came, and refuses what could not have been sent by a member that is well.
pub(super) fn open(
    own: &Identity,
    incarnations: &BTreeMap<u64, u64>,
    node: &RawNode<History>,
    from: u64,
    bytes: &[u8],
) -> Result<Message, Refused> {
    let mut reader = Reader::new(bytes, "Raft message");
    if bytes.len() > BYTES_MAX || reader.u8()? != VERSION {
        return Err(reader.malformed().into());
    }
    let cluster = reader.u128()?;
    if cluster != own.cluster {
        return Err(Refused::Cluster(cluster));
    }
    let (sender, got) = (reader.u64()?, reader.u64()?);
    let (member, incarnation) = (reader.u64()?, reader.u64()?);
    if member != own.member || (incarnation != 0 && incarnation != own.incarnation) {
        return Err(Refused::Addressee { member, incarnation });
    }
    match incarnations.get(&sender) {
        Some(known) if *known != got => return Err(Refused::Impostor { member: sender, known: *known, got }),
        _ => {}
    }
    let malformed = reader.malformed();
    let mut message = Message::default();
    message.merge_from_bytes(reader.rest()).map_err(|_| malformed.clone())?;
    if sender != from || message.from != sender || message.to != member || sender == 0 || sender == own.member
    {
        return Err(malformed.into());
    }
    match contradiction(node, &message) {
        Some(what) => Err(Refused::Contradiction { member: sender, what }),
        None => Ok(message),
    }
}

fn contradiction(node: &RawNode<History>, message: &Message) -> Option<&'static str> {
    let raft = &node.raft;
    let log = &raft.raft_log;
    let current = message.term >= raft.term;
    let huge = [message.term, message.log_term, message.index, message.commit, message.reject_hint];
    if huge.iter().any(|number| *number >= COUNT_MAX) {
        return Some("a number beyond all counting");
    }
    match message.get_msg_type() {
        MessageType::MsgHeartbeat if message.commit > log.last_index() => {
            Some("it says that more is committed than this member ever acknowledged")
        }
        MessageType::MsgAppend => {
            let follow =
                message.entries.iter().zip(message.index + 1..).all(|(entry, index)| entry.index == index);
            let agreed = |index, term| log.term(index).is_ok_and(|known| known != term && known != 0);
            let disagrees = message
                .entries
                .iter()
                .any(|entry| entry.index <= log.committed && agreed(entry.index, entry.term));
            match (follow, current && disagrees) {
                (false, _) => Some("its entries do not follow each other"),
                (_, true) => Some("it replaces an entry that is committed"),
                _ => None,
            }
        }
        MessageType::MsgAppendResponse if !message.reject && current && message.index > log.last_index() => {
            Some("it acknowledges entries that do not exist")
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if message.entries.len() != 1 => {
            Some("a read without its context")
        }
        MessageType::MsgSnapshot => {
            let possible = Snapshot::from_message(message.get_snapshot()).is_ok_and(|s| s.is_possible());
            (!possible).then_some("a snapshot without a possible membership")
        }
        // Members never forward proposals; the rest is for the library's own use within a process.
        MessageType::MsgPropose
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Some("members do not send such messages"),
        _ => None,
    }
}
