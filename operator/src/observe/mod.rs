//! What there is: from caches for a first look, and read anew before anything is taken away.

mod caches;
mod look;
pub mod seen;
mod volumes;
mod wanted;

pub use caches::{Caches, Key, Sight, Triggers};
pub use look::{Eyes, Look, ready_ips};
