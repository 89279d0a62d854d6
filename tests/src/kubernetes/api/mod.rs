//! A Kubernetes API server in memory.
//!
//! ```text
//!  bytes ─► answer ──► request: which resource, which verb          faults: what goes wrong on purpose
//!              │                                                    audit: who asked for what
//!              ├─────► state: the verbs ─► rules, definition: what an object of this kind may be
//!              │          │                managers, fields, shape: who wrote which field, and server-side apply
//!              │          ▼                patch: the other patches
//!              │        store: objects, one counter of versions, the last changes
//!              │          │
//!              ├─────► watch ◄─┘           garbage, disruption: what happens by itself when something has changed
//!              └─────► present, table: objects as clients want to see them
//! ```
//!
//! Objects are JSON, and what is no rule here is taken as it comes. Everything but sockets and time is a function of the [`state::State`],
//! which one lock holds; nothing waits with it.

pub mod answer;
pub mod audit;
pub mod definition;
pub mod delete;
pub mod discovery;
pub mod disruption;
pub mod events;
pub mod failure;
pub mod faults;
pub mod fields;
pub mod garbage;
pub mod jsonpath;
pub mod kinds;
pub mod managers;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pods;
pub mod present;
pub mod quantity;
pub mod request;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod server;
pub mod shape;
pub mod state;
pub mod store;
pub mod table;
pub mod watch;

pub use audit::Request;
pub use faults::{Fault, Faults};
pub use server::ApiServer;

use audit::Audit;
use parking_lot::Mutex;
use state::State;

/// What all connections share.
#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    faults: Faults,
    audit: Audit,
}
