//! Blocks as files, to and from other nodes: [`SealedBlocks`] for the engine.
//!
//! Whoever copies a block may be slower than retention: each piece finds the file again, or says that it is gone. What comes in is a
//! [`Part`] until every page of it has passed; then it is visible like a block from a flush.
//!
//! Locks: an import's own comes before the shard's ([`crate::shard`]); the table of imports is locked inside of it, for a moment.

use super::Engine;
use crate::block::{self, PART, Part};
use disk::OpenMode;
use model::{Error, Import, SealedBlock, SealedBlocks, Shard};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Imports that are open at a time. Each has a file and 4 bytes for each page of it.
const IMPORTS_MAX: usize = 256;
/// The longest tail: of a block of 32 GiB.
const TAIL_MAX: usize = 4 << 20;

/// Pieces come side by side, beginning and ending go alone. `None`: not begun, or over.
type Open = Arc<RwLock<Option<Part>>>;

/// Imports under way, by shard and block.
#[derive(Default)]
pub(super) struct Imports(Mutex<BTreeMap<(Shard, u128), Open>>);

impl Imports {
    fn get(&self, shard: Shard, id: u128) -> Option<Open> {
        self.0.lock().get(&(shard, id)).cloned()
    }

    fn forget(&self, shard: Shard, id: u128) {
        self.0.lock().remove(&(shard, id));
    }
}

fn described(block: &block::Reader) -> SealedBlock {
    let (meta, footer) = (block.meta(), block.footer());
    SealedBlock {
        id: meta.id,
        range: meta.range,
        span: meta.span,
        samples: meta.samples,
        bytes: meta.bytes,
        tail_bytes: meta.bytes - footer.body_len() as u64,
        seal: footer.seal(),
        digest: meta.digest,
    }
}

impl Engine {
    fn find_block(&self, shard: Shard, id: u128) -> Result<Option<Arc<block::Reader>>, Error> {
        let state = self.shard(shard)?.state.lock();
        Ok(state.blocks.iter().find(|block| block.meta().id == id).cloned())
    }

    /// Room for a file, beside what is kept in reserve.
    fn check_room(&self, bytes: u64) -> Result<(), Error> {
        let free = self.vfs.space(&self.options.dir).map_err(crate::Error::from)?.free;
        let reserve = self.options.disk_reserve_bytes;
        if free < bytes.saturating_add(reserve) {
            return Err(Error::ReadOnly {
                reason: format!(
                    "a block of {bytes} bytes is to be copied here, {free} are free where {} lies and {reserve} are kept in reserve (`storage.disk_reserve_bytes`); free some space",
                    self.options.dir.display()
                ),
            });
        }
        Ok(())
    }

    fn begin(&self, shard: Shard, block: &SealedBlock, tail: &[u8]) -> Result<Import, Error> {
        let open = {
            let mut imports = self.imports.0.lock();
            if imports.len() >= IMPORTS_MAX && !imports.contains_key(&(shard, block.id)) {
                return Err(Error::Busy {
                    reason: "too many imports of blocks are under way",
                    retry_after_s: 1,
                });
            }
            imports.entry((shard, block.id)).or_default().clone()
        };
        let mut part = open.write();
        let missing = match &*part {
            Some(part) if !part.has_failed() => part.missing(),
            _ => {
                self.check_room(block.bytes)?;
                let dir = self.blocks_dir(shard);
                self.vfs.create_dir_all(&dir).map_err(crate::Error::from)?;
                part.insert(Part::open(&*self.vfs, &dir, shard, block, tail)?).missing()
            }
        };
        Ok(Import::Missing(missing))
    }

    /// The block enters the read set together with what is remembered of digests.
    fn enter(&self, shard: Shard, block: Arc<block::Reader>) -> Result<(), Error> {
        let span = block.meta().span;
        let mut state = self.shard(shard)?.state.lock();
        if state.blocks.iter().any(|other| other.meta().id == block.meta().id) {
            return Ok(());
        }
        state.blocks = state.blocks.iter().cloned().chain([block]).collect();
        state.changed((self.clock)().0, span);
        Ok(())
    }
}

