//! What nodes say, as the plan has it.
//!
//! An answer comes from another process, maybe of another version: what is not there is left out, what is unknown is taken for the worse, and nothing is
//! taken for granted.

use super::client::{Error, Said};
use crate::plan::{Answer, Copy, CopyState, Database, Health, Job, Node, NodeState};
use crate::render::names::instance_of_address;
use hyper::StatusCode;
use serde_json::Value;
use std::collections::BTreeMap;

/// Who holds which shard, under one epoch.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// The epoch.
    pub epoch: u64,
    /// By shard.
    pub shards: Vec<Vec<Copy>>,
}

/// The `data` of an answer.
pub fn understand(url: &str, status: StatusCode, body: &[u8]) -> Said {
    let nonsense = |what: String| Error::Nonsense { url: url.to_owned(), what };
    let answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(_) if !status.is_success() => Value::Null,
        Err(error) => return Err(nonsense(error.to_string())),
    };
    if !status.is_success() {
        let said = answer["error"]
            .as_str()
            .map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
        let message = said.chars().take(500).collect();
        return Err(Error::Refused { url: url.to_owned(), status, message });
    }
    match answer {
        Value::Object(mut fields) => Ok(fields.remove("data").unwrap_or_default()),
        _ => Err(nonsense("no object".into())),
    }
}

/// What a node says of itself (`/api/v1/status/node`) that is not, or not yet, part of a database that answers.
pub fn reply(said: &Value) -> Option<Answer> {
    if let Some(cluster) = said["cluster"].as_str().filter(|id| !id.is_empty()) {
        return Some(Answer::Belongs(cluster.to_owned()));
    }
    (said["state"] == "waiting" || said["waits_to_join"] == true).then_some(Answer::Waiting)
}

impl Placement {
    /// From `/api/v1/status/placement`.
    pub fn read(said: &Value) -> Option<Placement> {
        let copy = |replica: &Value| {
            let state = match replica["state"].as_str()? {
                "available" => CopyState::Available,
                "leaving" => CopyState::Leaving,
                "arrived" => CopyState::Arrived,
                // Whatever else there may be does not count as complete.
                _ => CopyState::Initializing,
            };
            Some(Copy { node: replica["node"].as_str()?.to_owned(), state })
        };
        let shard =
            |shard: &Value| shard["replicas"].as_array()?.iter().map(copy).collect::<Option<Vec<Copy>>>();
        let shards = said["shards"].as_array()?.iter().map(shard).collect::<Option<_>>()?;
        Some(Placement { epoch: said["epoch"].as_u64()?, shards })
    }
}

/// From `/api/v1/status/cluster` and the placement of the same epoch. `me` is who we are as the holder of the lease.
pub fn database(said: &Value, placement: &Placement, me: &str) -> Option<Database> {
    let nodes: BTreeMap<String, Node> = said["nodes"].as_array()?.iter().filter_map(node).collect();
    let gone = said["gone"].as_array().into_iter().flatten();
    let gone =
        gone.filter_map(|gone| instance_of_address(gone["address"].as_str()?)).map(str::to_owned).collect();
    let holder = said["autopilot"]["lease"]["holder"].as_str();
    Some(Database {
        cluster_id: said["cluster"].as_str()?.to_owned(),
        epoch: said["epoch"].as_u64()?,
        has_leader: said["leader"].is_string(),
        factor: usize::try_from(said["replication_factor"].as_u64()?).ok()?,
        nodes,
        gone,
        shards: placement.shards.clone(),
        jobs: said["jobs"].as_array().into_iter().flatten().filter_map(job).collect(),
        lease_is_ours: holder == Some(me),
        waits_for: said["waits_for"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| Some(text.as_str()?.to_owned()))
            .collect(),
    })
}

fn node(said: &Value) -> Option<(String, Node)> {
    let state = match said["member_state"].as_str().or_else(|| said["state"].as_str())? {
        "joining" => NodeState::Standby,
        "draining" => NodeState::Draining,
        "lost" => NodeState::Lost,
        "gone" => return None,
        _ => NodeState::Up,
    };
    let health = match said["health"].as_str()? {
        "up" => Health::Up,
        "suspect" => Health::Suspect,
        _ => Health::Down,
    };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let heard = &said["seen_by"];
    let node = Node {
        instance: instance_of_address(said["address"].as_str()?)?.to_owned(),
        state,
        health,
        heard_by: number(&heard["nodes"]).zip(number(&heard["of"])),
        bytes_left: said["copies"]["bytes_left"].as_u64().unwrap_or(0),
        eta_s: said["copies"]["eta_s"].as_u64(),
        version: said["version"].as_str().unwrap_or_default().to_owned(),
    };
    Some((said["id"].as_str()?.to_owned(), node))
}

/// A job at work.
fn job(said: &Value) -> Option<Job> {
    let text = |key: &str| said[key].as_str().map(str::to_owned);
    let active = matches!(said["state"].as_str()?, "running" | "paused");
    let id = said["id"].as_u64()?;
    active.then(|| Job {
        id,
        kind: text("kind").unwrap_or_default(),
        leaving: text("leaving"),
        coming: text("coming"),
        bytes: said["bytes"].as_u64().unwrap_or(0),
        bytes_left: said["bytes_left"].as_u64(),
        eta_s: said["eta_s"].as_u64(),
    })
}
