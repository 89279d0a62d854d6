//! The only door to files.
//!
//! [`Vfs`] has three implementations: the real one, one that simulates crashes, one that injects faults. The segment
//! [`log`] is what the write-ahead log and the Raft log are made of.

pub mod error;
pub mod log;
pub mod real;
pub mod vfs;

pub use error::Error;
pub use real::RealVfs;
pub use vfs::{Entry, File, Mapped, OpenMode, Space, Vfs};
