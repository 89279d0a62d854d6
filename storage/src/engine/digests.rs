//! Digests of what reads see of a shard, and what is remembered of them.
//!
//! ```text
//! window ─▶ remembered? ─▶ blocks that lie in it and touch nothing else: the digest in their footer
//!                        └▶ all the rest: a merged scan, remembered until something arrives in the window
//! ```
//!
//! The newest minutes are counted as rows arrive ([`crate::head::Minutes`]). [`Shard::summary`] and [`Shard::known`] say what is known in these ways, and scan nothing.
//!
//! What two places have of one moment is merged before it is hashed, so digests add up only over places that share no time. A
//! flush changes nothing that reads see and forgets nothing; an append forgets the windows that it touches.

use super::Engine;
use super::read::Selected;
use crate::block::Reader;
use crate::head::{Head, MINUTE_MS};
use crate::shard::{self, State};
use model::{Digest, Error, Samples, SeriesId, TimeRange, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most windows that are remembered of one shard, about 100 bytes each.
const WINDOWS_MAX: usize = 2048;

/// What is remembered of one shard, under its lock.
pub(crate) struct Digests {
    windows: BTreeMap<(Timestamp, Timestamp), Window>,
    /// No window ends later.
    newest: Timestamp,
    /// No window is longer.
    longest: u64,
    /// No window touches this: writes that follow each other look at no window at all. `None` if nothing is known.
    gap: Option<TimeRange>,
    /// Counts what is asked, for tickets and to know what was not asked for lately.
    asked: u64,
}

/// One window that was asked for.
struct Window {
    /// What of it was within retention. A window that retention moves into has another digest every moment.
    visible: TimeRange,
    /// Whose scan is to fill it in.
    ticket: u64,
    /// When it was asked for last.
    used: u64,
    /// `None` while it is scanned.
    digest: Option<Digest>,
}

impl Default for Digests {
    fn default() -> Digests {
        Digests { windows: BTreeMap::new(), newest: Timestamp::MIN, longest: 0, gap: None, asked: 0 }
    }
}

impl Digests {
    /// Forgets the windows that this touches. Called for every series of every append.
    #[inline]
    pub fn changed(&mut self, range: TimeRange) {
        let apart = |gap: TimeRange| gap.min <= range.min && range.max <= gap.max;
        if range.min <= self.newest && !self.gap.is_some_and(apart) {
            self.forget(range);
        }
    }

    #[cold]
    fn forget(&mut self, range: TimeRange) {
        // A window that begins more than the longest before cannot reach here.
        let from = range.min.0.saturating_sub_unsigned(self.longest);
        let near = self.windows.range((Timestamp(from), Timestamp::MIN)..=(range.max, Timestamp::MAX));
        let touched: Vec<_> = near.map(|(key, _)| *key).filter(|&(_, max)| max >= range.min).collect();
        for key in &touched {
            self.windows.remove(key);
        }
        if !touched.is_empty() {
            self.measure();
        }
        let before = self.windows.keys().map(|key| key.1).filter(|max| *max < range.min).max();
        let behind = self.windows.keys().map(|key| key.0).filter(|min| *min > range.max).min();
        self.gap = Some(TimeRange {
            min: before.map_or(Timestamp::MIN, |max| Timestamp(max.0 + 1)),
            max: behind.map_or(Timestamp::MAX, |min| Timestamp(min.0 - 1)),
        });
    }

    fn measure(&mut self) {
        self.newest = self.windows.keys().map(|key| key.1).max().unwrap_or(Timestamp::MIN);
        self.longest = self.windows.keys().map(|key| key.1.0.abs_diff(key.0.0)).max().unwrap_or(0);
    }

    fn get(&mut self, window: TimeRange, visible: TimeRange) -> Option<Digest> {
        self.asked += 1;
        let known = self.windows.get_mut(&(window.min, window.max))?;
        known.used = self.asked;
        known.digest.filter(|_| known.visible == visible)
    }

    /// Before a scan of what is there now. What arrives from now on makes its outcome worthless.
    fn begin(&mut self, window: TimeRange, visible: TimeRange) -> u64 {
        self.asked += 1;
        let (key, asked) = ((window.min, window.max), self.asked);
        if self.windows.len() >= WINDOWS_MAX && !self.windows.contains_key(&key) {
            // Ends that move with time leave windows behind that nobody asks for again.
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(key, _)| *key);
            oldest.map(|key| self.windows.remove(&key));
            self.measure();
        }
        self.gap = self.gap.filter(|gap| !gap.overlaps(&window));
        self.windows.insert(key, Window { visible, ticket: asked, used: asked, digest: None });
        self.newest = self.newest.max(window.max);
        self.longest = self.longest.max(window.max.0.abs_diff(window.min.0));
        asked
    }

    /// After a scan; nothing is remembered if something has arrived since.
    fn finish(&mut self, window: TimeRange, ticket: u64, digest: Digest) {
        let known = self.windows.get_mut(&(window.min, window.max));
        if let Some(known) = known.filter(|known| known.ticket == ticket) {
            known.digest = Some(digest);
        }
    }
}

