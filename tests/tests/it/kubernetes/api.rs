//! The API server in memory is as the real one, for those who talk to it through kube's client.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tests::kubernetes::api::ApiServer;

/// How long anything may take. Generous: the machine may be busy with other tests.
const BOUND: Duration = Duration::from_secs(30);

/// Runs a test against a server of its own.
fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Arc<ApiServer>, Client) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Arc::new(ApiServer::start(([127, 0, 0, 1], 0).into()));
        let client = server.client("test/1");
        tokio::time::timeout(BOUND, test(server.clone(), client)).await.expect("the test is done in time");
    });
}

fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("an object of this kind")
}

fn config(name: &str, data: Value) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": data}))
}

fn pod(name: &str) -> Pod {
    object(json!({
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "main", "image": "i:1"}]},
    }))
}

/// The status of a failed request.
fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("the server should have refused, and there is {other:?}"),
    }
}

#[test]
fn objects_are_created_read_changed_and_deleted() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let created = configs.create(&PostParams::default(), &config("a", json!({"x": "1"}))).await.unwrap();
        assert!(created.uid().is_some() && created.resource_version().is_some());
        assert_eq!(code(configs.create(&PostParams::default(), &created_again()).await).1, "AlreadyExists");
        let mut changed = created.clone();
        changed.data.as_mut().unwrap().insert("y".into(), "2".into());
        let updated = configs.replace("a", &PostParams::default(), &changed).await.unwrap();
        assert_ne!(updated.resource_version(), created.resource_version());
        assert_eq!(code(configs.replace("a", &PostParams::default(), &changed).await).1, "Conflict");
        let same = configs.replace("a", &PostParams::default(), &updated).await.unwrap();
        assert_eq!(same.resource_version(), updated.resource_version(), "what is the same is not written");
        let patch = json!({"data": {"x": null}});
        let patched = configs.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(patched.data.unwrap().into_iter().collect::<Vec<_>>(), [("y".to_owned(), "2".to_owned())]);
        configs.delete("a", &DeleteParams::default()).await.unwrap();
        assert_eq!(code(configs.get("a").await), (404, "NotFound".into()));
    });
}

fn created_again() -> ConfigMap {
    config("a", json!({}))
}

#[test]
fn a_watch_tells_what_happened_after_a_list_and_only_what_is_selected() {
    with_server(|_server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        let list = pods.list(&ListParams::default().labels("app=x")).await.unwrap();
        assert_eq!(list.items.len(), 1);
        let version = list.metadata.resource_version.unwrap();
        let watch = pods.watch(&WatchParams::default().labels("app=x"), &version).await.unwrap();
        let mut watch = watch.boxed();
        pods.create(&PostParams::default(), &pod("b")).await.unwrap();
        let patch = json!({"metadata": {"labels": {"app": "y"}}});
        pods.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        pods.delete("b", &DeleteParams::default()).await.unwrap();
        let mut seen = vec![];
        while seen.len() < 3 {
            seen.push(match watch.try_next().await.unwrap().expect("the watch goes on") {
                WatchEvent::Added(pod) => format!("+{}", pod.name_any()),
                WatchEvent::Modified(pod) => format!("~{}", pod.name_any()),
                WatchEvent::Deleted(pod) => format!("-{}", pod.name_any()),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(seen, ["+b", "-a", "-b"]);
    });
}

#[test]
fn a_status_is_written_at_its_own_door_only() {
    with_server(|_server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        let both = json!({"metadata": {"labels": {"n": "1"}}, "status": {"phase": "Running"}});
        let main = pods.patch("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
        assert_eq!(main.status.unwrap().phase.as_deref(), Some("Pending"));
        let both = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let status = pods.patch_status("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
        assert_eq!(status.status.unwrap().phase.as_deref(), Some("Running"));
        assert_eq!(status.spec.unwrap().node_name, None);
    });
}

#[test]
fn what_a_manager_no_longer_applies_goes_and_what_others_own_is_a_conflict() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let apply = async |manager: &str, force: bool, data: Value| {
            let config =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
            let params = PatchParams { force, ..PatchParams::apply(manager) };
            configs.patch("a", &params, &Patch::Apply(&config)).await
        };
        let first = apply("one", false, json!({"x": "1", "y": "1"})).await.unwrap();
        let again = apply("one", false, json!({"x": "1", "y": "1"})).await.unwrap();
        assert_eq!(
            first.resource_version(),
            again.resource_version(),
            "saying the same again changes nothing"
        );
        let refused = apply("two", false, json!({"x": "2"})).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{refused:?}") };
        let cause = &status.details.as_ref().unwrap().causes[0];
        assert_eq!((status.code, cause.field.as_str()), (409, ".data.x"));
        assert_eq!(cause.message, "conflict with \"one\" using v1");
        apply("two", false, json!({"y": "1", "z": "1"})).await.unwrap();
        apply("two", true, json!({"x": "2", "y": "1"})).await.unwrap();
        let last = apply("one", false, json!({})).await.unwrap();
        let expected = [("x", "2"), ("y", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(last.data.unwrap().into_iter().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn a_pod_that_is_bound_stays_until_its_kubelet_says_that_it_has_ended() {
    with_server(|_server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        for name in ["a", "b"] {
            pods.create(&PostParams::default(), &pod(name)).await.unwrap();
        }
        let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
        let _: Value =
            pods.create_subresource("binding", "a", &PostParams::default(), &binding).await.unwrap();
        pods.delete("a", &DeleteParams::default()).await.unwrap();
        pods.delete("b", &DeleteParams::default()).await.unwrap();
        assert_eq!(code(pods.get("b").await).0, 404);
        let going = pods.get("a").await.unwrap();
        assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
        let other = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: Some("another".into()), resource_version: None });
        assert_eq!(code(pods.delete("a", &other).await).1, "Conflict");
        pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
        assert_eq!(code(pods.get("a").await).0, 404);
    });
}

#[test]
fn a_claim_waits_for_its_finalizer() {
    with_server(|_server, client| async move {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, "default");
        let claim = object(json!({
            "metadata": {"name": "a"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }));
        claims.create(&PostParams::default(), &claim).await.unwrap();
        claims.delete("a", &DeleteParams::default()).await.unwrap();
        let going = claims.get("a").await.unwrap();
        assert!(going.metadata.deletion_timestamp.is_some());
        assert_eq!(going.finalizers(), ["kubernetes.io/pvc-protection"]);
        let patch = json!({"metadata": {"finalizers": null}});
        claims.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(code(claims.get("a").await).0, 404);
    });
}

#[test]
fn a_node_says_its_status_when_it_registers() {
    with_server(|_server, client| async move {
        let nodes: Api<Node> = Api::all(client);
        let node = object(json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {
            "machineID": "m", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
            "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "", "architecture": ""}}}));
        let node: Node = nodes.create(&PostParams::default(), &node).await.unwrap();
        assert_eq!(node.status.unwrap().node_info.unwrap().machine_id, "m");
    });
}
