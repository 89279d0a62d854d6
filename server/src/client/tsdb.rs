//! `sarsen tsdb …`: looking into data, of a running node or of a folder at rest.

use super::{Output, http, query, table};
use crate::args::{Offline, TsdbCommand};
use crate::config::Config;
use crate::http::json::put_float;
use crate::{node, time};
use anyhow::{Context, bail};
use cluster::view::Namespace;
use disk::{RealVfs, Vfs};
use model::{MatchOp, Matcher, Samples, Selection, Source, TimeRange, Timestamp};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Reads and prints.
pub fn run(command: TsdbCommand) -> anyhow::Result<()> {
    match command {
        TsdbCommand::Dump { data, selector, between } => {
            let (start, end) = query::range(&between, time::now())?;
            let range =
                TimeRange { min: start.unwrap_or(Timestamp::MIN), max: end.unwrap_or(Timestamp::MAX) };
            dump(&data, selector.as_deref(), range)
        }
        TsdbCommand::Verify { data } => verify(&data),
        TsdbCommand::Analyze { data_dir, url, limit, output } => {
            let data = match (data_dir, url) {
                (Some(dir), _) => analyze(&dir, limit)?,
                (None, url) => {
                    let url = url.as_deref().unwrap_or("http://127.0.0.1:7420");
                    http::get(url, "/api/v1/status/tsdb", &[("limit", limit.to_string())])?.data
                }
            };
            print_cardinality(&data, output)
        }
    }
}

/// Nothing in the directory is changed, whatever is found there.
fn open(dir: &Path) -> anyhow::Result<Arc<storage::Engine>> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    if !vfs.exists(&dir.join("identity"))? {
        bail!("{} is not a data directory of Sarsen; name one with --data-dir", dir.display());
    }
    let config = Config { data_dir: dir.to_path_buf(), ..Config::default() };
    let options = node::storage_options(&config, &Namespace::default(), &*vfs)?;
    Ok(storage::Engine::open_read_only(vfs, options, Arc::new(time::now), &|_| {})?)
}

fn dump(data: &Offline, selector: Option<&str>, range: TimeRange) -> anyhow::Result<()> {
    let matchers = match selector {
        Some(text) => crate::http::params::selector(text).map_err(|e| anyhow::anyhow!(e.message))?,
        None => vec![Matcher::new(model::labels::METRIC_NAME, MatchOp::Matches, ".*")?],
    };
    let engine = open(&data.data_dir)?;
    let set = engine.select(&Selection { matchers, range, series_max: usize::MAX, shards: None })?;
    let mut order: Vec<_> = (0..set.len()).map(|i| (set.labels(i), i)).collect();
    order.sort();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut samples, mut value) = (Samples::default(), Vec::new());
    for (labels, index) in order {
        set.read(index, range, &mut samples)?;
        for (t, v) in samples.timestamps.iter().zip(&samples.values) {
            value.clear();
            if model::value::is_stale(*v) {
                value.extend_from_slice(b"stale");
            } else {
                put_float(&mut value, *v);
            }
            write!(out, "{labels} ")?;
            out.write_all(&value)?;
            writeln!(out, " {t}")?;
        }
        for (t, _, histogram) in &samples.histograms {
            let mut text = crate::http::json::Json::default();
            crate::http::histogram::write(&mut text, histogram);
            write!(out, "{labels} ")?;
            out.write_all(&text.0)?;
            writeln!(out, " {t}")?;
        }
    }
    Ok(out.flush()?)
}

fn verify(data: &Offline) -> anyhow::Result<()> {
    let engine = open(&data.data_dir)?;
    let (stats, mut damage) = (engine.stats(), engine.stats().suspect);
    damage.extend(engine.verify().iter().map(ToString::to_string));
    for place in &damage {
        println!("{place}");
    }
    if !damage.is_empty() {
        bail!("{} damaged places in {}", damage.len(), data.data_dir.display());
    }
    println!(
        "{}: {} blocks with {} samples ({}) and {} segments of the log are sound",
        data.data_dir.display(),
        stats.blocks,
        stats.block_samples,
        table::bytes(stats.block_bytes),
        stats.wal_segments
    );
    Ok(())
}

/// The same as `/api/v1/status/tsdb`, of a folder at rest.
fn analyze(dir: &Path, limit: usize) -> anyhow::Result<Value> {
    let engine = open(dir)?;
    let mut body = crate::http::json::Json::default();
    crate::http::status::write_tsdb(&mut body, &engine, limit);
    serde_json::from_slice(&body.0).context("BUG: not JSON")
}

fn print_cardinality(data: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return query::print_json(data);
    }
    let head = &data["headStats"];
    println!("{} series, {} label pairs\n", head["numSeries"], head["numLabelPairs"]);
    for (key, header) in [
        ("seriesCountByMetricName", ["METRIC", "SERIES"]),
        ("labelValueCountByLabelName", ["LABEL", "VALUES"]),
        ("memoryInBytesByLabelName", ["LABEL", "BYTES"]),
        ("seriesCountByLabelValuePair", ["LABEL=VALUE", "SERIES"]),
    ] {
        let rows: Vec<Vec<String>> = data[key]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| vec![row["name"].as_str().unwrap_or_default().to_string(), row["value"].to_string()])
            .collect();
        table::print(&header, &rows)?;
        println!();
    }
    Ok(())
}
