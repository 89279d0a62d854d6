//! `sarsen cluster autopilot …`: whether lost nodes are healed without anybody being asked.

use super::{Output, cluster, http, operation, query};
use crate::args::{AutopilotCommand, Remote};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/admin/cluster/autopilot";

/// Asks or changes, and prints what is so then.
pub fn run(command: &AutopilotCommand) -> anyhow::Result<()> {
    let pause = |remote: &Remote, paused: bool| {
        http::send("POST", &remote.url, PATH, &[], Some(&json!({ "paused": paused })))
    };
    let (remote, answer) = match command {
        AutopilotCommand::Status(remote) => (remote, http::get(&remote.url, PATH, &[])?),
        AutopilotCommand::Pause(remote) => (remote, pause(remote, true)?),
        AutopilotCommand::Resume(remote) => (remote, pause(remote, false)?),
    };
    if remote.output == Output::Json {
        return query::print_json(&answer.data);
    }
    let still = stands_still(&answer.data);
    if still.is_empty() {
        println!(
            "on: a node that is away for longer than node_loss_grace is lost, and its copies are made elsewhere"
        );
        return Ok(());
    }
    let names = cluster::short_names(&http::get(&remote.url, "/api/v1/status/cluster", &[])?.data);
    still.iter().for_each(|why| println!("{}", operation::shortened(why, &names)));
    Ok(())
}

/// Why no node is taken for lost, or would be; nothing if that is not so.
pub fn stands_still(autopilot: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    let held = autopilot["held"].as_str();
    let paused = autopilot["paused"] == true;
    if let Some(held) = held {
        reasons.push(format!(
            "a node has been away for longer than node_loss_grace, and its copies are not made elsewhere: {held}"
        ));
    } else if paused {
        reasons.push(
            "paused: no node is taken for lost, however long it is away; `sarsen cluster autopilot resume` ends that"
                .to_owned(),
        );
    }
    // A pause is told before the lease where both hold somebody back.
    if let Some(holder) = autopilot["lease"]["holder"].as_str().filter(|_| held.is_none() || paused) {
        let ttl_s = &autopilot["lease"]["ttl_s"];
        reasons.push(format!(
            "stands by: {holder} holds the lease and heals this cluster; it ends {ttl_s} s after it is renewed for the last time"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_why_it_does_nothing_and_nothing_when_it_would() {
        let lease = json!({ "holder": "operator", "ttl_s": 30 });
        let told = |paused: bool, lease: &Value, held: Option<&str>| {
            stands_still(&json!({ "paused": paused, "lease": lease, "held": held })).join("\n")
        };
        assert_eq!(told(false, &Value::Null, None), "");
        // Of a node of an earlier version.
        assert_eq!(stands_still(&Value::Null), [""; 0]);
        insta::assert_snapshot!(told(true, &lease, None), @r"
        paused: no node is taken for lost, however long it is away; `sarsen cluster autopilot resume` ends that
        stands by: operator holds the lease and heals this cluster; it ends 30 s after it is renewed for the last time
        ");
        insta::assert_snapshot!(told(false, &lease, Some("operator holds the lease")), @"a node has been away for longer than node_loss_grace, and its copies are not made elsewhere: operator holds the lease");
    }
}
