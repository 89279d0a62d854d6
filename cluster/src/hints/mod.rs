//! Writes that a node has missed, kept for it until it is back.
//!
//! ```text
//! <data>/cluster/hints/<node>/     a segment log for each node
//! record := at:i64  sections       when it was missed, milliseconds; rows by id, new series by labels
//! ```
//!
//! A hint shortens the time until replicas agree; that they do in the end is the business of repair. So hints are bounded, expire, are dropped
//! oldest first, and a hint never stands for an acknowledgement. The [`Store`] keeps them on disk, a [`Replay`] for each node decides what
//! is sent when, and a segment goes when everything in it was acknowledged. `docs/format/hints.md` draws the bytes.

mod replay;
mod store;
#[cfg(test)]
mod tests;

pub use replay::{Effect, Event, Replay, Replayed, Situation};
pub use store::{Chunk, Counts, Hint, Options, Store};
