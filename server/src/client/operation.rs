//! `sarsen cluster add | drain | heal | remove | replace | rebalance | replication-factor`: asks for a job, or for what it would do.

use super::cluster::short_names;
use super::{Output, http, jobs, query, table};
use crate::args::Operation;
use crate::time::print_duration_ms;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// Asks, and prints what would be done, or waits until it is done.
pub fn run(operation: &str, mut body: Value, how: &Operation) -> anyhow::Result<()> {
    let remote = &how.remote;
    body["dry_run"] = how.dry_run.into();
    body["by"] = std::env::var("USER").unwrap_or_else(|_| "sarsen cluster".into()).into();
    let path = format!("/api/v1/admin/cluster/{operation}");
    let data = http::send("POST", &remote.url, &path, &[], Some(&body))?.data;
    if remote.output == Output::Json {
        return query::print_json(&data);
    }
    if how.dry_run {
        let names = short_names(&http::get(&remote.url, "/api/v1/status/cluster", &[])?.data);
        print!("{}", plan(&data["plan"], &names));
        return Ok(());
    }
    let Some(id) = data["job"]["id"].as_u64() else {
        println!("it was done before, by a job that is not remembered any more");
        return Ok(());
    };
    println!("job {id}: {}", data["job"]["what"].as_str().unwrap_or_default());
    if how.detach || !std::io::stdout().is_terminal() {
        println!("it goes on by itself; {} follows it", jobs::return_to(id, remote));
        return Ok(());
    }
    jobs::watch(id, remote)
}

/// What would be done, for people.
fn plan(plan: &Value, names: &BTreeMap<String, String>) -> String {
    let number = |key: &str| plan[key].as_u64().unwrap_or(0);
    let node = |id: &Value| match id.as_str() {
        Some(id) => names.get(id).map_or(id, String::as_str).to_owned(),
        None => "-".to_owned(),
    };
    let moves = plan["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = moves.iter().map(|step| {
        vec![
            step["order"].to_string(),
            step["shard"].to_string(),
            node(&step["from"]),
            node(&step["to"]),
            step["bytes"].as_u64().filter(|bytes| *bytes > 0).map_or("-".into(), table::bytes),
            step["live_copies"].to_string(),
            shortened(step["why"].as_str().unwrap_or_default(), names),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str("nothing would move\n");
    } else {
        text.push_str(&table::render(&["ORDER", "SHARD", "FROM", "TO", "BYTES", "LIVE", "WHY"], &rows));
    }
    let expected = plan["expected_s"].as_i64().map(|s| print_duration_ms(s.max(1) * 1000));
    let time = match (plan["expected_by"].as_str(), expected) {
        (Some("measured"), Some(time)) => format!("about {time}, at the pace of the copies under way"),
        (Some("limit"), Some(time)) => format!(
            "{time} or more: nothing was measured yet, and a node takes at most {} a second",
            table::bytes(number("limit_bytes_per_second"))
        ),
        (Some("nothing is copied"), _) => "nothing is copied".to_owned(),
        _ => "unknown: no node has said how much data it has".to_owned(),
    };
    let several =
        |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    text.push('\n');
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<14}{value}\n"));
    line(
        "copies",
        &format!(
            "{} of {} in all",
            several(number("copies"), "copy", "copies"),
            table::bytes(number("bytes"))
        ),
    );
    line("time", &time);
    line(
        "safety",
        &format!(
            "every shard keeps {} or more, as long as no node fails",
            several(number("fewest_live_copies"), "live copy", "live copies")
        ),
    );
    if number("other_moves") > 0 {
        line(
            "besides",
            &format!("{} made for other reasons", several(number("other_moves"), "move is", "moves are")),
        );
    }
    if let Some(shortfall) = plan["shortfall"].as_str() {
        line("but", shortfall);
    }
    if let Some(shards) = plan["stranded_shards"].as_array().filter(|shards| !shards.is_empty()) {
        let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
        line("but", &format!("shards {} have no live copy to make others from", shards.join(", ")));
    }
    text.push_str("nothing was changed (--dry-run)\n");
    text
}

/// A text with ids cut to names.
pub fn shortened(text: &str, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_says_everything_before_anything_happens() {
        let (a, b) = ("a123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        let names = [a, b].map(|id| (id.to_owned(), id[..8].to_owned())).into();
        let full = json!({
            "moves": [
                { "order": 1, "shard": 5, "from": a, "to": b, "bytes": 1536, "live_copies": 3, "why": format!("node {a} is draining") },
                { "order": 2, "shard": 60, "from": a, "to": null, "bytes": 0, "live_copies": 3, "why": "the shard has 4 copies and needs 3" },
            ],
            "copies": 1,
            "bytes": 1536,
            "fewest_live_copies": 3,
            "expected_s": 90,
            "expected_by": "measured",
            "other_moves": 2,
            "shortfall": "replication factor 3 with 2 nodes to hold copies: add 1",
            "stranded_shards": [7, 8],
        });
        insta::assert_snapshot!(plan(&full, &names), @r"
        ORDER  SHARD  FROM      TO        BYTES    LIVE  WHY
            1      5  a1234567  fedcba98  1.5 KiB     3  node a1234567 is draining
            2     60  a1234567  -         -           3  the shard has 4 copies and needs 3

        copies        1 copy of 1.5 KiB in all
        time          about 1m30s, at the pace of the copies under way
        safety        every shard keeps 3 live copies or more, as long as no node fails
        besides       2 moves are made for other reasons
        but           replication factor 3 with 2 nodes to hold copies: add 1
        but           shards 7, 8 have no live copy to make others from
        nothing was changed (--dry-run)
        ");
        let limited = json!({ "moves": [], "expected_s": 0, "expected_by": "limit", "copies": 4, "bytes": 5, "limit_bytes_per_second": 1 << 24 });
        insta::assert_snapshot!(plan(&limited, &names), @r"
        nothing would move

        copies        4 copies of 5 B in all
        time          1s or more: nothing was measured yet, and a node takes at most 16.0 MiB a second
        safety        every shard keeps 0 live copies or more, as long as no node fails
        nothing was changed (--dry-run)
        ");
        assert!(
            plan(&json!({ "expected_s": null, "expected_by": "unknown" }), &names)
                .contains("unknown: no node")
        );
    }
}
