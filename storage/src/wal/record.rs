//! Records to bytes and back.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use model::{Histogram, Metadata, MetricType, Shard, varint};

const ROWS: u8 = 1;
const METADATA: u8 = 2;
const CHECKPOINT: u8 = 3;

const HISTOGRAM: u8 = 1;
const START: u8 = 2;

/// Bytes that passed their checksum do not make sense as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record is malformed")]
pub struct Malformed;

/// Collects the rows of one shard for one record. Reuse it.
#[derive(Default)]
pub struct RowsWriter {
    definitions: Vec<u8>,
    definitions_count: u64,
    first: u32,
    numbers: Vec<u8>,
    timestamps: Vec<u8>,
    values: Vec<u8>,
    base: i64,
    previous_timestamp: i64,
    previous_number: i64,
    others: Vec<u8>,
    others_count: u64,
}

impl RowsWriter {
    /// Defines the series with the next number; numbers must follow each other within a record.
    pub fn define(&mut self, number: u32, labels: &[u8]) {
        if self.definitions_count == 0 {
            self.first = number;
        }
        debug_assert_eq!(u64::from(self.first) + self.definitions_count, u64::from(number));
        self.definitions_count += 1;
        varint::put(&mut self.definitions, labels.len() as u64);
        self.definitions.extend_from_slice(labels);
    }

    /// Adds a float.
    #[inline]
    pub fn float(&mut self, number: u32, t: i64, v: f64) {
        if self.values.is_empty() {
            (self.base, self.previous_timestamp, self.previous_number) = (t, t, 0);
        }
        let number = i64::from(number);
        varint::put(&mut self.numbers, varint::zigzag(number - self.previous_number));
        varint::put(&mut self.timestamps, varint::zigzag(t.wrapping_sub(self.previous_timestamp)));
        self.values.extend_from_slice(&v.to_bits().to_le_bytes());
        (self.previous_number, self.previous_timestamp) = (number, t);
    }

    fn other(&mut self, number: u32, t: i64, start: i64, flags: u8) {
        self.others_count += 1;
        self.others.push(flags | if start != 0 { START } else { 0 });
        varint::put(&mut self.others, u64::from(number));
        varint::put(&mut self.others, varint::zigzag(t));
        if start != 0 {
            varint::put(&mut self.others, varint::zigzag(start));
        }
    }

    /// Adds a float with a start timestamp.
    pub fn float_with_start(&mut self, number: u32, t: i64, start: i64, v: f64) {
        self.other(number, t, start, 0);
        self.others.extend_from_slice(&v.to_bits().to_le_bytes());
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, number: u32, t: i64, start: i64, h: &Histogram) {
        self.other(number, t, start, HISTOGRAM);
        h.encode(&mut self.others);
    }

    /// Bytes that the record would have, roughly.
    pub fn len(&self) -> usize {
        self.definitions.len()
            + self.numbers.len()
            + self.timestamps.len()
            + self.values.len()
            + self.others.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces `into` with the record and starts afresh.
    pub fn finish(&mut self, shard: Shard, generation: u32, into: &mut Vec<u8>) {
        into.clear();
        into.push(ROWS);
        varint::put(into, u64::from(shard.0));
        varint::put(into, u64::from(generation));
        varint::put(into, self.definitions_count);
        if self.definitions_count > 0 {
            varint::put(into, u64::from(self.first));
            into.extend_from_slice(&self.definitions);
        }
        varint::put(into, (self.values.len() / 8) as u64);
        if !self.values.is_empty() {
            varint::put(into, varint::zigzag(self.base));
            into.extend_from_slice(&self.numbers);
            into.extend_from_slice(&self.timestamps);
            into.extend_from_slice(&self.values);
        }
        varint::put(into, self.others_count);
        into.extend_from_slice(&self.others);
        self.definitions.clear();
        self.numbers.clear();
        self.timestamps.clear();
        self.values.clear();
        self.others.clear();
        (self.definitions_count, self.others_count) = (0, 0);
    }
}

/// Replaces `into` with a metadata record.
pub fn encode_metadata<'a>(metadata: impl ExactSizeIterator<Item = &'a Metadata>, into: &mut Vec<u8>) {
    into.clear();
    into.push(METADATA);
    varint::put(into, metadata.len() as u64);
    let text = |into: &mut Vec<u8>, text: &str| {
        varint::put(into, text.len() as u64);
        into.extend_from_slice(text.as_bytes());
    };
    for m in metadata {
        text(into, &m.family);
        into.push(m.metric_type as u8);
        text(into, &m.help);
        text(into, &m.unit);
    }
}

