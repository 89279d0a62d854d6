//! Digests of the newest minutes of a shard, kept up to date as rows arrive.
//!
//! ```text
//!  unknown │ floor                                                    newest
//!          ▼  ┌──────┬──────┬──────┬─ … ─┬──────┬──────┐
//!             │ sum  │ sum  │mixed │     │ sum  │ sum  │     a ring, by minute
//!             └──────┴──────┴──────┴─ … ─┴──────┴──────┘
//! ```
//!
//! Copies of a shard are compared by digests at every read, and nearly all that reads look at is new. So the hash of a row that is certain to
//! be new is added to its minute when it arrives: 3 ns a row, and a read of the last hour compares sixty numbers and no row.
//!
//! Only rows on the straight path behind every block are certain to be new. Any other may be there already, or lose to what is there: its
//! minute is *mixed* from then on, and whoever wants its digest has to scan.
//!
//! Invariant: the sum of a minute that is not mixed is the digest of everything that the shard has of it, in the head and in blocks.

use model::{Digest, DigestKey, TimeRange};

/// How finely time is divided. Rows on their way make the newest minute of copies differ; what is compared again is small.
pub const MINUTE_MS: i64 = 60_000;

/// Minutes that are remembered: two windows of two hours, 8 KiB a shard.
const MINUTES: i64 = 256;

/// A row further behind the clock than this does not move the ring on: it is a mistake, and would make everything before it unknown.
const AHEAD_MS: i64 = 15 * MINUTE_MS;

#[derive(Clone, Copy, Default)]
struct Minute {
    sum: Digest,
    is_mixed: bool,
}

/// The newest minutes of one shard.
pub struct Minutes {
    ring: Box<[Minute]>,
    /// Minutes before this are not known.
    floor: i64,
    /// The greatest minute in the ring.
    newest: i64,
    /// First and last minute of rows that were too far ahead to be counted.
    uncounted: (i64, i64),
    /// What is not behind this may be in a block already.
    sealed: i64,
}

impl Default for Minutes {
    fn default() -> Minutes {
        let ring = vec![Minute::default(); MINUTES as usize].into();
        let uncounted = (i64::MAX, i64::MIN);
        Minutes { ring, floor: i64::MIN, newest: i64::MIN, uncounted, sealed: i64::MIN }
    }
}

fn minute_of(t: i64) -> i64 {
    t.div_euclid(MINUTE_MS)
}

fn slot_of(minute: i64) -> usize {
    (minute & (MINUTES - 1)) as usize
}

impl Minutes {
    /// There are blocks up to `last`, whose rows were not counted.
    pub fn begin_behind(&mut self, last: i64) {
        self.floor = self.floor.max(minute_of(last) + 1);
        self.seal(last);
    }

    /// Counted rows up to `last` are in blocks now.
    pub fn seal(&mut self, last: i64) {
        self.sealed = self.sealed.max(last);
    }

    /// A float came on the straight path of its series.
    #[inline]
    pub fn count(&mut self, now: i64, key: DigestKey, t: i64, value: f64) {
        let minute = minute_of(t);
        if minute > self.newest {
            self.advance(now, minute);
        }
        if minute > self.newest || self.newest - minute >= MINUTES {
            return;
        }
        let slot = &mut self.ring[slot_of(minute)];
        slot.sum += key.float(t, value);
        slot.is_mixed |= t <= self.sealed;
    }

    /// Moves the ring on to a minute, if that is not too far ahead.
    #[cold]
    fn advance(&mut self, now: i64, minute: i64) {
        if minute > minute_of(now.saturating_add(AHEAD_MS)) {
            self.uncounted = (self.uncounted.0.min(minute), self.uncounted.1.max(minute));
            return;
        }
        for fresh in (minute - MINUTES).max(self.newest) + 1..=minute {
            self.ring[slot_of(fresh)] = Minute::default();
        }
        self.newest = minute;
    }

    /// Something may have changed in `range` that was not counted.
    pub fn mix(&mut self, now: i64, range: TimeRange) {
        let (first, last) = (minute_of(range.min.0), minute_of(range.max.0));
        if last > self.newest {
            self.advance(now, last);
        }
        if last > self.newest {
            // Too far ahead; and what lies between is no less than the last of it.
            self.uncounted.0 = self.uncounted.0.min(first.max(self.newest.saturating_add(1)));
        }
        for minute in first.max(self.newest.saturating_sub(MINUTES - 1))..=last.min(self.newest) {
            self.ring[slot_of(minute)].is_mixed = true;
        }
    }

    /// The digest of everything in `range`, if it consists of whole minutes that are known.
    pub fn digest(&self, range: TimeRange) -> Option<Digest> {
        let (first, last) = (minute_of(range.min.0), minute_of(range.max.0));
        let is_whole =
            range.min.0.rem_euclid(MINUTE_MS) == 0 && range.max.0.rem_euclid(MINUTE_MS) == MINUTE_MS - 1;
        let is_counted = last < self.uncounted.0 || self.uncounted.1 < first;
        if !is_whole || !is_counted || first < self.first() {
            return None;
        }
        let mut sum = Digest::default();
        // Behind the ring there is nothing.
        for minute in first..=last.min(self.newest) {
            let minute = self.ring[slot_of(minute)];
            if minute.is_mixed {
                return None;
            }
            sum += minute.sum;
        }
        Some(sum)
    }

    /// Where knowledge begins.
    pub fn known_from(&self) -> i64 {
        self.first().saturating_mul(MINUTE_MS)
    }

    fn first(&self) -> i64 {
        self.floor.max(self.newest.saturating_sub(MINUTES - 1))
    }
}
