//! What the operator says of itself: `/metrics`, `/healthz`, `/readyz`.

use crate::plan::{Action, Plan, Request};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

/// A cluster, and something of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    namespace: String,
    cluster: String,
    what: String,
}

/// The metrics.
pub struct Metrics {
    registry: Registry,
    looks: Counter,
    errors: Family<Kind, Counter>,
    seconds: Histogram,
    actions: Family<Kind, Counter>,
    deferred: Family<Of, Counter>,
    phases: Family<Of, Gauge>,
    steps: Family<Of, Gauge>,
    initializing: Family<Of, Gauge>,
    /// What was said of each cluster last, to take away what is not so any more.
    said: Mutex<BTreeMap<(String, String), BTreeSet<String>>>,
    /// This process is the one that acts.
    pub leads: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("sarsen_operator");
        let metrics = Metrics {
            looks: Counter::default(),
            errors: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            actions: Family::default(),
            deferred: Family::default(),
            phases: Family::default(),
            steps: Family::default(),
            initializing: Family::default(),
            said: Mutex::default(),
            leads: AtomicBool::new(false),
            registry: Registry::default(),
        };
        registry.register("reconcile", "Looks at a cluster", metrics.looks.clone());
        registry.register(
            "reconcile_errors",
            "Looks and actions that failed, by what failed",
            metrics.errors.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Time of a look with what was done",
            metrics.seconds.clone(),
        );
        registry.register("actions", "What was done, by kind", metrics.actions.clone());
        registry.register(
            "gate_deferred",
            "What was put off, by the gate that was closed",
            metrics.deferred.clone(),
        );
        registry.register("cluster_phase", "1 for the phase that a cluster is in", metrics.phases.clone());
        registry.register(
            "replacements",
            "Instances that are being replaced, by step",
            metrics.steps.clone(),
        );
        registry.register(
            "shards_initializing",
            "Copies that are being made, by group",
            metrics.initializing.clone(),
        );
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    /// A look at a cluster and what came of it.
    pub fn look(&self, namespace: &str, cluster: &str, plan: &Plan, took: Duration) {
        self.looks.inc();
        self.seconds.observe(took.as_secs_f64());
        let of = |what: &str| Of { namespace: namespace.into(), cluster: cluster.into(), what: what.into() };
        for deferral in &plan.deferrals {
            self.deferred.get_or_create(&of(deferral.reason.word())).inc();
        }
        let status = &plan.status;
        let mut steps: BTreeMap<&str, i64> = BTreeMap::new();
        for replacement in &status.replacements {
            *steps.entry(&replacement.step).or_default() += 1;
        }
        let mut now = BTreeSet::new();
        now.insert(format!("phase {}", status.phase));
        self.phases.get_or_create(&of(&status.phase)).set(1);
        for (step, count) in &steps {
            now.insert(format!("step {step}"));
            self.steps.get_or_create(&of(step)).set(*count);
        }
        for group in &status.groups {
            now.insert(format!("group {}", group.name));
            self.initializing.get_or_create(&of(&group.name)).set(i64::from(group.initializing_shards));
        }
        let key = (namespace.to_owned(), cluster.to_owned());
        let before =
            self.said.lock().expect("BUG: a holder panicked").insert(key, now.clone()).unwrap_or_default();
        self.take_back(before.difference(&now), &of);
    }

    /// A cluster that is no more.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let of = |what: &str| Of { namespace: namespace.into(), cluster: cluster.into(), what: what.into() };
        let key = (namespace.to_owned(), cluster.to_owned());
        let before = self.said.lock().expect("BUG: a holder panicked").remove(&key).unwrap_or_default();
        self.take_back(before.iter(), &of);
    }

    fn take_back<'a>(&self, said: impl Iterator<Item = &'a String>, of: &dyn Fn(&str) -> Of) {
        for said in said {
            match said.split_once(' ') {
                Some(("phase", phase)) => drop(self.phases.remove(&of(phase))),
                Some(("step", step)) => drop(self.steps.remove(&of(step))),
                Some((_, group)) => drop(self.initializing.remove(&of(group))),
                None => {}
            }
        }
    }

    /// Something was done.
    pub fn acted(&self, action: &Action) {
        let kind = match action {
            Action::AddFinalizer | Action::RemoveFinalizer => "finalizer",
            Action::CreateToken => "create_secret",
            Action::Apply(_) => "apply",
            Action::DeleteShared(_) => "delete_shared",
            Action::CreateClaim { .. } => "create_claim",
            Action::Note { .. } => "annotate_claim",
            Action::ExpandClaim { .. } => "expand_claim",
            Action::DeleteClaim { .. } => "delete_claim",
            Action::CreatePod { .. } => "create_pod",
            Action::DeletePod { .. } => "delete_pod",
            Action::SetGate { .. } => "set_gate",
            Action::Ask(Request::Create { .. }) => "database_create",
            Action::Ask(Request::Add { .. }) => "database_add",
            Action::Ask(Request::Replace { .. }) => "database_replace",
            Action::Ask(Request::Remove { .. }) => "database_remove",
            Action::Ask(Request::Cancel { .. }) => "database_cancel",
            Action::Ask(Request::Heal { .. }) => "database_heal",
        };
        self.actions.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// Something failed.
    pub fn failed(&self, what: &str) {
        self.errors.get_or_create(&Kind { kind: what.into() }).inc();
    }

    /// As a scrape gets it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("BUG: a string takes everything");
        out
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, say: not a reason to spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: hyper::Request<Incoming>| {
                let (status, body) = match request.uri().path() {
                    "/metrics" => (StatusCode::OK, metrics.text()),
                    "/healthz" => (StatusCode::OK, "ok\n".into()),
                    // One that stands by is ready as well: it takes over at any moment.
                    "/readyz" if metrics.leads.load(Ordering::Relaxed) => (StatusCode::OK, "leads\n".into()),
                    "/readyz" => (StatusCode::OK, "stands by\n".into()),
                    _ => (StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n".into()),
                };
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let response = Response::builder()
                    .status(status)
                    .header(header::CONTENT_TYPE, if body.ends_with("# EOF\n") { kind } else { "text/plain" })
                    .body(Full::new(Bytes::from(body)));
                async move { Ok::<_, Infallible>(response.expect("BUG: a valid response")) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}
