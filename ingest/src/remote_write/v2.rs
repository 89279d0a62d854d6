//! `io.prometheus.write.v2.Request`.
//!
//! ```text
//! Request    { string symbols = 4, timeseries = 5 }
//! TimeSeries { uint32 labels_refs = 1, samples = 2, histograms = 3, exemplars = 4, metadata = 5 }
//! Sample     { double value = 1, int64 timestamp = 2, int64 start_timestamp = 3 }
//! Exemplar   { uint32 labels_refs = 1, double value = 2, int64 timestamp = 3 }
//! Metadata   { type = 1, uint32 help_ref = 3, uint32 unit_ref = 4 }
//! ```
//!
//! References come in pairs, name and value, into `symbols`, whose first entry is the empty string. The body is walked
//! twice, since symbols may follow the series that use them. Label bytes are put together behind the body:
//!
//! ```text
//! Batch::bytes := body | labels of series 0 | labels of series 1 | ..
//! ```
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::histogram;
use super::wire::{Cursor, Malformed, fixed64, len, varint};
use crate::limits::Budget;
use crate::problems::{Problems, Reason};
use crate::series::{self, Text};
use crate::store::Decoded;
use crate::{Limits, Refusal, metadata};
use model::histogram::Invalid;
use model::labels::METRIC_NAME;
use model::{Batch, BatchSeries, Metadata, MetricType, SeriesKey};

const SYMBOLS: u32 = len(4);
const TIMESERIES: u32 = len(5);

const LABELS_REFS: u32 = varint(1);
const LABELS_REFS_PACKED: u32 = len(1);
const SAMPLES: u32 = len(2);
const HISTOGRAMS: u32 = len(3);
const EXEMPLARS: u32 = len(4);
const METADATA: u32 = len(5);

const SAMPLE_VALUE: u32 = fixed64(1);
const SAMPLE_TIMESTAMP: u32 = varint(2);
const SAMPLE_START: u32 = varint(3);
const EXEMPLAR_VALUE: u32 = fixed64(2);
const EXEMPLAR_TIMESTAMP: u32 = varint(3);
const METADATA_TYPE: u32 = varint(1);
const METADATA_HELP: u32 = varint(3);
const METADATA_UNIT: u32 = varint(4);

/// Where a symbol lies in the body.
#[derive(Clone, Copy, Debug, Default)]
struct Symbol {
    at: u32,
    len: u32,
    /// Bytes of a protobuf field that holds it: tag, length and itself.
    field_len: u32,
}

/// Fills the columns of `batch` from the `Request` in its `bytes`. An error leaves them half filled: clear them.
pub fn decode_v2(batch: &mut Batch, key: SeriesKey, limits: &Limits) -> Result<Decoded, Refusal> {
    limits.check_decoded(batch.bytes.len(), 400)?;
    let mut budget = limits.budget();
    let symbols = symbols(&batch.bytes, &mut budget)?;
    // The body is read while the columns grow; it goes back even when decoding fails, so that its memory is kept.
    let mut bytes = std::mem::take(&mut batch.bytes);
    let body_len = bytes.len();
    let mut visitor = Visitor {
        batch,
        key,
        limits,
        budget,
        symbols,
        body_len,
        assembled_to: body_len,
        one: One::default(),
        described: [None; DESCRIBED],
        problems: Problems::default(),
        exemplars: 0,
    };
    let result = visitor.request(&mut bytes);
    bytes.truncate(visitor.assembled_to);
    let decoded = Decoded { problems: visitor.problems, exemplars: visitor.exemplars };
    batch.bytes = bytes;
    result.map(|()| decoded)
}

fn symbols(body: &[u8], budget: &mut Budget) -> Result<Vec<Symbol>, Refusal> {
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut message = Cursor::new(body);
    while !message.is_done() {
        match message.key()? {
            SYMBOLS => {
                let symbol = message.bytes()?;
                if symbols.is_empty() && !symbol.is_empty() {
                    let got = series::Quoted(symbol);
                    return Err(Refusal::bad(format!("symbols[0] must be the empty string, got {got}")));
                }
                budget.take(size_of::<Symbol>())?;
                let len = symbol.len() as u32;
                symbols.push(Symbol {
                    at: (message.at() - symbol.len()) as u32,
                    len,
                    field_len: 1 + varint_len(len) + len,
                });
            }
            TIMESERIES => message.skip_len()?,
            key => message.unknown(key, 1 << 4 | 1 << 5)?,
        }
    }
    Ok(symbols)
}

