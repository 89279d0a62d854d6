//! One node's engine.

pub mod codec;
pub mod error;
pub mod merge;

pub use error::{Error, Result};
