//! The settings of the namespace `default`, in force on this node.
//!
//! They are the cluster's, and every node follows them. What this node's configuration says of them counts only while it is alone in
//! its cluster: then it tells the namespace. With more nodes there is one truth, and a configuration that says otherwise is warned of.

use super::open;
use crate::config::{Auto, Config, Durability};
use crate::namespaces::{self, DEFAULT};
use cluster::node::Node;
use cluster::state::Command;
use cluster::view::{Namespace, View};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How often the cluster's settings are looked at. A change is in force everywhere within this time and what Raft needs.
const INTERVAL: Duration = Duration::from_secs(1);

/// The namespace as this node's configuration wants it, if that is another.
fn configured(config: &Config, now: &Namespace) -> Option<Namespace> {
    let mut wanted = *now;
    if let Auto::Set(retention) = config.retention {
        wanted.retention_ms = open::retention_ms(retention).map_or(0, i64::unsigned_abs);
    }
    if let Auto::Set(durability) = config.durability {
        wanted.fsync = durability == Durability::Fsync;
    }
    (wanted != *now).then_some(wanted)
}

/// What the cluster has agreed on for the one namespace.
pub fn default_of(view: &View) -> Namespace {
    view.namespaces.get(DEFAULT).copied().unwrap_or_default()
}

/// Brings the configuration and the namespace together, or says that they differ.
pub async fn reconcile(config: &Config, cluster: &Node) {
    let view = cluster.view();
    let now = default_of(&view);
    let Some(wanted) = configured(config, &now) else { return };
    let differ = |setting| (namespaces::get(&wanted, setting), namespaces::get(&now, setting));
    let told: Vec<String> = namespaces::SETTINGS
        .into_iter()
        .filter(|setting| differ(setting).0 != differ(setting).1)
        .map(|setting| {
            format!("{setting}: {} here, {} in the namespace", differ(setting).0, differ(setting).1)
        })
        .collect();
    let told = told.join("; ");
    if view.nodes.len() > 1 {
        tracing::warn!(
            told,
            "the configuration differs from the namespace `default`, which counts; change it with `sarsen ns apply`"
        );
        return;
    }
    let command = Command::ApplyNamespace { name: DEFAULT.to_string(), namespace: wanted };
    match cluster.propose(command).await {
        Ok(_) => tracing::info!(told, "the configuration was applied to the namespace `default`"),
        Err(error) => {
            tracing::warn!(%error, told, "the configuration could not be applied to the namespace `default`")
        }
    }
}

/// Keeps the engine as the namespace says.
pub struct Follower {
    cluster: Arc<Node>,
    engine: Arc<storage::Engine>,
    in_force: Namespace,
}

impl Follower {
    /// The engine is as the namespace says when this returns.
    pub fn new(cluster: &Arc<Node>, engine: &Arc<storage::Engine>) -> Follower {
        let in_force = default_of(&cluster.view());
        let follower = Follower { cluster: cluster.clone(), engine: engine.clone(), in_force };
        follower.apply();
        follower
    }

    fn apply(&self) {
        let retention = open::retention_ms(namespaces::retention(&self.in_force));
        let durability = open::durability(namespaces::durability(&self.in_force));
        self.engine.keep(retention, durability);
    }

    /// Follows until `stopped` resolves.
    pub async fn run(&mut self, stopped: impl Future<Output = ()>) {
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut stopped => return,
            }
            let now = default_of(&self.cluster.view());
            if now != self.in_force {
                let of = |namespace: &Namespace| {
                    namespaces::SETTINGS
                        .map(|setting| format!("{setting}={}", namespaces::get(namespace, setting)))
                        .join(" ")
                };
                tracing::info!(
                    was = of(&self.in_force),
                    is = of(&now),
                    "the namespace `default` has other settings"
                );
                self.in_force = now;
                self.apply();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Retention;

    #[test]
    fn only_what_is_set_here_is_wanted_of_the_namespace() {
        let now = Namespace { retention_ms: 86_400_000, ..Namespace::default() };
        assert_eq!(configured(&Config::default(), &now), None);
        let config = Config { durability: Auto::Set(Durability::Interval), ..Config::default() };
        assert_eq!(configured(&config, &now), Some(Namespace { fsync: false, ..now }));
        let config = Config { retention: Auto::Set(Retention::Forever), ..Config::default() };
        assert_eq!(configured(&config, &now), Some(Namespace { retention_ms: 0, ..now }));
        let config = Config { retention: Auto::Set(Retention::Millis(86_400_000)), ..Config::default() };
        assert_eq!(configured(&config, &now), None);
    }
}
