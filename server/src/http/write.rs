//! Remote write and text import: receive, decode, append, wait for the fsync, answer.
//!
//! Decoding and appending run on the thread of the runtime that received the body: a request is well under a
//! millisecond of work without a lock held for long, and a hand-over to another thread would cost as much as it saves.

use super::Rejected;
use super::body::{self, Bounds};
use super::error::{ApiError, Kind};
use super::params::Params;
use crate::app::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingest::remote_write::{self, Protocol};
use ingest::store::Decoded;
use ingest::{Refusal, Reply, Stored, exposition};
use model::{Batch, SeriesKey};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::time::Instant;

/// `POST /api/v1/write`
pub async fn remote_write(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let headers = request.headers();
    let (kind, encoding) = (text(headers, header::CONTENT_TYPE), text(headers, header::CONTENT_ENCODING));
    let protocol = match remote_write::negotiate(kind, encoding) {
        Ok(protocol) => protocol,
        Err(refusal) => return respond(Reply::refused(None, &refusal)),
    };
    let decode = |body: &[u8], batch: &mut Batch, key| {
        remote_write::decompress(body, &mut batch.bytes, &app.ingest)?;
        remote_write::decode(protocol, batch, key, &app.ingest)
    };
    answer(Some(protocol), take(&app, request, decode).await)
}

/// `POST /api/v1/import/prometheus`: text or OpenMetrics, plain or gzip; `timestamp` (milliseconds) for lines without
/// one, `extra_label=name=value` for all.
pub async fn import(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let headers = request.headers();
    let gzip = match text(headers, header::CONTENT_ENCODING).map(str::trim) {
        None | Some("" | "identity") => false,
        Some(coding) if coding.eq_ignore_ascii_case("gzip") => true,
        Some(other) => {
            let message = format!("{other} encoding (compression) is not accepted here; only gzip is");
            return respond(Reply::refused(None, &Refusal::new(415, message)));
        }
    };
    let options = match import_options(request.uri().query().unwrap_or("")) {
        Ok(options) => options,
        Err(refusal) => return respond(Reply::refused(None, &refusal)),
    };
    let kind = text(headers, header::CONTENT_TYPE).map(str::to_string);
    let decode = |body: &[u8], batch: &mut Batch, key| {
        let plain = if gzip { Some(gunzip(body, &app.ingest)?) } else { None };
        let body = plain.as_deref().unwrap_or(body);
        let format = exposition::detect(kind.as_deref(), body);
        exposition::parse(body, format, &options, batch, key, &app.ingest)
    };
    answer(None, take(&app, request, decode).await)
}

fn import_options(query: &str) -> Result<exposition::Options, Refusal> {
    let params = Params::new(query, b"");
    let mut options =
        exposition::Options { default_timestamp: crate::time::now().0, ..exposition::Options::default() };
    if let Some(text) = params.get("timestamp") {
        options.default_timestamp = text
            .parse()
            .map_err(|_| Refusal::new(400, format!("timestamp must be Unix milliseconds, got {text:?}")))?;
    }
    params.all("extra_label").try_for_each(|label| options.extra_label(label))?;
    Ok(options)
}

/// Decompresses, and stops where the limits are: what a bomb announces is never allocated.
fn gunzip(body: &[u8], limits: &ingest::Limits) -> Result<Vec<u8>, Refusal> {
    let by_ratio = body.len().saturating_mul(limits.decoded_ratio_max);
    let (max, key) = if by_ratio < limits.decoded_bytes_max {
        (by_ratio, ingest::limits::DECODED_RATIO_MAX)
    } else {
        (limits.decoded_bytes_max, ingest::limits::DECODED_BYTES_MAX)
    };
    let mut plain = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(body).take(max as u64 + 1);
    decoder.read_to_end(&mut plain).map_err(|e| Refusal::new(400, format!("the body is not gzip: {e}")))?;
    if plain.len() > max {
        let message =
            format!("the body decompresses to more than {max} bytes; send smaller requests or raise `{key}`");
        return Err(Refusal { status: 413, message, limit: Some(key) });
    }
    Ok(plain)
}

