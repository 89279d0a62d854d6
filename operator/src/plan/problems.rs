//! Why a specification cannot work, as far as the API server cannot know it, and what would help.

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

/// Words for them: ` with zone=a or b`.
fn place(group: &Group) -> String {
    let place = |topology: &Topology| format!(" with {}={}", topology.key, topology.values.join(" or "));
    group.topology.as_ref().map(place).unwrap_or_default()
}

fn machines(observed: &Observed, instances: &Instances, group: &Group) -> Option<String> {
    let topology = group.topology.as_ref()?;
    let there = of_group(observed, group)?.len();
    // Machines that are away for a while are no reason to call the specification wrong.
    let members = instances.members(&group.name).count();
    if there >= group.nodes as usize || members >= group.nodes as usize {
        return None;
    }
    let (wanted, key) = (group.nodes, &topology.key);
    let values = topology.values.join(" or ");
    let all = observed.machines.as_ref()?.values();
    let known: BTreeSet<&str> =
        all.filter_map(|machine| machine.labels.get(key)).map(String::as_str).collect();
    Some(match (there, known.is_empty()) {
        (0, true) => format!("no machine has the label {key}: label the machines, or set topology.key"),
        (0, false) => format!(
            "no machine has {key}={values}; there are {}: correct topology.values, or add machines",
            list(&known)
        ),
        (there, _) => format!(
            "each node needs a machine of its own, {wanted} are wanted and {there} have {key}={values}: add machines, or want fewer nodes"
        ),
    })
}

/// Pods that no machine of theirs would take. Only if some are to be made: what runs where it is needs no room.
fn room(observed: &Observed, spec: &ClusterSpec, instances: &Instances, group: &Group) -> Option<String> {
    let members: Vec<_> = instances.members(&group.name).collect();
    let is_settled = members.len() >= group.nodes as usize
        && members.iter().all(|member| member.pod.is_some() && !rollout::is_outdated(observed, member));
    let machines = of_group(observed, group).filter(|machines| !is_settled && !machines.is_empty())?;
    let selector = &spec.pod_template.node_selector;
    let is_selected =
        |machine: &&&Machine| selector.iter().all(|(label, value)| machine.labels.get(label) == Some(value));
    let selected: Vec<&Machine> = machines.iter().filter(is_selected).copied().collect();
    if selected.is_empty() {
        let labels: Vec<String> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
        return Some(format!(
            "no machine{} has all labels of podTemplate.nodeSelector, {}: correct them, or label machines",
            place(group),
            labels.join(" and ")
        ));
    }
    let resources = group.resources.as_ref().or(spec.resources.as_ref())?;
    // What is limited and not asked for is asked for, as the API server does it.
    let mut asked: BTreeMap<_, _> = resources.limits.clone().unwrap_or_default();
    asked.extend(resources.requests.clone().unwrap_or_default());
    let is_enough = |machine: &&Machine| {
        asked.iter().all(|(resource, asked)| {
            let there = machine.allocatable.get(resource).and_then(thousandths);
            // A machine that says nothing of what it has may have it.
            machine.allocatable.is_empty() || there.unwrap_or(0) >= thousandths(asked).unwrap_or(0)
        })
    };
    if selected.iter().any(is_enough) {
        return None;
    }
    let asked: Vec<String> = asked
        .iter()
        .map(|(resource, asked)| {
            let most = selected
                .iter()
                .filter_map(|machine| machine.allocatable.get(resource))
                .max_by_key(|there| thousandths(there));
            format!("{} of {resource} (the most that one has: {})", asked.0, most.map_or("0", |most| &most.0))
        })
        .collect();
    Some(format!(
        "no machine{} has what each node asks for, {}: ask for less in resources, or add larger machines",
        place(group),
        asked.join(" and ")
    ))
}

/// Words that exist; of many, the first ones.
fn list(words: &BTreeSet<&str>) -> String {
    const MAX: usize = 10;
    let first: Vec<&str> = words.iter().copied().take(MAX).collect();
    let more = if words.len() > MAX { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}
