//! Reading from many copies as if there were one.
//!
//! ```text
//!   Source ── ClusterSource ──► Select / Lookup ──► Coordinator        who is asked, and when it is enough
//!   (blocking shell)             │        │
//!                    own replica ┘        └ requests ──► serve (the other side) ──► its replica
//!                    lazily, with a                      digests, or rows
//!                    digest per series
//!                         └──────── compared ─── what differs is fetched ──► Set
//! ```
//!
//! A read of a majority must see every sample that was acknowledged, yet copies are equal nearly always. So one copy is read, lazily, as a
//! single node does; and the others are compared with it, as coarsely as possible. First by what copies know anyway, a digest of a shard
//! over minutes or hours ([`summary`]); where that differs, by a digest of each series; rows travel only for series that differ or are missing.
//!
//! Three things are kept apart. [`Coordinator`] counts answers, with no idea of their content. [`Select`] and [`Lookup`] know the
//! content and are driven by events; a simulator drives them as they are. [`ClusterSource`] is the shell with threads and channels.
//!
//! Invariants: a shard's answer counts only if it came under the same placement epoch, complete, and from a replica that holds the shard
//! undamaged; rows are only let in under ids that are computed from their labels here; what may be held of other nodes' bytes is bounded.

mod answer;
mod coordinator;
mod digests;
mod lookup;
mod own;
mod packed;
mod patience;
mod select;
mod serve;
mod set;
mod source;
mod summary;
mod union;
mod wire;

#[cfg(test)]
mod tests;

pub use coordinator::{Answer, Ask, Coordinator, Event as Heard, Mode, Outcome, Plan, Why};
pub use lookup::Lookup;
pub use own::{Own, OwnAnswer, OwnAsk, OwnWork};
pub use patience::Patience;
pub use select::{Bounds, Effect, Event, Select};
pub use serve::{Emit, Stop, serve};
pub use set::Set;
pub use source::{Asker, ClusterSource, Inbox, Options, Shared};
pub use summary::{Piece, Summaries};
pub use wire::{Body, Group, Request, What};
