//! Where every copy should be.

use super::error::Error;
use super::flow::Network;
use super::node::{Domain, Node, NodeId, NodeState, Policy};
use super::table::{Placement, Replica, ReplicaState};
use super::tree::Tree;
use super::{share, spread};
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

/// What placement is made for: the time and memory of [`compute`] grow with nodes times shards.
const NODES_MAX: usize = 1024;

/// Where every copy should be, and what that was derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The policy that it fulfils.
    pub policy: Policy,
    /// The nodes that it was computed for, ordered by id.
    pub nodes: Vec<Node>,
    /// Who should hold each shard, ordered by id.
    pub shards: Vec<Vec<NodeId>>,
    /// What every failure domain and then every node that takes part should hold, and does. The first is the whole cluster.
    pub loads: Vec<Load>,
    /// Copies of each shard that the nodes can hold between them: the replication factor, unless there are fewer nodes.
    pub copies: usize,
}

/// What a failure domain or a node holds, in copies of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The domain, or that of the node.
    pub domain: Domain,
    /// The node; `None` for the domain as a whole.
    pub node: Option<NodeId>,
    /// Its fair share of all copies, rounded down and up.
    pub fair: RangeInclusive<u64>,
    /// How many copies of any one shard it should hold: the spread. Ends above 1 where there are fewer domains than copies.
    pub per_shard: RangeInclusive<u32>,
    /// What it holds in the target.
    pub copies: u64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "node {node}"),
            None => write!(f, "domain {}", self.domain),
        }
    }
}

impl Target {
    /// Why no shard has its replication factor in copies, in words; `None` when all have.
    pub fn shortfall(&self) -> Option<String> {
        let wanted = usize::from(self.policy.replication_factor.get());
        (self.copies < wanted).then(|| {
            let (have, s) = (self.copies, if self.copies == 1 { "" } else { "s" });
            format!("replication factor {wanted} with {have} node{s} to hold copies: add {}", wanted - have)
        })
    }

    /// The nodes that have a share of the copies, ordered by id.
    pub(super) fn holders(&self) -> Vec<&Node> {
        holders(&self.nodes)
    }
}

fn holders(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().filter(|node| node.state.has_share()).collect()
}

/// Where every copy should be, with the fewest copies made on the way there. See the module for what is promised.
///
/// A replica whose node is not among `nodes` is gone for ever. Where nodes are too few for the replication factor, copies on nodes that drain
/// or may come back stay, since giving them up would lower safety and nothing would be gained.
pub fn compute(old: &Placement, nodes: &[Node], policy: &Policy) -> Result<Target, Error> {
    let policy = policy.check()?;
    let old = &old.settled();
    let have = old.shards().len() as u32;
    if have != policy.shards {
        return Err(Error::ShardsDiffer { have, want: policy.shards });
    }
    if nodes.len() > NODES_MAX {
        return Err(Error::TooManyNodes { got: nodes.len(), max: NODES_MAX });
    }
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|node| node.id);
    if let Some(pair) = nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(Error::DuplicateNode { node: pair[0].id });
    }

    let holders = holders(&nodes);
    let wanted = usize::from(policy.replication_factor.get());
    let copies = wanted.min(holders.len());
    let tree = Tree::new(&holders);
    let capacities: Vec<u32> = holders.iter().map(|node| node.capacity.get()).collect();
    let per_shard = spread::intervals(&tree, copies);
    let fair = share::shares(&tree, &capacities, &per_shard, policy.shards);

    let mut shards = assign(old, &holders, &tree, &per_shard, &fair, copies);
    let mut held = vec![0; holders.len()];
    shards.iter().flatten().for_each(|&node| held[node] += 1);
    let held = tree.sums(held);
    let loads = (0..tree.len()).map(|v| {
        let node = v.checked_sub(tree.leaves().start).map(|leaf| holders[leaf]);
        let domain = node.map_or_else(|| tree.domains[v].clone(), |node| node.domain.clone());
        let (fair, per_shard) = (fair[v].clone(), per_shard[v].clone());
        Load { domain, node: node.map(|node| node.id), fair, per_shard, copies: held[v] }
    });
    let loads = loads.collect();

    let draining = |node: &&Node| matches!(node.state, NodeState::Draining | NodeState::Lost);
    let mut draining: Vec<&Node> = nodes.iter().filter(draining).collect();
    draining.sort_by_key(|node| (node.state, node.id));
    let shards = shards.iter_mut().zip(old.shards()).map(|(chosen, old)| {
        chosen.sort_unstable();
        let mut ids: Vec<NodeId> = chosen.iter().map(|&node| holders[node].id).collect();
        let whole = |r: &&Replica| !matches!(r.state, ReplicaState::Initializing { .. });
        let holds = |node: &&&Node| old.iter().filter(whole).any(|r| r.node == node.id);
        let stay = draining.iter().filter(holds).map(|node| node.id);
        ids.extend(stay.take(wanted - ids.len()));
        ids.sort_unstable();
        ids
    });
    let shards = shards.collect();
    Ok(Target { policy, nodes, shards, loads, copies })
}

