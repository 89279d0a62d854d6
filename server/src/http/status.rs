//! What the node says about itself.

use super::endpoint::Context;
use super::error::ApiError;
use super::json::{self, Json, Notes};
use super::json_response;
use super::params::Params;
use crate::app::{App, VERSION};
use crate::namespaces;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// The Prometheus whose API and PromQL this is. Clients choose what they ask by it.
pub const PROMETHEUS: &str = "3.14.0";

/// A successful answer whose `data` is what `write` writes.
pub fn data(write: impl FnOnce(&mut Json)) -> Response {
    let body = json::success(&Notes::default(), |json| {
        write(json);
        Ok(())
    });
    match body {
        Ok(body) => json_response(body),
        Err(error) => error.into_response(),
    }
}

/// `/api/v1/status/buildinfo`. There must be no `features`: Grafana takes a server that has them for Mimir.
pub async fn buildinfo() -> Response {
    data(|json| {
        json.raw("{\"version\":")
            .string(PROMETHEUS)
            .raw(",\"revision\":")
            .string(&format!("sarsen-{VERSION}"));
        json.raw(",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}");
    })
}

/// `/api/v1/status/runtimeinfo`
pub async fn runtimeinfo(State(app): State<Arc<App>>) -> Response {
    let series = app.opened().map_or(0, |db| db.engine.stats().series);
    data(|json| {
        let start = crate::time::print_rfc3339(model::Timestamp(app.started_at));
        json.raw("{\"startTime\":").string(&start).raw(",\"storageRetention\":");
        json.string(&in_force(&app, "retention"));
        json.raw(&format!(",\"GOMAXPROCS\":{},\"timeSeriesCount\":{series}}}", crate::app::cpus()));
    })
}

/// A setting of the namespace `default`; while the node starts, what its configuration says.
fn in_force(app: &App, setting: &str) -> String {
    match app.opened() {
        Some(db) => {
            let namespace = db.cluster.view().namespaces.get(namespaces::DEFAULT).copied();
            namespaces::get(&namespace.unwrap_or_default(), setting)
        }
        None => {
            app.config.values().find(|(key, _)| key == setting).map(|(_, value)| value).unwrap_or_default()
        }
    }
}

/// `/api/v1/status/config`: the configuration in force, as a file that says the same.
pub async fn config(State(app): State<Arc<App>>) -> Response {
    data(|json| {
        json.raw("{\"yaml\":").string(&app.config.to_yaml()).raw("}");
    })
}

/// `/api/v1/status/flags`: every setting by its key.
pub async fn flags(State(app): State<Arc<App>>) -> Response {
    data(|json| {
        json.raw("{");
        for (i, (key, value)) in app.config.values().enumerate() {
            json.raw(if i > 0 { "," } else { "" }).string(&key).raw(":").string(&value);
        }
        json.raw("}");
    })
}

/// `/api/v1/rules`: this node evaluates none.
pub async fn rules() -> Response {
    data(|json| {
        json.raw("{\"groups\":[]}");
    })
}

/// `/api/v1/alerts`: nor has it alerts.
pub async fn alerts() -> Response {
    data(|json| {
        json.raw("{\"alerts\":[]}");
    })
}

/// `/api/v1/status/tsdb`
pub fn tsdb(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let limit = params.int("limit").unwrap_or(Some(0)).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    if limit == 0 {
        return Err(ApiError::bad_data("limit must be a positive number"));
    }
    if limit > 10_000 {
        return Err(ApiError::bad_data("limit must not exceed 10000"));
    }
    json::success(&Notes::default(), |json| {
        write_tsdb(json, &context.db.engine, limit);
        Ok(())
    })
}

