//! Reads a block through a memory map.

use super::column::{self, Column};
use super::cursor::LabelCursor;
use super::extras::Extras;
use super::format::{Footer, PAGE, Section, page_checksum};
use super::index::{BareNames, Found, SEPARATOR, key};
use super::series::{Entries, GROUP, Places};
use super::{Meta, postings};
use crate::codec::{Input, floats, ints};
use crate::postings::{Index, Values, intersect, resolve};
use crate::{Error, Result};
use disk::{Mapped, Vfs};
use fst::{IntoStreamer, Streamer};
use model::{Labels, Matcher, Samples, TimeRange};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Blocks of this process that were found damaged.
static FOUND_DAMAGED: AtomicU64 = AtomicU64::new(0);

/// How often a block, any of this process, was found damaged: as long as it stays the same, nobody has to look again.
pub fn found_damaged() -> u64 {
    FOUND_DAMAGED.load(SeqCst)
}

/// An open block. Cheap to keep: the bytes are the operating system's to cache.
///
/// A series is named by its number, its position in the block's order.
pub struct Reader {
    meta: Meta,
    footer: Footer,
    bytes: Mapped,
    /// A bit for each page that has passed its checksum. The bytes under it never change, so nothing is ordered by it.
    checked: Box<[AtomicU64]>,
    /// A bit for each section whose pages have all passed.
    checked_sections: AtomicU32,
    /// Set when the FST has passed its own checksum.
    walkable: OnceLock<()>,
    /// The first defect that was found.
    damaged: OnceLock<String>,
}

/// What a block is made of, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What the footer says.
    pub meta: Meta,
    /// Bytes of each section.
    pub sections: Vec<(Section, u64)>,
    /// Bytes of checksums, head and footer.
    pub frame_bytes: u64,
}

impl Reader {
    /// Opens a block file. Reads the footer only.
    pub fn open(vfs: &dyn Vfs, path: &Path) -> Result<Reader> {
        let reader = Reader::from_bytes(vfs.map(path)?, path)?;
        let name = reader.footer.header.file_name();
        if path.file_name().is_none_or(|found| found != &*name) {
            return Err(reader.corrupt(reader.footer.body_len(), format!("this is the content of {name}")));
        }
        Ok(reader)
    }

    /// Opens a block from bytes; `path` is for messages.
    pub fn from_bytes(bytes: Mapped, path: &Path) -> Result<Reader> {
        let corrupt = |(offset, what)| Error::Corrupt { path: path.into(), offset, what };
        let footer = Footer::decode(&bytes).map_err(corrupt)?;
        let body = footer.body_len();
        let checksums = bytes.get(body..bytes.len() - footer.len()).unwrap_or(&[]);
        if crc32fast::hash(checksums) != footer.checksums {
            return Err(corrupt((body as u64, "the checksums fail their checksum".into())));
        }
        Ok(Reader {
            meta: footer.meta(path, bytes.len()),
            checked: (0..body.div_ceil(PAGE).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            checked_sections: AtomicU32::new(0),
            walkable: OnceLock::new(),
            damaged: OnceLock::new(),
            footer,
            bytes,
        })
    }

    /// What is known of the block.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The first defect that anybody met in it. Its owner takes it out of use.
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.get().map(String::as_str)
    }

    /// How many series there are.
    pub fn series_count(&self) -> u32 {
        self.footer.series as u32
    }

    /// The series that satisfy all matchers, ascending.
    pub fn select(&self, matchers: &[Matcher]) -> Result<Vec<u32>> {
        resolve(self, matchers)
    }