/// Replaces `into` with a checkpoint record.
pub fn encode_checkpoint(generation: u32, into: &mut Vec<u8>) {
    into.clear();
    into.push(CHECKPOINT);
    varint::put(into, u64::from(generation));
}

/// A record, decoded.
pub enum Record<'a> {
    /// Rows of one shard.
    Rows(Rows<'a>),
    /// Metric families.
    Metadata(Vec<Metadata>),
    /// Nothing of a generation below this is needed any more.
    Checkpoint(u32),
}

/// The rows of one shard, checked as a whole before the first is given out.
pub struct Rows<'a> {
    /// The shard.
    pub shard: Shard,
    /// The generation that numbers mean.
    pub generation: u32,
    /// The number of the first definition.
    pub first: u32,
    definitions: &'a [u8],
    base: i64,
    numbers: &'a [u8],
    timestamps: &'a [u8],
    values: &'a [u8],
    others: &'a [u8],
    others_count: u64,
}

/// A row that is not a plain float.
pub enum Other {
    /// A float with a start timestamp.
    Float(f64),
    /// A histogram.
    Histogram(Histogram),
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
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

    fn number(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    fn zigzag(&mut self) -> Option<i64> {
        self.varint().map(varint::unzigzag)
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        let len = self.varint()?;
        Some(std::str::from_utf8(self.take(len)?).ok()?.to_owned())
    }

    fn float(&mut self) -> Option<f64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*head))
    }

    /// The bytes of `count` varints.
    fn varints(&mut self, count: u64) -> Option<&'a [u8]> {
        let all = self.0;
        for _ in 0..count {
            self.varint()?;
        }
        all.get(..all.len() - self.0.len())
    }

    fn other(&mut self) -> Option<(u32, i64, i64, Other)> {
        let flags = self.byte()?;
        let number = self.number()?;
        let t = self.zigzag()?;
        let start = if flags & START != 0 { self.zigzag()? } else { 0 };
        let other = if flags & HISTOGRAM != 0 {
            let (histogram, rest) = Histogram::decode(self.0)?;
            self.0 = rest;
            Other::Histogram(histogram)
        } else {
            Other::Float(self.float()?)
        };
        Some((number, t, start, other))
    }
}

