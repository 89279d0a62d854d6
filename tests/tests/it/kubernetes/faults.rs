//! What goes wrong on purpose goes wrong for those that it is meant for, and until it is cleared.

use super::{config, eventually, pod, with_server};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::time::{Duration, Instant};
use tests::kubernetes::api::Fault;

#[test]
fn a_server_that_was_down_comes_back_with_all_it_knows() {
    with_server(|server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        configs.create(&PostParams::default(), &config("a", json!({}))).await.unwrap();
        let mut watch = configs.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        assert!(matches!(watch.try_next().await, Ok(Some(WatchEvent::Added(_)))));
        tokio::task::block_in_place(|| server.faults().down());
        assert!(!matches!(watch.try_next().await, Ok(Some(_))), "the watch has ended");
        assert!(configs.get("a").await.is_err());
        tokio::task::block_in_place(|| server.faults().up());
        configs.get("a").await.unwrap();
    });
}

#[test]
fn requests_fail_for_those_that_are_meant() {
    with_server(|server, client| async move {
        let other = server.client("other/1");
        let (mine, theirs): (Api<ConfigMap>, Api<ConfigMap>) =
            (Api::namespaced(client, "default"), Api::namespaced(other, "default"));
        server.faults().fail("test", Fault::Status(500), 100);
        assert!(
            matches!(mine.list(&ListParams::default()).await, Err(kube::Error::Api(status)) if status.code == 500)
        );
        theirs.list(&ListParams::default()).await.unwrap();
        server.faults().clear("test");
        mine.list(&ListParams::default()).await.unwrap();
        server.faults().fail_writes("test", Fault::AnswerLost, 100);
        assert!(mine.create(&PostParams::default(), &config("a", json!({}))).await.is_err());
        mine.get("a").await.expect("it was done, though nobody said so");
        server.faults().cut("test");
        assert!(mine.get("a").await.is_err());
        server.faults().clear("test");
        mine.get("a").await.unwrap();
    });
}

#[test]
fn a_request_that_is_not_answered_is_not_done() {
    with_server(|server, client| async move {
        let configs: Api<ConfigMap> = Api::namespaced(client, "default");
        server.faults().fail_writes("test", Fault::Silence, 100);
        let (params, new) = (PostParams::default(), config("a", json!({})));
        let asked = configs.create(&params, &new);
        assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
        assert!(configs.get_opt("a").await.unwrap().is_none());
    });
}

#[test]
fn a_frozen_watch_tells_nothing_until_it_is_released() {
    with_server(|server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let version = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let others: Api<Pod> = Api::namespaced(server.client("other/1"), "default");
        let mut frozen = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        server.faults().freeze_watches("test");
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        let short = WatchParams::default().timeout(1);
        let told: Vec<_> = others.watch(&short, &version).await.unwrap().try_collect().await.unwrap();
        assert!(matches!(told[0], WatchEvent::Added(_)), "{told:?}");
        let held: Vec<_> = pods.watch(&short, &version).await.unwrap().try_collect().await.unwrap();
        assert!(held.is_empty(), "what the other was told is held back from this one: {held:?}");
        server.faults().clear("test");
        assert!(matches!(frozen.try_next().await, Ok(Some(WatchEvent::Added(_)))));
    });
}

#[test]
fn a_delayed_watch_tells_later() {
    with_server(|server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let version = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let mut watch = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        let delay = Duration::from_millis(300);
        server.faults().delay_watches("test", delay);
        let start = Instant::now();
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        watch.try_next().await.unwrap().unwrap();
        assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    });
}

#[test]
fn every_request_is_in_the_record() {
    with_server(|server, client| async move {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        pods.create(&PostParams::default(), &pod("a")).await.unwrap();
        let _ = pods.get("b").await;
        let all = eventually("the record", async || {
            let all = server.requests();
            (all.len() == 2).then_some(all)
        })
        .await;
        let seen: Vec<_> = all
            .iter()
            .map(|one| {
                (one.verb, one.resource.as_str(), one.namespace.as_str(), one.name.as_str(), one.status)
            })
            .collect();
        assert_eq!(seen, [("create", "pods", "default", "", 201), ("get", "pods", "default", "b", 404)]);
        assert_eq!(
            (all[0].user_agent.as_str(), all[0].is_write(), all[1].is_write()),
            ("test/1", true, false)
        );
    });
}