/// The blocks whose own digest counts in `range`, and those that must be scanned together with the head.
fn settle(blocks: &[Arc<Reader>], head: &Head, range: TimeRange) -> (Digest, Vec<Arc<Reader>>) {
    let (mut sum, mut rest) = (Digest::default(), Vec::new());
    let near: Vec<_> = blocks.iter().filter(|block| block.meta().span.overlaps(&range)).collect();
    for (at, block) in near.iter().enumerate() {
        let span = block.meta().span;
        let whole = range.min <= span.min && span.max <= range.max;
        let shares = |other: &Arc<Reader>| other.meta().span.overlaps(&span);
        let alone = |at: usize| !near.iter().enumerate().any(|(i, other)| i != at && shares(other));
        match block.meta().digest {
            Some(digest) if whole && alone(at) && !head.touches(span) => sum += digest,
            _ => rest.push((*block).clone()),
        }
    }
    (sum, rest)
}

/// What is known of the digests of one shard at one moment, without a look at samples.
struct Known<'a> {
    state: &'a mut State,
    window_ms: i64,
    cut_off: i64,
    /// There is nothing outside.
    bounds: TimeRange,
}

/// Most windows that are looked at for one range: a year of two hours each.
const KNOWN_WINDOWS_MAX: i64 = 4380;

impl Known<'_> {
    fn new(state: &mut State, window_ms: i64, cut_off: i64) -> Known<'_> {
        let spans = state.blocks.iter().map(|block| block.meta().span);
        let head = state.head.oldest.zip(state.head.newest).map(|(a, b)| TimeRange::new(a, b));
        let join = |a: TimeRange, b: TimeRange| TimeRange { min: a.min.min(b.min), max: a.max.max(b.max) };
        let nothing = TimeRange { min: Timestamp::MAX, max: Timestamp::MIN };
        let bounds = spans.chain(head).fold(nothing, join);
        Known { state, window_ms, cut_off, bounds }
    }

    /// The part of a range where there may be something, widened to whole cells; none if there is nothing.
    fn within(&self, range: TimeRange, cell_ms: i64) -> Option<TimeRange> {
        let (min, max) = (self.bounds.min.0, self.bounds.max.0);
        let range = TimeRange::new(range.min.0.max(floor(min, cell_ms)), range.max.0.min(ceil(max, cell_ms)));
        (self.bounds.overlaps(&range) && range.min <= range.max).then_some(range)
    }

    /// The digest of a range.
    fn digest(&mut self, range: TimeRange) -> Option<Digest> {
        let Some(minutes) = self.within(range, MINUTE_MS) else { return Some(Digest::default()) };
        if minutes.min.0 < self.cut_off {
            return None;
        }
        if let Some(digest) = self.state.head.minutes.digest(minutes) {
            return Some(digest);
        }
        let windows = self.within(range, self.window_ms)?;
        let (mut at, mut sum) = (windows.min.0, Digest::default());
        let is_whole =
            at.rem_euclid(self.window_ms) == 0 && windows.max.0 == ceil(windows.max.0, self.window_ms);
        if !is_whole || windows.max.0.saturating_sub(at) / self.window_ms > KNOWN_WINDOWS_MAX {
            return None;
        }
        while at <= windows.max.0 {
            let last = ceil(at, self.window_ms);
            sum += self.window(TimeRange::new(at, last))?;
            at = last.checked_add(1)?;
        }
        Some(sum)
    }

    /// The digest of one window: remembered, or blocks' own.
    fn window(&mut self, window: TimeRange) -> Option<Digest> {
        if window.min.0 < self.cut_off {
            return None;
        }
        let State { digests, head, blocks, .. } = &mut *self.state;
        if let Some(digest) = digests.get(window, window) {
            return Some(digest);
        }
        if let Some(digest) = head.minutes.digest(window) {
            return Some(digest);
        }
        if head.may_touch(window) {
            return None;
        }
        let (sum, rest) = settle(blocks, head, window);
        rest.is_empty().then_some(sum)
    }

    /// The digests of pieces of a range, in the order of time: what of it is not in a piece is not known. The first and the last reach to the
    /// ends of the range or beyond.
    fn summary(&mut self, range: TimeRange) -> Vec<(TimeRange, Digest)> {
        let Some(within) = self.within(range, self.window_ms) else {
            return vec![(range, Digest::default())];
        };
        let minutes_from = self.state.head.minutes.known_from();
        let wanted_from = floor(within.min.0, MINUTE_MS);
        let (mut at, mut windows) = (floor(within.min.0, self.window_ms), Vec::new());
        let mut pieces = Vec::new();
        if within.max.0.saturating_sub(at) / self.window_ms > KNOWN_WINDOWS_MAX {
            return pieces;
        }
        while at <= within.max.0 && minutes_from > at.max(wanted_from) {
            let last = ceil(at, self.window_ms);
            match self.window(TimeRange::new(at, last)) {
                Some(digest) => windows.push((TimeRange::new(at, last), digest)),
                None if last >= minutes_from => {
                    at = minutes_from;
                    break;
                }
                None => {}
            }
            at = last.saturating_add(1);
        }
        join(windows, &mut pieces);
        let (mut at, mut minutes) = (at.max(wanted_from), Vec::new());
        let until = range.max.0.min(ceil(self.bounds.max.0, MINUTE_MS));
        while at <= until {
            let minute = TimeRange::new(at, ceil(at, MINUTE_MS));
            minutes.extend(self.state.head.minutes.digest(minute).map(|digest| (minute, digest)));
            at = minute.max.0.saturating_add(1);
        }
        join(minutes, &mut pieces);
        // Outside of the bounds there is nothing.
        if let Some((first, _)) = pieces.first_mut().filter(|(first, _)| first.min <= self.bounds.min) {
            first.min.0 = first.min.0.min(floor(range.min.0, MINUTE_MS));
        }
        if let Some((last, _)) = pieces.last_mut().filter(|(last, _)| last.max >= self.bounds.max) {
            last.max.0 = last.max.0.max(ceil(range.max.0, MINUTE_MS));
        }
        pieces
    }
}

