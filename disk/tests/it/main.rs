//! The crate from the outside.

mod group_commit;
