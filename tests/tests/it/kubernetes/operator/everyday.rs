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
    case.under_load(|loads| {
        until("writes to be acknowledged", HEALED, || {
            match loads.iter().all(|load| load.acknowledged() > 20) {
                true => Ok(()),
                false => Err("not yet".into()),
            }
        });
    });
}
