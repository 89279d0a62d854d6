//! One pull: what one peer has of one shard in some ranges, compared and fetched, one question at a time, the newest range first.
//!
//! ```text
//!  ranges ─► Theirs ─► Ours ─┬─ equal, or pulled before: nothing
//!     ▲                      ├─ differs, long: its parts ─► ranges
//!     └──────────────────────┴─ differs, a window ─► leaves ─► Page ─► Differ ─► Rows ─► Apply ─┐
//!                                                       ▲        ▲                  ▲  next rows │
//!                                                       └ done ──┴── next page ─────┴────────────┘
//! ```

use super::message::{Ask, EXPORT_SERIES_MAX, Reply, Seen};
use super::windows::{is_leaf, split};
use super::work::{Done, Local};
use crate::placement::NodeId;
use model::{Damage, Digest, SeriesId, Shard, TimeRange};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// Ranges of one question: a digest of a range may have to be computed, and the answer is waited for.
const COMPARE_MAX: usize = 64;
/// Pages of one window: more series than this no shard has.
const PAGES_MAX: u32 = 1 << 10;
/// Ranges in a row that differ and lead to no window that is what it is said to be. Down to a window there are ten levels of 32 parts.
const BARREN_MAX: u32 = 2048;
/// Windows that are not what they are said to be, after which no more are tried.
const UNLIKE_MAX: u32 = 64;
/// Windows whose digests are remembered.
const PULLED_MAX: usize = 1 << 17;

/// Why a shard is pulled from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something is damaged here.
    Damage(Vec<Damage>),
    /// Somebody saw a difference; how often it was tried.
    Suspect(TimeRange, u32),
    /// It is time to look at what is recent...
    Recent,
    /// ...at what is older.
    Old,
    /// This node makes a copy: a pass, for the move that began at this epoch.
    Copy(u64),
}

/// How urgent a pull is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Damage,
    Copy,
    Suspect,
    Recent,
    Old,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask(Ask),
    Work(Local),
    Finished,
    Failed(Fault),
}

/// Why a pull ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The peer cannot be asked now.
    Away(String),
    /// The two do not know the same placement; that passes.
    Placement,
    /// The peer says what cannot be.
    Lie(String),
    /// This node's own data cannot be used now.
    Own(String),
}

/// What was found, for [`super::Progress`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub compared: u64,
    pub divergent: u64,
    pub rows: u64,
    pub appended: u64,
    pub bytes: u64,
}

/// The digests of peers' windows that have been pulled: while they stay the same there is nothing more to pull.
#[derive(Default)]
pub(super) struct Pulled(BTreeMap<(Shard, NodeId, i64), (i64, Digest)>);

impl Pulled {
    fn has(&self, shard: Shard, peer: NodeId, range: TimeRange, digest: Digest) -> bool {
        self.0.get(&(shard, peer, range.min.0)) == Some(&(range.max.0, digest))
    }

    fn insert(&mut self, shard: Shard, peer: NodeId, range: TimeRange, digest: Digest) {
        if self.0.len() >= PULLED_MAX {
            self.0.clear();
        }
        self.0.insert((shard, peer, range.min.0), (range.max.0, digest));
    }

