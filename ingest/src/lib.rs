//! Wire formats to batches: remote write 1 and 2, Prometheus text and OpenMetrics.
//!
//! ```text
//! body --negotiate--> protocol --decompress--> Batch::bytes --decode--> columns --store--> Sink --> Reply
//!                                                                         |
//!                                  only what the sink has no series for: labels checked, made canonical, sent once more
//! ```
//!
//! A known series costs one walk over its label bytes and one hash of them as they lie. Whether they are UTF-8, sorted
//! and within the limits is looked at only when the sink does not know the hash: bytes that are not canonical cannot
//! have the id of a series that exists.
//!
//! Everything here is pure: no sockets, no clock, no threads. Every function that takes bytes from outside returns an
//! error for what it cannot read, never panics, and allocates no more than [`Limits::batch_bytes_max`] allows.

pub mod exposition;
pub mod limits;
mod metadata;
pub mod problems;
pub mod remote_write;
pub mod reply;
mod series;
pub mod store;

pub use limits::Limits;
pub use problems::{Problem, Problems, Reason};
pub use reply::{Refusal, Reply};
pub use store::{Counted, Stored, store};
