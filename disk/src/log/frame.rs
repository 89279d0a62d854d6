//! The bytes of a segment: one header, then frames. `docs/format/log.md` draws them.
//!
//! A frame's checksum covers the log's id, the segment's number and the frame's own offset, so that bytes which belong
//! elsewhere (a misdirected write, a renamed file, blocks left over from another log) are never taken for a record.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::SegmentNumber;

/// First bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"SarsnLog";
/// The format this program writes and reads.
pub(super) const VERSION: u32 = 1;
/// Length of a segment's header, where its first frame begins.
pub(super) const HEADER_BYTES: u64 = 40;
/// Length of a frame without its payload.
pub(super) const FRAME_BYTES: usize = 17;
/// The longest payload. Longer than any request, short enough that a frame always fits into memory.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// What a frame is; also the byte that a scan for the next frame looks for, so never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A caller's record.
    Record = b'R' as isize,
    /// The end of an orderly run: without payload, it only testifies that all before it had been made durable.
    Seal = b'S' as isize,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        match byte {
            b'R' => Some(Kind::Record),
            b'S' => Some(Kind::Seal),
            _ => None,
        }
    }
}

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The log's random id.
    pub log: u64,
    /// The segment within the log.
    pub segment: SegmentNumber,
}

impl Place {
    /// The checksum's state after log and segment, with which every frame's checksum begins.
    pub fn seed(self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.log.to_le_bytes());
        hasher.update(&self.segment.0.to_le_bytes());
        hasher.finalize()
    }

    /// The name of the file. It repeats what the header says, so that frames can be verified under a damaged header.
    pub fn file_name(self) -> String {
        format!("{:016x}-{:016x}.log", self.segment.0, self.log)
    }

    /// The place that a file's name tells, if it is a segment's name.
    pub fn from_file_name(name: &str) -> Option<Place> {
        let (segment, log) = name.strip_suffix(".log")?.split_once('-')?;
        let number = |s: &str| {
            let canonical = s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            canonical.then(|| u64::from_str_radix(s, 16).ok())?
        };
        let place = Place { log: number(log)?, segment: SegmentNumber(number(segment)?) };
        // Room to count on for ever, whatever names somebody invents.
        (place.segment.0 < 1 << 62).then_some(place)
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Format version.
    pub version: u32,
    /// Log and segment.
    pub place: Place,
    /// The log's [`super::Position`] at the segment's first frame; with it a segment proves how long the one before it is.
    pub base: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let fields: [&[u8]; 5] = [
            &MAGIC,
            &self.version.to_le_bytes(),
            &self.place.log.to_le_bytes(),
            &self.place.segment.0.to_le_bytes(),
            &self.base.to_le_bytes(),
        ];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (here, after) = rest.split_at_mut(field.len());
            here.copy_from_slice(field);
            rest = after;
        }
        let checksum = checksum_of_header(&bytes);
        if let Some(tail) = bytes.last_chunk_mut() {
            *tail = checksum.to_le_bytes();
        }
        bytes
    }

    /// `None` when the checksum or the magic is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES as usize] = bytes.first_chunk()?;
        let mut rest = bytes.as_slice();
        let magic: [u8; 8] = take(&mut rest)?;
        let version = u32::from_le_bytes(take(&mut rest)?);
        let log = u64::from_le_bytes(take(&mut rest)?);
        let segment = SegmentNumber(u64::from_le_bytes(take(&mut rest)?));
        let base = u64::from_le_bytes(take(&mut rest)?);
        let checksum = u32::from_le_bytes(take(&mut rest)?);
        let valid = magic == MAGIC && checksum == checksum_of_header(bytes);
        valid.then_some(Header { version, place: Place { log, segment }, base })
    }
}

fn checksum_of_header(bytes: &[u8; HEADER_BYTES as usize]) -> u32 {
    bytes.split_last_chunk::<4>().map_or(0, |(head, _)| crc32fast::hash(head))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    /// Length of the payload.
    pub len: u32,
    /// How many bytes of this segment right before this frame belong to the same commit. All bytes before those were
    /// durable when this frame was written: the testimony by which recovery tells corruption from a torn tail.
    pub back: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

impl Frame {
    pub fn encode(&self, seed: u32, offset: u64) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let [kind, rest @ ..] = &mut bytes;
        *kind = self.kind as u8;
        let fields = [self.len, self.back, self.payload_crc];
        for (to, field) in rest.chunks_exact_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        let checksum = checksum_of_frame(&bytes, seed, offset);
        if let Some(tail) = bytes.last_chunk_mut() {
            *tail = checksum.to_le_bytes();
        }
        bytes
    }

    /// `None` when these bytes are not a frame of this segment at this offset.
    pub fn decode(bytes: &[u8], seed: u32, offset: u64) -> Option<Frame> {
        let bytes: &[u8; FRAME_BYTES] = bytes.first_chunk()?;
        let mut rest = bytes.as_slice();
        let [kind] = take(&mut rest)?;
        let kind = Kind::of(kind)?;
        let len = u32::from_le_bytes(take(&mut rest)?);
        let back = u32::from_le_bytes(take(&mut rest)?);
        let payload_crc = u32::from_le_bytes(take(&mut rest)?);
        let checksum = u32::from_le_bytes(take(&mut rest)?);
        let valid = len as usize <= RECORD_BYTES_MAX
            && u64::from(back) + HEADER_BYTES <= offset
            && checksum == checksum_of_frame(bytes, seed, offset);
        valid.then_some(Frame { kind, len, back, payload_crc })
    }

    /// Length with payload.
    pub fn bytes(&self) -> u64 {
        FRAME_BYTES as u64 + u64::from(self.len)
    }
}

