//! The same data in a real Prometheus and in Sarsen, the same queries, equal answers.
//!
//! A Prometheus and a vmagent scrape a node exporter and the Prometheus every second and write to Sarsen. The answers
//! about the time before the first query are then compared with those of that Prometheus: at a single node, and at each of three that are
//! one cluster.
//!
//! Debian's Prometheus is older than 3.0, whose ranges no longer include their left end. So the times of the queries
//! are chosen such that no range begins at the millisecond of a sample.

mod queries;

use queries::MAYBE_EMPTY;
pub use queries::QUERIES;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tests::client::{Client, LabelSet, Matrix};
use tests::cluster::Cluster;
use tests::peers::{self, Peer};
use tests::process::free_port;
use tests::random::now;
use tests::until::until;

/// Seconds of data before the comparison begins.
const RECORDED_S: f64 = 95.0;
/// The oldest sample that a query may look at is this much older than its time: range, offset and subquery together.
const LOOK_BACK_S: f64 = 65.0;

struct System {
    sarsen: Cluster,
    prometheus: Peer,
    _node_exporter: Peer,
    _vmagent: Peer,
}

/// Prometheus and vmagent each write to another node, where there are several.
fn start(dir: &Path, nodes: usize) -> System {
    let sarsen = Cluster::start(dir, nodes);
    let write = |writer: usize| format!("{}/api/v1/write", sarsen.nodes[writer % nodes].client.base());
    let node_exporter = peers::node_exporter(dir);
    let port = free_port();
    let jobs = [("node", node_exporter.port), ("prometheus", port)];
    let prometheus = peers::prometheus(dir, port, &jobs, &write(1));
    let vmagent = peers::vmagent(dir, &jobs, &write(2));
    System { sarsen, prometheus, _node_exporter: node_exporter, _vmagent: vmagent }
}

/// Waits until every job has been scraped for long enough; only Sarsen is asked, since questions would show up in the
/// Prometheus's own metrics. Returns the time of the first sample that all jobs have and of the last.
fn record(sarsen: &Client) -> (f64, f64) {
    let bound = Duration::from_secs_f64(RECORDED_S * 3.0);
    until("enough samples of every job", bound, || {
        let now = now().as_secs_f64();
        let scrapes = sarsen.instant("{__name__=~\"(vm:)?up\", job=~\"node|prometheus\"}[15m]", now)?;
        let first =
            scrapes.values().filter_map(|points| points.first()).map(|point| point.0).fold(0.0, f64::max);
        let last =
            scrapes.values().filter_map(|points| points.last()).map(|point| point.0).fold(now, f64::min);
        match scrapes.len() {
            4 if last - first >= RECORDED_S => Ok((first, last)),
            jobs => Err(format!("{jobs} jobs, {:.1} s", last - first)),
        }
    })
}

/// Waits until Sarsen has every sample that the Prometheus has until `end`, and says how many these are.
fn catch_up(sarsen: &Client, prometheus: &Client, end: f64) -> usize {
    let samples = |client: &Client| -> Result<usize, String> {
        let all = client.instant("{job=~\"node|prometheus\", __name__!~\"vm:.*\"}[15m]", end)?;
        Ok(all.values().map(Vec::len).sum())
    };
    let want = samples(prometheus).expect("the Prometheus has its own samples");
    until("Sarsen to have every sample of the Prometheus", Duration::from_secs(60), || {
        let got = samples(sarsen)?;
        if got == want { Ok(got) } else { Err(format!("{got} of {want} samples")) }
    })
}

/// The milliseconds within a second at which samples lie.
fn milliseconds(sarsen: &Client, end: f64) -> BTreeSet<i64> {
    let scrapes = sarsen.instant("up{job=~\"node|prometheus\"}[15m]", end).expect("an answer");
    scrapes.values().flatten().map(|point| (point.0 * 1e3).round() as i64 % 1000).collect()
}

/// The millisecond that is furthest from all of `used`, seen around the clock.
fn furthest(used: &BTreeSet<i64>) -> i64 {
    let distance = |ms: i64| {
        let gaps = used.iter().map(|used| (ms - used).rem_euclid(1000).min((used - ms).rem_euclid(1000)));
        gaps.min().unwrap_or(1000)
    };
    (0..1000).max_by_key(|ms| distance(*ms)).expect("there are milliseconds")
}

