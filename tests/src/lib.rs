//! Whole-system tests and what they are made of: real processes, a client, a wire encoder of its own.
//!
//! The encoder and the client share no code with the database. A mistake would otherwise be made twice and cancel out.

pub mod client;
pub mod cluster;
pub mod kubernetes;
pub mod load;
pub mod namespaces;
pub mod peer;
pub mod peers;
pub mod process;
pub mod promqltest;
pub mod random;
pub mod sim;
pub mod tsbench;
pub mod until;
pub mod wire;
