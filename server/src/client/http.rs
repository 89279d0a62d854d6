//! Requests to a node.

use anyhow::{Context, bail};
use serde_json::Value;
use std::time::Duration;

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// Its `data`.
    pub data: Value,
}

/// Longer than any query may take, so that the node's own words are heard.
const TIMEOUT: Duration = Duration::from_secs(120);

/// `GET`s a path with parameters and unwraps the envelope. Warnings and infos go to standard error.
pub fn get(url: &str, path: &str, params: &[(&str, String)]) -> anyhow::Result<Answer> {
    send("GET", url, path, params, None)
}

/// Sends a request, with a JSON body if there is one, and unwraps the envelope.
pub fn send(
    method: &str,
    url: &str,
    path: &str,
    params: &[(&str, String)],
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    let base = url.trim_end_matches('/');
    if !base.starts_with("http://") && !base.starts_with("https://") {
        bail!("--url {url:?} is not a URL; write it with its scheme, such as http://127.0.0.1:7420");
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params);
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{base}{path}{separator}{query}"))
        .header("Content-Type", "application/json")
        .body(body.map(ToString::to_string).unwrap_or_default())
        .with_context(|| format!("--url {url:?} is not a URL"))?;
    let mut response = agent.run(request).with_context(|| {
        format!(
            "no answer from {base}; is a node running there? `sarsen server` starts one, --url names another"
        )
    })?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(1 << 32).read_to_string()?;
    let body: Value = serde_json::from_str(&text)
        .map_err(|_| anyhow::anyhow!("{base}{path} answered {status} without JSON; is it a Sarsen?"))?;
    for (key, label) in [("warnings", "warning"), ("infos", "info")] {
        for note in body[key].as_array().into_iter().flatten() {
            eprintln!("{label}: {}", note.as_str().unwrap_or_default());
        }
    }
    if body["status"] != "success" {
        let kind = body["errorType"].as_str().unwrap_or("error");
        bail!("{} ({kind}, HTTP {})", body["error"].as_str().unwrap_or("unknown"), status.as_u16());
    }
    Ok(Answer { data: body["data"].clone() })
}
