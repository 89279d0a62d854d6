//! Sections, pages and the footer.

use super::{Header, Meta};
use model::{Digest, Shard, TimeRange};
use std::ops::Range;
use std::path::Path;

/// The format that is written. Older ones stay readable.
pub const FORMAT_VERSION: u32 = 2;

/// The first bytes of the file; the footer ends with the same.
pub(super) const MAGIC: [u8; 8] = *b"SARSENBK";

/// Bytes that one checksum covers.
pub(super) const PAGE: usize = 32 << 10;

/// Length of the head: magic, version, four zeros.
pub(super) const HEAD_LEN: usize = 16;

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Chunks of float values.
    Values,
    /// Columns of timestamps.
    Times,
    /// Start timestamps and native histograms.
    Extras,
    /// Every label name and value once.
    Symbols,
    /// Lists of label names that series have.
    Shapes,
    /// Labels and places of every series.
    Series,
    /// Where each group of series starts.
    Groups,
    /// The FST from label to postings.
    Labels,
    /// Lists of series.
    Postings,
}

impl Section {
    /// All of them, in the order of the file.
    pub const ALL: [Section; 9] = [
        Section::Values,
        Section::Times,
        Section::Extras,
        Section::Symbols,
        Section::Shapes,
        Section::Series,
        Section::Groups,
        Section::Labels,
        Section::Postings,
    ];
}

/// The last bytes of a block, fixed in length for a version.
///
/// ```text
/// ends: 9 x u64 | id: u128 | range: 2 x i64 | span: 2 x i64 | series, samples, histograms, chunks, columns: 5 x u64
/// | digest: u128, from version 2 on
/// | shard: u16 | level: u8 | zero: u8 | version: u32 | checksum of the checksums: u32 | checksum of the footer: u32 | magic
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Where each section ends. The first starts after the head.
    pub ends: [u64; 9],
    pub header: Header,
    pub span: TimeRange,
    pub series: u64,
    pub samples: u64,
    pub histograms: u64,
    pub chunks: u64,
    pub columns: u64,
    /// Of all samples. Version 1 has none.
    pub digest: Option<Digest>,
    pub checksums: u32,
}

pub(super) const FOOTER_LEN: usize = FOOTER_LEN_1 + 16;
const FOOTER_LEN_1: usize = 9 * 8 + 16 + 4 * 8 + 5 * 8 + 4 + 3 * 4 + 8;
/// What follows the version: two checksums and the magic.
const AFTER_VERSION: usize = 16;

/// Why bytes are no block: where, and what is wrong.
pub(super) type Defect = (u64, String);

