//! Where data is read from.

use crate::{Error, Histogram, Labels, Matcher, Metadata, SeriesId, ShardSet, TimeRange};
use std::sync::Arc;

/// Gives series and their samples. Blocking; called from threads that may wait.
pub trait Source: Send + Sync {
    /// The series that match and have, or may have, samples in the range. In no particular order, each label set once.
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error>;

    /// [`Source::select`] for every selector of a query, so that a source that is far away is asked for all of them at once.
    fn select_all(&self, selections: &[Selection]) -> Result<Vec<Box<dyn SeriesSet>>, Error> {
        selections.iter().map(|selection| self.select(selection)).collect()
    }

    /// The label sets that [`LabelQuery`] asks for, sorted.
    fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, Error>;

    /// The names of all labels of the series asked for, sorted.
    fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, Error>;

    /// All values of the label `name` among the series asked for, sorted.
    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Limited<String>, Error>;

    /// What is known of one metric family or of all, sorted by name.
    fn metadata(&self, family: Option<&str>) -> Result<Vec<Metadata>, Error>;
}

/// What one selector of a query needs.
#[derive(Clone, Debug)]
pub struct Selection {
    /// All must hold. A missing label counts as the empty string.
    pub matchers: Vec<Matcher>,
    /// The samples that are wanted; both ends included.
    pub range: TimeRange,
    /// Most series to give before answering [`Error::Limit`].
    pub series_max: usize,
    /// Only series of these shards; `None` for all.
    pub shards: Option<ShardSet>,
}

/// What a lookup of labels or series asks for.
#[derive(Clone, Debug)]
pub struct LabelQuery {
    /// A series counts if it satisfies one of these lists of matchers. None at all means every series.
    pub selectors: Vec<Vec<Matcher>>,
    /// A series counts if it may have samples in here.
    pub range: TimeRange,
    /// Most items to give; the answer says whether it was cut.
    pub limit: Option<usize>,
    /// Only series of these shards; `None` for all.
    pub shards: Option<ShardSet>,
}

/// A list that may have been cut at a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there were more.
    pub truncated: bool,
    /// What the reader should be told: copies that did not answer.
    pub warnings: Vec<String>,
}

/// The series that a selector matched. Samples are decoded when asked for, on the caller's thread, into the caller's
/// buffers, so that many threads can read one set.
pub trait SeriesSet: Send + Sync {
    /// How many series there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of series `index`.
    fn id(&self, index: usize) -> SeriesId;

    /// The labels of series `index`.
    fn labels(&self, index: usize) -> Labels;

    /// Replaces the content of `into` with the samples of series `index` in `range`: sorted by timestamp, one per
    /// timestamp, stale markers included.
    fn read(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), Error>;

    /// What the reader should be told: copies that did not answer.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// Samples of one series, in columns; floats and histograms apart, each sorted by time, no timestamp in both.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Milliseconds.
    pub timestamps: Vec<i64>,
    /// As many as timestamps; raw bits are kept, stale markers too.
    pub values: Vec<f64>,
    /// Start timestamps in milliseconds, 0 for unset; empty when no sample has one.
    pub starts: Vec<i64>,
    /// Native histograms with timestamp and start timestamp.
    pub histograms: Vec<(i64, i64, Arc<Histogram>)>,
}

impl Samples {
    /// Empties the columns and keeps their memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty() && self.histograms.is_empty()
    }

    /// Drops what lies outside `range`.
    pub fn restrict(&mut self, range: TimeRange) {
        let from = self.timestamps.partition_point(|&t| t < range.min.0);
        let to = self.timestamps.partition_point(|&t| t <= range.max.0).max(from);
        self.timestamps.truncate(to);
        self.timestamps.drain(..from);
        self.values.truncate(to);
        self.values.drain(..from);
        if !self.starts.is_empty() {
            self.starts.truncate(to);
            self.starts.drain(..from);
        }
        self.histograms.retain(|h| range.contains(h.0));
    }
}
