//! Batches and samples to sections.

use super::{flag, form, integer, kind};
use crate::faults::{Mistake, planted};
use model::{Batch, BatchSeries, Histogram, Samples, SeriesId, Shard, varint};

/// How a series is named to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// By a number that the sender has defined.
    Ref(u32),
    /// By its id.
    Id(SeriesId),
    /// By its id, and from now on by this number.
    Define(u32, SeriesId),
    /// By its canonical labels.
    Labels(&'a [u8]),
    /// By its canonical labels, and from now on by this number.
    DefineLabels(u32, &'a [u8]),
}

/// Float values, as either of their two representations.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Raw bits.
    Bits(&'a [u64]),
    /// Floats.
    Floats(&'a [f64]),
}

impl Default for Values<'_> {
    fn default() -> Self {
        Values::Bits(&[])
    }
}

/// The float rows of one series.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows<'a> {
    /// Milliseconds.
    pub timestamps: &'a [i64],
    /// As many.
    pub values: Values<'a>,
    /// As many, or none when no row has a start timestamp.
    pub starts: &'a [i64],
}

/// Makes one section after the other; keeps its memory.
///
/// [`Encoder::push`] adds a series, [`Encoder::finish`] ends the section.
#[derive(Default)]
pub struct Encoder {
    series: u64,
    /// Names before the current run of one kind, and that run.
    names: Vec<u8>,
    name_run: Vec<u8>,
    name_kind: u64,
    name_count: u64,
    number: u32,
    /// Rows before the current run of one count, and that run.
    runs: Vec<u8>,
    count: usize,
    repeat: u64,
    times: Vec<u8>,
    integers: Vec<u8>,
    values: Vec<u8>,
    /// The first timestamp of the series before.
    time: i64,
    /// All timestamps of the last series that had several.
    times_before: Vec<i64>,
    /// The start timestamps of all rows so far, zigzag differences; counted when none was set yet.
    starts: Vec<u8>,
    start: i64,
    rows: usize,
    histograms: Vec<u8>,
    histogram_series: u64,
    histogram_last: u64,
}

impl Encoder {
    /// How many series the section has so far.
    pub fn series(&self) -> u64 {
        self.series
    }

    /// About how many bytes the section has so far.
    pub fn bytes(&self) -> usize {
        let parts = [&self.names, &self.name_run, &self.runs, &self.times, &self.integers, &self.values];
        parts.iter().map(|part| part.len()).sum::<usize>() + self.starts.len() + self.histograms.len()
    }

    /// Adds a series of a batch.
    #[inline]
    pub fn push_batch(&mut self, name: Name<'_>, batch: &Batch, series: &BatchSeries) {
        let floats = series.floats();
        let starts = if batch.starts.is_empty() { &[] } else { &batch.starts[floats.clone()] };
        let values = Values::Bits(&batch.values[floats.clone()]);
        self.push(name, Rows { timestamps: &batch.timestamps[floats], values, starts });
        if series.histograms_len > 0 {
            let rows = &batch.histograms[series.histograms()];
            self.push_histograms(rows.iter().map(|row| (row.timestamp, row.start, &row.histogram)));
        }
    }

    /// Adds a series with its samples.
    pub fn push_samples(&mut self, name: Name<'_>, samples: &Samples) {
        let values = Values::Floats(&samples.values);
        self.push(name, Rows { timestamps: &samples.timestamps, values, starts: &samples.starts });
        if !samples.histograms.is_empty() {
            self.push_histograms(samples.histograms.iter().map(|(t, start, h)| (*t, *start, &**h)));
        }
    }

    /// Adds a series with its float rows.
    #[inline]
    pub fn push(&mut self, name: Name<'_>, rows: Rows<'_>) {
        self.name(name);
        self.series += 1;
        let count = rows.timestamps.len();
        if count != self.count || self.repeat == 0 {
            self.end_run();
            self.count = count;
        }
        match rows.values {
            Values::Bits(bits) => self.floats(rows.timestamps, bits, |bits| bits),
            Values::Floats(floats) => self.floats(rows.timestamps, floats, f64::to_bits),
        }
        self.repeat += 1;
        if !rows.starts.is_empty() || !self.starts.is_empty() {
            self.starts(rows.starts, count);
        }
        self.rows += count;
    }