/// The first millisecond of the cell that `t` lies in.
fn floor(t: i64, cell_ms: i64) -> i64 {
    t.saturating_sub(t.rem_euclid(cell_ms))
}

/// The last one.
fn ceil(t: i64, cell_ms: i64) -> i64 {
    floor(t, cell_ms).saturating_add(cell_ms - 1)
}

/// Joins neighbours to longer pieces the further back they lie: one, one, two, four... What differs is mostly new, and only pieces that differ
/// are looked at more closely.
fn join(cells: Vec<(TimeRange, Digest)>, pieces: &mut Vec<(TimeRange, Digest)>) {
    let first = pieces.len();
    let (mut length, mut room) = (1usize, 1);
    for (range, digest) in cells.into_iter().rev() {
        match pieces[first..].last_mut() {
            Some((later, sum)) if room > 0 && range.max.0.checked_add(1) == Some(later.min.0) => {
                later.min = range.min;
                *sum += digest;
            }
            _ => {
                if pieces.len() > first + 1 {
                    length = length.saturating_mul(2);
                }
                room = length;
                pieces.push((range, digest));
            }
        }
        room -= 1;
    }
    pieces[first..].reverse();
}

impl Engine {
    /// See [`model::Replica::summary`].
    pub(super) fn summary_of(&self, shard: &shard::Shard, range: TimeRange) -> Vec<(TimeRange, Digest)> {
        let cut_off = self.cut_off();
        Known::new(&mut shard.state.lock(), self.options.block_window_ms, cut_off).summary(range)
    }

