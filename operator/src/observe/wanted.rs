//! What follows from a specification, beside what there is of it: what is to be applied, what is of no use any more, which names something else has.

use super::caches::Key;
use super::look::{Eyes, Memory};
use crate::api::{SarsenCluster, names};
use crate::plan::{Shared, Wanted};
use crate::render::{self, APPLIED_HASH};
use k8s_openapi::api::core::v1 as core;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;

const MONITOR: &str = "ServiceMonitor";

impl Eyes {
    /// What follows from the specification of a cluster with so many instances. To render it all takes less than a millisecond (three groups, measured on a busy machine),
    /// which is less than asking a node: it is done at every look.
    pub(super) async fn wanted(
        &self,
        cluster: &SarsenCluster,
        key: &Key,
        instances: usize,
        pods: &[Arc<core::Pod>],
        memory: &mut Memory,
    ) -> Wanted {
        let groups = &cluster.spec.groups;
        let hashes =
            groups.iter().map(|group| (group.name.clone(), render::spec_hash(cluster, group))).collect();
        let mut objects = render::shared(cluster, u32::try_from(instances).unwrap_or(u32::MAX));
        objects.retain(|object| self.has_monitors || kind(object) != MONITOR);
        self.still_taken(cluster, key, memory).await;
        let mut stale = Vec::new();
        for object in &objects {
            let (kind, name) = (kind(object), object.name_any());
            let hash = object.annotations().get(APPLIED_HASH);
            let caches = &self.caches;
            let found = match kind {
                "ConfigMap" => hash_of(caches.configs_of(key), &name),
                "Service" => hash_of(caches.services_of(key), &name),
                "PodDisruptionBudget" => hash_of(caches.budgets_of(key), &name),
                _ => {
                    if memory.monitor.as_ref().is_none_or(|known| known.as_ref() != hash) {
                        let monitor = self.meta(key, kind, &name).await;
                        memory.monitor = monitor.map(|found| hash_of(found.map(Arc::new), &name)).ok();
                    }
                    memory.monitor.clone().flatten()
                }
            };
            let shared = Shared { kind: kind.to_owned(), name };
            if found.as_ref() != hash && !memory.taken.contains_key(&shared) {
                stale.push(shared);
            }
        }
        let surplus = self.surplus(cluster, key, &objects, pods, memory).await;
        let mut problems = render::invalid_settings(&cluster.spec.config);
        problems.extend(memory.taken.values().cloned());
        Wanted { hashes, stale, surplus, problems }
    }

    /// Forgets the names that are free, or ours, by now.
    async fn still_taken(&self, cluster: &SarsenCluster, key: &Key, memory: &mut Memory) {
        for shared in memory.taken.keys().cloned().collect::<Vec<_>>() {
            let is_free = match self.meta(key, &shared.kind, &shared.name).await {
                Ok(Some(found)) => found.labels().get(names::CLUSTER) == Some(&cluster.name_any()),
                Ok(None) => true,
                Err(_) => false,
            };
            if is_free {
                memory.taken.remove(&shared);
            }
        }
    }

    /// What was made from an earlier specification, and that neither this one nor a pod needs.
    async fn surplus(
        &self,
        cluster: &SarsenCluster,
        key: &Key,
        objects: &[DynamicObject],
        pods: &[Arc<core::Pod>],
        memory: &mut Memory,
    ) -> Vec<Shared> {
        let wanted = |of: &str| -> BTreeSet<String> {
            objects.iter().filter(|object| kind(object) == of).map(ResourceExt::name_any).collect()
        };
        let mut configs = wanted("ConfigMap");
        configs.extend(pods.iter().flat_map(|pod| configs_of(pod)));
        let budgets = wanted("PodDisruptionBudget");
        let prefix = render::names::config(&key.name, "");
        let mut surplus: Vec<Shared> = unneeded(self.caches.configs_of(key), cluster, "ConfigMap", &configs)
            .filter(|shared| shared.name.starts_with(&prefix))
            .chain(unneeded(self.caches.budgets_of(key), cluster, "PodDisruptionBudget", &budgets))
            .collect();
        let unwanted = self.has_monitors && wanted(MONITOR).is_empty();
        if unwanted && memory.monitor != Some(None) {
            let name = key.name.clone();
            match self.meta(key, MONITOR, &name).await {
                Ok(Some(found)) if is_owned(&found, cluster) => {
                    memory.monitor = None;
                    surplus.push(Shared { kind: MONITOR.into(), name });
                }
                Ok(_) => memory.monitor = Some(None),
                // It is asked for again.
                Err(_) => memory.monitor = None,
            }
        }
        surplus
    }