fn agree(a: f64, b: f64) -> bool {
    let greater = a.abs().max(b.abs());
    // What is left of a deviation of equal numbers depends on the order of adding, whatever its size.
    let close = (a - b).abs() <= (1e-9 * greater).max(1e-15);
    a == b || a.is_nan() && b.is_nan() || greater.is_finite() && close
}

/// The first few differences, in words; empty when there is none.
pub fn differences(ours: &Matrix, theirs: &Matrix) -> Vec<String> {
    let name = |labels: &LabelSet| format!("{labels:?}");
    let mut found: Vec<String> = vec![];
    found.extend(
        theirs.keys().filter(|labels| !ours.contains_key(*labels)).map(|l| format!("missing {}", name(l))),
    );
    found.extend(
        ours.keys().filter(|labels| !theirs.contains_key(*labels)).map(|l| format!("excess {}", name(l))),
    );
    for (labels, points) in ours {
        let Some(expected) = theirs.get(labels) else { continue };
        let times = |points: &[(f64, f64)]| points.iter().map(|point| point.0).collect::<Vec<_>>();
        if times(points) != times(expected) {
            found.push(format!("other times {}: {points:?}, expected {expected:?}", name(labels)));
        } else if let Some((got, want)) =
            points.iter().zip(expected).find(|(got, want)| !agree(got.1, want.1))
        {
            found.push(format!("{} at {}: {}, expected {}", name(labels), got.0, got.1, want.1));
        }
    }
    found.truncate(5);
    found
}

/// Counts comparisons and remembers what differed.
#[derive(Default)]
struct Comparison {
    compared: usize,
    answered: BTreeSet<String>,
    failed: Vec<String>,
}

impl Comparison {
    fn take(
        &mut self,
        what: String,
        query: &str,
        ours: Result<Matrix, String>,
        theirs: Result<Matrix, String>,
    ) {
        self.compared += 1;
        let found = match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                if !theirs.is_empty() {
                    self.answered.insert(query.to_owned());
                }
                differences(&ours, &theirs)
            }
            (Err(error), Ok(_)) => vec![error],
            (_, Err(error)) => vec![format!("the Prometheus does not answer: {error}")],
        };
        if !found.is_empty() {
            self.failed.push(format!("{what}\n    {query}\n      {}", found.join("\n      ")));
        }
    }
}

/// What was scraped from the node exporter: label sets, names as the exporter has them.
fn scraped(client: &Client, prefix: &str, time: f64) -> BTreeSet<LabelSet> {
    let query = format!("{{job=\"node\", __name__=~\"{prefix}(node|go|process|promhttp)_.*\"}}");
    let answer = client.instant(&query, time).expect("an answer");
    let plain = |mut labels: LabelSet| {
        let name = labels.remove("__name__").expect("a metric's name");
        labels.insert("__name__".into(), name.trim_start_matches(prefix).into());
        labels
    };
    answer.into_keys().map(plain).collect()
}

/// Every scrape of vmagent is there whole: as many samples at its time as it says that it scraped.
fn check_vmagent(sarsen: &Client, first: f64, last: f64) {
    let window = format!("{:.0}s", last - first - 1.0);
    for job in ["node", "prometheus"] {
        let counts = sarsen.instant(&format!("vm:scrape_samples_scraped{{job=\"{job}\"}}[{window}]"), last);
        let counts = counts.expect("an answer").into_values().next().expect("vmagent's own count");
        assert!(counts.len() as f64 >= RECORDED_S * 0.8, "{job} was scraped {} times", counts.len());
        let query =
            format!("{{job=\"{job}\", __name__=~\"vm:.*\", __name__!~\"vm:(up|scrape_.*)\"}}[{window}]");
        let samples = sarsen.instant(&query, last).expect("an answer");
        let mut at: BTreeMap<i64, f64> = BTreeMap::new();
        for (time, _) in samples.into_values().flatten() {
            *at.entry((time * 1e3).round() as i64).or_default() += 1.0;
        }
        for (time, count) in &counts {
            let got = at.get(&((time * 1e3).round() as i64)).copied().unwrap_or(0.0);
            assert_eq!(got, *count, "samples of {job} at {time}");
        }
        println!("vmagent: {} scrapes of {job}, {:.0} samples", counts.len(), at.values().sum::<f64>());
    }
    let (from_prometheus, from_vmagent) = (scraped(sarsen, "", last), scraped(sarsen, "vm:", last));
    let differing: Vec<_> = from_prometheus.symmetric_difference(&from_vmagent).collect();
    assert!(
        differing.is_empty(),
        "Prometheus and vmagent wrote different series of one target: {differing:?}"
    );
    assert!(from_vmagent.len() > 100, "{} series", from_vmagent.len());
}

