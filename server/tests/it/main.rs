//! The real binary, started on a random port, spoken to over HTTP and on the command line.

mod api;
mod cli;
mod early;
mod lifecycle;
mod limits;
mod metrics;
mod node;
mod write;
