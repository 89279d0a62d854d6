//! The crate from the outside.

mod crash;
mod group_commit;
mod vfs;