    /// Adds histograms (timestamp, start timestamp, value) to the last series.
    pub fn push_histograms<'a>(&mut self, rows: impl ExactSizeIterator<Item = (i64, i64, &'a Histogram)>) {
        if planted(Mistake::DropHistograms) {
            return;
        }
        let out = &mut self.histograms;
        let index = self.series - 1;
        varint::put(out, index - self.histogram_last);
        varint::put(out, rows.len() as u64);
        let mut before = 0i64;
        for (timestamp, start, histogram) in rows {
            varint::put(out, varint::zigzag(timestamp.wrapping_sub(before)));
            varint::put(out, varint::zigzag(start));
            histogram.encode(out);
            before = timestamp;
        }
        self.histogram_last = index;
        self.histogram_series += 1;
    }

    #[inline]
    fn name(&mut self, name: Name<'_>) {
        let kind = match name {
            Name::Ref(_) => kind::REF,
            Name::Id(_) => kind::ID,
            Name::Define(..) => kind::DEFINE,
            Name::Labels(_) => kind::LABELS,
            Name::DefineLabels(..) => kind::DEFINE_LABELS,
        };
        if kind != self.name_kind {
            self.end_names();
            self.name_kind = kind;
        }
        self.name_count += 1;
        match name {
            Name::Ref(number) => self.number(number),
            Name::Id(id) => self.name_run.extend_from_slice(&id.0.to_le_bytes()),
            Name::Define(number, id) => {
                self.number(number);
                self.name_run.extend_from_slice(&id.0.to_le_bytes());
            }
            Name::Labels(labels) => self.labels(labels),
            Name::DefineLabels(number, labels) => {
                self.number(number);
                self.labels(labels);
            }
        }
    }

    #[inline]
    fn number(&mut self, number: u32) {
        let step = i64::from(number) - i64::from(self.number);
        varint::put(&mut self.name_run, varint::zigzag(step));
        self.number = number;
    }

    fn labels(&mut self, labels: &[u8]) {
        varint::put(&mut self.name_run, labels.len() as u64);
        self.name_run.extend_from_slice(labels);
    }

    fn end_names(&mut self) {
        if self.name_count > 0 {
            varint::put(&mut self.names, self.name_count << 3 | self.name_kind);
            self.names.append(&mut self.name_run);
            self.name_count = 0;
        }
    }

    #[inline]
    fn floats<T: Copy>(&mut self, timestamps: &[i64], values: &[T], bits: impl Fn(T) -> u64) {
        match (timestamps, values) {
            ([], _) => {}
            ([time], [value]) => {
                varint::put(&mut self.times, varint::zigzag(time.wrapping_sub(self.time)));
                self.time = *time;
                let bit = (self.repeat % 8) as u8;
                if bit == 0 {
                    self.integers.push(0);
                }
                let bits = bits(*value);
                match integer(bits) {
                    Some(integer) => {
                        if let Some(last) = self.integers.last_mut() {
                            *last |= 1 << bit;
                        }
                        varint::put(&mut self.values, varint::zigzag(integer));
                    }
                    None => self.values.extend_from_slice(&bits.to_le_bytes()),
                }
            }
            _ => self.several(timestamps, values, bits),
        }
    }

    fn several<T: Copy>(&mut self, timestamps: &[i64], values: &[T], bits: impl Fn(T) -> u64) {
        assert_eq!(timestamps.len(), values.len(), "BUG: as many values as timestamps");
        let out = &mut self.values;
        let at = out.len();
        out.push(0);
        let (first, second) = (timestamps[0], timestamps[1]);
        let step = second.wrapping_sub(first);
        let times = if self.times_before == timestamps {
            form::TIMES_SAME
        } else {
            varint::put(out, varint::zigzag(first.wrapping_sub(self.time)));
            varint::put(out, varint::zigzag(step));
            self.times_before.clear();
            self.times_before.extend_from_slice(timestamps);
            if timestamps.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
                form::TIMES_REGULAR
            } else {
                let (mut time, mut step) = (second, step);
                for &next in &timestamps[2..] {
                    let this = next.wrapping_sub(time);
                    varint::put(out, varint::zigzag(this.wrapping_sub(step)));
                    (time, step) = (next, this);
                }
                form::TIMES_ANY
            }
        };
        self.time = first;
        let first = bits(values[0]);
        let values_form = if values.iter().all(|&value| bits(value) == first) {
            out.extend_from_slice(&first.to_le_bytes());
            form::VALUES_CONSTANT
        } else if integers(values, &bits, out) {
            form::VALUES_INTEGERS
        } else if xors(values, &bits, out) {
            form::VALUES_XOR
        } else {
            values.iter().for_each(|&value| out.extend_from_slice(&bits(value).to_le_bytes()));
            form::VALUES_RAW
        };
        out[at] = times | values_form;
    }

    #[cold]
    fn starts(&mut self, starts: &[i64], count: usize) {
        if self.starts.is_empty() {
            // Those before have none.
            self.starts.resize(self.rows, 0);
        }
        for row in 0..count {
            let start = starts.get(row).copied().unwrap_or(0);
            varint::put(&mut self.starts, varint::zigzag(start.wrapping_sub(self.start)));
            self.start = start;
        }
    }

    fn end_run(&mut self) {
        if self.repeat > 0 {
            varint::put(&mut self.runs, self.repeat);
            varint::put(&mut self.runs, self.count as u64);
            self.runs.append(&mut self.times);
            self.runs.append(&mut self.integers);
            self.runs.append(&mut self.values);
            self.repeat = 0;
        }
    }

    /// Appends the section to `out`, unless it has no series, and begins the next one. `generation` is that of the numbers in it,
    /// 0 where there are none.
    pub fn finish(&mut self, shard: Shard, generation: u32, out: &mut Vec<u8>) {
        if self.series > 0 {
            self.end_names();
            self.end_run();
            out.extend_from_slice(&shard.0.to_le_bytes());
            let length_at = out.len();
            out.extend_from_slice(&[0; 4]);
            varint::put(out, u64::from(generation));
            varint::put(out, self.series);
            let starts = if self.starts.is_empty() { 0 } else { flag::STARTS };
            let histograms = if self.histogram_series == 0 { 0 } else { flag::HISTOGRAMS };
            out.push(starts | histograms);
            out.extend_from_slice(&self.names);
            out.extend_from_slice(&self.runs);
            out.extend_from_slice(&self.starts);
            if histograms != 0 {
                varint::put(out, self.histogram_series);
                out.extend_from_slice(&self.histograms);
            }
            let length = u32::try_from(out.len() - length_at - 4).expect("BUG: a section of 4 GiB");
            out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        }
        self.clear();
    }

    /// Forgets the section that was begun.
    pub fn clear(&mut self) {
        for part in [&mut self.names, &mut self.name_run, &mut self.runs, &mut self.times] {
            part.clear();
        }
        for part in [&mut self.integers, &mut self.values, &mut self.starts, &mut self.histograms] {
            part.clear();
        }
        self.times_before.clear();
        (self.series, self.name_kind, self.name_count, self.number) = (0, kind::REF, 0, 0);
        (self.count, self.repeat, self.time, self.start, self.rows) = (0, 0, 0, 0, 0);
        (self.histogram_series, self.histogram_last) = (0, 0);
    }
}

