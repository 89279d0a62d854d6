//! The bytes of a placement, in the Raft log, in snapshots and in every node's cache. `docs/placement.md` draws them.
//!
//! Canonical: equal placements have equal bytes, and bytes that an encoder would not write are refused. They carry no checksum of their own:
//! what they are kept in does.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::error::Error;
use super::node::NodeId;
use super::table::{Placement, Replica, ReplicaState};
use model::{Shard, varint};
use std::collections::BTreeSet;

const VERSION: u8 = 2;

impl Placement {
    /// The placement's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let nodes: BTreeSet<NodeId> = self.shards().iter().flatten().map(|r| r.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let mut out = vec![VERSION];
        varint::put(&mut out, self.epoch());
        varint::put(&mut out, nodes.len() as u64);
        nodes.iter().for_each(|node| out.extend(node.0.to_le_bytes()));
        out.push(self.shards().len().trailing_zeros() as u8);
        for (shard, replicas) in self.shards().iter().enumerate() {
            varint::put(&mut out, self.changed(Shard(shard as u16)));
            out.push(replicas.len() as u8);
            for replica in replicas {
                let node = nodes.binary_search(&replica.node).expect("BUG: every node was collected above");
                // A replica that initializes has its source beside it: the one that leaves.
                let state = match replica.state {
                    ReplicaState::Available => 0,
                    ReplicaState::Initializing { .. } => 1,
                    ReplicaState::Leaving => 2,
                    ReplicaState::Arrived => 3,
                };
                varint::put(&mut out, node as u64 * 4 + state);
            }
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader { bytes, rest: bytes };
        let version = reader.byte("a version")?;
        if version != VERSION {
            return Err(Error::Version { got: version, known: VERSION });
        }
        let epoch = reader.varint("an epoch")?;
        let count = reader.varint("a number of nodes")?;
        // 16 bytes each must follow: what is reserved is bounded by what is there.
        if count > (reader.rest.len() / 16) as u64 {
            return Err(reader.malformed("as many node ids as announced"));
        }
        let mut nodes = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let node = reader.node()?;
            if nodes.last().is_some_and(|&last| last >= node) {
                return Err(reader.malformed("node ids in ascending order"));
            }
            nodes.push(node);
        }
        let bits = reader.byte("a number of shards")?;
        if bits > 16 || reader.rest.len() < 2 << bits {
            return Err(reader.malformed("as many shards as announced, at most 2^16"));
        }
        let mut used = vec![false; nodes.len()];
        let mut shards = Vec::with_capacity(1 << bits);
        let mut changed = Vec::with_capacity(1 << bits);
        for _ in 0..1u32 << bits {
            let since = reader.varint("the epoch of a shard's last change")?;
            if since > epoch {
                return Err(reader.malformed("a last change that is not of the future"));
            }
            changed.push(since);
            shards.push(reader.shard(&nodes, &mut used)?);
        }
        if !reader.rest.is_empty() {
            return Err(reader.malformed("the end"));
        }
        if used.contains(&false) {
            return Err(reader.malformed("no node without a replica"));
        }
        Ok(Self::from_parts(epoch, shards, changed))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl Reader<'_> {
    fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed { offset: self.bytes.len() - self.rest.len(), what }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.malformed(what))?;
        self.rest = rest;
        Ok(byte)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, Error> {
        let (value, rest) = varint::take(self.rest).ok_or_else(|| self.malformed(what))?;
        let taken = self.rest.len() - rest.len();
        // A longer form of the same number would make two encodings of one placement.
        if taken > 1 && value >> (7 * (taken - 1)) == 0 {
            return Err(self.malformed("a varint in its shortest form"));
        }
        self.rest = rest;
        Ok(value)
    }

    fn node(&mut self) -> Result<NodeId, Error> {
        let (&id, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed("a node id"))?;
        self.rest = rest;
        Ok(NodeId(u128::from_le_bytes(id)))
    }

    fn shard(&mut self, nodes: &[NodeId], used: &mut [bool]) -> Result<Vec<Replica>, Error> {
        let count = self.byte("a number of replicas")?;
        let mut replicas: Vec<Replica> = Vec::new();
        let (mut initializing, mut arrived, mut leaving) = (0, 0, None);
        for _ in 0..count {
            let value = self.varint("a replica")?;
            let index = usize::try_from(value / 4).unwrap_or(usize::MAX);
            let (Some(&node), Some(used)) = (nodes.get(index), used.get_mut(index)) else {
                return Err(self.malformed("a replica on a node of the table"));
            };
            if replicas.last().is_some_and(|last| last.node >= node) {
                return Err(self.malformed("replicas in ascending order"));
            }
            *used = true;
            let state = match value % 4 {
                0 => ReplicaState::Available,
                1 => {
                    initializing += 1;
                    ReplicaState::Initializing { source: None }
                }
                3 => {
                    arrived += 1;
                    ReplicaState::Arrived
                }
                _ => {
                    if leaving.replace(node).is_some() {
                        return Err(self.malformed("one replica at most that leaves"));
                    }
                    ReplicaState::Leaving
                }
            };
            replicas.push(Replica { node, state });
        }
        if initializing + arrived > 1 {
            return Err(self.malformed("one replica at most that initializes or has arrived"));
        }
        for replica in &mut replicas {
            if let ReplicaState::Initializing { source } = &mut replica.state {
                *source = leaving;
            }
        }
        Ok(replicas)
    }
}
