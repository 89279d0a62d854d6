//! Why a specification cannot work, as far as the API server cannot know it, and what would help.

use super::evidence::pinned;
use super::instances::Instances;
use super::observed::{Machine, Observed};
use super::quantity::{bytes, thousandths};
use super::rollout;
use crate::api::{ClusterSpec, Group, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong.
pub fn problems(observed: &Observed, spec: &ClusterSpec, instances: &Instances) -> Vec<String> {
    let mut problems = observed.wanted.problems.clone();
    let groups = spec.groups.iter().filter(|group| group.nodes > 0).count();
    let factor = usize::from(spec.replication_factor);
    if groups < factor {
        problems.push(format!(
            "{groups} groups have nodes and every shard has {factor} copies, each in another group: add groups, or give nodes to those that have none"
        ));
    }
    for group in &spec.groups {
        // Nothing is made for a group without nodes.
        if group.nodes > 0 || instances.members(&group.name).next().is_some() {
            let found = [
                size(spec, instances, group),
                class(observed, spec, group),
                machines(observed, instances, group),
                room(observed, spec, instances, group),
                fit(observed, spec, instances, group),
            ];
            problems.extend(found.into_iter().flatten().map(|what| format!("group {}: {what}", group.name)));
        }
    }
    problems
}

fn size(spec: &ClusterSpec, instances: &Instances, group: &Group) -> Option<String> {
    let wanted = &spec.storage_of(&group.name).size;
    let Some(size) = bytes(wanted).filter(|size| *size > 0) else {
        return Some(format!("storage.size {:?} is no size such as 100Gi", wanted.0));
    };
    let mut claims = instances.members(&group.name).filter_map(|instance| instance.claim);
    let larger = claims.find(|claim| claim.requested > size)?;
    Some(format!(
        "storage.size {} is less than the {} bytes that its claims have: a volume cannot shrink; say at least as much",
        wanted.0, larger.requested
    ))
}

fn class(observed: &Observed, spec: &ClusterSpec, group: &Group) -> Option<String> {
    let classes = observed.classes.as_ref()?;
    match &spec.storage_of(&group.name).storage_class_name {
        Some(class) if !classes.contains_key(class) => {
            let there = match list(&classes.keys().map(String::as_str).collect()) {
                none if none.is_empty() => "there are none".into(),
                there => format!("there are {there}"),
            };
            Some(format!("there is no storage class {class:?}; {there}"))
        }
        None if !classes.values().any(|class| class.is_default) => {
            Some("no storage class is the default one: set storage.storageClassName".into())
        }
        _ => None,
    }
}

/// The machines that a group may use by where they stand.
fn of_group<'a>(observed: &'a Observed, group: &Group) -> Option<Vec<&'a Machine>> {
    let stands_there = |machine: &&Machine| {
        group.topology.as_ref().is_none_or(|Topology { key, values }| {
            machine.labels.get(key).is_some_and(|value| values.contains(value))
        })
    };
    Some(observed.machines.as_ref()?.values().filter(stands_there).collect())
}

/// Where that is, in words: `zone=a or b`.
fn place(topology: &Topology) -> String {
    format!("{}={}", topology.key, topology.values.join(" or "))
}

fn machines(observed: &Observed, instances: &Instances, group: &Group) -> Option<String> {
    let topology = group.topology.as_ref()?;
    let there = of_group(observed, group)?.len();
    // Machines that are away for a while are no reason to call the specification wrong.
    let members = instances.members(&group.name).count();
    if there >= group.nodes as usize || members >= group.nodes as usize {
        return None;
    }
    let (wanted, key, place) = (group.nodes, &topology.key, place(topology));
    let all = observed.machines.as_ref()?.values();
    let known: BTreeSet<&str> =
        all.filter_map(|machine| machine.labels.get(key)).map(String::as_str).collect();
    Some(match (there, known.is_empty()) {
        (0, true) => format!("no machine has the label {key}: label the machines, or set topology.key"),
        (0, false) => format!(
            "no machine has {place}; there are {}: correct topology.values, or add machines",
            list(&known)
        ),
        (there, _) => format!(
            "each node needs a machine of its own, {wanted} are wanted and {there} have {place}: add machines, or want fewer nodes"
        ),
    })
}

/// What pods ask for and a machine does not have, in words. A machine that says nothing of what it has may have it.
fn lacks(spec: &ClusterSpec, group: &Group, machine: &Machine) -> Option<String> {
    let selector = &spec.pod_template.node_selector;
    if let Some((label, value)) =
        selector.iter().find(|(label, value)| machine.labels.get(*label) != Some(*value))
    {
        return Some(format!(
            "has not the label {label}={value} of podTemplate.nodeSelector: correct that, or label the machine"
        ));
    }
    let resources = group.resources.as_ref().or(spec.resources.as_ref())?;
    // What is limited and not asked for is asked for, as the API server does it.
    let mut asked: BTreeMap<_, _> = resources.limits.clone().unwrap_or_default();
    asked.extend(resources.requests.clone().unwrap_or_default());
    asked.iter().filter(|_| !machine.allocatable.is_empty()).find_map(|(resource, asked)| {
        let there = machine.allocatable.get(resource);
        let is_enough = there.and_then(thousandths).unwrap_or(0) >= thousandths(asked).unwrap_or(0);
        let there = there.map_or("0", |there| &there.0);
        (!is_enough).then(|| {
            format!(
                "has {there} of {resource}, and each node asks for {}: ask for less in resources",
                asked.0
            )
        })
    })
}

/// No machine of the group would take a new pod.
fn room(observed: &Observed, spec: &ClusterSpec, instances: &Instances, group: &Group) -> Option<String> {
    if instances.members(&group.name).count() >= group.nodes as usize {
        return None;
    }
    let mut machines = of_group(observed, group)?.into_iter();
    let first = lacks(spec, group, machines.next()?)?;
    let place =
        group.topology.as_ref().map(|topology| format!(" with {}", place(topology))).unwrap_or_default();
    machines
        .all(|machine| lacks(spec, group, machine).is_some())
        .then(|| format!("no machine{place} would take a pod; the first {first}, or add machines"))
}

/// A pod that is to be made anew would not fit where its volume is. It is not taken down for that.
fn fit(observed: &Observed, spec: &ClusterSpec, instances: &Instances, group: &Group) -> Option<String> {
    let outdated = instances.members(&group.name).filter(|member| rollout::is_outdated(observed, member));
    let mut bound = outdated.filter(|member| pinned(observed, member) == Some(true));
    bound.find_map(|member| {
        let lacks = lacks(spec, group, instances.machine_object(member)?)?;
        let (name, machine) = (member.name, instances.machine(member)?);
        Some(format!(
            "the volume of {name} is on machine {machine}, which {lacks}, or have it replaced on another machine: \
             kubectl annotate pvc {} {}=true",
            crate::render::names::claim(name),
            crate::api::names::REPLACE,
        ))
    })
}

/// Words that exist; of many, the first ones.
fn list(words: &BTreeSet<&str>) -> String {
    const MAX: usize = 10;
    let first: Vec<&str> = words.iter().copied().take(MAX).collect();
    let more = if words.len() > MAX { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}
