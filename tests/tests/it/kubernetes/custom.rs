//! Custom resources, and what kube's runtime does with them.

use super::{code, eventually, object, with_server};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as Recorded;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn definition() -> CustomResourceDefinition {
    object(json!({
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                "type": "object", "required": ["spec"], "properties": {
                    "spec": {
                        "type": "object", "required": ["size"],
                        "x-kubernetes-validations": [{"rule": "!has(self.parts) || size(self.parts) <= self.size", "message": "more parts than size"}],
                        "properties": {
                            "size": {"type": "integer", "minimum": 1, "x-kubernetes-validations": [
                                {"rule": "self >= oldSelf", "message": "size may only grow"},
                            ]},
                            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                            "parts": {
                                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}},
                            },
                        },
                    },
                    "status": {"type": "object", "properties": {"seen": {"type": "integer"}}},
                },
            }}}],
        },
    }))
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.org", "v1", "Thing"), "things")
}

async fn things(client: &Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    eventually("the definition to be established", async || {
        let conditions = definitions.get("things.example.org").await.unwrap().status?.conditions?;
        conditions.iter().any(|one| one.type_ == "Established" && one.status == "True").then_some(())
    })
    .await;
    Api::namespaced_with(client.clone(), "default", &resource())
}

fn thing(name: &str, spec: Value) -> DynamicObject {
    object(json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}))
}

#[test]
fn an_object_is_held_to_its_schema_and_to_its_rules() {
    with_server(|_server, client| async move {
        let things = things(&client).await;
        let create = async |spec: Value| things.create(&PostParams::default(), &thing("t", spec)).await;
        for wrong in [json!({}), json!({"size": 0}), json!({"size": "1"}), json!({"size": 1, "mode": "C"})] {
            assert_eq!(code(create(wrong).await), (422, "Invalid".into()));
        }
        let parts = json!([{"name": "a"}, {"name": "b"}]);
        let Err(kube::Error::Api(status)) = create(json!({"size": 1, "parts": parts})).await else {
            panic!("more parts than size")
        };
        assert!(status.message.contains("more parts than size"), "{}", status.message);
        assert_eq!(status.details.unwrap().causes[0].field, "spec");
        let made = create(json!({"size": 2, "unknown": 1, "parts": parts})).await.unwrap();
        assert_eq!(made.data["spec"], json!({"size": 2, "mode": "A", "parts": parts}));
        let patch = async |spec: Value| {
            let patch = json!({"spec": spec});
            things.patch("t", &PatchParams::default(), &Patch::Merge(&patch)).await
        };
        assert_eq!(code(patch(json!({"size": 1, "parts": []})).await).0, 422, "size may only grow");
        let grown = patch(json!({"size": 3})).await.unwrap();
        assert_eq!(grown.metadata.generation, Some(2));
        let status = json!({"spec": {"size": 9}, "status": {"seen": 1}});
        let seen = things.patch_status("t", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        assert_eq!((seen.metadata.generation, &seen.data["spec"]["size"]), (Some(2), &json!(3)));
        assert_eq!(seen.data["status"], json!({"seen": 1}));
    });
}

#[test]
fn items_by_key_have_managers_of_their_own() {
    with_server(|_server, client| async move {
        let things = things(&client).await;
        let apply = async |manager: &str, spec: Value| {
            things.patch("t", &PatchParams::apply(manager), &Patch::Apply(&thing("t", spec))).await
        };
        apply("one", json!({"size": 5, "parts": [{"name": "a", "n": 1}]})).await.unwrap();
        apply("two", json!({"size": 5, "parts": [{"name": "b", "n": 1}]})).await.unwrap();
        assert_eq!(
            code(apply("two", json!({"parts": [{"name": "a", "n": 2}]})).await),
            (409, "Conflict".into())
        );
        let last = apply("one", json!({"size": 5})).await.unwrap();
        assert_eq!(last.data["spec"]["parts"], json!([{"name": "b", "n": 1}]));
    });
}

#[test]
fn a_definition_goes_with_its_objects() {
    with_server(|_server, client| async move {
        let things = things(&client).await;
        things.create(&PostParams::default(), &thing("t", json!({"size": 1}))).await.unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        definitions.delete("things.example.org", &DeleteParams::default()).await.unwrap();
        eventually("the definition to be gone", async || {
            definitions.get_opt("things.example.org").await.unwrap().is_none().then_some(())
        })
        .await;
        assert_eq!(code(things.list(&ListParams::default()).await).0, 404);
    });
}

/// Makes a config map for each thing, and takes its time to let it go.
async fn reconcile(
    thing: Arc<DynamicObject>,
    client: Arc<Client>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let things: Api<DynamicObject> = Api::namespaced_with((*client).clone(), "default", &resource());
    let configs: Api<ConfigMap> = Api::namespaced((*client).clone(), "default");
    finalizer(&things, "example.org/thing", thing, async |event| match event {
        Finalizing::Apply(thing) => {
            let owner = thing.controller_owner_ref(&resource());
            let name = thing.name_any();
            let made = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [owner]},
                "data": {"size": thing.data["spec"]["size"].to_string()},
            });
            configs.patch(&name, &PatchParams::apply("thing"), &Patch::Apply(&made)).await?;
            let status = json!({"apiVersion": "example.org/v1", "kind": "Thing", "status": {"seen": thing.metadata.generation}});
            things.patch_status(&name, &PatchParams::apply("thing").force(), &Patch::Apply(&status)).await?;
            Ok(Action::await_change())
        }
        Finalizing::Cleanup(_) => Ok(Action::await_change()),
    })
    .await
}

