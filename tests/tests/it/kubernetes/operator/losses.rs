//! What happens on a bad day. Each ends with every shard on three equal copies, nothing acknowledged lost, and nobody asked.

use super::*;
use tests::kubernetes::nodes::Disk;
use tests::namespaces::inside;

/// Waits until every load has gone on for a while.
pub fn go_on(loads: &[Load], more: i64) {
    let before: Vec<i64> = loads.iter().map(Load::acknowledged).collect();
    until("writes to go on", HEALED, || {
        let done = loads.iter().zip(&before).all(|(load, before)| load.acknowledged() >= before + more);
        if done { Ok(()) } else { Err("not yet".into()) }
    });
}

impl Case {
    /// Waits until an instance has another in its place, that has everything, and is itself gone with its claim.
    fn await_replaced(&self, old: &str) -> Duration {
        let began = Instant::now();
        self.await_status(&format!("{old} to be replaced"), |status| {
            let begun = status["replacements"].as_array().is_some_and(|list| !list.is_empty());
            let gone = !self.pods().contains_key(old);
            gone && !begun && condition(status, "Ready") == "True" && self.is_whole().is_ok()
        });
        let took = began.elapsed();
        until(&format!("the claim of {old} to go"), HEALED, || match self.claims().contains_key(old) {
            false => Ok(()),
            true => Err("it is there".into()),
        });
        took
    }

    /// The machine of an instance is gone with its disk, and so is its Node object.
    fn destroy(&self, instance: &str) {
        let machine = self.machine(instance);
        self.kubernetes.lose(&machine, Disk::Gone);
        self.kubernetes.delete_node_object(&machine);
    }

    /// Members by group, as their pods say.
    fn members(&self) -> Vec<String> {
        self.pods().into_keys().collect()
    }
}

#[test]
#[ignore = "needs root"]
fn a_machine_whose_node_object_is_deleted_is_replaced() {
    if !inside("kubernetes::operator::losses::a_machine_whose_node_object_is_deleted_is_replaced") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        case.destroy("db-b-1");
        case.report("node object deleted, machine lost", case.await_replaced("db-b-1"));
        go_on(loads, 5);
    });
    assert_eq!(case.members(), ["db-a-1", "db-a-2", "db-b-2", "db-b-3", "db-c-1", "db-c-2"]);
    let events = case.events();
    for reason in ["InstanceSuspect", "ReplacementStarted", "ReplacementCommitted", "ReplacementCompleted"] {
        assert!(events.iter().any(|event| event == reason), "no {reason} in {events:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_machine_that_is_not_ready_is_replaced_when_the_others_do_not_hear_it_either() {
    if !inside(
        "kubernetes::operator::losses::a_machine_that_is_not_ready_is_replaced_when_the_others_do_not_hear_it_either",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        // A kubelet that is silent is no loss while its processes work.
        let quiet = case.machine("db-c-1");
        case.kubernetes.cut_kubelet(&quiet);
        case.await_status("the pod not to be ready", |status| status["ready"] == "5/6");
        go_on(loads, 40);
        assert!(case.pods().contains_key("db-c-1"), "{}", case.story());
        assert_eq!(case.pods().len(), 6, "{}", case.story());
        case.kubernetes.restore(&quiet);
        case.await_ready();
        let machine = case.machine("db-a-2");
        case.kubernetes.lose(&machine, Disk::Kept);
        case.report("machine silent, processes too", case.await_replaced("db-a-2"));
        // It comes back with the disk of an instance that is gone for ever.
        case.kubernetes.restore(&machine);
        go_on(loads, 5);
    });
    case.await_ready();
}

