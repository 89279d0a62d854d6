//! `SarsenNamespace`: the settings of a namespace of a database, kept as a person wrote them.
//!
//! ```text
//! object, database's settings ─► decide (pure) ─► one step ─► condition `Applied`
//! ```
//!
//! The settings live in the database. What the object does not name is left alone, and what somebody changes past the object is changed back at the next look.

mod control;
mod decide;

pub use control::run;