fn checksum_of_frame(bytes: &[u8; FRAME_BYTES], seed: u32, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&offset.to_le_bytes());
    if let Some((head, _)) = bytes.split_last_chunk::<4>() {
        hasher.update(head);
    }
    hasher.finalize()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::log::{Log, Options};
    use crate::{CrashVfs, OpenMode, Vfs};
    use std::path::Path;
    use std::sync::Arc;

    const PAGE: &str = include_str!("../../../docs/format/log.md");

    /// The bytes of the page's example: hexadecimal pairs between the offset and the explanation of each line.
    fn example() -> Vec<u8> {
        let block = PAGE.split("```example").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let pairs = |line: &'static str| line.split('|').nth(1).unwrap_or_default().split_whitespace();
        block.lines().flat_map(pairs).map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// Writes what the page says was written.
    fn written() -> Vec<u8> {
        let vfs = CrashVfs::new();
        let dir = Path::new("/wal");
        let place = Place { log: 0x0123_4567_89ab_cdef, segment: SegmentNumber(7) };
        vfs.create_dir_all(dir).unwrap();
        let path = dir.join(place.file_name());
        let header = Header { version: VERSION, place, base: 1000 };
        vfs.open(&path, OpenMode::Create).unwrap().write_all_at(&header.encode(), 0).unwrap();
        let options = Options { preallocate: false, ..Options::default() };
        let (log, _) = Log::recover(Arc::new(vfs.clone()), dir, options, &mut |_| ()).unwrap();
        log.append(b"sarsen").unwrap();
        log.append(b"").unwrap();
        log.commit(log.appended()).unwrap();
        log.append(b"ring").unwrap();
        log.close();
        vfs.map(&path).unwrap().to_vec()
    }

    #[test]
    fn the_format_page_shows_the_bytes_that_are_written() {
        let written = written();
        let hex: Vec<String> = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            example(),
            written,
            "docs/format/log.md does not show what the code writes:\n{}",
            hex.join(" ")
        );
    }

    #[test]
    fn the_format_page_names_every_constant_and_the_file() {
        let place = Place { log: 0x0123_4567_89ab_cdef, segment: SegmentNumber(7) };
        for fact in [
            place.file_name(),
            format!("version {VERSION}"),
            format!("{HEADER_BYTES}-byte header"),
            format!("{FRAME_BYTES} bytes"),
            format!("{RECORD_BYTES_MAX} bytes"),
        ] {
            assert!(PAGE.contains(&fact), "docs/format/log.md does not say {fact:?}");
        }
    }

    #[test]
    fn file_names_are_read_back_and_others_are_refused() {
        let place = Place { log: u64::MAX, segment: SegmentNumber(0xabc) };
        assert_eq!(Place::from_file_name(&place.file_name()), Some(place));
        for name in [
            "",
            ".log",
            "-.log",
            "0000000000000abc.log",
            "0000000000000abc-ffffffffffffffff",
            "0000000000000ABC-ffffffffffffffff.log",
            "+000000000000abc-ffffffffffffffff.log",
            "ffffffffffffffff-ffffffffffffffff.log",
        ] {
            assert_eq!(Place::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_frame_is_only_a_frame_where_it_was_written() {
        let place = Place { log: 1, segment: SegmentNumber(2) };
        let frame = Frame { kind: Kind::Record, len: 5, back: 60, payload_crc: 0x1234_5678 };
        let bytes = frame.encode(place.seed(), 100);
        assert_eq!(Frame::decode(&bytes, place.seed(), 100), Some(frame));
        assert_eq!(Frame::decode(&bytes, place.seed(), 101), None);
        for other in [Place { log: 2, ..place }, Place { segment: SegmentNumber(3), ..place }] {
            assert_eq!(Frame::decode(&bytes, other.seed(), 100), None);
        }
        for bit in 0..FRAME_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&damaged, place.seed(), 100), None, "bit {bit}");
        }
        assert_eq!(Frame::decode(&bytes[..FRAME_BYTES - 1], place.seed(), 100), None);
    }
}