#[test]
#[ignore = "needs prometheus, prometheus-node-exporter, victoria-metrics"]
fn answers_equal_those_of_the_prometheus_that_wrote_the_data() {
    compare_with_the_writer(1);
}

#[test]
#[ignore = "needs prometheus, prometheus-node-exporter, victoria-metrics"]
fn answers_of_every_node_of_a_cluster_equal_those_of_the_prometheus_that_wrote_the_data() {
    compare_with_the_writer(3);
}

fn compare_with_the_writer(nodes: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let system = start(dir.path(), nodes);
    let (clients, prometheus) = (system.sarsen.clients(), &system.prometheus.client);
    let (first, last) = record(&clients[0]);

    // All queries are about the second before the Prometheus was asked for the first time.
    let end = last.floor() - 1.0;
    for client in &clients {
        check_vmagent(client, first, last - 2.0);
        let samples = catch_up(client, prometheus, end);
        println!("{samples} samples in {:.1} s at {}", last - first, client.base());
    }
    let used = milliseconds(&clients[0], end);
    let offset = furthest(&used);
    // Inside subqueries, time runs in whole seconds; there the range's length keeps its left end off the samples.
    let inner = format!("{}ms", 10_000 + (1000 - offset) % 1000);
    let end = end + offset as f64 / 1e3 - 1.0;
    let start = first + LOOK_BACK_S;
    println!("queries at .{offset:03} s, from {start} to {end}");
    assert!(end - start > 15.0, "the recording is too short");

    let mut comparison = Comparison::default();
    for template in QUERIES.iter().chain(MAYBE_EMPTY) {
        let query = template
            .replace("JOBS", "job=~\"node|prometheus\"")
            .replace("AT", &format!("{end:.3}"))
            .replace("RANGE", &inner);
        // It had another name before 3.0.
        let old = query.replace("double_exponential_smoothing", "holt_winters");
        for time in [end, end - 10.0] {
            let theirs = prometheus.instant(&old, time);
            for client in &clients {
                let what = format!("instant at {time:.3} at {}", client.base());
                comparison.take(what, template, client.instant(&query, time), theirs.clone());
            }
        }
        let steps = ((end - start) / 3.0).floor();
        let from = end - steps * 3.0;
        let theirs = prometheus.range(&old, from, end, 3.0);
        for client in &clients {
            let what = format!("range from {from:.3} to {end:.3} at {}", client.base());
            comparison.take(what, template, client.range(&query, from, end, 3.0), theirs.clone());
        }
    }

    println!("{} answers compared, {} differ", comparison.compared, comparison.failed.len());
    assert!(comparison.compared >= 150 * nodes);
    assert!(comparison.failed.is_empty(), "differences:\n{}", comparison.failed.join("\n"));
    let silent: Vec<_> = QUERIES.iter().filter(|query| !comparison.answered.contains(**query)).collect();
    assert!(silent.is_empty(), "queries that compared nothing with nothing: {silent:#?}");
}

#[test]
fn the_comparison_sees_missing_series_other_times_and_other_values() {
    let labels = |value: &str| LabelSet::from([("x".to_owned(), value.to_owned())]);
    let matrix = |value: &str, time: f64, number: f64| Matrix::from([(labels(value), vec![(time, number)])]);
    let a = matrix("a", 1.0, 2.0);
    assert!(differences(&a, &matrix("a", 1.0, 2.0 + 1e-10)).is_empty());
    assert_eq!(differences(&a, &matrix("a", 1.0, 2.0 + 1e-8)).len(), 1);
    assert_eq!(differences(&a, &matrix("a", 1.5, 2.0)).len(), 1);
    assert_eq!(differences(&a, &matrix("b", 1.0, 2.0)).len(), 2);
    assert!(agree(f64::NAN, f64::NAN) && !agree(f64::NAN, 1.0) && !agree(f64::INFINITY, 1.0));
}

#[test]
fn the_millisecond_of_the_queries_is_far_from_every_sample() {
    assert_eq!(furthest(&BTreeSet::from([0])), 500);
    assert_eq!(furthest(&BTreeSet::from([0, 400])), 700);
    assert_eq!(furthest(&BTreeSet::from([990, 10])), 500);
}
