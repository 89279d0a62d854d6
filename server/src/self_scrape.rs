//! The node stores its own metrics, so that the first query has an answer and an incident has a past.
//!
//! The text of `/metrics` goes through the same parser and sink as everybody's samples, under `job="sarsen"` and
//! `instance="host:port"`, with `up` beside it.

use crate::app::{App, Database};
use crate::time;
use ingest::exposition;
use model::{Batch, Sink};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

/// Stores at once, then at every interval, until `stopped` resolves.
pub async fn run(app: Arc<App>, address: SocketAddr, stopped: impl Future<Output = ()>) {
    let interval = app.config.self_scrape_interval;
    if interval.is_zero() {
        return;
    }
    let mut stopped = std::pin::pin!(stopped);
    let mut tick = tokio::time::interval(interval);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = &mut stopped => return,
        }
        let Some(db) = app.opened() else { continue };
        if let Err(reason) = scrape(&app, db, &address.to_string()).await {
            app.metrics.self_scrape_failures.inc();
            tracing::debug!(reason, "the node's own metrics could not be stored");
        }
    }
}

/// Where own metrics go.
///
/// Until the first write into a cluster shards are dealt out anew to whoever joins, and from then on they have to be moved. Own metrics must never be that
/// write, since nobody can tell how many nodes are still to come: until somebody else has written, they stay on the node. There, queries find those
/// of shards that the node holds, which in a cluster of no more nodes than copies are all; repair spreads these.
fn sink(db: &Database) -> Arc<dyn Sink> {
    match db.cluster.view().has_data {
        true => db.cluster.sink(None),
        false => db.engine.clone(),
    }
}

async fn scrape(app: &App, db: &Database, instance: &str) -> Result<(), String> {
    let text = format!("up 1\n{}", app.metrics.text(app));
    let label = |name: &str, value: &str| (name.to_string(), value.to_string());
    let options = exposition::Options {
        default_timestamp: time::now().0,
        extra_labels: vec![label("job", "sarsen"), label("instance", instance)],
    };
    let sink = sink(db);
    let mut batch = Batch::default();
    let format = exposition::Format::OpenMetrics;
    let decoded = exposition::parse(text.as_bytes(), format, &options, &mut batch, sink.key(), &app.ingest)
        .map_err(|e| e.to_string())?;
    let mut batch = Arc::new(batch);
    let stored = ingest::store(&*sink, &mut batch, decoded, &app.ingest).map_err(|e| e.to_string())?;
    if let Some(problem) = stored.problems.spelled_out().first() {
        return Err(problem.message.clone());
    }
    stored.durable.await.map_err(|e| e.to_string())
}
