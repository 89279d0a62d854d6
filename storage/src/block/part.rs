//! A copy of a block that is on its way from another node.
//!
//! ```text
//! <name>.part     pages: there, or to come │ the tail, from the beginning
//! <name>.block    the same file, when every page was there and the disk has it
//! ```
//!
//! The tail has the checksum of every page, so no byte enters the file that is not the block's; and after a crash, whatever the disk
//! kept of it can be told from what it lost. A file whose tail the disk lost begins anew.
//!
//! Invariants:
//! * What has the final name is a whole block whose every page has passed, durably.
//! * After one failed write or fsync the part is given up: what the disk has of it is not known any more.

use super::format::{Footer, PAGE, page_checksum};
use super::reader::Reader;
use super::{Header, Meta};
use crate::faults::{Mistake, planted};
use crate::{Error, Result};
use disk::{File, OpenMode, Vfs};
use model::{SealedBlock, SeriesKey};
use parking_lot::Mutex;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The disk is told to write after so many bytes: a crash loses no more of an import than this, and no fsync has more to do.
const SYNC_BYTES: u64 = 32 << 20;
/// Bytes of one read of what is there.
const READ: usize = 32 * PAGE;

/// A copy of a block that is not complete. Pieces come on any thread.
pub(crate) struct Part {
    path: PathBuf,
    footer: Footer,
    /// Of every page, as in the file.
    checksums: Vec<u8>,
    file: Box<dyn File>,
    /// A bit for each page that is in the file.
    held: Mutex<Vec<u64>>,
    unsynced: AtomicU64,
    failed: AtomicBool,
}

