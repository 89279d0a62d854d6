//! A sink in memory: a map by id that keeps the contract of [`Sink`] to the letter.

use model::value::Value;
use model::{
    Appended, Batch, Error, Histogram, Labels, Metadata, RejectReason, Rejection, SeriesId, SeriesKey, Sink,
    TimeRange, Written, labels,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

pub const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);

#[derive(Default)]
pub struct Series {
    labels: Labels,
    floats: BTreeMap<i64, (f64, i64)>,
    histograms: BTreeMap<i64, (Histogram, i64)>,
}

pub struct Memory {
    pub series: Mutex<BTreeMap<SeriesId, Series>>,
    pub metadata: Mutex<Vec<Metadata>>,
    /// Rows outside are rejected.
    pub range: TimeRange,
    /// New series beyond are rejected.
    pub series_max: usize,
    /// What every append fails with.
    pub failure: Option<Error>,
    /// Series sent by all appends so far.
    pub appends: Mutex<Vec<usize>>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            series: Mutex::default(),
            metadata: Mutex::default(),
            range: TimeRange::ALL,
            series_max: usize::MAX,
            failure: None,
            appends: Mutex::default(),
        }
    }
}

impl Memory {
    /// Everything stored, one line a series: `{labels} timestamp=value…`.
    pub fn dump(&self) -> Vec<String> {
        let series = self.series.lock().unwrap();
        let mut lines: Vec<String> = series
            .values()
            .map(|s| {
                let floats = s.floats.iter().map(|(t, (v, start))| match start {
                    0 => format!(" {t}={v}"),
                    start => format!(" {t}={v}@{start}"),
                });
                let histograms =
                    s.histograms.iter().map(|(t, (h, _))| format!(" {t}=histogram({})", h.count()));
                format!("{}{}", s.labels, floats.chain(histograms).collect::<String>())
            })
            .collect();
        lines.sort();
        lines
    }

    /// Bits of one float.
    pub fn bits(&self, series: &str, timestamp: i64) -> Option<u64> {
        let all = self.series.lock().unwrap();
        let one = all.values().find(|s| s.labels.to_string() == series)?;
        one.floats.get(&timestamp).map(|(v, _)| v.to_bits())
    }

    /// One histogram.
    pub fn histogram(&self, series: &str, timestamp: i64) -> Option<Histogram> {
        let all = self.series.lock().unwrap();
        let one = all.values().find(|s| s.labels.to_string() == series)?;
        one.histograms.get(&timestamp).map(|(h, _)| h.clone())
    }

    pub fn metadata(&self) -> Vec<Metadata> {
        self.metadata.lock().unwrap().clone()
    }
}

impl Sink for Memory {
    fn key(&self) -> SeriesKey {
        KEY
    }

    fn append(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut all = self.series.lock().unwrap();
        let everything: Vec<u32> = (0..batch.series.len() as u32).collect();
        let indices = only.unwrap_or(&everything);
        self.appends.lock().unwrap().push(indices.len());
        let (mut written, mut unknown, mut rejected) = (Written::default(), Vec::new(), Vec::new());
        for &index in indices {
            let one = &batch.series[index as usize];
            let rows = one.floats_len + one.histograms_len;
            let first = batch.timestamps[one.floats()]
                .iter()
                .copied()
                .chain(batch.histograms[one.histograms()].iter().map(|h| h.timestamp))
                .next();
            let mut reject = |timestamp, rows, reason| {
                rejected.push(Rejection { series: index, timestamp, rows, reason });
            };
            if !all.contains_key(&one.id) {
                if !one.checked {
                    unknown.push(index);
                    continue;
                }
                if all.len() >= self.series_max {
                    reject(first.unwrap_or(0), rows, RejectReason::SeriesLimit);
                    continue;
                }
                let bytes = batch.labels(one);
                assert!(labels::is_canonical(bytes), "a checked series that is not canonical: {bytes:?}");
                assert_eq!(one.id, KEY.id(bytes), "an id that is not that of the labels");
                let series = Series { labels: Labels::from_canonical(bytes), ..Series::default() };
                all.insert(one.id, series);
            }
            let series = all.get_mut(&one.id).unwrap();
            if one.checked {
                assert_eq!(series.labels.as_bytes(), batch.labels(one), "two label sets under one id");
            }
            let mut outside: BTreeMap<&str, (i64, u32, RejectReason)> = BTreeMap::new();
            let mut inside = |t: i64| {
                let reason = if t < self.range.min.0 {
                    RejectReason::TooOld
                } else if t > self.range.max.0 {
                    RejectReason::TooFarInFuture
                } else {
                    return true;
                };
                outside.entry(reason.as_str()).or_insert((t, 0, reason)).1 += 1;
                false
            };
            for row in one.floats() {
                let t = batch.timestamps[row];
                if inside(t) {
                    let new = f64::from_bits(batch.values[row]);
                    let entry = series.floats.entry(t).or_insert((new, batch.start(row)));
                    if Value::Float(new).cmp_conflict(&Value::Float(entry.0)).is_gt() {
                        *entry = (new, batch.start(row));
                    }
                    written.floats += 1;
                }
            }
            for row in &batch.histograms[one.histograms()] {
                if inside(row.timestamp) {
                    series.histograms.insert(row.timestamp, (row.histogram.clone(), row.start));
                    written.histograms += 1;
                }
            }
            for (timestamp, rows, reason) in outside.into_values() {
                reject(timestamp, rows, reason);
            }
        }
        Ok(Appended { durable: Box::pin(std::future::ready(Ok(()))), written, unknown, rejected })
    }

    fn describe(&self, metadata: &[Metadata]) -> Result<(), Error> {
        self.metadata.lock().unwrap().extend_from_slice(metadata);
        Ok(())
    }
}
