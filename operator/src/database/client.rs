//! A client of the database's admin API. It asks one node, at the address of its pod, and waits for no longer than a bound.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

/// Where nodes answer.
pub const PORT: u16 = 7420;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer: 65,536 shards would be less.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer, or which it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("{url}: {source}")]
    Silent {
        /// What was asked.
        url: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is refused: repeating it would be, too.
    #[error("{url}: {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// 4xx or 5xx.
        status: StatusCode,
        /// What the node says.
        message: String,
    },
    /// There is nobody to ask.
    #[error("no node of the database answers: its pods do not run, or are not ready")]
    Nobody,
    /// It cannot be understood.
    #[error("{url}: an answer that makes no sense: {what}")]
    Nonsense {
        /// What was asked.
        url: String,
        /// What is wrong.
        what: String,
    },
}

/// What a node answers: the `data` of the answer.
pub type Said = Result<Value, Error>;

impl Error {
    /// Another node may answer otherwise: this one does not, or cannot have anything agreed on.
    fn is_its_own(&self) -> bool {
        match self {
            Error::Silent { .. } => true,
            Error::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Error::Nobody | Error::Nonsense { .. } => false,
        }
    }
}

/// Asks nodes. Cheap to clone; connections are kept for a while.
#[derive(Clone, Debug)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    port: u16,
    timeout: Duration,
}

impl Default for Client {
    fn default() -> Client {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let http = legacy::Client::builder(TokioExecutor::new())
            // A pod's address may be another pod's soon.
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build(connector);
        Client { http, port: PORT, timeout: TIMEOUT }
    }
}

impl Client {
    /// Asks one node after the other until one answers. Each hands on to the leader what must be agreed on. Asking twice must do no harm: one that says
    /// nothing may have done it.
    pub async fn any<'a>(
        &self,
        ips: impl IntoIterator<Item = &'a str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Said {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut last = Error::Nobody;
        for ip in ips {
            match self.send(method.clone(), ip, path, body.clone()).await {
                Err(error) if error.is_its_own() => last = error,
                said => return said,
            }
        }
        Err(last)
    }

    /// `GET`.
    pub async fn get(&self, ip: &str, path: &str) -> Said {
        self.send(Method::GET, ip, path, Bytes::new()).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, ip: &str, path: &str, body: &Value) -> Said {
        self.send(Method::POST, ip, path, body.to_string().into()).await
    }

    async fn send(&self, method: Method, ip: &str, path: &str, body: Bytes) -> Said {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let url = format!("http://{host}:{}{path}", self.port);
        let silent =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Silent { url: url.clone(), source };
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("sarsen-operator/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| silent(error.into()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| silent(error.into()))?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(silent)?;
            Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        let (status, body) =
            answer.map_err(|_| silent(format!("no answer within {:?}", self.timeout).into()))??;
        super::answer::understand(&url, status, &body)
    }
}
