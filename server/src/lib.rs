//! The node: configuration, HTTP API, limits, own metrics, start and stop; and the command line.

pub mod app;
pub mod args;
pub mod client;
pub mod config;
pub mod exit;
pub mod gate;
pub mod http;
pub mod latency;
pub mod log;
pub mod metrics;
pub mod namespaces;
pub mod node;
pub mod pool;
pub mod process;
pub mod safety;
pub mod self_scrape;
pub mod time;
