//! Repair: replicas compare what they hold, and fetch what differs.
//!
//! ```text
//!              this node pulls                                          a peer answers (`serve`)
//!  digests of a few ranges of a shard ──────────────────────────────────► theirs
//!     equal: done    not: the range is split, down to windows of 2 h
//!  the window's digests by series  ─────────────────────────────────────► theirs, in pages
//!     those that differ from ours
//!  their rows, with labels ─────────────────────────────────────────────► in chunks
//!     what is missing here is appended; all of it is made durable
//! ```
//!
//! Every node pulls, so all come to hold the union. Who is asked for a window's series learns by that that the two differ, and looks as well.
//! Damage goes first, then differences that somebody saw, then what is recent, then all the rest, everywhere from the newest on. A
//! long pull stands aside, between two windows, for what is more urgent. A [`Repair`] decides and does nothing: time, the view, answers and the
//! results of [`perform`] come in, [`Effect`]s go out. `docs/format/repair.md` draws the messages.
//!
//! What must stay true:
//!
//! * Rows enter only under an id that this node computed itself from their labels, only if they were asked for, and by
//!   [`model::Replica::append_replicated`]: repairing twice, late, or from a peer that is behind changes nothing.
//! * What is here is not written again, neither to the log nor to the head.
//! * What was pulled from a peer is not pulled again while the peer's digest stays the same. So a peer that lacks what we
//!   have costs one comparison a round until it has pulled it from us.
//! * A peer whose rows do not have the digests that it claims is asked less and less often, and reported.
//! * Damage is mended when everything that a majority of the other replicas hold there has been pulled after it was noticed.
//!   Then a row that was acknowledged with this replica's word and was lost is here again: some of these had it as well.
//!   It is never mended because a peer could not be reached.
//! * A copy of a shard that moves here is called complete only after whole passes over enough of the old replicas ([`copying`]). They begin when
//!   [`crate::bootstrap`] has done what it could: before that, rows would be pulled one by one that come as files.
//! * One pull a shard at a time, few in all, one question of each under way; a chunk of rows is at most [`EXPORT_BYTES_MAX`].

mod copying;
mod machine;
mod message;
mod pair;
mod pull;
#[cfg(test)]
mod tests;
mod windows;
mod work;

pub use machine::{Effect, Event, Level, Now, Options, Progress, Repair};
pub use message::{EXPORT_BYTES_MAX, Reply, Request};
pub use work::{Done, Local, perform, serve};
