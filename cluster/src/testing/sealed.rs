//! Files of a replica in memory: the contract of [`model::SealedBlocks`] in its simplest form.
//!
//! A file is rows, then junk up to a length, then a tail with the checksum of each page. What is imported is durable at once.

use super::{Memory, State, put};
use model::value::Value;
use model::{BLOCK_PAGE, Error, Import, Labels, Replica as _, SealedBlock, SealedBlocks, Shard, TimeRange};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What it is, and its bytes.
type File = (SealedBlock, Arc<Vec<u8>>);

/// Files, and those that are not complete.
#[derive(Default)]
pub(super) struct Files {
    whole: BTreeMap<(Shard, u128), File>,
    parts: BTreeMap<(Shard, u128), (SealedBlock, Vec<u8>)>,
    /// Bytes that were taken.
    imported: u64,
}

impl Files {
    /// Those of a shard go; how many these were.
    pub(super) fn forget(&mut self, shard: Shard) -> u64 {
        let before = self.whole.len();
        self.whole.retain(|key, _| key.0 != shard);
        (before - self.whole.len()) as u64
    }
}

fn pages(body: &[u8]) -> impl Iterator<Item = u32> + '_ {
    body.chunks(BLOCK_PAGE as usize).map(crc32fast::hash)
}

fn tail_of(shard: Shard, body: &[u8]) -> Vec<u8> {
    let mut tail: Vec<u8> = pages(body).flat_map(u32::to_le_bytes).collect();
    tail.extend(shard.0.to_le_bytes());
    tail
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt { path: "part".into(), offset: 0, what: what.to_owned() }
}

fn missing(body: &[u8], tail: &[u8]) -> Vec<Range<u64>> {
    let stored = tail.chunks(4).map(|sum| sum.try_into().map_or(0, u32::from_le_bytes));
    let wrong = pages(body).zip(stored).enumerate().filter(|(_, (sum, stored))| sum != stored);
    let range = |page: usize| {
        let from = page as u64 * BLOCK_PAGE;
        from..(from + BLOCK_PAGE).min(body.len() as u64)
    };
    wrong.map(|(page, _)| range(page)).collect()
}

impl Memory {
    /// Makes a file in each shard of what is there in `range`, of at least so many bytes. Ids follow `seed`.
    pub fn seal(&self, range: TimeRange, bytes_min: usize, seed: u128) {
        for shard in (0..self.shards).map(|shard| Shard(shard as u16)) {
            let digest = self.digest(shard, range).unwrap_or_else(|error| panic!("{error}"));
            let mut state = self.state.lock();
            let (mut body, mut samples, mut span) = (Vec::new(), 0u64, TimeRange::new(i64::MAX, i64::MIN));
            for (labels, rows) in state.live.shards.get(&shard).into_iter().flat_map(|held| held.values()) {
                for (&t, (value, _)) in rows.iter().filter(|(t, _)| range.contains(**t)) {
                    let Value::Float(value) = value else { continue };
                    samples += 1;
                    span = TimeRange::new(span.min.0.min(t), span.max.0.max(t));
                    let bytes = labels.as_bytes();
                    body.extend((bytes.len() as u32).to_le_bytes());
                    body.extend_from_slice(bytes);
                    body.extend(t.to_le_bytes());
                    body.extend(value.to_bits().to_le_bytes());
                }
            }
            if samples == 0 {
                continue;
            }
            body.extend(u32::MAX.to_le_bytes());
            let mut lots = seed as u64 ^ u64::from(shard.0);
            while body.len() < bytes_min {
                lots = lots.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                body.push((lots >> 56) as u8);
            }
            let tail = tail_of(shard, &body);
            let (tail_bytes, seal) = (tail.len() as u64, u64::from(crc32fast::hash(&tail)));
            body.extend(tail);
            let id = seed << 16 | u128::from(shard.0);
            let bytes = body.len() as u64;
            let digest = Some(digest);
            let block = SealedBlock { id, range, span, samples, bytes, tail_bytes, seal, digest };
            state.files.whole.insert((shard, id), (block, Arc::new(body)));
        }
    }

    /// Another replica has the same files.
    pub fn copy_files(&self, other: &Memory) {
        let whole = other.state.lock().files.whole.clone();
        self.state.lock().files.whole = whole;
    }

    /// Retention has removed a file.
    pub fn remove_file(&self, shard: Shard, id: u128) {
        self.state.lock().files.whole.remove(&(shard, id));
    }

