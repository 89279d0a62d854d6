//! Decoding and storing, seen from outside.

mod allocations;
mod contract;
mod hostile;
mod oracle;
mod sink;
