//! A whole group that is away: no pod is replaced, since nothing could run there. After a while its copies are made inside of the other groups, and the
//! database moves them back by itself when the group returns.

use super::action::{Action, Reason, Request};
use super::draft::Draft;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::NodeState;
use crate::api::Grace;
use std::collections::BTreeSet;

/// Has the copies of groups that are away for long made elsewhere.
pub fn heal(draft: &mut Draft) {
    let (observed, spec) = (draft.observed, draft.spec);
    let away: Vec<&str> = spec
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .filter(|group| gates::zone_is_away(observed, spec, group))
        .collect();
    let Some(group) = away.first() else { return };
    let silent: Vec<Instance> = draft
        .instances
        .all
        .values()
        .filter(|instance| instance.group == *group && instance.role != Role::Retired && instance.is_silent())
        .filter(|instance| instance.node.is_some_and(|(_, node)| node.state == NodeState::Up))
        .cloned()
        .collect();
    if silent.is_empty() || draft.is_disruptive() {
        return;
    }
    let Grace::After(grace) = spec.failure_policy.zone_loss_grace else {
        draft.defer(
            "",
            Reason::ZoneAway,
            format!("group {group} is away, and failurePolicy.zoneLossGrace is Never"),
        );
        return;
    };
    // Since the first evidence of each; what has none yet has not been away for long.
    let since = silent
        .iter()
        .map(|instance| instance.claim.and_then(|claim| claim.suspect.as_ref()).map(|suspect| suspect.since));
    let Some(since) = since.collect::<Option<Vec<_>>>().and_then(|since| since.into_iter().max()) else {
        return;
    };
    if !draft.has_lasted(since, grace) {
        let message = format!(
            "group {group} is away; its copies are made in the other groups if that lasts for {grace}"
        );
        draft.defer("", Reason::ZoneAway, message);
        return;
    }
    let database = match gates::database(observed) {
        Ok(database) if away.len() == 1 => database,
        Ok(_) => {
            draft.defer(
                "",
                Reason::ZoneAway,
                "several groups are away: rather what connects them is; bring them back",
            );
            return;
        }
        Err((reason, message)) => {
            draft.defer("", reason, message);
            return;
        }
    };
    let nodes: BTreeSet<&str> =
        silent.iter().filter_map(|instance| instance.node.map(|(id, _)| id)).collect();
    if !draft.may("", [gates::quorum(database, &nodes)]) {
        return;
    }
    draft.tell(
        true,
        "ZoneLost",
        format!("group {group} is away for more than {grace}: its copies are made in the other groups"),
    );
    for node in nodes {
        draft.act(Action::Ask(Request::Heal { node: node.into(), epoch: database.epoch }));
    }
}
