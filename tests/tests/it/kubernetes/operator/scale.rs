//! More nodes and fewer, more groups and fewer.

use super::*;
use tests::namespaces::inside;

fn group(name: &str, zone: &str, nodes: u32) -> Value {
    json!({"name": name, "nodes": nodes, "topology": {"values": [zone]}})
}

impl Case {
    /// Waits until exactly these instances are members, and all is well.
    fn await_instances(&self, wanted: &[&str]) -> Duration {
        let began = Instant::now();
        self.await_status(&format!("{wanted:?}"), |status| {
            condition(status, "Ready") == "True"
                && self.pods().into_keys().eq(wanted.iter().map(ToString::to_string))
        });
        self.await_ready();
        began.elapsed()
    }

    /// How many shards each node has copies of, as one of them says.
    fn copies(&self) -> BTreeMap<String, u64> {
        let answer = self.clients()[0].get("/api/v1/status/cluster").expect("a ready node answers").json();
        let nodes = answer["data"]["nodes"].as_array().cloned().unwrap_or_default();
        let instance = |node: &Value| {
            node["address"].as_str().and_then(|address| address.split('.').next()).unwrap_or("").to_owned()
        };
        nodes
            .iter()
            .filter(|node| node["shards"] != 0)
            .map(|node| (instance(node), node["shards"].as_u64().unwrap_or(0)))
            .collect()
    }
}

#[test]
#[ignore = "needs root"]
fn a_group_grows_and_shrinks_under_load_and_the_claim_of_who_left_stays() {
    if !inside(
        "kubernetes::operator::scale::a_group_grows_and_shrinks_under_load_and_the_claim_of_who_left_stays",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|_| {
        case.change(json!({"groups": [group("a", "a", 3), group("b", "b", 2), group("c", "c", 2)]}));
        let took =
            case.await_instances(&["db-a-1", "db-a-2", "db-a-3", "db-b-1", "db-b-2", "db-c-1", "db-c-2"]);
        case.report("a third node in one group under load", took);
        // It is one of them at once, and gets its share.
        until("the third node to have its share", HEALED, || {
            let copies = case.copies();
            let of_a: Vec<u64> = copies
                .iter()
                .filter(|(name, _)| name.starts_with("db-a-"))
                .map(|(_, shards)| *shards)
                .collect();
            let is_even = of_a.len() == 3 && of_a.iter().sum::<u64>() == 64;
            if is_even && of_a.iter().all(|shards| *shards >= 20) {
                Ok(())
            } else {
                Err(format!("{copies:?}"))
            }
        });

        case.change(json!({"groups": [group("a", "a", 1), group("b", "b", 2), group("c", "c", 2)]}));
        let began = Instant::now();
        case.await_status("group a to have one node", |status| {
            condition(status, "Ready") == "True" && case.pods().len() == 5
        });
        case.await_ready();
        case.report("two nodes fewer in one group under load", began.elapsed());
        until("those that stay to have everything", HEALED, || match case.copies() {
            copies if copies.len() == 5 => Ok(()),
            copies => Err(format!("{copies:?}")),
        });
        let claims: Vec<String> = case.claims().into_keys().collect();
        assert_eq!(
            claims,
            ["db-a-1", "db-a-2", "db-a-3", "db-b-1", "db-b-2", "db-c-1", "db-c-2"],
            "claims stay unless one says otherwise"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_fourth_group_comes_and_goes_with_its_claims_if_one_says_so() {
    if !inside("kubernetes::operator::scale::a_fourth_group_comes_and_goes_with_its_claims_if_one_says_so") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let three = [group("a", "a", 2), group("b", "b", 2), group("c", "c", 2)];
    let fourth = |nodes: u32| {
        let mut fourth = group("d", "a", nodes);
        fourth["storage"] = json!({"size": "1Gi", "storageClassName": "local", "deletePolicy": "Delete"});
        json!({"groups": ([three.to_vec(), vec![fourth]].concat())})
    };
    let six = ["db-a-1", "db-a-2", "db-b-1", "db-b-2", "db-c-1", "db-c-2"];
    case.under_load(|_| {
        case.change(fourth(1));
        let seven: Vec<&str> = six.iter().copied().chain(["db-d-1"]).collect();
        let took = case.await_instances(&seven);
        case.report("a fourth group under load", took);
        until("the fourth group to have its share", HEALED, || {
            let copies = case.copies();
            let has_share = copies.get("db-d-1").is_some_and(|shards| *shards > 0);
            has_share.then_some(()).ok_or_else(|| format!("{copies:?}"))
        });

        let refusal =
            case.try_change(json!({"groups": three})).expect_err("a group with nodes is not removed");
        assert!(refusal.contains("set its nodes to 0 first"), "{refusal}");
        case.change(fourth(0));
        case.await_instances(&six);
        until("the claim to be gone", HEALED, || match case.claims().contains_key("db-d-1") {
            true => Err("it is there".into()),
            false => Ok(()),
        });
        // As long as the status counts somebody who leaves, it is refused.
        until("the empty group to be removed", HEALED, || case.try_change(json!({"groups": three})));
        case.await_status("three groups", |status| {
            status["groups"].as_array().is_some_and(|groups| groups.len() == 3)
        });
        case.await_ready();
    });
    // A group of this name begins where the last one ended: no name is ever used twice.
    case.change(fourth(1));
    let seven: Vec<&str> = six.iter().copied().chain(["db-d-2"]).collect();
    case.await_instances(&seven);
}
