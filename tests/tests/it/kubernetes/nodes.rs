//! Machines and controllers, with real processes in pods.

use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, from_value, json};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tests::client::Client;
use tests::kubernetes::nodes::{CLASS_LOCAL, CLASS_NETWORK, Disk, Kubernetes, Parameters};
use tests::namespaces::inside;
use tests::process::{BOUND, binary};
use tests::until::until;

const NAMESPACE: &str = "default";
const GATE: &str = "sarsen.dev/shards-available";

/// A cluster of two machines in each of three zones, and the images `sarsen`, `sleep` and `false`.
struct Case {
    kubernetes: Kubernetes,
    _dir: TempDir,
}

impl Case {
    fn start() -> Case {
        Case::with(Parameters::default())
    }

    fn with(mut parameters: Parameters) -> Case {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        // Containers run as somebody else, who must be able to walk to their folders.
        tests::namespaces::run(&format!("chmod 755 {}", dir.path().display()));
        for (image, path) in
            [("sarsen", binary()), ("sleep", "/usr/bin/sleep".into()), ("false", "/usr/bin/false".into())]
        {
            parameters.images.insert(image.into(), path);
        }
        Case { kubernetes: Kubernetes::start(dir.path(), parameters), _dir: dir }
    }

    fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + k8s_openapi::serde::Serialize,
    {
        let api: Api<K> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let object = from_value(object).expect("an object of its kind");
        self.kubernetes.must(async move { api.create(&PostParams::default(), &object).await })
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kubernetes.client(), NAMESPACE)
    }

    fn pod(&self, name: &str) -> Option<Pod> {
        let pods = self.pods();
        self.kubernetes.must(async move { pods.get_opt(name).await })
    }

    /// Waits until a pod is as it should be.
    fn await_pod(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        until(&format!("{name}: {what}"), BOUND, || match self.pod(name) {
            Some(pod) if is_so(&pod) => Ok(pod),
            Some(pod) => Err(format!("{:?}\n{}", pod.status, self.kubernetes.output(name))),
            None => Err("no such pod".into()),
        })
    }

    fn await_gone(&self, name: &str) {
        until(&format!("{name} to be gone"), BOUND, || match self.pod(name) {
            None => Ok(()),
            Some(pod) => Err(format!("{:?}", pod.metadata)),
        });
    }

    fn delete(&self, name: &str) {
        let pods = self.pods();
        self.kubernetes.must(async move { pods.delete(name, &DeleteParams::default()).await });
    }

    fn open_gate(&self, name: &str) {
        let pods = self.pods();
        let patch = json!({"status": {"conditions": [{"type": GATE, "status": "True"}]}});
        self.kubernetes.must(async move {
            pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
        });
    }

    fn claim(&self, name: &str, class: &str) {
        self.create::<PersistentVolumeClaim>(
            json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        );
    }

    /// The volume of a claim.
    fn volume(&self, claim: &str) -> PersistentVolume {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let volumes: Api<PersistentVolume> = Api::all(self.kubernetes.client());
        self.kubernetes.must(async move {
            let claim = claims.get(claim).await?;
            volumes.get(&claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default()).await
        })
    }

    fn node_ready(&self, name: &str) -> Option<String> {
        let nodes: Api<Node> = Api::all(self.kubernetes.client());
        let node = self.kubernetes.must(async move { nodes.get_opt(name).await })?;
        let conditions = node.status?.conditions?;
        conditions.into_iter().find(|known| known.type_ == "Ready").map(|known| known.status)
    }

    fn await_node(&self, name: &str, status: &str) {
        until(&format!("node {name} to be {status}"), BOUND, || match self.node_ready(name) {
            Some(known) if known == status => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Does the same objects that an operator makes for a database `db`: configuration, secret, names.
    fn database(&self) {
        self.create::<ConfigMap>(
            json!({"metadata": {"name": "db-config"}, "data": {"sarsen.yaml": "log_level: info\n"}}),
        );
        self.create::<Secret>(json!({"metadata": {"name": "db-join-token"}, "stringData": {}, "data": {"token": "YS10b2tlbi1mb3ItdGhpcy10ZXN0"}}));
        self.create::<Service>(json!({"metadata": {"name": "db-nodes"}, "spec": {"clusterIP": "None",
            "publishNotReadyAddresses": true, "selector": {"app": "db"}, "ports": [{"name": "http", "port": 7420}]}}));
    }

    /// A node of the database with a claim of its own.
    fn database_node(&self, name: &str, zone: &str, join: &[&str]) {
        let claim = format!("data-{name}");
        self.claim(&claim, CLASS_LOCAL);
        self.create::<Pod>(database_pod(name, zone, &claim, join));
    }
}

fn database_pod(name: &str, zone: &str, claim: &str, join: &[&str]) -> Value {
    let advertised = format!("$(POD_NAME).db-nodes.{NAMESPACE}.svc:7421");
    let mut arguments = vec![
        "server",
        "--data-dir",
        "/var/lib/sarsen",
        "--config",
        "/etc/sarsen/sarsen.yaml",
        "--http-listen",
        "0.0.0.0:7420",
        "--cluster-listen",
        "0.0.0.0:7421",
        "--cluster-advertise",
        &advertised,
        "--zone",
        zone,
    ];
    let joined = join.join(",");
    if !join.is_empty() {
        arguments.extend(["--join", &joined]);
    }
    let get = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1});
    json!({
        "metadata": {"name": name, "labels": {"app": "db"}},
        "spec": {
            "hostname": name, "subdomain": "db-nodes", "terminationGracePeriodSeconds": 30,
            "readinessGates": [{"conditionType": GATE}],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "config", "configMap": {"name": "db-config"}}, {"name": "tmp", "emptyDir": {}}],
            "containers": [{
                "name": "sarsen", "image": "sarsen", "args": arguments,
                "ports": [{"name": "http", "containerPort": 7420}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "SARSEN_JOIN_TOKEN", "valueFrom": {"secretKeyRef": {"name": "db-join-token", "key": "token"}}}],
                "securityContext": {"readOnlyRootFilesystem": true},
                "volumeMounts": [{"name": "data", "mountPath": "/var/lib/sarsen"}, {"name": "config", "mountPath": "/etc/sarsen"},
                    {"name": "tmp", "mountPath": "/tmp"}],
                "readinessProbe": get("/-/ready"), "livenessProbe": get("/-/healthy"),
                "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": "http"}}},
                "terminationMessagePolicy": "FallbackToLogsOnError"}]}})
}