impl SealedBlocks for Engine {
    fn list(&self, shard: Shard) -> Result<Vec<SealedBlock>, Error> {
        let cut_off = self.cut_off();
        let blocks = self.shard(shard)?.state.lock().blocks.clone();
        let whole =
            |block: &&Arc<block::Reader>| block.damaged().is_none() && block.meta().span.max.0 >= cut_off;
        Ok(blocks.iter().filter(whole).map(|block| described(block)).collect())
    }

    fn read(&self, shard: Shard, id: u128, at: u64, into: &mut [u8]) -> Result<bool, Error> {
        let Some(block) = self.find_block(shard, id)? else { return Ok(false) };
        let file = match self.vfs.open(&block.meta().path, OpenMode::Read) {
            Err(e) if e.is_not_found() => return Ok(false),
            file => file.map_err(crate::Error::from)?,
        };
        Ok(block.read_raw(&*file, at, into)?)
    }

    fn begin_import(&self, shard: Shard, block: &SealedBlock, tail: &[u8]) -> Result<Import, Error> {
        self.check_writable()?;
        if self.find_block(shard, block.id)?.is_some() {
            return Ok(Import::Here);
        }
        if tail.len() > TAIL_MAX {
            return Err(Error::Limit {
                what: "bytes of checksums of one block",
                key: "storage.block_window",
                max: TAIL_MAX as u64,
                got: tail.len() as u64,
            });
        }
        self.begin(shard, block, tail).inspect_err(|_| self.imports.forget(shard, block.id))
    }

    fn import(&self, shard: Shard, id: u128, at: u64, piece: &[u8]) -> Result<(), Error> {
        let not_begun = || Error::Busy { reason: "the import of the block has not begun", retry_after_s: 1 };
        let open = self.imports.get(shard, id).ok_or_else(not_begun)?;
        let part = open.read();
        let part = part.as_ref().filter(|part| !part.has_failed()).ok_or_else(not_begun)?;
        let written = part.write(at, piece);
        if part.has_failed() {
            // The kernel may show bytes that the disk never gets, now and after a restart of this program.
            part.discard(&*self.vfs)?;
        }
        Ok(written?)
    }

    fn finish_import(&self, shard: Shard, id: u128) -> Result<(), Error> {
        if self.find_block(shard, id)?.is_some() {
            return Ok(());
        }
        let not_begun = || Error::Busy { reason: "the import of the block has not begun", retry_after_s: 1 };
        let open = self.imports.get(shard, id).ok_or_else(not_begun)?;
        let mut part = open.write();
        self.imports.forget(shard, id);
        let taken = part.take().filter(|part| !part.has_failed()).ok_or_else(not_begun)?;
        // It may have been here, and its file may still be to be removed.
        self.left_over.keep(&self.blocks_dir(shard).join(taken.file_name()));
        let finished = taken.finish(&*self.vfs, &self.blocks_dir(shard), self.key, self.options.shards);
        let meta = match finished {
            Ok(meta) => meta,
            Err(e) => {
                // What is wrong here cannot be told from what is right: it comes again from the beginning.
                let _ = taken.discard(&*self.vfs);
                return Err(e.into());
            }
        };
        self.enter(shard, Arc::new(block::Reader::open(&*self.vfs, &meta.path)?))
    }

    fn abandon_imports(&self, shard: Shard, only: Option<u128>) -> Result<(), Error> {
        let dir = self.blocks_dir(self.shard(shard)?.number);
        let open: Vec<Open> = {
            let mut imports = self.imports.0.lock();
            let (first, last) = only.map_or((0, u128::MAX), |id| (id, id));
            let ids: Vec<u128> =
                imports.range((shard, first)..=(shard, last)).map(|(key, _)| key.1).collect();
            ids.into_iter().filter_map(|id| imports.remove(&(shard, id))).collect()
        };
        // A piece that is being written is waited for.
        open.iter().for_each(|open| drop(open.write().take()));
        let entries = match self.vfs.list(&dir) {
            Err(e) if e.is_not_found() => return Ok(()),
            entries => entries.map_err(crate::Error::from)?,
        };
        let ending = only.map_or(PART.to_owned(), |id| format!("-{id:032x}{PART}"));
        for entry in entries.iter().filter(|entry| entry.name.ends_with(&ending)) {
            self.vfs.remove(&dir.join(&entry.name)).map_err(crate::Error::from)?;
        }
        Ok(())
    }
}
