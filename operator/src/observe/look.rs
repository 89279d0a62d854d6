//! Looks at one cluster, from caches or anew, and asks the database.

use super::caches::{Caches, Key};
use super::{seen, volumes};
use crate::api::{SarsenCluster, names};
use crate::database::{self, Client as Database, Placement};
use crate::plan::{self, Claim, Observed, Pod, Shared};
use crate::render;
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For how long the database's own autopilot stands by when we have said so once.
const LEASE: Duration = Duration::from_secs(60);
/// How many nodes are asked at a time.
const ASKED_MAX: usize = 4;

/// Whether what is seen may be from caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It may.
    Cached,
    /// It is read now.
    Anew,
}

/// What looking needs.
pub struct Eyes {
    /// To read anew.
    pub client: Client,
    /// What is watched.
    pub caches: Caches,
    /// To ask the database.
    pub database: Database,
    /// Who we are as the holder of the database's lease.
    pub me: String,
    /// The kind ServiceMonitor is known here.
    pub has_monitors: bool,
    /// What spares questions, by cluster. Nothing depends on it.
    pub memory: Mutex<HashMap<Key, Memory>>,
}

/// What spares questions.
#[derive(Clone, Default)]
pub struct Memory {
    /// The placement of an epoch of a database does not change.
    placement: Placement,
    /// The id of that database.
    placed: Value,
    /// Who answered last.
    answered: Option<String>,
    /// When the lease was last renewed.
    lease: Option<Instant>,
    /// The ServiceMonitor, which is not watched: the hash of the one that there is, if there is one. `None`: not known.
    pub(super) monitor: Option<Option<String>>,
    /// Names that something else has, and what to say of it.
    pub(super) taken: BTreeMap<Shared, String>,
    /// The version of the program in each pod, by uid.
    versions: BTreeMap<String, String>,
}

