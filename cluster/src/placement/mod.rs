//! Which node holds which shard: a pure function of what was, the nodes and the policy.
//!
//! ```text
//!   placement + nodes + policy ── compute ──▶ Target ── plan ──▶ moves, each with its reason
//!       ▲                                        │                  │
//!       └──────── adopt (no data yet) ───────────┘                  │
//!       └──────── begin, cut over, finish (or cancel): `Placement::change` ─┘
//! ```
//!
//! [`compute`] promises, in this order, and `docs/placement.md` says in full:
//!
//! 1. every shard has its replication factor in copies, or as many as there are nodes;
//! 2. the copies of a shard are as spread over the failure domains as they can be, the highest level first ([`spread`]);
//! 3. every node and every domain holds its fair share by capacity, rounded down or up ([`share`]);
//! 4. given all that, the fewest copies are made ([`flow`] proves it);
//! 5. the same input gives the same output, whatever the order of the nodes.
//!
//! Nothing here knows a clock, randomness, files or the network.

mod codec;
mod error;
mod flow;
mod node;
mod plan;
mod share;
mod spread;
mod table;
mod target;
mod tree;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use node::{Domain, Node, NodeId, NodeState, Policy};
pub use plan::{Move, Plan, Reason, plan};
pub use table::{Change, Phase, Placement, Replica, ReplicaState};
pub use target::{Load, Target, compute};
