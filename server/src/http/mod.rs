//! The HTTP API: Prometheus's, exactly.
//!
//! ```text
//! serve ── accept loop ── front ── router ── count ── write      decode and append on this thread, await the fsync
//!                                                 └── endpoint   parameters, a place in the query gate, then a blocking
//!                                                                thread: evaluate, write JSON, compress
//! ```

mod autopilot;
pub mod body;
mod cluster;
mod create;
mod endpoint;
pub mod error;
mod front;
mod gzip;
mod health;
pub mod histogram;
pub mod json;
mod linger;
mod lookup;
mod operations;
pub mod params;
mod query;
pub mod serve;
pub mod status;
mod write;

use crate::app::App;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use endpoint::Handler;
use std::sync::Arc;
use tokio::time::Instant;

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let route = |router: Router<Arc<App>>, path: &'static str, methods: MethodRouter<Arc<App>>| {
        let named =
            middleware::from_fn_with_state(app.clone(), move |State(app): State<Arc<App>>, request, next| {
                count(app, path, request, next)
            });
        router.route(path, methods.layer(named))
    };
    let read = |handler: Handler| {
        get(move |app, request| endpoint::run(app, request, handler))
            .post(move |app, request| endpoint::run(app, request, handler))
    };
    let read_only = |handler: Handler| get(move |app, request| endpoint::run(app, request, handler));
    let routes = [
        ("/api/v1/write", post(write::remote_write)),
        ("/api/v1/import/prometheus", post(write::import)),
        ("/api/v1/query", read(query::instant)),
        ("/api/v1/query_range", read(query::range)),
        ("/api/v1/query_exemplars", read(query::exemplars)),
        ("/api/v1/format_query", read(query::format)),
        ("/api/v1/series", read(lookup::series)),
        ("/api/v1/labels", read(lookup::labels)),
        ("/api/v1/label/{name}/values", read_only(lookup::label_values)),
        ("/api/v1/metadata", read_only(lookup::metadata)),
        ("/api/v1/rules", get(status::rules)),
        ("/api/v1/alerts", get(status::alerts)),
        ("/api/v1/status/buildinfo", get(status::buildinfo)),
        ("/api/v1/status/runtimeinfo", get(status::runtimeinfo)),
        ("/api/v1/status/config", get(status::config)),
        ("/api/v1/status/flags", get(status::flags)),
        ("/api/v1/status/tsdb", read_only(status::tsdb)),
        ("/api/v1/status/node", get(status::node)),
        ("/api/v1/status/cluster", get(cluster::status)),
        ("/api/v1/status/placement", get(cluster::placement)),
        ("/api/v1/status/digests", read_only(cluster::digests)),
        ("/api/v1/admin/namespaces", get(cluster::namespaces).post(cluster::apply_namespaces)),
        ("/api/v1/admin/namespaces/{name}", delete(cluster::delete_namespace)),
        ("/api/v1/admin/cluster/autopilot", get(autopilot::get).post(autopilot::pause)),
        ("/api/v1/admin/cluster/lease", get(autopilot::get).post(autopilot::hold)),
        ("/api/v1/admin/cluster/create", post(create::create)),
        ("/api/v1/admin/cluster/throttle", post(operations::throttle)),
        ("/api/v1/admin/cluster/{operation}", post(operations::start)),
        ("/api/v1/admin/jobs", get(operations::jobs)),
        ("/api/v1/admin/jobs/{id}", get(operations::job)),
        ("/api/v1/admin/jobs/{id}/{step}", post(operations::step)),
        ("/", get(status::index)),
        ("/metrics", get(status::metrics)),
        ("/drain", get(health::drain).post(health::drain)),
        ("/-/healthy", get(health::healthy)),
        ("/-/ready", get(health::ready)),
    ];
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| route(router, path, methods))
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(middleware::from_fn_with_state(app.clone(), front::run))
        .with_state(app)
}

/// On the answer to a request that was turned away as a whole: the limit, without its group, or the state of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected(pub &'static str);

impl Rejected {
    /// By the limit with this key.
    pub fn by(key: &'static str) -> Rejected {
        Rejected(key.split_once('.').map_or(key, |(_, name)| name))
    }
}

/// Counts a request and its time under the route's name.
async fn count(app: Arc<App>, path: &'static str, request: Request<Body>, next: Next) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    app.metrics.request(path, response.status().as_u16(), started.elapsed());
    if let Some(Rejected(reason)) = response.extensions().get() {
        app.metrics.rejected(path, reason);
    }
    tracing::debug!(
        path,
        status = response.status().as_u16(),
        seconds = started.elapsed().as_secs_f64(),
        "request"
    );
    response
}

/// A JSON answer that is already written.
fn json_response(body: Vec<u8>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], body).into_response()
}
