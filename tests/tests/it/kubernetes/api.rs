//! The API server in memory is as the real one, for those who talk to it through kube's client.

use super::{code, config, eventually, object, pod, with_server};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

#[test]
fn objects_are_created_read_changed_and_deleted() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let created = configs.create(&PostParams::default(), &config("a", json!({"x": "1"}))).await.unwrap();
        assert!(created.uid().is_some() && created.resource_version().is_some());
        assert_eq!(
            code(configs.create(&PostParams::default(), &config("a", json!({}))).await).1,
            "AlreadyExists"
        );
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
        // As a server of 1.36 answers: a patch asks for the uid to be changed.
        let patch = json!({"metadata": {"uid": "another", "labels": {"x": "1"}}});
        let refused = pods.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await;
        assert_eq!(code(refused), (422, "Invalid".into()));
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

#[test]
fn a_claim_grows_only_when_its_class_allows_it_and_never_shrinks() {
    with_server(|_server, client| async move {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "default");
        let classes: Api<StorageClass> = Api::all(client);
        for (name, grows) in [("grows", true), ("stays", false)] {
            let class = object(
                json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": grows}),
            );
            classes.create(&PostParams::default(), &class).await.unwrap();
            let claim = object(json!({
                "metadata": {"name": name},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                    "resources": {"requests": {"storage": "2Gi"}},
                },
            }));
            claims.create(&PostParams::default(), &claim).await.unwrap();
            let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}});
            claims.patch_status(name, &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
        }
        let resize = async |name: &str, size: &str| {
            let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            claims.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        assert_eq!(code(resize("stays", "3Gi").await), (403, "Forbidden".into()));
        assert_eq!(code(resize("grows", "1Gi").await), (422, "Invalid".into()));
        resize("grows", "3Gi").await.unwrap();
        let patch = json!({"spec": {"storageClassName": "stays"}});
        let other = claims.patch("grows", &PatchParams::default(), &Patch::Merge(&patch)).await;
        assert_eq!(code(other).0, 422);
    });
}

#[test]
fn of_a_pod_only_the_image_and_more_tolerations_can_be_changed() {
    with_server(|_server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        let patch = async |spec: Value| {
            let patch = json!({"spec": spec});
            pods.patch("a", &PatchParams::default(), &Patch::Strategic(&patch)).await
        };
        let changed = patch(json!({"containers": [{"name": "main", "image": "i:2"}]})).await.unwrap();
        assert_eq!(changed.metadata.generation, Some(2));
        assert_eq!(changed.spec.unwrap().tolerations.unwrap().len(), 2, "those that every pod gets");
        assert_eq!(code(patch(json!({"containers": [{"name": "main", "args": ["x"]}]})).await).0, 422);
        assert_eq!(code(patch(json!({"nodeName": "n"})).await).0, 422);
        assert_eq!(code(patch(json!({"tolerations": []})).await).0, 422);
        let labelled = json!({"metadata": {"labels": {"l": "1"}}});
        let labelled = pods.patch("a", &PatchParams::default(), &Patch::Merge(&labelled)).await.unwrap();
        assert_eq!(labelled.metadata.generation, Some(2), "labels are no specification");
    });
}

#[test]
fn a_list_comes_in_pages_and_selects_by_fields() {
    with_server(|_server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        for name in ["a", "b", "c"] {
            pods.create(&PostParams::default(), &pod(name)).await.unwrap();
        }
        let names = |pods: Vec<Pod>| pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
        let token = first.metadata.continue_.clone().unwrap();
        let next = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
        assert_eq!((names(first.items), names(next.items)), (vec!["a".into(), "b".into()], vec!["c".into()]));
        let one =
            pods.list(&ListParams::default().fields("metadata.name=b,status.phase=Pending")).await.unwrap();
        assert_eq!(names(one.items), ["b"]);
        assert_eq!(code(pods.list(&ListParams::default().fields("spec.hostname=b")).await).0, 400);
    });
}

#[test]
fn a_name_is_made_up_when_only_its_beginning_is_given_and_a_wrong_one_is_refused() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let prefixed: ConfigMap = object(json!({"metadata": {"generateName": "a-"}}));
        let one = configs.create(&PostParams::default(), &prefixed).await.unwrap().name_any();
        let other = configs.create(&PostParams::default(), &prefixed).await.unwrap().name_any();
        assert!(one.starts_with("a-") && one != other, "{one} {other}");
        assert_eq!(code(configs.create(&PostParams::default(), &config("A_b", json!({}))).await).0, 422);
        let nowhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
        assert_eq!(code(nowhere.create(&PostParams::default(), &config("a", json!({}))).await).0, 404);
    });
}

#[test]
fn a_try_changes_nothing() {
    with_server(|server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let tried = PostParams { dry_run: true, field_manager: None };
        assert!(configs.create(&tried, &config("a", json!({}))).await.unwrap().uid().is_some());
        assert_eq!(code(configs.get("a").await).0, 404);
        assert!(!server.requests().iter().any(|request| request.is_write()));
    });
}

#[test]
fn a_watch_from_too_long_ago_is_told_so_and_a_reflector_begins_anew() {
    with_server(|server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        let old = configs.create(&PostParams::default(), &config("c0", json!({}))).await.unwrap();
        server.keep_changes(2);
        for number in 1..6 {
            configs.create(&PostParams::default(), &config(&format!("c{number}"), json!({}))).await.unwrap();
        }
        let version = old.resource_version().unwrap();
        let gone = configs.watch(&WatchParams::default(), &version).await.map(drop);
        assert_eq!(code(gone), (410, "Expired".into()));
        let (store, writer) = reflector::store();
        let events =
            reflector(writer, watcher(configs.clone(), watcher::Config::default())).default_backoff();
        let reflecting = tokio::spawn(events.for_each(|_| std::future::ready(())));
        eventually("all to be there", async || (store.len() == 6).then_some(())).await;
        // So many at once that those which it did not see are forgotten before it can.
        server.faults().freeze_watches("test");
        for number in 1..6 {
            configs.delete(&format!("c{number}"), &DeleteParams::default()).await.unwrap();
        }
        server.faults().clear("test");
        eventually("one to be left", async || (store.len() == 1).then_some(())).await;
        reflecting.abort();
    });
}

#[test]
fn a_watch_without_a_version_begins_with_what_there_is_and_ends_with_a_bookmark() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        configs.create(&PostParams::default(), &config("a", json!({}))).await.unwrap();
        let params = WatchParams::default().timeout(1);
        let events: Vec<_> = configs.watch(&params, "0").await.unwrap().try_collect().await.unwrap();
        assert!(matches!(&events[0], WatchEvent::Added(config) if config.name_any() == "a"), "{events:?}");
        assert!(matches!(events.last(), Some(WatchEvent::Bookmark(_))), "{events:?}");
    });
}
