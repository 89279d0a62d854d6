//! When a node that does not answer is taken for lost, so that its copies are made elsewhere; and when not.
//!
//! A node is *lost* when nobody has heard of it for the grace period: neither the leader, which gets heartbeats, nor any node that the leader hears. It
//! comes back by answering. Making the copies of many nodes elsewhere because a switch failed would be worse than waiting, so there are brakes:
//!
//! * at most a given share of the nodes may seem dead at once;
//! * one failure domain at a time: those of another wait until the copies of the first have been made;
//! * nothing is declared while the autopilot is paused, or somebody outside holds the lease.
//!
//! Nothing of this touches what is agreed on by itself: it is what the leader proposes.

use crate::placement::{Domain, NodeId, NodeState};
use std::fmt;

/// How long, and how much at most.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Since when a node answers no more before it is lost.
    pub grace_ms: u64,
    /// The greatest share of all nodes that may seem dead for any to be declared lost, in percent.
    pub dead_percent_max: u32,
}

/// A member as the leader sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// Where it stands.
    pub domain: Domain,
    /// What is agreed on.
    pub state: NodeState,
    /// For how long the leader has not heard of it, if so long that it is down.
    pub silent_ms: Option<u64>,
    /// A node that the leader hears has heard of it lately.
    pub seen_by: Option<NodeId>,
    /// It answers, in the run that is registered, and knows what is agreed on.
    pub follows: bool,
    /// Copies that it holds have yet to be made elsewhere.
    pub is_healing: bool,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Wait,
    /// It has not been heard of for too long.
    Lost(NodeId),
    /// It is there again.
    Back(NodeId),
    /// Somebody would be lost, but.
    Held(Brake),
}

/// Why nobody is declared lost although somebody is overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brake {
    /// A person has paused the autopilot.
    Paused,
    /// Somebody outside heals this cluster.
    Lease(String),
    /// Too many seem dead at once: it is more likely that something between the nodes is.
    TooMany {
        /// Nodes that seem dead.
        dead: usize,
        /// Nodes in all.
        nodes: usize,
        /// As configured.
        percent_max: u32,
    },
    /// Another failure domain is being healed.
    Domain(Domain),
    /// Others still hear it.
    Seen {
        /// Whom the leader does not hear.
        node: NodeId,
        /// Who does.
        by: NodeId,
    },
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Brake::Paused => {
                write!(f, "the autopilot is paused; resume it with `sarsen cluster autopilot resume`")
            }
            Brake::Lease(holder) => write!(f, "{holder} holds the lease, so that it is to heal this cluster"),
            Brake::TooMany { dead, nodes, percent_max } => write!(
                f,
                "{dead} of {nodes} nodes seem dead, more than {percent_max} %: rather the network between them is; bring them back, or remove those that \
                 are lost with `sarsen cluster remove ID --lost`"
            ),
            Brake::Domain(domain) => write!(f, "copies of {domain} are made elsewhere first"),
            Brake::Seen { node, by } => write!(f, "node {by} still hears node {node}"),
        }
    }
}

/// Whom to declare lost, or found again, if anybody.
pub fn judge(members: &[Member], policy: &Policy, brake: Option<Brake>) -> Verdict {
    if let Some(back) = members.iter().find(|member| member.state == NodeState::Lost && member.follows) {
        return Verdict::Back(back.id);
    }
    let counts = |member: &&Member| member.state != NodeState::Joining;
    let overdue = |member: &&Member| {
        member.state == NodeState::Up && member.silent_ms.is_some_and(|silent| silent >= policy.grace_ms)
    };
    // Who is silent for longest is first; its domain with it.
    let mut late: Vec<&Member> = members.iter().filter(overdue).collect();
    late.sort_by_key(|member| (std::cmp::Reverse(member.silent_ms), member.id));
    if late.is_empty() {
        return Verdict::Wait;
    }
    if let Some(brake) = brake {
        return Verdict::Held(brake);
    }
    let nodes = members.iter().filter(counts).count();
    let dead = members.iter().filter(counts).filter(|member| member.silent_ms.is_some()).count();
    if dead > 1 && dead * 100 > nodes * policy.dead_percent_max as usize {
        return Verdict::Held(Brake::TooMany { dead, nodes, percent_max: policy.dead_percent_max });
    }
    let healing = members.iter().find(|member| member.state == NodeState::Lost && member.is_healing);
    let mut held = Verdict::Wait;
    for member in late {
        let apart =
            healing.filter(|healing| !shares_fate(&healing.domain, &member.domain, healing.id == member.id));
        match (member.seen_by, apart) {
            (Some(by), _) => held = Verdict::Held(Brake::Seen { node: member.id, by }),
            (None, Some(healing)) => held = Verdict::Held(Brake::Domain(healing.domain.clone())),
            (None, None) => return Verdict::Lost(member.id),
        }
    }
    held
}

