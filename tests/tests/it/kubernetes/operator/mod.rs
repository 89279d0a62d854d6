//! The operator with a control plane, machines and real databases: whatever is lost, the copies are made anew, nothing acknowledged is lost, and nobody is asked.

mod creation;
mod drains;
mod everyday;
mod fifty;
mod kubectl;
mod losses;
mod networks;
mod rollouts;
mod scale;
mod specs;
mod watching;

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::client::Client;
use tests::kubernetes::api::Request;
use tests::kubernetes::nodes::{Kubernetes, Parameters};
use tests::kubernetes::service::Service;
use tests::load::Load;
use tests::process::{Process, binary, free_port, operator_binary};
use tests::random::{Random, now_ms};
use tests::tsbench::Tsbench;
use tests::until::until;

/// How long a database may take to be as it should be. Two cores carry everything.
const HEALED: Duration = Duration::from_secs(180);
/// How long a writer tries again.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "db";
const NAMESPACE: &str = "default";

/// Machines, an operator, and one database.
struct Case {
    operator: Mutex<Option<Process>>,
    service: Service,
    kubernetes: Kubernetes,
    began: Instant,
    dir: TempDir,
}

impl Case {
    /// A database of two nodes in each of three zones, of which every machine is in use but one in each zone.
    fn start() -> Case {
        Case::with(spec())
    }

    fn with(spec: Value) -> Case {
        let case = Case::on(three_zones());
        case.create(NAME, spec);
        case
    }

    /// An operator that has nothing to do yet.
    fn on(parameters: Parameters) -> Case {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        tests::namespaces::run(&format!("chmod 755 {}", dir.path().display()));
        let images = ["sarsen:1", "sarsen:2"].map(|image| (image.to_owned(), binary())).into();
        let kubernetes = Kubernetes::start(dir.path(), Parameters { images, ..parameters });
        let service = Service::start(&kubernetes, &format!("sarsen.dev/cluster={NAME}"), 7420);
        let case = Case { operator: Mutex::new(None), service, kubernetes, began: Instant::now(), dir };
        case.install();
        case.start_operator();
        case
    }

