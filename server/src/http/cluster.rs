//! What the cluster says about itself, and the changes that an administrator makes.

use super::autopilot;
use super::body::{self, Bounds};
use super::endpoint::Context;
use super::error::{ApiError, Kind};
use super::json::{self, Json, Notes};
use super::operations;
use super::params::Params;
use super::status::data;
use crate::app::{App, Database};
use crate::namespaces::{self, Wanted};
use crate::safety;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use cluster::control::{ControlError, Sighting};
use cluster::jobs::Filling;
use cluster::node::Error;
use cluster::placement::{NodeId, NodeState, Phase, ReplicaState};
use cluster::state::{Command, Fault, Outcome, Refusal};
use cluster::view::{Health, View};
use model::{Replica, Shard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest body of a change.
pub(super) const BODY_BYTES_MAX: u64 = 1 << 20;

/// `/api/v1/status/cluster`: nodes, copies, agreement.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    match app.database() {
        Ok(db) => data(|json| write_status(json, &db)),
        Err(error) => error.into_response(),
    }
}

fn id(json: &mut Json, node: Option<NodeId>) {
    match node {
        Some(node) => json.string(&node.to_string()),
        None => json.raw("null"),
    };
}

fn write_status(json: &mut Json, db: &Database) {
    let status = db.cluster.status();
    let view = &*status.view;
    let (safety, summary) = safety::assess(view);
    json.raw("{\"safety\":").string(safety.word()).raw(",\"summary\":").string(&summary);
    json.raw(",\"cluster\":").string(&format!("{:032x}", view.cluster)).raw(",\"me\":");
    id(json, Some(view.me));
    json.raw(",\"leader\":");
    id(json, view.leader);
    json.raw(&format!(
        ",\"epoch\":{},\"has_data\":{},\"replication_factor\":{},\"shards\":{{\"total\":{},\"under_replicated\":{},\"unavailable\":{},\"min_copies\":{},\"moving\":{}}}",
        view.epoch(),
        view.has_data,
        view.replication_factor,
        status.shards.total,
        status.shards.under_replicated,
        status.shards.unavailable,
        status.shards.min_copies,
        status.shards.moving
    ));
    let sightings: BTreeMap<NodeId, &Sighting> = status.health.iter().map(|(id, seen)| (*id, seen)).collect();
    let copies = held(view);
    json.raw(",\"nodes\":").list(&view.nodes, |json, (node, peer)| {
        json.raw("{\"id\":").string(&node.to_string()).raw(",\"zone\":").string(&peer.zone.to_string());
        json.raw(",\"state\":").string(safety::state(peer)).raw(",\"member_state\":").string(member_state(peer.state)).raw(",\"health\":").string(health(peer.health));
        json.raw(",\"address\":").string(&peer.address);
        json.raw(",\"http_address\":").string(&peer.http_address);
        json.raw(&format!(
            ",\"capacity\":{},\"starts\":{},\"shards\":{}",
            peer.capacity,
            peer.starts,
            view.held_by(*node).len()
        ));
        json.raw(if status.voters.contains(node) { ",\"voter\":true" } else { ",\"voter\":false" });
        let Copies { initializing, available, leaving } = copies.get(node).copied().unwrap_or_default();
        json.raw(&format!(
            ",\"copies\":{{\"initializing\":{initializing},\"available\":{available},\"leaving\":{leaving}}}"
        ));
        if let Some(Filling { copies, bytes, eta_s, .. }) = status.outlook.to(*node) {
            json.raw(&format!(",\"filling\":{{\"copies\":{copies},\"bytes\":{bytes},\"eta_s\":"));
            json.raw(&eta_s.map_or("null".to_owned(), |eta| eta.to_string())).raw("}");
        }
        if let Some(seen) = sightings.get(node) {
            let report = seen.beat.report;
            json.raw(&format!(
                ",\"seen_ms_ago\":{},\"seen_by\":{{\"count\":{},\"of\":{}}},\"epoch\":{},\"series\":{},\"load\":{},\"damaged\":{}",
                seen.age_ms,
                seen.heard.by,
                seen.heard.of,
                seen.beat.epoch,
                report.series,
                f64::from(report.load_permille) / 1000.0,
                report.damage
            ));
            if report.disk_total > 0 {
                json.raw(&format!(
                    ",\"disk\":{{\"free_bytes\":{},\"total_bytes\":{}}}",
                    report.disk_free, report.disk_total
                ));
            }
        }
        json.raw("}");
    });
    json.raw(",\"gone\":").list(&view.gone, |json, (node, gone)| {
        json.raw("{\"id\":").string(&node.to_string()).raw(",\"address\":").string(&gone.address);
        json.raw(",\"gone_ms\":").raw(&match gone.at_ms {
            0 => "null".to_owned(),
            at_ms => at_ms.to_string(),
        });
        json.raw(",\"replaced_by\":");
        id(json, gone.heir);
        json.raw("}");
    });
    json.raw(",\"jobs\":").raw(&operations::recent(&status).to_string());
    json.raw(",\"moves\":").raw(&operations::remaining(&status).to_string());
    json.raw(",\"waits_for\":").list(&status.outlook.waits, |json, text| {
        json.string(text);
    });
    json.raw(",\"autopilot\":").raw(&autopilot::told(&status).to_string());
    let repair = status.repair;
    json.raw(&format!(
        ",\"repair\":{{\"windows_compared\":{},\"windows_divergent\":{},\"divergent_now\":{},\"rows_fetched\":{},\"rows_appended\":{},\"bytes_fetched\":{},\"running\":{},\"waiting\":{},\"eta_ms\":{},\"copying\":{},\"copied\":{}}}",
        repair.compared,
        repair.divergent,
        repair.divergent_now,
        repair.rows,
        repair.appended,
        repair.bytes,
        repair.running,
        repair.waiting,
        repair.eta_ms,
        repair.copying,
        repair.copied
    ));
    let hints = &status.hints;
    json.raw(&format!(
        ",\"hints\":{{\"bytes\":{},\"queued_bytes\":{},\"kept\":{},\"replayed\":{},\"dropped\":{},\"dropped_bytes\":{},\"expired_bytes\":{},\"nodes\":",
        hints.counts.bytes,
        hints.queued_bytes,
        hints.counts.added,
        hints.replayed.delivered,
        hints.replayed.dropped + hints.lost,
        hints.counts.dropped_bytes,
        hints.counts.expired_bytes + hints.replayed.expired_bytes
    ));
    json.list(&hints.waiting, |json, (node, bytes)| {
        json.raw("{\"id\":").string(&node.to_string()).raw(&format!(",\"bytes\":{bytes}}}"));
    });
    json.raw("}");
    json.raw(",\"damage\":").list(&status.damage, |json, damage| {
        json.raw(&format!(
            "{{\"shard\":{},\"start\":{},\"end\":{},\"what\":",
            damage.shard.0, damage.range.min, damage.range.max
        ));
        json.string(&damage.what).raw("}");
    });
    json.raw("}");
}

