//! `sarsen jobs …`: the work on a cluster.

use super::{Output, cluster, http, operation, query, table};
use crate::args::{JobsCommand, OneJob, Remote};
use crate::config::{Bytes, Setting};
use crate::time::{print_duration_ms, print_rfc3339};
use anyhow::{Context, bail};
use model::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const PATH: &str = "/api/v1/admin/jobs";
/// Between two looks at a job that is followed.
const LOOK: Duration = Duration::from_secs(1);
/// Characters of a bar.
const BAR: usize = 30;

/// Asks or changes, and prints.
pub fn run(command: JobsCommand) -> anyhow::Result<()> {
    match command {
        JobsCommand::List(remote) => list(&remote),
        JobsCommand::Watch(OneJob { id, remote }) => watch(id, &remote),
        JobsCommand::Pause(job) => step(&job, "pause", "begins no more moves; those under way end"),
        JobsCommand::Resume(job) => step(&job, "resume", "goes on"),
        JobsCommand::Throttle { rate, remote } => throttle(&rate, &remote),
        JobsCommand::Cancel(job) => step(
            &job,
            "cancel",
            "is given up; moves under way that are not wanted any more are given up, too",
        ),
    }
}

fn throttle(rate: &str, remote: &Remote) -> anyhow::Result<()> {
    let bytes = match rate {
        "default" => None,
        rate => {
            let rate = Bytes::parse(rate.strip_suffix("/s").unwrap_or(rate));
            Some(rate.with_context(|| format!("the rate is {} a second, or `default`", Bytes::EXPECTS))?.0)
        }
    };
    let body = json!({ "bytes_per_second": bytes });
    let data = http::send("POST", &remote.url, "/api/v1/admin/cluster/throttle", &[], Some(&body))?.data;
    match (remote.output, bytes) {
        (Output::Json, _) => return query::print_json(&data),
        (Output::Table, Some(bytes)) => {
            println!("each node takes at most {} a second from others for its copies", table::bytes(bytes));
        }
        (Output::Table, None) => {
            println!("each node takes as much from others for its copies as it is configured with");
        }
    }
    Ok(())
}

/// How to come back to a job.
pub fn return_to(id: u64, remote: &Remote) -> String {
    match remote.url.as_str() {
        "http://127.0.0.1:7420" => format!("`sarsen jobs watch {id}`"),
        url => format!("`sarsen jobs watch {id} --url {url}`"),
    }
}

fn list(remote: &Remote) -> anyhow::Result<()> {
    let jobs = http::get(&remote.url, PATH, &[])?.data;
    if remote.output == Output::Json {
        return query::print_json(&jobs);
    }
    let jobs = jobs.as_array().map(Vec::as_slice).unwrap_or_default();
    if jobs.is_empty() {
        println!("there was no job yet");
        return Ok(());
    }
    let names = cluster::short_names(&http::get(&remote.url, "/api/v1/status/cluster", &[])?.data);
    print!("{}", render(jobs, &names));
    Ok(())
}

/// Jobs as a table, and below it what they wait for and why they failed.
pub fn render(jobs: &[Value], names: &BTreeMap<String, String>) -> String {
    // Nodes that are gone have no name any more.
    let mut names = names.clone();
    for id in jobs.iter().flat_map(|job| [&job["leaving"], &job["coming"]]).filter_map(Value::as_str) {
        names.entry(id.to_owned()).or_insert_with(|| id.chars().take(8).collect());
    }
    let names = &names;
    let rows = jobs.iter().map(|job| {
        let done = |key: &str| match (
            job[key].as_u64().unwrap_or(0),
            job[format!("{key}_left").as_str()].as_u64(),
        ) {
            (total, Some(left)) => (total - left.min(total), total),
            (total, None) if job["state"] == "done" => (total, total),
            (total, None) => (0, total),
        };
        let (copies, of_copies) = done("copies");
        let (bytes, of_bytes) = done("bytes");
        let created = job["created_ms"].as_i64().unwrap_or(0);
        vec![
            job["id"].to_string(),
            operation::shortened(text(job, "what"), names),
            text(job, "phase").to_owned(),
            percent(job),
            format!("{copies} of {of_copies}"),
            format!("{} of {}", table::bytes(bytes), table::bytes(of_bytes)),
            job["bytes_per_second"].as_u64().map_or("-".into(), |rate| format!("{}/s", table::bytes(rate))),
            job["eta_s"].as_i64().map_or("-".into(), |eta| print_duration_ms(eta * 1000)),
            print_rfc3339(Timestamp(created / 1000 * 1000)).replace(".000Z", "Z"),
            text(job, "by").to_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let header = ["JOB", "WHAT", "PHASE", "DONE", "COPIES", "BYTES", "RATE", "LEFT", "SINCE", "BY"];
    let mut out = table::render(&header, &rows);
    for job in jobs {
        for (key, words) in [("waits_for", "waits"), ("error", "failed")] {
            if let Some(why) = job[key].as_str() {
                out.push_str(&format!("job {} {words}: {}\n", job["id"], operation::shortened(why, names)));
            }
        }
    }
    out
}

fn text<'a>(job: &'a Value, key: &str) -> &'a str {
    job[key].as_str().unwrap_or("-")
}

fn percent(job: &Value) -> String {
    job["percent"].as_f64().map_or("-".into(), |percent| format!("{} %", percent.floor()))
}

fn step(job: &OneJob, step: &str, means: &str) -> anyhow::Result<()> {
    let OneJob { id, remote } = job;
    let data = http::send("POST", &remote.url, &format!("{PATH}/{id}/{step}"), &[], None)?.data;
    match remote.output {
        Output::Json => query::print_json(&data),
        Output::Table => {
            println!("job {id} ({}) {means}", text(&data["job"], "what"));
            Ok(())
        }
    }
}

/// Follows a job until it is over: a bar on a terminal, else a line whenever something has changed.
pub fn watch(id: u64, remote: &Remote) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("waiting")?;
    let terminal = std::io::stdout().is_terminal() && remote.output == Output::Table;
    let mut last = String::new();
    loop {
        let job = http::get(&remote.url, &format!("{PATH}/{id}"), &[])
            .with_context(|| {
                format!("job {id} does not need this to go on; {} returns to it", return_to(id, remote))
            })?
            .data;
        let line = match remote.output {
            Output::Json => job.to_string(),
            Output::Table => progress(&job),
        };
        let mut out = std::io::stdout().lock();
        if terminal {
            // To the beginning of the line, and what is left of the one before is cleared.
            write!(out, "\r{} {line}\x1b[K", bar(job["percent"].as_f64().unwrap_or(0.0)))?;
        } else if line != last {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        last = line;
        let over = !matches!(text(&job, "state"), "running" | "paused");
        if terminal && over {
            writeln!(out)?;
        }
        match text(&job, "state") {
            "running" | "paused" => {}
            "done" => return Ok(()),
            "failed" => bail!("job {id} failed: {}", text(&job, "error")),
            other => bail!("job {id} was {other}"),
        }
        let interrupted = runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                () = tokio::time::sleep(LOOK) => false,
            }
        });
        if interrupted {
            writeln!(out, "\njob {id} goes on; {} returns to it", return_to(id, remote))?;
            return Ok(());
        }
    }
}

