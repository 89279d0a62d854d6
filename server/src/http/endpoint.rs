//! What all reading endpoints have in common: parameters, a turn, a thread, a deadline.

use super::body::{self, Bounds};
use super::error::{ApiError, Kind};
use super::params::Params;
use super::{Rejected, gzip};
use crate::app::{App, Database};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::response::{IntoResponse, Response};
use cluster::node::ReadOptions;
use model::{Source, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Answers one request on a thread that may block. The result is the whole JSON body.
pub type Handler = fn(&Context, &Params) -> Result<Vec<u8>, ApiError>;

/// What a handler may use.
pub struct Context {
    /// The node.
    pub app: Arc<App>,
    /// Its data.
    pub db: Arc<Database>,
    /// The data as this request reads it.
    pub source: Arc<dyn Source>,
    /// The path, for parameters in it.
    pub path: String,
    /// When the request was received.
    pub now: Timestamp,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// Becomes true when nobody waits for the answer any more.
    pub cancel: Arc<AtomicBool>,
}

/// Largest form: a query's text may be escaped threefold, and some dashboards send many `match[]`.
const FORM_BYTES_MAX: u64 = 1 << 20;

/// Runs `handler` for a request.
pub async fn run(State(app): State<Arc<App>>, request: Request<Body>, handler: Handler) -> Response {
    match answer(app, request, handler).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(app: Arc<App>, request: Request<Body>, handler: Handler) -> Result<Response, ApiError> {
    let (now, received) = (crate::time::now(), Instant::now());
    let db = app.database()?;
    let (parts, body) = request.into_parts();
    let mut form = Vec::new();
    if parts.method == Method::POST {
        let limits = &app.config.limits;
        let bounds = Bounds {
            bytes_max: FORM_BYTES_MAX,
            key: "(fixed)",
            rate_min: limits.body_rate_min.0,
            memory: None,
        };
        body::receive(&parts.headers, body, &mut form, bounds).await?;
        if !is_form(&parts.headers) {
            // As Go's: a body of another type has no parameters.
            form.clear();
        }
    }
    let params = Params::new(parts.uri.query().unwrap_or(""), &form);
    let timeout = timeout(&params, app.config.limits.query_timeout)?;
    let consistency = params.consistency(&parts.headers)?;
    let partial = params.partial()?;
    let gzip = gzip::accepted(&parts.headers);

    let permit = app.queries.enter(1).await?;
    let cancel = Arc::new(AtomicBool::new(false));
    // When the client goes away this future is dropped, and the evaluation stops at its next look.
    let _cancel = CancelOnDrop(Arc::clone(&cancel));
    let path = parts.uri.path().to_string();
    db.cluster.before_read(timeout.saturating_sub(received.elapsed())).await?;
    let queued = received.elapsed();
    let left = Some(timeout.saturating_sub(queued));
    let source = db.cluster.source(ReadOptions { consistency, partial, timeout: left });
    let context = Context { app: app.clone(), db, source, path, now, queued, cancel };
    let work = tokio::task::spawn_blocking(move || {
        // The permit goes with the work: an abandoned evaluation still counts until it has stopped.
        let _permit = permit;
        let body = catch_unwind(AssertUnwindSafe(|| handler(&context, &params)));
        body.map(|body| body.map(|body| if gzip { gzip::compress(body) } else { (body, false) }))
    });
    let body = match tokio::time::timeout_at(received + timeout, work).await {
        Err(_) => {
            let key =
                if timeout < app.config.limits.query_timeout { "timeout" } else { "limits.query_timeout" };
            let text = format!("query timed out after {} s (`{key}`)", timeout.as_secs_f64());
            return Err(ApiError::new(Kind::Timeout, text).by(Rejected::by(key)));
        }
        Ok(Ok(Ok(body))) => body?,
        // The panic hook has logged where and why.
        Ok(Ok(Err(_)) | Err(_)) => {
            app.metrics.query_panics.inc();
            let text = "a bug stopped this query; the log of the node has the details";
            return Err(ApiError::new(Kind::Internal, text));
        }
    };
    let (body, compressed) = body;
    let mut response = super::json_response(body);
    if compressed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if gzip {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

/// `timeout`, but never more than the configured one.
fn timeout(params: &Params, max: Duration) -> Result<Duration, ApiError> {
    let Some(millis) = params.span("timeout")? else { return Ok(max) };
    match u64::try_from(millis) {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis).min(max)),
        _ => Err(ApiError::new(Kind::Timeout, "query timed out in query queue")),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
