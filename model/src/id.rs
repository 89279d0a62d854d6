//! Who a series is and where it lives.

use highway::{HighwayHash, HighwayHasher, Key};
use std::fmt;

/// The 128-bit keyed hash of a series' canonical label bytes.
///
/// The key is the cluster's, so nobody outside can construct collisions; labels are still compared when a series is
/// created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl SeriesId {
    /// The shard that this series belongs to: the top bits of the id, so that a shard can later be split in two.
    ///
    /// `shards` is a power of two, at most 65,536.
    #[inline]
    pub fn shard(self, shards: u32) -> Shard {
        debug_assert!(shards.is_power_of_two());
        Shard(((self.0 >> 112) as u32 >> (16 - shards.trailing_zeros())) as u16)
    }
}

/// A shard's number, below the cluster's number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// The secret that turns labels into ids (HighwayHash, 256-bit key), the same on every node of a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SeriesKey(pub [u64; 4]);

impl fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeriesKey(<redacted>)")
    }
}

impl SeriesKey {
    /// The key of a cluster. Derived from its identity, so that every node has the same.
    pub fn of_cluster(cluster: u128) -> SeriesKey {
        let (high, low) = ((cluster >> 64) as u64, cluster as u64);
        // HighwayHash wants 256 bits; the other half is a bijection of the first and adds no strength, nor need it.
        SeriesKey([
            high,
            low,
            high.rotate_left(32) ^ 0x5361_7273_656e_2054,
            low.rotate_left(17) ^ 0x5344_4253_4b65_7973,
        ])
    }

    /// The id of the series with these canonical label bytes.
    #[inline]
    pub fn id(&self, canonical: &[u8]) -> SeriesId {
        let [low, high] = HighwayHasher::new(Key(self.0)).hash128(canonical);
        SeriesId(u128::from(high) << 64 | u128::from(low))
    }
}
