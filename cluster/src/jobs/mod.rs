//! Operations on the cluster as durable work: what was asked for, whether it is done, how far it is, and what it would do.
//!
//! ```text
//!   somebody ── StartJob ──▶ state: the job and its first effect, at once      (state::jobs)
//!                              │
//!                  target ── plan ──▶ moves, which everybody's autopilot makes (control::autopilot)
//!                              │
//!   leader ── Finish ◀── nothing of it is left                                 (control::jobs)
//! ```
//!
//! A job makes no moves. It changes what is wanted (a node shall be empty), and the moves that follow from that are made as all others
//! are. A job says which of them are its own ([`Kind::owns`]), so that they can be counted, held back and waited for. So
//! whoever dies meanwhile, nothing of the work is lost with it, and two jobs cannot contradict each other.
//!
//! Pure: no clock, no I/O.

pub(crate) mod job;
mod outlook;
mod pace;
mod preview;

pub use job::{Job, Kind, Stage, Step};
pub(crate) use outlook::cut;
pub use outlook::{Filling, Outlook, Progress};
pub use pace::Pace;
pub use preview::{Preview, preview, sizes};

/// Jobs that are not over, at a time.
pub const ACTIVE_MAX: usize = 64;
/// Jobs that are over and remembered.
pub const OVER_MAX: usize = 64;
/// The longest text in a job, in bytes.
pub const TEXT_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests;