    /// See [`model::Replica::known_digests`].
    pub(super) fn known_digests_of(&self, shard: &shard::Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>> {
        let cut_off = self.cut_off();
        let mut state = shard.state.lock();
        let mut known = Known::new(&mut state, self.options.block_window_ms, cut_off);
        ranges.iter().map(|range| known.digest(*range)).collect()
    }

    /// See [`model::Replica::digest`].
    pub(super) fn digest_of(&self, shard: &shard::Shard, window: TimeRange) -> Result<Digest, Error> {
        let range = self.visible(window);
        let mut series = Vec::new();
        let mut gather = self.gather(range, false, &mut series);
        let (ticket, mut digest, blocks) = {
            let mut state = shard.state.lock();
            if let Some(known) = state.digests.get(window, range).or_else(|| state.head.minutes.digest(range))
            {
                return Ok(known);
            }
            let (settled, blocks) = settle(&state.blocks, &state.head, range);
            gather.head(&state.head, state.head.slots())?;
            (state.digests.begin(window, range), settled, blocks)
        };
        for block in &blocks {
            gather.block(block, 0..block.series_count(), |_| true)?;
        }
        let mut samples = Samples::default();
        for series in &series {
            series.read(range, &mut samples)?;
            digest += Digest::of(series.id, &samples);
        }
        shard.state.lock().digests.finish(window, ticket, digest);
        Ok(digest)
    }

    /// See [`model::Replica::series_digests`].
    pub(super) fn series_digests_of(
        &self,
        shard: &shard::Shard,
        range: TimeRange,
    ) -> Result<Vec<(SeriesId, Digest)>, Error> {
        let range = self.visible(range);
        let mut digests = Vec::new();
        let mut samples = Samples::default();
        for series in self.everything(shard, range)? {
            series.read(range, &mut samples)?;
            if !samples.is_empty() {
                digests.push((series.id, Digest::of(series.id, &samples)));
            }
        }
        digests.sort_unstable_by_key(|series| series.0);
        Ok(digests)
    }

    fn everything(&self, shard: &shard::Shard, range: TimeRange) -> Result<Vec<Selected>, Error> {
        let mut series = Vec::new();
        let mut gather = self.gather(range, false, &mut series);
        let (head, blocks) = self.view_shard(shard, range, |head| gather.head(head, head.slots()));
        head?;
        for block in &blocks {
            gather.block(block, 0..block.series_count(), |_| true)?;
        }
        Ok(series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn remember(digests: &mut Digests, window: TimeRange) {
        let ticket = digests.begin(window, window);
        digests.finish(window, ticket, Digest(7));
    }

    proptest! {
        #[test]
        fn a_change_forgets_the_windows_that_it_touches_and_no_other(
            windows in prop::collection::vec((-100i64..100, prop_oneof![4 => 0i64..9, 1 => 0i64..300]), 0..40),
            changes in prop::collection::vec((-150i64..150, 0i64..20), 1..8)
        ) {
            let mut digests = Digests::default();
            let windows: Vec<_> = windows.iter().map(|&(min, len)| TimeRange::new(min, min + len)).collect();
            windows.iter().for_each(|&window| remember(&mut digests, window));
            for (number, &(min, len)) in changes.iter().enumerate() {
                digests.changed(TimeRange::new(min, min + len));
                let changes: Vec<_> = changes[..=number].iter().map(|c| TimeRange::new(c.0, c.0 + c.1)).collect();
                for &window in &windows {
                    let touched = changes.iter().any(|change| change.overlaps(&window));
                    prop_assert_eq!(digests.get(window, window).is_none(), touched, "{:?}", window);
                }
            }
        }
    }

    #[test]
    fn a_scan_that_something_overtook_is_worth_nothing() {
        let mut digests = Digests::default();
        let window = TimeRange::new(0, 9);
        let (first, second) = (digests.begin(window, window), digests.begin(window, window));
        digests.finish(window, first, Digest(1));
        assert_eq!(digests.get(window, window), None, "somebody has begun after it");
        digests.changed(TimeRange::new(9, 20));
        digests.finish(window, second, Digest(2));
        assert_eq!(digests.get(window, window), None);
        remember(&mut digests, window);
        assert_eq!(digests.get(window, window), Some(Digest(7)));
        assert_eq!(digests.get(window, TimeRange::new(1, 9)), None, "retention has moved");
    }

    #[test]
    fn windows_that_nobody_asks_for_make_room() {
        let mut digests = Digests::default();
        let asked = TimeRange::new(0, 9);
        remember(&mut digests, asked);
        for end in 0..3 * WINDOWS_MAX as i64 {
            remember(&mut digests, TimeRange::new(10, 10 + end));
            assert!(digests.get(asked, asked).is_some());
        }
        assert_eq!(digests.windows.len(), WINDOWS_MAX);
    }

    #[test]
    fn all_of_time_is_a_window_too() {
        let mut digests = Digests::default();
        remember(&mut digests, TimeRange::ALL);
        digests.changed(TimeRange::new(i64::MAX, i64::MAX));
        assert_eq!(digests.get(TimeRange::ALL, TimeRange::ALL), None);
        remember(&mut digests, TimeRange::ALL);
        digests.changed(TimeRange::new(i64::MIN, i64::MIN));
        assert_eq!(digests.get(TimeRange::ALL, TimeRange::ALL), None);
    }
}