#[test]
fn a_controller_of_kube_does_its_work_and_then_rests() {
    with_server(|server, client| async move {
        let things = things(&client).await;
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let theirs = server.client("controller/1");
        let run = Controller::new_with(
            Api::<DynamicObject>::namespaced_with(theirs.clone(), "default", &resource()),
            watcher::Config::default(),
            resource(),
        )
        .owns(Api::<ConfigMap>::namespaced(theirs.clone(), "default"), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), Arc::new(theirs))
        .for_each(|_| std::future::ready(()));
        let running = tokio::spawn(run);
        things.create(&PostParams::default(), &thing("t", json!({"size": 1}))).await.unwrap();
        let data = async || Some(configs.get_opt("t").await.unwrap()?.data?.get("size")?.clone());
        assert_eq!(eventually("what it makes", data).await, "1");
        // It makes again what somebody took away, and follows a change.
        configs.delete("t", &DeleteParams::default()).await.unwrap();
        eventually("what it makes again", data).await;
        let patch = json!({"spec": {"size": 7}});
        things.patch("t", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        eventually("the change", async || data().await.filter(|size| size == "7")).await;
        let seen = async || (things.get("t").await.unwrap().data["status"]["seen"] == 2).then_some(());
        eventually("its status", seen).await;
        things.delete("t", &DeleteParams::default()).await.unwrap();
        let gone = async || things.get_opt("t").await.unwrap().is_none().then_some(());
        eventually("the thing to be gone", gone).await;
        let gone = async || configs.get_opt("t").await.unwrap().is_none().then_some(());
        eventually("what it owned to be gone", gone).await;
        running.abort();
    });
}

#[test]
fn an_event_is_recorded_once_and_counted_and_both_groups_show_it() {
    with_server(|_server, client| async move {
        let things = things(&client).await;
        let thing = things.create(&PostParams::default(), &thing("t", json!({"size": 1}))).await.unwrap();
        let reporter = Reporter { controller: "sarsen-operator".into(), instance: Some("o-1".into()) };
        let recorder = Recorder::new(client.clone(), reporter);
        let event = Event {
            type_: EventType::Warning,
            reason: "Deferred".into(),
            note: Some("why".into()),
            action: "Replacing".into(),
            secondary: None,
        };
        let mut about = thing.object_ref(&resource());
        about.namespace = Some("default".into());
        for _ in 0..3 {
            recorder.publish(&event, &about).await.unwrap();
        }
        let recorded: Api<Recorded> = Api::namespaced(client.clone(), "default");
        let all = recorded.list(&ListParams::default().fields("regarding.name=t")).await.unwrap();
        assert_eq!(all.items.len(), 1);
        assert_eq!(all.items[0].note.as_deref(), Some("why"));
        assert!(
            all.items[0].series.as_ref().is_some_and(|series| series.count >= 2),
            "{:?}",
            all.items[0].series
        );
        let core: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client, "default");
        let all = core.list(&ListParams::default().fields("involvedObject.name=t")).await.unwrap();
        assert_eq!(all.items[0].message.as_deref(), Some("why"));
    });
}
