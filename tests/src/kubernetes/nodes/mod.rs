//! Machines, and the controllers that put work on them: with [`api`](super::api), a cluster of Kubernetes.
//!
//! ```text
//!            world: what the API server says there is
//!      ┌─────────┬──────┴──────┬───────────┐               ┌────────── each host ──────────┐
//!  scheduler  lifecycle     volumes       dns              kubelet ── host ── record
//!  binds      silent nodes, binder,       names of pods    shell      step    pods, containers
//!  pods       eviction,     provisioner,                                │
//!             collection    attaching                                 process: mounts, network namespace, chroot
//! ```
//!
//! All are ordinary clients of the API, level-triggered: they look at everything, decide, and do; what fails is decided anew. `scheduler`,
//! `lifecycle`, `volumes`, `status` and `launch` decide and do nothing else; `controllers` and `kubelet` do. Containers are real processes
//! with a root, an address and a name of their own, so a database in them lives under what it lives under in a cluster: it is killed, its
//! disk is wiped, its machine goes dark.
//!
//! The clocks of a real control plane run for minutes; here they are [`Parameters`]. Left out are priorities and preemption, spread
//! constraints, limits of memory, init containers and hooks other than by HTTP.
//!
//! Order of locks: `shared.machines` is the only one that is held while others may be wanted, and none is.

pub mod affinity;
pub mod cluster;
pub mod controllers;
pub mod device;
pub mod dns;
pub mod faults;
pub mod host;
pub mod kubelet;
pub mod launch;
pub mod lifecycle;
pub mod network;
pub mod parameters;
pub mod probe;
pub mod process;
pub mod quantity;
pub mod record;
pub mod scheduler;
pub mod shared;
pub mod status;
pub mod volumes;
pub mod world;

pub use cluster::{CLASS_LOCAL, CLASS_LOCAL_RETAIN, CLASS_NETWORK, Kubernetes};
pub use faults::Disk;
pub use parameters::Parameters;
