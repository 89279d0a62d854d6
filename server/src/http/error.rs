//! The one table from what went wrong to what HTTP says.

use super::Rejected;
use super::json::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// `errorType` of Prometheus's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum Kind {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Internal,
    NotFound,
    Conflict,
    Unavailable,
}

impl Kind {
    /// The word in the body and the status.
    pub fn wire(self) -> (&'static str, u16) {
        match self {
            Kind::BadData => ("bad_data", 400),
            Kind::Execution => ("execution", 422),
            Kind::Canceled => ("canceled", 499),
            Kind::Timeout => ("timeout", 503),
            Kind::Internal => ("internal", 500),
            Kind::NotFound => ("not_found", 404),
            // What is there stands against it; somebody has to decide.
            Kind::Conflict => ("conflict", 409),
            // Prometheus answers 500. It is a condition that passes (starting, too busy, no majority), so 503, as
            // the guarantees say.
            Kind::Unavailable => ("unavailable", 503),
        }
    }
}

/// An error as the API tells it.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What sort.
    pub kind: Kind,
    /// Overrides the kind's status: 405, 413.
    pub status: Option<StatusCode>,
    /// For people.
    pub message: String,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u32>,
    /// For the metrics, when a limit or the state of the node is behind it.
    pub rejected: Option<Rejected>,
}

impl ApiError {
    /// An error with the status of its kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> ApiError {
        ApiError { kind, status: None, message: message.into(), retry_after_s: None, rejected: None }
    }

    /// 400.
    pub fn bad_data(message: impl Into<String>) -> ApiError {
        ApiError::new(Kind::BadData, message)
    }

    /// 400 in Prometheus's words for a parameter.
    pub fn parameter(name: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError::bad_data(format!("invalid parameter \"{name}\": {message}"))
    }

    /// 413 with the limit's name, its value and its key.
    pub fn too_large(what: &'static str, key: &'static str, max: u64, got: u64) -> ApiError {
        ApiError {
            status: Some(StatusCode::PAYLOAD_TOO_LARGE),
            ..ApiError::bad_data(model::Error::Limit { what, key, max, got }.to_string())
                .by(Rejected::by(key))
        }
    }

    /// The same error, counted under a reason.
    pub fn by(self, rejected: Rejected) -> ApiError {
        ApiError { rejected: Some(rejected), ..self }
    }

    /// 503 with `Retry-After`.
    pub fn busy(reason: impl Into<String>, retry_after_s: u32) -> ApiError {
        ApiError { retry_after_s: Some(retry_after_s), ..ApiError::new(Kind::Unavailable, reason) }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| StatusCode::from_u16(self.kind.wire().1).expect("BUG: not a status"))
    }
}

impl Rejected {
    /// What a failure of the engine is counted under; damage and bugs are no rejections.
    pub fn of(error: &model::Error) -> Option<Rejected> {
        use model::Error::*;
        match error {
            Limit { key, .. } => Some(Rejected::by(key)),
            Busy { .. } => Some(Rejected("busy")),
            ReadOnly { .. } => Some(Rejected("read_only")),
            Unavailable { .. } => Some(Rejected("unavailable")),
            Corrupt { .. } | Io { .. } | Canceled => None,
        }
    }
}

impl From<model::Error> for ApiError {
    fn from(error: model::Error) -> ApiError {
        use model::Error::*;
        let message = error.to_string();
        let rejected = Rejected::of(&error);
        let error = match error {
            Limit { .. } => ApiError::new(Kind::Execution, message),
            Busy { retry_after_s, .. } => ApiError::busy(message, retry_after_s),
            ReadOnly { .. } => ApiError::busy(message, 60),
            Unavailable { .. } => ApiError::busy(message, 5),
            Corrupt { .. } | Io { .. } => ApiError::new(Kind::Internal, message),
            Canceled => ApiError::new(Kind::Canceled, message),
        };
        ApiError { rejected, ..error }
    }
}

impl From<query::Error> for ApiError {
    fn from(error: query::Error) -> ApiError {
        match error {
            query::Error::Parse(e) => ApiError::parameter("query", e),
            query::Error::BadData(message) => ApiError::bad_data(message),
            query::Error::Execution(message) => ApiError::new(Kind::Execution, message),
            query::Error::Canceled => ApiError::new(Kind::Canceled, "query was canceled"),
            query::Error::Source(e) => e.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut json = Json::default();
        json.raw("{\"status\":\"error\",\"errorType\":").string(self.kind.wire().0);
        json.raw(",\"error\":").string(&self.message).raw("}");
        let mut response =
            (self.status(), [(header::CONTENT_TYPE, "application/json")], json.0).into_response();
        if let Some(rejected) = self.rejected {
            response.extensions_mut().insert(rejected);
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
