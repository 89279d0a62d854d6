//! Receiving bodies: bounded in size, memory and time.

use super::Rejected;
use super::error::{ApiError, Kind};
use crate::gate::Gate;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Memory for bodies is handed out in steps of this many bytes, one unit of a [`Gate`] each.
pub const STEP: u64 = 64 << 10;

/// A sender may be arbitrarily slow for this long.
const GRACE: Duration = Duration::from_secs(10);

/// What bounds a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// Largest size, and the key that sets it.
    pub bytes_max: u64,
    /// The key behind `bytes_max`.
    pub key: &'static str,
    /// Slowest sending after the grace, bytes a second.
    pub rate_min: u64,
    /// The memory of all bodies together, in [`STEP`]s.
    pub memory: Option<&'a Gate>,
}

/// Reads a whole body into `into`. The permits hold its memory; keep them as long as the bytes.
///
/// Memory is taken as bytes arrive, not as they are announced: a lie in `Content-Length` costs nothing.
pub async fn receive(
    headers: &HeaderMap,
    body: Body,
    into: &mut Vec<u8>,
    bounds: Bounds<'_>,
) -> Result<Vec<OwnedSemaphorePermit>, ApiError> {
    use axum::body::HttpBody;
    let too_large =
        |got| ApiError::too_large("bytes of the request's body", bounds.key, bounds.bytes_max, got);
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = announced.filter(|&bytes| bytes > bounds.bytes_max) {
        return Err(too_large(bytes));
    }
    into.clear();
    let mut permits: Vec<OwnedSemaphorePermit> = Vec::new();
    let mut held = 0u64;
    let mut body = std::pin::pin!(body);
    let started = Instant::now();
    loop {
        let seconds = into.len() as u64 / bounds.rate_min.max(1);
        let deadline = started + GRACE + Duration::from_secs(seconds.min(86_400));
        let frame =
            tokio::time::timeout_at(deadline, std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)));
        let frame = match frame.await {
            Err(_) => return Err(too_slow(bounds.rate_min)),
            Ok(None) => return Ok(permits),
            Ok(Some(Err(e))) => return Err(ApiError::bad_data(format!("the body broke off: {e}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let len = (into.len() + data.len()) as u64;
        if len > bounds.bytes_max {
            return Err(too_large(len));
        }
        if let Some(memory) = bounds.memory.filter(|_| len > held) {
            // As much as was announced, but no more than twice what has come: few waits, and no trust.
            let wanted = announced.unwrap_or(len).min(len * 2).max(len) - held;
            let steps = wanted.div_ceil(STEP);
            permits.push(memory.enter(steps).await?);
            held += steps * STEP;
        }
        if into.capacity() == 0 {
            into.reserve(announced.unwrap_or(0).min(len * 2) as usize);
        }
        into.extend_from_slice(&data);
    }
}

fn too_slow(rate_min: u64) -> ApiError {
    ApiError {
        status: Some(StatusCode::REQUEST_TIMEOUT),
        ..ApiError::new(
            Kind::Timeout,
            format!("the body came slower than {rate_min} bytes a second (`limits.body_rate_min`)"),
        )
        .by(Rejected::by("limits.body_rate_min"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(memory: Option<&Gate>) -> Bounds<'_> {
        Bounds { bytes_max: 1000, key: "limits.x", rate_min: 1024, memory }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
        let mut into = Vec::new();
        let mut headers = HeaderMap::new();
        let body = || Body::from(vec![7u8; 1001]);
        let error = receive(&headers, body(), &mut into, bounds(None)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        headers.insert(header::CONTENT_LENGTH, 2_000_000_000u32.into());
        let error = receive(&headers, Body::empty(), &mut into, bounds(None)).await.unwrap_err();
        assert!(
            error.message.contains("limits.x") && error.message.contains("2000000000"),
            "{}",
            error.message
        );
        assert_eq!(into.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_times_out() {
        let never = axum::body::Body::new(Stalled);
        let error = receive(&HeaderMap::new(), never, &mut Vec::new(), bounds(None)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }

    struct Stalled;

    impl axum::body::HttpBody for Stalled {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test]
    async fn memory_of_bodies_is_counted_while_they_are_held() {
        let gate = Gate::new(4, Duration::from_millis(1), "bodies", "limits.x");
        let mut into = Vec::new();
        let permits =
            receive(&HeaderMap::new(), Body::from("abc"), &mut into, bounds(Some(&gate))).await.unwrap();
        assert_eq!((into.as_slice(), gate.taken()), (&b"abc"[..], 1));
        drop(permits);
        assert_eq!(gate.taken(), 0);
    }
}