/// Copies at a node, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copies {
    initializing: u32,
    available: u32,
    leaving: u32,
}

fn held(view: &View) -> BTreeMap<NodeId, Copies> {
    let mut held: BTreeMap<NodeId, Copies> = BTreeMap::new();
    for replica in view.placement.shards().iter().flatten() {
        let copies = held.entry(replica.node).or_default();
        match replica.state {
            ReplicaState::Initializing { .. } => copies.initializing += 1,
            // It answers reads.
            ReplicaState::Available | ReplicaState::Arrived => copies.available += 1,
            ReplicaState::Leaving => copies.leaving += 1,
        }
    }
    held
}

/// What is agreed on, whether the node answers or not.
fn member_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Draining => "draining",
        NodeState::Lost => "lost",
        NodeState::Gone => "gone",
        NodeState::Up | NodeState::Down => "up",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Suspect => "suspect",
        Health::Down => "down",
    }
}

/// `/api/v1/status/placement`: who holds which shard.
pub async fn placement(State(app): State<Arc<App>>) -> Response {
    match app.database() {
        Ok(db) => data(|json| write_placement(json, &db.cluster.view())),
        Err(error) => error.into_response(),
    }
}

fn write_placement(json: &mut Json, view: &View) {
    json.raw(&format!("{{\"epoch\":{},\"replication_factor\":{}", view.epoch(), view.replication_factor));
    let shards = view.placement.shards().iter().zip(safety::copies(view)).enumerate();
    json.raw(",\"shards\":").list(shards, |json, (shard, (replicas, copies))| {
        let state = match copies {
            c if c.live < c.need => "unavailable",
            c if c.live < usize::from(view.replication_factor) => "under_replicated",
            _ => "ok",
        };
        json.raw(&format!("{{\"shard\":{shard},\"state\":\"{state}\",\"live\":{}", copies.live));
        let moves = match view.placement.phase(Shard(shard as u16)) {
            Phase::Settled => "",
            Phase::Copying(_) => ",\"move\":\"copying\"",
            Phase::CutOver => ",\"move\":\"cut-over\"",
        };
        json.raw(moves);
        json.raw(&format!(",\"need\":{},\"replicas\":", copies.need)).list(replicas, |json, replica| {
            let state = match replica.state {
                ReplicaState::Initializing { .. } => "initializing",
                ReplicaState::Available => "available",
                ReplicaState::Leaving => "leaving",
                ReplicaState::Arrived => "arrived",
            };
            json.raw("{\"node\":").string(&replica.node.to_string());
            json.raw(&format!(",\"state\":\"{state}\"}}"));
        });
        json.raw("}");
    });
    json.raw("}");
}

