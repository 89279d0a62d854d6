//! Nodes as the leaves of the tree of their failure domains.

use super::node::{Domain, Node};
use std::collections::HashMap;
use std::ops::Range;

/// The tree. Vertex 0 is the root, everything; the other domains follow in the order of their paths; the nodes are the last
/// vertices, in the order of their ids. So a parent's number is below its children's.
pub(super) struct Tree {
    /// The parent of every vertex; the root is its own.
    pub parent: Vec<usize>,
    /// The path of every vertex that is a domain.
    pub domains: Vec<Domain>,
}

impl Tree {
    /// The tree of these nodes, which are ordered by id.
    pub fn new(nodes: &[&Node]) -> Self {
        let mut paths: Vec<&[String]> = vec![&[]];
        for node in nodes {
            let path = node.domain.segments();
            paths.extend((1..=path.len()).map(|depth| &path[..depth]));
        }
        // Slices order by the first difference, so that a domain comes before those inside it.
        paths.sort_unstable();
        paths.dedup();
        let number: HashMap<&[String], usize> =
            paths.iter().enumerate().map(|(i, &path)| (path, i)).collect();
        let up = |path: &&[String]| path.split_last().map_or(0, |(_, above)| number[above]);
        let mut parent: Vec<usize> = paths.iter().map(up).collect();
        parent.extend(nodes.iter().map(|node| number[node.domain.segments()]));
        let domains = paths.iter().map(|path| Domain::from_segments(path)).collect();
        Self { parent, domains }
    }

    /// Number of vertices.
    pub fn len(&self) -> usize {
        self.parent.len()
    }

    /// The vertices that are nodes.
    pub fn leaves(&self) -> Range<usize> {
        self.domains.len()..self.len()
    }

    /// The vertex of the node with this index.
    pub fn leaf(&self, node: usize) -> usize {
        self.domains.len() + node
    }

    /// The vertices from the one below the root down to `vertex`.
    pub fn path(&self, mut vertex: usize) -> Vec<usize> {
        let mut path = Vec::new();
        while vertex != 0 {
            path.push(vertex);
            vertex = self.parent[vertex];
        }
        path.reverse();
        path
    }

    /// Adds up what the leaves have, for every vertex.
    pub fn sums(&self, leaves: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut sums = vec![0; self.len()];
        for (vertex, amount) in self.leaves().zip(leaves) {
            sums[vertex] = amount;
        }
        for vertex in (1..self.len()).rev() {
            sums[self.parent[vertex]] += sums[vertex];
        }
        sums
    }
}
