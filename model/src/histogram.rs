//! Native histograms: exponential (schema -4 to 8) or with custom bounds (schema -53).
//!
//! The same type holds integer and float histograms; integers are kept exactly, as `f64` holds them up to 2^53 and
//! [`Counts::Integer`] beyond.

use crate::varint;
use std::cmp::Ordering;
use std::ops::RangeInclusive;

/// The schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// The schemas of histograms with exponential bucket bounds.
pub const EXPONENTIAL_SCHEMAS: RangeInclusive<i32> = -4..=8;

/// Schemas that are set aside for exponential buckets. Those above [`EXPONENTIAL_SCHEMAS`] can be brought down to it.
pub const RESERVED_SCHEMAS: RangeInclusive<i32> = -9..=52;

/// One native histogram sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Whether the sender says that a counter was reset just before.
    pub reset_hint: ResetHint,
    /// -4 to 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket, to either side.
    pub zero_threshold: f64,
    /// Sum of observations; the stale marker's bits make the whole histogram a stale marker.
    pub sum: f64,
    /// All counts.
    pub counts: Counts,
    /// Which buckets above zero are there.
    pub positive_spans: Vec<Span>,
    /// Which buckets below zero are there.
    pub negative_spans: Vec<Span>,
    /// Upper bounds, for [`CUSTOM_BUCKETS_SCHEMA`] only.
    pub custom_values: Vec<f64>,
}

/// A run of adjacent buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Gap to the previous span; index of the first bucket for the first span.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// Counts of a histogram: absolute, never deltas.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// As counted.
    Integer {
        /// All observations.
        count: u64,
        /// Those in the zero bucket.
        zero: u64,
        /// Per bucket of the positive spans.
        positive: Vec<i64>,
        /// Per bucket of the negative spans.
        negative: Vec<i64>,
    },
    /// As computed.
    Float {
        /// All observations.
        count: f64,
        /// Those in the zero bucket.
        zero: f64,
        /// Per bucket of the positive spans.
        positive: Vec<f64>,
        /// Per bucket of the negative spans.
        negative: Vec<f64>,
    },
}

/// What the sender knows about counter resets, numbered as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing; compare with the sample before.
    #[default]
    Unknown = 0,
    /// This is the first sample after a reset.
    Reset = 1,
    /// There was no reset.
    NoReset = 2,
    /// Not a counter.
    Gauge = 3,
}

impl ResetHint {
    /// From the number on the wire.
    pub fn from_wire(number: u64) -> ResetHint {
        match number {
            1 => ResetHint::Reset,
            2 => ResetHint::NoReset,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        }
    }
}

impl Histogram {
    /// Whether this is a stale marker.
    pub fn is_stale(&self) -> bool {
        crate::value::is_stale(self.sum)
    }

    /// Number of observations, as a float.
    pub fn count(&self) -> f64 {
        match &self.counts {
            Counts::Integer { count, .. } => *count as f64,
            Counts::Float { count, .. } => *count,
        }
    }

    /// The conflict order among histograms: count, then sum, then canonical bytes. Stale markers come first.
    pub fn cmp_conflict(&self, other: &Histogram) -> Ordering {
        let bytes = |h: &Histogram| {
            let mut out = Vec::new();
            h.encode(&mut out);
            out
        };
        (!self.is_stale())
            .cmp(&!other.is_stale())
            .then_with(|| self.count().total_cmp(&other.count()))
            .then_with(|| self.sum.total_cmp(&other.sum))
            .then_with(|| bytes(self).cmp(&bytes(other)))
    }