/// `/api/v1/status/digests`: of every shard of which this node has a copy, the digest of what it holds between `start` and `end`. Two
/// nodes with equal digests hold the same samples.
pub fn digests(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let range = params.lookup_range()?;
    let view = context.db.cluster.view();
    let held = view.held_by(view.me);
    let digest = |shard| Ok((shard, context.db.engine.digest(shard, range)?));
    let digests = held.iter().map(digest).collect::<Result<Vec<_>, ApiError>>()?;
    json::success(&Notes::default(), |json| {
        json.raw("{");
        for (i, (shard, digest)) in digests.iter().enumerate() {
            json.raw(if i > 0 { "," } else { "" }).raw(&format!("\"{}\":\"{digest:?}\"", shard.0));
        }
        json.raw("}");
        Ok(())
    })
}

/// `GET /api/v1/admin/namespaces`
pub async fn namespaces(State(app): State<Arc<App>>) -> Response {
    let db = match app.database() {
        Ok(db) => db,
        Err(error) => return error.into_response(),
    };
    data(|json| {
        json.list(&db.cluster.view().namespaces, |json, (name, namespace)| {
            json.raw("{\"name\":").string(name);
            for setting in namespaces::SETTINGS {
                json.raw(",").string(setting).raw(":").string(&namespaces::get(namespace, setting));
            }
            json.raw("}");
        });
    })
}

/// `POST /api/v1/admin/namespaces`: `{"default":{"retention":"30d"}}`; what is not named stays. With `dry_run=true` nothing is
/// changed. The answer is the difference.
pub async fn apply_namespaces(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    applied(&app, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn applied(app: &App, request: Request<Body>) -> Result<Response, ApiError> {
    let db = app.database()?;
    let (parts, body) = request.into_parts();
    let params = Params::new(parts.uri.query().unwrap_or(""), b"");
    let dry_run = params.flag("dry_run")?;
    let mut text = Vec::new();
    let rate_min = app.config.limits.body_rate_min.0;
    let bounds = Bounds { bytes_max: BODY_BYTES_MAX, key: "(fixed)", rate_min, memory: None };
    body::receive(&parts.headers, body, &mut text, bounds).await?;
    let wanted: Wanted = serde_json::from_slice(&text).map_err(|error| {
        ApiError::bad_data(format!(
            "the body is not of the form {{\"default\":{{\"retention\":\"30d\"}}}}: {error}"
        ))
    })?;
    let (changed, changes) =
        namespaces::apply(&db.cluster.view().namespaces, &wanted).map_err(ApiError::bad_data)?;
    if !dry_run {
        for (name, namespace) in changed {
            propose(&db, Command::ApplyNamespace { name, namespace }).await?;
        }
    }
    Ok(data(|json| {
        json.raw(&format!("{{\"applied\":{},\"changes\":", !dry_run)).list(&changes, |json, change| {
            json.raw("{\"namespace\":").string(&change.namespace).raw(",\"setting\":").string(change.setting);
            json.raw(",\"from\":").string(&change.from).raw(",\"to\":").string(&change.to);
            json.raw(&format!(",\"removes\":{}}}", change.removes));
        });
        json.raw("}");
    }))
}

/// `DELETE /api/v1/admin/namespaces/{name}`
pub async fn delete_namespace(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    deleted(&app, name).await.unwrap_or_else(IntoResponse::into_response)
}

async fn deleted(app: &App, name: String) -> Result<Response, ApiError> {
    let db = app.database()?;
    if let Some(why) = namespaces::refuse_deletion(&db.cluster.view().namespaces, &name) {
        let status = (name != namespaces::DEFAULT).then_some(StatusCode::NOT_FOUND);
        return Err(ApiError { status, ..ApiError::bad_data(why) });
    }
    propose(&db, Command::DeleteNamespace { name }).await?;
    Ok(data(|json| {
        json.raw("{\"deleted\":true}");
    }))
}

/// Has a change agreed on.
pub(super) async fn propose(db: &Database, command: Command) -> Result<Outcome, ApiError> {
    db.cluster.propose(command).await.map_err(failed)
}

/// Why a change was not agreed on, or would not be.
pub(super) fn failed(error: Error) -> ApiError {
    let message = error.to_string();
    match error {
        Error::Control(ControlError::Refused(Refusal { fault, .. })) => match fault {
            Fault::NotFound => ApiError::new(Kind::NotFound, message),
            Fault::Conflict => ApiError::new(Kind::Conflict, message),
            Fault::Invalid | Fault::Limit | Fault::Directory(_) => ApiError::bad_data(message),
        },
        Error::Refused(_) => ApiError::new(Kind::Internal, message),
        // Whether it was agreed on may be unknown; applying the same again changes nothing.
        _ => ApiError::busy(format!("{message}; reads and writes go on meanwhile"), 5),
    }
}
