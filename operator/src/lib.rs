//! The Kubernetes operator: a lost node or volume heals with nobody called.
//!
//! ```text
//! observe ─► plan (pure) ─► act
//! ```

pub mod act;
pub mod api;
pub mod args;
pub mod controller;
pub mod database;
pub mod manifests;
pub mod metrics;
pub mod namespace;
pub mod observe;
pub mod plan;
pub mod render;
pub mod run;
#[cfg(test)]
mod told;