/// Writes values as integers, or nothing if one of them is none.
fn integers<T: Copy>(values: &[T], bits: impl Fn(T) -> u64, out: &mut Vec<u8>) -> bool {
    let at = out.len();
    let mut before = 0i64;
    for &value in values {
        let Some(integer) = integer(bits(value)) else {
            out.truncate(at);
            return false;
        };
        varint::put(out, varint::zigzag(integer - before));
        before = integer;
    }
    true
}

/// Writes the bytes in which values differ from the one before, or nothing if that saves less than an eighth.
///
/// ```text
/// first:u64  ( leading << 4 | trailing  the bytes between ) x …       leading, trailing: bytes that are the same
/// ```
fn xors<T: Copy>(values: &[T], bits: impl Fn(T) -> u64, out: &mut Vec<u8>) -> bool {
    let at = out.len();
    let most = at + values.len() * 7;
    let mut before = bits(values[0]);
    out.extend_from_slice(&before.to_le_bytes());
    for &value in &values[1..] {
        let value = bits(value);
        let xor = value ^ before;
        before = value;
        let leading = xor.leading_zeros() / 8;
        let trailing = if xor == 0 { 0 } else { xor.trailing_zeros() / 8 };
        out.push((leading << 4 | trailing) as u8);
        let used = 8 - leading as usize - trailing as usize;
        out.extend_from_slice(&(xor.unbounded_shr(trailing * 8)).to_le_bytes()[..used]);
        if out.len() > most {
            out.truncate(at);
            return false;
        }
    }
    true
}
