//! The segment log: what is appended and committed is there after any crash, in order, or reported as damaged.
//!
//! ```text
//!  append ──► pending batch (memory) ──commit──► segment 7, segment 8, …  (files, one header and then frames each)
//!             frames ready to write              only the last one is written to
//! ```
//!
//! [`Log::append`] copies a record into the pending batch. [`Log::commit`] writes the batch and syncs the file; whoever comes
//! first does it for all who wait (group commit), and records that arrive meanwhile form the next batch. Batches are
//! written strictly one after the other: a batch goes to disk only when the one before is durable. So a frame can
//! testify, by telling where its batch begins, that everything before its batch had been durable; recovery tells a torn
//! tail from corruption by that (see `scan.rs`). `docs/format/log.md` draws the bytes.
//!
//! Invariants
//!
//! * A record is durable when `commit` says so, and not a moment earlier: after the file's fsync, and for the first
//!   records of a segment after the fsync of its header and of the folder.
//! * All of a segment is durable before the next one exists. Only the last segment is ever torn.
//! * After one failed write or fsync the log has failed for ever. fsync is not tried again: the kernel may have dropped
//!   the pages and would report success.
//! * What recovery delivers after a crash is a prefix of what was appended, at least up to the last commit that returned.
//!
//! Lock order: `writer`, then `state`; `removal`, then `state`. No I/O happens under `state`.

mod frame;
mod recovery;
mod scan;
mod ticket;
mod writer;

pub use frame::RECORD_BYTES_MAX;
pub use ticket::Ticket;

use crate::Error;
use crate::vfs::{OpenMode, Vfs};
use frame::{FRAME_BYTES, Frame, HEADER_BYTES, Header, Kind, Place};
use parking_lot::{Condvar, Mutex, MutexGuard};
use recovery::{Access, Opened};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use writer::{Batch, Home, Run, Writer};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is left for a new one before it grows beyond this; only a longer record makes a longer segment.
    pub segment_bytes: u64,
    /// Appends are refused while this much waits for a commit, so that a stalled disk costs bounded memory: at most twice
    /// this (one batch on its way to disk, one filling) plus one record each.
    pub pending_bytes_max: usize,
    /// Reserve a whole segment when it is made, so that fsync need not write the file's length and a full disk is noticed early.
    pub preallocate: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, pending_bytes_max: 64 << 20, preallocate: true }
    }
}

/// Where a record ends in the stream of all records ever appended. Grows from append to append, across segments and restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Number of a segment; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The one that follows.
    pub fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

/// A record on its way out of the log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The segment that holds it.
    pub segment: SegmentNumber,
    /// Where in that segment its frame begins.
    pub offset: u64,
    /// What was appended.
    pub payload: &'a [u8],
}

/// A segment that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: SegmentNumber,
    /// Bytes in use, header included.
    pub bytes: u64,
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records delivered.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The unacknowledged tail that a crash tore and recovery cut.
    pub torn: Option<Torn>,
    /// Bytes that had been durable and are not intact: acknowledged records may be missing there. They stay as they are.
    pub corrupt: Vec<CorruptRange>,
    /// Files in the folder that are segments of another log. They were not read and are left alone.
    pub foreign: Vec<PathBuf>,
}

/// A torn tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment, always the last.
    pub segment: SegmentNumber,
    /// Where it was cut.
    pub offset: u64,
    /// How much stood behind that.
    pub bytes_cut: u64,
}

/// A damaged part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRange {
    /// The segment. If it is missing altogether, this is the first that is missing and the range is the length of all that are.
    pub segment: SegmentNumber,
    /// First damaged byte.
    pub from: u64,
    /// End of the damaged bytes.
    pub to: u64,
}

/// An append-only log in a folder of its own. Shared between threads by reference or in an `Arc`.
pub struct Log {
    shared: Arc<Shared>,
}

/// What a log and its tickets share.
pub(crate) struct Shared {
    home: Arc<Home>,
    log: u64,
    /// None in a log that is only read.
    writer: Mutex<Option<Writer>>,
    state: Mutex<State>,
    /// Signalled when a batch is done, well or badly.
    done: Condvar,
    /// Signalled when something is pending, or the log is closed or failed.
    work: Condvar,
    removal: Mutex<()>,
}

struct State {
    pending: Batch,
    /// The buffer of the previous batch, for the next one.
    spare: Batch,
    /// Where the next frame goes.
    segment: SegmentNumber,
    offset: u64,
    /// CRC state that frames of `segment` begin with.
    seed: u32,
    appended: Position,
    durable: Position,
    /// Number of the batch that is filling; all below are written or on their way.
    batch: u64,
    /// Batches below this are durable.
    batches_durable: u64,
    committing: bool,
    closed: bool,
    failed: Option<Failure>,
    segments: Vec<SegmentInfo>,
    wakers: BTreeMap<(Position, u64), Waker>,
    tickets: u64,
}