/// What is known of the series that is being read, besides its rows. Its vectors are reused.
#[derive(Default)]
struct One {
    refs: Vec<u32>,
    exemplar_refs: Vec<u32>,
    state: State,
}

#[derive(Default)]
struct State {
    floats_at: usize,
    histograms_at: usize,
    histogram_fault: Option<Invalid>,
    histograms_rejected: u64,
    exemplar_fault: Option<String>,
    exemplars_rejected: u64,
    exemplar_latest: Option<i64>,
    described: Described,
}

/// A series' metadata on the wire, with the reference of its metric's name.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Described {
    name_ref: u32,
    metric_type: u64,
    help_ref: u32,
    unit_ref: u32,
}

/// Families remembered, so that the metadata that comes with each of their series is taken once.
const DESCRIBED: usize = 256;

struct Visitor<'a> {
    batch: &'a mut Batch,
    key: SeriesKey,
    limits: &'a Limits,
    budget: Budget,
    symbols: Vec<Symbol>,
    body_len: usize,
    /// How far [`Batch::bytes`] is filled; what lies behind is room.
    assembled_to: usize,
    one: One,
    /// Slot by [`Described::name_ref`].
    described: [Option<Described>; DESCRIBED],
    problems: Problems,
    exemplars: u64,
}

impl Visitor<'_> {
    fn request(&mut self, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut at = 0;
        while at < self.body_len {
            // Made anew for each series, because label bytes are added to the vector that it reads.
            let mut message = Cursor::resume(bytes.get(..self.body_len).unwrap_or_default(), at);
            match message.key()? {
                TIMESERIES => {
                    let series = message.message()?;
                    at = message.at();
                    self.series(series)?;
                    self.finish(bytes)?;
                }
                // Everything else was looked at when symbols were collected.
                SYMBOLS => {
                    message.skip_len()?;
                    at = message.at();
                }
                key => {
                    message.unknown(key, 0)?;
                    at = message.at();
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn series(&mut self, mut message: Cursor) -> Result<(), Refusal> {
        self.one.refs.clear();
        self.one.state = State {
            floats_at: self.batch.timestamps.len(),
            histograms_at: self.batch.histograms.len(),
            ..State::default()
        };
        while !message.is_done() {
            match message.key()? {
                LABELS_REFS_PACKED => refs(message.message()?, &mut self.one.refs, &mut self.budget)?,
                LABELS_REFS => {
                    self.budget.take(size_of::<u32>())?;
                    self.one.refs.push(message.varint()? as u32);
                }
                SAMPLES => {
                    let (timestamp, value, start) = sample(message.message()?)?;
                    self.budget.take(24)?;
                    if start != 0 && self.batch.starts.is_empty() {
                        self.batch.starts.resize(self.batch.timestamps.len(), 0);
                    }
                    if start != 0 || !self.batch.starts.is_empty() {
                        self.batch.starts.push(start);
                    }
                    self.batch.timestamps.push(timestamp);
                    self.batch.values.push(value);
                }
                HISTOGRAMS => {
                    let mut row = histogram::decode(message.message()?, &mut self.budget, true)?;
                    match histogram::accept(&mut row) {
                        Ok(()) => self.batch.histograms.push(row),
                        Err(why) => {
                            self.one.state.histograms_rejected += 1;
                            self.one.state.histogram_fault.get_or_insert(why);
                        }
                    }
                }
                EXEMPLARS => self.exemplar(message.message()?)?,
                METADATA => metadata_refs(message.message()?, &mut self.one.state.described)?,
                key => message.unknown(key, 0b11_1110)?,
            }
        }
        Ok(())
    }

    fn exemplar(&mut self, mut message: Cursor) -> Result<(), Refusal> {
        self.exemplars += 1;
        let One { exemplar_refs, state, .. } = &mut self.one;
        exemplar_refs.clear();
        let mut timestamp = 0;
        while !message.is_done() {
            match message.key()? {
                LABELS_REFS_PACKED => refs(message.message()?, exemplar_refs, &mut self.budget)?,
                LABELS_REFS => exemplar_refs.push(message.varint()? as u32),
                EXEMPLAR_VALUE => drop(message.fixed64()?),
                EXEMPLAR_TIMESTAMP => timestamp = message.varint()? as i64,
                key => message.unknown(key, 0b1110)?,
            }
        }
        let fault = match refs_fault(exemplar_refs, self.symbols.len()) {
            Some(fault) => Some(format!("parsing exemplar: {fault}")),
            None if state.exemplar_latest.is_some_and(|latest| timestamp < latest) => {
                Some("out of order exemplar".to_string())
            }
            None => None,
        };
        match fault {
            Some(fault) => {
                state.exemplars_rejected += 1;
                state.exemplar_fault.get_or_insert(fault);
            }
            None => state.exemplar_latest = Some(timestamp),
        }
        Ok(())
    }

    /// Puts the labels together and enters the series that was read, or says what is wrong with it and takes back its
    /// rows.
    #[inline]
    fn finish(&mut self, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        let State { floats_at, histograms_at, .. } = self.one.state;
        let floats_len = self.batch.timestamps.len() - floats_at;
        let histograms_len = self.batch.histograms.len() - histograms_at;
        let Some(len) = labels_len(&self.one.refs, &self.symbols) else {
            self.reject();
            return Ok(());
        };
        self.budget.take(len + size_of::<BatchSeries>())?;
        let at = self.assembled_to;
        if bytes.len() < at + len + SLACK {
            // In large steps, so that zeroing costs little.
            bytes.resize(at + len + SLACK + (at - self.body_len).max(64 << 10), 0);
        }
        let (body, tail) = bytes.split_at_mut(self.body_len);
        let room = tail.get_mut(at - self.body_len..).unwrap_or_default();
        assemble(&self.one.refs, &self.symbols, body, room);
        let labels = room.get(..len).unwrap_or_default();
        if floats_len + histograms_len == 0
            || self.one.state.exemplars_rejected > 0
            || self.one.state.histograms_rejected > 0
        {
            self.report(labels, floats_len + histograms_len > 0);
        }
        if self.one.state.described != Described::default() {
            self.describe(body, labels)?;
        }
        if floats_len + histograms_len == 0 {
            return Ok(());
        }
        self.batch.series.push(BatchSeries {
            id: self.key.id(labels),
            checked: false,
            labels_at: at as u32,
            labels_len: len as u32,
            floats_at: floats_at as u32,
            floats_len: floats_len as u32,
            histograms_at: histograms_at as u32,
            histograms_len: histograms_len as u32,
        });
        self.assembled_to = at + len;
        Ok(())
    }

    /// The references lead nowhere, so the series has no labels that its rows could be stored under.
    #[cold]
    fn reject(&mut self) {
        let One { refs, state, .. } = &self.one;
        let rows =
            self.batch.timestamps.len() - state.floats_at + self.batch.histograms.len() - state.histograms_at;
        let fault = refs_fault(refs, self.symbols.len()).unwrap_or_default();
        self.problems.add(Reason::Malformed, rows as u64 + state.histograms_rejected, || {
            format!("parsing labels for series {}: {fault}", RefsText(refs))
        });
        self.batch.timestamps.truncate(state.floats_at);
        self.batch.values.truncate(state.floats_at);
        self.batch.starts.truncate(state.floats_at);
        self.batch.histograms.truncate(state.histograms_at);
    }

    /// What is wrong with a series whose labels could be read.
    #[cold]
    fn report(&mut self, labels: &[u8], has_rows: bool) {
        let State { histogram_fault, histograms_rejected, exemplar_fault, exemplars_rejected, .. } =
            &self.one.state;
        if !has_rows {
            // It will not reach the sink, so its labels are checked here; what is wrong with them is told first.
            if let Err(fault) = series::check(labels, &mut Vec::new(), self.limits) {
                self.problems.add(fault.reason(), *histograms_rejected, || fault.message(labels));
                return;
            }
            if *histograms_rejected == 0 {
                self.problems.add(Reason::NoSamples, 0, || {
                    format!(
                        "TimeSeries must contain at least one sample or histogram for series {}",
                        Text(labels)
                    )
                });
            }
        }
        if let Some(why) = histogram_fault {
            self.problems.add(Reason::InvalidHistogram, *histograms_rejected, || {
                format!("{why} for series {}", Text(labels))
            });
        }
        if let Some(why) = exemplar_fault {
            self.problems.add(Reason::Exemplar, 0, || {
                format!("{why} for series {} ({exemplars_rejected} exemplars)", Text(labels))
            });
        }
    }

    /// Takes what the series says about its family, unless a series before has said the same.
    fn describe(&mut self, body: &[u8], labels: &[u8]) -> Result<(), Refusal> {
        let text = |symbol: Symbol| body.get(symbol.at as usize..symbol.end()).unwrap_or_default();
        let name_ref = self.one.refs.as_chunks::<2>().0.iter().find_map(|[name, value]| {
            let name = self.symbols.get(*name as usize)?;
            (name.len as usize == METRIC_NAME.len() && text(*name) == METRIC_NAME.as_bytes())
                .then_some(*value)
        });
        let Some(name_ref) = name_ref else { return Ok(()) };
        let described = Described { name_ref, ..self.one.state.described };
        let slot = self.described.get_mut(name_ref as usize % DESCRIBED);
        if slot.as_ref().is_some_and(|slot| **slot == Some(described)) {
            return Ok(());
        }
        let symbol = |reference: u32| self.symbols.get(reference as usize).copied().map(text);
        for (what, reference) in [("help_ref", described.help_ref), ("unit_ref", described.unit_ref)] {
            // References of zero mean nothing, with or without a table.
            if reference != 0 && symbol(reference).is_none() {
                let size = self.symbols.len();
                self.problems.add(Reason::Malformed, 0, || {
                    let text = Text(labels);
                    format!("parsing metadata for series {text}: {what} {reference} outside of symbols table (size {size})")
                });
                return Ok(());
            }
        }
        let metric_type = MetricType::from_wire(described.metric_type);
        let family = metadata::family(symbol(name_ref).unwrap_or_default(), metric_type);
        let help = symbol(described.help_ref).unwrap_or_default();
        let unit = symbol(described.unit_ref).unwrap_or_default();
        if let Some(entry) = metadata::entry(family, metric_type, help, unit, self.limits) {
            self.budget
                .take(size_of::<Metadata>() + entry.family.len() + entry.help.len() + entry.unit.len())?;
            self.batch.metadata.push(entry);
        }
        if let Some(slot) = slot {
            *slot = Some(described);
        }
        Ok(())
    }
}

impl Symbol {
    #[inline(always)]
    fn end(self) -> usize {
        self.at as usize + self.len as usize
    }
}

#[inline]
fn refs(mut packed: Cursor, into: &mut Vec<u32>, budget: &mut Budget) -> Result<(), Refusal> {
    budget.take(size_of::<u32>() * packed.left())?;
    while !packed.is_done() {
        into.push(packed.varint_short()? as u32);
    }
    Ok(())
}

#[inline(always)]
fn sample(mut message: Cursor) -> Result<(i64, u64, i64), Malformed> {
    let (mut timestamp, mut value, mut start) = (0, 0, 0);
    while !message.is_done() {
        match message.key()? {
            SAMPLE_VALUE => value = message.fixed64()?,
            SAMPLE_TIMESTAMP => timestamp = message.varint()? as i64,
            SAMPLE_START => start = message.varint()? as i64,
            key => message.unknown(key, 0b1110)?,
        }
    }
    Ok((timestamp, value, start))
}

fn metadata_refs(mut message: Cursor, described: &mut Described) -> Result<(), Malformed> {
    while !message.is_done() {
        match message.key()? {
            METADATA_TYPE => described.metric_type = message.varint()? & u64::from(u32::MAX),
            METADATA_HELP => described.help_ref = message.varint()? as u32,
            METADATA_UNIT => described.unit_ref = message.varint()? as u32,
            key => message.unknown(key, 0b1_1010)?,
        }
    }
    Ok(())
}

/// What is wrong with references, in Prometheus's words.
#[cold]
fn refs_fault(refs: &[u32], size: usize) -> Option<String> {
    let (pairs, rest) = refs.as_chunks::<2>();
    if !rest.is_empty() {
        return Some(format!("invalid labelRefs length {}", refs.len()));
    }
    pairs.iter().find(|pair| pair.iter().any(|r| *r as usize >= size)).map(|[name, value]| {
        format!("labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})")
    })
}

/// A list of references as Go prints it: `[1 2 3]`.
struct RefsText<'a>(&'a [u32]);

/// References shown of a list that is far too long.
const SHOWN_MAX: usize = 128;

impl std::fmt::Display for RefsText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<String> = self.0.iter().take(SHOWN_MAX).map(u32::to_string).collect();
        write!(f, "[{}{}]", shown.join(" "), if self.0.len() > SHOWN_MAX { " …" } else { "" })
    }
}

