//! What a node does with its own replica for a read. It is not asked through frames: its set is read lazily, as on a single node.

use super::coordinator::Why;
use super::digests::digests;
use super::serve::readable;
use super::summary::{Summaries, summaries};
use crate::view::View;
use model::{Error, Replica, Selection, SeriesSet, Shard, ShardSet, TimeRange};
use std::fmt;
use std::sync::Arc;

/// Something to do with the own replica.
#[derive(Clone, Debug)]
pub struct OwnAsk {
    /// For [`super::Event::Own`].
    pub number: u32,
    /// What.
    pub work: OwnWork,
}

/// What there is to do.
#[derive(Clone)]
pub enum OwnWork {
    /// Say what is known of these shards without a look at samples. Comes before `Select`: what is read later has at least this.
    Summary {
        /// Which.
        shards: ShardSet,
        /// Of this time.
        range: TimeRange,
    },
    /// Find the series.
    Select {
        /// Which. It names its shards.
        selection: Selection,
        /// Also where samples may be missing.
        damaged: bool,
    },
    /// Hash what the series of these shards have.
    Digests {
        /// What `Select` has found.
        sets: Vec<Arc<dyn SeriesSet>>,
        /// Which.
        shards: ShardSet,
        /// Of this time.
        range: TimeRange,
    },
}

impl fmt::Debug for OwnWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnWork::Summary { shards, range } => write!(f, "Summary of {shards:?} in {range:?}"),
            OwnWork::Select { selection, .. } => write!(f, "{selection:?}"),
            OwnWork::Digests { shards, range, .. } => write!(f, "Digests of {shards:?} in {range:?}"),
        }
    }
}

/// What came of it.
pub enum OwnAnswer {
    /// For [`OwnWork::Summary`].
    Summary(Summaries),
    /// For [`OwnWork::Select`].
    Select(Result<Own, Error>),
    /// For [`OwnWork::Digests`]: one for each series of all sets, 0 for those of other shards and for nothing.
    Digests(Result<Vec<u64>, Error>),
}

/// What a node gives to its own reads.
pub struct Own {
    /// The series of the shards that can be answered.
    pub(super) set: Arc<dyn SeriesSet>,
    pub(super) shards: ShardSet,
    pub(super) refused: Vec<(Shard, Why)>,
}

impl OwnAsk {
    /// Does it. Blocking.
    pub fn perform(
        &self,
        view: &View,
        replica: &dyn Replica,
        threads: usize,
        expired: &(dyn Fn() -> bool + Sync),
    ) -> OwnAnswer {
        match &self.work {
            OwnWork::Summary { shards, range } => {
                let (shards, _) = readable(view, replica, shards, *range, false);
                OwnAnswer::Summary(summaries(replica, &shards, *range))
            }
            OwnWork::Select { selection, damaged } => {
                let all = ShardSet::default();
                let shards = selection.shards.as_ref().unwrap_or(&all);
                let (shards, refused) = readable(view, replica, shards, selection.range, *damaged);
                let selection = Selection { shards: Some(shards.clone()), ..selection.clone() };
                let set = replica.select(&selection);
                OwnAnswer::Select(set.map(|set| Own { set: set.into(), shards, refused }))
            }
            OwnWork::Digests { sets, shards, range } => {
                let mut all = Vec::new();
                for set in sets {
                    let wanted: Vec<usize> =
                        (0..set.len()).filter(|i| shards.contains(set.id(*i).shard(view.shards()))).collect();
                    let first = all.len();
                    all.resize(first + set.len(), 0);
                    match digests(&**set, &wanted, *range, threads, expired) {
                        Ok(digests) => {
                            wanted.iter().zip(digests).for_each(|(i, digest)| all[first + i] = digest);
                        }
                        Err(error) => return OwnAnswer::Digests(Err(error)),
                    }
                }
                OwnAnswer::Digests(Ok(all))
            }
        }
    }
}
