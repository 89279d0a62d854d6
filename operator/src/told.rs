//! Whatever the operator says by a word is explained on the page for those who run it.

use crate::api::{GroupStatus, ReplacementStatus};
use crate::metrics::Metrics;
use crate::plan::{Action, Deferral, Plan, Reason};
use regex::Regex;
use std::path::Path;
use std::time::Duration;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page() -> String {
    read("../docs/operations/kubernetes.md")
}

/// What is found in all files of a folder, without their tests.
fn found(folder: &str, pattern: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let files =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let texts = files.map(|path| std::fs::read_to_string(path).unwrap());
    let words = |text: String| -> Vec<String> {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        pattern.captures_iter(code).map(|found| found[1].to_owned()).collect()
    };
    texts.flat_map(words).collect()
}

fn missing(words: &[String]) -> Vec<&String> {
    let page = page();
    words.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect()
}

#[test]
fn every_reason_is_on_the_page() {
    let of_waiting = found("src/plan", r#"Reason::\w+ => "(\w+)""#);
    let of_evidence = found("src/plan", r#"Kind::\w+ => "(\w+)""#);
    let of_events = found("src/plan", r#"\.tell\([^"]*"(\w+)""#);
    let of_conditions = found("src/plan", r#"say\(\s*"\w+",\s*(?:Some\(\w+\)|None),\s*"(\w+)""#);
    let of_namespaces = found("src/namespace", r#"reason: "(\w+)""#);
    let of_taken = found("src", r#"\.event\([^"]*"(\w+)""#);
    // What is looked for is found.
    assert!(
        of_waiting.len() >= 15 && of_evidence.len() >= 6 && of_events.len() >= 8,
        "{of_waiting:?} {of_evidence:?} {of_events:?}"
    );
    assert!(
        of_conditions.len() >= 20 && of_namespaces.len() >= 8 && !of_taken.is_empty(),
        "{of_conditions:?} {of_namespaces:?}"
    );
    for words in [of_waiting, of_evidence, of_events, of_conditions, of_namespaces, of_taken] {
        assert!(missing(&words).is_empty(), "{:?}", missing(&words));
    }
}

#[test]
fn every_metric_is_on_the_page() {
    // A family without members is not shown.
    let metrics = Metrics::default();
    let mut plan = Plan::default();
    plan.status.groups.push(GroupStatus { name: "a".into(), ..GroupStatus::default() });
    plan.status
        .replacements
        .push(ReplacementStatus { step: "Placing".into(), ..ReplacementStatus::default() });
    plan.deferrals.push(Deferral { instance: "a-1".into(), reason: Reason::Grace, message: String::new() });
    metrics.look("db", "metrics", &plan, Duration::from_millis(1));
    metrics.acted(&Action::AddFinalizer);
    metrics.failed("look");
    let text = metrics.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<String> = types
        .map(|line| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("{line}"),
        })
        .collect();
    assert_eq!(names.len(), 8, "{names:?}");
    assert!(missing(&names).is_empty(), "{:?}", missing(&names));
}