/// Bytes that are copied at once.
const WORD: usize = 32;

/// Bytes behind the label bytes that [`assemble`] may write to: a label's head and two words.
const SLACK: usize = 6 + 2 * WORD;

/// Tag and length of a label, of its name and of its value, where the length takes one byte.
const LABEL_TAG: u8 = 0x0a;
const NAME_TAG: u8 = 0x0a;
const VALUE_TAG: u8 = 0x12;

#[inline(always)]
fn varint_len(value: u32) -> u32 {
    // Bits divided by seven, rounded up, for 1 to 32 bits.
    let bits = 32 - (value | 1).leading_zeros();
    (9 * bits + 64) / 64
}

/// How many label bytes the references make; `None` if one leads nowhere or a value is missing.
#[inline]
fn labels_len(refs: &[u32], symbols: &[Symbol]) -> Option<usize> {
    let (pairs, rest) = refs.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().try_fold(0usize, |len, [name, value]| {
        // No overflow: a body is at most 1 GiB.
        let pair = symbols.get(*name as usize)?.field_len + symbols.get(*value as usize)?.field_len;
        Some(len + (1 + varint_len(pair) + pair) as usize)
    })
}

/// Writes the labels to the front of `room` in the form of [`model::labels`], in the order of the references.
///
/// Symbols are short: copying whole words, and a little too much, is several times faster than copying exactly.
/// `room` must have [`SLACK`] bytes more than [`labels_len`].
#[inline]
fn assemble(refs: &[u32], symbols: &[Symbol], body: &[u8], room: &mut [u8]) {
    let mut out = Out { room, at: 0 };
    for [name, value] in refs.as_chunks::<2>().0 {
        let (Some(&name), Some(&value)) = (symbols.get(*name as usize), symbols.get(*value as usize)) else {
            return;
        };
        let pair = name.field_len + value.field_len;
        if !out.short_label(body, pair, name, value) {
            out.tag(LABEL_TAG, pair);
            out.tag(NAME_TAG, name.len);
            out.copy(body, name);
            out.tag(VALUE_TAG, value.len);
            out.copy(body, value);
        }
    }
}

