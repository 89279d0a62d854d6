//! A small world to put an engine into: a disk, a clock, and short ways to write and read.

use disk::Vfs;
use disk::log;
use model::{
    Appended, Batch, BatchSeries, Histogram, HistogramRow, Labels, Matcher, Samples, Selection, Sink, Source,
    TimeRange, Timestamp,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use storage::{Engine, Options};

/// Everything an engine needs, and what survives it.
pub struct World {
    pub vfs: Arc<dyn Vfs>,
    pub options: Options,
    pub now: Arc<AtomicI64>,
    _dir: Option<tempfile::TempDir>,
}

/// Windows are 1,000 ms in these tests.
pub const WINDOW: i64 = 1000;

pub fn options(dir: impl Into<PathBuf>) -> Options {
    // Not random, but never the same twice.
    let drawn = AtomicU64::new(0);
    let random = move || {
        u128::from(drawn.fetch_add(1, Relaxed) + 1).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
    };
    let mut options = Options::new(dir, random);
    options.shards = 4;
    options.block_window_ms = WINDOW;
    options.future_max_ms = 100 * WINDOW;
    options.disk_reserve_bytes = 0;
    options.wal = log::Options { segment_bytes: 64 << 10, preallocate: false, ..log::Options::default() };
    options
}

impl World {
    /// On a real disk.
    pub fn real() -> World {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path().join("data"));
        World { vfs: Arc::new(disk::RealVfs), options, now: Arc::new(AtomicI64::new(1)), _dir: Some(dir) }
    }

    /// On a disk of one's own.
    pub fn on(vfs: Arc<dyn Vfs>) -> World {
        World { vfs, options: options("/data"), now: Arc::new(AtomicI64::new(1)), _dir: None }
    }

    pub fn open(&self) -> Arc<Engine> {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> storage::Result<Arc<Engine>> {
        let now = self.now.clone();
        let clock = Arc::new(move || Timestamp(now.load(Relaxed)));
        Engine::open(self.vfs.clone(), self.options.clone(), clock, &|_| ())
    }

    pub fn set_now(&self, now: i64) {
        self.now.store(now, Relaxed);
    }
}

/// `name{i="i"}`.
pub fn labels(name: &str, i: u32) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &i.to_string()), ("job", "test")]).unwrap()
}

/// Puts together a batch.
#[derive(Default)]
pub struct Rows(pub Batch);

impl Rows {
    fn series(&mut self, sink: &dyn Sink, labels: &Labels) -> &mut BatchSeries {
        let batch = &mut self.0;
        batch.series.push(BatchSeries {
            id: sink.key().id(labels.as_bytes()),
            checked: true,
            labels_at: batch.bytes.len() as u32,
            labels_len: labels.as_bytes().len() as u32,
            floats_at: batch.timestamps.len() as u32,
            floats_len: 0,
            histograms_at: batch.histograms.len() as u32,
            histograms_len: 0,
        });
        batch.bytes.extend_from_slice(labels.as_bytes());
        batch.series.last_mut().unwrap()
    }

    pub fn floats(mut self, sink: &dyn Sink, labels: &Labels, rows: &[(i64, f64)]) -> Rows {
        self.series(sink, labels).floats_len = rows.len() as u32;
        self.0.timestamps.extend(rows.iter().map(|r| r.0));
        self.0.values.extend(rows.iter().map(|r| r.1.to_bits()));
        if !self.0.starts.is_empty() {
            self.0.starts.resize(self.0.timestamps.len(), 0);
        }
        self
    }

    pub fn with_starts(mut self, sink: &dyn Sink, labels: &Labels, rows: &[(i64, i64, f64)]) -> Rows {
        self.0.starts.resize(self.0.timestamps.len(), 0);
        self.series(sink, labels).floats_len = rows.len() as u32;
        self.0.timestamps.extend(rows.iter().map(|r| r.0));
        self.0.starts.extend(rows.iter().map(|r| r.1));
        self.0.values.extend(rows.iter().map(|r| r.2.to_bits()));
        self
    }

