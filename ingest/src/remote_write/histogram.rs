//! Native histograms, the same message in both versions.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::wire::{Cursor, Malformed, fixed64, len, varint};
use crate::Refusal;
use crate::limits::Budget;
use model::histogram::{Counts, EXPONENTIAL_SCHEMAS, Invalid, ResetHint, Span};
use model::{Histogram, HistogramRow};

const COUNT_INT: u32 = varint(1);
const COUNT_FLOAT: u32 = fixed64(2);
const SUM: u32 = fixed64(3);
const SCHEMA: u32 = varint(4);
const ZERO_THRESHOLD: u32 = fixed64(5);
const ZERO_COUNT_INT: u32 = varint(6);
const ZERO_COUNT_FLOAT: u32 = fixed64(7);
const NEGATIVE_SPANS: u32 = len(8);
const NEGATIVE_DELTAS: u32 = varint(9);
const NEGATIVE_DELTAS_PACKED: u32 = len(9);
const NEGATIVE_COUNTS: u32 = fixed64(10);
const NEGATIVE_COUNTS_PACKED: u32 = len(10);
const POSITIVE_SPANS: u32 = len(11);
const POSITIVE_DELTAS: u32 = varint(12);
const POSITIVE_DELTAS_PACKED: u32 = len(12);
const POSITIVE_COUNTS: u32 = fixed64(13);
const POSITIVE_COUNTS_PACKED: u32 = len(13);
const RESET_HINT: u32 = varint(14);
const TIMESTAMP: u32 = varint(15);
const CUSTOM_VALUES: u32 = fixed64(16);
const CUSTOM_VALUES_PACKED: u32 = len(16);
/// Version 2 only.
const START_TIMESTAMP: u32 = varint(17);
const KNOWN_V1: u32 = (1 << 17) - 2;
const KNOWN_V2: u32 = (1 << 18) - 2;

/// One side's buckets as they come: deltas of integers or floats.
#[derive(Default)]
struct Buckets {
    spans: Vec<Span>,
    integers: Vec<i64>,
    floats: Vec<f64>,
}

impl Buckets {
    fn delta(&mut self, delta: i64) {
        let before = self.integers.last().copied().unwrap_or(0);
        self.integers.push(before.wrapping_add(delta));
    }

    fn deltas(&mut self, mut packed: Cursor) -> Result<(), Malformed> {
        while !packed.is_done() {
            self.delta(packed.sint64()?);
        }
        Ok(())
    }

    fn span(&mut self, mut message: Cursor) -> Result<(), Malformed> {
        let mut span = Span::default();
        while !message.is_done() {
            match message.key()? {
                // varint(1) and varint(2)
                0x08 => span.offset = message.sint32()?,
                0x10 => span.length = message.varint()? as u32,
                key => message.unknown(key, 1 << 1 | 1 << 2)?,
            }
        }
        self.spans.push(span);
        Ok(())
    }
}

/// Reads one histogram. Whether it makes sense is [`accept`]'s to say.
pub(super) fn decode(
    message: Cursor,
    budget: &mut Budget,
    start_timestamps: bool,
) -> Result<HistogramRow, Refusal> {
    // No field of a histogram takes more than eight bytes of memory for a byte on the wire.
    budget.take(size_of::<HistogramRow>() + 8 * message.left())?;
    Ok(read(message, start_timestamps)?)
}

