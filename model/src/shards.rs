//! Sets of shards.

use crate::Shard;

/// Some of a cluster's shards, as bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardSet(Vec<u64>);

impl ShardSet {
    /// Every shard below `shards`.
    pub fn all(shards: u32) -> ShardSet {
        (0..shards).map(|shard| Shard(shard as u16)).collect()
    }

    /// Adds a shard; whether it is new.
    pub fn insert(&mut self, shard: Shard) -> bool {
        let (word, bit) = (usize::from(shard.0) / 64, 1 << (shard.0 % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Whether a shard is in it.
    #[inline]
    pub fn contains(&self, shard: Shard) -> bool {
        self.0.get(usize::from(shard.0) / 64).is_some_and(|word| word >> (shard.0 % 64) & 1 == 1)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shards in order.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        let bits = |(at, &word): (usize, &u64)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| Shard((at * 64 + bit) as u16))
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

impl Extend<Shard> for ShardSet {
    fn extend<I: IntoIterator<Item = Shard>>(&mut self, shards: I) {
        shards.into_iter().for_each(|shard| {
            self.insert(shard);
        });
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> ShardSet {
        let mut set = ShardSet::default();
        set.extend(shards);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_what_was_put_in() {
        let shards = [0u16, 63, 64, 700, 65_535].map(Shard);
        let set: ShardSet = shards.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), shards);
        assert_eq!(set.len(), 5);
        assert!(set.contains(Shard(64)) && !set.contains(Shard(65)) && !set.contains(Shard(9_999)));
        assert_eq!(ShardSet::all(128).len(), 128);
    }
}
