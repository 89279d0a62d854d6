//! One node's engine.
//!
//! ```text
//! <dir>/identity  lock             whose data this is                        identity
//! <dir>/wal/                       the segment log, in the records of        wal
//! <dir>/blocks/default/<shard>/    immutable files                           block
//! memory                           the newest samples of active series       head
//! ```
//!
//! [`Engine`] puts them together and implements the seams [`model::Sink`] and [`model::Source`]. Everything is
//! synchronous, over [`disk::Vfs`], without threads, clock or randomness of its own.

pub mod block;
pub mod codec;
pub mod engine;
pub mod error;
mod head;
pub mod identity;
pub mod merge;
pub mod postings;
mod shard;
mod wal;

pub use engine::{Cardinality, Durability, Engine, Maintained, Options, Progress, Stats};
pub use error::{Error, Result};
pub use identity::Identity;

/// Blocks are not there yet: a type without values.
pub(crate) mod block {
    use crate::Result;
    use model::{Labels, Matcher, Samples, Shard, TimeRange};
    use std::path::{Path, PathBuf};
    pub enum Reader {}
    #[derive(Clone)]
    pub struct Meta {
        pub id: u64,
        pub range: TimeRange,
        pub bytes: u64,
        pub samples: u64,
        pub path: PathBuf,
    }
    pub struct Header {
        pub shard: Shard,
        pub range: TimeRange,
        pub level: u32,
        pub id: u64,
    }
    impl Reader {
        pub fn open(_: &dyn disk::Vfs, _: &Path) -> Result<Reader> {
            unreachable!()
        }
        pub fn meta(&self) -> &Meta {
            match *self {}
        }
        pub fn verify(&self, _: &dyn disk::Vfs) -> Result<()> {
            match *self {}
        }
        pub fn select(&self, _: &[Matcher]) -> Result<Vec<u32>> {
            match *self {}
        }
        pub fn labels_bytes(&self, _: u32, _: &mut Vec<u8>) -> Result<()> {
            match *self {}
        }
        pub fn read(&self, _: u32, _: TimeRange, _: &mut Samples) -> Result<()> {
            match *self {}
        }
    }
    pub fn order(a: &Labels, b: &Labels) -> std::cmp::Ordering {
        a.cmp(b)
    }
    pub struct Builder;
    impl Builder {
        pub fn new(_: Header) -> Builder {
            Builder
        }
        pub fn add(&mut self, _: &Labels, _: &Samples) -> Result<()> {
            Err(crate::Error::Refused { dir: PathBuf::new(), why: "blocks are not there yet".into() })
        }
        pub fn finish(self, _: &dyn disk::Vfs, _: &Path) -> Result<Meta> {
            unreachable!()
        }
    }
}
