//! `sarsen query …`

use super::{Output, http, table};
use crate::args::{Between, QueryCommand, Remote};
use crate::time::{self, parse_human_time, parse_span_ms, print_rfc3339};
use anyhow::{Context, bail};
use model::{Labels, Timestamp};
use serde_json::Value;

/// Points that a range has when no step is given.
const POINTS: i64 = 250;

/// Asks and prints.
pub fn run(command: QueryCommand) -> anyhow::Result<()> {
    let now = time::now();
    match command {
        QueryCommand::Instant { expr, time, remote } => {
            let at = moment("--time", time.as_deref(), now)?.unwrap_or(now);
            let params = [("query", expr), ("time", seconds(at))];
            print_result(&http::get(&remote.url, "/api/v1/query", &params)?.data, remote.output)
        }
        QueryCommand::Range { expr, between, step, remote } => {
            let end = moment("--end", between.end.as_deref(), now)?.unwrap_or(now);
            let start = moment("--start", between.start.as_deref(), now)?;
            let start = start.unwrap_or(Timestamp(end.0.saturating_sub(3_600_000)));
            let step = match step {
                Some(text) => parse_span_ms(&text)
                    .filter(|ms| *ms > 0)
                    .with_context(|| format!("--step {text:?} is not a duration such as 30s"))?,
                // Whole seconds, as a person would have chosen.
                None => (end.0.saturating_sub(start.0) / POINTS).max(1000).div_euclid(1000) * 1000,
            };
            let params = [
                ("query", expr),
                ("start", seconds(start)),
                ("end", seconds(end)),
                ("step", (step as f64 / 1000.0).to_string()),
            ];
            print_result(&http::get(&remote.url, "/api/v1/query_range", &params)?.data, remote.output)
        }
        QueryCommand::Series { selectors, between, limit, remote } => {
            let params = lookup(&selectors, &between, limit, now)?;
            let data = http::get(&remote.url, "/api/v1/series", &params)?.data;
            print_list(&data, "SERIES", series_name, &remote)
        }
        QueryCommand::Labels { name, selectors, between, limit, remote } => {
            let params = lookup(&selectors, &between, limit, now)?;
            let (path, header) = match &name {
                None => ("/api/v1/labels".to_string(), "LABEL"),
                Some(name) => (format!("/api/v1/label/{}/values", escape_label_name(name)), "VALUE"),
            };
            let data = http::get(&remote.url, &path, &params)?.data;
            print_list(&data, header, |item| item.as_str().unwrap_or_default().to_string(), &remote)
        }
    }
}

fn moment(flag: &str, text: Option<&str>, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    let Some(time) = parse_human_time(text, now) else {
        bail!(
            "{flag} {text:?} is not a time; write `now`, `now-1h30m`, 2026-01-02T15:04:05Z, or Unix seconds"
        );
    };
    Ok(Some(time))
}

/// The start and end of `between` in the API's words.
pub fn range(between: &Between, now: Timestamp) -> anyhow::Result<(Option<Timestamp>, Option<Timestamp>)> {
    let start = moment("--start", between.start.as_deref(), now)?;
    Ok((start, moment("--end", between.end.as_deref(), now)?))
}

fn seconds(t: Timestamp) -> String {
    let mut out = Vec::new();
    crate::http::json::put_timestamp(&mut out, t.0);
    String::from_utf8(out).expect("BUG: digits are not UTF-8")
}

fn lookup(
    selectors: &[String],
    between: &Between,
    limit: Option<u64>,
    now: Timestamp,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut params: Vec<(&'static str, String)> = selectors.iter().map(|s| ("match[]", s.clone())).collect();
    let (start, end) = range(between, now)?;
    params.extend(start.map(|t| ("start", seconds(t))));
    params.extend(end.map(|t| ("end", seconds(t))));
    params.extend(limit.map(|n| ("limit", n.to_string())));
    Ok(params)
}

/// Names outside the classic alphabet travel as `U__…`, so that they need no escaping in a path.
fn escape_label_name(name: &str) -> String {
    if model::labels::is_legacy_name(name, false) && !name.starts_with("U__") {
        return name.to_string();
    }
    let escape = |c: char| match c {
        '_' => "__".to_string(),
        c if c.is_ascii_alphanumeric() => c.to_string(),
        c => format!("_{:x}_", c as u32),
    };
    format!("U__{}", name.chars().map(escape).collect::<String>())
}

fn series_name(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
    Labels::from_pairs(pairs).map(|labels| labels.to_string()).unwrap_or_else(|_| labels.to_string())
}

fn print_list(
    data: &Value,
    header: &str,
    name: impl Fn(&Value) -> String,
    remote: &Remote,
) -> anyhow::Result<()> {
    if remote.output == Output::Json {
        return print_json(data);
    }
    let rows: Vec<Vec<String>> = data.as_array().into_iter().flatten().map(|item| vec![name(item)]).collect();
    if rows.is_empty() {
        eprintln!("nothing matched");
        return Ok(());
    }
    Ok(table::print(&[header], &rows)?)
}

/// Prints JSON, one line.
pub fn print_json(data: &Value) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{data}")?)
}

fn print_result(data: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(data);
    }
    let result = &data["result"];
    let time = |t: &Value| {
        t.as_f64().map_or(String::new(), |s| print_rfc3339(Timestamp((s * 1000.0).round() as i64)))
    };
    let cell = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToString::to_string);
    let mut rows = Vec::new();
    let header = match data["resultType"].as_str() {
        Some("vector") => {
            for item in result.as_array().into_iter().flatten() {
                let point = item.get("value").unwrap_or(&item["histogram"]);
                rows.push(vec![series_name(&item["metric"]), cell(&point[1]), time(&point[0])]);
            }
            &["SERIES", "VALUE", "TIME"][..]
        }
        Some("matrix") => {
            for item in result.as_array().into_iter().flatten() {
                let name = series_name(&item["metric"]);
                for key in ["values", "histograms"] {
                    for point in item[key].as_array().into_iter().flatten() {
                        rows.push(vec![name.clone(), time(&point[0]), cell(&point[1])]);
                    }
                }
            }
            &["SERIES", "TIME", "VALUE"][..]
        }
        _ => {
            rows.push(vec![cell(&result[1]), time(&result[0])]);
            &["VALUE", "TIME"][..]
        }
    };
    if rows.is_empty() {
        eprintln!("no series matched");
        return Ok(());
    }
    Ok(table::print(header, &rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_survive_the_path() {
        for name in ["job", "http.status", "a b", "é_x", "U__x"] {
            assert_eq!(crate::http::params::unescape_label_name(&escape_label_name(name)), name);
        }
    }
}
