//! One node's engine.
