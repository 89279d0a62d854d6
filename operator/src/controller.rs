//! Looks at each cluster when something changed, or when it is time, and does what the plan says.
//!
//! ```text
//! watches ─► which cluster? ─► observe (cached) ─► plan ─┬─ takes nothing away ───────────────────► act, one after the other ─► status, Events
//!                                                        └─ does ─► observe (anew) ─► plan again ─►
//! ```

use crate::act::{self as doing, Hands, set_finalizer};
use crate::api::{ClusterStatus, SarsenCluster, names};
use crate::database::Client as Database;
use crate::metrics::Metrics;
use crate::observe::{Eyes, Key, Look, Triggers};
use crate::plan::{self, Ms, Observed, Plan, Wanted};
use crate::render::MANAGER;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two looks at a cluster of which nothing changes.
const IDLE: Duration = Duration::from_secs(10);
/// Between two looks at one that is not as it should be.
const BUSY: Duration = Duration::from_secs(2);
/// After something was done: to see what came of it.
const SOON: Duration = Duration::from_millis(500);
/// After something failed.
const RETRY: Duration = Duration::from_secs(5);
/// Clusters that are looked at at a time.
const CONCURRENCY: u16 = 4;
/// Changes that come in one go are one.
pub const DEBOUNCE: Duration = Duration::from_millis(100);

/// What helps if the API server does not know our kinds.
pub const KINDS: &str = "if they are not known, apply `sarsen-operator manifests --only crds`";
/// The longest note of an Event; the API server takes 1024 bytes.
const NOTE_CHARS_MAX: usize = 1000;

/// What a look needs.
pub struct Context {
    /// For Kubernetes.
    pub client: Client,
    /// What there is.
    pub eyes: Eyes,
    /// For the database.
    pub database: Database,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// For Events.
    pub recorder: Recorder,
    /// What was put off last, by cluster, so that an Event is written once.
    pub put_off: Mutex<HashMap<Key, BTreeSet<(String, &'static str)>>>,
}

/// The object may be one that this version cannot read.
type Guarded = DeserializeGuard<SarsenCluster>;

/// Why a look came to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server could not be asked, or told.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The watches have ended, as they do when the process does.
    #[error(transparent)]
    Ended(#[from] kube::runtime::reflector::store::WriterDropped),
}

/// Runs until `stop`.
pub async fn run(
    context: Arc<Context>,
    namespace: &str,
    triggers: Triggers,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let clusters = Api::<Guarded>::namespaced(context.client.clone(), namespace);
    let owned = stream::select_all(triggers.owned).filter_map(|touched| async {
        match touched {
            Ok(key) if !key.name.is_empty() => Some(key.object()),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "a watch was cut off; it begins anew");
                None
            }
        }
    });
    Controller::new(clusters, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(owned)
        .reconcile_all_on(stream::select_all(triggers.any))
        .graceful_shutdown_on(stop)
        .run(reconcile, failed, context.clone())
        .for_each(|looked| {
            use kube::runtime::controller::Error::{ObjectNotFound, QueueError};
            match looked {
                // Something that belonged to a cluster was touched, and the cluster is no more.
                Err(ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    context.forget(&Key { namespace, name: gone.name });
                }
                Err(QueueError(error)) => {
                    tracing::warn!(%error, "SarsenClusters cannot be watched, trying again; {KINDS}");
                }
                // Each failure is told where it is handled.
                _ => {}
            }
            std::future::ready(())
        })
        .await;
}

impl Context {
    /// A cluster that is no more.
    fn forget(&self, key: &Key) {
        self.eyes.forget(key);
        self.put_off.lock().expect("BUG: a holder panicked").remove(key);
        self.metrics.forget(&key.namespace, &key.name);
    }

    /// Writes an Event. Nothing depends on Events: one that cannot be written is none.
    pub async fn event(&self, about: &ObjectReference, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.into(),
            note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(%error, reason, "an Event could not be written");
        }
    }
}

