//! What nodes say, as the plan has it.
//!
//! An answer comes from another process, maybe of another version: what is not there is left out, what is unknown is taken for the worse, and nothing is
//! taken for granted.

use super::client::{Error, Said};
use crate::plan::{Answer, Copy, CopyState, Database, Health, Job, Node, NodeState, Trouble, TroubleKind};
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

/// Settings of a namespace by name.
pub type Settings = BTreeMap<String, String>;

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
    (said["state"] == "waiting").then_some(Answer::Waiting)
}

/// What a node says of its disk, if that has failed while it runs: it reads what it can, and does not end by itself.
pub fn failed_disk(said: &Value) -> Option<Trouble> {
    let message = said["reason"].as_str().unwrap_or("the disk failed").to_owned();
    (said["state"] == "disk_failed").then_some(Trouble { kind: TroubleKind::DiskFailed, message })
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
        has_data: said["has_data"] != false,
        factor: usize::try_from(said["replication_factor"].as_u64()?).ok()?,
        nodes,
        gone,
        shards: placement.shards.clone(),
        jobs: said["jobs"].as_array().into_iter().flatten().filter_map(job).collect(),
        lease_is_ours: holder == Some(me),
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
        heard_by: number(&heard["count"]).zip(number(&heard["of"])),
        bytes_left: said["filling"]["bytes"].as_u64().unwrap_or(0),
        eta_s: said["filling"]["eta_s"].as_u64(),
        version: said["version"].as_str().unwrap_or_default().to_owned(),
    };
    Some((said["id"].as_str()?.to_owned(), node))
}

