//! Joining the samples that several places have of one series.
//!
//! For one timestamp the greatest value wins ([`crate::value`]: stale marker < float < histogram, then by value); of equal
//! values the later start timestamp. That is a maximum under a total order, so copies may be merged in any order and
//! any number of times.

use crate::value::cmp_floats;
use crate::{Histogram, Samples};
use std::cmp::Ordering;
use std::sync::Arc;

/// Merges the samples of `parts` into `into`, which is emptied first. Each part is sorted by time and has one sample a
/// timestamp, and so does the result.
pub fn merge(parts: &[&Samples], into: &mut Samples) {
    into.clear();
    let mut parts: Vec<&Samples> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.sort_by_key(|part| first(part));
    let mut scratch = Samples::default();
    for part in parts {
        if last(into).is_none_or(|last| Some(last) < first(part)) {
            append(into, part);
        } else {
            scratch.clear();
            merge_two(into, part, &mut scratch);
            std::mem::swap(into, &mut scratch);
        }
    }
}

/// What `own` lacks of `theirs`: samples at timestamps where `own` has none, or one that loses. Merged with `own` they give what all of
/// `theirs` would give. `own` is sorted and has one sample a timestamp, `theirs` may be in any order.
pub fn lacking(own: &Samples, theirs: &Samples, into: &mut Samples) {
    into.clear();
    let histogram_at = |t: i64| own.histograms.binary_search_by_key(&t, |h| h.0);
    for (i, (&t, &value)) in theirs.timestamps.iter().zip(&theirs.values).enumerate() {
        let start = start_at(theirs, i);
        let loses =
            |j: usize| cmp_floats(own.values[j], value).then_with(|| start_at(own, j).cmp(&start)).is_lt();
        if histogram_at(t).is_err() && own.timestamps.binary_search(&t).map_or(true, loses) {
            push_float(into, t, value, start);
        }
    }
    let lacks = |theirs: &&(i64, i64, Arc<Histogram>)| {
        histogram_at(theirs.0).map_or(true, |j| cmp_histograms(&own.histograms[j], theirs).is_lt())
    };
    into.histograms.extend(theirs.histograms.iter().filter(lacks).cloned());
}

/// Sorts samples that arrived in any order and keeps the winner of each timestamp. `starts` may be empty.
pub fn normalize(samples: &mut Samples) {
    let floats_sorted = samples.timestamps.is_sorted_by(|a, b| a < b);
    let histograms_sorted = samples.histograms.is_sorted_by(|a, b| a.0 < b.0);
    if floats_sorted && histograms_sorted && (samples.histograms.is_empty() || samples.timestamps.is_empty())
    {
        return;
    }
    let mut floats: Vec<(i64, f64, i64)> = (samples.timestamps.iter().zip(&samples.values).enumerate())
        .map(|(i, (&t, &value))| (t, value, start_at(samples, i)))
        .collect();
    floats.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| cmp_floats(a.1, b.1)).then_with(|| a.2.cmp(&b.2)));
    let mut histograms = std::mem::take(&mut samples.histograms);
    histograms.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| cmp_histograms(a, b)));
    samples.clear();
    let mut h = histograms.into_iter().peekable();
    let mut f = floats.into_iter().peekable();
    loop {
        let at = match (f.peek(), h.peek()) {
            (Some(float), Some(histogram)) => float.0.min(histogram.0),
            (Some(float), None) => float.0,
            (None, Some(histogram)) => histogram.0,
            (None, None) => break,
        };
        let float = std::iter::from_fn(|| f.next_if(|float| float.0 == at)).last();
        let histogram = std::iter::from_fn(|| h.next_if(|histogram| histogram.0 == at)).last();
        match (float, histogram) {
            (_, Some(histogram)) => samples.histograms.push(histogram),
            (Some((t, value, start)), None) => push_float(samples, t, value, start),
            (None, None) => unreachable!("BUG: no sample at the smallest timestamp"),
        }
    }
}

/// Appends a float; `starts` comes into being with the first start timestamp.
pub fn push_float(samples: &mut Samples, timestamp: i64, value: f64, start: i64) {
    if start != 0 && samples.starts.is_empty() {
        samples.starts.resize(samples.timestamps.len(), 0);
    }
    samples.timestamps.push(timestamp);
    samples.values.push(value);
    if !samples.starts.is_empty() || start != 0 {
        samples.starts.push(start);
    }
}

