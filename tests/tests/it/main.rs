//! Tests of the whole system: the release binary as a process, and the programs that it works with.
//!
//! `cargo xtask test` builds the binary and fetches the programs.

mod bootstrap;
mod cluster;
mod crash;
mod decoders;
mod kubernetes;
mod prometheus;
mod promqltest;
mod remote_write;
mod sim;
mod start;
