//! Sections to batches.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{Error, INTEGER_MAX, flag, form, kind};
use crate::wire::Malformed;
use model::{Batch, BatchSeries, Histogram, HistogramRow, SeriesId, SeriesKey, Shard, labels, varint};

/// What is taken at once. More is refused before memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series of a batch.
    pub series_max: u32,
    /// Float rows of a batch.
    pub rows_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { series_max: 1 << 20, rows_max: 1 << 22 }
    }
}

/// What the sender's numbers stand for.
pub trait Dictionary {
    /// The id that a number stands for, if that is known.
    fn resolve(&mut self, number: u32) -> Option<SeriesId>;

    /// From now on `number` stands for `id`. Whether that is possible: a number beyond what can be kept is not.
    fn define(&mut self, number: u32, id: SeriesId) -> bool;
}

/// For sections without numbers: none is known and none can be defined.
pub struct NoNumbers;

impl Dictionary for NoNumbers {
    fn resolve(&mut self, _: u32) -> Option<SeriesId> {
        None
    }

    fn define(&mut self, _: u32, _: SeriesId) -> bool {
        false
    }
}

/// One section, cut out but not read.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The shard of all its series.
    pub shard: Shard,
    /// The generation of the numbers in it.
    pub generation: u32,
    rest: &'a [u8],
    /// The section as it stands in the bytes.
    pub bytes: &'a [u8],
}

const MALFORMED: Malformed = Malformed { what: "rows" };

/// The sections that `bytes` consist of.
pub fn sections(bytes: &[u8]) -> impl Iterator<Item = Result<Section<'_>, Error>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let section = cut(rest);
        rest = section.map_or(&[], |(_, behind)| behind);
        Some(section.map(|(section, _)| section).ok_or(MALFORMED.into()))
    })
}

fn cut(bytes: &[u8]) -> Option<(Section<'_>, &[u8])> {
    let (shard, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (body, behind) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let (generation, rest) = varint::take(body)?;
    let section = Section {
        shard: Shard(u16::from_le_bytes(*shard)),
        generation: u32::try_from(generation).ok()?,
        rest,
        bytes: bytes.get(..bytes.len() - behind.len())?,
    };
    Some((section, behind))
}

/// Reads sections into batches.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// With which labels become ids.
    pub key: SeriesKey,
    /// How many shards there are: a series must belong to the shard of its section.
    pub shards: u32,
    /// How much is taken.
    pub limits: Limits,
}

impl Decoder {
    /// Adds the series of a section to a batch. Series named by labels have them, and are `checked`; all others have none. The indices of
    /// series whose number is not known go to `unresolved`: their id means nothing.
    ///
    /// After an error the batch holds a part, which must not be used.
    pub fn decode(
        &self,
        section: &Section<'_>,
        dictionary: &mut impl Dictionary,
        into: &mut Batch,
        unresolved: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let mut input = Input(section.rest);
        let count = input.count()?;
        let first = into.series.len();
        within("series", u64::from(self.limits.series_max), (first + count) as u64)?;
        let flags = input.byte()?;
        into.series.reserve(count);
        self.names(section.shard, count, &mut input, dictionary, into, unresolved)?;
        let floats = into.timestamps.len();
        self.runs(first, &mut input, into)?;
        if flags & flag::STARTS != 0 {
            into.starts.resize(floats, 0);
            into.starts.reserve(into.timestamps.len() - floats);
            let mut start = 0i64;
            for _ in floats..into.timestamps.len() {
                start = start.wrapping_add(input.zigzag()?);
                into.starts.push(start);
            }
        } else if !into.starts.is_empty() {
            into.starts.resize(into.timestamps.len(), 0);
        }
        if flags & flag::HISTOGRAMS != 0 {
            histograms(first, &mut input, into)?;
        }
        match flags & !(flag::STARTS | flag::HISTOGRAMS) == 0 && input.0.is_empty() {
            true => Ok(()),
            false => Err(MALFORMED.into()),
        }
    }

