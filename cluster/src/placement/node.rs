//! Those who hold copies, and the rules for it.

use super::error::Error;
use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::str::FromStr;

/// A node's identity, drawn once and kept in its data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u128);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{self}")
    }
}

/// A failure domain: where a node stands, from the widest to the narrowest, such as `eu/zone-a/rack-3`.
///
/// Paths of different nodes may differ in depth. The empty path is "nothing is known": such a node shares its fate with no
/// other.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Vec<String>);

impl Domain {
    /// Longest path, in bytes: it is in messages and logs.
    pub const BYTES_MAX: usize = 255;

    /// The names on the way down.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    pub(super) fn from_segments(segments: &[String]) -> Self {
        Self(segments.to_vec())
    }

    /// How many names two paths have in common at the start: the higher, the nearer to each other.
    pub fn common_depth(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count()
    }
}

impl FromStr for Domain {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        let bad = |why| Error::Domain { path: path.to_owned(), why };
        if path.len() > Self::BYTES_MAX {
            return Err(bad("is longer than 255 bytes"));
        }
        if path.is_empty() {
            return Ok(Self::default());
        }
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        if segments.iter().any(String::is_empty) {
            return Err(bad("has an empty name"));
        }
        if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("has a space or a control character"));
        }
        Ok(Self(segments))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What placement may expect of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Known, but not yet ready for copies: gets none.
    Joining,
    /// Holds copies and takes more.
    Up,
    /// Away, and expected back: keeps its share, so that a restart moves nothing. Its copies do not count as live.
    Down,
    /// Here, and to be emptied: its copies count as live until others have them.
    Draining,
    /// Away for so long that its copies are made elsewhere, and welcome when it comes back: holds no share until then.
    Lost,
    /// Lost for good, with its copies.
    Gone,
}

impl NodeState {
    /// Whether a node in this state has a share of the copies.
    pub fn has_share(self) -> bool {
        matches!(self, Self::Up | Self::Down)
    }

    /// Whether copies on a node in this state can be read now.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// A member of the cluster, as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is.
    pub id: NodeId,
    /// Where it stands.
    pub domain: Domain,
    /// How much it holds in proportion to the others, in any unit common to all (such as GiB of disk). A node that shall hold
    /// nothing is `Draining`.
    pub capacity: NonZeroU32,
    /// How it is.
    pub state: NodeState,
}

/// What is wanted of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Copies of each shard.
    pub replication_factor: NonZeroU8,
    /// Number of shards: a power of two, at most 65,536, fixed when the cluster is made.
    pub shards: u32,
}

impl Policy {
    pub(super) fn check(self) -> Result<Self, Error> {
        match self.shards.is_power_of_two() && self.shards <= 1 << 16 {
            true => Ok(self),
            false => Err(Error::ShardCount { got: self.shards }),
        }
    }
}
