//! Instances: a claim, its pod, its node in the database and its machine, put together by name.

use super::observed::{
    Claim, Copy, CopyState, Database, Health, Leaving, Machine, Node, NodeState, Observed, Pod,
};
use std::collections::{BTreeMap, BTreeSet};

/// One instance. Its name is never used for another.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its group.
    pub group: &'a str,
    /// What makes it one. `None`: it is gone, though the database still knows the node.
    pub claim: Option<&'a Claim>,
    /// Where it runs.
    pub pod: Option<&'a Pod>,
    /// Its node in the database, by id.
    pub node: Option<(&'a str, &'a Node)>,
    /// What it is for.
    pub role: Role,
}

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is one of those wanted.
    Member,
    /// It is to take the place of another that is not gone yet.
    Newcomer,
    /// It is to go.
    Leaving(Leaving),
    /// It is gone from the placement for ever; what is left of it is collected.
    Retired,
}

/// All instances of a cluster, by name.
pub struct Instances<'a> {
    /// They.
    pub all: BTreeMap<&'a str, Instance<'a>>,
    observed: &'a Observed,
}

impl<'a> Instances<'a> {
    /// Puts together what was seen.
    pub fn of(observed: &'a Observed) -> Instances<'a> {
        let members: BTreeMap<&str, (&str, &Node)> = observed
            .database
            .iter()
            .flat_map(|database| &database.nodes)
            .map(|(id, node)| (node.instance.as_str(), (id.as_str(), node)))
            .collect();
        let is_gone =
            |name: &str| observed.database.as_ref().is_some_and(|database| database.gone.contains(name));
        let retired = |name: &str| {
            let noted = observed.claims.get(name).is_some_and(|claim| claim.retired.is_some());
            !members.contains_key(name) && (noted || is_gone(name))
        };
        let names: BTreeSet<&str> = observed
            .claims
            .keys()
            .chain(observed.pods.keys())
            .map(String::as_str)
            .chain(members.keys().copied())
            .collect();
        let instance = |name: &'a str| {
            let (claim, pod) = (observed.claims.get(name), observed.pods.get(name));
            let group = match (claim, pod) {
                (Some(claim), _) => claim.group.as_str(),
                (None, Some(pod)) => pod.group.as_str(),
                (None, None) => group_of(&observed.name, name),
            };
            let role = match claim {
                _ if retired(name) => Role::Retired,
                // A pod that was made for a claim that is no more.
                None if observed.database.is_some() && !members.contains_key(name) => Role::Retired,
                Some(Claim { leaving: Some(why), .. }) => Role::Leaving(*why),
                Some(Claim { replaces: Some(replaces), .. }) => {
                    // Whoever is neither a member nor claimed any more is as good as gone.
                    let old = replaces.old.as_str();
                    let is_there = members.contains_key(old) || observed.claims.contains_key(old);
                    if is_there && !retired(old) { Role::Newcomer } else { Role::Member }
                }
                _ => Role::Member,
            };
            Instance { name, group, claim, pod, node: members.get(name).copied(), role }
        };
        let all = names.into_iter().map(|name| (name, instance(name))).collect();
        Instances { all, observed }
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Instance<'a>> {
        self.all.get(name)
    }

    /// Those that are wanted, of a group.
    pub fn members(&self, group: &str) -> impl Iterator<Item = &Instance<'a>> {
        self.all.values().filter(move |instance| instance.group == group && instance.role == Role::Member)
    }

    /// The instance that is to take the place of another, or has taken it and has not everything yet.
    pub fn successor(&self, old: &str) -> Option<&Instance<'a>> {
        self.all.values().find(|instance| {
            !matches!(instance.role, Role::Leaving(_) | Role::Retired)
                && instance.claim.and_then(|claim| claim.replaces.as_ref()).is_some_and(|to| to.old == old)
        })
    }

    /// Those that take the place of others, with whom.
    pub fn replacements(&self) -> impl Iterator<Item = (&Instance<'a>, &'a str)> {
        self.all.values().filter_map(|instance| {
            if matches!(instance.role, Role::Leaving(_) | Role::Retired) {
                return None;
            }
            let old = instance.claim?.replaces.as_ref()?.old.as_str();
            Some((instance, old))
        })
    }

    /// The machine that an instance is on, or was on last.
    pub fn machine(&self, instance: &Instance<'a>) -> Option<&'a str> {
        let now = instance.pod.and_then(|pod| pod.machine.as_deref());
        now.or_else(|| instance.claim?.host.as_ref().map(|host| host.name.as_str()))
    }

    /// The Node object of that machine. `None` also if the operator may not look.
    pub fn machine_object(&self, instance: &Instance<'a>) -> Option<&'a Machine> {
        self.observed.machines.as_ref()?.get(self.machine(instance)?)
    }

    /// Whether the machine of an instance can be expected not to answer: then nobody waits for it.
    pub fn machine_is_away(&self, instance: &Instance<'a>) -> bool {
        let (Some(machines), Some(name)) = (&self.observed.machines, self.machine(instance)) else {
            return false;
        };
        machines.get(name).is_none_or(|machine| !machine.ready || machine.out_of_service)
    }
}

impl Instance<'_> {
    /// It is a member that has, or has had, a part of the data: more than a place among those that wait for one.
    pub fn has_part(&self) -> bool {
        self.node.is_some_and(|(_, node)| node.state != NodeState::Standby)
    }

    /// Its pod is ready, and the database hears it.
    pub fn is_well(&self) -> bool {
        self.is_heard() && self.pod.is_some_and(|pod| pod.ready.is_some() && !pod.deleting)
    }

    /// The database hears it.
    pub fn is_heard(&self) -> bool {
        self.node.is_some_and(|(_, node)| node.health == Health::Up)
    }

    /// The database does not hear it, or does not know it.
    pub fn is_silent(&self) -> bool {
        self.node.is_none_or(|(_, node)| node.health == Health::Down)
    }
}

impl Database {
    /// The copies that a node has or is to have.
    pub fn copies<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Copy> {
        self.shards.iter().flatten().filter(move |copy| copy.node == node)
    }

    /// Copies that are being made on a node.
    pub fn initializing(&self, node: &str) -> usize {
        self.copies(node).filter(|copy| copy.state == CopyState::Initializing).count()
    }

    /// Whether a member is heard.
    pub fn hears(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.health == Health::Up)
    }
}

/// The group in an instance's name, `<cluster>-<group>-<serial>`.
pub fn group_of<'a>(cluster: &str, instance: &'a str) -> &'a str {
    let rest = instance.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-')).unwrap_or(instance);
    rest.rsplit_once('-').map_or(rest, |(group, _)| group)
}