fn start_at(samples: &Samples, i: usize) -> i64 {
    samples.starts.get(i).copied().unwrap_or(0)
}

/// The earliest timestamp.
fn first(samples: &Samples) -> Option<i64> {
    let float = samples.timestamps.first().copied();
    let histogram = samples.histograms.first().map(|h| h.0);
    float.into_iter().chain(histogram).min()
}

/// The latest timestamp.
fn last(samples: &Samples) -> Option<i64> {
    let histogram = samples.histograms.last().map(|h| h.0);
    samples.timestamps.last().copied().max(histogram)
}

fn append(into: &mut Samples, part: &Samples) {
    if !part.starts.is_empty() && into.starts.is_empty() {
        into.starts.resize(into.timestamps.len(), 0);
    }
    into.timestamps.extend_from_slice(&part.timestamps);
    into.values.extend_from_slice(&part.values);
    if !part.starts.is_empty() {
        into.starts.extend_from_slice(&part.starts);
    } else if !into.starts.is_empty() {
        into.starts.resize(into.timestamps.len(), 0);
    }
    into.histograms.extend_from_slice(&part.histograms);
}

fn cmp_histograms(a: &(i64, i64, Arc<Histogram>), b: &(i64, i64, Arc<Histogram>)) -> Ordering {
    if Arc::ptr_eq(&a.2, &b.2) { a.1.cmp(&b.1) } else { a.2.cmp_conflict(&b.2).then_with(|| a.1.cmp(&b.1)) }
}

