//! Metadata as it is kept: never a reason to refuse a request.

use crate::Limits;
use model::{Metadata, MetricType};

/// What is worth keeping of one entry. Nothing if it has no usable name or says nothing; help that is too long is cut.
pub(crate) fn entry(
    family: &[u8],
    metric_type: MetricType,
    help: &[u8],
    unit: &[u8],
    limits: &Limits,
) -> Option<Metadata> {
    let max = limits.metadata_bytes_max;
    let nothing = metric_type == MetricType::Unknown && help.is_empty() && unit.is_empty();
    if family.is_empty() || nothing || family.len() > max || unit.len() > max {
        return None;
    }
    let help = &help[..help.len().min(max)];
    // Cutting may have split a character; a replacement character stands for what is left of it, and for anything else
    // that is not UTF-8: the text is for people.
    Some(Metadata {
        family: std::str::from_utf8(family).ok()?.to_string(),
        metric_type,
        help: String::from_utf8_lossy(help).into_owned(),
        unit: String::from_utf8_lossy(unit).into_owned(),
    })
}

/// The family that a series belongs to, by its type: remote write 2 sends metadata with each series and without the
/// family's name.
///
/// A counter keeps its `_total`: that is what the text format calls the family, and what metadata is looked up by.
pub(crate) fn family(name: &[u8], metric_type: MetricType) -> &[u8] {
    let suffixes: &[&[u8]] = match metric_type {
        MetricType::Histogram => &[b"_bucket", b"_sum", b"_count"],
        MetricType::GaugeHistogram => &[b"_bucket", b"_gsum", b"_gcount"],
        MetricType::Summary => &[b"_sum", b"_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix)).filter(|f| !f.is_empty()).unwrap_or(name)
}
