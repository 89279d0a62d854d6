//! A node that is to join looks for a cluster at the addresses of `--join`, one after the other, for as long as it takes.
//!
//! It asks whose the node there is before it names itself, and remembers that cluster first. So whoever has found none is known to none, and may
//! make a cluster when it is told to ([`super::Event::Create`]), whatever was lost on the way or with the power.

use super::controller::Controller;
use super::event::{Effect, Target};
use super::message::Call;
use super::proposal::Purpose;
use std::collections::BTreeMap;

/// What it remembers.
#[derive(Default)]
pub(super) struct Search {
    next_ms: u64,
    count: usize,
    /// By address, why there was none.
    found_none: BTreeMap<String, String>,
}

impl Controller {
    /// Asks the next address, as long as no cluster is known.
    pub(super) fn seek(&mut self) {
        let asks = || self.calls.values().any(|(purpose, _)| matches!(purpose, Purpose::Search(_)));
        if self.state.is_some() || !self.file.waits() || self.now_ms < self.search.next_ms || asks() {
            return;
        }
        if self.search.count == 0 {
            self.say(format!("looking for a cluster at {}", self.join.join(", ")));
        }
        // A first look at every address is taken at once.
        let is_known = self.search.count + 1 >= self.join.len();
        self.search.next_ms = self.now_ms + if is_known { self.options.retry_ms } else { 0 };
        let Some(address) = self.join.get(self.search.count % self.join.len().max(1)).cloned() else {
            return;
        };
        self.search.count += 1;
        self.call(Target::Address(address.clone()), Call::Whose.encode(0), Purpose::Search(address));
    }

    /// There is a cluster at an address: this node belongs to it from now on, or to none.
    pub(super) fn found(&mut self, address: String, cluster: u128) {
        if self.state.is_some() || !self.file.waits() || cluster == 0 {
            return;
        }
        self.file.cluster = cluster;
        self.out.push(Effect::Remember(self.file));
        self.propose_join();
        self.ask_first(Target::Address(address));
    }

    /// There is none yet.
    pub(super) fn found_none(&mut self, address: String, why: String) {
        if self.state.is_some() || !self.file.waits() {
            return;
        }
        self.search.found_none.insert(address, why);
        let tried: Vec<String> =
            self.search.found_none.iter().map(|(address, why)| format!("{address}: {why}")).collect();
        self.say(format!(
            "waiting for a cluster to join, or to be told to make one (`sarsen cluster create`): {}",
            tried.join("; ")
        ));
    }
}
