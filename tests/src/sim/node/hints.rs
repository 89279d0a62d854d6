//! Hints' shell.

use super::super::world::Out;
use super::calls::For;
use super::control::DATA;
use super::{Process, Timer};
use cluster::hints::{Effect, Event, Options, Replay, Situation, Store};
use cluster::placement::NodeId;
use cluster::transport::frame::BYTES_MAX as FRAME_BYTES_MAX;
use cluster::write::{Missed, Most};
use disk::log::SegmentNumber;
use model::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A tick of the replays.
const TICK_MS: u64 = 200;
/// Hints are made durable every so many ticks.
const COMMIT_TICKS: u64 = 5;
/// How long a node may take for a hint.
const REPLY_MS: u64 = 5_000;
/// What a node that is back is sent a second.
const BYTES_PER_SECOND: u64 = 64 << 10;
/// Bytes of hints for all nodes.
pub const BYTES_MAX: u64 = 64 << 10;

/// The hints of a process.
pub struct Hints {
    store: Option<Store>,
    replays: BTreeMap<NodeId, Replay>,
    ticks: u64,
}

impl Hints {
    pub fn new() -> Hints {
        Hints { store: None, replays: BTreeMap::new(), ticks: 0 }
    }
}

impl Process {
    pub(super) fn open_hints(&mut self, out: &mut Out<'_>) {
        let options = Options {
            bytes_max: BYTES_MAX,
            node_bytes_max: BYTES_MAX / 2,
            segment_bytes: 4 << 10,
            ..Options::new(Path::new(DATA).join("cluster").join("hints"))
        };
        match Store::open(out.disk.vfs(), options) {
            Ok(store) => self.hints.store = Some(store),
            Err(e) => self.stop_because(format!("hints: {e}")),
        }
        out.timer(TICK_MS, Timer::Hints);
    }

    /// Keeps what nodes have missed.
    pub(super) fn hints_keep(&mut self, out: &mut Out<'_>, missed: Vec<Missed>) {
        let Some(store) = &self.hints.store else { return };
        let now = Timestamp(out.clock.shown());
        for one in missed {
            out.note(format_args!("keeps a hint for {}", one.node));
            if let Err(e) = store.add(one.node, now, &one.sections) {
                // Repair brings what they would have brought.
                out.note(format_args!("hints: {e}"));
            }
        }
    }

    pub(super) fn hints_tick(&mut self, out: &mut Out<'_>) {
        out.timer(TICK_MS, Timer::Hints);
        let (Some(store), Some(view)) = (&self.hints.store, &self.view) else { return };
        self.hints.ticks += 1;
        let now = Timestamp(out.clock.shown());
        if self.hints.ticks.is_multiple_of(COMMIT_TICKS) {
            let done = store.commit().and_then(|()| store.expire(now));
            if let Err(e) = done {
                out.note(format_args!("hints: {e}"));
            }
            let bytes = store.counts().bytes;
            if bytes > 2 * BYTES_MAX {
                let me = out.me;
                out.env.violated(format!("{me} has {bytes} bytes of hints, and {BYTES_MAX} are allowed"));
            }
        }
        let nodes: Vec<NodeId> = store.nodes().into_iter().map(|(node, _)| node).collect();
        let there = view.nodes.clone();
        self.hints.replays.retain(|node, _| there.contains_key(node));
        for node in nodes.into_iter().filter(|node| there.contains_key(node)) {
            self.hints.replays.entry(node).or_insert_with(|| Replay::new(node, BYTES_PER_SECOND));
        }
        let all: Vec<NodeId> = self.hints.replays.keys().copied().collect();
        for node in all {
            self.step_hints(out, node, Event::Tick);
        }
    }

    fn step_hints(&mut self, out: &mut Out<'_>, node: NodeId, event: Event<'_>) {
        let (Some(view), Some(engine)) = (self.view.clone(), &self.engine) else { return };
        let session = self.writes.session();
        let age_max = Options::new(DATA).age_max_ms;
        let situation = Situation {
            now_ms: out.now_ms(),
            oldest: Timestamp(out.clock.shown().saturating_sub_unsigned(age_max)),
            view: &view,
            session,
            replica: &*engine.ghosted,
            timeout_ms: REPLY_MS as u32,
            most: Most::of_frame(FRAME_BYTES_MAX),
        };
        let Some(replay) = self.hints.replays.get_mut(&node) else { return };
        match replay.step(&situation, event) {
            None => {}
            Some(Effect::Load) => {
                let Some(store) = &self.hints.store else { return };
                match store.load(node, Timestamp(out.clock.shown())) {
                    Ok(chunk) => self.step_hints(out, node, Event::Loaded(chunk)),
                    Err(e) => {
                        out.note(format_args!("hints: {e}"));
                        self.step_hints(out, node, Event::Failed);
                    }
                }
            }
            Some(Effect::Remove(segment)) => self.remove_hints(out, node, segment),
            Some(Effect::Send(frame)) => match self.machine_of(node) {
                Some(machine) => {
                    self.call(out, 0, (machine, Some(node)), frame.to_vec(), REPLY_MS, For::Hint { node });
                }
                None => self.step_hints(out, node, Event::Failed),
            },
        }
    }

    fn remove_hints(&mut self, out: &mut Out<'_>, node: NodeId, segment: SegmentNumber) {
        let Some(store) = &self.hints.store else { return };
        if let Err(e) = store.remove(node, segment) {
            out.note(format_args!("hints: {e}"));
        }
    }

    pub(super) fn hint_ended(
        &mut self,
        out: &mut Out<'_>,
        node: NodeId,
        end: Result<Arc<[Vec<u8>]>, String>,
    ) {
        match end {
            Ok(chunks) => self.step_hints(out, node, Event::Reply(&chunks.concat())),
            Err(_) => self.step_hints(out, node, Event::Failed),
        }
    }
}
