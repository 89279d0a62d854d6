//! Reading a segment of which any byte may be wrong.
//!
//! [`walk`] delivers the frames of one segment in order. Where the bytes are no frame, three things may have happened:
//!
//! * all that follows is zero: the log ends here;
//! * a later frame testifies that these bytes had been durable (see [`Frame::back`]): they are **corrupt**, reported,
//!   and the walk goes on at the next intact frame;
//! * nothing testifies that: a crash tore the last commit, which therefore was never acknowledged. The walk ends, and
//!   what follows, intact frames of the same commit included, is **torn**: recovered records are a prefix of the appended ones.
//!
//! Memory is one window of the file plus the longest record. Time is linear in the segment, however many places are corrupt.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::frame::{FRAME_BYTES, Frame, HEADER_BYTES, Kind, Place};
use super::{CorruptRange, Record};
use crate::vfs::File;
use crate::{Error, vfs};

/// How much of a file is read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// What is given up around a place that cannot be read.
const PAGE_BYTES: u64 = 4096;

/// Bytes that can be read anywhere.
pub(super) trait Bytes {
    fn len(&self) -> u64;
    /// Up to `len` bytes at `offset`; fewer only at the end.
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Error>;
    /// As many bytes at `offset` as are at hand, at least one; none only at the end.
    fn some(&mut self, offset: u64) -> Result<&[u8], Error>;
}

impl Bytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let rest = usize::try_from(offset).ok().and_then(|from| self.get(from..)).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }
    fn some(&mut self, offset: u64) -> Result<&[u8], Error> {
        self.at(offset, usize::MAX)
    }
}

/// A file behind a window. A page that the disk refuses to read counts as zeros, which no checksum accepts, so that one
/// bad sector costs the records on it and not the log.
pub(super) struct FileBytes {
    file: Box<dyn File>,
    len: u64,
    window: Vec<u8>,
    start: u64,
    unreadable: Option<(u64, Error)>,
}

impl FileBytes {
    pub fn new(file: Box<dyn File>) -> vfs::Result<FileBytes> {
        let len = file.len()?;
        Ok(FileBytes { file, len, window: Vec::new(), start: 0, unreadable: None })
    }

    /// The last place that could not be read, and why.
    pub fn unreadable(self) -> Option<(u64, Error)> {
        self.unreadable
    }

    fn fill(&mut self, offset: u64, len: usize) {
        self.start = offset;
        let wanted =
            usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(len.max(WINDOW_BYTES));
        self.window.clear();
        self.window.resize(wanted, 0);
        let mut done = 0;
        while let Some(rest) = self.window.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) => {
                    // First smaller, then past the page.
                    let page = usize::try_from(PAGE_BYTES - at % PAGE_BYTES).unwrap_or(1).min(rest.len());
                    let first = rest.get_mut(..page).unwrap_or_default();
                    match self.file.read_at(first, at) {
                        Ok(n) if n > 0 => done += n,
                        _ => {
                            first.fill(0);
                            done += page;
                            self.unreadable = Some((at, error));
                        }
                    }
                }
            }
        }
    }

    fn held(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.window.get(skip..)).unwrap_or_default()
    }
}

impl Bytes for FileBytes {
    fn len(&self) -> u64 {
        self.len
    }
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        if self.held(offset).len() < there {
            self.fill(offset, there);
        }
        let held = self.held(offset);
        Ok(held.get(..there).unwrap_or(held))
    }
    fn some(&mut self, offset: u64) -> Result<&[u8], Error> {
        if self.held(offset).is_empty() {
            self.fill(offset, 0);
        }
        Ok(self.held(offset))
    }
}

/// What [`walk`] found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub records: u64,
    pub payload_bytes: u64,
    /// Where the log goes on: after the last frame that is, or was, on disk.
    pub end: u64,
    /// Where the last commit begins: all bytes below had certainly been durable.
    pub durable: u64,
    pub corrupt: Vec<CorruptRange>,
    /// Where the torn tail begins, and where its last byte that is not zero ends.
    pub torn: Option<(u64, u64)>,
}

