//! What a metric is about: type, help, unit.

/// A metric's type, numbered as in remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricType {
    /// Not told.
    #[default]
    Unknown = 0,
    /// Only goes up, or restarts at zero.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Cumulative buckets, or a native histogram.
    Histogram = 3,
    /// A histogram whose buckets go up and down.
    GaugeHistogram = 4,
    /// Precomputed quantiles.
    Summary = 5,
    /// Constant 1, information in labels.
    Info = 6,
    /// One series per state.
    StateSet = 7,
}

impl MetricType {
    /// From the number on the wire; unknown numbers are [`MetricType::Unknown`].
    pub fn from_wire(number: u64) -> MetricType {
        use MetricType::*;
        [Unknown, Counter, Gauge, Histogram, GaugeHistogram, Summary, Info, StateSet]
            .get(usize::try_from(number).unwrap_or(usize::MAX))
            .copied()
            .unwrap_or_default()
    }

    /// As in the text format and in `/api/v1/metadata`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        }
    }
}

/// What is known about one metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metadata {
    /// The family's name, without `_total`, `_bucket` and the like.
    pub family: String,
    /// Its type.
    pub metric_type: MetricType,
    /// One sentence for people.
    pub help: String,
    /// The unit, or empty.
    pub unit: String,
}
