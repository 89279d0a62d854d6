//! Operations on the cluster: what an administrator, or an operator, asks for, and how far that is.
//!
//! Every operation is a job ([`cluster::jobs`]): it is agreed on before it is answered, and goes on whoever asked.

use super::body::{self, Bounds};
use super::cluster::{BODY_BYTES_MAX, propose};
use super::error::{ApiError, Kind};
use super::status::data;
use crate::app::{App, Database};
use crate::time;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use cluster::jobs::{Job, Kind as Operation, Outlook, Preview, Stage, Step};
use cluster::node::Status;
use cluster::placement::NodeId;
use cluster::state::{Command, Outcome};
use cluster::view::{Health, View};
use serde_json::{Value, json};
use std::sync::Arc;

/// Jobs that are over and are told with the status.
const OVER_SHOWN: usize = 8;
/// The longest name of who asks that is kept.
const BY_CHARS_MAX: usize = 60;

/// What is asked for.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    /// Of add, drain, heal and remove.
    node: Option<String>,
    /// Of replace.
    old: Option<String>,
    new: Option<String>,
    /// Of replication-factor.
    factor: Option<u8>,
    /// Only say what would be done.
    dry_run: bool,
    /// The node that goes never comes back.
    lost: bool,
    /// The placement from which this follows: refused under any other.
    epoch: Option<u64>,
    /// Who asks, for people.
    by: Option<String>,
}

/// `POST /api/v1/admin/cluster/{operation}`
pub async fn start(
    State(app): State<Arc<App>>,
    Path(operation): Path<String>,
    request: Request<Body>,
) -> Response {
    started(&app, &operation, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn started(app: &App, operation: &str, request: Request<Body>) -> Result<Response, ApiError> {
    let db = app.database()?;
    let ask: Ask = asked(app, request, form(operation)).await?;
    if !ask.dry_run {
        // What this node does not know yet must not make a difference.
        db.cluster.catch_up().await.map_err(super::cluster::failed)?;
    }
    let view = db.cluster.view();
    let kind = kind(&view, operation, &ask)?;
    let lost = ask.lost || matches!(kind, Operation::Heal(_));
    if lost {
        may_be_lost(&view, &kind)?;
    }
    let preview = db.cluster.preview(kind, lost).await.map_err(super::cluster::failed)?;
    if ask.dry_run {
        let limit = view.move_bytes_per_second.unwrap_or(db.cluster.copying_limit());
        let plan = plan(&db.cluster.status(), limit, &kind, &preview);
        return Ok(answer(&json!({ "plan": plan })));
    }
    let by: String = ask.by.as_deref().unwrap_or("http").chars().take(BY_CHARS_MAX).collect();
    let at_ms = u64::try_from(time::now().0).unwrap_or(0);
    let Preview { copies, bytes, .. } = preview;
    let command = Command::StartJob { kind, lost, epoch: ask.epoch, at_ms, by, copies, bytes };
    let outcome = propose(&db, command).await?;
    Ok(answer(&json!({ "job": changed(&db, outcome) })))
}

/// The body of a request; nothing is `{}`.
pub(super) async fn asked<T: serde::de::DeserializeOwned>(
    app: &App,
    request: Request<Body>,
    form: &str,
) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let mut text = Vec::new();
    let rate_min = app.config.limits.body_rate_min.0;
    let bounds = Bounds { bytes_max: BODY_BYTES_MAX, key: "(fixed)", rate_min, memory: None };
    body::receive(&parts.headers, body, &mut text, bounds).await?;
    let text = if text.is_empty() { b"{}" } else { &text[..] };
    serde_json::from_slice(text)
        .map_err(|error| ApiError::bad_data(format!("the body is not of the form {form}: {error}")))
}

/// How fast copies may be made.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Throttle {
    /// Of blocks that one node takes from others; `None` for what it is configured with.
    bytes_per_second: Option<u64>,
}

