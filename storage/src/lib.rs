//! One node's engine.

pub mod error;

pub use error::{Error, Result};
