//! Who makes the copies of lost nodes anew: the autopilot, unless it is paused or somebody outside holds the lease.

use super::cluster::propose;
use super::error::ApiError;
use super::operations::{answer, asked};
use crate::app::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use cluster::node::Status;
use cluster::state::Command;
use serde_json::{Value, json};
use std::sync::Arc;

/// The longest name of a holder.
const HOLDER_CHARS_MAX: usize = 60;

/// Whether the autopilot is to take nodes for lost.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    paused: bool,
}

/// Who heals this cluster from outside.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    holder: String,
    /// Until it is said again; 0 gives it up.
    ttl_s: u64,
}

impl Hold {
    fn command(self) -> Result<Command, ApiError> {
        let Hold { holder, ttl_s } = self;
        if holder.is_empty() || holder.chars().count() > HOLDER_CHARS_MAX || holder.contains(char::is_control)
        {
            return Err(ApiError::bad_data(format!(
                "the holder of a lease has a name of 1 to {HOLDER_CHARS_MAX} printable characters"
            )));
        }
        Ok(Command::HoldLease { holder, ttl_ms: ttl_s.saturating_mul(1000) })
    }
}

/// `GET /api/v1/admin/cluster/autopilot`, and of the lease
pub async fn get(State(app): State<Arc<App>>) -> Response {
    match app.database() {
        Ok(db) => answer(&told(&db.cluster.status())),
        Err(error) => error.into_response(),
    }
}

/// `POST /api/v1/admin/cluster/autopilot`
pub async fn pause(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let change = |Pause { paused }: Pause| Ok(Command::PauseAutopilot { paused });
    changed(&app, request, r#"{"paused":true}"#, change).await.unwrap_or_else(IntoResponse::into_response)
}

/// `POST /api/v1/admin/cluster/lease`
pub async fn hold(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let form = r#"{"holder":"NAME","ttl_s":60}, with a ttl_s of 0 to give the lease up"#;
    changed(&app, request, form, Hold::command).await.unwrap_or_else(IntoResponse::into_response)
}

async fn changed<T: serde::de::DeserializeOwned>(
    app: &App,
    request: Request<Body>,
    form: &str,
    change: impl FnOnce(T) -> Result<Command, ApiError>,
) -> Result<Response, ApiError> {
    let db = app.database()?;
    let command = change(asked(app, request, form).await?)?;
    propose(&db, command).await?;
    Ok(answer(&told(&db.cluster.status())))
}

/// Also for the status of the cluster.
pub fn told(status: &Status) -> Value {
    let lease = status.view.lease.as_ref();
    let held = &status.outlook.held;
    json!({
        "paused": status.view.autopilot_paused,
        "lease": lease.map(|(holder, ttl_ms)| json!({ "holder": holder, "ttl_s": ttl_ms / 1000 })),
        "held": Some(held).filter(|held| !held.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_holder_that_can_be_shown() {
        let hold = |holder: &str, ttl_s| Hold { holder: holder.into(), ttl_s }.command();
        let asked = hold("operator/0", 30).unwrap();
        assert_eq!(asked, Command::HoldLease { holder: "operator/0".into(), ttl_ms: 30_000 });
        for holder in ["", "a\u{1b}[2J", &"é".repeat(HOLDER_CHARS_MAX + 1)] {
            assert!(hold(holder, 30).unwrap_err().message.contains("printable"), "{holder:?}");
        }
    }
}