/// Whether two nodes stand in the same of the widest domains. Of a node of which nothing is known nothing is shared.
fn shares_fate(a: &Domain, b: &Domain, same_node: bool) -> bool {
    same_node || a.segments().first().is_some_and(|first| b.segments().first() == Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { grace_ms: 900_000, dead_percent_max: 40 };

    /// Six nodes in three zones, two each; 1 and 2 in a, 3 and 4 in b, 5 and 6 in c.
    fn six() -> Vec<Member> {
        let member = |id: u128| Member {
            id: NodeId(id),
            domain: ["a", "b", "c"][(id as usize - 1) / 2].parse().unwrap(),
            state: NodeState::Up,
            silent_ms: None,
            seen_by: None,
            follows: true,
            is_healing: false,
        };
        (1..=6).map(member).collect()
    }

    fn silent(members: &mut [Member], id: usize, ms: u64) {
        (members[id - 1].silent_ms, members[id - 1].follows) = (Some(ms), false);
    }

    fn lost(members: &mut [Member], id: usize) {
        silent(members, id, 1_000_000);
        (members[id - 1].state, members[id - 1].is_healing) = (NodeState::Lost, true);
    }

    #[test]
    fn a_node_is_lost_after_the_grace_and_not_before() {
        let mut all = six();
        silent(&mut all, 3, 899_999);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Wait);
        silent(&mut all, 3, 900_000);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(3)));
    }

    #[test]
    fn whoever_answers_again_is_back_whatever_holds() {
        let mut all = six();
        lost(&mut all, 3);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Wait);
        all[2].follows = true;
        assert_eq!(judge(&all, &POLICY, Some(Brake::Paused)), Verdict::Back(NodeId(3)));
    }

    #[test]
    fn nobody_is_lost_while_paused_or_while_another_heals() {
        let mut all = six();
        silent(&mut all, 3, 900_000);
        assert_eq!(judge(&all, &POLICY, Some(Brake::Paused)), Verdict::Held(Brake::Paused));
        let lease = Brake::Lease("operator".into());
        assert_eq!(judge(&all, &POLICY, Some(lease.clone())), Verdict::Held(lease));
    }

    #[test]
    fn a_zone_may_be_lost_and_more_may_not() {
        let mut all = six();
        silent(&mut all, 3, 900_001);
        silent(&mut all, 4, 900_000);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(3)));
        lost(&mut all, 3);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(4)), "the other one of the zone");
        // A third one has been silent for a moment only, and that is enough to wait.
        silent(&mut all, 5, 11_000);
        let brake = Brake::TooMany { dead: 3, nodes: 6, percent_max: 40 };
        assert_eq!(judge(&all, &POLICY, None), Verdict::Held(brake));
    }

    #[test]
    fn one_domain_is_healed_after_the_other() {
        let mut all = six();
        lost(&mut all, 3);
        silent(&mut all, 5, 900_000);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Held(Brake::Domain("b".parse().unwrap())));
        all[2].is_healing = false;
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(5)));
    }

    #[test]
    fn whom_others_hear_is_not_lost() {
        let mut all = six();
        silent(&mut all, 3, 2_000_000);
        all[2].seen_by = Some(NodeId(5));
        let brake = Brake::Seen { node: NodeId(3), by: NodeId(5) };
        assert_eq!(judge(&all, &POLICY, None), Verdict::Held(brake));
        silent(&mut all, 4, 900_000);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(4)), "that one is");
    }

    #[test]
    fn one_of_two_may_be_lost() {
        let mut all = six();
        all.retain(|member| member.id.0 == 1 || member.id.0 == 3);
        (all[1].silent_ms, all[1].follows) = (Some(900_000), false);
        assert_eq!(judge(&all, &POLICY, None), Verdict::Lost(NodeId(3)));
    }
}
