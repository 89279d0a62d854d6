//! Bootstrap: a copy of a shard is filled with the sealed blocks of the others, as files.
//!
//! ```text
//!              this node fetches                                       a peer answers (`serve`)
//!  which blocks have you? ───────────────────────────────────────────► all live peers: lists
//!     time is divided into windows; for each the most complete copy is chosen, equal ones are spread over all peers;
//!     what is here already, by digest or by file, is not fetched
//!  the tail of a block ──────────────────────────────────────────────► checksums of all its pages
//!     begun: what an earlier run left is verified and goes on
//!  its missing pieces, several at a time, from whoever has the file ──► bytes
//!     every page verified before it is written; complete: synced, renamed, visible
//! ```
//!
//! Which shards, the view says: those of which this node makes a copy, [`crate::placement::Phase::Copying`]. It comes before the passes that
//! compare and pull rows ([`crate::repair`]), which begin when it has ended, well or badly: it need not end with everything, it makes that there is
//! little left to pull. What proves that a copy is complete are the passes alone. A [`Bootstrap`] decides and does nothing: time, the view, answers and
//! the results of [`perform`] come in, [`Effect`]s go out. `docs/format/bootstrap.md` draws the messages.
//!
//! The other way round: what this node has of a shard that it has given up is forgotten, when its placement is settled, some minutes have passed,
//! and all who hold it seem to be there. A node may get the shard back at any moment, and rely on what it has. So between the last look at the view and
//! the forgetting no other view is accepted ([`Effect::Forget`]): what is forgotten came under older placements than the one that says so, and whatever
//! this node does as a replica again comes after it. Late rows of old placements that come after it are nobody's, and found at the next look.
//!
//! What must stay true:
//!
//! * A block becomes visible only when each of its pages has passed, whoever sent them ([`model::SealedBlocks`]).
//! * A peer that fails, has lost a block, or sends other bytes than the block's is left for another; it costs its window the time, never
//!   the content.
//! * Shards with the fewest live copies come first.
//! * Each fill ends, however often something fails, unless the cluster is told to pause: tries of peers and rounds of lists are bounded.
//! * Bytes that are under way or being written are at most [`Options::under_way_max`] pieces; blocks being imported, and what is
//!   remembered of lists, are bounded as well.

mod budget;
mod event;
mod fill;
mod given_up;
mod machine;
mod message;
#[cfg(test)]
mod tests;
mod window;
mod work;

pub use event::{CopyProgress, Effect, Event, Filled, Options, Progress};
pub use given_up::is_given_up;
pub use machine::Bootstrap;
pub use message::{Ask, PIECE_BYTES_MAX, Reply, Request};
pub use work::{Done, Local, perform, serve};
