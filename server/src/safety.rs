//! The question that a person has first: is my data safe, and what would lose it?

use cluster::placement::{NodeId, NodeState, Replica, ReplicaState};
use cluster::quorum::{Consistency, readers};
use cluster::view::{Health, Peer, View};
use model::Shard;

/// How safe the data of a cluster is, from well to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// Every shard has all the copies that are wanted.
    Safe,
    /// There are fewer copies than wanted. Everything can be read and written.
    Degraded,
    /// Shards lack a majority of their copies.
    Unavailable,
}

impl Safety {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Safety::Safe => "safe",
            Safety::Degraded => "degraded",
            Safety::Unavailable => "unavailable",
        }
    }
}

/// The state of a node in one word: what is agreed on, and what is believed where that is worse.
pub fn state(peer: &Peer) -> &'static str {
    match (peer.state, peer.health) {
        (NodeState::Joining, _) => "joining",
        (NodeState::Draining, Health::Up) => "draining",
        (NodeState::Gone, _) => "gone",
        (NodeState::Lost, _) => "lost",
        (NodeState::Down, _) | (_, Health::Down) => "down",
        (_, Health::Suspect) => "suspect",
        (NodeState::Up, Health::Up) => "up",
    }
}

/// Copies of a shard: live, listed, and how many are a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// That seem to be there.
    pub live: usize,
    /// That hold everything, as the placement says.
    pub listed: usize,
    /// That reads need.
    pub need: usize,
    /// So many more may be lost before writes or reads stop: while the shard moves, writes need its old and its new copies.
    pub spare: usize,
}

/// The copies of each shard.
pub fn copies(view: &View) -> Vec<Copies> {
    let up = |node: NodeId| view.nodes.get(&node).is_some_and(|peer| peer.health != Health::Down);
    let live = |set: &[NodeId]| set.iter().filter(|node| up(**node)).count();
    let of = |(shard, replicas): (usize, &Vec<Replica>)| {
        let (may, need) = readers(replicas, Consistency::Majority);
        let old = view.placement.old_replicas(Shard(shard as u16));
        let stays = replicas.iter().filter(|replica| replica.state != ReplicaState::Leaving);
        let new: Vec<NodeId> = stays.map(|replica| replica.node).collect();
        let sets =
            [&may, &old, &new].map(|set| live(set).saturating_sub(Consistency::Majority.need(set.len())));
        Copies { live: live(&may), listed: may.len(), need, spare: sets.into_iter().min().unwrap_or(0) }
    };
    view.placement.shards().iter().enumerate().map(of).collect()
}

