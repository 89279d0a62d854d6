//! A control plane of Kubernetes without Kubernetes, for tests of the operator.
//!
//! ```text
//!   the operator (a process)    kubectl    controllers and kubelets that are not real (clients, too)
//!               └──────────────────┴───────────────────┘
//!                                  │  the HTTP API of Kubernetes
//!                           api::ApiServer
//!              objects in memory, and the rules that the real one holds them to
//! ```
//!
//! Everything meets at the HTTP API, so that each part can be changed for the real one: the operator and kubectl work with this server as they
//! do with one of version 1.36, and what plays the kubelet here would do so there. What is imitated is what a client can see, with its
//! conflicts, its statuses and its order of events; nothing is kept on disk, and nobody is asked who he is.

pub mod api;
pub mod kubectl;
pub mod nodes;
pub mod service;
