//! `/-/healthy`, `/-/ready` and `/drain`.

use super::error::{ApiError, Kind};
use super::json::Json;
use crate::app::{App, Phase};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// The process runs and answers.
pub async fn healthy() -> &'static str {
    "Sarsen is Healthy.\n"
}

/// 200 when reads and writes are taken; otherwise 503 with what is going on and how far it is.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let phase = app.phase();
    let (status, ready) = match phase {
        Phase::Ready => (StatusCode::OK, "true"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    let mut json = Json::default();
    json.raw("{\"ready\":").raw(ready).raw(",\"state\":").string(phase.word());
    json.raw(",\"reason\":").string(&phase.reason());
    if let Phase::Starting { step, done_bytes, total_bytes } = &phase {
        json.raw(",\"progress\":{\"step\":").string(step);
        json.raw(&format!(",\"done_bytes\":{done_bytes},\"total_bytes\":{total_bytes}}}"));
    }
    json.raw("}\n");
    (status, [(header::CONTENT_TYPE, "application/json")], json.0).into_response()
}

/// Prepares the process for its end, so that nobody notices it: it is not ready any more, other nodes ask it last, another one leads the control
/// plane, and what it has in memory is in blocks, so that its next start has little to replay. `GET` as well, since that is all that a `preStop` hook
/// of Kubernetes can send. There is no way back but a restart.
pub async fn drain(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let db = app.database()?;
    app.drain();
    db.cluster.leave().await;
    let engine = db.engine.clone();
    let flushed = tokio::task::spawn_blocking(move || engine.flush_all()).await;
    let flushed = flushed.map_err(|_| ApiError::new(Kind::Internal, "the flush was stopped by a bug"))?;
    let mut json = Json::default();
    json.raw("{\"drained\":true,\"leader\":");
    match db.cluster.view().leader {
        Some(leader) => json.string(&leader.to_string()),
        None => json.raw("null"),
    };
    // Only the next start is slower for it.
    if let Err(error) = flushed {
        tracing::warn!(%error, "what is in memory could not be written to blocks; the next start replays the log");
        json.raw(",\"warning\":").string(&error.to_string());
    }
    json.raw("}\n");
    Ok(([(header::CONTENT_TYPE, "application/json")], json.0).into_response())
}
