//! The control plane that is none: it must be as the real one for whoever talks to it.

mod api;
mod custom;
mod faults;
mod kubectl;
mod nodes;
mod operator;
mod owners;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
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

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            pause.tick().await;
        }
    };
    tokio::time::timeout(BOUND, asking).await.unwrap_or_else(|_| panic!("waited {BOUND:?} for {what}"))
}