    pub fn histograms(mut self, sink: &dyn Sink, labels: &Labels, rows: &[(i64, i64, Histogram)]) -> Rows {
        self.series(sink, labels).histograms_len = rows.len() as u32;
        let row =
            |r: &(i64, i64, Histogram)| HistogramRow { timestamp: r.0, start: r.1, histogram: r.2.clone() };
        self.0.histograms.extend(rows.iter().map(row));
        self
    }

    pub fn unchecked(mut self) -> Rows {
        self.0.series.iter_mut().for_each(|s| s.checked = false);
        self
    }

    pub fn append(&self, engine: &Engine) -> Appended {
        engine.append(&Arc::new(self.0.clone()), None).unwrap()
    }
}

/// Whether what was appended may be acknowledged now.
pub fn is_durable(appended: &mut Appended) -> Poll<Result<(), model::Error>> {
    appended.durable.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Appends floats to one series and commits.
pub fn write(engine: &Engine, labels: &Labels, rows: &[(i64, f64)]) {
    let mut appended = Rows::default().floats(engine, labels, rows).append(engine);
    assert!(appended.unknown.is_empty());
    assert_eq!(appended.rejected, []);
    engine.commit().unwrap();
    assert!(matches!(is_durable(&mut appended), Poll::Ready(Ok(()))));
}

/// A histogram that differs by its count.
pub fn histogram(count: u64) -> Histogram {
    Histogram {
        reset_hint: Default::default(),
        schema: 3,
        zero_threshold: 0.001,
        sum: count as f64 * 1.5,
        counts: model::histogram::Counts::Integer {
            count,
            zero: 0,
            positive: vec![count as i64],
            negative: vec![],
        },
        positive_spans: vec![model::histogram::Span { offset: 1, length: 1 }],
        negative_spans: vec![],
        custom_values: vec![],
    }
}

/// A series' samples in a form that can be compared and printed: raw bits, so that NaNs are told apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plain {
    /// Timestamp, start timestamp, bits.
    pub floats: Vec<(i64, i64, u64)>,
    pub histograms: Vec<(i64, i64, Histogram)>,
}

pub fn plain(samples: &Samples) -> Plain {
    let start = |i: usize| samples.starts.get(i).copied().unwrap_or(0);
    let times = samples.timestamps.iter().zip(&samples.values);
    Plain {
        floats: times.enumerate().map(|(i, (&t, v))| (t, start(i), v.to_bits())).collect(),
        histograms: samples.histograms.iter().map(|(t, s, h)| (*t, *s, (**h).clone())).collect(),
    }
}

/// All that matches, by labels.
pub fn read(engine: &Engine, matchers: &[Matcher], range: TimeRange) -> BTreeMap<Labels, Plain> {
    let selection = Selection { matchers: matchers.to_vec(), range, series_max: usize::MAX, shards: None };
    let set = engine.select(&selection).unwrap();
    let mut all = BTreeMap::new();
    let mut samples = Samples::default();
    for i in 0..set.len() {
        set.read(i, range, &mut samples).unwrap();
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
        if !samples.is_empty() {
            assert!(all.insert(set.labels(i), plain(&samples)).is_none(), "{} twice", set.labels(i));
        }
    }
    all
}

pub fn read_all(engine: &Engine) -> BTreeMap<Labels, Plain> {
    read(engine, &[], TimeRange::ALL)
}

/// The floats of one series, as numbers.
pub fn floats(engine: &Engine, labels: &Labels) -> Vec<(i64, f64)> {
    let all = read_all(engine);
    let plain = all.get(labels).cloned().unwrap_or_default();
    plain.floats.iter().map(|&(t, _, bits)| (t, f64::from_bits(bits))).collect()
}
