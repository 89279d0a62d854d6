//! Scrub: every byte of every block is read from the disk once a period and compared with its checksum, so that what rots unread is
//! found while other copies are whole.
//!
//! Plain reads, not the memory map: what the operating system has cached proves nothing, and a sector that cannot be read is an
//! error here and a signal there. Blocks go in the order of (shard, id); how far it is, is written down now and then, so that
//! restarts do not keep it from ever ending.

use super::Engine;
use crate::note::{self, Note};
use crate::{Result, block};
use disk::Vfs;
use model::Timestamp;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "scrub";
const TITLE: &str = "sarsen scrub";
/// How far it is, is written down after so many bytes.
const SAVE_BYTES: u64 = 1 << 30;
/// Most bytes that [`pace`] gives at once, however far behind it is.
const STEP_MAX: u64 = 64 << 20;

/// How far scrubbing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// When this round began; the earliest moment before the first.
    pub started: Timestamp,
    /// Bytes of this round that are done.
    pub done_bytes: u64,
    /// Bytes there are; blocks come and go meanwhile.
    pub total_bytes: u64,
    /// Damaged blocks found in this round.
    pub damaged: u64,
    /// Rounds that were completed, ever.
    pub rounds: u64,
    /// Whether this round has seen everything.
    pub complete: bool,
}

/// How many bytes are due now, so that a round takes `period_ms` at an even pace. A new round begins when the period is over.
pub fn pace(now: Timestamp, period_ms: i64, progress: &ScrubProgress) -> u64 {
    let elapsed = now.0.saturating_sub(progress.started.0);
    if progress.complete {
        return if elapsed >= period_ms { STEP_MAX } else { 0 };
    }
    // A clock that was set back must not stop it, so a round that began in the future is due like a new one.
    let elapsed = if elapsed < 0 { period_ms } else { elapsed.min(period_ms) };
    let due = u128::from(progress.total_bytes) * elapsed.unsigned_abs() as u128
        / period_ms.max(1).unsigned_abs() as u128;
    (due as u64).saturating_sub(progress.done_bytes).min(STEP_MAX)
}

/// What scrubbing remembers.
#[derive(Default)]
pub(super) struct Scrub {
    progress: ScrubProgress,
    /// The last block that was completed in this round.
    after: Option<(u16, u128)>,
    /// The block that is being read, and how far.
    inside: Option<(u128, usize)>,
    unsaved_bytes: u64,
}

impl Scrub {
    fn render(&self) -> String {
        let ScrubProgress { started, done_bytes, damaged, rounds, complete, .. } = self.progress;
        let after = self.after.map_or("none".to_owned(), |(shard, id)| format!("{shard}/{id:032x}"));
        format!(
            "started = {started}\nafter = {after}\ndone_bytes = {done_bytes}\ndamaged = {damaged}\nrounds = {rounds}\ncomplete = {complete}\n"
        )
    }

    fn parse(body: &str) -> Option<Scrub> {
        let mut fields = body.lines().filter_map(|line| line.split_once(" = "));
        let mut field = |key: &str| fields.next().filter(|(k, _)| *k == key).map(|(_, v)| v);
        let started = Timestamp(field("started")?.parse().ok()?);
        let after = match field("after")? {
            "none" => None,
            place => {
                let (shard, id) = place.split_once('/')?;
                Some((shard.parse().ok()?, u128::from_str_radix(id, 16).ok()?))
            }
        };
        let progress = ScrubProgress {
            started,
            done_bytes: field("done_bytes")?.parse().ok()?,
            total_bytes: 0,
            damaged: field("damaged")?.parse().ok()?,
            rounds: field("rounds")?.parse().ok()?,
            complete: field("complete")?.parse().ok()?,
        };
        Some(Scrub { progress, after, inside: None, unsaved_bytes: 0 })
    }

    /// As it was written down in `dir`; from the beginning if that is of no use.
    pub fn open(vfs: &dyn Vfs, dir: &Path) -> Result<Scrub> {
        let found = match note::read(vfs, dir, FILE, TITLE)? {
            Note::Body(body) => Scrub::parse(&body),
            Note::Missing | Note::Damaged => None,
        };
        let fresh = ScrubProgress { started: Timestamp::MIN, complete: true, ..ScrubProgress::default() };
        Ok(found.unwrap_or(Scrub { progress: fresh, ..Scrub::default() }))
    }
}

impl Engine {
    /// How far scrubbing is.
    pub fn scrub_progress(&self) -> ScrubProgress {
        let total_bytes = self.blocks().iter().map(|meta| meta.bytes).sum();
        ScrubProgress { total_bytes, ..self.scrub.lock().progress }
    }

