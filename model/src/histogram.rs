//! Native histograms: exponential (schema -4 to 8) or with custom bounds (schema -53).
//!
//! The same type holds integer and float histograms; integers are kept exactly, as `f64` holds them up to 2^53 and
//! [`Counts::Integer`] beyond.

use crate::varint;
use std::cmp::Ordering;

/// The schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

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

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Histogram::decode(&bytes);
        }
    }
}