struct Out<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        if let Some(to) = self.room.get_mut(self.at) {
            *to = byte;
            self.at += 1;
        }
    }

    #[inline(always)]
    fn tag(&mut self, tag: u8, mut len: u32) {
        self.byte(tag);
        while len >= 0x80 {
            self.byte(len as u8 | 0x80);
            len >>= 7;
        }
        self.byte(len as u8);
    }

    /// A label whose name and value take no more than a word each, as nearly all do. False if this one does not, or if
    /// a symbol lies so near to the body's end that a word read there would be cut.
    #[inline(always)]
    fn short_label(&mut self, body: &[u8], pair: u32, name: Symbol, value: Symbol) -> bool {
        if name.len as usize > WORD || value.len as usize > WORD {
            return false;
        }
        let word = |symbol: Symbol| body.get(symbol.at as usize..)?.first_chunk::<WORD>();
        let (Some(name_word), Some(value_word)) = (word(name), word(value)) else { return false };
        let room = self.room.get_mut(self.at..).unwrap_or_default();
        let Some(to) = room.first_chunk_mut::<{ 4 + WORD }>() else { return false };
        let (head, to) = to.split_at_mut(4);
        head.copy_from_slice(&[LABEL_TAG, pair as u8, NAME_TAG, name.len as u8]);
        to.copy_from_slice(name_word);
        // Over the excess of the name's word.
        let room = room.get_mut(4 + name.len as usize..).unwrap_or_default();
        let Some(to) = room.first_chunk_mut::<{ 2 + WORD }>() else { return false };
        let (head, to) = to.split_at_mut(2);
        head.copy_from_slice(&[VALUE_TAG, value.len as u8]);
        to.copy_from_slice(value_word);
        self.at += 2 + pair as usize;
        true
    }

    fn copy(&mut self, body: &[u8], symbol: Symbol) {
        let (from, len) = (symbol.at as usize, symbol.len as usize);
        if let (Some(from), Some(to)) =
            (body.get(from..from + len), self.room.get_mut(self.at..self.at + len))
        {
            to.copy_from_slice(from);
        }
        self.at += len;
    }
}
