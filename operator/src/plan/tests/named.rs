//! Histories that are worth a name.