/// Chooses nodes (by index) for every shard: a flow from the shards down a copy of the tree each, which keeps to the spread, into the nodes, and
/// from them up the tree once more, which keeps to the shares.
///
/// A unit of flow into a node is a copy there. It costs nothing where the copy exists or is being made, a little where that undoes a move under
/// way, and more than all of those together where it must be made.
fn assign(
    old: &Placement,
    holders: &[&Node],
    tree: &Tree,
    per_shard: &[RangeInclusive<u32>],
    fair: &[RangeInclusive<u64>],
    copies: usize,
) -> Vec<Vec<usize>> {
    let index: HashMap<NodeId, usize> = holders.iter().enumerate().map(|(i, node)| (node.id, i)).collect();
    let (count, domains, first_leaf) = (old.shards().len(), tree.domains.len(), tree.leaves().start);
    let new_copy = (count * copies) as u32 + 1;
    // Vertices: the tree once, then its domains again for each shard.
    let mut network = Network::new(tree.len() + count * domains);
    for (v, fair) in fair.iter().enumerate().skip(1) {
        network.edge(v, tree.parent[v], *fair.start() as u32, *fair.end() as u32, 0);
    }
    network.supply(0, -((count * copies) as i64));

    let mut order: Vec<usize> = (1..tree.len()).collect();
    let mut leaves = vec![None; count * holders.len()];
    for (shard, replicas) in old.shards().iter().enumerate() {
        let domain = |v: usize| tree.len() + shard * domains + v;
        network.supply(domain(0), copies as i64);
        let mut costs = vec![new_copy; holders.len()];
        for replica in replicas {
            if let Some(&node) = index.get(&replica.node) {
                // Of equals, those stay that are there.
                let away = holders[node].state == NodeState::Down;
                costs[node] = u32::from(away || replica.state == ReplicaState::Leaving);
            }
        }
        // Among equals the first edges are filled first. An order of its own for each shard scatters the shards of a node over many
        // peers, so that many help to rebuild it.
        order.sort_unstable_by_key(|&v| (scatter(shard, v), v));
        for &v in &order {
            let (least, most) = (*per_shard[v].start(), *per_shard[v].end());
            let from = domain(tree.parent[v]);
            match v.checked_sub(first_leaf) {
                None => drop(network.edge(from, domain(v), least, most, 0)),
                Some(node) => {
                    let edge = network.edge(from, v, least, most, costs[node]);
                    leaves[shard * holders.len() + node] = Some(edge);
                }
            }
        }
    }
    network.solve().expect("BUG: spread and shares can always be met together");
    #[cfg(test)]
    network.assert_cheapest();
    let chosen = |shard: usize| {
        let edges = &leaves[shard * holders.len()..][..holders.len()];
        let flows = |edge: &Option<_>| edge.is_some_and(|edge| network.flow(edge) > 0);
        (0..holders.len()).filter(|&node| flows(&edges[node])).collect()
    };
    (0..count).map(chosen).collect()
}

/// A fixed permutation of 64 bits (SplitMix64's) that looks random.
fn scatter(shard: usize, vertex: usize) -> u64 {
    let mut z = ((shard as u64) << 32 | vertex as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
