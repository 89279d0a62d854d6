//! What goes because of something else, and what a disruption budget holds back.

use super::{code, config, eventually, object, pod, with_server};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// An owner, and something that it owns, which holds it if it goes in the foreground.
async fn family(client: &Client, blocks: bool) -> (Api<ConfigMap>, ConfigMap) {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let owner = configs.create(&PostParams::default(), &config("owner", json!({}))).await.unwrap();
    let owned = object(json!({"metadata": {"name": "owned", "finalizers": ["x/y"], "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(), "blockOwnerDeletion": blocks,
    }]}}));
    let owned = configs.create(&PostParams::default(), &owned).await.unwrap();
    (configs, owned)
}

async fn until_deleting(configs: &Api<ConfigMap>) {
    eventually("what is owned to be deleted", async || {
        configs.get("owned").await.unwrap().metadata.deletion_timestamp
    })
    .await;
}

async fn until_gone(configs: &Api<ConfigMap>, name: &str) {
    eventually("it to be gone", async || configs.get_opt(name).await.unwrap().is_none().then_some(())).await;
}

async fn finish(configs: &Api<ConfigMap>) {
    let patch = json!({"metadata": {"finalizers": null}});
    configs.patch("owned", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[test]
fn what_is_owned_goes_after_its_owner() {
    with_server(|_server, client| async move {
        let (configs, _) = family(&client, true).await;
        configs.delete("owner", &DeleteParams::default()).await.unwrap();
        assert_eq!(code(configs.get("owner").await).0, 404, "the owner waits for nobody");
        until_deleting(&configs).await;
        finish(&configs).await;
        until_gone(&configs, "owned").await;
    });
}

#[test]
fn in_the_foreground_an_owner_goes_last() {
    with_server(|_server, client| async move {
        let (configs, _) = family(&client, true).await;
        configs.delete("owner", &DeleteParams::foreground()).await.unwrap();
        until_deleting(&configs).await;
        let owner = configs.get("owner").await.unwrap();
        assert_eq!(owner.finalizers(), ["foregroundDeletion"]);
        finish(&configs).await;
        until_gone(&configs, "owner").await;
    });
}

#[test]
fn an_orphan_stays_and_has_no_owner() {
    with_server(|_server, client| async move {
        let (configs, owned) = family(&client, true).await;
        configs.delete("owner", &DeleteParams::orphan()).await.unwrap();
        until_gone(&configs, "owner").await;
        let orphan = configs.get("owned").await.unwrap();
        assert_eq!((orphan.uid(), orphan.owner_references().len()), (owned.uid(), 0));
        assert!(orphan.metadata.deletion_timestamp.is_none());
    });
}

#[test]
fn an_owner_of_the_same_name_is_another_owner() {
    with_server(|_server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        configs.create(&PostParams::default(), &config("owner", json!({}))).await.unwrap();
        let owned = object(json!({"metadata": {"name": "owned", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "of-another"},
        ]}}));
        configs.create(&PostParams::default(), &owned).await.unwrap();
        until_gone(&configs, "owned").await;
    });
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    with_server(|_server, client| async move {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = object(json!({"metadata": {"name": "n"}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let configs: Api<ConfigMap> = Api::namespaced(client, "n");
        let held = object(json!({"metadata": {"name": "owned", "finalizers": ["x/y"]}}));
        configs.create(&PostParams::default(), &held).await.unwrap();
        namespaces.delete("n", &DeleteParams::default()).await.unwrap();
        until_deleting(&configs).await;
        assert_eq!(code(configs.create(&PostParams::default(), &config("more", json!({}))).await).0, 403);
        finish(&configs).await;
        eventually("the namespace to be gone", async || {
            namespaces.get_opt("n").await.unwrap().is_none().then_some(())
        })
        .await;
    });
}

/// Pods that are ready, on a node, with a budget.
async fn budgeted(client: &Client, budget: serde_json::Value) -> (Api<Pod>, Api<PodDisruptionBudget>) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    for name in ["a", "b"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
        let _: serde_json::Value =
            pods.create_subresource("binding", name, &PostParams::default(), &binding).await.unwrap();
        set_ready(&pods, name, true).await;
    }
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), "default");
    let budget = object(json!({"metadata": {"name": "b"}, "spec": budget}));
    budgets.create(&PostParams::default(), &budget).await.unwrap();
    (pods, budgets)
}

async fn set_ready(pods: &Api<Pod>, name: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

async fn until_allowed(budgets: &Api<PodDisruptionBudget>, allowed: i32, healthy: i32) {
    eventually("the budget", async || {
        let budget = budgets.get("b").await.unwrap();
        let (status, generation) = (budget.status.unwrap(), budget.metadata.generation);
        let is_so = status.disruptions_allowed == Some(allowed) && status.current_healthy == Some(healthy);
        (is_so && status.observed_generation == generation).then_some(())
    })
    .await;
}

#[test]
fn a_budget_allows_as_many_evictions_as_it_can_spare() {
    with_server(|_server, client| async move {
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}});
        let (pods, budgets) = budgeted(&client, spec).await;
        until_allowed(&budgets, 1, 2).await;
        pods.evict("a", &EvictParams::default()).await.unwrap();
        assert!(pods.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
        until_allowed(&budgets, 0, 1).await;
        let refused = pods.evict("b", &EvictParams::default()).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{refused:?}") };
        assert_eq!(
            (status.code, status.details.unwrap().causes[0].reason.as_str()),
            (429, "DisruptionBudget")
        );
        // One that is not ready may go all the same, if the budget says so.
        set_ready(&pods, "b", false).await;
        let patch = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
        budgets.patch("b", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        pods.evict("b", &EvictParams::default()).await.unwrap();
    });
}

#[test]
fn a_budget_of_what_may_be_missing_allows_nothing_for_pods_without_a_scale() {
    with_server(|_server, client| async move {
        let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}});
        let (pods, budgets) = budgeted(&client, spec).await;
        until_allowed(&budgets, 0, 2).await;
        assert_eq!(code(pods.evict("a", &EvictParams::default()).await).0, 429);
    });
}