/// What the sender is told.
fn answer(protocol: Option<Protocol>, outcome: Result<Stored, Failure>) -> Response {
    let (reply, rejected) = match outcome {
        Ok(stored) => (Reply::stored(protocol, &stored), None),
        Err(Failure::Refused(refusal)) => {
            (Reply::refused(protocol, &refusal), refusal.limit.map(Rejected::by))
        }
        Err(Failure::Sink(error)) => (Reply::failed(protocol, &error), Rejected::of(&error)),
        Err(Failure::Api(error)) => {
            let refusal = Refusal::new(error.status().as_u16(), error.message);
            let mut reply = Reply::refused(protocol, &refusal);
            reply.headers.extend(error.retry_after_s.map(|s| ("Retry-After", s.to_string())));
            (reply, error.rejected)
        }
    };
    let mut response = respond(reply);
    if let Some(rejected) = rejected {
        response.extensions_mut().insert(rejected);
    }
    response
}

/// Why a write did not come through.
enum Failure {
    /// The request is at fault.
    Refused(Refusal),
    /// The node is at fault.
    Sink(model::Error),
    /// It was not received.
    Api(ApiError),
}

/// Receives a body, decodes it into a batch, stores that, and waits until it is durable.
async fn take(
    app: &Arc<App>,
    request: Request<Body>,
    decode: impl Fn(&[u8], &mut Batch, SeriesKey) -> Result<Decoded, Refusal>,
) -> Result<Stored, Failure> {
    let db = app.database().map_err(Failure::Api)?;
    app.check_creation().map_err(Failure::Api)?;
    let params = Params::new(request.uri().query().unwrap_or(""), b"");
    let consistency = params.consistency(request.headers()).map_err(Failure::Api)?;
    let sink = db.cluster.sink(consistency);
    let (mut buffer, mut batch) = app.buffers.take();
    let (parts, body) = request.into_parts();
    let limits = &app.config.limits;
    let bounds = Bounds {
        bytes_max: limits.write_body_bytes_max.0,
        key: ingest::limits::BODY_BYTES_MAX,
        rate_min: limits.body_rate_min.0,
        memory: Some(&app.bodies),
    };
    let memory = body::receive(&parts.headers, body, &mut buffer, bounds).await.map_err(Failure::Api)?;
    // How fast the client sends is not this node's doing.
    let began = Instant::now();
    let turn = app.writes.enter(1).await.map_err(Failure::Api)?;
    let worked = catch_unwind(AssertUnwindSafe(|| {
        // One that somebody still holds stays theirs.
        if Arc::get_mut(&mut batch).is_none() {
            batch = Arc::default();
        }
        let rows = Arc::get_mut(&mut batch).expect("BUG: nobody else has it");
        rows.clear();
        let decoded = decode(&buffer, rows, sink.key()).map_err(Failure::Refused)?;
        ingest::store(&*sink, &mut batch, decoded, &app.ingest).map_err(Failure::Sink)
    }));
    drop(turn);
    let mut stored = worked.unwrap_or_else(|_| {
        // The panic hook has logged where and why. Unknown is unknown: the sender may try again.
        let text = "a bug stopped this write; the log of the node has the details";
        Err(Failure::Api(ApiError::new(Kind::Internal, text)))
    })?;
    let durable = std::mem::replace(&mut stored.durable, Box::pin(async { Ok(()) }));
    let durable = tokio::time::timeout(limits.write_timeout, durable).await;
    app.latency.note(began.elapsed());
    app.buffers.give((buffer, batch));
    drop(memory);
    match durable {
        Ok(Ok(())) => {
            app.metrics.stored(&stored);
            Ok(stored)
        }
        Ok(Err(error)) => Err(Failure::Sink(error)),
        Err(_) => {
            let reason = "the disks did not confirm this write in time (`limits.write_timeout`)";
            Err(Failure::Sink(model::Error::Busy { reason, retry_after_s: 5 }))
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn respond(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).expect("BUG: not a status");
    let mut body = reply.body;
    if !body.is_empty() && !body.ends_with('\n') {
        body.push('\n');
    }
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if reply.status == 204 {
        headers.remove(header::CONTENT_TYPE);
    } else {
        headers.insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    }
    for (name, value) in reply.headers {
        headers.insert(name, HeaderValue::from_str(&value).expect("BUG: a header value that is none"));
    }
    response
}
