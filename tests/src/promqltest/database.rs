//! A storage engine of its own, with the loaded series in it.

use super::classic;
use super::script::Load;
use anyhow::{Context, Result, bail, ensure};
use model::{Batch, BatchSeries, HistogramRow, Labels, Matcher, Sink, Source, Timestamp};
use query::parser::series::{Series, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The engine, its data, and a query engine with the settings that the scripts are written for.
pub struct Database {
    /// Evaluates expressions.
    pub engine: query::Engine,
    storage: Arc<storage::Engine>,
    /// Series that got native histograms.
    histograms: Vec<Labels>,
}

impl Database {
    /// An empty one.
    pub fn open() -> Result<Database> {
        // Series ids need not be secret here, and nothing has to outlive the process.
        let mut options = storage::Options::new("/data", || 1);
        options.shards = 4;
        options.future_max_ms = i64::MAX / 2;
        options.disk_reserve_bytes = 0;
        options.wal.segment_bytes = 1 << 20;
        options.wal.preallocate = false;
        let clock = Arc::new(|| Timestamp(0));
        let storage = storage::Engine::open(Arc::new(disk::CrashVfs::new()), options, clock, &|_| ())?;
        let engine = query::Engine::new(query::Options {
            lookback_ms: 5 * 60_000,
            subquery_step_ms: 60_000,
            samples_max: 50_000_000,
            series_max: 100_000,
            steps_max: 11_000,
            subquery_steps_max: 100_000,
            threads: 1,
            start_timestamps: true,
            delayed_name_removal: true,
        });
        Ok(Database { engine, storage, histograms: Vec::new() })
    }

    /// Where queries read.
    pub fn source(&self) -> &dyn Source {
        &*self.storage
    }

    /// Whether a loaded series with native histograms satisfies these matchers.
    pub fn has_histograms(&self, matchers: &[Matcher]) -> bool {
        let matches =
            |labels: &Labels| matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default()));
        self.histograms.iter().any(matches)
    }

    /// Adds the series of a `load`.
    pub fn load(&mut self, load: &Load) -> Result<()> {
        let mut starts: HashMap<&Labels, &Series> = HashMap::new();
        // A series that is given twice is what it was given last.
        let mut samples: BTreeMap<&Labels, (&Series, Option<&Series>)> = BTreeMap::new();
        for series in &load.series {
            if series.starts {
                starts.insert(&series.labels, series);
            } else {
                samples.insert(&series.labels, (series, starts.remove(&series.labels)));
            }
        }
        if let Some(labels) = starts.keys().next() {
            bail!("{labels} has start timestamps, but no samples behind them");
        }
        for (series, starts) in samples.into_values() {
            self.append(series, starts, load.step_ms)?;
        }
        if load.with_custom_buckets {
            for series in classic::custom_buckets(&load.series)? {
                self.append(&series, None, load.step_ms)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, series: &Series, starts: Option<&Series>, step_ms: i64) -> Result<()> {
        let mut batch = Batch { bytes: series.labels.as_bytes().to_vec(), ..Batch::default() };
        for (index, value) in series.values.iter().enumerate() {
            let timestamp = index as i64 * step_ms;
            let start = match starts.and_then(|s| s.values.get(index)) {
                Some(Value::Float(offset)) => timestamp + *offset as i64,
                _ => 0,
            };
            match value {
                Value::Gap => {}
                Value::Float(value) => {
                    batch.timestamps.push(timestamp);
                    batch.values.push(value.to_bits());
                    batch.starts.push(start);
                }
                Value::Histogram(histogram, _) => {
                    let histogram = (**histogram).clone();
                    batch.histograms.push(HistogramRow { timestamp, start, histogram });
                }
            }
        }
        if starts.is_none() {
            batch.starts.clear();
        }
        let length = |length: usize| u32::try_from(length).context("a series is too long");
        batch.series.push(BatchSeries {
            id: self.storage.key().id(series.labels.as_bytes()),
            checked: true,
            labels_at: 0,
            labels_len: length(batch.bytes.len())?,
            floats_at: 0,
            floats_len: length(batch.timestamps.len())?,
            histograms_at: 0,
            histograms_len: length(batch.histograms.len())?,
        });
        if !batch.histograms.is_empty() {
            self.histograms.push(series.labels.clone());
        }
        let appended = self.storage.append(&batch.into(), None)?;
        ensure!(appended.rejected.is_empty(), "{} was refused: {:?}", series.labels, appended.rejected);
        ensure!(appended.unknown.is_empty(), "{} was not taken", series.labels);
        self.storage.commit()?;
        Ok(())
    }
}