#[derive(Clone)]
struct Failure {
    reason: String,
    full: bool,
}

impl Log {
    /// Opens the log in `dir`, which is made if it is missing, and streams every record in order to `visit`.
    /// Memory stays constant. A torn tail is cut; damage is reported and never a reason to refuse.
    ///
    /// The caller makes sure that nobody else has the folder open ([`Vfs::lock`]).
    pub fn recover(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<(Log, Recovered), Error> {
        let home = Arc::new(Home { vfs, dir: dir.to_owned(), options });
        home.vfs.create_dir_all(dir)?;
        Ok(Log::opened(home.clone(), recovery::recover(&home, Access::Write, visit)?))
    }

    /// Streams every record of the log in `dir` like [`Log::recover`] and changes nothing: no segment is made, cut or
    /// removed, a torn tail is only reported. The log that is returned is closed from the beginning.
    ///
    /// The caller makes sure that nobody writes meanwhile ([`Vfs::lock_shared`]).
    pub fn read(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<(Log, Recovered), Error> {
        let home = Arc::new(Home { vfs, dir: dir.to_owned(), options: Options::default() });
        Ok(Log::opened(home.clone(), recovery::recover(&home, Access::Read, visit)?))
    }

    fn opened(home: Arc<Home>, opened: Opened) -> (Log, Recovered) {
        let (place, offset) = match &opened.writer {
            Some(writer) => (writer.place(), writer.end()),
            None => (Place { log: opened.log, segment: SegmentNumber(0) }, HEADER_BYTES),
        };
        let mut state = State {
            pending: Batch::default(),
            spare: Batch::default(),
            segment: place.segment,
            offset,
            seed: place.seed(),
            appended: Position(opened.end),
            durable: Position(opened.end),
            batch: 0,
            batches_durable: 0,
            committing: false,
            closed: opened.writer.is_none(),
            failed: None,
            segments: opened.segments,
            wakers: BTreeMap::new(),
            tickets: 0,
        };
        state.begin_batch();
        let shared = Shared {
            home,
            log: place.log,
            writer: Mutex::new(opened.writer),
            state: Mutex::new(state),
            done: Condvar::new(),
            work: Condvar::new(),
            removal: Mutex::new(()),
        };
        (Log { shared: Arc::new(shared) }, opened.recovered)
    }

    /// Copies a record into the pending batch and tells where it ends. Does no I/O and never waits for any.
    ///
    /// # Errors
    /// [`Error::Failed`] after a failed commit or [`Log::close`]; [`Error::Limit`] when too much is pending or the record is too long.
    pub fn append(&self, record: &[u8]) -> Result<Position, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::Limit {
                name: "the longest log record",
                max: RECORD_BYTES_MAX as u64,
                got: record.len() as u64,
            });
        }
        let payload_crc = crc32fast::hash(record);
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        shared.check_open(&state)?;
        let max = shared.home.options.pending_bytes_max.min(u32::MAX as usize / 4);
        if state.pending.bytes.len() >= max {
            let got = (state.pending.bytes.len() + record.len()) as u64;
            return Err(Error::Limit { name: "what waits for the log's disk", max: max as u64, got });
        }
        let was_idle = state.pending.bytes.is_empty();
        state.push(shared, Kind::Record, record, payload_crc);
        let position = state.appended;
        drop(state);
        if was_idle {
            shared.work.notify_all();
        }
        Ok(position)
    }

    /// Bytes that wait for a commit.
    pub fn pending_bytes(&self) -> usize {
        self.shared.state.lock().pending.bytes.len()
    }

    /// The end of everything appended so far.
    pub fn appended(&self) -> Position {
        self.shared.state.lock().appended
    }

    /// The end of everything known to be durable.
    pub fn durable(&self) -> Position {
        self.shared.state.lock().durable
    }

    /// Returns when everything up to `upto` is durable. The first caller writes and syncs all that is pending, the others wait for it.
    pub fn commit(&self, upto: Position) -> Result<(), Error> {
        self.shared.commit(upto)
    }

    /// A future of `commit`.
    pub fn ticket(&self, upto: Position) -> Ticket {
        Ticket { shared: self.shared.clone(), upto, id: None }
    }

    /// Blocks until something is pending (`true`), or until the log is closed or has failed and a committing thread may
    /// end (`false`).
    pub fn wait_pending(&self) -> bool {
        let mut state = self.shared.state.lock();
        loop {
            if state.failed.is_some() {
                return false;
            }
            if !state.pending.is_empty() {
                return true;
            }
            if state.closed {
                return false;
            }
            self.shared.work.wait(&mut state);
        }
    }

    /// Commits everything and begins a new segment, unless the current one is empty. Everything appended before the call
    /// lies in segments below the returned number.
    pub fn rotate(&self) -> Result<SegmentNumber, Error> {
        let mut state = self.shared.state.lock();
        self.shared.check_open(&state)?;
        if state.offset > HEADER_BYTES {
            state.begin_segment(self.shared.log);
        }
        let (segment, batch) = (state.segment, state.batch);
        self.shared.lead(state, |state| state.batches_durable > batch)?;
        Ok(segment)
    }

    /// Removes the segments below `segment`, lowest first; never the last one. Each removal is made durable before the
    /// next, so that a crash cannot leave a gap that would look like a lost segment.
    pub fn remove_before(&self, segment: SegmentNumber) -> Result<(), Error> {
        let shared = &*self.shared;
        let _removal = shared.removal.lock();
        loop {
            let first = match shared.state.lock().segments.as_slice() {
                [first, _, ..] if first.segment < segment => first.segment,
                _ => return Ok(()),
            };
            let home = &shared.home;
            match home.vfs.remove(&home.path(Place { log: shared.log, segment: first })) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => home.vfs.sync_dir(&home.dir)?,
            }
            shared.state.lock().segments.retain(|info| info.segment != first);
        }
    }

    /// Streams the records of a segment that is not written to any more. Takes memory for all of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the segment does not even begin as one; damage behind that is told in [`Decoded::corrupt`].
    pub fn read_segment(
        &self,
        segment: SegmentNumber,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<Decoded, Error> {
        let home = &self.shared.home;
        let path = home.path(Place { log: self.shared.log, segment });
        let file = home.vfs.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        let whole = file.read_exact_at(&mut bytes, 0)?;
        let decoded = if whole { decode_segment(&bytes, visit) } else { None };
        decoded.ok_or_else(|| Error::Corrupt {
            path,
            offset: 0,
            what: "no intact header of a segment".to_owned(),
        })
    }

    /// The segments on disk, in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.state.lock().segments.clone()
    }

    /// Commits what is pending, notes that the end is orderly, and takes no more records. A failure on the way shows as
    /// the failure of whoever waits. Dropping a log without closing it is like a crash, and as safe.
    pub fn close(&self) {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        if state.closed || state.failed.is_some() {
            return;
        }
        state.closed = true;
        let batch = state.batch;
        let mut result =
            shared.lead(state, |state| state.batches_durable > batch || state.pending.is_empty());
        if result.is_ok() {
            let mut state = shared.state.lock();
            if state.offset > HEADER_BYTES {
                state.push(shared, Kind::Seal, &[], 0);
                let batch = state.batch;
                result = shared.lead(state, |state| state.batches_durable > batch);
            }
        }
        // The failure is kept in the state, where the waiting found it and the next caller will.
        drop(result);
        shared.work.notify_all();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Whoever waits for work, waits in vain.
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Log")
            .field("dir", &self.shared.home.dir)
            .field("appended", &state.appended)
            .field("durable", &state.durable)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn failure(&self, failure: &Failure) -> Error {
        Error::Failed { path: self.home.dir.clone(), reason: failure.reason.clone(), full: failure.full }
    }

    fn check_open(&self, state: &State) -> Result<(), Error> {
        match &state.failed {
            Some(failure) => Err(self.failure(failure)),
            None if state.closed => {
                Err(self.failure(&Failure { reason: "it is closed".into(), full: false }))
            }
            None => Ok(()),
        }
    }

    /// Whether `upto` is durable or never will be; `None` while that is open.
    fn verdict(&self, state: &State, upto: Position) -> Option<Result<(), Error>> {
        if state.durable >= upto {
            return Some(Ok(()));
        }
        state.failed.as_ref().map(|failure| Err(self.failure(failure)))
    }

    fn commit(&self, upto: Position) -> Result<(), Error> {
        let state = self.state.lock();
        let upto = upto.min(state.appended);
        self.lead(state, |state| state.durable >= upto)
    }

    /// Returns when `reached` holds, committing batches while nobody else does.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        reached: impl Fn(&State) -> bool,
    ) -> Result<(), Error> {
        loop {
            if reached(&state) {
                return Ok(());
            }
            if let Some(failure) = &state.failed {
                return Err(self.failure(failure));
            }
            if state.committing {
                self.done.wait(&mut state);
                continue;
            }
            state.committing = true;
            let batch = state.take_batch();
            let upto = state.appended;
            drop(state);
            let mut leader = Leader { shared: self, finished: false };
            let mut sealed = Vec::new();
            let mut writer = self.writer.lock();
            let writer = writer.as_mut().expect("BUG: a commit of a log that is only read");
            let result = writer.write(&batch, &mut |info| sealed.push(info));
            let last = SegmentInfo { segment: writer.place().segment, bytes: writer.end() };
            state = self.state.lock();
            leader.finished = true;
            state.committing = false;
            state.spare = batch;
            let outcome = match result {
                Ok(()) => {
                    state.durable = upto;
                    state.batches_durable += 1;
                    state.note_segments(sealed, last);
                    Ok(())
                }
                Err(error) => {
                    state.failed = Some(Failure { reason: error.to_string(), full: error.is_full() });
                    Err(error)
                }
            };
            self.announce(&mut state);
            outcome?;
        }
    }

    /// Wakes whoever the new state concerns.
    fn announce(&self, state: &mut MutexGuard<'_, State>) {
        let first_later = (Position(state.durable.0 + 1), 0);
        let later = match state.failed {
            Some(_) => BTreeMap::new(),
            None => state.wakers.split_off(&first_later),
        };
        let now = std::mem::replace(&mut state.wakers, later);
        if !now.is_empty() {
            // A waker may do anything, even come back to this log.
            MutexGuard::unlocked(state, || now.into_values().for_each(Waker::wake));
        }
        self.done.notify_all();
        if state.failed.is_some() {
            self.work.notify_all();
        }
    }
}