    /// An object that no cache has.
    async fn meta(
        &self,
        key: &Key,
        kind: &str,
        name: &str,
    ) -> Result<Option<PartialObjectMeta<DynamicObject>>, kube::Error> {
        let resource = render::resource(kind);
        Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, &resource)
            .get_metadata_opt(name)
            .await
    }
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| types.kind.as_str())
}

fn hash_of<K: ResourceExt>(objects: impl IntoIterator<Item = Arc<K>>, name: &str) -> Option<String> {
    let found = objects.into_iter().find(|object| object.meta().name.as_deref() == Some(name))?;
    found.annotations().get(APPLIED_HASH).cloned()
}

/// The settings that a pod was started with.
fn configs_of(pod: &core::Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.config_map.as_ref().map(|config| config.name.clone()))
}

fn unneeded<K: Resource>(
    objects: Vec<Arc<K>>,
    cluster: &SarsenCluster,
    kind: &str,
    needed: &BTreeSet<String>,
) -> impl Iterator<Item = Shared> {
    let is_surplus = |object: &Arc<K>| {
        is_owned(&**object, cluster)
            && object.meta().deletion_timestamp.is_none()
            && !needed.contains(&object.name_any())
    };
    objects.into_iter().filter(is_surplus).map(|object| Shared { kind: kind.into(), name: object.name_any() })
}

/// Whether the cluster made it: what a person has made with our label is theirs.
fn is_owned<K: Resource>(object: &K, cluster: &SarsenCluster) -> bool {
    let uid = cluster.meta().uid.as_ref();
    uid.is_some() && object.owner_references().iter().any(|owner| Some(&owner.uid) == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{self, Action, Observed};
    use crate::render::sample;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn settings_go_when_neither_the_specification_nor_a_pod_nor_a_person_needs_them() {
        let cluster = sample::cluster();
        let ours =
            render::shared(&cluster, 6).into_iter().find(|object| kind(object) == "ConfigMap").unwrap();
        let config = |name: &str, owned: bool| {
            let mut config = ConfigMap { metadata: ours.metadata.clone(), ..ConfigMap::default() };
            config.metadata.name = Some(name.into());
            if !owned {
                config.metadata.owner_references = None;
            }
            Arc::new(config)
        };
        let pod = render::pod(&cluster, &cluster.spec.groups[0], "metrics-a-1");
        let used: BTreeSet<String> = configs_of(&pod).collect();
        assert_eq!(used, [ours.name_any()].into());
        let mut going = config("metrics-config-3", true);
        Arc::make_mut(&mut going).metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let all = vec![
            config(&ours.name_any(), true),
            config("metrics-config-1", true),
            config("metrics-config-2", false),
            going,
        ];
        let surplus: Vec<String> =
            unneeded(all, &cluster, "ConfigMap", &used).map(|shared| shared.name).collect();
        assert_eq!(surplus, ["metrics-config-1"]);
        // Those of an earlier cluster object of the same name are the garbage collector's.
        let mut anew = cluster.clone();
        anew.metadata.uid = Some("another".into());
        assert_eq!(unneeded(vec![config("x", true)], &anew, "ConfigMap", &used).count(), 0);
    }

    #[test]
    fn what_is_of_no_use_goes_one_at_a_time_and_not_while_the_cluster_is_paused() {
        let shared = |name: &str| Shared { kind: "ConfigMap".into(), name: name.into() };
        let mut observed = Observed {
            name: "metrics".into(),
            spec: Some(sample::cluster().spec),
            wanted: Wanted { surplus: vec![shared("x"), shared("y")], ..Wanted::default() },
            ..Observed::default()
        };
        let deleted = |observed: &Observed| -> Vec<Action> {
            let actions = plan::plan(observed).actions;
            actions.into_iter().filter(|action| matches!(action, Action::DeleteShared(_))).collect()
        };
        assert_eq!(deleted(&observed), [Action::DeleteShared(shared("x"))]);
        observed.paused = true;
        assert_eq!(deleted(&observed), []);
    }
}
