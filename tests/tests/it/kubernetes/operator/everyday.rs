//! What happens on a good day.

use super::*;
use tests::namespaces::inside;

#[test]
#[ignore = "needs root"]
fn a_database_comes_from_nothing_and_is_ready_when_every_shard_has_its_copies() {
    if !inside(
        "kubernetes::operator::everyday::a_database_comes_from_nothing_and_is_ready_when_every_shard_has_its_copies",
    ) {
        return;
    }
    let case = Case::start();
    let took = case.await_ready();
    case.report("six nodes from nothing", took);
    let pods: Vec<String> = case.pods().into_keys().collect();
    assert_eq!(pods, ["db-a-1", "db-a-2", "db-b-1", "db-b-2", "db-c-1", "db-c-2"]);
    let status = case.status();
    assert_eq!((&status["ready"], &status["shards"]), (&json!("6/6"), &json!("64/64")), "{status:#}");
    until("Events to say so", HEALED, || match case.events() {
        events if ["Created", "Ready"].iter().all(|word| events.iter().any(|event| event == word)) => Ok(()),
        events => Err(format!("{events:?}")),
    });
    case.under_load(|loads| {
        until("writes to be acknowledged", HEALED, || {
            match loads.iter().all(|load| load.acknowledged() > 20) {
                true => Ok(()),
                false => Err("not yet".into()),
            }
        });
    });
}

impl Case {
    fn delete_cluster(&self) {
        let api = self.clusters();
        self.kubernetes.must(async move { api.delete(NAME, &DeleteParams::default()).await });
        until("the cluster object and its pods to be gone", HEALED, || {
            let api = self.clusters();
            let is_there = self.kubernetes.must(async move { api.get_opt(NAME).await }).is_some();
            match (is_there, self.pods().len()) {
                (false, 0) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_database_at_rest_is_left_alone() {
    if !inside("kubernetes::operator::everyday::a_database_at_rest_is_left_alone") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    until("the last change to be written", HEALED, || {
        case.kubernetes.api.forget_requests();
        thread::park_timeout(Duration::from_secs(3));
        match case.writes().len() {
            0 => Ok(()),
            writes => Err(format!("{writes} writes in 3 s")),
        }
    });
    case.kubernetes.api.forget_requests();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        thread::park_timeout(Duration::from_millis(500));
        assert_eq!(case.writes(), [], "nothing is to be changed: {}", case.story());
    }
    let ours = |request: &Request| request.user_agent.starts_with("sarsen-operator");
    let requests = case.kubernetes.api.requests().into_iter().filter(ours).count();
    println!("REPORT at rest: {requests} requests of the operator in 20 s");
    assert!(requests > 0, "the lease is renewed, so the operator lives");
}

#[test]
#[ignore = "needs root"]
fn a_database_that_was_deleted_comes_back_around_its_claims_or_goes_with_them() {
    if !inside(
        "kubernetes::operator::everyday::a_database_that_was_deleted_comes_back_around_its_claims_or_goes_with_them",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let uids = |case: &Case| {
        case.claims().into_iter().map(|(name, claim)| (name, claim.uid())).collect::<BTreeMap<_, _>>()
    };
    let claims = uids(&case);
    let id = case.status()["clusterId"].clone();
    case.under_load(|loads| {
        until("writes to be acknowledged", HEALED, || {
            match loads.iter().all(|load| load.acknowledged() > 20) {
                true => Ok(()),
                false => Err("not yet".into()),
            }
        });
        let began = Instant::now();
        case.delete_cluster();
        case.report("a database to stop", began.elapsed());
        assert_eq!(uids(&case), claims, "claims stay");
        case.create(NAME, spec());
        let took = case.await_ready();
        case.report("a database around the claims of an earlier one", took);
        assert_eq!(
            (uids(&case), &case.status()["clusterId"]),
            (claims.clone(), &id),
            "it is the same database"
        );
    });
    case.change(json!({"storage": {"deletePolicy": "Delete"}}));
    case.await_status("the change to be seen", |status| {
        let api = case.clusters();
        let object = case.kubernetes.must(async move { api.get(NAME).await });
        status["observedGeneration"].as_i64() == object.metadata.generation
    });
    case.delete_cluster();
    until("the claims to be gone", HEALED, || match case.claims().len() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
}

#[test]
#[ignore = "needs root"]
fn a_paused_cluster_is_only_looked_at() {
    if !inside("kubernetes::operator::everyday::a_paused_cluster_is_only_looked_at") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.change(json!({"paused": true}));
    case.await_status("the pause", |status| status["phase"] == "Paused");
    case.kubernetes.api.forget_requests();
    case.delete_pod("db-b-2");
    // When it has seen that, it would have made the pod anew.
    let status = case
        .await_status("the pod to be missed", |status| status["ready"] == "5/6" && case.pods().len() == 5);
    assert_eq!((condition(&status, "Paused"), condition(&status, "Ready")), ("True", "False"), "{status:#}");
    case.change(json!({"image": "sarsen:2"}));
    case.await_status("the new generation to be seen", |status| {
        status["groups"].as_array().is_some_and(|groups| groups.iter().all(|group| group["updated"] == 0))
    });
    let writes = case.writes();
    assert!(
        writes.iter().all(|write| write.subresource == "status" || write.resource.starts_with("events")),
        "{writes:#?}"
    );
    assert_eq!(case.pods().len(), 5);
    case.change(json!({"paused": false, "image": "sarsen:1"}));
    case.await_status("the pod to be made", |_| case.pods().len() == 6);
    case.await_ready();
}

#[test]
#[ignore = "needs root"]
fn the_retention_of_a_namespace_is_what_its_object_says() {
    if !inside("kubernetes::operator::everyday::the_retention_of_a_namespace_is_what_its_object_says") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("sarsen.dev", "v1alpha1", "SarsenNamespace"),
        "sarsennamespaces",
    );
    let api: Api<DynamicObject> = Api::namespaced_with(case.kubernetes.client(), NAMESPACE, &kind);
    let object = json!({
        "apiVersion": "sarsen.dev/v1alpha1", "kind": "SarsenNamespace", "metadata": {"name": "db-default"},
        "spec": {"cluster": NAME, "retention": "90d"},
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let creating = api.clone();
    case.kubernetes.must(async move { creating.create(&PostParams::default(), &object).await });
    let await_retention = |wanted: &str| {
        until("every node to know the retention", HEALED, || {
            for client in case.clients() {
                let answer = client.get("/api/v1/admin/namespaces")?;
                let list = answer.json()["data"].clone();
                if !list.as_array().is_some_and(|list| {
                    list.iter().any(|known| known["name"] == "default" && known["retention"] == wanted)
                }) {
                    return Err(format!("{}: {list}", client.base()));
                }
            }
            Ok(())
        });
    };
    await_retention("90d");
    let patch = json!({"spec": {"retention": "30d"}});
    case.kubernetes
        .must(async move { api.patch("db-default", &PatchParams::default(), &Patch::Merge(&patch)).await });
    await_retention("30d");
}