    /// Reads about `budget_bytes` of blocks and compares their checksums; a new round begins after the last. A damaged block is
    /// written down and quarantined by the next [`Engine::maintain`]. Blocking; one at a time.
    pub fn scrub_step(&self, budget_bytes: u64) -> Result<ScrubProgress> {
        let mut scrub = self.scrub.lock();
        let mut blocks: Vec<Arc<block::Reader>> =
            self.shards.iter().flat_map(|shard| shard.state.lock().blocks.to_vec()).collect();
        let place = |block: &block::Reader| (block.meta().shard.0, block.meta().id);
        blocks.sort_unstable_by_key(|block| place(block));
        scrub.progress.total_bytes = blocks.iter().map(|block| block.meta().bytes).sum();
        if scrub.progress.complete && budget_bytes > 0 {
            let (rounds, total_bytes) = (scrub.progress.rounds, scrub.progress.total_bytes);
            let started = (self.clock)();
            *scrub = Scrub {
                progress: ScrubProgress { started, rounds, total_bytes, ..ScrubProgress::default() },
                ..Scrub::default()
            };
        }
        let mut left = budget_bytes;
        let first = blocks.partition_point(|block| scrub.after.is_some_and(|after| place(block) <= after));
        for block in blocks.get(first..).unwrap_or(&[]) {
            if left == 0 {
                break;
            }
            let id = block.meta().id;
            let from = scrub.inside.filter(|inside| inside.0 == id).map_or(0, |inside| inside.1);
            let (read, whole) = match block.verify_some(&*self.vfs, from, left) {
                Ok(outcome) => outcome,
                // Damaged, or retention was faster, or the disk did not even open it: the rest is looked at all the same.
                Err(_) => {
                    scrub.progress.damaged += u64::from(block.damaged().is_some());
                    (0, true)
                }
            };
            left = left.saturating_sub(read);
            scrub.progress.done_bytes += read;
            scrub.unsaved_bytes += read;
            if !whole {
                scrub.inside = Some((id, from + read as usize));
                break;
            }
            (scrub.after, scrub.inside) = (Some(place(block)), None);
        }
        let last = blocks.last().map(|block| place(block));
        if !scrub.progress.complete && last.is_none_or(|last| scrub.after >= Some(last)) {
            scrub.progress.complete = true;
            scrub.progress.rounds += 1;
            scrub.unsaved_bytes = SAVE_BYTES;
        }
        if scrub.unsaved_bytes >= SAVE_BYTES {
            note::write(&*self.vfs, &self.options.dir, FILE, TITLE, &scrub.render())?;
            scrub.unsaved_bytes = 0;
        }
        Ok(scrub.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_even_and_a_round_begins_when_the_period_is_over() {
        let at = |elapsed: i64, done_bytes| {
            let progress = ScrubProgress {
                started: Timestamp(1_000),
                done_bytes,
                total_bytes: 1_000,
                ..Default::default()
            };
            pace(Timestamp(1_000 + elapsed), 100, &progress)
        };
        assert_eq!(at(0, 0), 0);
        assert_eq!(at(50, 100), 400);
        assert_eq!(at(50, 600), 0);
        assert_eq!(at(500, 600), 400);
        assert_eq!(at(-5, 600), 400, "a clock that was set back");
        let done =
            ScrubProgress { started: Timestamp(1_000), done_bytes: 5, complete: true, ..Default::default() };
        assert_eq!(pace(Timestamp(1_099), 100, &done), 0);
        assert!(pace(Timestamp(1_100), 100, &done) > 0);
        let first = ScrubProgress { started: Timestamp::MIN, complete: true, ..Default::default() };
        assert!(pace(Timestamp(0), 100, &first) > 0);
        let large = ScrubProgress { total_bytes: u64::MAX, ..Default::default() };
        assert_eq!(pace(Timestamp(i64::MAX), i64::MAX, &large), STEP_MAX);
    }

    #[test]
    fn the_format_page_shows_the_text_that_is_written_and_it_is_read_again() {
        let scrub = Scrub {
            progress: ScrubProgress {
                started: Timestamp(1_700_000_000_000),
                done_bytes: 123,
                damaged: 1,
                rounds: 2,
                ..Default::default()
            },
            after: Some((3, 7)),
            ..Scrub::default()
        };
        let body = scrub.render();
        let again = Scrub::parse(&body).unwrap();
        assert_eq!((again.progress, again.after), (scrub.progress, scrub.after));
        let page = include_str!("../../../docs/format/damage.md");
        assert!(page.contains(&body), "docs/format/damage.md does not show:\n{body}");
    }
}
