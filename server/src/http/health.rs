//! `/-/healthy` and `/-/ready`.

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