    /// Appends the canonical bytes: what the log and the blocks hold.
    ///
    /// ```text
    /// flags: u8 (bit 0 float, bits 1-2 reset hint) | schema: zigzag varint | zero_threshold: f64 LE | sum: f64 LE
    /// count, zero: varint or f64 LE
    /// positive spans, negative spans: varint n, n x (zigzag varint offset, varint length)
    /// positive, negative: varint n, then n x (zigzag varint of the difference to the one before | f64 LE)
    /// custom values: varint n, n x f64 LE
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        let float = matches!(self.counts, Counts::Float { .. });
        out.push(u8::from(float) | (self.reset_hint as u8) << 1);
        varint::put(out, varint::zigzag(i64::from(self.schema)));
        out.extend_from_slice(&self.zero_threshold.to_bits().to_le_bytes());
        out.extend_from_slice(&self.sum.to_bits().to_le_bytes());
        let put_floats = |out: &mut Vec<u8>, values: &[f64]| {
            varint::put(out, values.len() as u64);
            values.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes()));
        };
        let put_spans = |out: &mut Vec<u8>, spans: &[Span]| {
            varint::put(out, spans.len() as u64);
            for span in spans {
                varint::put(out, varint::zigzag(i64::from(span.offset)));
                varint::put(out, u64::from(span.length));
            }
        };
        let put_deltas = |out: &mut Vec<u8>, values: &[i64]| {
            varint::put(out, values.len() as u64);
            let mut before = 0i64;
            for &v in values {
                varint::put(out, varint::zigzag(v.wrapping_sub(before)));
                before = v;
            }
        };
        match &self.counts {
            Counts::Integer { count, zero, .. } => {
                varint::put(out, *count);
                varint::put(out, *zero);
            }
            Counts::Float { count, zero, .. } => {
                out.extend_from_slice(&count.to_bits().to_le_bytes());
                out.extend_from_slice(&zero.to_bits().to_le_bytes());
            }
        }
        put_spans(out, &self.positive_spans);
        put_spans(out, &self.negative_spans);
        match &self.counts {
            Counts::Integer { positive, negative, .. } => {
                put_deltas(out, positive);
                put_deltas(out, negative);
            }
            Counts::Float { positive, negative, .. } => {
                put_floats(out, positive);
                put_floats(out, negative);
            }
        }
        put_floats(out, &self.custom_values);
    }

    /// Reads one histogram from the front of `bytes` and returns it with the rest; `None` when malformed.
    /// Never allocates more than a small multiple of the bytes given.
    pub fn decode(bytes: &[u8]) -> Option<(Histogram, &[u8])> {
        let mut input = Input(bytes);
        let flags = input.byte()?;
        let float = flags & 1 != 0;
        let reset_hint = ResetHint::from_wire(u64::from(flags >> 1 & 3));
        let schema = i32::try_from(varint::unzigzag(input.varint()?)).ok()?;
        let zero_threshold = input.float()?;
        let sum = input.float()?;
        let (mut ints, mut floats) = ((0, 0), (0.0, 0.0));
        if float {
            floats = (input.float()?, input.float()?);
        } else {
            ints = (input.varint()?, input.varint()?);
        }
        let positive_spans = input.list(|i| i.span())?;
        let negative_spans = input.list(|i| i.span())?;
        let counts = if float {
            let (count, zero) = floats;
            Counts::Float {
                count,
                zero,
                positive: input.list(|i| i.float())?,
                negative: input.list(|i| i.float())?,
            }
        } else {
            let (count, zero) = ints;
            Counts::Integer { count, zero, positive: input.deltas()?, negative: input.deltas()? }
        };
        let custom_values = input.list(|i| i.float())?;
        let histogram = Histogram {
            reset_hint,
            schema,
            zero_threshold,
            sum,
            counts,
            positive_spans,
            negative_spans,
            custom_values,
        };
        Some((histogram, input.0))
    }
}

