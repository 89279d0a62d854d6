//! Starting and ending a node.

use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::client::Client;
use tests::process::{Process, Sarsen, free_port};
use tests::random::{now, now_ms};
use tests::until::until;
use tests::wire::{Series, v1};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn write(client: &Client, series: &[Series]) -> u16 {
    client.send("POST", "/api/v1/write", &[], &v1::request(series).snappy()).expect("an answer").status
}

/// The own metric that the README asks for first.
fn own_up(client: &Client) -> Result<f64, String> {
    let answer = client.instant("up{job=\"sarsen\"}", now().as_secs_f64())?;
    answer
        .values()
        .next()
        .and_then(|points| points.first())
        .map(|point| point.1)
        .ok_or("no series yet".into())
}

#[test]
fn an_empty_folder_becomes_a_node_that_prints_its_urls_and_answers_about_itself_at_once() {
    let dir = folder();
    let sarsen = Sarsen::start(dir.path());
    let url = format!("http://127.0.0.1:{}", sarsen.port);
    let output = sarsen.process.output();
    assert!(output.contains(&url), "no {url} in:\n{output}");

    // The node stores its own metrics every 15 s; the first time is before anybody could ask.
    let value = until("the node's own metrics", Duration::from_secs(5), || own_up(&sarsen.client));
    assert_eq!(value, 1.0);
}

#[test]
fn an_empty_folder_is_ready_in_less_than_300_ms() {
    let start = || {
        let (dir, start) = (folder(), Instant::now());
        let sarsen = Sarsen::start(dir.path());
        let ready = start.elapsed();
        println!("ready after {ready:?}, {} KiB resident", sarsen.process.memory() >> 10);
        ready
    };
    // The best of some, since other tests run beside this one.
    let best = (0..8).map(|_| start()).min().expect("several starts");
    assert!(best < Duration::from_millis(300), "{best:?}");
}

#[test]
fn the_first_write_of_the_readme_can_be_read_back() {
    let dir = folder();
    let sarsen = Sarsen::start(dir.path());
    let text = b"room_temperature_celsius{room=\"kitchen\"} 21.5\n";
    // What curl says of a body that it was given nothing about.
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let response =
        sarsen.client.send("POST", "/api/v1/import/prometheus", &headers, text).expect("an answer");
    assert_eq!(response.status, 204, "{response:?}");
    let answer = sarsen.client.instant("room_temperature_celsius", now().as_secs_f64()).expect("an answer");
    let points: Vec<f64> = answer.values().flatten().map(|point| point.1).collect();
    assert_eq!(points, [21.5]);
}

#[test]
fn a_node_at_rest_needs_less_than_60_mb() {
    let dir = folder();
    let sarsen = Sarsen::start(dir.path());
    until("the node's own metrics", Duration::from_secs(5), || own_up(&sarsen.client));
    let peak = sarsen.process.memory_peak();
    assert!(peak < 60_000_000, "{peak} bytes");
}

#[test]
fn what_was_written_is_there_after_a_restart_and_sigterm_ends_with_success() {
    let dir = folder();
    let mut sarsen = Sarsen::start(dir.path());
    let at = now_ms() / 1000 * 1000;
    let series =
        |k: i64| Series::named("kept", "k", &k.to_string()).sample(at - 60_000, k as f64).sample(at, 0.5);
    let batch: Vec<Series> = (0..100).map(series).collect();
    assert_eq!(write(&sarsen.client, &batch), 204);

    assert!(sarsen.process.terminate().success(), "{}", sarsen.process.output());
    let sarsen = Sarsen::start_at(dir.path(), sarsen.port);
    let answer = sarsen.client.instant("kept[5m]", at as f64 / 1e3).unwrap();
    assert_eq!(answer.len(), 100);
    for (labels, points) in answer {
        let k: f64 = labels["k"].parse().unwrap();
        assert_eq!(points, [((at - 60_000) as f64 / 1e3, k), (at as f64 / 1e3, 0.5)]);
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_told_why() {
    let dir = folder();
    let first = Sarsen::start(dir.path());
    let mut second = Sarsen::spawn(dir.path(), free_port(), &[]);
    assert!(!second.process.await_end().success());
    let output = second.process.output();
    let data = dir.path().join("data");
    assert!(output.contains(data.to_str().unwrap()), "the folder is not named:\n{output}");
    assert!(output.contains("another process has"), "the cause is not named:\n{output}");
    assert!(first.client.is_ok("/-/ready"), "the first process goes on");
}

#[test]
fn a_port_that_is_taken_is_named_in_the_error() {
    let (one, two) = (folder(), folder());
    let first = Sarsen::start(one.path());
    let mut second = Sarsen::spawn(two.path(), first.port, &[]);
    assert!(!second.process.await_end().success());
    let output = second.process.output();
    assert!(output.contains(&first.port.to_string()), "{output}");
}

#[test]
fn a_flag_that_does_not_exist_is_refused_by_name() {
    let dir = folder();
    let mut command = std::process::Command::new(tests::process::binary());
    command.args(["server", "--no-such-flag"]);
    let mut process = Process::start("sarsen", &mut command, &dir.path().join("log"));
    assert!(!process.await_end().success());
    assert!(process.output().contains("--no-such-flag"), "{}", process.output());
}