/// Namespaces with their settings, from `GET /api/v1/admin/namespaces`.
pub fn namespaces(said: &Value) -> Option<BTreeMap<String, Settings>> {
    let namespace = |said: &Value| {
        let mut settings: Settings = said
            .as_object()?
            .iter()
            .filter_map(|(setting, value)| Some((setting.clone(), value.as_str()?.to_owned())))
            .collect();
        Some((settings.remove("name")?, settings))
    };
    said.as_array()?.iter().map(namespace).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NODE: &str = "0a0b0c0d0e0f01020304050607080900";

    /// As a node of the database says it (`server/src/http/cluster.rs`).
    fn status() -> Value {
        let address = |instance: &str| format!("{instance}.metrics-nodes.db.svc:7421");
        json!({
            "safety": "degraded", "summary": "one node is away",
            "cluster": "00112233445566778899aabbccddeeff", "me": NODE, "leader": NODE,
            "epoch": 42, "has_data": false, "replication_factor": 3,
            "shards": { "total": 1, "under_replicated": 1, "unavailable": 0, "min_copies": 2, "moving": 0 },
            "nodes": [
                {
                    "id": NODE, "zone": "a", "state": "up", "health": "up", "address": address("metrics-a-1"),
                    "http_address": "10.0.0.1:7420", "capacity": 100, "starts": 1, "shards": 64, "voter": true,
                    "version": "0.1.0", "seen_by": { "count": 2, "of": 2 }, "epoch": 42, "copies": { "initializing": 0, "available": 64, "leaving": 0 },
                },
                {
                    "id": "b1", "zone": "b", "state": "down", "member_state": "draining", "health": "down",
                    "address": address("metrics-b-1"), "seen_by": { "count": 0, "of": 1 },
                },
                {
                    "id": "c1", "zone": "c", "state": "joining", "health": "suspect", "address": address("metrics-c-1"),
                    "copies": { "initializing": 3, "available": 0, "leaving": 0 }, "filling": { "copies": 3, "bytes": 1000, "eta_s": 7 },
                },
                { "id": "c2", "zone": "c", "state": "gone", "health": "down", "address": address("metrics-c-2") },
                { "id": "x", "zone": "c", "state": "lost", "health": "down", "address": address("metrics-x-1") },
            ],
            "gone": [{ "id": "a0", "address": address("metrics-a-0"), "gone_ms": 1767323045678_i64, "replaced_by": NODE }, { "id": "a00" }],
            "jobs": [
                { "id": 7, "kind": "replace", "state": "running", "leaving": "b1", "coming": "c1", "bytes": 5000, "bytes_left": 1000, "eta_s": 7 },
                { "id": 6, "kind": "add", "state": "done", "coming": NODE, "bytes": 1 },
            ],
            "waits_for": ["node b1 is away"],
            "autopilot": { "paused": false, "lease": { "holder": "sarsen-operator/db", "ttl_s": 60 }, "held": null },
        })
    }

    fn placement() -> Value {
        let replica = |node: &str, state: &str| json!({ "node": node, "state": state });
        json!({
            "epoch": 42, "replication_factor": 3,
            "shards": [{
                "shard": 0, "state": "under_replicated", "live": 2, "need": 2,
                "replicas": [
                    replica(NODE, "available"), replica("b1", "leaving"), replica("c1", "initializing"),
                    replica("x", "arrived"), replica("y", "something new"),
                ],
            }],
        })
    }

    #[test]
    fn every_field_of_a_status_is_read() {
        let placement = Placement::read(&placement()).unwrap();
        let read = database(&status(), &placement, "sarsen-operator/db").unwrap();
        assert_eq!((read.cluster_id.as_str(), read.epoch), ("00112233445566778899aabbccddeeff", 42));
        assert_eq!((read.has_leader, read.factor, read.lease_is_ours), (true, 3, true));
        assert!(!read.has_data);
        assert_eq!(read.gone, ["metrics-a-0".to_owned()].into());
        let a = Node {
            instance: "metrics-a-1".into(),
            state: NodeState::Up,
            health: Health::Up,
            heard_by: Some((2, 2)),
            bytes_left: 0,
            eta_s: None,
            version: "0.1.0".into(),
        };
        let b = Node {
            instance: "metrics-b-1".into(),
            // What is agreed on, and not the worse of it and of what is believed.
            state: NodeState::Draining,
            health: Health::Down,
            heard_by: Some((0, 1)),
            ..Node::default()
        };
        let c = Node {
            instance: "metrics-c-1".into(),
            state: NodeState::Standby,
            health: Health::Suspect,
            bytes_left: 1000,
            eta_s: Some(7),
            ..Node::default()
        };
        let x = Node {
            instance: "metrics-x-1".into(),
            state: NodeState::Lost,
            health: Health::Down,
            ..Node::default()
        };
        let nodes = [(NODE, a), ("b1", b), ("c1", c), ("x", x)].map(|(id, node)| (id.to_owned(), node));
        assert_eq!(read.nodes, nodes.into());
        let job = Job {
            id: 7,
            kind: "replace".into(),
            leaving: Some("b1".into()),
            coming: Some("c1".into()),
            bytes: 5000,
            bytes_left: Some(1000),
            eta_s: Some(7),
        };
        assert_eq!(read.jobs, [job], "and none that is over");
        let states: Vec<CopyState> = read.shards[0].iter().map(|copy| copy.state).collect();
        use CopyState::{Arrived, Available, Initializing, Leaving};
        assert_eq!(states, [Available, Leaving, Initializing, Arrived, Initializing]);
    }

    #[test]
    fn a_lease_is_ours_only_if_it_is() {
        let lease = |holder: Value| {
            let mut said = status();
            said["autopilot"]["lease"] = holder;
            database(&said, &Placement::default(), "me").unwrap().lease_is_ours
        };
        assert!(lease(json!({ "holder": "me" })));
        assert!(!lease(json!({ "holder": "another" })));
        assert!(!lease(Value::Null));
    }

    #[test]
    fn only_who_says_that_there_is_no_data_has_none() {
        for (says, has_data) in [(json!(false), false), (json!(true), true), (Value::Null, true)] {
            let mut said = status();
            said["has_data"] = says;
            assert_eq!(database(&said, &Placement::default(), "me").unwrap().has_data, has_data);
        }
    }

    #[test]
    fn without_what_decisions_need_there_is_no_database() {
        for field in ["cluster", "epoch", "replication_factor", "nodes"] {
            let mut said = status();
            said.as_object_mut().unwrap().remove(field);
            assert_eq!(database(&said, &Placement::default(), "me"), None, "{field}");
        }
        let mut said = status();
        said["leader"] = Value::Null;
        assert!(!database(&said, &Placement::default(), "me").unwrap().has_leader);
        for broken in [json!({}), json!({ "epoch": 1 }), json!({ "epoch": 1, "shards": [{}] })] {
            assert!(Placement::read(&broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn what_a_node_says_of_itself() {
        let waiting =
            json!({ "state": "waiting", "reason": "no cluster yet", "node": "a1", "cluster": null });
        assert_eq!(reply(&waiting), Some(Answer::Waiting));
        let starting = json!({ "state": "starting", "cluster": "00ff", "epoch": 4 });
        assert_eq!(reply(&starting), Some(Answer::Belongs("00ff".into())));
        // It has found a cluster, and will make none.
        assert_eq!(
            reply(&json!({ "state": "waiting", "cluster": "00ff" })),
            Some(Answer::Belongs("00ff".into()))
        );
        assert_eq!(reply(&json!({ "state": "starting", "cluster": null })), None);

        let failed = json!({ "state": "disk_failed", "reason": "the disk failed: EIO", "cluster": "00ff" });
        let trouble = Trouble { kind: TroubleKind::DiskFailed, message: "the disk failed: EIO".into() };
        assert_eq!(failed_disk(&failed), Some(trouble));
        assert_eq!(failed_disk(&starting), None);
    }

    #[test]
    fn what_is_refused_is_told_in_the_node_s_own_words() {
        let refused = |status: u16, body: &str| match understand(
            "http://x/y",
            StatusCode::from_u16(status).unwrap(),
            body.as_bytes(),
        ) {
            Err(Error::Refused { status, message, .. }) => (status.as_u16(), message),
            other => panic!("{other:?}"),
        };
        let body = r#"{"status":"error","errorType":"conflict","error":"the epoch is 43"}"#;
        assert_eq!(refused(409, body), (409, "the epoch is 43".into()));
        assert_eq!(refused(502, " bad gateway\n"), (502, "bad gateway".into()));
        assert_eq!(refused(500, &"é".repeat(10_000)).1.chars().count(), 500);
    }

    #[test]
    fn only_an_object_is_an_answer() {
        let ok = |body: &str| understand("http://x/y", StatusCode::OK, body.as_bytes());
        assert_eq!(ok(r#"{"status":"success","data":[1]}"#).unwrap(), json!([1]));
        assert_eq!(ok("{}").unwrap(), Value::Null);
        for nonsense in ["", "[1]", "<html>"] {
            assert!(matches!(ok(nonsense), Err(Error::Nonsense { .. })), "{nonsense}");
        }
    }

    #[test]
    fn the_list_of_namespaces_is_read() {
        let said = json!([{ "name": "default", "retention": "90d", "durability": "fsync", "shards": 3 }]);
        let all = namespaces(&said).unwrap();
        assert_eq!((all["default"]["retention"].as_str(), all["default"].len()), ("90d", 2));
        assert_eq!(namespaces(&json!([{ "retention": "90d" }])), None);
        assert_eq!(namespaces(&json!({})), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let keys = prop_oneof!["id", "name", "address", "node", "state", "replicas", "\\PC{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(keys, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// A real answer with something else in one place.
    fn twisted(real: Value) -> impl Strategy<Value = Value> {
        let path = prop::collection::vec(any::<prop::sample::Index>(), 1..4);
        (any_json(), path).prop_map(move |(other, path)| {
            let mut whole = real.clone();
            put(&mut whole, &path, other);
            whole
        })
    }

    fn put(place: &mut Value, path: &[prop::sample::Index], other: Value) {
        match (path, place) {
            ([index, rest @ ..], Value::Object(fields)) if !fields.is_empty() => {
                let index = index.index(fields.len());
                put(fields.values_mut().nth(index).expect("a field"), rest, other);
            }
            ([index, rest @ ..], Value::Array(items)) if !items.is_empty() => {
                let index = index.index(items.len());
                put(&mut items[index], rest, other);
            }
            (_, place) => *place = other,
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            any in any_json(),
            status in twisted(status()),
            placement in twisted(placement()),
            bytes in any::<Vec<u8>>(),
            code in 200u16..600,
        ) {
            for said in [&any, &status, &placement] {
                let read = Placement::read(said);
                database(said, &read.unwrap_or_default(), "me");
                reply(said);
                failed_disk(said);
                namespaces(said);
            }
            let _ = understand("http://x/y", StatusCode::from_u16(code).unwrap(), &bytes);
        }
    }
}