#[test]
#[ignore = "needs root"]
fn a_zombie_acknowledges_nothing_after_its_place_is_taken() {
    if !inside("kubernetes::operator::losses::a_zombie_acknowledges_nothing_after_its_place_is_taken") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        let machine = case.machine("db-b-2");
        let address = case.kubernetes.address(NAMESPACE, "db-b-2").expect("the pod has an address");
        // Stopped in the middle of whatever it does, on a machine that Kubernetes has given up.
        case.kubernetes.freeze(NAMESPACE, "db-b-2", true);
        case.kubernetes.cut_kubelet(&machine);
        case.kubernetes.delete_node_object(&machine);
        case.report("zombie replaced", case.await_replaced("db-b-2"));
        assert!(!case.kubernetes.pids(NAMESPACE, "db-b-2").is_empty(), "the process is to live");
        // It wakes up, and takes itself for a member.
        case.kubernetes.freeze(NAMESPACE, "db-b-2", false);
        let zombie = Client::at(&format!("{address}:7420"));
        let body = tests::wire::v1::request(&loads[0].samples(loads[0].acknowledged() - 1)).snappy();
        let until_then = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until_then {
            if let Ok(answer) = zombie.send("POST", "/api/v1/write", &[], &body) {
                assert_ne!(answer.status, 204, "the zombie has acknowledged a write");
            }
        }
        until("the zombie to end", HEALED, || match case.kubernetes.pids(NAMESPACE, "db-b-2").is_empty() {
            true => Ok(()),
            false => Err(case.kubernetes.output("db-b-2").lines().last().unwrap_or_default().to_owned()),
        });
        go_on(loads, 5);
    });
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_is_wiped_under_a_living_machine_is_replaced() {
    if !inside("kubernetes::operator::losses::a_disk_that_is_wiped_under_a_living_machine_is_replaced") {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        case.kubernetes.kill_and_wipe(NAMESPACE, "db-c-2", "data-db-c-2");
        case.report("wiped disk", case.await_replaced("db-c-2"));
        go_on(loads, 5);
    });
    let found = case.events();
    assert!(found.iter().any(|event| event == "ReplacementCompleted"), "{found:?}");
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_fails_under_a_process_is_replaced() {
    if !inside("kubernetes::operator::losses::a_disk_that_fails_under_a_process_is_replaced") {
        return;
    }
    let case = Case::on(three_zones());
    let disks = ["b1", "b2", "b3"].map(|host| (host, case.kubernetes.device(host)));
    case.create(NAME, spec());
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        let machine = case.machine("db-b-2");
        let (_, disk) = disks.iter().find(|(host, _)| *host == machine).expect("it is in zone b");
        disk.fail();
        case.await_status("the disk to be the reason", |status| {
            message(status, "Degraded").starts_with("its disk fails: ")
        });
        case.report("disk that fails", case.await_replaced("db-b-2"));
        go_on(loads, 5);
    });
    let before = case.members();
    assert_eq!(before, ["db-a-1", "db-a-2", "db-b-1", "db-b-3", "db-c-1", "db-c-2"]);
}

#[test]
#[ignore = "needs root"]
fn a_newcomer_that_is_lost_while_it_gets_its_copies_is_replaced_too() {
    if !inside(
        "kubernetes::operator::losses::a_newcomer_that_is_lost_while_it_gets_its_copies_is_replaced_too",
    ) {
        return;
    }
    let mut spec = spec();
    spec["groups"][0]["nodes"] = json!(1);
    let case = Case::with(spec);
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 50);
        case.destroy("db-a-1");
        let began = Instant::now();
        // Slow enough that there is a middle.
        case.kubernetes.slow(NAMESPACE, "db-a-2", 256);
        case.await_status("the newcomer to get copies", |status| {
            let list = status["replacements"].as_array();
            list.is_some_and(|list| {
                list.iter().any(|one| one["new"] == "db-a-2" && one["step"] == "Bootstrapping")
            })
        });
        case.destroy("db-a-2");
        case.await_replaced("db-a-2");
        case.report("two machines one after the other", began.elapsed());
        go_on(loads, 5);
    });
    assert_eq!(case.members(), ["db-a-3", "db-b-1", "db-b-2", "db-c-1", "db-c-2"]);
}

