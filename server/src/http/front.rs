//! What comes before every route: other origins, `OPTIONS`, `HEAD`.
//!
//! A browser lets any page that its user visits send requests to the user's own machine, and to whatever else that machine
//! reaches. Without authentication the page's origin is the only thing that tells such a request from a wanted one. So
//! unless `http_cors_origins` names an origin, its pages can read nothing (no CORS headers) and write nothing (403).

use super::error::ApiError;
use crate::app::App;
use crate::config::Origins;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Whether a path changes what is stored, or how.
fn writes(path: &str) -> bool {
    ["/api/v1/write", "/api/v1/import/", "/api/v1/admin/"].iter().any(|prefix| path.starts_with(prefix))
}

/// Answers, or hands on, and says which origins may read the answer.
pub async fn run(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let cors = Cors::of(request.headers(), &app.config.http_cors_origins);
    let path = request.uri().path();
    let mut response = match *request.method() {
        Method::OPTIONS if path.starts_with("/api/v1/") => StatusCode::NO_CONTENT.into_response(),
        // Prometheus has it for these two only; elsewhere it would be a whole evaluation thrown away.
        Method::HEAD if !path.starts_with("/-/") => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => match &cors {
            Cors::Foreign(origin) if writes(path) => {
                let text = format!(
                    "a page of {origin:?} may not write here; list its origin in `http_cors_origins` to allow it"
                );
                let forbidden = Some(StatusCode::FORBIDDEN);
                ApiError { status: forbidden, ..ApiError::bad_data(text) }.into_response()
            }
            _ => next.run(request).await,
        },
    };
    if let Cors::Allowed(origin) = cors {
        let headers = response.headers_mut();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let (parts, _) = response.into_parts();
        response = Response::from_parts(parts, Body::from("Method Not Allowed\n"));
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Whose page sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cors {
    /// Nobody's, or one that this node itself served.
    Own,
    /// One of an origin on the list; the value for `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// One of an origin that is not on it.
    Foreign(HeaderValue),
}

impl Cors {
    fn of(headers: &HeaderMap, allowed: &Origins) -> Cors {
        let Some(origin) = headers.get(header::ORIGIN) else { return Cors::Own };
        let text = origin.to_str().unwrap_or_default();
        match allowed {
            Origins::All => return Cors::Allowed(HeaderValue::from_static("*")),
            Origins::Listed(list) if list.iter().any(|o| o.eq_ignore_ascii_case(text)) => {
                return Cors::Allowed(origin.clone());
            }
            Origins::Listed(_) => {}
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match text.split_once("://") {
            Some((_, authority)) if Some(authority) == host => Cors::Own,
            _ => Cors::Foreign(origin.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Setting;

    #[test]
    fn an_origin_is_own_listed_or_foreign() {
        let of = |origin: Option<&str>, allowed: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("localhost:7420"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            Cors::of(&headers, &Origins::parse(allowed).unwrap())
        };
        let value = HeaderValue::from_static;
        assert_eq!(of(None, "none"), Cors::Own);
        assert_eq!(of(Some("http://localhost:7420"), "none"), Cors::Own);
        assert_eq!(of(Some("http://localhost:80"), "none"), Cors::Foreign(value("http://localhost:80")));
        assert_eq!(of(Some("null"), "none"), Cors::Foreign(value("null")));
        let list = "https://a.example, https://b.example:8443";
        assert_eq!(of(Some("https://b.example:8443"), list), Cors::Allowed(value("https://b.example:8443")));
        assert_eq!(of(Some("https://xa.example"), list), Cors::Foreign(value("https://xa.example")));
        assert_eq!(of(Some("https://c.example"), "*"), Cors::Allowed(value("*")));
    }
}
