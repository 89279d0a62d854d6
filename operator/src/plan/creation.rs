//! The database is created once in its life.
//!
//! ```text
//! one that waits is chosen: its claim says so ─► it is told to ─► others join and take their share ─► every shard has all its copies ─►
//! claims say which database they are of: it is founded ─► readiness gates open: somebody may write
//! ```
//!
//! Who creates it is written on a claim before it is told to, so that no two ever are. And that it is founded is written on claims before anybody is let write, so that
//! **as long as no claim says so, nobody has written anything**. Who is lost until then may be one of the few who decide, or have the only copy of a shard, and nobody
//! could bring that back. But nothing is lost with it: such an attempt is void, everything that belongs to it goes, and it is begun anew.

use super::action::{Action, Note, Reason, Request};
use super::draft::Draft;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::{Answer, Contents, Copy, CopyState, Database, Leaving, NodeState};
use super::replace;
use crate::api::{Group, names::REPLACE};
use crate::render::names::claim;
use std::collections::BTreeSet;

/// Whether there is, or was, a database that somebody may have written to. What was not so at its beginning is put right before.
pub fn is_founded(draft: &Draft) -> bool {
    let is_noted = |instance: &Instance| match instance.claim.map(|claim| (&claim.contents, &claim.volume)) {
        Some((Contents::Of(_), _)) => true,
        // It may have been made from a backup.
        Some((Contents::Unknown, Some(_))) => !waits(instance),
        _ => false,
    };
    let is_open = |instance: &Instance| instance.pod.is_some_and(|pod| pod.gate == Some(true));
    let instances = &draft.instances.all;
    let database = draft.observed.database.as_ref().filter(|database| database.has_leader);
    instances.values().any(|instance| is_noted(instance) || is_open(instance))
        || (database.is_some_and(has_all_copies) && has_all_groups(draft))
}

/// Whether there is a group for every copy. Before, nobody is to write: it would be on too few disks.
pub fn has_all_groups(draft: &Draft) -> bool {
    // One that is lost has been there: then the others have its copies, or are to have them.
    let has_part =
        |instance: &&Instance| instance.node.is_some_and(|(_, node)| node.state != NodeState::Standby);
    let groups: BTreeSet<&str> =
        draft.instances.all.values().filter(has_part).map(|instance| instance.group).collect();
    groups.len() >= usize::from(draft.spec.replication_factor)
}

fn has_all_copies(database: &Database) -> bool {
    let is_live = |copy: &&Copy| copy.state == CopyState::Available && database.hears(&copy.node);
    database.shards.iter().all(|copies| copies.iter().filter(is_live).count() >= database.factor)
}

/// Whether nothing is lost with anybody: nobody was ever let write, and there is no database that can go on by itself, or without those that are lost.
pub fn is_void(draft: &Draft) -> bool {
    let Some(database) = draft.observed.database.as_ref().filter(|database| database.has_leader) else {
        return !draft.is_founded;
    };
    let is_lost = |instance: &&Instance| {
        let is_suspect = draft.evidence.contains_key(instance.name);
        (is_suspect || is_abandoned(instance)) && !instance.is_heard()
    };
    let is_needed =
        |lost: &Instance| lost.node.is_some_and(|(id, _)| gates::quorum(database, &[id].into()).is_err());
    !draft.is_founded && draft.instances.all.values().filter(is_lost).any(is_needed)
}

/// Whether an attempt that is void is being cleared away. Until that is over nobody new comes: it would only join what goes.
pub fn is_ending(draft: &Draft) -> bool {
    draft.is_void && draft.instances.all.values().any(is_abandoned)
}

fn is_abandoned(instance: &Instance) -> bool {
    instance.role == Role::Leaving(Leaving::Abandoned)
}

/// Whether an instance goes, or has gone.
fn is_given_up(instance: &Instance) -> bool {
    matches!(instance.role, Role::Leaving(_) | Role::Retired)
}

/// Whether an instance that nobody has given up may be part of an attempt that is void: it has a volume, and does not say that it waits for a database.
fn may_belong(instance: &Instance) -> bool {
    let has_volume = instance.claim.is_some_and(|claim| claim.volume.is_some());
    has_volume && !waits(instance) && !is_given_up(instance)
}

fn waits(instance: &Instance) -> bool {
    instance.pod.is_some_and(|pod| pod.answer == Some(Answer::Waiting))
}

fn says_that_it_belongs(instance: &Instance) -> bool {
    instance.pod.is_some_and(|pod| matches!(pod.answer, Some(Answer::Belongs(_))))
}

fn belongs(instance: &Instance) -> bool {
    (says_that_it_belongs(instance) || instance.node.is_some()) && !is_given_up(instance)
}

/// Whether the claims of those that were given up may be deleted: until then they tell that the attempt is void, also to those who come back.
pub fn is_over(draft: &Draft) -> bool {
    !draft.instances.all.values().any(may_belong)
}

/// Creates the database, or sees to it that it can be created anew.
pub fn advance(draft: &mut Draft) {
    if !draft.is_void {
        return;
    }
    let instances = || draft.instances.all.values();
    let lost = instances().find(|instance| is_abandoned(instance)).cloned();
    let members: Vec<Instance> = instances().filter(|instance| belongs(instance)).cloned().collect();
    let chosen = instances()
        .find(|instance| instance.role != Role::Retired && instance.claim.is_some_and(|claim| claim.creates))
        .cloned();
    let can_create = |instance: &&Instance| {
        let stays = !is_given_up(instance) && instance.pod.is_some_and(|pod| !pod.deleting);
        stays && waits(instance) && !draft.evidence.contains_key(instance.name)
    };
    match (&lost, members.as_slice(), &chosen) {
        (Some(lost), [_, ..], _) => {
            for member in &members {
                let why = format!("{} is lost, and nobody was let write yet: all begins anew", lost.name);
                replace::abandon(draft, member, &why);
            }
        }
        (None, [member, ..], _) => stands_still(draft, member),
        (_, [], Some(chosen)) if can_create(&chosen) => {
            draft.act(Action::Ask(Request::Create { instance: chosen.name.into() }));
        }
        (_, [], Some(_)) => {}
        (_, [], None) => {
            let mut groups = draft.spec.groups.iter();
            let first = groups.find_map(|Group { name, .. }| draft.instances.members(name).find(can_create));
            if let Some(first) = first.cloned() {
                draft.note(&first, Note::Create);
            }
        }
    }
}

/// There is a database, and nobody decides in it. In a moment there may be; but if those who do are lost and nobody sees it, only a person can know.
fn stands_still(draft: &mut Draft, member: &Instance) {
    let is_away = |instance: &&Instance| {
        let has_part = instance.node.is_some() || instance.claim.is_some_and(|claim| claim.creates);
        let answers = says_that_it_belongs(instance) || instance.is_heard();
        has_part && !answers && !is_given_up(instance)
    };
    let Some(away) = draft.instances.all.values().find(is_away) else { return };
    let message = format!(
        "{} belongs to a database in which nobody decides, and that nobody was let write to: bring back {}, or have it begun anew: \
         kubectl annotate pvc {} {REPLACE}=true",
        member.name,
        away.name,
        claim(away.name),
    );
    draft.defer("", Reason::DatabaseSilent, message);
}