/// Why a histogram contradicts itself. The texts are those that Prometheus's receiver answers with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A schema that nobody has defined.
    #[error(
        "histogram has an unknown schema, which must be between -9 and 52 for exponential buckets, or -53 for custom buckets, got schema {0}"
    )]
    UnknownSchema(i32),
    /// A schema below the supported ones.
    #[error(
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {0}"
    )]
    InvalidSchema(i32),
    /// Exponential buckets with custom bounds.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialWithBounds,
    /// A gap backwards.
    #[error(
        "{side}: span number {number} with offset {offset}: histogram has a span whose offset is negative"
    )]
    NegativeOffset {
        /// `positive side`, `negative side` or `custom buckets`.
        side: &'static str,
        /// Counted from 1.
        number: usize,
        /// As given.
        offset: i32,
    },
    /// Spans that do not cover the buckets.
    #[error(
        "{side}: spans need {need} buckets, have {have} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansMismatch {
        /// `positive side`, `negative side` or `custom buckets`.
        side: &'static str,
        /// Buckets that the spans cover.
        need: u64,
        /// Buckets that are there.
        have: usize,
    },
    /// Fewer than nothing in a bucket.
    #[error(
        "{side}: bucket number {number} has observation count of {count}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucket {
        /// `positive side` or `negative side`.
        side: &'static str,
        /// Counted from 1.
        number: usize,
        /// As given.
        count: f64,
    },
    /// Fewer than nothing in the zero bucket.
    #[error(
        "zero bucket has observation count of {0}: histogram has a bucket whose observation count is negative"
    )]
    NegativeZero(f64),
    /// Fewer than no observations.
    #[error("observation count is {0}: histogram's observation count is negative")]
    NegativeCount(f64),
    /// Buckets hold more than was counted, where NaN observations may be in none.
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    CountTooSmall {
        /// In the buckets.
        found: u128,
        /// As given.
        count: u64,
    },
    /// Buckets hold another number than was counted.
    #[error(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
    )]
    CountMismatch {
        /// In the buckets.
        found: u128,
        /// As given.
        count: u64,
    },
    /// Buckets beyond the last bound.
    #[error(
        "custom buckets: only {bounds} custom bounds defined which is insufficient to cover total span length of {need}: histogram custom bounds are too few"
    )]
    TooFewBounds {
        /// As given.
        bounds: usize,
        /// What the spans cover, gaps included.
        need: u64,
    },
    /// Bounds out of order.
    #[error(
        "custom buckets: previous bound is {previous} and current is {current}: histogram custom bounds must be in strictly increasing order"
    )]
    BoundsOrder {
        /// The bound before.
        previous: f64,
        /// The bound that is not greater.
        current: f64,
    },
    /// The last bucket's bound is implied.
    #[error(
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite"
    )]
    InfiniteBound,
    /// A bound that is no number.
    #[error("custom buckets: histogram custom bounds must not be NaN")]
    NanBound,
    /// Custom buckets have no zero bucket.
    #[error("custom buckets: must have zero count of 0")]
    CustomWithZeroCount,
    /// Custom buckets have no zero bucket.
    #[error("custom buckets: must have zero threshold of 0")]
    CustomWithZeroThreshold,
    /// Custom buckets start at minus infinity by themselves.
    #[error("custom buckets: must not have negative spans")]
    CustomWithNegativeSpans,
    /// Custom buckets start at minus infinity by themselves.
    #[error("custom buckets: must not have negative buckets")]
    CustomWithNegativeBuckets,
}

impl Histogram {
    /// Whether spans, buckets, bounds and counts agree. Schemas up to 52 pass; [`Histogram::reduce_resolution`] makes
    /// them fit to be stored.
    pub fn validate(&self) -> Result<(), Invalid> {
        let (positive, negative) = match &self.counts {
            Counts::Integer { positive, negative, .. } => (positive.len(), negative.len()),
            Counts::Float { positive, negative, .. } => (positive.len(), negative.len()),
        };
        match self.schema {
            CUSTOM_BUCKETS_SCHEMA => self.validate_custom(positive, negative)?,
            schema if !RESERVED_SCHEMAS.contains(&schema) => return Err(Invalid::UnknownSchema(schema)),
            schema if schema < *EXPONENTIAL_SCHEMAS.start() => return Err(Invalid::InvalidSchema(schema)),
            _ => {
                validate_spans("positive side", &self.positive_spans, positive)?;
                validate_spans("negative side", &self.negative_spans, negative)?;
                if !self.custom_values.is_empty() {
                    return Err(Invalid::ExponentialWithBounds);
                }
            }
        }
        self.validate_counts()
    }

    fn validate_counts(&self) -> Result<(), Invalid> {
        fn sum(side: &'static str, buckets: &[i64]) -> Result<u128, Invalid> {
            buckets.iter().enumerate().try_fold(0u128, |sum, (i, &count)| match u128::try_from(count) {
                Ok(count) => Ok(sum + count),
                Err(_) => Err(Invalid::NegativeBucket { side, number: i + 1, count: count as f64 }),
            })
        }
        let positive_or = |side, buckets: &[f64]| match buckets.iter().position(|c| *c < 0.0) {
            Some(i) => Err(Invalid::NegativeBucket { side, number: i + 1, count: buckets[i] }),
            None => Ok(()),
        };
        match &self.counts {
            Counts::Integer { count, zero, positive, negative } => {
                let found =
                    sum("negative side", negative)? + sum("positive side", positive)? + u128::from(*zero);
                let count = *count;
                if self.sum.is_nan() {
                    // An observation of NaN is counted and falls into no bucket.
                    if found > u128::from(count) {
                        return Err(Invalid::CountTooSmall { found, count });
                    }
                } else if found != u128::from(count) {
                    return Err(Invalid::CountMismatch { found, count });
                }
            }
            // Sums of floats need not agree to the last bit, so they are not compared.
            Counts::Float { count, zero, positive, negative } => {
                positive_or("negative side", negative)?;
                positive_or("positive side", positive)?;
                if *zero < 0.0 {
                    return Err(Invalid::NegativeZero(*zero));
                }
                if *count < 0.0 {
                    return Err(Invalid::NegativeCount(*count));
                }
            }
        }
        Ok(())
    }