    /// Reads labels of several series; for ascending numbers much faster than one by one.
    pub fn cursor(&self) -> LabelCursor<'_> {
        LabelCursor::new(self)
    }

    /// The labels of a series.
    pub fn labels(&self, series: u32) -> Result<Labels> {
        self.cursor().labels(series)
    }

    /// Appends the canonical label bytes of a series, of which its id is the hash.
    pub fn labels_bytes(&self, series: u32, out: &mut Vec<u8>) -> Result<()> {
        self.cursor().bytes(series, out)
    }

    /// Appends the samples of a series in `range`, in order of time. On an error `out` is as before.
    pub fn read(&self, series: u32, range: TimeRange, out: &mut Samples) -> Result<()> {
        let (floats, histograms) = (out.timestamps.len(), out.histograms.len());
        let starts = out.starts.len();
        let result = self.read_into(series, range, out);
        if result.is_err() {
            out.timestamps.truncate(floats);
            out.values.truncate(floats);
            out.starts.truncate(starts);
            out.histograms.truncate(histograms);
        }
        result
    }

    fn read_into(&self, series: u32, range: TimeRange, out: &mut Samples) -> Result<()> {
        if !self.meta.span.overlaps(&range) {
            return Ok(());
        }
        let places = self.places(series)?;
        let column = match places.column {
            Some(at) => Some((at, self.column(at)?)),
            None => None,
        };
        let chunk_count = column.as_ref().map_or(0, |(_, column)| column.chunks.len());
        let extras = match &places.extras {
            Some(extras) => Some(self.extras(extras.clone(), chunk_count)?),
            None => None,
        };
        if let Some((at, column)) = column {
            let starts = extras.as_ref().map_or(&[][..], |extras| &extras.starts);
            self.read_floats(at, &column, places.values, starts, range, out)?;
        }
        if let (Some(extras), Some(place)) = (extras, places.extras) {
            extras
                .read_histograms(range, &mut out.histograms)
                .ok_or_else(|| self.malformed(Section::Extras, place.start, "histograms"))?;
        }
        Ok(())
    }

    fn read_floats(
        &self,
        column_at: usize,
        column: &Column,
        values: Range<usize>,
        starts: &[&[u8]],
        range: TimeRange,
        out: &mut Samples,
    ) -> Result<()> {
        let bad_values = || self.malformed(Section::Values, values.start, "values");
        let mut values_at = Input(self.part(Section::Values, values.clone())?);
        let mut lengths = Vec::new();
        for _ in 1..column.chunks.len() {
            lengths.push(values_at.count(values.len()).ok_or_else(bad_values)?);
        }
        let wanted = column.overlapping(range);
        for (number, chunk) in column.chunks.iter().enumerate() {
            let len = lengths.get(number).copied().unwrap_or(values_at.0.len());
            let bytes = values_at.take(len).ok_or_else(bad_values)?;
            if !wanted.contains(&number) {
                continue;
            }
            let from = out.timestamps.len();
            let start = column_at + column.directory + chunk.at;
            let times = self.part(Section::Times, start..start + chunk.len)?;
            column::decode_chunk(times, chunk, &mut out.timestamps)
                .ok_or_else(|| self.malformed(Section::Times, start, "timestamps"))?;
            let rest = floats::decode(bytes, chunk.count, &mut out.values).ok_or_else(bad_values)?;
            if !rest.is_empty() {
                return Err(bad_values());
            }
            if !starts.is_empty() || !out.starts.is_empty() {
                out.starts.resize(from + chunk.count, 0);
                if let (Some(bytes), Some(into)) = (starts.get(number), out.starts.get_mut(from..)) {
                    let rest = ints::decode(bytes, into);
                    rest.filter(|rest| rest.is_empty())
                        .ok_or_else(|| self.malformed(Section::Extras, 0, "start timestamps"))?;
                }
            }
            trim(out, from, range);
        }
        Ok(())
    }

    /// From the first sample of a series to its last.
    pub fn span(&self, series: u32) -> Result<TimeRange> {
        let places = self.places(series)?;
        let column = places.column.map(|at| self.column(at)).transpose()?;
        let chunk_count = column.as_ref().map_or(0, |column| column.chunks.len());
        let extras = places.extras.clone().map(|extras| self.extras(extras, chunk_count)).transpose()?;
        let spans = [column.and_then(|c| c.span()), extras.and_then(|e| e.span())];
        let both = |a: TimeRange, b: TimeRange| TimeRange { min: a.min.min(b.min), max: a.max.max(b.max) };
        spans
            .into_iter()
            .flatten()
            .reduce(both)
            .ok_or_else(|| self.malformed(Section::Series, 0, "a series without samples"))
    }

    /// The names of all labels, sorted.
    pub fn label_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let map = self.fst()?;
        let mut stream = map.search(BareNames).into_stream();
        while let Some((name, _)) = stream.next() {
            names.push(self.text(name)?);
        }
        Ok(names)
    }

    /// All values of the label `name`, sorted.
    pub fn label_values(&self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        self.visit_values(name, &mut |value| values.push(value.to_owned()))?;
        Ok(values)
    }

    /// Calls `visit` with every value of the label `name`, in order.
    pub fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.each_value(name, |value, _| {
            visit(std::str::from_utf8(value).map_err(|_| self.not_utf8())?);
            Ok(())
        })
    }

    /// The names of all labels that some of these series have, sorted.
    pub fn label_names_among(&self, series: &[u32]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let map = self.fst()?;
        let mut stream = map.search(BareNames).into_stream();
        while let Some((name, value)) = stream.next() {
            if self.meets(value, series)? {
                names.push(self.text(name)?);
            }
        }
        Ok(names)
    }

    /// The values of the label `name` that some of these series, in ascending order, have; sorted.
    pub fn label_values_among(&self, name: &str, series: &[u32]) -> Result<Vec<String>> {
        /// Up to so many series it is cheaper to look at their labels than at the lists of all values.
        const FEW: usize = 64;
        if series.len() <= FEW {
            let mut cursor = self.cursor();
            let mut values = BTreeSet::new();
            for &number in series {
                if let Some(value) = cursor.labels(number)?.get(name) {
                    values.insert(value.to_string());
                }
            }
            return Ok(values.into_iter().collect());
        }
        let mut values = Vec::new();
        self.each_value(name, |value, list| {
            if self.meets(list, series)? {
                values.push(self.text(value)?);
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// What the file is made of.
    pub fn stats(&self) -> Stats {
        let sections: Vec<(Section, u64)> =
            Section::ALL.into_iter().map(|s| (s, self.footer.section(s).len() as u64)).collect();
        let frame_bytes = self.meta.bytes - sections.iter().map(|(_, len)| len).sum::<u64>();
        Stats { meta: self.meta.clone(), sections, frame_bytes }
    }

    /// Calls `each` with every value of a label and what its key leads to.
    fn each_value(&self, name: &str, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let map = self.fst()?;
        let from = key(name, "");
        let mut to = from.clone();
        to.push(SEPARATOR);
        let mut stream = map.range().ge(&from).lt(to).into_stream();
        while let Some((key, list)) = stream.next() {
            each(key.get(from.len()..).unwrap_or(&[]), list)?;
        }
        Ok(())
    }

    /// Whether the list of an FST value and these series have one in common.
    fn meets(&self, list: u64, series: &[u32]) -> Result<bool> {
        let mut list = self.list(list)?;
        intersect(&mut list, series);
        Ok(!list.is_empty())
    }

    fn fst(&self) -> Result<fst::Map<&[u8]>> {
        let wrong = |e: fst::Error| self.malformed(Section::Labels, 0, &e.to_string());
        let map = fst::Map::new(self.whole(Section::Labels)?).map_err(wrong)?;
        // Who walks nodes that its builder has not made panics: the pages may be those that somebody wrote, and that somebody be another program.
        if self.walkable.get().is_none() {
            map.as_fst().verify().map_err(wrong)?;
            self.walkable.get_or_init(|| ());
        }
        Ok(map)
    }

    /// The series that an FST value stands for.
    pub(super) fn list(&self, value: u64) -> Result<Vec<u32>> {
        match Found::decode(value) {
            Some(Found::One(one)) if one < self.series_count() => Ok(vec![one]),
            Some(Found::List(at)) => self.parse(Section::Postings, at, "a posting list", |bytes| {
                postings::decode(bytes, self.series_count())
            }),
            _ => Err(self.malformed(Section::Labels, 0, "a label that leads nowhere")),
        }
    }

    /// Everything in the FST, for verification.
    pub(super) fn each_label(&self, mut each: impl FnMut(&[u8], Vec<u32>) -> Result<()>) -> Result<()> {
        let map = self.fst()?;
        let mut stream = map.stream();
        while let Some((key, value)) = stream.next() {
            each(key, self.list(value)?)?;
        }
        Ok(())
    }

    fn column(&self, at: usize) -> Result<Column> {
        let base = self.meta.range.min.0;
        self.parse(Section::Times, at, "a column of timestamps", |bytes| Column::decode(bytes, base))
    }

    fn extras(&self, place: Range<usize>, float_chunks: usize) -> Result<Extras<'_>> {
        let bytes = self.part(Section::Extras, place.clone())?;
        Extras::decode(bytes, float_chunks, self.meta.range.min.0)
            .ok_or_else(|| self.malformed(Section::Extras, place.start, "extras"))
    }

    /// The bytes of a group of series.
    pub(super) fn group(&self, group: usize) -> Result<&[u8]> {
        let groups = self.whole(Section::Groups)?;
        let start = |group: usize| {
            let bytes = groups.get(4 * group..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes) as usize)
        };
        let from =
            start(group).ok_or_else(|| self.malformed(Section::Groups, 4 * group, "a group's place"))?;
        let to = start(group + 1).unwrap_or(self.footer.section(Section::Series).len());
        self.part(Section::Series, from..to)
    }

    fn places(&self, series: u32) -> Result<Places> {
        assert!(series < self.series_count(), "BUG: series {series} of {}", self.series_count());
        let (group, within) = (series as usize / GROUP, series as usize % GROUP);
        let shapes = self.whole(Section::Shapes)?;
        let read = || {
            let mut entries = Entries::new(self.group(group).ok()?, shapes, None)?;
            for _ in 0..within {
                entries.next(false)?;
            }
            entries.next(false)
        };
        match read() {
            Some(places) => Ok(places),
            None => {
                self.group(group)?;
                Err(self.malformed(Section::Series, 0, &format!("the entry of series {series}")))
            }
        }
    }

    /// The bytes of a whole section, checked.
    pub(super) fn whole(&self, section: Section) -> Result<&[u8]> {
        let range = self.footer.section(section);
        let bit = 1 << section as u32;
        if self.checked_sections.load(Relaxed) & bit == 0 {
            self.get(range.clone())?;
            self.checked_sections.fetch_or(bit, Relaxed);
        }
        Ok(self.bytes.get(range).unwrap_or(&[]))
    }

    /// A part of a section, checked.
    pub(super) fn part(&self, section: Section, part: Range<usize>) -> Result<&[u8]> {
        let all = self.footer.section(section);
        if part.start > part.end || part.end > all.len() {
            return Err(self.malformed(section, part.start, "a place outside of its section"));
        }
        self.get(all.start + part.start..all.start + part.end)
    }

    /// Parses something at `at` whose length is not known before; touches as few pages as possible.
    fn parse<T>(
        &self,
        section: Section,
        at: usize,
        what: &str,
        mut parse: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let all = self.footer.section(section);
        let mut room = 256;
        loop {
            let start = all.start.saturating_add(at);
            // Up to the end of a page: the rest of it costs nothing more.
            let end = start.saturating_add(room).next_multiple_of(PAGE).min(all.end);
            if let Some(parsed) = parse(self.part(section, at..end.max(all.start) - all.start)?) {
                return Ok(parsed);
            }
            if end == all.end {
                return Err(self.malformed(section, at, what));
            }
            room *= 16;
        }
    }

    /// Bytes of the file, after all their pages have passed their checksums.
    fn get(&self, range: Range<usize>) -> Result<&[u8]> {
        let bytes: &[u8] = &self.bytes;
        if !range.is_empty() {
            for page in range.start / PAGE..=(range.end - 1) / PAGE {
                let bit = 1u64 << (page % 64);
                let word = self.checked.get(page / 64);
                if word.is_none_or(|word| word.load(Relaxed) & bit == 0) {
                    self.check(page)?;
                    if let Some(word) = word {
                        word.fetch_or(bit, Relaxed);
                    }
                }
            }
        }
        bytes.get(range.clone()).ok_or_else(|| self.corrupt(range.start, "a place outside of the file"))
    }

    #[cold]
    fn check(&self, page: usize) -> Result<()> {
        let body = self.footer.body_len();
        let start = page * PAGE;
        let content = self.bytes.get(start..(start + PAGE).min(body)).unwrap_or(&[]);
        if self.stored_checksum(page) != Some(page_checksum(content, self.meta.id, start as u64)) {
            return Err(self.corrupt(start, "the page fails its checksum"));
        }
        Ok(())
    }

    /// The checksum that a page must have.
    pub(super) fn stored_checksum(&self, page: usize) -> Option<u32> {
        let bytes = self.bytes.get(self.footer.body_len() + 4 * page..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(super) fn text(&self, bytes: &[u8]) -> Result<String> {
        String::from_utf8(bytes.to_vec()).map_err(|_| self.not_utf8())
    }

    #[cold]
    fn not_utf8(&self) -> Error {
        self.malformed(Section::Labels, 0, "a label that is not UTF-8")
    }

    #[cold]
    pub(super) fn corrupt(&self, offset: usize, what: impl Into<String>) -> Error {
        let error = Error::Corrupt { path: self.meta.path.clone(), offset: offset as u64, what: what.into() };
        if self.damaged.set(error.to_string()).is_ok() {
            FOUND_DAMAGED.fetch_add(1, SeqCst);
        }
        error
    }

    /// Bytes that pass their checksum and make no sense all the same.
    #[cold]
    pub(super) fn malformed(&self, section: Section, at: usize, what: &str) -> Error {
        let offset = self.footer.section(section).start.saturating_add(at);
        self.corrupt(offset, format!("malformed in {section:?}: {what}"))
    }
}

/// Removes what was appended from `from` on and lies outside of `range`.
fn trim(out: &mut Samples, from: usize, range: TimeRange) {
    let added = out.timestamps.get(from..).unwrap_or(&[]);
    if added.first().is_none_or(|&t| t >= range.min.0) && added.last().is_none_or(|&t| t <= range.max.0) {
        return;
    }
    let low = from + added.partition_point(|&t| t < range.min.0);
    let high = from + added.partition_point(|&t| t <= range.max.0);
    let high = high.max(low);
    out.timestamps.truncate(high);
    out.values.truncate(high);
    out.starts.truncate(high);
    out.timestamps.drain(from..low);
    out.values.drain(from..low);
    if !out.starts.is_empty() {
        out.starts.drain(from..low);
    }
}

impl Index for Reader {
    fn all(&self) -> Result<Vec<u32>> {
        Ok((0..self.series_count()).collect())
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>> {
        match self.fst()?.get(key(name, value)) {
            Some(list) if !value.is_empty() => self.list(list).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(&[])),
        }
    }

    fn having(&self, name: &str) -> Result<Cow<'_, [u32]>> {
        match self.fst()?.get(name) {
            Some(list) => self.list(list).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&[])),
        }
    }

    fn matching(&self, name: &str, values: &Values<'_>) -> Result<Vec<Cow<'_, [u32]>>> {
        let mut lists = Vec::new();
        let prefix = key(name, "");
        if let Some(automaton) = values.automaton(&prefix) {
            let map = self.fst()?;
            let mut stream = map.search(automaton).into_stream();
            while let Some((_, list)) = stream.next() {
                lists.push(Cow::Owned(self.list(list)?));
            }
        } else {
            self.each_value(name, |value, list| {
                if values.contain(&self.text(value)?) {
                    lists.push(Cow::Owned(self.list(list)?));
                }
                Ok(())
            })?;
        }
        Ok(lists)
    }

    fn count(&self, name: &str, value: &str) -> Result<usize> {
        match self.fst()?.get(key(name, value)).filter(|_| !value.is_empty()) {
            None => Ok(0),
            Some(list) => match Found::decode(list) {
                Some(Found::List(at)) => {
                    self.parse(Section::Postings, at, "the length of a posting list", postings::count)
                }
                _ => Ok(1),
            },
        }
    }

    fn retain(&self, series: &mut Vec<u32>, matchers: &[&Matcher]) -> Result<bool> {
        let mut cursor = self.cursor();
        let mut kept = Vec::with_capacity(series.len());
        for &number in series.iter() {
            let labels = cursor.labels(number)?;
            if matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))) {
                kept.push(number);
            }
        }
        *series = kept;
        Ok(true)
    }
}