fn read(mut message: Cursor, start_timestamps: bool) -> Result<HistogramRow, Malformed> {
    let known = if start_timestamps { KNOWN_V2 } else { KNOWN_V1 };
    let (mut timestamp, mut start, mut reset_hint, mut schema) = (0i64, 0i64, 0u64, 0i32);
    let (mut zero_threshold, mut sum) = (0f64, 0f64);
    // Each of the two oneofs: the last one wins, and the count's decides for the whole histogram.
    let (mut count_int, mut count_float) = (0u64, None);
    let (mut zero_int, mut zero_float) = (0u64, 0f64);
    let (mut positive, mut negative) = (Buckets::default(), Buckets::default());
    let mut custom_values = Vec::new();
    while !message.is_done() {
        match message.key()? {
            COUNT_INT => (count_int, count_float) = (message.varint()?, None),
            COUNT_FLOAT => count_float = Some(message.double()?),
            SUM => sum = message.double()?,
            SCHEMA => schema = message.sint32()?,
            ZERO_THRESHOLD => zero_threshold = message.double()?,
            ZERO_COUNT_INT => (zero_int, zero_float) = (message.varint()?, 0.0),
            ZERO_COUNT_FLOAT => (zero_int, zero_float) = (0, message.double()?),
            NEGATIVE_SPANS => negative.span(message.message()?)?,
            NEGATIVE_DELTAS => negative.delta(message.sint64()?),
            NEGATIVE_DELTAS_PACKED => negative.deltas(message.message()?)?,
            NEGATIVE_COUNTS => negative.floats.push(message.double()?),
            NEGATIVE_COUNTS_PACKED => message.packed_doubles(|v| negative.floats.push(v))?,
            POSITIVE_SPANS => positive.span(message.message()?)?,
            POSITIVE_DELTAS => positive.delta(message.sint64()?),
            POSITIVE_DELTAS_PACKED => positive.deltas(message.message()?)?,
            POSITIVE_COUNTS => positive.floats.push(message.double()?),
            POSITIVE_COUNTS_PACKED => message.packed_doubles(|v| positive.floats.push(v))?,
            RESET_HINT => reset_hint = message.varint()?,
            TIMESTAMP => timestamp = message.varint()? as i64,
            CUSTOM_VALUES => custom_values.push(message.double()?),
            CUSTOM_VALUES_PACKED => message.packed_doubles(|v| custom_values.push(v))?,
            START_TIMESTAMP if start_timestamps => start = message.varint()? as i64,
            key => message.unknown(key, known)?,
        }
    }
    let counts = match count_float {
        Some(count) => {
            Counts::Float { count, zero: zero_float, positive: positive.floats, negative: negative.floats }
        }
        None => Counts::Integer {
            count: count_int,
            zero: zero_int,
            positive: positive.integers,
            negative: negative.integers,
        },
    };
    let histogram = Histogram {
        // An enum is 32 bits on the wire; what is above is dropped.
        reset_hint: ResetHint::from_wire(reset_hint & u64::from(u32::MAX)),
        schema,
        zero_threshold,
        sum,
        counts,
        positive_spans: positive.spans,
        negative_spans: negative.spans,
        custom_values,
    };
    Ok(HistogramRow { timestamp, start, histogram })
}

/// Checks a histogram and brings it down to the finest resolution that is stored.
pub(super) fn accept(row: &mut HistogramRow) -> Result<(), Invalid> {
    row.histogram.validate()?;
    if row.histogram.schema > *EXPONENTIAL_SCHEMAS.end() {
        row.histogram.reduce_resolution(*EXPONENTIAL_SCHEMAS.end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of a histogram whose fields come in this order.
    fn counts(fields: &[&[u8]]) -> Counts {
        let bytes = fields.concat();
        read(Cursor::new(&bytes), false).map(|row| row.histogram.counts).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_last_of_a_oneof_wins_and_takes_the_others_value_away() {
        let double = |tag: u8, value: f64| [&[tag][..], &value.to_le_bytes()].concat();
        // count_int = 1, count_float = 2, zero_count_int = 6, zero_count_float = 7
        let (count_int, count_float) = (vec![0x08, 9], double(0x11, 9.0));
        let (zero_int, zero_float) = (vec![0x30, 4], double(0x39, 5.0));
        let zero = |fields: &[&[u8]]| match counts(fields) {
            Counts::Integer { zero, .. } => zero as f64,
            Counts::Float { zero, .. } => zero,
        };
        assert_eq!(zero(&[&count_int, &zero_float, &zero_int]), 4.0);
        assert_eq!(zero(&[&count_int, &zero_int, &zero_float]), 0.0);
        assert_eq!(zero(&[&count_float, &zero_int, &zero_float]), 5.0);
        assert_eq!(zero(&[&count_float, &zero_float, &zero_int]), 0.0);
        assert!(matches!(counts(&[&count_float, &count_int]), Counts::Integer { count: 9, .. }));
        assert!(matches!(counts(&[&count_int, &count_float]), Counts::Float { count: 9.0, .. }));
    }
}
