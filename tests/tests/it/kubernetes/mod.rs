//! The control plane that is none, and the operator with it.

mod api;