    /// This node has lost something of the shard.
    pub fn forget(&mut self, shard: Shard) {
        self.0.retain(|key, _| key.0 != shard);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A window that differs.
#[derive(Debug)]
struct Leaf {
    range: TimeRange,
    theirs: Digest,
    /// Pages so far, and what their series sum up to.
    pages: u32,
    sum: Digest,
    unlike: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Theirs(Vec<TimeRange>),
    Ours(Vec<TimeRange>, Vec<Seen>),
    Page(Leaf),
    Differ(Leaf, Option<SeriesId>),
    Rows { leaf: Leaf, wanted: Vec<(SeriesId, Digest)>, asked: usize, page: Option<SeriesId> },
    Apply { leaf: Leaf, wanted: Vec<(SeriesId, Digest)>, done: usize, page: Option<SeriesId> },
}

#[derive(Debug)]
pub(super) struct Pull {
    pub shard: Shard,
    pub peer: NodeId,
    pub cause: Cause,
    pub started_ms: u64,
    pub tally: Tally,
    /// Ranges of which the peer says that it is damaged itself.
    pub damaged: Vec<TimeRange>,
    /// Windows whose rows were not what the peer's digests say.
    pub unlike: u32,
    /// Series that the peer told of and of which no row came.
    pub missing: u64,
    /// Ranges that differed since the last window that was what it was said to be.
    barren: u32,
    /// Rows behind this may be under way to anybody.
    settled: i64,
    ranges: VecDeque<TimeRange>,
    leaves: VecDeque<Leaf>,
    state: State,
}

impl Cause {
    /// What is smaller goes before.
    pub fn rank(&self) -> Rank {
        match self {
            Cause::Damage(_) => Rank::Damage,
            Cause::Copy(_) => Rank::Copy,
            Cause::Suspect(..) => Rank::Suspect,
            Cause::Recent => Rank::Recent,
            Cause::Old => Rank::Old,
        }
    }
}

impl Pull {
    /// The newest of these ranges are compared first: they are what most people ask for.
    pub fn new(
        shard: Shard,
        peer: NodeId,
        cause: Cause,
        mut ranges: Vec<TimeRange>,
        settled: i64,
        now_ms: u64,
    ) -> Pull {
        ranges.sort_unstable_by_key(|range| Reverse((range.max, range.min)));
        Pull {
            shard,
            peer,
            cause,
            started_ms: now_ms,
            tally: Tally::default(),
            damaged: Vec::new(),
            unlike: 0,
            missing: 0,
            barren: 0,
            settled,
            ranges: ranges.into(),
            leaves: VecDeque::new(),
            state: State::Idle,
        }
    }

    /// Whether a pull that wants to ask this is between two windows, where it can stand aside for as long as need be.
    pub fn may_rest(ask: &Ask) -> bool {
        matches!(ask, Ask::Digests(_) | Ask::Series { from: SeriesId(0), .. })
    }

    /// Between two steps.
    pub fn onward(&mut self) -> Next {
        if self.barren > BARREN_MAX || self.unlike > UNLIKE_MAX {
            self.unlike = self.unlike.max(1);
            return Next::Finished;
        }
        if let Some(leaf) = self.leaves.pop_front() {
            return self.page(leaf, SeriesId(0));
        }
        let batch: Vec<TimeRange> = self.ranges.drain(..self.ranges.len().min(COMPARE_MAX)).collect();
        if batch.is_empty() {
            return Next::Finished;
        }
        self.state = State::Theirs(batch.clone());
        Next::Ask(Ask::Digests(batch))
    }

    fn page(&mut self, mut leaf: Leaf, from: SeriesId) -> Next {
        leaf.pages += 1;
        if leaf.pages > PAGES_MAX {
            return Next::Failed(Fault::Lie(format!("more than {PAGES_MAX} pages of series in one window")));
        }
        let ask = Ask::Series { range: leaf.range, from };
        self.state = State::Page(leaf);
        Next::Ask(ask)
    }

    /// The peer has answered.
    pub fn answered(&mut self, reply: Reply) -> Next {
        match reply {
            Reply::Failed { why } => return Next::Failed(Fault::Away(why)),
            Reply::Stale { .. } | Reply::Behind { .. } | Reply::NotHeld { .. } => {
                return Next::Failed(Fault::Placement);
            }
            _ => {}
        }
        match (std::mem::replace(&mut self.state, State::Idle), reply) {
            (State::Theirs(ranges), Reply::Digests(seen)) if ranges.len() == seen.len() => {
                let damaged = ranges.iter().zip(&seen).filter(|(_, seen)| seen.damaged);
                self.damaged.extend(damaged.map(|(range, _)| *range));
                let local = Local::Digests { shard: self.shard, ranges: ranges.clone() };
                self.state = State::Ours(ranges, seen);
                Next::Work(local)
            }
            (State::Page(mut leaf), Reply::Series { series, next }) => {
                leaf.sum += series.iter().map(|series| series.1).sum();
                let local = Local::Differ { shard: self.shard, range: leaf.range, theirs: series };
                self.state = State::Differ(leaf, next);
                Next::Work(local)
            }
            (State::Rows { leaf, wanted, asked, page }, Reply::Rows { rows, next }) => {
                // All that were asked for, or those before the first that is still to come.
                let done = match next {
                    None => asked,
                    Some(next) => wanted[..asked].partition_point(|(id, _)| *id < next),
                };
                if done == 0 || next.is_some_and(|next| wanted[..asked].get(done).is_none_or(|w| w.0 != next))
                {
                    return Next::Failed(Fault::Lie("rows that lead nowhere".to_owned()));
                }
                self.tally.bytes += rows.len() as u64;
                let local = Local::Apply {
                    shard: self.shard,
                    range: leaf.range,
                    wanted: wanted[..done].to_vec(),
                    rows,
                };
                self.state = State::Apply { leaf, wanted, done, page };
                Next::Work(local)
            }
            _ => Next::Failed(Fault::Lie("the answer to another question".to_owned())),
        }
    }

    /// Something has been done here.
    pub fn done(&mut self, done: Done, pulled: &mut Pulled) -> Next {
        match (std::mem::replace(&mut self.state, State::Idle), done) {
            (State::Ours(ranges, theirs), Done::Digests(ours)) => {
                for ((range, theirs), ours) in ranges.into_iter().zip(theirs).zip(ours).rev() {
                    self.compared(range, theirs.digest, ours, pulled);
                }
                self.onward()
            }
            (State::Differ(leaf, page), Done::Differ(wanted)) if wanted.is_empty() => {
                self.next_page(leaf, page, pulled)
            }
            (State::Differ(leaf, page), Done::Differ(wanted)) => self.rows(leaf, wanted, page),
            (
                State::Apply { mut leaf, mut wanted, done, page },
                Done::Applied { fetched, appended, unlike, missing },
            ) => {
                self.tally.rows += fetched;
                self.tally.appended += appended;
                self.missing += u64::from(missing);
                leaf.unlike |= unlike > 0;
                wanted.drain(..done);
                if wanted.is_empty() {
                    self.next_page(leaf, page, pulled)
                } else {
                    self.rows(leaf, wanted, page)
                }
            }
            (_, Done::Refused(why)) => Next::Failed(Fault::Lie(why)),
            (_, Done::Failed(why)) => Next::Failed(Fault::Own(why)),
            (state, done) => panic!("BUG: {done:?} while in {state:?}"),
        }
    }

    fn compared(&mut self, range: TimeRange, theirs: Digest, ours: Digest, pulled: &mut Pulled) {
        self.tally.compared += 1;
        // Where the peer has nothing, there is nothing to pull.
        if theirs == ours || theirs == Digest::default() {
            return;
        }
        self.barren += 1;
        if !is_leaf(range) {
            // The newest part comes first.
            split(range).into_iter().for_each(|part| self.ranges.push_front(part));
            return;
        }
        self.tally.divergent += 1;
        // What was there when it was pulled may be lost now.
        let lost = matches!(self.cause, Cause::Damage(_));
        if pulled.has(self.shard, self.peer, range, theirs) {
            self.barren = 0;
            if !lost {
                return;
            }
        }
        self.leaves.push_front(Leaf { range, theirs, pages: 0, sum: Digest::default(), unlike: false });
    }

    fn rows(&mut self, leaf: Leaf, wanted: Vec<(SeriesId, Digest)>, page: Option<SeriesId>) -> Next {
        let asked = wanted.len().min(EXPORT_SERIES_MAX);
        let series = wanted[..asked].iter().map(|(id, _)| *id).collect();
        let ask = Ask::Export { range: leaf.range, series };
        self.state = State::Rows { leaf, wanted, asked, page };
        Next::Ask(ask)
    }

    fn next_page(&mut self, mut leaf: Leaf, page: Option<SeriesId>, pulled: &mut Pulled) -> Next {
        if let Some(from) = page {
            return self.page(leaf, from);
        }
        leaf.unlike |= leaf.sum != leaf.theirs;
        if !leaf.unlike {
            self.barren = 0;
            pulled.insert(self.shard, self.peer, leaf.range, leaf.theirs);
        } else if leaf.range.max.0 <= self.settled {
            self.unlike += 1;
        }
        self.onward()
    }
}
