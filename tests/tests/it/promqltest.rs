//! Prometheus's own PromQL test scripts.

use std::path::Path;
use tests::promqltest::report::Report;

/// The share of the cases without native histograms that has to pass.
const SHARE_MIN: f64 = 0.95;

#[test]
fn promql_answers_as_prometheus_expects() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/promqltest"));
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| {
        panic!(
            "{}: {e}. Prometheus's test scripts belong beside the project, in ../shared/promqltest",
            folder.display()
        )
    });
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "test"));
    files.sort();
    let mut sum = Report::default();
    for file in files {
        let report = tests::promqltest::run(&file).unwrap_or_else(|e| panic!("{e:#}"));
        println!("{}: {report}", file.file_name().unwrap().display());
        for failure in &report.failures {
            println!("  line {}: {}\n    {}", failure.line, failure.text, failure.why);
        }
        sum += report;
    }
    println!("sum: {sum}");
    assert!(sum.floats.total > 500, "only {} cases in {}", sum.floats.total, folder.display());
    assert!(sum.floats.share() >= SHARE_MIN, "without histograms only {} pass", sum.floats);
}