impl Part {
    /// Begins one in the folder `dir`, or goes on with what is there.
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        shard: model::Shard,
        block: &SealedBlock,
        tail: &[u8],
    ) -> Result<Part> {
        let footer = check(dir, shard, block, tail)?;
        let path = dir.join(footer.header.part_name());
        let checksums = tail.get(..tail.len() - footer.len()).unwrap_or(&[]).to_vec();
        let pages = footer.body_len().div_ceil(PAGE);
        let part = |file| Part {
            checksums: checksums.clone(),
            footer: footer.clone(),
            held: Mutex::new(vec![0; pages.div_ceil(64)]),
            unsynced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            path: path.clone(),
            file,
        };
        match vfs.open(&path, OpenMode::Write) {
            Ok(file) => {
                let mut found = vec![0; tail.len()];
                let whole = file.len()? == block.bytes && file.read_exact_at(&mut found, block.tail_at())?;
                if whole && found == tail {
                    let part = part(file);
                    part.look()?;
                    return Ok(part);
                }
                drop(file);
                vfs.remove(&path)?;
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        let file = vfs.open(&path, OpenMode::Create)?;
        // A disk that is too small shows it before anything is fetched.
        let begun = file.allocate(block.bytes).and_then(|()| {
            file.write_all_at(tail, block.tail_at())?;
            if block.bytes < SYNC_BYTES {
                // Sooner copied again than made durable in between.
                return Ok(());
            }
            file.sync_data()?;
            vfs.sync_dir(dir)
        });
        if let Err(e) = begun {
            drop(file);
            // The first error says more.
            let _ = vfs.remove(&path);
            return Err(e.into());
        }
        Ok(part(file))
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, what: what.into() }
    }

    fn body(&self) -> usize {
        self.footer.body_len()
    }

    fn page_is(&self, page: usize, content: &[u8]) -> bool {
        let stored = self.checksums.get(4 * page..).and_then(|rest| rest.first_chunk::<4>());
        let sum = page_checksum(content, self.footer.header.id, (page * PAGE) as u64);
        stored.is_some_and(|stored| u32::from_le_bytes(*stored) == sum)
    }

    /// Finds out which pages are there.
    fn look(&self) -> Result<()> {
        let mut buffer = vec![0; READ];
        let mut held = self.held.lock();
        let mut at = 0;
        while at < self.body() {
            let piece = &mut buffer[..READ.min(self.body() - at)];
            if !self.file.read_exact_at(piece, at as u64)? {
                break;
            }
            for (number, content) in piece.chunks(PAGE).enumerate() {
                let page = at / PAGE + number;
                if self.page_is(page, content) {
                    hold(&mut held, page);
                }
            }
            at += piece.len();
        }
        Ok(())
    }

    /// The bytes that are still to come, in whole pages.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let held = self.held.lock();
        let mut missing: Vec<Range<u64>> = Vec::new();
        for page in 0..self.body().div_ceil(PAGE) {
            if holds(&held, page) {
                continue;
            }
            let (from, to) = ((page * PAGE) as u64, ((page + 1) * PAGE).min(self.body()) as u64);
            match missing.last_mut().filter(|last| last.end == from) {
                Some(last) => last.end = to,
                None => missing.push(from..to),
            }
        }
        missing
    }

    /// Takes whole pages.
    pub fn write(&self, at: u64, piece: &[u8]) -> Result<()> {
        let body = self.body() as u64;
        let end = at.checked_add(piece.len() as u64).filter(|&end| end <= body);
        let is_whole = |place: u64| place.is_multiple_of(PAGE as u64) || place == body;
        if !end.is_some_and(is_whole) || !is_whole(at) || piece.is_empty() {
            return Err(self.corrupt(at, format!("a piece of {} bytes is not of whole pages", piece.len())));
        }
        let first = at as usize / PAGE;
        for (number, content) in piece.chunks(PAGE).enumerate() {
            if !self.page_is(first + number, content) && !planted(Mistake::TrustSender) {
                let place = ((first + number) * PAGE) as u64;
                return Err(self.corrupt(place, "the page that came fails its checksum"));
            }
        }
        self.on_disk(self.file.write_all_at(piece, at))?;
        {
            let mut held = self.held.lock();
            (first..first + piece.len().div_ceil(PAGE)).for_each(|page| hold(&mut held, page));
        }
        let unsynced = self.unsynced.fetch_add(piece.len() as u64, Relaxed) + piece.len() as u64;
        if unsynced >= SYNC_BYTES && self.unsynced.compare_exchange(unsynced, 0, Relaxed, Relaxed).is_ok() {
            self.on_disk(self.file.sync_data())?;
        }
        Ok(())
    }

    fn on_disk<T>(&self, outcome: std::result::Result<T, disk::Error>) -> Result<T> {
        if outcome.is_err() {
            self.failed.store(true, Relaxed);
        }
        Ok(outcome?)
    }

    /// Whether a write or fsync has failed: what the disk has is not known, and it must not be finished.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// The name that it is to get.
    pub fn file_name(&self) -> String {
        self.footer.header.file_name()
    }

    /// Gives it its name, when all pages are there and all series are of its shard.
    pub fn finish(&self, vfs: &dyn Vfs, dir: &Path, key: SeriesKey, shards: u32) -> Result<Meta> {
        if let Some(missing) = self.missing().first() {
            return Err(self.corrupt(missing.start, "the page has not come"));
        }
        // Nobody writes any more. The ids are computed here, so nobody can lie about them.
        let reader = Reader::from_bytes(vfs.map(&self.path)?, &self.path)?;
        let (mut cursor, mut labels) = (reader.cursor(), Vec::new());
        let checked = if planted(Mistake::TrustSender) { 0 } else { reader.series_count() };
        for series in 0..checked {
            labels.clear();
            cursor.bytes(series, &mut labels)?;
            if key.id(&labels).shard(shards) != self.footer.header.shard {
                return Err(self.corrupt(0, format!("series {series} belongs to another shard")));
            }
        }
        let meta = reader.meta().clone();
        // The content before the name, the name before anybody relies on it.
        if !planted(Mistake::ShowUnsynced) {
            self.on_disk(self.file.sync_data())?;
        }
        let path = dir.join(self.file_name());
        vfs.rename(&self.path, &path)?;
        vfs.sync_dir(dir)?;
        Ok(Meta { path, ..meta })
    }

    /// The file is of no use.
    pub fn discard(&self, vfs: &dyn Vfs) -> Result<()> {
        match vfs.remove(&self.path) {
            Err(e) if !e.is_not_found() => Err(e.into()),
            _ => Ok(()),
        }
    }
}

fn holds(held: &[u64], page: usize) -> bool {
    held.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
}

fn hold(held: &mut [u64], page: usize) {
    if let Some(word) = held.get_mut(page / 64) {
        *word |= 1 << (page % 64);
    }
}

/// The footer of a tail, if it is that of this block of this shard.
fn check(dir: &Path, shard: model::Shard, block: &SealedBlock, tail: &[u8]) -> Result<Footer> {
    let path = || dir.join(format!("{:032x}", block.id));
    let corrupt = |(offset, what): (u64, String)| Error::Corrupt { path: path(), offset, what };
    let wrong = |what: &str| corrupt((block.tail_at(), format!("the tail that came {what}")));
    let len = usize::try_from(block.bytes).map_err(|_| wrong("is of a file that is too long"))?;
    let footer = Footer::decode_end(tail, len).map_err(corrupt)?;
    let checksums = tail.len().checked_sub(footer.len()).and_then(|len| tail.get(..len));
    if footer.body_len() + tail.len() != len
        || checksums.is_none_or(|c| crc32fast::hash(c) != footer.checksums)
    {
        return Err(wrong("has other checksums"));
    }
    let Header { shard: of, id, range, .. } = footer.header;
    if of != shard {
        return Err(wrong(&format!("is of shard {}", of.0)));
    }
    if (id, footer.seal(), range) != (block.id, block.seal, block.range) {
        return Err(wrong("is of another block"));
    }
    Ok(footer)
}
