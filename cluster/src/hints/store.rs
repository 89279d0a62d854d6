//! The hints on disk.
//!
//! Lock order: `queues`, then whatever the logs lock. The usual commit happens outside of it; a disk is waited for under it when room is made,
//! when much is pending, and when a segment is ended.

use crate::placement::NodeId;
use disk::log::{Log, Options as LogOptions, SegmentNumber};
use disk::{Error, Vfs};
use model::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How hints are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder; each node has one below it.
    pub dir: PathBuf,
    /// Bytes on disk for all nodes together.
    pub bytes_max: u64,
    /// Bytes on disk for one node.
    pub node_bytes_max: u64,
    /// How long a hint is kept, in milliseconds.
    pub age_max_ms: u64,
    /// Hints go by segments of this size.
    pub segment_bytes: u64,
}

impl Options {
    /// The defaults: 1 GiB, of which one node may take half, for three hours.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            bytes_max: 1 << 30,
            node_bytes_max: 1 << 29,
            age_max_ms: 3 * 3600 * 1000,
            segment_bytes: 4 << 20,
        }
    }
}

/// What became of hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes on disk, of all nodes.
    pub bytes: u64,
    /// Hints taken since the start.
    pub added: u64,
    /// Bytes that made room for newer hints.
    pub dropped_bytes: u64,
    /// Bytes that were too old.
    pub expired_bytes: u64,
}

/// Rows that a node has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// When.
    pub missed_at: Timestamp,
    /// The rows.
    pub sections: Vec<u8>,
}

/// The hints of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The segment, for [`Store::remove`].
    pub segment: SegmentNumber,
    /// In the order in which they were missed.
    pub hints: Vec<Hint>,
}

/// All hints of this node. Shared between threads.
pub struct Store {
    vfs: Arc<dyn Vfs>,
    options: Options,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    by_node: BTreeMap<NodeId, Queue>,
    counts: Counts,
}

struct Queue {
    log: Arc<Log>,
    /// When the newest hint of each segment was missed.
    newest: BTreeMap<SegmentNumber, i64>,
}

/// Bytes in front of the sections.
const AT_BYTES: usize = 8;

/// What the log adds to a record.
const FRAME_BYTES: u64 = 17;

impl Store {
    /// Opens what is there. Damaged hints are left out: repair brings what they would have brought.
    pub fn open(vfs: Arc<dyn Vfs>, options: Options) -> Result<Store, Error> {
        vfs.create_dir_all(&options.dir)?;
        let store = Store { vfs, options, queues: Mutex::default() };
        for entry in store.vfs.list(&store.options.dir)? {
            let node = u128::from_str_radix(&entry.name, 16).map(NodeId);
            if let (true, Ok(node)) = (entry.is_dir, node)
                && folder(&store.options.dir, node).file_name() == Some(entry.name.as_ref())
            {
                let queue = store.queue(node)?;
                store.queues.lock().by_node.insert(node, queue);
            }
        }
        Ok(store)
    }

    fn queue(&self, node: NodeId) -> Result<Queue, Error> {
        let options = LogOptions {
            segment_bytes: self.options.segment_bytes,
            preallocate: false,
            pending_bytes_max: (self.options.segment_bytes as usize).saturating_mul(2),
        };
        let mut newest = BTreeMap::new();
        let dir = folder(&self.options.dir, node);
        let (log, _) = Log::recover(self.vfs.clone(), &dir, options, &mut |record| {
            let at = missed_at(record.payload).unwrap_or(i64::MIN);
            let known = newest.entry(record.segment).or_insert(at);
            *known = at.max(*known);
        })?;
        Ok(Queue { log: Arc::new(log), newest })
    }

    /// Keeps a hint for `node`. It is on disk after the next [`Store::commit`]. If there is no room, the oldest hints go. Blocks only then, or
    /// when a segment's worth waits for a commit.
    ///
    /// # Errors
    /// The disk's. After one the hints of that node take nothing more until the next start.
    pub fn add(&self, node: NodeId, now: Timestamp, sections: &[u8]) -> Result<(), Error> {
        let mut record = Vec::with_capacity(AT_BYTES + sections.len());
        record.extend_from_slice(&now.0.to_le_bytes());
        record.extend_from_slice(sections);
        let bytes = record.len() as u64 + FRAME_BYTES;
        let mut queues = self.queues.lock();
        if let Entry::Vacant(vacant) = queues.by_node.entry(node) {
            vacant.insert(self.queue(node)?);
        }
        let room = self.options.node_bytes_max.min(self.options.bytes_max);
        if bytes > room {
            queues.counts.dropped_bytes += bytes;
            return Ok(());
        }
        while queues.by_node.get(&node).is_some_and(|queue| queue.bytes() + bytes > room) {
            queues.drop_oldest(node)?;
        }
        while queues.by_node.values().map(Queue::bytes).sum::<u64>() + bytes > self.options.bytes_max {
            let largest = queues.by_node.iter().max_by_key(|(_, queue)| queue.bytes()).map(|(id, _)| *id);
            queues.drop_oldest(largest.unwrap_or(node))?;
        }
        queues.counts.added += 1;
        let Some(queue) = queues.by_node.get_mut(&node) else { return Ok(()) };
        if queue.log.pending_bytes() as u64 >= self.options.segment_bytes {
            queue.log.commit(queue.log.appended())?;
        }
        queue.log.append(&record)?;
        // In which segment it is shows when it is committed. Counted in all that are possible, it is never thought to be older than it is.
        let last = queue.log.segments().last().map_or(1, |info| info.segment.0);
        let ahead = 2 + queue.log.pending_bytes() as u64 / self.options.segment_bytes.max(1);
        for segment in (last..=last + ahead).map(SegmentNumber) {
            let known = queue.newest.entry(segment).or_insert(now.0);
            *known = now.0.max(*known);
        }
        Ok(())
    }