fn bar(percent: f64) -> String {
    let full = (percent.clamp(0.0, 100.0) / 100.0 * BAR as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
}

/// How far a job is, in a line.
fn progress(job: &Value) -> String {
    let mut parts = vec![format!("{} {}", percent(job), text(job, "phase"))];
    if let (Some(left), Some(total)) = (job["copies_left"].as_u64(), job["copies"].as_u64()) {
        parts.push(format!("{} of {total} copies", total - left.min(total)));
    }
    if let (Some(left), Some(total)) =
        (job["bytes_left"].as_u64(), job["bytes"].as_u64().filter(|total| *total > 0))
    {
        parts.push(format!("{} of {}", table::bytes(total - left.min(total)), table::bytes(total)));
    }
    parts.extend(job["bytes_per_second"].as_u64().map(|rate| format!("{}/s", table::bytes(rate))));
    parts.extend(job["eta_s"].as_i64().map(|eta| format!("{} left", print_duration_ms(eta * 1000))));
    parts.extend(job["waits_for"].as_str().map(str::to_owned));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        json!([
            {
                "id": 1, "what": "drain fedcba9876543210", "leaving": "fedcba9876543210", "state": "done", "phase": "done", "percent": 100.0, "copies": 8,
                "bytes": 2048, "copies_left": null, "bytes_left": null, "created_ms": 0, "by": "ada",
            },
            {
                "id": 12, "what": "add 0123456789abcdef", "state": "running", "phase": "waiting", "percent": 37.5, "copies": 8,
                "copies_left": 5, "bytes": 4096, "bytes_left": 2560, "bytes_per_second": 512, "eta_s": 65, "created_ms": 1_767_323_045_678_i64,
                "by": "http", "waits_for": "5 copies wait for node 0123456789abcdef, which is down",
            },
            {
                "id": 13, "what": "rebalance", "state": "failed", "phase": "failed", "percent": null, "copies": 0, "bytes": 0,
                "created_ms": 0, "by": "eve", "error": "no way",
            },
        ])
    }

    #[test]
    fn jobs_stand_in_a_table_with_what_they_wait_for_below_it() {
        let names = BTreeMap::from([("0123456789abcdef".to_owned(), "01234567".to_owned())]);
        insta::assert_snapshot!(render(example().as_array().unwrap(), &names), @r"
        JOB  WHAT            PHASE    DONE   COPIES  BYTES               RATE     LEFT  SINCE                 BY
          1  drain fedcba98  done     100 %  8 of 8  2.0 KiB of 2.0 KiB  -        -     1970-01-01T00:00:00Z  ada
         12  add 01234567    waiting  37 %   3 of 8  1.5 KiB of 4.0 KiB  512 B/s  1m5s  2026-01-02T03:04:05Z  http
         13  rebalance       failed   -      0 of 0  0 B of 0 B          -        -     1970-01-01T00:00:00Z  eve
        job 12 waits: 5 copies wait for node 01234567, which is down
        job 13 failed: no way
        ");
    }

    #[test]
    fn how_far_a_job_is_fits_into_a_line() {
        let lines: Vec<String> = example().as_array().unwrap().iter().map(progress).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        100 % done
        37 % waiting, 3 of 8 copies, 1.5 KiB of 4.0 KiB, 512 B/s, 1m5s left, 5 copies wait for node 0123456789abcdef, which is down
        - failed
        ");
        assert_eq!(bar(0.0), format!("[{}]", "-".repeat(BAR)));
        assert_eq!(bar(50.0), format!("[{}{}]", "#".repeat(BAR / 2), "-".repeat(BAR / 2)));
        assert_eq!(bar(130.0), format!("[{}]", "#".repeat(BAR)));
    }
}
