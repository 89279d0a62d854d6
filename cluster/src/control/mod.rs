//! The control plane of one node: its part in the agreement, the state that is agreed on, and what follows from both.
//!
//! ```text
//!   Tick, Message, Persisted, Request, Reply,                    Persist, Send, Call, Respond, Joined, Remember,
//!   Failed, Local, Read, Report, Seen, Lost, Unwelcome           View, Health, Done, Progress, Fatal
//!  ───────────────────────────────────────────► Controller ──────────────────────────────────────────────────►
//!                                              Member + State
//!
//!   start:  flags + identity + cluster/node + Raft log ── decide ──► Create | Join | Open | refused
//! ```
//!
//! No I/O, no clock, no randomness of its own. Every node has one; a cluster of one is the same with nobody to wait for.
//!
//! * **The leader** takes proposals, chooses the voters, lets nodes that joined take part, gives shares to empty nodes as long as there
//!   is no data, hears the heartbeats, declares lost who does not answer for too long ([`loss`]), and has copies moved to where they should be.
//! * **Every other node** follows, sends what is proposed to it to the leader, and tells the leader each second how it is.
//!
//! What must stay true:
//!
//! * Without a leader the last [`View`](crate::view::View) stays, and after a start the view comes from the log without asking anybody.
//! * Epochs of the views of one run never go back.
//! * A proposal is sent again with its token until it is known what came of it. It is answered here only after this node has applied it.
//! * A process whose start is not the registered one stops: its directory is used by another one, or is an old copy.

mod autopilot;
mod controller;
mod event;
mod file;
mod health;
mod jobs;
pub mod loss;
mod message;
mod proposal;
mod search;
mod start;

pub use controller::{Controller, Make, Me};
pub use event::{ControlError, CopyStatus, Effect, Event, NodeReport, Options, Target};
pub use file::{Directory, Error, NodeFile, Phase, raft_dir};
pub use health::{Beat, COPIES_MAX, Copies, Heard, Sighting, Tidings};
pub use message::{Answer, Call};
pub use start::{Flags, How, Start, decide};

#[cfg(test)]
mod tests;
