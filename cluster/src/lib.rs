//! Many nodes as one: who holds which shard, and how that is agreed on.
//!
//! What decides here knows no runtime, no sockets and no clock: time, messages and results of I/O come in, effects go out.

pub mod bootstrap;
pub mod control;
pub mod faults;
pub mod hints;
pub mod jobs;
pub mod node;
pub mod placement;
pub mod quorum;
pub mod raft;
pub mod read;
pub mod repair;
pub mod rows;
pub mod state;
pub mod stop;
pub mod transport;
pub mod view;
pub mod wire;
pub mod write;

#[cfg(test)]
pub mod testing;