    fn validate_custom(&self, positive: usize, negative: usize) -> Result<(), Invalid> {
        let mut previous = f64::NEG_INFINITY;
        for &current in &self.custom_values {
            if current.is_nan() {
                return Err(Invalid::NanBound);
            }
            if current <= previous {
                return Err(Invalid::BoundsOrder { previous, current });
            }
            previous = current;
        }
        if previous == f64::INFINITY {
            return Err(Invalid::InfiniteBound);
        }
        let side = "custom buckets";
        if let Some(first) = self.positive_spans.first().filter(|s| s.offset < 0) {
            return Err(Invalid::NegativeOffset { side, number: 1, offset: first.offset });
        }
        validate_spans(side, &self.positive_spans, positive)?;
        let need = self.positive_spans.iter().map(|s| u64::from(s.length) + s.offset as u64).sum();
        if need > self.custom_values.len() as u64 + 1 {
            return Err(Invalid::TooFewBounds { bounds: self.custom_values.len(), need });
        }
        let zero = match &self.counts {
            Counts::Integer { zero, .. } => *zero != 0,
            Counts::Float { zero, .. } => *zero != 0.0,
        };
        if zero {
            return Err(Invalid::CustomWithZeroCount);
        }
        if self.zero_threshold != 0.0 {
            return Err(Invalid::CustomWithZeroThreshold);
        }
        if !self.negative_spans.is_empty() {
            return Err(Invalid::CustomWithNegativeSpans);
        }
        if negative > 0 {
            return Err(Invalid::CustomWithNegativeBuckets);
        }
        Ok(())
    }

    /// Merges the buckets of a valid exponential histogram down to `schema`. Each schema less halves the resolution.
    /// Nothing happens if it is as coarse already.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if self.schema <= schema {
            return;
        }
        let by = (self.schema - schema) as u32;
        match &mut self.counts {
            Counts::Integer { positive, negative, .. } => {
                (self.positive_spans, *positive) =
                    merge_buckets(&self.positive_spans, positive, by, i64::saturating_add);
                (self.negative_spans, *negative) =
                    merge_buckets(&self.negative_spans, negative, by, i64::saturating_add);
            }
            Counts::Float { positive, negative, .. } => {
                (self.positive_spans, *positive) =
                    merge_buckets(&self.positive_spans, positive, by, |a, b| a + b);
                (self.negative_spans, *negative) =
                    merge_buckets(&self.negative_spans, negative, by, |a, b| a + b);
            }
        }
        self.schema = schema;
    }
}

fn validate_spans(side: &'static str, spans: &[Span], have: usize) -> Result<(), Invalid> {
    // The first offset is an index and may be negative, the others are gaps.
    if let Some(i) = spans.iter().skip(1).position(|s| s.offset < 0) {
        return Err(Invalid::NegativeOffset { side, number: i + 2, offset: spans[i + 1].offset });
    }
    let need: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if need != have as u64 {
        return Err(Invalid::SpansMismatch { side, need, have });
    }
    Ok(())
}

