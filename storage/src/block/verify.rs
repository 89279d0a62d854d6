//! Checks all of a block: every byte by plain reads, then everything that the bytes say.

use super::format::{Footer, PAGE, Section, page_checksum};
use super::index::key;
use super::order;
use super::reader::Reader;
use crate::Result;
use disk::{File, OpenMode, Vfs};
use model::{Digest, Labels, Samples, SeriesKey, TimeRange};
use std::collections::HashMap;

impl Reader {
    /// Reads the whole file and checks everything in it. The bytes are read, not mapped, so that a failing disk gives an
    /// error and not a signal. Fails at the first defect. `key` is the cluster's, for the ids in the digest.
    pub fn verify(&self, vfs: &dyn Vfs, key: SeriesKey) -> Result<()> {
        self.verify_bytes(vfs)?;
        self.verify_meaning(key)
    }

    /// Reads the whole file and compares all checksums.
    pub(crate) fn verify_bytes(&self, vfs: &dyn Vfs) -> Result<()> {
        self.verify_some(vfs, 0, u64::MAX).map(|_| ())
    }

    /// Reads about `bytes_max` bytes of the file from `from` on, a place that an earlier call has come to, and compares their
    /// checksums. How many it has read, and whether that was all.
    pub(crate) fn verify_some(&self, vfs: &dyn Vfs, from: usize, bytes_max: u64) -> Result<(u64, bool)> {
        let file = vfs.open(&self.meta().path, OpenMode::Read)?;
        let body = self.footer().body_len();
        let unreadable = |at: usize, e: disk::Error| self.corrupt(at, format!("it cannot be read: {e}"));
        let mut buffer = vec![0; PAGE];
        let mut start = from - from % PAGE;
        while start < body {
            if (start - from) as u64 >= bytes_max {
                return Ok(((start - from) as u64, false));
            }
            let page = &mut buffer[..PAGE.min(body - start)];
            let read = file.read_exact_at(page, start as u64).map_err(|e| unreadable(start, e))?;
            let stored = self.stored_checksum(start / PAGE);
            if !read || stored != Some(page_checksum(page, self.meta().id, start as u64)) {
                return Err(self.corrupt(start, "the page on disk fails its checksum"));
            }
            start += page.len();
        }
        let mut tail = vec![0; self.meta().bytes as usize - body];
        let read = file.read_exact_at(&mut tail, body as u64).map_err(|e| unreadable(body, e))?;
        if !read || file.len()? != self.meta().bytes {
            return Err(self.corrupt(body, "the file on disk has another length"));
        }
        self.verify_tail(&tail)?;
        Ok((self.meta().bytes.saturating_sub(from as u64), true))
    }

    /// Fills `into` from the place `at` of the file, for whoever copies it. Whole pages and a whole tail are compared with their checksums. `false` if
    /// the file ends before.
    pub(crate) fn read_raw(&self, file: &dyn File, at: u64, into: &mut [u8]) -> Result<bool> {
        let (body, len) = (self.footer().body_len(), self.meta().bytes);
        if at.checked_add(into.len() as u64).is_none_or(|end| end > len) {
            return Ok(false);
        }
        let from = at as usize;
        let read = file.read_exact_at(into, at);
        if !read.map_err(|e| self.corrupt(from, format!("it cannot be read: {e}")))? {
            return Err(self.corrupt(from, "the file on disk has another length"));
        }
        if from == body && at + into.len() as u64 == len {
            return self.verify_tail(into).map(|()| true);
        }
        let mut start = from.next_multiple_of(PAGE);
        while start < body {
            let end = (start + PAGE).min(body);
            let Some(page) = into.get(start - from..end - from) else { break };
            if self.stored_checksum(start / PAGE) != Some(page_checksum(page, self.meta().id, start as u64)) {
                return Err(self.corrupt(start, "the page on disk fails its checksum"));
            }
            start = end;
        }
        Ok(true)
    }

    fn verify_tail(&self, tail: &[u8]) -> Result<()> {
        let (checksums, footer) = tail.split_at(tail.len() - self.footer().len());
        if crc32fast::hash(checksums) != self.footer().checksums || footer != Footer::encode(self.footer()) {
            let body = self.footer().body_len();
            return Err(self.corrupt(body, "the checksums or the footer on disk differ from what was opened"));
        }
        Ok(())
    }

    /// Decodes everything and compares it with itself: order, counts, times, the digest, and the index with the labels.
    pub(super) fn verify_meaning(&self, key_of_ids: SeriesKey) -> Result<()> {
        let meta = self.meta();
        let mut lists: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        let mut cursor = self.cursor();
        let mut last: Option<Labels> = None;
        let mut samples = Samples::default();
        let (mut floats, mut histograms) = (0, 0);
        let mut digest = Digest::default();
        let mut span = TimeRange::new(i64::MAX, i64::MIN);
        for series in 0..self.series_count() {
            let wrong = |what: &str| self.malformed(Section::Series, 0, &format!("series {series}: {what}"));
            let labels = cursor.labels(series)?;
            if last.as_ref().is_some_and(|last| order(last, &labels).is_ge()) {
                return Err(wrong("out of order"));
            }
            samples.clear();
            self.read(series, TimeRange::ALL, &mut samples)?;
            let sorted = samples.timestamps.is_sorted_by(|a, b| a < b)
                && samples.histograms.is_sorted_by(|a, b| a.0 < b.0);
            if !sorted {
                return Err(wrong("samples out of order"));
            }
            let own = self.span(series)?;
            let times = || samples.timestamps.iter().copied().chain(samples.histograms.iter().map(|h| h.0));
            if times().min() != Some(own.min.0) || times().max() != Some(own.max.0) {
                return Err(wrong("its samples do not fill its span"));
            }
            span = TimeRange { min: span.min.min(own.min), max: span.max.max(own.max) };
            floats += samples.timestamps.len() as u64;
            histograms += samples.histograms.len() as u64;
            digest += Digest::of(key_of_ids.id(labels.as_bytes()), &samples);
            for (name, value) in labels.iter() {
                lists.entry(name.as_bytes().to_vec()).or_default().push(series);
                lists.entry(key(name, value)).or_default().push(series);
            }
            last = Some(labels);
        }
        if (floats + histograms, histograms) != (meta.samples, meta.histograms) {
            let found = format!("{floats} floats and {histograms} histograms, the footer says otherwise");
            return Err(self.corrupt(self.footer().body_len(), found));
        }
        if meta.digest.is_some_and(|stored| stored != digest) {
            let found = "the samples have another digest than the footer (is it a block of another cluster?)";
            return Err(self.corrupt(self.footer().body_len(), found));
        }
        let inside = meta.range.min <= span.min && span.max <= meta.range.max;
        if span != meta.span || (meta.series > 0 && !inside) {
            return Err(self.corrupt(self.footer().body_len(), "the samples do not fill the footer's span"));
        }
        self.each_label(|key, list| {
            if lists.remove(key) == Some(list) {
                return Ok(());
            }
            let label = String::from_utf8_lossy(key);
            Err(self.malformed(
                Section::Labels,
                0,
                &format!("the list of {label:?} is not that of its series"),
            ))
        })?;
        match lists.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                let label = String::from_utf8_lossy(&key);
                Err(self.malformed(Section::Labels, 0, &format!("{label:?} is missing")))
            }
        }
    }
}