fn failed(cluster: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    tracing::warn!(cluster = cluster.name_any(), %error, "could not look after the cluster; trying again");
    context.metrics.failed("look");
    Action::requeue(RETRY)
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let key = Key { namespace: guarded.namespace().unwrap_or_default(), name: guarded.name_any() };
    let is_going = guarded.meta().deletion_timestamp.is_some();
    if is_going && !guarded.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER) {
        // Nothing is ours to do, or to say, any more.
        context.forget(&key);
        return Ok(Action::await_change());
    }
    let cluster = match &guarded.0 {
        Ok(cluster) => cluster,
        // Whether its claims were to be deleted cannot be known: they stay.
        Err(_) if is_going => {
            set_finalizer(&context.client, &*guarded, names::FINALIZER, false).await?;
            return Ok(Action::requeue(SOON));
        }
        Err(invalid) => {
            let why =
                format!("the specification cannot be read: {}; correct it with kubectl edit", invalid.error);
            unreadable(&context, &guarded, why).await?;
            return Ok(Action::requeue(IDLE));
        }
    };
    // A cache that is not filled yet would say that there is nothing.
    context.eyes.caches.filled().await?;
    let mut observed = context.eyes.observe(cluster, Look::Cached).await?;
    let mut plan = plan::plan(&observed);
    if plan.needs_certainty() {
        // What takes something away is decided on what is so now, not on what a cache says.
        observed = context.eyes.observe(cluster, Look::Anew).await?;
        plan = plan::plan(&observed);
    }
    let outcome = act(&context, &key, cluster, &observed, &plan).await;
    tell(&context, &key, cluster, &plan).await;
    if plan.actions.contains(&plan::Action::RemoveFinalizer) {
        // The object may be gone by now.
        return Ok(Action::requeue(if outcome == Outcome::Failed { RETRY } else { SOON }));
    }
    if cluster.status.as_ref() != Some(&plan.status) {
        write_status::<SarsenCluster>(&context.client, &key.namespace, &key.name, &plan.status).await?;
    }
    context.metrics.look(&key.namespace, &key.name, &plan, started.elapsed());
    Ok(Action::requeue(again(&plan, observed.now, outcome)))
}

/// What came of the actions of a plan, from well to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// There were none.
    Nothing,
    /// All are done.
    Done,
    /// What one was decided on has changed; the rest was not done.
    Outdated,
    /// One failed; the rest was not done.
    Failed,
}

async fn act(
    context: &Context,
    key: &Key,
    cluster: &SarsenCluster,
    observed: &Observed,
    plan: &Plan,
) -> Outcome {
    let hands = Hands { client: &context.client, database: &context.database, cluster, observed };
    let mut worst = Outcome::Nothing;
    for action in &plan.actions {
        match hands.act(action).await {
            Ok(()) => {
                tracing::info!(cluster = observed.name, %action, "done");
                context.metrics.acted(action);
                worst = worst.max(Outcome::Done);
            }
            // A person has to do something about it. It is said until they have, and the rest is done meanwhile.
            Err(doing::Error::Taken { what, whose }) => {
                let why = doing::taken(&what, &whose);
                if context.eyes.is_taken(key, &what, &why) {
                    tracing::warn!(cluster = observed.name, %action, why, "not done");
                    context.event(&cluster.object_ref(&()), true, "NameTaken", &why).await;
                }
                worst = Outcome::Failed;
            }
            Err(error) if error.is_outdated() => {
                tracing::info!(cluster = observed.name, %action, %error, "not done: what it was decided on has changed");
                return Outcome::Outdated;
            }
            Err(error) => {
                tracing::warn!(cluster = observed.name, %action, %error, "not done; trying again");
                context.metrics.failed("action");
                return Outcome::Failed;
            }
        }
    }
    worst
}

/// When to look again at the latest.
fn again(plan: &Plan, now: Ms, outcome: Outcome) -> Duration {
    let usual = match outcome {
        Outcome::Failed => RETRY,
        Outcome::Done | Outcome::Outdated => SOON,
        Outcome::Nothing if matches!(plan.status.phase.as_str(), "Ready" | "Paused" | "Invalid") => IDLE,
        Outcome::Nothing => BUSY,
    };
    let due = plan.again.map_or(usual, |at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)));
    usual.min(due).max(DEBOUNCE)
}