fn merge_two(a: &Samples, b: &Samples, into: &mut Samples) {
    // Histograms first: a float loses to a histogram of the same timestamp from the other side.
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.histograms.get(i), b.histograms.get(j)) {
        let order = x.0.cmp(&y.0);
        into.histograms.push(match order {
            Ordering::Less => x.clone(),
            Ordering::Greater => y.clone(),
            Ordering::Equal => {
                if cmp_histograms(x, y).is_ge() {
                    x.clone()
                } else {
                    y.clone()
                }
            }
        });
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    into.histograms.extend_from_slice(&a.histograms[i..]);
    into.histograms.extend_from_slice(&b.histograms[j..]);

    let histograms = std::mem::take(&mut into.histograms);
    let mut blocked = histograms.iter().map(|h| h.0).peekable();
    let (mut i, mut j) = (0, 0);
    loop {
        let order = match (a.timestamps.get(i), b.timestamps.get(j)) {
            (Some(x), Some(y)) => x.cmp(y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let from_a = match order {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                cmp_floats(a.values[i], b.values[j]).then_with(|| start_at(a, i).cmp(&start_at(b, j))).is_ge()
            }
        };
        let (from, at) = if from_a { (a, i) } else { (b, j) };
        let t = from.timestamps[at];
        while blocked.next_if(|&h| h < t).is_some() {}
        if blocked.peek() != Some(&t) {
            push_float(into, t, from.values[at], start_at(from, at));
        }
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    into.histograms = histograms;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{Counts, ResetHint};
    use proptest::prelude::*;

    fn histogram(count: u64) -> Arc<Histogram> {
        Arc::new(Histogram {
            reset_hint: ResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            sum: if count == 0 { crate::value::stale() } else { 1.0 },
            counts: Counts::Integer { count, zero: count, positive: vec![], negative: vec![] },
            positive_spans: vec![],
            negative_spans: vec![],
            custom_values: vec![],
        })
    }

    /// Everything that tells samples apart, bit for bit.
    fn rows(samples: &Samples) -> Vec<(i64, Option<u64>, Option<String>, i64)> {
        assert!(samples.starts.is_empty() || samples.starts.len() == samples.timestamps.len());
        assert_eq!(samples.values.len(), samples.timestamps.len());
        let floats = (0..samples.timestamps.len())
            .map(|i| (samples.timestamps[i], Some(samples.values[i].to_bits()), None, start_at(samples, i)));
        let histograms = samples.histograms.iter().map(|(t, st, h)| (*t, None, Some(format!("{h:?}")), *st));
        let mut rows: Vec<_> = floats.chain(histograms).collect();
        rows.sort();
        assert!(rows.windows(2).all(|w| w[0].0 < w[1].0), "one sample a timestamp");
        assert!(samples.timestamps.is_sorted() && samples.histograms.is_sorted_by_key(|h| h.0));
        rows
    }

    fn merged(parts: &[&Samples]) -> Samples {
        let mut into = Samples { timestamps: vec![1], values: vec![1.0], ..Samples::default() };
        merge(parts, &mut into);
        into
    }

    /// Samples in any order, with repeated timestamps.
    fn unsorted() -> impl Strategy<Value = Samples> {
        let value = prop::sample::select(vec![
            crate::value::stale(),
            0.0,
            -0.0,
            1.0,
            f64::NAN,
            f64::from_bits(0xfff8_0000_0000_0001),
            f64::INFINITY,
        ]);
        let float = (0i64..30, value, prop_oneof![3 => Just(0i64), 1 => 1i64..3]);
        let hist = (0i64..30, 0i64..3, (0u64..3).prop_map(histogram));
        (prop::collection::vec(float, 0..25), prop::collection::vec(hist, 0..5)).prop_map(
            |(floats, histograms)| {
                let mut samples = Samples::default();
                for (t, value, start) in floats {
                    push_float(&mut samples, t, value, start);
                }
                samples.histograms = histograms;
                samples
            },
        )
    }

    fn samples() -> impl Strategy<Value = Samples> {
        unsorted().prop_map(|mut samples| {
            normalize(&mut samples);
            samples
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative(a in samples(), b in samples(), c in samples()) {
            prop_assert_eq!(rows(&merged(&[&a, &b, &c])), rows(&merged(&[&c, &a, &b])));
            prop_assert_eq!(rows(&merged(&[&a, &b])), rows(&merged(&[&b, &a])));
        }

        #[test]
        fn merging_is_associative(a in samples(), b in samples(), c in samples()) {
            let left = merged(&[&merged(&[&a, &b]), &c]);
            let right = merged(&[&a, &merged(&[&b, &c])]);
            prop_assert_eq!(rows(&left), rows(&right));
            prop_assert_eq!(rows(&left), rows(&merged(&[&a, &b, &c])));
        }

        #[test]
        fn merging_is_idempotent(a in samples(), b in samples()) {
            prop_assert_eq!(rows(&merged(&[&a, &a])), rows(&a));
            let both = merged(&[&a, &b]);
            prop_assert_eq!(rows(&merged(&[&both, &a])), rows(&both));
        }

        #[test]
        fn merging_disjoint_spans_is_concatenation(a in samples(), b in samples()) {
            let mut later = b.clone();
            later.timestamps.iter_mut().for_each(|t| *t += 100);
            later.histograms.iter_mut().for_each(|h| h.0 += 100);
            let mut expected = rows(&a);
            expected.extend(rows(&later));
            prop_assert_eq!(rows(&merged(&[&later, &a])), expected);
        }

        #[test]
        fn what_is_lacking_completes_and_nothing_of_it_was_there(own in samples(), theirs in samples()) {
            let mut lacking = Samples::default();
            super::lacking(&own, &theirs, &mut lacking);
            let whole = rows(&merged(&[&own, &theirs]));
            prop_assert_eq!(&rows(&merged(&[&own, &lacking])), &whole);
            let had = rows(&own);
            prop_assert!(rows(&lacking).iter().all(|row| whole.contains(row) && !had.contains(row)));
            let mut nothing = Samples::default();
            super::lacking(&merged(&[&own, &theirs]), &theirs, &mut nothing);
            prop_assert!(nothing.is_empty());
        }

        #[test]
        fn normalizing_equals_merging_one_by_one(raw in unsorted()) {
            let mut parts = Vec::new();
            for i in 0..raw.timestamps.len() {
                let mut one = Samples::default();
                push_float(&mut one, raw.timestamps[i], raw.values[i], start_at(&raw, i));
                parts.push(one);
            }
            for h in &raw.histograms {
                parts.push(Samples { histograms: vec![h.clone()], ..Samples::default() });
            }
            let mut sorted = raw.clone();
            normalize(&mut sorted);
            prop_assert_eq!(rows(&sorted), rows(&merged(&parts.iter().collect::<Vec<_>>())));
        }
    }

    #[test]
    fn a_histogram_beats_a_float_of_the_same_timestamp() {
        let float = Samples { timestamps: vec![5, 6], values: vec![f64::NAN, 1.0], ..Samples::default() };
        let hist = Samples { histograms: vec![(5, 0, histogram(0))], ..Samples::default() };
        let both = merged(&[&float, &hist]);
        assert_eq!(both.timestamps, [6]);
        assert_eq!(both.histograms.len(), 1);
    }
}