    fn names(
        &self,
        shard: Shard,
        count: usize,
        input: &mut Input<'_>,
        dictionary: &mut impl Dictionary,
        into: &mut Batch,
        unresolved: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let here = |id: SeriesId| (id.shard(self.shards) == shard).then_some(id).ok_or(MALFORMED);
        let end = into.series.len() + count;
        let mut number = 0u32;
        let mut series = BatchSeries {
            id: SeriesId(0),
            checked: false,
            labels_at: 0,
            labels_len: 0,
            floats_at: 0,
            floats_len: 0,
            histograms_at: 0,
            histograms_len: 0,
        };
        while into.series.len() < end {
            let head = input.varint()?;
            let run = usize::try_from(head >> 3).map_err(|_| MALFORMED)?;
            if run == 0 || run > end - into.series.len() {
                return Err(MALFORMED.into());
            }
            for _ in 0..run {
                match head & 7 {
                    kind::REF => {
                        number = input.number(number)?;
                        series.id = dictionary.resolve(number).unwrap_or_else(|| {
                            unresolved.push(into.series.len() as u32);
                            SeriesId(0)
                        });
                    }
                    kind::ID => series.id = here(input.id()?)?,
                    kind::DEFINE => {
                        number = input.number(number)?;
                        series.id = here(input.id()?)?;
                        define(dictionary, number, series.id)?;
                    }
                    named @ (kind::LABELS | kind::DEFINE_LABELS) => {
                        if named == kind::DEFINE_LABELS {
                            number = input.number(number)?;
                        }
                        let len = input.count()?;
                        let labels = input.take(len)?;
                        if !labels::is_canonical(labels) {
                            return Err(MALFORMED.into());
                        }
                        series.id = here(self.key.id(labels))?;
                        if named == kind::DEFINE_LABELS {
                            define(dictionary, number, series.id)?;
                        }
                        let at = into.bytes.len();
                        within("bytes of labels", u64::from(u32::MAX), (at + len) as u64)?;
                        into.bytes.extend_from_slice(labels);
                        series.checked = true;
                        (series.labels_at, series.labels_len) = (at as u32, len as u32);
                    }
                    _ => return Err(MALFORMED.into()),
                }
                into.series.push(series);
                (series.checked, series.labels_at, series.labels_len) = (false, 0, 0);
            }
        }
        Ok(())
    }

