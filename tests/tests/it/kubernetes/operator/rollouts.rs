//! A new image and new settings reach every pod, group by group, and a mistake in them reaches one.

use super::watching::Away;
use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeSet;
use tests::namespaces::inside;

impl Case {
    fn image(&self, name: &str) -> String {
        let pod = self.pods().remove(name);
        pod.and_then(|pod| pod.spec?.containers.first()?.image.clone()).unwrap_or_default()
    }

    /// The ConfigMaps with settings.
    fn configs(&self) -> Vec<ConfigMap> {
        let api: Api<ConfigMap> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        let ours = ListParams::default().labels(&format!("sarsen.dev/cluster={NAME}"));
        let mut list = self.kubernetes.must(async move { api.list(&ours).await }).items;
        list.retain(|config| config.name_any().starts_with("db-config-"));
        list
    }

    /// Waits until all pods are others than these, and all is well.
    fn await_changed(&self, what: &str, pods: &BTreeMap<String, String>) -> Duration {
        let began = Instant::now();
        self.await_status(what, |status| {
            let now = self.uids();
            condition(status, "Ready") == "True"
                && now.len() == pods.len()
                && now.iter().all(|(name, uid)| pods[name] != *uid)
        });
        self.await_ready();
        began.elapsed()
    }
}

/// Each pod once, and those of a group one after the other.
const ORDER: [&str; 6] = ["db-a-1", "db-a-2", "db-b-1", "db-b-2", "db-c-1", "db-c-2"];

#[test]
#[ignore = "needs root"]
fn settings_and_an_image_reach_every_pod_group_by_group_under_load() {
    if !inside(
        "kubernetes::operator::rollouts::settings_and_an_image_reach_every_pod_group_by_group_under_load",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|_| {
        for (what, change) in [
            ("settings", json!({"config": {"repair_interval": "3s"}})),
            ("an image", json!({"image": "sarsen:2"})),
        ] {
            let (pods, away) = (case.uids(), Away::watch(&case));
            case.kubernetes.api.forget_requests();
            case.change(change);
            let took = case.await_changed(&format!("{what} to be everywhere"), &pods);
            case.report(&format!("{what} at six nodes under load"), took);
            let gone = ORDER.map(|name| (name.to_owned(), BTreeSet::new()));
            assert_eq!(
                away.gone(),
                gone,
                "{what}: pods, and who else was away when they went:\n{}",
                away.story()
            );
        }
    });
    for name in ORDER {
        assert_eq!(case.image(name), "sarsen:2");
    }
    let configs = until("the old settings to be gone", HEALED, || {
        let configs = case.configs();
        if configs.len() == 1 { Ok(configs) } else { Err(format!("{} ConfigMaps", configs.len())) }
    });
    let text = &configs[0].data.as_ref().expect("it has a file")["sarsen.yaml"];
    assert!(text.contains("repair_interval: 3s"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn an_image_that_does_not_exist_stops_at_the_first_pod_and_a_better_one_goes_on() {
    if !inside(
        "kubernetes::operator::rollouts::an_image_that_does_not_exist_stops_at_the_first_pod_and_a_better_one_goes_on",
    ) {
        return;
    }
    let mut wanted = spec();
    wanted["rollout"]["progressDeadline"] = json!("3s");
    let case = Case::with(wanted);
    case.await_ready();
    let pods = case.uids();
    case.under_load(|_| {
        case.kubernetes.api.forget_requests();
        case.change(json!({"image": "sarsen:3"}));
        let status = case
            .await_status("the rollout to be stopped", |status| condition(status, "RolloutPaused") == "True");
        let said = message(&status, "RolloutPaused");
        assert!(
            said.starts_with("db-a-1: its image cannot be had: ")
                && said.ends_with("no more pods are changed: correct the specification"),
            "{said}"
        );
        assert_eq!(
            (&status["phase"], &status["message"]),
            (&json!("RolloutStuck"), &json!(said)),
            "{status:#}"
        );
        until("an Event to be there", HEALED, || match case.events().contains(&"RolloutStuck".into()) {
            true => Ok(()),
            false => Err(format!("{:?}", case.events())),
        });

        case.change(json!({"image": "sarsen:2"}));
        case.await_changed("a better image to be everywhere", &pods);
        assert_eq!(
            case.deleted_pods(),
            [&["db-a-1"], &ORDER[..]].concat(),
            "the first one twice, the others once"
        );
    });
}