impl<'a> Record<'a> {
    /// Decodes a record; the whole of it is checked.
    pub fn decode(bytes: &'a [u8]) -> Result<Record<'a>, Malformed> {
        let mut input = Input(bytes);
        let record = match input.byte() {
            Some(ROWS) => Rows::decode(&mut input).map(Record::Rows),
            Some(METADATA) => decode_metadata(&mut input).map(Record::Metadata),
            Some(CHECKPOINT) => input.number().map(Record::Checkpoint),
            _ => None,
        };
        record.filter(|_| input.0.is_empty()).ok_or(Malformed)
    }
}

fn decode_metadata(input: &mut Input<'_>) -> Option<Vec<Metadata>> {
    let count = input.varint()?;
    let mut all = Vec::new();
    for _ in 0..count {
        let family = input.text()?;
        let metric_type = MetricType::from_wire(u64::from(input.byte()?));
        all.push(Metadata { family, metric_type, help: input.text()?, unit: input.text()? });
    }
    Some(all)
}

impl<'a> Rows<'a> {
    fn decode(input: &mut Input<'a>) -> Option<Rows<'a>> {
        let shard = Shard(u16::try_from(input.varint()?).ok()?);
        let generation = input.number()?;
        let count = input.varint()?;
        let first = if count > 0 { input.number()? } else { 0 };
        u64::from(first).checked_add(count).filter(|&end| end <= u64::from(u32::MAX))?;
        let all = input.0;
        for _ in 0..count {
            let len = input.varint()?;
            model::labels::is_canonical(input.take(len)?).then_some(())?;
        }
        let definitions = all.get(..all.len() - input.0.len())?;
        let floats = input.varint()?;
        let (base, numbers, timestamps, values) = if floats > 0 {
            let base = input.zigzag()?;
            let numbers = input.varints(floats)?;
            (base, numbers, input.varints(floats)?, input.take(floats.checked_mul(8)?)?)
        } else {
            (0, &[][..], &[][..], &[][..])
        };
        let others_count = input.varint()?;
        let others = input.0;
        for _ in 0..others_count {
            input.other()?;
        }
        Some(Rows {
            shard,
            generation,
            first,
            definitions,
            base,
            numbers,
            timestamps,
            values,
            others,
            others_count,
        })
    }

    /// The labels of the series defined here, in the order of their numbers.
    pub fn definitions(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut input = Input(self.definitions);
        std::iter::from_fn(move || {
            let len = input.varint()?;
            input.take(len)
        })
    }

    /// Number, timestamp and value of each float. A number that no `u32` can hold comes out as `u32::MAX`.
    pub fn floats(&self) -> impl Iterator<Item = (u32, i64, f64)> {
        let (mut numbers, mut timestamps, mut values) =
            (Input(self.numbers), Input(self.timestamps), Input(self.values));
        let (mut number, mut t) = (0i64, self.base);
        std::iter::from_fn(move || {
            number = number.wrapping_add(numbers.zigzag()?);
            t = t.wrapping_add(timestamps.zigzag()?);
            Some((u32::try_from(number).unwrap_or(u32::MAX), t, values.float()?))
        })
    }

    /// Number, timestamp, start timestamp and value of each other row.
    pub fn others(&self) -> impl Iterator<Item = (u32, i64, i64, Other)> {
        let mut input = Input(self.others);
        (0..self.others_count).map_while(move |_| input.other())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may")]
mod tests {
    use super::*;
    use model::Labels;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Row {
        Define(u8),
        Float(u32, i64, u64),
        WithStart(u32, i64, i64, u64),
        Histogram(u32, i64, i64, u64),
    }

    fn row() -> impl Strategy<Value = Row> {
        let start = || any::<i64>().prop_filter("a start", |&s| s != 0);
        prop_oneof![
            any::<u8>().prop_map(Row::Define),
            (any::<u32>(), any::<i64>(), any::<u64>()).prop_map(|(n, t, v)| Row::Float(n, t, v)),
            (0u32..9, 0i64..99, any::<u64>()).prop_map(|(n, t, v)| Row::Float(n, t, v)),
            (any::<u32>(), any::<i64>(), start(), any::<u64>())
                .prop_map(|(n, t, s, v)| Row::WithStart(n, t, s, v)),
            (any::<u32>(), any::<i64>(), any::<i64>(), any::<u64>())
                .prop_map(|(n, t, s, v)| Row::Histogram(n, t, s, v)),
        ]
    }

    fn labels(i: u8) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str())]).unwrap()
    }

    fn histogram(count: u64) -> Histogram {
        Histogram {
            reset_hint: Default::default(),
            schema: 0,
            zero_threshold: 0.0,
            sum: 1.0,
            counts: model::histogram::Counts::Integer { count, zero: 0, positive: vec![], negative: vec![] },
            positive_spans: vec![],
            negative_spans: vec![],
            custom_values: vec![],
        }
    }

    #[test]
    fn the_format_page_shows_the_bytes_that_are_written() {
        let page = include_str!("../../../docs/format/wal.md");
        let block = page.split("```example").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let pairs = |line: &'static str| line.split('|').nth(1).unwrap_or_default().split_whitespace();
        let shown: Vec<u8> =
            block.lines().flat_map(pairs).map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let mut writer = RowsWriter::default();
        writer.define(0, Labels::from_pairs([("a", "b")]).unwrap().as_bytes());
        writer.float(0, 1000, 1.5);
        writer.float(0, 1015, 2.5);
        let mut bytes = Vec::new();
        writer.finish(Shard(3), 1, &mut bytes);
        assert_eq!(bytes, shown, "docs/format/wal.md does not show what the code writes: {bytes:02x?}");
    }

