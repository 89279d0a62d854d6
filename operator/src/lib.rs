//! The Kubernetes operator: a lost node or volume heals with nobody called.
//!
//! ```text
//! observe ─► plan (pure) ─► act
//! ```

pub mod api;
pub mod args;
pub mod manifests;
pub mod plan;
pub mod render;
