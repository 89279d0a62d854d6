//! What copies know of themselves without a look at samples: digests of pieces of time, shard by shard.
//!
//! ```text
//! own summary    │ 2 h │ 4 h │ 2 h │ 32 min │ … │ 2 min │ 1 min │ 1 min │
//! the other's      ==    ==    ==     ==         ==      ==      !=          what differs is compared series by series
//! ```
//!
//! The node that reads sends its summary with the request for digests, taken before it reads its own copy. A replica that knows the same of
//! a piece has what that copy had, all of it: no series of the piece need be looked at. Only rows that are on their way make pieces
//! differ, the newest ones, so that most of the time a read compares numbers of some minutes and series by series only the last.

use super::digests::half;
use crate::faults::{Mistake, planted};
use model::{Replica, Shard, ShardSet, TimeRange, Timestamp};
use std::collections::BTreeMap;

/// The lower half of the digest of everything that a shard has in a piece of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whole; it may reach beyond what is read.
    pub range: TimeRange,
    /// Of everything there.
    pub digest: u64,
}

/// By shard, in the order of time. What lies in no piece is not known.
pub type Summaries = BTreeMap<Shard, Vec<Piece>>;

/// Of a node's own copies.
pub(super) fn summaries(replica: &dyn Replica, shards: &ShardSet, range: TimeRange) -> Summaries {
    let of = |shard| {
        let pieces = replica.summary(shard, range).into_iter();
        let pieces = pieces.map(|(range, digest)| Piece { range, digest: half(digest) });
        (shard, pieces.collect::<Vec<_>>())
    };
    shards.iter().map(of).filter(|(_, pieces)| !pieces.is_empty()).collect()
}

/// What a replica found when it held summaries against what it knows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// These have nothing that the other copy had not.
    pub equal: ShardSet,
    /// Of these, what is outside of `range` is equal.
    pub partly: ShardSet,
    /// What of them all may differ.
    pub range: Option<TimeRange>,
}

impl Compared {
    /// Holds summaries of a read of `range` against a replica.
    pub fn of(replica: &dyn Replica, summaries: &Summaries, shards: &ShardSet, range: TimeRange) -> Compared {
        let mut compared = Compared::default();
        for (&shard, pieces) in summaries.iter().filter(|(shard, _)| shards.contains(**shard)) {
            let ranges: Vec<TimeRange> = pieces.iter().map(|piece| piece.range).collect();
            let known = replica.known_digests(shard, &ranges);
            let equal = pieces.iter().zip(known).filter(|(piece, known)| {
                known.is_some_and(|known| half(known) == piece.digest) || planted(Mistake::TrustSummaries)
            });
            match rest(range, equal.map(|(piece, _)| piece.range)) {
                None => compared.equal.extend([shard]),
                Some(rest) => {
                    compared.partly.insert(shard);
                    let known = compared.range.get_or_insert(rest);
                    (known.min, known.max) = (known.min.min(rest.min), known.max.max(rest.max));
                }
            }
        }
        compared
    }
}

/// From the first to the last moment of a range that lies in none of these, which are in the order of time.
fn rest(range: TimeRange, equal: impl Iterator<Item = TimeRange>) -> Option<TimeRange> {
    let mut rest: Option<TimeRange> = None;
    let mut add = |gap: TimeRange| match &mut rest {
        None => rest = Some(gap),
        Some(rest) => rest.max = gap.max,
    };
    let mut next = Some(range.min);
    for equal in equal {
        let Some(at) = next else { break };
        if equal.min > at && at <= range.max {
            add(TimeRange { min: at, max: range.max.min(Timestamp(equal.min.0 - 1)) });
        }
        if equal.max >= at {
            next = equal.max.0.checked_add(1).map(Timestamp);
        }
    }
    if let Some(at) = next.filter(|at| *at <= range.max) {
        add(TimeRange { min: at, max: range.max });
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_is_the_hull_of_what_no_piece_covers(
            min in -5i64..5, len in 0i64..30, gaps in prop::collection::vec((0i64..6, 0i64..8), 0..6)
        ) {
            let range = TimeRange::new(min, min + len);
            let mut at = -10;
            let mut pieces = Vec::new();
            for (gap, len) in gaps {
                pieces.push(TimeRange::new(at + gap, at + gap + len));
                at += gap + len + 1;
            }
            let mut open = (range.min.0..=range.max.0).filter(|t| !pieces.iter().any(|piece| piece.contains(*t)));
            let first = open.next();
            let expected = first.map(|first| TimeRange::new(first, open.next_back().unwrap_or(first)));
            prop_assert_eq!(rest(range, pieces.iter().copied()), expected);
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trap() {
        assert_eq!(rest(TimeRange::ALL, [TimeRange::ALL].into_iter()), None);
        assert_eq!(rest(TimeRange::ALL, [].into_iter()), Some(TimeRange::ALL));
        let half = TimeRange::new(0, i64::MAX);
        assert_eq!(rest(TimeRange::ALL, [half].into_iter()), Some(TimeRange::new(i64::MIN, -1)));
    }
}