/// The bucket with index `i` of schema `s` lies within that with index `((i - 1) >> by) + 1` of schema `s - by`.
fn merge_buckets<T: Copy>(
    spans: &[Span],
    buckets: &[T],
    by: u32,
    add: impl Fn(T, T) -> T,
) -> (Vec<Span>, Vec<T>) {
    let mut merged_spans: Vec<Span> = Vec::new();
    let mut merged: Vec<T> = Vec::new();
    let mut last = None;
    let (mut index, mut left) = (0i64, buckets.iter());
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            let Some(&count) = left.next() else { return (merged_spans, merged) };
            let target = ((index - 1) >> by.min(63)) + 1;
            index += 1;
            match (last, merged.last_mut(), merged_spans.last_mut()) {
                (Some(last), Some(bucket), _) if last == target => {
                    *bucket = add(*bucket, count);
                    continue;
                }
                (Some(last), _, Some(span)) if last + 1 == target => span.length += 1,
                _ => {
                    // Indices only shrink, so the gaps still fit.
                    let offset = (target - last.map_or(0, |last: i64| last + 1)) as i32;
                    merged_spans.push(Span { offset, length: 1 });
                }
            }
            last = Some(target);
            merged.push(count);
        }
    }
    (merged_spans, merged)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, rest) = varint::take(self.0)?;
        self.0 = rest;
        Some(value)
    }

    fn float(&mut self) -> Option<f64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_bits(u64::from_le_bytes(*head)))
    }

    fn span(&mut self) -> Option<Span> {
        let offset = i32::try_from(varint::unzigzag(self.varint()?)).ok()?;
        Some(Span { offset, length: u32::try_from(self.varint()?).ok()? })
    }

    fn deltas(&mut self) -> Option<Vec<i64>> {
        let mut value = 0i64;
        self.list(|i| {
            value = value.wrapping_add(varint::unzigzag(i.varint()?));
            Some(value)
        })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = usize::try_from(self.varint()?).ok()?;
        // Every item takes at least a byte, so a count beyond what is left is a lie.
        if len > self.0.len() {
            return None;
        }
        (0..len).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((-9i32..9, 0u32..5).prop_map(|(offset, length)| Span { offset, length }), 0..4)
    }

    fn counts() -> impl Strategy<Value = Counts> {
        let ints = (
            any::<u64>(),
            any::<u64>(),
            prop::collection::vec(any::<i64>(), 0..5),
            prop::collection::vec(any::<i64>(), 0..5),
        )
            .prop_map(|(count, zero, positive, negative)| Counts::Integer {
                count,
                zero,
                positive,
                negative,
            });
        let f = || -1e9f64..1e9;
        let floats = (f(), f(), prop::collection::vec(f(), 0..5), prop::collection::vec(f(), 0..5))
            .prop_map(|(count, zero, positive, negative)| Counts::Float { count, zero, positive, negative });
        prop_oneof![ints, floats]
    }

    fn integer(schema: i32, spans: &[(i32, u32)], buckets: &[i64], count: u64) -> Histogram {
        Histogram {
            reset_hint: ResetHint::Unknown,
            schema,
            zero_threshold: 0.0,
            sum: 1.0,
            counts: Counts::Integer { count, zero: 0, positive: buckets.to_vec(), negative: vec![] },
            positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
            negative_spans: vec![],
            custom_values: vec![],
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let custom = |bounds: &[f64]| Histogram {
            custom_values: bounds.to_vec(),
            ..integer(CUSTOM_BUCKETS_SCHEMA, &[(0, 2)], &[1, 2], 3)
        };
        let float = |count, zero, bucket| Histogram {
            counts: Counts::Float { count, zero, positive: vec![bucket], negative: vec![] },
            ..integer(0, &[(0, 1)], &[], 0)
        };
        let zero = Counts::Integer { count: 4, zero: 1, positive: vec![1, 2], negative: vec![] };
        let negative = Counts::Integer { count: 4, zero: 0, positive: vec![1, 2], negative: vec![1] };
        let spans = vec![Span { offset: 0, length: 1 }];
        for (histogram, expected) in [
            (integer(0, &[(-3, 2), (0, 1)], &[1, 2, 3], 6), Ok(())),
            (integer(52, &[(0, 1)], &[1], 1), Ok(())),
            (Histogram { sum: f64::NAN, ..integer(0, &[(0, 1)], &[1], 9) }, Ok(())),
            (custom(&[1.0, 2.0]), Ok(())),
            (custom(&[1.0]), Ok(())),
            (float(0.5, 0.0, 7.0), Ok(())),
            (integer(53, &[], &[], 0), Err(Invalid::UnknownSchema(53))),
            (integer(-10, &[], &[], 0), Err(Invalid::UnknownSchema(-10))),
            (integer(-5, &[], &[], 0), Err(Invalid::InvalidSchema(-5))),
            (
                integer(0, &[(0, 1), (-1, 1)], &[1, 1], 2),
                Err(Invalid::NegativeOffset { side: "positive side", number: 2, offset: -1 }),
            ),
            (
                integer(0, &[(0, 1)], &[1, 1], 2),
                Err(Invalid::SpansMismatch { side: "positive side", need: 1, have: 2 }),
            ),
            (
                integer(0, &[(0, 2)], &[1, -1], 0),
                Err(Invalid::NegativeBucket { side: "positive side", number: 2, count: -1.0 }),
            ),
            (integer(0, &[(0, 1)], &[3], 2), Err(Invalid::CountMismatch { found: 3, count: 2 })),
            (integer(0, &[(0, 1)], &[1], 2), Err(Invalid::CountMismatch { found: 1, count: 2 })),
            (
                Histogram { sum: f64::NAN, ..integer(0, &[(0, 1)], &[3], 2) },
                Err(Invalid::CountTooSmall { found: 3, count: 2 }),
            ),
            (float(-0.5, 0.0, 1.0), Err(Invalid::NegativeCount(-0.5))),
            (float(1.0, -0.5, 1.0), Err(Invalid::NegativeZero(-0.5))),
            (
                float(1.0, 0.0, -1.0),
                Err(Invalid::NegativeBucket { side: "positive side", number: 1, count: -1.0 }),
            ),
            (
                Histogram { custom_values: vec![1.0], ..integer(0, &[], &[], 0) },
                Err(Invalid::ExponentialWithBounds),
            ),
            (custom(&[]), Err(Invalid::TooFewBounds { bounds: 0, need: 2 })),
            (custom(&[2.0, 2.0]), Err(Invalid::BoundsOrder { previous: 2.0, current: 2.0 })),
            (custom(&[1.0, f64::INFINITY]), Err(Invalid::InfiniteBound)),
            (custom(&[f64::NAN]), Err(Invalid::NanBound)),
            (Histogram { counts: zero, ..custom(&[1.0]) }, Err(Invalid::CustomWithZeroCount)),
            (Histogram { zero_threshold: 0.1, ..custom(&[1.0]) }, Err(Invalid::CustomWithZeroThreshold)),
            (Histogram { negative_spans: spans, ..custom(&[1.0]) }, Err(Invalid::CustomWithNegativeSpans)),
            (Histogram { counts: negative, ..custom(&[1.0]) }, Err(Invalid::CustomWithNegativeBuckets)),
        ] {
            assert_eq!(histogram.validate(), expected, "{histogram:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(schema in -53i32..9, hint in 0u64..4, counts in counts(), positive_spans in spans(),
                            negative_spans in spans(), custom in prop::collection::vec(-1e3f64..1e3, 0..4)) {
            let histogram = Histogram {
                reset_hint: ResetHint::from_wire(hint), schema, zero_threshold: 0.001, sum: 2.5, counts,
                positive_spans, negative_spans, custom_values: custom,
            };
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            bytes.push(7);
            let (back, rest) = Histogram::decode(&bytes).unwrap();
            prop_assert_eq!(back, histogram);
            prop_assert_eq!(rest, &[7]);
        }

        /// Against the plain definition: bucket by bucket into a map.
        #[test]
        fn reducing_moves_every_bucket_into_the_one_it_lies_in(
            runs in prop::collection::vec((0i32..9, prop::collection::vec(0i64..99, 1..6)), 0..5),
            first in -40i32..40, by in 1i32..6,
        ) {
            let spans: Vec<(i32, u32)> = runs.iter().enumerate()
                .map(|(i, (offset, b))| (if i == 0 { first } else { *offset }, b.len() as u32)).collect();
            let buckets: Vec<i64> = runs.iter().flat_map(|(_, b)| b.clone()).collect();
            let total = buckets.iter().sum::<i64>() as u64;
            let indexed = |h: &Histogram| {
                let Counts::Integer { positive, .. } = &h.counts else { unreachable!() };
                let (mut index, mut counts) = (0, positive.iter());
                let mut all = std::collections::BTreeMap::new();
                for span in &h.positive_spans {
                    index += span.offset;
                    for _ in 0..span.length {
                        all.insert(index, *counts.next().unwrap());
                        index += 1;
                    }
                }
                all
            };
            let fine = integer(8, &spans, &buckets, total);
            let mut coarse = fine.clone();
            coarse.reduce_resolution(8 - by);
            prop_assert_eq!(coarse.validate(), Ok(()));
            prop_assert_eq!(coarse.schema, 8 - by);
            let mut expected = std::collections::BTreeMap::new();
            for (index, count) in indexed(&fine) {
                // Index i holds (base^(i-1), base^i], so its upper bound decides.
                let target = (f64::from(index) / f64::from(1 << by)).ceil() as i32;
                *expected.entry(target).or_insert(0) += count;
            }
            prop_assert_eq!(indexed(&coarse), expected);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Histogram::decode(&bytes);
        }
    }
}
