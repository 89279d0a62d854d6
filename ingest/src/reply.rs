//! What the sender is told.

use crate::problems::Reason;
use crate::remote_write::Protocol;
use crate::store::{Counted, Stored};
use model::Error;

/// A request that is refused as a whole; nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What is wrong and what fixes it.
    pub message: String,
    /// The key of the limit that the request is over, if that is what is wrong.
    pub limit: Option<&'static str>,
}

impl Refusal {
    /// A refusal that no limit is behind.
    pub fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), limit: None }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(400, message)
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers of this protocol; content type and length are the server's.
    pub headers: Vec<(&'static str, String)>,
    /// Plain text, empty for success.
    pub body: String,
}

/// Seconds after which a sender should try again when the error itself does not say.
const RETRY_AFTER_S: u32 = 5;

impl Reply {
    /// The request was stored, wholly or except for its problems, and what was stored is durable.
    ///
    /// A sender drops what is answered with 4xx and sends again what is answered with 5xx, so a problem that will not
    /// go away is 400 and never 5xx. Remote write 1 passes over invalid label sets without a word, as Prometheus does.
    /// `None` stands for imported text, where every problem is told.
    pub fn stored(protocol: impl Into<Option<Protocol>>, stored: &Stored) -> Reply {
        let protocol = protocol.into();
        let told = |reason: Reason| protocol != Some(Protocol::V1) || !reason.silent_in_v1();
        let body = stored.problems.text(told);
        Reply {
            status: if body.is_empty() { 204 } else { 400 },
            headers: written(protocol, stored.written),
            body,
        }
    }

    /// The request was refused before anything was stored. `protocol` is `None` while it is not known, and for text.
    pub fn refused(protocol: impl Into<Option<Protocol>>, refusal: &Refusal) -> Reply {
        Reply {
            status: refusal.status,
            headers: written(protocol.into(), Counted::default()),
            body: refusal.message.clone(),
        }
    }

    /// The sink failed. What passes, or is cured by somebody, is 503: the sender keeps the samples and tries again.
    pub fn failed(protocol: impl Into<Option<Protocol>>, error: &Error) -> Reply {
        let (status, retry_after_s) = match error {
            Error::Busy { retry_after_s, .. } => (503, Some(*retry_after_s)),
            Error::ReadOnly { .. } | Error::Unavailable { .. } | Error::Io { .. } | Error::Canceled => {
                (503, Some(RETRY_AFTER_S))
            }
            Error::Corrupt { .. } => (500, None),
            Error::Limit { .. } => (400, None),
        };
        let mut headers = written(protocol.into(), Counted::default());
        headers.extend(retry_after_s.map(|s| ("Retry-After", s.to_string())));
        Reply { status, headers, body: error.to_string() }
    }
}

/// Remote write 2 senders take a success without these counts, or with zeros only, for a failure.
fn written(protocol: Option<Protocol>, counted: Counted) -> Vec<(&'static str, String)> {
    if protocol != Some(Protocol::V2) {
        return Vec::new();
    }
    vec![
        ("X-Prometheus-Remote-Write-Samples-Written", counted.samples.to_string()),
        ("X-Prometheus-Remote-Write-Histograms-Written", counted.histograms.to_string()),
        ("X-Prometheus-Remote-Write-Exemplars-Written", counted.exemplars.to_string()),
    ]
}
