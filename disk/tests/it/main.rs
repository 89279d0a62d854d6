//! The crate from the outside.

mod crash;
mod group_commit;
mod log_crash;
mod log_damage;

mod log_faults;
mod vfs;
