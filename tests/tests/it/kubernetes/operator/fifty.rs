//! What an operator costs that has nothing to do.

use super::*;
use tests::namespaces::inside;

/// Databases that one operator looks after.
const CLUSTERS: usize = 50;
/// How long their rest is watched: two looks at each, at least.
const WATCHED: Duration = Duration::from_secs(30);
/// The most memory that the operator may use, in bytes.
const MEMORY_MAX: u64 = 50_000_000;
/// The most that it may use of a core.
const CPU_MAX: f64 = 0.01;

/// Real databases, of one node each: with three it is the same but for minutes of starting them (the docs have the figures). They are at rest as well,
/// and yet much of what two cores can do: so the operator's own processor time counts, not how long anything takes.
#[test]
#[ignore = "needs root"]
fn fifty_databases_at_rest_cost_next_to_nothing() {
    if !inside("kubernetes::operator::fifty::fifty_databases_at_rest_cost_next_to_nothing") {
        return;
    }
    let case = Case::on(Parameters {
        zones: vec![("a".into(), 1)],
        cpu: "400".into(),
        memory: "4Ti".into(),
        // Nothing is lost here, and a machine's signs of life are writes as well.
        tick: Duration::from_millis(500),
        node_grace: Duration::from_secs(60),
        lease_interval: Duration::from_secs(5),
        ..Parameters::default()
    });
    let mut spec = spec();
    spec["replicationFactor"] = json!(1);
    spec["groups"] = json!([{"name": "a", "nodes": 1, "topology": {"values": ["a"]}}]);
    spec["config"]["repair_interval"] = json!("1m");
    let began = Instant::now();
    for number in 1..=CLUSTERS {
        case.create(&format!("db{number}"), spec.clone());
        // A few at a time.
        case.await_ready_clusters(number.saturating_sub(5));
    }
    case.await_ready_clusters(CLUSTERS);
    case.report("fifty databases from nothing", began.elapsed());

    let mut used = None;
    // Looked at again if it is not so: the other tests on these cores make the same work dearer, by turns.
    until("nothing to be written for a while, at next to no cost", HEALED, || {
        case.kubernetes.api.forget_requests();
        let (began, before) = (Instant::now(), case.used());
        while began.elapsed() < WATCHED {
            thread::park_timeout(WATCHED.saturating_sub(began.elapsed()));
        }
        let (memory, cpu) = case.used();
        let share = (cpu - before.1).as_secs_f64() / began.elapsed().as_secs_f64();
        used = Some((memory, share));
        match case.writes() {
            none if none.is_empty() && share < CPU_MAX => Ok(()),
            none if none.is_empty() => Err(format!("it uses {share} of a core")),
            writes => Err(format!("{writes:?}")),
        }
    });
    let (memory, cpu) = used.expect("it was measured");
    println!(
        "REPORT {CLUSTERS} databases at rest: the operator uses {:.1} MB and {:.2} % of a core",
        memory as f64 / 1e6,
        cpu * 100.0
    );
    assert!(memory < MEMORY_MAX && cpu < CPU_MAX, "{memory} bytes, {cpu} of a core");
    assert_eq!(case.ready_clusters(), CLUSTERS, "{}", case.story());
}

impl Case {
    /// How many clusters say that they are ready.
    fn ready_clusters(&self) -> usize {
        let api = self.clusters();
        let list = self.kubernetes.must(async move { api.list(&ListParams::default()).await });
        list.items.iter().filter(|cluster| condition(&cluster.data["status"], "Ready") == "True").count()
    }

    fn await_ready_clusters(&self, wanted: usize) {
        until(&format!("{wanted} databases to be ready"), HEALED, || match self.ready_clusters() {
            ready if ready >= wanted => Ok(()),
            ready => Err(format!("{ready} are; {}", self.story())),
        });
    }

    /// Memory of the operator in bytes, and the processor time that it has used.
    fn used(&self) -> (u64, Duration) {
        let operator = self.operator.lock();
        let process = operator.as_ref().expect("the operator runs");
        (process.memory(), process.cpu())
    }
}