    /// What a person applies: the kinds, as the operator prints them.
    fn install(&self) {
        let output = Command::new(operator_binary())
            .args(["manifests", "--only", "crds"])
            .output()
            .expect("the operator can be run");
        let text = String::from_utf8(output.stdout).expect("YAML is text");
        let definitions: Vec<Value> = text
            .split("\n---\n")
            .map(|text| serde_saphyr::from_str(text.trim_start_matches("---\n")).expect("YAML"))
            .collect();
        assert_eq!(definitions.len(), 2, "{text}");
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        ));
        let api: Api<DynamicObject> = Api::all_with(self.kubernetes.client(), &kind);
        for definition in definitions {
            let object: DynamicObject = serde_json::from_value(definition).expect("an object");
            let api = api.clone();
            self.kubernetes.must(async move { api.create(&PostParams::default(), &object).await });
        }
    }

    fn start_operator(&self) {
        let kubeconfig = self.dir.path().join("kubeconfig");
        self.kubernetes.api.kubeconfig(&kubeconfig);
        let mut command = Command::new(operator_binary());
        let port = free_port();
        command.args(["run", "--namespace", NAMESPACE, "--listen", &format!("127.0.0.1:{port}")]);
        command.env("KUBECONFIG", &kubeconfig);
        let mut process =
            Process::start("sarsen-operator", &mut command, &self.dir.path().join("operator.log"));
        let client = Client::new(port);
        process.await_ready(|| client.is_ok("/healthz"));
        *self.operator.lock() = Some(process);
    }

    /// Kills the operator and starts another.
    fn restart_operator(&self) {
        if let Some(mut process) = self.operator.lock().take() {
            process.kill();
        }
        self.start_operator();
    }

    fn clusters(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("sarsen.dev", "v1alpha1", "SarsenCluster"),
            "sarsenclusters",
        );
        Api::namespaced_with(self.kubernetes.client(), NAMESPACE, &kind)
    }

    fn create(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "sarsen.dev/v1alpha1", "kind": "SarsenCluster", "metadata": {"name": name}, "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let api = self.clusters();
        self.kubernetes.must(async move { api.create(&PostParams::default(), &object).await });
    }

    /// Changes the specification.
    fn change(&self, spec: Value) {
        let api = self.clusters();
        let patch = json!({ "spec": spec });
        self.kubernetes
            .must(async move { api.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await });
    }

    /// The status of the cluster object.
    fn status(&self) -> Value {
        let api = self.clusters();
        let object = self.kubernetes.must(async move { api.get_opt(NAME).await });
        object.map_or(Value::Null, |object| object.data["status"].clone())
    }

    fn pods(&self) -> BTreeMap<String, Pod> {
        let api: Api<Pod> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let ours = ListParams::default().labels(&format!("sarsen.dev/cluster={NAME}"));
        let list = self.kubernetes.must(async move { api.list(&ours).await });
        list.items.into_iter().map(|pod| (pod.name_any(), pod)).collect()
    }

    fn claims(&self) -> BTreeMap<String, PersistentVolumeClaim> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let ours = ListParams::default().labels(&format!("sarsen.dev/cluster={NAME}"));
        let list = self.kubernetes.must(async move { api.list(&ours).await });
        list.items.into_iter().map(|claim| (claim.labels()["sarsen.dev/instance"].clone(), claim)).collect()
    }

    /// The machine that an instance is on.
    fn machine(&self, instance: &str) -> String {
        let pods = self.pods();
        let pod = pods.get(instance).unwrap_or_else(|| panic!("no pod {instance}: {:?}", pods.keys()));
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).expect("the pod is on a machine")
    }

    /// Everything that tells why something is not as it should be.
    fn story(&self) -> String {
        let log = self.operator.lock().as_ref().map(Process::output).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let pods: Vec<String> = self
            .pods()
            .iter()
            .map(|(name, pod)| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                let conditions: Vec<String> =
                    conditions.map(|known| format!("{}={}", known.type_, known.status)).collect();
                format!(
                    "{name} on {:?}: {conditions:?}",
                    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
                )
            })
            .collect();
        format!("{:#}\n{}\n{}", self.status(), pods.join("\n"), tail.join("\n"))
    }

    /// Waits until the cluster object says so.
    fn await_status(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            if so(&status) {
                return status;
            }
            assert!(began.elapsed() < HEALED, "{what} took too long: {}", self.story());
            thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// Waits until all is well, and every shard has three equal copies, and says how long that took.
    fn await_ready(&self) -> Duration {
        let began = Instant::now();
        // What was said before the disturbance was noticed is no answer.
        self.await_status("to be ready", |status| {
            condition(status, "Ready") == "True" && self.is_whole().is_ok()
        });
        began.elapsed()
    }

    /// Whether the database itself says that all is well: every copy there, none moving, none on a node that is away.
    fn is_whole(&self) -> Result<(), String> {
        for client in self.clients() {
            let answer = client.get("/api/v1/status/cluster")?;
            if answer.status != 200 {
                return Err(answer.body);
            }
            let status = &answer.json()["data"];
            if status["safety"] != "safe"
                || status["shards"]["moving"] != 0
                || status["shards"]["min_copies"] != 3
            {
                return Err(format!("{}: {} {}", client.base(), status["summary"], status["shards"]));
            }
        }
        Ok(())
    }

    /// Clients of all pods that are ready.
    fn clients(&self) -> Vec<Client> {
        let ready = |pod: &&Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|known| known.type_ == "Ready" && known.status == "True")
        };
        let pods = self.pods();
        let ips = pods.values().filter(ready).filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
        ips.map(|ip| Client::at(&format!("{ip}:7420"))).collect()
    }

    /// Writes and reads through the service while `disturb` runs; then everything that was acknowledged is on every node, and all copies are equal.
    fn under_load(&self, disturb: impl FnOnce(&[Load])) {
        let mut random = Random::announced("operator");
        let start = now_ms() / 60_000 * 60_000 - 86_400_000;
        let pace = Duration::from_millis(200);
        let loads: Vec<Load> =
            (0..3).map(|n| Load::new(&format!("w{n}"), 50, start, 1_000).every(pace)).collect();
        let clients = [Client::at(&self.service.address())];
        let fleet = Tsbench::from_environment(start, random.number());
        let (stop, seed) = (AtomicBool::new(false), random.number());
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for (number, load) in loads.iter().enumerate() {
                let (stop, clients, seed) = (&stop, &clients, seed ^ (number as u64) << 32);
                workers.push(scope.spawn(move || load.write(clients, PATIENCE, stop, seed)));
                workers.push(scope.spawn(move || load.read(clients, PATIENCE, stop, seed ^ 1)));
            }
            if let Some(fleet) = &fleet {
                let (stop, address) = (&stop, self.service.address());
                workers.push(scope.spawn(move || fleet.write(&address, PATIENCE, stop)));
            }
            struct Stop<'a>(&'a AtomicBool);
            impl Drop for Stop<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let ending = Stop(&stop);
            disturb(&loads);
            drop(ending);
            for worker in workers {
                worker
                    .join()
                    .expect("no worker panics")
                    .unwrap_or_else(|failure| panic!("{failure}\n{}", self.story()));
            }
        });
        let end = loads.iter().map(Load::end).max().expect("there are loads");
        self.await_equal(start, end);
        for client in self.clients() {
            for load in &loads {
                load.check(&client).unwrap_or_else(|failure| panic!("{}: {failure}", client.base()));
            }
            if let Some(fleet) = &fleet {
                fleet.check(&client).unwrap_or_else(|failure| panic!("tsbench: {failure}"));
            }
        }
        let requests: i64 = loads.iter().map(Load::acknowledged).sum();
        println!("{requests} requests were acknowledged, and every sample of them is at every node");
        if let Some(fleet) = &fleet {
            println!("{} samples of tsbench as well", fleet.acknowledged());
        }
    }

    /// Waits until every shard has three copies with the same digest.
    fn await_equal(&self, start: i64, end: i64) {
        until("three equal copies of every shard", HEALED, || {
            let mut copies: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for client in self.clients() {
                let path =
                    format!("/api/v1/status/digests?start={}&end={}", start as f64 / 1e3, end as f64 / 1e3);
                let answer = client.get(&path)?;
                let digests = answer.json()["data"].as_object().cloned().ok_or(answer.body)?;
                for (shard, digest) in digests {
                    copies.entry(shard).or_default().push(digest);
                }
            }
            let sound = |digests: &&Vec<Value>| {
                digests.len() == 3 && digests.iter().all(|digest| *digest == digests[0])
            };
            match copies.values().filter(sound).count() {
                64 => Ok(()),
                sound => Err(format!("{sound} of 64 shards")),
            }
        });
    }

    /// Says how long something took, for the report.
    fn report(&self, what: &str, took: Duration) {
        println!(
            "REPORT {what}: {:.1} s (test began {:.0} s ago)",
            took.as_secs_f64(),
            self.began.elapsed().as_secs_f64()
        );
    }

    /// The reasons of all Events about the cluster.
    fn events(&self) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let list = self.kubernetes.must(async move { api.list(&ListParams::default()).await });
        let ours = list.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(NAME));
        ours.filter_map(|event| event.reason).collect()
    }

    fn delete_pod(&self, name: &str) {
        let api: Api<Pod> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        self.kubernetes.must(async move { api.delete(name, &DeleteParams::default()).await });
    }

    /// Changes the specification, if the API server takes it; otherwise what it says.
    fn try_change(&self, spec: Value) -> Result<(), String> {
        let api = self.clusters();
        let patch = json!({ "spec": spec });
        match self
            .kubernetes
            .wait(async move { api.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await })
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(format!("{}: {}", status.code, status.message)),
            Err(error) => panic!("the API server: {error}"),
        }
    }

    /// The uid of every pod.
    fn uids(&self) -> BTreeMap<String, String> {
        self.pods().into_iter().map(|(name, pod)| (name, pod.uid().unwrap_or_default())).collect()
    }

    /// What the operator has asked to be changed since the audit began, other than its lease.
    fn writes(&self) -> Vec<Request> {
        let mut requests = self.kubernetes.api.requests();
        requests.retain(|request| {
            request.is_write()
                && request.user_agent.starts_with("sarsen-operator")
                && request.resource != "leases.coordination.k8s.io"
        });
        requests
    }

    /// The pods that the operator has deleted since the audit began, in this order.
    fn deleted_pods(&self) -> Vec<String> {
        let deletes = self
            .writes()
            .into_iter()
            .filter(|request| request.verb == "delete" && request.resource == "pods");
        deletes.filter(|request| request.status < 300).map(|request| request.name).collect()
    }
}

