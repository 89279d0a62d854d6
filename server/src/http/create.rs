//! `POST /api/v1/admin/cluster/create`: a node that waits for a cluster to join makes one instead.

use super::cluster::failed;
use super::error::{ApiError, Kind};
use super::operations::answer;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::node::{Error, Facts};
use serde_json::{Value, json};
use std::sync::Arc;

/// Whoever asks and does not know whether it was heard asks again: 409 with a cluster is "done already", or "it joined that one".
pub async fn create(State(app): State<Arc<App>>) -> Response {
    let Some(node) = app.node() else {
        return ApiError::busy(app.phase().reason(), 1).into_response();
    };
    match node.create().await {
        Ok(()) => answer(&told(node.facts())),
        Err(error) => refused(error, node.facts()),
    }
}

fn told(facts: Facts) -> Value {
    let cluster = facts.cluster.map(|cluster| format!("{cluster:032x}"));
    json!({ "cluster": cluster, "node": facts.node.to_string() })
}

/// As every error, and with what is known of the node.
fn refused(error: Error, facts: Facts) -> Response {
    let error = failed(error);
    if error.kind != Kind::Conflict {
        return error.into_response();
    }
    let (kind, _) = error.kind.wire();
    let body = json!({ "status": "error", "errorType": kind, "error": error.message, "data": told(facts) });
    (error.status(), Json(body)).into_response()
}
