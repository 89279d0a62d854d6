//! What is lost before anybody was let write is begun anew, and nobody is asked.

use super::losses::go_on;
use super::*;
use tests::kubernetes::nodes::Disk;
use tests::namespaces::inside;

#[test]
#[ignore = "needs root"]
fn a_database_that_loses_its_creator_before_it_is_complete_is_begun_anew() {
    if !inside(
        "kubernetes::operator::creation::a_database_that_loses_its_creator_before_it_is_complete_is_begun_anew",
    ) {
        return;
    }
    let case = Case::on(three_zones());
    let zone_c: Vec<String> = (1..=3).map(|n| format!("c{n}")).collect();
    zone_c.iter().for_each(|machine| case.kubernetes.cordon(machine, true));
    let mut spec = spec();
    for group in spec["groups"].as_array_mut().expect("groups") {
        group["nodes"] = json!(1);
    }
    case.create(NAME, spec);
    let has_joined =
        |status: &Value| status["clusterId"].is_string() && case.full_members() == ["db-a-1", "db-b-1"];
    let first = case.await_status("two of three to be members", has_joined)["clusterId"].clone();
    assert!(case.clients().is_empty(), "somebody is let write to a database of two: {}", case.story());

    let creator = case.creator();
    let machine = case.machine(&creator);
    case.kubernetes.lose(&machine, Disk::Gone);
    case.kubernetes.delete_node_object(&machine);
    let began = Instant::now();
    let is_new = |status: &Value| {
        status["clusterId"].is_string() && status["clusterId"] != first && case.full_members().len() == 2
    };
    case.await_status("another database", is_new);
    case.report("creator lost before the database was complete, another one of two", began.elapsed());
    let gone = ["db-a-1", "db-b-1"].map(|name| case.claims().contains_key(name));
    assert_eq!(gone, [false; 2], "something of the first is left: {}", case.story());

    zone_c.iter().for_each(|machine| case.kubernetes.cordon(machine, false));
    case.report("complete after there was room", case.await_ready());
    case.under_load(|loads| go_on(loads, 5));
    let events = case.events();
    assert!(events.iter().any(|event| event == "InstanceAbandoned"), "{events:?}");
}

impl Case {
    /// The instances that have taken their part, as any of them says.
    fn full_members(&self) -> Vec<String> {
        let ips = self.pods().into_values().filter_map(|pod| pod.status?.pod_ip);
        let said = ips.filter_map(|ip| Client::at(&format!("{ip}:7420")).get("/api/v1/status/cluster").ok());
        let nodes = said.filter(|answer| answer.status == 200).find_map(|answer| {
            let nodes = answer.json()["data"]["nodes"].as_array().cloned()?;
            Some(nodes.into_iter().filter(|node| node["state"] == "up").collect::<Vec<_>>())
        });
        let name =
            |node: Value| node["address"].as_str().and_then(|text| Some(text.split_once('.')?.0.to_owned()));
        let mut names: Vec<String> = nodes.into_iter().flatten().filter_map(name).collect();
        names.sort();
        names
    }

    /// Who was told to create the database.
    fn creator(&self) -> String {
        let claims = self.claims();
        let creates =
            |claim: &PersistentVolumeClaim| claim.annotations().contains_key("sarsen.dev/creates-cluster");
        claims.into_iter().find(|(_, claim)| creates(claim)).expect("one creates it").0
    }
}