/// Makes a panic of the file system below a failure of the log, instead of a wait without end for all others.
struct Leader<'a> {
    shared: &'a Shared,
    finished: bool,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let mut state = self.shared.state.lock();
            state.committing = false;
            state.failed = Some(Failure { reason: "a commit panicked".into(), full: false });
            self.shared.announce(&mut state);
        }
    }
}

impl State {
    /// Begins a batch where the last frame ended.
    fn begin_batch(&mut self) {
        let run = Run { segment: self.segment, offset: self.offset, at: 0, base: self.appended.0 };
        self.pending.runs.push(run);
    }

    /// Takes what is pending and begins the next batch in the spare buffers.
    fn take_batch(&mut self) -> Batch {
        let mut next = std::mem::take(&mut self.spare);
        next.bytes.clear();
        next.runs.clear();
        let batch = std::mem::replace(&mut self.pending, next);
        self.batch += 1;
        self.begin_batch();
        batch
    }

    fn begin_segment(&mut self, log: u64) {
        self.segment = self.segment.next();
        self.offset = HEADER_BYTES;
        self.seed = Place { log, segment: self.segment }.seed();
        let run = Run {
            segment: self.segment,
            offset: HEADER_BYTES,
            at: self.pending.bytes.len(),
            base: self.appended.0,
        };
        self.pending.runs.push(run);
    }