/// `POST /api/v1/admin/cluster/throttle`
pub async fn throttle(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    throttled(&app, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn throttled(app: &App, request: Request<Body>) -> Result<Response, ApiError> {
    let db = app.database()?;
    let form = r#"{"bytes_per_second":16777216}, or null for what each node is configured with"#;
    let Throttle { bytes_per_second } = asked(app, request, form).await?;
    if bytes_per_second == Some(0) {
        return Err(ApiError::bad_data(
            "0 bytes a second would be no copies ever; pause the jobs instead (`sarsen jobs pause ID`)",
        ));
    }
    let command = Command::ThrottleMoves { bytes_per_second: bytes_per_second.unwrap_or(0) };
    propose(&db, command).await?;
    Ok(answer(&json!({ "bytes_per_second": bytes_per_second })))
}

fn form(operation: &str) -> &'static str {
    match operation {
        "replace" => r#"{"old":"OLD-ID","new":"NEW-ID","dry_run":false,"lost":false,"epoch":null}"#,
        "rebalance" => r#"{"dry_run":false,"epoch":null}"#,
        "replication-factor" => r#"{"factor":3,"dry_run":false,"epoch":null}"#,
        "remove" => r#"{"node":"ID","dry_run":false,"lost":false,"epoch":null}"#,
        _ => r#"{"node":"ID","dry_run":false,"epoch":null}"#,
    }
}

fn kind(view: &View, operation: &str, ask: &Ask) -> Result<Operation, ApiError> {
    let node = |given: &Option<String>| match given {
        Some(given) => find(view, given),
        None => Err(ApiError::bad_data(format!("name the node: the body is {}", form(operation)))),
    };
    let kind = match operation {
        "add" => Operation::Add(node(&ask.node)?),
        "drain" => Operation::Drain(node(&ask.node)?),
        "heal" => Operation::Heal(node(&ask.node)?),
        "remove" => Operation::Remove(node(&ask.node)?),
        "replace" => Operation::Replace { old: node(&ask.old)?, new: node(&ask.new)? },
        "rebalance" => Operation::Rebalance,
        "replication-factor" => {
            let to =
                ask.factor.ok_or_else(|| ApiError::bad_data(format!("the body is {}", form(operation))))?;
            Operation::ReplicationFactor { from: view.replication_factor, to }
        }
        _ => {
            return Err(ApiError::new(
                Kind::NotFound,
                format!(
                    "there is no operation {operation:?}; there are add, drain, heal, remove, replace, rebalance and replication-factor"
                ),
            ));
        }
    };
    match ask.lost && !matches!(kind, Operation::Remove(_) | Operation::Replace { .. }) {
        true => Err(ApiError::bad_data("only a node that is removed or replaced can be `lost`")),
        false => Ok(kind),
    }
}

/// A node by its id, or by as much of its beginning as no other has.
fn find(view: &View, given: &str) -> Result<NodeId, ApiError> {
    let starts = |id: &&NodeId| !given.is_empty() && id.to_string().starts_with(given);
    let mut ids: Vec<&NodeId> = view.nodes.keys().filter(starts).collect();
    // Who asks for what is done already means one that is gone.
    if ids.is_empty() {
        ids = view.gone.keys().filter(starts).collect();
    }
    let named = |ids: &mut dyn Iterator<Item = (&NodeId, &cluster::view::Peer)>| {
        ids.map(|(id, peer)| format!("{id} ({})", peer.address)).collect::<Vec<_>>().join(", ")
    };
    match ids[..] {
        [id] => Ok(*id),
        [] => Err(ApiError::new(
            Kind::NotFound,
            format!("there is no node {given:?}; there are {}", named(&mut view.nodes.iter())),
        )),
        _ => match ids.iter().find(|id| id.to_string() == given) {
            Some(id) => Ok(**id),
            None => Err(ApiError::bad_data(format!(
                "{given:?} may be {}; write more of the id",
                named(&mut view.nodes.iter().filter(|(id, _)| ids.contains(id)))
            ))),
        },
    }
}

/// Who answers is not lost: its copies are taken from it before it goes.
fn may_be_lost(view: &View, kind: &Operation) -> Result<(), ApiError> {
    let Some(node) = kind.leaving() else { return Ok(()) };
    match view.nodes.get(&node) {
        Some(peer) if peer.health != Health::Down => Err(ApiError::new(
            Kind::Conflict,
            format!(
                "node {node} ({}) answers, and only one that does not is lost: leave `lost` out, and the node's copies are \
                 taken over before it goes; or stop the node first",
                peer.address
            ),
        )),
        _ => Ok(()),
    }
}

/// `GET /api/v1/admin/jobs`
pub async fn jobs(State(app): State<Arc<App>>) -> Response {
    match app.database() {
        Ok(db) => answer(&all(&db.cluster.status())),
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/admin/jobs/{id}`
pub async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let found = app.database().and_then(|db| {
        let status = db.cluster.status();
        let (id, job) = find_job(&status.view, &id)?;
        Ok(answer(&told(id, job, &status.outlook)))
    });
    found.unwrap_or_else(IntoResponse::into_response)
}

/// `POST /api/v1/admin/jobs/{id}/{step}`: pause, resume, cancel.
pub async fn step(State(app): State<Arc<App>>, Path((id, step)): Path<(String, String)>) -> Response {
    stepped(&app, &id, &step).await.unwrap_or_else(IntoResponse::into_response)
}

async fn stepped(app: &App, id: &str, step: &str) -> Result<Response, ApiError> {
    let db = app.database()?;
    let step = match step {
        "pause" => Step::Pause,
        "resume" => Step::Resume,
        "cancel" => Step::Cancel,
        _ => {
            return Err(ApiError::new(
                Kind::NotFound,
                format!("a job cannot {step:?}; it can pause, resume, cancel"),
            ));
        }
    };
    let view = db.cluster.view();
    let (id, job) = find_job(&view, id)?;
    let at_ms = u64::try_from(time::now().0).unwrap_or(0);
    let outcome = propose(&db, Command::ChangeJob { id, revision: job.revision, step, at_ms }).await?;
    Ok(answer(&json!({ "job": changed(&db, outcome) })))
}

fn find_job<'a>(view: &'a View, id: &str) -> Result<(u64, &'a Job), ApiError> {
    let found = id.parse().ok().and_then(|id| Some((id, view.jobs.get(&id)?)));
    found.ok_or_else(|| {
        let ids: Vec<String> = view.jobs.keys().map(ToString::to_string).collect();
        let there = if ids.is_empty() { "none yet".to_owned() } else { ids.join(", ") };
        ApiError::new(Kind::NotFound, format!("there is no job {id:?}; there are {there}"))
    })
}

/// The job that a change was about.
fn changed(db: &Database, outcome: Outcome) -> Value {
    let status = db.cluster.status();
    match outcome {
        Outcome::Record { id, .. } => {
            // It may be over and forgotten already, if very many are.
            status.view.jobs.get(&id).map_or(json!({ "id": id }), |job| told(id, job, &status.outlook))
        }
        _ => Value::Null,
    }
}

pub(super) fn answer(value: &Value) -> Response {
    data(|json| {
        json.raw(&value.to_string());
    })
}

fn all(status: &Status) -> Value {
    status.view.jobs.iter().map(|(id, job)| told(*id, job, &status.outlook)).collect()
}

/// For the status of the cluster: the jobs at work, and the last ones that are over.
pub fn recent(status: &Status) -> Value {
    let over = status.view.jobs.values().filter(|job| !job.is_active()).count();
    let mut skip = over.saturating_sub(OVER_SHOWN);
    let shown = status.view.jobs.iter().filter(|(_, job)| {
        let hidden = !job.is_active() && skip > 0;
        skip -= usize::from(hidden);
        !hidden
    });
    shown.map(|(id, job)| told(*id, job, &status.outlook)).collect()
}

/// For the status of the cluster: what is left to be copied in all.
pub fn remaining(status: &Status) -> Value {
    let Outlook { copies, bytes, bytes_per_s, .. } = *status.outlook;
    let limit = status.view.move_bytes_per_second;
    let eta_s = (bytes_per_s > 0 && bytes > 0).then(|| bytes.div_ceil(bytes_per_s));
    let pace = known(bytes_per_s);
    json!({ "copies": copies, "bytes": bytes, "bytes_per_second": pace, "eta_s": eta_s, "limit_bytes_per_second": limit })
}

/// 0 is not known.
fn known(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// A job as the API tells it.
fn told(id: u64, job: &Job, outlook: &Outlook) -> Value {
    let active = job.is_active();
    let progress = outlook.of(id).filter(|_| active);
    let waits = progress.map_or("", |progress| progress.waits.as_str());
    let phase = match (&job.stage, waits) {
        (Stage::Running, "") if progress.is_some_and(|progress| progress.copies == 0) => "finishing",
        (Stage::Running, "") => "copying",
        (Stage::Running, _) => "waiting",
        (stage, _) => stage.word(),
    };
    let (copies_left, bytes_left) = match progress {
        Some(progress) => (Some(progress.copies), Some(progress.bytes)),
        None => (None, None),
    };
    let percent = match (&job.stage, progress) {
        (Stage::Done, _) => Some(100.0),
        (_, progress) => progress.map(|progress| f64::from(progress.permille) / 10.0),
    };
    let node = |node: Option<NodeId>| node.map(|node| node.to_string());
    let failed = match &job.stage {
        Stage::Failed(why) => Some(why),
        _ => None,
    };
    json!({
        "id": id,
        "kind": job.kind.word(),
        "what": job.kind.to_string(),
        "leaving": node(job.kind.leaving()),
        "coming": node(job.kind.coming()),
        "state": job.stage.word(),
        "phase": phase,
        "percent": percent,
        "copies": job.copies.max(copies_left.unwrap_or(0)),
        "copies_left": copies_left,
        "bytes": job.bytes.max(bytes_left.unwrap_or(0)),
        "bytes_left": bytes_left,
        "bytes_per_second": progress.and_then(|progress| known(progress.bytes_per_s)),
        "eta_s": progress.filter(|_| job.stage == Stage::Running).and_then(|progress| progress.eta_s),
        "waits_for": Some(waits).filter(|waits| !waits.is_empty()),
        "error": failed,
        "by": job.by,
        "created_ms": job.created_ms,
        "finished_ms": known(job.finished_ms),
        "revision": job.revision,
    })
}

/// A plan as the API tells it.
fn plan(status: &Status, limit: u64, kind: &Operation, preview: &Preview) -> Value {
    let node = |node: Option<NodeId>| node.map(|node| node.to_string());
    let moves: Vec<Value> = preview
        .moves
        .iter()
        .zip(1..)
        .map(|(step, order)| {
            json!({
                "order": order,
                "shard": step.shard.0,
                "from": node(step.from),
                "to": node(step.to),
                "why": step.reason.to_string(),
                "bytes": step.bytes,
                "step": step.step + 1,
                "live_copies": step.live,
            })
        })
        .collect();
    let measured = status.outlook.bytes_per_s;
    let (expected_s, expected_by) = match preview.bytes {
        0 if preview.copies == 0 => (Some(0), "nothing is copied"),
        0 => (None, "unknown"),
        bytes if measured > 0 => (Some(bytes.div_ceil(measured)), "measured"),
        _ if limit > 0 => (Some(preview.bytes_to_one.div_ceil(limit)), "limit"),
        _ => (None, "unknown"),
    };
    let stranded: Vec<u16> = preview.stranded.iter().map(|shard| shard.0).collect();
    json!({
        "kind": kind.word(),
        "what": kind.to_string(),
        "moves": moves,
        "copies": preview.copies,
        "bytes": preview.bytes,
        "fewest_live_copies": preview.fewest_live,
        "expected_s": expected_s,
        "expected_by": expected_by,
        "limit_bytes_per_second": limit,
        "other_moves": preview.others,
        "stranded_shards": stranded,
        "shortfall": preview.shortfall,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::tests::view;
    use cluster::jobs::Progress;

    #[test]
    fn a_node_is_named_by_as_much_of_its_id_as_tells_it_from_others() {
        let mut view = view(2, 2, 2, &[]);
        let peer = view.nodes[&NodeId(1)].clone();
        view.nodes = [0xabc1, 0xabc2, 0xabc].map(|id| (NodeId(id), peer.clone())).into();
        assert_eq!(find(&view, "abc1").unwrap(), NodeId(0xabc1));
        assert_eq!(find(&view, "abc").unwrap(), NodeId(0xabc), "an id in full");
        for (given, status, words) in [
            ("ab", 400, "write more of the id"),
            ("", 404, "there are abc (10.0.0.1:7421), abc1"),
            ("9", 404, "no node \"9\""),
        ] {
            let error = find(&view, given).unwrap_err();
            assert_eq!(error.status().as_u16(), status, "{error:?}");
            assert!(error.message.contains(words), "{error:?}");
        }
    }

    #[test]
    fn who_answers_is_not_lost() {
        let view = view(3, 3, 3, &[3]);
        let error = may_be_lost(&view, &Operation::Remove(NodeId(2))).unwrap_err();
        assert_eq!(error.status().as_u16(), 409);
        assert!(may_be_lost(&view, &Operation::Replace { old: NodeId(3), new: NodeId(2) }).is_ok());
        let ask = Ask { node: Some("2".into()), lost: true, ..Ask::default() };
        assert!(kind(&view, "drain", &ask).unwrap_err().message.contains("removed or replaced"));
        assert_eq!(kind(&view, "remove", &ask).unwrap(), Operation::Remove(NodeId(2)));
        assert!(kind(&view, "replace", &ask).unwrap_err().message.contains("OLD-ID"));
        assert_eq!(kind(&view, "explode", &ask).unwrap_err().status().as_u16(), 404);
    }

    #[test]
    fn a_job_says_how_far_it_is_and_for_what_it_waits() {
        let by = "ada".to_owned();
        let kind = Operation::Drain(NodeId(2));
        let (copies, bytes) = (8, 800);
        let job = Job {
            revision: 1,
            kind,
            stage: Stage::Running,
            created_ms: 5,
            finished_ms: 0,
            by,
            copies,
            bytes,
        };
        let progress = Progress {
            id: 7,
            copies: 2,
            bytes: 200,
            permille: 750,
            bytes_per_s: 10,
            eta_s: Some(20),
            ..Progress::default()
        };
        let outlook = |waits: &str| Outlook {
            jobs: vec![Progress { waits: waits.into(), ..progress.clone() }],
            ..Outlook::default()
        };
        let goes_on = told(7, &job, &outlook(""));
        assert_eq!(
            (&goes_on["phase"], &goes_on["percent"], &goes_on["eta_s"]),
            (&json!("copying"), &json!(75.0), &json!(20))
        );
        assert_eq!(told(7, &job, &outlook("node 3"))["phase"], "waiting");
        // Nobody knows how far it is: no leader has said so yet.
        assert_eq!(told(8, &job, &outlook(""))["percent"], Value::Null);
        let paused = told(7, &Job { stage: Stage::Paused, ..job.clone() }, &outlook(""));
        assert_eq!((&paused["phase"], &paused["eta_s"]), (&json!("paused"), &Value::Null));
        let done = told(7, &Job { stage: Stage::Done, finished_ms: 9, ..job }, &outlook("node 3"));
        assert_eq!(
            (&done["phase"], &done["percent"], &done["waits_for"]),
            (&json!("done"), &json!(100.0), &Value::Null)
        );
    }
}