/// Delivers the records of a segment. `sealed` says that a later segment exists, hence that all of this one had been
/// durable, and where it ended, as far as that is known.
pub(super) fn walk(
    bytes: &mut impl Bytes,
    place: Place,
    sealed: Option<Option<u64>>,
    visit: &mut dyn FnMut(Record<'_>),
) -> Result<Walked, Error> {
    let len = bytes.len();
    let expected = sealed.flatten();
    let mut frames = Frames { bytes, seed: place.seed(), limit: expected.unwrap_or(len).min(len) };
    let mut walked = Walked { durable: HEADER_BYTES, ..Walked::default() };
    // Below this offset everything had been durable. Known from the start for a sealed segment; otherwise only damage is worth the search.
    let mut durable = sealed.map(|_| u64::MAX);
    let mut offset = HEADER_BYTES;
    while offset < frames.limit {
        let (frame, payload) = match frames.read(offset)? {
            Read::Whole(frame, payload) => (frame, payload),
            damage => {
                let known_next = match damage {
                    Read::Payload(frame) => Some(offset + frame.bytes()),
                    _ => None,
                };
                if is_zero(frames.bytes, offset, frames.limit)? {
                    break;
                }
                let durable = match durable {
                    Some(durable) => durable,
                    None => *durable.insert(frames.durable(offset)?),
                };
                if offset >= durable {
                    walked.torn = Some((offset, used(frames.bytes, offset, frames.limit)?));
                    break;
                }
                let next = match known_next {
                    Some(next) => next,
                    None => frames.find(offset + 1)?.unwrap_or(frames.limit),
                };
                report(&mut walked.corrupt, CorruptRange { segment: place.segment, from: offset, to: next });
                offset = next;
                continue;
            }
        };
        if frame.kind == Kind::Record {
            visit(Record { segment: place.segment, offset, payload });
            walked.records += 1;
            walked.payload_bytes += u64::from(frame.len);
        }
        walked.durable = walked.durable.max(offset - u64::from(frame.back));
        offset += frame.bytes();
    }
    walked.end = offset;
    if let Some(expected) = expected {
        // The next segment's header knows where this one ended, so that missing bytes cannot pass for the end.
        if offset < expected {
            report(&mut walked.corrupt, CorruptRange { segment: place.segment, from: offset, to: expected });
        }
        walked.end = expected;
    }
    Ok(walked)
}

/// Adds a range, or lengthens the last one.
pub(super) fn report(corrupt: &mut Vec<CorruptRange>, range: CorruptRange) {
    match corrupt.last_mut() {
        Some(last) if (last.segment, last.to) == (range.segment, range.from) => last.to = range.to,
        _ => corrupt.push(range),
    }
}

/// Whether a segment holds any intact frame.
pub(super) fn any_frame(bytes: &mut impl Bytes, place: Place) -> Result<bool, Error> {
    let limit = bytes.len();
    let mut frames = Frames { bytes, seed: place.seed(), limit };
    Ok(frames.find(HEADER_BYTES)?.is_some())
}

/// Whether nothing was written between `from` and `limit`. Looks no further than to the first byte that says otherwise.
fn is_zero(bytes: &mut impl Bytes, mut from: u64, limit: u64) -> Result<bool, Error> {
    while from < limit {
        let held = bytes.some(from)?;
        let within = usize::try_from(limit - from).map_or(held, |most| held.get(..most).unwrap_or(held));
        if within.is_empty() {
            break;
        }
        if within.iter().any(|&b| b != 0) {
            return Ok(false);
        }
        from += within.len() as u64;
    }
    Ok(true)
}

/// Where the last byte that is not zero ends, between `from` and `limit`; `from` if there is none.
pub(super) fn used(bytes: &mut impl Bytes, from: u64, limit: u64) -> Result<u64, Error> {
    let (mut offset, mut used) = (from, from);
    while offset < limit {
        let held = bytes.some(offset)?;
        if held.is_empty() {
            break;
        }
        let within = usize::try_from(limit - offset).map_or(held, |most| held.get(..most).unwrap_or(held));
        if let Some(last) = within.iter().rposition(|&b| b != 0) {
            used = offset + last as u64 + 1;
        }
        offset += within.len() as u64;
    }
    Ok(used)
}

/// One segment's bytes below `limit`, read as frames.
struct Frames<'a, B> {
    bytes: &'a mut B,
    seed: u32,
    limit: u64,
}

/// What stands at an offset.
enum Read<'a> {
    Whole(Frame, &'a [u8]),
    /// The frame is intact and its payload is not.
    Payload(Frame),
    Nothing,
}

impl<B: Bytes> Frames<'_, B> {
    fn read(&mut self, offset: u64) -> Result<Read<'_>, Error> {
        let head = self.bytes.at(offset, FRAME_BYTES)?;
        let Some(frame) = Frame::decode(head, self.seed, offset) else { return Ok(Read::Nothing) };
        if frame.bytes() > self.limit.saturating_sub(offset) {
            return Ok(Read::Nothing);
        }
        let whole = self.bytes.at(offset, FRAME_BYTES + frame.len as usize)?;
        let payload = whole.get(FRAME_BYTES..).unwrap_or_default();
        let intact = payload.len() == frame.len as usize && crc32fast::hash(payload) == frame.payload_crc;
        Ok(if intact { Read::Whole(frame, payload) } else { Read::Payload(frame) })
    }

    /// The next intact frame at or after `offset`.
    fn find(&mut self, mut offset: u64) -> Result<Option<u64>, Error> {
        while offset < self.limit {
            let held = self.bytes.some(offset)?;
            let len = held.len() as u64;
            match held.iter().position(|&b| b == Kind::Record as u8 || b == Kind::Seal as u8) {
                None if len == 0 => break,
                None => offset += len,
                Some(skip) => {
                    offset += skip as u64;
                    if offset < self.limit && matches!(self.read(offset)?, Read::Whole(..)) {
                        return Ok(Some(offset));
                    }
                    offset += 1;
                }
            }
        }
        Ok(None)
    }

    /// The highest offset below which the frames after `offset` testify that all had been durable.
    fn durable(&mut self, mut offset: u64) -> Result<u64, Error> {
        let mut durable = 0;
        while let Some(found) = self.find(offset)? {
            offset = found + 1;
            if let Read::Whole(frame, _) = self.read(found)? {
                offset = found + frame.bytes();
                durable = durable.max(found.saturating_sub(u64::from(frame.back)));
            }
        }
        Ok(durable)
    }
}
