//! The database, asked over its HTTP API at one of its nodes.

mod answer;
mod client;

pub use answer::{Placement, Settings, database, failed_disk, namespaces, reply};
pub use client::{Client, Error, Said};
