//! Caches of what is watched, and the streams that say when something changed.

use super::{seen, volumes};
use crate::api::names;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// What is known without asking.
pub struct Caches {
    /// Pods of ours.
    pub pods: Store<Pod>,
    /// Claims of ours.
    pub claims: Store<PersistentVolumeClaim>,
    /// Machines. `None`: the operator may not look.
    pub machines: Option<Store<Node>>,
    /// Volumes. `None`: the operator may not look.
    pub volumes: Option<Store<PersistentVolume>>,
    /// Storage classes. `None`: the operator may not look.
    pub classes: Option<Store<StorageClass>>,
    /// What attaches volumes. `None`: the operator may not look.
    pub drivers: Option<Store<CSIDriver>>,
    /// What instances share, by kind.
    pub configs: Store<PartialObjectMeta<ConfigMap>>,
    /// Services.
    pub services: Store<PartialObjectMeta<Service>>,
    /// Budgets.
    pub budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
}

/// Says which cluster to look at: its name and namespace.
pub type Touched = BoxStream<'static, Result<Key, watcher::Error>>;

/// A cluster; the empty name stands for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// What the operator may read outside of its namespace, for which there is a ClusterRole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Machines, volumes and storage classes.
    pub machines: bool,
    /// What attaches volumes.
    pub drivers: bool,
}

/// The streams of all caches. They must be polled for the caches to fill.
pub struct Triggers {
    /// Pods, claims and what instances share: each belongs to a cluster.
    pub owned: Vec<Touched>,
    /// Machines and volumes, which may concern any.
    pub any: Vec<BoxStream<'static, ()>>,
}

impl Caches {
    /// Watches the namespace, and what there is outside of it if that is allowed.
    pub fn watch(client: &Client, namespace: &str, sight: Sight) -> (Caches, Triggers) {
        let (mut owned, mut any) = (Vec::new(), Vec::new());
        let ours = watcher::Config::default().labels(names::CLUSTER);
        let in_namespace = |client: &Client| client.clone();
        let pods = keep(Api::namespaced(in_namespace(client), namespace), &ours, &mut owned);
        let claims = keep(Api::namespaced(in_namespace(client), namespace), &ours, &mut owned);
        let configs = keep(Api::namespaced(in_namespace(client), namespace), &ours, &mut owned);
        let services = keep(Api::namespaced(in_namespace(client), namespace), &ours, &mut owned);
        let budgets = keep(Api::namespaced(in_namespace(client), namespace), &ours, &mut owned);
        let machines = sight.machines.then(|| {
            // Dozens of images are most of a Node object.
            let strip = |machine: &mut Node| {
                if let Some(status) = &mut machine.status {
                    (status.images, status.volumes_attached, status.volumes_in_use) = (None, None, None);
                }
            };
            let read = |machine: &Node| seen::machine(machine);
            keep_any(Api::all(client.clone()), strip, read, &mut any)
        });
        let volumes = sight.machines.then(|| {
            keep_any(
                Api::all(client.clone()),
                |_| {},
                |volume: &PersistentVolume| volumes::volume(volume, None),
                &mut any,
            )
        });
        let classes = sight.machines.then(|| {
            keep_any(Api::all(client.clone()), |_| {}, |class: &StorageClass| volumes::class(class), &mut any)
        });
        let drivers = sight.drivers.then(|| {
            keep_any(
                Api::all(client.clone()),
                |_| {},
                |driver: &CSIDriver| volumes::attachless(driver),
                &mut any,
            )
        });
        let caches = Caches { pods, claims, machines, volumes, classes, drivers, configs, services, budgets };
        (caches, Triggers { owned, any })
    }

    /// The pods of a cluster.
    pub fn pods_of(&self, key: &Key) -> Vec<Arc<Pod>> {
        of(&self.pods, key)
    }

    /// The claims of a cluster.
    pub fn claims_of(&self, key: &Key) -> Vec<Arc<PersistentVolumeClaim>> {
        of(&self.claims, key)
    }

    /// The settings of a cluster.
    pub fn configs_of(&self, key: &Key) -> Vec<Arc<PartialObjectMeta<ConfigMap>>> {
        of(&self.configs, key)
    }

    /// The services of a cluster.
    pub fn services_of(&self, key: &Key) -> Vec<Arc<PartialObjectMeta<Service>>> {
        of(&self.services, key)
    }