impl Eyes {
    /// Looks at a cluster. `problem` is why its specification cannot be read, if so.
    pub async fn observe(&self, cluster: &SarsenCluster, look: Look) -> Result<Observed, kube::Error> {
        let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        let key = Key { namespace: namespace.clone(), name: name.clone() };
        let ours = ListParams::default().labels(&format!("{}={name}", names::CLUSTER));
        let (pods, claims) = match look {
            Look::Cached => (self.caches.pods_of(&key), self.caches.claims_of(&key)),
            Look::Anew => {
                let pods = Api::<core::Pod>::namespaced(self.client.clone(), &namespace);
                let claims = Api::<core::PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
                (shared(pods.list(&ours).await?.items), shared(claims.list(&ours).await?.items))
            }
        };
        let machines = self.wide(&self.caches.machines, look).await?;
        let volumes = self.wide(&self.caches.volumes, look).await?;
        let classes = self.wide(&self.caches.classes, Look::Cached).await?;
        let drivers = self.wide(&self.caches.drivers, look).await?;
        let attachless =
            drivers.map(|drivers| drivers.iter().filter_map(|driver| volumes::attachless(driver)).collect());
        let objects = pods;
        let mut pods: BTreeMap<String, Pod> = objects.iter().filter_map(|pod| seen::pod(pod)).collect();
        let claims: BTreeMap<_, _> = claims.iter().filter_map(|claim| seen::claim(claim)).collect();
        let mut memory = self.remember(&key);
        let mut database = self.ask(cluster, &pods, &mut memory).await;
        let decides = database.as_ref().is_some_and(|database| database.has_leader);
        self.ask_each(&mut pods, !decides).await;
        if let Some(database) = &mut database {
            self.versions(database, &pods, &mut memory).await;
        }
        let stays = |claim: &&Claim| claim.leaving.is_none() && claim.retired.is_none();
        let instances = claims.values().filter(stays).count();
        let wanted = self.wanted(cluster, &key, instances, &objects, &mut memory).await;
        self.memory.lock().expect("BUG: a holder panicked").insert(key, memory);
        let secret = Api::<core::Secret>::namespaced(self.client.clone(), &namespace);
        // Read until it is there once, and then it is told by the pods that use it.
        let has_token =
            !pods.is_empty() || secret.get_metadata_opt(&render::names::secret(&name)).await?.is_some();
        Ok(Observed {
            now: jiff::Timestamp::now().as_millisecond(),
            name,
            generation: cluster.metadata.generation.unwrap_or(0),
            deleting: cluster.metadata.deletion_timestamp.is_some(),
            has_finalizer: cluster.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER),
            paused: cluster.annotations().get(names::PAUSE).is_some_and(|text| text != "false"),
            spec: Some(cluster.spec.clone()),
            status: cluster.status.clone().unwrap_or_default(),
            wanted,
            claims,
            pods,
            machines: machines.map(|list| list.iter().filter_map(|one| seen::machine(one)).collect()),
            volumes: volumes
                .map(|list| list.iter().map(|one| volumes::volume(one, attachless.as_ref())).collect()),
            classes: classes.map(|list| list.iter().map(|one| volumes::class(one)).collect()),
            has_token,
            database,
        })
    }

    /// A cluster that is no more.
    pub fn forget(&self, key: &Key) {
        self.memory.lock().expect("BUG: a holder panicked").remove(key);
    }

    /// A name turned out to be something else's. Whether that is news.
    pub fn is_taken(&self, key: &Key, what: &Shared, why: &str) -> bool {
        let mut memory = self.memory.lock().expect("BUG: a holder panicked");
        memory.entry(key.clone()).or_default().taken.insert(what.clone(), why.to_owned()).is_none()
    }

    /// Takes it out, for a placement is large. Whoever does not put it back has to ask again.
    fn remember(&self, key: &Key) -> Memory {
        self.memory.lock().expect("BUG: a holder panicked").remove(key).unwrap_or_default()
    }

    /// What is not in the namespace, if the operator may look there.
    async fn wide<K>(&self, store: &Option<Store<K>>, look: Look) -> Result<Option<Vec<Arc<K>>>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let Some(store) = store else { return Ok(None) };
        Ok(Some(match look {
            Look::Cached => store.state(),
            Look::Anew => shared(Api::all(self.client.clone()).list(&ListParams::default()).await?.items),
        }))
    }

    /// Asks the database: whoever answered last first, then others.
    async fn ask(
        &self,
        cluster: &SarsenCluster,
        pods: &BTreeMap<String, Pod>,
        memory: &mut Memory,
    ) -> Option<plan::Database> {
        let mut ips: Vec<&str> = ready_ips(pods.values());
        let rest = pods
            .values()
            .filter(|pod| !pod.containers_ready && pod.trouble.is_none())
            .filter_map(|pod| pod.ip.as_deref());
        ips.extend(rest);
        ips.sort_by_key(|ip| memory.answered.as_deref() != Some(*ip));
        let mut best: Option<(Value, &str)> = None;
        let mut rest = ips.as_slice();
        // The first alone: it has answered the last time. If it does not now, a whole zone may be away, which is more nodes than can be waited for in turn.
        let mut at_a_time = 1;
        while !rest.is_empty() {
            let (now, after) = rest.split_at(at_a_time.min(rest.len()));
            (rest, at_a_time) = (after, ASKED_MAX);
            let ask = now.iter().map(|ip| async move {
                self.database.get(ip, "/api/v1/status/cluster").await.ok().map(|said| (said, *ip))
            });
            for (said, ip) in futures_util::future::join_all(ask).await.into_iter().flatten() {
                // One that has a leader knows what is agreed on; one that has none may be cut off.
                let rank = |said: &Value| (said["leader"].is_string(), said["epoch"].as_u64());
                if best.as_ref().is_none_or(|(other, _)| rank(other) < rank(&said)) {
                    best = Some((said, ip));
                }
            }
            if best.as_ref().is_some_and(|(said, _)| said["leader"].is_string()) {
                break;
            }
        }
        let (mut said, ip) = best?;
        memory.answered = Some(ip.to_owned());
        let epoch = said["epoch"].as_u64();
        let is_known = Some(memory.placement.epoch) == epoch && memory.placed == said["cluster"];
        if !is_known || memory.placement.shards.is_empty() {
            memory.placed = said["cluster"].clone();
            memory.placement =
                Placement::read(&self.database.get(ip, "/api/v1/status/placement").await.ok()?)?;
            // It has changed between the two questions: neither is worth anything without the other.
            if Some(memory.placement.epoch) != epoch {
                said = self.database.get(ip, "/api/v1/status/cluster").await.ok()?;
            }
            if Some(memory.placement.epoch) != said["epoch"].as_u64() || memory.placed != said["cluster"] {
                memory.placement = Placement::default();
                return None;
            }
        }
        let holder = said["autopilot"]["lease"]["holder"].as_str().map(str::to_owned);
        let ours = holder.as_deref() == Some(self.me.as_str());
        let due = memory.lease.is_none_or(|at| at.elapsed() > LEASE / 3) || !ours;
        let wanted = cluster.spec.failure_policy.mode != crate::api::FailureMode::Off
            && cluster.metadata.deletion_timestamp.is_none();
        // Another operator that holds it is waited for, until its lease ends.
        if due && wanted && (ours || holder.is_none()) && said["leader"].is_string() {
            let body = json!({ "holder": self.me, "ttl_s": LEASE.as_secs() });
            if let Ok(told) = self.database.post(ip, "/api/v1/admin/cluster/lease", &body).await {
                memory.lease = Some(Instant::now());
                said["autopilot"] = told;
            }
        }
        database::database(&said, &memory.placement, &self.me)
    }

    /// Which version each member runs. A pod is asked once: another version is another pod.
    async fn versions(
        &self,
        database: &mut plan::Database,
        pods: &BTreeMap<String, Pod>,
        memory: &mut Memory,
    ) {
        let versions = &mut memory.versions;
        versions.retain(|uid, _| pods.values().any(|pod| pod.uid == *uid));
        let new = pods.values().filter(|pod| pod.containers_ready && !versions.contains_key(&pod.uid));
        let ask =
            new.filter_map(|pod| Some((pod.uid.clone(), pod.ip.as_deref()?))).map(|(uid, ip)| async move {
                let said = self.database.get(ip, "/api/v1/status/node").await.ok()?;
                Some((uid, said["version"].as_str()?.to_owned()))
            });
        let told: Vec<_> = futures_util::future::join_all(ask).await;
        versions.extend(told.into_iter().flatten());
        for node in database.nodes.values_mut() {
            let version = pods.get(&node.instance).and_then(|pod| versions.get(&pod.uid));
            node.version = version.cloned().unwrap_or_default();
        }
    }

    /// What nodes say of themselves: those that are not ready, and all while there is no database that decides.
    async fn ask_each(&self, pods: &mut BTreeMap<String, Pod>, all: bool) {
        let asked = pods.values_mut().filter(|pod| all || !pod.containers_ready);
        let ask = asked.filter_map(|pod| Some((pod.ip.clone()?, pod)));
        let ask = ask.map(|(ip, pod)| async move {
            let Ok(said) = self.database.get(&ip, "/api/v1/status/node").await else { return };
            pod.answer = database::reply(&said).filter(|_| all);
            // How its container ended before says less than what it says now.
            pod.trouble = database::failed_disk(&said).or(pod.trouble.take());
        });
        futures_util::future::join_all(ask).await;
    }
}

/// As a cache has it.
fn shared<K>(list: Vec<K>) -> Vec<Arc<K>> {
    list.into_iter().map(Arc::new).collect()
}

/// Where nodes are that run, those first that most likely answer: a machine that is not heard of has pods whose containers are said to be ready, but that
/// are not.
pub fn ready_ips<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<&'a str> {
    let mut pods: Vec<&Pod> = pods.into_iter().filter(|pod| pod.containers_ready).collect();
    pods.sort_by_key(|pod| pod.ready.is_none());
    pods.into_iter().filter_map(|pod| pod.ip.as_deref()).collect()
}
