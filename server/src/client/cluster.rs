//! `sarsen cluster …`: nodes, and who holds what.

use super::{Output, autopilot, http, jobs, operation, query, table};
use crate::args::{ClusterCommand, Remote};
use crate::time::print_duration_ms;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Asks and prints.
pub fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Create(remote) => create(&remote),
        ClusterCommand::Nodes(remote) => nodes(&remote),
        ClusterCommand::Placement(remote) => placement(&remote),
        ClusterCommand::Shards { all, remote } => shards(&remote, all),
        ClusterCommand::Add { node, how } => operation::run("add", json!({ "node": node }), &how),
        ClusterCommand::Drain { node, how } => operation::run("drain", json!({ "node": node }), &how),
        ClusterCommand::Heal { node, how } => operation::run("heal", json!({ "node": node }), &how),
        ClusterCommand::Remove { node, lost, how } => {
            operation::run("remove", json!({ "node": node, "lost": lost }), &how)
        }
        ClusterCommand::Replace { old, new, lost, how } => {
            operation::run("replace", json!({ "old": old, "new": new, "lost": lost }), &how)
        }
        ClusterCommand::Rebalance { how } => operation::run("rebalance", json!({}), &how),
        ClusterCommand::Autopilot(command) => autopilot::run(&command),
        ClusterCommand::ReplicationFactor { factor, how } => {
            operation::run("replication-factor", json!({ "factor": factor }), &how)
        }
    }
}

/// Whether the data is safe, then the nodes.
pub fn print_summary(cluster: &Value) -> anyhow::Result<()> {
    println!("{}: {}\n", text(&cluster["safety"]).to_uppercase(), text(&cluster["summary"]));
    print_nodes(cluster)?;
    println!();
    let work = work(cluster);
    if !work.is_empty() {
        println!("{work}");
    }
    Ok(())
}

/// The jobs at work, what is left to be copied, and what stands in the way. Nothing if there is nothing to do.
fn work(cluster: &Value) -> String {
    let names = short_names(cluster);
    let active = |job: &&Value| matches!(text(&job["state"]), "running" | "paused");
    let active: Vec<Value> = list(&cluster["jobs"]).filter(active).cloned().collect();
    let mut out = if active.is_empty() { String::new() } else { jobs::render(&active, &names) };
    let moves = &cluster["moves"];
    let number = |key: &str| moves[key].as_u64().unwrap_or(0);
    if number("copies") > 0 {
        let (copies, copy) = (number("copies"), if number("copies") == 1 { "copy" } else { "copies" });
        out.push_str(&format!("{copies} {copy} to be made, {}", table::bytes(number("bytes"))));
        if let Some(rate) = moves["bytes_per_second"].as_u64() {
            out.push_str(&format!(" at {}/s", table::bytes(rate)));
        }
        if let Some(eta) = moves["eta_s"].as_i64() {
            out.push_str(&format!(", done in about {}", print_duration_ms(eta * 1000)));
        }
        out.push('\n');
    }
    for why in list(&cluster["waits_for"]) {
        out.push_str(&format!("waits: {}\n", operation::shortened(text(why), &names)));
    }
    for why in autopilot::stands_still(&cluster["autopilot"]) {
        out.push_str(&format!("autopilot: {}\n", operation::shortened(&why, &names)));
    }
    out
}