/// The data of `/api/v1/status/tsdb`.
pub fn write_tsdb(json: &mut Json, engine: &storage::Engine, limit: usize) {
    let (stats, top) = (engine.stats(), engine.cardinality(limit));
    let (min, max) = stats.head_range.unwrap_or((i64::MAX, i64::MIN));
    json.raw(&format!(
        "{{\"headStats\":{{\"numSeries\":{},\"numLabelPairs\":{},\"chunkCount\":{},\"minTime\":{min},\"maxTime\":{max}}}",
        top.series, top.label_pairs, stats.blocks
    ));
    for (key, counts) in [
        ("seriesCountByMetricName", &top.series_by_metric),
        ("labelValueCountByLabelName", &top.values_by_label),
        ("memoryInBytesByLabelName", &top.bytes_by_label),
        ("seriesCountByLabelValuePair", &top.series_by_label_pair),
    ] {
        json.raw(",\"").raw(key).raw("\":").list(counts, |json, (name, value)| {
            json.raw("{\"name\":").string(name).raw(&format!(",\"value\":{value}}}"));
        });
    }
    json.raw("}");
}

/// `/api/v1/status/node`: Sarsen's own, for `sarsen status`.
pub async fn node(State(app): State<Arc<App>>) -> Response {
    let stats = app.opened().map(|db| db.engine.stats());
    let usage = crate::process::Usage::read();
    data(|json| {
        json.raw("{\"version\":").string(VERSION).raw(",\"state\":").string(app.phase().word());
        json.raw(",\"reason\":").string(&app.phase().reason());
        let facts = app.node().map(|node| node.facts());
        let id = |json: &mut Json, text: Option<String>| match text {
            Some(text) => drop(json.string(&text)),
            None => drop(json.raw("null")),
        };
        json.raw(",\"node\":");
        id(json, facts.map(|facts| facts.node.to_string()));
        json.raw(",\"cluster\":");
        id(json, facts.and_then(|facts| facts.cluster).map(|cluster| format!("{cluster:032x}")));
        json.raw(",\"epoch\":");
        match app.node().and_then(|node| node.view()) {
            Some(view) => json.raw(&view.epoch().to_string()),
            None => json.raw("null"),
        };
        json.raw(&format!(",\"uptimeSeconds\":{}", app.started.elapsed().as_secs()));
        json.raw(",\"dataDir\":").string(&app.config.data_dir.display().to_string());
        json.raw(",\"retention\":").string(&in_force(&app, "retention"));
        json.raw(",\"durability\":").string(&in_force(&app, "durability"));
        if let Some(usage) = usage {
            json.raw(&format!(
                ",\"residentBytes\":{},\"cpuSeconds\":{}",
                usage.resident_bytes, usage.cpu_seconds
            ));
        }
        if let Some(s) = stats {
            json.raw(&format!(
                ",\"storage\":{{\"series\":{},\"headSamples\":{},\"headBytes\":{},\"blocks\":{},\"blockSamples\":{},\
                 \"blockBytes\":{},\"walSegments\":{},\"walPendingBytes\":{},\"readOnly\":",
                s.series,
                s.head_samples,
                s.head_bytes,
                s.blocks,
                s.block_samples,
                s.block_bytes,
                s.wal_segments,
                s.wal_pending_bytes
            ));
            match &s.read_only {
                Some(reason) => json.string(reason),
                None => json.raw("null"),
            };
            json.raw(",\"suspect\":").list(&s.suspect, |json, text| {
                json.string(text);
            });
            json.raw("}");
        }
        json.raw("}");
    })
}

/// `/`: for whoever opens the address in a browser.
pub async fn index() -> String {
    format!(
        "Sarsen {VERSION}, a durable database for Prometheus metrics. There is no web page yet; add this address to \
         Grafana as a data source of the type Prometheus.\n\n\
         /api/v1/query?query=up   the HTTP API of Prometheus\n\
         /api/v1/write            remote write, 1.0 and 2.0\n\
         /api/v1/status/node      how this node is doing\n\
         /api/v1/status/cluster   how the cluster is doing\n\
         /metrics                 its own metrics\n\
         /-/ready                 whether it takes reads and writes\n"
    )
}

/// `/metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app)).into_response()
}