#[test]
#[ignore = "needs root"]
fn an_operator_that_is_killed_again_and_again_goes_on_where_it_was() {
    if !inside(
        "kubernetes::operator::losses::an_operator_that_is_killed_again_and_again_goes_on_where_it_was",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        case.destroy("db-b-1");
        let began = Instant::now();
        let mut steps = Vec::new();
        // Each state that can be seen is the last thing that an operator does.
        while steps.len() < 20 && began.elapsed() < HEALED {
            let step = case.status()["replacements"][0]["step"].as_str().unwrap_or("none").to_owned();
            let claims: Vec<String> = case.claims().into_keys().collect();
            let state = format!("{step}; claims {claims:?}, pods {:?}", case.members());
            if steps.last() != Some(&state) {
                steps.push(state);
                case.restart_operator();
            }
            if claims.contains(&"db-b-3".into()) && !claims.contains(&"db-b-1".into()) {
                break;
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        println!("an operator was killed at each of {} steps: {steps:#?}", steps.len());
        case.await_replaced("db-b-1");
        case.report("replacement by operators that are killed", began.elapsed());
        assert!(steps.len() >= 3, "{steps:?}");
    });
    assert_eq!(case.members(), ["db-a-1", "db-a-2", "db-b-2", "db-b-3", "db-c-1", "db-c-2"]);
}

#[test]
#[ignore = "needs root"]
fn a_zone_without_power_is_waited_for_heals_in_the_others_and_is_welcome_back() {
    if !inside(
        "kubernetes::operator::losses::a_zone_without_power_is_waited_for_heals_in_the_others_and_is_welcome_back",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    let before = case.claims().into_keys().collect::<Vec<_>>();
    case.under_load(|loads| {
        go_on(loads, 5);
        case.kubernetes.power("b", false);
        let began = Instant::now();
        case.await_status("the outage to be told", |status| {
            condition(status, "ReplacementBlocked") == "True"
        });
        // In two zones there are no three domains, but three nodes: each shard has three copies again.
        case.await_status("copies to be made in the other zones", |_| {
            let status = |client: &Client| {
                client.get("/api/v1/status/cluster").ok().map(|answer| answer.json()["data"].clone())
            };
            case.clients().iter().filter_map(status).any(|status| status["shards"]["min_copies"] == 3)
        });
        case.report("zone lost, healed in the others", began.elapsed());
        assert_eq!(case.claims().into_keys().collect::<Vec<_>>(), before, "{}", case.story());
        go_on(loads, 5);
        case.kubernetes.power("b", true);
        case.report("zone back", case.await_ready());
    });
    assert_eq!(case.claims().into_keys().collect::<Vec<_>>(), before, "{}", case.story());
}

#[test]
#[ignore = "needs root"]
fn a_loss_in_the_middle_of_a_rolling_change_is_replaced_and_the_change_goes_on() {
    if !inside(
        "kubernetes::operator::losses::a_loss_in_the_middle_of_a_rolling_change_is_replaced_and_the_change_goes_on",
    ) {
        return;
    }
    let case = Case::start();
    case.await_ready();
    case.under_load(|loads| {
        go_on(loads, 5);
        let began = Instant::now();
        case.change(json!({"image": "sarsen:2"}));
        case.await_status("the first pod to be changed", |status| status["groups"][0]["updated"] == 1);
        case.destroy("db-c-1");
        case.await_replaced("db-c-1");
        case.await_ready();
        case.report("rolling change with a loss in it", began.elapsed());
        go_on(loads, 5);
    });
    for (name, pod) in case.pods() {
        let image = pod.spec.and_then(|spec| spec.containers[0].image.clone());
        assert_eq!(image.as_deref(), Some("sarsen:2"), "{name}");
    }
}
