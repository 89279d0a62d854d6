//! Decoding and storing, seen from outside.

mod allocations;
mod contract;
mod exposition;
mod hostile;
mod oracle;
mod sink;
