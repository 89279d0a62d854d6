//! The engine's shell: syncs that take time, maintenance, and a record of what was made durable where.

use super::super::ghost::Ghosted;
use super::super::world::Out;
use super::control::DATA;
use super::{Process, Timer, dice};
use crate::random::mix;
use cluster::control::Directory;
use model::{Durable, Error, SeriesId, SeriesKey, Sink};
use parking_lot::Mutex;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use storage::{Engine as Storage, Options, identity::Identity};

/// Between two looks of the engine at what there is to flush.
const MAINTAIN_MS: u64 = 2_000;
/// Bytes of blocks that are scrubbed each time.
const SCRUB_BYTES: u64 = 64 << 10;

/// What waits until rows are durable.
pub enum Then {
    /// A write of this node.
    Own {
        /// Its number.
        write: u64,
        /// Which part of it.
        part: usize,
    },
    /// The answer to a frame.
    Answer {
        /// Whose.
        machine: usize,
        /// To which call.
        call: u64,
        /// Which frame.
        round: u8,
        /// What to answer if it went well.
        reply: cluster::write::Reply,
    },
}

/// The engine of a process.
pub struct Engine {
    /// As it is.
    pub replica: Arc<Storage>,
    /// The same, watched.
    pub ghosted: Arc<Ghosted>,
    waiting: Vec<(Durable, Then)>,
    syncing: bool,
}

/// See [`super::super::ghost::Owed`].
fn owed(out: &Out<'_>, key: SeriesKey) -> impl Fn(SeriesId, i64) -> bool {
    let (rots, values, ledger) = (out.env.rots == Some(out.me), &out.env.values, &out.env.ledger);
    move |id, t| {
        let is_it = |number: &u16| key.id(values.labels(*number).as_bytes()) == id;
        !rots || (0..values.len()).find(is_it).is_some_and(|number| ledger.is_acknowledged(number, t))
    }
}

impl Engine {
    /// A sync on its way gets there, or does not; a crash decides how much of it.
    pub fn interrupted(&self) {
        if self.syncing {
            // If it fails, it fails.
            let _ = self.replica.commit();
        }
    }
}

impl Process {
    /// Opens the engine of this directory.
    pub(super) fn open(&mut self, out: &mut Out<'_>, directory: Directory) {
        if self.engine.is_some() {
            return;
        }
        let lots = Mutex::new(dice(out, 2));
        let random = move || {
            let mut lots = lots.lock();
            u128::from(lots.number()) << 64 | u128::from(lots.number())
        };
        let Directory { cluster, node, disk, shards } = directory;
        let mut options = Options::new(DATA, random);
        options.identity = Some(Identity { cluster, node: node.0, disk, shards });
        options.disk_reserve_bytes = 0;
        // Small, so that segments turn over and blocks are written all the time; and so small that there are some when a node joins early.
        let small = mix(out.env.swarm.seed ^ mix(8)).is_multiple_of(2);
        let segment_bytes = if small { 2 << 10 } else { 8 << 10 };
        options.wal_bytes_max = 3 * segment_bytes;
        options.wal = disk::log::Options { segment_bytes, preallocate: true, ..Default::default() };
        match Storage::open(out.disk.vfs(), options, out.clock.reader(), &|_| ()) {
            Err(e) => self.stop_because(e.to_string()),
            Ok(replica) => {
                out.disk.settle(out.disk.position());
                let ghosted = Arc::new(Ghosted::new(replica.clone(), out.env.ghosts[out.me].clone()));
                let there = ghosted.started(&out.env.values, &owed(out, replica.key()));
                if let Err(what) = there {
                    out.env.violated(format!("{} has started again and {what}", out.me));
                }
                // Nothing but rot damages what is written as it must be.
                let rots = out.env.rots == Some(out.me);
                let lost = model::Replica::damage(&*replica);
                if let Some(block) = lost.iter().find(|damage| !rots && damage.what.contains(".block")) {
                    let (me, what) = (out.me, &block.what);
                    out.env.violated(format!("a block of {me} is damaged, whose disk does not rot: {what}"));
                }
                let stats = replica.stats();
                out.note(format_args!(
                    "opens {} samples in memory, {} in {} blocks",
                    stats.head_samples, stats.block_samples, stats.blocks
                ));
                self.engine = Some(Engine { replica, ghosted, waiting: Vec::new(), syncing: false });
                out.timer(MAINTAIN_MS, Timer::Maintain);
                out.timer(250, Timer::Repair);
                out.timer(250, Timer::Bootstrap);
                self.open_hints(out);
            }
        }
    }

    /// Something waits until rows are durable, or goes on at once.
    pub(super) fn when_durable(&mut self, out: &mut Out<'_>, durable: Durable, then: Then) {
        let Some(engine) = &mut self.engine else { return };
        engine.waiting.push((durable, then));
        self.settle_waiting(out);
        let Some(engine) = &mut self.engine else { return };
        if !engine.syncing && !engine.waiting.is_empty() {
            engine.syncing = true;
            let after = out.disk.sync_ms();
            out.timer(after, Timer::Synced);
        }
    }

    /// The commit loop's turn is over.
    pub(super) fn synced(&mut self, out: &mut Out<'_>) {
        let Some(engine) = &mut self.engine else { return };
        engine.syncing = false;
        match model::Replica::commit(&*engine.ghosted) {
            Ok(()) => out.disk.settle(out.disk.position()),
            Err(e) => out.note(format_args!("commit: {e}")),
        }
        self.settle_waiting(out);
        let Some(engine) = &mut self.engine else { return };
        if !engine.waiting.is_empty() {
            engine.syncing = true;
            let after = out.disk.sync_ms();
            out.timer(after, Timer::Synced);
        }
    }

    fn settle_waiting(&mut self, out: &mut Out<'_>) {
        let Some(engine) = &mut self.engine else { return };
        let mut done: Vec<(Then, Result<(), Error>)> = Vec::new();
        for (mut durable, then) in std::mem::take(&mut engine.waiting) {
            match durable.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => engine.waiting.push((durable, then)),
                Poll::Ready(result) => done.push((then, result)),
            }
        }
        if !done.is_empty() {
            out.disk.settle(out.disk.position());
        }
        for (then, result) in done {
            match then {
                Then::Own { write, part } => self.own_durable(out, write, part, result),
                Then::Answer { machine, call, round, reply } => {
                    let reply = match result {
                        Ok(()) => reply,
                        Err(e) => cluster::write::Received::failed(&e),
                    };
                    self.reply(out, machine, call, vec![reply.encode(round)]);
                }
            }
        }
    }

    /// What the maintenance thread does.
    pub(super) fn maintain(&mut self, out: &mut Out<'_>) {
        let Some(engine) = &self.engine else { return };
        // A whole round of scrubbing, every few of these.
        if let Err(e) = engine.replica.scrub_step(SCRUB_BYTES) {
            out.note(format_args!("scrub: {e}"));
        }
        if out.env.rots == Some(out.me) {
            let there = engine.ghosted.check(&out.env.values, &owed(out, engine.replica.key()));
            if let Err(what) = there {
                out.env.violated(format!("{} says that it has no other damage and {what}", out.me));
            }
        }
        match engine.replica.maintain() {
            Ok(done) => out.note(format_args!("maintain: {done:?}")),
            Err(e) => out.note(format_args!("maintain: {e}")),
        }
        // A log that was replaced has been committed on the way.
        if model::Replica::commit(&*engine.ghosted).is_ok() {
            out.disk.settle(out.disk.position());
        }
        self.settle_waiting(out);
        out.timer(MAINTAIN_MS, Timer::Maintain);
    }
}