    /// A bit of a file flips.
    pub fn rot_file(&self, shard: Shard, id: u128, at: usize) {
        let mut state = self.state.lock();
        if let Some((_, bytes)) = state.files.whole.get_mut(&(shard, id)) {
            Arc::make_mut(bytes)[at] ^= 1;
        }
    }

    /// Files that are not complete, and bytes that were ever taken.
    pub fn imports(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.files.parts.len(), state.files.imported)
    }
}

impl SealedBlocks for Memory {
    fn list(&self, shard: Shard) -> Result<Vec<SealedBlock>, Error> {
        let state = self.check()?;
        Ok(state.files.whole.range((shard, 0)..=(shard, u128::MAX)).map(|(_, file)| file.0).collect())
    }

    fn read(&self, shard: Shard, id: u128, at: u64, into: &mut [u8]) -> Result<bool, Error> {
        let state = self.check()?;
        let Some((_, bytes)) = state.files.whole.get(&(shard, id)) else { return Ok(false) };
        let found = bytes.get(at as usize..).and_then(|rest| rest.get(..into.len()));
        Ok(found.map(|found| into.copy_from_slice(found)).is_some())
    }

    fn begin_import(&self, shard: Shard, block: &SealedBlock, tail: &[u8]) -> Result<Import, Error> {
        let mut state = self.check()?;
        if state.files.whole.contains_key(&(shard, block.id)) {
            return Ok(Import::Here);
        }
        if u64::from(crc32fast::hash(tail)) != block.seal || !tail.ends_with(&shard.0.to_le_bytes()) {
            return Err(corrupt("the tail"));
        }
        let body = vec![0; block.tail_at() as usize];
        let (_, body) =
            state.files.parts.entry((shard, block.id)).or_insert((*block, [&body, tail].concat()));
        let (body, tail) = body.split_at(block.tail_at() as usize);
        Ok(Import::Missing(missing(body, tail)))
    }

    fn import(&self, shard: Shard, id: u128, at: u64, piece: &[u8]) -> Result<(), Error> {
        let mut state = self.check()?;
        let files = &mut state.files;
        let Some((block, bytes)) = files.parts.get_mut(&(shard, id)) else { return Err(Error::Canceled) };
        let (body, tail) = bytes.split_at_mut(block.tail_at() as usize);
        let sums = &tail[(at / BLOCK_PAGE * 4) as usize..];
        if !at.is_multiple_of(BLOCK_PAGE) || !missing(piece, sums).is_empty() {
            return Err(corrupt("a page"));
        }
        body[at as usize..at as usize + piece.len()].copy_from_slice(piece);
        files.imported += piece.len() as u64;
        Ok(())
    }

    fn finish_import(&self, shard: Shard, id: u128) -> Result<(), Error> {
        let mut state = self.check()?;
        let State { live, durable, files, .. } = &mut *state;
        let Some((block, bytes)) = files.parts.remove(&(shard, id)) else { return Err(Error::Canceled) };
        let (mut rest, tail) = bytes.split_at(block.tail_at() as usize);
        if !missing(rest, tail).is_empty() {
            return Err(corrupt("a page is missing"));
        }
        let mut take = |count: usize| {
            let (taken, behind) = rest.split_at(count);
            rest = behind;
            taken
        };
        loop {
            let count = u32::from_le_bytes(take(4).try_into().expect("four bytes"));
            if count == u32::MAX {
                break;
            }
            let labels = Labels::from_canonical(take(count as usize));
            let t = i64::from_le_bytes(take(8).try_into().expect("eight bytes"));
            let value = f64::from_bits(u64::from_le_bytes(take(8).try_into().expect("eight bytes")));
            for content in [&mut *live, &mut *durable] {
                let held = content.shards.entry(shard).or_default();
                let series = held.entry(self.key.id(labels.as_bytes()));
                let (_, rows) = series.or_insert_with(|| (labels.clone(), BTreeMap::new()));
                put(rows, t, Value::Float(value), 0);
            }
        }
        files.whole.insert((shard, id), (block, Arc::new(bytes)));
        Ok(())
    }

    fn abandon_imports(&self, shard: Shard, only: Option<u128>) -> Result<(), Error> {
        let gone = |key: &(Shard, u128)| key.0 == shard && only.is_none_or(|id| id == key.1);
        self.check()?.files.parts.retain(|key, _| !gone(key));
        Ok(())
    }
}
