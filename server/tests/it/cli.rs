//! The command line.

use crate::node::{Node, sarsen};
use ingest::remote_write::encode::Series;
use std::process::Output;

const T: i64 = 1_700_000_040_000;

fn run(args: &[&str]) -> Output {
    sarsen().args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failure(args: &[&str], code: i32) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn filled() -> Node {
    let node = Node::start();
    let series = [
        Series::new(&[("__name__", "up"), ("job", "a")], &[(T, 1.0), (T + 30_000, 0.5)]),
        Series::new(&[("__name__", "up"), ("job", "b.c"), ("my.label", "x")], &[(T, 0.0)]),
    ];
    assert_eq!(node.write(&series).status, 204);
    node
}

#[test]
fn queries_print_tables_and_json() {
    let node = filled();
    let at = (T / 1000).to_string();
    let url = ["--url", node.url.as_str()];
    let with = |args: &[&'static str]| -> String {
        let args: Vec<&str> = ["query"].iter().chain(args).chain(&url).copied().collect();
        stdout(&args)
    };
    let table = stdout(&["query", "instant", "up", "--time", &at, "--url", &node.url]);
    assert_eq!(
        table,
        "SERIES                         VALUE  TIME\n\
         up{job=\"a\"}                        1  2023-11-14T22:14:00.000Z\n\
         up{job=\"b.c\", \"my.label\"=\"x\"}      0  2023-11-14T22:14:00.000Z\n"
    );
    let json = stdout(&["query", "instant", "1+1", "--time", &at, "-o", "json", "--url", &node.url]);
    assert_eq!(json, format!("{{\"result\":[{at},\"2\"],\"resultType\":\"scalar\"}}\n"));
    let range = stdout(&[
        "query",
        "range",
        "up{job=\"a\"}",
        "--start",
        &at,
        "--end",
        "2023-11-14T22:14:30Z",
        "--step",
        "30s",
        "--url",
        &node.url,
    ]);
    assert_eq!(range.lines().count(), 3, "{range}");
    assert!(range.ends_with("2023-11-14T22:14:30.000Z    0.5\n"), "{range}");
    assert_eq!(with(&["labels"]), "LABEL\n__name__\njob\nmy.label\n");
    assert_eq!(with(&["labels", "my.label"]), "VALUE\nx\n");
    assert_eq!(with(&["labels", "job", "--match", "up{job=\"a\"}"]), "VALUE\na\n");
    assert_eq!(with(&["series", "up{job=\"a\"}"]), "SERIES\nup{job=\"a\"}\n");
    assert_eq!(with(&["labels", "--start", "now-1h"]), "", "nothing is no table; standard error says so");
}

#[test]
fn status_says_what_is_promised_and_what_is_held() {
    let node = filled();
    let status = stdout(&["status", "--url", &node.url]);
    for words in
        ["ready", "fsync (acknowledged means durable)", "forever", "2 in memory", "3 in memory", "uptime"]
    {
        assert!(status.contains(words), "{words}: {status}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&["status", "-o", "json", "--url", &node.url])).unwrap();
    assert_eq!(json["storage"]["series"], 2);
}

#[test]
fn data_at_rest_is_dumped_analyzed_and_verified() {
    let own = tempfile::tempdir().unwrap();
    let dir = own.path().to_str().unwrap();
    let node = Node::on(own.path(), &[("SARSEN_SELF_SCRAPE_INTERVAL", "0")]);
    let series =
        Series::new(&[("__name__", "up"), ("job", "a")], &[(T, 1.0), (T + 30_000, f64::NEG_INFINITY)]);
    assert_eq!(node.write(&[series, Series::new(&[("__name__", "x")], &[(T, 2.0)])]).status, 204);
    let error = failure(&["tsdb", "dump", "--data-dir", dir], 1);
    assert!(error.contains("a server has it open"), "{error}");
    assert!(stdout(&["tsdb", "analyze", "--url", &node.url]).starts_with("2 series, 3 label pairs"));
    assert_eq!(node.stop().0.code(), Some(0));
    let dump = format!("up{{job=\"a\"}} 1 {T}\nup{{job=\"a\"}} -Inf {}\nx 2 {T}\n", T + 30_000);
    assert_eq!(stdout(&["tsdb", "dump", "--data-dir", dir]), dump);
    let some =
        stdout(&["tsdb", "dump", "--data-dir", dir, "--match", "up", "--end", &(T / 1000).to_string()]);
    assert_eq!(some, format!("up{{job=\"a\"}} 1 {T}\n"));
    assert!(stdout(&["tsdb", "analyze", "--data-dir", dir]).starts_with("2 series, 3 label pairs"));
    assert!(stdout(&["tsdb", "verify", "--data-dir", dir]).contains("sound"));
}

#[test]
fn mistakes_are_named_and_have_their_exit_codes() {
    let node = Node::start();
    let error = failure(&["query", "instant", "up{", "--url", &node.url], 1);
    assert!(error.starts_with("error: invalid parameter \"query\": 1:"), "{error}");
    let error = failure(&["query", "instant", "up", "--time", "yesterday", "--url", &node.url], 1);
    assert!(error.contains("now-1h30m"), "{error}");
    let error = failure(&["query", "instant", "up", "--url", "http://127.0.0.1:1"], 1);
    assert!(error.contains("sarsen server"), "{error}");
    failure(&["query", "instant"], 2);
    failure(&["server", "--nope"], 2);
    let error = failure(&["server", "--retention", "15m"], 2);
    assert!(error.contains("--retention") && error.contains("15d"), "{error}");
    let error = failure(&["tsdb", "verify", "--data-dir", "/proc"], 1);
    assert!(error.contains("is not a data directory"), "{error}");
}

#[test]
fn a_configuration_is_checked_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sarsen.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "retention: 30d\nlimits:\n  query_timeout: 90s\n").unwrap();
    assert!(stdout(&["check", "config", path]).ends_with("is valid\n"));
    let printed = stdout(&["server", "--config", path, "--retention", "31d", "--print-config"]);
    assert!(printed.contains("retention: \"31d\"\n"), "{printed}");
    assert!(printed.contains("  query_timeout: \"1m30s\"\n"), "{printed}");
    std::fs::write(&file, "retentoin: 30d\n").unwrap();
    let error = failure(&["check", "config", path], 1);
    assert!(error.contains(":1: unknown key `retentoin`; did you mean `retention`?"), "{error}");
    let error = failure(&["server", "--config", path], 2);
    assert!(error.contains("did you mean `retention`?"), "{error}");
    assert!(stdout(&["--version"]).starts_with("sarsen "));
}
