//! The series table: labels and places of every series, each entry relative to the one before.
//!
//! ```text
//! shapes  := (count: varint | symbol of a label name: varint x count) for each list of names that occurs
//! groups  := start in the series section: u32, for every 16th series
//! series  := groups
//! group   := where the first series' values start: varint | up to 16 entries
//! entry   := place of the shape: varint
//!            | one bit a label, lowest first, set if the value is not the predicted one: (count + 7) / 8 bytes
//!            | symbol of the value - predicted: zigzag varint, for each set bit
//!            | (place of the column + 1) * 2 + has extras: varint; 0 or 1 if there are no floats
//!            | [length of the values: varint, if there are floats]
//!            | [place of the extras: varint | their length: varint, if there are extras]
//! ```
//!
//! A label's value is predicted to be that of the same name in the entry before, else 0; the entry before a group's first
//! has no labels. Places count from their section's start. The values of a series follow those of the series before.

use crate::codec::Input;
use model::varint;
use std::ops::Range;

/// Series in a group: at most so many entries are read to reach one.
pub(super) const GROUP: usize = 16;

/// A label as symbols of name and value.
pub(super) type Pair = (u32, u32);

/// Where the samples of a series are, as places in their sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// The column of timestamps, if there are floats.
    pub column: Option<usize>,
    pub values: Range<usize>,
    pub extras: Option<Range<usize>>,
}

/// Appends the entry of a series with these labels.
pub(super) fn encode(shape: usize, labels: &[Pair], before: &[Pair], places: &Places, out: &mut Vec<u8>) {
    varint::put(out, shape as u64);
    let mask = out.len();
    out.resize(mask + labels.len().div_ceil(8), 0);
    for (i, &(name, value)) in labels.iter().enumerate() {
        let predicted = predict(before, name);
        if value != predicted {
            out[mask + i / 8] |= 1 << (i % 8);
            varint::put(out, varint::zigzag(i64::from(value) - i64::from(predicted)));
        }
    }
    let column = places.column.map_or(0, |at| at as u64 + 1);
    varint::put(out, column << 1 | u64::from(places.extras.is_some()));
    if places.column.is_some() {
        varint::put(out, places.values.len() as u64);
    }
    if let Some(extras) = &places.extras {
        varint::put(out, extras.start as u64);
        varint::put(out, extras.len() as u64);
    }
}

fn predict(before: &[Pair], name: u32) -> u32 {
    let at = before.binary_search_by_key(&name, |pair| pair.0);
    at.ok().and_then(|at| before.get(at)).map_or(0, |pair| pair.1)
}

/// Reads a group's entries one after the other.
pub(super) struct Entries<'a> {
    input: Input<'a>,
    shapes: &'a [u8],
    values_at: usize,
    /// Labels of the entry read last, if they are kept.
    pub labels: Vec<Pair>,
    spare: Vec<Pair>,
}

impl<'a> Entries<'a> {
    /// From the start of a group on. The vectors of `reuse` are used again.
    pub fn new(group: &'a [u8], shapes: &'a [u8], reuse: Option<Entries<'a>>) -> Option<Entries<'a>> {
        let mut input = Input(group);
        let values_at = input.count(usize::MAX)?;
        let (mut labels, spare) = reuse.map_or_else(Default::default, |old| (old.labels, old.spare));
        labels.clear();
        Some(Entries { input, shapes, values_at, labels, spare })
    }

    /// The next entry; its labels are in `labels` if they are kept for it and for every entry before.
    #[inline]
    pub fn next(&mut self, keep_labels: bool) -> Option<Places> {
        let shape = self.input.count(self.shapes.len())?;
        let mut shape = Input(self.shapes.get(shape..)?);
        let count = shape.count(shape.0.len())?;
        let mask = self.input.take(count.div_ceil(8))?;
        if keep_labels {
            self.spare.clear();
            for i in 0..count {
                let name = u32::try_from(shape.varint()?).ok()?;
                let predicted = predict(&self.labels, name);
                let changed = mask.get(i / 8)? >> (i % 8) & 1 != 0;
                let delta = if changed { self.input.signed()? } else { 0 };
                let value = u32::try_from(i64::from(predicted).checked_add(delta)?).ok()?;
                self.spare.push((name, value));
            }
            std::mem::swap(&mut self.labels, &mut self.spare);
        } else {
            for _ in 0..mask.iter().map(|byte| byte.count_ones()).sum::<u32>() {
                self.input.varint()?;
            }
        }
        let place = self.input.count(usize::MAX)?;
        let column = (place >> 1).checked_sub(1);
        let len = if column.is_some() { self.input.count(usize::MAX)? } else { 0 };
        let values = self.values_at..self.values_at.checked_add(len)?;
        self.values_at = values.end;
        let extras = if place & 1 != 0 {
            let at = self.input.count(usize::MAX)?;
            Some(at..at.checked_add(self.input.count(usize::MAX)?)?)
        } else {
            None
        };
        Some(Places { column, values, extras })
    }
}