/// The message of a condition.
fn message(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = conditions.iter().find(|known| known["type"] == kind);
    known.and_then(|known| known["message"].as_str()).unwrap_or("").into()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions
        .iter()
        .find(|known| known["type"] == kind)
        .and_then(|known| known["status"].as_str())
        .unwrap_or("")
}

/// One machine more in each zone than is in use.
fn three_zones() -> Parameters {
    let zones = ["a", "b", "c"].map(|zone| (zone.to_string(), 3)).to_vec();
    Parameters { zones, ..Parameters::default() }
}

/// Two nodes in each of three zones, and an operator in a hurry.
fn spec() -> Value {
    let group = |zone: &str| json!({"name": zone, "nodes": 2, "topology": {"values": [zone]}});
    json!({
        "image": "sarsen:1",
        "groups": [group("a"), group("b"), group("c")],
        "storage": {"size": "1Gi", "storageClassName": "local"},
        "config": {"self_scrape_interval": "0", "repair_interval": "2s", "limits": {"disk_free_min": "1MiB"}},
        "failurePolicy": {
            "nodeGoneGrace": "1s", "nodeNotReadyGrace": "4s", "pendingVolumeGrace": "1s", "zoneLossGrace": "10s",
            "retainLostVolumes": "5s",
        },
        "rollout": {"minReadySeconds": 1},
    })
}
