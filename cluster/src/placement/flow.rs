//! Minimum-cost flow.
//!
//! The primal-dual method: potentials keep every residual edge's reduced cost at 0 or above; Dijkstra's algorithm finds the next
//! cheapest length of a path, and Dinic's moves all flow that fits on paths of that length at once. Costs here have few distinct
//! values, so there are few such rounds.
//! The potentials at the end prove that no flow is cheaper: a test checks them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A network: vertices with a surplus or a need, edges with bounds and costs. Every edge is stored next to its reverse.
pub(super) struct Network {
    to: Vec<u32>,
    /// What still fits on the edge.
    room: Vec<u32>,
    /// The lower bound of every edge and the cost of one unit: one each for an edge and its reverse.
    least: Vec<u32>,
    cost: Vec<u32>,
    /// What flows in from outside; out, when negative.
    supply: Vec<i64>,
    potential: Vec<i64>,
}

/// An edge, to ask for its flow later.
#[derive(Clone, Copy)]
pub(super) struct Edge(u32);

/// The bounds of the network cannot be met together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Infeasible;

const FAR: i64 = i64::MAX;

impl Network {
    /// A network of so many vertices.
    pub fn new(vertices: usize) -> Self {
        Self {
            to: Vec::new(),
            room: Vec::new(),
            least: Vec::new(),
            cost: Vec::new(),
            supply: vec![0; vertices],
            potential: Vec::new(),
        }
    }

    /// Lets `amount` flow in at a vertex, or out when it is negative.
    pub fn supply(&mut self, vertex: usize, amount: i64) {
        self.supply[vertex] += amount;
    }

    /// An edge that carries at least `least` and at most `most`, each unit at this cost.
    pub fn edge(&mut self, from: usize, to: usize, least: u32, most: u32, cost: u32) -> Edge {
        let edge = Edge(self.least.len() as u32);
        self.to.extend([to as u32, from as u32]);
        // The least flows in any case: it is a need here and a surplus there.
        self.room.extend([most - least, 0]);
        self.supply[from] -= i64::from(least);
        self.supply[to] += i64::from(least);
        self.least.push(least);
        self.cost.push(cost);
        edge
    }

    /// What flows on the edge.
    pub fn flow(&self, edge: Edge) -> u32 {
        self.least[edge.0 as usize] + self.room[edge.0 as usize * 2 + 1]
    }

    /// Finds the cheapest flow.
    pub fn solve(&mut self) -> Result<(), Infeasible> {
        let (source, sink) = (self.supply.len(), self.supply.len() + 1);
        let supply = std::mem::take(&mut self.supply);
        self.supply = vec![0; supply.len() + 2];
        let mut open = 0;
        for (v, &amount) in supply.iter().enumerate() {
            match amount {
                1.. => drop(self.edge(source, v, 0, amount as u32, 0)),
                0 => {}
                _ => drop(self.edge(v, sink, 0, -amount as u32, 0)),
            }
            open += amount.max(0);
        }
        self.potential = vec![0; self.supply.len()];
        let out = Outgoing::new(self);
        while open > 0 {
            if !self.reprice(&out, source, sink) {
                return Err(Infeasible);
            }
            while let Some(level) = self.levels(&out, source, sink) {
                open -= self.saturate(&out, level, source, sink);
            }
        }
        Ok(())
    }

    /// The cost of an edge given the potentials: 0 on cheapest paths, above elsewhere.
    fn reduced(&self, edge: usize, from: usize) -> i64 {
        let cost = i64::from(self.cost[edge / 2]);
        let cost = if edge & 1 == 0 { cost } else { -cost };
        cost + self.potential[from] - self.potential[self.to[edge] as usize]
    }

    /// Raises the potentials so that the next cheapest paths cost 0. False when no path is left.
    fn reprice(&mut self, out: &Outgoing, source: usize, sink: usize) -> bool {
        let mut distance = vec![FAR; self.potential.len()];
        let mut queue = BinaryHeap::from([(Reverse(0), source)]);
        distance[source] = 0;
        while let Some((Reverse(here), v)) = queue.pop() {
            if here > distance[v] {
                continue;
            }
            // What is farther than the sink need not be known: see below.
            if v == sink {
                break;
            }
            for &edge in out.of(v) {
                let edge = edge as usize;
                let next = self.to[edge] as usize;
                if self.room[edge] > 0 {
                    let there = here + self.reduced(edge, v);
                    if there < distance[next] {
                        distance[next] = there;
                        queue.push((Reverse(there), next));
                    }
                }
            }
        }
        let path = distance[sink];
        if path == FAR {
            return false;
        }
        for (potential, distance) in self.potential.iter_mut().zip(distance) {
            *potential += distance.min(path);
        }
        true
    }

