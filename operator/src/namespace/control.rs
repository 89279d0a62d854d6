//! Looks at each `SarsenNamespace` when it changed, or when it is time, and does the one step that is due.

use super::decide::{Database, Seen, Step, Verdict, decide, has_finalizer};
use crate::act::set_finalizer;
use crate::api::{NamespaceStatus, SarsenCluster, SarsenNamespace, names};
use crate::controller::{self, Error, write_status};
use crate::database::{self, Settings};
use crate::observe::{Key, ready_ips, seen};
use crate::plan::Pod;
use futures_util::StreamExt;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what is in force: somebody may change it past the object.
const IDLE: Duration = Duration::from_secs(60);
/// While there is nobody to ask.
const WAIT: Duration = Duration::from_secs(5);
/// Objects that are looked at at a time.
const CONCURRENCY: u16 = 2;

const PATH: &str = "/api/v1/admin/namespaces";

/// The object may be one that this version cannot read.
type Guarded = DeserializeGuard<SarsenNamespace>;

/// What a look needs.
struct Context {
    shared: Arc<controller::Context>,
    /// All objects of the Kubernetes namespace.
    all: Store<Guarded>,
}

/// Runs until `stop`. Pods are known from the caches, which the controller of clusters keeps going.
pub async fn run(
    shared: Arc<controller::Context>,
    namespace: &str,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let objects = Api::<Guarded>::namespaced(shared.client.clone(), namespace);
    let controller = Controller::new(objects, watcher::Config::default());
    let context = Context { all: controller.store(), shared };
    controller
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(controller::DEBOUNCE))
        .graceful_shutdown_on(stop)
        .run(reconcile, failed, Arc::new(context))
        .for_each(|looked| {
            if let Err(kube::runtime::controller::Error::QueueError(error)) = looked {
                tracing::warn!(%error, "SarsenNamespaces cannot be watched, trying again; {}", controller::KINDS);
            }
            std::future::ready(())
        })
        .await;
}

fn failed(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    tracing::warn!(namespace = object.name_any(), %error, "could not look after the SarsenNamespace; trying again");
    context.shared.metrics.failed("namespace");
    Action::requeue(WAIT)
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(invalid) => {
            let message =
                format!("the specification cannot be read: {}; correct it with kubectl edit", invalid.error);
            let verdict = Verdict { applied: Some(false), reason: "SpecInvalid", message };
            // What was said last cannot be read, either.
            context.say(guarded.meta(), &NamespaceStatus::default(), &verdict).await?;
            return Ok(Action::requeue(IDLE));
        }
    };
    context.shared.eyes.caches.filled().await?;
    let (database, ips) = context.ask(object).await?;
    let all = context.all.state();
    let all: Vec<&SarsenNamespace> = all.iter().filter_map(|other| other.0.as_ref().ok()).collect();
    let (step, verdict) = decide(&Seen { object, all: &all, database });
    let is_going = object.metadata.deletion_timestamp.is_some();
    let verdict = match step {
        // It is nobody's of us any more.
        Step::Nothing if is_going && !has_finalizer(object) => return Ok(Action::await_change()),
        Step::Nothing => verdict,
        Step::AddFinalizer => {
            context.set_finalizer(object, true).await?;
            // The object has changed: it is looked at again.
            return Ok(Action::requeue(WAIT));
        }
        Step::RemoveFinalizer => {
            context.let_go(object, is_going, &verdict).await?;
            return Ok(Action::requeue(WAIT));
        }
        Step::Apply(settings) => context.apply(object, &ips, settings, verdict).await,
        Step::Delete => match context.delete(object, &ips).await {
            Ok(()) => {
                context.let_go(object, true, &verdict).await?;
                return Ok(Action::await_change());
            }
            Err(verdict) => verdict,
        },
    };
    let last = object.status.clone().unwrap_or_default();
    context.say(&object.metadata, &last, &verdict).await?;
    Ok(Action::requeue(if verdict.applied.is_none() { WAIT } else { IDLE }))
}

impl Context {
    /// What the database says, and who can be asked further.
    async fn ask(&self, object: &SarsenNamespace) -> Result<(Database, Vec<String>), Error> {
        let (namespace, cluster) = (object.namespace().unwrap_or_default(), &object.spec.cluster);
        let clusters =
            Api::<DeserializeGuard<SarsenCluster>>::namespaced(self.shared.client.clone(), &namespace);
        let Some(found) = clusters.get_opt(cluster).await? else {
            return Ok((Database::Missing, Vec::new()));
        };
        let paused = found.annotations().get(names::PAUSE).is_some_and(|text| text != "false")
            || found.0.as_ref().is_ok_and(|cluster| cluster.spec.paused);
        if paused {
            return Ok((Database::Paused, Vec::new()));
        }
        let pods = self.shared.eyes.caches.pods_of(&Key { namespace, name: cluster.clone() });
        let pods: Vec<Pod> = pods.iter().filter_map(|pod| Some(seen::pod(pod)?.1)).collect();
        let ips: Vec<String> = ready_ips(&pods).into_iter().map(str::to_owned).collect();
        let ask = self.shared.database.any(ips.iter().map(String::as_str), Method::GET, PATH, None);
        let said = match ask.await {
            Ok(said) => database::namespaces(&said).map_or_else(
                || Database::Silent("the database lists its namespaces in a way that this version does not know: let the operator and the database be of versions that belong together".into()),
                Database::Says,
            ),
            Err(error) => Database::Silent(error.to_string()),
        };
        Ok((said, ips))
    }