    /// Appends a frame to the pending batch, in a new segment if it does not fit into the current one.
    fn push(&mut self, shared: &Shared, kind: Kind, payload: &[u8], payload_crc: u32) {
        let bytes = (FRAME_BYTES + payload.len()) as u64;
        if self.offset > HEADER_BYTES && self.offset + bytes > shared.home.options.segment_bytes {
            self.begin_segment(shared.log);
        }
        let run = self.pending.runs.last().expect("BUG: a batch without a run");
        // Bounded by `pending_bytes_max` and one record, which together are below 4 GiB.
        let back = (self.offset - run.offset) as u32;
        let frame = Frame { kind, len: payload.len() as u32, back, payload_crc };
        self.pending.bytes.extend_from_slice(&frame.encode(self.seed, self.offset));
        self.pending.bytes.extend_from_slice(payload);
        self.offset += bytes;
        self.appended.0 += bytes;
    }

    fn note_segments(&mut self, sealed: Vec<SegmentInfo>, last: SegmentInfo) {
        for info in sealed.into_iter().chain([last]) {
            match self.segments.last_mut() {
                Some(end) if end.segment == info.segment => *end = info,
                _ => self.segments.push(info),
            }
        }
    }
}

impl Batch {
    /// Whether there is nothing to do: no bytes and no new segment.
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.runs.len() <= 1
    }
}

/// What [`decode_segment`] found in the bytes of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Records delivered.
    pub records: u64,
    /// Where the torn tail begins, if there is one.
    pub torn: Option<u64>,
    /// Damage.
    pub corrupt: Vec<CorruptRange>,
}

/// Reads the bytes of one segment as if it were the last of its log, trusting nothing. `None` when they do not begin
/// with an intact header of a version that is known.
pub fn decode_segment(mut bytes: &[u8], visit: &mut dyn FnMut(Record<'_>)) -> Option<Decoded> {
    let header = Header::decode(bytes).filter(|header| header.version == frame::VERSION)?;
    // Reading from memory cannot fail.
    let walked = scan::walk(&mut bytes, header.place, None, visit).ok()?;
    Some(Decoded {
        records: walked.records,
        torn: walked.torn.map(|(offset, _)| offset),
        corrupt: walked.corrupt,
    })
}
