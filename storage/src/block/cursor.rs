//! Reads the labels of many series.

use super::format::Section;
use super::reader::Reader;
use super::series::{Entries, GROUP, Pair};
use super::symbols;
use crate::{Error, Result};
use model::{Labels, labels};
use std::ops::Range;

/// Remembers where it is in the series table and what the last series' labels look like: neighbours share most labels,
/// so for ascending numbers only what differs is decoded.
pub struct LabelCursor<'a> {
    reader: &'a Reader,
    entries: Option<Entries<'a>>,
    /// The number of the entry that comes next.
    next: u32,
    /// Canonical bytes of the last series, with the place of each label in them.
    bytes: Vec<u8>,
    parts: Vec<(Pair, Range<usize>)>,
    spare_bytes: Vec<u8>,
    spare_parts: Vec<(Pair, Range<usize>)>,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> LabelCursor<'a> {
    pub(super) fn new(reader: &'a Reader) -> LabelCursor<'a> {
        LabelCursor {
            reader,
            entries: None,
            next: 0,
            bytes: Vec::new(),
            parts: Vec::new(),
            spare_bytes: Vec::new(),
            spare_parts: Vec::new(),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The labels of a series.
    pub fn labels(&mut self, series: u32) -> Result<Labels> {
        self.load(series)?;
        if !labels::is_canonical(&self.bytes) {
            return Err(self.malformed(series));
        }
        Ok(Labels::from_canonical(&self.bytes))
    }

    /// Appends the canonical label bytes of a series.
    pub fn bytes(&mut self, series: u32, out: &mut Vec<u8>) -> Result<()> {
        self.load(series)?;
        out.extend_from_slice(&self.bytes);
        Ok(())
    }

    fn malformed(&self, series: u32) -> Error {
        self.reader.malformed(Section::Series, 0, &format!("the labels of series {series}"))
    }

    fn load(&mut self, series: u32) -> Result<()> {
        let reader = self.reader;
        assert!(series < reader.series_count(), "BUG: series {series} of {}", reader.series_count());
        let group = series as usize / GROUP;
        let ahead = self.entries.is_some()
            && series + 1 >= self.next
            && (self.next as usize).div_ceil(GROUP) == group + 1;
        if !ahead {
            let bytes = reader.group(group)?;
            let shapes = reader.whole(Section::Shapes)?;
            self.entries = Entries::new(bytes, shapes, self.entries.take());
            self.next = (group * GROUP) as u32;
        }
        let symbols = reader.whole(Section::Symbols)?;
        let read = self.read(series, symbols);
        if read.is_none() {
            self.entries = None;
            return Err(self.malformed(series));
        }
        Ok(())
    }

    fn read(&mut self, series: u32, symbols: &[u8]) -> Option<()> {
        let entries = self.entries.as_mut()?;
        while self.next <= series {
            entries.next(true)?;
            self.next += 1;
        }
        self.spare_bytes.clear();
        self.spare_parts.clear();
        for (at, &pair) in entries.labels.iter().enumerate() {
            let from = self.spare_bytes.len();
            let known = self.parts.get(at).filter(|part| part.0 == pair).or_else(|| {
                let at = self.parts.binary_search_by_key(&pair, |part| part.0).ok()?;
                self.parts.get(at)
            });
            if let Some((_, range)) = known {
                self.spare_bytes.extend_from_slice(self.bytes.get(range.clone())?);
            } else {
                symbols::get(symbols, pair.0, &mut self.name)?;
                symbols::get(symbols, pair.1, &mut self.value)?;
                labels::push(&mut self.spare_bytes, &self.name, &self.value);
            }
            self.spare_parts.push((pair, from..self.spare_bytes.len()));
        }
        std::mem::swap(&mut self.bytes, &mut self.spare_bytes);
        std::mem::swap(&mut self.parts, &mut self.spare_parts);
        Some(())
    }
}
