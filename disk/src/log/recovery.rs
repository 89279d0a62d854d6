//! Opening a log: reading all of it, and making its end fit to be written to.

use super::frame::{HEADER_BYTES, Header, Place, VERSION};
use super::scan::{self, Bytes, FileBytes, Walked};
use super::writer::{Home, Writer};
use super::{CorruptRange, Record, Recovered, SegmentInfo, SegmentNumber, Torn};
use crate::Error;
use crate::vfs::OpenMode;
use std::sync::Arc;

/// What a log is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What the log goes on with.
pub(super) struct Opened {
    /// The log's id.
    pub log: u64,
    /// Only for [`Access::Write`].
    pub writer: Option<Writer>,
    pub segments: Vec<SegmentInfo>,
    /// The position at the log's end.
    pub end: u64,
    pub recovered: Recovered,
}

/// A segment as its name and header tell.
struct Found {
    place: Place,
    bytes: FileBytes,
    header: Head,
}

#[derive(Clone, Copy)]
enum Head {
    Good(Header),
    /// Intact, but of another segment: somebody renamed or copied the file.
    Foreign,
    Damaged,
}

pub(super) fn recover(
    home: &Arc<Home>,
    access: Access,
    visit: &mut dyn FnMut(Record<'_>),
) -> Result<Opened, Error> {
    let mut recovered = Recovered::default();
    let (log, places) = places(home, &mut recovered)?;
    let mut segments = Vec::new();
    let mut end = 0;
    let mut files = places.into_iter().map(|place| find(home, place));
    let mut current = files.next().transpose()?;
    let mut last = None;
    while let Some(mut found) = current {
        let base = match found.header {
            Head::Good(header) => header.base,
            _ => end,
        };
        let Some(next) = files.next().transpose()? else {
            last = Some((found, base));
            break;
        };
        // All of it was durable before the next one was made; the next one's header says how much "all" is.
        let next_base = match next.header {
            Head::Good(header) if header.base >= base => Some(header.base),
            _ => None,
        };
        let follows = next.place.segment == found.place.segment.next();
        let expected = match (found.header, next_base) {
            (Head::Good(_), Some(next_base)) if follows => Some(HEADER_BYTES + (next_base - base)),
            _ => None,
        };
        note_header(&found, &mut recovered.corrupt);
        let walked = scan::walk(&mut found.bytes, found.place, Some(expected), visit)?;
        segments.push(SegmentInfo { segment: found.place.segment, bytes: walked.end });
        end = base + (walked.end - HEADER_BYTES);
        note(&mut recovered, walked);
        if !follows {
            let to = HEADER_BYTES + next_base.map_or(0, |next_base| next_base.saturating_sub(end));
            recovered.corrupt.push(CorruptRange { segment: found.place.segment.next(), from: 0, to });
        }
        end = end.max(next_base.unwrap_or(end));
        current = Some(next);
    }
    let tail = match last {
        None => Tail::Create { place: Place { log, segment: SegmentNumber(1) }, base: 0 },
        Some((found, base)) => read_last(found, base, &mut recovered, visit)?,
    };
    if access == Access::Read {
        if let Tail::Reopen { place, end, .. } = tail {
            segments.push(SegmentInfo { segment: place.segment, bytes: end });
        }
        return Ok(Opened { log, writer: None, segments, end, recovered });
    }
    let writer = match tail {
        Tail::Unreadable(error) => return Err(error),
        Tail::Create { place, base } => {
            end = base;
            Writer::create(home, place, base)?
        }
        Tail::Recreate { place, base } => {
            end = base;
            Writer::recreate(home, place, base)?
        }
        Tail::Reopen { place, base, durable, end: last } => {
            end = base + (last - HEADER_BYTES);
            Writer::reopen(home, place, durable, last, recovered.torn.is_some())?
        }
    };
    segments.push(SegmentInfo { segment: writer.place().segment, bytes: writer.end() });
    Ok(Opened { log, writer: Some(writer), segments, end, recovered })
}

/// What the end of the log needs before it can be written to.
enum Tail {
    /// A segment that is not there.
    Create { place: Place, base: u64 },
    /// A segment that a crash left without header.
    Recreate { place: Place, base: u64 },
    /// A segment that goes on at `end`, below which all from `durable` on was written by the last commit.
    Reopen { place: Place, base: u64, durable: u64, end: u64 },
    /// Nobody knows whether what stands there was acknowledged. It must not be cut.
    Unreadable(Error),
}

/// The log's id and its segments in order. The id is the one that most files carry, of equals the one that got furthest;
/// files of another log are reported and left alone.
fn places(home: &Home, recovered: &mut Recovered) -> Result<(u64, Vec<Place>), Error> {
    let entries = match home.vfs.list(&home.dir) {
        Err(error) if error.is_not_found() => Vec::new(),
        entries => entries?,
    };
    let mut places: Vec<Place> =
        entries.iter().filter(|e| !e.is_dir).filter_map(|e| Place::from_file_name(&e.name)).collect();
    places.sort_by_key(|place| place.segment);
    let votes = |log| places.iter().filter(|place| place.log == log).count();
    let Some(log) = places.iter().max_by_key(|p| (votes(p.log), p.segment)).map(|place| place.log) else {
        return Ok((home.vfs.unique(), Vec::new()));
    };
    let (own, foreign) = places.into_iter().partition(|place| place.log == log);
    recovered.foreign = Vec::<Place>::into_iter(foreign).map(|place| home.path(place)).collect();
    Ok((log, own))
}

fn find(home: &Home, place: Place) -> Result<Found, Error> {
    let path = home.path(place);
    let mut bytes = FileBytes::new(home.vfs.open(&path, OpenMode::Read)?)?;
    let header = match Header::decode(bytes.at(0, HEADER_BYTES as usize)?) {
        Some(header) if header.version != VERSION => {
            return Err(Error::Version { path, found: header.version, known: VERSION });
        }
        Some(header) if header.place == place => Head::Good(header),
        Some(_) => Head::Foreign,
        None => Head::Damaged,
    };
    Ok(Found { place, bytes, header })
}

fn note_header(found: &Found, corrupt: &mut Vec<CorruptRange>) {
    if !matches!(found.header, Head::Good(_)) {
        corrupt.push(CorruptRange { segment: found.place.segment, from: 0, to: HEADER_BYTES });
    }
}

fn note(recovered: &mut Recovered, walked: Walked) {
    recovered.records += walked.records;
    recovered.bytes += walked.payload_bytes;
    walked.corrupt.into_iter().for_each(|range| scan::report(&mut recovered.corrupt, range));
}

/// Reads the last segment, and tells how its torn tail is to be cut.
fn read_last(
    mut found: Found,
    base: u64,
    recovered: &mut Recovered,
    visit: &mut dyn FnMut(Record<'_>),
) -> Result<Tail, Error> {
    let place = found.place;
    let len = found.bytes.len();
    match found.header {
        Head::Good(_) => {}
        Head::Damaged if !scan::any_frame(&mut found.bytes, place)? => {
            // A header is durable before the first frame is written: without either, the crash came in between.
            let used = scan::used(&mut found.bytes, 0, len)?;
            if let Some((from, error)) = found.bytes.unreadable() {
                recovered.corrupt.push(CorruptRange { segment: place.segment, from, to: len });
                return Ok(Tail::Unreadable(error));
            }
            if used > 0 {
                recovered.torn = Some(Torn { segment: place.segment, offset: 0, bytes_cut: used });
            }
            return Ok(Tail::Recreate { place, base });
        }
        Head::Damaged => note_header(&found, &mut recovered.corrupt),
        Head::Foreign => {
            // Not ours to overwrite: go on in a segment of a new number.
            recovered.corrupt.push(CorruptRange { segment: place.segment, from: 0, to: len });
            return Ok(Tail::Create { place: Place { segment: place.segment.next(), ..place }, base });
        }
    }
    let walked = scan::walk(&mut found.bytes, place, None, visit)?;
    let (end, durable, torn) = (walked.end, walked.durable, walked.torn);
    note(recovered, walked);
    if let Some((from, error)) = found.bytes.unreadable()
        && from >= end
    {
        recovered.corrupt.push(CorruptRange { segment: place.segment, from, to: len });
        return Ok(Tail::Unreadable(error));
    }
    if let Some((offset, used)) = torn {
        recovered.torn = Some(Torn { segment: place.segment, offset, bytes_cut: used - offset });
    }
    Ok(Tail::Reopen { place, base, durable, end })
}
