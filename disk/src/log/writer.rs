//! The end of the log, where bytes go to disk. Whoever commits holds it alone.

use super::frame::{HEADER_BYTES, Header, Place, VERSION};
use super::{Options, SegmentInfo, SegmentNumber};
use crate::Error;
use crate::vfs::{File, OpenMode, Vfs};
use std::path::PathBuf;
use std::sync::Arc;

/// How much is copied at once when the last commit is written again.
const COPY_BYTES: usize = 256 << 10;

/// What one commit writes: frames, cut into runs that each lie in one segment.
#[derive(Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    pub runs: Vec<Run>,
}

/// Frames that follow each other in one segment, up to the next run's beginning.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub segment: SegmentNumber,
    /// Where in the segment.
    pub offset: u64,
    /// Where in [`Batch::bytes`].
    pub at: usize,
    /// The log's position there.
    pub base: u64,
}

/// Where a log lives and how it is kept.
pub(super) struct Home {
    pub vfs: Arc<dyn Vfs>,
    pub dir: PathBuf,
    pub options: Options,
}

impl Home {
    pub fn path(&self, place: Place) -> PathBuf {
        self.dir.join(place.file_name())
    }
}

/// The last segment, open.
pub(super) struct Writer {
    home: Arc<Home>,
    place: Place,
    file: Box<dyn File>,
    end: u64,
}

impl Writer {
    /// Makes a segment. When this returns, header and name are durable; frames are written only after that.
    pub fn create(home: &Arc<Home>, place: Place, base: u64) -> Result<Writer, Error> {
        let file = home.vfs.open(&home.path(place), OpenMode::Create)?;
        Writer::begin(home, place, base, file)
    }

    /// Makes a segment where a crash left one without header.
    pub fn recreate(home: &Arc<Home>, place: Place, base: u64) -> Result<Writer, Error> {
        let file = home.vfs.open(&home.path(place), OpenMode::Write)?;
        file.set_len(0)?;
        Writer::begin(home, place, base, file)
    }

    fn begin(home: &Arc<Home>, place: Place, base: u64, file: Box<dyn File>) -> Result<Writer, Error> {
        if home.options.preallocate {
            file.allocate(home.options.segment_bytes)?;
        }
        file.write_all_at(&Header { version: VERSION, place, base }.encode(), 0)?;
        file.sync_data()?;
        home.vfs.sync_dir(&home.dir)?;
        Ok(Writer { home: home.clone(), place, file, end: HEADER_BYTES })
    }

    /// Opens the last segment to go on at `end`, below which all from `durable` on was written by the last commit.
    pub fn reopen(
        home: &Arc<Home>,
        place: Place,
        durable: u64,
        end: u64,
        torn: bool,
    ) -> Result<Writer, Error> {
        let path = home.path(place);
        let file = home.vfs.open(&path, OpenMode::Write)?;
        if torn {
            // Synced below, before the first new frame: no byte of the torn commit may ever come back behind one.
            file.set_len(end)?;
        }
        // After a failed fsync Linux keeps the pages but calls them clean, and a later fsync reports success for bytes that
        // never reached the disk. What the callers are about to build on is therefore written once more. Everything before
        // the last commit was synced, or that commit would not have been written. (The header is synced with what comes first.)
        let mut at = if durable <= HEADER_BYTES { 0 } else { durable };
        let mut buffer = vec![0; COPY_BYTES.min((end - at) as usize)];
        while at < end {
            let part = &mut buffer[..COPY_BYTES.min((end - at) as usize)];
            if !file.read_exact_at(part, at)? {
                let what = format!("the file ends before byte {end}, to which it was just read");
                return Err(Error::Corrupt { path, offset: at, what });
            }
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        if home.options.preallocate && file.len()? < home.options.segment_bytes {
            file.allocate(home.options.segment_bytes)?;
        }
        file.sync_data()?;
        home.vfs.sync_dir(&home.dir)?;
        Ok(Writer { home: home.clone(), place, file, end })
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// Length of the segment in use.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Makes a batch durable, in new segments as it asks for. `sealed` hears of every segment that is done with.
    /// After an error nothing more may be written: what the disk holds is unknown.
    pub fn write(&mut self, batch: &Batch, sealed: &mut dyn FnMut(SegmentInfo)) -> Result<(), Error> {
        for (index, run) in batch.runs.iter().enumerate() {
            if run.segment != self.place.segment {
                // All of a segment is durable before the next one exists: only the last can ever be torn.
                self.file.set_len(self.end)?;
                self.file.sync_data()?;
                sealed(SegmentInfo { segment: self.place.segment, bytes: self.end });
                let place = Place { segment: run.segment, ..self.place };
                *self = Writer::create(&self.home, place, run.base)?;
            }
            let to = batch.runs.get(index + 1).map_or(batch.bytes.len(), |next| next.at);
            let bytes = &batch.bytes[run.at..to];
            if !bytes.is_empty() {
                debug_assert_eq!(run.offset, self.end, "BUG: a run does not continue its segment");
                self.file.write_all_at(bytes, run.offset)?;
                self.end = run.offset + bytes.len() as u64;
            }
        }
        if self.end > HEADER_BYTES {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