impl Footer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        self.ends.iter().for_each(|end| out.extend(end.to_le_bytes()));
        out.extend(self.header.id.to_le_bytes());
        for range in [self.header.range, self.span] {
            out.extend(range.min.0.to_le_bytes());
            out.extend(range.max.0.to_le_bytes());
        }
        for count in [self.series, self.samples, self.histograms, self.chunks, self.columns] {
            out.extend(count.to_le_bytes());
        }
        let version = match self.digest {
            Some(digest) => {
                out.extend(digest.0.to_le_bytes());
                FORMAT_VERSION
            }
            None => 1,
        };
        out.extend(self.header.shard.0.to_le_bytes());
        out.extend([self.header.level, 0]);
        out.extend(version.to_le_bytes());
        out.extend(self.checksums.to_le_bytes());
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out.extend(MAGIC);
        out
    }

    /// Reads the footer of a whole file and checks it against the file's length.
    pub fn decode(file: &[u8]) -> Result<Footer, Defect> {
        Footer::decode_end(file, file.len())
    }

    /// The same from the last bytes of a file that is `file_len` bytes long.
    pub fn decode_end(end: &[u8], file_len: usize) -> Result<Footer, Defect> {
        // The length follows from the version, which is at the same place before the end in all of them.
        let version =
            end.len().checked_sub(AFTER_VERSION + 4).and_then(|at| end.get(at..)?.first_chunk::<4>());
        let version = version.map(|bytes| u32::from_le_bytes(*bytes));
        let len = if version == Some(1) { FOOTER_LEN_1 } else { FOOTER_LEN };
        let bytes = end.len().checked_sub(len).and_then(|from| end.get(from..));
        let Some((at, bytes)) = file_len.checked_sub(len).zip(bytes) else {
            return Err((0, format!("{} bytes are too few for a block", end.len().min(file_len))));
        };
        let fail = |what: String| Err((at as u64, what));
        let mut fields = Fields(bytes);
        let ends = std::array::from_fn(|_| fields.u64());
        let id = u128::from(fields.u64()) | u128::from(fields.u64()) << 64;
        let [range, span] = std::array::from_fn(|_| TimeRange::new(fields.u64() as i64, fields.u64() as i64));
        let [series, samples, histograms, chunks, columns] = std::array::from_fn(|_| fields.u64());
        let digest =
            (len == FOOTER_LEN).then(|| Digest(u128::from(fields.u64()) | u128::from(fields.u64()) << 64));
        let place = fields.u64();
        let checksums = fields.u32();
        let checksum = fields.u32();
        if fields.0 != MAGIC {
            return fail("the footer does not end with the magic bytes: cut off, or no block".into());
        }
        let covered = bytes.get(..len - 12).unwrap_or(&[]);
        if crc32fast::hash(covered) != checksum {
            return fail("the footer fails its checksum".into());
        }
        let version = (place >> 32) as u32;
        if !(1..=FORMAT_VERSION).contains(&version) {
            return fail(format!("format version {version}, this program reads up to {FORMAT_VERSION}"));
        }
        let header = Header { shard: Shard(place as u16), level: (place >> 16) as u8, range, id };
        let footer =
            Footer { ends, header, span, series, samples, histograms, chunks, columns, digest, checksums };
        let ascending = ends.iter().try_fold(HEAD_LEN as u64, |from, &end| (from <= end).then_some(end));
        let Some(body) = ascending.and_then(|end| usize::try_from(end).ok()).filter(|&end| end <= at) else {
            return fail("the sections overlap or leave the file".into());
        };
        if at - body != 4 * body.div_ceil(PAGE) {
            return fail(format!("{} bytes of checksums for {body} bytes", at - body));
        }
        if u32::try_from(series).is_err() {
            return fail(format!("{series} series"));
        }
        Ok(footer)
    }

    /// How many bytes it has in the file.
    pub fn len(&self) -> usize {
        if self.digest.is_some() { FOOTER_LEN } else { FOOTER_LEN_1 }
    }

    /// Checksums of the tail: with the id and the length, what tells one file from another.
    pub fn seal(&self) -> u64 {
        u64::from(self.checksums) << 32 | u64::from(crc32fast::hash(&self.encode()))
    }

    pub fn section(&self, section: Section) -> Range<usize> {
        let number = section as usize;
        let end = |number: usize| self.ends.get(number).map_or(0, |&end| end as usize);
        if number == 0 { HEAD_LEN..end(0) } else { end(number - 1)..end(number) }
    }

    /// Where the sections end and the checksums start.
    pub fn body_len(&self) -> usize {
        self.section(Section::Postings).end
    }

    pub fn meta(&self, path: &Path, bytes: usize) -> Meta {
        Meta {
            path: path.into(),
            shard: self.header.shard,
            range: self.header.range,
            level: self.header.level,
            id: self.header.id,
            span: self.span,
            series: self.series,
            samples: self.samples,
            histograms: self.histograms,
            chunks: self.chunks,
            columns: self.columns,
            digest: self.digest,
            bytes: bytes as u64,
        }
    }
}

/// Little-endian fields of a buffer whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> u64 {
        let (head, rest) = self.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        self.0 = rest;
        u64::from_le_bytes(*head)
    }

    fn u32(&mut self) -> u32 {
        let (head, rest) = self.0.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        self.0 = rest;
        u32::from_le_bytes(*head)
    }
}

/// The checksum of the page `content` that starts at byte `offset` of the file `id`.
pub(super) fn page_checksum(content: &[u8], id: u128, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(content);
    hasher.update(&id.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}