    /// Reads the float rows of the series from `first` on.
    fn runs(&self, first: usize, input: &mut Input<'_>, into: &mut Batch) -> Result<(), Error> {
        let Batch { series, timestamps, values, .. } = into;
        let mut series = series.get_mut(first..).ok_or(MALFORMED)?.iter_mut();
        let mut time = 0i64;
        // Where the timestamps of the last series with several begin, and how many.
        let mut before = (0, 0);
        while series.len() > 0 {
            let (repeat, count) = (input.varint()?, input.varint()?);
            let room = u64::from(self.limits.rows_max).saturating_sub(timestamps.len() as u64);
            let rows = repeat.saturating_mul(count);
            if rows > room {
                let max = u64::from(self.limits.rows_max);
                return Err(Error::TooMuch {
                    what: "rows",
                    max,
                    got: rows.saturating_add(timestamps.len() as u64),
                });
            }
            if repeat == 0 || repeat > series.len() as u64 {
                return Err(MALFORMED.into());
            }
            let (repeat, count) = (repeat as usize, count as usize);
            let at = timestamps.len();
            for (i, one) in series.by_ref().take(repeat).enumerate() {
                (one.floats_at, one.floats_len) = ((at + i * count) as u32, count as u32);
            }
            match count {
                0 => {}
                1 => singles(repeat, &mut time, input, timestamps, values)?,
                _ => {
                    timestamps.reserve(repeat * count);
                    values.reserve(repeat * count);
                    for _ in 0..repeat {
                        several(count, &mut time, &mut before, input, timestamps, values)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn define(dictionary: &mut impl Dictionary, number: u32, id: SeriesId) -> Result<(), Error> {
    if dictionary.define(number, id) { Ok(()) } else { Err(MALFORMED.into()) }
}

fn within(what: &'static str, max: u64, got: u64) -> Result<(), Error> {
    if got > max { Err(Error::TooMuch { what, max, got }) } else { Ok(()) }
}

/// One row each of `repeat` series.
fn singles(
    repeat: usize,
    time: &mut i64,
    input: &mut Input<'_>,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<u64>,
) -> Result<(), Error> {
    if repeat > input.0.len() {
        return Err(MALFORMED.into());
    }
    timestamps.reserve(repeat);
    for _ in 0..repeat {
        *time = time.wrapping_add(input.zigzag()?);
        timestamps.push(*time);
    }
    let bitmap = input.take(repeat.div_ceil(8))?;
    values.reserve(repeat);
    let mut left = repeat;
    for &bits in bitmap {
        let here = left.min(8);
        if bits >> (here - 1) >> 1 != 0 {
            // Bits beyond the last row.
            return Err(MALFORMED.into());
        }
        for bit in 0..here {
            values.push(if bits >> bit & 1 == 1 { float(input.zigzag()?)? } else { input.word()? });
        }
        left -= here;
    }
    Ok(())
}

/// The rows of one series that has several.
fn several(
    count: usize,
    time: &mut i64,
    before: &mut (usize, usize),
    input: &mut Input<'_>,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<u64>,
) -> Result<(), Error> {
    let at = timestamps.len();
    let form = input.byte()?;
    match form & form::TIMES {
        form::TIMES_SAME => {
            let (from, same) = *before;
            if same != count {
                return Err(MALFORMED.into());
            }
            timestamps.extend_from_within(from..from + count);
            *time = timestamps.get(at).copied().unwrap_or_default();
        }
        form::TIMES_REGULAR => {
            *time = time.wrapping_add(input.zigzag()?);
            let step = input.zigzag()?;
            let mut next = *time;
            for _ in 0..count {
                timestamps.push(next);
                next = next.wrapping_add(step);
            }
        }
        form::TIMES_ANY => {
            *time = time.wrapping_add(input.zigzag()?);
            let mut step = input.zigzag()?;
            let mut next = time.wrapping_add(step);
            timestamps.push(*time);
            timestamps.push(next);
            for _ in 2..count {
                step = step.wrapping_add(input.zigzag()?);
                next = next.wrapping_add(step);
                timestamps.push(next);
            }
        }
        _ => return Err(MALFORMED.into()),
    }
    *before = (at, count);
    match form & !form::TIMES {
        form::VALUES_CONSTANT => {
            let value = input.word()?;
            values.resize(values.len() + count, value);
        }
        form::VALUES_INTEGERS => {
            let mut value = 0i64;
            for _ in 0..count {
                value = value.wrapping_add(input.zigzag()?);
                values.push(float(value)?);
            }
        }
        form::VALUES_XOR => {
            let mut value = input.word()?;
            values.push(value);
            for _ in 1..count {
                value ^= input.xor()?;
                values.push(value);
            }
        }
        form::VALUES_RAW => {
            let bytes = input.take(count.checked_mul(8).ok_or(MALFORMED)?)?;
            values.extend(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        }
        _ => return Err(MALFORMED.into()),
    }
    Ok(())
}

/// The bits of a float that was written as an integer.
#[inline]
fn float(integer: i64) -> Result<u64, Malformed> {
    if integer.unsigned_abs() >= INTEGER_MAX as u64 {
        return Err(MALFORMED);
    }
    Ok((integer as f64).to_bits())
}

fn histograms(first: usize, input: &mut Input<'_>, into: &mut Batch) -> Result<(), Error> {
    let series = into.series.get_mut(first..).ok_or(MALFORMED)?;
    let count = input.count()?;
    let mut index = 0usize;
    for i in 0..count {
        let step = usize::try_from(input.varint()?).map_err(|_| MALFORMED)?;
        if i > 0 && step == 0 {
            return Err(MALFORMED.into());
        }
        index = index.checked_add(step).ok_or(MALFORMED)?;
        let one = series.get_mut(index).ok_or(MALFORMED)?;
        let rows = input.count()?;
        one.histograms_at = u32::try_from(into.histograms.len()).map_err(|_| MALFORMED)?;
        one.histograms_len = u32::try_from(rows).map_err(|_| MALFORMED)?;
        let mut timestamp = 0i64;
        for _ in 0..rows {
            timestamp = timestamp.wrapping_add(input.zigzag()?);
            let start = input.zigzag()?;
            let (histogram, rest) = Histogram::decode(input.0).ok_or(MALFORMED)?;
            input.0 = rest;
            into.histograms.push(HistogramRow { timestamp, start, histogram });
        }
    }
    Ok(())
}

/// What is left of a section.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, rest) = varint::take(self.0).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(value)
    }

    #[inline]
    fn zigzag(&mut self) -> Result<i64, Malformed> {
        Ok(varint::unzigzag(self.varint()?))
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn word(&mut self) -> Result<u64, Malformed> {
        let (word, rest) = self.0.split_first_chunk().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }

    #[inline]
    fn id(&mut self) -> Result<SeriesId, Malformed> {
        let (id, rest) = self.0.split_first_chunk().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(SeriesId(u128::from_le_bytes(*id)))
    }

    /// The number that follows `before`.
    #[inline]
    fn number(&mut self, before: u32) -> Result<u32, Malformed> {
        let number = i64::from(before).checked_add(self.zigzag()?).ok_or(MALFORMED)?;
        u32::try_from(number).map_err(|_| MALFORMED)
    }

    /// A number of things that take at least a byte each.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| MALFORMED)?;
        if count > self.0.len() { Err(MALFORMED) } else { Ok(count) }
    }

    /// What to change in the value before.
    #[inline]
    fn xor(&mut self) -> Result<u64, Malformed> {
        let control = self.byte()?;
        let (leading, trailing) = (usize::from(control >> 4), u32::from(control & 15));
        let used = 8usize.checked_sub(leading + trailing as usize).ok_or(MALFORMED)?;
        let bytes = self.take(used)?;
        let mut word = [0; 8];
        word.get_mut(..used).ok_or(MALFORMED)?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(word).unbounded_shl(trailing * 8))
    }
}
