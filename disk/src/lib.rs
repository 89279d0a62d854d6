//! The only door to files.
//!
//! [`Vfs`] has three implementations: the real one, one that simulates crashes, one that injects faults; and
//! [`ReadOnlyVfs`], which keeps another from being changed. The segment
//! [`log`] is what the write-ahead log and the Raft log are made of.

pub mod crash;
pub mod error;
pub mod fault;
pub mod log;
mod lots;
pub mod read_only;
pub mod real;
pub mod vfs;

pub use crash::CrashVfs;
pub use error::Error;
pub use fault::FaultVfs;
pub use read_only::ReadOnlyVfs;
pub use real::RealVfs;
pub use vfs::{Entry, File, Mapped, OpenMode, Space, Vfs};
