//! What was answered, joined by series; and what of it differs.

use super::answer::Packed;
use super::digests::half;
use super::set::Part;
use super::wire::Group;
use crate::placement::NodeId;
use model::{Digest, Labels, SeriesId, Shard, ShardSet, TimeRange, Timestamp};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Everything that was answered, by series.
#[derive(Default)]
pub(super) struct Union {
    /// How many series the node's own replica has; they come first.
    pub owned: usize,
    pub index: HashMap<SeriesId, u32, ById>,
    /// Of the first copy of each series, over the whole range; 0 if nobody asked.
    pub digests: Vec<u64>,
    pub others: Vec<(SeriesId, Labels)>,
    pub parts: Vec<Part>,
    /// By ask: series, and which section.
    pub whole: BTreeMap<u32, Vec<(u32, u32)>>,
    pub warnings: Vec<String>,
    pub differing: ShardSet,
    planned: BTreeSet<(SeriesId, u64)>,
    groups: BTreeMap<Lacking, Vec<SeriesId>>,
}

/// Where series have to be fetched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lacking {
    node: NodeId,
    from: Timestamp,
    until: Timestamp,
    shard: Shard,
    /// Whether nobody else has said their labels.
    labels: bool,
}

/// What has to be fetched from a node.
pub(super) struct Wanted {
    pub node: NodeId,
    pub range: TimeRange,
    pub groups: Vec<Group>,
}

impl Union {
    pub fn count(&self) -> usize {
        self.owned + self.others.len()
    }

    fn other(&mut self, id: SeriesId, labels: Labels, digest: u64) -> u32 {
        let series = self.count() as u32;
        self.others.push((id, labels));
        self.index.insert(id, series);
        self.digests.resize(series as usize, 0);
        self.digests.push(digest);
        series
    }

    /// Rows that came as a whole, of these shards.
    pub fn add_whole(&mut self, number: u32, sections: &[Packed], shards: u32, covered: &ShardSet) {
        let mut rows = Vec::new();
        // A series' sections stand together.
        let mut next = 0;
        for same in sections.chunk_by(|a, b| a.id == b.id) {
            let first = next;
            next += same.len();
            let id = same[0].id;
            if !covered.contains(id.shard(shards)) {
                continue;
            }
            let digest = half(same.iter().map(|packed| packed.digest).sum::<Digest>());
            let series = match self.index.get(&id) {
                Some(series) if self.digests[*series as usize] == digest => continue,
                Some(series) => {
                    self.differing.insert(id.shard(shards));
                    *series
                }
                None => {
                    let labels = same[0].labels.clone();
                    self.other(id, labels.expect("BUG: rows without labels were let in"), digest)
                }
            };
            rows.extend((first..first + same.len()).map(|at| (series, at as u32)));
        }
        self.whole.insert(number, rows);
    }

    /// A copy's digest of a series in a range. `own` are those of the node's own series there, if only a part of time was compared.
    pub fn add_digest(
        &mut self,
        (node, shard, range): (NodeId, Shard, TimeRange),
        (id, digest): (SeriesId, u64),
        own: Option<&[u64]>,
    ) {
        let labels = match self.index.entry(id) {
            Entry::Occupied(known) => {
                let at = *known.get() as usize;
                let first = own.and_then(|own| own.get(at)).unwrap_or(&self.digests[at]);
                if *first == digest || !self.planned.insert((id, digest)) {
                    return;
                }
                false
            }
            Entry::Vacant(_) => {
                self.other(id, Labels::default(), digest);
                true
            }
        };
        self.differing.insert(shard);
        let lacking = Lacking { node, from: range.min, until: range.max, shard, labels };
        self.groups.entry(lacking).or_default().push(id);
    }

    /// What has to be fetched, once.
    pub fn wanted(&mut self) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Vec::new();
        for (Lacking { node, from, until, shard, labels }, mut series) in std::mem::take(&mut self.groups) {
            series.sort_unstable();
            let group = Group { shard, labels, series };
            let range = TimeRange { min: from, max: until };
            match all.last_mut().filter(|wanted| wanted.node == node && wanted.range == range) {
                Some(wanted) => wanted.groups.push(group),
                None => all.push(Wanted { node, range, groups: vec![group] }),
            }
        }
        all
    }
}

/// An id is a hash already.
#[derive(Default)]
pub(super) struct IdHasher(u64);

pub(super) type ById = BuildHasherDefault<IdHasher>;

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("BUG: an id is hashed as a number");
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