    async fn apply(
        &self,
        object: &SarsenNamespace,
        ips: &[String],
        settings: Settings,
        applied: Verdict,
    ) -> Verdict {
        let wanted = json!({ object.spec.name.clone(): settings });
        let ips = ips.iter().map(String::as_str);
        match self.shared.database.any(ips, Method::POST, PATH, Some(&wanted)).await {
            Ok(_) => {
                tracing::info!(namespace = object.name_any(), %wanted, "applied");
                self.shared
                    .event(&object.object_ref(&()), false, "SettingsApplied", &wanted.to_string())
                    .await;
                applied
            }
            Err(error) => verdict(error),
        }
    }

    async fn delete(&self, object: &SarsenNamespace, ips: &[String]) -> Result<(), Verdict> {
        let (path, ips) = (format!("{PATH}/{}", object.spec.name), ips.iter().map(String::as_str));
        match self.shared.database.any(ips, Method::DELETE, &path, None).await {
            Ok(_) => Ok(()),
            // Somebody else has.
            Err(database::Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(verdict(error)),
        }
    }

    /// The object may go, or is not held any more.
    async fn let_go(&self, object: &SarsenNamespace, is_going: bool, verdict: &Verdict) -> Result<(), Error> {
        if is_going {
            self.shared.event(&object.object_ref(&()), false, verdict.reason, &verdict.message).await;
        }
        self.set_finalizer(object, false).await
    }

    async fn set_finalizer(&self, object: &SarsenNamespace, on: bool) -> Result<(), Error> {
        match set_finalizer(&self.shared.client, object, names::NAMESPACE_FINALIZER, on).await {
            // It is looked at again.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Writes the condition, if it is another one.
    async fn say(&self, meta: &ObjectMeta, last: &NamespaceStatus, verdict: &Verdict) -> Result<(), Error> {
        let status = status(meta.generation.unwrap_or(0), last, verdict, Timestamp::now());
        if status == *last {
            return Ok(());
        }
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        write_status::<SarsenNamespace>(&self.shared.client, &namespace, &name, &status).await
    }
}

/// What a failure to have something done means for the condition.
fn verdict(error: database::Error) -> Verdict {
    match error {
        database::Error::Refused { message, status, .. } if status.is_client_error() => {
            Verdict::refused(message)
        }
        other => Verdict::silent(other.to_string()),
    }
}

/// What was said last stays word by word if nothing is different, so that nothing is written.
fn status(generation: i64, last: &NamespaceStatus, verdict: &Verdict, now: Timestamp) -> NamespaceStatus {
    let word = match verdict.applied {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let same = last.conditions.iter().find(|last| last.type_ == "Applied" && last.status == word);
    // Whole seconds, as Kubernetes keeps times.
    let now = Timestamp::from_second(now.as_second()).unwrap_or_default();
    let condition = Condition {
        type_: "Applied".into(),
        status: word.into(),
        reason: verdict.reason.into(),
        message: verdict.message.clone(),
        last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        observed_generation: Some(generation),
    };
    NamespaceStatus { observed_generation: generation, conditions: vec![condition] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_changes_only_with_what_it_says() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let unknown = Verdict::silent("nobody answers".into());
        let first = status(1, &NamespaceStatus::default(), &unknown, at(100));
        assert_eq!(status(1, &first, &unknown, at(200)), first);
        let later = status(2, &first, &Verdict::silent("nobody at all".into()), at(200));
        assert_eq!((later.observed_generation, later.conditions.len()), (2, 1));
        // Still unknown, for another reason: that is no transition.
        assert_eq!(later.conditions[0].last_transition_time, Time(at(100)));
        let applied = status(2, &later, &Verdict::applied(), at(300));
        assert_eq!(
            (applied.conditions[0].status.as_str(), &applied.conditions[0].last_transition_time),
            ("True", &Time(at(300)))
        );
    }

    #[test]
    fn what_the_database_refuses_is_told_in_its_own_words_and_everything_else_is_unknown() {
        let refused = |status| database::Error::Refused {
            url: "http://x".into(),
            status,
            message: "takes at least 1h".into(),
        };
        assert_eq!(verdict(refused(StatusCode::BAD_REQUEST)), Verdict::refused("takes at least 1h".into()));
        assert_eq!(verdict(refused(StatusCode::SERVICE_UNAVAILABLE)).applied, None);
        assert_eq!(verdict(database::Error::Nobody).applied, None);
    }
}
