//! Time divided by what peers offer: a window is as long as blocks of any peer reach over each other.

use crate::placement::NodeId;
use model::{Digest, SealedBlock, Shard, TimeRange};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What peers have of one stretch of time. No block reaches out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub range: TimeRange,
    /// By peer.
    pub offers: BTreeMap<NodeId, Vec<SealedBlock>>,
    /// The same content is here, or has come.
    pub is_filled: bool,
}

/// The windows of what peers offer, the newest first: it is asked for most.
pub(super) fn divide(offers: BTreeMap<NodeId, Vec<SealedBlock>>) -> Vec<Window> {
    let mut all: Vec<(NodeId, SealedBlock)> = offers
        .into_iter()
        .flat_map(|(peer, blocks)| blocks.into_iter().map(move |block| (peer, block)))
        .collect();
    all.sort_by_key(|(_, block)| (block.range.min, block.id));
    let mut windows: Vec<Window> = Vec::new();
    for (peer, block) in all {
        match windows.last_mut().filter(|window| window.range.overlaps(&block.range)) {
            Some(window) => {
                window.range.max = window.range.max.max(block.range.max);
                window.offers.entry(peer).or_default().push(block);
            }
            None => windows.push(Window {
                range: block.range,
                offers: BTreeMap::from([(peer, vec![block])]),
                is_filled: false,
            }),
        }
    }
    windows.reverse();
    windows
}

/// The digest of what these blocks have together, if it follows from their own.
pub(super) fn digest(blocks: &[SealedBlock]) -> Option<Digest> {
    let mut spans: Vec<TimeRange> = blocks.iter().map(|block| block.span).collect();
    spans.sort_unstable_by_key(|span| span.min);
    let is_apart = spans.is_sorted_by(|a, b| !a.overlaps(b));
    is_apart.then(|| blocks.iter().map(|block| block.digest).sum()).flatten()
}

impl Window {
    /// Whose blocks to take: of those with the most samples one, so that windows with equal copies are spread evenly; and the same one
    /// after a restart, so that what was begun goes on.
    pub fn choose(&self, shard: Shard) -> Option<(NodeId, &[SealedBlock])> {
        let rank = |(peer, blocks): &(&NodeId, &Vec<SealedBlock>)| {
            let samples: u64 = blocks.iter().map(|block| block.samples).sum();
            (Reverse(samples), lot(self.range.min.0, shard, **peer), **peer)
        };
        self.offers.iter().min_by_key(rank).map(|(peer, blocks)| (*peer, &blocks[..]))
    }

    /// Everybody who has this file.
    pub fn sources(&self, block: &SealedBlock) -> Vec<NodeId> {
        let same =
            |other: &SealedBlock| (other.id, other.bytes, other.seal) == (block.id, block.bytes, block.seal);
        self.offers.iter().filter(|(_, blocks)| blocks.iter().any(same)).map(|(peer, _)| *peer).collect()
    }
}

/// Rendezvous: each peer draws a lot for each window, always the same.
fn lot(at: i64, shard: Shard, peer: NodeId) -> u64 {
    let mut mixed = at as u64 ^ u64::from(shard.0) << 48 ^ peer.0 as u64 ^ (peer.0 >> 64) as u64;
    for _ in 0..2 {
        mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(id: u128, min: i64, max: i64) -> SealedBlock {
        let range = TimeRange::new(min, max);
        SealedBlock {
            id,
            range,
            span: range,
            samples: 5,
            bytes: 100,
            tail_bytes: 10,
            seal: id as u64,
            digest: Some(Digest(id)),
        }
    }

    proptest! {
        #[test]
        fn windows_are_apart_and_every_offer_is_in_the_one_that_holds_it(
            drawn in prop::collection::vec((0u128..3, -50i64..50, 0i64..20), 0..40)
        ) {
            let mut offers: BTreeMap<NodeId, Vec<SealedBlock>> = BTreeMap::new();
            for (id, (peer, min, len)) in (0..).zip(&drawn) {
                offers.entry(NodeId(*peer)).or_default().push(block(id, *min, min + len));
            }
            let windows = divide(offers);
            prop_assert!(windows.windows(2).all(|pair| pair[1].range.max < pair[0].range.min));
            let count: usize = windows.iter().flat_map(|w| w.offers.values()).map(Vec::len).sum();
            prop_assert_eq!(count, drawn.len());
            for window in &windows {
                let blocks = || window.offers.values().flatten();
                prop_assert_eq!(blocks().map(|b| b.range.min).min(), Some(window.range.min));
                prop_assert_eq!(blocks().map(|b| b.range.max).max(), Some(window.range.max));
            }
        }
    }

    #[test]
    fn the_most_complete_copy_is_taken_and_equal_ones_are_spread_over_all() {
        let offers =
            |n: i64| BTreeMap::from([1u128, 2, 3].map(|p| (NodeId(p), vec![block(p, n * 10, n * 10 + 9)])));
        let mut taken = BTreeMap::<NodeId, u32>::new();
        for n in 0..300 {
            let [window] = &divide(offers(n))[..] else { panic!("one window") };
            *taken.entry(window.choose(Shard(3)).unwrap().0).or_default() += 1;
        }
        assert!(taken.len() == 3 && taken.values().all(|count| (60..=140).contains(count)), "{taken:?}");
        let mut more = offers(0);
        more.get_mut(&NodeId(2)).unwrap()[0].samples = 6;
        assert_eq!(divide(more)[0].choose(Shard(3)).unwrap().0, NodeId(2));
    }

    #[test]
    fn a_digest_of_blocks_that_share_time_does_not_follow_from_theirs() {
        assert_eq!(digest(&[block(1, 0, 9), block(2, 10, 19)]), Some(Digest(3)));
        assert_eq!(digest(&[block(1, 0, 9), block(2, 9, 19)]), None);
        assert_eq!(digest(&[SealedBlock { digest: None, ..block(1, 0, 9) }]), None);
        assert_eq!(digest(&[]), Some(Digest(0)));
    }
}
