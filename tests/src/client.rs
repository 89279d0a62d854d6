//! A client of the HTTP API, for Sarsen and for the programs that it is compared with.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response as HttpResponse;

/// Talks to one server on loopback.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, as text.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }
}

/// A label set as the API prints it.
pub type LabelSet = BTreeMap<String, String>;

/// What a query answered: every series with its points (seconds and value). A scalar is a series without labels.
pub type Matrix = BTreeMap<LabelSet, Vec<(f64, f64)>>;

impl Client {
    /// A client of the server at this port of 127.0.0.1.
    pub fn new(port: u16) -> Client {
        Client::at(&format!("127.0.0.1:{port}"))
    }

    /// A client of the server at `host:port`.
    pub fn at(address: &str) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .proxy(None)
            .build();
        Client { agent: config.new_agent(), base: format!("http://{address}") }
    }

    /// The server's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET of a path with its query string; `Err` when there was no answer.
    pub fn get(&self, path: &str) -> Result<Response, String> {
        answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// Whether GET of a path answers 200.
    pub fn is_ok(&self, path: &str) -> bool {
        self.get(path).is_ok_and(|response| response.status == 200)
    }

    /// A request with any method and headers.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, String> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        answer(self.agent.run(request))
    }

    /// POST of a body to a server that may answer before it has read all of it, from a sender that looks for an
    /// answer only when it has sent everything. Gives the answer's status and everything behind its first line.
    pub fn send_until_answered(
        &self,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, String), String> {
        let address = self.base.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let bound = Some(Duration::from_secs(60));
        stream
            .set_read_timeout(bound)
            .and_then(|()| stream.set_write_timeout(bound))
            .expect("a time is no zero");
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
        // As plain senders do: everything is written before anything is read, and a write that fails is a failure.
        let head = format!("{head}Connection: close\r\n{headers}\r\n\r\n");
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .map_err(|error| format!("the request could not be written: {error}"))?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer).map_err(|error| format!("the answer broke off: {error}"))?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (first, rest) = text.split_once("\r\n").ok_or("an empty answer")?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| format!("{first:?} is no status line"))?, rest.to_owned()))
    }

    /// POST of a form.
    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Response, String> {
        answer(self.agent.post(format!("{}{path}", self.base)).send_form(fields.iter().copied()))
    }

    /// The `data` of an API call that must succeed; `Err` says what came instead.
    pub fn data(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        let response = self.form(path, fields)?;
        let mut json: Value = serde_json::from_str(&response.body)
            .map_err(|error| format!("{} with no JSON ({error}): {}", response.status, response.body))?;
        if response.status != 200 || json["status"] != "success" {
            return Err(format!("{}: {}", response.status, response.body));
        }
        Ok(json["data"].take())
    }

    /// An instant query at a time in seconds.
    pub fn instant(&self, query: &str, time: f64) -> Result<Matrix, String> {
        matrix(&self.data("/api/v1/query", &[("query", query), ("time", &seconds(time))])?)
    }

    /// The same with more parameters in the URL.
    pub fn instant_with(&self, query: &str, time: f64, parameters: &str) -> Result<Matrix, String> {
        let path = format!("/api/v1/query?{parameters}");
        matrix(&self.data(&path, &[("query", query), ("time", &seconds(time))])?)
    }

    /// A range query; times and step in seconds.
    pub fn range(&self, query: &str, start: f64, end: f64, step: f64) -> Result<Matrix, String> {
        let (start, end, step) = (seconds(start), seconds(end), step.to_string());
        let fields = [("query", query), ("start", &*start), ("end", &*end), ("step", &*step)];
        matrix(&self.data("/api/v1/query_range", &fields)?)
    }
}

/// Seconds with the API's resolution of a millisecond.
fn seconds(time: f64) -> String {
    format!("{time:.3}")
}

fn answer(result: Result<HttpResponse<ureq::Body>, ureq::Error>) -> Result<Response, String> {
    let mut response = result.map_err(|error| error.to_string())?;
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body =
        response.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|error| error.to_string())?;
    Ok(Response {
        status: response.status().as_u16(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn matrix(data: &Value) -> Result<Matrix, String> {
    let strange = || format!("an answer of a kind that is not expected: {data}");
    let result = &data["result"];
    let mut matrix = Matrix::new();
    match data["resultType"].as_str() {
        Some("scalar") => {
            matrix.insert(LabelSet::new(), vec![point(result).ok_or_else(strange)?]);
        }
        Some("vector" | "matrix") => {
            for series in result.as_array().ok_or_else(strange)? {
                let labels = labels(&series["metric"]).ok_or_else(strange)?;
                let values = series["values"].as_array().map(Vec::as_slice);
                let values = values.unwrap_or(std::slice::from_ref(&series["value"]));
                let points: Option<Vec<_>> = values.iter().map(point).collect();
                if matrix.insert(labels, points.ok_or_else(strange)?).is_some() {
                    return Err(format!("a label set occurs twice: {data}"));
                }
            }
        }
        _ => return Err(strange()),
    }
    Ok(matrix)
}

fn labels(metric: &Value) -> Option<LabelSet> {
    metric.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn point(value: &Value) -> Option<(f64, f64)> {
    Some((value.get(0)?.as_f64()?, number(value.get(1)?.as_str()?)?))
}

/// A value as the API prints it.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}