    /// Makes all hints durable that were added before. Blocks.
    pub fn commit(&self) -> Result<(), Error> {
        let logs: Vec<Arc<Log>> =
            self.queues.lock().by_node.values().map(|queue| queue.log.clone()).collect();
        logs.iter().try_for_each(|log| log.commit(log.appended()))
    }

    /// Removes what is too old.
    pub fn expire(&self, now: Timestamp) -> Result<(), Error> {
        let oldest = now.0.saturating_sub_unsigned(self.options.age_max_ms);
        let mut queues = self.queues.lock();
        let Queues { by_node, counts } = &mut *queues;
        for queue in by_node.values_mut() {
            while let Some((segment, bytes)) = queue.oldest()? {
                if queue.newest.get(&segment).is_some_and(|newest| *newest >= oldest) {
                    break;
                }
                queue.remove(segment)?;
                counts.expired_bytes += bytes;
            }
        }
        Ok(())
    }

    /// The oldest hints for `node`, a segment's worth; `None` when there are none. Those that are too old are left out. Blocks.
    pub fn load(&self, node: NodeId, now: Timestamp) -> Result<Option<Chunk>, Error> {
        let oldest = now.0.saturating_sub_unsigned(self.options.age_max_ms);
        let mut queues = self.queues.lock();
        let Some(queue) = queues.by_node.get_mut(&node) else { return Ok(None) };
        let Some((segment, _)) = queue.oldest()? else { return Ok(None) };
        // What is being written to is ended first: a segment that is read does not change any more.
        if queue.log.segments().last().is_some_and(|last| last.segment == segment) {
            queue.log.rotate()?;
        }
        let log = queue.log.clone();
        drop(queues);
        let (mut hints, mut expired_bytes) = (Vec::new(), 0);
        log.read_segment(segment, &mut |record| {
            let Some((at, sections)) = record.payload.split_first_chunk() else { return };
            match i64::from_le_bytes(*at) {
                at if at >= oldest => {
                    hints.push(Hint { missed_at: Timestamp(at), sections: sections.to_vec() });
                }
                _ => expired_bytes += sections.len() as u64,
            }
        })?;
        self.queues.lock().counts.expired_bytes += expired_bytes;
        Ok(Some(Chunk { segment, hints }))
    }

    /// Removes a segment of hints and those before it: they were delivered.
    pub fn remove(&self, node: NodeId, segment: SegmentNumber) -> Result<(), Error> {
        match self.queues.lock().by_node.get_mut(&node) {
            Some(queue) => queue.remove(segment),
            None => Ok(()),
        }
    }

    /// Removes all hints for a node that is gone for good.
    pub fn forget(&self, node: NodeId) -> Result<(), Error> {
        let Some(queue) = self.queues.lock().by_node.remove(&node) else { return Ok(()) };
        queue.log.close();
        drop(queue);
        let dir = folder(&self.options.dir, node);
        for entry in self.vfs.list(&dir)? {
            self.vfs.remove(&dir.join(entry.name))?;
        }
        self.vfs.sync_dir(&dir)?;
        self.vfs.remove_dir(&dir)?;
        self.vfs.sync_dir(&self.options.dir)
    }

    /// The nodes for which there are hints, and how many bytes.
    pub fn nodes(&self) -> Vec<(NodeId, u64)> {
        let queues = self.queues.lock();
        let all = queues.by_node.iter().map(|(node, queue)| (*node, queue.bytes()));
        all.filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// What became of hints.
    pub fn counts(&self) -> Counts {
        let queues = self.queues.lock();
        Counts { bytes: queues.by_node.values().map(Queue::bytes).sum(), ..queues.counts }
    }
}

impl Queues {
    fn drop_oldest(&mut self, node: NodeId) -> Result<(), Error> {
        if let Some(queue) = self.by_node.get_mut(&node)
            && let Some((segment, bytes)) = queue.oldest()?
        {
            queue.remove(segment)?;
            self.counts.dropped_bytes += bytes;
        }
        Ok(())
    }
}

/// Bytes of a segment without records.
const EMPTY_BYTES: u64 = 40;

impl Queue {
    /// Bytes of hints, those that wait for a commit too.
    fn bytes(&self) -> u64 {
        let on_disk = self.log.segments().into_iter().map(|info| info.bytes.saturating_sub(EMPTY_BYTES));
        on_disk.sum::<u64>() + self.log.pending_bytes() as u64
    }

    /// The oldest segment that has hints, and its bytes; everything is on disk then.
    fn oldest(&self) -> Result<Option<(SegmentNumber, u64)>, Error> {
        if self.log.pending_bytes() > 0 {
            self.log.commit(self.log.appended())?;
        }
        let segments = self.log.segments();
        let full = segments.into_iter().find(|info| info.bytes > EMPTY_BYTES);
        Ok(full.map(|info| (info.segment, info.bytes - EMPTY_BYTES)))
    }

    fn remove(&mut self, segment: SegmentNumber) -> Result<(), Error> {
        if self.log.segments().last().is_some_and(|last| last.segment <= segment) {
            self.log.rotate()?;
        }
        self.log.remove_before(segment.next())?;
        self.newest = self.newest.split_off(&segment.next());
        Ok(())
    }
}

fn folder(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("{:032x}", node.0))
}

fn missed_at(record: &[u8]) -> Option<i64> {
    record.first_chunk().map(|at| i64::from_le_bytes(*at))
}