/// Writes the status of an object. One that is gone needs none.
pub async fn write_status<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &impl Serialize,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let patch = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status });
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await {
        Err(kube::Error::Api(gone)) if gone.is_not_found() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// A specification that this version cannot read: whatever runs goes on running, and a person is told.
async fn unreadable(context: &Context, guarded: &Guarded, why: String) -> Result<(), Error> {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    // What was said of it before is still so, as far as it can be read.
    let kind = ApiResource::erase::<SarsenCluster>(&());
    let objects = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &kind);
    let known = objects.get_opt(&name).await?.and_then(|object| {
        let status = object.data.get("status").cloned()?;
        serde_json::from_value::<ClusterStatus>(status).ok()
    });
    let observed = Observed {
        now: jiff::Timestamp::now().as_millisecond(),
        name,
        status: known.clone().unwrap_or_default(),
        generation: guarded.meta().generation.unwrap_or(0),
        wanted: Wanted { problems: vec![why], ..Wanted::default() },
        ..Observed::default()
    };
    let status = plan::plan(&observed).status;
    if known.as_ref() == Some(&status) {
        return Ok(());
    }
    write_status::<SarsenCluster>(&context.client, &namespace, &observed.name, &status).await
}

/// Writes Events: of what was decided, and of what is put off and was not before.
async fn tell(context: &Context, key: &Key, cluster: &SarsenCluster, plan: &Plan) {
    let now: BTreeSet<(String, &'static str)> =
        plan.deferrals.iter().map(|deferral| (deferral.instance.clone(), deferral.reason.word())).collect();
    let before =
        context.put_off.lock().expect("BUG: a holder panicked").insert(key.clone(), now).unwrap_or_default();
    let put_off = plan
        .deferrals
        .iter()
        .filter(|deferral| !before.contains(&(deferral.instance.clone(), deferral.reason.word())));
    let put_off = put_off.map(|deferral| {
        let about =
            if deferral.instance.is_empty() { String::new() } else { format!("{}: ", deferral.instance) };
        (!deferral.reason.is_usual(), deferral.reason.word(), format!("{about}{}", deferral.message))
    });
    let told = plan.told.iter().map(|told| (told.warning, told.reason, told.message.clone()));
    let reference = cluster.object_ref(&());
    for (warning, reason, message) in told.chain(put_off) {
        context.event(&reference, warning, reason, &message).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_soon_it_looks_again_depends_on_what_came_of_it() {
        let plan = |phase: &str, again: Option<Ms>| {
            let mut plan = Plan { again, ..Plan::default() };
            plan.status.phase = phase.into();
            plan
        };
        let at = |phase: &str, again, outcome| super::again(&plan(phase, again), 1_000_000, outcome);
        assert_eq!(at("Ready", None, Outcome::Nothing), IDLE);
        assert_eq!(at("Paused", None, Outcome::Nothing), IDLE);
        assert_eq!(at("Invalid", None, Outcome::Nothing), IDLE);
        assert_eq!(at("Degraded", None, Outcome::Nothing), BUSY);
        for outcome in [Outcome::Done, Outcome::Outdated] {
            assert_eq!(at("Ready", None, outcome), SOON);
        }
        assert_eq!(at("Degraded", None, Outcome::Failed), RETRY);
        // A grace that ends before that is not overslept, one that has ended long ago is no reason to spin, and one that ends later is one to wait for.
        assert_eq!(at("Ready", Some(1_003_000), Outcome::Nothing), Duration::from_secs(3));
        assert_eq!(at("Ready", Some(0), Outcome::Nothing), DEBOUNCE);
        assert_eq!(at("Ready", Some(9_000_000), Outcome::Nothing), IDLE);
    }

    #[test]
    fn the_worst_of_what_came_of_several_actions_counts() {
        use Outcome::{Done, Failed, Nothing, Outdated};
        assert!(Nothing < Done && Done < Outdated && Outdated < Failed);
    }
}