/// How this node's copies come to be like the others': repair, hints, damage. Nothing of a node that is alone.
pub fn healing(cluster: &Value) -> Vec<(&'static str, String)> {
    if list(&cluster["nodes"]).count() < 2 {
        return Vec::new();
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let several =
        |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let repair = &cluster["repair"];
    let due = number(&repair["running"]) + number(&repair["waiting"]);
    let progress = match (due, number(&repair["eta_ms"])) {
        (0, _) => "all copies were compared".to_string(),
        (due, 0) => format!("{} due", several(due, "comparison", "comparisons")),
        (due, eta_ms) => format!(
            "{} due, done in about {}",
            several(due, "comparison", "comparisons"),
            print_duration_ms(i64::try_from(eta_ms).unwrap_or(i64::MAX))
        ),
    };
    let differ = match number(&repair["divergent_now"]) {
        0 => "no window differs".to_string(),
        count => format!("{} when last compared", several(count, "window differed", "windows differed")),
    };
    let fetched = format!(
        "{} fetched ({})",
        several(number(&repair["rows_fetched"]), "sample", "samples"),
        table::bytes(number(&repair["bytes_fetched"]))
    );
    let hints = &cluster["hints"];
    let names = short_names(cluster);
    let waiting: Vec<String> = list(&hints["nodes"])
        .map(|node| {
            let id = text(&node["id"]);
            let name = names.get(id).map_or(id, String::as_str);
            format!("{} for {name}", table::bytes(number(&node["bytes"])))
        })
        .collect();
    let waiting = if waiting.is_empty() { "none wait".to_string() } else { waiting.join(", ") };
    let dropped = match number(&hints["dropped"]) {
        0 => String::new(),
        count => format!("; {count} dropped, which repair brings"),
    };
    let shards: BTreeSet<u64> = list(&cluster["damage"]).map(|damage| number(&damage["shard"])).collect();
    let damage = match shards.len() as u64 {
        0 => "none".to_string(),
        count => format!(
            "in {}; reads use other copies until it is mended",
            several(count, "shard of this node", "shards of this node")
        ),
    };
    vec![
        ("repair", format!("{progress}; {differ}; {fetched}")),
        ("hints", format!("{waiting}; {} replayed{dropped}", number(&hints["replayed"]))),
        ("damage", damage),
    ]
}

fn create(remote: &Remote) -> anyhow::Result<()> {
    let made = http::send("POST", &remote.url, "/api/v1/admin/cluster/create", &[], None)?.data;
    if remote.output == Output::Json {
        return query::print_json(&made);
    }
    println!(
        "node {} has made cluster {}; the others that wait for one join it by themselves",
        text(&made["node"]),
        text(&made["cluster"])
    );
    Ok(())
}

fn nodes(remote: &Remote) -> anyhow::Result<()> {
    let cluster = http::get(&remote.url, "/api/v1/status/cluster", &[])?.data;
    match remote.output {
        Output::Json => query::print_json(&cluster["nodes"]),
        Output::Table => print_nodes(&cluster),
    }
}

fn print_nodes(cluster: &Value) -> anyhow::Result<()> {
    let names = short_names(cluster);
    let row = |node: &Value| {
        let name = &names[text(&node["id"])];
        let mut roles = Vec::new();
        for (is, role) in [
            (node["id"] == cluster["me"], "asked"),
            (node["id"] == cluster["leader"], "leader"),
            (node["voter"] == true && node["id"] != cluster["leader"], "voter"),
        ] {
            roles.extend(is.then_some(role));
        }
        vec![
            name.clone(),
            text(&node["state"]).to_string(),
            Some(text(&node["zone"])).filter(|zone| !zone.is_empty()).unwrap_or("-").to_string(),
            text(&node["address"]).to_string(),
            text(&node["http_address"]).to_string(),
            node["shards"].to_string(),
            disk(&node["disk"]),
            roles.join(", "),
        ]
    };
    // Those of one domain together.
    let mut nodes: Vec<&Value> = list(&cluster["nodes"]).collect();
    nodes.sort_by_key(|node| (text(&node["zone"]), text(&node["address"])));
    let rows: Vec<Vec<String>> = nodes.into_iter().map(row).collect();
    Ok(table::print(&["NODE", "STATE", "ZONE", "ADDRESS", "HTTP", "SHARDS", "DISK FREE", "ROLE"], &rows)?)
}

fn disk(disk: &Value) -> String {
    match (disk["free_bytes"].as_u64(), disk["total_bytes"].as_u64()) {
        (Some(free), Some(total)) => format!("{} of {}", table::bytes(free), table::bytes(total)),
        _ => "-".to_string(),
    }
}

fn placement(remote: &Remote) -> anyhow::Result<()> {
    let placement = http::get(&remote.url, "/api/v1/status/placement", &[])?.data;
    if remote.output == Output::Json {
        return query::print_json(&placement);
    }
    let names = short_names(&http::get(&remote.url, "/api/v1/status/cluster", &[])?.data);
    println!("epoch {}, {} copies wanted\n", placement["epoch"], placement["replication_factor"]);
    let rows: Vec<Vec<String>> = list(&placement["shards"])
        .map(|shard| vec![shard["shard"].to_string(), replicas(shard, &names)])
        .collect();
    Ok(table::print(&["SHARD", "NODES"], &rows)?)
}

fn shards(remote: &Remote, all: bool) -> anyhow::Result<()> {
    let placement = http::get(&remote.url, "/api/v1/status/placement", &[])?.data;
    let shown = list(&placement["shards"]).filter(|shard| all || shard["state"] != "ok");
    if remote.output == Output::Json {
        return query::print_json(&Value::Array(shown.cloned().collect()));
    }
    let names = short_names(&http::get(&remote.url, "/api/v1/status/cluster", &[])?.data);
    let rows: Vec<Vec<String>> = shown
        .map(|shard| {
            vec![
                shard["shard"].to_string(),
                text(&shard["state"]).replace('_', "-"),
                format!("{} of {}", shard["live"], placement["replication_factor"]),
                shard["need"].to_string(),
                replicas(shard, &names),
            ]
        })
        .collect();
    if rows.is_empty() {
        println!("every shard has its {} copies", placement["replication_factor"]);
        return Ok(());
    }
    Ok(table::print(&["SHARD", "STATE", "COPIES", "NEEDS", "NODES"], &rows)?)
}

/// The nodes of a shard, with what is special about their copies.
fn replicas(shard: &Value, names: &BTreeMap<String, String>) -> String {
    let replica = |replica: &Value| {
        let id = text(&replica["node"]);
        let name = names.get(id).map_or(id, String::as_str);
        match text(&replica["state"]) {
            "available" => name.to_string(),
            state => format!("{name} ({state})"),
        }
    };
    list(&shard["replicas"]).map(replica).collect::<Vec<_>>().join("  ")
}

/// By id: as much of its beginning as tells it from the other nodes, and no less than eight digits.
pub fn short_names(cluster: &Value) -> BTreeMap<String, String> {
    let ids: Vec<&str> = list(&cluster["nodes"]).map(|node| text(&node["id"])).collect();
    let cut = |length: usize| ids.iter().map(|id| id.get(..length).unwrap_or(id)).collect::<Vec<_>>();
    let distinct = |length: &usize| {
        let mut short = cut(*length);
        short.sort_unstable();
        short.windows(2).all(|pair| pair[0] != pair[1])
    };
    let length = (8..32).find(distinct).unwrap_or(32);
    ids.iter().map(ToString::to_string).zip(cut(length).into_iter().map(str::to_string)).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be_told_apart() {
        let of = |ids: &[&str]| {
            let nodes: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
            short_names(&json!({ "nodes": nodes })).into_values().collect::<Vec<_>>()
        };
        assert_eq!(of(&["0123456789abcdef", "fedcba9876543210"]), ["01234567", "fedcba98"]);
        assert_eq!(of(&["0123456789abcdef", "0123456789abcdff"]), ["0123456789abcde", "0123456789abcdf"]);
        assert_eq!(of(&["1"]), ["1"]);
    }

    #[test]
    fn repair_hints_and_damage_are_told_in_a_line_each() {
        let told = |cluster: &Value| -> Vec<String> {
            healing(cluster).into_iter().map(|(key, text)| format!("{key}: {text}")).collect()
        };
        assert_eq!(told(&json!({ "nodes": [{ "id": "1" }] })), [""; 0]);
        let nodes = json!([{ "id": "0123456789abcdef" }, { "id": "fedcba9876543210" }]);
        assert_eq!(
            told(&json!({ "nodes": nodes, "repair": {}, "hints": {}, "damage": [] })),
            [
                "repair: all copies were compared; no window differs; 0 samples fetched (0 B)",
                "hints: none wait; 0 replayed",
                "damage: none"
            ]
        );
        let busy = json!({
            "nodes": nodes,
            "repair": { "running": 1, "waiting": 2, "eta_ms": 90_000, "divergent_now": 1, "rows_fetched": 7, "bytes_fetched": 2048 },
            "hints": { "nodes": [{ "id": "fedcba9876543210", "bytes": 1536 }], "replayed": 3, "dropped": 2 },
            "damage": [{ "shard": 4 }, { "shard": 4 }],
        });
        assert_eq!(
            told(&busy),
            [
                "repair: 3 comparisons due, done in about 1m30s; 1 window differed when last compared; 7 samples fetched (2.0 KiB)",
                "hints: 1.5 KiB for fedcba98; 3 replayed; 2 dropped, which repair brings",
                "damage: in 1 shard of this node; reads use other copies until it is mended"
            ]
        );
    }

    #[test]
    fn work_and_what_it_waits_for_is_told_and_nothing_where_there_is_none() {
        let nodes = json!([{ "id": "0123456789abcdef" }, { "id": "fedcba9876543210" }]);
        let idle = json!({ "nodes": nodes, "jobs": [{ "id": 1, "state": "done" }], "moves": { "copies": 0 }, "waits_for": [] });
        assert_eq!(work(&idle), "");
        let busy = json!({
            "nodes": nodes,
            "jobs": [{ "id": 1, "state": "done" }, {
                "id": 2, "what": "drain fedcba9876543210", "state": "running", "phase": "copying", "percent": 12.5, "copies": 8, "copies_left": 7,
                "bytes": 4096, "bytes_left": 3584, "created_ms": 0, "by": "ada",
            }],
            "moves": { "copies": 9, "bytes": 4608, "bytes_per_second": 512, "eta_s": 9 },
            "waits_for": ["2 copies wait for node 0123456789abcdef, which is down"],
            "autopilot": { "paused": false, "lease": null, "held": "node fedcba9876543210 still hears node 0123456789abcdef" },
        });
        insta::assert_snapshot!(work(&busy), @r"
        JOB  WHAT            PHASE    DONE  COPIES  BYTES             RATE  LEFT  SINCE                 BY
          2  drain fedcba98  copying  12 %  1 of 8  512 B of 4.0 KiB  -     -     1970-01-01T00:00:00Z  ada
        9 copies to be made, 4.5 KiB at 512 B/s, done in about 9s
        waits: 2 copies wait for node 01234567, which is down
        autopilot: a node has been away for longer than node_loss_grace, and its copies are not made elsewhere: node fedcba98 still hears node 01234567
        ");
    }

    #[test]
    fn what_is_special_about_a_copy_is_said() {
        let shard = json!({ "replicas": [{ "node": "a", "state": "available" }, { "node": "b", "state": "leaving" }] });
        assert_eq!(replicas(&shard, &BTreeMap::from([("a".to_string(), "A".to_string())])), "A  b (leaving)");
    }
}
