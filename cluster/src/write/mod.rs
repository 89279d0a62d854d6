//! The write path between nodes.
//!
//! ```text
//!            ┌ own replica ──── durable ─────────────┐
//!  batch ─► Coordinator                              ├─► Verdict
//!            └ frame ──► Receiver ─► replica ─ reply ┘
//!                        "which number is that?"  ─► the same rows by id
//!                        "what labels has that?"  ─► the same rows by labels
//! ```
//!
//! A [`Coordinator`] carries one request, a [`Receiver`] answers the frames of all senders; neither does any I/O, the shell moves bytes
//! between them. A frame has the rows of all shards that its receiver holds ([`crate::rows`]); a series has a number in it, which the
//! sender's [`Dictionary`] gives out and a [`Mirror`] at the receiver keeps.
//!
//! Invariants
//!
//! * A shard is acknowledged by a replica when every row sent to it is durable there, and by the request when a quorum of its replicas has
//!   acknowledged it. Nothing else counts, a hint least of all.
//! * A number never changes its meaning within (session, shard, generation). A receiver that is in doubt asks.
//! * A replica enters a series only under the id that it computed itself from the labels.

mod bounds;
mod coordinator;
mod describe;
mod dictionary;
mod frame;
mod pieces;
mod receiver;
#[cfg(test)]
mod tests;

pub use bounds::Bounds;
pub use coordinator::{Context, Coordinator, Local, Missed, Outgoing, Verdict};
pub use describe::{Described, decode_metadata, encode_metadata, in_frames};
pub use dictionary::{Dictionary, Mirror, Session};
pub use frame::{Header, Refused, Reply};
pub use pieces::{Most, Piece, encode_sections, pieces};
pub use receiver::{Received, Receiver};
