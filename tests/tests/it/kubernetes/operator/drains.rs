//! Machines that are taken out of service by people: what may go goes, one at a time, and comes back with its data.

use super::*;
use kube::api::EvictParams;
use tests::namespaces::inside;

impl Case {
    fn evict(&self, name: &str) -> Result<(), u16> {
        let api: Api<Pod> = Api::namespaced(self.kubernetes.client(), NAMESPACE);
        match self.kubernetes.wait(async move { api.evict(name, &EvictParams::default()).await }) {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(error) => panic!("the API server: {error}"),
        }
    }
}

#[test]
#[ignore = "needs root"]
fn one_pod_at_a_time_is_evicted_and_a_cordoned_machine_is_waited_for() {
    if !inside(
        "kubernetes::operator::drains::one_pod_at_a_time_is_evicted_and_a_cordoned_machine_is_waited_for",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let uids = |case: &Case| {
        case.claims().into_iter().map(|(name, claim)| (name, claim.uid())).collect::<BTreeMap<_, _>>()
    };
    let (claims, pods) = (uids(&case), case.uids());
    case.under_load(|_| {
        until("an eviction to be allowed", HEALED, || case.evict("db-a-1").map_err(|code| code.to_string()));
        for other in ["db-a-2", "db-b-1"] {
            assert_eq!(case.evict(other), Err(429), "{other} while db-a-1 is away");
        }
        let back = case.await_status("the pod to come back", |status| {
            condition(status, "Ready") == "True"
                && case.uids().get("db-a-1").is_some_and(|uid| *uid != pods["db-a-1"])
        });
        assert_eq!(back["ready"], "6/6");
        case.await_ready();
        assert_eq!(uids(&case), claims, "with its claim");

        // As a drain does it: no new pod may go there, and the volume is nowhere else.
        let machine = case.machine("db-b-1");
        case.kubernetes.cordon(&machine, true);
        until("an eviction to be allowed", HEALED, || case.evict("db-b-1").map_err(|code| code.to_string()));
        let way_out = format!(
            "db-b-1 waits for machine {machine}, which is cordoned and has its volume: kubectl uncordon {machine}, or, if it does not come back, \
             kubectl annotate pvc data-db-b-1 sarsen.dev/replace=true"
        );
        case.await_status("the way out to be told", |status| status["message"] == way_out.as_str());
        assert_eq!(case.evict("db-c-1"), Err(429), "while db-b-1 is away");
        case.kubernetes.cordon(&machine, false);
        case.await_ready();
        assert_eq!(uids(&case), claims, "nothing was replaced");
    });
}
