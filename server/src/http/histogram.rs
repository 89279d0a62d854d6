//! Native histograms in JSON: `{"count":"…","sum":"…","buckets":[[boundaries,"lower","upper","count"],…]}`.
//!
//! `boundaries` says which ends belong to a bucket: 0 the upper, 1 the lower, 2 neither, 3 both.

use super::json::{Json, put_float};
use model::Histogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, Span};

struct Bucket {
    boundaries: u8,
    lower: f64,
    upper: f64,
    count: f64,
}

/// Appends `histogram`.
pub fn write(json: &mut Json, histogram: &Histogram) {
    let quoted = |json: &mut Json, value: f64| {
        json.0.push(b'"');
        put_float(&mut json.0, value);
        json.0.push(b'"');
    };
    json.raw("{\"count\":");
    quoted(json, histogram.count());
    json.raw(",\"sum\":");
    quoted(json, histogram.sum);
    let buckets = buckets(histogram);
    if !buckets.is_empty() {
        json.raw(",\"buckets\":").list(buckets, |json, bucket| {
            json.raw("[").int(i64::from(bucket.boundaries));
            for value in [bucket.lower, bucket.upper, bucket.count] {
                json.raw(",");
                quoted(json, value);
            }
            json.raw("]");
        });
    }
    json.raw("}");
}

/// The buckets that counted something, from the lowest to the highest.
fn buckets(histogram: &Histogram) -> Vec<Bucket> {
    let (positive, negative, zero): (Vec<f64>, Vec<f64>, f64) = match &histogram.counts {
        Counts::Integer { positive, negative, zero, .. } => (
            positive.iter().map(|&c| c as f64).collect(),
            negative.iter().map(|&c| c as f64).collect(),
            *zero as f64,
        ),
        Counts::Float { positive, negative, zero, .. } => (positive.clone(), negative.clone(), *zero),
    };
    let bound = |index: i64| match histogram.schema {
        CUSTOM_BUCKETS_SCHEMA => custom_bound(index, &histogram.custom_values),
        schema => exponential_bound(index, schema),
    };
    let custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
    let mut out: Vec<Bucket> = indexed(&histogram.negative_spans, &negative)
        .map(|(i, count)| Bucket { boundaries: 1, lower: -bound(i), upper: -bound(i - 1), count })
        .collect();
    out.reverse();
    let width = histogram.zero_threshold;
    out.push(Bucket { boundaries: 3, lower: -width, upper: width, count: zero });
    out.extend(indexed(&histogram.positive_spans, &positive).map(|(i, count)| Bucket {
        boundaries: if custom && i == 0 { 3 } else { 0 },
        lower: bound(i - 1),
        upper: bound(i),
        count,
    }));
    out.retain(|bucket| bucket.count != 0.0);
    out
}

/// Pairs counts with the bucket numbers that the spans give them.
fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let numbers = spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    numbers.zip(counts.iter().copied())
}

fn custom_bound(index: i64, bounds: &[f64]) -> f64 {
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(i) => bounds.get(i).copied().unwrap_or(f64::INFINITY),
    }
}

/// Upper bound of bucket `index`: 2^(index / 2^schema). The whole powers are split off so that they stay exact.
fn exponential_bound(index: i64, schema: i32) -> f64 {
    if schema <= 0 {
        return power_of_two(index << -schema.max(-20));
    }
    let per_power = 1i64 << schema.min(20);
    let (whole, part) = (index.div_euclid(per_power), index.rem_euclid(per_power));
    (part as f64 / per_power as f64).exp2() * power_of_two(whole)
}

fn power_of_two(exponent: i64) -> f64 {
    (exponent.clamp(-1100, 1100) as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::histogram::ResetHint;

    fn print(histogram: &Histogram) -> String {
        let mut json = Json::default();
        write(&mut json, histogram);
        String::from_utf8(json.0).unwrap()
    }

    fn exponential() -> Histogram {
        Histogram {
            reset_hint: ResetHint::Unknown,
            schema: 0,
            zero_threshold: 0.001,
            sum: 18.4,
            counts: Counts::Integer { count: 12, zero: 2, positive: vec![1, 0, 3], negative: vec![4, 2] },
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
            negative_spans: vec![Span { offset: 1, length: 2 }],
            custom_values: vec![],
        }
    }

    #[test]
    fn buckets_go_from_the_lowest_to_the_highest_and_empty_ones_are_left_out() {
        assert_eq!(
            print(&exponential()),
            r#"{"count":"12","sum":"18.4","buckets":[[1,"-4","-2","2"],[1,"-2","-1","4"],[3,"-0.001","0.001","2"],[0,"0.5","1","1"],[0,"4","8","3"]]}"#
        );
    }

    #[test]
    fn custom_bounds_end_at_infinity() {
        let histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_threshold: 0.0,
            counts: Counts::Float { count: 6.0, zero: 0.0, positive: vec![1.0, 2.0, 3.0], negative: vec![] },
            positive_spans: vec![Span { offset: 0, length: 3 }],
            negative_spans: vec![],
            custom_values: vec![5.0, 10.0],
            ..exponential()
        };
        assert_eq!(
            print(&histogram),
            r#"{"count":"6","sum":"18.4","buckets":[[3,"-Inf","5","1"],[0,"5","10","2"],[0,"10","+Inf","3"]]}"#
        );
    }

    #[test]
    fn a_finer_schema_hits_whole_powers_exactly() {
        assert_eq!(exponential_bound(8, 3), 2.0);
        assert_eq!(exponential_bound(-16, 3), 0.25);
        assert_eq!(exponential_bound(1, -2), 16.0);
        assert_eq!(exponential_bound(1, 1), std::f64::consts::SQRT_2);
    }
}
