//! `sarsen-operator run`: one process of possibly several, of which one acts.

use crate::args::RunArgs;
use crate::controller::{self, Context};
use crate::database::Client as Database;
use crate::metrics::{self, Metrics};
use crate::namespace;
use crate::observe::{Caches, Eyes, Sight};
use crate::render::MANAGER;
use anyhow::{Context as _, bail};
use hyper::header::{HeaderValue, USER_AGENT};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::api::ListParams;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, Config, Resource};
use kube_lease_manager::LeaseManagerBuilder;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The lease of the process that acts.
const LEASE: &str = "sarsen-operator";
/// How long it lasts, and how long before its end it is renewed, in seconds.
const LEASE_SECONDS: (u64, u64) = (15, 5);
/// How long a look that is under way may take when the process is told to end.
const STOP: Duration = Duration::from_secs(10);

/// Runs until it is told to end, or is not the one that acts any more.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&args.listen).await.with_context(|| {
        format!("listening on {} for /metrics and probes; choose another address with --listen", args.listen)
    })?;
    let metrics = Arc::new(Metrics::default());
    tokio::spawn(metrics::serve(listener, metrics.clone()));
    let mut config = Config::infer()
        .await
        .context("no Kubernetes: neither a service account nor a KUBECONFIG was found")?;
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(concat!("sarsen-operator/", env!("CARGO_PKG_VERSION")))));
    // What fails is decided anew, on what is so then.
    config.default_retry = false;
    let client = Client::try_from(config).context("making a client for Kubernetes")?;
    let mut stopped = told_to_end()?;

    let lease = LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(&args.namespace)
        .with_identity(&args.identity)
        .with_duration(LEASE_SECONDS.0)
        .with_grace(LEASE_SECONDS.1)
        .build()
        .await
        .context("preparing the lease of the operator")?;
    let (mut leads, leasing) = lease.watch().await;
    tracing::info!(namespace = args.namespace, identity = args.identity, "waiting for the lease");
    tokio::select! {
        led = leads.wait_for(|leads| *leads) => drop(led.context("the lease of the operator cannot be had")?),
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    metrics.leads.store(true, Ordering::Relaxed);
    tracing::info!("this process acts");

    let lost = {
        let mut leads = leads.clone();
        async move { drop(leads.wait_for(|leads| !*leads).await) }
    };
    let end = {
        let mut stopped = stopped.clone();
        async move { drop(stopped.wait_for(|stopped| *stopped).await) }
    };
    let (begin_end, ended) = watch::channel(false);
    let acting = tokio::spawn(act(client, args, metrics, ended));
    let was_told = tokio::select! {
        () = end => true,
        () = lost => false,
    };
    begin_end.send_replace(true);
    // What is under way finishes. If it does not, it is no worse than if the machine had failed: nothing rests on being alone.
    let _ = tokio::time::timeout(STOP, acting).await;
    drop(leads);
    if was_told {
        // The next one need not wait for the lease to run out.
        let _ = tokio::time::timeout(STOP, leasing).await;
        return Ok(());
    }
    bail!("another process has the lease of the operator; this one ends, to be started again")
}

async fn wait(mut watched: watch::Receiver<bool>) {
    let _ = watched.wait_for(|is| *is).await;
}

/// SIGTERM and SIGINT.
fn told_to_end() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
    });
    Ok(receiver)
}

async fn act(
    client: Client,
    args: RunArgs,
    metrics: Arc<Metrics>,
    ended: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let sight =
        Sight { machines: may_list::<Node>(&client).await?, drivers: may_list::<CSIDriver>(&client).await? };
    if !sight.machines {
        tracing::warn!(
            "machines and volumes cannot be read: losses are known from pods and claims only, and a node that is lost is replaced when a person says so; \
             apply the ClusterRole of `sarsen-operator manifests --cluster-scoped` to change that"
        );
    }
    if sight.machines && !sight.drivers {
        tracing::warn!(
            "drivers of volumes cannot be read: the pod of a lost machine whose volume is of a network is freed by a person; \
             apply the ClusterRole of `sarsen-operator manifests --cluster-scoped`, which is newer than the one that is there"
        );
    }
    let has_monitors = has_monitors(&client).await;
    let (caches, triggers) = Caches::watch(&client, &args.namespace, sight);
    let database = Database::default();
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(args.identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        eyes: Eyes {
            client: client.clone(),
            caches,
            database: database.clone(),
            me: format!("{MANAGER}/{}", args.namespace),
            has_monitors,
            memory: HashMap::new().into(),
        },
        database,
        metrics,
        recorder: Recorder::new(client.clone(), reporter),
        put_off: HashMap::new().into(),
    });
    tokio::join!(
        controller::run(context.clone(), &args.namespace, triggers, wait(ended.clone())),
        namespace::run(context, &args.namespace, wait(ended)),
    );
    Ok(())
}

/// Whether what is of no namespace may be read, for which there is a ClusterRole.
async fn may_list<K>(client: &Client) -> anyhow::Result<bool>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone()).list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(false),
        Err(error) => Err(error).with_context(|| format!("asking Kubernetes for its {}", K::plural(&()))),
    }
}

/// Whether the kind ServiceMonitor is known.
async fn has_monitors(client: &Client) -> bool {
    let resources = client.list_api_group_resources("monitoring.coreos.com/v1").await;
    resources.is_ok_and(|list| list.resources.iter().any(|resource| resource.kind == "ServiceMonitor"))
}
