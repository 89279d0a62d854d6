//! Who asked for what, so that a test can say what was not asked for.

use super::request::Target;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Requests that are remembered.
const REQUESTS_MAX: usize = 50_000;

/// A request that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As in roles: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: &'static str,
    /// Such as `pods` or `sarsenclusters.sarsen.dev`.
    pub resource: String,
    /// Empty for all, and for what lies in none.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// Such as `status`.
    pub subresource: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// The status of HTTP.
    pub status: u16,
    /// Whether it was to change nothing.
    pub dry_run: bool,
}

impl Request {
    /// Of a target, answered with that status.
    pub fn new(verb: &'static str, target: &Target, user_agent: &str, status: u16, dry_run: bool) -> Request {
        Request {
            verb,
            resource: target.kind.resource(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
            user_agent: user_agent.into(),
            status,
            dry_run,
        }
    }

    /// Whether it was to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch") && !self.dry_run
    }
}

/// The last requests.
#[derive(Default)]
pub struct Audit {
    requests: Mutex<VecDeque<Request>>,
}

impl Audit {
    /// Remembers one.
    pub fn add(&self, request: Request) {
        let mut requests = self.requests.lock();
        if requests.len() == REQUESTS_MAX {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    /// All, in their order.
    pub fn all(&self) -> Vec<Request> {
        self.requests.lock().iter().cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.requests.lock().clear();
    }
}
