//! A client of the database's admin API. It asks one node, at the address of its pod, and waits for no longer than a bound.

use crate::render::HTTP_PORT;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

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
        Client { http, port: HTTP_PORT, timeout: TIMEOUT }
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Response;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use serde_json::json;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    /// Longer than a test may take, unless it is the test's matter.
    const LONG: Duration = Duration::from_secs(60);

    /// A node that gives the same answer to everything, and counts. It listens on another address of the loopback for each number.
    async fn node(
        number: u8,
        port: u16,
        status: u16,
        body: impl Into<Bytes>,
    ) -> (u16, String, Arc<AtomicUsize>) {
        let ip = format!("127.0.0.{number}");
        let listener = TcpListener::bind((ip.as_str(), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, body) = (Arc::new(AtomicUsize::new(0)), body.into());
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (body, counted) = (body.clone(), counted.clone());
                let answer = service_fn(move |_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let response = Response::builder().status(status).body(Full::new(body.clone()));
                    async move { Ok::<_, Infallible>(response.unwrap()) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        (port, ip, asked)
    }

    fn client(port: u16, timeout: Duration) -> Client {
        Client { port, timeout, ..Client::default() }
    }

    #[tokio::test]
    async fn an_answer_is_its_data_and_a_refusal_its_text() {
        let (port, ip, _) = node(1, 0, 200, r#"{"status":"success","data":{"epoch":7}}"#).await;
        assert_eq!(client(port, LONG).get(&ip, "/x").await.unwrap(), json!({ "epoch": 7 }));
        let body = r#"{"status":"error","errorType":"conflict","error":"the epoch is 8"}"#;
        let (port, ip, _) = node(1, 0, 409, body).await;
        let error = client(port, LONG).post(&ip, "/x", &json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), format!("http://{ip}:{port}/x: 409 Conflict: the epoch is 8"));
    }

    #[tokio::test]
    async fn nobody_waits_for_one_that_says_nothing() {
        // Nothing accepts, and the operating system connects all the same.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let error = client(port, Duration::from_millis(50)).get("127.0.0.1", "/x").await.unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        assert!(error.to_string().contains("no answer within 50ms"), "{error}");
        drop(silent);
        let error = client(port, LONG).get("127.0.0.1", "/x").await.unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let (port, ip, _) = node(1, 0, 200, vec![b' '; ANSWER_BYTES_MAX + 1]).await;
        let error = client(port, LONG).get(&ip, "/x").await.unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_next_one_is_asked_when_one_cannot_and_not_when_it_refuses() {
        let (port, busy, _) = node(1, 0, 503, r#"{"error":"no leader"}"#).await;
        let (_, fine, fine_asked) = node(2, port, 200, r#"{"data":1}"#).await;
        let (_, refuses, _) = node(3, port, 409, r#"{"error":"no"}"#).await;
        let client = client(port, LONG);
        let ask =
            async |ips: &[&str]| client.any(ips.iter().copied(), Method::POST, "/x", Some(&json!({}))).await;
        assert_eq!(ask(&["127.0.0.9", &busy, &fine]).await.unwrap(), json!(1));
        assert_eq!(fine_asked.load(Ordering::Relaxed), 1);
        let refused = ask(&[&refuses, &fine]).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { status: StatusCode::CONFLICT, .. }), "{refused}");
        assert_eq!(fine_asked.load(Ordering::Relaxed), 1);
        // The last that was heard says why.
        assert!(ask(&[&busy]).await.unwrap_err().to_string().contains("no leader"));
        assert!(matches!(ask(&[]).await, Err(Error::Nobody)));
    }
}