/// The answer, and a sentence that says what is so and what would make it better.
pub fn assess(view: &View) -> (Safety, String) {
    let copies = copies(view);
    let wanted = usize::from(view.replication_factor);
    let (total, (_, unavailable)) = (copies.len(), view.under_replicated());
    let fewest = copies.iter().map(|c| c.live).min().unwrap_or(0);
    let away: Vec<String> = view
        .nodes
        .iter()
        .filter(|(id, peer)| peer.health == Health::Down && !view.held_by(**id).is_empty())
        .map(|(id, peer)| format!("{} ({})", id, peer.address))
        .collect();
    let away = match away.len() {
        0 => String::new(),
        1 => format!("node {} is down", away[0]),
        n => format!("{n} nodes are down: {}", away.join(", ")),
    };
    if unavailable > 0 {
        let why = if away.is_empty() { "too few nodes answer".to_string() } else { away };
        return (
            Safety::Unavailable,
            format!(
                "{unavailable} of {total} shards lack a majority of their copies, since {why}. Their writes and majority reads \
                 answer 503 until it is back; nothing that was acknowledged is lost"
            ),
        );
    }
    if fewest < wanted {
        let short = copies.iter().filter(|c| c.live < wanted).count();
        let nodes = view.nodes.len();
        let why = if !away.is_empty() {
            format!("{away}; when it is back, it gets what it missed")
        } else if nodes < wanted {
            format!("{nodes} of {wanted} nodes are there; add nodes with `sarsen server --join`")
        } else {
            match view.placement.moving().count() {
                0 => "copies are to be made".to_string(),
                1 => "copies are being made, of 1 shard now".to_string(),
                n => format!("copies are being made, of {n} shards now"),
            }
        };
        let one = if fewest == 1 { "losing one disk can lose data" } else { "no single loss loses data" };
        return (
            Safety::Degraded,
            format!(
                "{short} of {total} shards have {fewest} of {wanted} copies: {one}. Reads and writes work; {why}"
            ),
        );
    }
    let spare = copies.iter().map(|c| c.spare).min().unwrap_or(0);
    let spare = match spare {
        0 => "no node can be lost without stopping writes and reads of its shards".to_string(),
        1 => "any one node can be lost without losing or stopping anything".to_string(),
        n => format!("any {n} nodes can be lost without losing or stopping anything"),
    };
    let each = if wanted == 1 { "its one copy".to_string() } else { format!("its {wanted} copies") };
    (Safety::Safe, format!("every shard has {each}: {spare}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cluster::placement::{Change, Domain, Node, Placement, Policy, compute};
    use std::num::{NonZeroU8, NonZeroU32};

    /// A cluster of `nodes` nodes with 8 shards, of which `holders` hold them and `down` do not answer.
    pub(crate) fn view(nodes: u128, holders: u128, factor: u8, down: &[u128]) -> View {
        let member = |id| Node {
            id: NodeId(id),
            domain: Domain::default(),
            capacity: NonZeroU32::MIN,
            state: NodeState::Up,
        };
        let members: Vec<Node> = (1..=holders).map(member).collect();
        let replication_factor = NonZeroU8::new(factor).unwrap();
        let empty = Placement::empty(8).unwrap();
        let target = compute(&empty, &members, &Policy { replication_factor, shards: 8 }).unwrap();
        let peer = |id: u128| Peer {
            address: format!("10.0.0.{id}:7421"),
            http_address: format!("10.0.0.{id}:7420"),
            zone: Domain::default(),
            capacity: 1,
            state: NodeState::Up,
            health: if down.contains(&id) { Health::Down } else { Health::Up },
            starts: 1,
        };
        let nodes = (1..=nodes).map(|id| (NodeId(id), peer(id))).collect();
        View { nodes, ..View::at_rest(1, NodeId(1), &members, factor, empty.adopt(&target)) }
    }

    fn told(view: View) -> String {
        let (safety, text) = assess(&view);
        format!("{}: {text}", safety.word())
    }

    #[test]
    fn the_first_line_says_what_is_so_and_what_to_do() {
        assert_eq!(
            told(view(3, 3, 3, &[])),
            "safe: every shard has its 3 copies: any one node can be lost without losing or stopping anything"
        );
        assert_eq!(
            told(view(1, 1, 3, &[])),
            "degraded: 8 of 8 shards have 1 of 3 copies: losing one disk can lose data. Reads and writes work; \
             1 of 3 nodes are there; add nodes with `sarsen server --join`"
        );
        assert_eq!(
            told(view(3, 3, 3, &[2])),
            "degraded: 8 of 8 shards have 2 of 3 copies: no single loss loses data. Reads and writes work; \
             node 2 (10.0.0.2:7421) is down; when it is back, it gets what it missed"
        );
        // Two have joined and are about to get their shares.
        assert!(told(view(3, 1, 3, &[])).ends_with("copies are to be made"));
        let mut growing = view(3, 1, 3, &[]);
        let begin = [0, 1].map(|n| Change::Begin { shard: Shard(n), from: None, to: Some(NodeId(2)) });
        growing.placement = growing.placement.change(&begin).unwrap();
        assert_eq!(
            told(growing.clone()),
            "degraded: 8 of 8 shards have 1 of 3 copies: losing one disk can lose data. Reads and writes work; \
             copies are being made, of 2 shards now"
        );
        // Writes of a shard that gets its second copy need both.
        growing.nodes.get_mut(&NodeId(2)).unwrap().health = Health::Down;
        assert!(told(growing).starts_with("unavailable: 2 of 8 shards"));
        let dark = told(view(3, 3, 3, &[2, 3]));
        assert!(dark.starts_with("unavailable: 8 of 8 shards lack a majority"), "{dark}");
        assert!(
            dark.contains("10.0.0.2:7421") && dark.contains("10.0.0.3:7421") && dark.contains("503"),
            "{dark}"
        );
        assert!(
            told(view(1, 1, 1, &[])).starts_with("safe: every shard has its one copy: no node can be lost")
        );
        assert!(
            told(view(5, 5, 5, &[])).ends_with("any 2 nodes can be lost without losing or stopping anything")
        );
    }

    #[test]
    fn a_node_is_as_bad_as_the_worse_of_what_is_agreed_and_what_is_believed() {
        let of = |state_of, health| {
            let view = view(1, 1, 1, &[]);
            let peer = Peer { state: state_of, health, ..view.nodes[&NodeId(1)].clone() };
            state(&peer)
        };
        assert_eq!(of(NodeState::Up, Health::Up), "up");
        assert_eq!(of(NodeState::Up, Health::Suspect), "suspect");
        assert_eq!(of(NodeState::Up, Health::Down), "down");
        assert_eq!(of(NodeState::Draining, Health::Down), "down");
        assert_eq!(of(NodeState::Joining, Health::Up), "joining");
    }
}