    proptest! {
        #[test]
        fn rows_round_trip(rows in prop::collection::vec(row(), 0..50), shard in any::<u16>(), generation in any::<u32>()) {
            let mut writer = RowsWriter::default();
            let mut bytes = Vec::new();
            // Twice, to see that the writer starts afresh.
            for _ in 0..2 {
                let mut next = 7;
                for row in &rows {
                    match row {
                        Row::Define(i) => {
                            writer.define(next, labels(*i).as_bytes());
                            next += 1;
                        }
                        Row::Float(n, t, v) => writer.float(*n, *t, f64::from_bits(*v)),
                        Row::WithStart(n, t, s, v) => writer.float_with_start(*n, *t, *s, f64::from_bits(*v)),
                        Row::Histogram(n, t, s, v) => writer.histogram(*n, *t, *s, &histogram(*v)),
                    }
                }
                writer.finish(Shard(shard), generation, &mut bytes);
            }
            let Ok(Record::Rows(back)) = Record::decode(&bytes) else { panic!("not rows") };
            prop_assert_eq!((back.shard, back.generation), (Shard(shard), generation));
            let definitions: Vec<_> =
                rows.iter().filter_map(|r| if let Row::Define(i) = r { Some(labels(*i)) } else { None }).collect();
            prop_assert_eq!(back.definitions().collect::<Vec<_>>(), definitions.iter().map(|l| l.as_bytes()).collect::<Vec<_>>());
            prop_assert!(definitions.is_empty() || back.first == 7);
            let floats: Vec<_> = rows
                .iter()
                .filter_map(|r| if let Row::Float(n, t, v) = r { Some((*n, *t, *v)) } else { None })
                .collect();
            prop_assert_eq!(back.floats().map(|(n, t, v)| (n, t, v.to_bits())).collect::<Vec<_>>(), floats);
            let mut others = back.others();
            for row in &rows {
                match row {
                    Row::WithStart(n, t, s, v) => {
                        let Some((n2, t2, s2, Other::Float(v2))) = others.next() else { panic!("no float") };
                        prop_assert_eq!((*n, *t, *s, *v), (n2, t2, s2, v2.to_bits()));
                    }
                    Row::Histogram(n, t, s, v) => {
                        let Some((n2, t2, s2, Other::Histogram(h))) = others.next() else { panic!("no histogram") };
                        prop_assert_eq!((*n, *t, *s, histogram(*v)), (n2, t2, s2, h));
                    }
                    Row::Define(_) | Row::Float(..) => {}
                }
            }
            prop_assert!(others.next().is_none());
            // Any part of a record is no record.
            for cut in 0..bytes.len() {
                prop_assert!(Record::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn random_bytes_never_panic(kind in 0u8..5, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind][..], &bytes].concat();
            if let Ok(Record::Rows(rows)) = Record::decode(&bytes) {
                rows.definitions().for_each(drop);
                rows.floats().for_each(drop);
                rows.others().for_each(drop);
            }
        }

        #[test]
        fn metadata_and_checkpoints_round_trip(texts in prop::collection::vec((".*", ".*", ".*", 0u64..8), 0..5), generation in any::<u32>()) {
            let metadata: Vec<Metadata> = texts
                .into_iter()
                .map(|(family, help, unit, t)| Metadata { family, metric_type: MetricType::from_wire(t), help, unit })
                .collect();
            let mut bytes = Vec::new();
            encode_metadata(metadata.iter(), &mut bytes);
            let Ok(Record::Metadata(back)) = Record::decode(&bytes) else { panic!("not metadata") };
            prop_assert_eq!(back, metadata);
            encode_checkpoint(generation, &mut bytes);
            let Ok(Record::Checkpoint(back)) = Record::decode(&bytes) else { panic!("not a checkpoint") };
            prop_assert_eq!(back, generation);
        }
    }
}
