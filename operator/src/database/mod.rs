//! The database, asked over its HTTP API at one of its nodes.

mod answer;
mod client;

pub use answer::{Placement, database, reply};
pub use client::{Client, Error, Said};
