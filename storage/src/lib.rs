//! One node's engine.
//!
//! ```text
//! <dir>/identity  lock             whose data this is                        identity
//! <dir>/wal/                       the segment log, in the records of        wal
//! <dir>/blocks/default/<shard>/    immutable files                           block
//! <dir>/damage  quarantine/  scrub what rotted, and the search for it        engine
//! memory                           the newest samples of active series       head
//! ```
//!
//! [`Engine`] puts them together and implements the seams [`model::Sink`] and [`model::Source`]. Everything is
//! synchronous, over [`disk::Vfs`], without threads, clock or randomness of its own.

pub mod block;
pub mod codec;
pub mod engine;
pub mod error;
pub mod faults;
mod head;
pub mod identity;
mod note;
pub mod postings;
mod shard;
mod wal;

pub use engine::{
    Cardinality, Durability, Engine, Maintained, Options, Progress, ScrubProgress, Stats, pace,
};
pub use error::{Error, Result};
pub use identity::Identity;
pub use model::merge;
