//! Scripts of PromQL cases: Prometheus's own, and ours for what these leave open.

use std::path::{Path, PathBuf};
use tests::promqltest::report::Report;

/// The share of the cases without native histograms that has to pass.
const SHARE_MIN: f64 = 0.95;

#[test]
fn promql_answers_as_prometheus_expects() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/promqltest"));
    let sum = run_all(&scripts(folder).unwrap_or_else(|e| {
        panic!(
            "{}: {e}. Prometheus's test scripts belong beside the project, in ../shared/promqltest",
            folder.display()
        )
    }));
    assert!(sum.floats.total > 500, "only {} cases in {}", sum.floats.total, folder.display());
    assert!(sum.floats.share() >= SHARE_MIN, "without histograms only {} pass", sum.floats);
}

#[test]
fn promql_answers_as_our_own_scripts_expect() {
    let sum = run_all(&scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap());
    assert!(sum.floats.total > 300, "only {} cases", sum.floats.total);
    assert!(sum.failures.is_empty(), "{} cases fail, see above", sum.failures.len());
}

fn scripts(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "test"));
    files.sort();
    Ok(files)
}

fn run_all(files: &[PathBuf]) -> Report {
    let mut sum = Report::default();
    for file in files {
        let report = tests::promqltest::run(file).unwrap_or_else(|e| panic!("{e:#}"));
        println!("{}: {report}", file.file_name().unwrap().display());
        for failure in &report.failures {
            println!("  line {}: {}\n    {}", failure.line, failure.text, failure.why);
        }
        sum += report;
    }
    println!("sum: {sum}");
    sum
}