    /// How many edges of cost 0 each vertex is away from the source; `None` when the sink is out of reach.
    fn levels(&self, out: &Outgoing, source: usize, sink: usize) -> Option<Vec<u32>> {
        let mut level = vec![u32::MAX; self.potential.len()];
        let mut queue = VecDeque::from([source]);
        level[source] = 0;
        while let Some(v) = queue.pop_front() {
            for &edge in out.of(v) {
                let edge = edge as usize;
                let next = self.to[edge] as usize;
                if level[next] == u32::MAX && self.room[edge] > 0 && self.reduced(edge, v) == 0 {
                    level[next] = level[v] + 1;
                    if next == sink {
                        return Some(level);
                    }
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Fills the shortest paths of cost 0 until each is blocked; returns how much that was.
    fn saturate(&mut self, out: &Outgoing, mut level: Vec<u32>, source: usize, sink: usize) -> i64 {
        let mut next_edge: Vec<u32> = out.start[..self.potential.len()].to_vec();
        let mut path: Vec<usize> = Vec::new();
        let mut total = 0;
        let mut v = source;
        loop {
            if v == sink {
                let amount = path.iter().map(|&edge| self.room[edge]).min().unwrap_or(0);
                for &edge in &path {
                    self.room[edge] -= amount;
                    self.room[edge ^ 1] += amount;
                }
                total += i64::from(amount);
                // Back to where the path is blocked now.
                let blocked = path.iter().position(|&edge| self.room[edge] == 0).unwrap_or(0);
                v = self.to[path[blocked] ^ 1] as usize;
                path.truncate(blocked);
                continue;
            }
            let usable = |&&edge: &&u32| {
                let (edge, next) = (edge as usize, self.to[edge as usize] as usize);
                self.room[edge] > 0
                    && level[next] != u32::MAX
                    && level[next] == level[v] + 1
                    && self.reduced(edge, v) == 0
            };
            let rest = &out.edges[next_edge[v] as usize..out.start[v + 1] as usize];
            match rest.iter().position(|edge| usable(&edge)) {
                Some(skipped) => {
                    next_edge[v] += skipped as u32;
                    let edge = rest[skipped] as usize;
                    path.push(edge);
                    v = self.to[edge] as usize;
                }
                None => {
                    level[v] = u32::MAX;
                    let Some(edge) = path.pop() else { return total };
                    v = self.to[edge ^ 1] as usize;
                }
            }
        }
    }

    /// Panics unless the potentials prove the flow to be cheapest: no edge with room has a reduced cost below 0.
    #[cfg(test)]
    pub fn assert_cheapest(&self) {
        for edge in (0..self.to.len()).filter(|&edge| self.room[edge] > 0) {
            let from = self.to[edge ^ 1] as usize;
            assert!(self.reduced(edge, from) >= 0, "edge {edge} makes the flow cheaper");
        }
    }
}

/// The edges that leave each vertex, in the order in which they were made.
struct Outgoing {
    start: Vec<u32>,
    edges: Vec<u32>,
}

impl Outgoing {
    fn new(network: &Network) -> Self {
        let mut start = vec![0u32; network.supply.len() + 1];
        let from = |edge: usize| network.to[edge ^ 1] as usize;
        for edge in 0..network.to.len() {
            start[from(edge) + 1] += 1;
        }
        for v in 1..start.len() {
            start[v] += start[v - 1];
        }
        let mut at = start.clone();
        let mut edges = vec![0; network.to.len()];
        for edge in 0..network.to.len() {
            let slot = &mut at[from(edge)];
            edges[*slot as usize] = edge as u32;
            *slot += 1;
        }
        Self { start, edges }
    }

    fn of(&self, vertex: usize) -> &[u32] {
        &self.edges[self.start[vertex] as usize..self.start[vertex + 1] as usize]
    }
}