/// A pod that does nothing, on a volume if it is given a claim.
fn idle_pod(name: &str, zone: &str, claim: Option<&str>) -> Value {
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": "idle"}}, "spec": {
        "nodeSelector": {"topology.kubernetes.io/zone": zone}, "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "sleep", "args": ["100000"]}]}});
    if let Some(claim) = claim {
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    }
    pod
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> (&'a str, &'a str) {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let known = conditions.iter().find(|known| known.type_ == kind);
    known.map_or(("", ""), |known| (&known.status, known.message.as_deref().unwrap_or_default()))
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").0 == "True"
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).expect("the pod has a node")
}

fn address(pod: &Pod) -> String {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("the pod has an address");
    format!("{ip}:7420")
}

fn container(pod: &Pod) -> Value {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().cloned());
    serde_json::to_value(status).expect("a status is JSON")
}

#[test]
#[ignore = "needs root"]
fn a_database_in_a_pod_is_ready_behind_its_gate_is_restarted_and_ends_after_its_hook() {
    if !inside(
        "kubernetes::nodes::a_database_in_a_pod_is_ready_behind_its_gate_is_restarted_and_ends_after_its_hook",
    ) {
        return;
    }
    let case = Case::start();
    case.database();
    case.database_node("one", "b", &[]);
    let pod = case.await_pod("one", "containers ready", |pod| condition(pod, "ContainersReady").0 == "True");
    assert_eq!(
        condition(&pod, "Ready"),
        ("False", &*format!("corresponding condition of pod readiness gate \"{GATE}\" does not exist."))
    );
    assert!(node_of(&pod).starts_with('b'), "{}", node_of(&pod));
    case.open_gate("one");
    let pod = case.await_pod("one", "to be ready", is_ready);
    let client = Client::at(&address(&pod));
    assert!(client.is_ok("/-/ready"));

    // The claim is bound, and its volume pinned to the host.
    let volume = serde_json::to_value(case.volume("data-one")).expect("JSON");
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(volume["spec"]["claimRef"]["name"], "data-one");
    let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term["values"], json!([node_of(&pod)]));
    let data: Vec<PathBuf> = std::fs::read_dir(case.kubernetes.folder(NAMESPACE, "data-one"))
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!data.is_empty(), "the database keeps its data on the volume");

    // Killed, it comes back with the same address and data.
    case.kubernetes.kill(NAMESPACE, "one");
    let again = case
        .await_pod("one", "to be ready again", |pod| container(pod)["restartCount"] == 1 && is_ready(pod));
    assert_eq!(container(&again)["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(address(&again), address(&pod));

    // Deleted, it ends by itself, and is gone.
    case.delete("one");
    let mut output = String::new();
    until("the pod to be gone", BOUND, || {
        let now = case.kubernetes.output("one");
        if !now.is_empty() {
            output = now;
        }
        if case.pod("one").is_none() { Ok(()) } else { Err(output.clone()) }
    });
    assert!(output.trim_end().ends_with("msg=stopped"), "{output}");
    assert!(case.kubernetes.pids(NAMESPACE, "one").is_empty());
    assert!(client.get("/-/healthy").is_err(), "its address answers no more");
}

#[test]
#[ignore = "needs root"]
fn a_pod_ends_only_after_its_hook_and_goes_only_after_its_end() {
    if !inside("kubernetes::nodes::a_pod_ends_only_after_its_hook_and_goes_only_after_its_end") {
        return;
    }
    let case = Case::start();
    let listener = TcpListener::bind("10.244.0.1:0").expect("the bridge has an address");
    let port = listener.local_addr().expect("an address").port();
    let mut pod = idle_pod("one", "a", None);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    pod["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"httpGet": {"host": "10.244.0.1", "path": "/drain", "port": port}}});
    case.create::<Pod>(pod);
    case.await_pod("one", "to be ready", is_ready);
    case.delete("one");
    listener.set_nonblocking(true).expect("a listener can be asked");
    let (mut stream, _) =
        until("the hook to be called", BOUND, || listener.accept().map_err(|error| error.to_string()));
    stream.set_nonblocking(false).expect("a stream can be waited for");
    stream.set_read_timeout(Some(BOUND)).expect("a bound can be set");
    let mut request = [0; 10];
    stream.read_exact(&mut request).expect("a request");
    assert_eq!(&request, b"GET /drain");
    assert_eq!(case.kubernetes.pids(NAMESPACE, "one").len(), 1, "it lives while its hook runs");
    assert!(case.pod("one").is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()));
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .expect("an answer is taken");
    drop(stream);
    case.await_gone("one");
    assert!(case.kubernetes.pids(NAMESPACE, "one").is_empty());
}

#[test]
#[ignore = "needs root"]
fn three_pods_are_one_database_over_names_that_outlive_addresses() {
    if !inside("kubernetes::nodes::three_pods_are_one_database_over_names_that_outlive_addresses") {
        return;
    }
    let case = Case::start();
    case.database();
    case.database_node("one", "a", &[]);
    case.await_pod("one", "containers ready", |pod| condition(pod, "ContainersReady").0 == "True");
    let first = format!("one.db-nodes.{NAMESPACE}.svc:7421");
    for (name, zone) in [("two", "b"), ("three", "c")] {
        case.database_node(name, zone, &[&first]);
    }
    let addresses: Vec<String> = ["one", "two", "three"]
        .map(|name| {
            address(
                &case
                    .await_pod(name, "containers ready", |pod| condition(pod, "ContainersReady").0 == "True"),
            )
        })
        .to_vec();
    await_safe(&addresses[2], 3);

    // A machine that starts again gives its pod another address; the others find it by its name.
    let host = node_of(&case.pod("two").expect("the pod"));
    case.kubernetes.lose(&host, Disk::Kept);
    case.await_node(&host, "Unknown");
    case.kubernetes.restore(&host);
    let old = addresses[1].clone();
    let again = case.await_pod("two", "another address", |pod| {
        condition(pod, "ContainersReady").0 == "True"
            && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
            && address(pod) != old
    });
    await_safe(&address(&again), 3);
}

fn await_safe(address: &str, nodes: usize) {
    let client = Client::at(address);
    until("the database to be safe", BOUND, || {
        let answer = client.get("/api/v1/status/cluster")?;
        if answer.status != 200 {
            return Err(answer.body);
        }
        let status = answer.json()["data"].clone();
        let count = status["nodes"].as_array().map_or(0, Vec::len);
        if status["safety"] == "safe" && count == nodes { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
#[ignore = "needs root"]
fn a_pod_of_a_lost_machine_hangs_until_the_node_object_goes_and_its_claim_is_stuck_for_ever() {
    if !inside(
        "kubernetes::nodes::a_pod_of_a_lost_machine_hangs_until_the_node_object_goes_and_its_claim_is_stuck_for_ever",
    ) {
        return;
    }
    let case = Case::start();
    case.claim("data", CLASS_LOCAL);
    case.create::<Pod>(idle_pod("one", "a", Some("data")));
    let host = node_of(&case.await_pod("one", "to be ready", is_ready));
    case.kubernetes.lose(&host, Disk::Kept);
    case.await_node(&host, "Unknown");
    case.await_pod("one", "not ready", |pod| !is_ready(pod));
    case.await_pod("one", "Terminating", |pod| pod.metadata.deletion_timestamp.is_some());
    // It would have gone within its grace of a second, if anybody could end it.
    let seen = std::time::Instant::now();
    until("time to pass", BOUND, || {
        if seen.elapsed() > Duration::from_secs(3) { Ok(()) } else { Err(String::new()) }
    });
    assert!(case.pod("one").is_some(), "nobody is there to say that it has ended");

    case.kubernetes.delete_node_object(&host);
    case.await_gone("one");
    case.create::<Pod>(idle_pod("two", "a", Some("data")));
    let stuck = case.await_pod("two", "unschedulable", |pod| condition(pod, "PodScheduled").0 == "False");
    let (_, why) = condition(&stuck, "PodScheduled");
    assert!(
        why.starts_with("0/5 nodes are available: ")
            && why.contains("node(s) didn't match PersistentVolume's node affinity"),
        "{why}"
    );
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(case.kubernetes.client(), NAMESPACE);
    until("an event that says why", BOUND, || {
        let list = case.kubernetes.must(events.list(&Default::default()));
        let told = list.items.iter().any(|event| event.reason.as_deref() == Some("FailedScheduling"));
        if told { Ok(()) } else { Err(format!("{} events", list.items.len())) }
    });

    // The machine is back: it registers, and the pod runs where its data is.
    case.kubernetes.restore(&host);
    let back = case.await_pod("two", "to be ready", is_ready);
    assert_eq!(node_of(&back), host);
}

#[test]
#[ignore = "needs root"]
fn processes_of_a_silent_kubelet_live_on_until_it_hears_that_they_should_not() {
    if !inside("kubernetes::nodes::processes_of_a_silent_kubelet_live_on_until_it_hears_that_they_should_not")
    {
        return;
    }
    let case = Case::start();
    case.create::<Pod>(idle_pod("one", "c", None));
    let host = node_of(&case.await_pod("one", "to be ready", is_ready));
    let before = case.kubernetes.pids(NAMESPACE, "one");
    assert_eq!(before.len(), 1);
    case.kubernetes.cut_kubelet(&host);
    case.await_pod("one", "Terminating", |pod| pod.metadata.deletion_timestamp.is_some());
    case.kubernetes.taint(&host, "node.kubernetes.io/out-of-service", "NoExecute");
    case.await_gone("one");
    assert_eq!(case.kubernetes.pids(NAMESPACE, "one"), before, "nobody told the machine");
    // It even starts them again.
    case.kubernetes.kill(NAMESPACE, "one");
    until("another process", BOUND, || match case.kubernetes.pids(NAMESPACE, "one") {
        pids if !pids.is_empty() && pids != before => Ok(()),
        pids => Err(format!("{pids:?}")),
    });
    case.kubernetes.restore(&host);
    case.await_node(&host, "True");
    until("the processes to end", BOUND, || match case.kubernetes.pids(NAMESPACE, "one") {
        pids if pids.is_empty() => Ok(()),
        pids => Err(format!("{pids:?}")),
    });
}

#[test]
#[ignore = "needs root"]
fn eviction_honours_the_budget_and_the_kubelet_ends_what_is_evicted() {
    if !inside("kubernetes::nodes::eviction_honours_the_budget_and_the_kubelet_ends_what_is_evicted") {
        return;
    }
    let case = Case::start();
    case.create::<PodDisruptionBudget>(json!({"metadata": {"name": "idle"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "idle"}}}}));
    for (name, zone) in [("one", "a"), ("two", "b")] {
        case.create::<Pod>(idle_pod(name, zone, None));
        case.await_pod(name, "to be ready", is_ready);
    }
    // By itself a client tries again, for minutes, what is refused by 429.
    let client = case.kubernetes.wait(async {
        let mut config = kube::Config::new(case.kubernetes.api.url().parse().expect("a URL"));
        config.default_retry = false;
        kube::Client::try_from(config).expect("a client")
    });
    let evict = || {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        case.kubernetes.wait(async move { pods.evict("one", &EvictParams::default()).await })
    };
    match evict() {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 429, "{status:?}"),
        other => panic!("two are needed and two are there: {other:?}"),
    }
    case.create::<Pod>(idle_pod("three", "c", None));
    case.await_pod("three", "to be ready", is_ready);
    until("the eviction to be allowed", BOUND, || evict().map_err(|error| error.to_string()));
    case.await_gone("one");
}

#[test]
#[ignore = "needs root"]
fn what_cannot_run_says_why() {
    if !inside("kubernetes::nodes::what_cannot_run_says_why") {
        return;
    }
    let case = Case::start();
    let mut crashing = idle_pod("crashing", "a", None);
    crashing["spec"]["containers"][0]["image"] = json!("false");
    case.create::<Pod>(crashing);
    let mut wordy = idle_pod("wordy", "a", None);
    wordy["spec"]["containers"][0]["args"] = json!(["not-a-number"]);
    wordy["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    case.create::<Pod>(wordy);
    let mut unknown = idle_pod("unknown", "a", None);
    unknown["spec"]["containers"][0]["image"] = json!("nothing:9");
    case.create::<Pod>(unknown);
    let mut large = idle_pod("large", "a", None);
    large["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "9Gi"}});
    case.create::<Pod>(large);
    let waiting =
        |pod: &Pod| container(pod)["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_string();
    let crashed = case.await_pod("crashing", "to back off", |pod| waiting(pod) == "CrashLoopBackOff");
    assert_eq!(container(&crashed)["lastState"]["terminated"]["exitCode"], 1);
    let wordy = case.await_pod("wordy", "to back off", |pod| waiting(pod) == "CrashLoopBackOff");
    let message = container(&wordy)["lastState"]["terminated"]["message"].clone();
    assert!(message.as_str().is_some_and(|message| message.contains("not-a-number")), "{message}");
    case.await_pod("unknown", "to fail pulling", |pod| waiting(pod) == "ImagePullBackOff");
    let large = case.await_pod("large", "unschedulable", |pod| condition(pod, "PodScheduled").0 == "False");
    assert!(condition(&large, "PodScheduled").1.contains("2 Insufficient memory"), "{large:?}");
    // An image that exists, given to a pod that waits for one, is started.
    let pods = case.pods();
    let patch = json!({"spec": {"containers": [{"name": "main", "image": "sleep"}]}});
    case.kubernetes
        .must(async move { pods.patch("unknown", &PatchParams::default(), &Patch::Strategic(patch)).await });
    case.await_pod("unknown", "to be ready", is_ready);
}

#[test]
#[ignore = "needs root"]
fn a_volume_of_the_network_follows_its_pod_and_grows() {
    if !inside("kubernetes::nodes::a_volume_of_the_network_follows_its_pod_and_grows") {
        return;
    }
    let case = Case::start();
    case.claim("data", CLASS_NETWORK);
    case.create::<Pod>(idle_pod("one", "a", Some("data")));
    let host = node_of(&case.await_pod("one", "to be ready", is_ready));
    assert!(case.volume("data").spec.expect("a spec").node_affinity.is_none());
    std::fs::write(case.kubernetes.folder(NAMESPACE, "data").join("kept"), "x")
        .expect("the folder can be written");
    case.kubernetes.lose(&host, Disk::Gone);
    case.await_pod("one", "Terminating", |pod| pod.metadata.deletion_timestamp.is_some());
    case.kubernetes.taint(&host, "node.kubernetes.io/out-of-service", "NoExecute");
    case.await_gone("one");
    case.create::<Pod>(idle_pod("two", "b", Some("data")));
    let pod = case.await_pod("two", "to be ready", is_ready);
    assert_ne!(node_of(&pod), host);
    assert!(case.kubernetes.folder(NAMESPACE, "data").join("kept").exists());

    let claims: Api<PersistentVolumeClaim> = Api::namespaced(case.kubernetes.client(), NAMESPACE);
    let patch = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    case.kubernetes.must(claims.patch("data", &PatchParams::default(), &Patch::Merge(patch)));
    until("the claim to have grown", BOUND, || {
        let claim = case.kubernetes.must(claims.get("data"));
        let capacity = claim
            .status
            .and_then(|status| status.capacity)
            .and_then(|mut capacity| capacity.remove("storage"));
        if capacity.as_ref().is_some_and(|size| size.0 == "2Gi") {
            Ok(())
        } else {
            Err(format!("{capacity:?}"))
        }
    });

    // A deleted claim stays while its pod does, and its volume goes with it.
    case.kubernetes.must(claims.delete("data", &DeleteParams::default()));
    let held = case.kubernetes.must(claims.get("data"));
    assert!(held.metadata.deletion_timestamp.is_some() && !held.finalizers().is_empty());
    let volume = case.volume("data").name_any();
    case.delete("two");
    case.await_gone("two");
    let volumes: Api<PersistentVolume> = Api::all(case.kubernetes.client());
    until("the volume to be gone", BOUND, || match case.kubernetes.must(volumes.get_opt(&volume)) {
        None => Ok(()),
        Some(volume) => Err(format!("{volume:?}")),
    });
}

#[test]
#[ignore = "needs root"]
fn disks_cables_and_power_fail_as_they_are_told_to() {
    if !inside("kubernetes::nodes::disks_cables_and_power_fail_as_they_are_told_to") {
        return;
    }
    let case = Case::start();
    let kubernetes = &case.kubernetes;
    case.database();
    // The database, because it answers.
    case.database_node("one", "a", &[]);
    let containers_ready = |pod: &Pod| condition(pod, "ContainersReady").0 == "True";
    let pod = case.await_pod("one", "containers ready", containers_ready);
    let (host, client) = (node_of(&pod), Client::at(&address(&pod)));

    // A process that stands still is not ready. (It may be restarted by its liveness probe meanwhile.)
    kubernetes.freeze(NAMESPACE, "one", true);
    case.await_pod("one", "containers not ready", |pod| !containers_ready(pod));
    kubernetes.freeze(NAMESPACE, "one", false);
    case.await_pod("one", "containers ready", containers_ready);
    let pids = kubernetes.pids(NAMESPACE, "one");

    // Without a cable nobody reaches it, and it lives.
    kubernetes.unplug(&host);
    let address = address(&pod).parse().expect("an address");
    let reached = TcpStream::connect_timeout(&address, Duration::from_millis(500));
    assert!(reached.is_err(), "its cable is out");
    case.await_node(&host, "Unknown");
    assert_eq!(kubernetes.pids(NAMESPACE, "one"), pids);
    kubernetes.restore(&host);
    until("it to be reached", BOUND, || client.get("/-/healthy").map(drop));
    case.await_node(&host, "True");
    assert_eq!(kubernetes.pids(NAMESPACE, "one"), pids);

    // Two volumes are exchanged while nobody uses them, then one is emptied.
    for (name, zone) in [("two", "b"), ("three", "c")] {
        let claim = format!("data-{name}");
        case.claim(&claim, CLASS_LOCAL);
        case.create::<Pod>(idle_pod(name, zone, Some(&claim)));
        case.await_pod(name, "to be ready", is_ready);
        std::fs::write(kubernetes.folder(NAMESPACE, &claim).join(name), "")
            .expect("the folder can be written");
    }
    kubernetes.swap(NAMESPACE, ["two", "three"], ["data-two", "data-three"]);
    let folder = kubernetes.folder(NAMESPACE, "data-two");
    assert!(folder.join("three").exists() && !folder.join("two").exists());
    case.await_pod("two", "to be restarted", |pod| container(pod)["restartCount"] == 1 && is_ready(pod));
    kubernetes.kill_and_wipe(NAMESPACE, "two", "data-two");
    assert_eq!(std::fs::read_dir(&folder).expect("the folder stays").count(), 0);
    case.await_pod("two", "to be restarted", |pod| container(pod)["restartCount"] == 2 && is_ready(pod));

    // A zone goes dark and comes back with its disks.
    let third = node_of(&case.pod("three").expect("the pod"));
    kubernetes.power("c", false);
    assert!(kubernetes.pids(NAMESPACE, "three").is_empty());
    for host in ["c1", "c2"] {
        case.await_node(host, "Unknown");
    }
    kubernetes.power("c", true);
    for host in ["c1", "c2"] {
        case.await_node(host, "True");
    }
    // Its time to tolerate that may be over meanwhile; then its kubelet ends it.
    until("the pod to run or to be gone", BOUND, || match case.pod("three") {
        Some(pod) if !is_ready(&pod) || pod.metadata.deletion_timestamp.is_some() => {
            Err(format!("{:?}", pod.status))
        }
        _ => Ok(()),
    });
    assert!(kubernetes.folder(NAMESPACE, "data-three").join("two").exists(), "the disk is as it was");

    // Another machine of the same name has none of the folders.
    let id = |case: &Case| {
        let nodes: Api<Node> = Api::all(case.kubernetes.client());
        let node = case.kubernetes.must(async { nodes.get(&third).await });
        node.status.and_then(|status| status.node_info).map(|info| info.machine_id)
    };
    let before = id(&case);
    kubernetes.replace_machine(&third);
    until("another machine", BOUND, || if id(&case) != before { Ok(()) } else { Err(format!("{before:?}")) });
    until("the pod, or another one, to wait for its folder", BOUND, || match case.pod("three") {
        Some(pod) => {
            let waiting = container(&pod)["state"]["waiting"].clone();
            let is_told = waiting["message"].as_str().is_some_and(|why| why.contains("does not exist"));
            if waiting["reason"] == "ContainerCreating" && is_told {
                Ok(())
            } else {
                Err(waiting.to_string())
            }
        }
        None => {
            case.create::<Pod>(idle_pod("three", "c", Some("data-three")));
            Err("no such pod".into())
        }
    });
}
