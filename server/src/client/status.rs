//! `sarsen status`: the first line answers "am I safe?".

use super::{Output, cluster, http, query, table};
use crate::args::Remote;
use crate::time::print_duration_ms;
use serde_json::Value;

/// Asks and prints.
pub fn run(remote: &Remote) -> anyhow::Result<()> {
    let mut data = http::get(&remote.url, "/api/v1/status/node", &[])?.data;
    // A node that starts knows no cluster yet.
    let cluster = match data["state"].as_str() {
        Some("starting") => None,
        _ => Some(http::get(&remote.url, "/api/v1/status/cluster", &[])?.data),
    };
    if remote.output == Output::Json {
        if let (Some(data), Some(Value::Object(cluster))) = (data.as_object_mut(), cluster) {
            data.extend(cluster);
        }
        return query::print_json(&data);
    }
    match &cluster {
        Some(cluster) => cluster::print_summary(cluster)?,
        None => println!("STARTING: {}\n", data["reason"].as_str().unwrap_or_default()),
    }
    let text = |key: &str| data[key].as_str().unwrap_or("-").to_string();
    let storage = &data["storage"];
    let number = |key: &str| storage[key].as_u64().unwrap_or(0);
    let uptime = data["uptimeSeconds"].as_i64().unwrap_or(0);
    let durability = match data["durability"].as_str() {
        Some("interval") => "interval (acknowledged before the fsync: a power cut can lose 200 ms)",
        _ => "fsync (acknowledged means durable)",
    };
    let mut rows = vec![
        ("state", format!("{} ({})", text("state"), text("reason"))),
        ("version", text("version")),
        ("uptime", print_duration_ms(uptime * 1000)),
        ("data", text("dataDir")),
        ("retention", text("retention")),
        ("durability", durability.to_string()),
        ("memory", table::bytes(data["residentBytes"].as_u64().unwrap_or(0))),
    ];
    rows.extend(cluster.iter().flat_map(cluster::healing));
    if storage.is_object() {
        let blocks = format!("{} ({})", number("blocks"), table::bytes(number("blockBytes")));
        rows.extend([
            ("series", format!("{} in memory", number("series"))),
            ("samples", format!("{} in memory, {} in blocks", number("headSamples"), number("blockSamples"))),
            ("blocks", blocks),
            ("log", format!("{} segments", number("walSegments"))),
        ]);
        if let Some(reason) = storage["readOnly"].as_str() {
            rows.push(("read-only", reason.to_string()));
        }
        for place in storage["suspect"].as_array().into_iter().flatten() {
            rows.push(("damaged", place.as_str().unwrap_or_default().to_string()));
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.to_string(), value]).collect();
    Ok(table::print(&["NODE", &remote.url], &rows)?)
}
