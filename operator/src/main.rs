//! `sarsen-operator`.

fn main() {}