    /// The budgets of a cluster.
    pub fn budgets_of(&self, key: &Key) -> Vec<Arc<PartialObjectMeta<PodDisruptionBudget>>> {
        of(&self.budgets, key)
    }

    /// Waits until all have been filled once.
    pub async fn filled(&self) -> Result<(), reflector::store::WriterDropped> {
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.configs.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        if let (Some(machines), Some(volumes)) = (&self.machines, &self.volumes) {
            machines.wait_until_ready().await?;
            volumes.wait_until_ready().await?;
        }
        if let Some(classes) = &self.classes {
            classes.wait_until_ready().await?;
        }
        if let Some(drivers) = &self.drivers {
            drivers.wait_until_ready().await?;
        }
        Ok(())
    }
}

/// What belongs to a cluster, without a copy of it.
fn of<K>(store: &Store<K>, key: &Key) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let is_its = |object: &&Arc<K>| {
        object.labels().get(names::CLUSTER) == Some(&key.name)
            && object.meta().namespace.as_deref() == Some(key.namespace.as_str())
    };
    store.state().iter().filter(is_its).cloned().collect()
}

/// A cache and its stream. What nobody reads is left out of it.
fn cache<K>(
    api: Api<K>,
    config: watcher::Config,
    strip: fn(&mut K),
) -> (Store<K>, impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(api, config)
        .default_backoff()
        .modify(move |object| {
            object.managed_fields_mut().clear();
            strip(object);
        })
        .reflect(writer);
    (reader, stream)
}

fn keep<K>(api: Api<K>, config: &watcher::Config, streams: &mut Vec<Touched>) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (reader, stream) = cache(api, config.clone(), |_| {});
    let key = |object: K| Key {
        namespace: object.namespace().unwrap_or_default(),
        name: object.labels().get(names::CLUSTER).cloned().unwrap_or_default(),
    };
    streams.push(stream.touched_objects().map(move |touched| touched.map(key)).boxed());
    reader
}

/// As [`keep`], for what may concern any cluster. It says so only when something is different that is read of it: machines report every few minutes
/// that all is as it was, and each time all clusters would be looked at.
fn keep_any<K, V>(
    api: Api<K>,
    strip: fn(&mut K),
    read: fn(&K) -> V,
    streams: &mut Vec<BoxStream<'static, ()>>,
) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    V: PartialEq + Send + 'static,
{
    let (reader, stream) = cache(api, watcher::Config::default(), strip);
    let mut known = HashMap::new();
    let differs = move |event| std::future::ready(differs(&mut known, read, event).then_some(()));
    streams.push(stream.filter_map(differs).boxed());
    reader
}

fn differs<K: Resource, V: PartialEq>(
    known: &mut HashMap<String, V>,
    read: fn(&K) -> V,
    event: Result<watcher::Event<K>, watcher::Error>,
) -> bool {
    match event {
        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
            let (name, now) = (object.name_any(), read(&object));
            let differs = known.get(&name) != Some(&now);
            known.insert(name, now);
            differs
        }
        Ok(watcher::Event::Delete(object)) => known.remove(&object.name_any()).is_some(),
        // Whatever went meanwhile does not come again.
        Ok(watcher::Event::Init) => {
            known.clear();
            false
        }
        Ok(watcher::Event::InitDone) => true,
        // It begins anew.
        Err(_) => false,
    }
}

impl Key {
    /// As the controller names it.
    pub fn object<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_read_of_a_machine_makes_a_difference() {
        let machine = |ready: &str, heard: &str| -> Node {
            let condition = json!({ "type": "Ready", "status": ready, "lastHeartbeatTime": heard });
            let status = json!({ "conditions": [condition] });
            serde_json::from_value(json!({ "metadata": { "name": "m", "uid": "1" }, "status": status }))
                .unwrap()
        };
        let mut known = HashMap::new();
        let mut differs = |event| differs(&mut known, |machine: &Node| seen::machine(machine), Ok(event));
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        assert!(differs(Apply(machine("True", early))));
        assert!(!differs(Apply(machine("True", late))));
        assert!(differs(Apply(machine("Unknown", late))));
        assert!(differs(Delete(machine("Unknown", late))));
        assert!(differs(Apply(machine("Unknown", late))));
        // After the watch was cut off, what is not listed any more was deleted meanwhile.
        assert!(!differs(Init) && differs(InitDone));
        assert!(differs(InitApply(machine("Unknown", late))));
    }
}
