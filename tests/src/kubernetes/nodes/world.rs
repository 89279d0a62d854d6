//! What the API server says there is, as the controllers and kubelets see it.

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::runtime::reflector::{Lookup, ObjectRef, Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::watch;

/// Where leases of nodes are.
pub const LEASES: &str = "kube-node-lease";

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Machines.
    pub nodes: Vec<Arc<Node>>,
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// All claims.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// All volumes.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// Storage classes.
    pub classes: Vec<Arc<StorageClass>>,
    /// Which volume is attached where.
    pub attachments: Vec<Arc<VolumeAttachment>>,
    /// Signs of life of nodes.
    pub leases: Vec<Arc<Lease>>,
    /// Names of pods.
    pub services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// Asks the API server, rather than what was heard from it before.
    pub async fn live(client: &Client) -> Result<Snapshot> {
        Ok(Snapshot {
            nodes: list(Api::all(client.clone())).await?,
            pods: list(Api::all(client.clone())).await?,
            claims: list(Api::all(client.clone())).await?,
            volumes: list(Api::all(client.clone())).await?,
            classes: list(Api::all(client.clone())).await?,
            attachments: list(Api::all(client.clone())).await?,
            leases: list(Api::namespaced(client.clone(), LEASES)).await?,
            services: list(Api::all(client.clone())).await?,
        })
    }

    /// The same, with the pods that have no node yet on the node that their volumes were ordered for: what is promised to one is not promised to another.
    pub fn with_promises(mut self) -> Snapshot {
        let promised = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref()?;
            let claims = Snapshot::claims_of(pod).filter_map(|name| self.claim(namespace, name));
            claims.filter_map(|claim| claim.annotations().get(super::volumes::SELECTED).cloned()).next()
        };
        let placed = |pod: &Arc<Pod>| match (super::scheduler::node_of(pod), promised(pod)) {
            (None, Some(node)) => {
                let mut pod = Pod::clone(pod);
                pod.spec.get_or_insert_default().node_name = Some(node);
                Arc::new(pod)
            }
            _ => pod.clone(),
        };
        self.pods = self.pods.iter().map(placed).collect();
        self
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))
    }

    /// A claim by name.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.iter().find(|claim| {
            claim.metadata.name.as_deref() == Some(name)
                && claim.metadata.namespace.as_deref() == Some(namespace)
        })
    }

    /// A volume by name.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))
    }

    /// The storage class of a claim.
    pub fn class(&self, claim: &PersistentVolumeClaim) -> Option<&Arc<StorageClass>> {
        let name = claim.spec.as_ref()?.storage_class_name.as_deref()?;
        self.classes.iter().find(|class| class.metadata.name.as_deref() == Some(name))
    }

    /// The claims that a pod names.
    pub fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        volumes.iter().filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
    }
}

async fn list<K>(api: Api<K>) -> Result<Vec<Arc<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

/// Keeps what was heard, and says when there is something new.
pub struct World {
    nodes: Store<Node>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    attachments: Store<VolumeAttachment>,
    leases: Store<Lease>,
    services: Store<Service>,
    news: watch::Sender<()>,
}

impl World {
    /// A world, and what must run for it to hear anything.
    pub fn new(client: &Client) -> (World, Vec<BoxFuture<'static, ()>>) {
        let (news, _) = watch::channel(());
        let mut watches = vec![];
        let world = World {
            nodes: follow(Api::all(client.clone()), &news, &mut watches),
            pods: follow(Api::all(client.clone()), &news, &mut watches),
            claims: follow(Api::all(client.clone()), &news, &mut watches),
            volumes: follow(Api::all(client.clone()), &news, &mut watches),
            classes: follow(Api::all(client.clone()), &news, &mut watches),
            attachments: follow(Api::all(client.clone()), &news, &mut watches),
            leases: follow(Api::namespaced(client.clone(), LEASES), &news, &mut watches),
            services: follow(Api::all(client.clone()), &news, &mut watches),
            news,
        };
        (world, watches)
    }

    /// Waits until everything has been listed once.
    pub async fn heard(&self) {
        // These fail only when nobody listens any more; then there is nothing to wait for.
        let _ = self.nodes.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.claims.wait_until_ready().await;
        let _ = self.volumes.wait_until_ready().await;
        let _ = self.classes.wait_until_ready().await;
        let _ = self.attachments.wait_until_ready().await;
        let _ = self.leases.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
    }

    /// Wakes whoever waits for news.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// What was heard until now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            nodes: self.nodes.state(),
            pods: self.pods.state(),
            claims: self.claims.state(),
            volumes: self.volumes.state(),
            classes: self.classes.state(),
            attachments: self.attachments.state(),
            leases: self.leases.state(),
            services: self.services.state(),
        }
    }

    /// The pods of a node, as heard until now.
    pub fn pods_of(&self, node: &str) -> Vec<Arc<Pod>> {
        self.pods
            .state_filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
    }

    /// A pod, as heard until now.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }
}

fn follow<K>(api: Api<K>, news: &watch::Sender<()>, watches: &mut Vec<BoxFuture<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + ResourceExt,
    K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (reader, writer) = store();
    let news = news.clone();
    let events = reflector(writer, watcher(api, watcher::Config::default())).default_backoff();
    let follow = events.for_each(move |_| {
        news.send_replace(());
        std::future::ready(())
    });
    watches.push(follow.boxed());
    reader
}
