//! The client side of the command line.

mod autopilot;
pub mod cluster;
mod http;
pub mod jobs;
pub mod ns;
mod operation;
pub mod query;
pub mod status;
mod table;
pub mod tsdb;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// The data as the API gives it.
    Json,
}
