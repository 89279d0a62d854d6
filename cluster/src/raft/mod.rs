//! Agreement on one order of commands among the nodes that vote, by the Raft algorithm.
//!
//! ```text
//!   tick, receive, propose, read, change, persisted            Effect::{Persist, Send, Commit, Restore, Read, …}
//!  ─────────────────────────────────────────────────► Member ─────────────────────────────────────────────────►
//!                                                   (no I/O, no clock)                     Persist goes to │
//!                                                                                           a Store ◄──────┘
//! ```
//!
//! A [`Member`] decides, its owner does. Effects are carried out in the order in which they come. A [`Store`] keeps the
//! records of [`Effect::Persist`] in a segment log of its own; `docs/format/raft.md` draws them. Only this module knows which
//! library does the agreeing: messages and records are opaque bytes outside.
//!
//! What must stay true:
//!
//! * A message that promises something (a vote, that entries are held) leaves only after [`Member::persisted`] for the records
//!   that keep the promise. At most one `Persist` that must be synced is under way.
//! * Commands are delivered in order, each once in the life of a `Member`. A restarted one begins at its newest snapshot,
//!   [`Effect::Restore`], and gets everything behind that again: whoever applies them keeps nothing of its own on disk, so
//!   there is no second record of how far it is that could disagree.
//! * A member is a number and a random incarnation, which is in the first record of its log and nowhere else. Whoever lost the log has
//!   lost the incarnation, is refused by all who knew it, and can only come back as a new member with a new number.
//! * Timeouts are drawn from the seed in [`Options`], so that equal inputs have equal effects.

mod history;
mod member;
mod message;
mod record;
mod store;
mod voters;

pub use member::{Change, Dropped, Effect, Member, Membership, Options};
pub use message::Refused;
pub use record::{Batch, Durable, Identity};
pub use store::{Error, Store};
pub use voters::{Candidate, Step, choose_voters};

#[cfg(test)]
mod tests;
