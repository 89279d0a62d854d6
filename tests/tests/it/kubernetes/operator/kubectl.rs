//! What a person sees who has nothing but kubectl and the sample.

use super::*;
use regex::Regex;
use tests::kubernetes::kubectl::kubectl;
use tests::namespaces::inside;

const SAMPLE: &str = include_str!("../../../../../operator/deploy/sample.yaml");

impl Case {
    /// What kubectl prints, without what is another in every run.
    fn kubectl(&self, line: &str, input: &str) -> (bool, String) {
        let (is_content, text) = kubectl(&self.dir.path().join("kubeconfig"), line, input);
        (is_content, steady(&text))
    }

    fn done(&self, line: &str, input: &str) -> String {
        let (is_content, text) = self.kubectl(line, input);
        assert!(is_content, "kubectl {line}: {text}");
        text
    }
}

fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, with) in [
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
        (r"\b[0-9a-f]{32}\b", "ID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"(Resource Version|Placement Epoch): +\d+", "$1:  N"),
        (r"\b(\d+m)?\d+s\b", "AGE"),
        // A column is as wide as what was in it.
        (r"AGE {2,}", "AGE   "),
    ] {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, with).into_owned();
    }
    let lines = text.lines().map(str::trim_end);
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
#[ignore = "needs root and kubectl"]
fn the_sample_is_applied_refused_corrected_and_ready_and_all_of_it_is_told_well() {
    if !inside(
        "kubernetes::operator::kubectl::the_sample_is_applied_refused_corrected_and_ready_and_all_of_it_is_told_well",
    ) {
        return;
    }
    let case = Case::start();
    // The operator of this test looks after one namespace only.
    let sample = SAMPLE.replace("namespace: sarsen", "namespace: default");
    case.done("apply -f -", &sample);
    case.done("wait --for=condition=SpecValid=False sarsencluster/metrics --timeout=60s", "");
    case.await_ready();
    insta::assert_snapshot!("refused", case.done("get sarsenclusters -o wide", ""));
    insta::assert_snapshot!("refused_described", told(&case.done("describe sarsencluster metrics", "")));
    until("an Event to be there", HEALED, || match case.done("describe sarsencluster metrics", "") {
        text if text.contains("SpecInvalid  AGE") => Ok(()),
        text => Err(text),
    });

    // Nothing has been made of it yet, and the topology of a group cannot be changed.
    case.done("delete -f - --timeout=30s", &sample);
    let mut corrected = sample.replace("sarsen:0.1.0", "sarsen:1");
    for zone in ["a", "b", "c"] {
        corrected = corrected.replace(&format!("zone-{zone}"), zone);
    }
    case.done("apply -f -", &corrected);
    case.done("wait --for=condition=Ready sarsencluster/metrics --timeout=120s", "");
    case.done("wait --for=condition=Applied sarsennamespace/metrics-default --timeout=60s", "");
    insta::assert_snapshot!("ready", case.done("get sarsenclusters", ""));
    insta::assert_snapshot!("ready_wide", case.done("get sarsen -o wide", ""));
    insta::assert_snapshot!("ready_described", told(&case.done("describe sarsencluster metrics", "")));
    insta::assert_snapshot!("namespaces", case.done("get sarsennamespaces", ""));
    insta::assert_snapshot!("objects", case.done("get pods,pvc,pdb -l sarsen.dev/cluster=metrics", ""));
}

/// What a description says of the status: the rest is what was applied, and Events come when they come.
fn told(text: &str) -> &str {
    let from = text.find("Status:\n").expect("there is a status");
    let to = text.find("Events:").expect("there are Events, or none");
    &text[from..to]
}
