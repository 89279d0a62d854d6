//! Volumes of a network: of a machine that is lost they are not, so the same instance goes on elsewhere with what it has, and nothing is replaced.

use super::losses::go_on;
use super::*;
use tests::kubernetes::nodes::{CLASS_NETWORK, Disk};
use tests::namespaces::inside;

/// A database whose volumes any machine of the zone can use.
fn case() -> Case {
    let mut spec = spec();
    spec["storage"]["storageClassName"] = json!(CLASS_NETWORK);
    let case = Case::with(spec);
    case.await_ready();
    case
}

impl Case {
    /// The uid of every claim.
    fn claim_uids(&self) -> BTreeMap<String, String> {
        self.claims().into_iter().map(|(name, claim)| (name, claim.uid().unwrap_or_default())).collect()
    }

    /// Waits until an instance is on another machine than this one of its zone, and all is well.
    fn await_moved(&self, instance: &str, from: &str) -> Duration {
        let began = Instant::now();
        self.await_status(&format!("{instance} to be on another machine than {from}"), |status| {
            let pods = self.pods();
            let now = pods.get(instance).and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
            now.is_some_and(|now| now != from)
                && condition(status, "Ready") == "True"
                && self.is_whole().is_ok()
        });
        let zone = |machine: &str| machine.trim_end_matches(char::is_numeric).to_owned();
        assert_eq!(zone(&self.machine(instance)), zone(from));
        began.elapsed()
    }
}

#[test]
#[ignore = "needs root"]
fn a_silent_machine_gives_up_its_pod_which_goes_on_elsewhere_with_its_volume() {
    if !inside(
        "kubernetes::operator::networks::a_silent_machine_gives_up_its_pod_which_goes_on_elsewhere_with_its_volume",
    ) {
        return;
    }
    let case = case();
    let before = case.claim_uids();
    case.under_load(|loads| {
        go_on(loads, 5);
        let machine = case.machine("db-b-1");
        case.kubernetes.lose(&machine, Disk::Kept);
        case.report("machine silent, volume of the network", case.await_moved("db-b-1", &machine));
        go_on(loads, 5);
        // It comes back, and finds nothing of its own.
        case.kubernetes.restore(&machine);
        go_on(loads, 5);
    });
    case.await_ready();
    assert_eq!(case.claim_uids(), before, "{}", case.story());
    assert_eq!(case.deleted_pods(), ["db-b-1"], "{}", case.story());
    let events = case.events();
    for (reason, told) in [("InstanceSuspect", true), ("PodFreed", true), ("ReplacementStarted", false)] {
        assert_eq!(events.iter().any(|event| event == reason), told, "{reason} in {events:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_machine_whose_node_object_is_deleted_gives_up_its_pod_too() {
    if !inside("kubernetes::operator::networks::a_machine_whose_node_object_is_deleted_gives_up_its_pod_too")
    {
        return;
    }
    let case = case();
    let before = case.claim_uids();
    case.under_load(|loads| {
        go_on(loads, 5);
        let machine = case.machine("db-c-2");
        case.kubernetes.lose(&machine, Disk::Gone);
        case.kubernetes.delete_node_object(&machine);
        case.report("node object deleted, volume of the network", case.await_moved("db-c-2", &machine));
        go_on(loads, 5);
    });
    assert_eq!(case.claim_uids(), before, "{}", case.story());
    let events = case.events();
    assert!(!events.iter().any(|event| event == "ReplacementStarted"), "{events:?}");
}
