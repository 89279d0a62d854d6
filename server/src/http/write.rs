//! Remote write and text import: receive, decode, append, wait for the fsync, answer.
//!
//! Decoding and appending run on the thread of the runtime that received the body: a request is well under a
//! millisecond of work without a lock held for long, and a hand-over to another thread would cost as much as it saves.

use super::body::{self, Bounds};
use super::error::ApiError;
use crate::app::{App, Database};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingest::remote_write;
use ingest::{Refusal, Reply, Stored};
use model::Batch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// `POST /api/v1/write`
pub async fn remote_write(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let headers = request.headers();
    let protocol = match remote_write::negotiate(
        text(headers, header::CONTENT_TYPE),
        text(headers, header::CONTENT_ENCODING),
    ) {
        Ok(protocol) => protocol,
        Err(refusal) => return respond(Reply::refused(None, &refusal)),
    };
    let decode = move |app: &App, db: &Database, body: &[u8], batch: &mut Batch| {
        remote_write::decompress(body, &mut batch.bytes, &app.ingest)?;
        remote_write::decode(protocol, batch, db.sink.key(), &app.ingest)
    };
    let bytes_max = app.config.limits.write_body_bytes_max.0;
    let outcome = take(&app, request, bytes_max, ingest::limits::BODY_BYTES_MAX, decode).await;
    respond(match outcome {
        Ok(stored) => Reply::stored(protocol, &stored),
        Err(Failure::Refused(refusal)) => Reply::refused(Some(protocol), &refusal),
        Err(Failure::Sink(error)) => Reply::failed(protocol, &error),
        Err(Failure::Api(error)) => {
            let refusal = Refusal { status: error.status().as_u16(), message: error.message };
            let mut reply = Reply::refused(Some(protocol), &refusal);
            reply.headers.extend(error.retry_after_s.map(|s| ("Retry-After", s.to_string())));
            reply
        }
    })
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
    bytes_max: u64,
    key: &'static str,
    decode: impl Fn(&App, &Database, &[u8], &mut Batch) -> Result<ingest::store::Decoded, Refusal>,
) -> Result<StoredDurably, Failure> {
    let db = app.database().map_err(Failure::Api)?;
    app.check_creation().map_err(Failure::Api)?;
    let (mut buffer, mut batch) = app.buffers.take();
    let (parts, body) = request.into_parts();
    let limits = &app.config.limits;
    let bounds = Bounds { bytes_max, key, rate_min: limits.body_rate_min.0, memory: Some(&app.bodies) };
    let memory = body::receive(&parts.headers, body, &mut buffer, bounds).await.map_err(Failure::Api)?;
    let turn = app.writes.enter(1).await.map_err(Failure::Api)?;
    let worked = catch_unwind(AssertUnwindSafe(|| {
        batch.clear();
        let decoded = decode(app, &db, &buffer, &mut batch).map_err(Failure::Refused)?;
        ingest::store(&*db.sink, &mut batch, decoded, &app.ingest).map_err(Failure::Sink)
    }));
    app.buffers.give((buffer, batch));
    drop((memory, turn));
    let mut stored = worked.unwrap_or_else(|_| {
        // The panic hook has logged where and why. Unknown is unknown: the sender may try again.
        let text = "a bug stopped this write; the log of the node has the details";
        Err(Failure::Api(ApiError::new(super::error::Kind::Internal, text)))
    })?;
    let durable = std::mem::replace(&mut stored.durable, Box::pin(async { Ok(()) }));
    match tokio::time::timeout(limits.write_timeout, durable).await {
        Ok(Ok(())) => {
            app.metrics.stored(&stored);
            Ok(stored)
        }
        Ok(Err(error)) => Err(Failure::Sink(error)),
        Err(_) => {
            let reason = "the disk did not confirm this write in time (`limits.write_timeout`)";
            Err(Failure::Sink(model::Error::Busy { reason, retry_after_s: 5 }))
        }
    }
}

/// What [`take`] gives back has been fsynced.
type StoredDurably = Stored;

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
